"""The network's parts, and by name the models that were published; loaded when they are first used."""

from __future__ import annotations

import importlib

PUBLISHED = (
    "fasterrcnn_resnet50_c4",
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_c4",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet101_fpn",
    "maskrcnn_resnext101_fpn",
    "maskrcnn_vgg16_fpn",
)

__all__ = [*PUBLISHED]


def __getattr__(name: str):
    if name not in PUBLISHED:
        raise AttributeError(f"module 'minimrcnn.models' has no attribute {name!r}; it has {', '.join(PUBLISHED)}")
    return getattr(importlib.import_module("minimrcnn.models.published"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLISHED})
