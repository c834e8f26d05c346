"""Which format a data folder is in, and the one data set that all of them become.

A format is recognized by what is in the files, not by what they are called. Where several are found, nothing is
guessed.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minimrcnn.data.coco import CocoDataset, count_objects
from minimrcnn.data.faults import Faults
from minimrcnn.data.folder import DataFolder
from minimrcnn.data.label_images import find_pairs, read_label_images
from minimrcnn.data.labelme import is_labelme, read_labelme
from minimrcnn.data.mask_files import find_photos, read_mask_files
from minimrcnn.data.photos import Photo, to_coco
from minimrcnn.data.pictures import MAX_PIXELS, SUFFIXES, safe_join
from minimrcnn.data.rows import read_json
from minimrcnn.data.via import is_via, read_via, refuse_csv
from minimrcnn.errors import DataError
from minimrcnn.spelling import printable

# By their names for --format: in words, and what makes a folder one of them.
FORMATS = {
    "coco": ("COCO", "annotations.json with images, annotations and categories, and images/"),
    "via": ("VIA", "a project or an export of the VGG Image Annotator, version 1 or 2, in JSON"),
    "labelme": ("LabelMe", "a JSON file for each photo"),
    "mask-files": ("one PNG an object", "ID/images/ID.png and ID/masks/*.png"),
    "label-images": ("label images", "images/ and masks/, or PNGImages/ and PedMasks/"),
}
MOST_DOCUMENTS = 50  # JSON files that are looked into: of those called like a photo, and of the others
FOREIGN = (".xml", ".csv", ".txt")  # of Pascal VOC, of VIA's other export, of YOLO
MASK_FOLDERS = {"masks", "PedMasks"}  # what is in them is no photo
MOST_LISTED = 4  # classes named in the line about a data set


@dataclass
class Opened:
    """A data set and how it was found.

    Attributes
    ----------
    folder : Path
        As it was named; or the file.
    dataset : CocoDataset
    format : str
        A key of `FORMATS`.
    source : str
        The annotation file, relative to the folder; empty where the format has none, or many.
    faults : Faults
    """

    folder: Path
    dataset: CocoDataset
    format: str
    source: str
    faults: Faults

    def describe(self) -> str:
        """Format, photos, objects and classes in a line."""
        counts = count_objects(self.dataset)
        counts = dict(sorted(counts.items(), key=lambda item: -item[1]))  # the most frequent first
        objects = sum(counts.values())
        names = [f"{name} {count}" for name, count in list(counts.items())[:MOST_LISTED]]
        names += ["..."] if len(counts) > MOST_LISTED else []
        source = f" ({self.source})" if self.source else ""
        return printable(
            f"{self.folder}: {FORMATS[self.format][0]}{source}, {plural(len(self.dataset), 'photo')}, "
            f"{plural(objects, 'object')}, {plural(len(counts), 'class', 'classes')} ({', '.join(names)})"
        )


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def open_data(
    path,
    format: str | None = None,
    class_attribute: str | None = None,
    known: tuple[tuple, tuple] | None = None,
    gather: bool = False,
    max_pixels: int = MAX_PIXELS,
    or_other: bool = False,
    masks: bool = True,
) -> Opened:
    """The data set in a folder, or of an annotation file, whichever format it is in.

    Parameters
    ----------
    path : path
        A data folder; or the one annotation file in it that is meant.
    format : str, optional
        A key of `FORMATS`; otherwise it is recognized.
    class_attribute : str, optional
        The region attribute of VIA that is the class; the other formats have no use for it.
    known : (class_names, category_ids), optional
        Of the data or the model that the data set is to be compared with, the background first: its classes are those,
        found by their names, whatever numbers its files have for them.
    gather : bool
        Faults are gathered in ``faults`` of the result, instead of the first being raised.
    max_pixels : int
        Photos with more are refused.
    or_other : bool
        Where there is no data set of ``format``, which was meant for others, the one of another format is taken.
    masks : bool
        Masks are needed; without, objects may be boxes alone, as COCO's format may have them.

    Raises
    ------
    DataError
        The folder holds no data set or several, or, unless ``gather``, something in it is wrong.
    """
    faults = Faults(gather)
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            raise DataError(
                f"{path}: this is a photo; wanted the folder of photos and annotations, or an annotation file"
            )
        refuse_csv(path)
        folder, only = DataFolder(root_of(path)), path
    elif path.suffix.lower() == ".json" and not path.exists():
        raise DataError(f"{path}: no such file; wanted an annotation file, or a folder of photos and annotations")
    else:
        folder, only = DataFolder(path), None
    format, source = choose(folder, format, only, or_other, faults)
    if format == "coco":
        dataset = open_coco(folder, source, faults, max_pixels, masks)
    else:
        photos = read_photos(folder, format, source, faults, class_attribute, max_pixels)
        document = to_coco(photos, folder, faults, known, max_pixels)
        paths = {image["id"]: folder.path(image["file_name"]) for image in document["images"]}
        dataset = CocoDataset.of_rows(document, paths, max_pixels)
    if known:
        try:
            dataset = dataset.renumbered(*known)
        except DataError as error:  # no fault of these data alone
            raise DataError(f"{path}: {error}") from None
    if not (format == "labelme" and source):  # the others may have files of their own
        note_left_out(folder, dataset, faults)
    return Opened(path, dataset, format, source, faults)


def read_photos(
    folder: DataFolder, format: str, source: str, faults: Faults, class_attribute: str | None, max_pixels: int
) -> Iterator[Photo]:
    """The photos that the reader of a format finds."""
    return {
        "via": lambda: read_via(folder, source, faults, class_attribute),
        "labelme": lambda: read_labelme(folder, faults, source, max_pixels),
        "mask-files": lambda: read_mask_files(folder, faults, max_pixels),
        "label-images": lambda: read_label_images(folder, faults, max_pixels),
    }[format]()


def root_of(file: Path) -> Path:
    """The folder of an annotation file; the one above if there are no photos below its own, as in COCO's layout."""
    own = file.resolve().parent
    return own.parent if not DataFolder(own).pictures else file.parent


def open_coco(folder: DataFolder, source: str, faults: Faults, max_pixels: int, masks: bool) -> CocoDataset:
    """COCO's format; photos are in images/, beside the annotation file, or wherever there is one of that name."""
    path = folder.path(source)
    beside = "" if path.parent == folder.root else path.parent.relative_to(folder.root).as_posix()

    def find(name: str) -> Path:
        for base in (folder.root / "images", path.parent):
            try:
                found = safe_join(base, name)
            except DataError:
                continue
            if found.is_file():
                return found
        return folder.path(folder.find(name, beside))

    return CocoDataset(path, folder.root, max_pixels, faults=faults, find=find, masks=masks)


def note_left_out(folder: DataFolder, dataset: CocoDataset, faults: Faults) -> None:
    """Photos in the folder that no annotation is about, not even one with a fault."""
    used = {*dataset.paths, *(folder.path(one) for name in faults.photos for one in folder.search(name))}
    for name in folder.pictures:
        if folder.path(name) not in used and not MASK_FOLDERS.intersection(name.split("/")[:-1]):
            faults.note("photos without annotation, left out", name)


def choose(
    folder: DataFolder, format: str | None, only: Path | None, or_other: bool, faults: Faults
) -> tuple[str, str]:
    """The one format and annotation file that a folder holds."""
    source = None if only is None else os.path.relpath(only.resolve(), folder.root.resolve()).replace(os.sep, "/")
    found, unreadable = candidates_of(folder, source, None if format == "labelme" else MOST_DOCUMENTS)
    if format is not None:
        others, found = found, [candidate for candidate in found if candidate[0] == format]
        if not found and or_other:
            found = others
        elif not found and format == "labelme" and unreadable:
            return format, source or ""  # its reader says of every file what is wrong with it
        elif not found and (others or not unreadable):
            there = f"there is {listing(others)}" if others else "there are no annotations"
            there += f"; {next(iter(unreadable.values()))}" if unreadable else ""
            raise DataError(f"{only or folder.root}: wanted {FORMATS[format][1]} (--format {format}); {there}")
    if not found and unreadable:
        more = f"; {len(unreadable) - 1} more JSON files cannot be read either" if len(unreadable) > 1 else ""
        raise DataError(f"{next(iter(unreadable.values()))}{more}")
    if not found and only is not None:
        raise DataError(f"{only}: wanted annotations in JSON, of COCO, VIA or LabelMe")
    if not found:
        for name in folder.files:
            if name.lower().endswith(".csv"):
                refuse_csv(folder.path(name))
        raise DataError(nothing_found(folder))
    if len(found) == 1:
        for name in unreadable if found[0][0] != "labelme" else ():
            faults.note("JSON files that cannot be read, left out", name)
        return found[0]
    count = Counter(name for name, _ in found)
    single = " or ".join(f"--format {name}" for name in count if count[name] == 1)
    advice = [f"say which is meant: {single}"] if single else []
    for source in [source for name, source in found if count[name] > 1][:1]:
        advice.append(f"name the file that is meant, as {folder.path(source)}, in place of the folder")
    raise DataError(f"{folder.root}: holds {listing(found)}; {', or '.join(advice)}")


def listing(candidates: list[tuple[str, str]]) -> str:
    """Candidates in words."""
    return ", ".join(f"{FORMATS[name][0]} ({source})" if source else FORMATS[name][0] for name, source in candidates)


def candidates_of(
    folder: DataFolder, only: str | None = None, most: int | None = MOST_DOCUMENTS
) -> tuple[list[tuple[str, str]], dict[str, DataError]]:
    """The formats that can be meant, each with its annotation file, (format, source); and why files cannot be read.

    Parameters
    ----------
    folder : DataFolder
    only : str, optional
        The one file that is looked into.
    most : int or None
        Files called like a photo, and others, that are looked into; None for all.
    """
    found, unreadable = [], {}
    documents, like_photos = [only], []
    if only is None:
        names = [name for name in folder.files if name.lower().endswith(".json")]
        like_photos = [name for name in names if folder.find_stem(name)]
        documents = [name for name in names if name not in set(like_photos)][:most]
        if find_photos(folder):
            found.append(("mask-files", ""))
        if find_pairs(folder):
            found.append(("label-images", ""))
    for place, source in enumerate([*documents, *like_photos[:most]]):
        try:
            name = recognize(read_json(folder.path(source)))
        except DataError as error:
            unreadable[source] = error
            continue
        if name:
            found.append((name, "" if name == "labelme" and only is None else source))
        if name and place >= len(documents):
            break  # files called like photos are as a rule all of one kind, but the first may be damaged or a camera's
    return list(dict.fromkeys(found)), unreadable


def recognize(document) -> str | None:
    """The format of a JSON document."""
    if is_via(document):
        return "via"
    if is_labelme(document):
        return "labelme"
    return "coco" if isinstance(document, dict) and {"images", "annotations"} <= document.keys() else None


def find_above(folder: DataFolder) -> Path | None:
    """An annotation file beside a folder of photos that names one of them."""
    photos = {name.rpartition("/")[2] for name in folder.pictures}
    for path in sorted(folder.root.resolve().parent.glob("*.json"))[:5] if photos else ():
        with suppress(DataError):
            document = read_json(path)
            if recognize(document):
                texts = re.split(r'["/\\]+', json.dumps(document, ensure_ascii=False))  # paths in their parts
                if photos.intersection(texts):
                    return path
    return None


def nothing_found(folder: DataFolder) -> str:
    """What to say of a folder without a data set: one folder too high, or what was looked for."""
    below = sorted({name.partition("/")[0] for name in folder.files if "/" in name})
    roots = [folder.root / name for name in below[:MOST_DOCUMENTS]]
    inside = [str(root) for root in roots if candidates_of(DataFolder(root))[0]]
    if inside:
        return f"{folder.root}: no data set itself, but {', '.join(inside[:6])} may be; name one of them"
    wanted = "".join(f"\n  {words}: {layout}" for words, layout in FORMATS.values())
    photos = f"{plural(len(folder.pictures), 'photo')}, but" if folder.pictures else "no photos and"
    other = [suffix for suffix in FOREIGN if any(name.lower().endswith(suffix) for name in folder.files)]
    advice = f"; of its {' and '.join(other)} files the annotation tool can make one of these" if other else ""
    if folder.links:
        links = plural(len(folder.links), "name")
        advice += f"; left out as links out of the folder: {links}; copy what is there into it"
    if above := find_above(folder):
        advice += f"; {above} may be about them: name that file or its folder"
    return f"{folder.root}: {photos} no annotations that are known{advice}; wanted one of{wanted}"
