"""The largest cell of every channel: the instructions against their Python twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from minimrcnn.kernels.maximum import find_maximum, maximum_in_python


@njit
def run(cells, first, width, best, winner):
    find_maximum(cells[::2, 1:, 1:], first, width, best, winner)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 150)), seed=st.integers(0, 2**32 - 1))
def test_the_python_twin(dtype, shape, seed):
    """No cells, groups of vectors, vectors, single numbers; ties, infinities, NaN; views with gaps."""
    rng = np.random.default_rng(seed)
    rows, columns, channels = shape
    cells = rng.integers(-2, 3, (2 * rows, columns + 1, channels + 1)).astype(dtype)
    cells[rng.random(cells.shape) < 0.1] = np.nan
    cells[rng.random(cells.shape) < 0.1] = -np.inf
    best, winner = np.full(channels + 2, 7, dtype), np.full(channels + 2, 7, np.int32)
    wanted, cell = best.copy(), winner.copy()
    run(cells, 1000, 50, best[1:-1], winner[1:-1])
    maximum_in_python(cells[::2, 1:, 1:], 1000, 50, wanted[1:-1], cell[1:-1])
    assert np.array_equal(best, wanted) and np.array_equal(winner, cell)
