"""Data sets in COCO's format: an annotation file in JSON and a folder of pictures.

Everything is read and checked when the data set is opened, because a mistake in row 40,000 should not show after an
hour of training. Only the headers of the pictures are looked at then; pixels are read and masks drawn item by item.

What is decided here, where the format leaves it open:

- Category ids may be any integers; labels are 1 to K in the order of the ids.
- Boxes are the annotated ones, ``x, y, width, height`` in the file, not those around the masks. They may reach beyond
  the picture by a pixel, because annotations are rounded, and are clipped.
- An object without an outline is a fault where masks are learned or scored. Where they are not, as in Faster R-CNN, it
  is its box, and the mask in its Target the filled box, by which augmentations tell what of it is still to be seen.
- Crowd regions (``iscrowd`` 1) are not learned from; evaluation needs them and finds them in `CocoDataset.annotations`.
- A class has one category, and a photo one image: under two ids its objects would be counted apart, and the photo might
  be held back for validation and trained on as well.
- An object whose mask covers no pixel is not learned from either; `CocoDataset.empty_masks` remembers its id. Its box
  may have no area, as two have in COCO's own training photos of 2017.
- Width and height are those of the picture as it is seen, its EXIF rotation applied, as tools that show it annotate it.
"""

from __future__ import annotations

import copy
import itertools
import os
import reprlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from minimrcnn.data.faults import Faults
from minimrcnn.data.photos import check_declared, check_reach
from minimrcnn.data.pictures import MAX_PIXELS, picture_size, read_picture, reduce_picture, reduced_size, safe_join
from minimrcnn.data.rows import learned_from, read_json, wanted_box, wanted_integer, wanted_number
from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths
from minimrcnn.geometry.checks import BOX_TOLERANCE, check_target
from minimrcnn.geometry.resizing import find_nearest
from minimrcnn.progress import tqdm
from minimrcnn.structures import Target

MOST_MASK_PIXELS = 4 * 10**9  # of all objects of a picture, a byte each
MOST_PIXELS = 10 * MAX_PIXELS  # a declared size beyond this is a mistake, whatever pictures may be read


class CocoDataset:
    """Pictures and objects from one COCO annotation file.

    Parameters
    ----------
    annotation_file : path
        JSON with ``images``, ``annotations`` and ``categories``, as https://cocodataset.org/#format-data describes.
    picture_folder : path
        Where the ``file_name`` of every image is.
    max_pixels : int
        Pictures with more are refused.
    faults : Faults, optional
        Gathers what is wrong; without it the first fault is raised. Rows with faults are not part of the data set.
    find : callable, optional
        From a ``file_name`` to the path of the picture; by default `safe_join` to the folder.
    masks : bool
        Masks are needed; see `read_annotations`.

    Attributes
    ----------
    class_names : tuple of str
        By label; [0] is "background".
    category_ids : tuple
        The file's category id of every label; [0] is None.
    image_ids : list of int
        Of the pictures, in the order of the file.
    empty_masks : set of int
        Ids of the annotations left out because their masks cover no pixel, of those met so far: masks are drawn only
        when their picture is asked for.

    Raises
    ------
    DataError
        Anything in the files does not hold together; the message names the file, the row and what was wanted.
    """

    def __init__(
        self,
        annotation_file,
        picture_folder,
        max_pixels: int = MAX_PIXELS,
        faults: Faults | None = None,
        find: Callable[[str], Path] | None = None,
        masks: bool = True,
    ):
        faults = faults or Faults()
        find = find or (lambda name: safe_join(picture_folder, name))
        document = read_annotations(annotation_file, faults, masks)
        paths, first_of = {}, {}  # image id -> file, and back
        for row, image in enumerate(tqdm(document["images"], desc="reading", unit=" photos", leave=False, delay=2)):
            with faults.at(f"{annotation_file}: {_name('images', row, image)}", image["file_name"]):
                path = _find_picture(image, find, max_pixels)
                first = first_of.setdefault(path.resolve(), image["id"])
                if first != image["id"]:
                    raise DataError(
                        f"{path} is the photo of id {first} as well; give all its annotations image_id {first}, and "
                        "remove this row"
                    )
                paths[image["id"]] = path
        self._fill(document, paths, max_pixels)

    @classmethod
    def of_rows(cls, document: dict, paths: dict[int, Path], max_pixels: int = MAX_PIXELS) -> CocoDataset:
        """The data set of rows that are checked already.

        Parameters
        ----------
        document : dict
            ``images``, ``annotations`` and ``categories``, as `read_annotations` gives them.
        paths : dict
            From image ids to files; images without one are left out.
        max_pixels : int
        """
        dataset = cls.__new__(cls)
        dataset._fill(document, paths, max_pixels)
        return dataset

    def _fill(self, document: dict, paths: dict[int, Path], max_pixels: int) -> None:
        self.max_pixels, self._paths = max_pixels, paths
        self._sides: tuple[int, int] | None = None  # that a model resizes pictures to
        self._images = [image for image in document["images"] if image["id"] in paths]
        self._set_categories(sorted(document["categories"], key=lambda category: category["id"]))
        self.empty_masks: set[int] = set()

        self._annotations_of = defaultdict(list)  # image id -> its rows
        for annotation in document["annotations"]:
            self._annotations_of[annotation["image_id"]].append(annotation)

    def _set_categories(self, categories: list[dict]) -> None:
        """Labels are the places of these, from 1."""
        self._categories = categories
        self.class_names = ("background", *(category["name"] for category in categories))
        self.category_ids = (None, *(category["id"] for category in categories))
        self._label_of = {id: label for label, id in enumerate(self.category_ids)}

    @property
    def image_ids(self) -> list[int]:
        return [image["id"] for image in self._images]

    @property
    def paths(self) -> list[Path]:
        """The files of the pictures, in the order of the file."""
        return [self._paths[image["id"]] for image in self._images]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """The picture (H, W, 3) uint8 and its Target; G may be 0."""
        image = self._images[index]
        size = image["height"], image["width"]
        height, width = reduced = self._reduced_size(size)
        path, rows = self._paths[image["id"]], self._annotations_of[image["id"]]
        rows = [row for row in rows if not row["iscrowd"]]
        if len(rows) * height * width > MOST_MASK_PIXELS:
            raise DataError(
                f"{path}: {len(rows)} masks of {width} x {height} pixels are more than the {MOST_MASK_PIXELS} bytes "
                "that are allowed; scale the picture and its annotations down, or cut it into tiles"
            )
        picture = self.picture(index)
        counts = [_counts(annotation, size) for annotation in rows]
        seen = [bool(run_lengths.area(some)) for some in counts]
        self.empty_masks.update(row["id"] for row, is_seen in zip(rows, seen, strict=True) if not is_seen)
        rows, counts = list(itertools.compress(rows, seen)), list(itertools.compress(counts, seen))

        scale = np.float32([width / size[1], height / size[0]] * 2)
        boxes = np.array([_corners(row["bbox"], size) for row in rows], np.float32).reshape(-1, 4)  # (G, 4)
        masks = np.empty((len(rows), height, width), np.uint8)
        places = find_nearest(size[0], height), find_nearest(size[1], width)
        for mask, some in zip(masks, counts, strict=True):
            mask[:] = run_lengths.decode(some, size) if reduced == size else run_lengths.decode_at(some, size, *places)
        labels = np.array([self._label_of[row["category_id"]] for row in rows], np.int64)
        target = Target(boxes * scale, labels, masks)
        check_target(target, picture.shape, str(path))
        return picture, target

    def picture(self, index: int) -> np.ndarray:
        """The picture (H, W, 3) uint8 alone, without the time and memory that masks take."""
        picture = read_picture(self._paths[self._images[index]["id"]], self.max_pixels)
        reduced = self._reduced_size(picture.shape[:2])
        return picture if reduced == picture.shape[:2] else reduce_picture(picture, reduced)

    def reduced(self, min_size: int | None, max_size: int) -> CocoDataset:
        """The data set with large pictures, and their Targets, at the size that a model resizes them to.

        Of a photo of 12 million pixels, 60 masks take 720 MB, and a model that resizes it to 480 x 640 makes use of a
        fortieth of them. What `annotations` says stays as it is.

        Parameters
        ----------
        min_size, max_size
            As the Config has them; without a min_size it resizes nothing.
        """
        other = copy.copy(self)
        other._sides = (min_size, max_size) if min_size else None
        return other

    def _reduced_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return reduced_size(size, *self._sides) if self._sides else size

    def annotations(self) -> dict:
        """The rows of these pictures, crowd regions included, as `minimrcnn.evaluate.evaluate` wants them."""
        return {
            "images": self._images,
            "annotations": [row for image in self._images for row in self._annotations_of[image["id"]]],
            "categories": self._categories,
        }

    def renumbered(self, class_names: tuple[str, ...], category_ids: tuple[int | None, ...]) -> CocoDataset:
        """The data set with the classes, labels and numbers of another or of a model, matched by name.

        Raises
        ------
        DataError
            There are objects of a class that is not known there. One that no object is of is dropped, and so are its
            crowd regions: nothing can be found in them.
        """
        document = self.annotations()
        names = {category["id"]: category["name"] for category in self._categories}
        known = dict(zip(class_names[1:], category_ids[1:], strict=True))
        unknown = {names[row["category_id"]] for row in document["annotations"] if not row["iscrowd"]} - known.keys()
        if unknown:
            raise DataError(
                f"there are objects of classes that are not known, {', '.join(sorted(unknown))}; wanted "
                f"{', '.join(known)}; rename them, or train with them"
            )
        part = copy.copy(self)
        part.empty_masks = set()  # its own
        rows = zip(class_names[1:], category_ids[1:], strict=True)
        part._set_categories([{"id": id, "name": name} for name, id in rows])
        part._annotations_of = defaultdict(list)
        for row in document["annotations"]:
            name = names[row["category_id"]]
            if name in known:
                part._annotations_of[row["image_id"]].append({**row, "category_id": known[name]})
        return part

    def subset(self, indices: Iterable[int]) -> CocoDataset:
        """The data set of some of the pictures, in the order of ``indices``, which must not repeat."""
        indices = [range(len(self))[index] for index in indices]  # IndexError beyond the end, negative from the end
        if not indices or len(set(indices)) != len(indices):
            raise ValueError(f"CocoDataset.subset: {len(indices)} indices, wanted one or more, none twice")
        part = copy.copy(self)
        part._images = [self._images[index] for index in indices]
        part.empty_masks = set()  # its own
        return part

    def split(
        self, fraction: float, seed: int = 0, rank: Callable[[int], object] | None = None
    ) -> tuple[CocoDataset, CocoDataset]:
        """The data set without a random ``fraction`` of its pictures, and the fraction; both in the file's order.

        ``rank`` says of an index when it is taken: the lowest first, and at random among equals.
        """
        held = round(fraction * len(self))
        if not 0 < held < len(self):
            raise ValueError(f"CocoDataset.split: fraction {fraction} of {len(self)} pictures leaves one part empty")
        order = np.random.default_rng(seed).permutation(len(self)).tolist()
        if rank is not None:
            order.sort(key=rank)  # which leaves equals in their random order
        return self.subset(sorted(order[held:])), self.subset(sorted(order[:held]))


class CocoFolder(CocoDataset):
    """A folder that holds ``annotations.json`` in COCO's format and the pictures in ``images/``."""

    def __init__(self, folder, max_pixels: int = MAX_PIXELS):
        folder = Path(folder)
        for path in (folder, folder / "annotations.json", folder / "images"):
            if not path.exists():
                raise DataError(f"{path}: missing; a data folder holds annotations.json (COCO's format) and images/")
        super().__init__(folder / "annotations.json", folder / "images", max_pixels)


def _find_picture(image: dict, find: Callable[[str], Path], max_pixels: int) -> Path:
    """The path of a picture that is there and has the size the file says."""
    path = find(image["file_name"])
    check_declared((image["height"], image["width"]), picture_size(path, max_pixels), path)
    return path


def count_objects(dataset) -> dict[str, int]:
    """How many objects of each class a data set has to learn from."""
    counts = {id: 0 for id in dataset.category_ids[1:]}
    for row in learned_from(dataset.annotations()["annotations"]):
        counts[row["category_id"]] += 1
    return {name: counts[id] for name, id in zip(dataset.class_names[1:], counts, strict=True)}


def read_annotations(path: str | os.PathLike, faults: Faults | None = None, masks: bool = True) -> dict:
    """A COCO annotation file, every row checked.

    Parameters
    ----------
    path : path
    faults : Faults, optional
        Gathers the rows that are wrong, which are then left out; without it the first one is raised.
    masks : bool
        Masks are needed, so an object without an outline is a fault. Otherwise its box is enough.

    Returns
    -------
    dict
        ``images``, ``annotations`` and ``categories`` as in the file. ``iscrowd`` is an integer, 0 where it is missing;
        a missing ``area`` is the number of pixels of the mask, or the area of the box. Objects without an outline have
        no ``segmentation``.

    Raises
    ------
    DataError
        The first row that is wrong, what was wanted, and how to mend it.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise DataError(
            f"{path}: holds a {type(document).__name__}, wanted an object with images, annotations, categories"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise DataError(f"{path}: {key!r} is missing or not a list; wanted images, annotations and categories")
    for key in ("images", "categories"):
        if not document[key]:
            raise DataError(f"{path}: {key!r} is empty, wanted at least one")
    faults = faults or Faults()
    id_of: dict[str, int] = {}  # of the classes met so far
    rows = _leave_out_twins(document["categories"], document["annotations"], faults)
    categories = _by_id(rows, "categories", path, lambda row: _check_category(row, id_of), faults)
    images = _by_id(document["images"], "images", path, _check_image, faults)
    annotations = _by_id(
        document["annotations"],
        "annotations",
        path,
        lambda row: _check_annotation(row, images, categories, masks),
        faults,
    )
    used = {str(row.get("image_id")) for row in document["annotations"] if isinstance(row, dict)}  # or meant to be
    for image in images.values():
        if image and str(image["id"]) not in used:
            faults.note("photos without an object, kept", image["file_name"])
    for row in annotations.values():
        if row and "segmentation" not in row:
            faults.note("objects without an outline, of which the box is enough here", f"annotation {row['id']}")
    return {
        "images": [row for row in images.values() if row],
        "annotations": [
            row for row in annotations.values() if row and images[row["image_id"]] and categories[row["category_id"]]
        ],
        "categories": [row for row in categories.values() if row],
    }


def _by_id(rows: list, key: str, path, check, faults: Faults) -> dict[int, dict | None]:
    """Check every row; give them by their ids, which must be distinct, None for those with a fault."""
    found, first_with = {}, {}
    for position, row in enumerate(rows):
        photo = row.get("file_name", "") if isinstance(row, dict) else ""  # of an image
        with faults.at(f"{path}: {_name(key, position, row)}", str(photo)):
            if not isinstance(row, dict):
                raise DataError(f"holds a {type(row).__name__}, wanted an object")
            wanted_integer(row, "id")
            if row["id"] in first_with:
                first = first_with[row["id"]]
                raise DataError(
                    f"id {row['id']} is taken by {key}[{first}]; remove one of the two, or give it another id"
                )
            first_with[row["id"]] = position
            found[row["id"]] = None
            check(row)
            found[row["id"]] = row
    return found


def _leave_out_twins(categories: list, annotations: list, faults: Faults) -> list:
    """The categories but for those that no annotation is of and whose name another has as well.

    Some tools write the group that all classes belong to as one more class; with a single class, both have its name.
    """
    used = {str(row.get("category_id")) for row in annotations if isinstance(row, dict)}
    same_name = defaultdict(list)
    for row in categories:
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            same_name[row["name"]].append(row)
    spare = []
    for rows in same_name.values():
        unused = [row for row in rows if str(row.get("id")) not in used]
        spare += unused[1:] if len(unused) == len(rows) else unused if len(rows) > 1 else []
    for row in spare:
        faults.note(
            "categories left out, as another has their name and no annotation is of them", f"id {row.get('id')}"
        )
    return [row for row in categories if not any(row is one for one in spare)]


def _check_category(category: dict, id_of: dict[str, int]) -> None:
    if not isinstance(category.get("name"), str) or not category["name"]:
        raise DataError(f"name is {reprlib.repr(category.get('name', 'missing'))}, wanted a text")
    first = id_of.setdefault(category["name"], category["id"])
    if first != category["id"]:
        raise DataError(
            f"name {reprlib.repr(category['name'])} is that of id {first} as well; give all annotations of this class "
            f"category_id {first} and remove this row, or name it otherwise"
        )


def _check_image(image: dict) -> None:
    for key in ("width", "height"):
        if wanted_integer(image, key) < 1:
            raise DataError(f"{key} is {image[key]}, wanted 1 or more pixels")
    if image["width"] * image["height"] > MOST_PIXELS:
        raise DataError(f"width {image['width']} and height {image['height']}, wanted at most {MOST_PIXELS} pixels")
    if not isinstance(image.get("file_name"), str):
        raise DataError(f"file_name is {reprlib.repr(image.get('file_name', 'missing'))}, wanted a text")


def _check_annotation(
    annotation: dict, images: dict[int, dict | None], categories: dict[int, dict | None], masks: bool
) -> None:
    for key, known in (("image_id", images), ("category_id", categories)):
        if wanted_integer(annotation, key) not in known:
            what = "image" if key == "image_id" else "category"
            raise DataError(f"{key} is {annotation[key]}, but the file has no such {what}; add it, or remove this row")
    if isinstance(annotation.get("iscrowd"), bool):  # as some tools write it
        annotation["iscrowd"] = int(annotation["iscrowd"])
    if wanted_integer(annotation, "iscrowd", default=0) not in (0, 1):
        raise DataError(f"iscrowd is {annotation['iscrowd']}, wanted 0 or 1")
    image = images[annotation["image_id"]]
    if image is None:  # its own fault is known, and what is in it cannot be held against its size
        return
    size = image["height"], image["width"]
    segmentation = annotation.get("segmentation", "missing")
    if segmentation not in ("missing", None, [], [[]]):
        _check_outline(annotation, size)
    elif masks:
        raise DataError(
            f"segmentation is {segmentation!r}: the object has a box but no outline, and masks are wanted; export the "
            "annotations with polygons, or draw the outline; boxes alone are enough to train --architecture "
            "fasterrcnn_resnet50_fpn"
        )
    else:
        annotation.pop("segmentation", None)
        _check_box(wanted_box(annotation), size)
        annotation.setdefault("area", annotation["bbox"][2] * annotation["bbox"][3])
    if wanted_number(annotation, "area") < 0:
        raise DataError(f"area is {annotation['area']}, wanted 0 or more")


def _check_outline(annotation: dict, size: tuple[int, int]) -> None:
    try:
        outline = run_lengths.check_segmentation(annotation["segmentation"], size)
    except DataError as error:
        raise DataError(f"segmentation: {error}; draw the object again, or remove this row") from None
    if min(wanted_box(annotation)[2:]) != 0 or run_lengths.area(_counts(annotation, size)):
        _check_box(annotation["bbox"], size)
        if isinstance(outline, list):
            _check_meeting(annotation["bbox"], check_reach(outline, size))
    if "area" not in annotation:
        annotation["area"] = run_lengths.area(_counts(annotation, size))


def _check_box(bbox: list[float], size: tuple[int, int]) -> None:
    x, y, box_width, box_height = bbox
    (height, width), slack = size, BOX_TOLERANCE
    x1, y1, x2, y2 = _corners(bbox, size)
    if not (box_width > 0 and box_height > 0):
        raise DataError(
            f"bbox is {bbox}, wanted x, y, width, height with both lengths above 0; mend or remove this row"
        )
    if min(x, y) < -slack or x + box_width > width + slack or y + box_height > height + slack or x2 <= x1 or y2 <= y1:
        raise DataError(
            f"bbox is {bbox}, wanted x, y, width, height of a box inside the picture, which is {width} wide and "
            f"{height} high; is it x1, y1, x2, y2, or from a picture of another size?"
        )


def _check_meeting(bbox: list[float], reach: list[float]) -> None:
    """Raise `DataError` if a box and its polygons, which reach so far, lie apart by more than roundings can."""
    x, y, box_width, box_height = bbox
    left, top, right, bottom = reach
    across, down = max(left - x - box_width, x - right), max(top - y - box_height, y - bottom)  # gaps
    if max(across, down) > BOX_TOLERANCE:
        raise DataError(
            f"bbox is {bbox}, but its polygons reach from x {left:g}, y {top:g} to x {right:g}, y {bottom:g}, wanted "
            "x, y, width, height of the box around them; are they of two objects? Mend one of them, or remove this row"
        )


def _counts(annotation: dict, size: tuple[int, int]) -> list[int]:
    """The run lengths of an annotation's mask, of its filled box if it has no outline."""
    if "segmentation" in annotation:
        return run_lengths.segmentation_to_counts(annotation["segmentation"], size)
    x, y, width, height = annotation["bbox"]
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return run_lengths.polygons_to_counts([np.array(corners, np.float64)], size)


def _corners(bbox: list[float], size: tuple[int, int]) -> np.ndarray:
    """(4,) float32 ``x1, y1, x2, y2`` of a file's ``x, y, width, height``, clipped to the picture."""
    x, y, box_width, box_height = bbox
    height, width = size
    return np.array([max(x, 0), max(y, 0), min(x + box_width, width), min(y + box_height, height)], np.float32)


def _name(key: str, position: int, row) -> str:
    """How messages call a row: ``annotations[17] (id 42)``."""
    id = row.get("id") if isinstance(row, dict) else None
    return f"{key}[{position}]" + ("" if id is None else f" (id {reprlib.repr(id)})")
