"""A matrix turned over: rows become columns, a square of it in registers at a time.

Number by number, either what is read or what is written lies a row apart. Rows are often a power of two long, and then
the same few places of the first cache are wanted by all of them: what one number's line brought along was gone when the
next number's turn came. Here a line of source or target is wanted by all at once: a square of 8 by 8 floats is read as
eight vectors of a row each, turned over by moving numbers between registers, and written as eight vectors. That took a
third to a half of the time for the weights of a 3x3 convolution of 512 or 256 channels.

Numba has no word for it, so a square's turn is written in the compiler's own language, as `kernels.product`; the Python
twin is what a debugger steps into (NUMBA_DISABLE_JIT=1).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from minimrcnn.kernels.compiled import compiled_task
from minimrcnn.kernels.instructions import locate

BYTES = 32  # of a row of a square


def turn_square_in_python(source, row, column, target):
    """target[column : column + side, row : row + side] = source[row : row + side, column : column + side]'."""
    side = BYTES // source.itemsize
    target[column : column + side, row : row + side] = source[row : row + side, column : column + side].T


@intrinsic
def compiled_turn_square(typing_context, source, row, column, target):
    if source.dtype != target.dtype:
        raise TypingError(f"turn: source of {source.dtype}, target of {target.dtype}; wanted the same")
    return types.void(source, types.intp, types.intp, target), generate_turn


turn_square = turn_square_in_python if config.DISABLE_JIT else compiled_turn_square


def generate_turn(context, builder, signature, arguments):
    """The instructions. Rows and columns change places half by half: of two rows that are d apart, the one's second d
    numbers of 2 d with the other's first, for d = 4, 2 and 1."""
    source, row, column, target = arguments
    source, target = (context.make_array(signature.args[i])(context, builder, arguments[i]) for i in (0, 3))
    kind = signature.args[0].dtype
    itemsize = kind.bitwidth // 8
    side = BYTES // itemsize
    integer, vector = ir.IntType(64), ir.VectorType(context.get_value_type(kind), side)

    def choose(a, b, lanes):
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), side), lanes))

    rows = [
        builder.load(locate(builder, source, vector, builder.add(row, integer(i)), column), align=itemsize)
        for i in range(side)
    ]
    d = side // 2
    while d:
        for i in range(side):
            if i & d == 0:
                a, b = rows[i], rows[i + d]
                rows[i] = choose(a, b, [n + side - d if n & d else n for n in range(side)])
                rows[i + d] = choose(a, b, [n + side if n & d else n + d for n in range(side)])
        d //= 2
    for i, turned in enumerate(rows):
        at = locate(builder, target, vector, builder.add(column, integer(i)), row)
        builder.store(turned, at, align=itemsize)
    return context.get_dummy_value()


@compiled_task
def turn(source, target):
    """target (K, R) = source (R, K)', the numbers of either's rows side by side."""
    side = np.int64(BYTES // source.itemsize)
    rows, columns = source.shape
    whole_rows, whole_columns = rows // side * side, columns // side * side
    for row in range(0, whole_rows, side):
        for column in range(0, whole_columns, side):
            turn_square(source, row, column, target)
    for row in range(rows):
        for column in range(whole_columns if row < whole_rows else 0, columns):
            target[column, row] = source[row, column]
