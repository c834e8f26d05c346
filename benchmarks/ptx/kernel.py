"""A CUDA kernel in the machine: it is compiled for the types of its arguments, and launched on arrays of the host.

`run_in_machine` stands where a GPU would: whatever asks a `Twin` for its CUDA body then runs on this.
"""

from __future__ import annotations

import ctypes
import inspect
from functools import cache, partial
from types import SimpleNamespace
from unittest import mock

import numpy as np
from numba import config

from benchmarks.ptx.machine import Counts, run
from benchmarks.ptx.memory import ALIGNED, Fault, Grid, Memory, Region
from benchmarks.ptx.program import Program, parse
from minimrcnn.kernels.launch import Packer, look_at, numba_type
from minimrcnn.kernels.twin import Twin, cuda

CAPABILITIES = (8, 0), (9, 0)  # GPUs of 2020 (A100) and 2022 (H100, H200)
MOST_THREADS = 1024  # of a block
MOST_SHARED = 48 << 10  # bytes of a block, in arrays whose size is known to the compiler


class Placed:
    """What `minimrcnn.kernels.launch` asks of an array on a GPU; this one is on the host, at an address of any kind."""

    __cuda_array_interface__ = None

    def __init__(self, array: np.ndarray, address: int):
        self.array, self.data = array, SimpleNamespace(ptr=address)

    def __getattr__(self, name):
        return getattr(self.array, name)


def place_arrays(arguments: dict, memory: Memory) -> list:
    """The arguments with their arrays in the machine's memory: themselves, not copies.

    Views of one array are views of one there, too, and what lies between them is theirs; what lies around them is not.
    One that begins at no multiple of `ALIGNED` bytes does so there.

    Parameters
    ----------
    arguments : dict
        By their names.
    memory : Memory

    Raises
    ------
    ValueError
        The same memory is two arrays with numbers of different sizes.
    """
    arrays = {name: value for name, value in arguments.items() if isinstance(value, np.ndarray)}
    ends = {name: np.lib.array_utils.byte_bounds(array) for name, array in arrays.items() if array.size}
    placed = {name: Placed(array, 0) for name, array in arrays.items()}
    high = 0
    groups: list[list[str]] = []  # of arrays whose memory overlaps
    for name in sorted(ends, key=ends.get):
        if ends[name][0] >= high:
            groups.append([])
        groups[-1].append(name)
        high = max(high, ends[name][1])
    for group in groups:
        some = [arrays[name] for name in arrays if name in group]  # in the order of the arguments
        if len({array.itemsize for array in some}) > 1:
            raise ValueError(f"{' and '.join(group)} are the same memory with numbers of different sizes")
        low, high = min(ends[name][0] for name in group), max(ends[name][1] for name in group)
        data = np.frombuffer((ctypes.c_uint8 * (high - low)).from_address(low), np.uint8)
        data.flags.writeable = any(array.flags.writeable for array in some)
        shape = some[0].shape if len(some) == 1 and some[0].flags.c_contiguous else ()
        name = " or ".join(name for name in arrays if name in group)
        address = memory.add(Region(name, data, some[0].itemsize, shape=shape, over=low % ALIGNED))
        for name in group:
            placed[name] = Placed(arrays[name], address + ends[name][0] - low)
    return [placed.get(name, value) for name, value in arguments.items()]


@cache
def compile_body(body, kinds: tuple, capability: tuple[int, int], with_lines: bool) -> str:
    """The PTX of a CUDA body, as a launch of it would compile it, before it is linked.

    What the body takes from outside itself is as it was when it was first compiled.

    Parameters
    ----------
    body : callable
    kinds : tuple
        Of its arguments, of `minimrcnn.kernels.launch.look_at`.
    capability : (int, int)
        Of the GPU.
    with_lines : bool
        Say which line of Python each instruction is of.

    Raises
    ------
    RuntimeError
        There is no compiler.
    """
    if cuda is None or config.ENABLE_CUDASIM:
        why = "Numba's simulator is on (NUMBA_ENABLE_CUDASIM)" if config.ENABLE_CUDASIM else "there is no numba-cuda"
        raise RuntimeError(f"CUDA kernels cannot be compiled: {why}; wanted a Linux with pip install -e '.[test]'")
    # Numba asks the GPU at hand what to compile the shared arithmetic for. Without one, answer for it.
    device = SimpleNamespace(compute_capability=capability)
    with mock.patch("numba.cuda.dispatcher.get_current_device", lambda: device):
        ptx, _ = cuda.compile_ptx(body, tuple(map(numba_type, kinds)), cc=capability, lineinfo=with_lines)
    return ptx


@cache
def read_body(body, kinds: tuple, capability: tuple[int, int], with_lines: bool) -> Program:
    """The same, to be run."""
    return parse(compile_body(body, kinds, capability, with_lines))


class MachineKernel:
    """``kernel[blocks, threads](*arguments)`` runs a CUDA body, as `minimrcnn.kernels.launch.CudaKernel` does on a GPU.

    Parameters
    ----------
    body : callable
        As Numba's ``cuda.jit`` takes it, or what that made of it.
    capability : (int, int)
        Of the GPU that it is compiled for.
    counts : Counts, optional
        To be added to.
    with_lines : bool
        Have faults name the line of Python, for which the compiler may choose a few other instructions.
    """

    def __init__(
        self,
        body,
        capability: tuple[int, int] = CAPABILITIES[0],
        counts: Counts | None = None,
        with_lines: bool = True,
    ):
        self.body, self.capability, self.counts = getattr(body, "py_func", body), capability, counts
        self.with_lines = with_lines

    def __getitem__(self, grid: tuple):
        return partial(self.launch, *grid)

    def launch(self, blocks, threads, *arguments) -> None:
        """To the end.

        Parameters
        ----------
        blocks, threads : int or tuple of int
            Of the grid, and of each block.
        *arguments
            NumPy's arrays, numbers, tuples of ints.

        Raises
        ------
        Fault
            The kernel does what it must not do.
        Unknown
            It is compiled to instructions that the machine does not have.
        """
        grid, name = Grid(blocks, threads), self.body.__name__
        memory = Memory(grid)
        kinds, numbers = look_at(place_arrays(inspect.signature(self.body).bind(*arguments).arguments, memory))
        packer = Packer(kinds)
        packer.write(numbers)
        program = read_body(self.body, kinds, self.capability, self.with_lines)
        shared = sum(size for _, size in program.shared.values())
        if not 0 < grid.block_size <= MOST_THREADS or grid.count < 1 or shared > MOST_SHARED:
            wanted = f"at least 1 and 1 to {MOST_THREADS}, and {MOST_SHARED} at most"
            raise Fault(
                f"{name}: {grid.count} blocks of {grid.block_size} threads that share {shared} bytes, wanted {wanted}"
            )
        try:
            run(program, packer.memory.raw[: packer.format.size], memory, self.counts)
        except Fault as fault:
            raise Fault(f"{name}: {fault}") from None


def run_in_machine(monkeypatch, capability: tuple[int, int] = CAPABILITIES[0]) -> None:
    """Have the CUDA bodies of all twins run in the machine, until pytest's ``monkeypatch`` takes it back.

    They are compiled as for a GPU, to the last instruction, so that faults do not name a line.
    """
    monkeypatch.setattr(Twin, "kernel", property(lambda twin: MachineKernel(twin.cuda, capability, with_lines=False)))
