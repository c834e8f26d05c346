"""Non-maximum suppression of boxes that come best first: a box goes if a better one that stays overlaps it too much.

One box after the other would leave nothing to do in parallel. So the boxes go in blocks of 256:

1. Within a block, the boxes are judged in order, each by its better ones (`nms_leaders`: short, sequential).
2. The block's survivors, its leaders, judge all later boxes (`nms_followers`: nearly all of the work, and in any
   order).
3. On to the next block, whose boxes now only have to be judged among themselves.

On a CPU a single thread does all of it, one vector of later boxes at a time: 5,000 boxes take less time than waking a
second thread twenty times may take on a busy machine.

On a GPU step 2 has a thread for each later box. For step 1 its 128 threads first compare all pairs of the block, which
gives each box a row of 256 bits: whom it would suppress. That leaves little to do in order, and it is done 32 boxes, a
word of bits, at a time: one thread decides who of the 32 stays, then one thread for each later word takes out whom the
survivors suppress there. The host waits for nothing and copies nothing; memory does not grow with the square of P.

The overlap must be strictly greater than the threshold, and is compared as torchvision compares it: the quotient in
float32 against the threshold as it was given. No float32 lies between a number and the next float32 below or at it, so
rounding the threshold down to float32 leaves every answer as it was, and no thread needs float64. Products are rounded
on a GPU as on a CPU (`rounded_product`), so that both give the same boxes.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.twin import THREADS_PER_BLOCK, Twin, cuda, rounded_product

BLOCK = 256
BITS = 32  # of a word
WORDS = BLOCK // BITS


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


@compiled(nogil=True)
def nms_leaders_cpu(boxes, iou_threshold, first, keep):
    last = end_of_block(first, len(keep))
    for i in range(first, last):
        if keep[i]:
            judge(boxes, i, i + 1, last, iou_threshold, keep)


@compiled(nogil=True)
def nms_followers_cpu(boxes, iou_threshold, first, keep):
    # Chunk by chunk, so that a chunk's coordinates stay in the first cache for all leaders.
    for start in range(first + BLOCK, len(keep), BLOCK):
        end = end_of_block(start, len(keep))
        for i in range(first, first + BLOCK):
            if keep[i]:
                judge(boxes, i, start, end, iou_threshold, keep)


@register_jitable
def overlaps_alike(boxes, i, j, iou_threshold):
    """`overlaps` of boxes i and j in the CPU's roundings."""
    F = boxes.dtype.type
    ax1, ay1, ax2, ay2 = boxes[0, i], boxes[1, i], boxes[2, i], boxes[3, i]
    bx1, by1, bx2, by2 = boxes[0, j], boxes[1, j], boxes[2, j], boxes[3, j]
    shared = rounded_product(shared_length(ax1, ax2, bx1, bx2, F), shared_length(ay1, ay2, by1, by2, F))
    areas = rounded_product(ax2 - ax1, ay2 - ay1) + rounded_product(bx2 - bx1, by2 - by1)
    return shared / (areas - shared) > F(iou_threshold)


def nms_leaders_cuda(boxes, iou_threshold, first, keep):
    thread = cuda.threadIdx.x
    count = end_of_block(first, len(keep)) - first
    suppresses = cuda.shared.array((WORDS, BLOCK), np.uint32)  # bit b of [w, i]: box i, and so not the later 32 w + b
    gone = cuda.shared.array(WORDS, np.uint32)  # bit b of [w]: box 32 w + b is out
    for task in range(thread, WORDS * count, THREADS_PER_BLOCK):
        word, i = task // count, task % count
        bits = np.uint32(0)
        for bit in range(max(i + 1 - word * BITS, 0), min(count - word * BITS, BITS)):
            if overlaps_alike(boxes, first + i, first + word * BITS + bit, iou_threshold):
                bits |= np.uint32(1 << bit)
        suppresses[word, i] = bits
    if thread < WORDS:
        bits = np.uint32(0)
        for bit in range(BITS):
            if thread * BITS + bit >= count or not keep[first + thread * BITS + bit]:
                bits |= np.uint32(1 << bit)
        gone[thread] = bits
    cuda.syncthreads()
    for word in range(WORDS):
        if thread == 0:
            bits = gone[word]
            for bit in range(BITS):
                if not (bits >> np.uint32(bit)) & np.uint32(1):
                    bits |= suppresses[word, word * BITS + bit]
            gone[word] = bits
        cuda.syncthreads()
        if word < thread and thread < WORDS:
            bits = gone[thread]
            for bit in range(BITS):
                if not (gone[word] >> np.uint32(bit)) & np.uint32(1):
                    bits |= suppresses[thread, word * BITS + bit]
            gone[thread] = bits
        cuda.syncthreads()
    for j in range(thread, count, THREADS_PER_BLOCK):
        if (gone[j // BITS] >> np.uint32(j % BITS)) & np.uint32(1):
            keep[first + j] = False


def nms_followers_cuda(boxes, iou_threshold, first, keep):
    j = first + BLOCK + cuda.grid(1)
    if j >= len(keep) or not keep[j]:
        return
    for i in range(first, first + BLOCK):
        if keep[i] and overlaps_alike(boxes, i, j, iou_threshold):
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
