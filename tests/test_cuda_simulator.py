"""The CUDA bodies in Numba's simulator, on tiny NumPy arrays: against the CPU bodies, and against the textbook.

The simulator must be chosen before Numba is imported, so all of this runs in a process of its own. CPU bodies run there
as the plain Python they are, too: compiling them would take longer than all the rest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from minimrcnn.kernels.twin import Twin
from tests.cuda_functions import launch_all
from tests.twin_arguments import ARGUMENTS

IN_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if IN_SIMULATOR:
    from tests.cuda_functions import *  # noqa: F403

CASES = [(name, i) for name, makers in ARGUMENTS.items() for i in range(len(makers))]
TERMS = {"channel_sums": 1}  # bodies that leave different terms of the same sum, and along which axis


@pytest.mark.skipif(find_spec("numba.cuda") is None, reason="this Numba comes without CUDA")
@pytest.mark.skipif(IN_SIMULATOR, reason="this is the simulator's process")
def test_in_the_simulator():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning", __file__]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > len(CASES)


@pytest.mark.skipif(not IN_SIMULATOR, reason="runs in the simulator's process")
@pytest.mark.parametrize("name, number", CASES)
def test_bodies_agree(name, number):
    on_cpu = ARGUMENTS[name][number](np.random.default_rng(number))
    # Of swapped axes no view remains: the simulator takes arrays that are contiguous.
    on_cuda = [argument.copy() if isinstance(argument, np.ndarray) else argument for argument in on_cpu]
    before = on_cpu[-1].copy()
    Twin.registry[name](*on_cpu)
    Twin.registry[name].launch(*on_cuda)
    assert not np.array_equal(on_cpu[-1], before), "nothing was computed"
    for cpu, simulated in zip(on_cpu, on_cuda, strict=True):
        if isinstance(cpu, np.ndarray):
            if cpu is on_cpu[-1] and name in TERMS:
                cpu, simulated = cpu.sum(axis=TERMS[name]), simulated.sum(axis=TERMS[name])
            assert np.allclose(cpu, simulated, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.fixture
def on_cuda(monkeypatch):
    """Whatever is called runs its CUDA body. Gives the names of those that ran."""
    from numba.cuda.simulator.kernelapi import FakeCUDAModule

    # A GPU's a * b + c is rounded once, the simulator's twice. In float64 a product of two float32 numbers is exact.
    monkeypatch.setattr(FakeCUDAModule, "fma", lambda self, a, b, c: type(a)(float(a) * float(b) + float(c)))
    return launch_all(monkeypatch)
