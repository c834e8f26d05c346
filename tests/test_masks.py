"""Masks cut out of the picture and pasted back, against the textbook and torchvision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import geometry, reference
from tests.reference_cases import cases, relative_error

SEEDS = st.integers(0, 2**32 - 1)


def draw_rois(rng, count, height, width):
    corner = rng.uniform(-0.5, 1, (count, 2)) * [width, height]
    size = rng.uniform(0, 1.2, (count, 2)) * [width, height]
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def test_torchvision():
    for _, a in cases("mask_loss"):
        got = geometry.crop_masks(a["gt_masks"], a["rois"], a["matched"], 28)
        assert relative_error(got, a["targets"]) < 1e-6
    for params, a in cases("paste_masks"):
        assert relative_error(geometry.paste_masks(a["masks"], a["boxes"], params["image_size"]), a["y"]) < 2e-6


@given(count=st.integers(0, 4), side=st.integers(1, 9), h=st.integers(1, 20), w=st.integers(1, 20), seed=SEEDS)
def test_crop_masks(count, side, h, w, seed):
    rng = np.random.default_rng(seed)
    masks = rng.integers(0, 2, (3, h, w)).astype(np.uint8)
    rois, matched = draw_rois(rng, count, h, w), rng.integers(0, 3, count)
    got = geometry.crop_masks(masks, rois, matched, side)
    assert got.dtype == np.float32 and got.shape == (count, side, side)
    assert np.allclose(got, reference.crop_masks(masks, rois, matched, side), atol=1e-4)
    assert np.array_equal(geometry.crop_masks(masks.astype(bool), rois, matched, side), got)


@given(count=st.integers(0, 4), side=st.integers(1, 9), h=st.integers(0, 20), w=st.integers(0, 20), seed=SEEDS)
def test_paste_masks(count, side, h, w, seed):
    rng = np.random.default_rng(seed)
    masks, boxes = rng.random((count, side, side)).astype(np.float32), draw_rois(rng, count, 20, 20)
    got = geometry.paste_masks(masks, boxes, (h, w))
    assert got.dtype == np.float32 and got.shape == (count, h, w)
    assert np.allclose(got, reference.paste_masks(masks, boxes, (h, w)), atol=1e-4)
    for threshold in (0.0, 0.5):
        assert np.array_equal(geometry.paste_masks_bool(masks, boxes, (h, w), threshold), got > threshold)


def test_there_and_back():
    """A rectangle that fills its box comes back as that rectangle."""
    picture = np.zeros((1, 40, 50), np.uint8)
    picture[0, 8:24, 10:34] = 1
    box = [[10, 8, 34, 24]]
    mask = geometry.crop_masks(picture, box, [0], 28)
    pasted = geometry.paste_masks_bool(mask, box, (40, 50))
    assert (pasted[0] != picture[0]).sum() <= 2 * (16 + 24)  # at most a line of pixels along the border
    assert pasted[0, 10:22, 12:32].all() and not pasted[0, :6].any()


@pytest.mark.parametrize("box", [[-3.75, 1, -3.25, 2], [1, -3.75, 2, -3.25], [7, 1, 8, 2], [1, 7, 2, 8]])
def test_a_box_beside_the_picture_pastes_nothing(box):
    """Wholly left of it, its last column is negative, which must not count from the other end."""
    masks = np.ones((1, 2, 2), np.float32)
    for _ in range(20):
        geometry.paste_masks(masks, [[-1, -1, 4, 4]], (3, 3))  # leaves numbers where the next call's scratch will lie
        assert not geometry.paste_masks(masks, [box], (3, 3)).any()
        assert not geometry.paste_masks_bool(masks, [box], (3, 3)).any()


def test_broken_boxes_paste_nothing():
    masks = np.ones((4, 3, 3), np.float32)
    boxes = [[np.nan, 0, 5, 5], [0, 0, np.inf, 5], [0, -np.inf, 5, 5], [0, 0, 1e30, 1e30]]
    assert not geometry.paste_masks(masks, boxes, (9, 9)).any()
    cropped = geometry.crop_masks(np.ones((1, 9, 9), np.uint8), boxes, [0] * 4, 5)
    assert not cropped.any()


def test_errors():
    masks, boxes = np.zeros((2, 5, 5), np.uint8), np.zeros((1, 4))
    with pytest.raises(ValueError, match="crop_masks: masks is float64"):
        geometry.crop_masks(masks.astype(float), boxes, [0], 3)
    with pytest.raises(ValueError, match="crop_masks: matched goes from 2 to 2"):
        geometry.crop_masks(masks, boxes, [2], 3)
    with pytest.raises(ValueError, match="crop_masks: matched goes from -1 to -1"):
        geometry.crop_masks(masks, boxes, [-1], 3)
    with pytest.raises(ValueError, match=r"crop_masks: matched \(2,\)"):
        geometry.crop_masks(masks, boxes, [0, 0], 3)
    with pytest.raises(ValueError, match=r"paste_masks: masks \(2, 5, 5\) for boxes \(1, 4\)"):
        geometry.paste_masks(masks, boxes, (4, 4))
    with pytest.raises(ValueError, match="threshold is -1"):
        geometry.paste_masks_bool(masks[:1], boxes, (4, 4), -1)
