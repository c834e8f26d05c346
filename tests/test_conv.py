"""Convolution three ways: reference, stored values, gradients, adjoints, errors."""

from unittest.mock import patch

import numba
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minimrcnn import functional, reference
from minimrcnn.functional import conv_few
from minimrcnn.functional.conv import conv2d, conv_transpose2d, linear
from minimrcnn.functional.conv_shapes import choose_algorithm, count_tiles
from minimrcnn.kernels import convolution
from minimrcnn.tensor import Tensor, gradcheck
from tests.reference_cases import cases, relative_error


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@st.composite
def convolutions(draw):
    """Shapes as they come: odd sides, empty batches, kernels up to the padded map, all strides and groups."""
    kernel_height, kernel_width = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 1), (7, 7), (3, 3)]))
    padding, stride, groups = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    height = draw(st.integers(max(kernel_height - 2 * padding, 1), 11))
    width = draw(st.integers(max(kernel_width - 2 * padding, 1), draw(st.sampled_from([11, 40]))))  # wide: in lines
    count, inside, outside = draw(st.integers(0, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    x = normal(count, height, width, groups * inside, seed=1)
    weight = normal(kernel_height, kernel_width, inside, groups * outside, seed=2)
    return x, weight, {"stride": stride, "padding": padding, "groups": groups}


@given(convolutions())
def test_patches_are_the_definition(drawn):
    x, weight, options = drawn
    bias = normal(weight.shape[3], seed=3)
    y = conv2d(Tensor(x), Tensor(weight), Tensor(bias), **options, algorithm="patches")
    wanted = reference.conv2d(x, weight, bias, **options)
    np.testing.assert_allclose(y.data, wanted, atol=1e-10)


@given(st.integers(1, 3), st.integers(1, 17), st.integers(1, 17), st.integers(0, 2), st.sampled_from([1, 3, 65]))
def test_winograd_is_the_definition(count, height, width, padding, channels):
    if min(height, width) + 2 * padding < 3:
        return
    x, weight = normal(count, height, width, channels), normal(3, 3, channels, 3, seed=1)
    x.flat[0] = 100.0
    y = conv2d(Tensor(x), Tensor(weight), padding=padding, algorithm="winograd").data
    np.testing.assert_allclose(
        y, conv2d(Tensor(x), Tensor(weight), padding=padding, algorithm="patches").data, atol=1e-9
    )


@pytest.mark.parametrize(
    "width, kernel, padding, stride",
    [(45, 3, 20, 1), (45, 7, 3, 2), (82, 2, 0, 5), (50, 1, 2, 3), (45, 9, 4, 1), (60, 13, 6, 2), (3, 7, 10, 1)],
)
def test_few_channels_are_not_gathered(width, kernel, padding, stride, monkeypatch):
    """Lines of which nothing, the ends or all hang over the map; more of a patch than a product takes at a time."""
    x, weight, bias = normal(2, 5, width, 3), normal(kernel, kernel, 3, 70, seed=1), normal(70, seed=2)
    options = dict(padding=padding, stride=stride, algorithm="patches")
    flags, run = [], convolution.convolve_patches
    monkeypatch.setattr(convolution, "convolve_patches", lambda *given: (flags.append(given[9]), run(*given)))
    in_lines = conv2d(x, weight, bias, **options).data
    monkeypatch.setattr(functional.conv_cpu, "MOST_RUN", 0)
    gathered = conv2d(x, weight, bias, **options).data
    assert flags == [True, False]
    np.testing.assert_allclose(in_lines, gathered, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(in_lines, reference.conv2d(x, weight, bias, stride, padding), atol=1e-9)


def test_winograd_in_several_blocks():
    """More tiles than a block holds, forward and backward; the last block is not full."""
    results = []
    for algorithm in ("winograd", "patches"):
        x = Tensor(normal(1, 135, 138, 3), requires_grad=True)  # 34 x 35 tiles
        weight = Tensor(normal(3, 3, 3, 5, seed=1), requires_grad=True)
        y = conv2d(x, weight, padding=1, algorithm=algorithm)
        y.backward(normal(*y.shape, seed=2))
        results.append((y.data, x.grad, weight.grad))
    assert count_tiles(results[0][0].shape[:3]) > 1024
    for ours, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-8)


@pytest.mark.parametrize("algorithm", ["winograd", "patches"])
def test_epilogue(algorithm):
    """Bias, then residual, then ReLU; NaN stays NaN."""
    x, weight = normal(2, 9, 6, 3), normal(3, 3, 3, 4, seed=1)
    bias, residual = normal(4, seed=2), normal(2, 9, 6, 4, seed=3)
    x[1, 4, 3, 0] = np.nan
    y = conv2d(
        Tensor(x), Tensor(weight), Tensor(bias), padding=1, algorithm=algorithm, residual=Tensor(residual), relu=True
    )
    plain = conv2d(Tensor(x), Tensor(weight), padding=1, algorithm="patches").data
    wanted = np.maximum(plain + bias + residual, 0)
    seen = ~np.isnan(y.data)
    assert np.isnan(y.data[1, 4, 3]).all() and np.isfinite(y.data[0]).all()
    np.testing.assert_allclose(y.data[seen], wanted[seen], atol=1e-9)


@given(convolutions(), st.sampled_from(["auto", "winograd", "patches"]))
def test_scale_is_that_of_the_weight(drawn, algorithm):
    """The same results and gradients as with weight * scale."""
    x, weight, options = drawn
    if algorithm == "winograd" and (weight.shape[:2] != (3, 3) or options["stride"] * options["groups"] != 1):
        algorithm = "auto"
    scale, results = normal(weight.shape[3], seed=3), []
    for inside in (True, False):
        tensors = [Tensor(array, requires_grad=True) for array in (x, weight, scale)]
        if inside:
            y = conv2d(tensors[0], tensors[1], **options, algorithm=algorithm, scale=tensors[2])
        else:
            y = conv2d(tensors[0], tensors[1] * tensors[2], **options, algorithm=algorithm)
        y.backward(normal(*y.shape, seed=4))
        results.append([y.data, *(tensor.grad for tensor in tensors)])
    for ours, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-9)


@pytest.mark.parametrize("algorithm", ["auto", "winograd", "patches", "pointwise"])
@pytest.mark.parametrize("parameters, arrays", cases("conv2d"))
def test_stored_cases(parameters, arrays, algorithm):
    x, weight, bias = (Tensor(arrays[name], requires_grad=True) for name in ("x", "weight", "bias"))
    try:
        y = conv2d(x, weight, bias, **parameters, algorithm=algorithm)
    except ValueError as error:
        assert "patches" in str(error) and algorithm in ("winograd", "pointwise")
        return
    y.backward(arrays["grad_y"])
    bound = 1e-4 if algorithm == "winograd" else 1e-5
    assert relative_error(y.data, arrays["y"]) < bound
    assert relative_error(x.grad, arrays["grad_x"]) < bound
    assert relative_error(weight.grad, arrays["grad_weight"]) < bound
    assert relative_error(bias.grad, arrays["grad_bias"]) < bound


@pytest.mark.parametrize("parameters, arrays", cases("conv_transpose2d"))
def test_stored_transposed_cases(parameters, arrays):
    x, weight, bias = (Tensor(arrays[name], requires_grad=True) for name in ("x", "weight", "bias"))
    y = conv_transpose2d(x, weight, bias, **parameters)
    y.backward(arrays["grad_y"])
    for got, name in ((y.data, "y"), (x.grad, "grad_x"), (weight.grad, "grad_weight"), (bias.grad, "grad_bias")):
        assert relative_error(got, arrays[name]) < 1e-5


@given(
    st.integers(0, 2),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([(1, 1), (2, 2), (3, 2), (4, 3), (2, 3)]),
    st.integers(0, 2),
)
def test_transposed_convolution_is_the_definition(count, height, width, kernel_and_stride, padding):
    kernel, stride = kernel_and_stride
    assume(min(height, width) * stride - stride + kernel > 2 * padding)
    x, weight, bias = normal(count, height, width, 3), normal(kernel, kernel, 3, 2, seed=1), normal(2, seed=2)
    x, weight = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    y = conv_transpose2d(x, weight, Tensor(bias), stride, padding)
    whole = reference.conv_transpose2d(x.data, weight.data, bias, stride)
    wanted = whole[:, padding : whole.shape[1] - padding, padding : whole.shape[2] - padding]
    np.testing.assert_allclose(y.data, wanted, atol=1e-10)
    gradient = normal(*y.shape, seed=3)
    y.backward(gradient)
    inner = ((y.data - bias) * gradient).sum()  # <A x, g> = <x, A' g>, in the kernel as well
    np.testing.assert_allclose((x.data * x.grad).sum(), inner, atol=1e-9)
    np.testing.assert_allclose((weight.data * weight.grad).sum(), inner, atol=1e-9)


def test_a_gradient_of_another_type():
    """A loss against float64 numbers is float64; what goes back through float32 layers is not."""
    x, target = normal(2, 9, 10, 16).astype(np.float32), normal(2, 5, 5, 8, seed=5)
    layers = [normal(3, 3, 16, 16, seed=1), normal(1, 1, 16, 16, seed=2), normal(3, 3, 16, 8, seed=3)]
    gradients = []
    for kind in (np.float32, np.float64):
        weights = [Tensor(layer.astype(np.float32), requires_grad=True) for layer in layers]
        y = conv2d(Tensor(x), weights[0], padding=1)
        y = conv2d(conv2d(y, weights[1], relu=True), weights[2], stride=2, padding=1)
        ((y - Tensor(target.astype(kind))) ** 2.0).mean().backward()
        gradients.append([weight.grad for weight in weights])
    for got, wanted in zip(*gradients, strict=True):
        assert got.dtype == wanted.dtype == np.float32
        assert relative_error(wanted, got) < 1e-5


@given(convolutions())
def test_gradients_are_the_adjoint(drawn):
    """<A x, g> = <x, A' g>: in x for a fixed kernel, and in the kernel for a fixed x."""
    x, weight, options = drawn
    x, weight = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    y = conv2d(x, weight, **options)
    gradient = normal(*y.shape, seed=4)
    inner = (y.data * gradient).sum()
    y.backward(gradient)
    assert (x.grad * x.data).sum() == pytest.approx(inner, abs=1e-8)
    assert (weight.grad * weight.data).sum() == pytest.approx(inner, abs=1e-8)


@pytest.mark.parametrize(
    "shape, kernel, options",
    [
        ((2, 7, 9, 4), (3, 3, 4, 6), {"padding": 1, "algorithm": "winograd"}),
        ((1, 30, 40, 3), (3, 3, 3, 4), {"padding": 0, "algorithm": "winograd"}),
        ((2, 7, 9, 4), (3, 3, 2, 6), {"padding": 1, "stride": 2, "groups": 2}),
        ((2, 7, 9, 4), (1, 1, 4, 6), {}),
        ((1, 12, 11, 3), (7, 7, 3, 5), {"padding": 3, "stride": 2}),
    ],
)
def test_gradients_against_differences(shape, kernel, options):
    x, weight, bias = (
        Tensor(normal(*s, seed=n), requires_grad=True) for n, s in enumerate((shape, kernel, kernel[3:]))
    )
    gradcheck(lambda x, w, b: conv2d(x, w, b, **options), x, weight, bias, tolerance=1e-6)
    y = conv2d(x, weight, bias, **options)
    residual = Tensor(normal(*y.shape, seed=5), requires_grad=True)
    gradcheck(
        lambda x, w, b, r: conv2d(x, w, b, **options, residual=r, relu=True), x, weight, bias, residual, tolerance=1e-4
    )


@given(convolutions(), st.integers(0, 4), st.booleans())
def test_gradients_of_few_cells(drawn, count, is_scaled):
    x, weight, options = drawn
    scale = normal(weight.shape[3], seed=3) if is_scaled else None
    leaves = [Tensor(array, requires_grad=True) for array in (x, weight, np.zeros(weight.shape[3]))]
    y = conv2d(*leaves, **options, scale=scale)
    gradient = np.zeros(y.shape)
    rows = gradient.reshape(-1, y.shape[3])
    some = np.random.default_rng(4).permutation(len(rows))[:count]
    rows[some] = normal(len(some), y.shape[3], seed=5)
    with patch.object(conv_few, "FEW", 1), patch.object(conv_few, "MANY", 0):
        if x.size:
            np.testing.assert_array_equal(conv_few.find_few(gradient, x.shape), np.sort(some))
        y.backward(gradient)
    factor = 1 if scale is None else scale
    wanted = reference.conv2d_gradient(gradient, x, weight * factor, **options)
    for leaf, expected in zip(leaves, (wanted[0], wanted[1] * factor, wanted[2]), strict=True):
        np.testing.assert_allclose(leaf.grad, expected, atol=1e-10)


def test_few_cells_are_found():
    """None if they are not few, or the map is small; what is not a number is not 0."""
    gradient = np.zeros((1, 40, 40, 3), np.float32)
    gradient[0, 3, 5, 2], gradient[0, 39, 39, 0], gradient[0, 7, 7] = 1, np.nan, -0.0
    assert conv_few.find_few(gradient, gradient.shape).tolist() == [3 * 40 + 5, 1599]
    gradient[:] = 0
    gradient[0, :5] = 1
    np.testing.assert_array_equal(conv_few.find_few(gradient, gradient.shape), range(200))
    gradient[0, 5, 0] = 1
    assert conv_few.find_few(gradient, gradient.shape) is None
    assert conv_few.find_few(np.zeros((1, 5, 5, 3), np.float32), (1, 5, 5, 3)) is None


def test_cells_without_gradient_are_left_alone():
    """What they saw may be anything, even nothing at all."""
    x, weight = Tensor(normal(1, 40, 40, 3), requires_grad=True), Tensor(normal(3, 3, 3, 4, seed=1), requires_grad=True)
    x.data[0, 20, 20] = np.nan
    gradient = np.zeros((1, 40, 40, 4))
    gradient[0, 3, 5] = 1
    conv2d(x, weight, padding=1).backward(gradient)
    assert np.isfinite(weight.grad).all()
    np.testing.assert_allclose(weight.grad, np.repeat(x.data[0, 2:5, 4:7, :, None], 4, axis=3))
    empty = Tensor(np.zeros((1, 0, 1100, 3)), requires_grad=True)
    y = conv2d(empty, weight, padding=2)
    y.backward(np.where(np.arange(y.size).reshape(y.shape) == 0, 1.0, 0.0))
    assert empty.grad.shape == empty.shape


def test_transposed_gradients_against_differences():
    x, weight, bias = (
        Tensor(normal(*s, seed=n), requires_grad=True) for n, s in enumerate(((2, 3, 4, 3), (2, 2, 3, 2), (2,)))
    )
    gradcheck(lambda x, w, b: conv_transpose2d(x, w, b, relu=True), x, weight, bias, tolerance=1e-4)


@given(st.integers(0, 5), st.integers(1, 5), st.integers(1, 5))
def test_linear(rows, inside, outside):
    x, weight, bias = normal(rows, inside), normal(inside, outside, seed=1), normal(outside, seed=2)
    np.testing.assert_allclose(linear(Tensor(x), Tensor(weight), Tensor(bias)).data, x @ weight + bias, atol=1e-12)
    if rows:
        arguments = [Tensor(a, requires_grad=True) for a in (x, weight, bias)]
        gradcheck(linear, *arguments, tolerance=1e-6)


def test_the_same_bits_with_any_number_of_threads():
    x, weight = normal(2, 20, 20, 32, dtype=np.float32), normal(3, 3, 32, 32, seed=1, dtype=np.float32)
    threads = numba.get_num_threads()
    for algorithm in ("winograd", "patches"):
        found = []
        for number in (1, threads, threads):
            numba.set_num_threads(number)
            found.append(conv2d(Tensor(x), Tensor(weight), padding=1, algorithm=algorithm).data)
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])


def test_algorithms_and_errors():
    assert choose_algorithm("auto", (3, 3, 64, 64), 1, 1, 1, (50, 50)) == "winograd"
    assert choose_algorithm("auto", (3, 3, 64, 64), 2, 1, 1, (50, 50)) == "patches"
    x, weight = Tensor(np.ones((2, 8, 8, 3), np.float32)), Tensor(np.ones((3, 3, 4, 4), np.float32))
    with pytest.raises(
        ValueError, match=r"x has 3 channels, weight wants 4 \(x \(2, 8, 8, 3\), weight \(3, 3, 4, 4\)\)"
    ):
        conv2d(x, weight)
    good = Tensor(np.ones((3, 3, 3, 4), np.float32))
    for options, message in (
        ({"groups": 2}, "do not fall into 2 groups"),
        ({"stride": 0}, "stride 0"),
        ({"padding": -1}, "padding -1"),
        ({"algorithm": "fft"}, "wanted one of auto"),
        ({"algorithm": "winograd", "stride": 2}, "cannot do a 3x3 kernel with stride 2"),
        ({"bias": Tensor(np.ones(3, np.float32))}, r"bias has shape \(3,\), wanted \(4,\)"),
        ({"bias": Tensor(np.ones(4, np.float64))}, "bias is float64, x is float32"),
        ({"residual": Tensor(np.ones((2, 8, 8, 4), np.float32))}, r"residual has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            conv2d(x, good, **options)
    with pytest.raises(ValueError, match="smaller than the kernel"):
        conv2d(Tensor(np.ones((1, 2, 2, 3), np.float32)), good)
    with pytest.raises(ValueError, match=r"wanted \(N, H, W, Cin\)"):
        conv2d(Tensor(np.ones((2, 8, 3), np.float32)), good)
    with pytest.raises(ValueError, match="conv_transpose2d"):
        conv_transpose2d(x, weight)
    with pytest.raises(ValueError, match="linear"):
        functional.linear(x, weight)


@pytest.mark.parametrize("algorithm", ["winograd", "patches"])
def test_no_pictures(algorithm):
    x, weight = (Tensor(normal(*shape), requires_grad=True) for shape in ((0, 6, 6, 3), (3, 3, 3, 4)))
    y = conv2d(x, weight, padding=1, algorithm=algorithm)
    y.backward(np.zeros(y.shape))
    assert y.shape == (0, 6, 6, 4) and x.grad.shape == x.shape and (weight.grad == 0).all()
