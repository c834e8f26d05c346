"""What the readers share: a zip whose directory can be trusted, and stored bytes that become arrays.

A zip says what it holds twice: in a directory at its end, and before every entry. A hostile one says what is not so.
Whoever uses `read_directory` may take its word, because

1. the directory is short (zipfile makes objects of it that take fifteen times its length in memory);
2. no entry is encrypted, no name occurs twice, and none leaves the folder it would be unpacked in;
3. every entry lies in the file right behind the one before it and the directory behind the last, so that no byte is
   promised twice, and no entry is there that the directory, damaged or not, does not name.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from minimrcnn.archive import MAX_ENTRIES, Refused, ShortReads, is_safe_name

LOCAL_HEADER = struct.Struct("<4s22xHH")  # magic, then the lengths of the name and of the extra field that follow
DESCRIPTOR = 24  # bytes at most, that may follow an entry: its checksum and lengths once more
ENCRYPTED = 0x1 | 0x40 | 0x2000

# How a type lies in a file. NumPy has no bfloat16, and a stored boolean may be any byte: both are read as integers.
STORED_AS = {
    **{"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "bool": "u1"},
    **{"int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1"},
    **{"uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1"},
}


@dataclass(frozen=True)
class Entry:
    """Where one entry of a zip lies."""

    start: int  # of its bytes, behind its own header
    info: zipfile.ZipInfo


def read_directory(file, size: int) -> tuple[zipfile.ZipFile, dict[str, Entry]]:
    """The zip and where its entries lie, in the order of the file."""
    archive = zipfile.ZipFile(ShortReads(file))
    if len(archive.infolist()) > MAX_ENTRIES:
        raise Refused(f"it has {len(archive.infolist())} entries, more than {MAX_ENTRIES}: this file holds no weights")
    entries, end = {}, 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        name = info.filename
        if not is_safe_name(name.removesuffix("/")):  # only a folder's own entry ends in a slash
            raise Refused(f"its entry {shown(name)} would leave the folder it is unpacked in; do not trust this file")
        if info.flag_bits & ENCRYPTED:
            raise Refused(f"its entry {shown(name)} is encrypted; wanted a file without password: write it again")
        if name in entries:
            raise Refused(f"its entry {shown(name)} occurs twice; write the file again")
        file.seek(info.header_offset)
        magic, name_length, extra_length = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        start = info.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if magic != b"PK\3\4" or not end <= info.header_offset <= end + DESCRIPTOR or start + info.compress_size > size:
            raise Refused(
                f"its entry {shown(name)} does not lie where its directory says ({info.compress_size} bytes from "
                f"{start}, the one before it ends at {end}, the file at {size}); copy the file again from where it came"
            )
        entries[name], end = Entry(start, info), start + info.compress_size
    if not end <= archive.start_dir <= end + DESCRIPTOR:
        raise Refused(
            f"its directory is at byte {archive.start_dir}, the last entry it names ends at {end}; "
            "copy the file again from where it came"
        )
    return archive, entries


def read_stored(file, name: str, entry: Entry) -> np.ndarray:
    """The bytes of an uncompressed entry (uint8), compared with its checksum."""
    data = read_bytes(file, entry.start, entry.info.file_size)
    # 0: torch was told not to compute checksums (torch.serialization.set_crc32_options).
    if entry.info.CRC and zlib.crc32(data) != entry.info.CRC:
        raise Refused(f"its entry {shown(name)} does not fit its checksum; copy the file again from where it came")
    return data


def read_bytes(file, start: int, size: int) -> np.ndarray:
    """``size`` bytes (uint8) from ``start``. The caller has compared them with the length of the file."""
    data = np.empty(size, np.uint8)
    file.seek(start)
    if (got := file.readinto(data)) != size:
        raise Refused(f"the file ends after {got} of {size} bytes from {start}; copy it again from where it came")
    return data


def as_array(stored: np.ndarray, kind: str) -> np.ndarray:
    """What an array of ``STORED_AS[kind]`` means, C-contiguous in native byte order; a copy only if it has to be.

    Half precision becomes float32, in which the rest of the package computes; every value of it fits.
    """
    if kind == "bfloat16":  # the upper half of a float32
        bits = stored.astype(np.uint32, order="C")
        bits <<= 16
        return bits.view(np.float32)
    meant = {"float16": "float32"}.get(kind, kind)
    return stored.astype(meant, order="C", copy=False)


def shown(name: str) -> str:
    """A name from a file, fit for a message: quoted, and not a megabyte long."""
    return repr(name) if len(name) <= 100 else f"{name[:100]!r}..."
