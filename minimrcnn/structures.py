"""What travels between the stages: plain frozen records of host arrays.

Boxes are float32 ``x1, y1, x2, y2`` in pixels, continuous and half-open (width = x2 - x1). Label 0 is the background.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None = None
    names: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.boxes)
