"""What RoI pooling must do, by the rule of Caffe and torchvision (Girshick 2015, Fast R-CNN, section 2.1).

Both corners of the scaled RoI are rounded to whole cells and both count; bins share the cells that they cut through.
"""

from __future__ import annotations

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import ARTICLE, as_rois, cells, draw_slopes, pick, quarter, ramp, whole, whole_box

SIDE = 8  # of the ramps


def draw_size(draw):
    return whole(draw, 1, 3), whole(draw, 1, 3)


@holds(
    "roi_pool", "answers", "crops (R, h, w, C) of finite numbers, also for no RoIs at all",
    "Fill an array of zeros of shape (len(rois), h, w, C), with h and w in the order of `output_size`.",
)  # fmt: skip
def roi_pool_answers(roi_pool, draw):
    images, channels, (h, w) = whole(draw, 1, 2), whole(draw, 1, 3), draw_size(draw)
    rois = as_rois(*[whole_box(draw, 0, SIDE - 1, least=3) for _ in range(whole(draw, 0, 2))])
    roi_pool(np.ones((images, SIDE, SIDE, channels)), rois, (h, w), 1.0)


@holds(
    "roi_pool", "picture", "every RoI is cut from the picture that its first column names",
    "`rois[:, 0]` is the number of the picture in the batch; it is not scaled.",
)  # fmt: skip
def roi_pool_picture(roi_pool, draw):
    features = np.ones((3, 5, 5, 1)) * np.array([1.0, 2.0, 3.0])[:, None, None, None]
    images, scale = [whole(draw, 0, 2) for _ in range(whole(draw, 1, 2))], pick(draw, 1.0, 0.5)
    rois = np.concatenate([as_rois([2, 2, 3, 3], image=image) for image in images])
    agree(roi_pool(features, rois, (1, 1), scale), np.array(images, float).reshape(-1, 1, 1, 1) + 1)


@holds(
    "roi_pool", "channels", "every channel is cut by itself",
    "A cell of the map is a vector of channels: the largest of rows and columns only, `.max(axis=(0, 1))`.",
)  # fmt: skip
def roi_pool_channels(roi_pool, draw):
    values = np.arange(1.0, 1 + whole(draw, 2, 3))
    agree(roi_pool(np.ones((1, 3, 3, 1)) * values, as_rois([0, 0, 2, 2]), (1, 1), 1.0), values.reshape(1, 1, 1, -1))


@holds(
    "roi_pool", "maximum", "one high cell in the middle of a RoI is what a single bin gives",
    "A bin takes the largest of its cells, not their average.",
)  # fmt: skip
def roi_pool_maximum(roi_pool, draw):
    low, features = whole(draw, 0, 3), np.zeros((1, SIDE, SIDE, 1))
    high = whole(draw, low + 2, 7)
    middle, peak = (low + high) // 2, whole(draw, 1, 9)
    features[0, middle, middle] = peak
    agree(roi_pool(features, as_rois([low, low, high, high]), (1, 1), 1.0), np.full((1, 1, 1, 1), peak))


@holds(
    "roi_pool", "negative values", "from a map that is -7 everywhere comes -7",
    "The search for the maximum must not begin at 0: begin at minus infinity, or at the first cell.",
)  # fmt: skip
def roi_pool_negative(roi_pool, draw):
    size, box = draw_size(draw), whole_box(draw, 0, SIDE - 1, least=3)
    agree(roi_pool(np.full((1, SIDE, SIDE, 1), -7.0), as_rois(box), size, 1.0), np.full((1, *size, 1), -7.0))


@holds(
    "roi_pool", "x and y", "on a ramp along x, all rows of the crop are alike, and a RoI 2 to the right reads 2 more",
    "x and y are exchanged: a RoI is (picture, x1, y1, x2, y2), but arrays are indexed [row, column] = [y, x].",
)  # fmt: skip
def roi_pool_axes(roi_pool, draw):
    features, size = ramp(10, 10, 0, 1)[None], (whole(draw, 1, 2),) * 2
    dx, dy = 2 * whole(draw, 0, 1), 2 * whole(draw, 0, 1)
    box = np.array(whole_box(draw, 1, SIDE - 1, least=2))
    before = roi_pool(features, as_rois(box), size, 1.0)
    agree(before, np.broadcast_to(before[:, :1], before.shape), "the first row of your own crop, in every row")
    after = roi_pool(features, as_rois(box + [dx, dy, dx, dy]), size, 1.0)
    agree(after, before + dx, f"your own crop of the RoI at {box.tolist()}, plus {dx}")


@holds(
    "roi_pool", "scale", "a RoI in pixels at 1 / stride is the RoI in cells at scale 1",
    "Multiply the coordinates by `spatial_scale`, and only then round them.",
)  # fmt: skip
def roi_pool_scale(roi_pool, draw):
    features, box = ramp(SIDE, SIDE, *draw_slopes(draw))[None], np.array(whole_box(draw, 0, SIDE - 1, least=2))
    scale = pick(draw, 0.5, 0.25)
    expected = roi_pool(features, as_rois(box), (2, 2), 1.0)
    got = roi_pool(features, as_rois(box / scale), (2, 2), scale)
    agree(got, expected, f"your own crop of {box.tolist()} at scale 1")


@holds(
    "roi_pool", "rounding", "corners up to a quarter of a cell off whole ones change nothing",
    "Corners are rounded to the nearest cell: `int()` and `floor` make 2 of 2.75.",
)  # fmt: skip
def roi_pool_rounding(roi_pool, draw):
    features, box = ramp(SIDE, SIDE, *draw_slopes(draw))[None], np.array(whole_box(draw, 1, SIDE - 2, least=2))
    shift, size = [pick(draw, 0, 0.25, -0.25) for _ in range(4)], draw_size(draw)
    expected = roi_pool(features, as_rois(box), size, 1.0)
    agree(roi_pool(features, as_rois(box + shift), size, 1.0), expected, f"your own crop of {box.tolist()}")


@holds(
    "roi_pool", "last cell", "the cells of the last row and column belong to the RoI, and those beyond do not",
    "Both corners count: a RoI from 2 to 4 has the cells 2, 3 and 4, and size = last - first + 1.",
)  # fmt: skip
def roi_pool_last(roi_pool, draw):
    (slope_y, slope_x), box = draw_slopes(draw), whole_box(draw, 0, SIDE - 2)
    got = roi_pool(ramp(SIDE, SIDE, slope_y, slope_x)[None], as_rois(box), (1, 1), 1.0)
    agree(got, np.full((1, 1, 1, 1), slope_x * box[2] + slope_y * box[3]))


@holds(
    "roi_pool", "bins", "bin p reaches from floor(p x size / bins) to ceil((p + 1) x size / bins)",
    "Do not round the bin's size: 5 cells in 2 bins are cells 0 to 2 and 2 to 4; both see the one in the middle.",
)  # fmt: skip
def roi_pool_bins(roi_pool, draw):
    features, rois, size = cells(draw, 1, 7, 7, 1), as_rois(whole_box(draw, 0, 5, least=2)), draw_size(draw)
    agree(roi_pool(features, rois, size, 1.0), reference.roi_pool(features, rois, size, 1.0))


@holds(
    "roi_pool", "smallest", "a RoI that is upside down, or a single point, counts as one cell",
    "size = max(last - first + 1, 1) on each axis.",
)  # fmt: skip
def roi_pool_smallest(roi_pool, draw):
    features, x, y = ramp(SIDE, SIDE, *draw_slopes(draw))[None], whole(draw, 1, 5), whole(draw, 1, 5)
    rois, size = as_rois([x, y, x - whole(draw, 0, 3), y - whole(draw, 0, 3)]), draw_size(draw)
    agree(roi_pool(features, rois, size, 1.0), reference.roi_pool(features, rois, size, 1.0))


@holds(
    "roi_pool", "at the border", "cells outside of the map do not exist; a bin without any cell gives 0",
    "Clamp the first and last cell of each *bin* to the map (not those of the RoI: bins would move), as a negative "
    "index counts from the other end. The maximum of nothing is 0 here.",
)  # fmt: skip
def roi_pool_border(roi_pool, draw):
    features = cells(draw, 1, 2, 3, 1, low=1)
    rois = as_rois(*[whole_box(draw, -4, 6) for _ in range(whole(draw, 1, 3))])
    size = draw_size(draw)
    agree(roi_pool(features, rois, size, 1.0), reference.roi_pool(features, rois, size, 1.0))


@holds(
    "roi_pool", "halves", "half a cell is rounded away from 0: 2.5 becomes 3, and -2.5 becomes -3",
    "`round` and `np.round` bring halves to the *even* neighbor, 2.5 to 2; floor(x + 0.5) brings -2.5 to -2. Use "
    "floor(x + 0.5) from 0 on and ceil(x - 0.5) below it.",
)  # fmt: skip
def roi_pool_halves(roi_pool, draw):
    features = 1 + ramp(SIDE, SIDE, *draw_slopes(draw))[None]  # 0 is what a bin outside of the map gives
    box = np.array(whole_box(draw, *pick(draw, (1, SIDE - 2), (-4, 3)), least=2))
    shift, size = [pick(draw, 0, 0.5) for _ in range(4)], draw_size(draw)
    expected = roi_pool(features, as_rois(box), size, 1.0)
    got = roi_pool(features, as_rois(box - shift * np.sign(box)), size, 1.0)
    agree(got, expected, f"your own crop of {box.tolist()}")


@holds(
    "roi_pool", "article", "the article's 8 x 8 map gives the known numbers",
    "Run your file yourself, with this example at its end, and print the cells of every bin: a print is not seen here.",
)  # fmt: skip
def roi_pool_article(roi_pool, draw):
    box, expected = pick(
        draw, ([0, 3, 7, 8], [[0.85, 0.96], [0.97, 0.91]]), ([0, 3, 6, 7], [[0.85, 0.96], [0.97, 0.96]])
    )
    agree(roi_pool(ARTICLE, as_rois(box), (2, 2), 1.0), np.array(expected).reshape(1, 2, 2, 1))


@holds("roi_pool", "textbook", "any map, any RoIs: the textbook's values", "Compare with minimrcnn.reference.roi_pool.")
def roi_pool_reference(roi_pool, draw):
    images, height, width, channels = whole(draw, 1, 2), whole(draw, 1, 4), whole(draw, 1, 4), whole(draw, 1, 2)
    features = cells(draw, images, height, width, channels, low=-9)
    boxes = [[quarter(draw, -2, 9) for _ in range(4)] for _ in range(whole(draw, 1, 2))]
    rois = np.concatenate([as_rois(box, image=whole(draw, 0, images - 1)) for box in boxes])
    rest = draw_size(draw), 0.5
    agree(roi_pool(features, rois, *rest), reference.roi_pool(features, rois, *rest))
