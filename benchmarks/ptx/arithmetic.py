"""What PTX's arithmetic does that NumPy's does not, or otherwise."""

from __future__ import annotations

import operator

import numpy as np

from benchmarks.ptx.memory import Fault


def divide(a, b):
    """Integers are cut off towards zero."""
    return a / b if a.dtype.kind == "f" else (a - rest(a, b)) // b


def rest(a, b):
    """Of a division of integers, with the sign of what was divided."""
    if not np.all(b):
        raise Fault("an integer is divided by zero")
    return np.fmod(a, b)


def find_least(a, b):
    """NaN is no number, and -0 is less than 0."""
    zeros = np.where(np.signbit(a), a, b) if a.dtype.kind == "f" else a
    return np.where((a == 0) & (b == 0), zeros, np.fmin(a, b))


def find_most(a, b):
    """NaN is no number, and 0 is more than -0."""
    zeros = np.where(np.signbit(a), b, a) if a.dtype.kind == "f" else a
    return np.where((a == 0) & (b == 0), zeros, np.fmax(a, b))


def multiply_and_add(a, b, c):
    """Rounded once, or nearly: in float64 a product of two float32 is exact."""
    if a.dtype == np.float32:
        a, b, c = a.astype(np.float64), b.astype(np.float64), c.astype(np.float64)
    return a * b + c


def cut_off(values, to: np.dtype):
    """Whole floats as integers. NaN is 0, but where either has 64 bits, the highest bit."""
    least, most = np.iinfo(to).min, np.iinfo(to).max
    wide, is_nan = values.astype(np.float64), np.isnan(values)
    end = float(most) + (to.itemsize < 8)  # with 64 bits, float(most) is one more already
    is_above, is_below = wide >= end, wide <= float(least)
    inside = np.where(is_above | is_below | is_nan, 0, wide).astype(to)
    highest = to.type(1 << 8 * to.itemsize - 1) if to.kind == "u" else to.type(least)
    of_nan = highest if 8 in (to.itemsize, values.itemsize) else to.type(0)
    return np.select([is_nan, is_above, is_below], [of_nan, to.type(most), to.type(least)], inside)


def count_leading_zeros(a):
    """Of unsigned numbers."""
    bits, zeros = 8 * a.itemsize, np.zeros(a.shape, np.int64)
    for bit in range(bits):
        zeros += (a >> a.dtype.type(bit)) == 0
    return zeros


ELEMENTWISE = {
    "abs": np.abs, "neg": np.negative, "not": np.invert, "sqrt": np.sqrt, "rcp": np.reciprocal,
    "popc": np.bitwise_count, "clz": count_leading_zeros,
    "add": np.add, "sub": np.subtract, "div": divide, "rem": rest, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "min": find_least, "max": find_most, "mad": multiply_and_add, "fma": multiply_and_add,
}  # fmt: skip
COMPARISONS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
               "ge": np.greater_equal}  # fmt: skip
ATOMICS = {"add": operator.add, "or": operator.or_, "and": operator.and_, "xor": operator.xor, "max": max, "min": min,
           "exch": lambda before, value: value}  # fmt: skip
ROUNDINGS = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
