"""Mask R-CNN: backbone, pyramid, proposals, and two heads that look at the same crops.

The whole model is the two methods `MaskRCNN.predict` and `MaskRCNN.losses`; each line consumes what the one before it
made:

    pictures -prepare-> pixels -backbone-> C2..C5 -pyramid-> P2..P6 -rpn-> proposals -pool_rois 7-> box head ->
    detections -pool_rois 14-> mask head -> masks -paste-> masks in the picture

Boxes are host arrays, features are Tensors. The border is where proposals are chosen, and nowhere else.

Source: He, Gkioxari, Dollar and Girshick 2017, Mask R-CNN.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from minimrcnn.archive import read_archive, write_archive
from minimrcnn.config import Config
from minimrcnn.errors import DataError
from minimrcnn.functional import pool_rois
from minimrcnn.geometry.checks import check_target
from minimrcnn.models.box_head import BoxHead, sample_rois
from minimrcnn.models.mask_head import MaskHead
from minimrcnn.models.prepare import prepare, resize_target, restore
from minimrcnn.models.pyramid import STRIDES, Pyramid
from minimrcnn.models.resnet import ResNet
from minimrcnn.models.rpn import RegionProposalNetwork
from minimrcnn.models.stages import record, trace
from minimrcnn.nn import Module, make_norm
from minimrcnn.structures import Detections, Target
from minimrcnn.tensor import Tensor, no_grad

__all__ = ["MaskRCNN", "trace"]


class MaskRCNN(Module):
    """Mask R-CNN on a feature pyramid; without a mask head, Faster R-CNN.

    Parameters
    ----------
    config : Config, optional
        By default the published COCO settings.
    seed : int
        For the initial weights, and for the drawing of samples while training.
    **fields
        Fields of the Config to be set otherwise: ``MaskRCNN(num_classes=2, min_size=512)``.

    Attributes
    ----------
    config : Config
    generator : numpy Generator
        Draws anchors and RoIs in `losses`.
    """

    def __init__(self, config: Config | None = None, *, seed: int = 0, **fields):
        self.config = config = dataclasses.replace(config or Config(), **fields)
        generator = np.random.default_rng(seed)
        norm = make_norm(config.norm, config.norm_groups, config.norm_eps)
        norm_everywhere = norm if config.norm == "group" else None
        self.backbone = ResNet(config.backbone, norm=norm, generator=generator)
        self.pyramid = Pyramid(
            self.backbone.channels, config.pyramid_channels, norm=norm_everywhere, generator=generator
        )
        self.rpn = RegionProposalNetwork(config, generator=generator)
        self.box_head = BoxHead(config, generator=generator)
        self.mask_head = MaskHead(config, norm=norm_everywhere, generator=generator) if config.mask_head else None
        self.generator = generator

    def predict(self, pictures, score_thresh: float | None = None) -> list[Detections]:
        """Find the objects in pictures.

        Parameters
        ----------
        pictures : list of (H, W, 3) uint8 or float 0..1 arrays, paths or PIL images
            They may differ in size.
        score_thresh : float, optional
            Detections below this score are dropped; by default ``config.box_score_thresh``.

        Returns
        -------
        list of Detections
            One for each picture, in its own pixels.

        Raises
        ------
        DataError
            A picture cannot be read, or is not one.
        """
        threshold = self.config.box_score_thresh if score_thresh is None else score_thresh
        was_training = self.training
        self.eval()
        try:
            with no_grad():
                pixels, image_sizes, original_sizes = prepare(self._check_list(pictures), self.config)
                pyramid = self.extract(pixels)
                logits, deltas = self.rpn(pyramid)
                proposals = self.rpn.propose(logits, deltas, self.rpn.anchors(logits, pixels.shape[1:3]), image_sizes)
                record(proposals=proposals)
                found = self.box_head(self.crop(pyramid, proposals, self.config.box_pool_size))
                detections = self.box_head.detect(*found, proposals, image_sizes, threshold)
                masks = self.find_masks(pyramid, detections)
                detections = list(map(restore, detections, masks, image_sizes, original_sizes))
                record(detections=detections)
        finally:
            self.train(was_training)
        return detections

    def losses(self, pictures, targets: list[Target]) -> dict[str, Tensor]:
        """How wrong the model is about pictures whose objects are known.

        Parameters
        ----------
        pictures : as `predict`
        targets : list of Target
            One for each picture, in its pixels; a picture may have no objects.

        Returns
        -------
        dict of str to Tensor ()
            ``loss_classifier``, ``loss_box_reg``, ``loss_mask`` (with a mask head), ``loss_objectness``,
            ``loss_rpn_box_reg``: their sum is what training makes small.

        Raises
        ------
        DataError
            A picture or a target is wrong; the message says which.
        """
        pixels, image_sizes, original_sizes = prepare(self._check_list(pictures), self.config)
        targets = self._check_targets(targets, original_sizes, image_sizes)
        pyramid = self.extract(pixels)
        logits, deltas = self.rpn(pyramid)
        anchors = self.rpn.anchors(logits, pixels.shape[1:3])
        proposals = self.rpn.propose(logits, deltas, anchors, image_sizes)
        samples = [
            sample_rois(boxes, target, self.config, self.generator)
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        losses = self.rpn.losses(logits, deltas, anchors, targets, self.generator)
        found = self.box_head(self.crop(pyramid, [sample.boxes for sample in samples], self.config.box_pool_size))
        losses |= self.box_head.losses(*found, samples, targets)
        if self.mask_head:
            crops = self.crop(
                pyramid, [sample.boxes[sample.positive] for sample in samples], self.config.mask_pool_size
            )
            losses |= self.mask_head.losses(self.mask_head(crops), samples, targets)
        return losses

    def extract(self, pixels) -> list[Tensor]:
        """P2 to P6 of pixels (N, H, W, 3)."""
        device = self.backbone.stem.conv.weight.device
        maps = self.backbone(Tensor(pixels, device=device))
        pyramid = self.pyramid(maps)
        record(**{f"c{number}": level for number, level in enumerate(maps, 2)})
        record(**{f"p{number}": level for number, level in enumerate(pyramid, 2)})
        return pyramid

    def crop(self, pyramid, boxes: list[np.ndarray], size: int) -> Tensor:
        """(R, size, size, C): what lies under the boxes (R_n, 4) of every picture, from P2 to P5."""
        pictures = np.repeat(np.arange(len(boxes)), [len(some) for some in boxes])
        rois = np.concatenate([pictures[:, None], np.concatenate(boxes)], axis=1).astype(np.float32)  # (R, 5)
        config = self.config
        return pool_rois(
            pyramid[:4], rois, size, STRIDES[:4], config.roi_operation, config.roi_sampling_ratio, config.roi_aligned
        )

    def find_masks(self, pyramid, detections: list[Detections]) -> list[np.ndarray | None]:
        """The masks (D, M, M) of every picture's detections, as probabilities; None without a mask head."""
        if not self.mask_head:
            return [None] * len(detections)
        crops = self.crop(pyramid, [found.boxes for found in detections], self.config.mask_pool_size)
        labels = np.concatenate([found.labels for found in detections])
        masks = self.mask_head.choose(self.mask_head(crops), labels)  # (D of all pictures, M, M)
        return np.split(masks, np.cumsum([len(found) for found in detections])[:-1])

    def save(self, path) -> None:
        """Write the weights and the Config to a file, whole or not at all."""
        write_archive(path, self.arrays(), {"kind": "minimrcnn model", "config": dataclasses.asdict(self.config)})

    @classmethod
    def load(cls, path) -> MaskRCNN:
        """The model that `save` wrote, ready to predict.

        Raises
        ------
        DataError
            The file is truncated, not a model, or of another architecture.
        """
        arrays, header = read_archive(path)
        if "checkpoint" in str(header.get("kind")):
            raise DataError(f"{path}: this is the checkpoint of a training; wanted the model.npz beside it")
        try:
            model = cls(Config.from_dict(header["config"]))
            model.load_arrays(arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a model this version can load: {error}") from error
        return model.eval()

    def _check_list(self, pictures):
        if isinstance(pictures, (str, bytes)) or not isinstance(pictures, (list, tuple)):
            raise TypeError(f"pictures is a {type(pictures).__name__}, wanted a list of pictures; for one: [picture]")
        return pictures

    def _check_targets(self, targets, original_sizes, image_sizes) -> list[Target]:
        """The targets in the pixels of the batch."""
        if len(targets) != len(original_sizes):
            raise ValueError(f"losses: {len(targets)} targets for {len(original_sizes)} pictures")
        for number, (target, size) in enumerate(zip(targets, original_sizes, strict=True)):
            check_target(target, size, f"targets[{number}]", self.config.num_classes)
        return list(map(resize_target, targets, image_sizes))
