"""What a Target must hold before anything learns from it; every data set and the model's losses ask here."""

from __future__ import annotations

import numpy as np

from minimrcnn.errors import DataError
from minimrcnn.structures import Target

BOX_TOLERANCE = 1.0  # pixels a box may reach beyond its picture: annotations are rounded


def check_target(
    target: Target, picture_shape: tuple[int, ...], where: str = "target", num_classes: int | None = None
) -> None:
    """Raise `DataError` unless a target can be the truth about a picture.

    Parameters
    ----------
    target : Target
        Boxes (G, 4) of floats, labels (G,) of integers from 1, masks (G, H, W) uint8 or bool of 0 and 1.
    picture_shape : (H, W) or (H, W, 3)
    where : str
        Begins the message: the picture, the file or the row.
    num_classes : int, optional
        Labels must be below it; the background counts.
    """
    height, width = picture_shape[:2]
    for field in ("boxes", "labels", "masks"):
        if not isinstance(getattr(target, field, None), np.ndarray):
            got = type(getattr(target, field, None)).__name__
            raise DataError(f"{where}: {field} of type {got}, wanted a Target of NumPy arrays boxes, labels, masks")
    boxes, labels, masks = target.boxes, target.labels, target.masks

    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind != "f":
        raise DataError(f"{where}: boxes of shape {boxes.shape} {boxes.dtype}, wanted (G, 4) float32 x1, y1, x2, y2")
    x1, y1, x2, y2 = boxes.T  # 4 of (G,)
    finite = np.isfinite(boxes).all(axis=1)
    ordered = (x2 > x1) & (y2 > y1)
    inside = (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)  # some of it, and nothing far beyond
    inside &= (np.minimum(x1, y1) >= -BOX_TOLERANCE) & (x2 <= width + BOX_TOLERANCE) & (y2 <= height + BOX_TOLERANCE)
    for fine, wanted in (
        (finite, "finite numbers"),
        (ordered, "x2 > x1 and y2 > y1"),
        (inside, f"a box inside the picture, which is {width} wide and {height} high"),
    ):
        if not fine.all():
            row = int(np.argmin(fine))
            got = ", ".join(f"{value:g}" for value in boxes[row])
            raise DataError(f"{where}: box {row} is x1, y1, x2, y2 = {got}, wanted {wanted}; mend or remove the object")

    if labels.shape != (len(boxes),) or labels.dtype.kind not in "iu" or labels.dtype == np.uint64:
        raise DataError(
            f"{where}: labels of shape {labels.shape} {labels.dtype}, wanted ({len(boxes)},) int64, one a box"
        )
    highest = np.iinfo(labels.dtype).max if num_classes is None else num_classes - 1
    wrong = (labels < 1) | (labels > highest)
    if wrong.any():
        row = int(np.argmax(wrong))
        upper = (
            "" if num_classes is None else f" to {highest}, the model having {num_classes} classes with the background"
        )
        raise DataError(f"{where}: label {row} is {labels[row]}, wanted labels from 1{upper} (0 is the background)")

    if masks.shape != (len(boxes), height, width) or masks.dtype not in (np.uint8, np.bool_):
        raise DataError(
            f"{where}: masks of shape {masks.shape} {masks.dtype}, "
            f"wanted ({len(boxes)}, {height}, {width}) uint8: one a box, as large as the picture"
        )
    if masks.size and masks.dtype == np.uint8 and masks.max() > 1:
        raise DataError(f"{where}: masks hold values up to {masks.max()}, wanted 0 and 1; divide or compare them first")
