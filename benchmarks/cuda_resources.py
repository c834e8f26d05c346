"""``python -m benchmarks.cuda_resources``: what every CUDA kernel takes of a GPU, found out without one.

A kernel is compiled as its first launch would compile it: Numba and NVIDIA's libNVVM make PTX, the linker of
`numba-cuda` (nvJitLink, which ``pip install 'minimrcnn[cuda]'`` brings) makes machine code, and reports

- registers a thread: an SM has 65,536, so that with up to 32 it holds all the threads it can, with 64 half of them;
- bytes spilled: what did not fit into registers, and goes through memory instead;
- bytes of shared memory a block.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from types import SimpleNamespace
from unittest import mock

import numba
import numpy as np

from minimrcnn.kernels.twin import Twin, cuda
from tests.twin_arguments import ARGUMENTS

CAPABILITIES = (8, 0), (9, 0)  # GPUs of 2020 (A100) and 2022 (H100, H200)


@dataclass(frozen=True)
class Resources:
    """What a kernel takes.

    Attributes
    ----------
    registers : int
        A thread.
    spilled : int
        Bytes a thread, stored and loaded together.
    shared : int
        Bytes a block.
    """

    registers: int
    spilled: int
    shared: int


def compile_ptx(name: str, number: int, capability: tuple[int, int]) -> str:
    """The PTX of a twin's CUDA body for the types of one of its argument lists in `tests.twin_arguments`."""
    arguments = ARGUMENTS[name][number](np.random.default_rng(0))
    types = tuple(numba.float32 if isinstance(argument, float) else numba.typeof(argument) for argument in arguments)
    # Numba asks the GPU at hand what to compile the shared arithmetic for. Without one, answer for it.
    device = SimpleNamespace(compute_capability=capability)
    with mock.patch("numba.cuda.dispatcher.get_current_device", lambda: device):
        ptx, _ = cuda.compile_ptx(Twin.registry[name].cuda, types, cc=capability)
    return ptx


def measure(ptx: str, capability: tuple[int, int]) -> Resources:
    """What the linker says about a kernel."""
    from cuda.bindings import nvjitlink

    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-Xptxas=-v", "-verbose"]
    linker = nvjitlink.create(len(options), options)
    try:
        code = ptx.encode()
        nvjitlink.add_data(linker, nvjitlink.InputType.PTX, code, len(code), "kernel")
        nvjitlink.complete(linker)
        log = bytearray(nvjitlink.get_info_log_size(linker))
        nvjitlink.get_info_log(linker, log)
    finally:
        nvjitlink.destroy(linker)
    return read_report(log.decode())


def read_report(report: str) -> Resources:
    """The numbers in the linker's words about one kernel."""
    registers = re.search(r"Used (\d+) registers", report)
    stores, loads = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", report).groups()
    shared = re.search(r"(\d+) bytes smem", report)
    return Resources(int(registers[1]), int(stores) + int(loads), int(shared[1]) if shared else 0)


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.cuda_resources", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()  # fmt: skip
    print(f"{'kernel':30}{'':8}{'registers':>10}{'spilled':>10}{'shared':>10}")
    for name in ARGUMENTS:
        for capability in CAPABILITIES:
            found = measure(compile_ptx(name, 0, capability), capability)
            target = f"sm_{capability[0]}{capability[1]}"
            print(f"{name:30}{target:8}{found.registers:10}{found.spilled:10}{found.shared:10}")


if __name__ == "__main__":
    main()
