"""What travels between the stages: plain frozen records of host arrays.

Boxes are float32 ``x1, y1, x2, y2`` in pixels, continuous and half-open (width = x2 - x1). Label 0 is the background.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, field, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Target:
    """The truth about one picture of H x W pixels with G objects, G may be 0.

    Attributes
    ----------
    boxes : ndarray (G, 4) float32
    labels : ndarray (G,) int64, from 1
    masks : ndarray (G, H, W) uint8, 0 or 1
    """

    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True, eq=False)
class RoISamples:
    """The RoIs of one picture that the heads train on, with what each of them was matched to.

    Attributes
    ----------
    boxes : ndarray (S, 4) float32
        The sampled proposals, positives first.
    labels : ndarray (S,) int64
        The class each should be given, 0 for background.
    matched : ndarray (S,) int64
        The row of the picture's Target each RoI covers; for background it is -1.
    """

    boxes: np.ndarray
    labels: np.ndarray
    matched: np.ndarray

    @property
    def positive(self) -> np.ndarray:
        """(S,) bool: the RoIs that cover an object."""
        return self.labels > 0


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one picture of H x W pixels: D objects, best score first.

    Attributes
    ----------
    boxes : ndarray (D, 4) float32
    labels : ndarray (D,) int64, from 1
    scores : ndarray (D,) float32, 0 to 1
    masks : ndarray (D, H, W) bool, or None from a model without a mask head
    names : tuple of str
        ``names[label]`` is the class in words; may be empty.
    category_ids : tuple
        ``category_ids[label]`` is the number of the class in the data set that was learned from; may be empty.
    picture : str, weak reference or None
        Where they were found, for showing them: its path, or a weak reference to what `predict` was given. They do not
        keep the picture in memory.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None
    names: tuple[str, ...] = field(default=())
    category_ids: tuple[int | None, ...] = field(default=())
    picture: str | weakref.ref | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows) -> Detections:
        """Some of the objects, by a slice, a mask or indices: ``found[:5]``, ``found[found.scores > 0.9]``."""
        rows = np.atleast_1d(np.arange(len(self))[rows])
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], scores=self.scores[rows], masks=masks)

    # What follows asks `minimrcnn.exports`, which knows the house, when it is called: no stage does.

    def draw(self, picture=None) -> np.ndarray:
        """The picture with the objects on it, (H, W, 3) uint8; see `minimrcnn.exports.draw`."""
        from minimrcnn import exports

        return exports.draw(self, picture)

    def to_coco(self, image_id: int, category_ids=None, polygons: bool = False) -> list[dict]:
        """Rows of COCO's results format; see `minimrcnn.exports.to_coco`."""
        from minimrcnn import exports

        return exports.to_coco(self, image_id, category_ids, polygons)

    def to_labelme(self, path, picture=None, overwrite: bool = False) -> None:
        """Write a file to be corrected in LabelMe; see `minimrcnn.exports.to_labelme`."""
        from minimrcnn import exports

        exports.to_labelme(self, path, picture, overwrite)

    def to_dict(self) -> dict[str, np.ndarray]:
        """Plain arrays by name, ready for ``numpy.savez``; see `minimrcnn.exports.to_dict`."""
        from minimrcnn import exports

        return exports.to_dict(self)

    def __repr__(self) -> str:
        from minimrcnn import exports

        return exports.describe(self)

    def _repr_png_(self) -> bytes:  # what a notebook shows
        from minimrcnn import exports

        return exports.to_png(self)

    def __getstate__(self) -> dict:  # a weak reference means nothing to another process
        return {**self.__dict__, "picture": self.picture if isinstance(self.picture, str) else None}


def refer_to(picture) -> str | weakref.ref | None:
    """What a picture is found by again without being kept: its path, or a weak reference to the array or image."""
    if isinstance(picture, (str, os.PathLike)):
        return os.fspath(picture)
    try:
        return weakref.ref(picture)
    except TypeError:
        return None
