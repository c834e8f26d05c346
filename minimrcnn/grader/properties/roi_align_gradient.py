"""What RoIAlign's backward pass must do: every sample sends its share of the gradient to the cells that it has read.

RoIAlign is linear in the map: each number of a crop is a weighted sum of cells. So a cell gets, of each number's
gradient, as much as it weighs in that number, and nothing else of the map is asked for.
"""

from __future__ import annotations

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import as_rois, cells, draw_box, flip, pick, quarter, whole, whole_box

SIDE = 8  # of the maps in which all samples lie far from the border


def find_gradient(gradient, shape, rois, *rest):
    """The textbook's."""
    return reference.roi_align(np.zeros(shape), rois, gradient.shape[1:3], *rest, gradient=gradient)


def one_number(value=16.0):
    """The gradient of a crop of a single number; of 16, the shares of quarters are whole numbers."""
    return np.full((1, 1, 1, 1), value)


def apart(draw, low=1.0, high=2.0):
    """A RoI and its samples along each axis, so far from one another that no two of them share a cell."""
    samples = pick(draw, 2, 1)
    x1, y1 = quarter(draw, low, high), quarter(draw, low, high)
    return [x1, y1, x1 + 2 * samples, y1 + 2 * samples], samples


def between(y, x, value=16.0):
    """A map (1, 4, 4, 1) to which one sample at (y, x) sent its gradient: a share to each of four cells, by hand."""
    top, left = int(y), int(x)
    v, u = y - top, x - left  # how far down and right, 0 to 1
    expected = np.zeros((1, 4, 4, 1))
    expected[0, top : top + 2, left : left + 2, 0] = value * np.outer([1 - v, v], [1 - u, u])
    return expected


@holds(
    "roi_align_gradient", "answers", "(N, H, W, C) finite numbers, the shape of the map; without RoIs all are 0",
    "Begin with np.zeros(features_shape), which is returned as it is where there are no RoIs.",
)  # fmt: skip
def roi_align_gradient_answers(roi_align_gradient, draw):
    shape = whole(draw, 1, 2), SIDE - 2, SIDE, whole(draw, 1, 2)
    rois = as_rois(*[draw_box(draw, 1, 5, 1, 3) for _ in range(whole(draw, 0, 2))])
    size = (whole(draw, 1, 3),) * 2  # as many rows as columns: which is which is asked later
    gradient = np.ones((len(rois), *size, shape[3]))
    got = roi_align_gradient(gradient, shape, rois, 1.0, pick(draw, 1, 2), flip(draw))
    agree(got, got if len(rois) else np.zeros(shape))


@holds(
    "roi_align_gradient", "channels", "the gradient of a channel goes to that channel",
    "A cell of the map is a vector of channels, and so is a number of the crop: add `weight * gradient[r, p, q]`, all "
    "channels at once.",
)  # fmt: skip
def roi_align_gradient_channels(roi_align_gradient, draw):
    values = np.arange(1.0, 1 + whole(draw, 2, 3))
    gradient, rois = values.reshape(1, 1, 1, -1), as_rois([2, 2, 3, 3])
    got = roi_align_gradient(gradient, (1, 5, 5, len(values)), rois, 1.0, 1, flip(draw))
    agree(got, got[..., :1] * values, "your own channel 0, whose gradient is 1, times 1, 2 ...")


@holds(
    "roi_align_gradient", "picture", "a RoI's gradient goes to the picture that its first column names",
    "`rois[:, 0]` is the number of the picture in the batch; it is not scaled. All other pictures get nothing.",
)  # fmt: skip
def roi_align_gradient_picture(roi_align_gradient, draw):
    scale, (near, far) = pick(draw, 1.0, 0.5), ([2, 2, 4, 4], [8, 8, 10, 10])
    images = pick(draw, [0], [1], [2], [0, 1], [2, 0], [1, 2])  # no two in one: that they add up is asked later
    rois = np.concatenate([as_rois(box, image=image) for box, image in zip((near, far), images, strict=False)])
    rois[:, 1:] /= 2 * scale
    alone = np.zeros((3, 6, 6, 1))
    for row, image in enumerate(images):
        only = rois[row : row + 1] * [0, 1, 1, 1, 1]
        alone[image] = roi_align_gradient(one_number(), (1, 6, 6, 1), only, scale, 1, False)[0]
    got = roi_align_gradient(np.full((len(rois), 1, 1, 1), 16.0), (3, 6, 6, 1), rois, scale, 1, False)
    agree(got, alone, "your own gradients of each RoI in a batch of one picture, each in its own place")


@holds(
    "roi_align_gradient", "linear", "a gradient times 2, or times -1, sends twice as much, or minus as much",
    "Each cell gets a weighted sum of the gradient, whatever its sign: nothing is cut off, divided by its size, or "
    "chosen by which is larger.",
)  # fmt: skip
def roi_align_gradient_linear(roi_align_gradient, draw):
    bins, factor = pick(draw, 1, 2), pick(draw, 2.0, -1.0)
    gradient = cells(draw, 1, bins, bins, 1, low=1)
    rest = (1, 5, 5, 1), as_rois([1, 1, 3, 3]), 1.0, pick(draw, 1, 2), False
    expected = factor * roi_align_gradient(gradient, *rest)
    agree(roi_align_gradient(factor * gradient, *rest), expected, f"{factor:g} times your own of the gradient before")


@holds(
    "roi_align_gradient", "nothing lost", "where all samples lie inside of the map, as much arrives as was sent",
    "A bin is the average of its samples: each sends gradient / number of samples. Of this, each of its four cells "
    "gets a share, and the four shares, products of distances, sum to 1.",
)  # fmt: skip
def roi_align_gradient_sum(roi_align_gradient, draw):
    box, samples = apart(draw)
    bins, ratio = (1, samples) if flip(draw) else (samples, 1)
    gradient, rest = np.full((1, bins, bins, 1), 16.0), (1.0, ratio, flip(draw))
    shape, rois = (1, SIDE, SIDE, 1), as_rois(box)
    got = roi_align_gradient(gradient, shape, rois, *rest)
    sent, arrived = gradient.sum(), got.sum()
    if abs(arrived) < 1e-3:
        agree(got, find_gradient(gradient, shape, rois, *rest))
    agree(
        got,
        got * sent / arrived,
        f"your own, so scaled that its sum is {sent:g}, that of the gradient, not {arrived:g}",
    )


@holds(
    "roi_align_gradient", "x and y", "a RoI 2 to the right sends the same to cells that lie 2 to the right",
    "x and y are exchanged: a RoI is (picture, x1, y1, x2, y2), but arrays are indexed [row, column] = [y, x].",
)  # fmt: skip
def roi_align_gradient_axes(roi_align_gradient, draw):
    box, samples = apart(draw, 1, 1.75)
    dx, dy = 2 * whole(draw, 0, 1), 2 * whole(draw, 0, 1)  # even: what is rounded to even is not the matter here
    if dx == 0:
        dy = 2
    rest, shape, aligned = (1.0, 1), (1, 9, 9, 1), flip(draw)
    size = (1, 1) if samples == 1 else (2, 2)
    gradient = np.full((1, *size, 1), 16.0)
    before = roi_align_gradient(gradient, shape, as_rois(box), *rest, aligned)
    got = roi_align_gradient(gradient, shape, as_rois(np.add(box, [dx, dy, dx, dy])), *rest, aligned)
    why = f"your own of the RoI at {box}, moved {dx} to the right and {dy} down"
    agree(got, np.roll(before, (dy, dx), (1, 2)), why)


@holds(
    "roi_align_gradient", "scale", "a RoI in pixels at 1 / stride sends what the RoI in cells sends at scale 1",
    "Multiply the coordinates by `spatial_scale`, and only then take off the half pixel: it is half a *cell*. The "
    "gradient itself is not scaled.",
)  # fmt: skip
def roi_align_gradient_scale(roi_align_gradient, draw):
    (box, _), scale, aligned = apart(draw), pick(draw, 0.5, 0.25, 2.0), flip(draw)
    shape = 1, SIDE, SIDE, 1
    expected = roi_align_gradient(one_number(), shape, as_rois(box), 1.0, 1, aligned)
    got = roi_align_gradient(one_number(), shape, as_rois(np.array(box) / scale), scale, 1, aligned)
    agree(got, expected, f"your own of the RoI {box} at scale 1")


@holds(
    "roi_align_gradient", "bins", "the next bin sends to cells that lie one width of a bin further",
    "gradient[r, p, q] is that of row p and column q; bins are (x2 - x1) / columns wide and (y2 - y1) / rows high, "
    "without + 1, and not rounded.",
)  # fmt: skip
def roi_align_gradient_bins(roi_align_gradient, draw):
    high, wide = pick(draw, (2, 3), (3, 2), (2, 2))
    x1, y1 = pick(draw, 0.75, 1.25), pick(draw, 0.75, 1.25)  # no halves, which may be rounded to even
    rois, aligned = as_rois([x1, y1, x1 + 2 * wide, y1 + 2 * high]), flip(draw)
    place = pick(draw, (0, 1), (1, 0), (1, 1))
    first, next_one = np.zeros((2, 1, 2, 2, 1))
    first[0, 0, 0], next_one[0, place[0], place[1]] = 16, 16
    shape = 1, SIDE, SIDE, 1
    before = roi_align_gradient(first, shape, rois, 1.0, 1, aligned)
    expected = np.roll(before, (place[0] * high, place[1] * wide), (1, 2))
    why = f"your own of the bin [0, 0], moved {place[1] * wide} to the right and {place[0] * high} down"
    agree(roi_align_gradient(next_one, shape, rois, 1.0, 1, aligned), expected, why)


@holds(
    "roi_align_gradient", "on a cell", "not aligned, a sample that lies on a cell sends all of its gradient there",
    "Samples lie in the middle of their share of a bin, at (i + 0.5) / n of it; without `aligned`, no half pixel is "
    "taken off, and the value of cell i sits at i.",
)  # fmt: skip
def roi_align_gradient_on_a_cell(roi_align_gradient, draw):
    y, x = whole(draw, 1, 2), whole(draw, 1, 2)
    rois = as_rois([x - 1, y - 1, x + 1, y + 1])  # whole, as rounding is not the matter here
    agree(roi_align_gradient(one_number(), (1, 4, 4, 1), rois, 1.0, 1, False), between(y, x))


@holds(
    "roi_align_gradient", "between cells", "a sample amid four cells sends a quarter to each; nearer ones get more",
    "The same four weights as in the forward pass, (1 - v, v) x (1 - u, u), where v and u are how far the sample lies "
    "below and right of the upper left cell. Nothing is rounded.",
)  # fmt: skip
def roi_align_gradient_between(roi_align_gradient, draw):
    y, x = whole(draw, 1, 2) + pick(draw, 0.5, 0.25, 0, 0.75), whole(draw, 1, 2) + pick(draw, 0.5, 0.25, 0.75)
    rois = as_rois([x - 0.5, y - 0.5, x + 0.5, y + 0.5])
    agree(roi_align_gradient(one_number(), (1, 4, 4, 1), rois, 1.0, 1, False), between(y, x))


@holds(
    "roi_align_gradient", "half a pixel", "aligned, a RoI around the square of a cell sends all to that cell",
    "If `aligned`, take 0.5 off all four scaled coordinates, as in the forward pass: the value of cell i sits at "
    "i + 0.5.",
)  # fmt: skip
def roi_align_gradient_aligned(roi_align_gradient, draw):
    y, x = whole(draw, 1, 2) + pick(draw, 0, 0.5), whole(draw, 1, 2) + pick(draw, 0, 0.5)
    got = roi_align_gradient(one_number(), (1, 4, 4, 1), as_rois([x, y, x + 1, y + 1]), 1.0, 1, True)
    agree(got, between(y, x))


@holds(
    "roi_align_gradient", "small", "not aligned, a RoI smaller than a cell counts as one cell; aligned, it stays",
    "Only if not `aligned`: width = max(x2 - x1, 1), after scaling, and the same for the height.",
)  # fmt: skip
def roi_align_gradient_small(roi_align_gradient, draw):
    y, x, side = whole(draw, 1, 2) + pick(draw, 0, 0.5), whole(draw, 1, 2) + pick(draw, 0, 0.5), pick(draw, 0, 0.5)
    aligned, scale = flip(draw), pick(draw, 1.0, 0.5)
    x1, y1 = (x + 0.5 - side / 2, y + 0.5 - side / 2) if aligned else (x - 0.5, y - 0.5)
    rois = as_rois(np.array([x1, y1, x1 + side, y1 + side]) / scale)
    agree(roi_align_gradient(one_number(), (1, 4, 4, 1), rois, scale, 1, aligned), between(y, x))


@holds(
    "roi_align_gradient", "samples", "each of sampling_ratio x sampling_ratio samples sends an equal part of a bin's",
    "For n samples, the i-th is at (i + 0.5) / n of the bin: for 2, at 1/4 and 3/4. They are the forward pass's.",
)  # fmt: skip
def roi_align_gradient_samples(roi_align_gradient, draw):
    ratio = pick(draw, 2, 3)
    x1, y1 = quarter(draw, 0.5, 1.5), quarter(draw, 0.5, 1.5)
    rois = as_rois([x1, y1, x1 + 2 * ratio, y1 + 2 * ratio])
    arguments = one_number(16.0 * ratio**2), (1, SIDE, SIDE, 1), rois, 1.0, ratio, flip(draw)
    agree(roi_align_gradient(*arguments), find_gradient(*arguments))


@holds(
    "roi_align_gradient", "adds up", "a cell that several samples, bins or RoIs read gets from each of them",
    "Add, `map[n, y, x] += ...`, one sample at a time. With arrays of places, `map[n, rows, columns] += values` keeps "
    "only one of those that fall on the same cell: use np.add.at(map, (n, rows, columns), values).",
)  # fmt: skip
def roi_align_gradient_adds_up(roi_align_gradient, draw):
    rois, ratio, aligned, size = whole(draw, 1, 2), pick(draw, 1, 2), flip(draw), pick(draw, (1, 2), (1, 1), (2, 1))
    boxes = [[1, 1, 2 + whole(draw, 0, 1), 2 + whole(draw, 0, 1)] for _ in range(rois)]
    arguments = 16 * cells(draw, rois, *size, 1, low=1, high=2), (1, 4, 4, 1), as_rois(*boxes), 1.0, ratio, aligned
    agree(roi_align_gradient(*arguments), find_gradient(*arguments))


@holds(
    "roi_align_gradient", "at the border", "a sample at most one cell outside of the map sends to the border's cells",
    "Whom it has read, gets: for -1 <= y <= 0 row 0, for height - 1 <= y <= height the last row, and likewise for x "
    "and the width. A negative index counts from the other end.",
)  # fmt: skip
def roi_align_gradient_border(roi_align_gradient, draw):
    height, width = 2, 3
    y, x = (pick(draw, quarter(draw, 0, n), quarter(draw, -1, 0), quarter(draw, n, n + 1)) for n in (1, 2))
    rois = as_rois([x - 0.5, y - 0.5, x + 0.5, y + 0.5])
    arguments = one_number(), (1, height, width, 1), rois, 1.0, 1, False
    agree(roi_align_gradient(*arguments), find_gradient(*arguments))


@holds(
    "roi_align_gradient", "outside", "a sample more than a cell outside sends nothing, and the others no more for it",
    "Only samples with -1 <= y <= height and -1 <= x <= width have read the map. The gradient is still divided by all "
    "samples of the bin.",
)  # fmt: skip
def roi_align_gradient_outside(roi_align_gradient, draw):
    x1, y1 = quarter(draw, -4, 2), quarter(draw, -4, 2)
    rois = as_rois([x1, y1, x1 + pick(draw, 4, 3, 1), y1 + pick(draw, 4, 3, 1)])
    arguments = one_number(64.0), (1, 2, 2, 1), rois, 1.0, pick(draw, 2, 1), False
    agree(roi_align_gradient(*arguments), find_gradient(*arguments))


@holds(
    "roi_align_gradient", "adaptive", "sampling_ratio 0 takes one sample for each cell that a bin spans, rounded up",
    "ceil(bin height) x ceil(bin width) samples, of each scaled RoI's own bins, which share the bin's gradient; a RoI "
    "of no area, aligned, has none and sends nothing.",
)  # fmt: skip
def roi_align_gradient_adaptive(roi_align_gradient, draw):
    scale = pick(draw, 1.0, 0.5)
    boxes = [draw_box(draw, 0.5, 4, 0) for _ in range(whole(draw, 1, 2))]
    size = whole(draw, 1, 2), whole(draw, 1, 2)  # no thirds: a sample at H may lie beyond it when rounded
    rois = as_rois(*np.array(boxes) / scale)
    arguments = np.full((len(rois), *size, 1), 16.0), (1, 5, 5, 1), rois, scale, 0, flip(draw)
    agree(roi_align_gradient(*arguments), find_gradient(*arguments))


@holds(
    "roi_align_gradient", "transpose", "a cell gets the sum of gradient x crop of the map that is 1 there, else 0",
    "A crop is A x map with a matrix A of weights, and the gradient goes back by its transpose: the very same weights, "
    "from the numbers of the crop to the cells. So sum(crop * gradient) is sum(map * what you return), for every map.",
)  # fmt: skip
def roi_align_gradient_transpose(roi_align_gradient, draw):
    height, width, size = 3, 4, (whole(draw, 1, 2), whole(draw, 1, 2))
    gradient, rois = cells(draw, 1, *size, 1), as_rois(whole_box(draw, 0, 8))
    rest = 0.5, pick(draw, 1, 2, 0), flip(draw)
    single = np.eye(height * width).reshape(1, height, width, -1)  # in channel k, cell k is 1
    shares = (reference.roi_align(single, rois, size, *rest) * gradient).sum((0, 1, 2))
    got = roi_align_gradient(gradient, (1, height, width, 1), rois, *rest)
    agree(got, shares.reshape(1, height, width, 1), "from the textbook's crops of twelve maps")


@holds(
    "roi_align_gradient", "textbook", "any RoIs in any pictures: the textbook's values",
    "Compare with minimrcnn.reference.roi_align(features, rois, (h, w), ..., gradient=gradient).",
)  # fmt: skip
def roi_align_gradient_reference(roi_align_gradient, draw):
    images, height, width, channels = whole(draw, 1, 2), whole(draw, 1, 4), whole(draw, 1, 4), whole(draw, 1, 2)
    boxes = [whole_box(draw, -2, 12, least=0) for _ in range(whole(draw, 1, 2))]
    rois = np.concatenate([as_rois(box, image=whole(draw, 0, images - 1)) for box in boxes])
    gradient = cells(draw, len(rois), whole(draw, 1, 2), whole(draw, 1, 2), channels, low=-4, high=5)
    arguments = gradient, (images, height, width, channels), rois, 0.5, pick(draw, 1, 2), flip(draw)
    agree(roi_align_gradient(*arguments), find_gradient(*arguments))
