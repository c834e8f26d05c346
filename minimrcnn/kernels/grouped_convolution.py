"""Convolution whose channels fall into narrow groups that see only each other (ResNeXt).

A product with 4 or 8 columns leaves most of a vector empty. But outputs of a group lie side by side, and so do groups.
For a vector of outputs at a place:

1. for every tap of the kernel and every channel i of a group, each lane needs its own group's channel i, as the tap
   sees it. Where the lanes are all of one group, that is one number, which a load spreads over the vector. Where a
   vector holds several groups, it is a move within the register: for i = 1, a0 a1 a2 a3 b0 b1 b2 b3, channels of groups
   a and b, become a1 a1 a1 a1 b1 b1 b1 b1;
2. multiply by the weights of channel i, which lie side by side for all outputs (`cut_into_vectors`), and add up;
3. bias, residual and ReLU when a line is done, while it is in cache.

Eight places of a line take turns, so that weights are read once for all of them, and no sum waits for the one before.
With stride 1, neighbors see the same numbers by different taps, and three taps share what was spread for one. What the
kernel sees beyond the map is left out.

Products of 32 by 32 channels, mostly zeros, took four times as long for 256 channels in groups of 8 at 100x136.

Groups of 1, 2, 4, 8 or 16 channels can be done so, in double precision of up to 8; and all channels together must fill
whole vectors. As for products, Numba has no word for it, so it is written in the compiler's own language; the Python
twin says what is computed, and is what a debugger steps into (NUMBA_DISABLE_JIT=1).

Shapes: x (N, H, W, C), y (N, OH, OW, C); weight (C / lanes, KH, KW, C / groups, lanes), a vector having so many lanes.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from llvmlite import ir
from numba import config, prange, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from minimrcnn.kernels.cells import make_variables
from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.convolution import find_inside, find_taps, finish_rows
from minimrcnn.kernels.instructions import declare_fused, locate, prefetch, spread
from minimrcnn.kernels.product import VECTOR, WIDE
from minimrcnn.kernels.twin import Twin

PLACES = 8  # of a line take turns: their sums, a number to multiply and three weights fit the 16 registers of AVX2
REGISTER = VECTOR if WIDE > 1 else VECTOR // 2  # bytes


def count_lanes(width: int, itemsize: int) -> int:
    """How many outputs a vector has, for groups of ``width`` channels.

    A group's where they fill half of the longest vector: moving numbers around for two of them took longer.
    """
    return width if VECTOR // 2 <= width * itemsize <= REGISTER else REGISTER // itemsize


def fits_a_vector(width: int, channels: int, itemsize: int) -> bool:
    """Whether groups of ``width`` channels can be done here: narrow ones, and whole vectors in a place."""
    return VECTOR // itemsize % width == 0 and channels % count_lanes(width, itemsize) == 0


def cut_into_vectors(weight):
    """(C / lanes, KH, KW, C / groups, lanes) of weight (KH, KW, C / groups, C), in one piece what a vector of y needs.

    Read where it lies, a row of the weight is on a page of its own: 512 channels took up to 1.6 times as long.
    """
    lanes = count_lanes(weight.shape[2], weight.itemsize)
    return np.ascontiguousarray(weight.reshape(*weight.shape[:3], -1, lanes).transpose(3, 0, 1, 2, 4))


def make_sum(places: int, together: int):
    """The sum over all taps, for use in kernels, for so many places side by side; the compiler must know how many.

    ``together`` taps of a row share what is spread or moved, as what a place sees by a tap its neighbor sees by the
    next. If that is more than one, the stride must be 1, and the number of taps a multiple of it.
    """

    def add_taps(x, weight, twos, row, column, first_y, last_y, first_x, last_x, block, stride, line, place):
        """line[place + t], of it vector ``block``, for t below ``places``: the sum over taps (ky, kx) of first_y ..
        last_y - 1, first_x .. last_x - 1, which see x[row + ky, column + t * stride + kx] of x (H, W, C).

        ``twos`` is as in `convolve_groups_cpu`.
        """
        width = 2 ** len(twos)
        lanes = count_lanes(width, x.itemsize)
        own = np.arange(block * lanes, (block + 1) * lanes)
        groups = own // width * width  # where each lane's group begins
        for t in range(places):
            line[place + t, own] = 0
            for ky in range(first_y, last_y):
                for kx in range(first_x, last_x):
                    for i in range(width):
                        seen = x[row + ky, column + t * stride + kx, groups + i]
                        line[place + t, own] += seen * weight[block, ky, kx, i]

    @intrinsic
    def compiled_add_taps(
        typing_context, x, weight, twos, row, column, first_y, last_y, first_x, last_x, block, stride, line, place
    ):
        if not x.dtype == weight.dtype == line.dtype:
            raise TypingError(f"taps: x of {x.dtype}, weight of {weight.dtype}, line of {line.dtype}; wanted the same")
        numbers = [types.intp] * 8
        return types.void(x, weight, twos, *numbers, line, types.intp), lambda *given: generate_sum(
            places, together, *given
        )

    return add_taps if config.DISABLE_JIT else compiled_add_taps


def generate_sum(places, together, context, builder, signature, arguments):
    """The instructions: a loop over the taps, whose sums stay in registers."""
    x, weight, _, row, column, first_y, last_y, first_x, last_x, block, stride, line, place = arguments
    x, weight, line = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 1, 11))
    kind, width = signature.args[0].dtype, 2 ** len(signature.args[2])
    itemsize = kind.bitwidth // 8
    lanes = count_lanes(width, itemsize)
    integer, vector = ir.IntType(64), ir.VectorType(context.get_value_type(kind), lanes)
    fused = declare_fused(builder, vector)
    chains = max(1, 4 // places)  # a single place's sum is cut into four that do not wait for one another
    sums = make_variables(builder, vector, 0.0, places * chains)
    channel = builder.mul(block, integer(lanes))
    first_group = builder.udiv(channel, integer(width))  # of the vector's
    group = builder.mul(first_group, integer(width))  # where it begins
    columns = [builder.add(column, builder.mul(stride, integer(t))) for t in range(places + together - 1)]

    def see(cell, i):
        """Each lane's own group's channel i of a cell, whose address is of the group's first."""
        if lanes <= width:
            return spread(builder, builder.load(builder.gep(cell, [integer(i)])), lanes)
        numbers = builder.load(builder.bitcast(cell, vector.as_pointer()), align=itemsize)
        from_lane = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [n // width * width + i for n in range(lanes)])
        return builder.shuffle_vector(numbers, ir.Constant(vector, ir.Undefined), from_lane)

    with cgutils.for_range_slice(builder, first_y, last_y, integer(1), inc=True) as (ky, _):
        with cgutils.for_range_slice(builder, first_x, last_x, integer(together), inc=True) as (kx, _):
            y = builder.add(row, ky)
            cells = [locate(builder, x, vector.element, y, builder.add(at, kx), group) for at in columns]
            totals = [builder.load(total) for total in sums]
            factors_at = locate(builder, weight, vector, block, ky, kx)  # those of all channels of a tap, tap after tap
            for i in range(width):
                factors = [
                    builder.load(builder.gep(factors_at, [integer(k * width + i)]), align=itemsize)
                    for k in range(together)
                ]
                for t, cell in enumerate(cells):
                    numbers = see(cell, i)
                    for k, factor in enumerate(factors):
                        if 0 <= t - k < places:
                            which = (t - k) * chains + i % chains
                            totals[which] = builder.call(fused, [numbers, factor, totals[which]])
            for total, place_of_sum in zip(totals, sums, strict=True):
                builder.store(total, place_of_sum)
    below = builder.add(row, builder.extract_value(weight.shape, 1))
    for t in range(places):
        # The next line sees a row more; where but a vector of a cell is read at a time, no processor foresees the next.
        prefetch(builder, locate(builder, x, vector, below, columns[t], channel))
        parts = [builder.load(total) for total in sums[t * chains : (t + 1) * chains]]
        target = locate(builder, line, vector, builder.add(place, integer(t)), channel)
        builder.store(reduce(builder.fadd, parts), target, align=itemsize)
    return context.get_dummy_value()


add_threes_of_many, add_taps_of_many, add_taps_of_one = make_sum(PLACES, 3), make_sum(PLACES, 1), make_sum(1, 1)


@compiled_task
def convolve_line_of_groups(x, weight, twos, top, stride, padding, bias, residual, relu, line):
    """``line`` (OW, C), the kernel's first row at row ``top`` of x (H, W, C); residual (OW, C) or empty."""
    height, width = x.shape[:2]
    blocks, kernel_height, kernel_width = weight.shape[:3]
    first_y, last_y = find_taps(top, kernel_height, height)
    first, last = find_inside(width, kernel_width, stride, padding, len(line))
    for block in range(blocks):
        place = np.int64(0)
        while place < len(line):
            if first <= place < last and last - first >= PLACES:
                place = min(place, last - PLACES)  # where fewer are left, some are done once more
                left = place * stride - padding
                if stride == 1 and kernel_width % 3 == 0:
                    add_threes_of_many(x, weight, twos, top, left, first_y, last_y, np.int64(0),
                                       np.int64(kernel_width), block, stride, line, place)  # fmt: skip
                else:
                    add_taps_of_many(x, weight, twos, top, left, first_y, last_y, np.int64(0),
                                     np.int64(kernel_width), block, stride, line, place)  # fmt: skip
                place += PLACES
            else:
                left = place * stride - padding
                first_x, last_x = find_taps(left, kernel_width, width)
                add_taps_of_one(x, weight, twos, top, left, first_y, last_y, first_x, last_x,
                                block, stride, line, place)  # fmt: skip
                place += 1
    finish_rows(line, bias, residual, relu)


@compiled(parallel=True)
def convolve_groups_cpu(x, weight, bias, residual, relu, twos, stride, padding, y):
    """y (N, OH, OW, C), line by line; bias (C,) and residual (N * OH * OW, C), or empty.

    ``twos`` is (2, 2) for groups of 4 channels, (2, 2, 2) for groups of 8, and so on: how many there are, the compiler
    knows, and it writes other instructions for each. `fits_a_vector` says whether it can.
    """
    lines, across = y.shape[1], y.shape[2]
    for task in prange(y.shape[0] * lines):
        n, oy = np.int64(task) // lines, np.int64(task) % lines
        convolve_line_of_groups(x[n], weight, twos, oy * stride - padding, stride, padding, bias,
                                residual[task * across : (task + 1) * across], relu, y[n, oy])  # fmt: skip


convolve_groups = Twin("convolve_groups", convolve_groups_cpu)
