"""A twin's CUDA body in the machine: it is compiled for the types of its arguments, and launched on arrays of the host.

`run_in_machine` stands where a GPU would: whatever asks a `Twin` for its CUDA body then runs on this.
"""

from __future__ import annotations

from functools import cache, partial
from types import SimpleNamespace
from unittest import mock

import numpy as np

from benchmarks.ptx.machine import Counts, run
from benchmarks.ptx.memory import Memory, Region
from benchmarks.ptx.program import Program, parse
from minimrcnn.kernels.launch import Packer, look_at, numba_type
from minimrcnn.kernels.twin import Twin, cuda

CAPABILITIES = (8, 0), (9, 0)  # GPUs of 2020 (A100) and 2022 (H100, H200)


class Placed:
    """What `minimrcnn.kernels.launch` asks of an array on a GPU; this one is on the host, at an address of any kind."""

    __cuda_array_interface__ = None

    def __init__(self, array: np.ndarray, address: int):
        self.array, self.data = array, SimpleNamespace(ptr=address)

    def __getattr__(self, name):
        return getattr(self.array, name)


def place(array: np.ndarray, memory: Memory, addresses: dict[int, int], name: str) -> Placed:
    """An array in the machine's memory: itself, not a copy, so that views of one array are views of one there.

    Parameters
    ----------
    array : ndarray
    memory : Memory
    addresses : dict
        Of what is there already; may get one more.
    name : str
        For messages.
    """
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    if id(owner) not in addresses:
        numbers = owner.ravel(order="K").view(np.uint8)
        if numbers.size > 0 and not np.shares_memory(numbers, owner):
            raise ValueError(f"{name} is not one piece of memory")
        addresses[id(owner)] = memory.add(Region(name, numbers, array.itemsize))
    return Placed(array, addresses[id(owner)] + array.ctypes.data - owner.ctypes.data)


@cache
def compile_body(body, kinds: tuple, capability: tuple[int, int]) -> str:
    """The PTX of a CUDA body, as a launch of it would compile it.

    Parameters
    ----------
    body : callable
    kinds : tuple
        Of its arguments, of `minimrcnn.kernels.launch.look_at`.
    capability : (int, int)
        Of the GPU.
    """
    # Numba asks the GPU at hand what to compile the shared arithmetic for. Without one, answer for it.
    device = SimpleNamespace(compute_capability=capability)
    with mock.patch("numba.cuda.dispatcher.get_current_device", lambda: device):
        ptx, _ = cuda.compile_ptx(body, tuple(map(numba_type, kinds)), cc=capability)
    return ptx


@cache
def read_body(body, kinds: tuple, capability: tuple[int, int]) -> Program:
    """The same, to be run."""
    return parse(compile_body(body, kinds, capability))


class MachineKernel:
    """``kernel[blocks, threads](*arguments)`` runs a CUDA body, as `minimrcnn.kernels.launch.CudaKernel` does on a GPU.

    Parameters
    ----------
    body : callable
    capability : (int, int)
        Of the GPU that it is compiled for.
    counts : Counts, optional
        To be added to.
    """

    def __init__(self, body, capability: tuple[int, int] = CAPABILITIES[0], counts: Counts | None = None):
        self.body, self.capability, self.counts = body, capability, counts

    def __getitem__(self, grid: tuple[int, int]):
        return partial(self.launch, *grid)

    def launch(self, blocks: int, threads: int, *arguments) -> None:
        """To the end; arrays are NumPy's.

        Raises
        ------
        benchmarks.ptx.memory.Fault
            The kernel does what it must not do.
        """
        memory, addresses = Memory(threads), {}
        there = [
            place(argument, memory, addresses, f"argument {number}") if isinstance(argument, np.ndarray) else argument
            for number, argument in enumerate(arguments)
        ]
        kinds, numbers = look_at(there)
        packer = Packer(kinds)
        packer.write(numbers)
        program = read_body(self.body, kinds, self.capability)
        run(program, packer.memory.raw[: packer.format.size], memory, blocks, threads, self.counts)


def run_in_machine(monkeypatch, capability: tuple[int, int] = CAPABILITIES[0]) -> None:
    """Have the CUDA bodies of all twins run in the machine, until pytest's ``monkeypatch`` takes it back."""
    monkeypatch.setattr(Twin, "kernel", property(lambda twin: MachineKernel(twin.cuda, capability)))
