"""The steps of Winograd's convolution one by one, for a GPU, where the products between them are the library's.

`kernels.winograd` says what the algorithm is, and does it block by block with the CPU's own products. Here each
transform is a kernel, and the 36 products are one batched product of cuBLAS:

    forward             V = transform_input(x)       U = transform_kernel(weight)     y = transform_output(V @ U)
    gradient of x       the same, with the kernel turned by half a turn and its channels swapped
    gradient of weight  V = transform_input(x)       D = transform_gradient(dy)       transform_kernel_back(V' @ D)

A thread has one channel of one tile, or one pair of channels of the kernel, and keeps all 36 numbers in its registers.
They are held in tuples and spelled out, one name for each row: an array that is indexed in a loop would live in the
GPU's memory instead. First along the rows, then down the columns; the result is component 6 i + j, row i, column j.
Neighboring threads have neighboring channels, so what they read and write lies side by side.

Shapes: x (N, H, W, C), components (36, tiles, C), weight (3, 3, Cin, Cout), its components (36, Cin, Cout). Tiles are
counted by (n, row, column); an array of components holds those from ``first`` on.
"""

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.twin import Twin, cuda, divide
from minimrcnn.kernels.winograd import (
    TILE,
    find_tile,
    transform_input,
    transform_kernel,
    transform_kernel_back,
    transform_output,
    transform_output_back,
)


@register_jitable
def read(line, inside, column, channel):
    """A number of a line (W, C) of the map; 0 outside of it, or where the line itself is outside."""
    column = np.uint32(column & 0xFFFFFFFF)  # without sign, what lies left of the map is far right of it
    inside = inside and column < np.uint32(line.shape[0])
    return line[column, channel] if inside else line.dtype.type(0)


@register_jitable
def read_row_of_four(x, n, row, left, channel):
    """Four numbers of the map, side by side."""
    inside = 0 <= row and row < x.shape[1]
    line = x[n, np.uint32(row if inside else 0)]  # (W, C)
    return (
        read(line, inside, left, channel),
        read(line, inside, left + 1, channel),
        read(line, inside, left + 2, channel),
        read(line, inside, left + 3, channel),
    )


@register_jitable
def read_row_of_six(x, n, row, left, channel):
    """Six numbers of the map, side by side."""
    inside = 0 <= row and row < x.shape[1]
    line = x[n, np.uint32(row if inside else 0)]  # (W, C)
    return read_row_of_four(x, n, row, left, channel) + (
        read(line, inside, left + 4, channel),
        read(line, inside, left + 5, channel),
    )


@register_jitable
def read_components(components, i):
    """Row i of the six by six, of components (36,)."""
    return (
        components[6 * i],
        components[6 * i + 1],
        components[6 * i + 2],
        components[6 * i + 3],
        components[6 * i + 4],
        components[6 * i + 5],
    )


@register_jitable
def write_components(column, j, components):
    """Column j of the six by six, of components (36,)."""
    components[j] = column[0]
    components[6 + j] = column[1]
    components[12 + j] = column[2]
    components[18 + j] = column[3]
    components[24 + j] = column[4]
    components[30 + j] = column[5]


# --- The work of one thread ---


@register_jitable
def transform_input_at(x, padding, first, down, across, at, channel, components):
    """V = B' d B of one channel of tile ``first + at``, 6x6 from 6x6."""
    n, top, left = find_tile(np.uint32(first + at), np.uint32(down), np.uint32(across))
    n, top, left, mine = np.uint32(n), np.int64(top) - padding, np.int64(left) - padding, components[:, at, channel]
    a = transform_input(*read_row_of_six(x, n, top, left, channel))
    b = transform_input(*read_row_of_six(x, n, top + 1, left, channel))
    c = transform_input(*read_row_of_six(x, n, top + 2, left, channel))
    d = transform_input(*read_row_of_six(x, n, top + 3, left, channel))
    e = transform_input(*read_row_of_six(x, n, top + 4, left, channel))
    f = transform_input(*read_row_of_six(x, n, top + 5, left, channel))
    write_components(transform_input(a[0], b[0], c[0], d[0], e[0], f[0]), 0, mine)
    write_components(transform_input(a[1], b[1], c[1], d[1], e[1], f[1]), 1, mine)
    write_components(transform_input(a[2], b[2], c[2], d[2], e[2], f[2]), 2, mine)
    write_components(transform_input(a[3], b[3], c[3], d[3], e[3], f[3]), 3, mine)
    write_components(transform_input(a[4], b[4], c[4], d[4], e[4], f[4]), 4, mine)
    write_components(transform_input(a[5], b[5], c[5], d[5], e[5], f[5]), 5, mine)


@register_jitable
def transform_gradient_at(y_gradient, first, at, channel, components):
    """D = A dy A' of one channel of tile ``first + at``, 6x6 from 4x4."""
    down, across = (y_gradient.shape[1] + TILE - 1) // TILE, (y_gradient.shape[2] + TILE - 1) // TILE
    n, top, left = find_tile(np.uint32(first + at), np.uint32(down), np.uint32(across))
    n, top, left, mine = np.uint32(n), np.int64(top), np.int64(left), components[:, at, channel]
    a = transform_output_back(*read_row_of_four(y_gradient, n, top, left, channel))
    b = transform_output_back(*read_row_of_four(y_gradient, n, top + 1, left, channel))
    c = transform_output_back(*read_row_of_four(y_gradient, n, top + 2, left, channel))
    d = transform_output_back(*read_row_of_four(y_gradient, n, top + 3, left, channel))
    write_components(transform_output_back(a[0], b[0], c[0], d[0]), 0, mine)
    write_components(transform_output_back(a[1], b[1], c[1], d[1]), 1, mine)
    write_components(transform_output_back(a[2], b[2], c[2], d[2]), 2, mine)
    write_components(transform_output_back(a[3], b[3], c[3], d[3]), 3, mine)
    write_components(transform_output_back(a[4], b[4], c[4], d[4]), 4, mine)
    write_components(transform_output_back(a[5], b[5], c[5], d[5]), 5, mine)


@register_jitable
def finish_output(value, residual, relu, n, row, column, channel, output):
    """One output of a picture (OH, OW, C), with its epilogue; a tile may hang over the map's edge."""
    if row < output.shape[0] and column < output.shape[1]:
        if residual.size > 0:
            value += residual[n, row, column, channel]
        F = output.dtype.type
        output[row, column, channel] = F(0) if relu and value < F(0) else value  # written so that NaN stays NaN


@register_jitable
def finish_outputs(values, shift, residual, relu, n, top, column, channel, output):
    """A column of four outputs."""
    finish_output(values[0] + shift, residual, relu, n, top, column, channel, output)
    finish_output(values[1] + shift, residual, relu, n, np.uint32(top + 1), column, channel, output)
    finish_output(values[2] + shift, residual, relu, n, np.uint32(top + 2), column, channel, output)
    finish_output(values[3] + shift, residual, relu, n, np.uint32(top + 3), column, channel, output)


@register_jitable
def transform_output_at(components, first, bias, residual, relu, at, channel, output):
    """y = A' M A of one channel of tile ``first + at``, 4x4 from 6x6, += bias, += residual, ReLU."""
    down, across = (output.shape[1] + TILE - 1) // TILE, (output.shape[2] + TILE - 1) // TILE
    n, top, left = find_tile(np.uint32(first + at), np.uint32(down), np.uint32(across))
    n, top, left, mine = np.uint32(n), np.uint32(top), np.uint32(left), components[:, at, channel]
    a = transform_output(*read_components(mine, 0))
    b = transform_output(*read_components(mine, 1))
    c = transform_output(*read_components(mine, 2))
    d = transform_output(*read_components(mine, 3))
    e = transform_output(*read_components(mine, 4))
    f = transform_output(*read_components(mine, 5))
    shift = bias[channel] if bias.size > 0 else output.dtype.type(0)
    picture = output[n]
    column = transform_output(a[0], b[0], c[0], d[0], e[0], f[0])
    finish_outputs(column, shift, residual, relu, n, top, left, channel, picture)
    column = transform_output(a[1], b[1], c[1], d[1], e[1], f[1])
    finish_outputs(column, shift, residual, relu, n, top, np.uint32(left + 1), channel, picture)
    column = transform_output(a[2], b[2], c[2], d[2], e[2], f[2])
    finish_outputs(column, shift, residual, relu, n, top, np.uint32(left + 2), channel, picture)
    column = transform_output(a[3], b[3], c[3], d[3], e[3], f[3])
    finish_outputs(column, shift, residual, relu, n, top, np.uint32(left + 3), channel, picture)


@register_jitable
def read_tap(weight, turned, ky, kx, inner, outer):
    """A tap between two channels; ``turned``: of the kernel turned by half a turn, its channels swapped."""
    return weight[2 - ky, 2 - kx, outer, inner] if turned else weight[ky, kx, inner, outer]


@register_jitable
def read_taps(weight, turned, ky, inner, outer):
    """Row ky of a kernel."""
    return (
        read_tap(weight, turned, ky, 0, inner, outer),
        read_tap(weight, turned, ky, 1, inner, outer),
        read_tap(weight, turned, ky, 2, inner, outer),
    )


@register_jitable
def transform_kernel_at(weight, turned, inner, outer, components):
    """U = G g G' of one pair of channels, 6x6 from 3x3."""
    F = weight.dtype.type
    q, s, mine = F(0.25), F(1 / 6), components[:, inner, outer]
    a = transform_kernel(*read_taps(weight, turned, 0, inner, outer), q, s)
    b = transform_kernel(*read_taps(weight, turned, 1, inner, outer), q, s)
    c = transform_kernel(*read_taps(weight, turned, 2, inner, outer), q, s)
    write_components(transform_kernel(a[0], b[0], c[0], q, s), 0, mine)
    write_components(transform_kernel(a[1], b[1], c[1], q, s), 1, mine)
    write_components(transform_kernel(a[2], b[2], c[2], q, s), 2, mine)
    write_components(transform_kernel(a[3], b[3], c[3], q, s), 3, mine)
    write_components(transform_kernel(a[4], b[4], c[4], q, s), 4, mine)
    write_components(transform_kernel(a[5], b[5], c[5], q, s), 5, mine)


@register_jitable
def write_taps(taps, kx, inner, outer, weight):
    """Column kx of a kernel."""
    weight[0, kx, inner, outer] = taps[0]
    weight[1, kx, inner, outer] = taps[1]
    weight[2, kx, inner, outer] = taps[2]


@register_jitable
def transform_kernel_back_at(components, inner, outer, weight):
    """dg = G' dU G of one pair of channels, 3x3 from 6x6."""
    F = weight.dtype.type
    q, s, mine = F(0.25), F(1 / 6), components[:, inner, outer]
    a = transform_kernel_back(*read_components(mine, 0), q, s)
    b = transform_kernel_back(*read_components(mine, 1), q, s)
    c = transform_kernel_back(*read_components(mine, 2), q, s)
    d = transform_kernel_back(*read_components(mine, 3), q, s)
    e = transform_kernel_back(*read_components(mine, 4), q, s)
    f = transform_kernel_back(*read_components(mine, 5), q, s)
    write_taps(transform_kernel_back(a[0], b[0], c[0], d[0], e[0], f[0], q, s), 0, inner, outer, weight)
    write_taps(transform_kernel_back(a[1], b[1], c[1], d[1], e[1], f[1], q, s), 1, inner, outer, weight)
    write_taps(transform_kernel_back(a[2], b[2], c[2], d[2], e[2], f[2], q, s), 2, inner, outer, weight)


# --- CPU: all of it, in order, for tests and for a debugger. No layer on a CPU goes this way, so it is not compiled:
#     that would take longer than what there is to do. ---


def winograd_transform_input_cpu(x, padding, first, down, across, components):
    for at in range(components.shape[1]):
        for channel in range(components.shape[2]):
            transform_input_at(x, padding, first, down, across, at, channel, components)


def winograd_transform_gradient_cpu(y_gradient, first, components):
    for at in range(components.shape[1]):
        for channel in range(components.shape[2]):
            transform_gradient_at(y_gradient, first, at, channel, components)


def winograd_transform_output_cpu(components, first, bias, residual, relu, output):
    for at in range(components.shape[1]):
        for channel in range(components.shape[2]):
            transform_output_at(components, first, bias, residual, relu, at, channel, output)


def winograd_transform_kernel_cpu(weight, turned, components):
    for inner in range(components.shape[1]):
        for outer in range(components.shape[2]):
            transform_kernel_at(weight, turned, inner, outer, components)


def winograd_transform_kernel_back_cpu(components, weight):
    for inner in range(components.shape[1]):
        for outer in range(components.shape[2]):
            transform_kernel_back_at(components, inner, outer, weight)


# --- CUDA: one thread for each (tile, channel), or pair of channels. ---


def winograd_transform_input_cuda(x, padding, first, down, across, components):
    at, channel = divide(cuda.grid(1), components.shape[2])
    if at < components.shape[1]:
        transform_input_at(x, padding, first, down, across, at, channel, components)


def winograd_transform_gradient_cuda(y_gradient, first, components):
    at, channel = divide(cuda.grid(1), components.shape[2])
    if at < components.shape[1]:
        transform_gradient_at(y_gradient, first, at, channel, components)


def winograd_transform_output_cuda(components, first, bias, residual, relu, output):
    at, channel = divide(cuda.grid(1), components.shape[2])
    if at < components.shape[1]:
        transform_output_at(components, first, bias, residual, relu, at, channel, output)


def winograd_transform_kernel_cuda(weight, turned, components):
    at, channel = divide(cuda.grid(1), components.shape[2])
    if at < components.shape[1]:
        transform_kernel_at(weight, turned, at, channel, components)


def winograd_transform_kernel_back_cuda(components, weight):
    at, channel = divide(cuda.grid(1), components.shape[2])
    if at < components.shape[1]:
        transform_kernel_back_at(components, at, channel, weight)


def _pairs_of_output(*arguments):
    """Threads where the components come last."""
    return arguments[-1].shape[1] * arguments[-1].shape[2]


def _pairs_of_input(*arguments):
    """Threads where the components come first."""
    return arguments[0].shape[1] * arguments[0].shape[2]


# winograd_transform_input(x, padding: int, first: int, down: int, across: int, components): a map has down x across
# tiles of outputs.
winograd_transform_input = Twin(
    "winograd_transform_input", winograd_transform_input_cpu, winograd_transform_input_cuda, _pairs_of_output
)
# winograd_transform_gradient(y_gradient, first: int, components)
winograd_transform_gradient = Twin(
    "winograd_transform_gradient", winograd_transform_gradient_cpu, winograd_transform_gradient_cuda, _pairs_of_output
)
# winograd_transform_output(components, first: int, bias (Cout,) or (0,), residual as output or (0, 0, 0, 0),
#                           relu: bool, output (N, OH, OW, Cout)) fills the tiles it is given.
winograd_transform_output = Twin(
    "winograd_transform_output", winograd_transform_output_cpu, winograd_transform_output_cuda, _pairs_of_input
)
# winograd_transform_kernel(weight (3, 3, Cin, Cout), turned: bool, components (36, Cin, Cout), or if turned
#                           (36, Cout, Cin))
winograd_transform_kernel = Twin(
    "winograd_transform_kernel", winograd_transform_kernel_cpu, winograd_transform_kernel_cuda, _pairs_of_output
)
# winograd_transform_kernel_back(components (36, Cin, Cout), weight (3, 3, Cin, Cout))
winograd_transform_kernel_back = Twin(
    "winograd_transform_kernel_back",
    winograd_transform_kernel_back_cpu,
    winograd_transform_kernel_back_cuda,
    _pairs_of_input,
)
