"""Which pictures are meant by the names that somebody types: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from minimrcnn.data.pictures import SUFFIXES
from minimrcnn.errors import DataError

GATHERED = SUFFIXES | {".heic", ".heif"}  # phones' pictures, which are not read, are named for that, not passed over


class Found(NamedTuple):
    """A picture's path, and its name relative to the folder or to the fixed part of the pattern that led to it."""

    path: Path
    name: Path


def gather_pictures(names: Iterable[str | os.PathLike], without: str | os.PathLike | None = None) -> list[Found]:
    """The pictures that are meant, each once, those of a folder or pattern in the order of their names.

    Parameters
    ----------
    names : paths
        Of files, which are taken as they are, there or not; of folders, in which pictures are looked for at any depth;
        or patterns with ``*``, ``?``, ``[...]`` and ``**`` for folders at any depth. What is hidden is passed over.
    without : path, optional
        A folder that is not looked into, as that of the results.

    Raises
    ------
    DataError
        There are no pictures in a folder, or a pattern fits none, or the folder is that of the results.
    """
    results = None if without is None else Path(os.path.realpath(without))
    found: dict[Path, Found] = {}
    for name in names:
        meant = {Path(os.path.realpath(one.path)): one for one in _expand(str(name))}
        if not os.path.isfile(name):
            if results == Path(os.path.realpath(name)):
                raise DataError(f"{name}: the results would lie among the pictures; name another folder with -o")
            meant = {real: one for real, one in meant.items() if results not in real.parents}
        if not meant:
            raise DataError(
                f"{name}: no pictures there; wanted a file, a folder of pictures, or a pattern like a/*.jpg"
            )
        found |= {real: one for real, one in meant.items() if real not in found}
    return list(found.values())


def _expand(name: str) -> Sequence[Found]:
    """What one name means."""
    path = Path(name)  # which raises for a name that is too long, os.path does not: the others are not held up
    if os.path.isdir(name):
        pattern, folder = os.path.join(glob.escape(name), "**", "*"), path
    elif not os.path.exists(name) and glob.has_magic(name):
        fixed = [part for part in path.parts]
        while fixed and glob.has_magic(os.path.join(*fixed)):
            fixed.pop()
        pattern, folder = name, Path(*fixed)
    else:
        return [Found(path, Path(path.name))]
    paths = (Path(one) for one in sorted(glob.glob(pattern, recursive=True)))
    return [
        # without "..", of which a pattern may have some: under such a name a result would leave its folder
        Found(one, Path(*[part for part in one.relative_to(folder).parts if part != ".."]))
        for one in paths
        if one.suffix.lower() in GATHERED and one.is_file()
    ]
