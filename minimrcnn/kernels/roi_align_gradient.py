"""The gradient of RoIAlign (`kernels.roi_align`): each cell gets its share of what flows into the bins it counted in.

The CPU gradient is free of races because each band of rows of the map has one owner, who walks all RoIs that reach it,
so its sums do not depend on the number of threads. The owner also clears the band, which then is in the cache: with 100
RoIs of 14x14 that takes three quarters of what it took with the whole map cleared first.

The CUDA gradient comes twice. `roi_align_gradient` has a thread for each element of the crops, which adds atomically,
in no particular order: n terms may come out differently by n 2^-24 of the sum of their sizes, in practice by 1e-6 of
the largest gradient. `roi_align_gradient_in_order` has a warp for each cell of the map, which walks all RoIs in order:
slower, and the same bits every time.

Legend: N H W C features, R RoIs `(image, x1, y1, x2, y2)`, P Q bins along y and x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import get_num_threads, prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.four import FOUR, add_four, choose_four, count_lanes, find_first, read_four, take_won, write_four
from minimrcnn.kernels.rois import clear_band, count_bands, find_band, order_across
from minimrcnn.kernels.samples import find_corners, locate_roi, most_taps, place_sample, weigh_cells
from minimrcnn.kernels.twin import THREADS_PER_BLOCK, WARP, Twin, cuda, divide, find_cell, find_place

BAND = 4  # rows of the map in a band of the CPU gradient: 4 x 272 cells of 256 channels are one megabyte, as is L2
CELLS, WORDS = THREADS_PER_BLOCK // WARP, THREADS_PER_BLOCK // 32  # of a block of the GPU; words of 32 bits
CHUNK = 1024  # RoIs whose weights are kept at a time: with adaptive sampling one may have a map's width of them a bin


@register_jitable
def reaches(axis, bins, first, last, height, F):
    """Whether an axis may touch rows first..last-1; the outermost rows also take samples just outside of the map."""
    start, bin_size, _ = axis
    end = start + F(bins) * bin_size
    return max(start, end) >= F(first - 1) and (min(start, end) <= F(last) or last == height)


@register_jitable
def spread_average(output_gradient, row, row_weight, rows, column, column_weight, columns, first, last, image_gradient):
    """Give each cell in rows first..last-1 its weight's share of every bin's gradient (P, Q, C); two cells a pass."""
    bins_y, bins_x, channels = output_gradient.shape
    for p in range(bins_y):
        for k in range(rows[p]):
            if row[p, k] < first or row[p, k] >= last:
                continue
            line = image_gradient[row[p, k]]  # (W, C)
            for q in range(bins_x):
                incoming, even = output_gradient[p, q], columns[q] // 2 * 2  # (C,)
                for t in range(0, even, 2):
                    near, far = line[column[q, t]], line[column[q, t + 1]]  # (C,)
                    of_near = row_weight[p, k] * column_weight[q, t]
                    of_far = row_weight[p, k] * column_weight[q, t + 1]
                    for channel in range(channels):
                        near[channel] += of_near * incoming[channel]
                        far[channel] += of_far * incoming[channel]
                if even < columns[q]:
                    target, share = line[column[q, even]], row_weight[p, k] * column_weight[q, even]
                    for channel in range(channels):
                        target[channel] += share * incoming[channel]


@register_jitable
def spread_maximum(output_gradient, winner, row_axis, column_axis, first, last, image_gradient):
    """Give the four cells around each bin's best sample, where they lie in rows first..last-1, their share."""
    F = image_gradient.dtype.type
    height, width, channels = image_gradient.shape
    (y, size_y, samples_y), (x, size_x, samples_x) = row_axis, column_axis
    for p in range(output_gradient.shape[0]):
        for i in range(samples_y):
            top, bottom, v = find_corners(place_sample(y, size_y, samples_y, p, i, F), height, F)
            for row, along_y in ((top, F(1) - v), (bottom, v)):
                if row < first or row >= last:
                    continue
                for q in range(output_gradient.shape[1]):
                    incoming, winning = output_gradient[p, q], winner[p, q]  # (C,)
                    for j in range(samples_x):
                        left, right, u = find_corners(place_sample(x, size_x, samples_x, q, j, F), width, F)
                        if left < 0:
                            continue
                        near, far = image_gradient[row, left], image_gradient[row, right]  # (C,)
                        for channel in range(channels):
                            if winning[channel] == i * samples_x + j:
                                near[channel] += along_y * (F(1) - u) * incoming[channel]
                                far[channel] += along_y * u * incoming[channel]


@register_jitable
def weigh_roi(roi, images, height, width, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F, row, row_weight,
              rows, column, column_weight, columns):  # fmt: skip
    """`weigh_cells` of both axes of a RoI."""
    _, row_axis, column_axis = locate_roi(roi, images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
    weigh_cells(row_axis, bins_y, height, F, row, row_weight, rows)
    weigh_cells(column_axis, bins_x, width, F, column, column_weight, columns)


@compiled(parallel=True, nogil=True)
def spread_averages_cpu(
    output_gradient, rois, order, spatial_scale, sampling_ratio, aligned, threads, features_gradient
):
    F = features_gradient.dtype.type
    images, height, width, _ = features_gradient.shape
    count, bins_y, bins_x, _ = output_gradient.shape
    most_y, most_x, some = 0, 0, min(count, CHUNK)
    for r in range(count):
        _, row_axis, column_axis = locate_roi(
            rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F
        )
        most_y, most_x = max(most_y, most_taps(row_axis, height)), max(most_x, most_taps(column_axis, width))
    row, row_weight = np.empty((some, bins_y, most_y), np.int32), np.empty((some, bins_y, most_y), F)
    column, column_weight = np.empty((some, bins_x, most_x), np.int32), np.empty((some, bins_x, most_x), F)
    rows, columns = np.empty((some, bins_y), np.int32), np.empty((some, bins_x), np.int32)
    bands, units = count_bands(images, height, BAND, threads)
    for start in range(0, max(count, 1), CHUNK):
        stop = min(start + CHUNK, count)
        for k in prange(stop - start):  # once, not for every band that a RoI reaches: a quarter to a half of the time
            roi = rois[order[start + k]]
            weigh_roi(roi, images, height, width, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F,
                      row[k], row_weight[k], rows[k], column[k], column_weight[k], columns[k])  # fmt: skip
        for unit in prange(units):
            image, first, last = find_band(unit, units, bands, height, BAND, threads)
            if start == 0 and image < images:
                clear_band(features_gradient, image, first, last)
            for k in range(stop - start):
                r = order[start + k]
                at, axis, _ = locate_roi(rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
                if at == image and reaches(axis, bins_y, first, last, height, F):
                    spread_average(output_gradient[r], row[k], row_weight[k], rows[k], column[k],
                                   column_weight[k], columns[k], first, last, features_gradient[image])  # fmt: skip


@compiled(parallel=True, nogil=True)
def spread_maxima_cpu(
    output_gradient, winner, rois, order, spatial_scale, sampling_ratio, aligned, threads, features_gradient
):
    F = features_gradient.dtype.type
    images, height, _, _ = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    bands, units = count_bands(images, height, BAND, threads)
    for unit in prange(units):
        image, first, last = find_band(unit, units, bands, height, BAND, threads)
        if image < images:
            clear_band(features_gradient, image, first, last)
        for r in order:
            at, rows, columns = locate_roi(rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
            if at == image and reaches(rows, bins_y, first, last, height, F):
                spread_maximum(output_gradient[r], winner[r], rows, columns, first, last, features_gradient[image])


def roi_align_gradient_cpu(
    output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, use_max, features_gradient
):
    settings = order_across(rois), spatial_scale, sampling_ratio, aligned, get_num_threads()
    if use_max:
        spread_maxima_cpu(output_gradient, winner, rois, *settings, features_gradient)
    else:
        spread_averages_cpu(output_gradient, rois, *settings, features_gradient)


# --- CUDA: a thread has an element of the crops, or a warp a cell of the map. ---


def roi_align_gradient_cuda(
    output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, use_max, features_gradient
):
    element = cuda.grid(1)
    if element >= output_gradient.size:
        return
    F = features_gradient.dtype.type
    images, height, width, _ = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    r, p, q, channel = find_place(element, output_gradient.shape)
    image, (y, size_y, samples_y), (x, size_x, samples_x) = locate_roi(
        rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F
    )
    if image < 0:
        return
    share = output_gradient[r, p, q, channel]
    if not use_max:
        share /= F(samples_y) * F(samples_x)
    for i in range(samples_y):
        top, bottom, v = find_corners(place_sample(y, size_y, samples_y, p, i, F), height, F)
        for j in range(samples_x):
            left, right, u = find_corners(place_sample(x, size_x, samples_x, q, j, F), width, F)
            if top < 0 or left < 0 or (use_max and winner[r, p, q, channel] != i * samples_x + j):
                continue
            cuda.atomic.add(features_gradient, (image, top, left, channel), (F(1) - v) * (F(1) - u) * share)
            cuda.atomic.add(features_gradient, (image, top, right, channel), (F(1) - v) * u * share)
            cuda.atomic.add(features_gradient, (image, bottom, left, channel), v * (F(1) - u) * share)
            cuda.atomic.add(features_gradient, (image, bottom, right, channel), v * u * share)


@register_jitable
def weigh_cell(cell, axis, number, cells, F):
    """Bin and sample of an axis' sample, counted through all bins, and how much of a cell is in it."""
    start, bin_size, samples = axis
    bin, sample = divide(number, samples)
    low, high, part = find_corners(place_sample(start, bin_size, samples, bin, sample, F), cells, F)
    weight = F(1) - part if low == cell else F(0)
    return bin, sample, weight + part if high == cell else weight


@register_jitable
def samples_near(cell, axis, bins, F):
    """Which of an axis' samples, counted through all bins, may touch a cell: the first, and one past the last.

    Sample k is at start + (k + 1 / 2) * step and touches what is less than a cell away. A bin is rounded elsewhere in
    its sum than this quotient, hence the slack; with a step that is 0, negative or not a number it may be any.
    """
    start, bin_size, samples = axis
    count, step = bins * samples, bin_size / F(samples)
    if not step > F(0):
        return np.int32(0), np.int32(count)
    slack = F(1) + F(1e-6) * (F(count) + abs(start) / step)
    middle = (F(cell) - start) / step - F(0.5)
    low, high = middle - F(1) / step - slack, middle + F(1) / step + slack
    first = 0 if not low > F(0) else count if low >= F(count) else int(low)
    last = count if not high < F(count) else 0 if high < F(-1) else int(high + F(1))
    return np.int32(first), np.int32(min(last, count))


def roi_align_gradient_in_order_cuda(
    output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, use_max, features_gradient
):
    """A warp has a cell. The block's threads find out, a RoI each, which of them reach the cells of its warps."""
    F = features_gradient.dtype.type
    images, height, width, channels = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    thread, block = cuda.threadIdx.x, cuda.blockIdx.x * CELLS
    warp, lane, lanes = thread // WARP, thread % WARP, count_lanes(channels)
    image, row, column = find_cell(block + warp, features_gradient.shape)
    reaching = cuda.shared.array((CELLS, WORDS), np.uint32)  # bit b of [k, w]: RoI 32 w + b reaches cell k
    for start in range(0, len(rois), THREADS_PER_BLOCK):
        if thread < CELLS * WORDS:
            reaching[thread // WORDS, thread % WORDS] = np.uint32(0)
        cuda.syncthreads()
        if start + thread < len(rois):
            at, rows, columns = locate_roi(
                rois[start + thread], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F
            )
            for k in range(CELLS):
                n, y, x = find_cell(block + k, features_gradient.shape)
                if at == n and reaches(rows, bins_y, y, y + 1, height, F):
                    if reaches(columns, bins_x, x, x + 1, width, F):
                        cuda.atomic.or_(reaching, (k, thread // WARP), np.uint32(1) << np.uint32(thread % WARP))
        cuda.syncthreads()
        for word in range(WORDS):
            bits = reaching[warp, word]
            while bits != np.uint32(0):
                bit = cuda.ffs(bits) - 1
                bits &= bits - np.uint32(1)
                r = start + word * WARP + bit
                _, rows, columns = locate_roi(
                    rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F
                )
                samples = rows[2] * columns[2]
                if samples <= 0:
                    continue
                first_y, last_y = samples_near(row, rows, bins_y, F)
                first_x, last_x = samples_near(column, columns, bins_x, F)
                first, step = find_first(lane, lanes, channels)
                first = first if lane < lanes else channels
                while first < channels:
                    four = choose_four(first, step, channels)
                    total = (F(0), F(0), F(0), F(0))
                    for y in range(first_y, last_y):
                        p, i, along_y = weigh_cell(row, rows, y, height, F)
                        for x in range(first_x, last_x if along_y != F(0) else 0):
                            q, j, along_x = weigh_cell(column, columns, x, width, F)
                            weight = along_y * along_x
                            if weight != F(0):
                                values = read_four(output_gradient, r, p, q, four)
                                if use_max:
                                    values = take_won(values, read_four(winner, r, p, q, four), i * columns[2] + j, F)
                                total = add_four(total, weight, values)
                    before = read_four(features_gradient, image, row, column, four)
                    share = F(1) if use_max else F(1) / F(samples)
                    write_four(add_four(before, share, total), four, image, row, column, features_gradient)
                    first += FOUR * lanes
        cuda.syncthreads()


# roi_align_gradient(output_gradient (R,P,Q,C), winner, rois, spatial_scale, sampling_ratio, aligned, use_max,
#                    features_gradient (N,H,W,C))
roi_align_gradient = Twin(
    "roi_align_gradient",
    roi_align_gradient_cpu,
    roi_align_gradient_cuda,
    threads=lambda *arguments: arguments[0].size,
    adds=True,
)

# The same in an order that never changes, as the CPU's does not (which is another one, and the body here too).
roi_align_gradient_in_order = Twin(
    "roi_align_gradient_in_order",
    roi_align_gradient_cpu,
    roi_align_gradient_in_order_cuda,
    threads=lambda *arguments: math.prod(arguments[-1].shape[:3]) * WARP,
    adds=True,
)
