"""What the mask loss must do (He et al. 2017, Mask R-CNN, section 3: a sigmoid for every class, no competition)."""

from __future__ import annotations

import math

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import cells, pick, whole


def draw_targets(draw, rois):
    return cells(draw, rois, 2, 2, high=1)


def draw_labels(draw, rois, classes):
    """Classes from 1: 0 is the background."""
    return np.array([whole(draw, 1, classes - 1) for _ in range(rois)], np.int64)


@holds(
    "mask_loss", "answers", "one finite number; for no RoIs it is 0",
    "Return a float, the mean over all RoIs and pixels. The mean of nothing is NaN: ask for len(labels) == 0 first.",
)  # fmt: skip
def mask_loss_answers(mask_loss, draw):
    rois, classes = whole(draw, 0, 2), whole(draw, 2, 4)
    got = mask_loss(cells(draw, rois, 2, 2, classes), draw_targets(draw, rois), draw_labels(draw, rois, classes))
    agree(got, got if rois else 0.0)


@holds(
    "mask_loss", "mean", "the same RoI twice has the same loss, and so has a RoI with all its rows twice",
    "The loss is a mean over RoIs and pixels, not a sum.",
)  # fmt: skip
def mask_loss_mean(mask_loss, draw):
    logits, targets, labels = cells(draw, 1, 2, 2, 3), draw_targets(draw, 1), draw_labels(draw, 1, 3)
    once, axis = mask_loss(logits, targets, labels), pick(draw, 0, 1)
    logits, targets = np.repeat(logits, 2, axis), np.repeat(targets, 2, axis)
    twice = mask_loss(logits, targets, np.repeat(labels, 2) if axis == 0 else labels)
    agree(twice, once, "your own loss of the RoI once")


@holds(
    "mask_loss", "ln 2", "where all logits are 0, the loss is ln 2, for any targets and any number of classes",
    "A sigmoid says 1/2 to every pixel. If it is ln K you took a softmax over the classes; and both -t log(s) and "
    "-(1 - t) log(1 - s) belong to the loss.",
)  # fmt: skip
def mask_loss_ln2(mask_loss, draw):
    rois, classes = whole(draw, 1, 2), whole(draw, 3, 4)
    got = mask_loss(np.zeros((rois, 2, 2, classes)), draw_targets(draw, rois), draw_labels(draw, rois, classes))
    agree(got, math.log(2))


@holds(
    "mask_loss", "one channel", "only one of the K masks of a RoI has a say",
    "Pick the mask of the RoI's class first, logits[r, :, :, labels[r]]; the others, and the mean over them, do not "
    "matter.",
)  # fmt: skip
def mask_loss_one_channel(mask_loss, draw):
    classes = 3
    targets, labels, logits = draw_targets(draw, 1), draw_labels(draw, 1, classes), np.zeros((1, 2, 2, classes))
    before = mask_loss(logits, targets, labels)
    changed = []
    for channel in range(classes):
        moved = logits.copy()
        moved[..., channel] = 2.0
        changed.append(abs(float(mask_loss(moved, targets, labels)) - float(before)) > 1e-4)
    agree(np.array(sum(changed)), 1, "the number of channels in which logits of 2 in place of 0 changed your loss")


@holds(
    "mask_loss", "own class", "logits that are right in the channel of the RoI's label have no loss",
    "Channel labels[r], not labels[r] - 1: channel 0 is the background's, though nothing is ever asked of it. A high "
    "logit means object.",
)  # fmt: skip
def mask_loss_own(mask_loss, draw):
    rois, classes = whole(draw, 1, 2), 3
    targets, labels = draw_targets(draw, rois), draw_labels(draw, rois, classes)
    logits = np.zeros((rois, 2, 2, classes))
    for r, label in enumerate(labels):
        logits[r, :, :, label] = np.where(targets[r] > 0, 16.0, -16.0)
    agree(mask_loss(logits, targets, labels), 0.0)


@holds(
    "mask_loss", "large logits", "logits of +-1000 give the loss they should, neither infinity nor NaN",
    "log(sigmoid(-1000)) is log(0). Use max(z, 0) - z t + log(1 + exp(-|z|)).",
)  # fmt: skip
def mask_loss_large(mask_loss, draw):
    targets, labels = draw_targets(draw, 1), draw_labels(draw, 1, 3)
    logits = pick(draw, 1000.0, 100.0) * cells(draw, 1, 2, 2, 3, low=-1, high=1)
    agree(mask_loss(logits, targets, labels), reference.mask_loss(logits, targets, labels))


@holds(
    "mask_loss", "textbook", "logits of up to 4.5, soft targets: the textbook's loss",
    "Targets between 0 and 1 are taken as they are, and all RoIs and pixels count. See minimrcnn.reference.mask_loss.",
)  # fmt: skip
def mask_loss_reference(mask_loss, draw):
    rois, classes = whole(draw, 1, 3), whole(draw, 2, 4)
    logits, targets = cells(draw, rois, 2, 2, classes, low=-9) / 2, cells(draw, rois, 2, 2, high=4) / 4
    labels = draw_labels(draw, rois, classes)
    agree(mask_loss(logits, targets, labels), reference.mask_loss(logits, targets, labels))
