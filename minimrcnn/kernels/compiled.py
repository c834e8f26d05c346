"""`compiled`: Numba's ``njit`` for kernels, whose results on disk are forgotten as soon as any kernel's source changes.

Numba keeps what it compiled under a hash of the file that the function is in. What a kernel takes from another file, as
a convolution takes its product, is compiled into it, but not looked at: after an edit to `kernels.product`, or a newer
version of this package, convolutions would go on with the old product. So the hash is of all files of this folder.
"""

from __future__ import annotations

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
