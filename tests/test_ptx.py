"""Every CUDA body compiles for the GPUs of 2020 and 2022, and computes nothing in float64."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numba
import numpy as np
import pytest

from minimrcnn.kernels.twin import Twin, cuda
from tests.twin_arguments import ARGUMENTS

pytestmark = [
    pytest.mark.skipif(cuda is None, reason="this Numba comes without CUDA"),
    pytest.mark.skipif(os.environ.get("NUMBA_ENABLE_CUDASIM") == "1", reason="the simulator compiles nothing"),
]


@pytest.fixture(scope="module")
def compiler():
    """`cuda.compile_ptx`, if NVIDIA's compiler library is there."""
    try:
        cuda.compile_ptx(lambda: None, (), cc=(8, 0))
    except Exception as error:
        pytest.skip(f"no CUDA compiler here (pip install 'numba-cuda[cu13]' brings one): {type(error).__name__}")
    return cuda.compile_ptx


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_compiles_without_float64(compiler, name, capability, monkeypatch):
    # Numba asks the GPU at hand what to compile the shared arithmetic for. Without one, answer for it.
    device = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr("numba.cuda.dispatcher.get_current_device", lambda: device)
    arguments = ARGUMENTS[name][0](np.random.default_rng(0))
    types = tuple(numba.float32 if isinstance(argument, float) else numba.typeof(argument) for argument in arguments)
    ptx, _ = compiler(Twin.registry[name].cuda, types, cc=capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    assert ptx.count(".f64") == 0
