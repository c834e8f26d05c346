"""A model from published weights, and a model's answers in the terms of a data set."""

from __future__ import annotations

import numpy as np

from minimrcnn import models
from minimrcnn.config import Config
from minimrcnn.data.coco_names import COCO_CATEGORY_IDS, COCO_NAMES
from minimrcnn.errors import DataError
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.structures import Detections
from minimrcnn.weights import load, recognize


def load_model(path, **fields) -> MaskRCNN:
    """The model that published weights are of, ready to predict.

    Parameters
    ----------
    path : path
        A torchvision detector's state: .pth, .safetensors or .npz.
    **fields
        Fields of the Config that names and shapes do not tell, as ``anchor_sizes``, ``norm_eps`` or ``class_names``.
        With 91 classes the names are COCO's, unless others are given.

    Raises
    ------
    DataError
        The file is damaged, or of no detector, or some names or shapes fit no model of ours.
    """
    state = load(path)
    try:
        found = recognize(state)
        if "num_classes" not in found:
            raise DataError(
                f"this is a classifier ({found['backbone']}), wanted a detector; a backbone is for train --init"
            )
        if found["num_classes"] == len(COCO_NAMES):
            found |= {"class_names": COCO_NAMES, "category_ids": COCO_CATEGORY_IDS}
        make = models.maskrcnn_resnet50_c4 if found["pyramid"] == "c4" else MaskRCNN
        model = make(**{**found, **fields})
        model.load_state(state, norm_eps=model.config.norm_eps)
    except (DataError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    return model.eval()


def describe_model(config: Config) -> str:
    """What was recognized, in a line."""
    body = f"{config.backbone} with {config.pyramid}"
    heads = f"{config.mask_head} mask head" if config.mask_head else "no mask head"
    return f"{body}, {heads}, {config.num_classes} classes, {config.norm} norm, eps {config.norm_eps}"


def names_contain(config: Config, dataset) -> bool:
    """Whether a model knows a data set's categories by number and name, and others besides, as COCO's models do."""
    known = set(zip(config.category_ids[1:], config.class_names[1:], strict=False))
    wanted = set(zip(dataset.category_ids[1:], dataset.class_names[1:], strict=True))
    return wanted <= known and config.category_ids != dataset.category_ids


class InTermsOf:
    """A model that answers in a data set's labels, and leaves out what that has no category for."""

    def __init__(self, model: MaskRCNN, dataset):
        self.model = model
        label_of = {category: label for label, category in enumerate(dataset.category_ids)}
        self.labels = np.array([label_of.get(category, 0) for category in model.config.category_ids])  # (K,)

    def predict(self, pictures, score_thresh=None) -> list[Detections]:
        return [self.translate(found) for found in self.model.predict(pictures, score_thresh=score_thresh)]

    def translate(self, found: Detections) -> Detections:
        labels = self.labels[found.labels]  # (D,)
        kept = labels > 0
        masks = None if found.masks is None else found.masks[kept]
        return Detections(found.boxes[kept], labels[kept], found.scores[kept], masks)


def check_count(count: int, dataset, folder, source) -> None:
    """A model without names can only be meant to have the labels of the data, so it has to have as many."""
    if count != len(dataset.class_names):
        raise DataError(
            f"{folder}: it has {len(dataset.class_names) - 1} classes, {source} knows {count - 1}; wanted as many"
        )


def check_classes(names: tuple[str, ...], dataset, folder, source) -> None:
    """Labels are compared by number, so both sides have to mean the same by them."""
    if names and tuple(names) != tuple(dataset.class_names):
        raise DataError(
            f"{folder}: its classes are {', '.join(dataset.class_names[1:])}, those of {source} "
            f"{', '.join(names[1:])}; wanted the same, in the same order"
        )
