"""Convolution on a CPU: every thread takes a small block from end to end, while it is in its cache.

Shapes: x (N, H, W, Cin), weight (KH, KW, Cin / groups, Cout), y (N, OH, OW, Cout).
"""

from __future__ import annotations

import math

import numba
import numpy as np

from minimrcnn.device import empty_beside, workspace
from minimrcnn.functional.conv_shapes import choose_algorithm, count_tiles, output_size, scaled, turn_kernel
from minimrcnn.kernels import convolution, winograd
from minimrcnn.kernels.grouped_convolution import convolve_groups, cut_into_vectors, fits_a_vector
from minimrcnn.kernels.product import pack_weight, panels_shape

CACHE = 2**19  # bytes a thread keeps warm: half of a common second-level cache
MOST_RUN, LINE = 64, range(16, 4097)  # numbers a row of the kernel sees, and outputs in a line, for patches in place
APART, TILES_APART = 128, 36  # Winograd: up to so many channels a thread takes blocks of so many tiles all the way


def convolve(x, weight, bias, residual, stride, padding, groups, algorithm, relu, scale=None):
    """The forward pass: y (N, OH, OW, Cout)."""
    x, weight = np.ascontiguousarray(x), np.ascontiguousarray(weight)
    kernel_size = weight.shape[:2]
    size = output_size(x.shape[1:3], kernel_size, stride, padding)
    channels = weight.shape[3]
    y = empty_beside((x.shape[0], *size, channels), x)  # (N, OH, OW, Cout)
    bias = np.empty(0, x.dtype) if bias is None else np.ascontiguousarray(bias)
    residual = np.empty((0, 0, 0, 0), x.dtype) if residual is None else np.ascontiguousarray(residual)
    if choose_algorithm(algorithm, weight.shape, stride, groups, x.shape[0], size) == "winograd":
        _winograd(x, _winograd_kernel(weight, scale, turned=False), bias, residual, relu, padding, y)
        return y
    width = weight.shape[2]
    if groups > 1 and groups * width == channels and fits_a_vector(width, channels, x.itemsize):
        weight = cut_into_vectors(scaled(weight, scale))
        twos = (2,) * (width.bit_length() - 1)  # tells the compiler the width: see `convolve_groups_cpu`
        convolve_groups(x, weight, bias, residual.reshape(-1, channels), relu, twos, stride, padding, y)
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
    kernel_height, kernel_width = weight.shape[:2]
    fits = kernel_height == kernel_width and padding < kernel_height
    if fits and choose_algorithm(algorithm, weight.shape, stride, groups, x_shape[0], x_shape[1:3]) == "winograd":
        x_gradient = empty_beside(x_shape, y_gradient)
        none = np.empty(0, y_gradient.dtype)
        transformed = _winograd_kernel(weight, scale, turned=True)
        _winograd(y_gradient, transformed, none, none.reshape(0, 0, 0, 0), False, 2 - padding, x_gradient)
        return x_gradient
    if fits and stride == 1 and groups > 1:
        turned = turn_kernel(scaled(weight, scale), groups)
        return convolve(y_gradient, turned, None, None, 1, kernel_height - 1 - padding, groups, algorithm, False)
    return transpose_convolve(y_gradient, weight, None, x_shape, stride, padding, groups, False, scale)


def transpose_convolve(y_gradient, weight, bias, x_shape, stride, padding, groups, relu, scale=None):
    """Every y stamps the kernel (KH, KW, Cin, Cout) into x; bias and ReLU for the transposed convolution."""
    y_gradient = np.ascontiguousarray(y_gradient)
    x_gradient = empty_beside(x_shape, y_gradient)
    bias = np.empty(0, y_gradient.dtype) if bias is None else np.ascontiguousarray(bias)
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
    together = count_together(weight_shape, groups)
    if together > 1:
        kernel_height, kernel_width, group_in, channels = weight_shape
        merged = kernel_height, kernel_width, together * group_in, channels
        gradient = kernel_gradient(x, y_gradient, merged, stride, padding, groups // together, algorithm)
        blocks = gradient.reshape(kernel_height, kernel_width, together, group_in, groups // together, together, -1)
        own = blocks.diagonal(axis1=2, axis2=5)  # (KH, KW, Cin / groups, groups / together, Cout / groups, together)
        return np.ascontiguousarray(own.swapaxes(4, 5).reshape(weight_shape))
    x, y_gradient = np.ascontiguousarray(x), np.ascontiguousarray(y_gradient)
    kernel_height, kernel_width, group_in, channels = weight_shape
    taps, group_out = kernel_height * kernel_width, channels // groups
    threads, dtype = numba.get_num_threads(), x.dtype
    count, *size = y_gradient.shape[:3]
    if choose_algorithm(algorithm, weight_shape, stride, groups, count, size) == "winograd":
        tiles = count_tiles(y_gradient.shape[:3])
        if tiles == 0:
            return np.zeros(weight_shape, dtype)
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
    return np.ascontiguousarray(weight_gradient.transpose(1, 0, 2).reshape(weight_shape))


def count_together(weight_shape, groups) -> int:
    """How many groups are worth computing as one: up to 32 channels of a narrow group fill a product.

    Products with zeros are wasted, but 8 channels are gathered and multiplied no faster than 32. So go gradients of
    weights, and groups that `grouped_convolution` cannot do.
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
    merged = np.zeros((*shape[:2], together, *shape[2:]), weight.dtype)
    for k in range(together):
        merged[:, :, k, :, :, k] = own[:, :, :, :, k]
    return merged.reshape(kernel_height, kernel_width, together * group_in, channels), groups // together


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


def _panels(weight, scale, groups, turned):
    """Panels (groups, T, P, K, width) of weight (T, I, O) * scale (O,); of the transposed matrices if ``turned``."""
    taps, inner, columns = weight.shape[0], weight.shape[1], weight.shape[2] // groups
    shape = panels_shape(columns, inner, weight.itemsize) if turned else panels_shape(inner, columns, weight.itemsize)
    panels = workspace("weight panels", (groups, taps, *shape), weight.dtype)
    scale = np.empty(0, weight.dtype) if scale is None else np.ascontiguousarray(scale)
    pack_weight(np.ascontiguousarray(weight), scale, turned, panels)
    return panels
