"""Non-maximum suppression: against the textbook, torchvision, and the order that ties must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import geometry, reference
from minimrcnn.kernels.nms import BLOCK
from tests.reference_cases import cases
from tests.twin_arguments import draw_boxes


def test_torchvision():
    for params, a in cases("nms"):
        assert np.array_equal(geometry.nms(a["boxes"], a["scores"], params["iou_threshold"]), a["keep"])
    for params, a in cases("batched_nms"):
        kept = geometry.batched_nms(a["boxes"], a["scores"], a["groups"], params["iou_threshold"])
        assert np.array_equal(kept, a["keep"])


def test_ties():
    """An overlap of exactly the threshold stays; of twins the first wins."""
    boxes, scores = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.9, 0.8]
    assert geometry.nms(boxes, scores, 0.5).tolist() == [0, 2]
    assert geometry.nms(boxes, scores, 0.49999).tolist() == [0]
    assert geometry.nms(boxes, [0.7, 0.9, 0.8], 0.5).tolist() == [1, 2]


def test_a_threshold_between_two_float32():
    """0.6 lies below its float32, which is the overlap here: it must go, as a comparison in float64 says."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 6]], np.float32)
    assert geometry.box_iou(boxes[:1], boxes[1:]).item() == float(np.float32(0.6)) > 0.6
    assert geometry.nms(boxes, [1, 0.5], 0.6).tolist() == [0]
    assert geometry.nms(boxes, [1, 0.5], float(np.float32(0.6))).tolist() == [0, 1]


@given(count=st.integers(0, 40), seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0, 0.3, 0.5, 0.7, 1]))
def test_the_textbook(count, seed, threshold):
    rng = np.random.default_rng(seed)
    boxes = draw_boxes(rng, count)
    scores = rng.integers(0, 5, count).astype(np.float32) / 4  # many equal ones
    assert np.array_equal(geometry.nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold))
    groups = rng.integers(0, 3, count)
    kept = geometry.batched_nms(boxes, scores, groups, threshold)
    expected = np.zeros(count, bool)
    for group in range(3):
        rows = np.flatnonzero(groups == group)
        expected[rows[geometry.nms(boxes[rows], scores[rows], threshold)]] = True
    assert set(kept) == set(np.flatnonzero(expected))
    assert np.array_equal(kept, sorted(kept, key=lambda i: (-scores[i], i)))
    for most in (0, 1, 2, 5, 50):
        assert np.array_equal(geometry.batched_nms(boxes, scores, groups, threshold, most), kept[:most])


def test_the_best_few_of_many_where_most_go():
    """Enough are left only when the whole list was looked at."""
    boxes = np.float32([[0, 0, 10, 10]] * 60 + [[20, 0, 30, 10], [40, 0, 50, 10]])
    scores = np.linspace(1, 0, len(boxes))
    assert geometry.batched_nms(boxes, scores, np.zeros(len(boxes), int), 0.5, 3).tolist() == [0, 60, 61]


@pytest.mark.parametrize("count", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks(count):
    """One box after the other, in NumPy, for more boxes than a block holds."""
    rng = np.random.default_rng(count)
    boxes, scores = draw_boxes(rng, count, 300), rng.random(count).astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    iou = geometry.box_iou(boxes[order], boxes[order])
    alive = np.ones(count, bool)
    for i in range(count):
        if alive[i]:
            alive[i + 1 :] &= ~(iou[i, i + 1 :] > 0.4)
    assert np.array_equal(geometry.nms(boxes, scores, 0.4), order[alive])


def test_strange_boxes():
    nothing = geometry.nms(np.zeros((0, 4)), np.zeros(0), 0.5)
    assert nothing.dtype == np.int64 and nothing.shape == (0,)
    assert geometry.nms([], [], 0.5).shape == geometry.batched_nms([], [], [], 0.5).shape == (0,)
    broken = [[0, 0, 5, 5], [np.nan, 0, 5, 5], [3, 3, 3, 3], [3, 3, 3, 3]]  # 0 / 0 suppresses nothing
    assert geometry.nms(broken, [4, 3, 2, 1], 0.5).tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match=r"nms: scores \(2,\) for boxes \(1, 4\)"):
        geometry.nms(np.zeros((1, 4)), np.zeros(2), 0.5)
    with pytest.raises(ValueError, match="batched_nms: groups"):
        geometry.batched_nms(np.zeros((1, 4)), np.zeros(1), np.zeros(3), 0.5)
    with pytest.raises(ValueError, match="most is -1"):
        geometry.batched_nms(np.zeros((1, 4)), np.zeros(1), np.zeros(1), 0.5, -1)
