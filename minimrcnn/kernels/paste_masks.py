"""Paste a mask of M x M into its box in the picture (He et al. 2017, section 3.1; the pixel rules are torchvision's).

For every mask:

1. Surround it by one row or column of zeros on each side, so that it fades out at the border: M + 2 on a side.
2. Widen the box about its center by (M + 2) / M, and cut its corners to whole pixels; corners are inclusive.
3. Stretch the padded mask over those pixels: pixel i of n reads between the cells around (i + 0.5) (M + 2) / n - 0.5.
4. Write what lies in the picture; the rest of the picture is 0.

The CUDA bodies have a thread for each pixel of each picture, and most have nothing to do. A GPU's last bit may differ
from a CPU's, so a pixel whose value is the threshold to within 1e-6 may be inside on one and outside on the other.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.twin import Twin, cuda, find_cell

FAR = 1 << 30  # box corners beyond this, infinite or NaN belong to no picture


@register_jitable
def widen_side(low, high, side, pixels, F):
    """One side of the widened box: (first whole pixel, how many) and those in the picture: (start, end).

    End is not negative: in a slice it would count from the other end.
    """
    center, half = (low + high) * F(0.5), (high - low) * F(0.5) * (F(side + 2) / F(side))
    first, last = center - half, center + half
    if not (first > F(-FAR) and first < F(FAR) and last > F(-FAR) and last < F(FAR)):
        return 0, 1, 0, 0
    begin = int(first)  # toward zero, as torch converts
    count = max(int(last) - begin + 1, 1)
    return begin, count, max(begin, 0), max(min(begin + count, pixels), 0)


@register_jitable
def find_source(pixel, count, side, F):
    """Where pixel i of n reads in the padded mask of side + 2 cells: (cell, weight of the next).

    One more cell of zeros behind the padding is the next of the last.
    """
    position = max((F(pixel) + F(0.5)) * (F(side + 2) / F(count)) - F(0.5), F(0))
    low = min(int(position), side + 1)
    return low, position - F(low)


@compiled_task
def find_columns(left, columns, start, end, side, lows, parts):
    """`find_source` of the pixels start .. end - 1 of a row, once for all rows of a mask."""
    F = parts.dtype.type
    for column in range(start, end):
        low, part = find_source(column - left, columns, side, F)
        lows[column - start], parts[column - start] = low, part


@compiled_task
def mix_rows(mask, row, rows, line):
    """line (M+3,) = the padded mask at row ``row`` of ``rows``; its ends stay 0."""
    F, side = mask.dtype.type, len(mask)
    low, part = find_source(row, rows, side, F)
    for column in range(side):
        above = mask[low - 1, column] if low >= 1 and low <= side else F(0)
        below = mask[low, column] if low < side else F(0)
        line[column + 1] = (F(1) - part) * above + part * below


@register_jitable
def mix_columns(line, low, part):
    """The padded mask's row between two of its columns. Unsigned places are not asked whether they count from the end,
    so that sixteen pixels are mixed at once."""
    return (line.dtype.type(1) - part) * line[low] + part * line[low + np.uint32(1)]


@compiled_task
def paste_mask(mask, box, lows, parts, picture):
    """One mask into its picture (H, W); ``lows`` and ``parts`` (W,) are scratch."""
    F, side = mask.dtype.type, len(mask)
    top, rows, y_start, y_end = widen_side(box[1], box[3], side, picture.shape[0], F)
    left, columns, x_start, x_end = widen_side(box[0], box[2], side, picture.shape[1], F)
    find_columns(left, columns, x_start, x_end, side, lows, parts)
    line = np.zeros(side + 3, mask.dtype)
    for row in range(y_start, y_end):
        mix_rows(mask, row - top, rows, line)
        target = picture[row, x_start:x_end]
        for c in range(target.size):
            target[c] = mix_columns(line, lows[c], parts[c])


@compiled_task
def paste_mask_bool(mask, box, threshold, lows, parts, picture):
    """As `paste_mask`, compared with a threshold."""
    F, side = mask.dtype.type, len(mask)
    top, rows, y_start, y_end = widen_side(box[1], box[3], side, picture.shape[0], F)
    left, columns, x_start, x_end = widen_side(box[0], box[2], side, picture.shape[1], F)
    find_columns(left, columns, x_start, x_end, side, lows, parts)
    line = np.zeros(side + 3, mask.dtype)
    for row in range(y_start, y_end):
        mix_rows(mask, row - top, rows, line)
        target = picture[row, x_start:x_end]
        for c in range(target.size):
            target[c] = mix_columns(line, lows[c], parts[c]) > F(threshold)


@compiled(parallel=True, nogil=True)
def paste_masks_cpu(masks, boxes, output):
    for d in prange(len(output)):
        lows, parts = np.empty(output.shape[2], np.uint32), np.empty(output.shape[2], masks.dtype)
        paste_mask(masks[d], boxes[d], lows, parts, output[d])


@compiled(parallel=True, nogil=True)
def paste_masks_bool_cpu(masks, boxes, threshold, output):
    for d in prange(len(output)):
        lows, parts = np.empty(output.shape[2], np.uint32), np.empty(output.shape[2], masks.dtype)
        paste_mask_bool(masks[d], boxes[d], threshold, lows, parts, output[d])


@register_jitable
def read_padded(mask, row, column):
    """A cell of the mask with its rows and columns of zeros; any row and column from 0 on."""
    side = len(mask)
    if row < 1 or row > side or column < 1 or column > side:
        return mask.dtype.type(0)
    return mask[row - 1, column - 1]


@register_jitable
def paste_pixel(mask, box, y, x, height, width):
    """Whether the widened box covers pixel (y, x) of the picture, and the stretched mask there."""
    F, side = mask.dtype.type, len(mask)
    top, rows, y_start, y_end = widen_side(box[1], box[3], side, height, F)
    left, columns, x_start, x_end = widen_side(box[0], box[2], side, width, F)
    if y < y_start or y >= y_end or x < x_start or x >= x_end:
        return False, F(0)
    row, down = find_source(y - top, rows, side, F)
    column, across = find_source(x - left, columns, side, F)
    near = (F(1) - down) * read_padded(mask, row, column) + down * read_padded(mask, row + 1, column)
    far = (F(1) - down) * read_padded(mask, row, column + 1) + down * read_padded(mask, row + 1, column + 1)
    return True, (F(1) - across) * near + across * far


def paste_masks_cuda(masks, boxes, output):
    element = cuda.grid(1)
    if element < output.size:
        d, y, x = find_cell(element, output.shape)
        covered, value = paste_pixel(masks[d], boxes[d], y, x, output.shape[1], output.shape[2])
        if covered:
            output[d, y, x] = value


def paste_masks_bool_cuda(masks, boxes, threshold, output):
    element = cuda.grid(1)
    if element < output.size:
        d, y, x = find_cell(element, output.shape)
        covered, value = paste_pixel(masks[d], boxes[d], y, x, output.shape[1], output.shape[2])
        if covered:
            output[d, y, x] = value > masks.dtype.type(threshold)


# paste_masks(masks (D,M,M), boxes (D,4), output (D,H,W), zeros at first), all of one floating type
paste_masks = Twin("paste_masks", paste_masks_cpu, paste_masks_cuda)

# paste_masks_bool(masks (D,M,M), boxes (D,4), threshold: float, output (D,H,W) bool, False at first)
paste_masks_bool = Twin("paste_masks_bool", paste_masks_bool_cpu, paste_masks_bool_cuda)
