"""`compiled`: Numba's ``njit`` for kernels, whose results on disk are forgotten as soon as any kernel's source changes.

Numba keeps what it compiled under a hash of the file that the function is in. What a kernel takes from another file, as
a convolution takes its product, is compiled into it, but not looked at: after an edit to `kernels.product`, or a newer
version of this package, convolutions would go on with the old product. So the hash is of all files of this folder.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import warnings
from functools import cache
from hashlib import sha256
from pathlib import Path

from numba import config, njit
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import register_jitable


@cache
def hash_sources() -> bytes:
    """A hash of every file in this folder."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"\0".join(source.read_bytes() for source in sources)).digest()


class KernelCache(FunctionCache):
    """Numba's results on disk, wherever Numba keeps them, under that hash."""

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(self.cache_path, self._impl.filename_base, hash_sources())


def find_place() -> None:
    """See that Numba has a place for what it compiles, or it would refuse to load a kernel.

    Where it may write neither beside the source nor in the user's folder, as in a container that runs as whoever, that
    is a folder which goes when this process ends.
    """
    try:
        KernelCache(find_place)
    except RuntimeError:
        place = tempfile.mkdtemp(prefix="minimrcnn-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ["NUMBA_CACHE_DIR"] = config.CACHE_DIR = place  # also of the processes that help to compile
        warnings.warn(
            "there is no place to keep compiled kernels, so every start takes a minute longer: set NUMBA_CACHE_DIR to "
            "a folder that may be written",
            stacklevel=2,
        )


def compiled(**options):
    """A decorator: compile for the CPU at the first call, with Numba's ``options``, and keep the result on disk.

    Dividing by zero gives infinity, as in NumPy.
    """

    def decorate(function):
        kernel = njit(error_model="numpy", **options)(function)
        if not config.DISABLE_JIT:
            kernel._cache = KernelCache(function)
        return kernel

    return decorate


if not config.DISABLE_JIT:
    find_place()

# The work that one turn of a parallel loop does, compiled for calls from kernels alone: without the two entries that
# Python and C would use, which are a twentieth of the time to compile.
compiled_task = compiled(no_cpython_wrapper=True, no_cfunc_wrapper=True)


@register_jitable
def clear(rows):
    """rows (R, C) = 0, in a loop: an assignment to a slice takes seconds to compile."""
    for r in range(len(rows)):
        row = rows[r]
        for c in range(row.size):
            row[c] = 0
