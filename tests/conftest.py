"""Hypothesis draws the same examples everywhere, so that a failure here is a failure there."""

import os
from importlib.util import find_spec

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.cuda_functions")  # its failures say what was compared, as those of tests do
settings.register_profile("project", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("project")


@pytest.fixture(scope="session")
def cuda_compiler():
    """NVIDIA's compiler library, which `numba-cuda[cu13]` brings; the test extra has it on Linux."""
    if find_spec("numba_cuda") is None or os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        pytest.skip("CUDA kernels are compiled with numba-cuda, not in the simulator")
    from numba import cuda

    try:
        cuda.compile_ptx(lambda: None, (), cc=(8, 0))
    except Exception as error:
        if find_spec("nvidia") is not None:  # it is there, and does not do as it should
            raise
        pytest.skip(f"no CUDA compiler here (pip install 'numba-cuda[cu13]' brings one): {type(error).__name__}")
