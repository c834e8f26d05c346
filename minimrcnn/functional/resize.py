"""Resizing feature maps and pictures: nearest neighbor (the pyramid's way down) and bilinear."""

from __future__ import annotations

import numpy as np

from minimrcnn.device import empty_beside, module_of
from minimrcnn.geometry.resizing import find_nearest, find_neighbors
from minimrcnn.kernels import resize as kernels
from minimrcnn.tensor import Function, Tensor, tensors


def upsample_nearest(x, size) -> Tensor:
    """x (N, H, W, C) at another size: output row i takes row floor(i H / OH), columns alike.

    Parameters
    ----------
    x : Tensor (N, H, W, C)
    size : int or (int, int)
        (OH, OW).

    Returns
    -------
    Tensor (N, OH, OW, C)

    Raises
    ------
    ValueError
        The map or the size is empty, or x is not (N, H, W, C).
    """
    x, size = _check("upsample_nearest", x, size)
    xp, axes = module_of(x.data), []
    for inside, outside in zip(x.shape[1:3], size, strict=True):
        low = find_nearest(inside, outside, xp)
        axes.append((low, low, xp.zeros(outside, x.dtype)))
    return Resize.apply(x, axes=axes)


def resize_bilinear(x, size) -> Tensor:
    """x (N, H, W, C) at another size, every output the mixture of the four nearest places.

    Pixels are squares whose value sits at the center: output row i lies at (i + 1/2) H / OH - 1/2
    ("align_corners=False"); what lies beyond the outermost centers takes the edge's value. No smoothing when
    shrinking.

    Parameters and errors as `upsample_nearest`.
    """
    x, size = _check("resize_bilinear", x, size)
    xp, sides = module_of(x.data), zip(x.shape[1:3], size, strict=True)
    axes = [find_neighbors(inside, outside, x.dtype, xp) for inside, outside in sides]
    return Resize.apply(x, axes=axes)


def as_sides(size) -> tuple[int, ...]:
    """A size as whole numbers; a single one is both height and width. Whoever asks checks that there are two."""
    return tuple(int(side) for side in np.ravel(size)) * (2 if np.size(size) == 1 else 1)


def _check(function, x, size):
    (x,) = tensors(x)
    size = as_sides(size)
    if x.ndim != 4 or min(x.shape[1:3]) < 1:
        raise ValueError(f"{function}: x has shape {x.shape}, wanted (N, H, W, C) with at least one pixel")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{function}: size is {size}, wanted two numbers of at least 1")
    return x, size


class Resize(Function):
    """``axes``: for rows and for columns, where each output comes from: (low, high, part), see `kernels.resize`."""

    def forward(self, x, axes):
        xp = module_of(x)
        self.shape, self.axes = x.shape, axes
        y = empty_beside((x.shape[0], len(axes[0][0]), len(axes[1][0]), x.shape[3]), x)  # (N, OH, OW, C)
        kernels.resize(xp.ascontiguousarray(x), *axes[0], *axes[1], y)
        return y

    def backward(self, gradient):
        xp = module_of(gradient)
        x_gradient = empty_beside(self.shape, gradient)
        arguments = []
        for (low, high, part), side in zip(self.axes, self.shape[1:3], strict=True):
            places = xp.arange(side)
            first, last = xp.searchsorted(high, places, side="left"), xp.searchsorted(low, places, side="right")
            arguments += [low, high, part, first, last]  # outputs first .. last read the place
        kernels.resize_gradient(xp.ascontiguousarray(gradient), *arguments, x_gradient)
        return x_gradient
