"""What RoIAlign must do (He et al. 2017, Mask R-CNN, section 3)."""

from __future__ import annotations

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import (
    ARTICLE,
    as_rois,
    cells,
    draw_box,
    draw_slopes,
    flip,
    pick,
    quarter,
    ramp,
    whole,
    whole_box,
)

SIDE = 8  # of the ramps


def inner_box(draw, least=1.0, most=5.0):
    """A box whose samples all lie between cells of a ramp, with or without half a pixel taken off."""
    return draw_box(draw, 0.5, SIDE - 1, least, most)


def draw_size(draw, least=1):
    return whole(draw, least, 3), whole(draw, least, 3)


def bin_centers(low, high, bins):
    return low + (np.arange(bins) + 0.5) * (high - low) / bins


def read_ramp(slopes, box, size):
    """A ramp at the center of every bin: (1, h, w, 1)."""
    x1, y1, x2, y2 = box
    rows, columns = bin_centers(y1, y2, size[0]), bin_centers(x1, x2, size[1])
    return np.add.outer(slopes[0] * rows, slopes[1] * columns)[None, :, :, None]


@holds(
    "roi_align", "answers", "crops (R, h, w, C) of finite numbers, also for no RoIs at all",
    "Fill an array of zeros of shape (len(rois), h, w, C), with h and w in the order of `output_size`.",
)  # fmt: skip
def roi_align_answers(roi_align, draw):
    images, channels, (h, w) = whole(draw, 1, 2), whole(draw, 1, 3), draw_size(draw)
    rois = as_rois(*[inner_box(draw) for _ in range(whole(draw, 0, 2))])
    roi_align(np.ones((images, SIDE, SIDE, channels)), rois, (h, w), 1.0, pick(draw, 1, 2), flip(draw))


@holds(
    "roi_align", "constant", "from a map that is 7 everywhere comes 7, however many samples are taken",
    "The samples of a bin are averaged: divide their sum by their number.",
)  # fmt: skip
def roi_align_constant(roi_align, draw):
    size = (pick(draw, 1, 2),) * 2  # halves only, and as many rows as columns: their bins are asked of later
    got = roi_align(np.full((1, SIDE, SIDE, 1), 7.0), as_rois(inner_box(draw)), size, 1.0, pick(draw, 1, 2, 4), False)
    agree(got, np.full((1, *size, 1), 7.0))


@holds(
    "roi_align", "channels", "every channel is cut by itself",
    "A cell of the map is a vector of channels: average over the samples only, `np.mean(samples, axis=0)`.",
)  # fmt: skip
def roi_align_channels(roi_align, draw):
    values = np.arange(1.0, 1 + whole(draw, 2, 3))
    got = roi_align(np.ones((1, 3, 3, 1)) * values, as_rois([0.5, 0.5, 2.5, 2.5]), (1, 1), 1.0, 1, flip(draw))
    agree(got, values.reshape(1, 1, 1, -1))


@holds(
    "roi_align", "picture", "every RoI is cut from the picture that its first column names",
    "`rois[:, 0]` is the number of the picture in the batch; it is not scaled.",
)  # fmt: skip
def roi_align_picture(roi_align, draw):
    features = np.ones((3, 5, 5, 1)) * np.array([0.0, 1.0, 2.0])[:, None, None, None]
    images, scale = [whole(draw, 0, 2) for _ in range(whole(draw, 1, 2))], pick(draw, 1.0, 0.5)
    rois = np.concatenate([as_rois([2, 2, 3, 3], image=image) for image in images])
    agree(roi_align(features, rois, (1, 1), scale, 1, False), np.array(images, float).reshape(-1, 1, 1, 1))


@holds(
    "roi_align", "average", "minus the map gives minus the crop",
    "That is true of an average of the samples and not of their maximum. The article takes the maximum, the paper the "
    "average.",
)  # fmt: skip
def roi_align_average(roi_align, draw):
    features = ramp(SIDE, SIDE, *draw_slopes(draw))[None]
    rest = as_rois(inner_box(draw)), (1, 1), 1.0, 2, False
    expected = -roi_align(-features, *rest)
    agree(roi_align(features, *rest), expected, "minus your own crop of minus this map")


@holds(
    "roi_align", "x and y", "on a ramp along x, all rows of the crop are alike, and a RoI 2 to the right reads 2 more",
    "x and y are exchanged: a RoI is (picture, x1, y1, x2, y2), but arrays are indexed [row, column] = [y, x].",
)  # fmt: skip
def roi_align_axes(roi_align, draw):
    features, size = ramp(10, 10, 0, 1)[None], (whole(draw, 1, 3),) * 2
    dx, dy = 2 * whole(draw, 0, 1), 2 * whole(draw, 0, 1)  # even: what is rounded to even is not the matter here
    box, aligned = np.array(inner_box(draw, least=2)), flip(draw)
    before = roi_align(features, as_rois(box), size, 1.0, 1, aligned)
    agree(before, np.broadcast_to(before[:, :1], before.shape), "the first row of your own crop, in every row")
    after = roi_align(features, as_rois(box + [dx, dy, dx, dy]), size, 1.0, 1, aligned)
    agree(after, before + dx, f"your own crop of the RoI at {box.tolist()}, plus {dx}")


@holds(
    "roi_align", "scale", "a RoI in pixels at 1 / stride is the RoI in cells at scale 1",
    "Multiply the coordinates by `spatial_scale`, and only then take off the half pixel: it is half a *cell*.",
)  # fmt: skip
def roi_align_scale(roi_align, draw):
    features, box = ramp(SIDE, SIDE, *draw_slopes(draw))[None], np.array(inner_box(draw, least=2))
    scale, aligned = pick(draw, 0.5, 0.25, 2.0), flip(draw)
    expected = roi_align(features, as_rois(box), (2, 2), 1.0, 1, aligned)
    got = roi_align(features, as_rois(box / scale), (2, 2), scale, 1, aligned)
    agree(got, expected, f"your own crop of {box.tolist()} at scale 1")


@holds(
    "roi_align", "no rounding", "on a ramp, a RoI moved by a quarter of a cell reads a quarter of the slope more",
    "Something is rounded: the corners, the bins or the samples. Not to round is the point of RoIAlign; each sample is "
    "interpolated between its four cells.",
)  # fmt: skip
def roi_align_moves(roi_align, draw):
    slope_y, slope_x = draw_slopes(draw)
    features, size, aligned = ramp(SIDE, SIDE, slope_y, slope_x)[None], (whole(draw, 1, 3),) * 2, flip(draw)
    box = np.array(draw_box(draw, 0.5, SIDE - 4, 1))  # far from the border, for what is half a pixel or a cell off
    dx, dy = quarter(draw, 0, 1), quarter(draw, 0, 1)
    expected = roi_align(features, as_rois(box), size, 1.0, 1, aligned) + slope_x * dx + slope_y * dy
    got = roi_align(features, as_rois(box + [dx, dy, dx, dy]), size, 1.0, 1, aligned)
    agree(got, expected, f"your own crop of {box.tolist()}, plus what the ramp rises")


@holds(
    "roi_align", "width", "on a ramp, neighboring bins differ by slope x width / bins, with width = x2 - x1",
    "The ends of a box are not inclusive: width is x2 - x1, without + 1. A bin is width / columns wide and height / "
    "rows high, and neither is rounded.",
)  # fmt: skip
def roi_align_width(roi_align, draw):
    slopes, size, box = draw_slopes(draw), draw_size(draw, least=2), inner_box(draw)
    got = roi_align(ramp(SIDE, SIDE, *slopes)[None], as_rois(box), size, 1.0, 1, False)
    steps = read_ramp(slopes, box, size)
    agree(got, got[:, :1, :1] + steps - steps[:, :1, :1], "your own first bin, and what the ramp rises from there")


@holds(
    "roi_align", "bin centers", "on a ramp, not aligned, a bin's average is the ramp's value at the bin's center",
    "Samples lie in the middle of their share of a bin, at (i + 0.5) / n of it, not at its edge; without `aligned`, no "
    "half pixel is taken off.",
)  # fmt: skip
def roi_align_centers(roi_align, draw):
    slopes, size, box = draw_slopes(draw), draw_size(draw), inner_box(draw)
    got = roi_align(ramp(SIDE, SIDE, *slopes)[None], as_rois(box), size, 1.0, whole(draw, 1, 3), False)
    agree(got, read_ramp(slopes, box, size))


@holds(
    "roi_align", "half a pixel", "aligned, a RoI reads what it would half a cell up and to the left, not aligned",
    "If `aligned`, take 0.5 off all four scaled coordinates: the value of cell i sits at i + 0.5.",
)  # fmt: skip
def roi_align_aligned(roi_align, draw):
    slopes, size, box = draw_slopes(draw), draw_size(draw), np.array(inner_box(draw))
    got = roi_align(ramp(SIDE, SIDE, *slopes)[None], as_rois(box), size, 1.0, whole(draw, 1, 2), True)
    agree(got, read_ramp(slopes, box - 0.5, size))


@holds(
    "roi_align", "small, aligned", "aligned, a RoI smaller than a cell stays as small as it is, even a point",
    "The smallest side of 1 is for RoIs that are not aligned.",
)  # fmt: skip
def roi_align_small_aligned(roi_align, draw):
    slopes, size, box = draw_slopes(draw), draw_size(draw, least=2), np.array(inner_box(draw, 0, 0.75))
    got = roi_align(ramp(SIDE, SIDE, *slopes)[None], as_rois(box), size, 1.0, whole(draw, 1, 2), True)
    agree(got, read_ramp(slopes, box - 0.5, size))


@holds(
    "roi_align", "small, not aligned", "not aligned, a RoI smaller than a cell counts as one cell wide and high",
    "If not `aligned`: width = max(x2 - x1, 1), after scaling, and the same for the height.",
)  # fmt: skip
def roi_align_small(roi_align, draw):
    slopes, size, box = draw_slopes(draw), draw_size(draw, least=2), draw_box(draw, 0.5, SIDE - 2, 0, 0.75)
    rois, scale = as_rois(box), pick(draw, 1.0, 0.5)
    rois[:, 1:] /= scale
    got = roi_align(ramp(SIDE, SIDE, *slopes)[None], rois, size, scale, whole(draw, 1, 2), False)
    agree(got, read_ramp(slopes, [*box[:2], box[0] + 1, box[1] + 1], size))


@holds(
    "roi_align", "samples", "a bin has `sampling_ratio` samples along each axis, in the middle of equal shares",
    "For n samples, the i-th is at (i + 0.5) / n of the bin: for 2, at 1/4 and 3/4.",
)  # fmt: skip
def roi_align_samples(roi_align, draw):
    features, rois = cells(draw, 1, 5, 5, 1), as_rois(draw_box(draw, 0.5, 4, 1))
    rest = (whole(draw, 1, 2), whole(draw, 1, 2)), 1.0, pick(draw, 2, 3), False
    agree(roi_align(features, rois, *rest), reference.roi_align(features, rois, *rest))


@holds(
    "roi_align", "at the border", "a sample at most one cell outside of the map reads the border's cells",
    "For -1 <= y <= 0 use row 0, for height - 1 <= y <= height the last row, and likewise for x and the width: clamp "
    "samples, not the RoI, before taking the four cells. `int()` cuts off toward zero, and a negative index counts "
    "from the other end.",
)  # fmt: skip
def roi_align_border(roi_align, draw):
    features, ends, boxes = cells(draw, 1, 2, 3, 1), (1, 2), []
    for _ in range(whole(draw, 1, 4)):
        y, x = (  # a whole cell outside is not left to chance: it still counts
            pick(draw, quarter(draw, 0, n), quarter(draw, -1, 0), quarter(draw, n, n + 1), -1, n + 1) for n in ends
        )
        boxes.append([x - 0.5, y - 0.5, x + 0.5, y + 0.5])
    rois = as_rois(*boxes)
    rest = (1, 1), 1.0, 1, False
    agree(roi_align(features, rois, *rest), reference.roi_align(features, rois, *rest))


@holds(
    "roi_align", "outside", "a sample more than a cell outside counts as 0, and is averaged with the others",
    "Only samples with -1 <= y <= height and -1 <= x <= width read the map. The sum is still divided by all samples.",
)  # fmt: skip
def roi_align_outside(roi_align, draw):
    features = cells(draw, 1, 2, 2, 1, low=1)
    x1, y1 = quarter(draw, -4, 2), quarter(draw, -4, 2)
    rois = as_rois([x1, y1, x1 + pick(draw, 4, 3, 1), y1 + pick(draw, 4, 3, 1)])
    rest = (1, 1), 1.0, pick(draw, 2, 1), False
    agree(roi_align(features, rois, *rest), reference.roi_align(features, rois, *rest))


@holds(
    "roi_align", "adaptive", "sampling_ratio 0 takes one sample for each cell that a bin spans, rounded up",
    "ceil(bin height) x ceil(bin width) samples, of each scaled RoI's own bins; a RoI of no area, aligned, has none, "
    "so 0.",
)  # fmt: skip
def roi_align_adaptive(roi_align, draw):
    features, scale = cells(draw, 1, 5, 5, 1), pick(draw, 1.0, 0.5)
    boxes = [draw_box(draw, 0.5, 4, 0) for _ in range(whole(draw, 1, 2))]  # a cell wide, one from 4 ends with the map
    rois = as_rois(*np.array(boxes) / scale)
    rest = draw_size(draw), scale, 0, flip(draw)
    agree(roi_align(features, rois, *rest), reference.roi_align(features, rois, *rest))


@holds(
    "roi_align", "article", "the article's 8 x 8 map gives the known numbers",
    "Run your file yourself, with this example at its end, and print the sample points: a print is not seen here.",
)  # fmt: skip
def roi_align_article(roi_align, draw):
    ratio, aligned, expected = pick(
        draw,
        (1, False, [[0.295625, 0.260625], [0.650625, 0.304375]]),
        (1, True, [[0.566875, 0.239375], [0.510625, 0.285]]),
        (2, False, [[0.366328, 0.550117], [0.459805, 0.375234]]),
        (2, True, [[0.476953, 0.470977], [0.456914, 0.455234]]),
        (0, False, [[0.372687, 0.489327], [0.474922, 0.409905]]),
        (0, True, [[0.474449, 0.479466], [0.432595, 0.423446]]),
    )
    got = roi_align(ARTICLE, as_rois([0, 3, 7, 8]), (2, 2), 1.0, ratio, aligned)
    agree(got, np.array(expected).reshape(1, 2, 2, 1))


@holds(
    "roi_align", "textbook", "any map, any RoIs: the textbook's values", "Compare with minimrcnn.reference.roi_align."
)
def roi_align_reference(roi_align, draw):
    images, height, width, channels = whole(draw, 1, 2), whole(draw, 1, 4), whole(draw, 1, 4), whole(draw, 1, 2)
    features = cells(draw, images, height, width, channels)
    boxes = [whole_box(draw, -2, 12, least=0) for _ in range(whole(draw, 1, 2))]
    rois = np.concatenate([as_rois(box, image=whole(draw, 0, images - 1)) for box in boxes])
    size = whole(draw, 1, 2), whole(draw, 1, 2)  # thirds of a bin would be rounded, and a sample at H may lie beyond it
    rest = size, 0.5, pick(draw, 1, 2), flip(draw)
    agree(roi_align(features, rois, *rest), reference.roi_align(features, rois, *rest))
