"""Numbers as JSON has them: rounded, and None for what is not finite."""

from __future__ import annotations

import math


def number(value, digits: int) -> float | None:
    """Rounded to so many decimals; None if it is NaN or infinite, as JSON knows neither."""
    value = float(value)
    return round(value, digits) if math.isfinite(value) else None


def numbers(values, digits: int) -> list[float | None]:
    """`number` of each."""
    return [number(value, digits) for value in values]


def box_list(box) -> list[float | None]:
    """A box in hundredths of a pixel."""
    return numbers(box, 2)


def whole(values) -> list[int]:
    """Whole numbers."""
    return [int(value) for value in values]
