"""RoI pooling on the CPU: three rules, against the textbook, torchvision, and where they part from RoIAlign."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import reference
from minimrcnn.kernels.roi_pool import CAFFE, FLOOR, LEAST_ROWS, SPLIT, roi_pool, roi_pool_gradient
from tests.reference_cases import cases, relative_error
from tests.test_reference import MAP
from tests.twin_arguments import ROIS

RULES = {"caffe": CAFFE, "split": SPLIT, "floor": FLOOR}


def crop(features, rois, size, scale=1.0, rule="caffe"):
    """(crops, winner)"""
    rois = np.asarray(rois, np.float32).reshape(-1, 5)
    output = np.full((len(rois), *size, features.shape[3]), np.nan, np.float32)
    winner = np.full(output.shape, -9, np.int32)
    roi_pool(features, rois, scale, RULES[rule], winner, output)
    return output, winner


def route(gradient, winner, rois, shape, scale=1.0, rule="caffe"):
    features_gradient = np.full(shape, np.nan, np.float32)  # the CPU body clears it
    rois = np.asarray(rois, np.float32).reshape(-1, 5)
    roi_pool_gradient(gradient, winner, rois, scale, RULES[rule], features_gradient)
    return features_gradient


@pytest.mark.parametrize("number", range(len(cases("roi_pool"))))
def test_torchvision(number):
    params, a = cases("roi_pool")[number]
    got, winner = crop(a["x"], a["rois"], params["output_size"], params["spatial_scale"])
    assert np.array_equal(got, a["y"])
    gradient = route(a["grad_y"], winner, a["rois"], a["x"].shape, params["spatial_scale"])
    assert relative_error(gradient, a["grad_x"]) < 1e-6


@pytest.mark.parametrize(
    "rule, roi, expected",
    [
        ("split", [0, 0, 3, 7, 8], [[0.85, 0.84], [0.97, 0.96]]),
        ("caffe", [0, 0, 3, 7, 8], [[0.85, 0.96], [0.97, 0.91]]),
        ("caffe", [0, 0, 3, 6, 7], [[0.85, 0.96], [0.97, 0.96]]),
    ],
)
def test_the_article(rule, roi, expected):
    assert np.allclose(crop(MAP.astype(np.float32), [roi], (2, 2), rule=rule)[0][0, :, :, 0], expected)


def test_floor_drops_a_third_of_the_object():
    """665 pixels at stride 32 are 20.78 cells, of which 7 bins of 2 see 14."""
    column = np.arange(25, dtype=np.float32).reshape(1, 25, 1, 1)
    crops, _ = crop(column, [[0, 0, 0, 32, 665]], (7, 1), 1 / 32, "floor")
    assert crops.ravel().tolist() == [1, 3, 5, 7, 9, 11, 13]
    crops, _ = crop(column, [[0, 0, 0, 32, 665]], (7, 1), 1 / 32, "caffe")  # 22 cells, none dropped
    assert crops.ravel().tolist() == [3, 6, 9, 12, 15, 18, 21]


@st.composite
def drawn(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, channels, count = draw(st.integers(1, 3)), draw(st.integers(0, 9)), draw(st.integers(0, 5))
    height, width = draw(st.integers(1, 3 * LEAST_ROWS + 1)), draw(st.integers(1, 9))
    # Few different values: ties must go to the first cell.
    features = rng.integers(-3, 4, (images, height, width, channels)).astype(np.float32)
    scale, beyond = draw(st.sampled_from([1.0, 0.5, 0.25])), draw(st.sampled_from([0.3, 5.0]))
    corners = rng.uniform(-beyond, 1 + beyond, (count, 4)) * [width, height, width, height] / scale
    corners = np.round(8 * corners) / 8  # float32 has them and their differences, so all round alike
    rois = np.concatenate([rng.integers(0, images, (count, 1)), corners], axis=1).astype(np.float32)
    return features, rois, (draw(st.integers(1, 4)), draw(st.integers(1, 4))), scale, rng


@pytest.mark.parametrize("rule", RULES)
@given(drawn=drawn())
def test_the_textbook_and_its_gradient(rule, drawn):
    features, rois, size, scale, rng = drawn
    got, winner = crop(features, rois, size, scale, rule)
    assert np.array_equal(got, reference.roi_pool(features, rois, size, scale, rule))
    gradient = rng.integers(-3, 4, got.shape).astype(np.float32)
    expected = reference.roi_pool(features, rois, size, scale, rule, gradient=gradient)
    assert np.array_equal(route(gradient, winner, rois, features.shape, scale, rule), expected)


def test_bins_of_a_roi_far_beyond_the_map_are_its_own():
    """16 rows make 4 bins of 4, and the map of 4 rows is all of the first; so has torchvision 0.28."""
    features = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    assert crop(features, [[0, 0, 0, 3, 15]], (4, 1))[0].ravel().tolist() == [15, 0, 0, 0]


@pytest.mark.parametrize("rule", RULES)
def test_broken_rois_stay_on_the_map(rule):
    features = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)
    got, winner = crop(features, ROIS, (2, 3), 0.25, rule)
    assert np.isfinite(got).all() and winner.max() < 7 * 6
    no_image = ~np.isin(ROIS[:, 0], [0, 1])
    assert not got[no_image].any()
    assert np.isfinite(route(np.ones_like(got), winner, ROIS, features.shape, 0.25, rule)).all()


def test_pooling_is_flat_and_then_jumps():
    features = np.random.default_rng(4).standard_normal((1, 16, 16, 2)).astype(np.float32)
    roi = np.array([0, 3, 4, 11, 12], np.float32)
    still, jumped = roi + [0, 0.49, 0.49, 0.49, 0.49], roi + [0, 0.51, 0.51, 0.51, 0.51]
    here = crop(features, [roi], (3, 3))[0]
    assert np.array_equal(here, crop(features, [still], (3, 3))[0])
    assert not np.array_equal(here, crop(features, [jumped], (3, 3))[0])
