"""Max pooling: the largest value in a window that moves over the map; padding never wins.

The forward pass remembers which tap of the window won (the first of equals), as one byte for each output; the gradient
gathers: each input place looks at the windows it lies in and takes the gradient of those it won.

Shapes: x (N, H, W, C), y and taps (N, OH, OW, C).
"""

import numpy as np
from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.four import (
    FOUR,
    add_four,
    choose_four,
    find_first,
    find_lane,
    read_four,
    select_four,
    take_won,
    threads_of_cells,
    write_four,
)
from minimrcnn.kernels.twin import Twin, cuda, divide


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


@register_jitable
def keep_larger(best, winner, values, tap):
    """The largest so far and their taps, after ``values``, which all are of this tap."""
    which = (
        values[0] > best[0] or values[0] != values[0],
        values[1] > best[1] or values[1] != values[1],
        values[2] > best[2] or values[2] != values[2],
        values[3] > best[3] or values[3] != values[3],
    )
    return select_four(which, values, best), select_four(which, (tap, tap, tap, tap), winner)


def max_pool_cuda(x, kernel, stride, padding, taps, y):
    """Four channels of an output for each thread."""
    F = x.dtype.type
    channels = x.shape[3]
    (n, oy, ox), lane, lanes = find_lane(cuda.grid(1), y.shape)
    if n >= len(y):
        return
    top, left = oy * stride - padding, ox * stride - padding
    first_row, last_row = np.int32(max(0, top)), np.int32(min(top + kernel, x.shape[1]))
    first_column, last_column = np.int32(max(0, left)), np.int32(min(left + kernel, x.shape[2]))
    first, step = find_first(lane, lanes, channels)
    while first < channels:
        four = choose_four(first, step, channels)
        least, tap = F(-np.inf), np.int32((first_row - top) * kernel + first_column - left)
        best, winner = (least, least, least, least), (tap, tap, tap, tap)
        for row in range(first_row, last_row):
            tap = np.int32((row - top) * kernel + first_column - left)
            for column in range(first_column, last_column):
                best, winner = keep_larger(best, winner, read_four(x, n, row, column, four), tap)
                tap = np.int32(tap + 1)
        write_four(best, four, n, oy, ox, y)
        write_four(winner, four, n, oy, ox, taps)
        first += FOUR * lanes


def max_pool_gradient_cuda(y_gradient, taps, kernel, stride, padding, x_gradient):
    """Four channels of an input for each thread, which gathers as on the CPU."""
    F = x_gradient.dtype.type
    channels = x_gradient.shape[3]
    (n, iy, ix), lane, lanes = find_lane(cuda.grid(1), x_gradient.shape)
    if n >= len(x_gradient):
        return
    last_oy, first_ky = divide(iy + padding, stride)
    last_ox, first_kx = divide(ix + padding, stride)
    first, step = find_first(lane, lanes, channels)
    while first < channels:
        four = choose_four(first, step, channels)
        total = (F(0), F(0), F(0), F(0))
        ky, oy = first_ky, last_oy
        while ky < kernel:
            kx, ox = first_kx, last_ox
            while kx < kernel:
                if 0 <= oy < y_gradient.shape[1] and 0 <= ox < y_gradient.shape[2]:
                    won = take_won(
                        read_four(y_gradient, n, oy, ox, four), read_four(taps, n, oy, ox, four), ky * kernel + kx, F
                    )
                    total = add_four(total, F(1), won)
                kx, ox = kx + stride, ox - 1
            ky, oy = ky + stride, oy - 1
        write_four(total, four, n, iy, ix, x_gradient)
        first += FOUR * lanes


# max_pool(x (N,H,W,C), kernel: int, stride: int, padding: int, taps (N,OH,OW,C) uint8, y (N,OH,OW,C))
max_pool = Twin("max_pool", max_pool_cpu, max_pool_cuda, threads=threads_of_cells)

# max_pool_gradient(y_gradient (N,OH,OW,C), taps, kernel, stride, padding, x_gradient (N,H,W,C))
max_pool_gradient = Twin(
    "max_pool_gradient",
    max_pool_gradient_cpu,
    max_pool_gradient_cuda,
    threads=threads_of_cells,
)
