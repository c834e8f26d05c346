"""Max pooling: the largest value in a window that moves over the map; padding never wins.

The forward pass remembers which tap of the window won (the first of equals), as one byte for each output; the gradient
gathers: each input place looks at the windows it lies in and takes the gradient of those it won.

Shapes: x (N, H, W, C), y and taps (N, OH, OW, C).
"""

from numba import prange

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.twin import Twin, cuda, find_place


@compiled_task
def pool_row(x, n, oy, kernel, stride, padding, taps, y):
    """One row of outputs; NaN wins, as it should be seen."""
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    for ox in range(y.shape[2]):
        begin = True
        for ky in range(max(0, padding - oy * stride), min(kernel, height + padding - oy * stride)):
            for kx in range(max(0, padding - ox * stride), min(kernel, width + padding - ox * stride)):
                iy, ix, tap = oy * stride + ky - padding, ox * stride + kx - padding, ky * kernel + kx
                for c in range(channels):
                    value = x[n, iy, ix, c]
                    if begin or value > y[n, oy, ox, c] or value != value:
                        y[n, oy, ox, c] = value
                        taps[n, oy, ox, c] = tap
                begin = False


@compiled(parallel=True)
def max_pool_cpu(x, kernel, stride, padding, taps, y):
    """y and the winning taps (uint8) of every window of ``kernel`` x ``kernel``."""
    for row in prange(y.shape[0] * y.shape[1]):
        pool_row(x, row // y.shape[1], row % y.shape[1], kernel, stride, padding, taps, y)


@compiled_task
def unpool_row(y_gradient, taps, n, iy, kernel, stride, padding, x_gradient):
    """One row of inputs: the windows that reach place i are (i + padding - k) / stride for taps k."""
    channels = x_gradient.shape[3]
    for ix in range(x_gradient.shape[2]):
        for c in range(channels):
            x_gradient[n, iy, ix, c] = 0
        for ky in range((iy + padding) % stride, kernel, stride):
            oy = (iy + padding - ky) // stride
            for kx in range((ix + padding) % stride, kernel, stride):
                ox = (ix + padding - kx) // stride
                if 0 <= oy < y_gradient.shape[1] and 0 <= ox < y_gradient.shape[2]:
                    for c in range(channels):
                        if taps[n, oy, ox, c] == ky * kernel + kx:
                            x_gradient[n, iy, ix, c] += y_gradient[n, oy, ox, c]


@compiled(parallel=True)
def max_pool_gradient_cpu(y_gradient, taps, kernel, stride, padding, x_gradient):
    """x_gradient from the gradient of the outputs that each input won."""
    for row in prange(x_gradient.shape[0] * x_gradient.shape[1]):
        unpool_row(
            y_gradient, taps, row // x_gradient.shape[1], row % x_gradient.shape[1], kernel, stride, padding, x_gradient
        )


def max_pool_cuda(x, kernel, stride, padding, taps, y):
    """One thread for each output."""
    element = cuda.grid(1)
    if element >= y.size:
        return
    n, oy, ox, c = find_place(element, y.shape)
    top, left = oy * stride - padding, ox * stride - padding
    best, winner = x.dtype.type(0), -1
    for ky in range(max(0, -top), min(kernel, x.shape[1] - top)):
        for kx in range(max(0, -left), min(kernel, x.shape[2] - left)):
            value = x[n, top + ky, left + kx, c]
            if winner < 0 or value > best or value != value:
                best, winner = value, ky * kernel + kx
    y[n, oy, ox, c] = best
    taps[n, oy, ox, c] = winner


def max_pool_gradient_cuda(y_gradient, taps, kernel, stride, padding, x_gradient):
    """One thread for each input, which gathers as on the CPU."""
    element = cuda.grid(1)
    if element >= x_gradient.size:
        return
    n, iy, ix, c = find_place(element, x_gradient.shape)
    total = x_gradient.dtype.type(0)
    for ky in range((iy + padding) % stride, kernel, stride):
        oy = (iy + padding - ky) // stride
        for kx in range((ix + padding) % stride, kernel, stride):
            ox = (ix + padding - kx) // stride
            if 0 <= oy < y_gradient.shape[1] and 0 <= ox < y_gradient.shape[2]:
                if taps[n, oy, ox, c] == ky * kernel + kx:
                    total += y_gradient[n, oy, ox, c]
    x_gradient[n, iy, ix, c] = total


# max_pool(x (N,H,W,C), kernel: int, stride: int, padding: int, taps (N,OH,OW,C) uint8, y (N,OH,OW,C))
max_pool = Twin("max_pool", max_pool_cpu, max_pool_cuda)

# max_pool_gradient(y_gradient (N,OH,OW,C), taps, kernel, stride, padding, x_gradient (N,H,W,C))
max_pool_gradient = Twin("max_pool_gradient", max_pool_gradient_cpu, max_pool_gradient_cuda)
