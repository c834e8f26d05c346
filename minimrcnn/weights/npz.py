"""NumPy's .npz, a zip of .npy entries: those of a stranger, compressed or not.

`minimrcnn.archive` reads what we wrote ourselves and refuses compression. numpy.savez_compressed is common, so this
reader unpacks, and bounds what comes out:

1. all entries together may unpack to MAX_RATIO times the length of the file and a little more. Trained weights shrink
   by a tenth when they are compressed, a zip bomb by a thousand;
2. a .npy header is matched against the form NumPy writes, never evaluated, its type is one of a short list, and shape
   times item size has to be the bytes the zip promises;
3. an entry is unpacked piece by piece into its array, and never further than promised.
"""

from __future__ import annotations

import math
import re
import zipfile

import numpy as np

from minimrcnn.archive import DTYPES, NPY_HEADER, NPY_START, Refused
from minimrcnn.weights.stored import STORED_AS, as_array, shown

MAX_RATIO = 20
ALLOWANCE = 64 * 2**20  # bytes: a small file may be all zeros
CHUNK = 2**18


def read_npz(archive: zipfile.ZipFile, entries, size: int) -> dict[str, np.ndarray]:
    """The arrays of an .npz. The entries are those of `read_directory`, the size that of the file."""
    promised = sum(entry.info.file_size for entry in entries.values())
    if promised > MAX_RATIO * size + ALLOWANCE:
        raise Refused(
            f"its arrays would unpack to {promised} bytes, the file has {size}; "
            "if you trust it, write it again uncompressed: numpy.savez(new_path, **numpy.load(path))"
        )
    arrays = {}
    for name, entry in entries.items():
        if entry.info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refused(
                f"its entry {shown(name)} is packed by method {entry.info.compress_type}, wanted none or deflate (8), "
                "as numpy.savez and numpy.savez_compressed write it"
            )
        with archive.open(entry.info) as stream:
            arrays[name.removesuffix(".npy")] = read_npy(stream, shown(name), entry.info.file_size)
    return arrays


def read_npy(stream, name: str, size: int) -> np.ndarray:
    """The array of one .npy entry of ``size`` bytes (format version 1.0, as NumPy documents it)."""
    magic, major, _, length = NPY_START.unpack(stream.read(NPY_START.size))
    if magic != b"\x93NUMPY" or major != 1:
        raise Refused(f"its entry {name} is not a .npy array of version 1; write it again with numpy.savez")
    match = NPY_HEADER.fullmatch(stream.read(length))
    if not match:
        raise Refused(f"its entry {name} has a header that NumPy does not write for plain arrays")
    descr, fortran_order, shape = match.groups()
    if descr.decode().replace(">", "<") not in DTYPES:
        raise Refused(
            f"its entry {name} is of type {descr.decode()}, wanted one of {', '.join(DTYPES)}; "
            "convert it with array.astype, objects have no place among weights"
        )
    dtype = np.dtype(descr.decode())
    shape = tuple(int(side) for side in re.findall(rb"\d+", shape))
    held = size - NPY_START.size - length
    if math.prod(shape) * dtype.itemsize != held:
        raise Refused(f"its entry {name} has {held} bytes, its shape {shape} of {dtype} wants another number")
    data = np.empty(held, np.uint8)
    filled = 0
    while filled < held and (piece := stream.read(min(CHUNK, held - filled))):
        data[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if filled != held:
        raise Refused(f"its entry {name} unpacks to {filled} bytes, wanted {held}; copy the file again")
    stored = np.ndarray(
        shape, dtype.byteorder + STORED_AS[dtype.name], data, order="F" if fortran_order == b"True" else "C"
    )
    return as_array(stored, dtype.name)


def write_npz(file, arrays) -> None:
    """Write an uncompressed .npz, which numpy.load reads too. Same arrays, same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # ZipInfo's date is 1980 unless told otherwise: no clock gets into the file.
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=array.nbytes > 2**30) as entry:
                np.lib.format.write_array(entry, array, version=(1, 0), allow_pickle=False)
