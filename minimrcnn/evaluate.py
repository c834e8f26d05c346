"""Average precision as COCO defines it, for boxes and for masks: twelve figures, those of pycocotools.

How a figure comes about (Lin et al. 2014; https://cocodataset.org/#detection-eval):

1. In each picture, class by class, the 100 best detections are taken, best first. Each may match one object of its
   class: the one it overlaps most among those not taken yet, if the overlap (IoU) reaches a threshold. Ten thresholds,
   0.50 to 0.95, are played through independently.
2. Objects may be out of the game: crowd regions, and those whose area is outside the range that is looked at. A
   detection that finds only such an object, or finds nothing and has itself an area outside the range, is neither
   right nor wrong.
3. All detections of a class are put in order of score. Down this list, recall (found objects / all objects) grows and
   precision (right detections / all detections) varies. Precision is made to never rise with recall, by taking the best
   value at this recall or beyond, and is read at the 101 recalls 0, 0.01, ... 1; beyond the recall reached, it is 0.
4. AP is the mean over recalls, thresholds and classes, AR the mean over thresholds and classes of the recall reached
   with 1, 10 or 100 detections a picture. A class without objects does not count; with no class left a figure is -1.

An annotation with the id 0 counts as any other; pycocotools writes ids down, takes 0 for none, and never finds it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numba import njit

from minimrcnn.data.rows import read_json, wanted_box, wanted_integer, wanted_number
from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths
from minimrcnn.progress import tqdm
from minimrcnn.structures import Detections

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # pixels
MAX_DETECTIONS = (1, 10, 100)
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def evaluate(annotations: dict, results: list[dict], kind: str = "bbox") -> dict[str, float]:
    """The twelve figures of detections in COCO's form.

    Parameters
    ----------
    annotations : dict
        ``images``, ``annotations`` and ``categories``, checked, as ``dataset.annotations()`` or
        `minimrcnn.data.coco.read_annotations` give them.
    results : list of dict
        ``image_id``, ``category_id``, ``score`` and ``bbox`` (x, y, width, height) or ``segmentation`` (run lengths),
        as `detections_to_results` or `load_results` give them. Of equal scores the first in the list is better.
    kind : {"bbox", "segm"}

    Returns
    -------
    dict
        ``AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl``, each 0 to 1, or -1 where there is nothing to find.

    Notes
    -----
    The area that makes a detection small, medium or large is its box's where the results hold boxes, also when masks
    are scored: so has pycocotools it. Without boxes it is the mask's.
    """
    if kind not in ("bbox", "segm"):
        raise ValueError(f"evaluate: kind is {kind!r}, wanted 'bbox' or 'segm'")
    _check_results(results, annotations, "results", "bbox" if kind == "bbox" else "segmentation")
    truths, detections = _sorted_by_group(annotations, results)
    right, wrong, ignored = _match_all(annotations, truths, detections, results, kind)

    # One entry a class, -1 without objects. T thresholds, A area ranges, as in THRESHOLDS and AREAS.
    classes = len(annotations["categories"])
    precision = np.full((classes, len(AREAS), len(THRESHOLDS), len(RECALLS)), -1.0)  # with 100 detections a picture
    recall = np.full((classes, len(AREAS), len(THRESHOLDS), len(MAX_DETECTIONS)), -1.0)
    for label in range(classes):  # what follows is of one class: G objects, D detections
        objects = slice(*np.searchsorted(truths["label"], [label, label + 1]))
        found = slice(*np.searchsorted(detections["label"], [label, label + 1]))
        order = np.argsort(-detections["score"][found], kind="stable")
        for a in range(len(AREAS)):
            wanted = np.count_nonzero(~ignored[objects, a])
            if not wanted:
                continue
            hits, misses = right[found, a], wrong[found, a]  # (D, T)
            for m, most in enumerate(MAX_DETECTIONS):
                recall[label, a, :, m] = hits[detections["rank"][found] < most].sum(axis=0) / wanted
            precision[label, a] = _precision_at_recalls(hits[order], misses[order], wanted)
    return _summarize(precision, recall)


def _sorted_by_group(annotations: dict, results: list[dict]) -> tuple[dict, dict]:
    """The objects and the detections as arrays, sorted by class, then picture, then score (best first).

    ``row`` leads back to the lists, ``group`` numbers the pairs of class and picture, ``rank`` counts within a group.
    Only the 100 best detections of a group are left.
    """
    label_of = {id: label for label, id in enumerate(sorted(row["id"] for row in annotations["categories"]))}
    place_of = {id: place for place, id in enumerate(sorted(row["id"] for row in annotations["images"]))}
    tables = []
    for rows in (annotations["annotations"], results):
        label = np.array([label_of[row["category_id"]] for row in rows], np.int64)
        group = label * len(place_of) + np.array([place_of[row["image_id"]] for row in rows], np.int64)
        score = np.array([row["score"] if rows is results else 0 for row in rows], np.float64)
        order = np.lexsort([-score, group])  # stable
        group = group[order]
        rank = np.arange(len(rows)) - np.searchsorted(group, group)
        tables.append({"row": order, "label": label[order], "group": group, "score": score[order], "rank": rank})
    truths, detections = tables
    kept = detections["rank"] < max(MAX_DETECTIONS)
    return truths, {name: column[kept] for name, column in detections.items()}


def _match_all(annotations: dict, truths: dict, detections: dict, results: list[dict], kind: str) -> tuple:
    """Play all groups through; A area ranges, T thresholds.

    Returns
    -------
    right, wrong : ndarray (D, A, T) bool
        Whether a detection counts as found or as made up; neither, if what it finds is out of the game.
    ignored : ndarray (G, A) bool
        An object is out of the game.
    """
    objects = [annotations["annotations"][row] for row in truths["row"]]
    found = [results[row] for row in detections["row"]]
    size_of = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    crowd = np.array([row.get("iscrowd", 0) for row in objects], bool)
    area = np.array([row["area"] for row in objects], np.float64)
    if kind == "bbox":
        object_shapes = np.array([row["bbox"] for row in objects], np.float64).reshape(-1, 4)
        found_shapes = np.array([row["bbox"] for row in found], np.float64).reshape(-1, 4)
        found_area, overlaps = found_shapes[:, 2] * found_shapes[:, 3], _box_overlaps
    else:
        object_shapes = _run_lengths_of(objects, truths["row"], size_of, "annotations")
        found_shapes = _run_lengths_of(found, detections["row"], size_of, "results")
        found_area, overlaps = np.array([run_lengths.area(counts) for counts in found_shapes]), run_lengths.iou
        if results and all(row.get("bbox") for row in results):
            found_area = np.array([row["bbox"][2] * row["bbox"][3] for row in found], np.float64)

    low, high = np.array(list(AREAS.values()), np.float64).T  # (A, 2) -> two of (A,)
    ignored = crowd[:, None] | (area[:, None] < low) | (area[:, None] > high)  # (G, A)
    outside = (found_area[:, None] < low) | (found_area[:, None] > high)  # (D, A)
    matched = np.zeros((*outside.shape, len(THRESHOLDS)), bool)
    forgiven = np.zeros_like(matched)
    for group in np.intersect1d(truths["group"], detections["group"]):
        g = slice(*np.searchsorted(truths["group"], [group, group + 1]))
        d = slice(*np.searchsorted(detections["group"], [group, group + 1]))
        overlap = overlaps(found_shapes[d], object_shapes[g], crowd[g])  # (D, G) of this group
        _match(overlap, crowd[g], ignored[g], THRESHOLDS, matched[d], forgiven[d])
    return matched & ~forgiven, ~matched & ~outside[:, :, None], ignored


def _run_lengths_of(rows: list[dict], positions: np.ndarray, size_of: dict, where: str) -> list[list[int]]:
    """The run lengths of rows that stand at ``positions`` of the list called ``where``."""
    counts = []
    for row, position in zip(rows, positions, strict=True):
        try:
            if "segmentation" not in row:
                raise DataError("the object has a box but no outline, and masks are scored; draw the outline")
            counts.append(run_lengths.segmentation_to_counts(row["segmentation"], size_of[row["image_id"]]))
        except DataError as error:
            raise DataError(f"{where}: row {position}: {error}") from None
    return counts


@njit(cache=True, nogil=True)
def _match(overlap, crowd, ignored, thresholds, matched, forgiven):
    """Match the detections of one group, best first, for every area range and threshold."""
    detections, objects = overlap.shape
    for a in range(ignored.shape[1]):
        for t in range(len(thresholds)):
            taken = np.zeros(objects, np.bool_)
            for d in range(detections):
                best, best_overlap = -1, thresholds[t]
                for out_of_game in (False, True):  # the others are asked only if no object in the game was found
                    for g in range(objects):
                        if best >= 0 and ignored[best, a] != out_of_game:
                            break
                        if ignored[g, a] != out_of_game or (taken[g] and not crowd[g]) or overlap[d, g] < best_overlap:
                            continue
                        best, best_overlap = g, overlap[d, g]  # of equal overlaps the last one wins
                if best >= 0:
                    taken[best] = True
                    matched[d, a, t] = True
                    forgiven[d, a, t] = ignored[best, a]


def _box_overlaps(found: np.ndarray, objects: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU (D, G) of boxes ``x, y, width, height``; over a detection's own area where the object is a crowd."""
    start = np.maximum(found[:, None, :2], objects[None, :, :2])  # (D, G, 2)
    stop = np.minimum(found[:, None, :2] + found[:, None, 2:], objects[None, :, :2] + objects[None, :, 2:])
    shared = (stop - start).clip(0).prod(axis=2)  # (D, G)
    found_area = found[:, 2:].prod(axis=1)[:, None]  # (D, 1)
    whole = np.where(crowd, found_area, found_area + objects[:, 2:].prod(axis=1) - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def _precision_at_recalls(right: np.ndarray, wrong: np.ndarray, wanted: int) -> np.ndarray:
    """Precision (T, 101) at `RECALLS`, of detections (D, T) in order of score that are to find ``wanted`` objects."""
    right, wrong = right.cumsum(axis=0), wrong.cumsum(axis=0)
    recall = right / wanted
    precision = right / np.maximum(right + wrong, 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    sampled = np.zeros((right.shape[1], len(RECALLS)))
    for t in range(len(sampled)):
        place = np.searchsorted(recall[:, t], RECALLS)
        reached = place < len(recall)
        sampled[t, reached] = precision[place[reached], t]
    return sampled


def _summarize(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """Twelve means over (classes, A, T, 101) and (classes, A, T, 3), without the classes that hold -1."""
    values = (
        precision[:, 0],
        precision[:, 0, THRESHOLDS == 0.5],
        precision[:, 0, THRESHOLDS == 0.75],
        *(precision[:, a] for a in (1, 2, 3)),
        *(recall[:, 0, :, m] for m in (0, 1, 2)),
        *(recall[:, a, :, 2] for a in (1, 2, 3)),
    )
    return {
        name: float(value[value > -1].mean()) if (value > -1).any() else -1.0
        for name, value in zip(FIGURES, values, strict=True)
    }


def detections_to_results(detections: Detections, image_id: int, category_ids: Sequence[int | None]) -> list[dict]:
    """Detections of one picture as COCO writes them, ready for JSON.

    Parameters
    ----------
    detections : Detections
    image_id : int
    category_ids : sequence
        The file's id of every label, as a data set's ``category_ids``.

    Returns
    -------
    list of dict
        ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score`` and, where there are masks,
        ``segmentation`` with ``size`` [H, W] and compressed ``counts``.
    """
    results = []
    for row in range(len(detections)):
        x1, y1, x2, y2 = detections.boxes[row].tolist()
        result = {
            "image_id": image_id,
            "category_id": category_ids[int(detections.labels[row])],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(detections.scores[row]),
        }
        if detections.masks is not None:
            mask = detections.masks[row]
            result["segmentation"] = {
                "size": list(mask.shape),
                "counts": run_lengths.to_string(run_lengths.encode(mask)),
            }
        results.append(result)
    return results


def evaluate_model(model, dataset, score_thresh: float | None = None, progress: bool = True) -> tuple[dict, list[dict]]:
    """Run a model over a data set and score what it finds.

    Parameters
    ----------
    model : MaskRCNN
        Anything with ``predict([picture], score_thresh=...) -> [Detections]``.
    dataset
        As `minimrcnn.data` describes: items ``(picture, Target)``, ``annotations()``, ``image_ids``, ``category_ids``.
    score_thresh : float, optional
        Least score of a detection; None leaves it to the model.
    progress : bool
        Show a bar; below that of a training it goes away when it is full.

    Returns
    -------
    figures : dict
        ``box_ap box_ap50 box_ap75 box_aps ... box_arl``, and ``mask_...`` of a model that finds masks.
    results : list of dict
        All detections, see `detections_to_results`.
    """
    results, kinds = [], {"box": "bbox", "mask": "segm"}
    for index in tqdm(range(len(dataset)), desc="evaluate", unit="picture", disable=not progress, leave=None):
        picture = dataset.picture(index) if hasattr(dataset, "picture") else dataset[index][0]
        (detections,) = model.predict([picture], score_thresh=score_thresh)
        if detections.masks is None:
            kinds.pop("mask", None)
        results += detections_to_results(detections, dataset.image_ids[index], dataset.category_ids)
    annotations = dataset.annotations()
    figures = {
        f"{name}_{figure.lower()}": value
        for name, kind in kinds.items()
        for figure, value in evaluate(annotations, results, kind).items()
    }
    return figures, results


def format_figures(figures: dict[str, float]) -> str:
    """The figures of `evaluate_model` as a small table; ``-`` where there is nothing to find."""
    lines = ["".join([" " * 6, *(f"{name:>7}" for name in FIGURES)])]
    for kind in ("box", "mask"):
        values = [figures.get(f"{kind}_{name.lower()}") for name in FIGURES]
        if None not in values:
            lines.append("".join([f"{kind:6}", *("      -" if value < 0 else f"{value:7.3f}" for value in values)]))
    return "\n".join(lines)


def load_results(path: str | os.PathLike, annotations: dict) -> list[dict]:
    """Read detections in COCO's form from a JSON file.

    Parameters
    ----------
    path : path
    annotations : dict
        What they are to be compared with; see `evaluate`. A row that names its picture's file, as those of
        ``minimrcnn predict`` do, gets the ``image_id`` which that file has in the annotations.

    Raises
    ------
    DataError
        The first row that is wrong and what was wanted.
    """
    results = read_json(path)
    if not isinstance(results, list):
        raise DataError(
            f"{path}: holds a {type(results).__name__}, wanted a list of detections (COCO's results format)"
        )
    _number_by_file(results, annotations, str(path))
    _check_results(results, annotations, str(path))
    return results


def _number_by_file(results: list, annotations: dict, where: str) -> None:
    """Give every row with a ``file_name`` its picture's number, in place.

    Folders in names do not count, but where they tell pictures of one name apart.
    """
    whole: dict[str, list] = {}  # ids by names with and without folders
    plain: dict[str, list] = {}
    for image in annotations["images"]:
        name = str(image.get("file_name"))
        whole.setdefault(name, []).append(image["id"])
        plain.setdefault(PurePosixPath(name).name, []).append(image["id"])
    for position, row in enumerate(results):
        if isinstance(row, dict) and isinstance(row.get("file_name"), str):
            found = whole.get(row["file_name"]) or plain.get(PurePosixPath(row["file_name"]).name, [])
            if len(found) != 1:
                raise DataError(
                    f"{where}: row {position}: file_name is {row['file_name']}, which the annotations have "
                    f"{len(found)} times, wanted once; are they of the same data set?"
                )
            row["image_id"] = found[0]


def _check_results(results: list, annotations: dict, where: str, needed: str | None = None) -> None:
    """Raise `DataError` for the first row that is no detection in these pictures, or lacks what is ``needed``."""
    size_of = {image["id"]: (image["height"], image["width"]) for image in annotations["images"]}
    categories = {category["id"] for category in annotations["categories"]}
    for position, row in enumerate(results):
        try:
            if not isinstance(row, dict):
                raise DataError(f"holds a {type(row).__name__}, wanted an object")
            for key, known in (("image_id", size_of), ("category_id", categories)):
                if wanted_integer(row, key) not in known:
                    raise DataError(
                        f"{key} is {row[key]}, which the annotations do not have; are they of the same data set?"
                    )
            wanted_number(row, "score")
            if "bbox" not in row and "segmentation" not in row:
                raise DataError("neither bbox nor segmentation is there, wanted one or both")
            if needed and needed not in row:
                raise DataError(f"{needed} is missing, and is what is to be scored")
            if "bbox" in row and min(wanted_box(row)[2:]) < 0:
                raise DataError(f"bbox is {row['bbox']}, wanted x, y, width, height with lengths from 0")
            if "segmentation" in row and not needed:  # a mask that is needed is about to be read anyway
                run_lengths.check_segmentation(row["segmentation"], size_of[row["image_id"]])
        except DataError as error:
            raise DataError(f"{where}: row {position}: {error}") from None
