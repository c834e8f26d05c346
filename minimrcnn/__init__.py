"""Mask R-CNN from scratch in NumPy and Numba: small enough to read, fast enough to use.

>>> from minimrcnn import MaskRCNN
>>> model = MaskRCNN.load("model.npz")
>>> detections = model.predict(["photo.jpg"])[0]

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

HOMES = {
    "Config": "minimrcnn.config",
    "DataError": "minimrcnn.errors",
    "Detections": "minimrcnn.structures",
    "MaskRCNN": "minimrcnn.models.mask_rcnn",
    "Target": "minimrcnn.structures",
    "Tensor": "minimrcnn.tensor",
    "load_model": "minimrcnn.loading",
    "no_grad": "minimrcnn.tensor",
    "trace": "minimrcnn.models.mask_rcnn",
}

PARTS = ("functional", "geometry", "models", "nn", "weights")

__all__ = ["__version__", *HOMES, *PARTS]


def __getattr__(name: str):
    if name in PARTS:
        return importlib.import_module(f"minimrcnn.{name}")
    if name not in HOMES:
        raise AttributeError(f"module 'minimrcnn' has no attribute {name!r}; it has {', '.join(HOMES)}")
    value = globals()[name] = getattr(importlib.import_module(HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES, *PARTS})
