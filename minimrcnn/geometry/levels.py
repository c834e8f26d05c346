"""Which level of the pyramid a RoI is cut from."""

from __future__ import annotations

import numpy as np

from minimrcnn.geometry.boxes import box_area


def assign_levels(
    boxes, canonical_size: float = 224, canonical_level: int = 4, lowest: int = 2, highest: int = 5
) -> np.ndarray:
    """The level of every box by its size: k = floor(k0 + log2(sqrt(w h) / 224)) (Lin et al. 2017, equation 1).

    Parameters
    ----------
    boxes : array (R, 4)
        In pixels of the (resized) picture.
    canonical_size : float
        A box of this side, the size ImageNet networks are trained on, goes to `canonical_level`.
    canonical_level, lowest, highest : int
        Level numbers; what would be beyond the lowest or highest goes there.

    Returns
    -------
    ndarray (R,) int64
        Level numbers, `lowest` to `highest`.

    Notes
    -----
    torchvision adds 1e-6 before cutting off: a box of 223.9999, 224 but for rounding, must not fall a level lower.
    """
    side = np.sqrt(np.maximum(box_area(boxes), 0)).astype(np.float32)
    with np.errstate(divide="ignore"):  # a box of no area is infinitely small
        level = np.floor(canonical_level + np.log2(side / np.float32(canonical_size)) + np.float32(1e-6))
    return np.nan_to_num(level.clip(lowest, highest), nan=lowest).astype(np.int64)  # (R,)
