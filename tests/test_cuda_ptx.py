"""Every CUDA body compiles for the GPUs of 2020 and 2022, computes nothing in float64, and fits into registers."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from benchmarks import cuda_resources
from minimrcnn.kernels.launch import look_at, word_format
from minimrcnn.kernels.twin import Twin
from tests.test_launch import on_device
from tests.twin_arguments import ARGUMENTS

pytestmark = pytest.mark.usefixtures("cuda_compiler")

REGISTERS = 96  # a thread; with more than that, less than a third of the threads that an SM can hold fit into it
OF_AN_SM = 65536  # a block that needs more is not started
SHARED = 16384  # bytes a block: ten fit into an SM of 2020
WORDS = {"u64": "q", "u32": "f4x", "f32": "f4x", "u8": "?7x", "b8": "?7x"}  # of PTX, and in `struct`'s words
OF_SUMS = ("fold_sums", "fold_gradient_sums")  # a thread for each group, whose sums are float64
DECIDING = ("nms_compare",)  # whose last bit decides, so that a product must be rounded as on a CPU


@pytest.mark.parametrize("capability", cuda_resources.CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_compiles_without_float64(name, capability):
    ptx = cuda_resources.compile_twin(name, capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    assert name in OF_SUMS or ptx.count(".f64") == 0
    if name in DECIDING:
        assert ptx.count("fma.") == 0


@pytest.mark.parametrize("capability", cuda_resources.CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_fits_into_registers(name, capability):
    pytest.importorskip("cuda.bindings.nvjitlink", reason="the linker that counts registers comes with numba-cuda")
    found = cuda_resources.measure(cuda_resources.compile_twin(name, capability), capability)
    assert found.spilled == 0, found
    most = min(REGISTERS, OF_AN_SM // Twin.registry[name].block)
    assert 0 < found.registers <= most and found.shared <= SHARED, found


@pytest.mark.parametrize("name", ARGUMENTS)
def test_takes_what_a_launch_hands_over(name):
    declared = re.findall(r"\.param (?:\.align \d+ )?\.(\w+) ", cuda_resources.compile_twin(name, (9, 0)).split("{")[0])
    arguments = on_device(ARGUMENTS[name][0](np.random.default_rng(0)))
    words = "".join(map(word_format, look_at(arguments)[0]))
    assert [WORDS[kind] for kind in declared] == re.findall("|".join(map(re.escape, WORDS.values())), words)


def test_spills_and_shared_memory_are_counted():
    report = (
        "ptxas info    : Function properties for many\n"
        "    608 bytes stack frame, 604 bytes spill stores, 600 bytes spill loads\n"
        "ptxas info    : Used 255 registers, used 1 barriers, 608 bytes cumulative stack size, 1536 bytes smem\n"
    )
    assert cuda_resources.read_report(report) == cuda_resources.Resources(255, 1204, 1536)
    with pytest.raises((AttributeError, TypeError)):  # never a silent 0
        cuda_resources.read_report("ptxas info    : nothing of the kind")


def test_the_table(monkeypatch, capsys):
    pytest.importorskip("cuda.bindings.nvjitlink", reason="the linker that counts registers comes with numba-cuda")
    monkeypatch.setattr(cuda_resources, "ARGUMENTS", {"relu_gradient": ARGUMENTS["relu_gradient"]})
    monkeypatch.setattr(sys, "argv", ["cuda_resources"])
    cuda_resources.main()
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["kernel", "registers", "spilled", "shared"]
    assert [row.split()[:2] for row in rows] == [["relu_gradient", "sm_80"], ["relu_gradient", "sm_90"]]
