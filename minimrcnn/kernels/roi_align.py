"""RoIAlign (He et al. 2017, section 3): a RoI of any size becomes a crop of a fixed size, and nothing is rounded.

For every RoI and every one of its bins:

1. Scale the RoI to the feature map; with `aligned`, shift it half a cell, because the value of cell i sits at i + 0.5.
2. Cut it into bins of equal, fractional size and place `sampling_ratio` x `sampling_ratio` samples regularly in each
   (0: as many as the bin has cells, rounded up).
3. A sample takes the bilinear mixture of the four cells around it. Outside the map by more than a cell it counts as 0.
4. The bin is the samples' average (the paper, torchvision) or their maximum (the article).

The CPU bodies use that averaging is separable: the weight of a cell is a row weight times a column weight, found once
per RoI (`weigh_cells`), and a bin is a weighted sum of cells, each of them one contiguous vector of channels.
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

from minimrcnn.kernels.cells import mix_cells
from minimrcnn.kernels.compiled import clear, compiled
from minimrcnn.kernels.four import (
    FOUR,
    add_four,
    choose_four,
    count_lanes,
    find_lane,
    keep_greater,
    read_four,
    take_won,
    threads_of_cells,
    write_four,
)
from minimrcnn.kernels.rois import clear_band, count_bands, find_band, find_image, order_across, order_visits
from minimrcnn.kernels.twin import THREADS_PER_BLOCK, WARP, Twin, cuda, divide, find_cell, find_place

# Adaptive sampling of a RoI that is NaN, infinite or wider than this many cells a bin would never end: a bin takes the
# square of so many. Nearly all of its samples lie outside the map, so its average is taken for what it tends to: 0.
MOST_SAMPLES = 4096
BAND = 4  # rows of the map in a band of the CPU gradient: 4 x 272 cells of 256 channels are one megabyte, as is L2
CELLS, WORDS = THREADS_PER_BLOCK // WARP, THREADS_PER_BLOCK // 32  # of a block of the GPU; words of 32 bits
CHUNK = 1024  # RoIs whose weights are kept at a time: with adaptive sampling one may have a map's width of them a bin


# --- Arithmetic shared by both bodies. F is the scalar type of the arrays: without it Numba would go to float64. ---


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


# --- CPU. Averaging and maximizing are kernels of their own: who only averages does not wait for the other to compile.
#     The work of one RoI is a function of its own, so that the parallel loops stay small, for the same reason. ---


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


# --- CUDA: a thread has four channels of a bin; in the gradient one element of it, or a warp has a cell of the map. ---


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
    first = lane
    while first < channels:
        four = choose_four(first, lanes, channels)
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
                first = lane if lane < lanes else channels
                while first < channels:
                    four = choose_four(first, lanes, channels)
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


# roi_align(features (N,H,W,C), rois (R,5), spatial_scale: float, sampling_ratio: int, aligned: bool, use_max: bool,
#           winner (R,P,Q,C) int32, output (R,P,Q,C))
# `winner` receives the number of the best sample, -1 if there is none; the average does not touch it: pass (0,0,0,0).
roi_align = Twin(
    "roi_align",
    roi_align_cpu,
    roi_align_cuda,
    threads=threads_of_cells,
)

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
