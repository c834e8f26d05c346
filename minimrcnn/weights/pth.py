"""torch's .pth and .pt files, read without torch.

Since torch 1.6 such a file is an uncompressed zip:

    NAME/data.pkl     a pickle: the state dict, with a reference to a storage in place of every tensor's numbers
    NAME/data/KEY     the numbers of one storage, as they lay in memory
    NAME/byteorder    "little" or "big"; missing in older files, which are little

1. Read the pickle with a machine that cannot run anything (`pickles`). Every tensor becomes a `TensorView`: which
   storage, where it starts, its sides, and the stride of each, in elements.
2. Take the state dict: the entry ``model`` or ``state_dict`` of a checkpoint, or else the whole. What is no tensor in
   it (an epoch, a version, None) is ignored; whoever loads the arrays into a model notices a missing name anyway.
3. Compare every view with its storage and all views together with the file, before any array is made: one stored
   number could be said to be a thousand billion of them (stride 0, or many views of one storage).
4. Read one storage after the other and copy the views out of it; a storage that is one tensor becomes the array itself.
   Memory is so that of the arrays and of one storage.
"""

from __future__ import annotations

import math

import numpy as np

from minimrcnn.archive import Refused
from minimrcnn.weights.pickles import LUGGAGE, MAX_PICKLE, Storage, TensorView, Unusable, read_pickle
from minimrcnn.weights.stored import STORED_AS, as_array, read_stored, shown

MAX_SHARING = 4  # all tensors together may have as many times the bytes of the file; weights are rarely used twice
MAX_SIDES = 32
MAX_NUMBER = 2**48  # of elements: beyond any file, and still far from the overflow of 64 bits


def read_pth(file, entries, size: int) -> dict[str, np.ndarray]:
    """The arrays of a state dict. The entries are those of `read_directory`, the size that of the file."""
    root = find_root(entries)
    for name, entry in entries.items():
        if entry.info.compress_type or entry.info.compress_size != entry.info.file_size:
            raise Refused(f"its entry {shown(name)} is compressed, as torch.save never does; save it again with torch")
    order = "<"
    if f"{root}byteorder" in entries:
        order = read_order(file, f"{root}byteorder", entries)
    if (length := entries[f"{root}data.pkl"].info.file_size) > MAX_PICKLE:
        raise Refused(
            f"its data.pkl has {length} bytes, more than {MAX_PICKLE}, enough for 12,000 tensors; "
            "save the weights alone: torch.save(model.state_dict(), new_path)"
        )
    top = read_pickle(read_stored(file, f"{root}data.pkl", entries[f"{root}data.pkl"]).tobytes())

    views = find_tensors(top)
    for name, view in views.items():
        check_view(name, view, entries.get(f"{root}data/{view.storage.key}"))
    promised = sum(math.prod(view.size) * item_size(view.kind) for view in views.values())
    if promised > MAX_SHARING * size:
        raise Refused(
            f"its {len(views)} tensors share so much of their storages that they would take {promised} bytes, the file "
            f"has {size}; save copies: {{name: tensor.clone() for name, tensor in state.items()}}"
        )

    names_of: dict[Storage, list[str]] = {}
    for name, view in views.items():
        names_of.setdefault(view.storage, []).append(name)
    arrays = dict.fromkeys(views)  # in the order of the state dict
    for storage, names in names_of.items():
        entry_name = f"{root}data/{storage.key}"
        data = read_stored(file, entry_name, entries[entry_name])
        for name in names:
            arrays[name] = cut_out(data, views[name], order, is_only_one=len(names) == 1)
    return arrays


def find_root(entries) -> str:
    """The folder in the zip, with its slash, in which data.pkl lies."""
    roots = [name.removesuffix("data.pkl") for name in entries if name.split("/")[-1] == "data.pkl"]
    if len(roots) != 1:
        raise Refused(f"it holds {len(roots)} entries data.pkl, wanted one, as torch.save writes it")
    root = roots[0]
    if f"{root}constants.pkl" in entries or any(name.startswith(f"{root}code/") for name in entries):
        raise Refused(
            "this is a TorchScript archive, a program with weights; wanted weights alone: "
            "torch.save(torch.jit.load(path).state_dict(), new_path)"
        )
    return root


def read_order(file, name: str, entries) -> str:
    """The byte order, as NumPy spells it."""
    if entries[name].info.file_size <= len(b"little"):
        match read_stored(file, name, entries[name]).tobytes():
            case b"little":
                return "<"
            case b"big":
                return ">"
    raise Refused(f"its entry {shown(name)} is neither 'little' nor 'big'; copy the file again from where it came")


def find_tensors(top) -> dict[str, TensorView]:
    """The tensors of the state dict in what a file holds."""
    if not isinstance(top, dict):
        kind = "one tensor without a name" if isinstance(top, TensorView | Unusable) else f"a {type(top).__name__}"
        raise Refused(f'it holds {kind}, wanted a dict of tensors by name: torch.save({{"name": tensor}}, new_path)')
    state = next((top[key] for key in ("model", "state_dict") if isinstance(top.get(key), dict)), top)
    views = {name: value for name, value in state.items() if isinstance(value, TensorView | Unusable)}
    if state and not views:
        held = ", ".join(f"{shown(str(key))} ({describe(value)})" for key, value in list(state.items())[:8])
        raise Refused(
            f"it holds no tensors by name but {held}; wanted a state dict at the top, or under 'model' or "
            "'state_dict': save the part that is one: torch.save(torch.load(path)[key], new_path)"
        )
    for name, view in views.items():
        if not isinstance(name, str):
            raise Refused(f"it holds a tensor named {name}, wanted text: torch.save(model.state_dict(), new_path)")
        if isinstance(view, Unusable):
            raise Refused(f"its tensor {shown(name)} {view.why}")
    return views


def describe(value) -> str:
    """A value from a pickle, in a word or two. Never its contents, which may hold themselves."""
    if isinstance(value, dict):
        return f"a dict of {len(value)}"
    return "an object" if value is LUGGAGE else type(value).__name__


def item_size(kind: str) -> int:
    return 1 if kind == "untyped" else int(STORED_AS[kind][1:])


def check_view(name: str, view: TensorView, entry) -> None:
    """Refuse a view that its storage does not hold."""
    storage = view.storage
    if view.kind not in STORED_AS:
        raise Refused(
            f"its tensor {shown(name)} is of type {view.kind}, wanted one of {', '.join(STORED_AS)}; "
            "save tensor.float() instead, or real and imaginary part apart: torch.view_as_real(tensor)"
        )
    if entry is None:
        raise Refused(f"the storage {shown(storage.key)} of its tensor {shown(name)} is missing; copy the file again")
    if not (is_shape(view.size) and is_shape(view.stride) and is_shape((view.offset, storage.count))) or (
        len(view.size) != len(view.stride)
    ):
        raise Refused(f"its tensor {shown(name)} has no shape and stride that make sense; copy the file again")
    if storage.count * item_size(storage.kind) != entry.info.file_size:
        raise Refused(
            f"the storage {shown(storage.key)} of its tensor {shown(name)} has {entry.info.file_size} bytes, "
            f"{storage.count} {storage.kind} take {storage.count * item_size(storage.kind)}; copy the file again"
        )
    held, wanted = entry.info.file_size // item_size(view.kind), math.prod(view.size)
    steps = [(side - 1) * stride for side, stride in zip(view.size, view.stride, strict=True)]
    if wanted and (wanted > held or view.offset + sum(steps) >= held):
        raise Refused(
            f"its tensor {shown(name)} (size {view.size}, stride {view.stride}, offset {view.offset}) wants {wanted} "
            f"elements up to number {view.offset + sum(steps)}, its storage has {held}; if it was made by expand(), "
            "save tensor.clone() instead, or else copy the file again"
        )
    if wanted and any(side > 1 and stride == 0 for side, stride in zip(view.size, view.stride, strict=True)):
        raise Refused(
            f"its tensor {shown(name)} (size {view.size}, stride {view.stride}) repeats elements, as expand() does; "
            "save tensor.clone() instead"
        )


def is_shape(numbers) -> bool:
    """Whether this is a tuple of a few integers, none negative and none so large that arithmetic could overflow."""
    return (
        type(numbers) is tuple
        and len(numbers) <= MAX_SIDES
        and all(type(number) is int and 0 <= number < MAX_NUMBER for number in numbers)
    )


def cut_out(data: np.ndarray, view: TensorView, order: str, is_only_one: bool) -> np.ndarray:
    """The array of one tensor, from the bytes of its storage."""
    dtype = np.dtype(order + STORED_AS[view.kind])
    if not math.prod(view.size):
        return as_array(np.empty(view.size, dtype), view.kind)
    strides = [stride * dtype.itemsize for stride in view.stride]
    stored = np.ndarray(view.size, dtype, data, view.offset * dtype.itemsize, strides)
    array = as_array(stored, view.kind)
    # Arrays of their own: writing into one must not change another, nor keep the whole storage in memory.
    may_stay = is_only_one and array.nbytes == data.nbytes
    return array if may_stay or not np.may_share_memory(array, data) else array.copy()
