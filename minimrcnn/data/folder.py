"""The files of a data folder, listed once: an annotation file can name what is in this list and nothing else.

Annotation tools write the names of photos in many ways: with Windows' backslashes, relative to a folder that was
called otherwise on another computer, absolute, or in capitals that the file does not have. `DataFolder.find` therefore
never joins such a name to a path and opens it. It looks for the file in the list that the name can only mean.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from minimrcnn.data.pictures import SUFFIXES
from minimrcnn.errors import DataError

MOST_FILES = 1_000_000  # a folder with more was named by mistake, such as the root of a disk
END = 65536  # bytes at the beginning and at the end of a file, by which most photos of one size are told apart


class DataFolder:
    """All files below a folder, by their names relative to it, with slashes.

    Hidden files and folders, and links that lead out of the folder, are left out; a folder that was given to somebody
    must not show what else is on their disk.

    Parameters
    ----------
    root : path

    Attributes
    ----------
    root : Path
    files : list of str
        Sorted.
    pictures : list of str
        Those whose suffix is a picture's.
    links : list of str
        Files and folders that were left out because they are links out of the folder.
    """

    def __init__(self, root):
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(f"{root}: no such folder; wanted a folder of photos and annotations")
        self.links: list[str] = []
        self.files = sorted(self._walk())
        self.pictures = [name for name in self.files if Path(name).suffix.lower() in SUFFIXES]
        self._known = set(self.pictures)
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for name in self.pictures:
            self._by_name.setdefault(plain(posixpath.basename(name)), []).append(name)
            self._by_stem.setdefault(plain(stem(name)), []).append(name)

    def _walk(self) -> list[str]:
        inside, found = os.path.realpath(self.root), []
        for folder, folders, names in os.walk(self.root):
            hidden = [name for name in folders if name.startswith(".") or name == "__MACOSX"]
            for name in hidden:
                folders.remove(name)
            folders.sort()
            linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # not walked into
            for name in [*names, *linked]:
                path = os.path.join(folder, name)
                if name.startswith("."):
                    continue
                relative = Path(path).relative_to(self.root).as_posix()
                if os.path.islink(path) and not os.path.realpath(path).startswith(inside + os.sep):
                    self.links.append(relative)
                elif name not in linked:
                    found.append(relative)
            if len(found) + len(self.links) > MOST_FILES:
                raise DataError(f"{self.root}: holds more than {MOST_FILES} files; name the folder of the data set")
        return found

    def path(self, name: str) -> Path:
        """Where a listed file is."""
        return self.root / name

    def find(self, name: str, beside: str = "", size: int | None = None) -> str:
        """The picture that ``name``, as an annotation file has it, means.

        1. The file of this name, relative to the folder ``beside``, to the data folder, or to ``images/`` in either.
        2. The one file whose path ends like that; failing that, the one file of this name in whichever folder; failing
           that, the same without regard to capitals.

        Parameters
        ----------
        name : str
        beside : str
            The folder of the annotation file, relative to the data folder.
        size : int, optional
            Bytes; tells files of the same name apart, where the annotations know it.

        Raises
        ------
        DataError
            No file or several can be meant.
        """
        found = self.search(name, beside, size)
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(f"file name {name!r} may mean {' or '.join(found[:4])}; give the photos names of their own")
        last = plain(posixpath.basename(name.replace("\\", "/").strip()))
        unread = [other for other in self.files if plain(posixpath.basename(other)) == last]
        if unread:
            raise DataError(
                f"file name {name!r}: {unread[0]} is of no kind that can be read; save the photo as JPEG or PNG"
            )
        if any(plain(posixpath.basename(other)) == last for other in self.links):
            raise DataError(f"file name {name!r} is a link out of {self.root}, which is not followed; copy the photo")
        known = [other for other in list(self._by_name)[:10_000] if letters(other) != letters(last)]
        near = difflib.get_close_matches(last, known, n=1, cutoff=0.8)  # not one that is numbered otherwise
        nearest = f"; the nearest name there is {self._by_name[near[0]][0]}" if near else ""
        raise DataError(f"file name {name!r}: no such photo in {self.root}; put it there{nearest}")

    def search(self, name: str, beside: str = "", size: int | None = None) -> list[str]:
        """The pictures that ``name`` may mean, as in `find`: one, several, or none."""
        wanted = name.replace("\\", "/").strip()
        for base in (beside, posixpath.join(beside, "images"), "", "images"):
            near = posixpath.normpath(posixpath.join(base, wanted))
            if near in self._known:
                return [near]
        last, tail = posixpath.basename(wanted), "/" + wanted.lstrip("./")
        same = self._by_name.get(plain(last), [])
        for found in (
            [other for other in same if ("/" + other).endswith(tail)],
            [other for other in same if posixpath.basename(other) == last],
            [other for other in same if plain("/" + other).endswith(plain(tail))],
            same,
        ):
            if len(found) > 1 and size is not None:
                found = [other for other in found if self.path(other).stat().st_size == size] or found
            if found:
                return found
        return []

    def find_stem(self, name: str) -> list[str]:
        """The pictures whose name without its suffix is that of the file ``name``; those in its folder if any."""
        found = self._by_stem.get(plain(stem(name)), [])
        return [other for other in found if posixpath.dirname(other) == posixpath.dirname(name)] or found


def find_copies(paths: Sequence[Path]) -> dict[int, int]:
    """Files that hold the same bytes as an earlier one: from the place of each to that of the first.

    Only of files of one size the ends are read, and only files with the same ends are read whole.
    """
    keys: list[tuple] = [()] * len(paths)
    for look in (lambda path: path.stat().st_size, hash_ends, lambda path: hashlib.sha256(path.read_bytes()).digest()):
        count = Counter(keys)
        keys = [(*key, look(path)) if count[key] > 1 else key for key, path in zip(keys, paths, strict=True)]
    first_of: dict[tuple, int] = {}
    places = {place: first_of.setdefault(key, place) for place, key in enumerate(keys)}
    return {place: first for place, first in places.items() if first != place}


def fingerprint(path: Path) -> str:
    """What a photo is known by wherever it lies: its size and its ends, as `find_copies` compares them first."""
    return f"{path.stat().st_size:x}-{hash_ends(path).hex()[:16]}"


def hash_ends(path: Path) -> bytes:
    """A hash of the first and the last bytes of a file."""
    with open(path, "rb") as file:
        found = hashlib.sha256(file.read(END))
        file.seek(-min(END, file.seek(0, os.SEEK_END)), os.SEEK_END)
        found.update(file.read())
    return found.digest()


def stem(name: str) -> str:
    """The last part of a relative name, without its suffix."""
    return Path(name).stem


def letters(name: str) -> str:
    """A name without its digits."""
    return "".join(character for character in name if not character.isdigit())


def plain(name: str) -> str:
    """A name in small letters, its accents in one spelling of the two that Unicode has."""
    return unicodedata.normalize("NFC", name).casefold()
