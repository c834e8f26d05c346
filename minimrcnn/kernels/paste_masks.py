"""Paste a mask of M x M into its box in the picture (He et al. 2017, section 3.1; the pixel rules are torchvision's).

For every mask:

1. Surround it by one row or column of zeros on each side, so that it fades out at the border: M + 2 on a side.
2. Widen the box about its center by (M + 2) / M, and cut its corners to whole pixels; corners are inclusive.
3. Stretch the padded mask over those pixels: pixel i of n reads between the cells around (i + 0.5) (M + 2) / n - 0.5.
4. Write what lies in the picture; the rest of the picture is 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from minimrcnn.kernels.twin import Twin

FAR = 1 << 30  # box corners beyond this, infinite or NaN belong to no picture


@register_jitable
def widen_side(low, high, side, pixels, F):
    """One side of the widened box: (first whole pixel, how many) and those in the picture: (start, end)."""
    center, half = (low + high) * F(0.5), (high - low) * F(0.5) * (F(side + 2) / F(side))
    first, last = center - half, center + half
    if not (first > F(-FAR) and first < F(FAR) and last > F(-FAR) and last < F(FAR)):
        return 0, 1, 0, 0
    begin = int(first)  # towards zero, as torch converts
    count = max(int(last) - begin + 1, 1)
    return begin, count, max(begin, 0), min(begin + count, pixels)


@register_jitable
def find_source(pixel, count, side, F):
    """Where pixel i of n reads in the padded mask of side + 2 cells: (cell, next cell, weight of the next)."""
    position = max((F(pixel) + F(0.5)) * (F(side + 2) / F(count)) - F(0.5), F(0))
    low = min(int(position), side + 1)
    return low, min(low + 1, side + 1), position - F(low)


@register_jitable
def mix_rows(mask, low, high, part, line):
    """line (M+2,) = the padded mask between two of its rows; its ends stay 0."""
    F, side = mask.dtype.type, len(mask)
    for column in range(side):
        above = mask[low - 1, column] if low >= 1 and low <= side else F(0)
        below = mask[high - 1, column] if high >= 1 and high <= side else F(0)
        line[column + 1] = (F(1) - part) * above + part * below


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def paste_masks_cpu(masks, boxes, output):
    F = masks.dtype.type
    side = masks.shape[1]
    for d in prange(len(output)):
        top, rows, y_start, y_end = widen_side(boxes[d, 1], boxes[d, 3], side, output.shape[1], F)
        left, columns, x_start, x_end = widen_side(boxes[d, 0], boxes[d, 2], side, output.shape[2], F)
        line = np.zeros(side + 2, masks.dtype)
        for row in range(y_start, y_end):
            low, high, part = find_source(row - top, rows, side, F)
            mix_rows(masks[d], low, high, part, line)
            for column in range(x_start, x_end):
                low, high, part = find_source(column - left, columns, side, F)
                output[d, row, column] = (F(1) - part) * line[low] + part * line[high]


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def paste_masks_bool_cpu(masks, boxes, threshold, output):
    F = masks.dtype.type
    side = masks.shape[1]
    for d in prange(len(output)):
        top, rows, y_start, y_end = widen_side(boxes[d, 1], boxes[d, 3], side, output.shape[1], F)
        left, columns, x_start, x_end = widen_side(boxes[d, 0], boxes[d, 2], side, output.shape[2], F)
        line = np.zeros(side + 2, masks.dtype)
        for row in range(y_start, y_end):
            low, high, part = find_source(row - top, rows, side, F)
            mix_rows(masks[d], low, high, part, line)
            for column in range(x_start, x_end):
                low, high, part = find_source(column - left, columns, side, F)
                output[d, row, column] = (F(1) - part) * line[low] + part * line[high] > F(threshold)


# paste_masks(masks (D,M,M), boxes (D,4), output (D,H,W), zeros at first), all of one floating type
paste_masks = Twin("paste_masks", paste_masks_cpu)

# paste_masks_bool(masks (D,M,M), boxes (D,4), threshold: float, output (D,H,W) bool, False at first)
paste_masks_bool = Twin("paste_masks_bool", paste_masks_bool_cpu)
