"""Where arrays live: "cpu" (NumPy) or "cuda" (CuPy), and where kernels keep what they need in passing.

Elementwise arithmetic, reductions and small products belong to the array module ``xp``; hot loops are twins. Whatever
crosses between the two devices goes through `to_device`, so that `count_transfers` can list it: a GPU that waits for
the host is the usual reason why it is slow.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import numpy as np

from minimrcnn.kernels.twin import cuda as numba_cuda

DEVICES = ("cpu", "cuda")
HOST = (np.ndarray, np.generic)  # NumPy turns an array without axes into a scalar whenever it can
LINE = 64  # bytes of a cache line, and of the widest vector register
INSTALL = (
    'pip install "minimrcnn[cuda]" where the driver is of CUDA 13, "minimrcnn[cuda12]" where it is of CUDA 12 '
    "(nvidia-smi says which)"
)

_transfers: ContextVar[list[Transfer] | None] = ContextVar("transfers", default=None)


@dataclass(frozen=True)
class Transfer:
    """An array that went from one device to the other.

    Attributes
    ----------
    direction : {"to cpu", "to cuda"}
    where : str
        The file, as a module of this package, and the function that asked for it.
    what : str
        Type and shape.
    bytes : int
    """

    direction: str
    where: str
    what: str
    bytes: int


@contextmanager
def count_transfers():
    """List what this thread moves between host and GPU inside the block; costs nothing when it is not used.

    Yields
    ------
    list of Transfer

    Examples
    --------
    >>> with count_transfers() as transfers:
    ...     model.predict([picture])
    >>> sum(transfer.bytes for transfer in transfers)
    """
    transfers: list[Transfer] = []
    before = _transfers.set(transfers)
    try:
        yield transfers
    finally:
        _transfers.reset(before)


def device_of(array) -> str:
    """ "cuda" for an array of CuPy's, "cpu" for all else: NumPy's arrays, lists, numbers.

    The type is asked, as the property itself is made anew each time, strides, type and all.
    """
    return "cuda" if not isinstance(array, HOST) and hasattr(type(array), "__cuda_array_interface__") else "cpu"


def module_of(array):
    """The array module of an array: ``numpy`` or ``cupy``."""
    return np if device_of(array) == "cpu" else _cupy()


def to_device(array, device: str):
    """The array on a device; the array itself if it is there already.

    Raises
    ------
    ValueError
        The device is neither "cpu" nor "cuda".
    RuntimeError
        "cuda" was asked for and there is no GPU, or CuPy is not installed.
    """
    if device not in DEVICES:
        raise ValueError(f"device is {device!r}, wanted one of {', '.join(DEVICES)}")
    if device_of(array) == device:
        return array
    array = _cupy().asarray(np.asarray(array)) if device == "cuda" else array.get()
    if (transfers := _transfers.get()) is not None:
        transfers.append(Transfer(f"to {device}", _caller(), f"{array.dtype} {array.shape}", array.nbytes))
    return array


def beside(value, like, dtype=None):
    """A number, list or array on the device of the array ``like``; a number gets there without a transfer.

    Parameters
    ----------
    value : float, array_like or array
    like : array
    dtype : optional
        What it shall be there; by default what it is.
    """
    xp = module_of(like)
    if isinstance(value, (bool, int, float)):
        return xp.full((), value, dtype)
    value = to_device(value if hasattr(value, "dtype") else np.asarray(value), device_of(like))
    return value if dtype is None else xp.asarray(value, dtype=dtype)


def empty_beside(shape, like, dtype=None):
    """An array that is not filled, on the device of the array ``like`` and of its type, unless told otherwise.

    On a CPU it begins where a cache line does. NumPy's own begin at any 16 bytes, and three in four vectors of 64 bytes
    then lie across two lines: matrix products took a tenth to a quarter longer.
    """
    dtype = like.dtype if dtype is None else np.dtype(dtype)
    if device_of(like) == "cuda":
        return module_of(like).empty(shape, dtype)
    return _align(shape, dtype)


def _align(shape, dtype: np.dtype) -> np.ndarray:
    """A fresh array that begins where a cache line does."""
    spare = np.empty(math.prod(shape) * dtype.itemsize + LINE, np.uint8)
    start = -spare.__array_interface__["data"][0] % LINE
    return np.ndarray(shape, dtype, spare, start)


def _caller() -> str:
    """Who asked for a transfer: the nearest function that is neither here nor among the Tensors, which only pass on."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") in (__name__, "minimrcnn.tensor"):
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__', '').removeprefix('minimrcnn.')}.{frame.f_code.co_name}"


@cache
def _cupy():
    """CuPy, if it is there, and a GPU for it."""
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError(f'device "cuda" needs CuPy ({error}): {INSTALL}') from error
    if numba_cuda is None:
        raise RuntimeError(f'device "cuda" needs numba-cuda: {INSTALL}')
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f'device "cuda" needs an NVIDIA GPU and its driver; none was found ({error})') from error
    if count == 0:
        raise RuntimeError('device "cuda" needs an NVIDIA GPU; the driver knows of none')
    return cupy


_scratch = threading.local()


def workspace(name: str, shape: tuple[int, ...], dtype) -> np.ndarray:
    """A scratch array that is used again by the next call of the same name; what it holds is undefined.

    Fresh memory is paid for page by page, about as dearly as the arithmetic done in it, so the buffers of the kernels
    are kept. One set for each Python thread.
    """
    store = _scratch.__dict__.setdefault("store", {})
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = store.get(name)
    if buffer is None or buffer.nbytes < wanted:
        buffer = store[name] = _align((wanted,), np.dtype(np.uint8))
    return np.ndarray(shape, dtype, buffer)


def keep_freed_memory() -> bool:
    """Ask the C library to keep what is freed instead of handing it back to the system page by page.

    A training step allocates and frees the same few hundred megabytes again and again. For programs, not for
    libraries: it holds for the whole process. True if the C library was asked (glibc only).
    """
    if not sys.platform.startswith("linux"):
        return False
    trim_threshold, mmap_max = -1, -4  # the names in malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))
