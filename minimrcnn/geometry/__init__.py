"""Boxes, anchors, matches and masks: plain NumPy arrays on the host, in and out; nothing here has a gradient.

What has a kernel for the GPU (`box_iou`, `nms`, `crop_masks`, `paste_masks`, `paste_masks_bool`) answers there if its
input is there. The model hands all of it host arrays: they are few boxes, and pictures that are on the host anyway.

Boxes are float32 ``x1, y1, x2, y2`` in continuous pixel coordinates, half-open (width = x2 - x1). Sizes are
``(height, width)``. Every function takes anything NumPy can read as an array of the right shape, checks it, and answers
empty input with empty output.

Letters: P, Q boxes, A anchors, R RoIs, G objects, D detections, L levels, M mask side, H W picture.
"""

from minimrcnn.geometry.anchors import make_anchors
from minimrcnn.geometry.boxes import (
    batched_nms,
    box_area,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    keep_large_boxes,
    nms,
)
from minimrcnn.geometry.levels import assign_levels
from minimrcnn.geometry.masks import crop_masks, paste_masks, paste_masks_bool
from minimrcnn.geometry.matching import match, sample_balanced

__all__ = [
    "assign_levels",
    "batched_nms",
    "box_area",
    "box_iou",
    "clip_boxes",
    "crop_masks",
    "decode_boxes",
    "encode_boxes",
    "keep_large_boxes",
    "make_anchors",
    "match",
    "nms",
    "paste_masks",
    "paste_masks_bool",
    "sample_balanced",
]
