"""The mask head: which pixels of a RoI belong to its object.

Four 3x3 convolutions on a 14x14 crop, a transposed convolution to 28x28, and a 1x1 convolution to one mask for each
class. Convolutions keep every pixel at its place; the fully connected layers of the other head here have to learn where
each is, need more weights and do worse (31.5 against 33.6 mask AP in the paper).

Each mask has its own sigmoid, and only the mask of the RoI's class is trained or shown: the class is the box head's
business, so the classes need not compete for pixels. Two other ways can be chosen to compare: one mask for all classes,
or a softmax over them.

Source: He et al. 2017, Mask R-CNN, section 3, figure 4 and table 2e.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from minimrcnn import geometry
from minimrcnn.device import beside, module_of, to_device
from minimrcnn.functional import mask_loss
from minimrcnn.functional.math import sigmoid_array, softmax_array
from minimrcnn.models.box_head import make_convs
from minimrcnn.models.stages import record
from minimrcnn.nn import Conv2d, ConvTranspose2d, Linear, Module, he_normal, uniform


class MaskHead(Module):
    """What both mask heads have in common: crops (R, S, S, C) -> mask logits (R, 2 S, 2 S, K); what they are held to.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config):
        self.config = config
        self.masks = 1 if config.mask_loss == "agnostic" else config.num_classes

    def losses(self, logits, samples, targets) -> dict:
        """``loss_mask`` over the positives of all pictures; the targets are the objects' masks, cut out by the RoIs."""
        wanted = [
            geometry.crop_masks(
                target.masks, sample.boxes[sample.positive], sample.matched[sample.positive], logits.shape[1]
            )
            for sample, target in zip(samples, targets, strict=True)
        ]
        labels = np.concatenate([sample.labels[sample.positive] for sample in samples])  # (positives,)
        return {"loss_mask": mask_loss(logits, np.concatenate(wanted), labels, self.config.mask_loss)}

    def choose(self, logits, labels) -> np.ndarray:
        """(R, M, M) float32: for every RoI the mask of its class, as probabilities, from logits (R, M, M, K)."""
        logits, kind = logits.data, self.config.mask_loss
        if kind == "softmax":
            logits = softmax_array(logits)
        rows = module_of(logits).arange(len(labels))
        own = logits[rows, :, :, 0 if kind == "agnostic" else beside(labels, logits)]
        return to_device(own if kind == "softmax" else sigmoid_array(own), "cpu")


class ConvolutionalMaskHead(MaskHead):
    """Convolutions, a transposed one, and one of 1x1: a small fully convolutional network.

    Parameters
    ----------
    config : Config
    channels : int
        Of the crops.
    norm : callable or None
        ``norm(channels)`` makes a normalization after each 3x3 convolution; None: none, as in the paper.
    generator : numpy Generator
    """

    def __init__(self, config, channels, *, norm, generator):
        super().__init__(config)
        self.convs = make_convs(channels, config.mask_head_channels, norm=norm, generator=generator)
        channels_in = config.mask_head_channels[-1] if self.convs else channels
        width = config.mask_upsample_channels or channels_in
        self.upsample = ConvTranspose2d(channels_in, width, 2, 2, generator=generator)
        self.logits = Conv2d(width, self.masks, 1, generator=generator)

    def forward(self, crops):
        x = crops
        for conv in self.convs:
            x = conv(x, relu=True)  # (R, S, S, C)
        logits = self.logits(self.upsample(x, relu=True))  # (R, 2S, 2S, K)
        record(mask_logits=logits)
        return logits


class MLPMaskHead(MaskHead):
    """Fully connected layers, the last of them to all pixels of all masks (He et al. 2017, table 2e).

    Parameters
    ----------
    config : Config
    channels, side : int
        Of the crops.
    generator : numpy Generator
    """

    def __init__(self, config, channels, side, *, generator):
        super().__init__(config)
        widths = side**2 * channels, *config.mask_mlp_channels
        for number, pair in enumerate(itertools.pairwise(widths), 1):
            setattr(self, f"fc{number}", Linear(*pair, generator=generator, initialize=he_normal))
        self.size = 2 * side, 2 * side, self.masks
        self.logits = Linear(widths[-1], math.prod(self.size), generator=generator, initialize=uniform)

    def forward(self, crops):
        x = crops.reshape(len(crops), math.prod(crops.shape[1:]))  # (R, S * S * C)
        for number in range(1, 1 + len(self.config.mask_mlp_channels)):
            x = getattr(self, f"fc{number}")(x, relu=True)  # (R, width)
        logits = self.logits(x).reshape(len(crops), *self.size)  # (R, 2S, 2S, K)
        record(mask_logits=logits)
        return logits
