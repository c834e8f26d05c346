"""``python -m benchmarks.ptx``: what CUDA kernels do for each number of their output, counted without a GPU.

instructions
    Of all threads together; arithmetic with 64 bits counts twice, as a GPU has 32. What a GPU makes of one, such as a
    division, may be more.
read and written
    Bytes of arrays that are not shared, in the pieces of 32 that memory hands out, of which a warp gets at once all it
    asks for at once. Caches, which serve what another warp has read before, are not counted.
asked for
    Bytes that the threads wanted, as a share of these: less where they leave some out, more than all where several
    want the same.

An H200 begins 33 million million instructions a second (132 multiprocessors, 128 lanes, 1.98 GHz) and moves 4.1 million
million bytes (measured): with more than 8 instructions for each byte that is not in a cache, it is they that take the
time. It takes half a minute. A kernel of your own: see benchmarks/ptx/__init__.py.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.ptx.kernel import MachineKernel
from benchmarks.ptx.machine import Counts
from minimrcnn.kernels.twin import Twin
from tests import twin_arguments  # noqa: F401, which registers all twins

MANY = 1 << 14


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def zeros(*shape: int, dtype=np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


NONE = zeros(0)
ROIS = np.float32([[0, 8 * i, 6 * i, 60 + 20 * i, 50 + 25 * i] for i in range(4)])
NO_RESIDUAL, NO_WINNER = zeros(0, 0, 0, 0), zeros(0, 0, 0, 0, dtype=np.int32)
TAPS = (np.arange(16 * 16 * 64).reshape(1, 16, 16, 64) * 7 % 9).astype(np.uint8)
PATCHES = (3, 3), 1, 1, (16, 16)  # kernel, stride, padding, size of the output

# As layers of a network have them, though of smaller maps: 64 to 256 channels.
TYPICAL = {
    "relu_gradient": lambda: (normal(MANY), normal(MANY), zeros(MANY)),
    "sgd": lambda: (normal(MANY), 0.02, 0.9, 1e-4, zeros(MANY), normal(MANY)),
    "adamw": lambda: (normal(MANY), 0.999, 0.01, 3.0, 1e-8, 0.9, 0.1, 0.999, 0.001, zeros(MANY), zeros(MANY),
                      normal(MANY)),
    "epilogue": lambda: (normal(1, 128, 256), normal(256), normal(128, 256), True, zeros(128, 256)),
    "scale_channels": lambda: (normal(1, 128, 256), normal(1, 256), normal(1, 256), normal(1, 128, 256), True,
                               zeros(1, 128, 256)),
    "max_pool": lambda: (normal(1, 32, 32, 64), 3, 2, 1, TAPS.copy(), zeros(1, 16, 16, 64)),
    "max_pool_gradient": lambda: (normal(1, 16, 16, 64), TAPS, 3, 2, 1, zeros(1, 32, 32, 64)),
    "gather_patches": lambda: (normal(1, 16, 16, 64), 0, *PATCHES, zeros(1, 256, 9 * 64)),
    "scatter_patches": lambda: (normal(1, 256, 9 * 64), 0, *PATCHES, 16, 0, NONE, False, zeros(16, 16, 64)),
    "convolve_narrow_groups": lambda: (normal(1, 16, 16, 64), normal(3, 3, 8, 64), NONE, NO_RESIDUAL, True, 1, 1,
                                       zeros(1, 16, 16, 64)),
    "winograd_transform_input": lambda: (normal(1, 16, 16, 64), 1, 0, 4, 4, zeros(36, 16, 64)),
    "winograd_transform_output": lambda: (normal(36, 16, 64), 0, NONE, NO_RESIDUAL, True,
                                          zeros(1, 16, 16, 64)),
    "roi_align": lambda: (normal(1, 32, 32, 256), ROIS, 0.25, 2, False, False, NO_WINNER, zeros(4, 7, 7, 256)),
    "roi_align_gradient": lambda: (normal(4, 7, 7, 256), NO_WINNER, ROIS, 0.25, 2, False, False, zeros(1, 32, 32, 256)),
    "roi_pool": lambda: (normal(1, 32, 32, 256), ROIS, 0.25, 0, zeros(4, 7, 7, 256, dtype=np.int32),
                         zeros(4, 7, 7, 256)),
    "matmul_simple": lambda: (normal(64, 64), normal(64, 64), zeros(64, 64)),
    "matmul_tiled": lambda: (normal(64, 64), normal(64, 64), zeros(64, 64)),
    "matmul_blocked": lambda: (normal(64, 64), normal(64, 64), zeros(64, 64)),
}  # fmt: skip


def count(name: str) -> tuple[float, float, float]:
    """Instructions and bytes for each number of a kernel's output, and the share of the bytes that was asked for."""
    twin, arguments, counts = Twin.registry[name], TYPICAL[name](), Counts()
    MachineKernel(twin.cuda, counts=counts, with_lines=False)[twin.grid(*arguments)](*arguments)
    size = arguments[-1].size
    return counts.instructions / size, counts.bytes / size, counts.asked / counts.bytes


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.ptx", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()  # fmt: skip
    print(f"{'for each number of the output':30}{'instructions':>14}{'read and written':>20}{'asked for':>12}")
    for name in TYPICAL:
        instructions, moved, asked = count(name)
        print(f"{name:30}{instructions:14.1f}{moved:14.1f} bytes{asked:12.0%}")


if __name__ == "__main__":
    main()
