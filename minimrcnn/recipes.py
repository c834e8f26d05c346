"""The model and the recipe that the options of ``minimrcnn train`` mean.

What the options leave open is fitted to the data, but not where there is a model of ours to begin with: its RPN has
learned certain anchors on pictures of a certain size, and with others its weights would be of little use. A run that
goes on keeps all that was fitted, since its annotations may have been mended in between.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minimrcnn import models
from minimrcnn.config import Config
from minimrcnn.data.rows import learned_from
from minimrcnn.errors import DataError
from minimrcnn.models.coverage import FAIR, best_ious, covers_badly, describe_coverage
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.models.presets import (
    CROP,
    LARGE,
    LEAST_OBJECT,
    LONGEST,
    choose_anchor_sizes,
    choose_detections,
    choose_min_size,
    object_sizes,
    small_config,
)
from minimrcnn.models.saved import read_config
from minimrcnn.training.options import TrainOptions
from minimrcnn.weights import is_ours

ADAMW_RATE = 5e-4
SGD_RATE = 0.00125  # a picture in a step: torchvision's reference has 0.02 for 16

LEARNT = ("anchor_sizes", "aspect_ratios", "min_size", "max_size")  # what an RPN's weights are used to
# Fitted too, but weights work with any.
COUNTED = ("box_detections_per_img", "rpn_pre_nms_top_n_test", "rpn_post_nms_top_n_test")
RPN = ("pyramid", "pyramid_channels", "rpn_conv_depth")  # where these differ, its weights start anew


class Earlier(NamedTuple):
    """The model of ours that a training begins with: its file, its Config, and the fields of it that are kept."""

    path: Path
    config: Config
    kept: tuple[str, ...]


def learns_masks(architecture: str) -> bool:
    """Whether a model of this name has a mask head; Faster R-CNN has none."""
    return not architecture.startswith("fasterrcnn")


def find_earlier(options, checkpoint: Path) -> Earlier | None:
    """The run that ``--resume`` goes on with, or the model of ``--init`` if it is one of ours."""
    if options.resume and checkpoint.exists():
        path, kept = checkpoint, LEARNT + COUNTED
    elif options.init and is_ours(options.init):
        path, kept = Path(options.init), LEARNT
    else:
        return None
    return Earlier(path, read_config(path), kept)


def kept_fields(options, config: Config, earlier: Earlier | None) -> dict:
    """The fields of ``config`` that stay as they were earlier, as the options do not give them."""
    if earlier is None or any(getattr(config, name) != getattr(earlier.config, name) for name in RPN):
        return {}
    given = {"anchor_sizes"} if given_anchors(options) else set()
    given |= {"min_size", "max_size"} if options.size else set()
    return {name: getattr(earlier.config, name) for name in earlier.kept if name not in given}


def given_anchors(options) -> tuple[float, ...] | None:
    """The sizes of ``--anchors``; None for auto."""
    if options.anchors == ["auto"]:
        return None
    if len(options.anchors) != 5 or "auto" in options.anchors:
        got = " ".join(size if size == "auto" else f"{size:g}" for size in options.anchors)
        raise DataError(f"--anchors {got}: wanted five sizes in pixels, as 8 16 32 64 128, or auto")
    return tuple(options.anchors)


def fit_small(options, dataset) -> Config:
    """The small model's Config, fitted to the data where the options leave it open."""
    annotations = dataset.annotations()
    min_size = options.size or choose_min_size(annotations)
    return small_config(
        dataset.class_names,
        dataset.category_ids,
        backbone=options.backbone or "resnet18",
        anchor_sizes=given_anchors(options) or choose_anchor_sizes(annotations, min_size),
        min_size=min_size,
        detections=choose_detections(annotations),
    )


def make_small(options, dataset, earlier: Earlier | None = None) -> MaskRCNN:
    """The small model, fitted to the data or as it was earlier."""
    config = fit_small(options, dataset)
    config = dataclasses.replace(config, **kept_fields(options, config, earlier))
    if options.trainable_backbone_layers is not None:
        config = dataclasses.replace(config, trainable_backbone_layers=options.trainable_backbone_layers)
    return MaskRCNN(config, seed=options.seed)


def make_published(options, dataset, earlier: Earlier | None = None) -> MaskRCNN:
    """A model of the papers, for the classes of the data.

    Frozen batch norm stands for what was learned before; a model that begins from random weights has group norm
    instead, and keeps it when it is trained on. All of it learns; one that goes on from others' weights learns from the
    third of five parts on, as torchvision's.
    """
    if options.backbone:
        raise DataError(f"--backbone: {options.architecture} names its backbone; wanted --architecture small with it")
    fields = {
        "num_classes": len(dataset.class_names),
        "class_names": dataset.class_names,
        "category_ids": dataset.category_ids,
        "box_detections_per_img": choose_detections(dataset.annotations()),
        "trainable_backbone_layers": 3 if options.init else 5,
    }
    if options.trainable_backbone_layers is not None:
        fields["trainable_backbone_layers"] = options.trainable_backbone_layers
    if not options.init or (earlier and earlier.config.norm == "group"):
        fields |= {"norm": "group", "head_norm": "group"}
    if options.size:
        fields |= {"min_size": options.size, "max_size": round(LONGEST * options.size)}
    given, make = given_anchors(options), getattr(models, options.architecture)
    if given:
        fields["anchor_sizes"] = given
    model, annotations = make(seed=options.seed, **fields), dataset.annotations()
    others = kept_fields(options, model.config, earlier)
    if not given and not others and covers_badly(best_ious(annotations, model.config)):
        others = {"anchor_sizes": choose_anchor_sizes(annotations, model.config.min_size)}
    # Without others, the anchors are those that published weights are used to.
    return make(seed=options.seed, **{**fields, **others}) if others else model


def explain_fit(options, dataset, config: Config, earlier: Earlier | None = None) -> list[str]:
    """The input size and the anchors, and why these, in two lines; a third warns of anchors that do not fit."""
    annotations = dataset.annotations()
    objects = object_sizes(annotations, config.min_size)
    if not objects:
        return ["there is no object in the pictures to fit the anchors to"]
    middle = float(np.median(objects))
    kept = kept_fields(options, config, earlier)
    if config.min_size is None:
        size, why = "pictures keep their size", f", as most have a shorter side of at most {LARGE} pixels"
    else:
        size, why = f"pictures are resized to a shorter side of {config.min_size} pixels", ""
        if options.architecture == "small" and not options.size:
            why = f", as most have more than {LARGE}"
    if "min_size" in kept:
        why = f", as in {earlier.path}"
    lines = [f"{size}{why}; half of the objects are then smaller than {middle:.0f} x {middle:.0f}"]

    ious = best_ious(annotations, config)
    given = given_anchors(options)
    others = choose_anchor_sizes(annotations, config.min_size)
    fitted = "from half of the middle object's size on" if tuple(config.anchor_sizes) == others else "as published"
    why = "as given" if given else f"as in {earlier.path}" if "anchor_sizes" in kept else fitted
    lines.append(f"anchors of {list_sizes(config.anchor_sizes)} pixels, {why}; {describe_coverage(ious)}")
    if covers_badly(ious):
        better = best_ious(annotations, dataclasses.replace(config, anchor_sizes=others))
        few = int((better < FAIR).sum())
        if given and better.mean() > ious.mean():
            advice = f"leave out --anchors: with {list_sizes(others)} there are {few}"
        elif "anchor_sizes" in kept and better.mean() > ious.mean():
            advice = f"with --anchors {list_sizes(others, ' ')} there are {few}, but the RPN has to learn them anew"
        elif middle < LEAST_OBJECT:
            advice = "they are small: train at a larger --size, or cut the pictures into tiles"
        else:
            advice = "they are long and thin, or of very different sizes: expect the model to miss some"
        lines.append(f"warning: so many objects will hardly be learned; {advice}")
    return lines


def judge_crops(dataset, recipe: TrainOptions, config: Config) -> list[str]:
    """What speaks against the crops of a recipe, in a line; none if nothing does."""
    crop, annotations = recipe.crop, dataset.annotations()
    if crop and config.min_size:
        return [
            f"warning: crops of {crop} pixels are resized to a shorter side of {config.min_size}, as whole pictures "
            "are, so objects are learned at other sizes than they are looked for; leave out --crop"
        ]
    cropped = {image["id"] for image in annotations["images"] if crop and max(image["height"], image["width"]) > crop}
    rows = learned_from(annotations["annotations"])
    sides = [max(row["bbox"][2:]) for row in rows if row["image_id"] in cropped]
    long = sum(2 * side > crop for side in sides)
    if 10 * long <= len(rows):
        return []
    most = np.percentile(sides, 90, method="higher")  # an object's, or of few it could be less than half of the crops
    return [
        f"warning: {long} of {len(rows)} objects are longer than half of the crops of {crop} pixels that are trained "
        f"on, so they are rarely seen whole; take --crop {2 * math.ceil(most)}"
    ]


def list_sizes(sizes, between: str = ", ") -> str:
    """Anchor sizes in words."""
    return between.join(f"{size:g}" for size in sizes)


def make_recipe(options, config: Config) -> TrainOptions:
    """The recipe of ``train``: what is not said depends on the model and on the optimizer."""
    small, sgd = options.architecture == "small", options.optimizer == "sgd"
    flips = options.flips or ("both" if small else "horizontal")
    rate, decay = (SGD_RATE * options.batch, 1e-4) if sgd else (ADAMW_RATE, 0.01)
    return TrainOptions(
        steps=options.steps,
        batch_size=options.batch,
        optimizer=options.optimizer,
        learning_rate=rate if options.lr is None else options.lr,
        weight_decay=decay if options.weight_decay is None else options.weight_decay,
        norm_weight_decay=options.norm_weight_decay,
        schedule=options.schedule,
        warmup_steps=min(100, options.steps // 10),
        crop=options.crop or (None if config.min_size else CROP),
        flip_horizontal=0.0 if flips == "none" else 0.5,
        flip_vertical=0.5 if flips == "both" else 0.0,
        color=small if options.color is None else options.color,
        seed=options.seed,
    )


def list_parts(names: list[str], all_names) -> str:
    """Arrays in a few words: a part of which all arrays are meant by its name alone, of others the layers."""
    found: dict[str, None] = {}
    for name in names:
        part = name.split(".")[0] + "."
        whole = all(other in names for other in all_names if other.startswith(part))
        found[part[:-1] if whole else name.rpartition(".")[0]] = None
    return ", ".join(found)
