"""Hugging Face's .safetensors: a length, a header in JSON, and the numbers.

    8 bytes      N, little endian
    N bytes      {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
    the rest     the data; offsets count from here

The format was made so that nothing in it needs to be trusted (https://github.com/huggingface/safetensors, "Format"),
provided that its reader checks what the official one checks:

1. the header is no longer than the file and than a limit, and no key occurs twice in it;
2. shape times item size is the length of the data, end minus begin;
3. sorted by their offsets, the arrays begin at 0, each where the last one ended, and end with the file: no byte belongs
   to two arrays and none to no array, where something else could hide.

``__metadata__`` is for texts by name. Of a model of ours the Config is there, in JSON, as arrays do not tell it all.
"""

from __future__ import annotations

import itertools
import json
import math

import numpy as np

from minimrcnn.archive import Refused
from minimrcnn.weights.stored import STORED_AS, as_array, read_bytes, shown

# The official limit is 100 MB. Python's objects take up to 25 times as much memory as their JSON, and 16 MiB describe
# 100,000 arrays: this limit refuses no weights and keeps a hostile header below half a GiB.
MAX_HEADER = 16 * 2**20
MAX_SIDES = 32
CONFIG = "minimrcnn.config"

KINDS = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
CODES = {kind: code for code, kind in KINDS.items()}
DAMAGED = "copy the file again from where it came"


def read_safetensors(file, size: int) -> tuple[dict[str, np.ndarray], dict | None]:
    """The arrays, in the order of the header, and the fields of the Config that is there, unchecked."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise Refused(f"its header is said to have {length} bytes, the file has {size}; {DAMAGED}")
    if length > MAX_HEADER:
        raise Refused(f"its header has {length} bytes, more than {MAX_HEADER}: this file holds no weights")
    header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=without_duplicates)
    if not isinstance(header, dict):
        raise Refused(f"its header is a {type(header).__name__}, wanted names and what they stand for; {DAMAGED}")
    config = read_config(header.pop("__metadata__", None))
    places = {name: check_entry(name, entry) for name, entry in header.items()}
    check_cover(places, size - 8 - length)

    arrays = {}
    for name, (kind, shape, begin, end) in places.items():
        data = read_bytes(file, 8 + length + begin, end - begin)
        arrays[name] = as_array(np.ndarray(shape, "<" + STORED_AS[kind], data), kind)
    return arrays, config


def read_config(metadata) -> dict | None:
    """The fields of the Config in what a file says of itself; None of a file that others wrote."""
    if not isinstance(metadata, dict) or CONFIG not in metadata:
        return None
    config = json.loads(str(metadata[CONFIG]))
    if not isinstance(config, dict):
        raise Refused(f"its {CONFIG} is a {type(config).__name__}, wanted fields and what they are; {DAMAGED}")
    return config


def without_duplicates(pairs) -> dict:
    """The object of JSON, in which a name may stand once: other readers could take another one than we."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused(f"a name occurs twice in its header; {DAMAGED}")
    return found


def check_entry(name: str, entry) -> tuple[str, tuple[int, ...], int, int]:
    """Kind, shape, begin and end of one array."""
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [begin, end], **rest} if not rest:
            numbers = (*shape, begin, end)
        case _:
            raise Refused(f"its array {shown(name)} lacks dtype, shape or two data_offsets, or has more; {DAMAGED}")
    if code not in KINDS:
        raise Refused(
            f"its array {shown(name)} is of type {shown(code)}, wanted one of {', '.join(KINDS)}; "
            "convert it with what wrote it, in torch: tensor.float()"
        )
    # Booleans count as integers for isinstance; 2**63 bytes are in no file.
    if len(shape) > MAX_SIDES or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise Refused(f"its array {shown(name)} has a shape or data_offsets that make no sense; {DAMAGED}")
    wanted = math.prod(shape) * np.dtype(STORED_AS[KINDS[code]]).itemsize
    if wanted != end - begin:
        raise Refused(
            f"its array {shown(name)} has {end - begin} bytes, its shape {shape} of {code} wants {wanted}; {DAMAGED}"
        )
    return KINDS[code], tuple(shape), begin, end


def check_cover(places, size: int) -> None:
    """Refuse arrays that overlap, leave holes, or do not end where the file ends."""
    end, last = 0, "the header"
    for name, (_, _, begin, next_end) in sorted(places.items(), key=lambda item: item[1][2:]):
        if begin != end:
            raise Refused(f"its array {shown(name)} begins at byte {begin}, {last} ends at {end}; {DAMAGED}")
        end, last = next_end, shown(name)
    if end != size:
        raise Refused(f"its arrays take {end} bytes, the file has {size} for them; {DAMAGED}")


def write_safetensors(file, arrays, config: dict | None = None) -> None:
    """Write C-contiguous little-endian arrays whose types are in `CODES`. Same arrays and Config, same bytes."""
    # Large items first: so every array lies at a multiple of its item size, for those who map the file into memory.
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    ends = list(itertools.accumulate((arrays[name].nbytes for name in order), initial=0))
    offsets = {name: [begin, end] for name, (begin, end) in zip(order, itertools.pairwise(ends), strict=True)}
    header = {"__metadata__": {CONFIG: json.dumps(config)}} if config else {}
    header |= {
        name: {"dtype": CODES[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets[name]}
        for name, array in arrays.items()
    }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in order:
        file.write(arrays[name].reshape(-1).view(np.uint8).data)
