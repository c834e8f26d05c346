"""Convolution, transposed convolution and the fully connected layer: all three are the products of
`kernels.convolution`.

Three ways lead to the same numbers; ``algorithm`` picks one, "auto" the one measured fastest:

- "pointwise": a 1x1 kernel with stride 1 is one matrix product;
- "winograd": a 3x3 kernel with stride 1 needs a quarter of the multiplications (`kernels.winograd`);
- "patches": anything, by blocks of patches, gathered or, where few channels are seen, in place (`kernels.convolution`);
  narrow groups go without patches (`kernels.grouped_convolution`, on a GPU `kernels.narrow_groups`).

This file checks arguments, and records what the way back needs. The work on arrays is done by `functional.conv_cpu`, a
small block at a time, from end to end, and by `functional.conv_cuda`, every step for the whole map; gradients that are
0 nearly everywhere are picked out by `functional.conv_few`.
"""

from __future__ import annotations

import math

from minimrcnn.device import device_of, empty_beside, module_of
from minimrcnn.functional import conv_cpu, conv_cuda
from minimrcnn.functional.conv_few import find_few, find_places, gather_few, scatter_few
from minimrcnn.functional.conv_shapes import output_size, transposed_size
from minimrcnn.kernels import elementwise
from minimrcnn.tensor import Function, Tensor, tensors


def conv2d(
    x, weight, bias=None, stride=1, padding=0, groups=1, algorithm="auto", residual=None, relu=False, scale=None
) -> Tensor:
    """Two-dimensional convolution, with what usually follows it done while the result is in cache.

    Parameters
    ----------
    x : Tensor (N, H, W, Cin)
    weight : Tensor (KH, KW, Cin / groups, Cout)
    bias : Tensor (Cout,), optional
    stride, padding : int
        Pixels, the same on both axes; padding is of zeros.
    groups : int
        Input and output channels fall into so many groups that do not see each other (ResNeXt).
    algorithm : {"auto", "pointwise", "winograd", "patches"}
        See this module.
    residual : Tensor (N, OH, OW, Cout), optional
        Added to the result.
    relu : bool
        Negative results become 0, last of all.
    scale : Tensor (Cout,), optional
        Factors of the output's channels, before the bias: of a normalization that is a scale and a shift. On a CPU the
        weight is multiplied by them on its way into the cache, where it goes in any case (one in groups, as a copy).

    Returns
    -------
    Tensor (N, OH, OW, Cout)
        OH = (H + 2 padding - KH) // stride + 1, and OW alike.

    Raises
    ------
    ValueError
        Shapes, types or an algorithm that do not fit together.

    References
    ----------
    Lavin and Gray 2016, Fast Algorithms for Convolutional Neural Networks, section 4.3.
    """
    x, weight, bias, residual, scale = tensors(x, weight, bias, residual, scale)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            f"conv2d: x {x.shape} and weight {weight.shape}, wanted (N, H, W, Cin) and (KH, KW, Cin, Cout)"
        )
    kernel_height, kernel_width, group_in, channels = weight.shape
    if min(weight.shape) < 1:
        raise ValueError(f"conv2d: weight has shape {weight.shape}, wanted at least 1 on every axis")
    if groups < 1 or channels % groups or x.shape[3] % groups:
        raise ValueError(f"conv2d: {x.shape[3]} and {channels} channels do not fall into {groups} groups")
    if x.shape[3] != group_in * groups:
        raise ValueError(
            f"conv2d: x has {x.shape[3]} channels, weight wants {group_in * groups} "
            f"(x {x.shape}, weight {weight.shape})"
        )
    if stride < 1 or padding < 0:
        raise ValueError(f"conv2d: stride {stride} and padding {padding}, wanted at least 1 and 0")
    size = output_size(x.shape[1:3], (kernel_height, kernel_width), stride, padding)
    if min(size) < 1:
        raise ValueError(
            f"conv2d: a map of {x.shape[1]}x{x.shape[2]} with padding {padding} is smaller than the kernel"
        )
    _check_like("conv2d", x, weight=(weight, None), bias=(bias, (channels,)), scale=(scale, (channels,)),
                residual=(residual, (x.shape[0], *size, channels)))  # fmt: skip
    return Convolution.apply(
        x, weight, bias, residual, scale, stride=stride, padding=padding, groups=groups, algorithm=algorithm, relu=relu
    )


def linear(x, weight, bias=None, relu=False) -> Tensor:
    """Fully connected layer, x (R, I) @ weight (I, O) + bias (O,), then ReLU if asked: a convolution of 1x1 maps."""
    x, weight, bias = tensors(x, weight, bias)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise ValueError(f"linear: x {x.shape} and weight {weight.shape}, wanted (R, I) and (I, O)")
    _check_like("linear", x, weight=(weight, None), bias=(bias, weight.shape[1:]))
    rows = x.reshape(len(x), 1, 1, x.shape[1])
    result = conv2d(rows, weight.reshape(1, 1, *weight.shape), bias, relu=relu)
    return result.reshape(len(x), weight.shape[1])


def conv_transpose2d(x, weight, bias=None, stride=2, padding=0, relu=False) -> Tensor:
    """Transposed convolution ("deconvolution"): every input pixel stamps the kernel, ``stride`` pixels apart, and
    stamps add up.

    Parameters
    ----------
    x : Tensor (N, H, W, Cin)
    weight : Tensor (KH, KW, Cin, Cout)
    bias : Tensor (Cout,), optional
    stride, padding : int
        ``padding`` pixels are cut off every side of the result.
    relu : bool

    Returns
    -------
    Tensor (N, (H - 1) stride + KH - 2 padding, (W - 1) stride + KW - 2 padding, Cout)

    Raises
    ------
    ValueError
        Shapes or types that do not fit together.
    """
    x, weight, bias = tensors(x, weight, bias)
    if x.ndim != 4 or weight.ndim != 4 or x.shape[3] != weight.shape[2]:
        raise ValueError(
            f"conv_transpose2d: x {x.shape} and weight {weight.shape}, wanted (N, H, W, Cin) and (KH, KW, Cin, Cout)"
        )
    if min(weight.shape) < 1:
        raise ValueError(f"conv_transpose2d: weight has shape {weight.shape}, wanted at least 1 on every axis")
    if stride < 1 or padding < 0:
        raise ValueError(f"conv_transpose2d: stride {stride} and padding {padding}, wanted at least 1 and 0")
    _check_like("conv_transpose2d", x, weight=(weight, None), bias=(bias, weight.shape[3:]))
    if min(transposed_size(x.shape[1:3], weight.shape[:2], stride, padding)) < 1:
        raise ValueError(f"conv_transpose2d: padding {padding} leaves nothing of a map of {x.shape[1]}x{x.shape[2]}")
    return TransposedConvolution.apply(x, weight, bias, stride=stride, padding=padding, relu=relu)


def _check_like(function, x, **others):
    for name, (other, shape) in others.items():
        if other is None:
            continue
        if other.dtype != x.dtype:
            raise ValueError(f"{function}: {name} is {other.dtype}, x is {x.dtype}; wanted the same")
        if shape is not None and other.shape != shape:
            raise ValueError(f"{function}: {name} has shape {other.shape}, wanted {shape}")


class Convolution(Function):
    def forward(self, x, weight, bias, residual, scale, stride, padding, groups, algorithm, relu):
        self.x = x if self.needs[1] or self.needs[4] else None
        self.weight = weight if self.needs[0] or self.needs[4] else None
        self.scale = scale
        self.shapes = x.shape, weight.shape
        self.options = stride, padding, groups, algorithm
        y = convolver_of(x).convolve(x, weight, bias, residual, stride, padding, groups, algorithm, relu, scale)
        self.y = y if relu else None
        return y

    def backward(self, gradient):
        if self.y is not None:
            gradient = relu_gradient(gradient, self.y)
        gradient = _contiguous(gradient)  # (N, OH, OW, Cout)
        residual_gradient = gradient if self.needs[3] else None
        x_shape, weight_shape = self.shapes
        stride, padding, groups, _ = self.options
        few = find_few(gradient, x_shape) if groups == 1 and device_of(gradient) == "cpu" else None
        if few is None:
            parts = self.multiply_back(self.x, self.weight, gradient, x_shape, weight_shape, *self.options)
            return *parts[:3], residual_gradient, parts[3]
        # As if there were R maps of one cell each. With groups, a patch would have to be cut up by them.
        places = find_places(few, x_shape, gradient.shape[1:3], weight_shape[:2], stride, padding)
        channels, inner = weight_shape[3], math.prod(weight_shape[:3])
        parts = self.multiply_back(
            None if self.x is None else gather_few(self.x, *places),
            None if self.weight is None else self.weight.reshape(1, 1, inner, channels),
            gradient.reshape(-1, 1, 1, channels)[few],
            (len(few), 1, 1, inner), (1, 1, inner, channels), 1, 0, 1, "auto",
        )  # fmt: skip
        x_gradient, weight_gradient, bias_gradient, scale_gradient = parts
        if self.needs[0]:
            x_gradient = scatter_few(x_gradient, *places, x_shape)
        if self.needs[1]:
            weight_gradient = weight_gradient.reshape(weight_shape)
        return x_gradient, weight_gradient, bias_gradient, residual_gradient, scale_gradient

    def multiply_back(self, x, weight, gradient, x_shape, weight_shape, stride, padding, groups, algorithm):
        """The gradients of x, weight, bias and scale, None where none is needed."""
        x_gradient = weight_gradient = bias_gradient = scale_gradient = None
        if self.needs[0]:
            x_gradient = convolver_of(gradient).input_gradient(
                gradient, weight, x_shape, stride, padding, groups, algorithm, self.scale
            )
        if self.needs[1] or self.needs[4]:
            of_product = convolver_of(x).kernel_gradient(x, gradient, weight_shape, stride, padding, groups, algorithm)
            if self.needs[4]:
                scale_gradient = (of_product * weight).sum(axis=(0, 1, 2))
            if self.needs[1]:
                weight_gradient = of_product
                if self.scale is not None:
                    weight_gradient *= self.scale
        if self.needs[2]:
            bias_gradient = sum_positions(gradient)
        return x_gradient, weight_gradient, bias_gradient, scale_gradient


class TransposedConvolution(Function):
    """The gradient of a convolution run forwards: what is the input there is the output here."""

    def forward(self, x, weight, bias, stride, padding, relu):
        self.x = x if self.needs[1] else None
        self.weight = weight if self.needs[0] else None
        self.weight_shape, self.options = weight.shape, (stride, padding)
        size = transposed_size(x.shape[1:3], weight.shape[:2], stride, padding)
        shape = x.shape[0], *size, weight.shape[3]
        turned = weight.swapaxes(2, 3)  # (KH, KW, Cout, Cin)
        y = convolver_of(x).transpose_convolve(x, turned, bias, shape, stride, padding, 1, relu)
        self.y = y if relu else None
        return y

    def backward(self, gradient):
        stride, padding = self.options
        if self.y is not None:
            gradient = relu_gradient(gradient, self.y)
        gradient = _contiguous(gradient)
        kernel_height, kernel_width, channels_in, channels_out = self.weight_shape
        x_gradient = weight_gradient = None
        if self.needs[0]:
            turned = self.weight.swapaxes(2, 3)  # (KH, KW, Cout, Cin)
            x_gradient = convolver_of(gradient).convolve(
                gradient, turned, None, None, stride, padding, 1, "auto", relu=False
            )
        if self.needs[1]:
            shape = kernel_height, kernel_width, channels_out, channels_in
            of_turned = convolver_of(gradient).kernel_gradient(gradient, self.x, shape, stride, padding, 1, "auto")
            weight_gradient = of_turned.swapaxes(2, 3)
        return x_gradient, weight_gradient, sum_positions(gradient) if self.needs[2] else None


def convolver_of(array):
    """Who convolves it: `conv_cuda` what is on a GPU, `conv_cpu` all else."""
    return conv_cuda if device_of(array) == "cuda" else conv_cpu


def _contiguous(array):
    return module_of(array).ascontiguousarray(array)


def sum_positions(gradient):
    """(Cout,) the sum of gradient (N, OH, OW, Cout), which is the bias's.

    In two steps: NumPy adds long rows faster than short ones, and there are fewer terms to round. With 40 crops of
    14x14x64 this took 0.14 instead of 0.37 ms, with a fifth of the error.
    """
    return gradient.sum(axis=(0, 1)).sum(axis=0)


def relu_gradient(gradient, y):
    """The gradient where ReLU's result y is positive, 0 elsewhere."""
    gradient, result = _contiguous(gradient), empty_beside(y.shape, y)
    elementwise.relu_gradient(gradient.reshape(-1), y.reshape(-1), result.reshape(-1))
    return result
