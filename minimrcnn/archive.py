"""Files of named arrays that cannot run code: an uncompressed zip of .npy entries and one ``header.json``.

NumPy opens such a file with ``numpy.load`` as any .npz. We read it with checks of our own, because a model may come
from a stranger:

1. the zip's directory is short, and is compared with the file: no compression, no encryption, no name twice, and
   entries that together are no longer than the file. What is read can so never exceed what lies on the disk: no zip
   bomb fits in. ``header.json`` is short, too, as what JSON becomes takes many times its length in memory;
2. an entry is ``header.json`` or ends in ``.npy``; a pickle, which may run code when it is read, is neither;
3. the zip's checksum of every entry has to fit, and the arrays have to be those that ``header.json`` lists;
4. a .npy header is matched against the one form NumPy writes, not evaluated; its type is one of a short list, and
   shape times item size has to be the bytes that are there.

Whatever is wrong becomes one DataError that names the file. Files are written beside their destination and moved onto
it when they are complete, so that a reader finds the old file or the new one and never half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import struct
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from minimrcnn.errors import DataError

HEADER_NAME = "header.json"
MAX_ENTRIES = 100_000
MAX_DIRECTORY = 16 * 2**20  # bytes, of which zipfile makes 15 times as many; MAX_ENTRIES with long names take less
TRIES = 20 if os.name == "nt" else 1
LONGEST_NAME = 120  # bytes, to which a name may still get an ending: file systems allow 255, encrypted ones 143

DTYPES = ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8")
NPY_START = struct.Struct("<6sBBH")  # magic, version 1.0, length of the header
# A number is followed by a comma or by the end, so there is one way to match and no time to lose in trying others.
NPY_HEADER = re.compile(
    rb"\{'descr': '([|<>=]?\w+)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)

# What zipfile, json and struct raise on bytes that make no sense (NotImplementedError is a RuntimeError).
UNREADABLE = (zipfile.BadZipFile, EOFError, OSError, OverflowError, RuntimeError, ValueError, struct.error)


@contextlib.contextmanager
def atomic_file(path):
    """Open a binary file that appears under ``path`` only when the block has ended well.

    It is written as ``path`` + ``.partial`` in the same folder, brought to the disk and moved over ``path``; when the
    block raises, it is removed and ``path`` stays as it was. What a killed process left is removed next time, and so is
    a link that somebody put there for us to write through. A long name is cut on the way.

    Errors of the system name ``path``.
    """
    partial = name_partial(os.fspath(path))
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        if isinstance(error, OSError) and error.errno and error.filename in (None, partial):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def name_partial(path: str) -> str:
    """Where a file is written before it takes its place; of a long name the beginning, and a hash of the whole."""
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f"{name[:20]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return os.path.join(folder, f"{name}.partial")


def _replace(partial: str, path) -> None:
    """Move one file over another. Windows refuses while somebody reads the other, as a browser: again, for a second."""
    for _ in range(TRIES - 1):
        try:
            return os.replace(partial, path)
        except PermissionError:
            time.sleep(0.05)
    return os.replace(partial, path)


def make_place(path) -> None:
    """Make the folder of a file that is to be written, and see that it can be: before the work, not after it.

    Raises
    ------
    DataError
        It cannot; the message names the file.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: this is a folder; wanted the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path}: it cannot be written ({error.strerror}); check its folder, or name another") from None


def write_archive(path, arrays, header) -> None:
    """Write named arrays and a JSON header to ``path``, atomically. Same contents, same bytes.

    Parameters
    ----------
    path : str or Path
        Its folder has to exist.
    arrays : dict of str to ndarray
        Booleans, integers and floats of any shape.
    header : dict
        Anything JSON can hold.

    Raises
    ------
    TypeError
        An array of another type.
    ValueError
        A name that leaves the archive (``../x``, ``/x``).
    """
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.str not in DTYPES:
            raise TypeError(f"write_archive: {name} is {array.dtype}, wanted one of {', '.join(DTYPES)}")
        if not is_safe_name(name):
            raise ValueError(f"write_archive: {name!r} cannot name an array: wanted a relative path without '..'")
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # ZipInfo's date is 1980 unless told otherwise: no clock gets into the file.
        archive.writestr(zipfile.ZipInfo(HEADER_NAME), json.dumps({"header": header, "arrays": list(arrays)}))
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=array.nbytes > 2**30) as entry:
                np.lib.format.write_array(entry, array, version=(1, 0), allow_pickle=False)


def read_archive(path) -> tuple[dict[str, np.ndarray], dict]:
    """Read what `write_archive` wrote. No code in the file can run, whoever made it.

    Returns
    -------
    arrays : dict of str to ndarray
        C-contiguous, writable, in the order of the file.
    header : dict

    Raises
    ------
    DataError
        The file is missing, truncated, damaged, not an archive, or one that only a pickle or a zip bomb needs to be.
    """
    return _read(path)


def read_header(path) -> dict:
    """The header alone of what `write_archive` wrote, without the time and memory that the arrays take.

    Errors as `read_archive`; arrays that are damaged are not noticed.
    """
    return _read(path, header_only=True)[1]


def _read(path, header_only: bool = False) -> tuple[dict[str, np.ndarray], dict]:
    """What `read_archive` says; no arrays with ``header_only``."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            refuse_other_formats(file.read(8))
            reads = ShortReads(file)
            with zipfile.ZipFile(reads) as archive:
                entries = archive.infolist()
                check_directory(entries, size)
                reads.most = size
                there = [entry.filename for entry in entries]
                contents = {name: archive.read(name) for name in ([HEADER_NAME] if header_only else there)}
        match json.loads(contents.pop(HEADER_NAME)):
            case {"header": dict(header), "arrays": list(names)} if all(
                isinstance(name, str) for name in names
            ) and sorted([HEADER_NAME, *(f"{name}.npy" for name in names)]) == sorted(there):
                read = () if header_only else names
                # pop: an entry's bytes go as its array comes
                return {name: parse_npy(name, contents.pop(f"{name}.npy")) for name in read}, header
        raise Refused(f"its {HEADER_NAME} does not fit its other entries")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a folder, wanted a file such as model.npz inside it") from None
    except PermissionError as error:
        raise DataError(f"{path}: it may not be read ({error.strerror})") from None
    except Refused as error:
        raise DataError(
            f"{path}: {error}; wanted a file that minimrcnn wrote (model.npz, checkpoint.npz); published weights are "
            "read by load_model(path), on the command line by --weights instead of --model"
        ) from None
    except UNREADABLE as error:
        raise DataError(
            f"{path}: the file is truncated or damaged ({error or type(error).__name__}); "
            "copy it again from where it came, or use an older one"
        ) from error


class Refused(ValueError):
    """The file may be whole, but it is not an archive of ours."""


class ShortReads:
    """A file of which at most ``most`` bytes are read at a time: `MAX_DIRECTORY`, until somebody knows better."""

    def __init__(self, file):
        self.file = file
        self.most = MAX_DIRECTORY

    def __getattr__(self, name):
        return getattr(self.file, name)

    def read(self, size=-1):
        if size > self.most:
            raise Refused(f"its directory has {size} bytes, more than {self.most}: this file holds no weights")
        return self.file.read(size)


def refuse_other_formats(start: bytes) -> None:
    """Name what people mistake for an archive, from its first bytes."""
    if start[:1] == b"\x80":
        raise Refused("this is a Python pickle, which can run code when it is read, so it is not read")
    if start[:6] == b"\x93NUMPY":
        raise Refused("this is a single .npy array")
    if start[:4] == b"\x89HDF":
        raise Refused("this is an HDF5 file")
    if start and start[:2] != b"PK":
        raise Refused("this is not a zip file")


def check_directory(entries, size: int) -> None:
    """Refuse a zip whose directory promises what an archive of ours does not have or the file cannot hold."""
    if len(entries) > MAX_ENTRIES:
        raise Refused(f"it has {len(entries)} entries, more than {MAX_ENTRIES}")
    names = [entry.filename for entry in entries]
    for entry in entries:
        name = entry.filename
        if name.endswith((".pkl", ".pickle")):
            raise Refused(f"it holds the pickle {name!r}, which can run code when it is read, so it is not read")
        if not is_safe_name(name) or not (name == HEADER_NAME or name.endswith(".npy")):
            raise Refused(f"it holds {name!r}, neither {HEADER_NAME} nor an array (.npy)")
        if name == HEADER_NAME and entry.file_size > MAX_DIRECTORY:
            raise Refused(f"its {HEADER_NAME} has {entry.file_size} bytes, more than {MAX_DIRECTORY}")
        if entry.flag_bits & 0x1:
            raise Refused(f"{name} is encrypted")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Refused(f"{name} is compressed, which an archive is not")
    if len(set(names)) != len(names):
        raise Refused("a name occurs twice in it")
    if HEADER_NAME not in names:
        raise Refused(f"it has no {HEADER_NAME}")
    promised = sum(entry.file_size for entry in entries)
    if promised > size:  # overlapping entries: the same bytes promised again and again
        raise Refused(f"its entries promise {promised} bytes, the file has {size}")


def is_safe_name(name: str) -> bool:
    """Whether a name stays below the folder it would be unpacked in."""
    return bool(name) and "\\" not in name and "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def parse_npy(name: str, data: bytes) -> np.ndarray:
    """The array of one .npy entry (format version 1.0, as NumPy documents it)."""
    magic, major, _, length = NPY_START.unpack_from(data)
    if magic != b"\x93NUMPY" or major != 1:
        raise Refused(f"{name} is not a .npy array of version 1")
    start = NPY_START.size + length
    match = NPY_HEADER.fullmatch(data[NPY_START.size : start])
    if not match:
        raise Refused(f"{name} has a header that NumPy does not write for plain arrays")
    descr, fortran_order, shape = match.groups()
    if descr.decode() not in DTYPES:
        raise Refused(f"{name} is of type {descr.decode()}, wanted one of {', '.join(DTYPES)}")
    dtype = np.dtype(descr.decode())
    shape = tuple(int(side) for side in re.findall(rb"\d+", shape))
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise Refused(f"{name} has {len(data) - start} bytes, its shape {shape} of {dtype} wants another number")
    order = "F" if fortran_order == b"True" else "C"
    return np.ndarray(shape, dtype, buffer=data, offset=start, order=order).copy(order="C")
