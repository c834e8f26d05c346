"""``python -m benchmarks.products``: our matrix product against BLAS's, on one thread, on the shapes convolutions have.

BLAS gets blocks of 1024 rows, about what a thread multiplies at a time; ours the same, and its packing of w is counted
once a call, as a convolution pays for it. Set OPENBLAS_CORETYPE=Haswell, or NUMBA_CPU_NAME=haswell, to see either as on
a processor with AVX2.
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np
from numba import njit
from threadpoolctl import threadpool_info, threadpool_limits

from minimrcnn.environment import describe_environment
from minimrcnn.kernels.product import multiply, pack, panels_shape

SHAPES = (  # rows, K, N: 1x1 convolutions, 7x7, a Winograd component, the box head, a large square
    (16320, 64, 64), (16320, 64, 256), (16320, 256, 64), (16320, 147, 64), (6800, 128, 512), (3400, 256, 256),
    (3400, 1024, 256), (3400, 256, 1024), (850, 512, 512), (1000, 12544, 1024), (2048, 2048, 2048),
)  # fmt: skip
BLOCK = 1024
ROUNDS = 7


@njit(cache=True, error_model="numpy")
def ours(x, w, panels, y):
    pack(w[:, :], panels[:, :, :])
    multiply(x, panels, np.int64(0), y)


@njit(cache=True, error_model="numpy")
def blas(x, w, y):
    for first in range(0, len(x), BLOCK):
        np.dot(x[first : first + BLOCK], w, y[first : first + BLOCK])


def main() -> None:
    import scipy.linalg.cython_blas  # noqa: F401  (loads the BLAS that Numba calls)

    kernels = {library["architecture"] for library in threadpool_info() if "architecture" in library}
    print(f"compiled for {describe_environment()['target']}; BLAS's kernels: {', '.join(kernels)}")
    print(f"{'rows':>6} {'K':>6} {'N':>5} {'ours':>8} {'BLAS':>8}  GFLOP/s, one thread   ours / BLAS")
    rng = np.random.default_rng(0)
    with threadpool_limits(1):
        for rows, inner, columns in SHAPES:
            x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((rows, inner), (inner, columns)))
            y, theirs = np.empty((2, rows, columns), np.float32)
            panels = np.empty(panels_shape(inner, columns, x.itemsize), np.float32)
            times: dict[str, list[float]] = {"ours": [], "BLAS": []}
            for _ in range(ROUNDS + 1):
                for name, function, arguments in (("ours", ours, (x, w, panels, y)), ("BLAS", blas, (x, w, theirs))):
                    start = time.perf_counter()
                    function(*arguments)
                    times[name].append(time.perf_counter() - start)
            assert np.allclose(y, theirs, rtol=1e-3, atol=1e-2), "the products differ"
            rates = [2e-9 * rows * inner * columns / median(seconds[1:]) for seconds in times.values()]
            print(f"{rows:6} {inner:6} {columns:5} {rates[0]:8.1f} {rates[1]:8.1f} {rates[0] / rates[1]:31.2f}")


if __name__ == "__main__":
    main()
