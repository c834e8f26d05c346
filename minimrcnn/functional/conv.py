"""Convolution, transposed convolution and the fully connected layer: all three are the products of
`kernels.convolution`.

Three ways lead to the same numbers; ``algorithm`` picks one, "auto" the one measured fastest:

- "pointwise": a 1x1 kernel with stride 1 is one matrix product;
- "winograd": a 3x3 kernel with stride 1 needs a quarter of the multiplications (`kernels.winograd`);
- "patches": anything, by blocks of patches, gathered or, where few channels are seen, in place (`kernels.convolution`).

Here is what a CPU does. `functional.conv_cuda` does the same on a GPU, where each step is a kernel of its own.
"""

from __future__ import annotations

import math

import numba

from minimrcnn.device import device_of, empty_beside, module_of, workspace
from minimrcnn.functional import conv_cuda
from minimrcnn.functional.conv_few import find_few, find_places, gather_few, scatter_few
from minimrcnn.functional.conv_shapes import choose_algorithm, count_tiles, output_size, transposed_size
from minimrcnn.kernels import convolution, elementwise, winograd
from minimrcnn.kernels.product import pack_weight, panels_shape
from minimrcnn.tensor import Function, Tensor, tensors

CACHE = 2**19  # bytes a thread keeps warm: half of a common second-level cache
MOST_RUN, LINE = 64, range(16, 4097)  # numbers a row of the kernel sees, and outputs in a line, for patches in place
APART, TILES_APART = 128, 36  # Winograd: up to so many channels a thread takes blocks of so many tiles all the way


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
        weight is multiplied by them on its way into the cache, where it goes in any case.

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
    x, weight = tensors(x, weight)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[0]:
        raise ValueError(f"linear: x {x.shape} and weight {weight.shape}, wanted (R, I) and (I, O)")
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
        y = convolve(x, weight, bias, residual, stride, padding, groups, algorithm, relu, scale)
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
            x_gradient = input_gradient(gradient, weight, x_shape, stride, padding, groups, algorithm, self.scale)
        if self.needs[1] or self.needs[4]:
            of_product = kernel_gradient(x, gradient, weight_shape, stride, padding, groups, algorithm)
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
        y = transpose_convolve(
            x, weight.swapaxes(2, 3), bias, (x.shape[0], *size, weight.shape[3]), stride, padding, 1, relu
        )
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
            x_gradient = convolve(gradient, turned, None, None, stride, padding, 1, "auto", False)
        if self.needs[1]:
            shape = kernel_height, kernel_width, channels_out, channels_in
            weight_gradient = kernel_gradient(gradient, self.x, shape, stride, padding, 1, "auto").swapaxes(2, 3)
        return x_gradient, weight_gradient, sum_positions(gradient) if self.needs[2] else None


def convolve(x, weight, bias, residual, stride, padding, groups, algorithm, relu, scale=None):
    """The forward pass on arrays: y (N, OH, OW, Cout)."""
    if device_of(x) == "cuda":
        weight = _scaled(weight, scale)
        return conv_cuda.convolve(x, weight, bias, residual, stride, padding, groups, algorithm, relu)
    xp = module_of(x)
    x, weight = _contiguous(x), _contiguous(weight)
    kernel_size = weight.shape[:2]
    size = output_size(x.shape[1:3], kernel_size, stride, padding)
    channels = weight.shape[3]
    y = empty_beside((x.shape[0], *size, channels), x)  # (N, OH, OW, Cout)
    bias = xp.empty(0, x.dtype) if bias is None else _contiguous(bias)
    residual = xp.empty((0, 0, 0, 0), x.dtype) if residual is None else _contiguous(residual)
    if choose_algorithm(algorithm, weight.shape, stride, groups, x.shape[0], size) == "winograd":
        _winograd(x, _winograd_kernel(weight, scale, turned=False), bias, residual, relu, padding, y)
        return y
    weight, groups = merge_groups(weight, groups)
    rows, inner = y.size // channels, math.prod(weight.shape[:3])
    threads = numba.get_num_threads()
    is_pointwise = kernel_size == (1, 1) and stride == 1 and padding == 0 and groups == 1
    in_lines = not is_pointwise and groups == 1 and kernel_size[1] * x.shape[3] <= MOST_RUN and size[1] in LINE
    block = size[1] if in_lines else block_rows(rows, inner + channels, threads, x.itemsize)
    patches = workspace("patches", (threads, block, 0 if is_pointwise else inner), x.dtype)
    panels = _panels(weight.reshape(1, inner, channels), scale, groups, turned=False)[:, 0]
    convolution.convolve_patches(x, panels, bias, residual.reshape(-1, channels), relu, kernel_size, stride, padding,
                                 size, in_lines, patches, y.reshape(rows, channels))  # fmt: skip
    return y


def input_gradient(y_gradient, weight, x_shape, stride, padding, groups, algorithm, scale=None):
    """What must flow back into x (N, H, W, Cin)."""
    if device_of(y_gradient) == "cuda":
        weight = _scaled(weight, scale)
        return conv_cuda.input_gradient(y_gradient, weight, x_shape, stride, padding, groups, algorithm)
    kernel_height, kernel_width = weight.shape[:2]
    fits = kernel_height == kernel_width and padding < kernel_height
    if fits and choose_algorithm(algorithm, weight.shape, stride, groups, x_shape[0], x_shape[1:3]) == "winograd":
        xp = module_of(y_gradient)
        x_gradient = empty_beside(x_shape, y_gradient)
        none = xp.empty(0, y_gradient.dtype)
        transformed = _winograd_kernel(weight, scale, turned=True)
        _winograd(y_gradient, transformed, none, none.reshape(0, 0, 0, 0), False, 2 - padding, x_gradient)
        return x_gradient
    if fits and stride == 1 and groups > 1:
        turned = turn_kernel(_scaled(weight, scale), groups)
        return convolve(y_gradient, turned, None, None, 1, kernel_height - 1 - padding, groups, algorithm, False)
    return transpose_convolve(y_gradient, weight, None, x_shape, stride, padding, groups, False, scale)


def transpose_convolve(y_gradient, weight, bias, x_shape, stride, padding, groups, relu, scale=None):
    """Every y stamps the kernel (KH, KW, Cin, Cout) into x; bias and ReLU for the transposed convolution."""
    if device_of(y_gradient) == "cuda":
        return conv_cuda.transpose_convolve(y_gradient, weight, bias, x_shape, stride, padding, groups, relu)
    xp = module_of(y_gradient)
    y_gradient = _contiguous(y_gradient)
    x_gradient = empty_beside(x_shape, y_gradient)
    bias = xp.empty(0, y_gradient.dtype) if bias is None else _contiguous(bias)
    kernel_height, kernel_width, group_in, channels = weight.shape
    group_out = channels // groups
    taps, dtype, threads = kernel_height * kernel_width, y_gradient.dtype, numba.get_num_threads()
    panels = _panels(weight.reshape(taps, group_in, channels), scale, groups, turned=True)
    rows = x_shape[0] * -(-x_shape[1] // stride) * -(-x_shape[2] // stride)
    block = block_rows(rows * stride * stride, group_out + group_in, threads, dtype.itemsize)
    convolution.convolve_input_gradient(
        y_gradient, panels, bias, relu, (kernel_height, kernel_width), stride,
        padding, workspace("patches", (threads, block, group_out), dtype),
        workspace("sums", (threads, block, group_in), dtype), x_gradient)  # fmt: skip
    return x_gradient


def kernel_gradient(x, y_gradient, weight_shape, stride, padding, groups, algorithm):
    """The gradient of the weight (KH, KW, Cin / groups, Cout)."""
    if device_of(x) == "cuda":
        return conv_cuda.kernel_gradient(x, y_gradient, weight_shape, stride, padding, groups, algorithm)
    together = count_together(weight_shape, groups)
    if together > 1:
        kernel_height, kernel_width, group_in, channels = weight_shape
        merged = kernel_height, kernel_width, together * group_in, channels
        gradient = kernel_gradient(x, y_gradient, merged, stride, padding, groups // together, algorithm)
        blocks = gradient.reshape(kernel_height, kernel_width, together, group_in, groups // together, together, -1)
        own = blocks.diagonal(axis1=2, axis2=5)  # (KH, KW, Cin / groups, groups / together, Cout / groups, together)
        return _contiguous(own.swapaxes(4, 5).reshape(weight_shape))
    xp = module_of(x)
    x, y_gradient = _contiguous(x), _contiguous(y_gradient)
    kernel_height, kernel_width, group_in, channels = weight_shape
    taps, group_out = kernel_height * kernel_width, channels // groups
    threads, dtype = numba.get_num_threads(), x.dtype
    count, *size = y_gradient.shape[:3]
    if choose_algorithm(algorithm, weight_shape, stride, groups, count, size) == "winograd":
        tiles = count_tiles(y_gradient.shape[:3])
        if tiles == 0:
            return xp.zeros(weight_shape, dtype)
        block = tile_block(tiles, max(128, min(2 * max(group_in, channels), 512)))
        weight_gradient = empty_beside(weight_shape, x)
        winograd.winograd_weight_gradient(
            x, y_gradient, padding,
            workspace("inputs", (block, winograd.STEP, group_in), dtype),
            workspace("outputs", (block, winograd.STEP, channels), dtype),
            workspace("rows", (threads, block, group_in), dtype),
            workspace("panels", (threads, *panels_shape(block, channels, dtype.itemsize)), dtype),
            workspace("sums", (winograd.COMPONENTS, group_in, channels), dtype),
            _squares(threads, max(group_in, channels), dtype),
            weight_gradient.reshape(9, group_in * channels))  # fmt: skip
        return weight_gradient
    inner = taps * group_in
    taps_per_piece = max(1, min(taps, 256 // group_in))
    channels_per_piece = group_in if taps_per_piece > 1 else min(group_in, 256)
    rows = y_gradient.size // channels
    splits = threads if rows >= 512 * threads else 1
    piece = taps_per_piece * channels_per_piece
    block = block_rows(rows, piece + group_out, splits, x.itemsize)
    weight_gradient = empty_beside((groups, inner, group_out), x)
    shape = splits, groups * inner, group_out
    sums = workspace("sums", shape, dtype) if splits > 1 else weight_gradient.reshape(shape)
    convolution.convolve_weight_gradient(
        x, y_gradient, (kernel_height, kernel_width), stride, padding, taps_per_piece, channels_per_piece,
        workspace("patches", (threads, block * piece), dtype),
        workspace("panels", (threads, *panels_shape(block, group_out, dtype.itemsize)), dtype), sums, weight_gradient,
    )  # fmt: skip
    if groups == 1:
        return weight_gradient.reshape(weight_shape)
    return _contiguous(weight_gradient.transpose(1, 0, 2).reshape(weight_shape))


def count_together(weight_shape, groups) -> int:
    """How many groups are worth computing as one: up to 32 channels of a narrow group fill a product.

    Products with zeros are wasted, but 8 channels are gathered and multiplied no faster than 32: ResNeXt's 3x3
    convolutions took a sixth of the time.
    """
    narrow = max(weight_shape[2], weight_shape[3] // groups)
    return max(k for k in range(1, groups + 1) if groups % k == 0 and (k == 1 or k * narrow <= 32))


def merge_groups(weight, groups):
    """(weight, groups) of the same convolution with fewer groups: zeros where channels do not see each other.

    What is not finite in one group is so no longer kept from its neighbors (0 times infinity is no number).
    """
    together = count_together(weight.shape, groups)
    if together == 1:
        return weight, groups
    kernel_height, kernel_width, group_in, channels = weight.shape
    shape = kernel_height, kernel_width, group_in, groups // together, together, channels // groups
    own = weight.reshape(shape)
    merged = module_of(weight).zeros((*shape[:2], together, *shape[2:]), weight.dtype)
    for k in range(together):
        merged[:, :, k, :, :, k] = own[:, :, :, :, k]
    return merged.reshape(kernel_height, kernel_width, together * group_in, channels), groups // together


def turn_kernel(weight, groups):
    """The kernel (KH, KW, Cout / groups, Cin) that carries the gradient of (KH, KW, Cin / groups, Cout) back."""
    kernel_height, kernel_width, group_in, channels = weight.shape
    turned = weight[::-1, ::-1].reshape(kernel_height, kernel_width, group_in, groups, channels // groups)
    return turned.transpose(0, 1, 4, 3, 2).reshape(kernel_height, kernel_width, channels // groups, groups * group_in)


def block_rows(rows: int, columns: int, threads: int, itemsize: int) -> int:
    """Rows of a block: even shares for the threads, cut up evenly until what a block reads and writes stays in cache.

    ``columns`` numbers are touched for each row. Not less than 192 rows, as a product reads all of the kernel once for
    each 192.
    """
    fitting = min(max(CACHE // (columns * itemsize), 192), 1024)
    share = max(1, -(-rows // threads))
    return max(1, min(rows, max(32, -(-share // -(-share // fitting)))))


def tile_block(tiles: int, most: int = 1024) -> int:
    """Tiles of a block in Winograd's scratch: even shares (1024 of 256 channels take 77 MB)."""
    return -(-tiles // -(-tiles // most)) if tiles else 1


def _winograd_kernel(weight, scale, turned):
    """The transformed kernel (36, P, Cin, width); turned by half a turn, and (36, P, Cout, width)."""
    panels = _panels(weight.reshape(9, *weight.shape[2:]), scale, 1, turned)[0]
    transformed = workspace("transformed", (winograd.COMPONENTS, panels[0].size), weight.dtype)
    winograd.winograd_kernel(panels.reshape(9, -1), turned, transformed)
    return transformed.reshape(winograd.COMPONENTS, *panels.shape[1:])


def _winograd(x, transformed, bias, residual, relu, padding, output):
    """y from x and the transformed kernel, by even blocks of tiles."""
    tiles, threads, most = count_tiles(output.shape[:3]), numba.get_num_threads(), max(x.shape[3], output.shape[3])
    apart = most <= APART and tiles >= threads * TILES_APART
    block = tile_block(tiles, TILES_APART if apart else 1024)
    shape = (threads, block, winograd.STEP) if apart else (block, winograd.STEP)
    run = winograd.winograd_apart if apart else winograd.winograd
    run(x, transformed, bias, residual.reshape(-1, output.shape[3]), relu, padding,
        workspace("inputs", (*shape, x.shape[3]), x.dtype), workspace("outputs", (*shape, output.shape[3]), x.dtype),
        _squares(threads, most, x.dtype), output)  # fmt: skip


def _squares(threads, channels, dtype):
    return workspace("squares", (threads, winograd.PATCH, winograd.PATCH, channels), dtype)


def _scaled(weight, scale):
    """A copy of the weight times the scale, where it does not go through panels; the weight itself without a scale."""
    return weight if scale is None else weight * scale


def _panels(weight, scale, groups, turned):
    """Panels (groups, T, P, K, width) of weight (T, I, O) * scale (O,); of the transposed matrices if ``turned``."""
    taps, inner, columns = weight.shape[0], weight.shape[1], weight.shape[2] // groups
    shape = panels_shape(columns, inner, weight.itemsize) if turned else panels_shape(inner, columns, weight.itemsize)
    panels = workspace("weight panels", (groups, taps, *shape), weight.dtype)
    scale = module_of(weight).empty(0, weight.dtype) if scale is None else _contiguous(scale)
    pack_weight(_contiguous(weight), scale, turned, panels)
    return panels


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
