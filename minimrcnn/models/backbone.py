"""Which backbone a Config names, and how much of it learns."""

from __future__ import annotations

from minimrcnn.models.resnet import ResNet, make_stage
from minimrcnn.models.vgg import VGG
from minimrcnn.nn import Module


def make_backbone(config, *, norm, generator) -> tuple[ResNet | VGG, Module | None]:
    """The backbone, and the last stage that a model on C4 keeps for its heads (res5), else None.

    Parameters
    ----------
    config : Config
    norm : callable
        ``norm(channels)`` makes a ResNet's normalization.
    generator : numpy Generator
        For the initial weights.

    Notes
    -----
    Of the five parts, conv1 (with its normalization) and four stages, or VGG's five stages, the first ones are frozen
    (`Config.trainable_backbone_layers`): what they learned from a million pictures, edges and colors, fits others too,
    and a backward pass that ends above them is shorter. They come first, so nothing below needs a gradient either.
    """
    if config.backbone == "vgg16":
        backbone, res5 = VGG(generator=generator), None
        parts = backbone.stages
    else:
        on_c4 = config.pyramid == "c4"
        backbone = ResNet(config.backbone, 3 if on_c4 else 4, norm=norm, generator=generator)
        res5 = make_stage(config.backbone, 3, norm=norm, generator=generator) if on_c4 else None
        parts = [backbone.stem, *backbone.stages] + ([res5] if on_c4 else [])
    for part in parts[: len(parts) - config.trainable_backbone_layers]:
        for parameter in part.parameters():
            parameter.requires_grad = False
    return backbone, res5
