"""Annotations of the VGG Image Annotator (VIA) 1 and 2, as its project files and its JSON exports hold them.

An entry is a photo: ``{"filename": .., "size": bytes, "regions": .., "file_attributes": ..}``. Project files keep the
entries under ``_via_img_metadata``, exports have nothing else. ``regions`` is a list, in version 1 an object with the
keys "0", "1", ..; a region has ``shape_attributes`` and ``region_attributes``.

What is decided here:

- Polygons, circles, ellipses and rectangles are objects, a polyline is closed and taken for a polygon. Points have no
  area and are left out.
- The class is a region attribute: the one asked for, else the only one there is, else the only one that is called
  class, label or category. Without any attributes all regions are of one class, "object".
- Of a checkbox the class is the one box that is ticked.
- An entry without regions is a photo in which there is nothing to find. Photos without an entry are left out.

Source: Dutta and Zisserman 2019, The VIA annotation software; https://www.robots.ox.ac.uk/~vgg/software/via/.
"""

from __future__ import annotations

import posixpath
import reprlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from minimrcnn.data import outlines
from minimrcnn.data.faults import Faults
from minimrcnn.data.folder import DataFolder
from minimrcnn.data.photos import Marked, Photo
from minimrcnn.data.rows import read_json, wanted_number
from minimrcnn.errors import DataError

PROJECT = "_via_img_metadata"
CLASS_ATTRIBUTES = ("class", "class_name", "label", "category")
SHAPES = "polygon, polyline, circle, ellipse, rect"
CSV = b"filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
MOST_LISTED = 6  # attributes, and values of each, in a message


def is_via(document) -> bool:
    """Whether a JSON document is VIA's."""
    if not isinstance(document, dict):
        return False
    if PROJECT in document:
        return True
    entries = list(document.values())
    return bool(entries) and all(
        isinstance(entry, dict) and {"filename", "regions"} <= entry.keys() for entry in entries
    )


def refuse_csv(path) -> None:
    """Raise `DataError` for VIA's other export, from its first bytes."""
    start = b""
    with suppress(OSError), open(path, "rb") as file:  # whoever wants more of it says that it cannot be read
        start = file.read(len(CSV) + 4)  # and a mark of the encoding, or version 1's #
    if CSV in start:
        raise DataError(
            f"{path}: this is VIA's export in CSV, wanted the one in JSON; in VIA: Annotation > Export Annotations "
            "(as json)"
        )


def read_via(folder: DataFolder, source: str, faults: Faults, class_attribute: str | None = None) -> Iterator[Photo]:
    """The photos of a VIA file.

    Parameters
    ----------
    folder : DataFolder
    source : str
        The file, as the folder lists it.
    faults : Faults
    class_attribute : str, optional
        The region attribute that is the class.

    Raises
    ------
    DataError
        The file is not VIA's, or it does not say which attribute is the class.
    """
    path = folder.path(source)
    document = read_json(path)
    entries = document.get(PROJECT, document) if isinstance(document, dict) else document
    if not isinstance(entries, dict):
        raise DataError(
            f"{path}: wanted VIA's annotations in JSON, an object with one entry a photo; export them again"
        )
    attribute = choose_attribute(entries, class_attribute, path)
    for entry in entries.values():
        name = entry.get("filename") if isinstance(entry, dict) else None
        where = f"{path}: {name}"
        photo = None
        with faults.at(where, str(name)):
            if not isinstance(name, str):
                raise DataError(f"an entry holds {reprlib.repr(entry)}, wanted one with a filename; export it again")
            if not isinstance(entry.get("regions"), (list, dict)):
                got = reprlib.repr(entry.get("regions", "missing"))
                raise DataError(f"regions is {got}, wanted a list or an object; export the annotations again")
            size = entry.get("size")
            size = size if isinstance(size, int) else None
            photo = Photo(where, folder.find(name, posixpath.dirname(source), size))
        if photo is None:
            continue
        for number, region in list_regions(entry):
            place = f"regions[{number}]"
            with faults.at(f"{where}: {place}"):
                check_region(region)
                polygon = outline(region["shape_attributes"])
                if polygon is None:
                    faults.note("points left out, as they have no area", f"{where}: {place}")
                    continue
                if region["shape_attributes"].get("name") == "polyline":
                    faults.note("polylines closed to polygons", f"{where}: {place}")
                if region["shape_attributes"].get("name") == "rect":
                    faults.note("rectangles, whose masks are filled boxes", f"{where}: {place}")
                label = None if attribute is None else read_class(region, attribute)
                photo.objects.append(Marked(place, label, [polygon]))
        yield photo


def list_regions(entry: dict) -> list[tuple[object, object]]:
    """The regions of an entry with their numbers: a list's, or the keys of an object."""
    regions = entry.get("regions")
    if isinstance(regions, dict):
        return list(regions.items())
    return list(enumerate(regions)) if isinstance(regions, list) else []


def check_region(region) -> None:
    """Raise `DataError` unless a region has a shape and attributes."""
    if not isinstance(region, dict) or not isinstance(region.get("shape_attributes"), dict):
        raise DataError(f"holds {reprlib.repr(region)}, wanted shape_attributes and region_attributes")
    if not isinstance(region.get("region_attributes", {}), dict):
        raise DataError(f"region_attributes is {reprlib.repr(region['region_attributes'])}, wanted an object")


def outline(shape: dict) -> list[float] | None:
    """The polygon of a region's ``shape_attributes``; None for a point."""
    name = shape.get("name")
    if name == "point":
        return None
    if name in ("polygon", "polyline"):
        return outlines.polygon(shape.get("all_points_x"), shape.get("all_points_y"))
    if name == "rect":
        return outlines.rectangle(*(wanted_number(shape, key) for key in ("x", "y", "width", "height")))
    if name == "circle":
        x, y, radius = (wanted_number(shape, key) for key in ("cx", "cy", "r"))
        return outlines.ellipse(x, y, radius, radius)
    if name == "ellipse":
        keys = ("cx", "cy", "rx", "ry", "theta")
        return outlines.ellipse(*(wanted_number({"theta": 0.0, **shape}, key) for key in keys))
    raise DataError(f"the shape is {reprlib.repr(name)}, wanted one of {SHAPES}; draw the object again, or remove it")


def choose_attribute(entries: dict, wanted: str | None, path) -> str | None:
    """The region attribute that is the class; None if there are no attributes."""
    values: dict[str, Counter] = {}
    for entry in entries.values():
        for _, region in list_regions(entry) if isinstance(entry, dict) else []:
            attributes = region.get("region_attributes") if isinstance(region, dict) else None
            for name, value in attributes.items() if isinstance(attributes, dict) else []:
                values.setdefault(name, Counter()).update(chosen_values(value))
    used = [name for name, counts in values.items() if counts]
    listed = "; ".join(
        f"{name!r} ({', '.join(f'{value} {count}' for value, count in values[name].most_common(MOST_LISTED))})"
        for name in used[:MOST_LISTED]
    )
    if wanted is not None:
        if wanted not in used:
            raise DataError(
                f"{path}: no region has the attribute {wanted!r}; "
                + (f"there are {listed}" if used else "there are none")
            )
        return wanted
    if len(used) <= 1:
        return used[0] if used else None
    usual = [name for name in used if name.strip().lower() in CLASS_ATTRIBUTES]
    if len(usual) == 1:
        return usual[0]
    raise DataError(f"{path}: which attribute is the class? Name one with --class-attribute; there are {listed}")


def chosen_values(value) -> list[str]:
    """What an attribute says: its text, or the boxes that are ticked, as in ``{"cat": true, "dog": false}``."""
    if isinstance(value, dict):
        return [str(key).strip() for key, ticked in value.items() if ticked is True or ticked == "true"]
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return [str(value).strip()] if str(value).strip() else []
    return []


def read_class(region: dict, attribute: str) -> str:
    """The class of a region."""
    found = chosen_values(region.get("region_attributes", {}).get(attribute))
    if len(found) != 1:
        got = " and ".join(map(repr, found[:MOST_LISTED])) if found else "missing"
        raise DataError(f"attribute {attribute!r} is {got}, wanted one class; set it in VIA, or remove the region")
    return found[0]
