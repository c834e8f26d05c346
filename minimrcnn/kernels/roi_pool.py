"""RoI pooling (Girshick 2015, section 2.1): the maximum of the whole cells in every bin of a RoI.

For every RoI and every bin:

1. Bring the RoI to whole cells of the map, and its bins to whole cells: two roundings, the ones RoIAlign removes.
2. The bin's value is the maximum of its cells, and 0 if it has none; its gradient goes to the first cell that has it.

How to round is a rule with three readings:

- CAFFE, also torchvision's: corners are rounded and both included; bin p covers floor(p * size / bins) up to
  ceil((p + 1) * size / bins), so that neighboring bins may overlap and no cell is dropped.
- SPLIT, the article's example: corners are rounded, half-open, and the cells are dealt out by integer division:
  5 rows become 2 + 3, 7 columns 3 + 4.
- FLOOR, how the story is usually told: the size is cut to whole cells (20.78 -> 20), then the bins' size
  (20 / 7 = 2.857 -> 2), and the 6 cells left over are dropped.

The CUDA gradient comes twice, as that of RoIAlign (see there): `roi_pool_gradient` adds atomically, in no particular
order, `roi_pool_gradient_in_order` always in the same one.

Legend: N H W C features, R RoIs `(image, x1, y1, x2, y2)`, P Q bins along y and x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import get_num_threads, prange
from numba.extending import register_jitable

from minimrcnn.kernels.cells import find_maximum
from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.four import (
    FOUR,
    choose_four,
    find_first,
    find_lane,
    keep_greater,
    read_four,
    threads_of_cells,
    write_four,
)
from minimrcnn.kernels.rois import clear_band, count_bands, find_band, find_image, order_across, order_visits
from minimrcnn.kernels.twin import WARP, Twin, cuda, find_cell, find_place

CAFFE, SPLIT, FLOOR = 0, 1, 2
FAR = 1 << 30  # cells; a corner that is further away, infinite or not a number is taken to be there
# The CPU gradient goes by bands of rows. A bin that lies in two of them is read twice, and a band that is too high does
# not stay in cache.
LEAST_ROWS, MOST_ROWS = 4, 32


@register_jitable
def clip(value, low, high):
    """`value`, or the one of two whole numbers that it is beyond."""
    if value < low:
        return low
    return high if value > high else value


@register_jitable
def round_coordinate(value, F):
    """Half away from zero, as C rounds."""
    if not value > F(-FAR):
        return -FAR
    if value > F(FAR):
        return FAR
    size = abs(value)
    whole = int(math.floor(size))
    if size - F(whole) >= F(0.5):
        whole += 1
    return whole if value >= F(0) else -whole


@register_jitable
def divide_cells(low, high, rule, spatial_scale, F):
    """One side of a RoI in whole cells: (first cell, number of cells). It may reach beyond the map."""
    low, high = low * F(spatial_scale), high * F(spatial_scale)
    first = round_coordinate(low, F)
    if rule == CAFFE:
        return first, max(round_coordinate(high, F) - first + 1, 1)
    if rule == SPLIT:
        return first, max(round_coordinate(high, F) - first, 0)
    if not (abs(low) < F(FAR) and abs(high) < F(FAR)):
        return FAR, 0
    return int(math.floor(low)), max(int(math.floor(high - low)), 0)  # the corner is cut, then the size


@register_jitable
def find_bin(first, size, cells, bins, bin, rule, F):
    """The cells of one bin, clipped to the map: (first, one past the last)."""
    if rule == CAFFE:
        bin_size = F(size) / F(bins)
        low, high = int(math.floor(F(bin) * bin_size)), int(math.ceil(F(bin + 1) * bin_size))
    elif rule == SPLIT:
        low, high = bin * size // bins, (bin + 1) * size // bins
    else:
        low, high = bin * (size // bins), (bin + 1) * (size // bins)
    return clip(low + first, 0, cells), clip(high + first, 0, cells)


# --- CPU ---


@compiled_task
def pool_roi(r, features, rois, spatial_scale, rule, winner, output):
    """The crop of one RoI; `winner` receives the cell (row * W + column) that each value came from, -1 if none."""
    F = features.dtype.type
    images, height, width, channels = features.shape
    _, bins_y, bins_x, _ = output.shape
    image = find_image(rois[r, 0], images, F)
    first_y, size_y = divide_cells(rois[r, 2], rois[r, 4], rule, spatial_scale, F)
    first_x, size_x = divide_cells(rois[r, 1], rois[r, 3], rule, spatial_scale, F)
    for p in range(bins_y):
        top, bottom = find_bin(first_y, size_y, height, bins_y, p, rule, F)
        for q in range(bins_x):
            left, right = find_bin(first_x, size_x, width, bins_x, q, rule, F)
            best, winning = output[r, p, q], winner[r, p, q]  # (C,)
            if image < 0 or top >= bottom or left >= right:
                for channel in range(channels):
                    best[channel], winning[channel] = F(0), np.int32(-1)
            else:
                cells = features[image, top:bottom, left:right]  # (rows, columns, C)
                find_maximum(cells, np.int64(top * width + left), np.int64(width), best, winning)


@compiled(parallel=True, nogil=True)
def pool_rois_cpu(features, rois, order, spatial_scale, rule, winner, output):
    for visit in prange(len(order)):
        pool_roi(order[visit], features, rois, spatial_scale, rule, winner, output)


def roi_pool_cpu(features, rois, spatial_scale, rule, winner, output):
    pool_rois_cpu(features, rois, order_visits(rois, spatial_scale), spatial_scale, rule, winner, output)


@compiled_task
def route_band(image, first, last, output_gradient, winner, rois, order, spatial_scale, rule, features_gradient):
    """Clear rows ``first`` to ``last - 1`` of one image, and hand the gradients of bins to the winners that lie there.

    A winner elsewhere, or none, gives 0 to the band's first cell: a question asked in every channel, with an answer
    that cannot be foreseen, costs more than an addition. Where the numbers of a bin go is worked out for all its
    channels, in vectors, before the first one goes there: three quarters of the time of one after the other.
    """
    F = features_gradient.dtype.type
    images, height, width, channels = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    band = features_gradient[image, first:last].reshape(-1)
    clear_band(features_gradient, image, first, last)
    cells, before = np.uint32((last - first) * width), np.uint32(first * width)
    places, amounts = np.empty(channels, np.uint64), np.empty(channels, features_gradient.dtype)
    for r in order:
        if find_image(rois[r, 0], images, F) != image:
            continue
        first_y, size_y = divide_cells(rois[r, 2], rois[r, 4], rule, spatial_scale, F)
        for p in range(bins_y):
            top, bottom = find_bin(first_y, size_y, height, bins_y, p, rule, F)
            if bottom <= first or top >= last:
                continue
            for q in range(bins_x):
                incoming, winning = output_gradient[r, p, q], winner[r, p, q]  # (C,)
                for channel in range(channels):
                    cell = np.uint32(np.uint32(winning[channel]) - before)  # -1 and cells before are very large
                    inside = cell < cells
                    here = np.uint64(cell if inside else np.uint32(0))
                    places[channel] = here * np.uint64(channels) + np.uint64(channel)
                    amounts[channel] = incoming[channel] if inside else F(0)
                for channel in range(channels):
                    band[places[channel]] += amounts[channel]


@compiled(parallel=True, nogil=True)
def route_bands_cpu(output_gradient, winner, rois, order, spatial_scale, rule, threads, features_gradient):
    images, height = features_gradient.shape[:2]
    rows = min(max(images * height // (4 * threads), LEAST_ROWS), MOST_ROWS)
    bands, units = count_bands(images, height, rows, threads)
    for unit in prange(units):
        image, first, last = find_band(np.int64(unit), units, bands, height, rows, threads)
        if image < images:
            route_band(image, first, last, output_gradient, winner, rois, order, spatial_scale, rule, features_gradient)


def roi_pool_gradient_cpu(output_gradient, winner, rois, spatial_scale, rule, features_gradient):
    settings = order_across(rois), spatial_scale, rule, get_num_threads()
    route_bands_cpu(output_gradient, winner, rois, *settings, features_gradient)


# --- CUDA: a thread has four channels of a bin; in the gradient one element of it, or a warp has a cell of the map ---


def roi_pool_cuda(features, rois, spatial_scale, rule, winner, output):
    F = features.dtype.type
    images, height, width, channels = features.shape
    _, bins_y, bins_x, _ = output.shape
    (r, p, q), lane, lanes = find_lane(cuda.grid(1), output.shape)
    if r >= len(rois):
        return
    image = find_image(rois[r, 0], images, F)
    first_y, size_y = divide_cells(rois[r, 2], rois[r, 4], rule, spatial_scale, F)
    first_x, size_x = divide_cells(rois[r, 1], rois[r, 3], rule, spatial_scale, F)
    top, bottom = find_bin(first_y, size_y, height, bins_y, p, rule, F)
    left, right = find_bin(first_x, size_x, width, bins_x, q, rule, F)
    if image < 0 or left >= right:
        bottom = top
    nothing = F(-np.inf) if top < bottom else F(0)
    first, step = find_first(lane, lanes, channels)
    while first < channels:
        four = choose_four(first, step, channels)
        none = np.int32(-1)
        best, winning = (nothing, nothing, nothing, nothing), (none, none, none, none)
        for row in range(top, bottom):
            cell, last = np.int32(row * width + left), np.int32(row * width + right)
            while cell < last:  # a column of one long row; a range would count twice
                best, winning = keep_greater(best, winning, read_four(features, image, 0, cell, four), cell)
                cell = np.int32(cell + 1)
        write_four(best, four, r, p, q, output)
        write_four(winning, four, r, p, q, winner)
        first += FOUR * lanes


def roi_pool_gradient_cuda(output_gradient, winner, rois, spatial_scale, rule, features_gradient):
    element = cuda.grid(1)
    if element >= output_gradient.size:
        return
    F = features_gradient.dtype.type
    images, _, width, _ = features_gradient.shape
    r, p, q, channel = find_place(element, output_gradient.shape)
    cell = winner[r, p, q, channel]
    if cell >= 0:
        place = (find_image(rois[r, 0], images, F), cell // width, cell % width, channel)
        cuda.atomic.add(features_gradient, place, output_gradient[r, p, q, channel])


def roi_pool_gradient_in_order_cuda(output_gradient, winner, rois, spatial_scale, rule, features_gradient):
    """The lanes of a cell's warp take channels 32 apart, and share what is to be found out about a RoI."""
    cell, lane = cuda.grid(1) // WARP, cuda.grid(1) % WARP
    F = features_gradient.dtype.type
    images, height, width, channels = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    if cell >= images * height * width:
        return
    image, row, column = find_cell(cell, features_gradient.shape)
    mine = features_gradient[image, row, column]  # (C,)
    for r in range(len(rois)):
        if find_image(rois[r, 0], images, F) != image:
            continue
        first_y, size_y = divide_cells(rois[r, 2], rois[r, 4], rule, spatial_scale, F)
        first_x, size_x = divide_cells(rois[r, 1], rois[r, 3], rule, spatial_scale, F)
        for p in range(bins_y):
            top, bottom = find_bin(first_y, size_y, height, bins_y, p, rule, F)
            for q in range(bins_x if top <= row and row < bottom else 0):
                left, right = find_bin(first_x, size_x, width, bins_x, q, rule, F)
                for channel in range(lane, channels if left <= column and column < right else 0, WARP):
                    if winner[r, p, q, channel] == row * width + column:
                        mine[channel] += output_gradient[r, p, q, channel]


# roi_pool(features (N,H,W,C), rois (R,5), spatial_scale: float, rule: int, winner (R,P,Q,C) int32, output (R,P,Q,C))
roi_pool = Twin("roi_pool", roi_pool_cpu, roi_pool_cuda, threads=threads_of_cells)

# roi_pool_gradient(output_gradient (R,P,Q,C), winner, rois (R,5), spatial_scale, rule, features_gradient (N,H,W,C))
roi_pool_gradient = Twin(
    "roi_pool_gradient",
    roi_pool_gradient_cpu,
    roi_pool_gradient_cuda,
    threads=lambda *arguments: arguments[0].size,
    adds=True,
)

# The same in an order that never changes, as the CPU's does not (which is another one, and the body here too).
roi_pool_gradient_in_order = Twin(
    "roi_pool_gradient_in_order",
    roi_pool_gradient_cpu,
    roi_pool_gradient_in_order_cuda,
    threads=lambda *arguments: math.prod(arguments[-1].shape[:3]) * WARP,
    adds=True,
)
