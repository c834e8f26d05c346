"""Intersection over union of every box of one list with every box of another."""

from __future__ import annotations

from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.twin import Twin, cuda


@register_jitable
def shared_length(a_low, a_high, b_low, b_high, F):
    """How much of two stretches is common."""
    low = a_low if a_low > b_low else b_low
    high = a_high if a_high < b_high else b_high
    return F(0) if high < low else high - low


@register_jitable
def overlap(a_x1, a_y1, a_x2, a_y2, b_x1, b_y1, b_x2, b_y2, F):
    """IoU of two boxes (x1, y1, x2, y2); 0 where both have no area, and NaN only from NaN."""
    shared = shared_length(a_x1, a_x2, b_x1, b_x2, F) * shared_length(a_y1, a_y2, b_y1, b_y2, F)
    union = (a_x2 - a_x1) * (a_y2 - a_y1) + (b_x2 - b_x1) * (b_y2 - b_y1) - shared
    return F(0) if union == F(0) else shared / union


@compiled(parallel=True, nogil=True)
def box_iou_cpu(a, b, output):
    F = output.dtype.type
    for i in prange(len(a)):
        for j in range(len(b)):
            output[i, j] = overlap(a[i, 0], a[i, 1], a[i, 2], a[i, 3], b[j, 0], b[j, 1], b[j, 2], b[j, 3], F)


def box_iou_cuda(a, b, output):
    element = cuda.grid(1)
    if element < output.size:
        F = output.dtype.type
        i, j = element // len(b), element % len(b)
        output[i, j] = overlap(a[i, 0], a[i, 1], a[i, 2], a[i, 3], b[j, 0], b[j, 1], b[j, 2], b[j, 3], F)


# box_iou(a (P,4), b (Q,4), output (P,Q)), all of one floating type
box_iou = Twin("box_iou", box_iou_cpu, box_iou_cuda)
