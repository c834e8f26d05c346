"""Non-maximum suppression of boxes that come best first: a box goes if a better one that stays overlaps it too much.

One box after the other would leave nothing to do in parallel. So the boxes go in blocks of 256:

1. Within a block, the boxes are judged in order, each by its better ones (`nms_leaders`: short, sequential).
2. The block's survivors, its leaders, judge all later boxes at once (`nms_followers`: nearly all of the work, parallel).
3. On to the next block, whose boxes now only have to be judged among themselves.

The overlap must be strictly greater than the threshold, and is compared as torchvision compares it: the quotient in
float32 against the threshold as it was given. No float32 lies between a number and the next float32 below or at it, so
rounding the threshold down to float32 leaves every answer as it was, and no thread needs float64.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from minimrcnn.kernels.twin import THREADS_PER_BLOCK, Twin, cuda

BLOCK = 256


@register_jitable
def shared_length(boxes, i, j, axis, F):
    """How much boxes i and j share along x (0) or y (1). (Numba's own CUDA target does not know min and max here.)"""
    low = boxes[axis, i] if boxes[axis, i] > boxes[axis, j] else boxes[axis, j]
    high = boxes[axis + 2, i] if boxes[axis + 2, i] < boxes[axis + 2, j] else boxes[axis + 2, j]
    return F(0) if high < low else high - low


@register_jitable
def end_of_block(first, count):
    return first + BLOCK if first + BLOCK < count else count


@register_jitable
def suppresses(boxes, i, j, iou_threshold, F):
    """Whether box i overlaps box j too much. Without area 0 / 0 is NaN, which is not greater than anything."""
    shared = shared_length(boxes, i, j, 0, F) * shared_length(boxes, i, j, 1, F)
    area_i = (boxes[2, i] - boxes[0, i]) * (boxes[3, i] - boxes[1, i])
    area_j = (boxes[2, j] - boxes[0, j]) * (boxes[3, j] - boxes[1, j])
    return shared / (area_i + area_j - shared) > F(iou_threshold)


@njit(cache=True, error_model="numpy", nogil=True)
def nms_leaders_cpu(boxes, iou_threshold, first, keep):
    F = boxes.dtype.type
    last = end_of_block(first, len(keep))
    for i in range(first, last):
        if keep[i]:
            for j in range(i + 1, last):
                keep[j] = keep[j] and not suppresses(boxes, i, j, iou_threshold, F)


def nms_leaders_cuda(boxes, iou_threshold, first, keep):
    F = boxes.dtype.type
    last = end_of_block(first, len(keep))
    for i in range(first, last):
        if keep[i]:
            for j in range(i + 1 + cuda.threadIdx.x, last, THREADS_PER_BLOCK):
                if suppresses(boxes, i, j, iou_threshold, F):
                    keep[j] = False
        cuda.syncthreads()  # box i + 1 must know its fate before it judges


@njit(parallel=True, cache=True, error_model="numpy", nogil=True)
def nms_followers_cpu(boxes, iou_threshold, first, keep):
    F = boxes.dtype.type
    start = first + BLOCK
    for chunk in prange((len(keep) - start + BLOCK - 1) // BLOCK):
        low = start + chunk * BLOCK
        high = end_of_block(low, len(keep))
        for i in range(first, start):
            if keep[i]:
                for j in range(low, high):
                    keep[j] = keep[j] and not suppresses(boxes, i, j, iou_threshold, F)


def nms_followers_cuda(boxes, iou_threshold, first, keep):
    F = boxes.dtype.type
    j = first + BLOCK + cuda.grid(1)
    if j >= len(keep) or not keep[j]:
        return
    for i in range(first, first + BLOCK):
        if keep[i] and suppresses(boxes, i, j, iou_threshold, F):
            keep[j] = False
            return


# Both take (boxes (4,P) best first, one row a coordinate, so that neighbors lie side by side; iou_threshold: float;
# first: int, the block's first box; keep (P,) bool, in and out).
nms_leaders = Twin("nms_leaders", nms_leaders_cpu, nms_leaders_cuda, threads=lambda *arguments: THREADS_PER_BLOCK)
nms_followers = Twin(
    "nms_followers",
    nms_followers_cpu,
    nms_followers_cuda,
    threads=lambda boxes, iou_threshold, first, keep: max(len(keep) - first - BLOCK, 0),
)


def suppress(boxes, iou_threshold: float, keep) -> None:
    """Clear `keep` (P,) bool, all True at first, for the boxes (4, P), best first, that a better kept one overlaps.

    The arrays are NumPy's or on a CUDA device; nothing is copied between the two.
    """
    threshold = np.float32(iou_threshold)
    if float(threshold) > iou_threshold:  # float(): or NumPy would compare in float32
        threshold = np.nextafter(threshold, np.float32(-np.inf))
    for first in range(0, len(keep), BLOCK):
        nms_leaders(boxes, float(threshold), first, keep)
        if first + BLOCK < len(keep):
            nms_followers(boxes, float(threshold), first, keep)
