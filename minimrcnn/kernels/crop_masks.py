"""What the mask head should answer for a RoI: the matched object's mask, cut out and shrunk to M x M.

It is RoIAlign of the mask with as many samples as a bin has pixels, not shifted by half a pixel (torchvision's
`project_masks_on_boxes`). The targets stay soft: a cell half covered is 0.5. For every RoI:

1. The RoI is at least a pixel wide and high, and is cut into M x M bins.
2. A bin takes ceil(size) regular samples along each axis; a sample mixes the four pixels around it, bilinearly.
3. The bin is their average; samples more than a pixel outside of the picture count 0.

The samples of step 2 are separable: along each axis a bin weighs a run of neighboring pixels (`weigh_pixels`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from minimrcnn.kernels.twin import Twin

LARGEST = 1e6  # pixels; a RoI wider than this, infinite or NaN gives an empty target


@register_jitable
def weigh_pixels(low, high, bins, pixels, weight):
    """Fill `weight` (bins, pixels) with the share of every pixel in every bin of one axis; also (first, last + 1)."""
    F = weight.dtype.type
    size = max(high - low, F(1))
    first, last = pixels, 0
    if not (size < F(LARGEST) and low > F(-LARGEST) and low < F(LARGEST)):
        return first, last
    bin_size = size / F(bins)
    samples = int(math.ceil(bin_size))
    for bin in range(bins):
        for sample in range(samples):
            position = low + F(bin) * bin_size + (F(sample) + F(0.5)) * bin_size / F(samples)
            if not (position >= F(-1) and position <= F(pixels)):
                continue
            position = max(position, F(0))
            near = min(int(position), pixels - 1)
            part = position - F(near) if near < pixels - 1 else F(0)
            far = min(near + 1, pixels - 1)
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


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def crop_masks_cpu(masks, rois, matched, output):
    for r in prange(len(output)):
        crop_mask(masks[matched[r]], rois[r], output[r])


# crop_masks(masks (G,H,W) uint8, rois (R,4), matched (R,) int64, output (R,M,M))
crop_masks = Twin("crop_masks", crop_masks_cpu)
