"""Non-maximum suppression of boxes that come best first: a box goes if a better one that stays overlaps it too much.

One box after the other would leave nothing to do in parallel, and most comparisons do not depend on one another.

On a CPU boxes go in blocks of 256. Within a block they are judged in order, each by its better ones; the block's
survivors, its leaders, then judge all later boxes, in any order. A single thread does all of it, one vector of later
boxes at a time: 5,000 boxes take less time than waking a second thread twenty times may take on a busy machine.

On a GPU three kernels do it, the last two with up to 4096 boxes a turn:

1. `nms_sort`: brings the best first. A box's place is the number of those that come before it; counting them all takes
   more comparisons than sorting, and far fewer than are to come, but one start of a kernel instead of ten.
2. `nms_compare`: every box with every later one, all at once. What box i would suppress is a row of bits.
3. `nms_settle`: what is left to do in order, 64 boxes, a word of bits, at a time. One thread decides who of the 64
   stays; then the warps of the block take out whom those suppress later on, a survivor each.

The host waits for nothing and copies nothing, and memory grows with the number of boxes, not with its square.

The overlap must be strictly greater than the threshold, and is compared as torchvision compares it: the quotient in
float32 against the threshold as it was given. No float32 lies between a number and the next float32 below or at it, so
rounding the threshold down to float32 leaves every answer as it was, and no thread needs float64. Products are rounded
on a GPU as on a CPU (`rounded_product`), so that both give the same boxes.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.box_iou import shared_length
from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.twin import WARP, Twin, cuda, divide, rounded_product

BLOCK = 256  # boxes of a turn on a CPU
LEADERS = 4096  # and on a GPU
BITS = 64  # of a word
WORDS = LEADERS // BITS
ALL_BITS = np.uint64(2**BITS - 1)
SETTLERS = 512  # threads that settle, of one block; 1024 would get 64 registers each, and older GPUs need more


@register_jitable
def end_of_block(first, count):
    return first + BLOCK if first + BLOCK < count else count


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
def judge_leaders(boxes, iou_threshold, first, keep):
    last = end_of_block(first, len(keep))
    for i in range(first, last):
        if keep[i]:
            judge(boxes, i, i + 1, last, iou_threshold, keep)


@compiled(nogil=True)
def judge_followers(boxes, iou_threshold, first, keep):
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


# --- The bodies of the three kernels for a CPU are for tests and debuggers, and not compiled. ---


def nms_sort_cpu(boxes, scores, order, ordered):
    order[:] = np.argsort(-scores, kind="stable")
    ordered[:] = boxes[order].T


def nms_sort_cuda(boxes, scores, order, ordered):
    """A box for each thread: before it come earlier ones as good and all better ones; what is no number comes last.

    Loops over uint32: a comparison takes 11 instructions, and 26 with a `range`, whose ints might be negative.
    """
    i, j, count = np.uint32(cuda.grid(1)), np.uint32(0), np.uint32(len(scores))
    if i >= count:
        return
    own, place, one = scores[i], np.int32(0), np.uint32(1)
    if own != own:
        while j < count:
            place += np.int32(scores[j] == scores[j] or j < i)
            j = np.uint32(j + one)
    while j < i:
        place += np.int32(scores[j] >= own)
        j = np.uint32(j + one)
    while j < count:
        place += np.int32(scores[j] > own)
        j = np.uint32(j + one)
    order[place] = i
    for coordinate in range(4):
        ordered[coordinate, place] = boxes[i, coordinate]


def nms_compare_cpu(boxes, iou_threshold, first, suppresses):
    F = boxes.dtype.type
    for i, row in enumerate(suppresses, first):
        row[i // BITS :] = 0
        for j in range(i + 1, boxes.shape[1]):
            if overlaps(*boxes[:, i], *boxes[:, j], F(iou_threshold), F):
                row[j // BITS] |= np.uint64(1) << np.uint64(j % BITS)


def nms_compare_cuda(boxes, iou_threshold, first, suppresses):
    """A word of a row for each thread. Neighbors have neighboring boxes, and compare them to the same ones."""
    word, i = divide(cuda.grid(1), len(suppresses))
    if word >= suppresses.shape[1] or word < (first + i) // BITS:
        return
    bits = np.uint64(0)
    for bit in range(max(first + i + 1 - word * BITS, 0), min(boxes.shape[1] - word * BITS, BITS)):
        if overlaps_alike(boxes, first + i, word * BITS + bit, iou_threshold):
            bits |= np.uint64(1) << np.uint64(bit)
    suppresses[i, word] = bits


@register_jitable
def is_set(bits, bit):
    return (bits >> np.uint64(bit)) & np.uint64(1) != np.uint64(0)


def nms_settle_cpu(suppresses, order, first, gone, kept):
    later, out = -(-(first + len(suppresses)) // BITS), gone.copy()
    for i, row in enumerate(suppresses, first):
        if not is_set(out[i // BITS], i % BITS):
            kept[0] += 1
            kept[kept[0]] = order[i]
            out[i // BITS :] |= row[i // BITS :]
    gone[later:] = out[later:]


def nms_settle_cuda(suppresses, order, first, gone, kept):
    """Memory answers late, so what the next word needs is on its way, or in shared memory, before it is its turn."""
    thread, count, words = cuda.threadIdx.x, len(suppresses), len(gone)
    lane, warp, before = thread % WARP, thread // WARP, kept[0]
    own, own_words = first // BITS, (count + BITS - 1) // BITS
    out = cuda.shared.array(WORDS, np.uint64)  # who is gone of these boxes
    diagonal = cuda.shared.array(BITS, np.uint64)  # whom a word's boxes suppress among themselves
    staying = cuda.shared.array(1, np.uint64)
    if thread < own_words:
        out[thread] = gone[own + thread]
    ahead = suppresses[thread, own] if thread < min(BITS, count) else np.uint64(0)
    for start in range(0, count, BITS):
        word, some = start // BITS, min(BITS, count - start)
        if thread < BITS:
            diagonal[thread] = ahead
        if thread < BITS and start + BITS + thread < count:
            ahead = suppresses[start + BITS + thread, own + word + 1]
        cuda.syncthreads()
        if thread == 0:
            stay, free = np.uint64(0), ~out[word] & (ALL_BITS >> np.uint64(BITS - some))
            while free != np.uint64(0):
                bit = cuda.popc((free & (~free + np.uint64(1))) - np.uint64(1))  # the lowest that is set
                stay |= np.uint64(1) << np.uint64(bit)
                free &= ~(diagonal[bit] | stay)
            staying[0] = stay
        cuda.syncthreads()
        stay = staying[0]
        if thread < some and is_set(stay, thread):
            place = cuda.popc(stay & ((np.uint64(1) << np.uint64(thread)) - np.uint64(1)))
            kept[1 + before + place] = order[first + start + thread]
        before += cuda.popc(stay)
        for bit in range(warp, some, SETTLERS // WARP):
            if is_set(stay, bit):
                for later in range(own + word + 1 + lane, words, WARP):
                    bits = suppresses[start + bit, later]
                    if later - own < own_words:
                        cuda.atomic.or_(out, later - own, bits)
                    else:
                        cuda.atomic.or_(gone, later, bits)
    if thread == 0:
        kept[0] = before


# nms_sort(boxes (P,4), scores (P,), order (P,) int64: their numbers, best first; ordered (4,P): they in this order)
nms_sort = Twin("nms_sort", nms_sort_cpu, nms_sort_cuda, threads=lambda boxes, *_: len(boxes))

# Words are uint64 with a bit for each box: bit b of word w is box 64 w + b. ``first`` is a multiple of 64.
#
# nms_compare(boxes (4,P) best first, one row a coordinate, so that neighbors lie side by side; iou_threshold: float,
#             first: int, suppresses (L, words)) for the L boxes from ``first`` on; words before their own stay as they
# were.
nms_compare = Twin("nms_compare", nms_compare_cpu, nms_compare_cuda)
# nms_settle(suppresses (L, words), order (P,), first: int, gone (words,), in, and of later boxes out; kept (1 + P,)
#            int64, in and out: how many stay so far, and their numbers, as `order` has them)
nms_settle = Twin("nms_settle", nms_settle_cpu, nms_settle_cuda, threads=lambda *arguments: SETTLERS, block=SETTLERS)


def round_down(iou_threshold: float) -> float:
    """The largest float32 that is not above the threshold."""
    threshold = np.float32(iou_threshold)
    if float(threshold) > iou_threshold:  # float(): or NumPy would compare in float32
        threshold = np.nextafter(threshold, np.float32(-np.inf))
    return float(threshold)


def suppress(boxes: np.ndarray, iou_threshold: float, keep: np.ndarray) -> None:
    """Clear `keep` (P,) bool, all True at first, for the boxes (4, P), best first, that a better kept one overlaps."""
    threshold = round_down(iou_threshold)
    for first in range(0, len(keep), BLOCK):
        judge_leaders(boxes, threshold, first, keep)
        judge_followers(boxes, threshold, first, keep)
