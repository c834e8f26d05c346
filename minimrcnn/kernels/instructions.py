"""Words for kernels that are written in the compiler's own language, LLVM."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils


def locate(builder, array, kind: ir.Type, *indices) -> ir.Value:
    """The address of array[indices] as that of a ``kind``: a number, or a vector of what lies side by side.

    Parameters
    ----------
    builder : IRBuilder
    array : structure of an array, as Numba's ``context.make_array`` gives it
    kind : ir.Type
    *indices : int or ir.Value
        Of the first axes.
    """
    integer = ir.IntType(64)
    address = builder.ptrtoint(array.data, integer)
    for axis, index in enumerate(indices):
        index = integer(index) if isinstance(index, int) else index
        address = builder.add(address, builder.mul(index, builder.extract_value(array.strides, axis)))
    return builder.inttoptr(address, kind.as_pointer())


def prefetch(builder, place: ir.Value) -> None:
    """Have the line of memory at an address brought to the caches; if there is none, nothing happens."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    instruction = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
    to_read, to_first_cache, of_data = number(0), number(3), number(1)
    builder.call(instruction, [builder.bitcast(place, byte), to_read, to_first_cache, of_data])


def declare_fused(builder, vector: ir.VectorType) -> ir.Function:
    """``fused(a, b, c)`` = a * b + c of such vectors of floats or doubles, rounded once where the processor can."""
    name = f"llvm.fmuladd.v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)


def spread(builder, value: ir.Value, lanes: int) -> ir.Value:
    """A vector of so many times the same number."""
    some = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    first = builder.insert_element(some, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))
