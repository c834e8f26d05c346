"""RoIAlign (He et al. 2017, section 3): a RoI of any size becomes a crop of a fixed size, and nothing is rounded.

For every RoI and every one of its bins:

1. Scale the RoI to the feature map; with `aligned`, shift it half a cell, because the value of cell i sits at i + 0.5.
2. Cut it into bins of equal, fractional size and place `sampling_ratio` x `sampling_ratio` samples regularly in each
   (0: as many as the bin has cells, rounded up).
3. A sample takes the bilinear mixture of the four cells around it. Outside the map by more than a cell it counts as 0.
4. The bin is the samples' average (the paper, torchvision) or their maximum (the article).

Steps 1 and 2, and which cells count how much in 3, are in `kernels.samples`; the way back is in
`kernels.roi_align_gradient`. On a CPU an average is a weighted sum of cells, each of them one contiguous vector of
channels (`kernels.cells`); on a GPU a thread has four channels of a bin.

Legend: N H W C features, R RoIs `(image, x1, y1, x2, y2)`, P Q bins along y and x.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.cells import mix_cells
from minimrcnn.kernels.compiled import clear, compiled
from minimrcnn.kernels.four import (
    FOUR,
    add_four,
    choose_four,
    find_first,
    find_lane,
    keep_greater,
    read_four,
    threads_of_cells,
    write_four,
)
from minimrcnn.kernels.rois import order_visits
from minimrcnn.kernels.samples import find_corners, locate_roi, place_sample, weigh_axis
from minimrcnn.kernels.twin import Twin, cuda

# --- CPU. Averaging and maximizing are kernels of their own: who only averages does not wait for the other to compile.
#     The work of one RoI is a function of its own, so that the parallel loops stay small, for the same reason. ---


@register_jitable
def average_roi(features, roi, spatial_scale, sampling_ratio, aligned, output):
    """The crop (P, Q, C) of one RoI: a weighted sum of cells for each bin."""
    F = features.dtype.type
    images, height, width, _ = features.shape
    bins_y, bins_x, _ = output.shape
    image, row_axis, column_axis = locate_roi(roi, images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
    if image < 0:
        clear(output.reshape(-1, output.shape[2]))
        return
    row, row_weight, rows = weigh_axis(row_axis, bins_y, height, F)
    column, column_weight, columns = weigh_axis(column_axis, bins_x, width, F)
    for p in range(bins_y):
        y, along_y = row[p, : rows[p]], row_weight[p, : rows[p]]
        for q in range(bins_x):
            x, along_x = column[q, : columns[q]], column_weight[q, : columns[q]]
            mix_cells(features[image], y, along_y, x, along_x, output[p, q])


@register_jitable
def maximize_roi(features, roi, spatial_scale, sampling_ratio, aligned, winner, output):
    """The crop of one RoI as the maximum of the samples; `winner` (P, Q, C) receives the first best one's number."""
    F = features.dtype.type
    images, height, width, channels = features.shape
    bins_y, bins_x, _ = output.shape
    image, (y, size_y, samples_y), (x, size_x, samples_x) = locate_roi(
        roi, images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F
    )
    for p in range(bins_y):
        for q in range(bins_x):
            best, winning = output[p, q], winner[p, q]  # (C,)
            for channel in range(channels):  # what no samples give
                best[channel], winning[channel] = F(0), np.int32(-1)
            for i in range(samples_y if image >= 0 else 0):
                top, bottom, v = find_corners(place_sample(y, size_y, samples_y, p, i, F), height, F)
                for j in range(samples_x):
                    left, right, u = find_corners(place_sample(x, size_x, samples_x, q, j, F), width, F)
                    inside = top >= 0 and left >= 0
                    y0, y1, x0, x1 = (top, bottom, left, right) if inside else (0, 0, 0, 0)  # read, but not used
                    a, b = features[image, y0, x0], features[image, y0, x1]  # (C,)
                    c, d = features[image, y1, x0], features[image, y1, x1]
                    number = np.int32(i * samples_x + j)
                    for channel in range(channels):
                        above, below = (
                            (F(1) - u) * a[channel] + u * b[channel],
                            (F(1) - u) * c[channel] + u * d[channel],
                        )
                        value = (F(1) - v) * above + v * below if inside else F(0)
                        if number == 0 or value > best[channel]:
                            best[channel], winning[channel] = value, number


@compiled(parallel=True, nogil=True)
def average_rois_cpu(features, rois, order, spatial_scale, sampling_ratio, aligned, output):
    for visit in prange(len(order)):
        r = order[visit]
        average_roi(features, rois[r], spatial_scale, sampling_ratio, aligned, output[r])


@compiled(parallel=True, nogil=True)
def maximize_rois_cpu(features, rois, order, spatial_scale, sampling_ratio, aligned, winner, output):
    for visit in prange(len(order)):
        r = order[visit]
        maximize_roi(features, rois[r], spatial_scale, sampling_ratio, aligned, winner[r], output[r])


def roi_align_cpu(features, rois, spatial_scale, sampling_ratio, aligned, use_max, winner, output):
    order = order_visits(rois, spatial_scale)
    if use_max:
        maximize_rois_cpu(features, rois, order, spatial_scale, sampling_ratio, aligned, winner, output)
    else:
        average_rois_cpu(features, rois, order, spatial_scale, sampling_ratio, aligned, output)


# --- CUDA ---


@register_jitable
def sample_four(features, image, y, x, four, F):
    """The mixture of the cells around a sample; y and x are its corners, of `find_corners`. 0 outside the map.

    All four count, be it by 0: next to a cell that is not finite the CPU's averages may be, and these are not.
    """
    (top, bottom, v), (left, right, u) = y, x
    value = (F(0), F(0), F(0), F(0))
    if top >= 0 and left >= 0:
        a, b = read_four(features, image, top, left, four), read_four(features, image, top, right, four)
        c, d = read_four(features, image, bottom, left, four), read_four(features, image, bottom, right, four)
        value = add_four(value, (F(1) - v) * (F(1) - u), a)
        value = add_four(value, (F(1) - v) * u, b)
        value = add_four(value, v * (F(1) - u), c)
        value = add_four(value, v * u, d)
    return value


def roi_align_cuda(features, rois, spatial_scale, sampling_ratio, aligned, use_max, winner, output):
    F = features.dtype.type
    images, height, width, channels = features.shape
    (r, p, q), lane, lanes = find_lane(cuda.grid(1), output.shape)
    if r >= len(rois):
        return
    image, rows, columns = locate_roi(
        rois[r], images, output.shape[1], output.shape[2], spatial_scale, sampling_ratio, aligned, F
    )
    (y, size_y, samples_y), (x, size_x, samples_x) = rows, columns
    if image < 0 or samples_x <= 0:
        samples_y = 0
    share = F(1) / (F(samples_y) * F(samples_x)) if samples_y > 0 else F(0)
    first, step = find_first(lane, lanes, channels)
    while first < channels:
        four = choose_four(first, step, channels)
        total, none = (F(0), F(0), F(0), F(0)), np.int32(-1)
        best = (none, none, none, none)
        for i in range(samples_y):
            corners_y = find_corners(place_sample(y, size_y, samples_y, p, i, F), height, F)
            for j in range(samples_x):
                corners_x = find_corners(place_sample(x, size_x, samples_x, q, j, F), width, F)
                value, number = sample_four(features, image, corners_y, corners_x, four, F), i * samples_x + j
                if not use_max:
                    total = add_four(total, share, value)
                elif number == 0:
                    total, best = value, (np.int32(0), np.int32(0), np.int32(0), np.int32(0))
                else:
                    total, best = keep_greater(total, best, value, np.int32(number))
        write_four(total, four, r, p, q, output)
        if use_max:
            write_four(best, four, r, p, q, winner)
        first += FOUR * lanes


# roi_align(features (N,H,W,C), rois (R,5), spatial_scale: float, sampling_ratio: int, aligned: bool, use_max: bool,
#           winner (R,P,Q,C) int32, output (R,P,Q,C))
# `winner` receives the number of the best sample, -1 if there is none; the average does not touch it: pass (0,0,0,0).
roi_align = Twin(
    "roi_align",
    roi_align_cpu,
    roi_align_cuda,
    threads=threads_of_cells,
)
