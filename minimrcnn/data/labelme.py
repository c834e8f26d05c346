"""Annotations of LabelMe: a JSON file for each photo, beside it or in a folder of its own.

``{"shapes": [{"label": .., "points": [[x, y], ..], "shape_type": .., "group_id": ..}, ..], "imagePath": ..}``

What is decided here:

- Polygons, rectangles, circles (center and a point on the rim), turned rectangles and masks are objects. Lines,
  linestrips and points have no area and are left out.
- Shapes of the same label and the same ``group_id`` are parts of one object, as LabelMe's own exports have it.
- The photo is the one of ``imagePath``, or the one that is called like the JSON file. The copy of it in ``imageData``
  is not looked at; where there is nothing else, an error says how to take it out.
- A file without shapes is a photo in which there is nothing to find. Photos without a file are left out.

Source: https://github.com/wkentaro/labelme.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import posixpath
import reprlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minimrcnn.data import outlines
from minimrcnn.data.faults import Faults
from minimrcnn.data.folder import DataFolder
from minimrcnn.data.photos import Marked, Photo
from minimrcnn.data.pictures import picture_size, read_values
from minimrcnn.data.rows import read_json, wanted_number
from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths
from minimrcnn.spelling import quote_arguments

JPEG = "/9j/"  # how such a file begins in base64
LINES = ("point", "points", "line", "linestrip")
SHAPES = "polygon, rectangle, circle, rotation, oriented_rectangle, mask"


def is_labelme(document) -> bool:
    """Whether a JSON document is LabelMe's."""
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read_labelme(folder: DataFolder, faults: Faults, only: str, max_pixels: int) -> Iterator[Photo]:
    """The photos of all LabelMe files in a folder, or of ``only`` one; other JSON files are passed over."""
    for source in [only] if only else [name for name in folder.files if name.lower().endswith(".json")]:
        document, namesakes = None, folder.find_stem(source)
        with faults.at(folder.path(source), *namesakes):
            document = read_json(folder.path(source))
        if not is_labelme(document):
            continue
        where = str(folder.path(source))
        photo = None
        with faults.at(where, *namesakes):
            photo = Photo(where, find_photo(folder, source, document), size=stated_size(document))
        if photo is None:
            continue
        together: dict[tuple, Marked] = {}
        for number, shape in enumerate(document["shapes"]):
            place = f"shapes[{number}]"
            with faults.at(f"{where}: {place}"):
                if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
                    raise DataError(f"holds {reprlib.repr(shape)}, wanted a label, points and a shape_type")
                if not shape["label"].strip():
                    raise DataError("the label is empty; name it in LabelMe, or remove the shape")
                kind = shape.get("shape_type") or "polygon"
                if kind in LINES:
                    faults.note("lines and points left out, as they have no area", f"{where}: {place}")
                    continue
                if kind == "rectangle":
                    faults.note("rectangles, whose masks are filled boxes", f"{where}: {place}")
                path = folder.path(photo.file)
                part = read_mask(shape, path, max_pixels) if kind == "mask" else outline(kind, shape)
                group = shape.get("group_id")
                key = (place,) if group is None else (shape["label"].strip(), str(group))
                if key not in together:
                    together[key] = Marked(place, shape["label"].strip())
                together[key].parts.append(part)
        photo.objects = list(together.values())
        yield photo


def find_photo(folder: DataFolder, source: str, document: dict) -> str:
    """The photo that a LabelMe file is about."""
    name = document.get("imagePath")
    try:
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"imagePath is {reprlib.repr(name)}, wanted the name of a photo")
        return folder.find(name, posixpath.dirname(source))
    except DataError as error:
        namesakes = folder.find_stem(source)
        if len(namesakes) == 1:
            return namesakes[0]
        copy = document.get("imageData")
        if namesakes or not copy or not isinstance(copy, str):
            raise
        command = spell_taking_out(folder.path(source), ".jpg" if copy.startswith(JPEG) else ".png")
        raise DataError(f"{error}; or take out the one that this file contains ({command})") from None


def spell_taking_out(path: Path, suffix: str) -> str:
    """The command that writes the photo in a file's ``imageData`` to one called like it; JSON quotes as Python does."""
    photo, document = (json.dumps(str(one), ensure_ascii=False) for one in (path.with_suffix(suffix), path))
    decoded = f'base64.b64decode(json.load(open({document}, "rb"))["imageData"])'
    code = f'import base64, json; open({photo}, "wb").write({decoded})'
    return quote_arguments([Path(sys.executable).name, "-c", code])


def stated_size(document: dict) -> tuple[int, int] | None:
    """(height, width) if the file states it."""
    size = document.get("imageHeight"), document.get("imageWidth")
    return size if all(isinstance(side, int) and not isinstance(side, bool) for side in size) else None


def read_points(shape: dict) -> list[list[float]]:
    """The points as lists of x and y."""
    points = shape.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise DataError(f"points is {reprlib.repr(points)}, wanted a list of [x, y]")
    return [[wanted_number({"x": x}, "x"), wanted_number({"y": y}, "y")] for x, y in points]


def outline(kind: str, shape: dict) -> list[float]:
    """The polygon of a shape."""
    points = read_points(shape)
    if kind in ("polygon", "rotation", "oriented_rectangle") or (kind == "rectangle" and len(points) == 4):
        return outlines.polygon([x for x, _ in points], [y for _, y in points])
    if kind in ("rectangle", "circle"):
        if len(points) != 2:
            raise DataError(f"the {kind} has {len(points)} points, wanted 2; draw it again, or remove it")
        (x1, y1), (x2, y2) = points
        if kind == "circle":
            radius = math.hypot(x2 - x1, y2 - y1)
            return outlines.ellipse(x1, y1, radius, radius)
        return outlines.rectangle(min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1))
    raise DataError(f"shape_type is {reprlib.repr(kind)}, wanted one of {SHAPES}; draw the object again, or remove it")


def read_mask(shape: dict, photo, max_pixels: int) -> dict:
    """The run lengths of a shape that is a mask: a PNG picture in text, for the pixels from the first point on."""
    points = read_points(shape)
    try:
        data = base64.b64decode(shape.get("mask") or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        data = b""
    if not data or not points:
        raise DataError("the mask holds no picture; draw the object again, or remove it")
    height, width = picture_size(photo, max_pixels)
    mask = read_values(io.BytesIO(data), "mask", max_pixels=(height + 2) * (width + 2))
    left, top = (round(side) for side in points[0])
    whole = np.zeros((height, width), bool)
    rows, columns = slice(max(top, 0), max(top + mask.shape[0], 0)), slice(max(left, 0), max(left + mask.shape[1], 0))
    seen = whole[rows, columns]
    seen[:] = mask[max(-top, 0) :, max(-left, 0) :][: seen.shape[0], : seen.shape[1]] != 0
    return {"size": [height, width], "counts": run_lengths.encode(whole)}
