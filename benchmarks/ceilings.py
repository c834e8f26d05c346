"""What this machine can do at most, measured: a large matrix product, and a copy through memory."""

from __future__ import annotations

import time

import numpy as np
from numba import get_num_threads, njit, prange

SIDE = 1024  # of the matrices each thread multiplies
COPIED = 2**26  # float32: 256 MiB, past every cache


@njit(parallel=True, cache=True)
def multiply_everywhere(a, b, products):
    for thread in prange(len(products)):
        np.dot(a, b, products[thread])


@njit(parallel=True, cache=True)
def copy_everywhere(source, target):
    for part in prange(64):
        size = source.size // 64
        target[part * size : (part + 1) * size] = source[part * size : (part + 1) * size]


def measure_ceilings(repeats: int = 5) -> dict[str, float]:
    """The best of a few: ``gflops`` of float32 products, as the kernels run them, and ``gigabytes`` a second, read
    and written."""
    from minimrcnn.device import products_on_one_thread

    threads = get_num_threads()
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32)
    products = np.empty((threads, SIDE, SIDE), np.float32)
    source = np.ones(COPIED, np.float32)
    target = np.zeros(COPIED, np.float32)
    with products_on_one_thread():
        product_time = min(clock(multiply_everywhere, a, a, products) for _ in range(repeats + 1))
    copy_time = min(clock(copy_everywhere, source, target) for _ in range(repeats + 1))
    return {
        "gflops": 2 * threads * SIDE**3 / product_time / 1e9,
        "gigabytes": 2 * source.nbytes / copy_time / 1e9,
    }


def clock(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start
