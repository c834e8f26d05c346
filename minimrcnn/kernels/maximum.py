"""The largest of many cells, in every channel, and which cell that was: what RoI pooling asks of each bin.

As a loop over cells with a loop over channels inside, five numbers would go through memory for each one that is
compared: the value, and the best and its cell back and forth. `find_maximum` turns it around: four vectors of channels
at a time stay in registers, with the numbers of their cells, while all cells go by. It takes two thirds of the time.

Numba has no word for that, so it is written in the compiler's own language, as `kernels.product` and `kernels.vectors`.
Its Python twin says what it computes, and is what a debugger steps into (NUMBA_DISABLE_JIT=1).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from minimrcnn.kernels.instructions import locate, spread
from minimrcnn.kernels.vectors import BYTES

TOGETHER = 4  # vectors of channels


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


@intrinsic
def compiled_maximum(typing_context, cells, first, width, best, winner):
    return types.void(cells, types.intp, types.intp, best, winner), generate_maximum


find_maximum = maximum_in_python if config.DISABLE_JIT else compiled_maximum


def generate_maximum(context, builder, signature, arguments):
    """The instructions: a loop over groups of channels, in it the loops over rows and columns."""
    cells, first, width, best, winner = arguments
    cells, best, winner = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3, 4))
    kind = signature.args[0].dtype
    itemsize = kind.bitwidth // 8
    number, whole = context.get_value_type(kind), context.get_value_type(signature.args[4].dtype)
    whole_size = signature.args[4].dtype.bitwidth // 8
    integer = ir.IntType(64)
    rows, columns, channels = (builder.extract_value(cells.shape, axis) for axis in range(3))

    def compare(channel, lanes, count):
        """``count`` vectors from ``channel`` on. The compiler keeps these variables in registers."""
        values, places = ir.VectorType(number, lanes), ir.VectorType(whole, lanes)
        starts = [builder.add(channel, integer(v * lanes)) for v in range(count)]
        largest, cell_of = ([cgutils.alloca_once(builder, kind) for _ in starts] for kind in (values, places))
        for one, other in zip(largest, cell_of, strict=True):
            builder.store(ir.Constant(values, [-np.inf] * lanes), one)
            builder.store(ir.Constant(places, [-1] * lanes), other)
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

    lanes, done = BYTES // itemsize, integer(0)
    for wide, count in ((lanes, TOGETHER), (lanes, 1), (1, 1)):  # what is left over goes by single vectors and numbers
        step = integer(wide * count)
        until = builder.sub(channels, builder.srem(builder.sub(channels, done), step))
        with cgutils.for_range_slice(builder, done, until, step, inc=True) as (channel, _):
            compare(channel, wide, count)
        done = until
    return context.get_dummy_value()
