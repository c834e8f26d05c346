"""What the mask head should answer for a RoI: the matched object's mask, cut out and shrunk to M x M.

It is RoIAlign of the mask with as many samples as a bin has pixels, not shifted by half a pixel (torchvision's
`project_masks_on_boxes`). The targets stay soft: a cell half covered is 0.5. For every RoI:

1. The RoI is at least a pixel wide and high, and is cut into M x M bins.
2. A bin takes ceil(size) regular samples along each axis; a sample mixes the four pixels around it, bilinearly.
3. The bin is their average; samples more than a pixel outside of the picture count 0.

The samples of step 2 are separable: along each axis a bin weighs a run of neighboring pixels (`weigh_pixels`), which
the CPU body finds once for each RoI. The CUDA body has a thread for each cell of a target, which takes its samples.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.samples import find_corners, place_sample
from minimrcnn.kernels.twin import Twin, cuda, find_cell

LARGEST = 1e6  # pixels; a RoI wider than this, infinite or NaN gives an empty target


@register_jitable
def divide_side(low, high, bins, F):
    """One side of a RoI: (the size of a bin, samples a bin); no samples where the RoI is broken."""
    size = high - low
    if size < F(1):
        size = F(1)
    if not (size < F(LARGEST) and low > F(-LARGEST) and low < F(LARGEST)):
        return F(1), 0
    bin_size = size / F(bins)
    return bin_size, int(math.ceil(bin_size))


@register_jitable
def weigh_pixels(low, high, bins, pixels, weight):
    """Fill `weight` (bins, pixels) with the share of every pixel in every bin of one axis; also (first, last + 1)."""
    F = weight.dtype.type
    first, last = pixels, 0
    bin_size, samples = divide_side(low, high, bins, F)
    for bin in range(bins):
        for sample in range(samples):
            near, far, part = find_corners(place_sample(low, bin_size, samples, bin, sample, F), pixels, F)
            if near < 0:
                continue
            weight[bin, near] += (F(1) - part) / F(samples)
            weight[bin, far] += part / F(samples)
            first, last = min(first, near), max(last, far + 1)
    return first, last


@register_jitable
def crop_mask(mask, roi, output):
    """The target (M, M) of one RoI from its object's mask (H, W): first along y, then along x."""
    F = output.dtype.type
    height, width = mask.shape
    side = len(output)
    weight_y, weight_x = np.zeros((side, height), output.dtype), np.zeros((side, width), output.dtype)
    top, bottom = weigh_pixels(roi[1], roi[3], side, height, weight_y)
    left, right = weigh_pixels(roi[0], roi[2], side, width, weight_x)
    strip = np.zeros((side, width), output.dtype)  # rows of bins, columns of pixels
    for p in range(side):
        for row in range(top, bottom):
            share = weight_y[p, row]
            for column in range(left, right if share != F(0) else left):
                strip[p, column] += share * F(mask[row, column])
        for q in range(side):
            total = F(0)
            for column in range(left, right):
                total += weight_x[q, column] * strip[p, column]
            output[p, q] = total


@compiled(parallel=True, nogil=True)
def crop_masks_cpu(masks, rois, matched, output):
    for r in prange(len(output)):
        crop_mask(masks[matched[r]], rois[r], output[r])


def crop_masks_cuda(masks, rois, matched, output):
    element = cuda.grid(1)
    if element >= output.size:
        return
    F = output.dtype.type
    _, height, width = masks.shape
    side = output.shape[1]
    r, p, q = find_cell(element, output.shape)
    size_y, samples_y = divide_side(rois[r, 1], rois[r, 3], side, F)
    size_x, samples_x = divide_side(rois[r, 0], rois[r, 2], side, F)
    mask, total = masks[matched[r]], F(0)
    for i in range(samples_y):
        top, bottom, v = find_corners(place_sample(rois[r, 1], size_y, samples_y, p, i, F), height, F)
        for j in range(samples_x if top >= 0 else 0):
            left, right, u = find_corners(place_sample(rois[r, 0], size_x, samples_x, q, j, F), width, F)
            if left >= 0:
                above = (F(1) - u) * F(mask[top, left]) + u * F(mask[top, right])
                below = (F(1) - u) * F(mask[bottom, left]) + u * F(mask[bottom, right])
                total += (F(1) - v) * above + v * below
    output[r, p, q] = total / (F(samples_y) * F(samples_x)) if samples_y > 0 and samples_x > 0 else F(0)


# crop_masks(masks (G,H,W) uint8, rois (R,4), matched (R,) int64, output (R,M,M))
crop_masks = Twin("crop_masks", crop_masks_cpu, crop_masks_cuda)
