"""CUDA bodies as they were compiled, run without a GPU by `benchmarks.ptx`, which ends at an access that must not be.

Every twin against its CPU body, the functions that call them against the textbook, a whole model against the CPU's,
and what they take of a GPU.
"""

from __future__ import annotations

import inspect
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ptx import Fault, MachineKernel
from benchmarks.ptx import __main__ as of_typical_sizes
from benchmarks.ptx.kernel import CAPABILITIES, run_in_machine
from minimrcnn import device, functional, reference
from minimrcnn.kernels.twin import Twin
from tests import cuda_functions, stand_in_cupy, test_conv_cuda, test_device
from tests.cuda_functions import *  # noqa: F403
from tests.cuda_functions import forward_and_backward, launch_all
from tests.launch_cuda_kernels import difference
from tests.twin_arguments import ARGUMENTS

pytestmark = pytest.mark.usefixtures("cuda_compiler")

CASES = [(name, i) for name, makers in ARGUMENTS.items() for i in range(len(makers))]
OF_ALL_PARAMETERS = ("sgd", "adamw", "square_sums")  # of 11 million, one like the other


@pytest.fixture
def in_machine(monkeypatch):
    run_in_machine(monkeypatch)


@pytest.fixture
def on_cuda(monkeypatch, in_machine):
    """Whatever is called runs its CUDA body. Gives the names of those that ran."""
    return launch_all(monkeypatch)


@pytest.mark.parametrize("name, number", CASES)
def test_bodies_agree(name, number, monkeypatch):
    run_in_machine(monkeypatch, CAPABILITIES[1])  # all that follows is compiled for the other
    here, there = (ARGUMENTS[name][number](np.random.default_rng(number)) for _ in range(2))
    Twin.registry[name].launch(*there)
    assert not np.array_equal(there[-1], here[-1]), "nothing was computed"
    assert difference(name, here, there) < 1e-5


BARRIER = "cuda.syncthreads()"
BARRIERS = [(name, i) for name in ARGUMENTS for i in range(inspect.getsource(Twin.registry[name].cuda).count(BARRIER))]


@pytest.mark.parametrize("name, number", BARRIERS)
def test_every_barrier_is_needed(name, number, tmp_path):
    """Without it the machine finds a fault: so it sees what barriers are for, and there is none too many."""
    twin = Twin.registry[name]
    parts = inspect.getsource(twin.cuda).split(BARRIER)
    file = tmp_path / "without.py"
    file.write_text(f"{BARRIER.join(parts[: number + 1])}pass{BARRIER.join(parts[number + 1 :])}")
    names = dict(twin.cuda.__globals__)
    exec(compile(file.read_text(), file, "exec"), names)
    with pytest.raises(Fault):
        for make in ARGUMENTS[name]:
            arguments = make(np.random.default_rng(0))
            MachineKernel(names[twin.cuda.__name__])[twin.grid(*arguments)](*arguments)


@pytest.fixture
def gpu(monkeypatch, in_machine):
    """Something that answers to "cuda", whose kernels run in the machine."""
    module, launch = stand_in_cupy.Module(), Twin.launch

    def launch_there(twin, *arguments):
        if twin.name in OF_ALL_PARAMETERS:
            stand_in_cupy.launch(twin, *arguments)
        else:
            launch(twin, *stand_in_cupy.unwrap(arguments))

    monkeypatch.setattr(device, "_cupy", lambda: module)
    monkeypatch.setattr(Twin, "launch", launch_there)


@pytest.mark.parametrize("name", test_device.MODELS)
def test_a_model_predicts_as_on_a_cpu(name, gpu):
    test_device.test_predicts_as_on_a_cpu(name, gpu)


def test_a_model_trains_as_on_a_cpu(gpu):
    test_device.test_trains_as_on_a_cpu("pyramid, frozen batch norm, all resized", gpu)


@pytest.mark.parametrize("algorithm", ["patches", "winograd"])
def test_a_convolution_and_its_gradients(algorithm, gpu, monkeypatch):
    test_device.test_convolutions(algorithm, gpu, monkeypatch)


@given(test_conv_cuda.convolutions(), test_conv_cuda.SCRATCHES, st.booleans())
def test_convolutions(case, scratch, extras):
    with pytest.MonkeyPatch.context() as patch:
        run_in_machine(patch)
        launch_all(patch)
        test_conv_cuda.check_convolution(np.float32, *case, scratch, extras)


@pytest.mark.parametrize("channels", [31, 128, 300])
def test_many_channels(channels, on_cuda):
    """Up to 128 channels each thread of a cell takes four, beyond them four at a time."""
    rng = np.random.default_rng(channels)
    x = rng.integers(-9, 10, (1, 4, 5, channels)).astype(np.float32)
    rois = np.float32([[0, 0.2, 0.3, 3.9, 3.4], [0, 1, 1, 4.9, 2]])
    cut = rois, (2, 2), 1.0
    for name, options in {"max_pool2d": (3, 2, 1), "roi_align": cut, "roi_pool": cut}.items():
        function, wanted = getattr(functional, name), getattr(reference, name)
        y, gradient, x_gradient = forward_and_backward(lambda x: function(x, *options), x)  # noqa: B023
        assert np.allclose(y, wanted(x, *options), atol=1e-5), name
        assert np.allclose(x_gradient, wanted(x, *options, gradient=gradient), atol=1e-5), name
    assert len(on_cuda) == 6


IN_FOURS = (
    "relu_gradient", "max_pool", "max_pool_gradient", "roi_align", "roi_pool", "gather_patches", "scatter_patches",
    "convolve_narrow_groups",
)  # fmt: skip


@pytest.mark.parametrize("which", ["inputs", "output"])
@pytest.mark.parametrize("name", IN_FOURS)
def test_arrays_that_begin_anywhere(name, which, in_machine):
    """A part of another array may begin where a GPU cannot read four numbers at once."""
    here = of_typical_sizes.TYPICAL[name]()
    arrays = [isinstance(value, np.ndarray) for value in here]
    late = [is_array and (which == "inputs") == (number < len(here) - 1) for number, is_array in enumerate(arrays)]
    there = [
        begin_late(value) if is_late else value.copy() if is_array else value
        for value, is_array, is_late in zip(here, arrays, late, strict=True)
    ]
    assert any(value.ctypes.data % 16 for value, is_late in zip(there, late, strict=True) if is_late)
    Twin.registry[name].launch(*there)
    assert difference(name, here, there) < 1e-5


def begin_late(array):
    """A copy that begins one number after the beginning of its memory."""
    copy = np.empty(array.size + 1, array.dtype)[1:].reshape(array.shape)
    copy[...] = array
    return copy


def test_many_boxes(on_cuda, monkeypatch):
    cuda_functions.test_nms(on_cuda, monkeypatch, 1500, 512)


# With places of 64 bits: 56, 269, 114, 269, 326 and 335; four numbers one by one, not at once: max pooling 194, gather
# 90, scatter 208, RoIAlign 254, RoI pooling 228; a number for each thread: 49 for ReLU's gradient. A 3x3 kernel's
# patches are nine numbers for each output, before anything is multiplied.
MOST = {
    "epilogue": 50, "max_pool": 180, "gather_patches": 40, "scatter_patches": 170, "roi_align": 225, "roi_pool": 195,
    "relu_gradient": 32, "convolve_narrow_groups": 600,
}  # fmt: skip


@pytest.mark.parametrize("name", MOST)
def test_places_are_found_in_few_instructions(name):
    instructions, moved, used = of_typical_sizes.count(name)
    assert instructions < MOST[name]
    assert moved > 4 and used > 0.9  # neighbors read what lies side by side


def test_what_a_product_reads():
    """Threads that share tiles read an eighth of the bytes, and with sixteen outputs each a third of that."""
    simple, tiled, blocked = (of_typical_sizes.count(f"matmul_{name}") for name in ("simple", "tiled", "blocked"))
    assert simple[1] > 8 * tiled[1] and tiled[1] == 3 * blocked[1]
    assert simple[0] > 4 * tiled[0] and tiled[0] > 1.5 * blocked[0]


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(of_typical_sizes, "TYPICAL", {"relu_gradient": of_typical_sizes.TYPICAL["relu_gradient"]})
    monkeypatch.setattr(sys, "argv", ["ptx"])
    of_typical_sizes.main()
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[-6:] == ["instructions", "read", "and", "written", "asked", "for"]
    assert row.split()[0] == "relu_gradient" and row.split()[3] == "bytes"
