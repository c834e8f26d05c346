"""The gradients of a convolution whose output's gradient is 0 but in a few cells.

A region proposal network learns from 256 anchors of a picture, while its convolutions go over 26,000 cells: all but one
in a hundred get no gradient, and there is nothing to multiply. The R cells that do are picked out, and then it is as if
there were R maps of one cell each:

1. patches (R, K) = what each cell saw, zeros beyond the map; K = KH * KW * Cin;
2. the weight's gradient (K, Cout) = patches' @ dy, where dy (R, Cout) is the output's gradient in these cells;
3. what flows back (R, K) = dy @ weight' is added to the places where it was seen, tap by tap: no two cells see the same
   place by the same tap.

So a weight or a map that is not finite makes no NaN where the gradient is 0.
"""

from __future__ import annotations

import numpy as np

from minimrcnn.device import empty_beside
from minimrcnn.kernels.elementwise import find_nonzero_rows

FEW = 8  # one cell in so many, where this takes half as long as Winograd's algorithm on all of them
MANY = 1024  # cells, of all maps, with which finding few of them takes less time than it saves


def find_few(y_gradient, x_shape) -> np.ndarray | None:
    """The cells (R,) of y_gradient (N, OH, OW, Cout) that are not all 0, counted row by row; None if R is not few, or
    x (N, H, W, Cin) is empty and nothing but padding was seen."""
    rows = y_gradient.reshape(-1, y_gradient.shape[3])
    if len(rows) < MANY or 0 in x_shape:
        return None
    cells = np.empty(len(rows) // FEW, np.int64)
    count = find_nonzero_rows(rows, cells)
    return None if count < 0 else cells[:count]


def find_places(cells, x_shape, size, kernel_size, stride, padding):
    """(R, KH * KW) what each tap of each cell saw: the row of x (N * H * W, Cin), 0 beyond the map, and whether it is
    on the map."""
    n, oy, ox = np.unravel_index(cells, (x_shape[0], *size))  # (R,)
    ky, kx = np.indices(kernel_size).reshape(2, -1)  # (KH * KW,)
    y, x = oy[:, None] * stride + ky - padding, ox[:, None] * stride + kx - padding  # (R, KH * KW)
    is_inside = (y >= 0) & (y < x_shape[1]) & (x >= 0) & (x < x_shape[2])
    return np.where(is_inside, (n[:, None] * x_shape[1] + y) * x_shape[2] + x, 0), is_inside


def gather_few(x, places, is_inside):
    """patches (R, 1, 1, K) of x (N, H, W, Cin)."""
    patches = x.reshape(-1, x.shape[3])[places]  # (R, KH * KW, Cin)
    patches[~is_inside] = 0
    return patches.reshape(len(places), 1, 1, places.shape[1] * x.shape[3])


def scatter_few(patches, places, is_inside, x_shape):
    """x (N, H, W, Cin) of patches (R, 1, 1, K), where what is seen more than once adds up."""
    x = empty_beside(x_shape, patches)
    x[...] = 0
    rows, patches = x.reshape(-1, x_shape[3]), patches.reshape(*places.shape, x_shape[3])
    for tap, inside in enumerate(is_inside.T):
        rows[places[inside, tap]] += patches[inside, tap]
    return x
