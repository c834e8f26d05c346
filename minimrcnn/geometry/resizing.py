"""Where the rows of a resized picture, map or mask come from, or its columns: axis by axis, for all who resize.

Pixels are squares. ``side`` is how many there are along the axis, ``wanted`` how many there shall be; ``xp`` is the
array module of the answer.
"""

from __future__ import annotations

import numpy as np


def find_nearest(side: int, wanted: int, xp=np):
    """(wanted,) the place that stands for each: row i takes row floor(i side / wanted)."""
    return xp.arange(wanted) * side // wanted


def find_neighbors(side: int, wanted: int, dtype, xp=np) -> tuple:
    """The two places that each is mixed from, and the second's share of the type ``dtype``, three of (wanted,).

    The value of a pixel sits at its center: row i lies at (i + 1/2) side / wanted - 1/2 ("align_corners=False"); what
    lies beyond the outermost centers takes the edge's value.
    """
    position = xp.clip((xp.arange(wanted) + 0.5) * (side / wanted) - 0.5, 0, side - 1)
    low = position.astype(np.int64)
    return low, xp.minimum(low + 1, side - 1), (position - low).astype(dtype)
