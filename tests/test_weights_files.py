"""Files of weights: what goes in comes out; what a stranger made up comes out as one DataError."""

import json
import os
import pickle
import struct
import zipfile
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minimrcnn import weights
from minimrcnn.archive import DTYPES, write_archive
from minimrcnn.errors import DataError
from minimrcnn.weights import npz, safetensors
from tests.foreign_weights import (
    ARRAYS,
    MIB,
    STATE,
    Bomb,
    assert_same,
    load_or_refuse,
    npy,
    peak_of,
    refuse,
    write_pth,
    write_zip,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of one file of each kind, all holding ARRAYS."""
    folder = tmp_path_factory.mktemp("good")
    write_pth(folder / "a.pth", STATE)
    weights.save(folder / "a.safetensors", ARRAYS)
    weights.save(folder / "a.npz", ARRAYS)
    np.savez_compressed(folder / "packed.npz", **ARRAYS)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def safetensors_bytes(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


X = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
EIGHT = bytes(8)


def test_safetensors_keep_a_config(tmp_path):
    path, arrays = tmp_path / "a.safetensors", {"x": np.ones(2, np.float32)}
    weights.save(path, arrays, {"num_classes": 2})
    found, config = weights.load_with_config(path)
    assert config == {"num_classes": 2} and list(found) == ["x"] == list(weights.load(path))
    for number in range(8):  # the data begin at a multiple of eight bytes, for those who map them into memory
        weights.save(path, {"x" * (number + 1): np.ones(2)})
        assert path.read_bytes()[0] % 8 == 0
    weights.save(path, arrays, {"num_classes": 2})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert header["__metadata__"] == {"minimrcnn.config": '{"num_classes": 2}'}
    for text in ('"{"', '"[1]"', "7", "null", json.dumps("[" * 10**5)):
        path.write_bytes(safetensors_bytes(b'{"__metadata__": {"minimrcnn.config": ' + text.encode() + b"}}", b""))
        with pytest.raises(DataError, match=r"a\.safetensors"):
            weights.load(path)
    path.write_bytes(safetensors_bytes(b'{"__metadata__": "pt"}', b""))
    assert weights.load_with_config(path) == ({}, None)


def test_safetensors_as_others_write_them(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "second": {"dtype": "BF16", "shape": [2], "data_offsets": [8, 12]},
        "first": {"dtype": "F64", "shape": [], "data_offsets": [0, 8]},
        "empty": {"dtype": "I8", "shape": [0, 3], "data_offsets": [12, 12]},
        "half": {"dtype": "F16", "shape": [1], "data_offsets": [13, 15]},
        "bool": {"dtype": "BOOL", "shape": [1], "data_offsets": [12, 13]},
    }
    data = np.float64(2.5).tobytes() + b"\xc0\x3f\x80\xff" + b"\x07" + np.float16(-0.5).tobytes()
    (tmp_path / "a").write_bytes(safetensors_bytes(json.dumps(header).encode() + b"   ", data))
    expected = {
        "second": np.float32([1.5, -np.inf]),
        "first": np.array(2.5),
        "empty": np.zeros((0, 3), np.int8),
        "half": np.float32([-0.5]),
        "bool": np.array([True]),
    }
    assert_same(weights.load(tmp_path / "a"), expected)
    (tmp_path / "a").write_bytes(safetensors_bytes({}))
    assert weights.load(tmp_path / "a") == {}


@pytest.mark.parametrize(
    "data, words",
    [
        ((2**63 + 5).to_bytes(8, "little") + b"{}", [str(2**63 + 5)]),
        ((3).to_bytes(8, "little") + b"{}", ["3 bytes"]),
        (safetensors_bytes(b"{"), ["damaged"]),
        (safetensors_bytes(b'{"\xff": 1}'), ["damaged"]),
        (safetensors_bytes(b'{"a":' * 100_000), ["damaged"]),
        (safetensors_bytes(b'{"a":' + b"1" * 5000 + b"}"), ["damaged"]),
        (safetensors_bytes({"x": X}, bytes(7)), ["8 bytes", "7"]),
        (safetensors_bytes({"x": X}, bytes(9)), ["8 bytes", "9"]),
        (safetensors_bytes({"x": X, "y": X}, EIGHT), ["'y'", "begins at byte 0", "ends at 8"]),
        (safetensors_bytes({"x": X, "y": X | {"data_offsets": [4, 12]}}, bytes(12)), ["'y'", "begins at byte 4"]),
        (safetensors_bytes({"x": X | {"data_offsets": [1, 9]}}, bytes(9)), ["'x'", "begins at byte 1", "the header"]),
        (safetensors_bytes({"x": X | {"data_offsets": [8, 0]}}, EIGHT), ["-8 bytes"]),
        (safetensors_bytes({"x": X | {"data_offsets": [-8, 0]}}, EIGHT), ["make no sense"]),
        (safetensors_bytes({"x": X | {"data_offsets": [0, 8.0]}}, EIGHT), ["make no sense"]),
        (safetensors_bytes({"x": X | {"data_offsets": [False, 8]}}, EIGHT), ["make no sense"]),
        (safetensors_bytes({"x": X | {"data_offsets": [0]}}, EIGHT), ["lacks"]),
        (safetensors_bytes({"x": X | {"shape": [3]}}, EIGHT), ["shape [3]", "12"]),
        (safetensors_bytes({"x": X | {"shape": [-2]}}, EIGHT), ["make no sense"]),
        (safetensors_bytes({"x": X | {"shape": [2**62, 2**62]}}, EIGHT), ["'x'"]),
        (safetensors_bytes({"x": X | {"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}), ["damaged"]),
        (safetensors_bytes({"x": X | {"shape": [1] * 40}}, EIGHT), ["make no sense"]),
        (safetensors_bytes({"x": X | {"dtype": "F8_E4M3"}}, EIGHT), ["F8_E4M3", "float()"]),
        (safetensors_bytes({"x": X | {"dtype": "C64"}}, EIGHT), ["C64"]),
        (safetensors_bytes({"x": X | {"dtype": 5}}, EIGHT), ["lacks"]),
        (safetensors_bytes({"x": X | {"more": 5}}, EIGHT), ["has more"]),
        (safetensors_bytes({"x": 5}, EIGHT), ["lacks"]),
        (safetensors_bytes(b'{"x": 1, "x": 1}'), ["twice"]),
        (
            safetensors_bytes(json.dumps({"x": X}).replace('"shape"', '"dtype": "F64", "shape"').encode(), EIGHT),
            ["twice"],
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_safetensors_that_lie(tmp_path, data, words):
    (tmp_path / "a.safetensors").write_bytes(data)
    assert peak_of(weights.load, tmp_path / "a.safetensors") < 4 * MIB
    refuse(tmp_path / "a.safetensors", *words)


def test_long_safetensors_header(tmp_path):
    path = tmp_path / "a.safetensors"
    with open(path, "wb") as file:
        file.write((200 * MIB).to_bytes(8, "little") + b"{")
        file.truncate(201 * MIB)
    assert peak_of(weights.load, path) < MIB
    refuse(path, "header", str(safetensors.MAX_HEADER))


def npy_header(header):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def test_npz_that_unpacks_to_less_than_it_says(tmp_path):
    """Its checksum is that of what is there; what is not would be whatever lay in memory."""
    path, entry = tmp_path / "a.npz", npy(np.arange(8.0))
    write_zip(path, [("x.npy", entry[:-16])], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\3\4", 22), (b"PK\1\2", 24)):  # before the entry, and in the directory
        start = data.rindex(magic) + place
        data[start : start + 4] = len(entry).to_bytes(4, "little")
    path.write_bytes(data)
    refuse(path, f"unpacks to {64 - 16} bytes, wanted 64")


def test_npz_as_numpy_writes_it(tmp_path):
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    big = np.arange(3).astype(">i4")
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", fortran=fortran, big=big, halves=np.float16([1.5]), **ARRAYS)
        expected = {"fortran": fortran, "big": big.astype(np.int32), "halves": np.float32([1.5]), **ARRAYS}
        assert_same(weights.load(tmp_path / "a.npz"), expected)


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("x.npy", npy(np.array([Bomb("ran")], object), allow_pickle=True), ["|O", "objects"]),
        ("x.npy", npy(np.array(["text"])), ["U4"]),
        ("x.npy", npy(np.zeros(2, [("a", "<f4")])), ["header"]),
        ("x.npy", npy(np.complex64([1])), ["<c8"]),
        ("x.npy", npy(np.zeros(3), version=(2, 0)), ["version 1"]),
        ("x.npy", npy(np.zeros(3))[:-1], ["(3,)"]),
        ("x.npy", npy(np.zeros(3)) + b"1", ["(3,)"]),
        ("x.npy", npy(np.zeros(3))[:20], ["header"]),
        ("x.npy", b"", ["damaged"]),
        (
            "x.npy",
            npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"),
            ["(1000000"],
        ),
        ("x.npy", npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1" * 60_000), ["header"]),
        ("x.pkl", pickle.dumps(Bomb("ran")), ["x.pkl", "wanted"]),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_strange_npz(tmp_path, name, data, words, compression):
    refuse(write_zip(tmp_path / "a.npz", [(name, data)], compression), *words)
    assert not os.path.exists("ran")


def test_npz_bombs(tmp_path):
    path = tmp_path / "a.npz"
    zeros = npy(np.zeros(20 * MIB, np.uint8))
    write_zip(path, [("x.npy", zeros)], zipfile.ZIP_DEFLATED)
    with mock.patch.object(npz, "ALLOWANCE", MIB):
        assert peak_of(weights.load, path) < MIB
        refuse(path, "unpack to", "numpy.savez")
    assert weights.load(path)["x"].nbytes == 20 * MIB  # so small a file may be all zeros

    # A directory that promises 128 + 3 bytes of those 20 MiB: what it promises is all that is unpacked.
    head = npy(np.zeros(3, np.uint8))
    liar = bytearray(write_zip(path, [("x.npy", head[:128] + zeros[128:])], zipfile.ZIP_DEFLATED).read_bytes())
    struct.pack_into("<L", liar, liar.index(b"PK\1\2") + 24, len(head))
    path.write_bytes(liar)
    assert peak_of(weights.load, path) < 4 * MIB
    refuse(path, "damaged")
    refuse(write_zip(path, [("x.npy", head)], zipfile.ZIP_LZMA), "method 14")


@given(st.data())
def test_what_is_saved_comes_back(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from([code for code in DTYPES if code != "<f2"])))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    array = array.T if data.draw(st.booleans()) else array
    arrays = {"layer.weight": array, "größe/x": np.array([True]), "last": np.arange(3)}
    path = tmp_path_factory.mktemp("any") / data.draw(st.sampled_from(["a.npz", "a.safetensors"]))
    weights.save(path, arrays)
    assert_same(weights.load(path), arrays)
    first = path.read_bytes()
    weights.save(path, arrays)
    assert path.read_bytes() == first


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_saving(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    weights.save(path, {})
    assert weights.load(path) == {}
    weights.save(path, ARRAYS | {"half": np.float16([1, -0.0, 65504])})
    assert_same(weights.load(path), ARRAYS)
    if suffix == ".npz":
        assert np.load(path)["half"].dtype == np.float16
        assert_same({name: np.load(path)[name] for name in ["mask"]}, {"mask": ARRAYS["mask"]})
    before = path.read_bytes()
    for arrays, word in [
        ({"x": np.array([None])}, "'x' is object"),
        ({"x": np.complex64([1])}, "complex64"),
        ({"x": np.zeros(2, ">f4")}, ">f4"),
        ({"../x": np.zeros(2)}, "'../x'"),
        ({"": np.zeros(2)}, "''"),
        ({5: np.zeros(2)}, "'5'"),
        ({"__metadata__": np.zeros(2)}, "__metadata__"),
        ({"x\ud800": np.zeros(2)}, "cannot be written"),
    ]:
        with pytest.raises(DataError, match=str(path)) as caught:
            weights.save(path, arrays)
        assert word in str(caught.value)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]
    with pytest.raises(DataError, match="cannot be written"):
        weights.save(tmp_path / "none" / path.name, ARRAYS)


@pytest.mark.parametrize("name", ["a.pth", "a", "a.h5", "a.npz.txt"])
def test_other_suffixes_are_not_written(tmp_path, name):
    with pytest.raises(DataError, match="wanted .npz or .safetensors"):
        weights.save(tmp_path / name, ARRAYS)
    assert not os.listdir(tmp_path)


def test_suffix_is_only_a_promise(tmp_path, good):
    for data in good.values():
        (tmp_path / "weights").write_bytes(data)
        assert_same(weights.load(tmp_path / "weights"), ARRAYS)
        assert_same(weights.load(str(tmp_path / "weights")), ARRAYS)


def test_other_files(tmp_path):
    path = tmp_path / "a.pth"
    for data, words in [
        (pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2), ["before 1.6", "weights_only=True"]),
        (pickle.dumps({"x": 1}), ["pickle"]),
        (npy(np.zeros(3)), [".npy", "numpy.savez"]),
        (b"\x89HDF\r\n\x1a\n", ["HDF5", "h5py"]),
        (b"<!DOCTYPE html>", ["web page"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["git lfs pull"]),
        (b"hello there", ["hello", "wanted", ".safetensors"]),
        (b"PK\3\4 and no more", ["damaged"]),
        (b"", ["empty"]),
    ]:
        path.write_bytes(data)
        refuse(path, *words)
    write_archive(path, ARRAYS, {"kind": "minimrcnn model"})
    refuse(path, "MaskRCNN.load")
    refuse(tmp_path / "none.pth", "no such file")
    refuse(tmp_path, "folder")


def test_truncations_are_found(tmp_path, good):
    for name, data in good.items():
        path = tmp_path / name
        path.write_bytes(data)
        for length in range(len(data) - 1, -1, -4):
            os.truncate(path, length)
            refuse(path)


def test_flipped_bytes_are_found_or_harmless(tmp_path, good):
    for name, data in good.items():
        path = tmp_path / name
        path.write_bytes(data)
        for position in range(0, len(data), 2):
            write_byte(path, position, data[position] ^ (0xFF if position % 3 else 0x01))
            arrays = load_or_refuse(path)
            if arrays is not None and name != "a.safetensors":  # the only one without a checksum
                assert_same(arrays, ARRAYS)
            write_byte(path, position, data[position])


def write_byte(path, position, byte):
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(bytes([byte]))


@settings(max_examples=150)
@given(st.data())
def test_mutated_files_give_arrays_or_an_error(tmp_path_factory, good, data):
    mutated = bytearray(good[data.draw(st.sampled_from(sorted(good)))])
    for _ in range(data.draw(st.integers(1, 6))):
        start = data.draw(st.integers(0, len(mutated)))
        stop = start + data.draw(st.sampled_from([0, 1, 1, 4, 100]))
        mutated[start:stop] = data.draw(st.one_of(st.binary(max_size=8), st.just(b"\xff" * 8)))
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.unlink(missing_ok=True)
    path.write_bytes(mutated)
    assert peak_of(load_or_refuse, path) < 8 * MIB
