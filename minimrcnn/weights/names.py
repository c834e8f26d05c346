"""Public names and ours: the same arrays as torchvision's ``state_dict()`` and as ``model.arrays()`` have them.

Two things differ. The names: `BODY` and `HEADS` below list which module of torchvision is which of ours. And the
layout: torch keeps channels first, we keep them last::

    convolution                 (out, in / groups, h, w)      (h, w, in / groups, out)
    transposed convolution      (in, out, h, w)               (h, w, in, out)
    fully connected             (out, in)                     (in, out)
    box_head.fc6                its inputs are a crop         its inputs are a crop
                                (channels, h, w), flattened   (h, w, channels), flattened

torchvision itself has two spellings: the published COCO_V1 files keep the names of 2018 (``rpn.head.conv.weight``), its
models of today call the same array ``rpn.head.conv.0.0.weight``. Both are read, today's are written.

ImageNet classifiers have the names of a body without ``backbone.body.``, and a classifier, which is left out.
"""

from __future__ import annotations

import re

import numpy as np

from minimrcnn.errors import DataError

TRACKED = ".num_batches_tracked"  # how often torch's batch norm was updated: read by nobody, written for torch
MAX_BLOCKS = 36  # of a stage: ResNet-152 has as many
MAX_CONVS, MAX_DENSE = 16, 4  # of a head
DENSE = r"roi_heads\.box_head\.\d+\.(weight|bias)"
VGG = {  # number in torchvision's `features` -> stage and number in it
    **{0: "0.layers.0", 2: "0.layers.1", 5: "1.layers.0", 7: "1.layers.1"},
    **{10: "2.layers.0", 12: "2.layers.1", 14: "2.layers.2", 17: "3.layers.0", 19: "3.layers.1", 21: "3.layers.2"},
    **{24: "4.layers.0", 26: "4.layers.1", 28: "4.layers.2"},
}
OLD = (  # spellings of the published files -> today's
    (r"^(backbone\.fpn\.\w+_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^roi_heads\.mask_head\.mask_fcn(\d+)\.", lambda match: f"roi_heads.mask_head.{int(match[1]) - 1}.0."),
)


def name_body() -> dict[str, str]:
    """Public names of a body's modules -> ours."""
    body = {"conv1": "backbone.stem.conv", "bn1": "backbone.stem.norm"}
    body |= {str(number): f"backbone.stages.{place}" for number, place in VGG.items()}
    for stage in range(4):
        for block in range(MAX_BLOCKS):
            there, here = f"layer{stage + 1}.{block}", f"backbone.stages.{stage}.layers.{block}"
            for number in (1, 2, 3):
                body[f"{there}.conv{number}"] = f"{here}.conv{number}.conv"
                body[f"{there}.bn{number}"] = f"{here}.conv{number}.norm"
            body[f"{there}.downsample.0"] = f"{here}.shortcut.conv"
            body[f"{there}.downsample.1"] = f"{here}.shortcut.norm"
    return {f"backbone.body.{there}": here for there, here in body.items()}


def name_heads() -> dict[str, str]:
    """Public names of all other modules -> ours, as if every convolution had a normalization."""
    heads = {
        "rpn.head.cls_logits": "rpn.logits",
        "rpn.head.bbox_pred": "rpn.deltas",
        "roi_heads.box_predictor.cls_score": "box_head.class_logits",
        "roi_heads.box_predictor.bbox_pred": "box_head.box_deltas",
        "roi_heads.mask_predictor.conv5_mask": "mask_head.upsample",
        "roi_heads.mask_predictor.mask_fcn_logits": "mask_head.logits",
    }
    for number in range(MAX_DENSE):
        heads[f"roi_heads.box_head.fc{6 + number}"] = f"box_head.fc{6 + number}"
        # Fully connected mask heads are ours alone, so these names are, too. What goes in and out stays channels-last.
        heads[f"roi_heads.mask_head.fc{1 + number}"] = f"mask_head.fc{1 + number}"
    for there, here in (
        ("backbone.fpn.inner_blocks", "pyramid.lateral"),
        ("backbone.fpn.layer_blocks", "pyramid.output"),
        ("rpn.head.conv", "rpn.convs"),
        ("roi_heads.box_head", "box_head.convs"),
        ("roi_heads.mask_head", "mask_head.convs"),
    ):
        for number in range(MAX_CONVS):
            heads[f"{there}.{number}.0"] = f"{here}.{number}.conv"
            heads[f"{there}.{number}.1"] = f"{here}.{number}.norm"
    return heads


BODY, HEADS = name_body(), name_heads()
OURS = BODY | HEADS
PUBLIC = {
    **{here.removesuffix(".conv"): there for there, here in HEADS.items() if not here.endswith(".norm")},
    **{here: there for there, here in OURS.items()},
    # The last stage of a model without a pyramid works on the crops (C4): there it is a part of its own.
    **{here.replace("backbone.stages.3", "res5"): there for there, here in BODY.items() if ".layer4." in there},
}


def to_native(state, res5: bool | None = None) -> dict[str, np.ndarray]:
    """Our names and layout for a public state.

    Parameters
    ----------
    state : dict of str to ndarray
        Of a detector, in the spelling of the published files or of torchvision's models, or of a classifier (ResNet,
        ResNeXt, VGG-16), whose body alone is taken. A leading ``module.`` is ignored.
    res5 : bool, optional
        Whether the last stage belongs to the heads (``res5``), as in C4 models. By default what the shapes tell.

    Returns
    -------
    dict of str to ndarray
        Most are views of the given arrays, as those of torch's ``state_dict()``.

    Raises
    ------
    DataError
        Names that no model of ours has: all of them are listed.
    """
    names = modern_names(state)
    modern = {new: state[name] for name, new in names.items()}
    dense = list_dense(modern)
    known = {*OURS, *dense}
    unknown = [there for there, name in names.items() if name.rpartition(".")[0] not in known]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(state)} names are unknown; wanted the state_dict() of a Mask R-CNN or Faster "
            "R-CNN of torchvision, of a ResNet, a ResNeXt or a VGG-16. Unknown are:\n  " + "\n  ".join(unknown)
        )
    if res5 is None:
        res5 = is_c4(modern)
    arrays = {}
    for name, array in modern.items():
        module, _, kind = name.rpartition(".")
        ours = f"box_head.fc{6 + dense.index(module)}" if module in dense else OURS[module]
        if module in HEADS and ours.endswith(".conv") and f"{module[:-1]}1.weight" not in modern:
            ours = ours.removesuffix(".conv")  # a convolution without normalization
        if res5:
            ours = ours.replace("backbone.stages.3.", "res5.")
        if ours == "box_head.fc6" and array.ndim == 2:
            array = unflatten(array, crop_channels(modern))  # (out, C, S, S)
            array = array.transpose(2, 3, 1, 0).reshape(-1, len(array))  # (S * S * C, out)
        elif array.ndim == 4:
            array = array.transpose(2, 3, 0, 1) if ours == "mask_head.upsample" else array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        arrays[f"{ours}.{kind}"] = array
    return arrays


def to_public(arrays, config=None) -> dict[str, np.ndarray]:
    """Public names and layout, as ``load_state_dict(strict=True)`` of torchvision's model wants them.

    Parameters
    ----------
    arrays : dict of str to ndarray
        As ``model.arrays()``.
    config : Config, optional
        Tells where torch has a batch norm that is trained: it keeps ``num_batches_tracked`` beside the statistics.

    Returns
    -------
    dict of str to ndarray
        Most are views of the given arrays.

    Raises
    ------
    DataError
        Names that have no public one: all of them are listed.
    """
    convs = len({name.split(".")[2] for name in arrays if name.startswith("box_head.convs.")})
    public = dict(PUBLIC)
    if convs:  # torchvision's box head is then a list: the convolutions, a flattening, and layer, ReLU, layer, ReLU
        public |= {f"box_head.fc{6 + k}": f"roi_heads.box_head.{convs + 1 + 2 * k}" for k in range(MAX_DENSE)}
    unknown = [name for name in arrays if name.rpartition(".")[0] not in public]
    if unknown:
        raise DataError(f"{len(unknown)} arrays have no public name:\n  " + "\n  ".join(unknown))
    state = {}
    for name, array in arrays.items():
        module, _, kind = name.rpartition(".")
        if array.ndim == 4:
            array = array.transpose(2, 3, 0, 1) if module == "mask_head.upsample" else array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        state[f"{public[module]}.{kind}"] = array
        norm = config and (config.norm if module.startswith(("backbone.", "res5.")) else config.head_norm)
        if kind == "running_var" and norm == "batch":
            state[public[module] + TRACKED] = np.array(0, np.int64)
    flattened = public["box_head.fc6"] + ".weight"
    if flattened in state:
        channels = crop_channels(state)
        array = state[flattened]
        side = round((array.shape[1] // channels) ** 0.5)
        array = array.reshape(len(array), side, side, channels).transpose(0, 3, 1, 2)  # (out, C, S, S)
        state[flattened] = array.reshape(len(array), -1)  # (out, C * S * S)
    return state


def modern_names(state) -> dict[str, str]:
    """Today's public name of every name in a state, a classifier's as a body's, but of those that no model of ours has.

    Left out are how often batch norms were updated, and the last layers of a classifier.
    """
    whole = is_detector(state)
    modern = {}
    for name in state:
        new = name.removeprefix("module.")
        if new.endswith(TRACKED) or (not whole and new.startswith(("fc.", "classifier."))):
            continue
        for pattern, replacement in OLD:
            new = re.sub(pattern, replacement, new)
        modern[name] = new if whole else "backbone.body." + new.removeprefix("features.")
    meant = {new: name for name, new in modern.items()}
    twice = [f"{name} and {meant[new]}" for name, new in modern.items() if meant[new] != name]
    if twice:
        raise DataError(f"some names mean the same array, wanted one of each: {'; '.join(twice)}")
    return modern


def modernize(state) -> dict[str, np.ndarray]:
    """A state under the names of `modern_names`."""
    return {new: state[name] for name, new in modern_names(state).items()}


def is_detector(state) -> bool:
    """Whether this is more than a classifier."""
    return any(name.removeprefix("module.").startswith(("rpn.", "roi_heads.", "backbone.")) for name in state)


def is_c4(modern) -> bool:
    """Whether the RPN looks at the same maps as the last stage, which is then a part of the heads."""
    seen, next_stage = "rpn.head.conv.0.0.weight", "backbone.body.layer4.0.conv1.weight"
    if any(name.startswith("backbone.fpn.") for name in modern) or not {seen, next_stage} <= set(modern):
        return False
    return shape_of(modern, seen, 4)[1] == shape_of(modern, next_stage, 4)[1]


def list_dense(modern) -> list[str]:
    """The fully connected layers, in order, of a box head that is a list: ``roi_heads.box_head.5`` and so on."""
    modules = {name.rpartition(".")[0] for name in modern if re.fullmatch(DENSE, name)}
    return sorted(modules, key=lambda module: int(module.rpartition(".")[2]))


def crop_channels(modern) -> int:
    """The channels of a crop when it is flattened: what the last layer before that puts out."""
    convs = [name for name in modern if re.fullmatch(r"roi_heads\.box_head\.\d+\.0\.weight", name)]
    if convs:
        return shape_of(modern, convs[-1], 4)[0]
    if is_c4(modern):
        return shape_of(modern, "backbone.body.layer4.0.downsample.0.weight", 4)[0]
    return shape_of(modern, "rpn.head.conv.0.0.weight", 4)[1]


def shape_of(modern, name: str, axes: int) -> tuple[int, ...]:
    """The shape of an array that has to be there."""
    if name not in modern:
        raise DataError(f"{name} is missing; wanted the whole state_dict() of a detector")
    if modern[name].ndim != axes or modern[name].size == 0:
        raise DataError(f"{name} has shape {modern[name].shape}, wanted {axes} axes, none of them empty")
    return modern[name].shape


def unflatten(array: np.ndarray, channels: int) -> np.ndarray:
    """(out, C * S * S) -> (out, C, S, S)."""
    side = round((array.shape[1] // max(channels, 1)) ** 0.5)
    if channels * side * side != array.shape[1]:
        raise DataError(
            f"the box head's first fully connected layer has shape {array.shape}, wanted as many inputs as a square "
            f"crop of {channels} channels has"
        )
    return array.reshape(len(array), channels, side, side)
