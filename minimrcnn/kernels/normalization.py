"""Group and batch normalization, in as few passes over the map as there can be.

Both divide the channels' values into sets, subtract each set's mean, divide by its deviation, then scale and shift
every channel: y = (x - mean) / deviation * scale + shift. A set is one picture's group of channels (group
normalization), or one channel over the whole batch (batch normalization: the batch is then handed in as one picture
with a group for each channel).

Forward: one pass sums x and x^2 for each channel, in float64, so that a large mean does not eat the deviation; those of
a group become its mean and deviation, and these the factors of a second pass, y = x * a[c] + b[c], with residual and
ReLU. Backward: one pass sums g and g * x for each channel, a second is dx = g * a[c] + x * b[c] + d[c], where g is the
gradient before ReLU.

The two sums come in T terms, which the caller adds up in float64. On a CPU a term is the sum over one chunk of the
positions, in float64. A GPU adds in float32, and keeps apart what each addition rounds off (Knuth's exact sum), so that
its sums are hardly worse: for each piece of the positions there are two terms, the sum and what rounding left of it.

Shapes: x (N, P, C), P positions; sums (N, T, 2, C); a, b, d (N, C).
"""

import math

import numpy as np
from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.four import (
    add_four,
    count_row_threads,
    find_rows,
    places_of_rows,
    read_places,
    rectify_four,
    select_four,
    threads_of_rows,
    write_places,
)
from minimrcnn.kernels.twin import THREADS_PER_BLOCK, WARP, Twin, cuda, divide

NUMBERS = 32768  # numbers of a map that a task of the CPU takes
PIECE = 256  # positions that a block of the GPU takes


@register_jitable
def count_chunks(positions, channels):
    """How many tasks the CPU makes of a picture; as many are its terms."""
    return max(1, min(positions, positions * channels // NUMBERS))


def count_terms(positions: int) -> int:
    """How many terms the GPU leaves of a picture, two for each piece."""
    return 2 * max(1, -(-positions // PIECE))


@compiled_task
def add_rows(x, n, first, last, sums):
    """sums (2, C) of x and x^2 over rows first .. last, four at a time: each time, the sums go through memory."""
    F = sums.dtype.type
    sums[:] = 0
    fours = first + (last - first) // 4 * 4
    for p in range(first, fours, 4):
        for c in range(x.shape[2]):
            v0, v1, v2, v3 = F(x[n, p, c]), F(x[n, p + 1, c]), F(x[n, p + 2, c]), F(x[n, p + 3, c])
            sums[0, c] += (v0 + v1) + (v2 + v3)
            sums[1, c] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
    for p in range(fours, last):
        for c in range(x.shape[2]):
            value = F(x[n, p, c])
            sums[0, c] += value
            sums[1, c] += value * value


@compiled_task
def add_gradient_rows(x, y_gradient, y, relu, n, first, last, sums):
    """sums (2, C) of g and g * x over rows first .. last."""
    F = sums.dtype.type
    sums[:] = 0
    for p in range(first, last):
        for c in range(x.shape[2]):
            g = y_gradient[n, p, c]
            if relu and not y[n, p, c] > 0:
                g = x.dtype.type(0)
            sums[0, c] += F(g)
            sums[1, c] += F(g) * F(x[n, p, c])


@compiled(parallel=True)
def channel_sums_cpu(x, y_gradient, y, backward, relu, sums):
    """sums (N, T, 2, C): of x and x^2, or going backward of the gradient g and g * x (y only for ReLU)."""
    count, chunks, rows = x.shape[0], sums.shape[1], x.shape[1]
    for task in prange(count * chunks):
        n = task // chunks
        chunk = task % chunks
        first, last = rows * chunk // chunks, rows * (chunk + 1) // chunks
        if backward:
            add_gradient_rows(x, y_gradient, y, relu, n, first, last, sums[n, chunk])
        else:
            add_rows(x, n, first, last, sums[n, chunk])


@compiled_task
def scale_rows(x, scale, shift, residual, relu, n, first, last, y):
    has_residual = residual.size > 0
    for p in range(first, last):
        for c in range(x.shape[2]):
            value = x[n, p, c] * scale[n, c] + shift[n, c]
            if has_residual:
                value += residual[n, p, c]
            if relu and value < 0:  # written so that NaN stays NaN
                value = x.dtype.type(0)
            y[n, p, c] = value


@compiled(parallel=True)
def scale_channels_cpu(x, scale, shift, residual, relu, y):
    """y = x * scale + shift (+ residual, ReLU), scale and shift (N, C)."""
    chunks = count_chunks(x.shape[1], x.shape[2])
    for task in prange(x.shape[0] * chunks):
        chunk = task % chunks
        scale_rows(x, scale, shift, residual, relu, task // chunks, x.shape[1] * chunk // chunks,
                   x.shape[1] * (chunk + 1) // chunks, y)  # fmt: skip


@compiled_task
def send_back_rows(x, y_gradient, y, relu, a, b, d, n, first, last, residual_gradient, x_gradient):
    has_residual, zero = residual_gradient.size > 0, x.dtype.type(0)
    for p in range(first, last):
        for c in range(x.shape[2]):
            g = y_gradient[n, p, c]
            if relu:
                g = g if y[n, p, c] > 0 else zero
            x_gradient[n, p, c] = g * a[n, c] + x[n, p, c] * b[n, c] + d[n, c]
            if has_residual:
                residual_gradient[n, p, c] = g


@compiled(parallel=True)
def normalization_gradient_cpu(x, y_gradient, y, relu, a, b, d, residual_gradient, x_gradient):
    """x_gradient = g * a + x * b + d with g the gradient before ReLU, which is also what the residual gets."""
    chunks = count_chunks(x.shape[1], x.shape[2])
    for task in prange(x.shape[0] * chunks):
        chunk = task % chunks
        send_back_rows(x, y_gradient, y, relu, a, b, d, task // chunks, x.shape[1] * chunk // chunks,
                       x.shape[1] * (chunk + 1) // chunks, residual_gradient, x_gradient)  # fmt: skip


@register_jitable
def add_exactly(total, rest, value):
    """total + value, and rest + what rounding left of that: nothing is lost (Knuth, The Art of Computer Programming,
    volume 2, section 4.2.2, theorem B)."""
    grown = total + value
    part = grown - total
    return grown, rest + ((total - (grown - part)) + (value - part))


def channel_sums_cuda(x, y_gradient, y, backward, relu, sums):
    """A block takes a piece of the positions of 32 channels, each of its four warps every fourth position; at the end
    the first warp adds up, in order, what they found."""
    F = x.dtype.type
    positions, channels = x.shape[1], x.shape[2]
    pieces, tiles, warps = sums.shape[1] // 2, (channels + WARP - 1) // WARP, THREADS_PER_BLOCK // WARP
    block, mine = cuda.blockIdx.x, cuda.threadIdx.x
    lane, warp = mine % WARP, mine // WARP
    c, piece, n = block % tiles * WARP + lane, block // tiles % pieces, block // tiles // pieces
    found = cuda.shared.array((4, THREADS_PER_BLOCK), x.dtype)
    first, first_rest, second, second_rest = F(0), F(0), F(0), F(0)
    if c < channels:
        for p in range(positions * piece // pieces + warp, positions * (piece + 1) // pieces, warps):
            value = x[n, p, c]
            term = value
            if backward:
                term = y_gradient[n, p, c]
                if relu and not y[n, p, c] > F(0):
                    term = F(0)
            first, first_rest = add_exactly(first, first_rest, term)
            product = term * value
            second, second_rest = add_exactly(second, second_rest, product)
            second_rest += cuda.fma(term, value, -product)  # what rounding left of the product
    found[0, mine], found[1, mine], found[2, mine], found[3, mine] = first, first_rest, second, second_rest
    cuda.syncthreads()
    if warp == 0 and c < channels:
        for other in range(lane + WARP, THREADS_PER_BLOCK, WARP):
            first, first_rest = add_exactly(first, first_rest + found[1, other], found[0, other])
            second, second_rest = add_exactly(second, second_rest + found[3, other], found[2, other])
        sums[n, 2 * piece, 0, c], sums[n, 2 * piece + 1, 0, c] = first, first_rest
        sums[n, 2 * piece, 1, c], sums[n, 2 * piece + 1, 1, c] = second, second_rest


@register_jitable
def find_rows_of_picture(thread, shape):
    """`find_rows` in one of N matrices (P, C), and in which; it may be one too many."""
    n, thread = divide(thread, count_row_threads(shape[1], shape[2]))
    rows, channel = find_rows(thread, shape[1], shape[2])
    return n, rows, channel


@register_jitable
def set_zero_unless_positive(values, y, F):
    """The gradient before ReLU of four numbers."""
    return select_four((y[0] > F(0), y[1] > F(0), y[2] > F(0), y[3] > F(0)), values, (F(0), F(0), F(0), F(0)))


def scale_channels_cuda(x, scale, shift, residual, relu, y):
    """Four positions of a channel for each thread."""
    F = x.dtype.type
    n, rows, c = find_rows_of_picture(cuda.grid(1), x.shape)
    if n >= len(x):
        return
    s, places = shift[n, c], places_of_rows(x.shape, n, rows, c)
    values = add_four((s, s, s, s), scale[n, c], read_places(x, places))
    if residual.size:
        values = add_four(values, F(1), read_places(residual, places))
    if relu:
        values = rectify_four(values, F)
    write_places(values, places, y)


def normalization_gradient_cuda(x, y_gradient, y, relu, a, b, d, residual_gradient, x_gradient):
    """Four positions of a channel for each thread."""
    F = x.dtype.type
    n, rows, c = find_rows_of_picture(cuda.grid(1), x.shape)
    if n >= len(x):
        return
    places = places_of_rows(x.shape, n, rows, c)
    g, values = read_places(y_gradient, places), read_places(x, places)
    if relu:
        g = set_zero_unless_positive(g, read_places(y, places), F)
    s = d[n, c]
    values = add_four(add_four((s, s, s, s), b[n, c], values), a[n, c], g)
    if residual_gradient.size:
        write_places(g, places, residual_gradient)
    write_places(values, places, x_gradient)


def fold_statistics_cpu(weight, bias, mean, variance, eps, folded):
    folded[0] = weight / np.sqrt(variance + np.float32(eps))
    folded[1] = bias - mean * folded[0]


def fold_statistics_cuda(weight, bias, mean, variance, eps, folded):
    c, F = cuda.grid(1), folded.dtype.type
    if c < folded.shape[1]:
        scale = weight[c] / F(math.sqrt(variance[c] + F(eps)))
        folded[0, c], folded[1, c] = scale, bias[c] - mean[c] * scale


@register_jitable
def fold_group(sums, members, eps, scale, shift, n, first, last, statistics, folded):
    """What `fold_sums` says, for the channels first .. last - 1 of a picture, which are a group."""
    F = sums.dtype.type
    total, squares = F(0), F(0)
    for c in range(first, last):
        total += sums[n, 0, c]
        squares += sums[n, 1, c]
    mean = total / F(members)
    variance = squares / F(members) - mean * mean
    if variance < 0:  # by rounding; written so that NaN stays NaN
        variance = F(0)
    inverse = F(1) / F(math.sqrt(variance + F(eps)))
    for c in range(first, last):
        statistics[0, n, c], statistics[1, n, c], statistics[2, n, c] = mean, variance, inverse
        a = inverse * scale[c]
        folded[0, n, c], folded[1, n, c] = a, shift[c] - mean * a


@register_jitable
def fold_group_gradient(sums, members, scale, statistics, n, first, last, scale_gradients, folded):
    """What `fold_gradient_sums` says, for the channels first .. last - 1 of a picture, which are a group."""
    F = sums.dtype.type
    mean, inverse = statistics[0, n, first], statistics[2, n, first]
    mean_g, mean_g_hat = F(0), F(0)  # of the gradients of normalized x: g * scale, and times normalized x
    for c in range(first, last):
        g_hat = (sums[n, 1, c] - mean * sums[n, 0, c]) * inverse
        scale_gradients[n, c] = g_hat
        mean_g += sums[n, 0, c] * scale[c] / F(members)
        mean_g_hat += g_hat * scale[c] / F(members)
    b = -inverse * inverse * mean_g_hat
    for c in range(first, last):
        folded[0, n, c], folded[1, n, c], folded[2, n, c] = inverse * scale[c], b, -inverse * mean_g - mean * b


@compiled()
def fold_sums_cpu(sums, members, groups, eps, scale, shift, statistics, folded):
    """statistics (3, N, C): mean, variance and 1 / deviation of each channel's group, from ``sums`` (N, 2, C) of x and
    x^2 over ``members`` / spread positions; folded (2, N, C): a and b of y = x * a + b."""
    spread = sums.shape[2] // groups
    for n in range(len(sums)):
        for group in range(groups):
            fold_group(sums, members, eps, scale, shift, n, group * spread, (group + 1) * spread, statistics, folded)


@compiled()
def fold_gradient_sums_cpu(sums, members, groups, scale, statistics, scale_gradients, folded):
    """folded (3, N, C): a, b and d of dx = g * a + x * b + d, from ``sums`` (N, 2, C) of g and g * x; scale_gradients
    (N, C): each picture's part of the scale's gradient."""
    spread = sums.shape[2] // groups
    for n in range(len(sums)):
        for group in range(groups):
            fold_group_gradient(sums, members, scale, statistics, n, group * spread, (group + 1) * spread,
                                scale_gradients, folded)  # fmt: skip


def fold_sums_cuda(sums, members, groups, eps, scale, shift, statistics, folded):
    n, group = divide(cuda.grid(1), groups)
    spread = sums.shape[2] // groups
    if n < len(sums):
        fold_group(sums, members, eps, scale, shift, n, group * spread, (group + 1) * spread, statistics, folded)


def fold_gradient_sums_cuda(sums, members, groups, scale, statistics, scale_gradients, folded):
    n, group = divide(cuda.grid(1), groups)
    spread = sums.shape[2] // groups
    if n < len(sums):
        fold_group_gradient(sums, members, scale, statistics, n, group * spread, (group + 1) * spread,
                            scale_gradients, folded)  # fmt: skip


# channel_sums(x (N,P,C), y_gradient (N,P,C), y (N,P,C), backward: bool, relu: bool, sums (N,T,2,C)); the gradient is
# (0,0,0) going forward, y where there is no ReLU. On a CPU sums are float64 and T = count_chunks(P, C), on a GPU they
# are of the type of x and T = count_terms(P).
channel_sums = Twin(
    "channel_sums",
    channel_sums_cpu,
    channel_sums_cuda,
    threads=lambda x, y_gradient, y, backward, relu, sums: (
        len(x) * (sums.shape[1] // 2) * -(-x.shape[2] // WARP) * THREADS_PER_BLOCK
    ),
)

# scale_channels(x (N,P,C), scale (N,C), shift (N,C), residual (N,P,C) or (0,0,0), relu: bool, y (N,P,C))
scale_channels = Twin(
    "scale_channels",
    scale_channels_cpu,
    scale_channels_cuda,
    threads=threads_of_rows,
)

# normalization_gradient(x (N,P,C), y_gradient (N,P,C), y (N,P,C) or (0,0,0) without ReLU, relu: bool, a, b, d (N,C),
#                        residual_gradient (N,P,C) or (0,0,0), x_gradient (N,P,C))
normalization_gradient = Twin(
    "normalization_gradient",
    normalization_gradient_cpu,
    normalization_gradient_cuda,
    threads=threads_of_rows,
)

# fold_statistics(weight, bias, mean, variance (C,), eps: float, folded (2,C)): y = x * folded[0] + folded[1].
# On a GPU one kernel instead of five: a ResNet-50 asks for it 53 times, and each start takes the host 15 us.
fold_statistics = Twin(
    "fold_statistics", fold_statistics_cpu, fold_statistics_cuda, threads=lambda *arguments: arguments[-1].shape[1]
)

# fold_sums(sums (N,2,C) float64, members: int, groups: int, eps: float, scale (C,), shift (C,),
#           statistics (3,N,C) float64, folded (2,N,C)); a dozen operations on small arrays otherwise
fold_sums = Twin(
    "fold_sums", fold_sums_cpu, fold_sums_cuda, threads=lambda sums, members, groups, *_: len(sums) * groups
)

# fold_gradient_sums(sums (N,2,C) float64, members: int, groups: int, scale (C,), statistics (3,N,C) float64,
#                    scale_gradients (N,C) float64, folded (3,N,C))
fold_gradient_sums = Twin(
    "fold_gradient_sums", fold_gradient_sums_cpu, fold_gradient_sums_cuda,
    threads=lambda sums, members, groups, *_: len(sums) * groups,
)  # fmt: skip
