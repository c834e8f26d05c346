"""Transforms of whole vectors: the instructions against the arithmetic they were written from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from minimrcnn.kernels.vectors import make_transform
from tests.elsewhere import run_elsewhere


def mix(a, b, c, third):
    """Three values become two."""
    return a - b * third, -(a + c)


COEFFICIENTS = np.array([[1, -0.25, 0], [-1, 0, -1]])
transform = make_transform(mix, 0.25)


@njit
def run(source, target):
    transform(source[1:4, ::2], target[:, 1:])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 70), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_the_matrix_on_both_axes(channels, dtype, seed):
    """Fewer channels than a vector has, a whole number of vectors, and a remainder; views with steps."""
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((5, 5, channels)).astype(dtype)
    target = np.full((2, 3, channels + 2), 7, dtype)
    run(source, target[:, :, 1:-1])
    expected = np.einsum("ai,ijc,bj->abc", COEFFICIENTS, source[1:4, ::2].astype(np.float64), COEFFICIENTS)
    assert np.allclose(target[:, 1:, 1:-1], expected, atol=1e-5 if dtype == np.float32 else 1e-13)
    assert (target[:, 0] == 7).all() and (target[:, :, [0, -1]] == 7).all(), "wrote beyond its target"


def test_not_a_number_stays_in_its_channel():
    source = np.zeros((5, 5, 40), np.float32)
    source[2, 2, 17] = np.nan
    target = np.zeros((2, 3, 40), np.float32)
    run(source, target)
    assert np.unique(np.nonzero(np.isnan(target))[2]).tolist() == [17]


@pytest.mark.parametrize("variables", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "generic"}])
def test_elsewhere(variables, tmp_path):
    """Step by step in Python, and on a processor with short vectors: Winograd's transforms against gathered patches."""
    done = run_elsewhere(["-c", "from tests import test_vectors; test_vectors.check_winograd()"], tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert "the same" in done.stdout


def check_winograd():
    from minimrcnn.functional.conv_cpu import convolve

    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 7, 9, 17)), rng.standard_normal((3, 3, 17, 20))
    with_winograd, with_patches = (
        convolve(x, weight, None, None, 1, 1, 1, algorithm, False) for algorithm in ("winograd", "patches")
    )
    assert np.allclose(with_winograd, with_patches, atol=1e-10)
    print("the same")
