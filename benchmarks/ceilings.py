"""What this machine can do at most, measured: a large matrix product, ours or BLAS's, and a copy through memory."""

from __future__ import annotations

import time

import numpy as np
from numba import get_num_threads, njit, prange
from threadpoolctl import threadpool_limits

from minimrcnn.kernels.product import multiply, pack_weight, panels_shape

SIDE = 2048  # of the matrices
COPIED = 2**26  # float32: 256 MiB, past every cache


@njit(parallel=True, cache=True)
def multiply_everywhere(a, panels, product):
    for block in prange((len(a) + 191) // 192):
        first, last = np.int64(block) * 192, min(np.int64(block) * 192 + 192, len(a))
        multiply(a[first:last], panels, np.int64(0), product[first:last, :])


@njit(parallel=True, cache=True)
def copy_everywhere(source, target):
    for part in prange(64):
        size = source.size // 64
        target[part * size : (part + 1) * size] = source[part * size : (part + 1) * size]


def measure_ceilings(repeats: int = 5) -> dict[str, float]:
    """The best of a few: ``gflops`` of float32 products and ``gigabytes`` a second, read and written."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    product, panels = np.empty_like(a), np.empty((1, 1, *panels_shape(SIDE, SIDE, a.itemsize)), np.float32)
    pack_weight(a[None], a[:0, 0], False, panels)
    source = np.ones(COPIED, np.float32)
    target = np.zeros(COPIED, np.float32)
    ours = min(clock(multiply_everywhere, a, panels[0, 0], product) for _ in range(repeats + 1))
    with threadpool_limits(get_num_threads()):
        blas = min(clock(np.dot, a, a, product) for _ in range(repeats + 1))
    copy_time = min(clock(copy_everywhere, source, target) for _ in range(repeats + 1))
    return {
        "gflops": 2 * SIDE**3 / min(ours, blas) / 1e9,
        "gigabytes": 2 * source.nbytes / copy_time / 1e9,
    }


def clock(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start
