"""One operation, two bodies: a Numba loop for the CPU and a Numba CUDA kernel, with the same arguments, outputs last.

How a call goes:

1. An empty output asks for nothing: nothing is launched.
2. The last argument says where the work is: a NumPy array means the CPU body, an array with
   ``__cuda_array_interface__`` (CuPy's) the CUDA body. Where Numba's threads cannot serve two of Python's at once, the
   CPU body waits for its turn.
3. The CUDA body gets its numbers in float32 (a Python float would drag 64-bit arithmetic into every thread) and a
   one-dimensional grid of blocks of 128 threads, one thread for each element of the output; both unless told otherwise.
   If it adds to its output, that is filled with zeros first.

A body never allocates outputs, never checks and never returns anything: its caller does. The CUDA body is written as a
plain function and compiled at its first launch, so that importing costs nothing where there is no GPU.

What holds for the CUDA bodies: channels are innermost, so neighboring threads take neighboring channels and their loads
are one. How many threads there are follows from the arrays, never from the GPU at hand. Nothing is float64 where the
arrays are float32 (a plain ``0.5`` or ``/`` between integers would be: most GPUs are slow at it). And the same inputs
give the same bits, unless a body says otherwise.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import cached_property
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
from numba import config, threading_layer
from numba.extending import register_jitable

from minimrcnn.kernels.launch import CudaKernel

# Kernels import `cuda` from here: None without numba-cuda. Numba has an older one of its own, enough to simulate with.
cuda = None
if config.ENABLE_CUDASIM or find_spec("numba_cuda") is not None:
    with suppress(ImportError):
        from numba import cuda

THREADS_PER_BLOCK = 128
COUNTABLE = 2**32  # threads are counted in 32 bits, and so are places in an array (`kernels.places`)
TURN, NO_TURN = threading.RLock(), nullcontext()  # to run a CPU body where one at a time may, and elsewhere
WARP = 32  # threads that run in step and whose loads of neighboring numbers are one

# Where a GPU can it rounds a * b + c once, a CPU twice. A body that must decide exactly as its CPU twin does, in that a
# last bit may turn a yes into a no, multiplies float32 numbers with this.
if cuda is None or config.ENABLE_CUDASIM:
    rounded_product = operator.mul
else:
    from numba.cuda import libdevice

    rounded_product = libdevice.fmul_rn


def may_overlap() -> bool:
    """Whether several Python threads may run parallel kernels at once.

    Numba's ``workqueue``, which is what it has on macOS, ends the process then; the kernels have let go of the GIL.
    """
    try:
        return threading_layer() != "workqueue"
    except ValueError:  # the first launch will tell
        return False


@register_jitable
def divide(a, b):
    """Quotient and rest of two numbers that 32 bits can hold: a GPU takes five times as many instructions for 64."""
    a, b = np.uint32(a), np.uint32(b)
    return np.int64(a // b), np.int64(a % b)


@register_jitable
def find_cell(cell, shape):
    """The first three indices of a cell of an array (N, H, W, ..), C-contiguous; the first may be one too many."""
    row, column = divide(cell, shape[2])
    n, row = divide(row, shape[1])
    return n, row, column


@register_jitable
def find_place(element, shape):
    """Where an element of a C-contiguous array of four axes stands: four indices, the last the fastest."""
    cell, channel = divide(element, shape[3])
    n, row, column = find_cell(cell, shape)
    return n, row, column, channel


class SimulatedKernel:
    """A kernel in Numba's simulator: NumPy's arrays, and Python's floats as a kernel gets them."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, int]):
        return lambda *arguments: self.kernel[grid](
            *[np.float32(argument) if isinstance(argument, float) else argument for argument in arguments]
        )


class Twin:
    """An operation that runs where its output lives.

    Parameters
    ----------
    name : str
        The operation's name; also its key in `Twin.registry`.
    cpu : callable
        The body for NumPy arrays, usually `compiled`.
    cuda : callable, optional
        The body of a CUDA kernel as a plain function; it asks for its thread's number with ``cuda.grid(1)`` and returns
        if that is beyond its work. None where a GPU does it in other steps (`functional.conv_cuda`).
    threads : callable, optional
        ``threads(*arguments)`` is the number of CUDA threads wanted; by default the size of the last argument.
    block : int
        CUDA threads of a block; matters where they work together.
    adds : bool
        Whether the CUDA body adds to the last argument, which then is filled with zeros first.
    """

    registry: ClassVar[dict[str, Twin]] = {}

    def __init__(
        self,
        name: str,
        cpu: Callable,
        cuda: Callable | None = None,
        threads: Callable[..., int] | None = None,
        block: int = THREADS_PER_BLOCK,
        adds: bool = False,
    ):
        if name in Twin.registry:
            raise ValueError(f"Twin: an operation named {name!r} is there already")
        self.name = name
        self.cpu = cpu
        self.cuda = cuda
        self.block = block
        self.adds = adds
        self.threads = threads if threads is not None else lambda *arguments: arguments[-1].size
        Twin.registry[name] = self

    def __call__(self, *arguments) -> None:
        output = arguments[-1]
        if isinstance(output, np.ndarray):
            if output.size > 0:
                with NO_TURN if may_overlap() else TURN:
                    self.cpu(*arguments)
        elif hasattr(type(output), "__cuda_array_interface__"):  # CuPy makes the property itself anew each time
            self.launch(*arguments)
        else:
            raise TypeError(f"{self.name}: the output is a {type(output).__name__}, wanted a NumPy or a CUDA array")

    def launch(self, *arguments) -> None:
        """Run the CUDA body, wherever the arrays live (the simulator takes NumPy's)."""
        if self.adds:
            arguments[-1].fill(0)
        blocks, threads = self.grid(*arguments) if arguments[-1].size > 0 else (0, 0)
        if blocks > 0:
            arrays = [value for value in arguments if hasattr(value, "size")]
            if max([blocks * threads, *[array.size for array in arrays]]) >= COUNTABLE:
                biggest = max(arrays, key=operator.attrgetter("size"))
                what = f"{blocks * threads} threads and an array of shape {biggest.shape}"
                raise ValueError(f"{self.name}: {what}, wanted less than 2^32 of each; take fewer pictures at a time")
            self.kernel[blocks, threads](*arguments)

    def grid(self, *arguments) -> tuple[int, int]:
        """The blocks of a launch, and the threads of each."""
        return -(-self.threads(*arguments) // self.block), self.block

    @cached_property
    def kernel(self):
        """The CUDA body, ready to be compiled for the types of its first launch."""
        if self.cuda is None:
            raise NotImplementedError(f"{self.name}: no CUDA body; move the arrays to the CPU")
        if cuda is None:
            raise NotImplementedError(f"{self.name}: CUDA kernels are compiled with numba-cuda; install it")
        if config.ENABLE_CUDASIM:
            return SimulatedKernel(cuda.jit(self.cuda))
        return CudaKernel(cuda.jit(self.cuda, cache=True))

    def __repr__(self) -> str:
        return f"Twin({self.name!r}, cpu{'' if self.cuda is None else ' and cuda'})"
