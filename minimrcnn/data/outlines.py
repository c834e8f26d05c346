"""Circles, ellipses and rectangles as polygons, which is what a COCO file has for them."""

from __future__ import annotations

import math

import numpy as np

from minimrcnn.data.rows import wanted_number
from minimrcnn.errors import DataError
from minimrcnn.geometry.run_lengths import FURTHEST

DEVIATION = 0.05  # pixels between a circle and its polygon, at most
MOST_CORNERS = 720


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """The four corners, ``x1, y1, x2, y2, ...``."""
    if not (width > 0 and height > 0):
        raise DataError(f"the rectangle is {width} wide and {height} high, wanted both above 0; draw it again")
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, angle: float = 0.0) -> list[float]:
    """The corners of a polygon that leaves an ellipse nowhere by more than a twentieth of a pixel.

    A chord of a circle of radius r that spans the angle 2 pi / n is r (1 - cos(pi / n)) away from it, at most
    r pi^2 / (2 n^2).

    Parameters
    ----------
    x, y : float
        The center, in pixels.
    radius_x, radius_y : float
        Along the axes before turning.
    angle : float
        Radians, clockwise as it is seen, since y points down.
    """
    if not (radius_x > 0 and radius_y > 0):
        raise DataError(f"the radii are {radius_x:g} and {radius_y:g}, wanted both above 0; draw it again")
    largest = min(max(radius_x, radius_y), FURTHEST)
    corners = min(max(math.ceil(math.pi * math.sqrt(largest / (2 * DEVIATION))), 12), MOST_CORNERS)
    turn = np.arange(corners) * (2 * np.pi / corners)  # (P,)
    along, across = radius_x * np.cos(turn), radius_y * np.sin(turn)  # (P,)
    points = np.stack(
        [
            x + along * math.cos(angle) - across * math.sin(angle),
            y + along * math.sin(angle) + across * math.cos(angle),
        ],
        axis=1,
    )  # (P, 2)
    return points.round(3).ravel().tolist()


def polygon(xs: list, ys: list) -> list[float]:
    """Points as ``x1, y1, x2, y2, ...``; a last point that only closes the polygon by repeating the first is dropped.

    Raises
    ------
    DataError
        Fewer than three points are left, or a coordinate is no finite number.
    """
    if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
        raise DataError("the coordinates are not two lists of one length; export the annotations again")
    points = [(wanted_number({"x": x}, "x"), wanted_number({"y": y}, "y")) for x, y in zip(xs, ys, strict=True)]
    while len(points) > 1 and points[0] == points[-1]:
        points.pop()
    if len(points) < 3:
        raise DataError(f"the polygon has {len(points)} points, wanted 3 or more; draw it again, or remove it")
    return [coordinate for point in points for coordinate in point]
