"""Max pooling of a feature map."""

from __future__ import annotations

import numpy as np

from minimrcnn.device import empty_beside, module_of
from minimrcnn.functional.conv_shapes import output_size
from minimrcnn.kernels import pooling
from minimrcnn.tensor import Function, Tensor, tensors


def max_pool2d(x, kernel: int, stride: int, padding: int = 0) -> Tensor:
    """The largest value of every window.

    Parameters
    ----------
    x : Tensor (N, H, W, C)
    kernel, stride, padding : int
        Pixels, the same on both axes. Padding never wins; it may be at most half the kernel.

    Returns
    -------
    Tensor (N, (H + 2 padding - kernel) // stride + 1, ..., C)

    Raises
    ------
    ValueError
        The window does not fit.
    """
    (x,) = tensors(x)
    if x.ndim != 4:
        raise ValueError(f"max_pool2d: x has shape {x.shape}, wanted (N, H, W, C)")
    if not (1 <= kernel <= 15 and stride >= 1 and 0 <= 2 * padding <= kernel):
        raise ValueError(
            f"max_pool2d: kernel {kernel}, stride {stride}, padding {padding}; "
            "wanted a kernel of 1 to 15, a stride of at least 1 and a padding of at most half the kernel"
        )
    if min(x.shape[1:3]) < 1 or min(output_size(x.shape[1:3], (kernel, kernel), stride, padding)) < 1:
        raise ValueError(
            f"max_pool2d: a map of {x.shape[1]}x{x.shape[2]} with padding {padding} is smaller than the kernel"
        )
    return MaxPool.apply(x, kernel=kernel, stride=stride, padding=padding)


class MaxPool(Function):
    def forward(self, x, kernel, stride, padding):
        xp = module_of(x)
        size = output_size(x.shape[1:3], (kernel, kernel), stride, padding)
        y = empty_beside((x.shape[0], *size, x.shape[3]), x)  # (N, OH, OW, C)
        taps = empty_beside(y.shape, x, np.uint8)
        pooling.max_pool(xp.ascontiguousarray(x), kernel, stride, padding, taps, y)
        self.shape, self.options, self.taps = x.shape, (kernel, stride, padding), taps
        return y

    def backward(self, gradient):
        xp = module_of(gradient)
        x_gradient = empty_beside(self.shape, gradient)
        pooling.max_pool_gradient(xp.ascontiguousarray(gradient), self.taps, *self.options, x_gradient)
        return x_gradient
