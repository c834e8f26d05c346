"""The small model that trains from scratch on fifty pictures in minutes, and how it is fitted to a data set.

A ResNet-18 with a pyramid of 64 channels and group normalization throughout: from scratch, with two to four pictures in
a batch, batch statistics are too noisy to train on (Wu and He 2018; He, Girshick and Dollar 2019, section 3).
"""

from __future__ import annotations

import math

import numpy as np

from minimrcnn.config import Config
from minimrcnn.data.rows import learned_from

CROP = 256  # pixels, in training on pictures that are not resized
LARGE = 720  # a shorter side beyond which pictures are resized
REDUCED = (480, 640, 800, 960)  # to the first of these shorter sides at which objects are large enough:
LEAST_OBJECT = 16  # pixels, of all but the smallest quarter; a cell of the finest level has 4
LONGEST = 5 / 3  # the longer side, in shorter sides, beyond which a resized picture is reduced further


def small_config(
    class_names: tuple[str, ...],
    category_ids: tuple[int | None, ...] = (),
    backbone: str = "resnet18",
    anchor_sizes: tuple[float, ...] = (16, 32, 64, 128, 256),
    min_size: int | None = None,
    detections: int = 100,
    rois: int = 128,
) -> Config:
    """The small model's Config.

    Parameters
    ----------
    class_names : tuple of str
        ``class_names[0]`` is the background.
    category_ids : tuple
        The data set's own numbers of the classes, as ``Config.category_ids``.
    backbone : {"resnet18", "resnet34", "resnet50"}
    anchor_sizes : tuple of 5 floats
        See `choose_anchor_sizes`.
    min_size : int or None
        See `choose_min_size`.
    detections : int
        Most objects found in a picture.
    rois : int
        RoIs sampled a picture to train the heads on; a quarter of them reach the mask head.
    """
    return Config(
        num_classes=len(class_names),
        class_names=tuple(class_names),
        category_ids=tuple(category_ids),
        backbone=backbone,
        norm="group",
        pyramid_channels=64,
        min_size=min_size,
        max_size=round(LONGEST * min_size) if min_size else 1333,
        anchor_sizes=tuple(anchor_sizes),
        rpn_pre_nms_top_n_train=1000,
        rpn_pre_nms_top_n_test=max(1000, 5 * detections),  # of each level: NMS leaves one of several to an object
        rpn_post_nms_top_n_train=1000,
        rpn_post_nms_top_n_test=max(300, 3 * detections),
        box_head_channels=256,
        mask_head_channels=(64, 64, 64, 64),
        box_batch_size_per_image=rois,
        box_detections_per_img=detections,
    )


def choose_min_size(annotations: dict) -> int | None:
    """To what shorter side pictures are resized: None, not at all, unless most are large, as those of phones.

    As small as objects allow, since time and memory grow with the square of it.
    """
    sides = [min(image["height"], image["width"]) for image in annotations["images"]]
    if not sides or np.median(sides) <= LARGE:
        return None
    for size in REDUCED:
        objects = object_sizes(annotations, size)
        if not objects or np.percentile(objects, 25) >= LEAST_OBJECT:
            return size
    return REDUCED[-1]


def object_sizes(annotations: dict, min_size: int | None = None) -> list[float]:
    """The side of a square as large as the box, of every object, in pixels of pictures resized to ``min_size``.

    Parameters
    ----------
    annotations : dict
        In COCO's form, as ``dataset.annotations()``; what is not learned from is passed over.
    min_size : int or None
        The shorter side, as the Config's; the longer one has at most `LONGEST` times as many.
    """
    scale = {}
    for image in annotations["images"]:
        short, long = sorted((image["height"], image["width"]))
        scale[image["id"]] = min(min_size / short, LONGEST * min_size / long) if min_size else 1.0
    return [
        scale[row["image_id"]] * math.sqrt(row["bbox"][2] * row["bbox"][3])
        for row in learned_from(annotations["annotations"])
    ]


def choose_anchor_sizes(annotations: dict, min_size: int | None = None) -> tuple[int, ...]:
    """Five anchor sizes, an octave apart, the smallest an octave below the median object.

    Objects twice as large as the median are then met by the third size, those eight times as large by the last.

    Parameters
    ----------
    annotations : dict
        In COCO's form, as ``dataset.annotations()``.
    min_size : int or None
        As the Config's: objects are measured in resized pixels.
    """
    sides = object_sizes(annotations, min_size)
    middle = float(np.median(sides)) if sides else 64.0
    smallest = min(max(2 ** round(math.log2(max(middle, 1.0) / 2)), 4), 64)
    return tuple(smallest * 2**level for level in range(5))


def choose_detections(annotations: dict) -> int:
    """Most objects to be found in a picture: twice as many as any picture has, at least the usual 100."""
    counts: dict[int, int] = {}
    for row in annotations["annotations"]:
        counts[row["image_id"]] = counts.get(row["image_id"], 0) + 1
    return max(100, 2 * max(counts.values(), default=0))
