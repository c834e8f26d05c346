"""Archives: what goes in comes out; whatever a stranger puts in comes out as one DataError, and never runs."""

import errno
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minimrcnn import archive
from minimrcnn.archive import DTYPES, atomic_file, make_place, read_archive, read_header, write_archive
from minimrcnn.errors import DataError

ARRAYS = {
    "weights/conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "empty": np.zeros((0, 3), np.int64),
    "scalar": np.array(7, np.int64),
    "mask": np.array([True, False, True]),
}
HEADER = {"step": 3, "state": 2**127 + 1, "text": "größer"}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "good.npz"
    write_archive(path, ARRAYS, HEADER)
    return path.read_bytes()


def assert_same(arrays, expected):
    assert list(arrays) == list(expected)
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype and arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def write_zip(path, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)


HEADER_ENTRY = ("header.json", json.dumps({"header": {}, "arrays": ["x"]}))


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def refuse(path, *words):
    with pytest.raises(DataError) as caught:
        read_archive(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message, message


def test_round_trip(tmp_path):
    path = tmp_path / "a.npz"
    write_archive(path, ARRAYS, HEADER)
    arrays, header = read_archive(path)
    assert header == HEADER
    assert_same(arrays, ARRAYS)
    assert all(array.flags.c_contiguous and array.flags.writeable for array in arrays.values())
    assert_same({name: np.load(path)[name] for name in ARRAYS}, ARRAYS)  # NumPy reads it too


def test_the_header_alone(tmp_path):
    """Without a look at the arrays, but not without one at the directory."""
    path, numbers = tmp_path / "a.npz", np.arange(5)
    write_archive(path, {"a/b": numbers}, HEADER)
    whole = path.read_bytes()
    assert read_header(path) == HEADER == read_archive(path)[1]
    path.write_bytes(whole.replace(numbers.tobytes(), bytes(numbers.nbytes)))
    assert read_header(path) == HEADER
    with pytest.raises(DataError, match="truncated or damaged"):
        read_archive(path)
    write_zip(path, [("header.json", json.dumps({"header": HEADER, "arrays": ["a/c"]})), ("a/b.npy", b"")])
    for read in (read_header, read_archive):
        with pytest.raises(DataError, match="does not fit its other entries"):
            read(path)
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="truncated or damaged"):
        read_header(path)


@given(st.data())
def test_every_type_and_shape_comes_back(tmp_path_factory, data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    if data.draw(st.booleans()):
        array = array.T
    path = tmp_path_factory.mktemp("any") / "a.npz"
    write_archive(path, {"x": array}, {})
    assert_same(read_archive(path)[0], {"x": array})


def test_fortran_order_as_numpy_writes_it(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    write_zip(tmp_path / "f.npz", [HEADER_ENTRY, ("x.npy", npy(array))])
    assert b"'fortran_order': True" in (tmp_path / "f.npz").read_bytes()
    assert_same(read_archive(tmp_path / "f.npz")[0], {"x": array})


def test_same_contents_same_bytes(tmp_path):
    write_archive(tmp_path / "a.npz", ARRAYS, HEADER)
    write_archive(tmp_path / "b.npz", ARRAYS, HEADER)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@given(data=st.data())
def test_flipped_byte_is_found_or_harmless(tmp_path_factory, good, data):
    position = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[position] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("flip") / "a.npz"
    path.write_bytes(damaged)
    check_damaged(path)


def test_every_flipped_byte_is_found_or_harmless(tmp_path, good):
    path = tmp_path / "a.npz"
    for position in range(len(good)):
        for flip in (0x01, 0xFF):
            damaged = bytearray(good)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            check_damaged(path)


def check_damaged(path):
    try:
        arrays, header = read_archive(path)
    except DataError as error:
        assert str(path) in str(error)
    else:  # dates and attributes are not ours to check
        assert header == HEADER
        assert_same(arrays, ARRAYS)


def test_every_truncation_is_found(tmp_path, good):
    path = tmp_path / "a.npz"
    for length in range(len(good)):
        path.write_bytes(good[:length])
        refuse(path)


def test_missing_file_and_folder(tmp_path):
    refuse(tmp_path / "none.npz", "no such file")
    refuse(tmp_path, "folder")


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("disguise", ["bare", "npy", "torch"])
def test_pickle_in_disguise_never_runs(tmp_path, disguise):
    mark, path = str(tmp_path / "ran"), tmp_path / "model.npz"
    payload = pickle.dumps(Bomb(mark))
    if disguise == "bare":
        path.write_bytes(payload)
    elif disguise == "npy":
        objects = np.array([Bomb(mark)], dtype=object)
        write_zip(path, [HEADER_ENTRY, ("x.npy", npy(objects, allow_pickle=True))])
    else:
        write_zip(path, [("archive/data.pkl", payload), HEADER_ENTRY])
    refuse(path, "|O" if disguise == "npy" else "pickle")
    assert not os.path.exists(mark)


def test_encrypted_entries_and_names_that_are_not_listed(tmp_path):
    path = tmp_path / "a.npz"
    write_zip(path, [HEADER_ENTRY, ("y.npy", npy(np.zeros(1)))])
    refuse(path, "does not fit its other entries")
    write_zip(path, [HEADER_ENTRY, ("x.npy", npy(np.zeros(1)))])
    data = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # before every entry, and in the directory
        data[data.rindex(magic) + flags] |= 1
    path.write_bytes(data)
    refuse(path, "x.npy is encrypted")


def test_bombs(tmp_path):
    path = tmp_path / "a.npz"
    zeros = npy(np.zeros(10**7, np.uint8))
    write_zip(path, [HEADER_ENTRY, ("x.npy", zeros)], zipfile.ZIP_DEFLATED)
    refuse(path, "compressed")

    # The same stored bytes promised by many directory entries, as overlapping bombs do.
    for count in (1, 50):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(*HEADER_ENTRY)
            archive.writestr("x.npy", zeros[:100_000])
            for number in range(count):
                entry = zipfile.ZipInfo(f"y{number}.npy")
                original = archive.getinfo("x.npy")
                entry.header_offset, entry.CRC = original.header_offset, original.CRC
                entry.file_size = entry.compress_size = original.file_size
                archive.filelist.append(entry)
        refuse(path, "promise")

    # A small entry whose header promises terabytes.
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    write_zip(path, [HEADER_ENTRY, ("x.npy", data)])
    refuse(path, "x ", "(1000000, 1000000)")


@pytest.mark.parametrize(
    "entries, words",
    [
        ([("x.npy", npy(np.zeros(3)))], ["header.json"]),
        ([("header.json", "[1]")], ["header.json", "fit"]),
        ([("header.json", json.dumps({"header": {}, "arrays": ["x", "x"]})), ("x.npy", b"")], ["header.json", "fit"]),
        ([("header.json", json.dumps({"header": {}, "arrays": [["x"]]})), ("['x'].npy", b"")], ["header.json", "fit"]),
        ([HEADER_ENTRY], ["header.json", "fit"]),
        ([HEADER_ENTRY, ("x.npy", npy(np.zeros(3))), ("y.npy", npy(np.zeros(3)))], ["header.json", "fit"]),
        ([("header.json", "{")], ["damaged"]),
        ([("header.json", "[" * 100_000)], ["damaged"]),
        ([HEADER_ENTRY, ("../x.npy", npy(np.zeros(3)))], ["../x.npy"]),
        ([HEADER_ENTRY, ("/x.npy", npy(np.zeros(3)))], ["/x.npy"]),
        ([HEADER_ENTRY, ("readme.txt", "hello")], ["readme.txt"]),
        ([HEADER_ENTRY, ("x.npy", b"\x93NUMPY")], ["damaged"]),
        ([HEADER_ENTRY, ("x.npy", npy(np.zeros(3))[:-1])], ["x ", "(3,)"]),
        ([HEADER_ENTRY, ("x.npy", npy(np.zeros(3)) + b"1")], ["x ", "(3,)"]),
        ([HEADER_ENTRY, ("x.npy", npy(np.array(["text"])))], ["x ", "U4"]),
        ([HEADER_ENTRY, ("x.npy", npy(np.zeros(3), version=(2, 0)))], ["x ", "version 1"]),
        ([HEADER_ENTRY, ("x.npy", npy(np.zeros(2, [("a", "<f4")])))], ["x ", "header"]),
    ],
)
def test_strange_entries(tmp_path, entries, words):
    write_zip(tmp_path / "a.npz", entries)
    refuse(tmp_path / "a.npz", *words)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_shape_that_never_ends(tmp_path):
    """A pattern that can split its digits in many ways would try them all: 2**40 here."""
    header = npy(np.zeros(3)).replace(b"'shape': (3,), }", b"'shape': (" + b"1" * 40 + b"x")
    write_zip(tmp_path / "a.npz", [HEADER_ENTRY, ("x.npy", header)])
    refuse(tmp_path / "a.npz", "header")


def test_what_becomes_objects_is_short(tmp_path):
    """Of a directory and of JSON memory holds many times their length."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as zipped:
        zipped.writestr(*HEADER_ENTRY)
        for number in range(300):
            entry = zipfile.ZipInfo(f"{number}.npy")
            entry.comment = b"x" * 60_000  # which is in the directory alone
            zipped.writestr(entry, b"")
    refuse(tmp_path / "a.npz", "its directory has 18")
    write_zip(tmp_path / "a.npz", [("header.json", b" " * 17 * 2**20)])
    refuse(tmp_path / "a.npz", "its header.json has 17825792 bytes, more than 16777216")


def test_long_arrays_come_back(tmp_path):
    long = {"x": np.arange(5 * 2**20)}  # 40 MiB
    write_archive(tmp_path / "a.npz", long, {})
    assert_same(read_archive(tmp_path / "a.npz")[0], long)


def test_name_twice(tmp_path):
    write_zip(tmp_path / "a.npz", [HEADER_ENTRY, ("x.npy", npy(np.zeros(3))), ("x.npy", npy(np.ones(3)))])
    refuse(tmp_path / "a.npz", "twice")


def test_other_formats(tmp_path):
    for data, word in [(npy(np.zeros(3)), ".npy"), (b"\x89HDF\r\n", "HDF5"), (b"hello there", "zip"), (b"", "damaged")]:
        (tmp_path / "a.npz").write_bytes(data)
        refuse(tmp_path / "a.npz", word)


def test_writer_refuses_what_the_reader_would(tmp_path):
    with pytest.raises(TypeError, match="x is object"):
        write_archive(tmp_path / "a.npz", {"x": np.array([None])}, {})
    with pytest.raises(ValueError, match=r"\.\./x"):
        write_archive(tmp_path / "a.npz", {"../x": np.zeros(1)}, {})
    with pytest.raises(ValueError, match="cannot name an array"):
        write_archive(tmp_path / "a.npz", {"x\0y": np.zeros(1)}, {})
    with pytest.raises(TypeError):
        write_archive(tmp_path / "a.npz", {}, {"x": {1, 2}})
    assert not os.listdir(tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.json"]
    with atomic_file(path) as file:
        file.write(json.dumps({"new": 1}).encode())
    assert json.loads(path.read_text()) == {"new": 1} and os.listdir(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.name == "nt", reason="whole paths are short there")
def test_the_longest_name_of_a_file_can_be_written(tmp_path):
    """Two of them that begin alike do not meet on the way."""
    names = ["ü" * 125 + end for end in ("a.jpg", "b.jpg")]
    with atomic_file(tmp_path / names[0]) as first, atomic_file(tmp_path / names[1]) as second:
        first.write(b"first")
        second.write(b"second")
        assert all(name.endswith(".partial") for name in os.listdir(tmp_path))
    assert sorted(os.listdir(tmp_path)) == names and (tmp_path / names[0]).read_bytes() == b"first"


@pytest.mark.skipif(os.name == "nt", reason="links want rights there")
def test_no_link_is_written_through(tmp_path):
    (tmp_path / "victim").write_text("dear")
    os.symlink(tmp_path / "victim", tmp_path / "a.json.partial")
    with atomic_file(tmp_path / "a.json") as file:
        file.write(b"{}")
    assert (tmp_path / "victim").read_text() == "dear" and not (tmp_path / "a.json").is_symlink()


def test_no_link_is_written_through_that_comes_back(tmp_path, monkeypatch):
    """Somebody puts it there again, between its removal and our writing."""
    (tmp_path / "victim").write_text("dear")
    os.symlink(tmp_path / "victim", tmp_path / "a.json.partial")
    monkeypatch.setattr(os, "unlink", lambda path: None)
    with pytest.raises(FileExistsError, match="a.json"), atomic_file(tmp_path / "a.json") as file:
        file.write(b"{}")
    assert (tmp_path / "victim").read_text() == "dear"


def test_a_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append(os.fstat(number).st_size), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replaced"), replace(*paths)))
    with atomic_file(tmp_path / "a.json") as file:
        file.write(b"{}")
    assert done == [2, "replaced"]


def test_a_file_that_somebody_reads_is_waited_for(tmp_path, monkeypatch):
    """On Windows a file that is open cannot be replaced."""
    path, replace, refusals = tmp_path / "a.json", os.replace, []

    def refused(*paths):
        if len(refusals) < 2:
            refusals.append(paths)
            raise PermissionError(errno.EACCES, "Access is denied", paths[0])
        replace(*paths)

    monkeypatch.setattr(archive, "TRIES", 3)
    monkeypatch.setattr(os, "replace", refused)
    with atomic_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new" and len(refusals) == 2
    refusals.clear()
    monkeypatch.setattr(archive, "TRIES", 2)
    with pytest.raises(PermissionError, match="denied: '.*a.json'"), atomic_file(path) as file:
        file.write(b"newer")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.json"]


def test_errors_of_the_system_name_the_file_that_was_asked_for(tmp_path):
    for path, kind in ((tmp_path / "none" / "a.json", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(kind) as caught, atomic_file(path) as file:
            file.write(b"new")
        assert str(caught.value).endswith(f": '{path}'")
    with pytest.raises(FileNotFoundError, match="'elsewhere'"), atomic_file(tmp_path / "a.json"):
        open("elsewhere", "rb")
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.json'"), atomic_file(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os.listdir(tmp_path) == []


def test_a_place_is_made_or_refused_before_the_work(tmp_path):
    make_place(tmp_path / "a" / "b" / "page.html")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("old")
    for path, words in ((tmp_path / "a", "is a folder"), (tmp_path / "file" / "x.html", r"it cannot be written \(")):
        with pytest.raises(DataError, match=f"{path}: .*{words}"):
            make_place(path)
