"""Convolution in narrow groups: reference, gradients, the Python twin, and who goes this way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimrcnn import reference
from minimrcnn.functional import conv2d, conv_cpu
from minimrcnn.functional.conv_shapes import output_size
from minimrcnn.kernels.grouped_convolution import PLACES, convolve_groups, fits_a_vector
from minimrcnn.kernels.product import WIDE
from minimrcnn.tensor import Tensor, gradcheck
from tests.elsewhere import run_elsewhere


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.fixture
def calls(monkeypatch):
    """What stands for the size of groups in the kernel's calls."""
    groups = []
    monkeypatch.setattr(conv_cpu, "convolve_groups", lambda *given: (groups.append(given[5]), convolve_groups(*given)))
    return groups


@st.composite
def grouped_convolutions(draw):
    """Lines that no place of hangs over the map, some, or all; nothing of the kernel on the map; empty batches."""
    dtype, width = draw(st.sampled_from([(np.float32, 4), (np.float32, 16), (np.float64, 8)]))  # each is compiled: 4 s
    channels = 64 // dtype().itemsize * (draw(st.integers(1, 2)) if width == 4 else 2)  # two groups at least
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 1), (1, 7), (1, 6)]))
    padding, stride = draw(st.integers(0, 2)), draw(st.integers(1, 3))
    size = (
        draw(st.integers(max(kernel[0] - 2 * padding, 1), 5)),
        draw(st.integers(max(kernel[1] - 2 * padding, 1), draw(st.sampled_from([7, PLACES + 9])))),
    )
    x = normal(draw(st.sampled_from([1, 1, 2, 0])), *size, channels, seed=1, dtype=dtype)
    weight = normal(*kernel, width, channels, seed=2, dtype=dtype)
    return x, weight, {"stride": stride, "padding": padding, "groups": channels // width}


@settings(deadline=None, max_examples=25)
@given(grouped_convolutions(), st.booleans())
def test_is_the_definition(drawn, is_full):
    x, weight, options = drawn
    if is_full:
        size = output_size(x.shape[1:3], weight.shape[:2], options["stride"], options["padding"])
        per_channel = weight.shape[3:]
        bias, residual, scale = (
            normal(*shape, seed=n, dtype=x.dtype)
            for n, shape in enumerate((per_channel, (len(x), *size, *per_channel), per_channel))
        )
        wanted = np.maximum(reference.conv2d(x, weight * scale, bias, **options) + residual, 0)
        y = conv2d(x, weight, bias, **options, residual=residual, relu=True, scale=scale)
    else:
        wanted = reference.conv2d(x, weight, **options)
        y = conv2d(x, weight, **options)
    np.testing.assert_allclose(y.data, wanted, atol=1e-3 if x.dtype == np.float32 else 1e-10)


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 3), (1, 6), (1, 7), (2, 9)])
@pytest.mark.parametrize("places", [PLACES, PLACES + 1, 3 * PLACES - 1])
def test_places_that_take_turns(width, stride, kernel, places):
    """So many places of a line see nothing beside the map: whole tiles, and a last one that covers some once more."""
    x = normal(1, 3, (places - 1) * stride + kernel[1], 32, dtype=np.float32)
    weight = normal(*kernel, width, 32, seed=1, dtype=np.float32)
    y = conv2d(x, weight, stride=stride, padding=1, groups=32 // width).data
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, kernel, (1, 2))[:, ::stride, ::stride]
    seen = seen.reshape(*seen.shape[:3], -1, width, *kernel)  # (N, OH, OW, groups, width, KH, KW)
    wanted = np.einsum("nyxgikl,kligo->nyxgo", seen, weight.reshape(*kernel, width, -1, width))
    np.testing.assert_allclose(y, wanted.reshape(y.shape), atol=1e-3)


@settings(deadline=None, max_examples=10)
@given(grouped_convolutions())
def test_gradients_are_the_definition(drawn):
    x, weight, options = drawn
    leaves = [Tensor(array, requires_grad=True) for array in (x, weight)]
    y = conv2d(*leaves, **options)
    gradient = normal(*y.shape, seed=4, dtype=x.dtype)
    y.backward(gradient)
    wanted = reference.conv2d_gradient(gradient, x, weight, **options)
    for leaf, expected in zip(leaves, wanted[:2], strict=True):
        np.testing.assert_allclose(leaf.grad, expected, atol=5e-3 if x.dtype == np.float32 else 1e-10)


def test_gradients_against_differences(calls):
    x, weight, bias = (
        Tensor(normal(*shape, seed=n), requires_grad=True)
        for n, shape in enumerate(((1, 4, 11, 16), (3, 3, 8, 16), (16,)))
    )
    gradcheck(lambda x, w, b: conv2d(x, w, b, padding=1, groups=2), x, weight, bias, tolerance=1e-6)
    assert set(calls) == {(2, 2, 2)}


@pytest.mark.parametrize(
    "inside, outside, groups, dtype, goes",
    [
        (4, 4, 32, np.float32, True),  # ResNeXt-50's first stage
        (16, 16, 32, np.float32, True),
        (32, 32, 4, np.float32, False),  # wide enough for a product
        (4, 8, 8, np.float32, False),
        (3, 3, 16, np.float32, False),
        (8, 8, 1, np.float32, False),
        (1, 1, 16, np.float32, True),  # each channel alone
        (16, 16, 2, np.float64, False),
        (8, 8, 3, np.float32, True),
        (4, 4, 3, np.float32, False),  # half of the last vector would be beyond
    ],
)
def test_who_goes_this_way(inside, outside, groups, dtype, goes, calls):
    """And the same comes out as of each group alone, by patches, in float64."""
    x, weight = normal(1, 5, 12, inside * groups), normal(3, 3, inside, outside * groups, seed=1)
    y = conv2d(x.astype(dtype), weight.astype(dtype), padding=1, groups=groups).data
    assert bool(calls) == goes
    for group in range(groups):
        own_inputs, own = (slice(group * side, (group + 1) * side) for side in (inside, outside))
        wanted = conv2d(x[..., own_inputs], weight[..., own], padding=1, algorithm="patches").data
        np.testing.assert_allclose(y[..., own], wanted, atol=1e-3 if dtype == np.float32 else 1e-10)


def test_not_a_number_stays_in_its_group():
    """Groups do not see each other; and the epilogue lets it be."""
    x, weight = normal(1, 4, 13, 16, dtype=np.float32), normal(3, 3, 4, 16, seed=1, dtype=np.float32)
    x[0, 2, 5, 6] = np.nan
    y = conv2d(x, weight, padding=1, groups=4, relu=True).data
    assert np.isnan(y[0, 1:4, 4:7, 4:8]).all()
    assert np.isnan(y).sum() == 3 * 3 * 4


def test_what_fits():
    """On any processor: of short vectors, 24 channels in groups of 4 fill three."""
    assert fits_a_vector(4, 128, 4) and fits_a_vector(8, 8, 8) and fits_a_vector(16, 16, 4)
    assert not fits_a_vector(16, 16, 8) and not fits_a_vector(4, 12, 4) and not fits_a_vector(3, 48, 4)
    assert fits_a_vector(4, 24, 4) == (WIDE == 1)


@pytest.mark.parametrize("variables", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "generic"}])
def test_elsewhere(variables, tmp_path):
    """Step by step in Python, and on a processor with short vectors."""
    done = run_elsewhere(
        ["-c", "from tests import test_grouped_convolution as test; test.check()"], tmp_path, **variables
    )
    assert done.returncode == 0, done.stderr
    assert "the same" in done.stdout


def check():
    for width, stride in ((4, 1), (16, 2)):
        x = normal(1, 5, 23, 32, dtype=np.float32)
        weight, bias = normal(3, 3, width, 32, seed=1, dtype=np.float32), normal(32, seed=2, dtype=np.float32)
        options = {"stride": stride, "padding": 1, "groups": 32 // width}
        y = conv2d(x, weight, bias, **options, relu=True).data
        wanted = np.maximum(reference.conv2d(x, weight, bias, **options), 0)
        assert np.allclose(y, wanted, atol=1e-4)
    print("the same")
