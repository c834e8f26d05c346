"""The CUDA bodies in Numba's simulator, on tiny NumPy arrays, against the CPU bodies.

The simulator must be chosen before Numba is imported, so the comparison runs in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minimrcnn.kernels.twin import Twin, cuda
from tests.twin_arguments import ARGUMENTS

IN_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


@pytest.mark.skipif(cuda is None, reason="this Numba comes without CUDA")
@pytest.mark.skipif(IN_SIMULATOR, reason="this is the simulator's process")
def test_in_the_simulator():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(map(len, ARGUMENTS.values()))} passed" in done.stdout


@pytest.mark.skipif(not IN_SIMULATOR, reason="runs in the simulator's process")
@pytest.mark.parametrize("name, number", [(name, i) for name, makers in ARGUMENTS.items() for i in range(len(makers))])
def test_bodies_agree(name, number):
    on_cpu = ARGUMENTS[name][number](np.random.default_rng(number))
    on_cuda = [argument.copy() if isinstance(argument, np.ndarray) else argument for argument in on_cpu]
    before = on_cpu[-1].copy()
    Twin.registry[name](*on_cpu)
    Twin.registry[name].launch(*on_cuda)
    assert not np.array_equal(on_cpu[-1], before), "nothing was computed"
    for cpu, simulated in zip(on_cpu, on_cuda, strict=True):
        if isinstance(cpu, np.ndarray):
            assert np.allclose(cpu, simulated, rtol=1e-5, atol=1e-5, equal_nan=True)
