"""What the code of boxes must do, in which the network learns where an object is (Girshick et al. 2014, appendix C)."""

from __future__ import annotations

import math

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import pick, whole, whole_box

ONES = (1.0, 1.0, 1.0, 1.0)
WEIGHTS = (10.0, 8.0, 5.0, 4.0)  # four different ones, to see each


def draw_pairs(draw, count=None):
    """Boxes and proposals (P, 4) in halves, of at least a pixel."""
    count = whole(draw, 1, 2) if count is None else count
    return [np.array([whole_box(draw, 0, 40, 2) for _ in range(count)]).reshape(count, 4) / 2 for _ in range(2)]


def around(box, factors):
    """The box about the same center, wider and higher by two factors."""
    x1, y1, x2, y2 = box
    x, y, half_x, half_y = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2 * factors[0], (y2 - y1) / 2 * factors[1]
    return np.array([[x - half_x, y - half_y, x + half_x, y + half_y]])


@holds(
    "encode_boxes", "answers", "(P, 4) finite numbers, also for no boxes",
    "One row for each pair of box and proposal: dx, dy, dw, dh.",
)  # fmt: skip
def encode_answers(encode_boxes, draw):
    boxes, proposals = draw_pairs(draw, whole(draw, 0, 3))
    encode_boxes(boxes, proposals, ONES)


@holds(
    "encode_boxes", "center", "a box about the proposal's center, of any size, has dx = dy = 0",
    "dx and dy are the distance of the *centers*, (x1 + x2) / 2, not of the corners.",
)  # fmt: skip
def encode_center(encode_boxes, draw):
    proposal = np.array([whole_box(draw, 0, 20)], float)
    box = around(proposal[0], (pick(draw, 1, 2, 4), pick(draw, 1, 2, 4)))
    got = encode_boxes(box, proposal, ONES)
    agree(got, [[0, 0, *got[0, 2:]]], "0 for dx and dy, your own dw and dh")


@holds(
    "encode_boxes", "move", "dx is measured in widths of the proposal, dy in heights of it",
    "Divide dx by the width and dy by the height of the *proposal* (not of the box, not the other way round), where "
    "width = x2 - x1 without + 1.",
)  # fmt: skip
def encode_move(encode_boxes, draw):
    boxes, proposals = draw_pairs(draw, 1)
    got, (dx, dy, _, _) = encode_boxes(boxes, proposals, ONES), reference.encode_box(boxes[0], proposals[0])
    agree(got, [[dx, dy, *got[0, 2:]]], "the textbook's dx and dy, your own dw and dh")


@holds(
    "encode_boxes", "grow", "dw and dh are the logarithms of the box's size over the proposal's",
    "dw = log(width of the box / width of the proposal), the natural logarithm; dh with the heights.",
)  # fmt: skip
def encode_grow(encode_boxes, draw):
    proposal = np.array([whole_box(draw, 0, 20)], float)
    factors = pick(draw, 1, 2, 0.5, 4), pick(draw, 1, 2, 0.5, 4)
    agree(encode_boxes(around(proposal[0], factors), proposal, ONES), [[0, 0, *(math.log(f) for f in factors)]])


@holds(
    "encode_boxes", "weights", "weights multiply dx, dy, dw, dh",
    "Encoding multiplies by the weights, decoding divides by them.",
)  # fmt: skip
def encode_weights(encode_boxes, draw):
    boxes, proposals = draw_pairs(draw)
    plain = encode_boxes(boxes, proposals, ONES)
    agree(
        encode_boxes(boxes, proposals, WEIGHTS), plain * WEIGHTS, "your own deltas for weights of 1, times the weights"
    )


@holds(
    "encode_boxes", "article", "[0,0,100,200] to [10,20,110,220] is [1, 1, 0, 0] at weights 10, 10, 5, 5", "By hand."
)
def encode_article(encode_boxes, draw):
    boxes, proposals = np.array([[10.0, 20, 110, 220]]), np.array([[0.0, 0, 100, 200]])
    agree(encode_boxes(boxes, proposals, (10.0, 10.0, 5.0, 5.0)), [[1, 1, 0, 0]])


@holds("encode_boxes", "textbook", "any boxes: the textbook's deltas", "Compare with minimrcnn.reference.encode_box.")
def encode_reference(encode_boxes, draw):
    boxes, proposals = draw_pairs(draw)
    weights = pick(draw, ONES, WEIGHTS)
    pairs = zip(boxes, proposals, strict=True)
    agree(encode_boxes(boxes, proposals, weights), [reference.encode_box(*pair, weights) for pair in pairs])


@holds(
    "decode_boxes", "answers", "(P, 4) finite numbers, also for no boxes",
    "One row for each pair of deltas and proposal: x1, y1, x2, y2.",
)  # fmt: skip
def decode_answers(decode_boxes, draw):
    proposals = draw_pairs(draw, whole(draw, 0, 3))[0]
    decode_boxes(np.zeros(proposals.shape), proposals, ONES)


@holds(
    "decode_boxes", "no change", "deltas of 0 give the proposal itself",
    "Center plus and minus half the width, with width = x2 - x1 without + 1, and exp(0) = 1.",
)  # fmt: skip
def decode_nothing(decode_boxes, draw):
    proposals = draw_pairs(draw)[0]
    agree(decode_boxes(np.zeros(proposals.shape), proposals, ONES), proposals)


@holds(
    "decode_boxes", "move", "dx moves by widths of the proposal, dy by heights of it",
    "dx times the width, dy times the height, not the other way round; nothing is rounded, nor cut off at the picture.",
)  # fmt: skip
def decode_move(decode_boxes, draw):
    x1, y1, x2, y2 = box = whole_box(draw, 0, 20)
    dx, dy = whole(draw, -10, 10) / 2, whole(draw, -10, 10) / 2
    shift = [dx * (x2 - x1), dy * (y2 - y1)] * 2
    agree(decode_boxes(np.array([[dx, dy, 0, 0]]), np.array([box], float), ONES), [np.add(box, shift)])


@holds(
    "decode_boxes", "grow", "dw and dh stretch about the center, by exp(dw) and exp(dh)",
    "The new center is the proposal's, moved by dx of the *old* widths; new width = width x exp(dw), half of it on "
    "each side.",
)  # fmt: skip
def decode_grow(decode_boxes, draw):
    box, dx = np.array([whole_box(draw, 0, 20)], float), whole(draw, 0, 2)
    factors = pick(draw, 1, 2, 0.5, 1 / 128), pick(draw, 1, 2, 0.5, 1 / 128)
    deltas = np.array([[dx, 0, math.log(factors[0]), math.log(factors[1])]])
    shift = dx * (box[0, 2] - box[0, 0])
    agree(decode_boxes(deltas, box, ONES), around(box[0], factors) + [shift, 0, shift, 0])


@holds(
    "decode_boxes", "weights", "deltas are divided by the weights",
    "Encoding multiplies by the weights, decoding divides by them, before anything else is done.",
)  # fmt: skip
def decode_weights(decode_boxes, draw):
    boxes, proposals = draw_pairs(draw)
    deltas = np.array([reference.encode_box(*pair) for pair in zip(boxes, proposals, strict=True)])
    agree(decode_boxes(deltas * WEIGHTS, proposals, WEIGHTS), boxes)


@holds(
    "decode_boxes", "limit", "a box grows at most by a factor of 1000 / 16 = 62.5",
    "dw and dh are clipped from above at log(1000 / 16), after the weights are divided out: exp() of what an untrained "
    "network says overflows.",
)  # fmt: skip
def decode_limit(decode_boxes, draw):
    box, weights = np.array([whole_box(draw, 0, 20)], float), pick(draw, ONES, WEIGHTS)
    deltas = np.array([[0.0, 0, pick(draw, 5, 100, 1000), pick(draw, 5, 100, 1000)]])
    agree(decode_boxes(deltas * weights, box, weights), around(box[0], (62.5, 62.5)))


@holds(
    "decode_boxes", "textbook", "deltas of up to 3: the textbook's boxes",
    "Compare with minimrcnn.reference.decode_box.",
)  # fmt: skip
def decode_reference(decode_boxes, draw):
    proposals, weights = draw_pairs(draw)[0], pick(draw, ONES, WEIGHTS)
    deltas = np.array([[whole(draw, -12, 12) / 4 for _ in range(4)] for _ in proposals])
    pairs = zip(deltas, proposals, strict=True)
    agree(decode_boxes(deltas, proposals, weights), [reference.decode_box(*pair, weights) for pair in pairs])
