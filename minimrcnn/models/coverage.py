"""How well a model's anchors cover the objects of a data set: what the RPN has to start from.

An object is learned by the anchors that overlap it enough (IoU 0.7, or the best there is). Where the best one overlaps
it by less than a half, a proposal has to move and stretch far, and few are ever drawn to learn it. A training on
anchors that are all too large for the objects runs through without an error and finds nothing: worth knowing before.

The best anchor of an object is not searched for among all: of the anchors of one form, which stand in a grid, the one
whose center is nearest along both axes overlaps a box the most, since along either axis the overlap of two intervals of
given lengths only shrinks as their centers move apart.
"""

from __future__ import annotations

import numpy as np

from minimrcnn.data.rows import learned_from
from minimrcnn.models.mask_rcnn import LEVELS
from minimrcnn.models.prepare import resized

FAIR = 0.5  # a best IoU below is a bad start
MOST_BADLY = 1 / 3


def resized_boxes(annotations: dict, config) -> tuple[np.ndarray, np.ndarray]:
    """The boxes of a data set in the pixels that the model sees.

    Parameters
    ----------
    annotations : dict
        In COCO's form, as ``dataset.annotations()``; what is not learned from is passed over.
    config : Config
        Its ``min_size``, ``max_size`` and ``size_divisible``.

    Returns
    -------
    boxes : ndarray (G, 4) float64
        ``x1, y1, x2, y2``.
    padded : ndarray (G, 2) int64
        (height, width) of each object's picture, resized and padded.
    """
    sizes, scales, step = {}, {}, config.size_divisible
    for image in annotations["images"]:
        before = image["height"], image["width"]
        after = resized(before, config)
        sizes[image["id"]] = [-(-side // step) * step for side in after]
        scales[image["id"]] = after[1] / before[1], after[0] / before[0]
    rows = learned_from(annotations["annotations"])
    x, y, width, height = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4).T  # 4 of (G,)
    scale = np.array([scales[row["image_id"]] for row in rows], np.float64).reshape(-1, 2)  # (G, 2)
    boxes = np.stack([x, y, x + width, y + height], axis=1) * np.tile(scale, 2)  # (G, 4)
    return boxes, np.array([sizes[row["image_id"]] for row in rows], np.int64).reshape(-1, 2)


def best_ious(annotations: dict, config) -> np.ndarray:
    """The IoU of every object with the anchor that overlaps it the most, (G,) float64, in the order of the rows.

    Parameters
    ----------
    annotations : dict
        See `resized_boxes`.
    config : Config
    """
    boxes, padded = resized_boxes(annotations, config)
    best = np.zeros(len(boxes))
    root = np.sqrt(np.asarray(config.aspect_ratios, np.float32))
    _, strides = LEVELS[config.pyramid]
    for level, stride in enumerate(strides):
        cells = -(-padded // stride)  # (G, 2)
        steps = padded // np.maximum(cells, 1)
        for size in [config.anchor_sizes[level]] if len(strides) > 1 else config.anchor_sizes:
            for half in np.stack([root, 1 / root], axis=1) * np.float32(size) / 2:  # (2,) height and width
                best = np.maximum(best, _nearest_iou(boxes, np.round(half).astype(np.float64), cells, steps))
    return best


def _nearest_iou(boxes: np.ndarray, half: np.ndarray, cells: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(G,) IoU of every box with the nearest anchor of one form, ``half`` as high and wide as twice that."""
    low, high = boxes[:, [1, 0]], boxes[:, [3, 2]]  # (G, 2): y and x
    center = np.round((low + high) / 2 / steps).clip(0, cells - 1) * steps  # (G, 2)
    shared = (np.minimum(high, center + half) - np.maximum(low, center - half)).clip(0).prod(axis=1)  # (G,)
    return shared / ((high - low).prod(axis=1) + (2 * half).prod() - shared)


def covers_badly(ious: np.ndarray) -> bool:
    """Whether too many objects have no anchor to start from; sizes that fit leave about a quarter of them so."""
    return bool(len(ious)) and (ious < FAIR).mean() > MOST_BADLY


def describe_coverage(ious: np.ndarray) -> str:
    """How many objects the anchors cover badly, in words."""
    few, many = int((ious < FAIR).sum()), len(ious)
    return f"{few} of {many} objects ({few / max(many, 1):.0%}) have a best IoU below {FAIR} with them"
