"""Every operation has both its bodies, picks the right one, and launches nothing for nothing."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from numba import config

import minimrcnn.kernels
from minimrcnn.kernels import nms, normalization, optimizer
from minimrcnn.kernels.twin import THREADS_PER_BLOCK, WARP, Twin
from tests.convolution_twin_arguments import THREADS as OF_CONVOLUTION
from tests.twin_arguments import ARGUMENTS

for module in pkgutil.iter_modules(minimrcnn.kernels.__path__):
    importlib.import_module(f"minimrcnn.kernels.{module.name}")

# Convolution on a CPU; a GPU does it in several kernels.
CPU_ONLY = {
    "convolve_patches",
    "convolve_input_gradient",
    "convolve_weight_gradient",
    "convolve_groups",
    "winograd_kernel",
    "winograd",
    "winograd_apart",
    "winograd_weight_gradient",
    "pack_weight",
}


def test_every_twin_has_a_cpu_body():
    assert len(Twin.registry) >= 10
    for name, twin in Twin.registry.items():
        assert twin.name == name and callable(twin.cpu)


def test_every_twin_has_a_cuda_body_that_is_tested():
    assert {name for name, twin in Twin.registry.items() if twin.cuda is None} == CPU_ONLY
    assert set(ARGUMENTS) == set(Twin.registry) - CPU_ONLY


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bodies_take_the_same_arguments(name):
    twin = Twin.registry[name]
    cpu, cuda = getattr(twin.cpu, "py_func", twin.cpu).__code__, twin.cuda.__code__
    assert cpu.co_varnames[: cpu.co_argcount] == cuda.co_varnames[: cuda.co_argcount]


class _OnDevice:
    """What an array on a CUDA device looks like from outside."""

    __cuda_array_interface__ = {}

    def __init__(self, size):
        self.size, self.shape = size, (size,)


@pytest.fixture
def twin():
    calls = []
    twin = Twin("test_twin", cpu=lambda *arguments: calls.append(arguments))
    twin.calls = calls
    yield twin
    del Twin.registry["test_twin"]


OVERLAPPING = """
import threading
import numba, numpy as np
from minimrcnn.kernels.box_iou import box_iou
from minimrcnn.kernels.product import pack_weight, panels_shape

def launch():
    boxes, weight = np.zeros((200, 4), np.float32), np.zeros((1, 64, 64), np.float32)
    for _ in range(200):
        box_iou(boxes, boxes, np.empty((200, 200), np.float32))
        pack_weight(weight, weight[0, 0, :0], False, np.empty((1, 1, *panels_shape(64, 64, 4)), np.float32))

threads = [threading.Thread(target=launch) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(numba.threading_layer())
"""


@pytest.mark.skipif(config.DISABLE_JIT, reason="Numba starts no threads")
def test_python_threads_take_turns_where_numbas_layer_serves_but_one():
    """It would end the process. Also before anything was launched, which is when Numba chooses its layer."""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", OVERLAPPING], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "workqueue", done.stderr


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


class Recorder:
    """Stands in for a compiled kernel: notes how it is launched."""

    def __init__(self):
        self.launches = []

    def __getitem__(self, grid):
        return lambda *arguments: self.launches.append((grid, arguments))


def test_launch_counts_blocks():
    twin = Twin("test_launch", print, cuda=print, threads=lambda first, output: first)
    try:
        twin.kernel = Recorder()
        twin(129, _OnDevice(5))
        twin(0, _OnDevice(5))  # an output to add nothing to
        twin.threads = lambda first, output: 1
        twin(0.5, _OnDevice(5))
        twin.threads = lambda first, output: first
        with pytest.raises(ValueError, match="test_launch: 4294967296 threads"):
            twin(2**32, _OnDevice(5))
        twin.threads = lambda first, *others: first
        with pytest.raises(ValueError, match=r"an array of shape \(4294967296,\), wanted less than 2\^32"):
            twin(3, _OnDevice(2**32), _OnDevice(5))
    finally:
        del Twin.registry["test_launch"]
    launches = twin.kernel.launches
    assert [grid for grid, _ in launches] == [(2, 128), (1, 128)]


def test_a_body_that_adds_begins_with_zeros():
    """Also where there is nothing to add."""
    twin = Twin("test_adds", print, cuda=print, threads=lambda first, output: first, adds=True)
    del Twin.registry["test_adds"]
    twin.kernel, output = Recorder(), np.full(5, 7.0)
    twin.launch(0, output)
    assert not output.any() and not twin.kernel.launches


def blocks(count, size):
    return -(-count // size)


def of_cells(*arguments):
    """A fourth of the channels, at most 32, for each cell."""
    *cells, channels = arguments[-1].shape
    return int(np.prod(cells)) * min(blocks(channels, 4), WARP)


def of_rows(*arguments):
    """A fourth of the rows of every channel."""
    *pictures, rows, channels = arguments[-1].shape
    return int(np.prod(pictures, dtype=int)) * blocks(rows, 4) * channels


# How many threads a kernel needs for its arguments, where it is not one for each number of the output.
THREADS = {
    "roi_align_gradient": lambda gradient, *_: gradient.size,
    "roi_pool_gradient": lambda gradient, *_: gradient.size,
    "roi_align_gradient_in_order": lambda *a: a[-1][..., 0].size * WARP,
    "roi_pool_gradient_in_order": lambda *a: a[-1][..., 0].size * WARP,
    "nms_sort": lambda boxes, *_: len(boxes),
    "nms_settle": lambda *_: nms.SETTLERS,
    "fold_statistics": lambda *a: a[-1].shape[1],
    "relu_gradient": lambda *a: blocks(a[-1].size, 4),
    **dict.fromkeys(("roi_align", "roi_pool", "max_pool", "max_pool_gradient", "resize", "resize_gradient"), of_cells),
    **dict.fromkeys(("scale_channels", "normalization_gradient"), of_rows),
    **dict.fromkeys(("fold_sums", "fold_gradient_sums"), lambda sums, _, groups, *__: len(sums) * groups),
    "square_sums": lambda values, _: blocks(values.size, optimizer.SQUARES_BLOCK) * THREADS_PER_BLOCK,
    "channel_sums": lambda x, *_: (
        len(x) * blocks(x.shape[1], normalization.PIECE) * blocks(x.shape[2], WARP) * THREADS_PER_BLOCK
    ),
    **OF_CONVOLUTION,
}


@pytest.mark.parametrize("name, number", [(name, i) for name, makers in ARGUMENTS.items() for i in range(len(makers))])
def test_launches_as_many_threads_as_there_is_work(name, number, monkeypatch):
    twin, kernel = Twin.registry[name], Recorder()
    monkeypatch.setitem(twin.__dict__, "kernel", kernel)
    arguments = ARGUMENTS[name][number](np.random.default_rng(0))
    twin.launch(*arguments)
    wanted = THREADS.get(name, lambda *a: a[-1].size)(*arguments)
    assert [grid for grid, _ in kernel.launches] == [(blocks(wanted, twin.block), twin.block)]
    twin.launch(*arguments[:-1], arguments[-1][..., :0])
    assert len(kernel.launches) == 1, "an empty output launched something"
