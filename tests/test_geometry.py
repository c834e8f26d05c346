"""Boxes, anchors, matching and levels, against the textbook, torchvision and the article's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import geometry, reference
from tests.reference_cases import cases, relative_error
from tests.twin_arguments import draw_boxes

SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(0, 12)


# ------------------------------------------------------------------------------------------------------------- boxes


@given(p=COUNTS, q=COUNTS, seed=SEEDS)
def test_box_iou(p, q, seed):
    rng = np.random.default_rng(seed)
    a, b = draw_boxes(rng, p), draw_boxes(rng, q)
    b[: min(p, q) // 2] = a[: min(p, q) // 2]
    got = geometry.box_iou(a, b)
    assert got.dtype == np.float32 and got.shape == (p, q)
    assert np.allclose(got, reference.box_iou(a, b), atol=1e-5)


def test_box_iou_of_no_area_and_of_torchvision():
    assert geometry.box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1], [0, 0, 5, 5]]).tolist() == [[0, 0]]
    for _, a in cases("box_iou"):
        assert relative_error(geometry.box_iou(a["a"], a["b"]), a["y"]) < 1e-6
    with pytest.raises(ValueError, match=r"box_iou: b has shape \(3,\), wanted \(P, 4\)"):
        geometry.box_iou(np.zeros((1, 4)), np.zeros(3))
    assert geometry.box_area([[1, 2, 4, 7]]).tolist() == [15]


def test_box_code_of_the_article():
    proposal, box = [[0, 0, 100, 200]], [[10, 20, 110, 220]]
    assert np.allclose(geometry.encode_boxes(box, proposal, (10, 10, 5, 5)), [[1, 1, 0, 0]])
    assert np.allclose(geometry.decode_boxes([[1, 1, 0, 0]], proposal, (10, 10, 5, 5)), box)


def test_box_code_of_torchvision():
    for params, a in cases("box_coder"):
        got = geometry.encode_boxes(a["gt"], a["proposals"], params["weights"])
        assert got.dtype == np.float32 and relative_error(got, a["deltas"]) < 1e-6
        got = geometry.decode_boxes(a["any_deltas"], a["proposals"], params["weights"])
        assert got.dtype == np.float32 and relative_error(got, a["decoded"]) < 1e-6


@given(count=COUNTS, classes=st.integers(1, 3), seed=SEEDS)
def test_decode_boxes(count, classes, seed):
    rng = np.random.default_rng(seed)
    boxes = draw_boxes(rng, count) + np.float32([0, 0, 1, 1])
    deltas = rng.standard_normal((count, classes, 4)).astype(np.float32) * 4  # beyond the clip, too
    weights = (2, 2, 1, 1)
    got = geometry.decode_boxes(deltas, boxes, weights)
    assert got.shape == deltas.shape
    for p, k in np.ndindex(count, classes):
        expected = reference.decode_box(deltas[p, k], boxes[p], weights)
        assert np.allclose(got[p, k], expected, rtol=1e-4, atol=1e-2)
    assert np.array_equal(geometry.decode_boxes(deltas[:, 0], boxes, weights), got[:, 0])
    back = geometry.decode_boxes(geometry.encode_boxes(boxes[::-1], boxes, weights), boxes, weights)
    assert np.allclose(back, boxes[::-1], atol=1e-2)


def test_nothing_of_nothing():
    assert geometry.decode_boxes([], []).shape == geometry.clip_boxes([], (5, 5)).shape == (0, 4)
    assert geometry.paste_masks([], [], (5, 6)).shape == geometry.paste_masks_bool([], [], (5, 6)).shape == (0, 5, 6)
    assert geometry.crop_masks([], [], [], 3).shape == (0, 3, 3)


def test_no_overflow():
    decoded = geometry.decode_boxes([[0, 0, 1e9, 1e9]], [[0, 0, 16, 16]])
    assert np.allclose(decoded, [[8 - 500, 8 - 500, 8 + 500, 8 + 500]])


def test_box_code_errors():
    with pytest.raises(ValueError, match="encode_boxes: boxes .* and proposals"):
        geometry.encode_boxes(np.zeros((2, 4)), np.zeros((3, 4)))
    with pytest.raises(ValueError, match="decode_boxes: deltas"):
        geometry.decode_boxes(np.zeros((2, 8)), np.zeros((2, 4)))


@given(count=COUNTS, seed=SEEDS)
def test_clip_boxes(count, seed):
    boxes = draw_boxes(np.random.default_rng(seed), count, 200) - 50
    before = boxes.copy()
    got = geometry.clip_boxes(boxes, (60, 80))
    assert np.array_equal(got, np.reshape([reference.clip_box(box, (60, 80)) for box in boxes], (-1, 4)))
    assert np.array_equal(boxes, before)


def test_keep_large_boxes():
    boxes = [[0, 0, 1, 5], [0, 0, 0.9, 5], [0, 0, np.nan, 5], [3, 3, 9, 9]]
    assert geometry.keep_large_boxes(boxes, 1.0).tolist() == [0, 3]
    assert geometry.keep_large_boxes(np.zeros((0, 4)), 1.0).shape == (0,)


# ----------------------------------------------------------------------------------------------------------- anchors

SIZES, RATIOS = (32, 64, 128, 256, 512), (0.5, 1, 2)


def test_anchors_of_torchvision():
    for params, a in cases("anchors"):
        got = geometry.make_anchors(params["sizes"], params["ratios"], params["level_sizes"], params["image_size"])
        assert np.array_equal(np.concatenate(got), a["y"])
    cell = geometry.make_anchors([32], RATIOS, [(1, 1)], (32, 32))[0]
    assert cell.tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]


@pytest.mark.parametrize("side, expected", [((128, 128), 4092), ((800, 1216), 242991), ((1024, 1024), 261888)])
def test_number_of_anchors(side, expected):
    level_sizes = [(-(-side[0] // stride), -(-side[1] // stride)) for stride in (4, 8, 16, 32, 64)]
    anchors = geometry.make_anchors(SIZES, RATIOS, level_sizes, side)
    assert sum(map(len, anchors)) == expected


@given(rows=st.integers(0, 5), columns=st.integers(0, 5), size=st.sampled_from([8, 31, 100]))
def test_anchors_of_the_textbook(rows, columns, size):
    (got,) = geometry.make_anchors([size], RATIOS, [(rows, columns)], (37, 50))
    assert got.dtype == np.float32 and got.shape == (rows * columns * 3, 4)
    if got.size:
        assert np.array_equal(got, reference.make_anchors(size, RATIOS, (rows, columns), (37, 50)))


def test_one_size_a_level():
    with pytest.raises(ValueError, match="make_anchors: 1 sizes for 2 levels"):
        geometry.make_anchors([32], RATIOS, [(1, 1), (1, 1)], (32, 32))


# ---------------------------------------------------------------------------------------------------------- matching


def test_match_of_the_article_and_torchvision():
    iou = [[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]]
    assert geometry.match(iou, 0.3, 0.7, True).tolist() == [-2, 1, -1, 0]
    assert geometry.match(iou, 0.3, 0.7, False).tolist() == [-2, -2, -1, -2]
    for params, a in cases("matcher"):
        assert np.array_equal(geometry.match(a["iou"], **params), a["match"])


@given(objects=st.integers(0, 4), anchors=st.integers(0, 8), seed=SEEDS, low_quality=st.booleans())
def test_match_of_the_textbook(objects, anchors, seed, low_quality):
    iou = np.random.default_rng(seed).integers(0, 11, (objects, anchors)) / np.float32(10)  # many ties
    got = geometry.match(iou, 0.3, 0.7, low_quality)
    assert got.dtype == np.int64
    assert np.array_equal(got, reference.match(iou, 0.3, 0.7, low_quality))


def test_nan_is_background():
    assert geometry.match(np.float32([[np.nan, 0.8, 0.1]]), 0.3, 0.7, False).tolist() == [-1, 0, -1]


def test_match_errors():
    with pytest.raises(ValueError, match="match: iou has shape"):
        geometry.match(np.zeros(3), 0.3, 0.7, True)
    with pytest.raises(ValueError, match="low is 0.7 and high is 0.3"):
        geometry.match(np.zeros((1, 1)), 0.7, 0.3, True)


@given(labels=st.lists(st.integers(-1, 1), max_size=40), count=st.integers(0, 20), seed=SEEDS)
def test_sample_balanced(labels, count, seed):
    labels = np.array(labels, np.int64)
    positive, negative = geometry.sample_balanced(labels, count, 0.25, np.random.default_rng(seed))
    assert (labels[positive] == 1).all() and (labels[negative] == 0).all()
    assert len(set(positive)) == len(positive) == min((labels == 1).sum(), count // 4)
    assert len(set(negative)) == len(negative) == min((labels == 0).sum(), count - len(positive))
    again = geometry.sample_balanced(labels, count, 0.25, np.random.default_rng(seed))
    assert np.array_equal(again[0], positive) and np.array_equal(again[1], negative)


@pytest.mark.parametrize(
    "positives, negatives, drawn", [(9, 40, (2, 9)), (1, 40, (1, 10)), (9, 3, (2, 3)), (0, 0, (0, 0))]
)
def test_negatives_stand_in_for_missing_positives(positives, negatives, drawn):
    """Of eleven a quarter, cut off: two. A positive may be any number above 0, and what is drawn ascends."""
    rng = np.random.default_rng(0)
    labels = rng.permutation([*np.arange(1, positives + 1), *[0] * negatives, *[-1] * 20])
    samples = geometry.sample_balanced(labels, 11, 0.25, rng)
    assert tuple(map(len, samples)) == drawn
    assert (labels[samples[0]] > 0).all() and (labels[samples[1]] == 0).all()
    assert all((np.diff(some) > 0).all() for some in samples)


def test_every_sample_has_its_chance():
    generator = np.random.default_rng(0)
    drawn = np.concatenate([geometry.sample_balanced(np.ones(10), 4, 0.5, generator)[0] for _ in range(500)])
    assert np.bincount(drawn, minlength=10).min() > 60  # 100 expected


# ------------------------------------------------------------------------------------------------------------ levels


@pytest.mark.parametrize(
    "width, height, level",
    [
        (56, 56, 2), (111, 111, 2), (112, 112, 3), (224, 224, 4), (447, 447, 4), (448, 448, 5), (896, 896, 5),
        (100, 300, 3), (448, 112, 4), (50, 800, 3), (223.9999, 223.9999, 4), (0, 5, 2),
    ],
)  # fmt: skip
def test_levels(width, height, level):
    box = [3, 4, 3 + width, 4 + height] if width != 223.9999 else [0, 0, width, height]
    assert geometry.assign_levels([box]).tolist() == [level] == [reference.assign_level(box)]


def test_levels_of_torchvision_and_of_nothing():
    for _, a in cases("pyramid_roi_align"):
        assert np.array_equal(geometry.assign_levels(np.concatenate([a["boxes0"], a["boxes1"]])), a["level"])
    assert geometry.assign_levels(np.zeros((0, 4))).dtype == np.int64
    assert geometry.assign_levels([[0, 0, 896, 896]], highest=9).tolist() == [6]
    assert geometry.assign_levels([[0, 0, np.nan, 9]]).tolist() == [2]
