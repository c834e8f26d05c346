"""A CUDA kernel's way to the GPU: Numba compiles it, CuPy's driver starts it.

Most kernels of a network are done in some ten microseconds, so what it costs the host to start one decides how fast the
network is. Numba asks every argument what it is, through protocols made for arrays of any library, and wraps each anew.
Here the few kinds of arguments that kernels have are told apart by a look at each, and their numbers are written where
the driver fetches them:

    array         0, 0 (who owns it: nobody, on a GPU), its size, bytes of a number, address, shape, strides
    tuple         its numbers
    int           64 bits
    float         32 bits
    bool          a byte

in the order in which Numba's kernels expect them. The launch goes into CuPy's current stream, behind whatever CuPy does.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from functools import partial

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from minimrcnn.kernels.compiled import hash_sources

WORD = 8  # bytes between one number and the next
SCALARS = {bool: (types.boolean, "?7x"), int: (types.int64, "q"), np.float32: (types.float32, "f4x")}  # type, format


def describe(argument) -> tuple:
    """What tells an argument's type from others'.

    Raises
    ------
    TypeError
        It is neither an array, nor a tuple of ints, nor an int, a bool or a float32.
    """
    kind = type(argument)
    if kind in SCALARS:
        return (kind,)
    if kind is tuple and all(type(number) is int for number in argument):
        return kind, len(argument)
    if hasattr(kind, "__cuda_array_interface__"):
        return argument.dtype, argument.ndim, bool(argument.flags.c_contiguous)
    raise TypeError(f"a kernel takes CUDA arrays, ints, bools, float32 and tuples of ints, got {kind.__name__}")


def numba_type(description: tuple):
    """Numba's type of an argument of that description."""
    kind = description[0]
    if kind in SCALARS:
        return SCALARS[kind][0]
    if kind is tuple:
        return types.UniTuple(types.int64, description[1])
    dtype, axes, contiguous = description
    return types.Array(from_dtype(dtype), axes, "C" if contiguous else "A")


def word_format(description: tuple) -> str:
    """The numbers of such an argument, in `struct`'s words, each of them `WORD` bytes."""
    kind = description[0]
    if kind in SCALARS:
        return SCALARS[kind][1]
    return "q" * (description[1] if kind is tuple else 5 + 2 * description[1])


def numbers_of(argument) -> tuple:
    """The numbers themselves."""
    kind = type(argument)
    if kind in SCALARS:
        return (argument,)
    if kind is tuple:
        return argument
    return 0, 0, argument.size, argument.itemsize, argument.data.ptr, *argument.shape, *argument.strides


class Packer:
    """Memory for the arguments of a launch, and a list of where each number is.

    Parameters
    ----------
    descriptions : tuple of tuple
        One for each argument, of `describe`.

    Attributes
    ----------
    addresses : int
        Where the list is.
    """

    def __init__(self, descriptions: tuple):
        self.format = struct.Struct("<" + "".join(map(word_format, descriptions)))
        self.memory = ctypes.create_string_buffer(self.format.size)
        first, words = ctypes.addressof(self.memory), self.format.size // WORD
        self.list = (ctypes.c_void_p * words)(*range(first, first + self.format.size, WORD))
        self.addresses = ctypes.addressof(self.list)

    def write(self, arguments) -> None:
        """Put the arguments there."""
        self.format.pack_into(self.memory, 0, *[number for argument in arguments for number in numbers_of(argument)])


class CudaKernel:
    """A kernel that is compiled for the types of its first launch; ``kernel[blocks, threads](*arguments)`` starts it.

    What was compiled is kept on disk, as long as no kernel's source changes (`kernels.compiled`).

    Parameters
    ----------
    dispatcher : numba's ``cuda.jit(body, cache=True)``
    """

    def __init__(self, dispatcher):
        self.dispatcher = dispatcher
        cache = dispatcher._cache
        cache._cache_file = type(cache._cache_file)(cache.cache_path, cache._impl.filename_base, hash_sources())
        self.ready: dict[tuple, tuple[int, Packer]] = {}
        self.lock = threading.Lock()

    def __getitem__(self, grid: tuple[int, int]):
        return partial(self.launch, *grid)

    def launch(self, blocks: int, threads: int, *arguments) -> None:
        """Start a grid of so many blocks of so many threads."""
        descriptions = tuple(map(describe, arguments))
        with self.lock:  # from here to the launch, which fetches the numbers, the memory is this launch's
            if descriptions not in self.ready:
                self.ready[descriptions] = self.compile(descriptions), Packer(descriptions)
            function, packer = self.ready[descriptions]
            packer.write(arguments)
            self.start(function, blocks, threads, packer.addresses)

    def compile(self, descriptions: tuple) -> int:
        """The driver's handle of the kernel for arguments of such types."""
        kernel = self.dispatcher.compile(tuple(map(numba_type, descriptions)))
        return int(kernel.library.get_cufunc().handle)

    @staticmethod
    def start(function: int, blocks: int, threads: int, addresses: int) -> None:
        """The driver's call. It copies the numbers before it returns; the GPU may start later."""
        import cupy

        stream = cupy.cuda.get_current_stream().ptr
        cupy.cuda.driver.launchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, addresses, 0)
