"""The common record of all annotation formats: photos and the objects in them; and what becomes of it, COCO's rows.

Every format has a reader of its own that yields a `Photo` after the other. What they have in common is done here, once:

1. The photo's size is read from the photo, as it is seen; a size that the annotations state has to be the same.
2. What an object has beyond the edge of its photo is cut off. An object that lies beyond altogether is a fault: it was
   drawn in another photo, or in this one before it was turned or scaled.
3. Boxes are tight around the masks, in whole pixels.
4. Objects whose mask covers no pixel are left out, and noted.
5. Classes are numbered from 1 in the order of their names.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from minimrcnn.data.faults import Faults
from minimrcnn.data.folder import DataFolder, letters, plain
from minimrcnn.data.pictures import MAX_PIXELS, picture_size
from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths
from minimrcnn.progress import tqdm

RARE = 20  # times as many objects has a class whose name may have been meant,
FEW, RARE_PHOTOS = 3, 3  # or where the name is in so few photos only, times as many photos
ONLY_CLASS = "object"  # the class where a format or a file has none


@dataclass
class Marked:
    """One object that somebody marked.

    Attributes
    ----------
    where : str
        How messages call it: its place in its file.
    name : str or None
        Its class; None where the format knows no classes.
    parts : list
        Polygons ``[x1, y1, x2, y2, ...]`` in pixels, or run lengths ``{"size": [H, W], "counts": [...]}`` of the whole
        photo; together they are the mask.
    """

    where: str
    name: str | None
    parts: list = field(default_factory=list)


@dataclass
class Photo:
    """One photo and the objects in it, which may be none: then there is nothing to find in it.

    Attributes
    ----------
    where : str
        How messages call it: the annotation file, and the place in it.
    file : str
        As `DataFolder` lists it.
    objects : list of Marked
    size : (height, width) or None
        As the annotations state it.
    """

    where: str
    file: str
    objects: list[Marked] = field(default_factory=list)
    size: tuple[int, int] | None = None


def to_coco(
    photos: Iterable[Photo],
    folder: DataFolder,
    faults: Faults,
    known: tuple[tuple, tuple] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> dict:
    """The rows of a COCO file that say the same.

    Parameters
    ----------
    photos : iterable of Photo
    folder : DataFolder
    faults : Faults
    known : (class_names, category_ids), optional
        Of the data or the model that these photos are to be compared with, [0] being the background: classes get the
        numbers they have there, and others are refused.
    max_pixels : int
        Photos with more are refused.

    Returns
    -------
    dict
        ``images``, ``annotations`` and ``categories``.
    """
    images, annotations, first_of = [], [], {}
    for photo in tqdm(photos, desc="reading", unit=" photos", leave=False, delay=2):
        size = None
        with faults.at(photo.where, photo.file):
            if photo.file in first_of:
                raise DataError(f"{photo.file} is annotated in {first_of[photo.file]} as well; remove one of the two")
            size = read_size(photo, folder, max_pixels)
        if size is None:
            continue
        first_of[photo.file] = photo.where
        image = {"id": len(images) + 1, "file_name": photo.file, "width": size[1], "height": size[0]}
        images.append(image)
        if not photo.objects:
            faults.note("photos without an object, kept", photo.file)
        for marked in photo.objects:
            with faults.at(f"{photo.where}: {marked.where}"):
                row = to_row(marked, f"{photo.where}: {marked.where}", size, faults)
                if row:
                    annotations.append({**row, "image_id": image["id"], "id": len(annotations) + 1})

    names = note_names(annotations, faults)
    if known is None:
        numbers = {name: number for number, name in enumerate(names or [ONLY_CLASS], 1)}
    else:
        numbers = dict(zip(known[0][1:], known[1][1:], strict=True))
    only = next(iter(numbers)) if len(numbers) == 1 else ONLY_CLASS
    kept = []
    for row in annotations:
        name, where = row.pop("category"), row.pop("where")
        name = only if name is None else name
        if name not in numbers:  # no fault of these data alone
            raise DataError(
                f"{where}: the class is {name!r}, wanted one of those that are known, {', '.join(numbers)}; rename it, "
                "or train with it"
            )
        kept.append({**row, "category_id": numbers[name]})
    if not images and not faults.gather:
        raise DataError(f"{folder.root}: there is no annotated photo in it")
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return {"images": images, "annotations": kept, "categories": categories}


def note_names(annotations: list[dict], faults: Faults) -> list[str]:
    """The names of the classes, sorted; those that may be slips are noted: a label is often typed once for a photo."""
    named = [row for row in annotations if row["category"] is not None]
    objects = Counter(row["category"] for row in named)
    photos = Counter(name for name, _ in {(row["category"], row["image_id"]) for row in named})
    names = sorted(objects)
    for name in names:
        if sum(plain(name) == plain(other) for other in names) > 1:
            faults.note("class whose name another has in other letters", repr(name))
        common = [other for other in names if objects[name] * RARE <= objects[other]]
        if photos[name] <= FEW:
            common += [other for other in names if photos[name] * RARE_PHOTOS <= photos[other]]
        meant = {plain(other): other for other in common}
        others = [other for other in meant if letters(other) != letters(plain(name))]  # "cell 1" is no slip of "cell 2"
        for other in difflib.get_close_matches(plain(name), others, n=1, cutoff=0.8):
            faults.note("rare class whose name is nearly another's; a slip?", f"{name!r}, {meant[other]!r}")
    return names


def read_size(photo: Photo, folder: DataFolder, max_pixels: int) -> tuple[int, int]:
    """(height, width) of a photo, once it is sure that the annotations mean the same."""
    path = folder.path(photo.file)
    height, width = picture_size(path, max_pixels)
    if photo.size is not None and photo.size != (height, width):
        check_declared(photo.size, (height, width), path)
    return height, width


def check_declared(declared: tuple[int, int], size: tuple[int, int], path) -> None:
    """Raise `DataError` unless the (height, width) that the annotations state is the picture's."""
    if declared == size:
        return
    advice = (
        "was it annotated before it was rotated? Remove its EXIF rotation, or turn the annotations"
        if declared == size[::-1]
        else "use the picture that was annotated, or correct the annotations"
    )
    raise DataError(
        f"width {declared[1]} and height {declared[0]}, but {path} is {size[1]} wide and {size[0]} high; {advice}"
    )


def check_reach(polygons: list, size: tuple[int, int]) -> list[float]:
    """How far polygons reach together, ``x1, y1, x2, y2``; `DataError` if that is beyond a photo of (height, width)."""
    height, width = size
    points = np.concatenate(polygons).reshape(-1, 2)  # (P, 2)
    left, top, right, bottom = reach = points.min(axis=0).tolist() + points.max(axis=0).tolist()
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise DataError(
            f"reaches from x {left:g}, y {top:g} to x {right:g}, y {bottom:g}, wanted some of it inside "
            f"the photo, {width} wide and {height} high; was it drawn before the photo was turned or scaled?"
        )
    return reach


def to_row(marked: Marked, where: str, size: tuple[int, int], faults: Faults) -> dict | None:
    """A COCO row without its numbers; None if the mask covers no pixel."""
    height, width = size
    polygons = [part for part in marked.parts if isinstance(part, list)]
    counts = [run_lengths.polygons_to_counts(polygons, size)] if polygons else []
    for part in marked.parts:
        if isinstance(part, dict):
            counts.append(run_lengths.segmentation_to_counts(part, size))
    counts = run_lengths.union(counts) if len(counts) > 1 else counts[0]

    beyond = False
    if polygons:
        left, top, right, bottom = check_reach(polygons, size)
        beyond = min(left, top) < 0 or right > width or bottom > height
        if min(left, top) < -1 or right > width + 1 or bottom > height + 1:  # a pixel's overlap is nothing to speak of
            faults.note("objects clipped at the edge of their photo", where)
    area = run_lengths.area(counts)
    if not area:
        faults.note("objects left out, as they cover no pixel", where)
        return None
    left, top, right, bottom = run_lengths.bounding_box(counts, height).tolist()
    whole = beyond or len(polygons) < len(marked.parts)  # what no polygon inside the photo says, run lengths do
    segmentation = {"size": [height, width], "counts": run_lengths.to_string(counts)} if whole else polygons
    return {
        "category": marked.name,
        "where": where,
        "bbox": [left, top, right - left, bottom - top],
        "area": area,
        "iscrowd": 0,
        "segmentation": segmentation,
    }
