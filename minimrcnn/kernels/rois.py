"""What RoIAlign and RoI pooling share: which image a RoI is of, who cuts it when, and who owns which gradients.

Forwards, RoIs come by their scores, from all over the picture, and each needs about as many cells as a second-level
cache holds. But proposals crowd around objects and share most of these cells. Taken stripe by stripe, and from left to
right within a stripe, the cells of one are still in the cache for the next: beside other programs, 1000 RoIs of 7x7
took three quarters of the time with RoIAlign, and three fifths with RoI pooling. Each crop stays where it belongs.

Backwards, each band of rows of the map has one owner, who walks the RoIs that reach it: nothing is written twice, and
sums do not depend on the number of threads. They go from left to right, again for the caches: RoI pooling's gradient
took 23.5 instead of 28 ms.
"""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import clear

STRIPE = 16  # rows of the map


@register_jitable
def find_image(number, images, F):
    """The image index as an integer, -1 if there is no such image (NaN fails the test)."""
    if number >= F(0) and number < F(images):
        return int(number)
    return -1


def order_visits(rois: np.ndarray, spatial_scale: float) -> np.ndarray:
    """The numbers (R,) of RoIs (R, 5), image by image, stripe by stripe, from left to right."""
    with np.errstate(all="ignore"):  # RoIs that are infinite or not numbers are anywhere
        across, down = rois[:, 1] + rois[:, 3], rois[:, 2] + rois[:, 4]  # twice the centers, pixels
        stripe = np.floor(down * (spatial_scale / (2 * STRIPE)))
    return np.lexsort((across, stripe, rois[:, 0]))


def order_across(rois: np.ndarray) -> np.ndarray:
    """The numbers (R,) of RoIs (R, 5), image by image, from left to right."""
    with np.errstate(all="ignore"):
        return np.lexsort((rois[:, 1] + rois[:, 3], rois[:, 0]))


@register_jitable
def count_bands(images, height, rows, threads):
    """(bands of an image, units of work): as many units for each thread."""
    bands = (height + rows - 1) // rows
    return bands, (images * bands + threads - 1) // threads * threads


@register_jitable
def find_band(unit, units, bands, height, rows, threads):
    """The rows of a unit of work: (image, first row, last row + 1). The image may be one too many.

    A thread does so many units one after the other, and they are bands apart: RoIs crowd, and half of the map may have
    most of them.
    """
    each = units // threads
    band = unit % each * threads + unit // each
    first = band % bands * rows
    return band // bands, first, min(first + rows, height)


@register_jitable
def clear_band(features_gradient, image, first, last):
    """Zeros in rows first..last-1 of an image."""
    for row in range(first, last):
        clear(features_gradient[image, row])
