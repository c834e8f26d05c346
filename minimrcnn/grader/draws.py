"""What the properties draw: small maps of small whole numbers, boxes in quarters of a cell.

Hypothesis shrinks what it draws toward 0, so that a failing example ends up as a map of zeros with the one cell in it
that matters. Quarters are exact in float32, too, and so are halves of them: where what is computed has a step, no
example hangs on a rounding error. (Thirds are drawn only where it has none.)
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

# The article's example of RoI pooling.
ARTICLE = np.array(
    """
    0.88 0.44 0.14 0.16 0.37 0.77 0.96 0.27
    0.19 0.45 0.57 0.16 0.63 0.29 0.71 0.70
    0.66 0.26 0.82 0.64 0.54 0.73 0.59 0.26
    0.85 0.34 0.76 0.84 0.29 0.75 0.62 0.25
    0.32 0.74 0.21 0.39 0.34 0.03 0.33 0.48
    0.20 0.14 0.16 0.13 0.73 0.65 0.96 0.32
    0.19 0.69 0.09 0.86 0.88 0.07 0.01 0.48
    0.83 0.24 0.97 0.04 0.24 0.35 0.50 0.91
    """.split(),
    float,
).reshape(1, 8, 8, 1)


def whole(draw, low: int, high: int) -> int:
    return draw(st.integers(low, high))


def quarter(draw, low: float, high: float) -> float:
    """A multiple of 1/4."""
    return draw(st.integers(math.ceil(low * 4), math.floor(high * 4))) / 4


def pick(draw, *options):
    """One of some values; shrinks to the first."""
    return draw(st.sampled_from(options))


def flip(draw) -> bool:
    return draw(st.booleans())


def cells(draw, *shape: int, low: int = 0, high: int = 9) -> np.ndarray:
    """An array of whole numbers; drawn as bytes, as that many single numbers take Hypothesis far longer."""
    count = math.prod(shape)
    drawn = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8).astype(float)
    smallest = max(low, 0)  # what a byte of 0 stands for
    return (drawn + smallest - low).reshape(shape) % (high - low + 1) + low


def ramp(height: int, width: int, slope_y: float, slope_x: float) -> np.ndarray:
    """A map (height, width, 1) that rises by ``slope_y`` from row to row and by ``slope_x`` from column to column."""
    rows, columns = np.mgrid[:height, :width]
    return (slope_y * rows + slope_x * columns)[:, :, None].astype(float)


def draw_slopes(draw) -> tuple[int, int]:
    """Of a ramp that is not flat."""
    return draw(st.sampled_from([(0, 1), (1, 0), (1, 2), (3, 1)]))


def draw_box(draw, low: float, high: float, least: float, most: float = math.inf) -> list[float]:
    """x1, y1, x2, y2 in quarters from ``low`` to ``high``, with sides from ``least`` to ``most``."""
    corners = [quarter(draw, low, high - least) for _ in range(2)]
    return corners + [quarter(draw, start + least, min(high, start + most)) for start in corners]


def whole_box(draw, low: int, high: int, least: int = 1) -> list[int]:
    """x1, y1, x2, y2 in whole numbers from ``low`` to ``high``, with sides of at least ``least``."""
    corners = [whole(draw, low, high - least) for _ in range(2)]
    return corners + [whole(draw, start + least, high) for start in corners]


def as_rois(*boxes, image: int = 0) -> np.ndarray:
    """RoIs (R, 5) of boxes in one picture."""
    return np.array([[image, *box] for box in boxes], float).reshape(-1, 5)
