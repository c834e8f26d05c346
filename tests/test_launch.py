"""What the driver is handed at a launch, without a driver. `tests.test_cuda_ptx` holds it to what kernels declare."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from numba import config

from benchmarks.ptx.kernel import Placed
from minimrcnn.kernels import launch
from minimrcnn.kernels.compiled import hash_sources
from minimrcnn.kernels.launch import CudaKernel, Packer, look_at, numba_type
from minimrcnn.kernels.twin import Twin, cuda
from tests.twin_arguments import ARGUMENTS


def on_device(arguments) -> list:
    return [Placed(value, value.ctypes.data) if isinstance(value, np.ndarray) else value for value in arguments]


def test_a_launch_writes_what_the_driver_reads():
    maps = np.zeros((2, 5, 7, 3), np.float32)
    kinds, numbers = look_at(on_device([maps, maps[:, ::2].swapaxes(1, 2), (3, -4), True, 2**40, 0.1]))
    packer = Packer(kinds)
    packer.write(numbers)
    places = (ctypes.c_void_p * len(packer.list)).from_address(packer.addresses)
    words = [ctypes.c_int64.from_address(place).value for place in places]
    address = maps.ctypes.data
    assert words[:13] == [0, 0, 210, 4, address, 2, 5, 7, 3, 420, 84, 12, 4]
    assert words[13:26] == [0, 0, 126, 4, address, 2, 7, 3, 3, 420, 12, 168, 4]
    assert words[26:28] == [3, -4]
    assert ctypes.c_bool.from_address(places[28]).value is True
    assert words[29] == 2**40
    assert ctypes.c_float.from_address(places[30]).value == np.float32(0.1)
    assert len(words) == 31


@pytest.mark.skipif(cuda is None or config.ENABLE_CUDASIM, reason="numba-cuda is not here, or simulated")
def test_what_is_on_disk_is_forgotten_with_the_sources():
    kernel = Twin.registry["epilogue"].kernel
    stamp = kernel.dispatcher._cache._cache_file._source_stamp
    assert stamp.startswith(hash_sources()) and len(stamp) > len(hash_sources())


def test_compiles_once_for_the_same_types(monkeypatch):
    compiled, started = [], []
    monkeypatch.setattr(CudaKernel, "compile", lambda self, types: compiled.append(types) or len(compiled))
    monkeypatch.setattr(CudaKernel, "start", staticmethod(lambda *given: started.append(given[:3])))
    kernel = CudaKernel.__new__(CudaKernel)
    kernel.ready, kernel.lock = {}, launch.threading.Lock()
    square = np.zeros((4, 4), np.float32)
    for array in (square, np.zeros((9, 2), np.float32), square[:, 1:], square.astype(np.int32), square[0]):
        kernel[3, 128](*on_device([array, 1.5]))
    assert [function for function, *_ in started] == [1, 1, 2, 3, 4]
    assert started[0][1:] == (3, 128)


@pytest.mark.parametrize("argument", [np.zeros(3), "name", None, [1, 2]])
def test_says_what_it_cannot_hand_over(argument):
    with pytest.raises(TypeError, match=f"got {type(argument).__name__}"):
        look_at([argument])


def test_numpys_numbers_are_numbers():
    kinds, numbers = look_at([np.int64(3), np.int32(-3), np.float64(0.5), np.float32(0.5), np.bool_(True)])
    assert [str(numba_type(kind)) for kind in kinds] == ["int64", "int64", "float32", "float32", "bool"]
    Packer(kinds).write(numbers)


def test_twins_hand_over_what_it_can():
    for name, makers in ARGUMENTS.items():
        assert name in Twin.registry
        for make in makers:
            look_at(on_device(make(np.random.default_rng(0))))
