"""Runs a CUDA kernel without a GPU, as it was compiled, and watches every access. In the folder of the clone:

    import numpy as np
    from numba import cuda
    from benchmarks.ptx import MachineKernel

    def relu(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = max(x[i], np.float32(0))

    x = np.random.standard_normal(1000).astype(np.float32)
    y = np.empty_like(x)
    MachineKernel(relu)[8, 128](x, y)       # blocks, threads of each

``kernel`` compiles and launches, ``program`` reads what was compiled, ``machine`` carries it out with ``arithmetic`` of
its own, ``memory`` watches.
"""

from benchmarks.ptx.kernel import MachineKernel
from benchmarks.ptx.machine import Counts
from benchmarks.ptx.memory import Fault
from benchmarks.ptx.program import Unknown

__all__ = ["Counts", "Fault", "MachineKernel", "Unknown"]
