"""RoIAlign (He et al. 2017, section 3): a RoI of any size becomes a crop of a fixed size, and nothing is rounded.

For every RoI and every one of its bins:

1. Scale the RoI to the feature map; with `aligned`, shift it half a cell, because the value of cell i sits at i + 0.5.
2. Cut it into bins of equal, fractional size and place `sampling_ratio` x `sampling_ratio` samples regularly in each
   (0: as many as the bin has cells, rounded up).
3. A sample takes the bilinear mixture of the four cells around it. Outside the map by more than a cell it counts as 0.
4. The bin is the samples' average (the paper, torchvision) or their maximum (the article).

The CPU bodies use that averaging is separable: the weight of a cell is a row weight times a column weight, found once
per RoI (`weigh_cells`). Forwards, a row of bins is mixed along y first, into a strip that holds each touched column
once and stays in the first cache, then along x. Channels are innermost: each cell is one contiguous vector.
The CPU gradient is free of races because each band of rows of the map has one owner, who walks all RoIs that reach it,
so its sums do not depend on the number of threads. The CUDA gradient comes twice. `roi_align_gradient` has a thread for
each element of the crops, which adds atomically, in no particular order: n terms may come out differently by n 2^-24 of
the sum of their sizes, in practice by 1e-6 of the largest gradient. `roi_align_gradient_in_order` has a warp for each
cell of the map, which walks all RoIs in order: slower, and the same bits every time.

Legend: N H W C features, R RoIs `(image, x1, y1, x2, y2)`, P Q bins along y and x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.rois import count_bands, find_band, find_image, order_visits
from minimrcnn.kernels.twin import WARP, Twin, cuda, find_place

# Adaptive sampling of a RoI that is NaN, infinite or wider than this many cells a bin would never end. Nearly all of
# its samples lie outside the map, so its average is taken for what it tends to: 0.
MOST_SAMPLES = 65536
BAND = 4  # rows of the map in a band of the CPU gradient: 4 x 272 cells of 256 channels are one megabyte, as is L2
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
def find_taps(axis, bins, cells, F):
    """`weigh_cells` for a strip that holds each cell once.

    Returns how many are touched, ``slots``, and which, ``used[:slots]``; and for every bin which slots it mixes,
    ``slot`` (bins, S), by which weights, ``weight`` (bins, S), filled up with weights 0 to ``count`` (bins,), a
    multiple of four.
    """
    most = (most_taps(axis, cells) + 3) // 4 * 4
    slot, weight, count = np.zeros((bins, most), np.int64), np.zeros((bins, most), F), np.zeros(bins, np.int64)
    weigh_cells(axis, bins, cells, F, slot, weight, count)
    used = np.zeros(cells, np.int64)
    slot_of = np.zeros(cells, np.int64)  # plus one: 0 is a cell not yet touched
    slots = 0
    for bin in range(bins):
        for tap in range(count[bin]):
            cell = slot[bin, tap]
            if slot_of[cell] == 0:
                used[slots] = cell
                slots += 1
                slot_of[cell] = slots
            slot[bin, tap] = slot_of[cell] - 1
        filled = (count[bin] + 3) // 4 * 4
        for tap in range(count[bin], filled):  # times 0, so of a cell that counts anyway, should it be NaN
            slot[bin, tap] = slot[bin, 0]
        count[bin] = filled
    return slots, used, slot, weight, count


@register_jitable
def average_roi(features, roi, spatial_scale, sampling_ratio, aligned, output):
    """The crop (P, Q, C) of one RoI, four cells a pass."""
    F = features.dtype.type
    images, height, width, channels = features.shape
    bins_y, bins_x, _ = output.shape
    image, row_axis, column_axis = locate_roi(roi, images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
    _, rows, row_slot, row_weight, row_count = find_taps(row_axis, bins_y, height, F)
    touched, columns, column_slot, column_weight, column_count = find_taps(column_axis, bins_x, width, F)
    cells = features.reshape(images * height * width, channels)  # (N*H*W, C)
    strip = np.zeros((touched, channels), features.dtype)
    for p in range(bins_y):
        samples = row_count[p] if image >= 0 else 0
        for t in range(touched):
            mixed = strip[t]
            for channel in range(channels):
                mixed[channel] = 0
            corner = image * height * width + columns[t]
            for k in range(0, samples, 4):
                w0, w1, w2, w3 = row_weight[p, k], row_weight[p, k + 1], row_weight[p, k + 2], row_weight[p, k + 3]
                a, b = cells[corner + rows[row_slot[p, k]] * width], cells[corner + rows[row_slot[p, k + 1]] * width]
                c, d = (
                    cells[corner + rows[row_slot[p, k + 2]] * width],
                    cells[corner + rows[row_slot[p, k + 3]] * width],
                )
                for channel in range(channels):
                    mixed[channel] += (w0 * a[channel] + w1 * b[channel]) + (w2 * c[channel] + w3 * d[channel])
        for q in range(bins_x):
            mixed = output[p, q]
            for channel in range(channels):
                mixed[channel] = 0
            for k in range(0, column_count[q], 4):
                w, at = column_weight[q], column_slot[q]
                w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
                a, b, c, d = strip[at[k]], strip[at[k + 1]], strip[at[k + 2]], strip[at[k + 3]]
                for channel in range(channels):
                    mixed[channel] += (w0 * a[channel] + w1 * b[channel]) + (w2 * c[channel] + w3 * d[channel])


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
def spread_averages_cpu(output_gradient, rois, spatial_scale, sampling_ratio, aligned, features_gradient):
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
    bands, units = count_bands(images, height, BAND)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        for r in prange(stop - start):  # once, not for every band that a RoI reaches: a quarter to a half of the time
            weigh_roi(rois[start + r], images, height, width, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F,
                      row[r], row_weight[r], rows[r], column[r], column_weight[r], columns[r])  # fmt: skip
        for unit in prange(units):
            image, first, last = find_band(unit, units, bands, height, BAND)
            for r in range(stop - start):
                roi = rois[start + r]
                at, axis, _ = locate_roi(roi, images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
                if at == image and reaches(axis, bins_y, first, last, height, F):
                    spread_average(output_gradient[start + r], row[r], row_weight[r], rows[r], column[r],
                                   column_weight[r], columns[r], first, last, features_gradient[image])  # fmt: skip


@compiled(parallel=True, nogil=True)
def spread_maxima_cpu(output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, features_gradient):
    F = features_gradient.dtype.type
    images, height, _, _ = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    bands, units = count_bands(images, height, BAND)
    for unit in prange(units):
        image, first, last = find_band(unit, units, bands, height, BAND)
        for r in range(len(rois)):
            at, rows, columns = locate_roi(rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
            if at == image and reaches(rows, bins_y, first, last, height, F):
                spread_maximum(output_gradient[r], winner[r], rows, columns, first, last, features_gradient[image])


def roi_align_gradient_cpu(
    output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, use_max, features_gradient
):
    if use_max:
        spread_maxima_cpu(output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, features_gradient)
    else:
        spread_averages_cpu(output_gradient, rois, spatial_scale, sampling_ratio, aligned, features_gradient)


# --- CUDA: one thread per element of the crops, neighbors on neighboring channels, so that their loads are one. ---


def roi_align_cuda(features, rois, spatial_scale, sampling_ratio, aligned, use_max, winner, output):
    element = cuda.grid(1)
    if element >= output.size:
        return
    F = features.dtype.type
    images, height, width, _ = features.shape
    _, bins_y, bins_x, _ = output.shape
    r, p, q, channel = find_place(element, output.shape)
    image, (y, size_y, samples_y), (x, size_x, samples_x) = locate_roi(
        rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F
    )
    if image < 0:
        samples_y = 0
    result, best = F(0), -1
    for i in range(samples_y):
        top, bottom, v = find_corners(place_sample(y, size_y, samples_y, p, i, F), height, F)
        for j in range(samples_x):
            left, right, u = find_corners(place_sample(x, size_x, samples_x, q, j, F), width, F)
            value = F(0)
            if top >= 0 and left >= 0:
                a, b = features[image, top, left, channel], features[image, top, right, channel]
                c, d = features[image, bottom, left, channel], features[image, bottom, right, channel]
                value = (F(1) - v) * ((F(1) - u) * a + u * b) + v * ((F(1) - u) * c + u * d)
            if not use_max:
                result += value
            elif best < 0 or value > result:
                result, best = value, i * samples_x + j
    if not use_max and samples_y > 0 and samples_x > 0:
        result /= F(samples_y) * F(samples_x)
    output[r, p, q, channel] = result
    if use_max:
        winner[r, p, q, channel] = best


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
def weigh_cell(cell, axis, bin, sample, cells, F):
    """How much of a cell is in one sample of one bin of an axis."""
    start, bin_size, samples = axis
    low, high, part = find_corners(place_sample(start, bin_size, samples, bin, sample, F), cells, F)
    weight = F(1) - part if low == cell else F(0)
    return weight + part if high == cell else weight


def roi_align_gradient_in_order_cuda(
    output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, use_max, features_gradient
):
    """The lanes of a cell's warp take channels 32 apart, and share what is to be found out about a RoI."""
    cell, lane = cuda.grid(1) // WARP, cuda.grid(1) % WARP
    F = features_gradient.dtype.type
    images, height, width, channels = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    if cell >= images * height * width:
        return
    _, image, row, column = find_place(cell, (1,) + features_gradient.shape[:3])
    mine = features_gradient[image, row, column]  # (C,)
    for r in range(len(rois)):
        at, rows, columns = locate_roi(rois[r], images, bins_y, bins_x, spatial_scale, sampling_ratio, aligned, F)
        if at != image or not reaches(rows, bins_y, row, row + 1, height, F):
            continue
        if not reaches(columns, bins_x, column, column + 1, width, F):
            continue
        samples_y, samples_x = rows[2], columns[2]
        for bin_sample_y in range(bins_y * samples_y):
            p, i = bin_sample_y // samples_y, bin_sample_y % samples_y
            along_y = weigh_cell(row, rows, p, i, height, F)
            for bin_sample_x in range(bins_x * samples_x if along_y != F(0) else 0):
                q, j = bin_sample_x // samples_x, bin_sample_x % samples_x
                weight = along_y * weigh_cell(column, columns, q, j, width, F)
                if not use_max:
                    weight /= F(samples_y) * F(samples_x)
                for channel in range(lane, channels if weight != F(0) else 0, WARP):
                    if not use_max or winner[r, p, q, channel] == i * samples_x + j:
                        mine[channel] += weight * output_gradient[r, p, q, channel]


# roi_align(features (N,H,W,C), rois (R,5), spatial_scale: float, sampling_ratio: int, aligned: bool, use_max: bool,
#           winner (R,P,Q,C) int32, output (R,P,Q,C))
# `winner` receives the number of the best sample, -1 if there is none; the average does not touch it: pass (0,0,0,0).
roi_align = Twin("roi_align", roi_align_cpu, roi_align_cuda)

# roi_align_gradient(output_gradient (R,P,Q,C), winner, rois, spatial_scale, sampling_ratio, aligned, use_max,
#                    features_gradient (N,H,W,C)) adds to its last argument.
roi_align_gradient = Twin(
    "roi_align_gradient",
    roi_align_gradient_cpu,
    roi_align_gradient_cuda,
    threads=lambda *arguments: arguments[0].size,
)

# The same, in an order that is always the same: as on the CPU, whose body is this one too.
roi_align_gradient_in_order = Twin(
    "roi_align_gradient_in_order",
    roi_align_gradient_cpu,
    roi_align_gradient_in_order_cuda,
    threads=lambda *arguments: math.prod(arguments[-1].shape[:3]) * WARP,
)
