"""Files of weights as others write them, made without torch, and what the tests ask of reading them.

`write_pth` pickles stand-ins under torch's names, which gives the layout that torch.save writes for such tensors.
"""

import io
import os
import pickle
import sys
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pytest

from minimrcnn import weights
from minimrcnn.errors import DataError

MIB = 2**20

STORAGES = {
    **{"f8": "DoubleStorage", "f4": "FloatStorage", "f2": "HalfStorage", "c8": "ComplexFloatStorage"},
    **{"i8": "LongStorage", "i4": "IntStorage", "i2": "ShortStorage", "i1": "CharStorage", "u1": "ByteStorage"},
    "b1": "BoolStorage",
}
FAKES = {
    "torch": [*STORAGES.values(), "BFloat16Storage", "QInt8Storage", "uint16", "uint32", "uint64", "float8_e5m2"],
    "torch.storage": ["UntypedStorage"],
    "torch._utils": [
        *("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter", "_rebuild_parameter_with_state"),
        *("_rebuild_qtensor", "_rebuild_sparse_tensor"),
    ],
}
MODULES = {module: types.ModuleType(module) for module in FAKES}
for module, names in FAKES.items():
    for fake in names:
        setattr(MODULES[module], fake, type(fake, (), {"__module__": module, "__qualname__": fake}))


@dataclass(eq=False)
class Stored:
    """A storage: its numbers, and torch's class for them (by the numbers' type, if not given)."""

    numbers: np.ndarray
    kind: str = ""
    key: str = ""
    claims: int | None = None  # another number of elements than it has


@dataclass(eq=False)
class View:
    """A tensor in a storage."""

    storage: Stored
    size: tuple
    stride: tuple
    offset: int = 0
    function: str = "_rebuild_tensor_v2"
    more: tuple = ()


@dataclass(eq=False)
class Parameter:
    view: View
    function: str = "_rebuild_parameter"
    more: tuple = ()


def tensor(array, kind="", **options):
    """A contiguous tensor."""
    array = np.asarray(array)
    stride = tuple(int(np.prod(array.shape[side + 1 :], initial=1)) for side in range(array.ndim))
    return View(Stored(array.ravel(), kind), array.shape, stride, **options)


def untyped(array, dtype):
    """A tensor of a type younger than torch's typed storages."""
    view = tensor(array, "UntypedStorage", function="_rebuild_tensor_v3", more=(getattr(MODULES["torch"], dtype),))
    view.storage.claims = view.storage.numbers.nbytes
    return view


class TorchPickler(pickle.Pickler):
    def __init__(self, stream, order):
        super().__init__(stream, protocol=2)
        self.order, self.storages = order, {}

    def persistent_id(self, obj):
        if not isinstance(obj, Stored):
            return None
        obj.key = obj.key or str(len(self.storages))
        dtype = obj.numbers.dtype
        self.storages[obj.key] = obj.numbers.astype(dtype.newbyteorder(self.order)).tobytes()
        kind = obj.kind or STORAGES[dtype.str[1:]]
        module = MODULES["torch.storage" if kind == "UntypedStorage" else "torch"]
        count = len(obj.numbers) if obj.claims is None else obj.claims
        return "storage", getattr(module, kind), obj.key, "cpu", count

    def reducer_override(self, obj):
        utils = MODULES["torch._utils"]
        if isinstance(obj, View):
            place = obj.storage, obj.offset, obj.size, obj.stride
            return getattr(utils, obj.function), (*place, False, OrderedDict(), *obj.more)
        if isinstance(obj, Parameter):
            return getattr(utils, obj.function), (obj.view, True, OrderedDict(), *obj.more)
        return NotImplemented


def pth_entries(state, order="<", byteorder=None, root="archive"):
    stream = io.BytesIO()
    pickler = TorchPickler(stream, order)
    with mock.patch.dict(sys.modules, MODULES):
        pickler.dump(state)
    return [
        (f"{root}/data.pkl", stream.getvalue()),
        (f"{root}/.format_version", b"1"),
        (f"{root}/byteorder", byteorder or {"<": b"little", ">": b"big"}[order]),
        *((f"{root}/data/{key}", data) for key, data in pickler.storages.items()),
        (f"{root}/version", b"3\n"),
    ]


def write_zip(path, entries, compression=zipfile.ZIP_STORED):
    path.unlink(missing_ok=True)  # overwriting is slow: some file systems wait for the disk
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def write_pth(path, state, **options):
    return write_zip(path, pth_entries(state, **options))


def write_program(path, program, storage=b"\0" * 8):
    """A .pth with this pickle."""
    return write_zip(path, [("a/data.pkl", program), ("a/data/0", storage), ("a/version", b"3\n")])


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


STATE = OrderedDict(
    {
        "conv.weight": tensor(np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)),
        "conv.bias": Parameter(tensor(np.float32([0.5, -2]))),
        "bn.num_batches_tracked": tensor(np.int64(7)),
        "half": tensor(np.float16([1, -0.0, 65504])),
        "mask": tensor(np.array([True, False])),
    }
)
STATE._metadata = OrderedDict({"": {"version": 1}, "bn": {"version": 2}})
ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "conv.bias": np.float32([0.5, -2]),
    "bn.num_batches_tracked": np.array(7),
    "half": np.float32([1, -0.0, 65504]),
    "mask": np.array([True, False]),
}


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def assert_same(arrays, expected):
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        got = arrays[name]
        assert got.dtype == array.dtype and got.shape == array.shape and got.tobytes() == array.tobytes(), name
        assert got.flags.c_contiguous and got.flags.writeable and got.flags.aligned


def refuse(path, *words):
    with pytest.raises(DataError) as caught:
        weights.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    for word in words:
        assert word in message, message
    return message


def peak_of(function, *arguments):
    """The most memory that Python and NumPy held while this ran, whether or not it is a DataError."""
    tracemalloc.start()
    try:
        function(*arguments)
    except DataError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def load_or_refuse(path):
    """The arrays, or None for a DataError. Nothing else may happen."""
    try:
        arrays = weights.load(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
        return None
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    return arrays
