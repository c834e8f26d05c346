"""Where arrays live: "cpu" (NumPy) or "cuda" (CuPy), and where kernels keep what they need in passing.

Elementwise arithmetic, reductions and small products belong to the array module ``xp``; hot loops are twins.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
from functools import cache

import numpy as np

DEVICES = ("cpu", "cuda")
HOST = (np.ndarray, np.generic)  # NumPy turns an array without axes into a scalar whenever it can


def device_of(array) -> str:
    """ "cpu" for what is NumPy's, "cuda" for a CuPy array."""
    return "cpu" if isinstance(array, HOST) else "cuda"


def module_of(array):
    """The array module of an array: ``numpy`` or ``cupy``."""
    return np if isinstance(array, HOST) else _cupy()


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
    if device == "cuda":
        return _cupy().asarray(array)
    return array if isinstance(array, HOST) else array.get()


@cache
def _cupy():
    try:
        import cupy
    except ImportError as error:
        raise RuntimeError('device "cuda" needs CuPy: pip install "minimrcnn[cuda]"') from error
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError('device "cuda" needs an NVIDIA GPU and its driver; none was found') from error
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
        buffer = store[name] = np.empty(wanted, np.uint8)
    return buffer[:wanted].view(dtype).reshape(shape)


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
