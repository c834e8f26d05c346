"""Group and batch normalization, in as few passes over the map as there can be.

Both divide the channels' values into sets, subtract each set's mean, divide by its deviation, then scale and shift
every channel: y = (x - mean) / deviation * scale + shift. A set is one picture's group of channels (group
normalization), or one channel over the whole batch (batch normalization: the batch is then handed in as one picture
with a group for each channel).

Forward: one pass sums x and x^2 for each channel, in float64, so that a large mean does not eat the deviation; the
rest is arithmetic on a few channels; a second pass is y = x * a[c] + b[c], with residual and ReLU. Backward: one pass
sums g and g * x for each channel, a second is dx = g * a[c] + x * b[c] + d[c], where g is the gradient before ReLU.

Shapes: x (N, P, C), P positions; sums (N, chunks, 2, C) float64; a, b, d (N, C).
"""

from numba import njit, prange

from minimrcnn.kernels.twin import Twin, compiled_task


@compiled_task
def add_rows(x, y_gradient, y, backward, relu, n, first, last, sums):
    """sums (2, C) of x and x^2 over rows first .. last, or going backward of g and g * x."""
    channels = x.shape[2]
    sums[:] = 0
    for p in range(first, last):
        if backward:
            for c in range(channels):
                g = y_gradient[n, p, c]
                if relu and not y[n, p, c] > 0:
                    g = x.dtype.type(0)
                sums[0, c] += g
                sums[1, c] += g * x[n, p, c]
        else:
            for c in range(channels):
                value = float(x[n, p, c])
                sums[0, c] += value
                sums[1, c] += value * value


@njit(parallel=True, cache=True, error_model="numpy")
def channel_sums_cpu(x, y_gradient, y, backward, relu, sums):
    """sums (N, chunks, 2, C): of x and x^2, or going backward of the gradient g and g * x (y only for ReLU)."""
    count, chunks, rows = x.shape[0], sums.shape[1], x.shape[1]
    for task in prange(count * chunks):
        n = task // chunks
        chunk = task % chunks
        add_rows(
            x, y_gradient, y, backward, relu, n, rows * chunk // chunks, rows * (chunk + 1) // chunks, sums[n, chunk]
        )


@compiled_task
def scale_rows(x, scale, shift, residual, relu, n, first, last, y):
    for p in range(first, last):
        for c in range(x.shape[2]):
            y[n, p, c] = x[n, p, c] * scale[n, c] + shift[n, c]
        if residual.size:
            for c in range(x.shape[2]):
                y[n, p, c] += residual[n, p, c]
        if relu:
            for c in range(x.shape[2]):
                if y[n, p, c] < 0:  # written so that NaN stays NaN
                    y[n, p, c] = 0


@njit(parallel=True, cache=True, error_model="numpy")
def scale_channels_cpu(x, scale, shift, residual, relu, chunks, y):
    """y = x * scale + shift (+ residual, ReLU), scale and shift (N, C)."""
    for task in prange(x.shape[0] * chunks):
        chunk = task % chunks
        scale_rows(x, scale, shift, residual, relu, task // chunks, x.shape[1] * chunk // chunks,
                   x.shape[1] * (chunk + 1) // chunks, y)  # fmt: skip


@compiled_task
def send_back_rows(x, y_gradient, y, relu, a, b, d, n, first, last, residual_gradient, x_gradient):
    for p in range(first, last):
        for c in range(x.shape[2]):
            g = y_gradient[n, p, c]
            if relu and not y[n, p, c] > 0:
                g = x.dtype.type(0)
            x_gradient[n, p, c] = g * a[n, c] + x[n, p, c] * b[n, c] + d[n, c]
        if residual_gradient.size:
            for c in range(x.shape[2]):
                g = y_gradient[n, p, c]
                if relu and not y[n, p, c] > 0:
                    g = x.dtype.type(0)
                residual_gradient[n, p, c] = g


@njit(parallel=True, cache=True, error_model="numpy")
def normalization_gradient_cpu(x, y_gradient, y, relu, a, b, d, chunks, residual_gradient, x_gradient):
    """x_gradient = g * a + x * b + d with g the gradient before ReLU, which is also what the residual gets."""
    for task in prange(x.shape[0] * chunks):
        chunk = task % chunks
        send_back_rows(x, y_gradient, y, relu, a, b, d, task // chunks, x.shape[1] * chunk // chunks,
                       x.shape[1] * (chunk + 1) // chunks, residual_gradient, x_gradient)  # fmt: skip


channel_sums = Twin("channel_sums", channel_sums_cpu)
scale_channels = Twin("scale_channels", scale_channels_cpu)
normalization_gradient = Twin("normalization_gradient", normalization_gradient_cpu)
