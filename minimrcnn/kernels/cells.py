"""Many cells become one, in every channel: their maximum, for RoI pooling, or their weighted sum, for RoIAlign.

As a loop over cells with a loop over channels inside, what has been found so far would go back and forth through memory
for each cell. Here it is turned around: a few vectors of channels at a time stay in registers while all cells go by.
RoI pooling takes two thirds of the time so, and RoIAlign three quarters (nine tenths with AVX2) of what mixing along y,
then along x took, though that multiplied less: what these kernels wait for is cells from the caches.

Numba has no word for that, so it is written in the compiler's own language, as `kernels.product` and `kernels.vectors`.
The Python twins say what is computed, and are what a debugger steps into (NUMBA_DISABLE_JIT=1).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from minimrcnn.kernels.instructions import locate, spread
from minimrcnn.kernels.vectors import BYTES

TOGETHER = 8  # vectors of channels. With AVX2 not all of a maximum's fit the registers; 4 took 5% longer all the same


def maximum_in_python(cells, first, width, best, winner):
    """best (C,) = the maximum over cells (rows, columns, C), winner (C,) its cell, the first of equals.

    Cell (i, j) has number ``first + i * width + j``; its channels lie side by side. Not a number is never the largest;
    where nothing else is, best is minus infinity and winner -1.
    """
    best[:], winner[:] = -np.inf, -1
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            larger = cells[i, j] > best
            best[larger], winner[larger] = cells[i, j][larger], first + i * width + j


def mixture_in_python(cells, rows, row_weights, columns, column_weights, mixture):
    """mixture (C,) = the sum over i and j of row_weights[i] * column_weights[j] * cells[rows[i], columns[j]].

    Channels lie side by side; rows and columns are of type np.int64, all else of one floating type.
    """
    mixture[:] = 0
    for row, along_y in zip(rows, row_weights, strict=True):
        for column, along_x in zip(columns, column_weights, strict=True):
            mixture += (along_y * along_x) * cells[row, column]


@intrinsic
def compiled_maximum(typing_context, cells, first, width, best, winner):
    return types.void(cells, types.intp, types.intp, best, winner), generate_maximum


@intrinsic
def compiled_mixture(typing_context, cells, rows, row_weights, columns, column_weights, mixture):
    if {rows.dtype, columns.dtype} != {types.int64}:
        raise TypingError(f"mix_cells: rows and columns of type {rows.dtype} and {columns.dtype}, wanted int64")
    if {row_weights.dtype, column_weights.dtype, mixture.dtype} != {cells.dtype}:
        raise TypingError(f"mix_cells: weights of type {row_weights.dtype} for cells of {cells.dtype}, wanted the same")
    return types.void(cells, rows, row_weights, columns, column_weights, mixture), generate_mixture


find_maximum = maximum_in_python if config.DISABLE_JIT else compiled_maximum
mix_cells = mixture_in_python if config.DISABLE_JIT else compiled_mixture


def take_channels(builder, channels, itemsize: int, reduce) -> None:
    """A loop over all channels: ``reduce(starts, lanes)`` takes ``lanes`` of them from each of ``starts`` on."""
    integer = ir.IntType(64)
    lanes, done = BYTES // itemsize, integer(0)
    for wide, count in ((lanes, TOGETHER), (lanes, 1), (1, 1)):  # what is left over goes by single vectors and numbers
        step = integer(wide * count)
        until = builder.sub(channels, builder.srem(builder.sub(channels, done), step))
        with cgutils.for_range_slice(builder, done, until, step, inc=True) as (channel, _):
            reduce([builder.add(channel, integer(v * wide)) for v in range(count)], wide)
        done = until


def make_variables(builder, kind: ir.Type, value, count: int) -> list[ir.Value]:
    """So many vectors that begin as ``value`` in every lane. The compiler keeps them in registers."""
    variables = [cgutils.alloca_once(builder, kind) for _ in range(count)]
    for variable in variables:
        builder.store(ir.Constant(kind, [value] * kind.count), variable)
    return variables


def generate_maximum(context, builder, signature, arguments):
    """The instructions: a loop over groups of channels, in it the loops over rows and columns."""
    cells, first, width, best, winner = arguments
    cells, best, winner = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3, 4))
    kind = signature.args[0].dtype
    itemsize = kind.bitwidth // 8
    number, whole = context.get_value_type(kind), context.get_value_type(signature.args[4].dtype)
    whole_size = signature.args[4].dtype.bitwidth // 8
    rows, columns, channels = (builder.extract_value(cells.shape, axis) for axis in range(3))

    def reduce(starts, lanes):
        values, places = ir.VectorType(number, lanes), ir.VectorType(whole, lanes)
        largest = make_variables(builder, values, -np.inf, len(starts))
        cell_of = make_variables(builder, places, -1, len(starts))
        with cgutils.for_range(builder, rows) as row, cgutils.for_range(builder, columns) as column:
            cell = builder.add(builder.add(first, builder.mul(row.index, width)), column.index)
            cell = spread(builder, builder.trunc(cell, whole), lanes)
            for start, one, other in zip(starts, largest, cell_of, strict=True):
                value = builder.load(locate(builder, cells, values, row.index, column.index, start), align=itemsize)
                before = builder.load(one)
                is_larger = builder.fcmp_ordered(">", value, before)
                builder.store(builder.select(is_larger, value, before), one)
                builder.store(builder.select(is_larger, cell, builder.load(other)), other)
        for start, one, other in zip(starts, largest, cell_of, strict=True):
            builder.store(builder.load(one), locate(builder, best, values, start), align=itemsize)
            builder.store(builder.load(other), locate(builder, winner, places, start), align=whole_size)

    take_channels(builder, channels, itemsize, reduce)
    return context.get_dummy_value()


def generate_mixture(context, builder, signature, arguments):
    """The instructions: as those of a maximum, with sums."""
    cells, rows, row_weights, columns, column_weights, mixture = (
        context.make_array(kind)(context, builder, argument)
        for kind, argument in zip(signature.args, arguments, strict=True)
    )
    kind = signature.args[0].dtype
    itemsize = kind.bitwidth // 8
    number, integer = context.get_value_type(kind), ir.IntType(64)
    count_y, count_x, channels = (builder.extract_value(array.shape, 0) for array in (rows, columns, mixture))

    def read(array, index, kind):
        return builder.load(locate(builder, array, kind, index))

    def reduce(starts, lanes):
        vector = ir.VectorType(number, lanes)
        sums = make_variables(builder, vector, 0.0, len(starts))
        with cgutils.for_range(builder, count_y) as i:
            row, along_y = read(rows, i.index, integer), read(row_weights, i.index, number)
            with cgutils.for_range(builder, count_x) as j:
                column, along_x = read(columns, j.index, integer), read(column_weights, j.index, number)
                weight = spread(builder, builder.fmul(along_y, along_x), lanes)
                for start, total in zip(starts, sums, strict=True):
                    value = builder.load(locate(builder, cells, vector, row, column, start), align=itemsize)
                    builder.store(builder.fadd(builder.load(total), builder.fmul(weight, value)), total)
        for start, total in zip(starts, sums, strict=True):
            builder.store(builder.load(total), locate(builder, mixture, vector, start), align=itemsize)

    take_channels(builder, channels, itemsize, reduce)
    return context.get_dummy_value()
