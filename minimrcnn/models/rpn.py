"""The region proposal network: from every cell of every level, a few guesses where an object might be, and how likely.

To propose:

1. A 3x3 convolution, then two 1x1: one logit and one box delta for each anchor of each cell, the same weights on every
   level. With a pyramid, a level has one size of anchors in three ratios; a single map has all sizes, 15 anchors.
2. Of each level, the best ``pre_nms_top_n`` anchors by logit, moved and stretched by their deltas, clipped to the
   picture.
3. NMS within each level; the best ``post_nms_top_n`` over all levels.

To learn:

1. Each anchor is matched to an object (IoU from 0.7 on, or the best for its object), to background (below 0.3), or to
   nothing.
2. 256 anchors of a picture are drawn, at most half of them positive.
3. Binary cross-entropy on their logits, smooth L1 on the positives' deltas.

Source: Ren et al. 2015, Faster R-CNN, section 3.1; Lin et al. 2017, section 4.1.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minimrcnn import geometry
from minimrcnn.device import module_of, to_device
from minimrcnn.functional import bce_with_logits, concatenate, smooth_l1
from minimrcnn.geometry.boxes import best_first
from minimrcnn.models.stages import record
from minimrcnn.nn import Conv2d, Module, normal

SMALLEST = 1e-3  # pixels: proposals with a shorter side are dropped
BETA = 1 / 9  # of the smooth L1 loss, here and in the box head, as torchvision has it


@lru_cache(maxsize=4)
def place_anchors(sides, ratios, sizes, padded_size, pyramid: bool) -> tuple[np.ndarray, ...]:
    """The anchors of every level, or all shapes' of a single map; not to be written to.

    Kept for pictures of the same size: making 218,000 of them anew took a tenth of a prediction on a GPU.
    """
    if pyramid:
        levels = geometry.make_anchors(sides, ratios, sizes, padded_size)
    else:
        each = [geometry.make_anchors([side], ratios, sizes, padded_size)[0] for side in sides]
        levels = [np.stack(each, axis=1).reshape(-1, 4)]  # by row, column, ratio, then size
    for level in levels:
        level.flags.writeable = False
    return tuple(levels)


class RegionProposalNetwork(Module):
    """[P2 .. P6], or one map, -> proposals.

    Parameters
    ----------
    config : Config
    channels : int
        Of every level.
    levels : sequence of str
        Their names.
    generator : numpy Generator
    """

    def __init__(self, config, channels, levels, *, generator):
        shapes = len(config.aspect_ratios) * (1 if len(levels) > 1 else len(config.anchor_sizes))
        self.config, self.levels = config, levels
        self.convs = [
            Conv2d(channels, channels, 3, padding=1, generator=generator, initialize=normal(0.01))
            for _ in range(config.rpn_conv_depth)
        ]
        self.logits = Conv2d(channels, shapes, 1, generator=generator, initialize=normal(0.01))
        self.deltas = Conv2d(channels, 4 * shapes, 1, generator=generator, initialize=normal(0.01))

    def forward(self, pyramid):
        """Logits and deltas of every level: lists of (N, H_l, W_l, A) and (N, H_l, W_l, 4 A)."""
        logits, deltas = [], []
        for name, x in zip(self.levels, pyramid, strict=True):
            for conv in self.convs:
                x = conv(x, relu=True)
            logits.append(self.logits(x))
            deltas.append(self.deltas(x))
            record(**{f"rpn_logits_{name}": logits[-1], f"rpn_deltas_{name}": deltas[-1]})
        return logits, deltas

    def anchors(self, logits, padded_size) -> list[np.ndarray]:
        """The anchors of every level, (H_l * W_l * A, 4) each, in the order of the logits."""
        sides, ratios = tuple(self.config.anchor_sizes), tuple(self.config.aspect_ratios)
        sizes = tuple(tuple(level.shape[1:3]) for level in logits)
        return list(place_anchors(sides, ratios, sizes, tuple(padded_size), len(self.levels) > 1))

    def propose(self, logits, deltas, anchors, image_sizes) -> list[np.ndarray]:
        """Proposals (R, 4) of every picture, best first, in pixels; host arrays, without gradient.

        The best of each level are chosen where the logits are. They alone come to the host, 2% of them with a picture
        of 800x1088: numbers, logits and deltas, one array of each for a picture. What follows is a few thousand boxes,
        which a CPU judges in 0.3 ms a level, as long as a GPU's NMS of 1,000 boxes takes to be started.

        Parameters
        ----------
        logits, deltas : list of Tensor
            As `forward` gives them.
        anchors : list of ndarray
        image_sizes : list of (int, int)
            (height, width) of every picture within the padded batch.
        """
        config = self.config
        best = config.rpn_pre_nms_top_n_train if self.training else config.rpn_pre_nms_top_n_test
        kept = config.rpn_post_nms_top_n_train if self.training else config.rpn_post_nms_top_n_test
        logits = [level.data.reshape(len(image_sizes), -1) for level in logits]  # (N, H_l * W_l * A)
        deltas = [level.data.reshape(len(image_sizes), -1, 4) for level in deltas]  # (N, H_l * W_l * A, 4)
        proposals = []
        for n, size in enumerate(image_sizes):
            rows = [level[n] for level in logits], [level[n] for level in deltas]
            boxes, scores, levels, _ = self.find_candidates(*rows, anchors, size, best)
            proposals.append(boxes[geometry.batched_nms(boxes, scores, levels, config.rpn_nms_thresh, kept)])  # (R, 4)
        return proposals

    def find_candidates(self, logits, deltas, anchors, image_size, most: int):
        """What NMS chooses the proposals of one picture from: the best ``most`` anchors of every level, moved.

        Parameters
        ----------
        logits, deltas : lists of array (H_l * W_l * A,) and (H_l * W_l * A, 4)
            Of either device.
        anchors : list of ndarray (H_l * W_l * A, 4)
        image_size : (int, int)
        most : int

        Returns
        -------
        boxes : ndarray (P, 4)
            Level by level, best first.
        scores : ndarray (P,)
            Logits.
        levels, rows : ndarray (P,) int64
            Which anchor each was: the number of its level, and its row there.
        """
        xp = module_of(logits[0])
        chosen = [top(level, most) for level in logits]  # (P_l,) of every level
        counts = [len(some) for some in chosen]
        scores = to_host(xp, [level[some] for level, some in zip(logits, chosen, strict=True)])  # (P,)
        moves = to_host(xp, [level[some] for level, some in zip(deltas, chosen, strict=True)])  # (P, 4)
        rows, levels = to_host(xp, chosen), np.repeat(np.arange(len(anchors)), counts)  # (P,)
        each = zip(anchors, np.split(rows, np.cumsum(counts)[:-1]), strict=True)
        origins = np.concatenate([level[some] for level, some in each])  # (P, 4)
        boxes = geometry.clip_boxes(geometry.decode_boxes(moves, origins), image_size)
        large = geometry.keep_large_boxes(boxes, SMALLEST)
        return boxes[large], scores[large], levels[large], rows[large]

    def losses(self, logits, deltas, anchors, targets, generator) -> dict:
        """``loss_objectness`` and ``loss_rpn_box_reg``, over the anchors drawn from all pictures together."""
        config = self.config
        count = len(targets)
        anchors = np.concatenate(anchors)  # (A, 4) of all levels
        logits = concatenate([level.reshape(count, -1) for level in logits], axis=1)  # (N, A)
        deltas = concatenate([level.reshape(count, -1, 4) for level in deltas], axis=1)  # (N, A, 4)
        pictures, drawn, positive, wanted = [], [], [], []
        for n, target in enumerate(targets):
            iou = geometry.box_iou(target.boxes, anchors)  # (G, A)
            matched = geometry.match(iou, config.rpn_bg_iou_thresh, config.rpn_fg_iou_thresh, allow_low_quality=True)
            if len(iou):  # an object that no anchor touches is "best" matched by all of them, with nothing in common
                matched[(matched >= 0) & (iou.max(axis=0) <= 0)] = -1
            labels = np.where(matched >= 0, 1, np.where(matched == -1, 0, -1))
            share = config.rpn_positive_fraction
            yes, no = geometry.sample_balanced(labels, config.rpn_batch_size_per_image, share, generator)
            pictures += [n] * (len(yes) + len(no))
            drawn += [yes, no]
            positive += [np.ones(len(yes), bool), np.zeros(len(no), bool)]
            wanted.append(geometry.encode_boxes(target.boxes[matched[yes]], anchors[yes]))
        pictures, drawn, positive = np.array(pictures, np.int64), np.concatenate(drawn), np.concatenate(positive)
        sampled = logits[pictures, drawn]  # (S,)
        moves = deltas[pictures[positive], drawn[positive]]  # (positives, 4)
        return {
            "loss_objectness": bce_with_logits(sampled, positive),
            "loss_rpn_box_reg": smooth_l1(moves, np.concatenate(wanted), BETA) * (1 / max(len(drawn), 1)),
        }


def to_host(xp, parts) -> np.ndarray:
    """Arrays of one device as a single one on the host."""
    return to_device(xp.concatenate(parts), "cpu")


def top(scores, count: int):
    """The indices of the ``count`` largest scores, best first, the lower index first among equals."""
    xp = module_of(scores)
    if count >= len(scores) or xp is not np:  # a GPU sorts them all faster than it would wait for a number
        return best_first(scores)[:count]
    if count == 0:
        return np.zeros(0, np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    chosen = np.flatnonzero(scores > least)
    chosen = np.concatenate([chosen, np.flatnonzero(scores == least)[: count - len(chosen)]])
    return chosen[best_first(scores[chosen])]
