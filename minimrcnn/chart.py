"""Curves as SVG, text in a page: drawn in milliseconds, sharp at any size, and in the colors of the page around."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

import numpy as np

WIDTH, HEIGHT = 440, 250  # of the drawing, in units of its own: on a phone about a pixel each
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 26  # margins
DIGIT = 8.4  # the width of one in a wide font
MOST_STEPS = 7  # named below the axis: they have up to six digits
MOST_POINTS = 300  # of a curve
COLORS = ("currentColor", "#3a8fcf", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#8f7fd0")  # seen on white and black


def draw_chart(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], words: str, logarithmic: bool = False, until: int = 0
) -> str:
    """Curves over steps, with axes and a legend.

    Parameters
    ----------
    curves : mapping of names to (steps (P,), values (P,))
        The first one is drawn bold. Values that are not finite, or not positive on a logarithmic axis, leave gaps.
    words : str
        The chart's caption.
    logarithmic : bool
        Else the values' axis begins at 0.
    until : int
        The steps' axis goes from 1 to at least this; by default from the first to the last step of the curves.

    Returns
    -------
    str
        A ``<figure>`` of HTML.
    """
    curves = {name: thin(*curve, logarithmic) for name, curve in curves.items()}
    known = np.concatenate([values[np.isfinite(values)] for _, values in curves.values()] or [np.zeros(0)])
    if not len(known):
        return ""
    first = min(int(steps[0]) for steps, _ in curves.values() if len(steps))
    last = max(until, *(int(steps[-1]) for steps, _ in curves.values() if len(steps)))
    first = 1 if until else first
    rows = logarithmic_ticks(known.min(), known.max()) if logarithmic else linear_ticks(0, known.max() or 1)
    columns = linear_ticks(first, last, least=1)
    columns = columns[:: 2 if len(columns) > MOST_STEPS else 1]

    def across(step):
        return LEFT + (step - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)

    def down(value):
        low, high, value = np.log([rows[0], rows[-1], value]) if logarithmic else (rows[0], rows[-1], value)
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in rows:
        y = down(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity=".2"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in columns:
        if first <= step <= last:
            x = min(across(step), WIDTH - len(f"{step:g}") * DIGIT / 2)  # the last one is not cut off
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{step:g}</text>')
    for (steps, values), color in zip(curves.values(), choose_colors(len(curves)), strict=True):
        width = 2.4 if color == COLORS[0] else 1.5
        points = [(across(s), down(v) if np.isfinite(v) else None) for s, v in zip(steps, values, strict=True)]
        path = "".join(
            f"{'M' if k == 0 or points[k - 1][1] is None else 'L'}{x:.1f} {y:.1f}"
            for k, (x, y) in enumerate(points) if y is not None
        )  # fmt: skip
        parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}"/>')
        if len(points) <= 30:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>' for x, y in points if y is not None]
    legend = " ".join(
        f'<span style="white-space:nowrap"><span style="color:{color}">&#9632;</span> {escape(name)}</span>'
        for name, color in zip(curves, choose_colors(len(curves)), strict=True)
    )
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">{"".join(parts)}</svg>'
    return f"<figure>{drawing}<figcaption>{escape(words)}<br>{legend}</figcaption></figure>"


def thin(steps: np.ndarray, values: np.ndarray, logarithmic: bool) -> tuple[np.ndarray, np.ndarray]:
    """At most 300 points: means over equal numbers of steps; NaN where nothing can be drawn."""
    steps, values = np.asarray(steps, np.float64), np.array(values, np.float64)
    values[~np.isfinite(values) | (values <= 0 if logarithmic else False)] = np.nan
    size = -(-len(values) // MOST_POINTS)
    if size <= 1:
        return steps, values
    starts = np.arange(0, len(values), size)
    known = np.add.reduceat(np.isfinite(values), starts, dtype=np.int64)
    sums = np.add.reduceat(np.nan_to_num(values), starts)
    ends = np.append(starts[1:], len(values)) - 1
    return steps[ends], np.where(known > 0, sums / np.maximum(known, 1), np.nan)


def linear_ticks(low: float, high: float, least: float = 0) -> list[float]:
    """Some round numbers, ``least`` apart or more, the first not above ``low`` and the last not below ``high``."""
    width = max(high - low, 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(width))
    step = max((factor * power for factor in (1, 2, 5) if factor * power <= width * (1 + 1e-9)), default=power)
    step = max(step, least)
    return [float(f"{number * step:.9g}") for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, over a short range 2 and 5 times them as well, from not above ``low`` to not below ``high``."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    factors = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    ticks = [float(f"{factor * 10.0**power:.9g}") for power in powers for factor in factors]
    first = max(k for k, tick in enumerate(ticks) if tick <= low)
    last = min((k for k, tick in enumerate(ticks) if tick >= high), default=len(ticks) - 1)
    return ticks[first : max(last, first + 1) + 1]


def choose_colors(count: int) -> list[str]:
    """Of so many curves; the first, which stands out, shares its color with none."""
    return [COLORS[k] if k < len(COLORS) else COLORS[1 + (k - 1) % (len(COLORS) - 1)] for k in range(count)]
