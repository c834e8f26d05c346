"""The mask head: which pixels of a RoI belong to its object.

Four 3x3 convolutions on a 14x14 crop, a transposed convolution to 28x28, and a 1x1 convolution to one mask for each
class. Each mask has its own sigmoid, and only the mask of the RoI's class is trained or shown: the class is the box
head's business, so the classes need not compete for pixels. Two other ways can be chosen to compare: one mask for all
classes, or a softmax over them.

Source: He et al. 2017, Mask R-CNN, section 3 and figure 4, right.
"""

from __future__ import annotations

import numpy as np

from minimrcnn import geometry
from minimrcnn.functional import mask_loss
from minimrcnn.functional.math import sigmoid_array, softmax_array
from minimrcnn.models.stages import record
from minimrcnn.nn import Conv2d, ConvNorm, ConvTranspose2d, Module


class MaskHead(Module):
    """Crops (R, S, S, C) -> mask logits (R, 2 S, 2 S, K).

    Parameters
    ----------
    config : Config
    norm : callable or None
        ``norm(channels)`` makes a normalization after each convolution; None: none, as in the paper.
    generator : numpy Generator
    """

    def __init__(self, config, *, norm, generator):
        self.config = config
        self.convs = []
        channels_in = config.pyramid_channels
        for channels in config.mask_head_channels:
            if norm is not None:
                self.convs.append(ConvNorm(channels_in, channels, 3, norm=norm, generator=generator))
            else:
                self.convs.append(Conv2d(channels_in, channels, 3, padding=1, generator=generator))
            channels_in = channels
        masks = 1 if config.mask_loss == "agnostic" else config.num_classes
        self.upsample = ConvTranspose2d(channels_in, channels_in, 2, 2, generator=generator)
        self.logits = Conv2d(channels_in, masks, 1, generator=generator)

    def forward(self, crops):
        x = crops
        for conv in self.convs:
            x = conv(x, relu=True)  # (R, S, S, C)
        logits = self.logits(self.upsample(x, relu=True))  # (R, 2S, 2S, K)
        record(mask_crops=crops, mask_logits=logits)
        return logits

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
        logits = logits.numpy()
        if self.config.mask_loss == "softmax":
            logits = softmax_array(logits)
        own = logits[np.arange(len(labels)), :, :, 0 if self.config.mask_loss == "agnostic" else labels]
        return own if self.config.mask_loss == "softmax" else sigmoid_array(own)
