"""Convolution as the definition says it, one thread for each output: what a first CUDA kernel looks like.

It is for reading and for the benchmarks, not for the network. Every output takes KH * KW * Cin multiplications and as
many pairs of loads; neighboring threads have neighboring output channels, so they read the same number of x and
neighboring weights, and the caches serve most of it. Still each number that is loaded is used once. The ways in
`functional.conv_cuda` load a number and use it many times: that is all the difference (`kernels.matmul_tiled` shows
how it is done).

Shapes: x (N, H, W, Cin), weight (KH, KW, Cin, Cout), y (N, OH, OW, Cout).
"""

from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.twin import Twin, cuda


@register_jitable
def convolve_at(x, weight, stride, padding, n, oy, ox, channel):
    """One output: the kernel laid over the map there, products summed over taps and input channels."""
    total = x.dtype.type(0)
    for ky in range(weight.shape[0]):
        for kx in range(weight.shape[1]):
            row, column = oy * stride + ky - padding, ox * stride + kx - padding
            if row >= 0 and row < x.shape[1] and column >= 0 and column < x.shape[2]:
                for inner in range(x.shape[3]):
                    total += x[n, row, column, inner] * weight[ky, kx, inner, channel]
    return total


@compiled()
def direct_convolution_cpu(x, weight, stride, padding, y):
    for n in range(y.shape[0]):
        for oy in range(y.shape[1]):
            for ox in range(y.shape[2]):
                for channel in range(y.shape[3]):
                    y[n, oy, ox, channel] = convolve_at(x, weight, stride, padding, n, oy, ox, channel)


def direct_convolution_cuda(x, weight, stride, padding, y):
    element = cuda.grid(1)
    if element < y.size:
        height, width, channels = y.shape[1], y.shape[2], y.shape[3]
        channel = element % channels
        ox = element // channels % width
        oy = element // (channels * width) % height
        n = element // (channels * width * height)
        y[n, oy, ox, channel] = convolve_at(x, weight, stride, padding, n, oy, ox, channel)


# direct_convolution(x, weight, stride: int, padding: int, y)
direct_convolution = Twin("direct_convolution", direct_convolution_cpu, direct_convolution_cuda)
