"""Matrix products: against NumPy's, in every layout, and as a debugger and another processor run them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import config, njit
from numba.core.errors import TypingError

from minimrcnn.kernels.product import (
    BLOCK_DEPTH,
    BLOCK_DEPTH_DOWN,
    BLOCK_ROWS,
    PACKED,
    multiply,
    multiply_runs,
    pack,
    pack_weight,
    panels_shape,
)
from tests.elsewhere import run_elsewhere


@njit
def multiply_here(x, panels, add, y):
    multiply(x, panels, np.int64(add), y)


@njit
def multiply_runs_here(x, panels, y):
    multiply_runs(x, panels[:, :, :], np.int64(0), y[:, :])


@njit
def pack_here(matrix, panels):
    pack(matrix[:, :], panels)


def packed(matrix):
    panels = np.full(panels_shape(*matrix.shape, matrix.itemsize), np.nan, matrix.dtype)
    pack_here(matrix, panels)
    return panels


def check(rows, inner, columns, dtype, order, add):
    rng = np.random.default_rng(rows + inner + columns)
    x = np.asarray(rng.standard_normal((rows, inner)), dtype, order)
    weight = np.asarray(rng.standard_normal((inner, columns)), dtype, order)
    before = rng.standard_normal((rows, columns + 2)).astype(dtype)
    y = before.copy()
    multiply_here(x, packed(weight), add, y[:, 1:-1])
    expected = x.astype(np.float64) @ weight.astype(np.float64) + (before[:, 1:-1] if add else 0)
    tolerance = 4 * np.finfo(dtype).eps * (np.abs(x) @ np.abs(weight) + 1)
    assert (np.abs(y[:, 1:-1] - expected) <= tolerance).all()
    assert np.array_equal(y[:, [0, -1]], before[:, [0, -1]]), "wrote beside the result"


@given(
    st.integers(0, 20), st.integers(1, 20), st.integers(1, 140), st.sampled_from(["f4", "f8"]), st.sampled_from("CF"),
    st.booleans(),
)  # fmt: skip
def test_small(rows, inner, columns, dtype, order, add):
    check(rows, inner, columns, np.dtype(dtype), order, add)


@pytest.mark.parametrize("rows", [BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 7])
@pytest.mark.parametrize("inner", [BLOCK_DEPTH, BLOCK_DEPTH + 1, 2 * BLOCK_DEPTH + 3])
def test_blocks(rows, inner):
    for add in (False, True):
        check(rows, inner, 70, np.dtype("f4"), "C", add)


@pytest.mark.parametrize("inner", [BLOCK_DEPTH_DOWN, BLOCK_DEPTH_DOWN + 1, 2 * BLOCK_DEPTH_DOWN + 3])
def test_blocks_down_columns(inner):
    for rows in (BLOCK_ROWS, BLOCK_ROWS + 7):
        check(rows, inner, 70, np.dtype("f4"), "F", add=True)


@given(st.integers(0, 14), st.integers(1, 5), st.sampled_from([1, 3, 60, BLOCK_DEPTH + 1]), st.integers(1, 5))
def test_overlapping_runs(rows, runs, depth, step):
    """Rows that begin ``step`` numbers apart, each of several runs from lines of a picture."""
    picture = np.random.default_rng(0).standard_normal((runs, depth + step * rows))
    weight = np.random.default_rng(1).standard_normal((runs * depth, 70))
    seen = np.lib.stride_tricks.as_strided(picture, (rows, runs, depth), (8 * step, picture.strides[0], 8))
    y = np.empty((rows, 70))
    multiply_runs_here(seen, packed(weight), y)
    np.testing.assert_allclose(y, seen.reshape(rows, runs * depth) @ weight, atol=1e-10)


def test_nan_and_infinity_stay_in_their_rows():
    x = np.ones((8, 3), np.float32)
    x[2, 1], x[5, 0] = np.nan, np.inf
    y = np.empty((8, 5), np.float32)
    multiply_here(x, packed(np.ones((3, 5), np.float32)), False, y)
    assert np.isnan(y[2]).all() and np.isinf(y[5]).all() and np.isfinite(np.delete(y, [2, 5], axis=0)).all()


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 19), st.integers(1, 70), st.booleans(), st.booleans())
@example(1, 1, 2 * PACKED, 70, False, False)  # whole pieces, and a row more
@example(2, 2, 2 * PACKED + 1, 5, False, True)
def test_pack_weight(groups, taps, inner, columns, turned, has_scale):
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((taps, inner, groups * columns)).astype(np.float32)
    scale = rng.standard_normal(groups * columns if has_scale else 0).astype(np.float32)
    shape = panels_shape(columns, inner, 4) if turned else panels_shape(inner, columns, 4)
    panels = np.full((groups, taps, *shape), np.nan, np.float32)
    pack_weight(weight, scale, turned, panels)
    scaled = weight * scale if has_scale else weight
    matrices = scaled.reshape(taps, inner, groups, columns).transpose(2, 0, *((3, 1) if turned else (1, 3)))
    for of_group, matrices_of_group in zip(panels, matrices, strict=True):
        for got, matrix in zip(of_group, matrices_of_group, strict=True):
            wide = got.transpose(1, 0, 2).reshape(len(matrix), -1)
            assert np.array_equal(wide[:, : matrix.shape[1]], matrix)
            assert not wide[:, matrix.shape[1] :].any()


@pytest.mark.parametrize("settings", [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "generic"}])
def test_elsewhere(settings, tmp_path):
    """Step by step in Python, and on a processor without wide registers."""
    done = run_elsewhere(["-c", "from tests import test_product; test_product.check_a_few()"], tmp_path, **settings)
    assert done.returncode == 0, done.stderr
    assert "a few are right" in done.stdout


def check_a_few():
    for dtype in ("f4", "f8"):
        for add in (False, True):
            check(13, 7, 70, np.dtype(dtype), "C", add)
    print("a few are right")


@pytest.mark.skipif(config.DISABLE_JIT, reason="types are the compiler's to check")
def test_types_are_not_mixed():
    """The instructions read what lies there as numbers of one type: of another, they would be garbage."""
    x, panels = np.ones((4, 3)), packed(np.ones((3, 5), np.float32))
    with pytest.raises(TypingError, match="x of float64, panel of float32"):
        multiply_here(x, panels, 0, np.empty((4, 5)))
