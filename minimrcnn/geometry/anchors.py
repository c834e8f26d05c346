"""Anchors: the boxes every cell of every level proposes before the network says anything (Ren et al. 2015, 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def make_anchors(
    sizes: Sequence[float],
    ratios: Sequence[float],
    level_sizes: Sequence[tuple[int, int]],
    image_size: tuple[int, int],
) -> list[np.ndarray]:
    """The anchors of every level, by row, column, then ratio.

    Every anchor of a level has the same area. As the published weights want it, a cell's anchors are rounded to whole
    pixels about its upper left corner, and the stride is the whole part of image size over level size.

    Parameters
    ----------
    sizes : L floats
        The side of each level's square anchor, in pixels.
    ratios : A floats
        Height over width.
    level_sizes : L pairs
        (height, width) of each level's map, in cells.
    image_size : pair
        (height, width) of the padded picture, in pixels.

    Returns
    -------
    list of L ndarray (height * width * A, 4) float32

    Raises
    ------
    ValueError
        If there is not one size a level.

    Examples
    --------
    >>> make_anchors([32], [0.5, 1, 2], [(1, 1)], (32, 32))[0].tolist()[0]
    [-23.0, -11.0, 23.0, 11.0]
    """
    if len(sizes) != len(level_sizes):
        raise ValueError(f"make_anchors: {len(sizes)} sizes for {len(level_sizes)} levels, wanted one a level")
    root = np.sqrt(np.asarray(ratios, np.float32))  # (A,)
    levels = []
    for size, (rows, columns) in zip(sizes, level_sizes, strict=True):
        half = np.stack([(1 / root) * np.float32(size), root * np.float32(size)], axis=1) / 2  # (A, 2) width, height
        cell = np.concatenate([-half, half], axis=1).round()  # (A, 4)
        stride_y, stride_x = image_size[0] // max(rows, 1), image_size[1] // max(columns, 1)
        y, x = np.meshgrid(np.arange(rows) * stride_y, np.arange(columns) * stride_x, indexing="ij")  # (H, W)
        corner = np.stack([x, y, x, y], axis=-1).astype(np.float32)  # (H, W, 4)
        levels.append((corner[:, :, None] + cell).reshape(-1, 4))  # (H*W*A, 4)
    return levels
