"""One detection, followed from its anchor to its mask."""

from __future__ import annotations

import numpy as np

from minimrcnn import geometry
from minimrcnn.explain.cuts import Cut, WholeCells, follow_bin, lay_cut
from minimrcnn.explain.numbers import box_list, number, numbers, whole
from minimrcnn.explain.pictures import LONGEST, SOFTEST, heat_uri, mask_uri, scaled
from minimrcnn.explain.trace import Suppression, Trace
from minimrcnn.functional.math import sigmoid_array

MOST_CLASSES = 10  # bars, and masks, of a detection
MOST_LOSERS = 12  # boxes listed that NMS dropped for it
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4  # of the formula that chooses a level


def follow(trace: Trace, d: int, color: list[int]) -> dict:
    """Detection ``d`` of a trace, section by section of the page."""
    row = int(trace.rows[d])
    label, score = int(trace.detections.labels[d]), trace.detections.scores[d]
    masks = {} if trace.masks is None else {"masks": tell_masks(trace, d), "paste": tell_paste(trace, d, color)}
    cuts = [tell_cut(trace, "box", trace.proposals[row], trace.box_crops[row], trace.config.box_pool_size)]
    if trace.masks is not None:
        cuts.append(tell_cut(trace, "mask", trace.boxes[d], trace.mask_crops[d], trace.config.mask_pool_size))
    return {
        "name": name_of(trace, label),
        "label": label,
        "score": number(score, 3),
        "color": "#" + bytes(color).hex(),
        "box": box_list(trace.boxes[d]),
        "photo_box": box_list(trace.detections.boxes[d]),
        "pixel": tell_pixel(trace, d),
        "anchor": tell_anchor(trace, row),
        "proposal": tell_proposal(trace, row),
        "levels": [tell_level(trace, "proposal", trace.proposals[row])]
        + ([tell_level(trace, "detection", trace.boxes[d])] if trace.masks is not None else []),
        "cuts": cuts,
        "classes": tell_classes(trace, row, label),
        "move": tell_move(trace.proposals[row], trace.box_deltas[row, label], trace.config.bbox_reg_weights,
                          trace.image_size),
        "losers": tell_losers(trace.head, trace.head.kept[d], trace.head.scores),
        **masks,
    }  # fmt: skip


def name_of(trace: Trace, label: int) -> str:
    """The class in words."""
    names = trace.config.class_names
    return names[label] if names else "background" if label == 0 else f"class {label}"


def tell_pixel(trace: Trace, d: int) -> dict:
    """The pixel in the middle of the detection, as the photo and as the network has it."""
    x1, y1, x2, y2 = trace.boxes[d]
    height, width = trace.image_size
    y, x = min(int((y1 + y2) / 2), height - 1), min(int((x1 + x2) / 2), width - 1)
    normalized = trace.pixels[y, x]
    values = normalized * np.float32(trace.config.image_std) + np.float32(trace.config.image_mean)
    return {"x": x, "y": y, "values": numbers(values * 255, 1), "normalized": numbers(normalized, 3)}


def tell_anchor(trace: Trace, row: int) -> dict:
    """The anchor that became proposal ``row``, and the others of its cell."""
    candidate = trace.rpn.kept[row]
    level, anchor = int(trace.rpn.groups[candidate]), int(trace.rpn.rows[candidate])
    config, (name, features) = trace.config, list(trace.levels.items())[level]
    shapes = len(trace.anchors[level]) // (features.shape[0] * features.shape[1])
    cell, shape = divmod(anchor, shapes)
    first = cell * shapes
    if len(trace.levels) > 1:
        side, ratio = config.anchor_sizes[level], config.aspect_ratios[shape]
    else:  # by ratio, then size
        side = config.anchor_sizes[shape % len(config.anchor_sizes)]
        ratio = config.aspect_ratios[shape // len(config.anchor_sizes)]
    chances = sigmoid_array(trace.logits[level][first : first + shapes])
    logit = trace.logits[level][anchor]
    better = sum(int((logits > logit).sum()) for logits in trace.logits)
    return {
        "level": level,
        "name": name.upper(),
        "step": anchor_step(trace, level),
        "row": cell // features.shape[1],
        "column": cell % features.shape[1],
        "side": number(side, 1),
        "ratio": number(ratio, 3),
        "box": box_list(trace.anchors[level][anchor]),
        "logit": number(logit, 3),
        "score": number(chances[shape], 4),
        "rank": better + 1,
        "cell": [
            {"box": box_list(trace.anchors[level][first + k]), "score": number(chances[k], 3), "own": k == shape}
            for k in range(shapes)
        ],
        "move": tell_move(trace.anchors[level][anchor], trace.deltas[level][anchor], (1, 1, 1, 1), trace.image_size),
    }


def anchor_step(trace: Trace, level: int) -> list[int]:
    """Pixels from the anchors of a cell to those of the next, along y and x; see `geometry.make_anchors`.

    Where P5 has an odd number of cells, P6 reaches out of the padded photo, and its step is less than its stride.
    """
    cells = list(trace.levels.values())[level].shape[:2]
    return [pixels // max(count, 1) for pixels, count in zip(trace.pixels.shape[:2], cells, strict=True)]


def tell_proposal(trace: Trace, row: int) -> dict:
    """A proposal, and the candidates that NMS dropped for it."""
    return {
        "rank": row + 1,
        "box": box_list(trace.proposals[row]),
        **tell_losers(trace.rpn, trace.rpn.kept[row], sigmoid_array(trace.rpn.scores)),
    }


def tell_losers(nms: Suppression, winner: int, scores: np.ndarray) -> dict:
    """Who was dropped for whom: how many, and the best of them."""
    losers = np.flatnonzero(nms.winners == winner)
    losers = losers[np.argsort(-scores[losers], kind="stable")]
    return {
        "dropped": len(losers),
        "losers": [
            {"box": box_list(nms.boxes[i]), "score": number(scores[i], 3), "iou": number(nms.overlaps[i], 3)}
            for i in losers[:MOST_LOSERS]
        ],
    }


def tell_move(start: np.ndarray, deltas: np.ndarray, weights, size: tuple[int, int]) -> dict:
    """From a box to another by four deltas, step by step."""
    moved = geometry.decode_boxes(deltas[None], start[None], weights)[0]
    clipped = geometry.clip_boxes(moved[None], size)[0]
    span, after = start[2:] - start[:2], moved[2:] - moved[:2]  # (2,) width, height
    center, arrived = start[:2] + span / 2, moved[:2] + after / 2
    steps = [(center[0], span[0], arrived[0]), (center[1], span[1], arrived[1])]
    steps += [(span[0], span[0], after[0]), (span[1], span[1], after[1])]
    return {
        "start": box_list(start),
        "moved": box_list(moved),
        "end": box_list(clipped),
        "clipped": bool((moved != clipped).any()),
        "steps": [
            {
                "name": name,
                "raw": number(raw, 4),
                "weight": number(weight, 2),
                "delta": number(raw / weight, 4),
                "before": number(before, 2),
                "span": number(side, 2),
                "after": number(end, 2),
            }
            for name, raw, weight, (before, side, end) in zip(
                ("dx", "dy", "dw", "dh"), deltas, weights, steps, strict=True
            )
        ],
    }


def level_of(trace: Trace, box: np.ndarray) -> int:
    """The number of the level, 0 the finest, that a RoI (4,) is cut from."""
    return 0 if len(trace.levels) == 1 else int(geometry.assign_levels(box[None])[0]) - 2


def tell_level(trace: Trace, what: str, box: np.ndarray) -> dict:
    """The formula for the level of a RoI, with its numbers."""
    width, height = box[2] - box[0], box[3] - box[1]
    side = float(np.sqrt(width * height))
    exact = CANONICAL_LEVEL + float(np.log2(side / CANONICAL_SIZE)) if side > 0 else -np.inf
    return {
        "what": what,
        "width": number(width, 2),
        "height": number(height, 2),
        "side": number(side, 2),
        "exact": number(exact, 4),
        "name": list(trace.levels)[level_of(trace, box)].upper(),
    }


def tell_cut(trace: Trace, head: str, box: np.ndarray, crop: np.ndarray, size: int) -> dict:
    """How a RoI was cut out for a head: RoIAlign's grid, RoI pooling's cells, and one bin to the last number."""
    level = level_of(trace, box)
    name, features = list(trace.levels.items())[level]
    cut = lay_cut(box, features.shape[:2], size, trace.strides[level], trace.config)
    followed = follow_bin(cut, features, crop, trace.config)
    mean = np.abs(crop).mean(axis=2)  # (S, S)
    return {
        "head": head,
        "level": name.upper(),
        "stride": cut.stride,
        "map": whole(features.shape),
        "roi": box_list(box),
        "size": size,
        "cells": numbers([(box[2] - box[0]) / cut.stride, (box[3] - box[1]) / cut.stride], 3),
        "ys": [[number(cut.to_pixels(y), 2) for y in some] for some in cut.rows],
        "xs": [[number(cut.to_pixels(x), 2) for x in some] for some in cut.columns],
        "edges": [[number(cut.to_pixels(edge), 2) for edge in side] for side in cut.edges],
        "shift": cut.shift,
        "pooled": {rule: [tell_cells(side, cut) for side in sides] for rule, sides in cut.pooled.items()},
        "crop": heat_uri(mean, float(mean.min()), float(mean.max())),
        "bin": {
            "row": followed.row,
            "column": followed.column,
            "channel": followed.channel,
            "value": number(followed.value, 4),
            "cells": followed.cells,
            "samples": [
                {
                    "y": number(sample.y, 3),
                    "x": number(sample.x, 3),
                    "value": number(sample.value, 4),
                    "corners": [[i, j, number(weight, 3), number(value, 3)] for i, j, weight, value in sample.corners],
                }
                for sample in followed.samples
            ],
        },
    }


def tell_cells(side: WholeCells, cut: Cut) -> dict:
    """One side of a RoI in whole cells, in numbers; the page multiplies by the stride to draw it."""
    return {"first": side.first, "size": side.size, "bin": number(side.size / cut.size, 3), "bins": side.bins}


def tell_classes(trace: Trace, row: int, label: int) -> dict:
    """The class scores of a proposal, highest first; the background and the detection's class are always among them."""
    scores, logits = trace.class_scores[row], trace.class_logits[row]
    order = list(np.argsort(-scores, kind="stable"))
    shown = sorted({*order[:MOST_CLASSES], 0, label}, key=order.index)
    rest = 1 - float(scores[shown].sum())
    return {
        "rows": [
            {
                "name": name_of(trace, int(k)),
                "score": number(scores[k], 4),
                "logit": number(logits[k], 3),
                "own": bool(k == label),
            }
            for k in shown
        ],
        "others": len(scores) - len(shown),
        "rest": number(max(rest, 0.0), 4),
    }


def tell_masks(trace: Trace, d: int) -> list[dict]:
    """The masks of a detection, one for each class: its own, and those of the classes that scored next."""
    label, row = int(trace.detections.labels[d]), int(trace.rows[d])
    own = trace.class_masks[d]  # (M, M, K), or (M, M, 1)
    if own.shape[2] == 1:
        picture = heat_uri(own[:, :, 0], 0.0, 1.0)
        return [{"name": "all classes", "label": None, "score": None, "picture": picture, "own": True}]
    scores = trace.class_scores[row]
    order = [int(k) for k in np.argsort(-scores, kind="stable") if k > 0 or trace.config.mask_loss == "softmax"]
    shown = sorted({*order[:MOST_CLASSES], label}, key=lambda k: (k != label, order.index(k)))
    return [
        {
            "name": name_of(trace, k),
            "label": k,
            "score": number(scores[k], 3),
            "picture": heat_uri(own[:, :, k], 0.0, 1.0),
            "own": k == label,
        }
        for k in shown
    ]


def tell_paste(trace: Trace, d: int, color: list[int]) -> dict:
    """The chosen mask on its way into the photo: as it is, stretched over its box, and cut at a half."""
    mask, found = trace.masks[d], trace.detections
    side, box = len(mask), found.boxes[d].astype(np.float64)
    height, width = trace.picture.shape[:2]
    margin = (box[2:] - box[:2]) / side  # the mask has a border of zeros, one cell wide
    left, top = np.maximum(np.floor(box[:2] - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(box[2:] + margin), (width, height)).astype(int)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    scale = min(SOFTEST / max(bottom - top, right - left), 1.0)
    size = scaled((bottom - top, right - left), scale)
    there = (box - [left, top, left, top]) * np.tile([size[1] / (right - left), size[0] / (bottom - top)], 2)
    soft = geometry.paste_masks(mask[None], np.float32(there)[None], size)[0]  # (h, w)
    hard = found.masks[d][top:bottom, left:right]
    shown = scaled(hard.shape, min(LONGEST / max(height, width), 1.0))
    rows, columns = (np.arange(new) * old // new for new, old in zip(shown, hard.shape, strict=True))
    ratio = np.tile([trace.image_size[1] / width, trace.image_size[0] / height], 2)
    return {
        "side": side,
        "mask": heat_uri(mask, 0.0, 1.0),
        "soft": heat_uri(soft, 0.0, 1.0),
        "hard": mask_uri(hard[rows][:, columns], color, max(1, round(max(shown) / 150))),
        "area": box_list(np.array([left, top, right, bottom]) * ratio),
        "region": [int(left), int(top), int(right), int(bottom)],
        "pixels": int(found.masks[d].sum()),
        "share": number(found.masks[d].sum() / max((box[2] - box[0]) * (box[3] - box[1]), 1), 3),
        "highest": number(mask.max(), 3),
    }
