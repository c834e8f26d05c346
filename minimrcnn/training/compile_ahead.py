"""The first start of a training compiles some forty kernels; a second process takes half of them.

Numba compiles on one core, and keeps what it compiled on disk. While the training compiles its way through a first
forward pass, a helper process calls the kernels of the backward pass with tiny arrays; the training then finds them on
disk. The helper is no more than a head start: should it fail, the training compiles everything itself.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, suppress

import numpy as np

from minimrcnn.functional import conv, max_pool2d, pool_rois, upsample_nearest
from minimrcnn.functional.conv import relu_gradient
from minimrcnn.kernels import elementwise, normalization
from minimrcnn.tensor import Tensor


@contextmanager
def second_compiler():
    """Run `compile_gradients` in a process of its own meanwhile, if the smallest kernel is not on disk either."""
    before = count_compilations()
    relu_gradient(np.zeros(1, np.float32), np.zeros(1, np.float32))
    if count_compilations() == before:
        yield
        return
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        yield
        return
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):  # what it is still at is wanted by nobody any longer
            process.terminate()
            process.wait(10)


def count_compilations() -> int:
    """How often this process did not find the smallest kernel on disk."""
    stats = getattr(elementwise.relu_gradient.cpu, "stats", None)  # none under NUMBA_DISABLE_JIT=1
    return sum(stats.cache_misses.values()) if stats else 0


def compile_gradients() -> None:
    """Call what the training comes to last, with its types, and in its order: RoIs, then the backward pass."""
    x, weight = np.zeros((1, 8, 8, 16), np.float32), np.zeros((3, 3, 16, 16), np.float32)
    leaf = Tensor(x, requires_grad=True)
    for y in (pool_rois([leaf], np.float32([[0, 0, 0, 9, 9]]), 7, [4]), upsample_nearest(leaf, 16)):
        y.backward(np.zeros(y.shape, np.float32))
    conv.input_gradient(x, weight, x.shape, 1, 1, 1, "patches")  # the mask head's transposed convolution as well
    for algorithm in ("patches", "winograd"):
        conv.kernel_gradient(x, x, weight.shape, 1, 1, 1, algorithm)

    rows, channels = x.reshape(1, 64, 16), np.zeros((1, 16), np.float32)
    residual = np.zeros_like(rows)
    normalization.normalization_gradient(
        rows, rows, rows, True, channels, channels, channels, 1, residual, np.empty_like(rows)
    )
    pooled = max_pool2d(leaf, 3, 2, 1)
    pooled.backward(np.zeros(pooled.shape, np.float32))


if __name__ == "__main__":
    compile_gradients()
