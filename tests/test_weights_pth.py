"""torch's files: what torch.save writes comes in; tensors that cannot be, and zips that lie, are refused."""

import struct
import tracemalloc
import zipfile
from argparse import Namespace
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minimrcnn import weights
from minimrcnn.weights import stored
from tests.foreign_weights import (
    ARRAYS,
    MIB,
    STATE,
    STORAGES,
    Parameter,
    Stored,
    View,
    assert_same,
    peak_of,
    pth_entries,
    refuse,
    tensor,
    untyped,
    write_pth,
    write_zip,
)


def test_state_dict(tmp_path):
    assert_same(weights.load(write_pth(tmp_path / "a.pth", STATE)), ARRAYS)
    assert_same(weights.load(write_pth(tmp_path / "any.name", STATE, root="resnet50-0676ba61")), ARRAYS)


@given(st.data())
def test_every_type_shape_and_byte_order(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from([code for code in STORAGES if code != "c8"])))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    state = {"x": Parameter(tensor(array), "_rebuild_parameter_with_state", ({"note": 1},)), "y": tensor(array)}
    path = write_pth(tmp_path_factory.mktemp("any") / "a.pth", state, order=data.draw(st.sampled_from("<>")))
    with np.errstate(invalid="ignore"):  # half to single, of a NaN that signals
        expected = array.astype(np.float32) if dtype == np.float16 else array
    assert_same(weights.load(path), {"x": expected, "y": expected})


@pytest.mark.parametrize("order", "<>")
def test_bfloat16_and_young_types(tmp_path, order):
    floats = np.float32([1, -0.0, np.inf, -np.inf, 1.0e-40, 3.0e38, -1.375])
    upper = (floats.view(np.uint32) >> 16).astype(np.uint16)
    state = {"b": tensor(upper, "BFloat16Storage"), "scalar": tensor(np.uint16(0x3FC0), "BFloat16Storage")}
    young = {name: np.array([1, np.iinfo(name).max], name) for name in ("uint16", "uint32", "uint64")}
    state |= {name: untyped(array, name) for name, array in young.items()}
    arrays = weights.load(write_pth(tmp_path / "a.pth", state, order=order))
    widened = (upper.astype(np.uint32) << 16).view(np.float32)
    assert_same(arrays, {"b": widened, "scalar": np.array(1.5, np.float32), **young})


def test_views_of_one_storage(tmp_path):
    numbers = np.arange(60, dtype=np.float32)
    storage = Stored(numbers)
    state = {
        "whole": View(storage, (3, 4, 5), (20, 5, 1)),
        "tied": View(storage, (3, 4, 5), (20, 5, 1)),
        "transposed": View(storage, (5, 4, 3), (1, 5, 20)),
        "rows": View(storage, (2, 5), (5, 1), offset=10),
        "columns": View(storage, (3, 2), (20, 2), offset=1),
        "overlapping": View(storage, (6, 10), (5, 1)),
        "one": View(storage, (), (), offset=59),
        "side of one": View(storage, (1, 3), (0, 1), offset=57),
        "none": View(storage, (0, 7), (7, 1), offset=60),
    }
    arrays = weights.load(write_pth(tmp_path / "a.pth", state))
    whole = numbers.reshape(3, 4, 5)
    expected = {
        "whole": whole,
        "tied": whole,
        "transposed": whole.transpose(2, 1, 0),
        "rows": numbers[10:20].reshape(2, 5),
        "columns": whole[:, 0, 1:4:2],
        "overlapping": np.lib.stride_tricks.sliding_window_view(numbers, 10)[::5][:6],
        "one": numbers[59],
        "side of one": numbers[None, 57:],
        "none": np.zeros((0, 7), np.float32),
    }
    assert_same(arrays, expected)
    arrays["whole"][:] = -1  # an array of its own
    assert_same({name: arrays[name] for name in ("tied", "rows")}, {"tied": whole, "rows": expected["rows"]})


def test_part_of_a_storage_does_not_keep_the_rest(tmp_path):
    path = write_pth(tmp_path / "a.pth", {"x": View(Stored(np.zeros(MIB)), (2,), (1,))})
    tracemalloc.start()
    arrays = weights.load(path)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert arrays["x"].shape == (2,) and held < MIB


def test_memory_is_that_of_the_arrays(tmp_path):
    state = {str(number): tensor(np.full(MIB // 2, number, np.float32)) for number in range(5)}
    write_pth(tmp_path / "a.pth", state)
    arrays = weights.load(tmp_path / "a.pth")
    noise = np.random.default_rng(0).random(MIB // 4, np.float32)
    np.savez_compressed(tmp_path / "a.npz", **{name: noise for name in arrays})
    weights.save(tmp_path / "a.safetensors", arrays)
    for name, size in [("a.pth", 10), ("a.safetensors", 10), ("a.npz", 5)]:
        assert peak_of(weights.load, tmp_path / name) < (size + 3) * MIB


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_checkpoint_of_a_reference_script(tmp_path, key):
    checkpoint = {
        "epoch": 3,
        key: STATE,
        "optimizer": {
            "state": {0: {"step": tensor(np.float32(1)), "exp_avg": tensor(np.complex64([1j]))}},
            "param_groups": [{"lr": 0.02, "betas": (0.9, 0.999), "foreach": None, "params": [0, 1]}],
        },
        "lr_scheduler": {"milestones": Counter([16, 22]), "last": 2**40},
        "args": Namespace(lr_steps=[16, 22], data=b"bytes"),
    }
    assert_same(weights.load(write_pth(tmp_path / "a.pth", checkpoint)), ARRAYS)


def test_what_is_no_tensor_is_ignored(tmp_path):
    state = {"w": tensor(np.ones(2)), "epoch": 3, "lr": 0.1, "note": "x", "none": None, "list": [1], "model": 5}
    assert_same(weights.load(write_pth(tmp_path / "a.pth", state)), {"w": np.ones(2)})
    assert weights.load(write_pth(tmp_path / "a.pth", {})) == {}


def test_older_and_checksumless_files(tmp_path):
    entries = [entry for entry in pth_entries(STATE) if not entry[0].endswith("byteorder")]
    assert_same(weights.load(write_zip(tmp_path / "a.pth", entries)), ARRAYS)
    with mock.patch("zipfile.crc32", lambda data, value=0: 0):  # torch.serialization.set_crc32_options(False)
        write_pth(tmp_path / "a.pth", STATE)
    assert_same(weights.load(tmp_path / "a.pth"), ARRAYS)


FLOATS = Stored(np.zeros(10, np.float32))


@pytest.mark.parametrize(
    "view, words",
    [
        (View(FLOATS, (11,), (1,)), ["11 elements", "has 10"]),
        (View(FLOATS, (2,), (1,), offset=9), ["number 10", "has 10"]),
        (View(FLOATS, (2, 2), (9, 1)), ["number 10"]),
        (View(FLOATS, (4, 4), (1, 1)), ["16 elements"]),
        (View(FLOATS, (5,), (0,)), ["expand", "clone"]),
        (View(FLOATS, (10**9, 10**9), (0, 0)), ["expand", "clone"]),
        (View(FLOATS, (2**40, 2**40), (2**40, 2**40)), ["elements"]),
        (View(FLOATS, (2**70,), (1,)), ["make sense"]),
        (View(FLOATS, (0, 2**47, 2**47), (1, 1, 1)), ["damaged"]),
        (View(FLOATS, (-1,), (1,)), ["make sense"]),
        (View(FLOATS, (2,), (-1,), offset=5), ["make sense"]),
        (View(FLOATS, (2,), (1,), offset=-1), ["make sense"]),
        (View(FLOATS, (True,), (1,)), ["make sense"]),
        (View(FLOATS, (2.0,), (1,)), ["make sense"]),
        (View(FLOATS, (2, 2), (1,)), ["make sense"]),
        (View(FLOATS, [2], [1]), ["make sense"]),
        (View(FLOATS, (1,) * 40, (1,) * 40), ["make sense"]),
        (View(FLOATS, None, None), ["make sense"]),
        (View(Stored(np.zeros(3), claims=4), (3,), (1,)), ["24 bytes", "32"]),
        (View(Stored(np.zeros(3), claims=-1), (3,), (1,)), ["make sense"]),
        (View(Stored(np.zeros(3), claims=2**90), (3,), (1,)), ["make sense"]),
        (tensor(np.complex64([1j])), ["complex64", "view_as_real"]),
        (tensor(np.int8([1]), "QInt8Storage"), ["qint8"]),
        (tensor(np.uint8([1]), "UntypedStorage"), ["untyped"]),
        (untyped(np.uint8([1]), "float8_e5m2"), ["float8_e5m2", "float()"]),
        (View(Stored(np.zeros(3, np.uint8), "UntypedStorage", claims=4), (1,), (1,)), ["untyped"]),
        (tensor(np.int8([1]), function="_rebuild_qtensor"), ["quantized", "dequantize()"]),
        (tensor(np.int8([1]), function="_rebuild_sparse_tensor"), ["sparse", "to_dense()"]),
        (tensor(np.zeros(1), more=({"neg": True},)), ["resolve_neg"]),
        (tensor(np.zeros(1), function="_rebuild_tensor_v3"), ["calls torch._utils._rebuild_tensor_v3"]),
    ],
)
def test_tensors_that_cannot_be(tmp_path, view, words):
    refuse(write_pth(tmp_path / "a.pth", {"layer.weight": view}), *words)


def test_names_from_a_file_do_not_flood_the_message(tmp_path):
    path = write_pth(tmp_path / "a.pth", {"x" * 50_000: tensor(np.zeros(2, np.complex64))})
    assert len(refuse(path, "xxx")) < 1000


def test_many_views_of_one_storage(tmp_path):
    storage = Stored(np.zeros(10**6, np.float32))
    path = write_pth(tmp_path / "a.pth", {str(number): View(storage, (10**6,), (1,)) for number in range(100)})
    assert peak_of(weights.load, path) < 4 * MIB
    refuse(path, "400000000 bytes", "clone()")


@pytest.mark.parametrize(
    "state, words",
    [
        (tensor(np.zeros(1)), ["without a name"]),
        ([tensor(np.zeros(1))], ["a list"]),
        (5, ["a int"]),
        ({"net": STATE, "epoch": 1}, ["'net' (a dict of 5)", "'epoch' (int)"]),
        ({"model": {"epoch": 1}}, ["'epoch' (int)"]),
        ({5: tensor(np.zeros(1))}, ["named 5"]),
        ({(1, 2): 5}, ["tuple as a key"]),
        ({1.5: 5}, ["float as a key"]),
        ({2**40: 5}, ["int as a key"]),
        ({"x": np.float64(1)}, ["numpy", "not run"]),
        ({"x": {1, 2}}, ["set", "not run"]),
    ],
    ids=str,
)
def test_pickles_without_a_state_dict(tmp_path, state, words):
    refuse(write_pth(tmp_path / "a.pth", state), *words)


def test_zips_that_are_not_torchs(tmp_path):
    path, entries = tmp_path / "a.pth", pth_entries(STATE)
    refuse(write_zip(path, entries, zipfile.ZIP_DEFLATED), "compressed")
    refuse(write_zip(path, [*entries, ("../../evil", b"x")]), "'../../evil'", "leave the folder")
    refuse(write_zip(path, [*entries, ("/evil", b"x")]), "leave the folder")
    refuse(write_zip(path, [*entries, ("other/data.pkl", b"}.")]), "2 entries data.pkl")
    refuse(write_zip(path, [*entries, ("archive/code/__torch__.py", b"")]), "TorchScript", "torch.jit.load")
    refuse(write_zip(path, [*entries, ("archive/constants.pkl", b"")]), "TorchScript")
    refuse(write_zip(path, [entry for entry in entries if "data/0" not in entry[0]]), "'0'", "missing")
    refuse(write_pth(path, STATE, byteorder=b"middle"), "byteorder", "little")
    refuse(write_pth(path, STATE, byteorder=b"little" * MIB), "byteorder")
    refuse(write_zip(path, [("readme.txt", b"hello")]), "readme.txt", "wanted")
    with pytest.warns(UserWarning, match="Duplicate"):
        write_zip(path, [*entries, entries[0]])
    refuse(path, "twice")
    with mock.patch.object(stored, "MAX_ENTRIES", 3):
        refuse(write_zip(path, entries), "entries, more than 3")

    encrypted = bytearray(write_pth(path, STATE).read_bytes())
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(encrypted)
    refuse(path, "encrypted")


def test_overlapping_entries(tmp_path):
    path, zeros = tmp_path / "a.pth", bytes(100_000)
    state = {
        str(number): View(Stored(np.zeros(25_000, np.float32), key=str(number)), (25_000,), (1,))
        for number in range(50)
    }
    entries = [entry for entry in pth_entries(state) if "/data/" not in entry[0]]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*entries, ("archive/data/0", zeros)]:
            archive.writestr(name, data)
        original = archive.getinfo("archive/data/0")
        for number in range(1, 50):
            entry = zipfile.ZipInfo(f"archive/data/{number}")
            entry.header_offset, entry.CRC = original.header_offset, original.CRC
            entry.file_size = entry.compress_size = original.file_size
            archive.filelist.append(entry)
    assert peak_of(weights.load, path) < MIB
    refuse(path, "does not lie where")


def test_long_directory(tmp_path):
    path, size = tmp_path / "a.pth", 40 * MIB
    with open(path, "wb") as file:
        file.write(b"PK\3\4")
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, size, 0, 0))
    assert peak_of(weights.load, path) < MIB
    refuse(path, "directory")


def test_damaged_numbers_are_noticed(tmp_path):
    path = write_pth(tmp_path / "a.pth", STATE)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(ARRAYS["conv.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(damaged)
    refuse(path, "'archive/data/0'", "checksum")
