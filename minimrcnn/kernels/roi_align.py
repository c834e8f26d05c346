"""RoIAlign (He et al. 2017, section 3): a RoI of any size becomes a crop of a fixed size, and nothing is rounded.

For every RoI and every one of its bins:

1. Scale the RoI to the feature map; with `aligned`, shift it half a cell, because the value of cell i sits at i + 0.5.
2. Cut it into bins of equal, fractional size and place `sampling_ratio` x `sampling_ratio` samples regularly in each
   (0: as many as the bin has cells, rounded up).
3. A sample takes the bilinear mixture of the four cells around it. Outside the map by more than a cell it counts as 0.
4. The bin is the samples' average (the paper, torchvision) or their maximum (the article).

The CPU bodies use that averaging is separable: the weight of a cell is a row weight times a column weight, found once
per RoI (`find_taps`). A row of bins is mixed along y first, into a strip that holds each touched column once and stays
in the first cache, then along x. Channels are innermost: each cell is one contiguous vector.
The CPU gradient is free of races because each band of rows of the map has one owner, who walks all RoIs that reach it,
so its sums do not depend on the number of threads; the CUDA gradient adds atomically, in no particular order.

Legend: N H W C features, R RoIs `(image, x1, y1, x2, y2)`, P Q bins along y and x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from minimrcnn.kernels.twin import Twin, cuda

# Adaptive sampling of a RoI that is NaN, infinite or wider than this many cells a bin would never end. Nearly all of
# its samples lie outside the map, so its average is taken for what it tends to: 0.
MOST_SAMPLES = 65536
BAND = 4  # rows of the map in a band of the CPU gradient: 4 x 272 cells of 256 channels are one megabyte, as is L2
LANES = 8  # neighboring bands go to different threads, as RoIs crowd in the middle of a picture


# --- Arithmetic shared by both bodies. F is the scalar type of the arrays: without it Numba would go to float64. ---


@register_jitable
def find_image(number, images, F):
    """The image index as an integer, -1 if there is no such image (NaN fails the test)."""
    if number >= F(0) and number < F(images):
        return int(number)
    return -1


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


# --- CPU. The work of one RoI is a function of its own, so that the parallel loop stays small and compiles quickly. ---


@register_jitable
def find_taps(axis, bins, cells, like):
    """The cells that the samples of one axis touch, and with what weight.

    Returns how many are touched, ``slots``, and which, each once, ``used[:slots]``; and for every bin which slots it
    mixes, ``slot`` (bins, S), by which weights, ``weight`` (bins, S), filled up with weights 0 to ``count`` (bins,), a
    multiple of four.
    """
    F = like.dtype.type
    start, bin_size, samples = axis
    most = (min(2 * max(samples, 0), cells) + 3) // 4 * 4
    used = np.zeros(cells, np.int64)
    slot_of = np.zeros(cells, np.int64)  # plus one: 0 is a cell not yet touched
    slot = np.zeros((bins, most), np.int64)
    weight = np.zeros((bins, most), like.dtype)
    count = np.zeros(bins, np.int64)
    slots = 0
    for bin in range(bins):
        taps = 0
        for sample in range(samples):
            low, high, part = find_corners(place_sample(start, bin_size, samples, bin, sample, F), cells, F)
            for corner in range(2 if low >= 0 else 0):
                cell = high if corner == 1 else low
                share = (part if corner == 1 else F(1) - part) / F(samples)
                if share == F(0):
                    continue
                if slot_of[cell] == 0:
                    used[slots] = cell
                    slots += 1
                    slot_of[cell] = slots
                tap = taps - 1  # samples come in order: a cell that is there already is among the last ones
                while tap >= 0 and slot[bin, tap] != slot_of[cell] - 1:
                    tap -= 1
                if tap < 0:
                    tap = taps
                    taps += 1
                    slot[bin, tap] = slot_of[cell] - 1
                weight[bin, tap] += share
        count[bin] = (taps + 3) // 4 * 4
    return slots, used, slot, weight, count


@register_jitable
def average_roi(image, row_axis, column_axis, output):
    """The crop (P, Q, C) of one RoI from its image (H, W, C), four cells a pass."""
    height, width, channels = image.shape
    cells = image.reshape(height * width, channels)  # (H*W, C)
    _, rows, row_slot, row_weight, row_count = find_taps(row_axis, output.shape[0], height, image)
    touched, columns, column_slot, column_weight, column_count = find_taps(column_axis, output.shape[1], width, image)
    strip = np.zeros((touched, channels), image.dtype)
    for p in range(output.shape[0]):
        for k in range(0, row_count[p], 4):
            w0, w1, w2, w3 = row_weight[p, k], row_weight[p, k + 1], row_weight[p, k + 2], row_weight[p, k + 3]
            y0, y1 = rows[row_slot[p, k]] * width, rows[row_slot[p, k + 1]] * width
            y2, y3 = rows[row_slot[p, k + 2]] * width, rows[row_slot[p, k + 3]] * width
            keep = image.dtype.type(k > 0)
            for t in range(touched):
                mixed, x = strip[t], columns[t]
                a, b, c, d = cells[y0 + x], cells[y1 + x], cells[y2 + x], cells[y3 + x]
                for channel in range(channels):
                    mixed[channel] = keep * mixed[channel] + (
                        (w0 * a[channel] + w1 * b[channel]) + (w2 * c[channel] + w3 * d[channel])
                    )
        for q in range(output.shape[1]):
            mixed = output[p, q]
            for channel in range(channels):
                mixed[channel] = 0
            for k in range(0, column_count[q] if row_count[p] > 0 else 0, 4):
                w0, w1 = column_weight[q, k], column_weight[q, k + 1]
                w2, w3 = column_weight[q, k + 2], column_weight[q, k + 3]
                a, b = strip[column_slot[q, k]], strip[column_slot[q, k + 1]]
                c, d = strip[column_slot[q, k + 2]], strip[column_slot[q, k + 3]]
                for channel in range(channels):
                    mixed[channel] += (w0 * a[channel] + w1 * b[channel]) + (w2 * c[channel] + w3 * d[channel])


@register_jitable
def maximize_roi(image, row_axis, column_axis, winner, output):
    """The crop of one RoI as the maximum of the samples; `winner` (P, Q, C) receives the first best one's number."""
    F = image.dtype.type
    height, width, channels = image.shape
    row_start, row_size, row_samples = row_axis
    column_start, column_size, column_samples = column_axis
    for p in range(output.shape[0]):
        for q in range(output.shape[1]):
            best, winning = output[p, q], winner[p, q]
            for channel in range(channels):  # what no samples give
                best[channel], winning[channel] = F(0), np.int32(-1)
            for i in range(row_samples):
                top, bottom, v = find_corners(place_sample(row_start, row_size, row_samples, p, i, F), height, F)
                for j in range(column_samples):
                    left, right, u = find_corners(
                        place_sample(column_start, column_size, column_samples, q, j, F), width, F
                    )
                    inside = F(1) if top >= 0 and left >= 0 else F(0)
                    a, b, c, d = image[top, left], image[top, right], image[bottom, left], image[bottom, right]
                    wa, wb = inside * (F(1) - v) * (F(1) - u), inside * (F(1) - v) * u
                    wc, wd = inside * v * (F(1) - u), inside * v * u
                    number = np.int32(i * column_samples + j)
                    for channel in range(channels):
                        value = (wa * a[channel] + wb * b[channel]) + (wc * c[channel] + wd * d[channel])
                        if number == 0 or value > best[channel]:
                            best[channel], winning[channel] = value, number


@register_jitable
def crop_roi(r, features, rois, spatial_scale, sampling_ratio, aligned, use_max, winner, output):
    F = features.dtype.type
    images, bins_y, bins_x = len(features), output.shape[1], output.shape[2]
    image = find_image(rois[r, 0], images, F)
    rows = divide_axis(rois[r, 2], rois[r, 4], bins_y, sampling_ratio, aligned, spatial_scale, F)
    columns = divide_axis(rois[r, 1], rois[r, 3], bins_x, sampling_ratio, aligned, spatial_scale, F)
    if image < 0:  # no such image: cut from the first one, without samples
        image, rows = 0, (F(0), F(0), 0)
    if use_max:
        maximize_roi(features[image], rows, columns, winner[r], output[r])
    else:
        average_roi(features[image], rows, columns, output[r])


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def roi_align_cpu(features, rois, spatial_scale, sampling_ratio, aligned, use_max, winner, output):
    for r in prange(len(output)):
        crop_roi(r, features, rois, spatial_scale, sampling_ratio, aligned, use_max, winner, output)


@register_jitable
def spread_average(output_gradient, row_axis, column_axis, first, last, image_gradient):
    """Give each cell in rows first..last-1 its weight's share of every bin's gradient (P, Q, C)."""
    height, width, channels = image_gradient.shape
    bins_y, bins_x, _ = output_gradient.shape
    cells = image_gradient.reshape(height * width, channels)  # (H*W, C)
    _, rows, row_slot, row_weight, row_count = find_taps(row_axis, bins_y, height, image_gradient)
    touched, columns, column_slot, column_weight, column_count = find_taps(column_axis, bins_x, width, image_gradient)
    strip = np.zeros((touched, channels), image_gradient.dtype)
    for p in range(bins_y):
        strip_is_ready = False
        for k in range(row_count[p]):
            row, weight = rows[row_slot[p, k]], row_weight[p, k]
            if row < first or row >= last or weight == 0:
                continue
            if not strip_is_ready:
                strip_is_ready = True
                strip[:] = 0
                for q in range(bins_x):
                    incoming = output_gradient[p, q]  # (C,)
                    for t in range(column_count[q]):
                        share, target = column_weight[q, t], strip[column_slot[q, t]]
                        for channel in range(channels):
                            target[channel] += share * incoming[channel]
            for t in range(touched):
                incoming, target = strip[t], cells[row * width + columns[t]]  # (C,)
                for channel in range(channels):
                    target[channel] += weight * incoming[channel]


@register_jitable
def spread_maximum(output_gradient, winner, row_axis, column_axis, first, last, image_gradient):
    """Give the four cells around each bin's best sample, where they lie in rows first..last-1, their share."""
    F = image_gradient.dtype.type
    height, width, channels = image_gradient.shape
    row_start, row_size, row_samples = row_axis
    column_start, column_size, column_samples = column_axis
    for p in range(output_gradient.shape[0]):
        for i in range(row_samples):
            top, bottom, v = find_corners(place_sample(row_start, row_size, row_samples, p, i, F), height, F)
            for row, along_y in ((top, F(1) - v), (bottom, v)):
                if row < first or row >= last:
                    continue
                for q in range(output_gradient.shape[1]):
                    incoming, winning = output_gradient[p, q], winner[p, q]  # (C,)
                    for j in range(column_samples):
                        left, right, u = find_corners(
                            place_sample(column_start, column_size, column_samples, q, j, F), width, F
                        )
                        if left < 0:
                            continue
                        near, far, number = (
                            image_gradient[row, left],
                            image_gradient[row, right],
                            i * column_samples + j,
                        )
                        for channel in range(channels):
                            if winning[channel] == number:
                                near[channel] += along_y * (F(1) - u) * incoming[channel]
                                far[channel] += along_y * u * incoming[channel]


@register_jitable
def fill_band(band, output_gradient, winner, rois, scale, sampling_ratio, aligned, use_max, features_gradient):
    """Add the shares of every RoI to one band of rows of one image."""
    F = features_gradient.dtype.type
    images, height, _, _ = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    bands = (height + BAND - 1) // BAND
    image, first = band // bands, band % bands * BAND
    last = min(first + BAND, height)
    for r in range(len(rois)):
        if find_image(rois[r, 0], images, F) != image:
            continue
        rows = divide_axis(rois[r, 2], rois[r, 4], bins_y, sampling_ratio, aligned, scale, F)
        start, end = rows[0], rows[0] + F(bins_y) * rows[1]
        # The first and the last row also take the samples up to a cell outside of the map.
        if max(start, end) < F(first - 1) or (min(start, end) > F(last) and last < height):
            continue
        columns = divide_axis(rois[r, 1], rois[r, 3], bins_x, sampling_ratio, aligned, scale, F)
        if use_max:
            spread_maximum(output_gradient[r], winner[r], rows, columns, first, last, features_gradient[image])
        else:
            spread_average(output_gradient[r], rows, columns, first, last, features_gradient[image])


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def roi_align_gradient_cpu(
    output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, use_max, features_gradient
):
    bands = len(features_gradient) * ((features_gradient.shape[1] + BAND - 1) // BAND)
    per_lane = (bands + LANES - 1) // LANES
    for unit in prange(LANES * per_lane):
        band = unit % per_lane * LANES + unit // per_lane
        if band < bands:
            fill_band(
                band, output_gradient, winner, rois, spatial_scale, sampling_ratio, aligned, use_max, features_gradient
            )


# --- CUDA: one thread per element of the crops, neighbors on neighboring channels, so that their loads are one. ---


def roi_align_cuda(features, rois, spatial_scale, sampling_ratio, aligned, use_max, winner, output):
    element = cuda.grid(1)
    if element >= output.size:
        return
    F = features.dtype.type
    images, height, width, channels = features.shape
    _, bins_y, bins_x, _ = output.shape
    channel = element % channels
    q = element // channels % bins_x
    p = element // (channels * bins_x) % bins_y
    r = element // (channels * bins_x * bins_y)
    image = find_image(rois[r, 0], images, F)
    y, size_y, samples_y = divide_axis(rois[r, 2], rois[r, 4], bins_y, sampling_ratio, aligned, spatial_scale, F)
    x, size_x, samples_x = divide_axis(rois[r, 1], rois[r, 3], bins_x, sampling_ratio, aligned, spatial_scale, F)
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
                result += value / (F(samples_y) * F(samples_x))
            elif best < 0 or value > result:
                result, best = value, i * samples_x + j
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
    images, height, width, channels = features_gradient.shape
    _, bins_y, bins_x, _ = output_gradient.shape
    channel = element % channels
    q = element // channels % bins_x
    p = element // (channels * bins_x) % bins_y
    r = element // (channels * bins_x * bins_y)
    image = find_image(rois[r, 0], images, F)
    y, size_y, samples_y = divide_axis(rois[r, 2], rois[r, 4], bins_y, sampling_ratio, aligned, spatial_scale, F)
    x, size_x, samples_x = divide_axis(rois[r, 1], rois[r, 3], bins_x, sampling_ratio, aligned, spatial_scale, F)
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
