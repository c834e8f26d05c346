"""Every operation has both its bodies, picks the right one, and launches nothing for nothing."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

import minimrcnn.kernels
from minimrcnn.kernels.twin import Twin

for module in pkgutil.iter_modules(minimrcnn.kernels.__path__):
    importlib.import_module(f"minimrcnn.kernels.{module.name}")

WITH_CUDA = (
    "roi_align",
    "roi_align_gradient",
    "roi_pool",
    "roi_pool_gradient",
    "box_iou",
    "nms_leaders",
    "nms_followers",
)


def test_every_twin_has_a_cpu_body():
    assert len(Twin.registry) >= 10
    for name, twin in Twin.registry.items():
        assert twin.name == name and callable(twin.cpu)


@pytest.mark.parametrize("name", WITH_CUDA)
def test_bodies_take_the_same_arguments(name):
    twin = Twin.registry[name]
    cpu, cuda = getattr(twin.cpu, "py_func", twin.cpu).__code__, twin.cuda.__code__
    assert cpu.co_varnames[: cpu.co_argcount] == cuda.co_varnames[: cuda.co_argcount]


class _OnDevice:
    """What an array on a CUDA device looks like from outside."""

    def __init__(self, size):
        self.size = size
        self.__cuda_array_interface__ = {}


@pytest.fixture
def twin():
    calls = []
    twin = Twin("test_twin", cpu=lambda *arguments: calls.append(arguments))
    twin.calls = calls
    yield twin
    del Twin.registry["test_twin"]


def test_nothing_is_launched_for_an_empty_output(twin):
    twin(1, np.zeros((3, 0)))
    twin(1, _OnDevice(0))
    assert twin.calls == []
    twin(1, np.zeros(2))
    assert len(twin.calls) == 1


def test_the_output_decides(twin):
    with pytest.raises(NotImplementedError, match="test_twin: no CUDA body"):
        twin(1, _OnDevice(3))
    with pytest.raises(TypeError, match="test_twin: the output is a list"):
        twin(1, [1, 2])
    with pytest.raises(ValueError, match="there already"):
        Twin("test_twin", print)


def test_launch_counts_blocks_and_passes_float32():
    launches = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *arguments: launches.append((grid, arguments))

    twin = Twin("test_launch", print, cuda=print, threads=lambda first, output: first)
    try:
        twin.kernel = Kernel()
        twin(129, _OnDevice(5))
        twin(0, _OnDevice(5))  # an output to add nothing to
        twin.threads = lambda first, output: 1
        twin(0.5, _OnDevice(5))
    finally:
        del Twin.registry["test_launch"]
    assert [grid for grid, _ in launches] == [(2, 128), (1, 128)]
    assert type(launches[1][1][0]) is np.float32
