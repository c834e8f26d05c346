"""What pasting a mask into its picture must do (He et al. 2017, section 3.1, with torchvision's rules of pixels).

The mask head draws M x M cells over a box. They are stretched over the pixels of that box, and fade out around it.
Masks have 1, 2 or 4 cells a side here, so that a cell of a box in quarters of a pixel is exact.
"""

from __future__ import annotations

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import cells, draw_box, flip, pick, quarter, whole, whole_box


def draw_masks(draw, count, side, least=0):
    """Probabilities in quarters."""
    return cells(draw, count, side, side, low=least, high=4) / 4


def as_boxes(*boxes):
    return np.array(boxes, float).reshape(-1, 4)


def narrow(left, top, right, bottom):
    """The box (1, 4) of a mask of 2 x 2 cells that is widened to these corners."""
    cell_x, cell_y = (right - left) / 4, (bottom - top) / 4
    return as_boxes([left + cell_x, top + cell_y, right - cell_x, bottom - cell_y])


def draw_reach(draw, low=0, high=6):
    """Whole corners (left, top, right, bottom) of a widened box."""
    left, top = whole(draw, low, high - 3), whole(draw, low, high - 3)
    return [left, top, whole(draw, left + 1, left + 3), whole(draw, top + 1, top + 3)]


@holds(
    "paste_masks", "answers", "(N, height, width) finite numbers, also for no masks at all",
    "Begin with np.zeros((len(masks), height, width)), with height and width in the order of `image_size`.",
)  # fmt: skip
def paste_masks_answers(paste_masks, draw):
    count, side = whole(draw, 0, 2), pick(draw, 2, 1, 4)
    boxes = as_boxes(*[[1, 1, 1 + whole(draw, 1, 2), 1 + whole(draw, 1, 2)] for _ in range(count)])
    paste_masks(np.full((count, side, side), 0.5), boxes, (whole(draw, 6, 8), whole(draw, 6, 8)))


@holds(
    "paste_masks", "x and y", "a box 2 pixels further to the right puts the same 2 columns further to the right",
    "A box is x1, y1, x2, y2: two corners, no width and height, and x goes with the columns of the picture. The mask "
    "is stretched over its box, not over the picture.",
)  # fmt: skip
def paste_masks_moves(paste_masks, draw):
    side, (dx, dy), size = pick(draw, 1, 2), pick(draw, (2, 0), (0, 2), (1, 2)), (9, 9)
    mask = draw_masks(draw, 1, side, least=1)
    box = np.array([2, 2, 2 + whole(draw, side, 2), 2 + whole(draw, side, 2)])  # widened, its corners are whole
    before = paste_masks(mask, as_boxes(box), size)
    got = paste_masks(mask, as_boxes(box + [dx, dy, dx, dy]), size)
    why = f"your own of the box {box.tolist()}, moved {dx} to the right and {dy} down"
    agree(got, np.roll(before, (dy, dx), (1, 2)), why)


@holds(
    "paste_masks", "constant", "a mask that is the same everywhere is that in the middle of its box, too",
    "What is returned are probabilities, as they are: not rounded, not compared with 0.5. Between equal cells, "
    "interpolation gives what they have.",
)  # fmt: skip
def paste_masks_constant(paste_masks, draw):
    value, x, y = whole(draw, 1, 4) / 4, whole(draw, 2, 3), whole(draw, 2, 3)
    got = paste_masks(np.full((1, 4, 4), value), as_boxes([x, y, x + 4, y + 4]), (9, 9))
    expected = got.astype(float)
    expected[0, y + 1 : y + 4, x + 1 : x + 4] = value
    agree(got, expected, f"your own, but {value:g} in the middle of the box")


@holds(
    "paste_masks", "its own picture", "several masks are pasted as each of them alone, into a picture of its own",
    "Mask n belongs to box n and to picture n of the answer: begin each anew, and index all three with n.",
)  # fmt: skip
def paste_masks_own(paste_masks, draw):
    count, side = whole(draw, 2, 3), pick(draw, 1, 2)
    masks = draw_masks(draw, count, side, least=1)
    boxes = as_boxes(*[whole_box(draw, 1, 4) for _ in range(count)])
    alone = [paste_masks(masks[n : n + 1], boxes[n : n + 1], (6, 6))[0] for n in range(count)]
    agree(paste_masks(masks, boxes, (6, 6)), np.array(alone), "your own answers for each mask alone")


@holds(
    "paste_masks", "fades out", "a cell of the mask away from its box, and farther, there is nothing",
    "Surround the mask with a row and a column of zeros on each side before it is stretched; pixels that this padded "
    "mask does not reach stay 0.",
)  # fmt: skip
def paste_masks_fades(paste_masks, draw):
    side, x, y = pick(draw, 1, 2), whole(draw, 2, 3), whole(draw, 2, 3)
    width, height = whole(draw, side, 2), whole(draw, side, 2)
    box, cell_x, cell_y = np.array([x, y, x + width, y + height]), width // side, height // side
    got = paste_masks(np.ones((1, side, side)), as_boxes(box), (8, 8))
    left, top, right, bottom = box + [-cell_x, -cell_y, cell_x, cell_y]
    rows, columns = np.mgrid[:8, :8]
    # How many pixels there are is asked later, so nothing is said of the row and the column in which the box ends.
    near = (columns > left) & (columns <= right) & (rows > top) & (rows <= bottom)
    why = f"your own, but 0 in row {top} and column {left}, and outside of the widened box"
    agree(got, np.where(near, got, 0), why)


@holds(
    "paste_masks", "upright", "row 0 of a mask is its upper end, column 0 its left one",
    "masks[n, i, j] is the cell of row i and column j, and i goes with y: neither turned around, nor transposed.",
)  # fmt: skip
def paste_masks_upright(paste_masks, draw):
    quarters, x, y = draw_masks(draw, 1, 2)[0], whole(draw, 2, 3), whole(draw, 2, 3)
    got = paste_masks(np.kron(quarters, np.ones((2, 2)))[None], as_boxes([x, y, x + 4, y + 4]), (9, 9))
    expected, middles = got.astype(float), np.ix_([0], [y + 1, y + 3], [x + 1, x + 3])
    expected[middles] = np.where(np.abs(got[middles] - quarters) < 0.2, got[middles], quarters)
    agree(got, expected, "your own, but in the middle of each quarter of the box what the mask has there, about")


@holds(
    "paste_masks", "between cells", "from the middle of one cell to that of the next it changes in equal steps",
    "A pixel reads the mask between its cells, as `bilinear` does: not the nearest cell, and no whole numbers.",
)  # fmt: skip
def paste_masks_between(paste_masks, draw):
    steps, turned = np.arange(4) * pick(draw, 0.25, 0.125), flip(draw)
    if flip(draw):
        steps = steps[::-1]
    mask, box = np.tile(steps, (4, 1)), [2, 4, 8, 6]
    if turned:
        mask, box = mask.T, [4, 2, 6, 8]
    got = paste_masks(mask[None], as_boxes(box), (10, 10))
    expected = got.astype(float)
    along = expected.swapaxes(1, 2) if turned else expected  # it is to change from column to column of this
    along[:, :, 5] = (along[:, :, 4] + along[:, :, 6]) / 2
    agree(got, expected, f"your own, but {'row' if turned else 'column'} 5 halfway between those beside it")


@holds(
    "paste_masks", "widened", "around the box, where a padded mask of ones fades out, it is not yet 0",
    "With its border of zeros the mask is two cells wider and higher, and so must be the box: by a cell of the mask on "
    "each side, (x2 - x1) / M and (y2 - y1) / M. Otherwise the mask is squeezed.",
)  # fmt: skip
def paste_masks_widened(paste_masks, draw):
    width, height = pick(draw, (3, 3), (3, 2), (2, 3))
    box, mask = as_boxes([3, 3, 3 + width, 3 + height]), np.ones((1, 1, 1))
    textbook = reference.paste_masks(mask, box, (10, 10))
    got = paste_masks(mask, box, (10, 10))
    missing = (textbook > 0.2) & (got < 0.01)
    missing = missing[:, :5, :5].any()  # up to the middle: a box that is a pixel shorter is asked of later
    agree(got, textbook if missing else got, "the textbook's; above 0.2 up to row and column 4, yours must not be 0")


@holds(
    "paste_masks", "whole pixels", "between whole pixels, the corners of the widened box change nothing",
    "Cut the four corners to whole numbers, int(corner), after the box has been widened: not before, not by rounding, "
    "and not at all would be other rules.",
)  # fmt: skip
def paste_masks_whole(paste_masks, draw):
    mask, reach = draw_masks(draw, 1, 2, least=1), draw_reach(draw)
    parts = [quarter(draw, 0, 0.75) for _ in range(4)]
    expected = paste_masks(mask, narrow(*reach), (7, 7))
    box = narrow(*np.add(reach, parts))
    why = f"your own of the box {narrow(*reach)[0].tolist()}, which is widened to {reach}"
    agree(paste_masks(mask, box, (7, 7)), expected, why)


@holds(
    "paste_masks", "both ends", "a box widened to pixels 1 to 4 has four, on which 2 x 2 cells and their border fit",
    "Both corners of the widened box count: right - left + 1 columns, bottom - top + 1 rows. The two cells in the "
    "middle are the mask's, those at the ends its border of zeros.",
)  # fmt: skip
def paste_masks_copied(paste_masks, draw):
    mask, left, top = draw_masks(draw, 1, 2), whole(draw, 0, 2), whole(draw, 0, 2)
    expected = np.zeros((1, 6, 6))
    expected[0, top + 1 : top + 3, left + 1 : left + 3] = mask[0]
    agree(paste_masks(mask, narrow(left, top, left + 3, top + 3), (6, 6)), expected)


@holds(
    "paste_masks", "pixel centers", "pixel i of n reads the padded mask at (i + 0.5) (M + 2) / n - 0.5",
    "Pixels and cells both have their middle at + 0.5: (i + 0.5) / n of the way is (i + 0.5) (M + 2) / n cells, less "
    "0.5, as the value of cell j sits at j. Not i (M + 2) / n, nor i (M + 1) / (n - 1).",
)  # fmt: skip
def paste_masks_centers(paste_masks, draw):
    side = pick(draw, 1, 2)
    mask, x, y = draw_masks(draw, 1, side), whole(draw, 2, 3), whole(draw, 2, 3)
    arguments = mask, as_boxes([x, y, x + pick(draw, 1, 2), y + pick(draw, 1, 2)]), (8, 8)
    agree(paste_masks(*arguments), reference.paste_masks(*arguments))


@holds(
    "paste_masks", "cut off", "what lies beyond the picture is cut off: the rest is as in a larger picture",
    "Stretch the mask over the whole widened box first, then take the pixels with 0 <= row < height and 0 <= column < "
    "width. A box that is made smaller squeezes its mask, and a negative index counts from the other end.",
)  # fmt: skip
def paste_masks_cut(paste_masks, draw):
    mask, size = draw_masks(draw, 1, 2, least=1), (whole(draw, 2, 4), whole(draw, 2, 4))
    reach = draw_reach(draw, -4, 7)
    larger = paste_masks(mask, narrow(*np.add(reach, 4)), (12, 12))
    got = paste_masks(mask, narrow(*reach), size)
    why = (
        f"your own of the box {narrow(*np.add(reach, 4))[0].tolist()} in a picture of 12 x 12, from row and column 4 on"
    )
    agree(got, larger[:, 4 : 4 + size[0], 4 : 4 + size[1]], why)


@holds(
    "paste_masks", "toward zero", "left of the picture and above it, corners are cut toward zero, too: -0.5 to 0",
    "int(-0.5) is 0 and math.floor(-0.5) is -1, and so is -0.5 // 1; the rule of torchvision, and of the published "
    "weights' scores, is int().",
)  # fmt: skip
def paste_masks_toward_zero(paste_masks, draw):
    mask = draw_masks(draw, 1, 2, least=1)
    left, top = (-pick(draw, 0.5, 0, 0.25, 1.75, 1) for _ in range(2))
    right, bottom = whole(draw, 1, 4), whole(draw, 1, 4)
    whole_reach = int(left), int(top), right, bottom
    expected = paste_masks(mask, narrow(*whole_reach), (5, 5))
    why = f"your own of the box {narrow(*whole_reach)[0].tolist()}, which is widened to {list(whole_reach)}"
    agree(paste_masks(mask, narrow(left, top, right, bottom), (5, 5)), expected, why)


@holds(
    "paste_masks", "no area", "a box without width or height still has one column or row of pixels",
    "max(right - left + 1, 1) columns: the pixel of the corner, which reads the middle of the mask.",
)  # fmt: skip
def paste_masks_no_area(paste_masks, draw):
    mask, x, y = draw_masks(draw, 1, pick(draw, 1, 2), least=1), quarter(draw, 0, 3), quarter(draw, 0, 3)
    width, height = pick(draw, (0, 0), (0, 1), (1, 0))
    arguments = mask, as_boxes([x, y, x + width, y + height]), (5, 5)
    agree(paste_masks(*arguments), reference.paste_masks(*arguments))


@holds(
    "paste_masks", "textbook", "any masks, boxes and pictures: the textbook's values",
    "Compare with minimrcnn.reference.paste_masks, which takes the same arguments.",
)  # fmt: skip
def paste_masks_reference(paste_masks, draw):
    count, size = whole(draw, 1, 2), (whole(draw, 1, 6), whole(draw, 2, 6))
    masks = draw_masks(draw, count, pick(draw, 2, 1, 4))
    boxes = as_boxes(*[draw_box(draw, -3, 8, 0, 5) for _ in range(count)])
    agree(paste_masks(masks, boxes, size), reference.paste_masks(masks, boxes, size))
