"""Masks between two frames: cut out of the picture for the mask head to learn, and pasted back where it found them."""

from __future__ import annotations

import numpy as np

from minimrcnn.device import beside, module_of, to_device
from minimrcnn.geometry.boxes import check_boxes
from minimrcnn.kernels.crop_masks import crop_masks as crop_masks_twin
from minimrcnn.kernels.paste_masks import paste_masks as paste_masks_twin
from minimrcnn.kernels.paste_masks import paste_masks_bool as paste_masks_bool_twin


def crop_masks(masks, rois, matched, size: int) -> np.ndarray:
    """The targets of the mask head: each RoI's object, cut out by the RoI (He et al. 2017, section 3).

    Parameters
    ----------
    masks : array (G, H, W), uint8 or bool
        0 or 1.
    rois : array (R, 4)
    matched : integer array (R,)
        The row of `masks` that each RoI covers.
    size : int
        M, the side of the targets.

    Returns
    -------
    ndarray (R, M, M) float32
        Soft, 0 to 1: RoIAlign of the mask, as many samples as pixels, not shifted (torchvision's rule).

    Raises
    ------
    ValueError
        If the shapes do not fit or a RoI is matched to no mask.
    """
    xp = module_of(masks)
    masks = xp.asarray(masks)
    if masks.shape == (0,):
        masks = xp.zeros((0, 1, 1), np.uint8)
    if masks.ndim != 3 or masks.dtype not in (np.uint8, np.bool_):
        raise ValueError(f"crop_masks: masks is {masks.dtype} {masks.shape}, wanted uint8 or bool (G, H, W)")
    rois = check_boxes("crop_masks", "rois", beside(rois, masks)).astype(np.float32, copy=False)
    matched = np.ascontiguousarray(to_device(matched, "cpu"), np.int64)
    if matched.shape != (len(rois),):
        raise ValueError(f"crop_masks: matched {matched.shape} for rois {rois.shape}, wanted one mask a RoI")
    if len(matched) and (matched.min() < 0 or matched.max() >= len(masks)):
        raise ValueError(
            f"crop_masks: matched goes from {matched.min()} to {matched.max()}, wanted rows of masks {masks.shape}"
        )
    output = xp.zeros((len(rois), size, size), np.float32)  # (R, M, M)
    if masks.size > 0:
        crop_masks_twin(xp.ascontiguousarray(masks).view(np.uint8), rois, beside(matched, masks), output)
    return output


def paste_masks(masks, boxes, size: tuple[int, int]) -> np.ndarray:
    """Masks stretched over their boxes in the picture, soft.

    Parameters
    ----------
    masks : array (D, M, M)
        Probabilities.
    boxes : array (D, 4)
    size : pair
        (height, width) of the picture.

    Returns
    -------
    ndarray (D, H, W) float32
        0 outside of the boxes; 4 bytes a pixel and detection, see `paste_masks_bool`.
    """
    masks, boxes = _check_masks("paste_masks", masks, boxes)
    output = module_of(masks).zeros((len(masks), *size), np.float32)  # (D, H, W)
    paste_masks_twin(masks, boxes, output)
    return output


def paste_masks_bool(masks, boxes, size: tuple[int, int], threshold: float = 0.5) -> np.ndarray:
    """`paste_masks(masks, boxes, size) > threshold` without the float picture in between: (D, H, W) bool.

    Raises
    ------
    ValueError
        If `threshold` is negative: what lies outside of the boxes is never part of a mask.
    """
    if not threshold >= 0:
        raise ValueError(f"paste_masks_bool: threshold is {threshold}, wanted 0 or more")
    masks, boxes = _check_masks("paste_masks_bool", masks, boxes)
    output = module_of(masks).zeros((len(masks), *size), np.bool_)  # (D, H, W)
    paste_masks_bool_twin(masks, boxes, float(threshold), output)
    return output


def _check_masks(function: str, masks, boxes) -> tuple[np.ndarray, np.ndarray]:
    masks = module_of(masks).ascontiguousarray(masks, np.float32)
    if masks.shape == (0,):  # np.array([]) is no masks
        masks = masks.reshape(0, 1, 1)
    boxes = check_boxes(function, "boxes", beside(boxes, masks)).astype(np.float32, copy=False)
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or masks.shape[1] == 0 or len(masks) != len(boxes):
        raise ValueError(f"{function}: masks {masks.shape} for boxes {boxes.shape}, wanted (D, M, M) and (D, 4)")
    return masks, boxes
