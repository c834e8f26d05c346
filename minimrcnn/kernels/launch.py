"""A CUDA kernel's way to the GPU: Numba compiles it, CuPy's driver starts it.

Most kernels of a network are done in some ten microseconds, so what it costs the host to start one decides how fast the
network is. Numba asks every argument what it is, through protocols made for arrays of any library, and wraps each anew:
122 to 187 us for three to six of them, on the host of an H200. Here the few kinds of arguments that kernels have are
told apart by a look at each, and their numbers are written where the driver fetches them, in a tenth of the time:

    array         0, 0 (who owns it: nobody, on a GPU), its size, bytes of a number, address, shape, strides
    tuple         its numbers
    int           64 bits
    float         32 bits
    bool          a byte

in the order in which Numba's kernels expect them. A launch goes into CuPy's current stream, behind whatever CuPy does.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from functools import partial
from importlib.metadata import version

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from minimrcnn.kernels.compiled import hash_sources

WORD = 8  # bytes between one number and the next
SCALARS = {  # their types in a kernel, and in `struct`'s words
    **dict.fromkeys((bool, np.bool_), (types.boolean, "?7x")),
    **dict.fromkeys((int, np.int64, np.int32), (types.int64, "q")),
    **dict.fromkeys((float, np.float64, np.float32), (types.float32, "f4x")),
}

_thread = threading.local()


def look_at(arguments) -> tuple[tuple, list]:
    """What tells the arguments' types from others', and all their numbers.

    Raises
    ------
    TypeError
        One is neither an array of CuPy's, nor a number, nor a tuple of ints.
    """
    kinds, numbers = [], []
    for argument in arguments:
        kind = type(argument)
        if kind in SCALARS:
            kinds.append(kind)
            numbers.append(argument)
        elif kind is tuple:
            kinds.append(len(argument))
            numbers += argument
        elif hasattr(kind, "__cuda_array_interface__") and hasattr(argument.data, "ptr"):
            kinds.append((argument.dtype, argument.ndim, argument.flags.c_contiguous))
            numbers += 0, 0, argument.size, argument.itemsize, argument.data.ptr
            numbers += argument.shape
            numbers += argument.strides
        else:
            raise TypeError(f"a kernel takes CuPy's arrays, numbers and tuples of ints, got {kind.__name__}")
    return tuple(kinds), numbers


def numba_type(kind):
    """Numba's type of such an argument."""
    if kind in SCALARS:
        return SCALARS[kind][0]
    if isinstance(kind, int):
        return types.UniTuple(types.int64, kind)
    dtype, axes, contiguous = kind
    return types.Array(from_dtype(dtype), axes, "C" if contiguous else "A")


def word_format(kind) -> str:
    """Its numbers in `struct`'s words, each of them `WORD` bytes."""
    if kind in SCALARS:
        return SCALARS[kind][1]
    return "q" * (kind if isinstance(kind, int) else 5 + 2 * kind[1])


class Packer:
    """Memory for the numbers of a launch, and a list of where each is.

    Parameters
    ----------
    kinds : tuple
        Of the arguments, of `look_at`.

    Attributes
    ----------
    addresses : int
        Where the list is.
    """

    def __init__(self, kinds: tuple):
        self.format = struct.Struct("<" + "".join(map(word_format, kinds)))
        self.memory = ctypes.create_string_buffer(self.format.size)
        first, words = ctypes.addressof(self.memory), self.format.size // WORD
        self.list = (ctypes.c_void_p * words)(*range(first, first + self.format.size, WORD))
        self.addresses = ctypes.addressof(self.list)

    def write(self, numbers) -> None:
        """Put the numbers there."""
        self.format.pack_into(self.memory, 0, *numbers)


class CudaKernel:
    """A kernel that is compiled for the types of its first launch; ``kernel[blocks, threads](*arguments)`` starts it.

    What was compiled is kept on disk, as long as neither a kernel's source (`kernels.compiled`) nor numba-cuda changes.
    It is for the GPU that was the current one at the first launch.

    Parameters
    ----------
    dispatcher : numba's ``cuda.jit(body, cache=True)``
    """

    def __init__(self, dispatcher):
        self.dispatcher = dispatcher
        cache = dispatcher._cache
        stamp = hash_sources() + version("numba-cuda").encode()
        cache._cache_file = type(cache._cache_file)(cache.cache_path, cache._impl.filename_base, stamp)
        self.ready: dict[tuple, tuple[int, Packer]] = {}
        self.lock = threading.Lock()

    def __getitem__(self, grid: tuple[int, int]):
        return partial(self.launch, *grid)

    def launch(self, blocks: int, threads: int, *arguments) -> None:
        """Start a grid of so many blocks of so many threads."""
        kinds, numbers = look_at(arguments)
        with self.lock:  # from here to the launch, which fetches the numbers, the memory is this launch's
            if kinds not in self.ready:
                self.ready[kinds] = self.compile(kinds), Packer(kinds)
            function, packer = self.ready[kinds]
            packer.write(numbers)
            self.start(function, blocks, threads, packer.addresses)

    def compile(self, kinds: tuple) -> int:
        """The driver's handle of the kernel for arguments of such types."""
        kernel = self.dispatcher.compile(tuple(map(numba_type, kinds)))
        return int(kernel.library.get_cufunc().handle)

    @staticmethod
    def start(function: int, blocks: int, threads: int, addresses: int) -> None:
        """The driver's call. It copies the numbers before it returns; the GPU may start later."""
        import cupy

        if not hasattr(_thread, "has_context"):  # of CUDA's; CuPy's allocations make one for a thread, launches do not
            cupy.cuda.runtime.memGetInfo()
            _thread.has_context = True
        stream = cupy.cuda.get_current_stream().ptr
        cupy.cuda.driver.launchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, addresses, 0)
