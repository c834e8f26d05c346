"""Many cells that become one, in every channel: the instructions against their Python twins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError

from minimrcnn.kernels.cells import find_maximum, maximum_in_python, mix_cells, mixture_in_python
from tests.elsewhere import run_elsewhere


@njit
def run_maximum(cells, first, width, best, winner):
    find_maximum(cells[::2, 1:, 1:], first, width, best, winner)


@njit
def run_mixture(cells, rows, row_weights, columns, column_weights, mixture):
    mix_cells(cells[::2, 1:, 1:], rows, row_weights[::2], columns, column_weights, mixture)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 300)), seed=st.integers(0, 2**32 - 1))
def test_maximum(dtype, shape, seed):
    """No cells, groups of vectors, vectors, single numbers; ties, infinities, NaN; views with gaps."""
    rng = np.random.default_rng(seed)
    rows, columns, channels = shape
    cells = rng.integers(-2, 3, (2 * rows, columns + 1, channels + 1)).astype(dtype)
    cells[rng.random(cells.shape) < 0.1] = np.nan
    cells[rng.random(cells.shape) < 0.1] = -np.inf
    best, winner = np.full(channels + 2, 7, dtype), np.full(channels + 2, 7, np.int32)
    wanted, cell = best.copy(), winner.copy()
    run_maximum(cells, 1000, 50, best[1:-1], winner[1:-1])
    maximum_in_python(cells[::2, 1:, 1:], 1000, 50, wanted[1:-1], cell[1:-1])
    assert np.array_equal(best, wanted) and np.array_equal(winner, cell)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 300)),
    taps=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seed=st.integers(0, 2**32 - 1),
)
def test_mixture(dtype, shape, taps, seed):
    """No taps, some, cells taken twice; groups of vectors, vectors, single numbers; infinities, NaN; views with gaps.

    The sums are of the same terms in the same order, so only a fused multiplication could round them differently.
    """
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    cells = rng.standard_normal((2 * height, width + 1, channels + 1)).astype(dtype)
    cells[rng.random(cells.shape) < 0.02] = np.nan
    cells[rng.random(cells.shape) < 0.02] = np.inf
    rows, columns = rng.integers(0, height, taps[0]), rng.integers(0, width, taps[1])
    row_weights, column_weights = rng.random(2 * taps[0]).astype(dtype), rng.random(taps[1]).astype(dtype)
    mixture = np.full(channels + 2, 7, dtype)
    wanted = mixture.copy()
    run_mixture(cells, rows, row_weights, columns, column_weights, mixture[1:-1])
    mixture_in_python(cells[::2, 1:, 1:], rows, row_weights[::2], columns, column_weights, wanted[1:-1])
    np.testing.assert_allclose(mixture, wanted, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


def test_indices_of_another_type_are_refused():
    one = np.zeros(1, np.int32)
    with pytest.raises(TypingError, match="int32 and int32, wanted int64"):
        run_mixture(np.zeros((4, 3, 3)), one, np.ones(2), one, np.ones(1), np.ones(2))


def test_short_vectors(tmp_path):
    """The same on a processor with AVX2 at most."""
    pytest_here = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "maximum or mixture", __file__]
    done = run_elsewhere(pytest_here, tmp_path, NUMBA_CPU_NAME="generic")
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
