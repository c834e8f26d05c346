"""Resizing by nearest neighbor or bilinear interpolation: both mix two rows and two columns, nearest with weights 0
and 1.

Where output row i comes from is found once for each axis by the caller: rows ``low[i]`` and ``high[i]``, the second
with weight ``part[i]``. ``low`` and ``high`` never decrease, so the outputs that read source row s are one range,
``first[s]`` to ``last[s]``: the gradient gathers over that range, and every source place has one owner.

Shapes: x (N, H, W, C), y (N, OH, OW, C).
"""

from numba import prange

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.four import (
    FOUR,
    add_four,
    choose_four,
    find_first,
    find_lane,
    read_four,
    threads_of_cells,
    write_four,
)
from minimrcnn.kernels.twin import Twin, cuda


@compiled_task
def resize_row(x, low_y, high_y, part_y, low_x, high_x, part_x, n, i, y):
    F = x.dtype.type
    top, bottom, down = low_y[i], high_y[i], part_y[i]
    for j in range(y.shape[2]):
        left, right, across = low_x[j], high_x[j], part_x[j]
        if down == 0 and across == 0:
            for c in range(x.shape[3]):
                y[n, i, j, c] = x[n, top, left, c]
        else:
            for c in range(x.shape[3]):
                above = x[n, top, left, c] * (F(1) - across) + x[n, top, right, c] * across
                below = x[n, bottom, left, c] * (F(1) - across) + x[n, bottom, right, c] * across
                y[n, i, j, c] = above * (F(1) - down) + below * down


@compiled(parallel=True)
def resize_cpu(x, low_y, high_y, part_y, low_x, high_x, part_x, y):
    """y = the mixture of four places of x."""
    for row in prange(y.shape[0] * y.shape[1]):
        resize_row(x, low_y, high_y, part_y, low_x, high_x, part_x, row // y.shape[1], row % y.shape[1], y)


@compiled_task
def send_back_row(
    y_gradient, low_y, high_y, part_y, first_y, last_y, low_x, high_x, part_x, first_x, last_x, n, s, x_gradient
):
    F = y_gradient.dtype.type
    for t in range(x_gradient.shape[2]):
        for c in range(x_gradient.shape[3]):
            x_gradient[n, s, t, c] = 0
        for i in range(first_y[s], last_y[s]):
            down = (F(1) - part_y[i] if low_y[i] == s else F(0)) + (part_y[i] if high_y[i] == s else F(0))
            for j in range(first_x[t], last_x[t]):
                across = (F(1) - part_x[j] if low_x[j] == t else F(0)) + (part_x[j] if high_x[j] == t else F(0))
                weight = down * across
                for c in range(x_gradient.shape[3]):
                    x_gradient[n, s, t, c] += weight * y_gradient[n, i, j, c]


@compiled(parallel=True)
def resize_gradient_cpu(y_gradient, low_y, high_y, part_y, first_y, last_y, low_x, high_x, part_x, first_x, last_x,
                        x_gradient):  # fmt: skip
    """x_gradient: each place sums what it gave, over the outputs that read it."""
    for row in prange(x_gradient.shape[0] * x_gradient.shape[1]):
        send_back_row(y_gradient, low_y, high_y, part_y, first_y, last_y, low_x, high_x, part_x, first_x, last_x,
                      row // x_gradient.shape[1], row % x_gradient.shape[1], x_gradient)  # fmt: skip


def resize_cuda(x, low_y, high_y, part_y, low_x, high_x, part_x, y):
    """Four channels of an output for each thread."""
    F = x.dtype.type
    channels = x.shape[3]
    (n, i, j), lane, lanes = find_lane(cuda.grid(1), y.shape)
    if n >= len(y):
        return
    top, bottom, down = low_y[i], high_y[i], part_y[i]
    left, right, across = low_x[j], high_x[j], part_x[j]
    first, step = find_first(lane, lanes, channels)
    while first < channels:
        four = choose_four(first, step, channels)
        values = read_four(x, n, top, left, four)
        if down != F(0) or across != F(0):
            above = add_four((F(0), F(0), F(0), F(0)), F(1) - across, values)
            above = add_four(above, across, read_four(x, n, top, right, four))
            below = add_four((F(0), F(0), F(0), F(0)), F(1) - across, read_four(x, n, bottom, left, four))
            below = add_four(below, across, read_four(x, n, bottom, right, four))
            values = add_four((F(0), F(0), F(0), F(0)), F(1) - down, above)
            values = add_four(values, down, below)
        write_four(values, four, n, i, j, y)
        first += FOUR * lanes


def resize_gradient_cuda(y_gradient, low_y, high_y, part_y, first_y, last_y, low_x, high_x, part_x, first_x, last_x,
                         x_gradient):  # fmt: skip
    """Four channels of a source place for each thread, which gathers as on the CPU."""
    F = y_gradient.dtype.type
    channels = x_gradient.shape[3]
    (n, s, t), lane, lanes = find_lane(cuda.grid(1), x_gradient.shape)
    if n >= len(x_gradient):
        return
    first, step = find_first(lane, lanes, channels)
    while first < channels:
        four = choose_four(first, step, channels)
        total = (F(0), F(0), F(0), F(0))
        for i in range(first_y[s], last_y[s]):
            down = (F(1) - part_y[i] if low_y[i] == s else F(0)) + (part_y[i] if high_y[i] == s else F(0))
            for j in range(first_x[t], last_x[t]):
                across = (F(1) - part_x[j] if low_x[j] == t else F(0)) + (part_x[j] if high_x[j] == t else F(0))
                total = add_four(total, down * across, read_four(y_gradient, n, i, j, four))
        write_four(total, four, n, s, t, x_gradient)
        first += FOUR * lanes


# resize(x (N,H,W,C), low_y (OH,) int64, high_y (OH,) int64, part_y (OH,), low_x (OW,), high_x, part_x, y (N,OH,OW,C))
resize = Twin("resize", resize_cpu, resize_cuda, threads=threads_of_cells)

# resize_gradient(y_gradient (N,OH,OW,C), low_y, high_y, part_y, first_y (H,) int64, last_y (H,) int64,
#                 low_x, high_x, part_x, first_x (W,), last_x, x_gradient (N,H,W,C))
resize_gradient = Twin(
    "resize_gradient",
    resize_gradient_cpu,
    resize_gradient_cuda,
    threads=threads_of_cells,
)
