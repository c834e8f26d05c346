"""What anchors and the choice of a pyramid level must do (Ren et al. 2015, 3.1.1; Lin et al. 2017, equation 1)."""

from __future__ import annotations

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, agree_exactly, holds
from minimrcnn.grader.draws import draw_box, pick, whole

# ------------------------------------------------------------------------------------------------------------- levels


def sized(width, height, x=0.0, y=0.0):
    """One box (1, 4)."""
    return np.array([[x, y, x + width, y + height]], float)


@holds(
    "assign_levels", "answers", "(R,) whole numbers of an integer type, also for no boxes",
    "np.floor gives floats: .astype(np.int64).",
)  # fmt: skip
def levels_answers(assign_levels, draw):
    count = whole(draw, 0, 3)
    assign_levels(np.array([[0, 0, 224, 224]] * count, float).reshape(count, 4))


@holds(
    "assign_levels", "octaves", "a square of 224 goes to level 4, half of it to 3, a quarter to 2, twice to 5",
    "4 + log2(sqrt(width x height) / 224): the logarithm to base 2, of a side and not of an area. Answer 2 to 5, not "
    "the level's place in a list.",
)  # fmt: skip
def levels_octaves(assign_levels, draw):
    level, x = pick(draw, 4, 3, 2, 5), whole(draw, 0, 50)
    side = 224 * 2.0 ** (level - 4)
    agree_exactly(assign_levels(sized(side, side, x, x)), [level])


@holds(
    "assign_levels", "area", "only the area counts: a long box goes where the square of its area goes",
    "The side is sqrt(width x height), not the longer, the shorter, or the mean of the two.",
)  # fmt: skip
def levels_area(assign_levels, draw):
    side, stretch = pick(draw, 224, 112, 448, 56), pick(draw, 2, 0.5, 4, 0.25)
    expected = assign_levels(sized(side, side))
    agree_exactly(assign_levels(sized(side * stretch, side / stretch)), expected)


@holds(
    "assign_levels", "rounded down", "a side of 112 to 223 goes to level 3, not to the nearest",
    "floor, neither round nor ceil, and width is x2 - x1, without + 1.",
)  # fmt: skip
def levels_floor(assign_levels, draw):
    side, octave = whole(draw, 57, 111), pick(draw, 0, 1, 2)
    agree_exactly(assign_levels(sized(side * 2**octave, side * 2**octave)), [2 + octave])


@holds(
    "assign_levels", "limits", "nothing goes below level 2 or above level 5",
    "Clip to 2 .. 5: these are the levels that RoIs are cut from.",
)  # fmt: skip
def levels_limits(assign_levels, draw):
    side = pick(draw, 20, 4, 1, 1000, 2000)
    agree_exactly(assign_levels(sized(side, side)), [2 if side < 224 else 5])


@holds(
    "assign_levels", "epsilon", "a side of 223.9999, which is 224 but for rounding, goes to level 4",
    "Add 1e-6 before rounding down, as torchvision does.",
)  # fmt: skip
def levels_epsilon(assign_levels, draw):
    agree_exactly(assign_levels(sized(223.9999, 223.9999)), [4])


@holds(
    "assign_levels", "no area", "a box of no area goes to the lowest level",
    "log2(0) is minus infinity, or an error.",
)  # fmt: skip
def levels_no_area(assign_levels, draw):
    agree_exactly(assign_levels(sized(*pick(draw, (0, 0), (5, 0), (0, 9)))), [2])


@holds(
    "assign_levels", "textbook", "any boxes: the textbook's levels", "Compare with minimrcnn.reference.assign_level."
)
def levels_reference(assign_levels, draw):
    boxes = np.array([draw_box(draw, 0, 900, 4) for _ in range(whole(draw, 1, 3))])
    agree_exactly(assign_levels(boxes), [reference.assign_level(box) for box in boxes])


# ------------------------------------------------------------------------------------------------------------ anchors


def draw_map(draw):
    """(rows, columns) of a level, and an image size, of which a part of a stride may be left over on each axis."""
    level = whole(draw, 1, 3), whole(draw, 1, 3)
    left_over = [whole(draw, 0, cells - 1) for cells in level]
    return level, (level[0] * pick(draw, 4, 8) + left_over[0], level[1] * pick(draw, 4, 8, 16) + left_over[1])


def about_zero(width, height):
    """One anchor (1, 4)."""
    return [[-width / 2, -height / 2, width / 2, height / 2]]


@holds(
    "make_anchors", "answers", "(height x width x ratios, 4) finite numbers",
    "One row for each cell and ratio: reshape(-1, 4) at the end.",
)  # fmt: skip
def anchors_answers(make_anchors, draw):
    (level, image), ratios = draw_map(draw), (1.0, 0.5, 2.0)[: whole(draw, 1, 3)]
    make_anchors(32, ratios, level, image)


@holds(
    "make_anchors", "first center", "the anchors of the first cell lie about its upper left corner, (0, 0)",
    "From -width / 2 to +width / 2: neither from 0 to width, nor about the middle of the cell.",
)  # fmt: skip
def anchors_center(make_anchors, draw):
    (level, image), size = draw_map(draw), 4 * whole(draw, 1, 16)
    got = make_anchors(size, (1.0,), level, image)
    agree(got[:1], [[-size / 2, -size / 2, size / 2, size / 2]])


@holds(
    "make_anchors", "stride", "every cell has its anchors, one stride apart: image_size // level_size on each axis",
    "x goes with columns and the width, y with rows and the height; strides in whole pixels (//), which may differ.",
)  # fmt: skip
def anchors_stride(make_anchors, draw):
    level, image = draw_map(draw)
    got = make_anchors(16, (1.0,), level, image)
    expected = reference.make_anchors(16, (1.0,), level, image)
    agree(got[np.lexsort(got.T[::-1])], expected[np.lexsort(expected.T[::-1])], "in ascending order, as yours are here")


@holds(
    "make_anchors", "ratio", "the ratio is height over width: at 4, anchors are four times as high as wide",
    "width = size / sqrt(ratio), height = size x sqrt(ratio).",
)  # fmt: skip
def anchors_ratio(make_anchors, draw):
    size, ratio = 8 * whole(draw, 1, 16), pick(draw, 4.0, 0.25)
    got = make_anchors(size, (ratio,), (1, 1), (64, 64))
    width = float(got[0, 2] - got[0, 0])
    agree(got, about_zero(width, width * ratio), "as wide as yours, and the ratio as high")


@holds(
    "make_anchors", "area", "anchors of all ratios have the area size x size",
    "width = size / sqrt(ratio), height = size x sqrt(ratio): the root is taken on both.",
)  # fmt: skip
def anchors_area(make_anchors, draw):
    size, ratio = 8 * whole(draw, 1, 16), pick(draw, 1.0, 4.0, 0.25)
    agree(make_anchors(size, (ratio,), (1, 1), (64, 64)), about_zero(size / ratio**0.5, size * ratio**0.5))


@holds(
    "make_anchors", "whole pixels", "corners are rounded to whole pixels, halves to the even one: 22.5 to 22",
    "Round the corners -width / 2, width / 2 and so on (not width and height), before the cell's place is added; "
    "np.round brings halves to the even neighbor, floor(x + 0.5) does not.",
)  # fmt: skip
def anchors_rounded(make_anchors, draw):
    size, ratio = pick(draw, 32, 64, 128, 256, 512, 20, 45), pick(draw, 0.5, 2.0, 1.0)
    agree(make_anchors(size, (ratio,), (1, 1), (64, 64)), reference.make_anchors(size, (ratio,), (1, 1), (64, 64)))


@holds(
    "make_anchors", "order", "row by row, in a row column by column, in a cell ratio by ratio",
    "The ratio changes fastest, then x, then y: the order in which the network's output (H, W, A) is flattened.",
)  # fmt: skip
def anchors_order(make_anchors, draw):
    (level, image), ratios = draw_map(draw), pick(draw, (1.0,), (4.0, 1.0), (0.5, 1.0, 2.0))
    agree(make_anchors(32, ratios, level, image), reference.make_anchors(32, ratios, level, image))


@holds(
    "make_anchors", "torchvision", "the cell of size 32: [-23,-11,23,11], [-16,-16,16,16], [-11,-23,11,23]", "By hand."
)
def anchors_torchvision(make_anchors, draw):
    got = make_anchors(32, (0.5, 1.0, 2.0), (1, 1), (32, 32))
    agree(got, [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]])
