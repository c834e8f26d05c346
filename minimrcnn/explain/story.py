"""From a trace to what the page shows: numbers as JSON can hold them, and small pictures.

`tell` makes a dictionary of what concerns the whole photo, section by section of the page, and a list of what concerns
each detection (`followed`, in follow.py). Boxes are x1, y1, x2, y2 in pixels of the resized photo.
"""

from __future__ import annotations

import numpy as np

from minimrcnn import geometry
from minimrcnn.explain.follow import anchor_step, follow
from minimrcnn.explain.numbers import box_list, number, whole
from minimrcnn.explain.pictures import block_side, heat_uri, photo_uri
from minimrcnn.explain.trace import Trace
from minimrcnn.functional.math import sigmoid_array
from minimrcnn.show import PALETTE

MOST_FOLLOWED = 60  # detections, the best ones: what can be followed by hand, in a file of a few megabytes
CHANNELS = 4  # shown of each map, besides the mean over all
FIRED = 40  # anchors drawn
STEPS = 120  # candidates that NMS can be watched with
SHOWN_PROPOSALS = 50


def tell(trace: Trace, name: str) -> dict:
    """Everything that the page says about a photo.

    Parameters
    ----------
    trace : Trace
    name : str
        Of the photo, for people.

    Returns
    -------
    dict
        As JSON has it; ``photo`` is a data URI.
    """
    photo, scale = photo_uri(trace.picture)
    config = trace.config
    found = len(trace.detections)
    return {
        "name": name,
        "photo": photo,
        "photo_scale": number(scale, 4),
        "model": tell_model(trace),
        "sizes": {
            "photo": whole(trace.picture.shape[:2]),
            "resized": whole(trace.image_size),
            "padded": whole(trace.pixels.shape[:2]),
        },
        "mean": [number(value, 3) for value in config.image_mean],
        "deviation": [number(value, 3) for value in config.image_std],
        "input": [heat_uri(trace.pixels[:, :, c], *limits(trace.pixels[:, :, c])) for c in range(3)],
        "maps": [
            tell_map(name, features, trace.pixels.shape[0] // max(len(features), 1))
            for name, features in trace.maps.items()
        ],
        "levels": [
            tell_map(name, features, stride)
            for (name, features), stride in zip(trace.levels.items(), trace.strides, strict=True)
        ],
        "objectness": [tell_objectness(trace, level) for level in range(len(trace.levels))],
        "fired": tell_fired(trace),
        "nms": tell_nms(trace),
        "heads": tell_heads(trace),
        "found": found,
        "best": tell_best(trace) if not found else None,
        "score_thresh": number(trace.score_thresh, 3),
        "followed": [follow(trace, d, color_of(trace, d)) for d in range(min(found, MOST_FOLLOWED))],
    }


def tell_model(trace: Trace) -> dict:
    """What kind of network it is: the page leaves out what it does not have."""
    config = trace.config
    return {
        "backbone": config.backbone,
        "pyramid": config.pyramid,
        "p6": config.p6,
        "classes": config.num_classes,
        "anchor_sizes": [number(side, 1) for side in config.anchor_sizes],
        "ratios": [number(ratio, 3) for ratio in config.aspect_ratios],
        "operation": config.roi_operation,
        "mode": config.roi_mode,
        "aligned": config.roi_aligned,
        "sampling_ratio": config.roi_sampling_ratio,
        "mask_head": config.mask_head,
        "mask_loss": config.mask_loss,
        "min_size": config.min_size,
        "max_size": config.max_size,
        "divisible": config.size_divisible,
        "rpn_nms": number(config.rpn_nms_thresh, 3),
        "pre_nms": config.rpn_pre_nms_top_n_test,
        "post_nms": config.rpn_post_nms_top_n_test,
        "box_nms": number(config.box_nms_thresh, 3),
        "most_detections": config.box_detections_per_img,
    }


def limits(values: np.ndarray) -> tuple[float, float]:
    """What is drawn dark and what bright: the lowest and highest hundredth share the end colors."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 0.0)
    return float(low), float(high)


def tell_map(name: str, features: np.ndarray, stride: int) -> dict:
    """One feature map (H, W, C): the mean absolute value of its channels, and those that vary most."""
    mean = np.abs(features).mean(axis=2)  # (H, W)
    spread = np.nan_to_num(features.std(axis=(0, 1)), nan=-1.0, posinf=-1.0)  # (C,)
    strongest = np.argsort(-spread, kind="stable")[:CHANNELS]
    low, high = limits(mean)
    channels = [
        {"number": int(c), "picture": heat_uri(features[:, :, c], *limits(features[:, :, c]), most=128)}
        for c in strongest
    ]
    return {
        "name": name.upper(),
        "size": whole(features.shape[:2]),
        "channels": features.shape[2],
        "stride": stride,
        "block": block_side(features.shape[:2]),
        "low": number(low, 3),
        "high": number(high, 3),
        "picture": heat_uri(mean, low, high),
        "strongest": channels,
    }


def tell_objectness(trace: Trace, level: int) -> dict:
    """One level's answer to "is it an object?": in each cell, the best of its anchors."""
    name, features = list(trace.levels.items())[level]
    chances = sigmoid_array(trace.logits[level])  # (H_l * W_l * A,)
    best = chances.reshape(*features.shape[:2], -1).max(axis=2)  # (H_l, W_l)
    sizes = trace.config.anchor_sizes
    return {
        "name": name.upper(),
        "picture": heat_uri(best, 0.0, 1.0, over=True),
        "step": anchor_step(trace, level),
        "anchors": len(chances),
        "sides": [number(side, 1) for side in ([sizes[level]] if len(trace.levels) > 1 else sizes)],
        "highest": number(best.max(), 3),
        "above_half": int((chances > 0.5).sum()),
    }


def tell_fired(trace: Trace) -> dict:
    """The anchors with the highest objectness, of all levels together."""
    scores = np.concatenate(trace.logits)
    levels = np.repeat(np.arange(len(trace.logits)), [len(level) for level in trace.logits])
    boxes = np.concatenate(trace.anchors)
    order = np.argsort(-scores, kind="stable")[:FIRED]  # what is no number comes last
    chances = sigmoid_array(scores[order])
    return {
        "total": len(scores),
        "above_half": int((scores > 0).sum()),
        "anchors": [
            {"box": box_list(boxes[i]), "level": int(levels[i]), "score": number(chance, 3)}
            for i, chance in zip(order, chances, strict=True)
        ],
    }


def tell_nms(trace: Trace) -> dict:
    """The best candidates and what becomes of each; and the proposals that are left."""
    rpn, kept = trace.rpn, len(trace.proposals)
    order = np.argsort(-rpn.scores, kind="stable")
    rank_of = np.empty(len(order), np.int64)
    rank_of[order] = np.arange(len(order))
    chances = sigmoid_array(rpn.scores)
    steps = [
        {
            "box": box_list(rpn.boxes[i]),
            "level": int(rpn.groups[i]),
            "score": number(chances[i], 3),
            "winner": int(rank_of[rpn.winners[i]]) if rpn.winners[i] >= 0 else None,
            "iou": number(rpn.overlaps[i], 3),
        }
        for i in order[:STEPS]
    ]
    proposals = rpn.kept[:kept]
    return {
        "candidates": len(rpn.boxes),
        "kept": len(rpn.kept),
        "proposals": kept,
        "steps": steps,
        "best": [
            {"box": box_list(rpn.boxes[i]), "level": int(rpn.groups[i]), "score": number(chances[i], 3)}
            for i in proposals[:SHOWN_PROPOSALS]
        ],
    }


def tell_heads(trace: Trace) -> dict:
    """How many RoIs were cut from each level, and how many detections they made."""
    names = list(trace.levels)[:4]
    levels = geometry.assign_levels(trace.proposals) if len(names) > 1 else np.zeros(len(trace.proposals), int)
    cut = [int((levels == (number + 2 if len(names) > 1 else 0)).sum()) for number in range(len(names))]
    return {
        "levels": [name.upper() for name in names],
        "cut": cut,
        "candidates": len(trace.head.boxes),
        "kept": len(trace.head.kept),
    }


def tell_best(trace: Trace) -> dict | None:
    """Where nothing was found: the highest score of any class, background aside."""
    scores = trace.class_scores[:, 1:]
    if scores.size == 0 or not np.isfinite(scores).any():
        return None
    row, column = np.unravel_index(np.nanargmax(scores), scores.shape)
    names = trace.config.class_names
    return {
        "name": names[column + 1] if names else f"class {column + 1}",
        "score": number(scores[row, column], 3),
        "box": box_list(trace.proposals[row]),
    }


def color_of(trace: Trace, d: int) -> list[int]:
    """A class has one color while there are enough of them; otherwise a detection has. As in `show.draw_objects`."""
    by_class = 2 < len(trace.config.class_names) <= len(PALETTE) + 1
    place = int(trace.detections.labels[d]) - 1 if by_class else d
    return whole(PALETTE[place % len(PALETTE)])
