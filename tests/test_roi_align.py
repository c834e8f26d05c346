"""RoIAlign on the CPU: against the textbook, torchvision, its own adjoint, and the properties it is loved for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import reference
from minimrcnn.kernels.roi_align import roi_align
from minimrcnn.kernels.roi_align_gradient import BAND, CHUNK, roi_align_gradient
from tests.reference_cases import cases, relative_error
from tests.twin_arguments import ROIS

NO_WINNER = np.zeros((0, 0, 0, 0), np.int32)


def crop(features, rois, size, scale=1.0, ratio=2, aligned=True, mode="average"):
    """(crops, winner)"""
    rois = np.asarray(rois, features.dtype).reshape(-1, 5)
    output = np.full((len(rois), *size, features.shape[3]), np.nan, features.dtype)
    winner = np.full(output.shape, -9, np.int32) if mode == "max" else NO_WINNER
    roi_align(features, rois, scale, ratio, aligned, mode == "max", winner, output)
    return output, winner


def spread(gradient, winner, rois, shape, scale=1.0, ratio=2, aligned=True):
    rois = np.asarray(rois, gradient.dtype).reshape(-1, 5)
    features_gradient = np.full(shape, np.nan, gradient.dtype)  # the CPU body clears it
    roi_align_gradient(gradient, winner, rois, scale, ratio, aligned, winner is not NO_WINNER, features_gradient)
    return features_gradient


@pytest.mark.parametrize("number", range(len(cases("roi_align"))))
def test_torchvision(number):
    params, a = cases("roi_align")[number]
    options = params["spatial_scale"], params["sampling_ratio"], params["aligned"]
    assert relative_error(crop(a["x"], a["rois"], params["output_size"], *options)[0], a["y"]) < 1e-6
    got = spread(a["grad_y"], NO_WINNER, a["rois"], a["x"].shape, *options)
    assert relative_error(got, a["grad_x"]) < 2e-6


@st.composite
def drawn(draw):
    """Features, RoIs (some off the map), output size and options of any small shape, empty ones among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, channels = draw(st.integers(1, 3)), draw(st.integers(0, 19))
    height, width = draw(st.integers(1, 3 * BAND + 1)), draw(st.integers(1, 9))
    count = draw(st.integers(0, 5))
    features = rng.standard_normal((images, height, width, channels)).astype(np.float32)
    scale = draw(st.sampled_from([1.0, 0.25, 0.3]))
    corners = rng.uniform(-0.3, 1.3, (count, 4)) * [width, height, width, height] / scale
    corners[:, :2], corners[:, 2:] = np.minimum(corners[:, :2], corners[:, 2:]), corners.max(axis=1, keepdims=True)
    rois = np.concatenate([rng.integers(0, images, (count, 1)), corners], axis=1).astype(np.float32)
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return features, rois, size, scale, draw(st.integers(0, 3)), draw(st.booleans()), rng


@pytest.mark.parametrize("mode", ["average", "max"])
@given(drawn=drawn())
def test_the_textbook_and_its_gradient(mode, drawn):
    features, rois, size, scale, ratio, aligned, rng = drawn
    got, winner = crop(features, rois, size, scale, ratio, aligned, mode)
    assert np.allclose(got, reference.roi_align(features, rois, size, scale, ratio, aligned, mode), atol=2e-5)
    gradient = rng.standard_normal(got.shape).astype(np.float32)
    expected = reference.roi_align(features, rois, size, scale, ratio, aligned, mode, gradient=gradient)
    winner = winner if mode == "max" else NO_WINNER
    if mode == "average" or winner.size:
        assert np.allclose(spread(gradient, winner, rois, features.shape, scale, ratio, aligned), expected, atol=2e-4)


def test_nan_stays_in_the_bins_that_touch_it():
    """One sample a bin mixes two cells of each axis."""
    features, rois = np.ones((1, 12, 12, 3), np.float32), np.float32([[0, 2.2, 2.2, 10.2, 10.2]])
    features[0, 2, 2] = np.nan
    got, _ = crop(features, rois, (4, 4), ratio=1)
    wanted = reference.roi_align(features, rois, (4, 4), 1.0, 1, True, "average")
    assert np.array_equal(np.isnan(got), np.isnan(wanted)) and np.isnan(got).any() and not np.isnan(got).all()


@given(drawn=drawn())
def test_adjoint(drawn):
    """<A x, g> = <x, A' g>: A is linear."""
    features, rois, size, scale, ratio, aligned, rng = drawn
    crops, _ = crop(features, rois, size, scale, ratio, aligned)
    gradient = rng.standard_normal(crops.shape).astype(np.float32)
    back = spread(gradient, NO_WINNER, rois, features.shape, scale, ratio, aligned)
    forth = np.vdot(crops.astype(float), gradient)
    assert np.vdot(features.astype(float), back) == pytest.approx(forth, rel=1e-5, abs=1e-3)


def test_gradient_against_differences_in_float64():
    rng = np.random.default_rng(5)
    features, direction = rng.standard_normal((2, 2, 9, 7, 3))
    rois = np.array([[0, 0.3, 1.1, 4.2, 5.7], [1, -2, -1, 7, 3], [1, 2, 2, 12, 12]])
    gradient = rng.standard_normal((3, 2, 3, 3))
    for mode in ("average", "max"):
        values = [
            (crop(features + step * direction, rois, (2, 3), 0.9, 2, True, mode)[0] * gradient).sum()
            for step in (-1e-6, 1e-6)
        ]
        winner = crop(features, rois, (2, 3), 0.9, 2, True, mode)[1]
        exact = (spread(gradient, winner, rois, features.shape, 0.9) * direction).sum()
        assert (values[1] - values[0]) / 2e-6 == pytest.approx(exact, rel=1e-6)


def test_broken_rois_give_zeros_and_touch_nothing():
    features = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)
    broken = np.isnan(ROIS).any(axis=1) | np.isinf(ROIS).any(axis=1) | ~np.isin(ROIS[:, 0], [0, 1])
    assert broken.sum() == 6
    for ratio in (0, 2):
        for aligned in (False, True):
            for mode in ("average", "max"):
                got, winner = crop(features, ROIS, (2, 3), 0.25, ratio, aligned, mode)
                assert np.isfinite(got).all() and not got[broken].any()
                lost = winner[broken] if mode == "max" else NO_WINNER
                gradient = spread(np.ones_like(got[broken]), lost, ROIS[broken], features.shape, 0.25, ratio, aligned)
                assert not gradient.any()


def test_border_of_the_map():
    """A sample counts from -1 to H; exactly at H it reads the edge, beyond it 0."""
    features = np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1)
    for y, expected in [(-1, 1), (-1.01, 0), (4, 4), (4.01, 0), (2.5, 3.5)]:
        roi = [[0, 0, y - 0.5, 1, y + 0.5]]
        assert crop(features, roi, (1, 1), ratio=1, aligned=False)[0].item() == pytest.approx(expected)


def test_half_a_pixel():
    """aligned=True of a box is aligned=False of the box moved by half a pixel."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((1, 12, 13, 5)).astype(np.float32)
    rois = np.array([[0, 2.3, 1.7, 9.1, 8.2], [0, -3, 4, 6, 11.5]])
    moved = rois - [0, 0.5, 0.5, 0.5, 0.5]
    got, expected = crop(features, rois, (3, 2))[0], crop(features, moved, (3, 2), aligned=False)[0]
    assert np.allclose(got, expected, atol=1e-6)


def test_whole_cells_shift_and_the_sum_of_the_gradient_is_kept():
    rng = np.random.default_rng(2)
    features = rng.standard_normal((1, 20, 20, 4)).astype(np.float32)
    rois = np.array([[0, 3.3, 4.2, 9.7, 8.1]])
    shifted = np.roll(features, (5, 3), axis=(1, 2))
    got = crop(shifted, rois + [0, 3, 5, 3, 5], (3, 3))[0]
    assert np.allclose(got, crop(features, rois, (3, 3))[0], atol=1e-5)
    gradient = rng.standard_normal(got.shape).astype(np.float32)
    assert spread(gradient, NO_WINNER, rois, features.shape).sum() == pytest.approx(gradient.sum(), abs=1e-4)


def test_more_rois_than_are_weighed_at_a_time():
    """The gradient of all is the sum of the gradients of the halves."""
    rng = np.random.default_rng(4)
    corners = np.sort(rng.uniform(0, 40, (CHUNK + 70, 2, 2)), axis=1).reshape(-1, 4)  # x1, y1, x2, y2
    rois = np.insert(corners, 0, rng.integers(0, 2, len(corners)), axis=1)
    gradient = rng.standard_normal((len(rois), 2, 1, 1)).astype(np.float32)
    whole, *halves = (spread(gradient[some], NO_WINNER, rois[some], (2, 41, 41, 1))
                      for some in (slice(None), slice(0, 600), slice(600, None)))  # fmt: skip
    assert np.allclose(whole, sum(halves), atol=1e-4)


@pytest.mark.parametrize("mode", ["average", "max"])
@pytest.mark.parametrize("count", [0, 3])
def test_the_gradient_clears_the_map(count, mode):
    """Every band of every image, also those that no RoI reaches."""
    rng = np.random.default_rng(3)
    features = rng.standard_normal((2, 9, 8, 3)).astype(np.float32)
    rois = np.array([[1, 1, 1, 5, 5], [5, 0, 0, 4, 4], [np.nan, 0, 0, 4, 4]], np.float32)[:count]
    winner = crop(features, rois, (2, 2), mode=mode)[1]
    got = spread(np.ones((count, 2, 2, 3), np.float32), winner, rois, features.shape)
    assert np.isfinite(got).all()
    assert not got[0].any() and got[1].any() == (count > 0)
