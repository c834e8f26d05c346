"""The steps of a convolution on a GPU, against the textbook.

They are written for any array module, so they run here on NumPy arrays: with the CPU bodies of the twins on many
shapes, and in Numba's simulator, which must be chosen before Numba is imported and so has a process of its own, with
the CUDA bodies on a few.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import reference
from minimrcnn.functional import conv, conv_cpu, conv_cuda
from minimrcnn.functional.conv_shapes import transposed_size
from minimrcnn.kernels import matmul_tiled
from minimrcnn.kernels.direct_convolution import direct_convolution
from minimrcnn.kernels.twin import Twin
from minimrcnn.tensor import Tensor
from tests.reference_cases import cases, relative_error

IN_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
only_in_simulator = pytest.mark.skipif(not IN_SIMULATOR, reason="runs in the simulator's process")
not_in_simulator = pytest.mark.skipif(IN_SIMULATOR, reason="the simulator is too slow for this")


def launch(twin, *arguments):
    """Run a Twin's CUDA body. The simulator takes only contiguous arrays, so a copy of an output that is not."""
    *inputs, output = arguments
    contiguous = np.ascontiguousarray(output)
    twin.launch(*inputs, contiguous)
    output[...] = contiguous


@pytest.fixture(autouse=True, scope="module")
def twins():
    """In the simulator a Twin launches its CUDA body, whatever its arrays are."""
    with pytest.MonkeyPatch.context() as patch:
        if IN_SIMULATOR:
            patch.setattr(Twin, "__call__", launch)
        yield


def normal(dtype, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def bound(algorithm, dtype):
    """Largest difference to expect, as a share of the largest number."""
    return 1e-12 if dtype == np.float64 else (1e-4 if algorithm == "winograd" else 1e-5)


def check_convolution(dtype, shape, kernel, stride, padding, groups, algorithm, scratch, extras):
    """Forward, with the extras (bias, residual, ReLU) or none of them, and both gradients."""
    x, weight = normal(dtype, *shape), normal(dtype, *kernel, seed=1)
    wanted = reference.conv2d(x, weight, None, stride, padding, groups)
    bias = residual = None
    if extras:
        bias, residual = normal(dtype, kernel[3], seed=2), normal(dtype, *wanted.shape, seed=3)
    gradient = normal(dtype, *wanted.shape, seed=4)
    x_wanted, weight_wanted, _ = reference.conv2d_gradient(gradient, x, weight, stride, padding, groups)
    with mock.patch.object(conv_cuda, "SCRATCH", scratch):
        y = conv_cuda.convolve(x, weight, bias, residual, stride, padding, groups, algorithm, extras)
        x_gradient = conv_cuda.input_gradient(gradient, weight, x.shape, stride, padding, groups, algorithm)
        weight_gradient = conv_cuda.kernel_gradient(x, gradient, weight.shape, stride, padding, groups, algorithm)
    if extras:
        wanted = np.maximum(wanted + bias + residual, 0)
    for got, expected in ((y, wanted), (x_gradient, x_wanted), (weight_gradient, weight_wanted)):
        assert got.shape == expected.shape and got.dtype == dtype and got.flags.c_contiguous
        if got.size:
            assert relative_error(got, expected) < bound(algorithm, dtype)


def check_transposed(dtype, shape, kernel, stride, padding, scratch, extras):
    x, weight = normal(dtype, *shape), normal(dtype, *kernel, seed=1)
    bias = normal(dtype, kernel[3], seed=2) if extras else None
    size = transposed_size(shape[1:3], kernel[:2], stride, padding)
    whole = reference.conv_transpose2d(x, weight, bias, stride)
    wanted = whole[:, padding : padding + size[0], padding : padding + size[1]]
    with mock.patch.object(conv_cuda, "SCRATCH", scratch):
        y = conv_cuda.transpose_convolve(
            x, weight.swapaxes(2, 3), bias, (len(x), *size, kernel[3]), stride, padding, 1, extras
        )
    wanted = np.maximum(wanted, 0) if extras else wanted
    assert y.shape == wanted.shape and y.dtype == dtype
    if y.size:
        assert relative_error(y, wanted) < bound("patches", dtype)


SMALL = [  # x, weight, stride, padding, groups, algorithm
    ((2, 5, 4, 4), (3, 3, 2, 6), 2, 1, 2, "patches"),
    ((1, 4, 5, 3), (2, 3, 3, 2), 1, 0, 1, "patches"),
    ((1, 4, 5, 8), (3, 3, 4, 8), 1, 1, 2, "auto"),
    ((2, 3, 3, 3), (1, 1, 3, 4), 1, 0, 1, "pointwise"),
    ((1, 5, 4, 3), (1, 1, 3, 2), 2, 0, 1, "patches"),
    ((2, 6, 5, 3), (3, 3, 3, 2), 1, 1, 1, "winograd"),
    ((1, 1, 1, 2), (3, 3, 2, 2), 1, 1, 1, "winograd"),
    ((0, 4, 4, 2), (3, 3, 2, 2), 1, 1, 1, "patches"),
]


@pytest.mark.skipif(find_spec("numba.cuda") is None, reason="this Numba comes without CUDA")
@not_in_simulator
def test_in_the_simulator():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "small", __file__]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(SMALL) + 2} passed" in done.stdout


@only_in_simulator
@pytest.mark.parametrize("case", SMALL, ids=str)
@pytest.mark.parametrize("extras", [True, False])
def test_small_convolutions(case, extras):
    check_convolution(np.float32, *case, scratch=900 if extras else 2**28, extras=extras)


@only_in_simulator
@pytest.mark.parametrize("extras", [True, False])
def test_small_transposed_convolutions(extras):
    check_transposed(np.float32, (2, 3, 2, 3), (3, 2, 3, 2), 2, 1, scratch=200 if extras else 2**28, extras=extras)


@st.composite
def convolutions(draw):
    """Shapes as they come: odd sides, empty batches, maps of one cell, all strides and groups."""
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 1), (7, 7), (3, 3)]))
    padding, stride, groups = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    sides = [draw(st.integers(max(side - 2 * padding, 1), 9)) for side in kernel]
    inside, outside = draw(st.sampled_from([(1, 2), (2, 1), (3, 4), (4, 3), (8, 4)]))
    shape = (draw(st.integers(0, 3)), *sides, groups * inside)
    algorithm = "winograd" if kernel == (3, 3) and stride == groups == 1 else "patches"
    algorithm = draw(st.sampled_from([algorithm, "auto", "patches"]))
    return shape, (*kernel, inside, groups * outside), stride, padding, groups, algorithm


SCRATCHES = st.sampled_from([1, 1000, 20000, 2**28])
DTYPES = st.sampled_from([np.float32, np.float64])


@not_in_simulator
@given(DTYPES, convolutions(), SCRATCHES, st.booleans())
def test_steps_are_the_definition(dtype, case, scratch, extras):
    check_convolution(dtype, *case, scratch, extras)


@not_in_simulator
@given(DTYPES, st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 2), SCRATCHES, st.booleans())
def test_winograd_steps_are_the_definition(dtype, count, height, width, padding, scratch, extras):
    case = (count, height, width, 3), (3, 3, 3, 2), 1, padding, 1, "winograd"
    check_convolution(dtype, *case, scratch, extras)


@not_in_simulator
@pytest.mark.parametrize(
    "case",
    [
        ((1, 7, 9, 64), (3, 3, 64, 64), 1, 1, 1, "winograd"),
        ((1, 7, 9, 64), (3, 3, 2, 64), 1, 1, 32, "patches"),
        ((2, 1, 1, 64), (3, 3, 64, 2), 1, 1, 1, "winograd"),
        ((3, 7, 9, 2), (1, 1, 2, 64), 1, 0, 1, "pointwise"),
        ((1, 7, 9, 64), (1, 1, 64, 64), 2, 0, 1, "patches"),
        ((1, 20, 23, 3), (7, 7, 3, 8), 2, 3, 1, "patches"),
    ],
    ids=str,
)
@pytest.mark.parametrize("scratch", [30000, 2**28])
def test_many_channels(case, scratch):
    check_convolution(np.float32, *case, scratch, True)


@not_in_simulator
@given(
    DTYPES,
    *(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([(1, 1), (2, 2), (3, 2), (4, 3), (2, 3), (3, 1)]),
    st.integers(0, 1),
    SCRATCHES,
    st.booleans(),
)
def test_transposed_steps_are_the_definition(dtype, count, height, width, kernel_and_stride, padding, scratch, extras):
    kernel, stride = kernel_and_stride
    if min(transposed_size((height, width), (kernel, kernel), stride, padding)) >= 1:
        check_transposed(dtype, (count, height, width, 3), (kernel, kernel, 3, 2), stride, padding, scratch, extras)


@not_in_simulator
@given(st.integers(0, 5000), st.integers(0, 10**6), st.sampled_from([1, 10**4, 2**28]))
def test_blocks_cover_all_and_keep_the_bound(count, bytes_each, scratch):
    with mock.patch.object(conv_cuda, "SCRATCH", scratch):
        found = list(conv_cuda.blocks(count, bytes_each))
    assert [i for some in found for i in range(count)[some]] == list(range(count))
    lengths = [some.stop - some.start for some in found]
    assert all(length * bytes_each <= scratch or length == 1 for length in lengths)
    assert not found or max(lengths) - min(lengths) <= 1


@not_in_simulator
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.data())
def test_lines_that_saw(count, height, kernel, stride, padding, data):
    out_height = (height + 2 * padding - kernel) // stride + 1
    if out_height < 1:
        return
    start = data.draw(st.integers(0, count * height - 1))
    some = slice(start, data.draw(st.integers(start + 1, count * height)))
    first, last = conv_cuda.lines_that_saw(some, height, out_height, kernel, stride, padding)
    assert 0 <= first <= last <= count * out_height
    for n in range(count):
        for oy in range(out_height):
            seen = {n * height + y for y in range(oy * stride - padding, oy * stride - padding + kernel)
                    if 0 <= y < height}  # fmt: skip
            if seen & set(range(some.start, some.stop)):
                assert first <= n * out_height + oy < last


def refuse(*arguments):
    raise AssertionError("the CPU's kernel was called")


@pytest.fixture
def on_cuda(monkeypatch):
    """Arrays count as CUDA's, and the CPU's way may not be taken."""
    monkeypatch.setattr(conv, "device_of", lambda array: "cuda")
    for name in ("convolve", "input_gradient", "transpose_convolve", "kernel_gradient"):
        monkeypatch.setattr(conv_cpu, name, refuse)


@not_in_simulator
@pytest.mark.parametrize("algorithm", ["auto", "winograd", "patches", "pointwise"])
@pytest.mark.parametrize("parameters, arrays", cases("conv2d"))
def test_layers_go_this_way(parameters, arrays, algorithm, on_cuda):
    """Through Tensors and back; the stored values are torch's."""
    x, weight, bias = (Tensor(arrays[name], requires_grad=True) for name in ("x", "weight", "bias"))
    try:
        y = conv.conv2d(x, weight, bias, **parameters, algorithm=algorithm)
    except ValueError as error:
        assert "patches" in str(error) and algorithm in ("winograd", "pointwise")
        return
    y.backward(arrays["grad_y"])
    for got, name in ((y.data, "y"), (x.grad, "grad_x"), (weight.grad, "grad_weight"), (bias.grad, "grad_bias")):
        assert relative_error(got, arrays[name]) < (1e-4 if algorithm == "winograd" else 1e-5)


@not_in_simulator
@pytest.mark.parametrize("algorithm", ["winograd", "patches"])
def test_a_scale_goes_this_way(algorithm, on_cuda):
    """The same results and gradients as with weight * scale."""
    rng, results = np.random.default_rng(0), []
    arrays = [rng.standard_normal(shape) for shape in ((2, 9, 7, 3), (3, 3, 3, 4), (4,))]
    gradient = rng.standard_normal((2, 9, 7, 4))
    for inside in (True, False):
        x, weight, scale = (Tensor(array, requires_grad=True) for array in arrays)
        if inside:
            y = conv.conv2d(x, weight, padding=1, algorithm=algorithm, scale=scale)
        else:
            y = conv.conv2d(x, weight * scale, padding=1, algorithm=algorithm)
        y.backward(gradient)
        results.append((y.data, x.grad, weight.grad, scale.grad))
    for ours, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-9)


@not_in_simulator
@pytest.mark.parametrize("parameters, arrays", cases("conv_transpose2d"))
def test_transposed_layers_go_this_way(parameters, arrays, on_cuda):
    x, weight, bias = (Tensor(arrays[name], requires_grad=True) for name in ("x", "weight", "bias"))
    y = conv.conv_transpose2d(x, weight, bias, **parameters)
    y.backward(arrays["grad_y"])
    for got, name in ((y.data, "y"), (x.grad, "grad_x"), (weight.grad, "grad_weight"), (bias.grad, "grad_bias")):
        assert relative_error(got, arrays[name]) < 1e-5


@not_in_simulator
def test_more_places_than_32_bits_can_count():
    with pytest.raises(ValueError, match="1 maps of 65536x65536, wanted less than 2\\^32 places"):
        conv_cuda._gather(np.zeros((1, 2, 2, 3)), (3, 3, 3, 1), 1, 40000, 1, (2**16, 2**16), slice(0, 1))


@not_in_simulator
@given(st.sampled_from([1, 2]), st.integers(0, 1), st.integers(3, 7), st.integers(3, 7))
def test_direct_convolution_is_the_definition(stride, padding, height, width):
    x, weight = normal(np.float32, 2, height, width, 3), normal(np.float32, 3, 3, 3, 4, seed=1)
    wanted = reference.conv2d(x, weight, None, stride, padding)
    y = np.empty(wanted.shape, np.float32)
    direct_convolution(x, weight, stride, padding, y)
    assert relative_error(y, wanted) < 1e-5


@not_in_simulator
@pytest.mark.parametrize("name", ["matmul_simple", "matmul_tiled", "matmul_blocked"])
def test_matmul_is_the_product(name):
    a, b = normal(np.float32, 18, 19), normal(np.float32, 19, 17, seed=1)
    c = np.empty((18, 17), np.float32)
    getattr(matmul_tiled, name)(a, b, c)
    assert relative_error(c, a.astype(float) @ b) < 1e-6
