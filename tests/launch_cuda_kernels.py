"""``python -m tests.launch_cuda_kernels``: every CUDA kernel once, on small arrays; needs a GPU.

Short enough for NVIDIA's compute-sanitizer, which slows a kernel down a hundredfold: so does `benchmarks/gpu_check.sh`.
"""

from __future__ import annotations

import numpy as np

from minimrcnn.device import to_device
from minimrcnn.kernels.twin import Twin
from tests.twin_arguments import ARGUMENTS

TERMS = {"channel_sums": 1}  # bodies that leave different terms of the same sum, and along which axis


def launch(name: str, number: int) -> tuple[list, list]:
    """A list of a twin's arguments on the host, and the same on the GPU after the launch."""
    here = ARGUMENTS[name][number](np.random.default_rng(number))
    there = [copy_to_gpu(value) if isinstance(value, np.ndarray) else value for value in here]
    Twin.registry[name](*there)
    return here, there


def copy_to_gpu(array: np.ndarray):
    """A copy of an array; of one whose second and third axis are swapped, such a one."""
    if array.flags.c_contiguous:
        return to_device(array.copy(), "cuda")
    return to_device(np.ascontiguousarray(array.swapaxes(1, 2)), "cuda").swapaxes(1, 2)


def compare(name: str, number: int) -> float:
    """The largest difference of an array, over the largest value, between a twin's bodies for a list of arguments."""
    return difference(name, *launch(name, number))


def difference(name: str, here: list, there: list) -> float:
    """The same, of arguments for the CPU's body and of arguments after a launch of the other."""
    Twin.registry[name].cpu(*here)
    worst = 0.0
    for a, b in zip(here, there, strict=True):
        if isinstance(a, np.ndarray) and a.dtype.kind == "u" and not np.array_equal(a, to_device(b, "cpu")):
            return float("inf")  # numbers or bits, exact or wrong
        if isinstance(a, np.ndarray) and a.size:
            a, b = a.astype(float), to_device(b, "cpu").astype(float)
            if a.shape == here[-1].shape and name in TERMS:
                a, b = a.sum(axis=TERMS[name]), b.sum(axis=TERMS[name])
            fine = np.isfinite(a)
            if not np.array_equal(a[~fine], b[~fine], equal_nan=True):
                return float("inf")
            a, b = a[fine], b[fine]
            worst = max(worst, float(np.abs(a - b).max(initial=0) / max(np.abs(a).max(initial=0), 1e-30)))
    return worst


def main() -> None:
    import cupy

    cupy.cuda.set_allocator(None)  # its pool hands out more than it was asked for, and an overrun would go unseen
    for name, makers in ARGUMENTS.items():
        for number in range(len(makers)):
            _, there = launch(name, number)
            to_device(there[-1], "cpu")  # waits, so that a fault is this kernel's
            print(name, number)


if __name__ == "__main__":
    main()
