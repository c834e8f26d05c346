"""What intersection over union and non-maximum suppression must do."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume

from minimrcnn import reference
from minimrcnn.grader.claims import agree, agree_exactly, holds
from minimrcnn.grader.draws import pick, whole, whole_box

# ------------------------------------------------------------------------------------------------------------ overlap


def draw_boxes(draw, least=1, most=3, side=1):
    """Boxes (P, 4) of whole numbers from 0 to 8."""
    count = whole(draw, least, most)
    return np.array([whole_box(draw, 0, 8, side) for _ in range(count)], float).reshape(count, 4)


def nested_boxes(draw, most):
    """Boxes (P, 4) that begin at (0, 0), so that all of them meet: what becomes of those that do not is asked later."""
    count = whole(draw, 0, most)
    return np.array([[0, 0, whole(draw, 1, 8), whole(draw, 1, 8)] for _ in range(count)], float).reshape(count, 4)


@holds(
    "box_iou", "answers", "(P, Q) finite numbers, also for no boxes",
    "Row i, column j is box i of `a` with box j of `b`: np.zeros((len(a), len(b))).",
)  # fmt: skip
def box_iou_answers(box_iou, draw):
    a, b = nested_boxes(draw, 3), nested_boxes(draw, 3)
    box_iou(a, b)


@holds(
    "box_iou", "itself", "a box overlaps itself by exactly 1",
    "The union is area a + area b - shared: what both have must not count twice. In all three, width is x2 - x1, "
    "without + 1.",
)  # fmt: skip
def box_iou_itself(box_iou, draw):
    box = draw_boxes(draw, most=1)
    agree(box_iou(box, box), [[1.0]])


@holds(
    "box_iou", "apart", "boxes that do not meet overlap by 0",
    "Width and height of the shared part may come out negative, and minus times minus is plus: max(..., 0) on each.",
)  # fmt: skip
def box_iou_apart(box_iou, draw):
    a, b = draw_boxes(draw), draw_boxes(draw)
    b += np.tile(pick(draw, (9.0, 0.0), (0.0, 9.0), (9.0, 9.0), (-9.0, 9.0)), 2)
    agree(box_iou(a, b), np.zeros((len(a), len(b))))


@holds(
    "box_iou", "symmetric", "it does not matter which of two boxes comes first",
    "Divide by the union, not by the area of one of the boxes.",
)  # fmt: skip
def box_iou_symmetric(box_iou, draw):
    a, b = draw_boxes(draw), draw_boxes(draw)
    expected = box_iou(b, a).T
    agree(box_iou(a, b), expected, "your own answer for (b, a) in place of (a, b), transposed")


@holds(
    "box_iou", "scale", "boxes enlarged by 4 overlap as before",
    "Width is x2 - x1, without + 1: the ends are not inclusive.",
)  # fmt: skip
def box_iou_scale(box_iou, draw):
    a, b = draw_boxes(draw), draw_boxes(draw)
    expected = box_iou(a, b)
    agree(box_iou(4 * a, 4 * b), expected, "your own answer for the boxes before they were enlarged")


@holds(
    "box_iou", "any two", "boxes that meet, cross or contain each other: the shared area over that of both together",
    "shared / (area a + area b - shared), of corners as they are, which need not be whole, and not rounded. Boxes that "
    "cross have no corner in each other.",
)  # fmt: skip
def box_iou_any_two(box_iou, draw):
    sides = [pick(draw, ((0, 3), (1, 4)), ((0, 4), (1, 3)), ((1, 3), (0, 4))) for _ in range(2)]
    a, b = np.array([[[x1, y1, x2, y2]] for (x1, x2), (y1, y2) in zip(*sides, strict=True)]) * pick(draw, 1.0, 0.25)
    agree(box_iou(a, b), reference.box_iou(a, b))


@holds(
    "box_iou", "no area", "boxes of no area overlap by 0, even with themselves: neither NaN nor an error",
    "0 / 0: where the union is 0, the answer is 0.",
)  # fmt: skip
def box_iou_no_area(box_iou, draw):
    a, b = draw_boxes(draw, side=0), draw_boxes(draw, side=0)
    a[0, 2:], b[0] = a[0, :2], a[0, [0, 1, 0, 1]]
    agree(box_iou(a, b), reference.box_iou(a, b))


@holds("box_iou", "textbook", "any boxes: the textbook's values", "Compare with minimrcnn.reference.box_iou.")
def box_iou_reference(box_iou, draw):
    a, b = draw_boxes(draw), draw_boxes(draw)
    agree(box_iou(a, b), reference.box_iou(a, b))


# ------------------------------------------------------------------------------------------- non-maximum suppression


def draw_scores(draw, count):
    """Different scores in any order."""
    order = list(range(1, count + 1))
    return np.array([order.pop(whole(draw, 0, len(order) - 1)) for _ in range(count)], float) / 8


@holds(
    "nms", "answers", "indices (integers) into the boxes, each at most once, also for no boxes",
    "Return the indices that are kept, as an array (K,) of int64: not booleans, not the boxes.",
)  # fmt: skip
def nms_answers(nms, draw):
    boxes = nested_boxes(draw, 4)
    got = nms(boxes, draw_scores(draw, len(boxes)), 0.5)
    agree_exactly(np.sort(got), sorted(set(got.tolist()) & set(range(len(boxes)))))


@holds(
    "nms", "best first", "boxes that do not meet are all kept, the best score first",
    "Sort by score, descending; the answer is in that order, in the numbers of the boxes as they came.",
)  # fmt: skip
def nms_order(nms, draw):
    count = whole(draw, 1, 4)
    boxes = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(count)], float)
    scores = draw_scores(draw, count)
    agree_exactly(nms(boxes, scores, 0.5), np.argsort(-scores))


@holds(
    "nms", "two boxes", "of two boxes the worse goes if they overlap by more than the threshold, else it stays",
    "The overlap is intersection over union, of boxes without + 1 whose corners need not be whole, and compared with "
    "`iou_threshold`.",
)  # fmt: skip
def nms_two(nms, draw):
    width, shift = whole(draw, 1, 4), whole(draw, 0, 4)
    boxes = pick(draw, 1.0, 0.25) * np.array([[0, 0, width, 1], [shift, 0, shift + width, 1]])
    overlap = reference.box_iou(boxes[:1], boxes[1:]).item()
    threshold = (math.floor(overlap * 16) + pick(draw, 1, 0)) / 16  # close by, above or below
    assume(overlap != threshold <= 1)
    agree_exactly(nms(boxes, np.array([0.75, 0.5]), threshold), [0] if overlap > threshold else [0, 1])


@holds(
    "nms", "stack", "of boxes that lie on one another, only the best stays, wherever it stands in the array",
    "Compare a box that is kept with all that are left, not with those of a higher index or the next one only. To "
    "remove from a list while a loop goes through it skips some.",
)  # fmt: skip
def nms_stack(nms, draw):
    scores = draw_scores(draw, whole(draw, 1, 5))
    agree_exactly(nms(np.tile([0.0, 0, 10, 10], (len(scores), 1)), scores, 0.5), [scores.argmax()])


@holds(
    "nms", "chain", "a box that has been sent away sends no other away",
    "Only boxes that are kept suppress: skip a box in the loop if it is gone already.",
)  # fmt: skip
def nms_chain(nms, draw):
    shift, scale = (
        3 * whole(draw, 0, 1) + 3,
        whole(draw, 1, 3),
    )  # neighbors overlap by 7/13 or 4/16, the next but one less
    boxes = scale * np.array([[shift * i, 0, shift * i + 10, 10] for i in range(whole(draw, 3, 4))], float)
    scores, threshold = np.arange(len(boxes), 0, -1) / 8, 0.5 if shift == 3 else 0.125
    agree_exactly(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))


@holds(
    "nms", "threshold", "an overlap of exactly the threshold stays",
    "Send away what overlaps by *more*: `>`, not `>=`.",
)  # fmt: skip
def nms_threshold(nms, draw):
    part, length = pick(draw, 2, 1, 3), 4 * whole(draw, 1, 3)
    boxes = np.array([[0, 0, length, 4], [0, 0, length * part / 4, 4]], float)
    agree_exactly(nms(boxes, np.array([0.75, 0.5]), part / 4), [0, 1])


@holds(
    "nms", "ties", "of equal scores the lower index comes first",
    "np.argsort(-scores, kind='stable'), or a sort by (-score, index); a reversed argsort turns ties around.",
)  # fmt: skip
def nms_ties(nms, draw):
    boxes = np.array([[20 * whole(draw, 0, 3), 0, 0, 10] for _ in range(whole(draw, 2, 20))], float)
    boxes[:, 2] = boxes[:, 0] + 10
    scores = np.array([whole(draw, 1, 2) for _ in boxes]) / 4
    agree_exactly(nms(boxes, scores, 0.5), reference.nms(boxes, scores, 0.5))


@holds(
    "nms", "no area", "boxes of no area neither break it nor send another away",
    "0 / 0 is NaN, or an error: an overlap without any union is 0.",
)  # fmt: skip
def nms_no_area(nms, draw):
    boxes = draw_boxes(draw, 2, 4, side=0)
    boxes[0, 2:], boxes[1] = boxes[0, :2], boxes[0, [0, 1, 0, 1]]
    scores = draw_scores(draw, len(boxes))
    agree_exactly(nms(boxes, scores, 0.5), reference.nms(boxes, scores, 0.5))


@holds("nms", "textbook", "any boxes and scores: the textbook's choice", "Compare with minimrcnn.reference.nms.")
def nms_reference(nms, draw):
    boxes = draw_boxes(draw, 1, 6)
    scores, threshold = np.array([whole(draw, 0, 4) for _ in boxes]) / 4, pick(draw, 0.5, 0.25, 0.75, 0.0)
    agree_exactly(nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))
