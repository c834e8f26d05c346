"""Where RoIAlign looks: the samples of a RoI along each axis, the cells around them, and how much each cell counts.

RoIAlign and its gradient, on CPU and GPU, find their places here, and so do masks that are cut to train on. Bilinear
interpolation is separable: the weight of a cell is that of its row times that of its column, so an axis is looked at
once for all bins of a RoI (`weigh_cells`).

F is the scalar type of the arrays: without it Numba would go to float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.rois import find_image

# Adaptive sampling of a RoI that is NaN, infinite or wider than this many cells a bin would never end: a bin takes the
# square of so many. Nearly all of its samples lie outside the map, so its average is taken for what it tends to: 0.
MOST_SAMPLES = 4096


@register_jitable
def divide_axis(low, high, bins, sampling_ratio, aligned, spatial_scale, F):
    """One side of a RoI on the map: (its start, the size of a bin, samples a bin)."""
    scale = F(spatial_scale)
    offset = F(0.5) if aligned else F(0)
    start = low * scale - offset
    size = high * scale - offset - start
    if not aligned and size < F(1):
        size = F(1)
    bin_size = size / F(bins)
    samples = sampling_ratio
    if sampling_ratio == 0:
        samples = 0
        if bin_size > F(0) and bin_size <= F(MOST_SAMPLES):
            samples = int(math.ceil(bin_size))
    return start, bin_size, samples


@register_jitable
def place_sample(start, bin_size, samples, bin, sample, F):
    """The coordinate of one sample of one bin."""
    return start + F(bin) * bin_size + (F(sample) + F(0.5)) * bin_size / F(samples)


@register_jitable
def find_corners(position, cells, F):
    """The two cells around a sample and the second one's weight; (-1, -1, 0) outside the map (NaN fails the test)."""
    if not (position >= F(-1) and position <= F(cells)):
        return -1, -1, F(0)
    if position <= F(0):
        position = F(0)
    low = int(position)
    if low >= cells - 1:
        return cells - 1, cells - 1, F(0)
    return low, low + 1, position - F(low)


@register_jitable
def locate_roi(roi, images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F):
    """The image of a RoI (-1 if there is none), and its rows and columns as (start, bin size, samples a bin)."""
    rows = divide_axis(roi[2], roi[4], bins_y, sampling_ratio, aligned, spatial_scale, F)
    columns = divide_axis(roi[1], roi[3], bins_x, sampling_ratio, aligned, spatial_scale, F)
    return find_image(roi[0], images, F), rows, columns


@register_jitable
def most_taps(axis, cells):
    """No bin of an axis touches more cells than this."""
    return min(2 * max(axis[2], 0), cells)


@register_jitable
def weigh_cells(axis, bins, cells, F, cell, weight, count):
    """The cells that the samples of one axis touch: ``cell[bin, : count[bin]]``, each once, with their weights."""
    start, bin_size, samples = axis
    for bin in range(bins):
        taps = 0
        for sample in range(samples):
            low, high, part = find_corners(place_sample(start, bin_size, samples, bin, sample, F), cells, F)
            for corner in range(2 if low >= 0 else 0):
                touched = high if corner == 1 else low
                share = (part if corner == 1 else F(1) - part) / F(samples)
                if share == F(0):
                    continue
                tap = taps - 1  # samples come in order: a cell that is there already is among the last ones
                while tap >= 0 and cell[bin, tap] != touched:
                    tap -= 1
                if tap < 0:
                    tap = taps
                    taps += 1
                    cell[bin, tap], weight[bin, tap] = touched, F(0)
                weight[bin, tap] += share
        count[bin] = taps


@register_jitable
def weigh_axis(axis, bins, cells, F):
    """`weigh_cells` into arrays of its own: cell (bins, S), weight (bins, S) and count (bins,)."""
    most = most_taps(axis, cells)
    cell, weight, count = np.empty((bins, most), np.int64), np.empty((bins, most), F), np.empty(bins, np.int64)
    weigh_cells(axis, bins, cells, F, cell, weight, count)
    return cell, weight, count
