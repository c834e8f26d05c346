"""The box head: what is in a RoI, and where exactly.

To detect: two fully connected layers turn a 7x7 crop into class logits and one box delta for each class (convolutions
may come before them; on C4, where the backbone's last stage has looked at the crop, an average does). A RoI becomes
one candidate for each class but background; those with a score above a threshold go through NMS within their class,
and the best 100 of the picture remain.

To learn: proposals (and the objects' own boxes, so that there is something to find from the first step on) are matched
to objects by IoU 0.5; 512 are drawn, a quarter positive; cross-entropy on all, smooth L1 on the deltas of the
positives' own class.

Source: Girshick 2015, Fast R-CNN, sections 2.2 and 2.3; Lin et al. 2017, section 4.2.
"""

from __future__ import annotations

import math

import numpy as np

from minimrcnn import geometry
from minimrcnn.device import to_device
from minimrcnn.functional import cross_entropy, smooth_l1
from minimrcnn.functional.math import softmax_array
from minimrcnn.models.rpn import BETA
from minimrcnn.models.stages import record
from minimrcnn.nn import Conv2d, ConvNorm, Linear, Module, he_normal, normal
from minimrcnn.structures import Detections, RoISamples

SMALLEST = 1e-2  # pixels: detections with a shorter side are dropped


def sample_rois(proposals, target, config, generator) -> RoISamples:
    """Draw the RoIs of one picture that the heads train on.

    Parameters
    ----------
    proposals : ndarray (R, 4)
    target : Target
    config : Config
    generator : numpy Generator
    """
    boxes = np.concatenate([proposals, target.boxes]).astype(np.float32)  # (R + G, 4)
    iou = geometry.box_iou(target.boxes, boxes)  # (G, R + G)
    matched = geometry.match(iou, config.box_bg_iou_thresh, config.box_fg_iou_thresh, allow_low_quality=False)
    chances = np.where(matched >= 0, 1, np.where(matched == -1, 0, -1))
    yes, no = geometry.sample_balanced(
        chances, config.box_batch_size_per_image, config.box_positive_fraction, generator
    )
    labels = np.concatenate([target.labels[matched[yes]], np.zeros(len(no), np.int64)])  # (S,)
    drawn = np.concatenate([yes, no])
    return RoISamples(boxes[drawn], labels, np.concatenate([matched[yes], np.full(len(no), -1)]))


def make_convs(channels_in: int, channels, *, norm, generator) -> list[Conv2d | ConvNorm]:
    """3x3 convolutions of so many ``channels``, as both heads have them, with a normalization or a bias."""
    convs = []
    for count in channels:
        if norm is not None:
            convs.append(ConvNorm(channels_in, count, 3, norm=norm, generator=generator))
        else:
            convs.append(Conv2d(channels_in, count, 3, padding=1, generator=generator))
        channels_in = count
    return convs


class BoxHead(Module):
    """Crops (R, S, S, C) -> class logits (R, K) and box deltas (R, K, 4).

    Parameters
    ----------
    config : Config
    channels, side : int
        Of the crops.
    norm : callable or None
        ``norm(channels)`` makes a normalization after each convolution; None leaves a bias instead.
    generator : numpy Generator
    """

    def __init__(self, config, channels, side, *, norm, generator):
        self.config = config
        self.convs = make_convs(channels, config.box_head_convs, norm=norm, generator=generator)
        width = config.box_head_convs[-1] if self.convs else channels
        if config.box_head_fcs:
            width *= side**2
        for number in range(config.box_head_fcs):  # fc6, fc7: named after VGG's, which stood here first
            layer = Linear(width, config.box_head_channels, generator=generator, initialize=he_normal)
            setattr(self, f"fc{6 + number}", layer)
            width = config.box_head_channels
        self.class_logits = Linear(width, config.num_classes, generator=generator, initialize=normal(0.01))
        self.box_deltas = Linear(width, 4 * config.num_classes, generator=generator, initialize=normal(0.001))

    def forward(self, crops):
        x = crops
        for conv in self.convs:
            x = conv(x, relu=True)  # (R, S, S, C)
        x = x.reshape(len(x), math.prod(x.shape[1:])) if self.config.box_head_fcs else x.mean(axis=(1, 2))
        for number in range(self.config.box_head_fcs):
            x = getattr(self, f"fc{6 + number}")(x, relu=True)  # (R, width)
        logits = self.class_logits(x)  # (R, K)
        deltas = self.box_deltas(x).reshape(len(crops), self.config.num_classes, 4)  # (R, K, 4)
        record(class_logits=logits, box_deltas=deltas)
        return logits, deltas

    def losses(self, logits, deltas, samples, targets) -> dict:
        """``loss_classifier`` and ``loss_box_reg``, over the RoIs of all pictures together.

        Parameters
        ----------
        logits, deltas : Tensor (S, K) and (S, K, 4)
            Of the samples of all pictures, one after the other.
        samples : list of RoISamples
        targets : list of Target
        """
        labels = np.concatenate([sample.labels for sample in samples])  # (S,)
        positive = np.flatnonzero(labels)
        wanted = [
            geometry.encode_boxes(
                target.boxes[sample.matched[sample.positive]],
                sample.boxes[sample.positive],
                self.config.bbox_reg_weights,
            )
            for sample, target in zip(samples, targets, strict=True)
        ]
        moves = deltas[positive, labels[positive]]  # (positives, 4)
        return {
            "loss_classifier": cross_entropy(logits, labels),
            "loss_box_reg": smooth_l1(moves, np.concatenate(wanted), BETA) * (1 / max(len(labels), 1)),
        }

    def detect(self, logits, deltas, proposals, image_sizes, score_thresh) -> list[Detections]:
        """The detections of every picture, without masks; host arrays, without gradient."""
        config = self.config
        scores = to_device(softmax_array(logits.data), "cpu")  # (R, K) of all pictures
        deltas = deltas.numpy()
        detections, start = [], 0
        for boxes, size in zip(proposals, image_sizes, strict=True):
            part = slice(start, start + len(boxes))
            found, found_scores, labels, _ = self.find_candidates(scores[part], deltas[part], boxes, size, score_thresh)
            best = geometry.batched_nms(
                found, found_scores, labels, config.box_nms_thresh, config.box_detections_per_img
            )
            detections.append(Detections(found[best], labels[best], found_scores[best], names=config.class_names))
            start = part.stop
        return detections

    def find_candidates(self, scores, deltas, proposals, image_size, score_thresh):
        """What NMS chooses the detections of one picture from: every class but background that a RoI scores high in.

        Parameters
        ----------
        scores, deltas, proposals : ndarray (R, K), (R, K, 4) and (R, 4)
        image_size : (int, int)
        score_thresh : float

        Returns
        -------
        boxes : ndarray (P, 4)
        scores : ndarray (P,)
        labels, rows : ndarray (P,) int64
            The class of each, and the row of the proposal it was.
        """
        rows, labels = np.nonzero(scores[:, 1:] > score_thresh)
        labels = labels + 1  # background was left out
        boxes = geometry.decode_boxes(deltas[rows, labels], proposals[rows], self.config.bbox_reg_weights)
        boxes = geometry.clip_boxes(boxes, image_size)
        large = geometry.keep_large_boxes(boxes, SMALLEST)
        return boxes[large], scores[rows, labels][large], labels[large], rows[large]
