"""A stand-in for CuPy, made of NumPy: arrays that behave as if they lay on a GPU, for machines that have none.

What the host cannot touch without a transfer, it cannot touch here: a `DeviceArray` does not mix with NumPy's arrays,
is not turned into one, and nobody can ask it for a number. That is stricter than CuPy, which would copy an index or a
number without a word, so whatever gets through here has told `device.to_device` of all it moved. Fresh memory is full
of NaN; large arrays in float64, which are slow on most GPUs, are refused.

Kernels run their CPU bodies on the memory behind the arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from minimrcnn.kernels import optimizer
from minimrcnn.kernels.twin import Twin

MANY = 4096  # numbers; statistics of channels and places along an axis may be float64, maps may not
ATTRIBUTES = {"shape", "ndim", "size", "dtype", "nbytes", "itemsize", "strides", "flags"}
METHODS = {
    *("sum", "mean", "max", "min", "argmax", "any", "all", "reshape", "astype", "transpose", "swapaxes", "copy"),
    *("clip", "view", "diagonal"),
}


class DeviceArray(NDArrayOperatorsMixin):
    """An array on the device; ``memory`` is what only kernels and the module below may look at."""

    def __init__(self, memory: np.ndarray):
        self.memory = memory

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.memory.shape, "typestr": self.memory.dtype.str, "data": (0, False), "version": 3}

    @property
    def T(self):
        return wrap(self.memory.T)

    def get(self) -> np.ndarray:
        return self.memory.copy()

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, function, *rest):
        raise TypeError(f"numpy.{function.__name__} of an array on the device")

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if out is None:
            return wrap(getattr(ufunc, method)(*unwrap(inputs), **unwrap(options)))
        getattr(ufunc, method)(*unwrap(inputs), out=unwrap(out), **unwrap(options))
        return out[0]

    def __getattr__(self, name):
        if name in ATTRIBUTES:
            return getattr(self.memory, name)
        if name not in METHODS:
            raise AttributeError(f"an array on the device has no {name!r}")
        method = getattr(self.memory, name)
        return lambda *arguments, **options: wrap(method(*unwrap(arguments), **unwrap(options)))

    def __getitem__(self, index):
        return wrap(self.memory[unwrap(index)])

    def __setitem__(self, index, value):
        self.memory[unwrap(index)] = unwrap(value)

    def __len__(self):
        return len(self.memory)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def _refuse(self, *_):
        raise TypeError("a number on the device: whoever wants it must wait for the device, and move it to the host")

    __bool__ = __float__ = __int__ = __index__ = _refuse
    __hash__ = None


def unwrap(value):
    """What NumPy can work with, of arguments that hold no array of the host."""
    if isinstance(value, DeviceArray):
        return value.memory
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: an array on the host, {value.dtype} {value.shape}")
    if isinstance(value, (list, tuple)):
        return type(value)(map(unwrap, value))
    return {name: unwrap(item) for name, item in value.items()} if isinstance(value, dict) else value


def wrap(value):
    """What NumPy gave, on the device."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
        assert value.dtype != np.float64 or value.size <= MANY, f"float64 on the device: {value.shape}"
        return DeviceArray(value)
    return type(value)(map(wrap, value)) if isinstance(value, (list, tuple)) else value


class Add:
    """``xp.add``."""

    def __call__(self, *arguments):
        return wrap(np.add(*unwrap(arguments)))

    def at(self, array, index, values):
        np.add.at(*unwrap((array, index, values)))


class Module:
    """``xp``: NumPy's functions, on such arrays."""

    add = Add()

    def asarray(self, value, dtype=None):
        """From the host, which is a copy, or as it is."""
        memory = value.memory if isinstance(value, DeviceArray) else np.array(value)
        return wrap(np.asarray(memory, dtype))

    def empty(self, shape, dtype):
        return self.full(shape, np.nan if np.dtype(dtype).kind == "f" else 99, dtype)

    def empty_like(self, array):
        return self.empty(array.shape, array.dtype)

    def argsort(self, array, kind):
        assert kind == "stable", "CuPy knows no other"
        array = unwrap(array)
        first = np.isnan(array) & np.signbit(array)  # its radix sort goes by the bits
        return wrap(np.lexsort((array, ~first)))

    def __getattr__(self, name):
        function = getattr(np, name)
        return lambda *arguments, **options: wrap(function(*unwrap(arguments), **unwrap(options)))


def channel_sums(x, y_gradient, y, backward, relu, sums):
    """As the GPU leaves them: so many terms in float32. The CPU's body leaves others, in float64."""
    g = x.astype(float) if not backward else np.where(y > 0, y_gradient, 0.0) if relu else y_gradient.astype(float)
    sums[:] = 0
    sums[:, 0, 0], sums[:, 0, 1] = g.sum(axis=1), (g * x).sum(axis=1)
    total = sums[:, 0].astype(float)
    sums[:, 1, 0], sums[:, 1, 1] = g.sum(axis=1) - total[:, 0], (g * x).sum(axis=1) - total[:, 1]


def square_sums(values, sums):
    sums[:] = np.add.reduceat(values.astype(float) ** 2, np.arange(0, values.size, optimizer.SQUARES_BLOCK))


BODIES = {"channel_sums": channel_sums, "square_sums": square_sums}


def launch(self: Twin, *arguments) -> None:
    """In place of `Twin.launch`: the CPU's body on the memory behind the arrays."""
    assert self.cuda is not None, f"{self.name} has no CUDA body"
    body = BODIES.get(self.name, self.cpu)
    if arguments[-1].size > 0:
        body(*unwrap(arguments))
