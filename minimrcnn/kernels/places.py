"""An array's numbers by their places in memory, counted in 32 bits; for CUDA bodies.

A GPU calculates with 32 bits, and takes two to five instructions where there are 64, as in ``x[n, row, column, c]``.
Kernels that do little with what they read, which are most, spent up to a third of their instructions on that: RoI
pooling took 335 for each number, and takes 228 (`python -m benchmarks.ptx` counts them). `Twin.launch` sees to it that
32 bits are enough. A sum is written in the GPU's own language, as the compiler would make it one of 64 bits again; the
Python twins of these words run in the simulator.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.errors import TypingError
from numba.extending import intrinsic


def multiply_add(a, b, c):
    """a * b + c, without sign."""
    return np.uint32(int(a) * int(b) + int(c) & 0xFFFFFFFF)


def read_at(x, place):
    """The number at a place of a C-contiguous array."""
    return x.reshape(x.size)[place]


def read_run(x, place):
    """The four numbers from a place on: the compiler works out one address for all of them."""
    return read_at(x, place), read_at(x, place + 1), read_at(x, place + 2), read_at(x, place + 3)


def write_at(y, place, value):
    """Put a number there."""
    y.reshape(y.size)[place] = value


def check(array) -> None:
    """Only of C-contiguous arrays: in others a place is not where it is looked for."""
    if not (isinstance(array, types.Array) and array.layout == "C"):
        raise TypingError(f"places are those of C-contiguous arrays, got {array}")


def find_address(context, builder, kind, array, place):
    """The address of a place."""
    array = context.make_array(kind)(context, builder, array)
    return builder.gep(array.data, [builder.zext(place, ir.IntType(64))])


@intrinsic
def compiled_multiply_add(typing_context, a, b, c):
    def generate(context, builder, signature, arguments):
        number = ir.IntType(32)
        kind = ir.FunctionType(number, [number] * 3)
        return builder.asm(kind, "mad.lo.u32 $0, $1, $2, $3;", "=r,r,r,r", arguments, side_effect=False)

    return types.uint32(types.uint32, types.uint32, types.uint32), generate


@intrinsic
def compiled_read_at(typing_context, x, place):
    def generate(context, builder, signature, arguments):
        return context.unpack_value(builder, x.dtype, find_address(context, builder, x, *arguments))

    check(x)
    return x.dtype(x, types.uint32), generate


@intrinsic
def compiled_read_run(typing_context, x, place):
    def generate(context, builder, signature, arguments):
        first = find_address(context, builder, x, *arguments)
        addresses = [builder.gep(first, [ir.Constant(ir.IntType(64), k)]) for k in range(4)]
        numbers = [context.unpack_value(builder, x.dtype, address) for address in addresses]
        return context.make_tuple(builder, signature.return_type, numbers)

    check(x)
    return types.UniTuple(x.dtype, 4)(x, types.uint32), generate


@intrinsic
def compiled_write_at(typing_context, y, place, value):
    def generate(context, builder, signature, arguments):
        array, place, value = arguments
        context.pack_value(builder, y.dtype, value, find_address(context, builder, y, array, place))
        return context.get_dummy_value()

    check(y)
    return types.void(y, types.uint32, y.dtype), generate


if not (config.ENABLE_CUDASIM or config.DISABLE_JIT):
    multiply_add, read_at, read_run, write_at = (
        compiled_multiply_add, compiled_read_at, compiled_read_run, compiled_write_at
    )  # fmt: skip
