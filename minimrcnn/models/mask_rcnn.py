"""Mask R-CNN: backbone, pyramid, proposals, and two heads that look at the same crops.

The whole model is the two methods `MaskRCNN.predict` and `MaskRCNN.losses`; each line consumes what the one before it
made:

    pictures -prepare-> pixels -backbone-> C2..C5 -pyramid-> P2..P6 -rpn-> proposals -pool_rois 7-> box head ->
    detections -pool_rois 14-> mask head -> masks -paste-> masks in the picture

Without a pyramid, C4 or C5 takes its place; on C4 the backbone's last stage, res5, stands between the crops and the
heads. Boxes are host arrays, features are Tensors. The border is where proposals are chosen, and nowhere else.

Source: He, Gkioxari, Dollar and Girshick 2017, Mask R-CNN, section 3 and figure 4.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading

import numpy as np

from minimrcnn import weights
from minimrcnn.archive import write_archive
from minimrcnn.config import Config
from minimrcnn.device import to_device
from minimrcnn.errors import DataError
from minimrcnn.fields import is_share, to_python
from minimrcnn.functional import pool_rois
from minimrcnn.geometry import clip_boxes
from minimrcnn.geometry.checks import check_target
from minimrcnn.models.backbone import make_backbone
from minimrcnn.models.box_head import BoxHead, sample_rois
from minimrcnn.models.mask_head import ConvolutionalMaskHead, MLPMaskHead
from minimrcnn.models.prepare import prepare, resize_target, restore
from minimrcnn.models.pyramid import STRIDES, Pyramid
from minimrcnn.models.rpn import RegionProposalNetwork
from minimrcnn.models.saved import Zeros, config_of, photos_of, read_model
from minimrcnn.models.stages import record, trace
from minimrcnn.nn import Module, he_normal, make_norm, uniform
from minimrcnn.structures import Detections, Target, refer_to
from minimrcnn.tensor import Tensor, no_grad

__all__ = ["MaskRCNN", "trace"]

LEVELS = {  # the maps that RPN and heads look at, and pixels per cell of each
    "fpn": (("p2", "p3", "p4", "p5", "p6"), STRIDES),
    "c4": (("c4",), (16,)),
    "c5": (("c5",), (32,)),
}
MODES = threading.Lock()  # held while a model's parts change their mode, which the threads of a process share


class MaskRCNN(Module):
    """Mask R-CNN on a feature pyramid, on C4 or on C5; without a mask head, Faster R-CNN.

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
        What its parts were made from, so it cannot be changed; see `load`.
    generator : numpy Generator
        Draws anchors and RoIs in `losses`.
    """

    def __init__(self, config: Config | None = None, *, seed: int = 0, **fields):
        if not isinstance(config, Config | None):
            raise TypeError(
                f"MaskRCNN: config is {config!r}, wanted a Config; the model of a file is MaskRCNN.load(path), "
                "one for a class and the background MaskRCNN(num_classes=2)"
            )
        self._config = config = dataclasses.replace(config or Config(), **fields)
        generator = np.random.default_rng(seed)
        norm = make_norm(config.norm, config.norm_groups, config.norm_eps)
        of_heads = config.head_norm or ("group" if config.norm == "group" else None)
        head_norm = make_norm(of_heads, config.norm_groups, config.norm_eps)
        self.levels, self.strides = LEVELS[config.pyramid]
        self.backbone, self.res5 = make_backbone(config, norm=norm, generator=generator)
        self.pyramid = None
        channels = self.backbone.channels[-1]
        if config.pyramid == "fpn":
            channels = config.pyramid_channels
            self.pyramid = Pyramid(
                self.backbone.channels, channels, config.p6, norm=head_norm, generator=generator,
                initialize=he_normal if of_heads == "group" else uniform,  # where the runs from scratch began
            )  # fmt: skip
        self.rpn = RegionProposalNetwork(config, channels, self.levels, generator=generator)
        sides = config.box_pool_size, config.mask_pool_size
        if self.res5:  # it doubles the channels of a crop and halves its side
            channels, sides = 2 * channels, tuple(-(-side // 2) for side in sides)
        self.box_head = BoxHead(config, channels, sides[0], norm=head_norm, generator=generator)
        self.mask_head = None
        if config.mask_head == "convolutional":
            self.mask_head = ConvolutionalMaskHead(config, channels, norm=head_norm, generator=generator)
        elif config.mask_head == "mlp":
            self.mask_head = MLPMaskHead(config, channels, sides[1], generator=generator)
        self.generator = generator
        self.trained_on: tuple[str, ...] = ()  # fingerprints of photos (`data.folder`), which must not validate it
        self.validated_on: tuple[str, ...] = ()  # and of those that did
        self._under_way, self._modes = 0, []  # predictions, and the mode that each part has without them

    def forward(self, *pictures):
        raise TypeError(
            "MaskRCNN: it is not called; wanted model.predict([picture]), or model.losses(pictures, targets)"
        )

    def predict(self, pictures, score_thresh: float | None = None, proposals=None) -> list[Detections]:
        """Find the objects in pictures.

        Parameters
        ----------
        pictures : list of (H, W, 3) uint8 or float 0..1 arrays, paths or PIL images
            They may differ in size; (H, W) and (H, W, 1) are gray.
        score_thresh : float, optional
            Detections below this score are dropped; by default ``config.box_score_thresh``.
        proposals : list of array (R, 4), optional
            Where to look, in each picture's own pixels; then the RPN has no say. That is Fast R-CNN (Girshick 2015).

        Returns
        -------
        list of Detections
            One for each picture, in its own pixels.

        Raises
        ------
        DataError
            A picture cannot be read, or is not one.
        ValueError
            The score is none, or there are not as many proposals as pictures, or some are not boxes.
        """
        threshold = self.config.box_score_thresh if score_thresh is None else score_thresh
        if not is_share(to_python(threshold)):
            raise ValueError(f"predict: score_thresh is {score_thresh!r}, wanted a number from 0 to 1")
        with self._inference(), no_grad():
            pixels, image_sizes, original_sizes = prepare(self._check_list(pictures), self.config, self.device)
            if proposals is not None:
                proposals = self._check_proposals(proposals, original_sizes, image_sizes)
            levels = self.extract(pixels)
            if proposals is None:
                logits, deltas = self.rpn(levels)
                anchors = self.rpn.anchors(logits, pixels.shape[1:3])
                proposals = self.rpn.propose(logits, deltas, anchors, image_sizes)
            crops = self.crop(levels, proposals, self.config.box_pool_size)
            record(proposals=proposals, box_crops=crops)
            found = self.box_head(self.look(crops))
            detections = self.box_head.detect(*found, proposals, image_sizes, threshold)
            masks = self.find_masks(levels, detections)
            detections = list(map(restore, detections, masks, image_sizes, original_sizes))
            record(detections=detections)
        ids = self.config.category_ids
        return [
            dataclasses.replace(found, category_ids=ids, picture=refer_to(picture))
            for found, picture in zip(detections, pictures, strict=True)
        ]

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
        pixels, image_sizes, original_sizes = prepare(self._check_list(pictures), self.config, self.device)
        targets = self._check_targets(targets, original_sizes, image_sizes)
        levels = self.extract(pixels)
        logits, deltas = self.rpn(levels)
        anchors = self.rpn.anchors(logits, pixels.shape[1:3])
        proposals = self.rpn.propose(logits, deltas, anchors, image_sizes)
        samples = [
            sample_rois(boxes, target, self.config, self.generator)
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        losses = self.rpn.losses(logits, deltas, anchors, targets, self.generator)
        seen = self.look(self.crop(levels, [sample.boxes for sample in samples], self.config.box_pool_size))
        losses |= self.box_head.losses(*self.box_head(seen), samples, targets)
        if self.mask_head:
            if self.config.mask_pool_size == self.config.box_pool_size:  # on C4: what was seen of the positives
                seen = seen[np.flatnonzero(np.concatenate([sample.positive for sample in samples]))]
            else:
                positives = [sample.boxes[sample.positive] for sample in samples]
                seen = self.look(self.crop(levels, positives, self.config.mask_pool_size))
            losses |= self.mask_head.losses(self.mask_head(seen), samples, targets)
        return losses

    @property
    def config(self) -> Config:
        return self._config

    @config.setter
    def config(self, config):
        raise AttributeError(
            "MaskRCNN: its parts were made from its config, which cannot be changed; wanted another model of the same "
            "file: MaskRCNN.load(path, box_detections_per_img=300)"
        )

    @property
    def device(self) -> str:
        """ "cpu" or "cuda": where the weights are, and so where all features will be."""
        return self.rpn.logits.weight.device

    def extract(self, pixels) -> list[Tensor]:
        """What RPN and heads look at, P2 to P6 or the one map, of pixels (N, H, W, 3)."""
        maps = self.backbone(Tensor(pixels, device=self.device))
        levels = self.pyramid(maps) if self.pyramid else maps[-1:]
        record(**{f"c{number}": level for number, level in enumerate(maps, 2)})
        record(**dict(zip(self.levels, levels, strict=True)))
        return levels

    def crop(self, levels, boxes: list[np.ndarray], size: int) -> Tensor:
        """(R, size, size, C): what lies under the boxes (R_n, 4) of every picture, from P2 to P5 or the one map."""
        pictures = np.repeat(np.arange(len(boxes)), [len(some) for some in boxes])
        rois = np.concatenate([pictures[:, None], np.concatenate(boxes)], axis=1).astype(np.float32)  # (R, 5)
        config = self.config
        return pool_rois(
            levels[:4], rois, size, self.strides[:4], config.roi_operation, config.roi_sampling_ratio,
            config.roi_aligned, config.roi_mode, config.roi_deterministic,
        )  # fmt: skip

    def look(self, crops) -> Tensor:
        """What the heads see of crops (R, S, S, C): them, or on C4 (R, S/2, S/2, 2 C), what res5 makes of them."""
        return self.res5(crops) if self.res5 else crops

    def find_masks(self, levels, detections: list[Detections]) -> list[np.ndarray | None]:
        """The masks (D, M, M) of every picture's detections, as probabilities; None without a mask head."""
        if not self.mask_head:
            return [None] * len(detections)
        crops = self.crop(levels, [found.boxes for found in detections], self.config.mask_pool_size)
        record(mask_crops=crops)
        labels = np.concatenate([found.labels for found in detections])
        masks = self.mask_head.choose(self.mask_head(self.look(crops)), labels)  # (D of all pictures, M, M)
        return np.split(masks, np.cumsum([len(found) for found in detections])[:-1])

    def save(self, path, **notes) -> None:
        """Write the weights, the Config and any notes (what JSON can hold) to a file, whole or not at all."""
        arrays = {name: to_device(array, "cpu") for name, array in self.arrays().items()}
        config = dataclasses.asdict(self.config)
        photos = {"trained_on": list(self.trained_on), "validated_on": list(self.validated_on)}
        write_archive(path, arrays, {"kind": "minimrcnn model", "config": config, **photos, **notes})

    @classmethod
    def unfilled(cls, config: Config, arrays) -> MaskRCNN:
        """A model whose weights are to be replaced by arrays, and cannot be many more than these; see `Zeros`."""
        model = cls(config, seed=Zeros(arrays))
        model.generator = np.random.default_rng(0)
        return model

    @classmethod
    def load(cls, path, **fields) -> MaskRCNN:
        """The model that `save` wrote, or that of the checkpoint of a training that was stopped, ready to predict.

        Parameters
        ----------
        path : path
        **fields
            Fields of the Config to be set otherwise, of those that no array depends on:
            ``MaskRCNN.load(path, box_detections_per_img=300, box_nms_thresh=0.7)``.

        Raises
        ------
        DataError
            The file is truncated, not a model, or of another architecture; or a field is unknown, or cannot be what is
            given.
        """
        arrays, header = read_model(path)
        config = config_of(path, header, **fields)
        try:
            model = cls.unfilled(config, arrays)
            model.load_arrays(arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a model this version can load: {error}") from error
        model.trained_on, model.validated_on = (photos_of(header, use) for use in ("trained_on", "validated_on"))
        return model.eval()

    def load_state(self, state, norm_eps: float | None = None, partly: bool = False) -> list[str]:
        """Take over weights by their public names, those of torchvision, in torch's layout.

        Parameters
        ----------
        state : mapping of str to ndarray
            Of a detector, as `minimrcnn.weights.load` reads it from a .pth file; or of an ImageNet classifier, whose
            body becomes the backbone.
        norm_eps : float, optional
            Of the frozen batch normalization; by default the one the weights were trained with: 0 for torchvision's
            COCO detectors, 1e-5 for the others.
        partly : bool
            Take over what fits, instead of insisting on all of it; the backbone has to fit in any case.

        Returns
        -------
        list of str
            The arrays that kept their values, by our names.

        Raises
        ------
        DataError
            Names that are missing or unknown, or shapes that differ: all of them in one message; nothing was changed.
        """
        return weights.load_state(self, state, norm_eps, partly)

    def state(self) -> dict[str, np.ndarray]:
        """All weights by their public names and in torch's layout: for `minimrcnn.weights.save`, and for torch."""
        return weights.state_of(self)

    @contextlib.contextmanager
    def _inference(self):
        """Every part in inference, then in its mode again once no other thread's prediction is under way."""
        with MODES:
            if not self._under_way:
                self._modes = [(module, module.training) for module in self.modules()]
                self.eval()
            self._under_way += 1
        try:
            yield
        finally:
            with MODES:
                self._under_way -= 1
                if not self._under_way:
                    for module, training in self._modes:
                        module.training = training
                    self._modes = []

    def _check_list(self, pictures):
        if isinstance(pictures, (str, bytes)) or not isinstance(pictures, (list, tuple)):
            raise TypeError(f"pictures is a {type(pictures).__name__}, wanted a list of pictures; for one: [picture]")
        return pictures

    def _check_proposals(self, proposals, original_sizes, image_sizes) -> list[np.ndarray]:
        """The boxes a user gives, (R, 4) float32 in the pixels of the batch."""
        if len(proposals) != len(original_sizes):
            raise ValueError(f"predict: proposals for {len(proposals)} pictures, there are {len(original_sizes)}")
        checked = []
        for number, (boxes, original, size) in enumerate(zip(proposals, original_sizes, image_sizes, strict=True)):
            boxes = np.asarray(boxes, np.float32)
            if boxes.size == 0:
                boxes = boxes.reshape(0, 4)
            if boxes.ndim != 2 or boxes.shape[1] != 4:
                raise ValueError(f"predict: proposals[{number}] have shape {boxes.shape}, wanted (R, 4)")
            fine = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
            if not fine.all():
                row = int(np.argmin(fine))
                raise ValueError(
                    f"predict: proposals[{number}] row {row} is {boxes[row].tolist()}, "
                    "wanted finite x1, y1, x2, y2 with x2 >= x1 and y2 >= y1"
                )
            scale = np.float32([size[1] / original[1], size[0] / original[0]] * 2)
            checked.append(clip_boxes(boxes * scale, size))  # (R, 4)
        return checked

    def _check_targets(self, targets, original_sizes, image_sizes) -> list[Target]:
        """The targets in the pixels of the batch."""
        if len(targets) != len(original_sizes):
            raise ValueError(f"losses: {len(targets)} targets for {len(original_sizes)} pictures")
        for number, (target, size) in enumerate(zip(targets, original_sizes, strict=True)):
            check_target(target, size, f"targets[{number}]", self.config.num_classes)
        return list(map(resize_target, targets, image_sizes))
