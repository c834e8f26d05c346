"""Small transforms of whole vectors, compiled from the arithmetic that says what they are.

Winograd's transforms add and subtract 36 numbers in a fixed pattern, the same one for every channel. As a loop over
channels inside loops over rows and columns, each number went through memory three times, and every short loop began
with a dozen questions about arrays that might overlap. `make_transform` writes the pattern out instead: it calls a
Python function once with symbols in place of numbers, and each ``+`` and ``-`` becomes an instruction on a vector of
channels. The 36 vectors stay in registers, or nearly. It takes a quarter of the time, and a quarter of that to compile.

Its Python twin runs the same function on NumPy arrays, and is what a debugger steps into (NUMBA_DISABLE_JIT=1).
"""

from __future__ import annotations

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from minimrcnn.kernels.instructions import locate
from minimrcnn.kernels.product import VECTOR, WIDE

BYTES = VECTOR if WIDE > 1 else VECTOR // 2  # of a vector here; 36 long ones would crowd fewer registers out


class Symbol:
    """A vector that will be in a register: arithmetic on it writes instructions."""

    def __init__(self, builder, value):
        self.builder = builder
        self.value = value

    def __add__(self, other):
        return Symbol(self.builder, self.builder.fadd(self.value, other.value))

    def __sub__(self, other):
        return Symbol(self.builder, self.builder.fsub(self.value, other.value))

    def __mul__(self, factor: float):
        constant = ir.Constant(self.value.type, [factor] * self.value.type.count)
        return Symbol(self.builder, self.builder.fmul(self.value, constant))

    def __neg__(self):
        return Symbol(self.builder, self.builder.fneg(self.value))


def make_transform(function, *constants):
    """A two-dimensional transform of all channels for use in kernels, from the one-dimensional one.

    Parameters
    ----------
    function : callable
        From m values to k values, in terms of ``+``, ``-`` and ``*`` by a number.
    *constants : float
        Its arguments after the values.

    Returns
    -------
    callable
        ``transform(source, target)`` with source (m, m, C) and target (k, k, C), which must not overlap.
    """
    side = function.__code__.co_argcount - len(constants)

    def nested(square):
        """``function`` down the columns of a square of values, then along the rows of what comes out."""
        columns = [function(*column, *constants) for column in zip(*square, strict=True)]
        return [function(*row, *constants) for row in zip(*columns, strict=True)]

    def transform(source, target):
        square = [[source[i, j] for j in range(side)] for i in range(side)]
        for i, row in enumerate(nested(square)):
            for j, value in enumerate(row):
                target[i, j] = value

    @intrinsic
    def compiled_transform(typing_context, source, target):
        signature = types.void(source, target)
        return signature, lambda *given: generate_transform(nested, side, *given)

    return transform if config.DISABLE_JIT else compiled_transform


def generate_transform(nested, side, context, builder, signature, arguments):
    """The instructions of a transform: a loop over vectors of channels, and nothing but straight lines in it."""
    kind = signature.args[0].dtype
    itemsize = kind.bitwidth // 8
    source, target = (
        context.make_array(given)(context, builder, array)
        for given, array in zip(signature.args, arguments, strict=True)
    )
    number = context.get_value_type(kind)  # float or double, in LLVM's words
    integer = ir.IntType(64)
    channels = builder.extract_value(source.shape, 2)

    def transform(channel, lanes):
        """The channels from ``channel`` on, as many as there are lanes."""
        vector = ir.VectorType(number, lanes)
        square = [
            [
                Symbol(builder, builder.load(locate(builder, source, vector, i, j, channel), align=itemsize))
                for j in range(side)
            ]
            for i in range(side)
        ]
        for i, row in enumerate(nested(square)):
            for j, symbol in enumerate(row):
                builder.store(symbol.value, locate(builder, target, vector, i, j, channel), align=itemsize)

    lanes = integer(BYTES // itemsize)
    last = builder.sub(channels, lanes)
    with builder.if_else(builder.icmp_signed(">=", last, integer(0))) as (many, few):
        with many, cgutils.for_range_slice(builder, integer(0), channels, lanes, inc=True) as (channel, _):
            # The last vector begins early enough to be full: some channels are transformed twice, to the same numbers.
            is_whole = builder.icmp_signed("<=", channel, last)
            transform(builder.select(is_whole, channel, last), BYTES // itemsize)
        with few, cgutils.for_range_slice(builder, integer(0), channels, integer(1), inc=True) as (channel, _):
            transform(channel, 1)
    return context.get_dummy_value()
