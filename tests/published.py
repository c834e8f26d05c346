"""The reference model's weights in our layout, each made from its public name alone (tests/reference/README.md)."""

from __future__ import annotations

import json
import re
import zlib

import numpy as np

from tests.reference_cases import FOLDER


def block(match) -> str:
    return f"backbone.stages.{int(match[1]) - 1}.layers.{match[2]}."


RENAMED = (  # public name -> ours, tried from the top
    (r"backbone\.body\.conv1\.", "backbone.stem.conv."),
    (r"backbone\.body\.bn1\.", "backbone.stem.norm."),
    (r"backbone\.body\.layer(\d)\.(\d+)\.conv(\d)\.", lambda m: block(m) + f"conv{m[3]}.conv."),
    (r"backbone\.body\.layer(\d)\.(\d+)\.bn(\d)\.", lambda m: block(m) + f"conv{m[3]}.norm."),
    (r"backbone\.body\.layer(\d)\.(\d+)\.downsample\.0\.", lambda m: block(m) + "shortcut.conv."),
    (r"backbone\.body\.layer(\d)\.(\d+)\.downsample\.1\.", lambda m: block(m) + "shortcut.norm."),
    (r"backbone\.fpn\.inner_blocks\.", "pyramid.lateral."),
    (r"backbone\.fpn\.layer_blocks\.", "pyramid.output."),
    (r"rpn\.head\.cls_logits\.", "rpn.logits."),
    (r"rpn\.head\.bbox_pred\.", "rpn.deltas."),
    (r"rpn\.head\.conv\.", "rpn.convs.0."),
    (r"roi_heads\.box_predictor\.cls_score\.", "box_head.class_logits."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "box_head.box_deltas."),
    (r"roi_heads\.box_head\.", "box_head."),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.", lambda m: f"mask_head.convs.{int(m[1]) - 1}."),
    (r"roi_heads\.mask_predictor\.conv5_mask\.", "mask_head.upsample."),
    (r"roi_heads\.mask_predictor\.mask_fcn_logits\.", "mask_head.logits."),
)  # fmt: skip


def our_name(public: str) -> str:
    for pattern, replacement in RENAMED:
        name, found = re.subn("^" + pattern, replacement, public)
        if found:
            return name
    raise KeyError(public)


def our_layout(public: str, array: np.ndarray) -> np.ndarray:
    """torch's (out, in, height, width) to (height, width, in, out); (out, in) to (in, out)."""
    if "conv5_mask" in public and array.ndim == 4:  # a transposed convolution: (in, out, height, width)
        return array.transpose(2, 3, 0, 1)
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if "fc6" in public and array.ndim == 2:  # its input is a crop, channels first there and last here
        return array.reshape(len(array), -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, len(array))
    return array.T if array.ndim == 2 else array


def make_weight(public: str, shape) -> np.ndarray:
    z = np.random.Generator(np.random.PCG64(zlib.crc32(public.encode()))).standard_normal(shape).astype("float32")
    if public.endswith("running_var"):
        return 1 + 0.1 * abs(z)
    if public.endswith("running_mean"):
        return 0.1 * z
    if len(shape) == 1 and public.endswith("weight"):
        return (0.25 if ".bn3." in public else 1) * (1 + 0.1 * z)
    if len(shape) == 1:
        return 0.05 * z
    small = any(name in public for name in ("cls_logits", "bbox_pred", "cls_score", "mask_fcn_logits"))
    return (0.3 if small else np.sqrt(2)) / np.sqrt(np.prod(shape[1:])) * z


def published_arrays() -> dict[str, np.ndarray]:
    """Every array of ``maskrcnn_resnet50_fpn`` under our name and in our layout."""
    shapes = json.loads((FOLDER / "model_names.json").read_text())
    return {our_name(name): our_layout(name, make_weight(name, shape)) for name, shape in shapes.items()}
