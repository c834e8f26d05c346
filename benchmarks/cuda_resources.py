"""``python -m benchmarks.cuda_resources``: what every CUDA kernel takes of a GPU, found out without one.

A kernel is compiled as its first launch would compile it: Numba and NVIDIA's libNVVM make PTX, the linker of
`numba-cuda` (nvJitLink, which ``pip install 'minimrcnn[cuda]'`` brings) makes machine code, and reports (a launch lets
it optimize once more, which changes registers by up to a tenth)

- registers a thread: an SM has 65,536, so that with up to 32 it holds all the threads it can, with 64 half of them;
- bytes spilled: what did not fit into registers, and goes through memory instead;
- bytes of shared memory a block.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

import numpy as np

from benchmarks.ptx.kernel import CAPABILITIES, Placed, compile_body
from minimrcnn.kernels.launch import look_at
from minimrcnn.kernels.twin import Twin
from tests.twin_arguments import ARGUMENTS


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


def compile_twin(name: str, capability: tuple[int, int]) -> str:
    """The PTX of a twin's CUDA body for the types of its first arguments in `tests.twin_arguments`."""
    arguments = ARGUMENTS[name][0](np.random.default_rng(0))
    kinds, _ = look_at([Placed(value, 0) if isinstance(value, np.ndarray) else value for value in arguments])
    return compile_body(Twin.registry[name].cuda, kinds, capability, False)


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
    print(f"{'kernel':32}{'':8}{'registers':>10}{'spilled':>10}{'shared':>10}")
    for name in ARGUMENTS:
        for capability in CAPABILITIES:
            found = measure(compile_twin(name, capability), capability)
            target = f"sm_{capability[0]}{capability[1]}"
            print(f"{name:32}{target:8}{found.registers:10}{found.spilled:10}{found.shared:10}")


if __name__ == "__main__":
    main()
