"""What was found, in the forms of other programs: COCO's results, LabelMe's files, plain arrays, and as a picture.

These are the methods of `Detections`, written out where the rest of the house can be asked.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from minimrcnn.archive import atomic_file
from minimrcnn.data.pictures import as_picture, picture_size
from minimrcnn.errors import DataError
from minimrcnn.evaluate import detections_to_results
from minimrcnn.geometry.outlines import mask_to_polygons
from minimrcnn.show import draw_detections, shrink
from minimrcnn.structures import Detections

LABELME = "5.5.0"  # the version whose files ours are like
DESCRIBED = 5  # objects, in a line of text
SHOWN_SIDE = 1024  # pixels: what a notebook shows of a larger picture is smaller
GRAY = 128  # of the ground, where the picture is gone


def to_coco(
    detections: Detections, image_id: int, category_ids: Sequence[int | None] | None = None, polygons: bool = False
) -> list[dict]:
    """Rows of COCO's results format, ready for JSON.

    Parameters
    ----------
    detections : Detections
    image_id : int
        The picture's number in the annotations they are to be compared with.
    category_ids : sequence, optional
        The number of every label there; by default those the model learned, else the labels themselves.
    polygons : bool
        Masks as polygons, which annotation tools read, instead of run lengths, which are exact.

    Returns
    -------
    list of dict
        ``image_id category_id bbox score`` and, where there are masks, ``segmentation``.

    Raises
    ------
    ValueError
        There are labels that no number is given for.
    """
    highest = int(detections.labels.max(initial=0))
    given = () if category_ids is None else np.asarray(category_ids, object).tolist()  # Python's numbers, as JSON has
    ids = given or detections.category_ids or range(highest + 1)
    if highest >= len(ids):
        raise ValueError(
            f"to_coco: {len(ids)} category_ids, the labels go up to {highest}; wanted one a label, the first of them "
            "None, for the background"
        )
    rows = detections_to_results(detections, image_id, ids)
    if polygons and detections.masks is not None:
        for row, mask in zip(rows, detections.masks, strict=True):
            row["segmentation"] = mask_to_polygons(mask) or row["segmentation"]  # of no pixel there is no polygon
    return rows


def to_labelme(detections: Detections, path, picture=None, overwrite: bool = False) -> None:
    """Write a LabelMe file, to correct by hand what was found, and to train on it again.

    A mask becomes a polygon, with slits to its holes; one of several parts several polygons of one ``group_id``. An
    object without a mask becomes a rectangle; one whose mask has no pixel is left out. The score is in the description.

    Parameters
    ----------
    detections : Detections
    path : path
        Of the JSON file, which LabelMe looks for beside the picture, under its name.
    picture : path, optional
        Of the picture; by default the one they were found in, if it was given by its path.
    overwrite : bool
        Replace a file that is there, with whatever was corrected in it.

    Raises
    ------
    DataError
        The file is there already, or the picture's path is not known, or it is another picture.
    """
    path = Path(path)
    if picture is not None and not isinstance(picture, (str, os.PathLike)):
        raise TypeError(f"to_labelme: picture is a {type(picture).__name__}, wanted picture=the path of its file")
    if picture is None:
        if not isinstance(detections.picture, str):
            raise DataError(f"{path}: the picture was not given by its path; wanted to_labelme(path, picture=...)")
        picture = detections.picture
    if path.exists() and not overwrite:
        raise DataError(
            f"{path}: is there already, and may have been corrected; wanted another name, or overwrite=True"
        )
    if detections.masks is None or os.path.exists(picture):
        height, width = picture_size(picture)
        check_size(detections, (height, width), picture)
    else:  # the photo is elsewhere
        height, width = detections.masks.shape[1:]
    document = {
        "version": LABELME,
        "flags": {},
        "shapes": [shape for row in range(len(detections)) for shape in _shapes(detections, row)],
        "imagePath": _relative(picture, path.parent),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    with atomic_file(path) as file:
        file.write((json.dumps(document, indent=2) + "\n").encode())


def _shapes(detections: Detections, row: int) -> list[dict]:
    """The shapes of one object: its polygons, or its box."""
    if detections.masks is None:
        kind, outlines = "rectangle", [detections.boxes[row].tolist()]
    else:
        kind, outlines = "polygon", mask_to_polygons(detections.masks[row])
    return [
        {
            "label": name_of(detections, row),
            "points": [[x, y] for x, y in zip(points[::2], points[1::2], strict=True)],
            "group_id": row + 1 if len(outlines) > 1 else None,
            "description": f"score {detections.scores[row]:.3f}",
            "shape_type": kind,
            "flags": {},
            "mask": None,
        }
        for points in outlines
    ]


def _relative(picture, folder: Path) -> str:
    """The picture's path as seen from a folder, with slashes on every system."""
    try:
        return Path(os.path.relpath(picture, folder)).as_posix()
    except ValueError:  # another drive, on Windows
        return Path(picture).resolve().as_posix()


def to_dict(detections: Detections) -> dict[str, np.ndarray]:
    """Plain arrays by name.

    Returns
    -------
    dict
        ``boxes`` (D, 4) float32, ``labels`` (D,) int64, ``scores`` (D,) float32, ``names`` (D,) text, and ``masks``
        (D, H, W) bool where there are any; the arrays themselves, not copies.
    """
    arrays = {"boxes": detections.boxes, "labels": detections.labels, "scores": detections.scores}
    arrays["names"] = np.array([name_of(detections, row) for row in range(len(detections))], np.str_)
    if detections.masks is not None:
        arrays["masks"] = detections.masks
    return arrays


def describe(detections: Detections) -> str:
    """What was found, in a line."""
    count = len(detections)
    found = [f"{name_of(detections, row)} {detections.scores[row]:.2f}" for row in range(min(count, DESCRIBED))]
    more = [f"and {count - DESCRIBED} more"] if count > DESCRIBED else []
    objects = "1 object" if count == 1 else f"{count} objects"
    if found:
        objects += f": {', '.join(found + more)}"
    if detections.masks is None:
        return f"Detections({objects}; boxes only)"
    height, width = detections.masks.shape[1:]
    return f"Detections({objects}; masks {width} wide, {height} high)"


def name_of(detections: Detections, row: int) -> str:
    """The class of an object in words, or its number."""
    label = int(detections.labels[row])
    return detections.names[label] if label < len(detections.names) else str(label)


def draw(detections: Detections, picture=None) -> np.ndarray:
    """The picture with boxes, masks, labels and scores on it.

    Parameters
    ----------
    detections : Detections
    picture : ndarray, path or PIL image, optional
        By default the one they were found in, if it is still there: a file under its path, an array that somebody
        holds. Else they are drawn on gray.

    Returns
    -------
    ndarray (S H, S W, 3) uint8
        See `minimrcnn.show.draw_objects`.

    Raises
    ------
    DataError
        The picture is of another size than the masks.
    """
    picture = find_picture(detections) if picture is None else as_picture(picture)
    check_size(detections, picture.shape[:2], "draw")
    return draw_detections(picture, detections)


def check_size(detections: Detections, size: tuple[int, int], where) -> None:
    """Raise `DataError` if a picture of (height, width) is not the one that the masks are of; boxes do not tell."""
    if detections.masks is not None and detections.masks.shape[1:] != size:
        height, width = detections.masks.shape[1:]
        raise DataError(
            f"{where}: the picture is {size[1]} wide and {size[0]} high, the masks are {width} wide and {height} high; "
            "wanted the picture they were found in"
        )


def to_png(detections: Detections) -> bytes:
    """`draw` as a PNG file of at most 1024 pixels a side: how a notebook shows what was found."""
    drawn = draw_detections(*shrink(find_picture(detections), detections, SHOWN_SIDE))
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG")
    return file.getvalue()


def find_picture(detections: Detections) -> np.ndarray:
    """The picture that the objects were found in, (H, W, 3), or gray of its size where it is gone or another one."""
    if detections.masks is not None:
        size = detections.masks.shape[1:]
    else:
        size = None
    reference = detections.picture
    try:
        picture = as_picture(reference if isinstance(reference, str) else reference and reference())
        if size in (None, picture.shape[:2]):
            return picture
    except (DataError, TypeError, ValueError):  # removed, closed, forgotten
        pass
    if size is None:
        right, bottom = detections.boxes[:, 2:].max(axis=0, initial=1)
        size = int(np.ceil(bottom)), int(np.ceil(right))
    return np.full((*size, 3), GRAY, np.uint8)
