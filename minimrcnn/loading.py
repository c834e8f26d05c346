"""A model from published weights, and whether one without names can be asked about a data set."""

from __future__ import annotations

import dataclasses

from minimrcnn.config import Config
from minimrcnn.data.coco_names import COCO_CATEGORY_IDS, COCO_NAMES
from minimrcnn.errors import DataError
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.models.published import ON_C4, V2
from minimrcnn.weights import load_with_config, recognize

# Fields that no prediction depends on, beside those that end in _train; and eps, which is told apart.
TRAINING = frozenset(
    "trainable_backbone_layers rpn_fg_iou_thresh rpn_bg_iou_thresh rpn_batch_size_per_image rpn_positive_fraction "
    "roi_deterministic box_fg_iou_thresh box_bg_iou_thresh box_batch_size_per_image box_positive_fraction "
    "norm_eps".split()
)
LAYERS = (  # fields that names and shapes follow from, which torchvision has at certain values
    *("norm", "head_norm", "pyramid", "p6", "pyramid_channels", "rpn_conv_depth"),
    *("box_pool_size", "box_head_convs", "box_head_fcs", "box_head_channels"),
    *("mask_head_channels", "mask_upsample_channels", "mask_loss"),
)


def load_model(path, **fields) -> MaskRCNN:
    """The model that published weights are of, ready to predict.

    Parameters
    ----------
    path : path
        A torchvision detector's state: .pth, .safetensors or .npz. A .safetensors file that ``minimrcnn convert`` made
        of a model of ours has its Config, too.
    **fields
        Fields of the Config that names and shapes do not tell, as ``anchor_sizes``, ``norm_eps`` or ``class_names``.
        With 91 classes the names are COCO's, unless others are given.

    Raises
    ------
    DataError
        The file is damaged, or of no detector, or some names or shapes fit no model of ours.
    """
    return load_told(path, **fields)[0]


def load_told(path, **fields) -> tuple[MaskRCNN, bool]:
    """`load_model`, and whether the file told the whole Config, so that nothing was assumed."""
    state, told = load_with_config(path)
    try:
        config = assume_config(state, **fields) if told is None else Config.from_dict(told | fields)
        model = MaskRCNN.unfilled(config, state)
        model.load_state(state, norm_eps=config.norm_eps)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return model.eval(), told is not None


def assume_config(state, **fields) -> Config:
    """The Config that published weights are taken to be of, for want of what names and shapes do not tell."""
    found = recognize(state)
    if "num_classes" not in found:
        raise DataError(
            f"this is a classifier ({found['backbone']}), wanted a detector; a backbone is for train --init"
        )
    if found["num_classes"] == len(COCO_NAMES):
        found |= {"class_names": COCO_NAMES, "category_ids": COCO_CATEGORY_IDS}
    return Config.from_dict({**(ON_C4 if found["pyramid"] == "c4" else {}), **found, **fields})


def list_untold(config: Config, assumed: Config) -> dict:
    """The fields that weights under public names do not tell and that a prediction depends on, where they differ."""
    if config.norm == "group":
        config = dataclasses.replace(config, head_norm=config.head_norm or "group")  # what None means there
    fields = {name: value for name, value in vars(config).items() if value != getattr(assumed, name)}
    return {name: value for name, value in fields.items() if name not in TRAINING and not name.endswith("_train")}


def is_torchvisions(config: Config) -> bool:
    """Whether torchvision makes a model of this architecture: on any of its ResNets, in its first or second version."""
    if config.backbone == "vgg16" or config.norm == "group" or config.mask_head == "mlp":
        return False
    version = Config(**V2) if config.rpn_conv_depth == 2 else Config(norm=config.norm)
    return len(config.aspect_ratios) == 3 and all(getattr(config, name) == getattr(version, name) for name in LAYERS)


def describe_model(config: Config) -> str:
    """What was recognized, in a line."""
    body = f"{config.backbone} with {config.pyramid}"
    heads = f"{config.mask_head} mask head" if config.mask_head else "no mask head"
    return f"{body}, {heads}, {config.num_classes} classes, {config.norm} norm, eps {config.norm_eps}"


def check_count(count: int, dataset, folder, source) -> None:
    """A model without names can only be meant to have the labels of the data, so it has to have as many."""
    if count != len(dataset.class_names):
        raise DataError(
            f"{folder}: it has {len(dataset.class_names) - 1} classes, {source} knows {count - 1}; wanted as many"
        )
