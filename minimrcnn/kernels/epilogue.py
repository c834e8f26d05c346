"""What follows a product of matrices on a GPU, in one pass over it: bias, residual, ReLU.

On a CPU the same is done to a block of the product while it is in cache (`kernels.convolution.finish_rows`). On a GPU
the product is the library's and lies in memory when this kernel starts, so the pass reads and writes all of it once
more; without bias, residual and ReLU, and with a single group, it is left out.

Groups come out of a batched product one after the other, (groups, rows, Cout / groups); the pass brings the channels of
a row together. With a single group the product may lie in the output itself.
"""

from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.four import (
    add_four,
    find_rows,
    places_of_rows,
    read_places,
    rectify_four,
    threads_of_rows,
    write_places,
)
from minimrcnn.kernels.twin import Twin, cuda, divide


@register_jitable
def finish_value(value, bias, channel, relu, F):
    """+= bias, then ReLU."""
    if bias.size > 0:
        value += bias[channel]
    if relu and value < F(0):  # written so that NaN stays NaN
        value = F(0)
    return value


@compiled()
def epilogue_cpu(product, bias, residual, relu, output):
    group_out = product.shape[2]
    for row in range(output.shape[0]):
        for channel in range(output.shape[1]):
            value = product[channel // group_out, row, channel % group_out]
            if residual.size > 0:
                value += residual[row, channel]
            output[row, channel] = finish_value(value, bias, channel, relu, output.dtype.type)


def epilogue_cuda(product, bias, residual, relu, output):
    """Four rows of a channel for each thread: all are read before the first is written, as memory is slow to answer."""
    F = output.dtype.type
    rows, channel = find_rows(cuda.grid(1), output.shape[0], output.shape[1])
    if rows[0] >= output.shape[0]:
        return
    group, at = divide(channel, product.shape[2])
    places = places_of_rows((1,) + output.shape, 0, rows, channel)
    values = read_places(product, places_of_rows(product.shape, group, rows, at))
    if residual.size > 0:
        values = add_four(values, F(1), read_places(residual, places))
    if bias.size > 0:
        b = bias[channel]
        values = add_four((b, b, b, b), F(1), values)
    if relu:
        values = rectify_four(values, F)
    write_places(values, places, output)


# epilogue(product (groups, R, Cout / groups), bias (Cout,) or (0,), residual (R, Cout) or (0, 0), relu: bool,
#          output (R, Cout))
epilogue = Twin("epilogue", epilogue_cpu, epilogue_cuda, threads=threads_of_rows)
