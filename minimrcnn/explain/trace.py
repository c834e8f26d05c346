"""Run the model on one photo and keep every value it computed on the way.

1. `predict` runs under `trace`, which collects the arrays that the stages hand over.
2. What `predict` chooses between those arrays, it forgets: which anchors became candidates, and which of them NMS
   dropped. The model's own methods are asked again, with the arrays of step 1, so the answers are the same bits.
3. For every box that NMS dropped, the box that it lost to is found.

Boxes are in pixels of the resized photo, as the network saw it; only `Trace.detections` is in the photo's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimrcnn import geometry
from minimrcnn.config import Config
from minimrcnn.data.pictures import as_picture
from minimrcnn.functional.math import sigmoid_array, softmax_array
from minimrcnn.models.mask_rcnn import MaskRCNN, trace
from minimrcnn.models.prepare import prepare
from minimrcnn.structures import Detections
from minimrcnn.tensor import Tensor


@dataclass(frozen=True, eq=False)
class Suppression:
    """What one non-maximum suppression was given, and what it made of it.

    Attributes
    ----------
    boxes : ndarray (P, 4) float32
    scores : ndarray (P,) float32
        Logits of the RPN, probabilities of the box head.
    groups : ndarray (P,) int64
        Boxes of different groups never meet: levels (0 is the finest) for the RPN, labels for the box head.
    rows : ndarray (P,) int64
        Where each came from: the anchor's row on its level, or the proposal's.
    kept : ndarray (Q,) int64
        Rows of ``boxes``, best first; all that NMS left, even beyond what the model goes on with.
    winners : ndarray (P,) int64
        For a dropped box the best kept one of its group that overlaps it too much; -1 for those kept.
    overlaps : ndarray (P,) float32
        The IoU with that box; 0 for those kept.
    """

    boxes: np.ndarray
    scores: np.ndarray
    groups: np.ndarray
    rows: np.ndarray
    kept: np.ndarray
    winners: np.ndarray
    overlaps: np.ndarray


@dataclass(frozen=True, eq=False)
class Trace:
    """One photo's way through the network. L levels, K classes, R proposals, D detections, M mask side.

    Attributes
    ----------
    config : Config
    picture : ndarray (H, W, 3) uint8 or float32
    pixels : ndarray (h, w, 3) float32
        Resized, normalized and padded: what the backbone saw.
    image_size : (int, int)
        Height and width of the resized photo within the pixels.
    maps : dict of str to ndarray (H_l, W_l, C)
        c2 to c5, or to c4.
    levels : dict of str to ndarray (H_l, W_l, C)
        What the RPN looked at: p2 to p6, or c4 or c5 alone; the heads look at the first four.
    strides : tuple of L int
        Pixels per cell of the levels.
    anchors : list of L ndarray (H_l * W_l * A, 4)
    logits, deltas : lists of L ndarray (H_l * W_l * A,) and (H_l * W_l * A, 4)
        The RPN's answer for each anchor.
    rpn : Suppression
        From moved anchors to proposals.
    proposals : ndarray (R, 4)
        The first R of ``rpn.kept``.
    class_logits, class_scores, box_deltas : ndarray (R, K), (R, K), (R, K, 4)
    box_crops : ndarray (R, S, S, C)
    head : Suppression
        From proposals that score high in a class to detections.
    rows : ndarray (D,) int64
        The proposal that each detection was.
    boxes : ndarray (D, 4)
        The detections', in the resized photo.
    mask_crops : ndarray (D, S, S, C), or None without a mask head
    class_masks : ndarray (D, M, M, K) float32, or (D, M, M, 1) if one mask serves all classes, or None
        Probabilities.
    masks : ndarray (D, M, M) float32 or None
        The one of the K that was chosen.
    detections : Detections
        What `predict` returned, in the photo's own pixels.
    score_thresh : float
    """

    config: Config
    picture: np.ndarray
    pixels: np.ndarray
    image_size: tuple[int, int]
    maps: dict[str, np.ndarray]
    levels: dict[str, np.ndarray]
    strides: tuple[int, ...]
    anchors: list[np.ndarray]
    logits: list[np.ndarray]
    deltas: list[np.ndarray]
    rpn: Suppression
    proposals: np.ndarray
    class_logits: np.ndarray
    class_scores: np.ndarray
    box_deltas: np.ndarray
    box_crops: np.ndarray
    head: Suppression
    rows: np.ndarray
    boxes: np.ndarray
    mask_crops: np.ndarray | None
    class_masks: np.ndarray | None
    masks: np.ndarray | None
    detections: Detections
    score_thresh: float


def trace_picture(model: MaskRCNN, picture, score_thresh: float | None = None) -> Trace:
    """Predict one photo, and keep everything.

    Parameters
    ----------
    model : MaskRCNN
    picture : (H, W, 3) uint8 or float 0..1 array, path or PIL image
    score_thresh : float, optional
        As of `MaskRCNN.predict`.

    Raises
    ------
    DataError
        The picture cannot be read.
    """
    config, picture = model.config, as_picture(picture)
    threshold = config.box_score_thresh if score_thresh is None else score_thresh
    with trace() as stages:
        (detections,) = model.predict([picture], score_thresh=threshold)
    (pixels,), (image_size,), _ = prepare([picture], config)

    logits, deltas = ([stages[f"rpn_{kind}_{name}"] for name in model.levels] for kind in ("logits", "deltas"))
    anchors = model.rpn.anchors(logits, pixels.shape[:2])
    logits = [level.reshape(-1) for level in logits]  # (H_l * W_l * A,)
    deltas = [level.reshape(-1, 4) for level in deltas]  # (H_l * W_l * A, 4)
    found = model.rpn.find_candidates(logits, deltas, anchors, image_size, config.rpn_pre_nms_top_n_test)
    rpn = suppress(*found, config.rpn_nms_thresh)
    proposals = stages["proposals"][0]

    scores = softmax_array(stages["class_logits"])  # (R, K)
    found = model.box_head.find_candidates(scores, stages["box_deltas"], proposals, image_size, threshold)
    head = suppress(*found, config.box_nms_thresh)
    best = head.kept[: config.box_detections_per_img]  # (D,)

    class_masks = masks = None
    if model.mask_head:
        mask_logits = stages["mask_logits"]  # (D, M, M, K)
        class_masks = softmax_array(mask_logits) if config.mask_loss == "softmax" else sigmoid_array(mask_logits)
        masks = model.mask_head.choose(Tensor(mask_logits), head.groups[best])
    return Trace(
        config=config,
        picture=picture,
        pixels=pixels,
        image_size=image_size,
        maps={name: stages[name][0] for name in ("c2", "c3", "c4", "c5") if name in stages},
        levels={name: stages[name][0] for name in model.levels},
        strides=tuple(model.strides),
        anchors=anchors,
        logits=logits,
        deltas=deltas,
        rpn=rpn,
        proposals=proposals,
        class_logits=stages["class_logits"],
        class_scores=scores,
        box_deltas=stages["box_deltas"],
        box_crops=stages["box_crops"],
        head=head,
        rows=head.rows[best],
        boxes=head.boxes[best],
        mask_crops=stages.get("mask_crops"),
        class_masks=class_masks,
        masks=masks,
        detections=detections,
        score_thresh=threshold,
    )


def suppress(boxes, scores, groups, rows, iou_threshold: float) -> Suppression:
    """NMS within each group, and for every box that it drops, the one that it lost to."""
    kept = geometry.batched_nms(boxes, scores, groups, iou_threshold)
    winners, overlaps = np.full(len(boxes), -1, np.int64), np.zeros(len(boxes), np.float32)
    dropped = np.ones(len(boxes), bool)
    dropped[kept] = False
    for group in np.unique(groups[dropped]):
        best, others = kept[groups[kept] == group], np.flatnonzero(dropped & (groups == group))
        iou = geometry.box_iou(boxes[best], boxes[others])  # (W, O)
        # float64: the threshold is compared as it was given, as NMS does.
        first = (iou > np.float64(iou_threshold)).argmax(axis=0)  # (O,) the winners are in order, best first
        winners[others], overlaps[others] = best[first], iou[first, np.arange(len(others))]
    return Suppression(boxes, scores, groups, rows, kept, winners, overlaps)
