"""A matrix turned over: whole squares and what is left of them, of parts of matrices, and as a debugger runs it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import config, njit
from numba.core.errors import TypingError

from minimrcnn.kernels.turn import turn
from tests.elsewhere import run_elsewhere


@njit
def turn_here(source, target):
    turn(source[:, :], target[:, :])


def check(rows, columns, dtype, ahead):
    """Both are parts of larger matrices, of which nothing else is touched."""
    large = np.arange((rows + 2) * (columns + ahead + 3), dtype=dtype).reshape(rows + 2, -1)
    target = np.full((columns + 2, rows + ahead + 3), -1, dtype)
    source = large[1 : 1 + rows, ahead : ahead + columns]
    turn_here(source, target[1 : 1 + columns, ahead : ahead + rows])
    wanted = np.full_like(target, -1)
    wanted[1 : 1 + columns, ahead : ahead + rows] = source.T
    assert np.array_equal(target, wanted)


@given(st.integers(0, 20), st.integers(0, 20), st.sampled_from(["f4", "f8"]), st.integers(0, 3))
def test_turn(rows, columns, dtype, ahead):
    check(rows, columns, np.dtype(dtype), ahead)


@pytest.mark.parametrize("settings", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "generic"}])
def test_elsewhere(settings, tmp_path):
    done = run_elsewhere(["-c", "from tests import test_turn; test_turn.check_a_few()"], tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert "a few are right" in done.stdout


def check_a_few():
    for dtype in ("f4", "f8"):
        check(17, 10, np.dtype(dtype), 1)
    print("a few are right")


@pytest.mark.skipif(config.DISABLE_JIT, reason="types are the compiler's to check")
def test_types_are_not_mixed():
    with pytest.raises(TypingError, match="source of float64, target of float32"):
        turn_here(np.ones((8, 8)), np.ones((8, 8), np.float32))
