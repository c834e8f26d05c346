"""Convolution on a GPU: gather or transform, multiply, finish. Each step is a launch over a whole map.

A GPU has thousands of threads and a library, cuBLAS, that multiplies matrices close to its peak; what it has not is a
cache for each thread. So where a CPU does a small block from end to end (`functional.conv_cpu`), a GPU does every step
for all of the map, and what passes from one step to the next goes through memory:

    patches     patches = gather_patches(x)              y = patches @ kernel                  epilogue(y)
    winograd    V = transform_input(x)                   M = V @ transform_kernel(weight)      y = transform_output(M)
    pointwise   nothing: x is its own patch matrix       y = x @ kernel                        epilogue(y)
    narrow      groups of few channels: all of it in one kernel, y = convolve_narrow_groups(x, weight, bias, ..)

    gradient of x        patches = dy @ kernel'          scatter_patches(patches)           or these, kernel turned
    gradient of weight   patches = gather_patches(x)     patches' @ dy                      or winograd, backwards

Bias, residual and ReLU are done in the last step of each row (`kernels.epilogue`), or in `transform_output`. Products
are float32 all through: CuPy uses TensorFloat-32, with its mantissa of ten bits, only if CUPY_TF32=1 asks for it.

Everything is written with the array module of its input and with twins, so it runs on NumPy arrays as well: that is how
it is tested where there is no GPU. No layer on a CPU goes this way.

Shapes: x (N, H, W, Cin), weight (KH, KW, Cin / groups, Cout), y (N, OH, OW, Cout), K = KH * KW * Cin / groups,
R = N * OH * OW rows of the patch matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from minimrcnn.device import module_of
from minimrcnn.functional.conv_shapes import choose_algorithm, count_tiles, output_size, scaled, turn_kernel
from minimrcnn.kernels.epilogue import epilogue
from minimrcnn.kernels.narrow_groups import convolve_narrow_groups, is_narrow
from minimrcnn.kernels.patches import gather_patches, scatter_patches
from minimrcnn.kernels.twin import COUNTABLE
from minimrcnn.kernels.winograd import COMPONENTS, TILE
from minimrcnn.kernels.winograd_transforms import (
    winograd_transform_gradient,
    winograd_transform_input,
    winograd_transform_kernel,
    winograd_transform_kernel_back,
    winograd_transform_output,
)

# Bytes of patches, or of Winograd's components, that exist at a time; larger maps are done in blocks. A quarter of a
# gigabyte: one block for nearly every layer of a ResNet-50 at 800x1088, and little beside what a training keeps.
SCRATCH = 2**28


def convolve(x, weight, bias, residual, stride, padding, groups, algorithm, relu, scale=None):
    """The forward pass: y (N, OH, OW, Cout)."""
    xp = module_of(x)
    x, weight = xp.ascontiguousarray(x), xp.ascontiguousarray(scaled(weight, scale))
    size, channels = output_size(x.shape[1:3], weight.shape[:2], stride, padding), weight.shape[3]
    y = xp.empty((len(x), *size, channels), x.dtype)
    bias = xp.empty(0, x.dtype) if bias is None else xp.ascontiguousarray(bias)
    residual = xp.empty((0, 0, 0, 0), x.dtype) if residual is None else xp.ascontiguousarray(residual)
    if choose_algorithm(algorithm, weight.shape, stride, groups, len(x), size) == "winograd":
        _winograd(x, weight, False, bias, residual, relu, padding, y)
        return y
    if groups > 1 and is_narrow(weight.shape[2], channels // groups):
        convolve_narrow_groups(x, weight, bias, residual, relu, stride, padding, y)
        return y
    kernel = _as_matrices(weight, groups)  # (groups, K, Cout / groups)
    y_rows, residual_rows = y.reshape(-1, channels), residual.reshape(-1, channels)  # (R, Cout)
    is_direct = groups == 1  # a single product can go where it belongs
    row_bytes = _row_bytes(x, weight.shape, stride, padding, groups) + (0 if is_direct else channels * x.itemsize)
    for some in blocks(len(y_rows), row_bytes):
        rows = y_rows[some]
        patches = _gather(x, weight.shape, stride, padding, groups, size, some)  # (groups, rows, K)
        product = rows[None] if is_direct else xp.empty((groups, len(rows), channels // groups), x.dtype)
        multiply(patches, kernel, product)
        if not is_direct or bias.size or residual.size or relu:
            epilogue(product, bias, residual_rows[some], relu, rows)
        del patches, product  # before the next block makes its own
    return y


def input_gradient(y_gradient, weight, x_shape, stride, padding, groups, algorithm, scale=None):
    """What must flow back into x (N, H, W, Cin)."""
    xp, weight = module_of(y_gradient), scaled(weight, scale)
    fits = weight.shape[0] == weight.shape[1] and padding < len(weight)
    if fits and stride == 1 and groups > 1 and is_narrow(weight.shape[3] // groups, weight.shape[2]):
        turned = turn_kernel(weight, groups)
        return convolve(y_gradient, turned, None, None, 1, len(weight) - 1 - padding, groups, algorithm, False)
    if fits and choose_algorithm(algorithm, weight.shape, stride, groups, x_shape[0], x_shape[1:3]) == "winograd":
        y_gradient, weight = xp.ascontiguousarray(y_gradient), xp.ascontiguousarray(weight)
        x_gradient, none = xp.empty(x_shape, y_gradient.dtype), xp.empty(0, y_gradient.dtype)
        _winograd(y_gradient, weight, True, none, none.reshape(0, 0, 0, 0), False, 2 - padding, x_gradient)
        return x_gradient
    return transpose_convolve(y_gradient, weight, None, x_shape, stride, padding, groups, False)


def transpose_convolve(y_gradient, weight, bias, x_shape, stride, padding, groups, relu):
    """Every y stamps the kernel (KH, KW, Cin / groups, Cout) into x; bias and ReLU for the transposed convolution.

    A block owns lines of x, and computes the patches of all output positions that saw one of them: what two blocks both
    need, a few lines at their seam, is computed twice, so that nothing has to be added to what is there.
    """
    xp = module_of(y_gradient)
    y_gradient, weight = xp.ascontiguousarray(y_gradient), xp.ascontiguousarray(weight)
    _, height, width, channels = x_shape
    size, group_out = y_gradient.shape[1:3], weight.shape[3] // groups
    x_gradient = xp.empty(x_shape, y_gradient.dtype)
    if not x_gradient.size:  # padding alone made y
        return x_gradient
    bias = xp.empty(0, y_gradient.dtype) if bias is None else xp.ascontiguousarray(bias)
    kernel = _as_matrices(weight, groups).swapaxes(1, 2)  # (groups, Cout / groups, K)
    y_rows = y_gradient.reshape(-1, groups, group_out).swapaxes(0, 1)  # (groups, R, Cout / groups)
    if _is_pointwise(weight.shape, stride, padding, groups):
        x_rows = x_gradient.reshape(-1, channels)
        multiply(y_rows, kernel, x_rows[None])
        if bias.size or relu:
            epilogue(x_rows[None], bias, xp.empty((0, 0), bias.dtype), relu, x_rows)
        return x_gradient
    x_lines = x_gradient.reshape(-1, width, channels)
    row_bytes = _row_bytes(x_gradient, weight.shape, stride, padding, groups)
    for some in blocks(len(x_lines), math.ceil(row_bytes * size[0] * size[1] / height)):  # a line's share
        first, last = (size[1] * line for line in lines_that_saw(some, height, size[0], len(weight), stride, padding))
        patches = xp.empty((groups, last - first, kernel.shape[2]), x_gradient.dtype)
        multiply(y_rows[:, first:last], kernel, patches)
        scatter_patches(patches, first, weight.shape[:2], stride, padding, size, height, some.start, bias, relu,
                        x_lines[some])  # fmt: skip
        del patches
    return x_gradient


def kernel_gradient(x, y_gradient, weight_shape, stride, padding, groups, algorithm):
    """The gradient of the weight (KH, KW, Cin / groups, Cout), summed over the blocks in order."""
    xp = module_of(x)
    x, y_gradient = xp.ascontiguousarray(x), xp.ascontiguousarray(y_gradient)
    size = y_gradient.shape[1:3]
    if choose_algorithm(algorithm, weight_shape, stride, groups, len(x), size) == "winograd":
        return _winograd_kernel_gradient(x, y_gradient, weight_shape, padding)
    group_out = weight_shape[3] // groups
    y_rows = y_gradient.reshape(-1, groups, group_out).swapaxes(0, 1)  # (groups, R, Cout / groups)
    gradient = None
    for some in blocks(y_rows.shape[1], _row_bytes(x, weight_shape, stride, padding, groups)):
        patches = _gather(x, weight_shape, stride, padding, groups, size, some)  # (groups, rows, K)
        gradient = add(gradient, multiply(patches.swapaxes(1, 2), y_rows[:, some]))
        del patches
    if gradient is None:
        return xp.zeros(weight_shape, x.dtype)
    return xp.ascontiguousarray(gradient.swapaxes(0, 1).reshape(weight_shape))


def blocks(count: int, bytes_each: int) -> Iterator[slice]:
    """Even slices of range(count) that need at most SCRATCH bytes, but never less than one."""
    most = max(1, SCRATCH // bytes_each if bytes_each else count)
    pieces = -(-count // most)
    for i in range(pieces):
        yield slice(count * i // pieces, count * (i + 1) // pieces)


def lines_that_saw(x_lines: slice, height, out_height, kernel_height, stride, padding) -> tuple[int, int]:
    """The output lines from the first to before the last that saw one of x's lines, both counted over all pictures.

    Line oy saw line y through tap ky if y = oy * stride + ky - padding.
    """
    n, y = divmod(x_lines.start, height)
    first = -(-(y + padding - kernel_height + 1) // stride)
    first = n * out_height + min(max(first, 0), out_height)
    n, y = divmod(x_lines.stop - 1, height)
    last = n * out_height + min((y + padding) // stride + 1, out_height)
    return first, max(first, last)


def multiply(a, b, product=None):
    """a (groups, P, Q) @ b (groups, Q, R), into ``product`` (groups, P, R) if there is one.

    A single product is handed over as one of matrices: cuBLAS then reads a transposed one as it lies, while in a batch
    CuPy would copy it.
    """
    xp = module_of(a)
    if len(a) > 1:
        return xp.matmul(a, b, out=product)
    return xp.matmul(a[0], b[0], out=None if product is None else product[0])[None]


def add(total, more):
    """total += more; the first is the total itself, as each of 70 layers' zeros and sums would be two more launches."""
    if total is None:
        return more
    total += more
    return total


def _is_pointwise(weight_shape, stride, padding, groups) -> bool:
    """Whether x is its own patch matrix."""
    return tuple(weight_shape[:2]) == (1, 1) and stride == 1 and padding == 0 and groups == 1


def _row_bytes(x, weight_shape, stride, padding, groups) -> int:
    """Bytes of a row of the patch matrix, all groups together; 0 where it need not be made."""
    taps = 0 if _is_pointwise(weight_shape, stride, padding, groups) else math.prod(weight_shape[:2])
    return taps * x.shape[3] * x.itemsize


def _as_matrices(weight, groups):
    """(groups, K, Cout / groups)"""
    matrix = weight.reshape(-1, groups, weight.shape[3] // groups)
    return module_of(weight).ascontiguousarray(matrix.swapaxes(0, 1))


def _gather(x, weight_shape, stride, padding, groups, size, some: slice):
    """The patches (groups, rows, K) of some output positions."""
    if _is_pointwise(weight_shape, stride, padding, groups):
        return x.reshape(1, -1, x.shape[3])[:, some]
    if len(x) * math.prod(size) >= COUNTABLE:
        raise ValueError(
            f"conv2d: {len(x)} maps of {size[0]}x{size[1]}, wanted less than 2^32 places; take fewer pictures at a time"
        )
    patches = module_of(x).empty((groups, some.stop - some.start, math.prod(weight_shape[:3])), x.dtype)
    gather_patches(x, some.start, tuple(weight_shape[:2]), stride, padding, size, patches)
    return patches


def _winograd(x, weight, turned, bias, residual, relu, padding, y):
    """y (N, OH, OW, C) of a 3x3 convolution; ``turned``: with the kernel that carries gradients back."""
    xp = module_of(x)
    inner, channels = x.shape[3], y.shape[3]
    transformed = xp.empty((COMPONENTS, inner, channels), x.dtype)
    winograd_transform_kernel(weight, turned, transformed)
    down, across = _tiles(y)
    for some in blocks(len(y) * down * across, COMPONENTS * (inner + channels) * x.itemsize):
        inputs = xp.empty((COMPONENTS, some.stop - some.start, inner), x.dtype)
        winograd_transform_input(x, padding, some.start, down, across, inputs)
        outputs = multiply(inputs, transformed)  # (36, tiles, C)
        winograd_transform_output(outputs, some.start, bias, residual, relu, y)
        del inputs, outputs


def _winograd_kernel_gradient(x, y_gradient, weight_shape, padding):
    xp = module_of(x)
    inner, channels = weight_shape[2:]
    sums = None
    down, across = _tiles(y_gradient)
    for some in blocks(count_tiles(y_gradient.shape[:3]), COMPONENTS * (inner + channels) * x.itemsize):
        tiles = some.stop - some.start
        inputs = xp.empty((COMPONENTS, inner, tiles), x.dtype)  # transposed as the product wants it: CuPy would copy
        outputs = xp.empty((COMPONENTS, tiles, channels), x.dtype)
        winograd_transform_input(x, padding, some.start, down, across, inputs.swapaxes(1, 2))
        winograd_transform_gradient(y_gradient, some.start, outputs)
        sums = add(sums, multiply(inputs, outputs))
        del inputs, outputs
    if sums is None:
        return xp.zeros(weight_shape, x.dtype)
    weight_gradient = xp.empty(weight_shape, x.dtype)
    winograd_transform_kernel_back(sums, weight_gradient)
    return weight_gradient


def _tiles(y) -> tuple[int, int]:
    """Tiles of a map, downwards and across."""
    return -(-y.shape[1] // TILE), -(-y.shape[2] // TILE)
