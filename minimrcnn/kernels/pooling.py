"""Max pooling: the largest value in a window that moves over the map; padding never wins.

The forward pass remembers which tap of the window won (the first of equals), as one byte for each output; the gradient
gathers: each input place looks at the windows it lies in and takes the gradient of those it won.

Shapes: x (N, H, W, C), y and taps (N, OH, OW, C).
"""

from numba import njit, prange

from minimrcnn.kernels.twin import Twin, compiled_task


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


@njit(parallel=True, cache=True, error_model="numpy")
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


@njit(parallel=True, cache=True, error_model="numpy")
def max_pool_gradient_cpu(y_gradient, taps, kernel, stride, padding, x_gradient):
    """x_gradient from the gradient of the outputs that each input won."""
    for row in prange(x_gradient.shape[0] * x_gradient.shape[1]):
        unpool_row(
            y_gradient, taps, row // x_gradient.shape[1], row % x_gradient.shape[1], kernel, stride, padding, x_gradient
        )


max_pool = Twin("max_pool", max_pool_cpu)
max_pool_gradient = Twin("max_pool_gradient", max_pool_gradient_cpu)
