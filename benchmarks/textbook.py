"""The textbook definitions, Python loops in float64, on a small part of the work; the time is scaled up to the whole.

Nobody waits hours for a convolution: the loops do the same for every cell, so some cells tell the time of all.
"""

from __future__ import annotations

import numpy as np

from benchmarks.timing import Task
from benchmarks.work import Work, make_inputs
from minimrcnn import reference


class ScaledTask(Task):
    """A task that stands for one ``scale`` times as long."""

    scale: float = 1.0


def build(work: Work) -> ScaledTask | None:
    """The definition on a part of the work; None where `minimrcnn.reference` has none, or not for this pass."""
    if work.kind not in SMALL or work.both or (work.backward and work.kind not in ("roi_align", "roi_pool")):
        return None
    if work.kind == "nms" and work.size["count"] > 1000:
        return None  # its time depends on how many boxes stay: no part tells it
    part = SMALL[work.kind](dict(work.size))
    small = Work(work.name, work.kind, part, backward=work.backward)
    task = ScaledTask(RUN[work.kind](small, **{k: v.astype(np.float64) for k, v in make_inputs(small).items()}))
    task.scale = amount(work) / amount(small)
    return task


def amount(work: Work) -> float:
    """How much there is to do, in whatever unit."""
    size = work.size
    if work.kind == "conv":
        return work.operations
    return float(np.prod([value for name, value in size.items() if name != "clustered"]))


def limited(**limits):
    return lambda size: {name: min(value, limits.get(name, value)) for name, value in size.items()}


# Only what the loops go over is cut: the channels of a cell are one NumPy vector.
SMALL = {
    "conv": limited(batch=1, height=8, width=8, outer=32),
    "roi_align": limited(rois=2),
    "roi_pool": limited(rois=2, channels=8),  # here the channels are a loop
    "nms": limited(),
    "box_iou": limited(second=300),
    "max_pool": limited(height=20, width=20),
    "upsample": limited(height=10, width=10),
    "group_norm": limited(),
}


def conv(work, x, weight, bias):
    size = work.size
    return lambda: reference.conv2d(x, weight, bias, size["stride"], size["kernel"] // 2, size["groups"])


def cut(work, x, rois, gradient):
    function = getattr(reference, work.kind)
    settings = dict(sampling_ratio=2, aligned=False) if work.kind == "roi_align" else {}
    if work.backward:
        settings["gradient"] = gradient
    side = work.size["side"]
    return lambda: function(x, rois, (side, side), 0.25, **settings)


RUN = {
    "conv": conv,
    "roi_align": cut,
    "roi_pool": cut,
    "nms": lambda work, boxes, scores: lambda: reference.nms(boxes, scores, 0.7),
    "box_iou": lambda work, a, b: lambda: reference.box_iou(a, b),
    "max_pool": lambda work, x, scale, shift: lambda: reference.max_pool2d(x, 3, 2, 1),
    "upsample": lambda work, x, scale, shift: (
        lambda: reference.upsample_nearest(x, (2 * work.size["height"], 2 * work.size["width"]))
    ),
    "group_norm": lambda work, x, scale, shift: lambda: reference.group_norm(x, 32, scale, shift),
}
