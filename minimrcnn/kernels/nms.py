"""Non-maximum suppression of boxes that come best first: a box goes if a better one that stays overlaps it too much.

One box after the other would leave nothing to do in parallel. So the boxes go in blocks of 256:

1. Within a block, the boxes are judged in order, each by its better ones (`nms_leaders`: short, sequential).
2. The block's survivors, its leaders, judge all later boxes (`nms_followers`: nearly all of the work, and in any
   order).
3. On to the next block, whose boxes now only have to be judged among themselves.

On a GPU the later boxes are judged by one thread each; on a CPU one vector of them at a time, by a single thread: 5,000
boxes take less time than waking a second thread twenty times may take on a busy machine.

The overlap must be strictly greater than the threshold, and is compared as torchvision compares it: the quotient in
float32 against the threshold as it was given. No float32 lies between a number and the next float32 below or at it, so
rounding the threshold down to float32 leaves every answer as it was, and no thread needs float64.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba.extending import register_jitable

from minimrcnn.kernels.twin import THREADS_PER_BLOCK, Twin, cuda

BLOCK = 256


@register_jitable
def end_of_block(first, count):
    return first + BLOCK if first + BLOCK < count else count


@register_jitable
def shared_length(a_low, a_high, b_low, b_high, F):
    """How much of two stretches is common. (Numba's own CUDA target does not know min and max of a plain function.)"""
    low = a_low if a_low > b_low else b_low
    high = a_high if a_high < b_high else b_high
    return F(0) if high < low else high - low


@register_jitable
def overlaps(ax1, ay1, ax2, ay2, bx1, by1, bx2, by2, iou_threshold, F):
    """Whether two boxes overlap too much. Without area 0 / 0 is NaN, which is not greater than anything."""
    shared = shared_length(ax1, ax2, bx1, bx2, F) * shared_length(ay1, ay2, by1, by2, F)
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared) > iou_threshold


@register_jitable
def judge(boxes, i, start, end, iou_threshold, keep):
    """Clear `keep` for those of the boxes start..end-1 that box i overlaps; no branch, so that it becomes vectors."""
    F = boxes.dtype.type
    x1, y1, x2, y2 = boxes[0, start:end], boxes[1, start:end], boxes[2, start:end], boxes[3, start:end]
    ax1, ay1, ax2, ay2, threshold = boxes[0, i], boxes[1, i], boxes[2, i], boxes[3, i], F(iou_threshold)
    kept = keep[start:end]
    for j in range(len(kept)):
        kept[j] &= not overlaps(ax1, ay1, ax2, ay2, x1[j], y1[j], x2[j], y2[j], threshold, F)


@njit(cache=True, error_model="numpy", nogil=True)
def nms_leaders_cpu(boxes, iou_threshold, first, keep):
    last = end_of_block(first, len(keep))
    for i in range(first, last):
        if keep[i]:
            judge(boxes, i, i + 1, last, iou_threshold, keep)


def nms_leaders_cuda(boxes, iou_threshold, first, keep):
    last = end_of_block(first, len(keep))
    for i in range(first, last):
        if keep[i]:
            for j in range(i + 1 + cuda.threadIdx.x, last, THREADS_PER_BLOCK):
                judge(boxes, i, j, j + 1, iou_threshold, keep)
        cuda.syncthreads()  # box i + 1 must know its fate before it judges


@njit(cache=True, error_model="numpy", nogil=True)
def nms_followers_cpu(boxes, iou_threshold, first, keep):
    # Chunk by chunk, so that a chunk's coordinates stay in the first cache for all leaders.
    for start in range(first + BLOCK, len(keep), BLOCK):
        end = end_of_block(start, len(keep))
        for i in range(first, first + BLOCK):
            if keep[i]:
                judge(boxes, i, start, end, iou_threshold, keep)


def nms_followers_cuda(boxes, iou_threshold, first, keep):
    j = first + BLOCK + cuda.grid(1)
    if j < len(keep):
        for i in range(first, first + BLOCK):
            if keep[i] and keep[j]:
                judge(boxes, i, j, j + 1, iou_threshold, keep)


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
