"""What bilinear interpolation must do."""

from __future__ import annotations

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import cells, draw_slopes, pick, quarter, ramp, whole


@holds(
    "bilinear", "answers", "one finite number for each channel",
    "Index with `features[row, column]`, which keeps the axis of channels; the answer has shape (C,).",
)  # fmt: skip
def bilinear_answers(bilinear, draw):
    features = cells(draw, 3, 3, whole(draw, 1, 3))
    bilinear(features, quarter(draw, 0.5, 1.75), quarter(draw, 0.5, 1.75))  # the border comes below


@holds(
    "bilinear", "x and y", "on a map that changes from column to column only, y changes nothing",
    "x and y are exchanged: rows come first in an array and go with y, `features[y, x]`.",
)  # fmt: skip
def bilinear_axes(bilinear, draw):
    features, x = ramp(5, 5, 0, 1), quarter(draw, 0, 3.75)
    here = bilinear(features, quarter(draw, 0, 3.75), x)
    agree(bilinear(features, quarter(draw, 0, 3.75), x), here, "your own answer for another y")


@holds(
    "bilinear", "between cells", "on a ramp, every quarter of a step from cell to cell is a quarter of the rise",
    "Each cell is weighed by the distance to the *other* one (near means heavy), and coordinates are not rounded.",
)  # fmt: skip
def bilinear_weights(bilinear, draw):
    slope_y, slope_x = draw_slopes(draw)
    features, row, column = ramp(5, 5, slope_y, slope_x), whole(draw, 0, 3), whole(draw, 0, 3)
    # Both points lie inside of one square of cells: a shift of everything by half a pixel is not the matter here.
    y, x, dy, dx = row + pick(draw, 0.5, 0.625), column + 0.5, pick(draw, 0, 0.125), pick(draw, 0.125, 0.25)
    here = bilinear(features, y, x)
    why = f"your own answer for y={y}, x={x}, plus {slope_y} x {dy} + {slope_x} x {dx}"
    agree(bilinear(features, y + dy, x + dx), here + slope_y * dy + slope_x * dx, why)


@holds(
    "bilinear", "on a cell", "at whole coordinates it is the value of that cell",
    "The value of cell i sits at coordinate i: no half pixel is taken off or added here.",
)  # fmt: skip
def bilinear_cells(bilinear, draw):
    features = cells(draw, 3, 3, 1)
    row, column = whole(draw, 0, 1), whole(draw, 0, 1)
    agree(bilinear(features, float(row), float(column)), features[row, column])


@holds(
    "bilinear", "at the border", "in the last row and column, and outside of the map, the nearest border cells count",
    "Clamp the coordinates to 0 .. height - 1 and 0 .. width - 1 before cutting off: a negative index counts from the "
    "other end, and `int()` cuts off toward zero.",
)  # fmt: skip
def bilinear_border(bilinear, draw):
    height, width = whole(draw, 1, 3), whole(draw, 1, 3)
    features = cells(draw, height, width, 1)
    y, x = quarter(draw, -2, height + 1), quarter(draw, -2, width + 1)
    agree(bilinear(features, y, x), reference.interpolate_bilinear(features, y, x))


@holds("bilinear", "textbook", "any map, any point: the textbook's value", "Go through the four weights by hand.")
def bilinear_reference(bilinear, draw):
    features = cells(draw, 3, 4, 2)
    y, x = quarter(draw, 0, 2), quarter(draw, 0, 3)
    agree(bilinear(features, y, x), reference.interpolate_bilinear(features, y, x))
