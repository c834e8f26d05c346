"""An array's numbers by their places in memory, counted in 32 bits, and four of them at once; for CUDA bodies.

A GPU calculates with 32 bits, and takes two to five instructions where there are 64, as in ``x[n, row, column, c]``.
Kernels that do little with what they read, which are most, spent up to a third of their instructions on that: RoI
pooling took 335 for each number, and takes 228 (`python -m benchmarks.ptx` counts them). `Twin.launch` sees to it that
32 bits are enough. A sum is written in the GPU's own language, as the compiler would make it one of 64 bits again.

A GPU reads and writes up to 16 bytes of a thread with one instruction, which has one address: four channels of a cell,
where they begin at a multiple of their bytes (RoI pooling then takes 174). Numba has no word for it, so it is written
in the compiler's.

The Python twins of these words run in the simulator.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic


def multiply_add(a, b, c):
    """a * b + c, without sign."""
    return np.uint32(int(a) * int(b) + int(c) & 0xFFFFFFFF)


def read_at(x, place):
    """The number at a place of a C-contiguous array."""
    return x.reshape(x.size)[place]


def write_at(y, place, value):
    """Put a number there."""
    y.reshape(y.size)[place] = value


def lies_in_fours(x):
    """Whether every fourth channel of x (.., C) begins where a GPU can read or write four numbers at once: C is a
    multiple of four, and x begins at a multiple of their bytes, which a part of another array may not."""
    return x.shape[x.ndim - 1] % 4 == 0


def read_fours(x, place):
    """Four numbers at once, of an array that lies so; the place must be that of a fourth channel."""
    return tuple(read_at(x, place + k) for k in range(4))


def write_fours(y, place, values):
    """Put four numbers there at once."""
    for k in range(4):
        write_at(y, place + k, values[k])


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
def compiled_write_at(typing_context, y, place, value):
    def generate(context, builder, signature, arguments):
        array, place, value = arguments
        context.pack_value(builder, y.dtype, value, find_address(context, builder, y, array, place))
        return context.get_dummy_value()

    check(y)
    return types.void(y, types.uint32, y.dtype), generate


@intrinsic
def compiled_lies_in_fours(typing_context, x):
    def generate(context, builder, signature, arguments):
        array, long = context.make_array(x)(context, builder, arguments[0]), ir.IntType(64)
        channels = builder.extract_value(array.shape, x.ndim - 1)
        bytes_over = builder.and_(builder.ptrtoint(array.data, long), long(x.dtype.bitwidth // 8 * 4 - 1))
        return builder.icmp_unsigned("==", builder.or_(bytes_over, builder.and_(channels, long(3))), long(0))

    check(x)
    return types.boolean(x), generate


def find_vector(context, builder, kind, array, place):
    """The address of four numbers as one, and their bytes."""
    vector = ir.VectorType(context.get_data_type(kind.dtype), 4)
    address = builder.bitcast(find_address(context, builder, kind, array, place), vector.as_pointer())
    return address, kind.dtype.bitwidth // 8 * 4


@intrinsic
def compiled_read_fours(typing_context, x, place):
    def generate(context, builder, signature, arguments):
        address, size = find_vector(context, builder, x, *arguments)
        vector = builder.load(address, align=size)
        numbers = [builder.extract_element(vector, ir.IntType(32)(k)) for k in range(4)]
        return context.make_tuple(builder, signature.return_type, numbers)

    check(x)
    return types.UniTuple(x.dtype, 4)(x, types.uint32), generate


@intrinsic
def compiled_write_fours(typing_context, y, place, values):
    def generate(context, builder, signature, arguments):
        array, place, values = arguments
        address, size = find_vector(context, builder, y, array, place)
        vector = ir.Constant(address.type.pointee, ir.Undefined)
        for k, number in enumerate(cgutils.unpack_tuple(builder, values)):
            vector = builder.insert_element(vector, number, ir.IntType(32)(k))
        builder.store(vector, address, align=size)
        return context.get_dummy_value()

    check(y)
    return types.void(y, types.uint32, types.UniTuple(y.dtype, 4)), generate


if not (config.ENABLE_CUDASIM or config.DISABLE_JIT):
    multiply_add, read_at, write_at = compiled_multiply_add, compiled_read_at, compiled_write_at
    lies_in_fours, read_fours, write_fours = compiled_lies_in_fours, compiled_read_fours, compiled_write_fours
