"""What model a public state is of, from its names and shapes alone; and states into and out of models.

A model is anything with ``arrays()``, ``load_arrays()``, ``modules()`` and ``config``, as `minimrcnn.MaskRCNN`.

Not everything can be seen. The numbers of a batch norm do not tell its eps, which differs: torchvision computes its
published COCO_V1 detectors with frozen batch norm with 0, all else with 1e-5. Nor do weights tell sizes and ratios of
anchors, thresholds, or groups of a group norm: those remain as `Config` has them.
"""

from __future__ import annotations

import dataclasses
import os
import re

import numpy as np

from minimrcnn.archive import HEADER_NAME, UNREADABLE
from minimrcnn.errors import DataError
from minimrcnn.weights.names import (
    MAX_CONVS,
    TRACKED,
    crop_channels,
    is_c4,
    is_detector,
    list_dense,
    modern_names,
    modernize,
    shape_of,
    to_native,
    to_public,
)
from minimrcnn.weights.stored import read_directory

COCO_CLASSES = 91
EPS = 1e-5  # torch's own
HEAD_NORM = r"backbone\.fpn\.\w+\.\d+\.1\.|roi_heads\.(box|mask)_head\.\d+\.1\."
PREDICTOR = "roi_heads.box_predictor.cls_score.weight"
UPSAMPLE, MASK_LOGITS = (f"roi_heads.mask_predictor.{name}.weight" for name in ("conv5_mask", "mask_fcn_logits"))
TELLING = (  # weights that tell a field of the Config, and how many axes they have
    (r"backbone\.body\.layer1\.0\.conv2\.weight", 4),
    (r"(rpn\.head\.conv|roi_heads\.(box|mask)_head)\.\d+\.0\.weight", 4),
    (r"roi_heads\.(box_head\.(fc)?|mask_head\.fc)\d+\.weight", 2),
)
BACKBONES = {  # blocks in the third stage, whether they are bottlenecks, groups and width of the first 3x3
    (2, False, 1, 64): "resnet18",
    (6, False, 1, 64): "resnet34",
    (6, True, 1, 64): "resnet50",
    (23, True, 1, 64): "resnet101",
    (6, True, 32, 128): "resnext50_32x4d",
    (23, True, 32, 256): "resnext101_32x8d",
}


def recognize(state) -> dict:
    """The fields of a Config that names and shapes tell.

    Parameters
    ----------
    state : dict of str to ndarray
        Public, as `load` reads it; of a detector or a classifier.

    Returns
    -------
    dict
        For ``Config(**fields)``. Of a classifier only ``backbone``, ``norm`` and ``norm_eps``.

    Raises
    ------
    DataError
        The backbone is none of ours, or a detector lacks arrays that are needed to tell; all of them are listed.
    """
    modern = modernize(state)
    if is_detector(state):
        check_telling(modern)
    fields = {"backbone": recognize_backbone(modern), **recognize_norm(state)}
    if not is_detector(state):
        return fields
    fields["num_classes"] = shape_of(modern, PREDICTOR, 2)[0]
    fields["rpn_conv_depth"] = len(widths(modern, "rpn.head.conv.{}.0.weight", 4))
    if any(name.startswith("backbone.fpn.") for name in modern):
        fields["pyramid"] = "fpn"
        fields["pyramid_channels"] = shape_of(modern, "backbone.fpn.layer_blocks.0.0.weight", 4)[0]
    else:
        fields["pyramid"] = "c4" if is_c4(modern) else "c5"
    of_heads = [name for name in modern if re.match(HEAD_NORM, name)]
    if of_heads:
        fields["head_norm"] = "batch" if any(name.endswith("running_var") for name in of_heads) else "group"
    fields["box_head_convs"] = widths(modern, "roi_heads.box_head.{}.0.weight", 4)
    dense = list_dense(modern) or [f"roi_heads.box_head.fc{number}" for number in (6, 7, 8, 9)]
    dense = [module for module in dense if f"{module}.weight" in modern]
    fields["box_head_fcs"] = len(dense)
    halved = 2 if fields["pyramid"] == "c4" else 1  # the last stage makes half of a crop's side
    if dense:
        channels_out, inputs = shape_of(modern, f"{dense[0]}.weight", 2)
        fields["box_head_channels"] = channels_out
        fields["box_pool_size"] = halved * round((inputs // crop_channels(modern)) ** 0.5)
    else:
        fields["box_pool_size"] = halved * 7
    return fields | recognize_mask_head(modern)


def check_telling(modern) -> None:
    """Refuse a detector by all arrays at once that tell something, and are missing or of senseless shapes."""
    wanted = {name: axes for name in modern for pattern, axes in TELLING if re.fullmatch(pattern, name)}
    wanted |= {PREDICTOR: 2, "rpn.head.conv.0.0.weight": 4}
    if any(name.startswith("backbone.fpn.") for name in modern):
        wanted["backbone.fpn.layer_blocks.0.0.weight"] = 4
    if UPSAMPLE in modern:
        wanted |= {UPSAMPLE: 4, MASK_LOGITS: 4}
    faults = []
    for name, axes in wanted.items():
        try:
            shape_of(modern, name, axes)
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n  ".join(faults))


def recognize_backbone(modern) -> str:
    """The backbone's name."""
    if "backbone.body.0.weight" in modern:
        return "vgg16"
    first = "backbone.body.layer1.0.conv2.weight"
    if first not in modern:
        raise DataError(
            f"no layer1.0.conv2.weight and no features.0.weight among {len(modern)} names "
            f"({', '.join(list(modern)[:4])}, ..); wanted a detector or a "
            f"classifier on one of {', '.join([*BACKBONES.values(), 'vgg16'])}"
        )
    blocks = len({name.split(".")[3] for name in modern if name.startswith("backbone.body.layer3.")})
    channels_out, channels_in = shape_of(modern, first, 4)[:2]  # of a group
    has_bottlenecks = "backbone.body.layer1.0.conv3.weight" in modern
    kind = (blocks, has_bottlenecks, channels_out // max(channels_in, 1), channels_out)
    if kind not in BACKBONES:
        raise DataError(
            f"a ResNet with {blocks} blocks in layer3 and layer1.0.conv2.weight of shape {modern[first].shape} is none "
            f"of {', '.join(BACKBONES.values())}"
        )
    return BACKBONES[kind]


def recognize_norm(state) -> dict:
    """``norm`` (but of VGG, which has none) and ``norm_eps``; statistics whose updates are counted are not frozen."""
    modern = modernize(state)
    tracked = [name for name in state if name.endswith(TRACKED)]
    if "backbone.body.bn1.running_var" in modern:
        norm = {"norm": "batch" if any(name.endswith(f"bn1{TRACKED}") for name in tracked) else "frozen_batch"}
    else:
        norm = {"norm": "group"} if "backbone.body.bn1.weight" in modern else {}
    is_coco = PREDICTOR in modern and modern[PREDICTOR].shape[:1] == (COCO_CLASSES,)
    return {**norm, "norm_eps": 0.0 if is_coco and norm == {"norm": "frozen_batch"} and not tracked else EPS}


def recognize_mask_head(modern) -> dict:
    """``mask_head`` and what belongs to it."""
    if MASK_LOGITS not in modern:
        return {"mask_head": None}
    if UPSAMPLE not in modern:
        return {"mask_head": "mlp", "mask_mlp_channels": widths(modern, "roi_heads.mask_head.fc{}.weight", 2)}
    fields = {
        "mask_head": "convolutional",
        "mask_head_channels": widths(modern, "roi_heads.mask_head.{}.0.weight", 4),
        "mask_loss": "agnostic" if shape_of(modern, MASK_LOGITS, 4)[0] == 1 else "sigmoid",
    }
    channels_in, channels_out = shape_of(modern, UPSAMPLE, 4)[:2]
    if channels_in != channels_out:
        fields["mask_upsample_channels"] = channels_out
    return fields


def widths(modern, pattern: str, axes: int) -> tuple[int, ...]:
    """The outputs of the layers whose names fit a pattern, in order."""
    names = [pattern.format(number) for number in range(MAX_CONVS)]
    return tuple(shape_of(modern, name, axes)[0] for name in names if name in modern)


def load_state(model, state, norm_eps: float | None = None, partly: bool = False) -> list[str]:
    """Copy a public state into a model.

    Parameters
    ----------
    model : MaskRCNN
    state : dict of str to ndarray
        Of a detector, or of a classifier, whose body becomes the backbone.
    norm_eps : float, optional
        Of the batch norm, also in ``model.config``; by default what `recognize` says.
    partly : bool
        Outside the backbone, take what fits and leave the rest as it is: predictors for other classes, say.

    Returns
    -------
    list of str
        Our names of the arrays that were left as they were.

    Raises
    ------
    DataError
        Names that are unknown or missing, and shapes that differ, all of them and by their public names; nothing was
        copied.
    """
    fields = recognize_norm(state)
    if model.config.norm == "group" and fields.get("norm", "group") != "group":
        raise DataError(
            f"the model has group normalization, the weights were trained with {fields['norm']} normalization; wanted "
            'a model with norm="frozen_batch", on the command line: train --architecture maskrcnn_resnet50_fpn'
        )
    arrays = model.arrays()
    mine, names = to_public(arrays), modern_names(state)
    body_alone = partly or not is_detector(state)
    faults = list_faults(mine, state, names, "backbone.body." if body_alone else "")
    if faults:
        config = model.config
        raise DataError(
            f"{len(faults)} names do not fit this model ({config.backbone}, {config.num_classes} classes, mask head: "
            f"{config.mask_head}); wanted weights of the same architecture. These differ:\n  " + "\n  ".join(faults)
        )
    known = {there: state[there] for there, name in names.items() if name in mine}
    given = to_native(known, res5=any(name.startswith("res5.") for name in arrays))
    fitting = {name for name in given if name in arrays and given[name].shape == arrays[name].shape}
    model.load_arrays({name: given[name] if name in fitting else array for name, array in arrays.items()})
    set_norm_eps(model, fields["norm_eps"] if norm_eps is None else float(norm_eps))
    return [name for name in arrays if name not in fitting]


def set_norm_eps(model, eps: float) -> None:
    """Make a model compute its batch norms with this eps, and remember it."""
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.eps = eps
    model._config = dataclasses.replace(model.config, norm_eps=eps)  # for everybody else it cannot be changed


def list_faults(mine, state, names, start: str) -> list[str]:
    """What is missing, unknown or of another shape among the public names that begin with ``start``.

    Parameters
    ----------
    mine : dict of str to ndarray
        The model's own public state.
    state : dict of str to ndarray
    names : dict of str to str
        As `modern_names` gives them.
    start : str
    """
    wanted = {name: array.shape for name, array in mine.items() if name.startswith(start)}
    there = {name: old for old, name in names.items() if name.startswith(start)}
    faults = [f"{name}: missing, wanted {shape}" for name, shape in wanted.items() if name not in there]
    faults += [f"{old}: unknown" for name, old in there.items() if name not in wanted]
    return faults + [
        f"{there[name]}: {state[there[name]].shape}, wanted {shape}"
        for name, shape in wanted.items()
        if name in there and state[there[name]].shape != shape
    ]


def is_ours(path) -> bool:
    """Whether a file is one that minimrcnn writes, model or checkpoint. Of what cannot be read, the readers tell."""
    try:
        with open(path, "rb") as file:
            return HEADER_NAME in read_directory(file, os.fstat(file.fileno()).st_size)[1]
    except (OSError, *UNREADABLE):
        return False


def state_of(model) -> dict[str, np.ndarray]:
    """Copies of a model's weights, on the host, by their public names and in torch's layout.

    ``torch_model.load_state_dict({name: torch.from_numpy(array) for ...})`` takes them as they are.
    """
    arrays = {name: array.get() if hasattr(array, "get") else array for name, array in model.arrays().items()}  # CuPy's
    return {name: np.array(array, order="C") for name, array in to_public(arrays, model.config).items()}
