"""Arithmetic on boxes: overlap, the code the network learns them in, clipping, and non-maximum suppression."""

from __future__ import annotations

import math

import numpy as np

from minimrcnn.device import beside, device_of, module_of, to_device
from minimrcnn.kernels import nms as nms_kernels
from minimrcnn.kernels.box_iou import box_iou as box_iou_twin

# exp() of more than this would make a box of 16 pixels wider than 1000: an untrained network must not overflow.
LARGEST_LOG_SCALE = math.log(1000 / 16)


def check_boxes(function: str, name: str, boxes) -> np.ndarray:
    """`boxes` as a C-contiguous array (P, 4), float32 unless it is float64 already."""
    xp = module_of(boxes)
    boxes = xp.asarray(boxes)
    dtype = np.float64 if boxes.dtype == np.float64 else np.float32
    if boxes.size == 0 and boxes.ndim == 1:  # np.array([]) is no boxes
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{function}: {name} has shape {boxes.shape}, wanted (P, 4)")
    return xp.ascontiguousarray(boxes, dtype)


def box_area(boxes) -> np.ndarray:
    """Width times height of every box: (P, 4) -> (P,), square pixels."""
    boxes = check_boxes("box_area", "boxes", boxes)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])  # (P,)


def box_iou(a, b) -> np.ndarray:
    """Intersection over union of every pair.

    Parameters
    ----------
    a : array (P, 4)
    b : array (Q, 4)

    Returns
    -------
    ndarray (P, Q) float32
        0 where two boxes have no area at all.

    Raises
    ------
    ValueError
        If the boxes do not have four columns.
    """
    a = check_boxes("box_iou", "a", a).astype(np.float32, copy=False)
    b = check_boxes("box_iou", "b", beside(b, a)).astype(np.float32, copy=False)
    output = module_of(a).empty((len(a), len(b)), np.float32)  # (P, Q)
    box_iou_twin(a, b, output)
    return output


def encode_boxes(boxes, proposals, weights=(1.0, 1.0, 1.0, 1.0)) -> np.ndarray:
    """How to move and stretch each proposal to make it its box (Girshick et al. 2014, appendix C).

    Parameters
    ----------
    boxes, proposals : array (P, 4)
        Row by row: where to get, where from.
    weights : four floats
        Scales of dx, dy, dw, dh, which bring the targets to about unit variance.

    Returns
    -------
    ndarray (P, 4)
        ``dx, dy`` in widths and heights of the proposal, ``dw, dh`` as logarithms of ratios, times `weights`.
    """
    boxes, proposals = check_boxes("encode_boxes", "boxes", boxes), check_boxes("encode_boxes", "proposals", proposals)
    if boxes.shape != proposals.shape:
        raise ValueError(f"encode_boxes: boxes {boxes.shape} and proposals {proposals.shape}, wanted the same shape")
    size, wanted_size = proposals[:, 2:] - proposals[:, :2], boxes[:, 2:] - boxes[:, :2]  # (P, 2) width, height
    center, wanted_center = proposals[:, :2] + size / 2, boxes[:, :2] + wanted_size / 2
    deltas = np.concatenate([(wanted_center - center) / size, np.log(wanted_size / size)], axis=1)  # (P, 4)
    return deltas * np.asarray(weights, deltas.dtype)


def decode_boxes(deltas, proposals, weights=(1.0, 1.0, 1.0, 1.0)) -> np.ndarray:
    """The boxes that `encode_boxes` would have encoded so; growth is limited to a factor of 1000 / 16.

    Parameters
    ----------
    deltas : array (P, 4) or (P, K, 4)
        K boxes for every proposal: one per class.
    proposals : array (P, 4)
    weights : four floats

    Returns
    -------
    ndarray, the shape of `deltas`
    """
    proposals = check_boxes("decode_boxes", "proposals", proposals)
    deltas = np.asarray(deltas)
    deltas = deltas.astype(np.result_type(proposals.dtype, np.float32), copy=False)
    if deltas.shape == (0,):  # np.array([]) is none
        deltas = deltas.reshape(0, 4)
    if deltas.ndim not in (2, 3) or deltas.shape[-1] != 4 or len(deltas) != len(proposals):
        raise ValueError(
            f"decode_boxes: deltas {deltas.shape} for proposals {proposals.shape}, wanted (P, 4) or (P, K, 4)"
        )
    if deltas.ndim == 3:
        proposals = proposals[:, None]  # (P, 1, 4)
    deltas = deltas / np.asarray(weights, deltas.dtype)
    size = proposals[..., 2:] - proposals[..., :2]  # (P, 2) or (P, 1, 2)
    center = proposals[..., :2] + size / 2 + deltas[..., :2] * size  # (P, 2) or (P, K, 2)
    half = np.exp(np.minimum(deltas[..., 2:], deltas.dtype.type(LARGEST_LOG_SCALE))) * size / 2
    return np.concatenate([center - half, center + half], axis=-1)


def clip_boxes(boxes, size: tuple[int, int]) -> np.ndarray:
    """A copy of `boxes` (..., 4) with every corner moved into the picture of `size` (height, width)."""
    boxes = np.asarray(boxes)
    boxes = boxes.astype(np.float64 if boxes.dtype == np.float64 else np.float32)
    if boxes.shape == (0,):
        boxes = boxes.reshape(0, 4)
    if boxes.ndim < 2 or boxes.shape[-1] != 4:
        raise ValueError(f"clip_boxes: boxes has shape {boxes.shape}, wanted (..., 4)")
    height, width = size
    boxes[..., 0::2] = boxes[..., 0::2].clip(0, width)
    boxes[..., 1::2] = boxes[..., 1::2].clip(0, height)
    return boxes


def keep_large_boxes(boxes, minimum_side: float) -> np.ndarray:
    """The indices, ascending, of the boxes (P, 4) at least `minimum_side` pixels wide and high; int64. NaN is not."""
    boxes = check_boxes("keep_large_boxes", "boxes", boxes)
    return np.flatnonzero(((boxes[:, 2:] - boxes[:, :2]) >= minimum_side).all(axis=1))


def nms(boxes, scores, iou_threshold: float) -> np.ndarray:
    """Non-maximum suppression: the best boxes, none of which overlaps a better one by more than the threshold.

    Parameters
    ----------
    boxes : array (P, 4)
    scores : array (P,)
        Of equal scores the lower index comes first.
    iou_threshold : float
        An overlap of exactly this much stays.

    Returns
    -------
    ndarray int64
        Indices into `boxes`, best score first.

    Raises
    ------
    ValueError
        If there is not one score a box.
    """
    boxes, scores = _check_scored("nms", boxes, scores)
    if device_of(boxes) == "cuda":
        return _nms_on_a_gpu(boxes, scores, iou_threshold)
    order = best_first(scores)
    keep = np.ones(len(boxes), np.bool_)
    nms_kernels.suppress(np.ascontiguousarray(boxes[order].T), iou_threshold, keep)
    return order[keep]


def _nms_on_a_gpu(boxes, scores, iou_threshold: float):
    """The host waits for one number, how many stay; every step is a start of one kernel."""
    xp, count, threshold = module_of(boxes), len(boxes), nms_kernels.round_down(iou_threshold)
    order, ordered = xp.empty(count, np.int64), xp.empty((4, count), np.float32)
    nms_kernels.nms_sort(boxes, xp.ascontiguousarray(scores), order, ordered)
    words = -(-count // nms_kernels.BITS)
    gone, kept = xp.zeros(words, np.uint64), xp.zeros(1 + count, np.int64)
    for first in range(0, count, nms_kernels.LEADERS):
        suppresses = xp.empty((min(nms_kernels.LEADERS, count - first), words), np.uint64)
        nms_kernels.nms_compare(ordered, threshold, first, suppresses)
        nms_kernels.nms_settle(suppresses, order, first, gone, kept)
    return kept[1 : 1 + int(to_device(kept[:1], "cpu")[0])]


def best_first(scores):
    """The indices (P,) of scores, the best first, the lower index first among equals; NaN comes last on any device."""
    xp = module_of(scores)
    if xp is np:
        return np.argsort(-scores, kind="stable")
    return xp.argsort(xp.where(xp.isnan(scores), np.inf, -scores), kind="stable")  # CuPy would put -NaN first


def batched_nms(boxes, scores, groups, iou_threshold: float, most: int | None = None) -> np.ndarray:
    """`nms` within each group (a class, or a level of the pyramid): boxes of different groups never meet.

    Parameters
    ----------
    boxes : array (P, 4)
    scores : array (P,)
    groups : integer array (P,)
    iou_threshold : float
    most : int, optional
        Only this many of the best are wanted; with many more boxes than that, it is less work.

    Returns
    -------
    ndarray int64
        Indices into `boxes`, best score first, whatever their group.
    """
    boxes, scores = _check_scored("batched_nms", boxes, scores)
    groups = np.asarray(groups)
    if groups.shape != scores.shape:
        raise ValueError(f"batched_nms: groups {groups.shape} for scores {scores.shape}, wanted one group a box")
    if most is not None and most < 0:
        raise ValueError(f"batched_nms: most is {most}, wanted 0 or more")
    # A box can be sent away only by a better one: what the best few decide among themselves is final.
    few = len(scores) if most is None else 4 * most
    while most and 2 * few < len(scores):
        worst = np.partition(scores, -few)[-few]
        chosen = np.flatnonzero(scores >= worst)  # all that are equal, so that the order of indices decides
        kept = _nms_by_group(boxes[chosen], scores[chosen], groups[chosen], iou_threshold)
        if len(kept) >= most:
            return chosen[kept[:most]]
        few *= 4
    return _nms_by_group(boxes, scores, groups, iou_threshold)[:most]


def _nms_by_group(boxes, scores, groups, iou_threshold):
    # Group after group, as moving the groups apart (torchvision's other way) would round the coordinates.
    order = np.lexsort((-scores, groups))  # stable
    ordered, kept = np.ascontiguousarray(boxes[order].T), np.ones(len(boxes), np.bool_)  # (4, P), (P,)
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    for start, end in zip([0, *borders], [*borders, len(order)], strict=True):
        nms_kernels.suppress(np.ascontiguousarray(ordered[:, start:end]), iou_threshold, kept[start:end])
    kept = np.sort(order[kept])
    return kept[best_first(scores[kept])]


def _check_scored(function: str, boxes, scores) -> tuple[np.ndarray, np.ndarray]:
    boxes = check_boxes(function, "boxes", boxes).astype(np.float32, copy=False)
    scores = beside(scores, boxes, np.float32)
    if scores.shape != (len(boxes),):
        raise ValueError(f"{function}: scores {scores.shape} for boxes {boxes.shape}, wanted one score a box")
    return boxes, scores
