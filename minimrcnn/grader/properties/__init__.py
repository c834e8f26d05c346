"""The properties of all thirteen functions; importing them enters them into `minimrcnn.grader.claims.PROPERTIES`."""

from minimrcnn.grader.claims import PROPERTIES
from minimrcnn.grader.properties import (
    anchors_and_levels,
    bilinear,
    box_code,
    conv,
    masks,
    overlap,
    paste_masks,
    roi_align,
    roi_align_gradient,
    roi_pool,
)

__all__ = [
    "PROPERTIES",
    "anchors_and_levels",
    "bilinear",
    "box_code",
    "conv",
    "masks",
    "overlap",
    "paste_masks",
    "roi_align",
    "roi_align_gradient",
    "roi_pool",
]
