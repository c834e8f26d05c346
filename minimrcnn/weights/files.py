"""Weights in the three formats they are published in, as named arrays.

`load` looks at the first bytes of a file, since a suffix is only a promise, and hands it to the reader of its format:

    torch's zip        .pth, .pt          `pth`, and `pickles` for the pickle in it
    safetensors        .safetensors       `safetensors`
    NumPy              .npz               `npz`

Nothing in a file can run, whoever made it, and none takes much more memory than its own length. Whatever is wrong
becomes one DataError: the readers raise `Refused` without the file's name, which is added here.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np

from minimrcnn.archive import DTYPES, HEADER_NAME, UNREADABLE, Refused, atomic_file, is_safe_name
from minimrcnn.errors import DataError
from minimrcnn.weights.npz import read_npz, write_npz
from minimrcnn.weights.pth import read_pth
from minimrcnn.weights.safetensors import read_safetensors, write_safetensors
from minimrcnn.weights.stored import read_directory, shown

WRITERS = {".npz": lambda file, arrays, _: write_npz(file, arrays), ".safetensors": write_safetensors}
WANTED = "wanted weights in a .pth or .pt file of torch.save, a .safetensors or an .npz file"

# What people mistake for weights, by its first bytes, and what to do about it.
OTHERS = (
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19",  # the number 0x1950a86a20f9469cfc6c as a pickle
        "this is torch's format from before 1.6, a bare pickle; open it with torch once and save it again: "
        "torch.save(torch.load(path, weights_only=True), new_path)",
    ),
    (
        b"\x80",
        "this is a Python pickle, which can run code when it is read, so it is not read; where you trust it, open it "
        "and save its arrays: minimrcnn.weights.save('weights.npz', arrays)",
    ),
    (b"\x93NUMPY", "this is a single .npy array; give it a name: numpy.savez('weights.npz', name=array)"),
    (
        b"\x89HDF",
        "this is an HDF5 file, as Keras writes it; read its arrays with h5py and save them: "
        "minimrcnn.weights.save('weights.npz', arrays)",
    ),
    (b"version https://git-lfs", "this is a pointer of Git LFS, not the file itself; get that with: git lfs pull"),
    (b"<", "this is a web page, not the file it links to; download that"),
)


def load(path) -> dict[str, np.ndarray]:
    """Read named arrays from a file of weights.

    Parameters
    ----------
    path : str or Path
        What torch.save wrote (a state dict, or a checkpoint with one under ``model`` or ``state_dict``), a
        .safetensors file, or what numpy.savez or `save` wrote.

    Returns
    -------
    arrays : dict of str to ndarray
        C-contiguous, writable, in native byte order, in the order of the file. float64, float32, integers and booleans
        as they are; float16 and bfloat16 as float32 of the same values.

    Raises
    ------
    DataError
        The file is missing, truncated, damaged, hostile, or of another kind. The message says how to mend it.
    """
    return load_with_config(path)[0]


def load_with_config(path) -> tuple[dict[str, np.ndarray], dict | None]:
    """`load`, and the fields of the Config that `save` was given, unchecked; None where the file has none."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return read(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a folder; {WANTED}") from None
    except PermissionError as error:
        raise DataError(f"{path}: it may not be read ({error.strerror}); change its permissions") from None
    except Refused as error:
        raise DataError(f"{path}: {error}") from None
    except (*UNREADABLE, zlib.error) as error:
        raise DataError(
            f"{path}: the file is truncated or damaged ({error or type(error).__name__}); "
            "copy it again from where it came"
        ) from error


def read(file, size: int) -> tuple[dict[str, np.ndarray], dict | None]:
    """Choose the reader by what the file begins with."""
    start = file.read(32)
    if start[:2] == b"PK":
        return read_zip(file, size), None
    for magic, advice in OTHERS:
        if start.startswith(magic):
            raise Refused(advice)
    if start[8:9] == b"{":
        return read_safetensors(file, size)
    raise Refused(f"it begins with {start[:8]!r}; {WANTED}" if start else f"the file is empty; {WANTED}")


def read_zip(file, size: int) -> dict[str, np.ndarray]:
    """Three formats are zips: ours, torch's and NumPy's. The names in them tell which."""
    archive, entries = read_directory(file, size)
    if HEADER_NAME in entries:
        raise Refused(
            "this is a minimrcnn model (or the checkpoint of a training); use MaskRCNN.load(path), on the command line "
            "--model instead of --weights"
        )
    if any(name.split("/")[-1] == "data.pkl" for name in entries):
        return read_pth(file, entries, size)
    if all(name.endswith(".npy") for name in entries):
        return read_npz(archive, entries, size)
    raise Refused(f"this is a zip of {', '.join(shown(name) for name in list(entries)[:4])}; {WANTED}")


def save(path, arrays, config: dict | None = None) -> None:
    """Write named arrays to a .npz or .safetensors file, atomically; `load` returns them bit for bit.

    Only float16 comes back as another type, float32.

    Parameters
    ----------
    path : str or Path
        Its suffix chooses the format. Its folder has to exist.
    arrays : dict of str to ndarray
        Booleans, integers and floats of any shape.
    config : dict, optional
        The fields of a model's Config; only a .safetensors file has a place for them.

    Raises
    ------
    DataError
        Another suffix, another type, a name that no file can hold, or a folder that cannot be written to.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise DataError(
            f"{path}: weights are not written as {path.suffix or 'a file without suffix'}; wanted .npz or "
            ".safetensors; torch reads the latter with safetensors.torch.load_file"
        )
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in arrays.items():
        if array.dtype.str not in DTYPES:
            wanted = f"wanted one of {', '.join(DTYPES)}; use astype"
            raise DataError(f"{path}: {shown(str(name))} is {array.dtype}, {wanted}")
        if not isinstance(name, str) or not is_safe_name(name) or name == "__metadata__":
            raise DataError(f"{path}: {shown(str(name))} cannot name an array, wanted a text such as 'conv1.weight'")
    try:
        with atomic_file(path) as file:
            WRITERS[path.suffix](file, arrays, config)
    except (OSError, UnicodeError, struct.error) as error:  # no folder, no space, a name that a zip cannot hold
        raise DataError(f"{path}: it cannot be written ({error}); check the folder, the disk and the names") from error
