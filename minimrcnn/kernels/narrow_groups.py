"""Convolution in narrow groups on a GPU (ResNeXt), as the definition says it: no patches are written out.

As products of matrices, groups of 8 channels are 32 products with 8 columns each, which leave most of a GPU idle, of
patches that are nine times as large as the map: 256 channels in groups of 8 at 100x136 took 0.235 ms on an H200, and
cuDNN 0.130. Here a thread has one output channel at four places of a line, and for every tap and every four channels
that its group sees

- reads their four weights, which serve all four places; those of its neighbors lie beside them,
- reads the four numbers of each place, which lie side by side, at once (`four.read_side_by_side`),

which are 8 loads for 16 multiplications, nearly all from a cache (20 where x is part of another array). Bias, residual
and ReLU follow before the sums are written. What the kernel sees beyond the map is left out.

On a CPU it is done by `kernels.grouped_convolution`, in vectors.

Shapes: x (N, H, W, Cin), weight (KH, KW, Cin / groups, Cout), y (N, OH, OW, Cout).
"""

import math

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.direct_convolution import convolve_at
from minimrcnn.kernels.epilogue import finish_value
from minimrcnn.kernels.four import (
    FOUR,
    add_four,
    choose_four,
    move_places,
    places_of_columns,
    read_places,
    read_side_by_side,
    rectify_four,
    write_places,
)
from minimrcnn.kernels.places import multiply_add, read_at
from minimrcnn.kernels.twin import Twin, cuda, divide, find_cell

# The widest groups that are done so. A group of 32 channels is a product that a library does well.
NARROW = 16


def is_narrow(group_in: int, group_out: int) -> bool:
    """Whether groups of so many channels, seen and made, can be done here, and should be."""
    return group_in % FOUR == 0 and max(group_in, group_out) <= NARROW


@compiled()
def convolve_narrow_groups_cpu(x, weight, bias, residual, relu, stride, padding, y):
    group_in = weight.shape[2]
    group_out = y.shape[3] // (x.shape[3] // group_in)
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                for channel in range(y.shape[3]):
                    first = channel // group_out * group_in
                    own = x[:, :, :, first : first + group_in]  # what its group sees
                    total = convolve_at(own, weight, stride, padding, n, oy, ox, channel)
                    if residual.size > 0:
                        total += residual[n, oy, ox, channel]
                    y[n, oy, ox, channel] = finish_value(total, bias, channel, relu, y.dtype.type)


@register_jitable
def read_weights(weight, place, channels):
    """The weights of four channels that an output channel sees, the first at this place."""
    second = multiply_add(place, 1, channels)
    third = multiply_add(second, 1, channels)
    fourth = multiply_add(third, 1, channels)
    return read_at(weight, place), read_at(weight, second), read_at(weight, third), read_at(weight, fourth)


@register_jitable
def add_products(total, weights, numbers):
    """total + the sum of four products"""
    for weight, number in zip(weights, numbers):  # noqa: B905, numba does not know strict
        total += weight * number
    return total


def convolve_narrow_groups_cuda(x, weight, bias, residual, relu, stride, padding, y):
    """An output channel at four places of a line for each thread."""
    F = y.dtype.type
    channels, group_in = weight.shape[3], np.uint32(weight.shape[2])
    cell, channel = divide(cuda.grid(1), channels)
    n, oy, quarter = find_cell(cell, (0, y.shape[1], (y.shape[2] + FOUR - 1) // FOUR))
    if n >= y.shape[0]:
        return
    places = choose_four(quarter * FOUR, 1, y.shape[2])
    group, _ = divide(channel, np.uint32(channels) // (np.uint32(x.shape[3]) // group_in))
    first = np.uint32(group) * group_in
    a, b, c, d = F(0), F(0), F(0), F(0)
    weight_at, row = np.uint32(channel), np.int32(oy * stride - padding)
    for _ in range(np.int32(weight.shape[0])):
        sees_row, left = 0 <= row and row < np.int32(x.shape[1]), np.uint32(-padding & 0xFFFFFFFF)
        for _ in range(np.int32(weight.shape[1])):
            # Without sign, what lies left of the map is far right of it.
            columns = (
                multiply_add(places[0], stride, left),
                multiply_add(places[1], stride, left),
                multiply_add(places[2], stride, left),
                multiply_add(places[3], stride, left),
            )
            width = np.uint32(x.shape[2])
            sees_a, sees_b = sees_row and columns[0] < width, sees_row and columns[1] < width
            sees_c, sees_d = sees_row and columns[2] < width, sees_row and columns[3] < width
            seen = places_of_columns(x.shape, n, row, columns, first)
            for _ in range(np.int32(group_in) // FOUR):
                weights = read_weights(weight, weight_at, channels)
                if sees_a:
                    a = add_products(a, weights, read_side_by_side(x, seen[0]))
                if sees_b:
                    b = add_products(b, weights, read_side_by_side(x, seen[1]))
                if sees_c:
                    c = add_products(c, weights, read_side_by_side(x, seen[2]))
                if sees_d:
                    d = add_products(d, weights, read_side_by_side(x, seen[3]))
                seen, weight_at = move_places(seen, FOUR), multiply_add(channels, FOUR, weight_at)
            left = multiply_add(left, 1, 1)
        row += np.int32(1)
    total, at = (a, b, c, d), places_of_columns(y.shape, n, oy, places, channel)
    if residual.size > 0:
        total = add_four(total, F(1), read_places(residual, at))
    if bias.size > 0:
        total = add_four(total, F(1), (bias[channel], bias[channel], bias[channel], bias[channel]))
    if relu:
        total = rectify_four(total, F)
    write_places(total, at, y)


# convolve_narrow_groups(x (N, H, W, Cin), weight (KH, KW, Cin / groups, Cout), bias (Cout,) or (0,),
#                        residual (N, OH, OW, Cout) or (0, 0, 0, 0), relu: bool, stride: int, padding: int,
#                        y (N, OH, OW, Cout))
# The CUDA body wants groups that see a multiple of four channels.
convolve_narrow_groups = Twin(
    "convolve_narrow_groups",
    convolve_narrow_groups_cpu,
    convolve_narrow_groups_cuda,
    threads=lambda *arguments: (
        math.prod(arguments[-1].shape[:2]) * -(-arguments[-1].shape[2] // FOUR) * arguments[-1].shape[3]
    ),
)
