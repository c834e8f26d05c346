"""3x3 convolution with stride 1 by Winograd's algorithm F(4x4, 3x3): a quarter of the multiplications.

Four outputs of a one-dimensional convolution with three taps need six multiplications instead of twelve, once input
and kernel are transformed:  y = A' [ (G g) * (B' d) ].  Nested in two dimensions, a 4x4 tile of outputs comes from a
6x6 patch of inputs with 36 multiplications a channel pair instead of 144 (Lavin and Gray 2016, section 4.3). Summing
over the channels turns each of the 36 components into one matrix product:

1. U[k] (Cin, Cout)  = G g G'      for every pair of channels, once a call;
2. V[k] (tiles, Cin) = B' d B      for every tile and channel;
3. M[k] = V[k] @ U[k]              36 products;
4. y = A' M A                      for every tile and channel, then the epilogue.

Threads share the tiles in steps 2 and 4 and the components in step 3. A map goes by blocks of some thousand tiles, to
bound what V and M take. (Blocks small enough for V and M to stay in a thread's own cache were no faster with 64
channels, and a third slower with 256: a product reads all of its U[k], and few rows do not make up for that.) The
gradient of the kernel runs the same transforms backwards: dU[k] = V[k]' @ (A dy A')[k], dg = G' dU G. The gradient of
the input is the same convolution of dy with the kernel turned around, so it needs no code but a flag.

The transforms work on 64 channels at a time in a small buffer with fixed distances between its rows: only then can the
compiler prove that loads and stores do not overlap, and use vectors. A parallel kernel is a loop over calls of a
compiled task: written inside the parallel loop, the same lines took five times as long to compile. For the same reason
the number of lines of a patch is read from an array's shape: a constant is an invitation to write the loop out six
times. And tasks get all their numbers as np.int64: a parallel loop's own index is unsigned, and a literal 0 or 1 is a
type to itself, so each would have the same task compiled once more. What is read or written channel by channel is cut
out as a row first: an index that might be negative, as far as the compiler knows, costs a gather instruction instead
of a vector load (four times the time of the whole transform).

Shapes: x (N, H, W, Cin), output (N, OH, OW, Cout), transformed weight (36, P, Cin, width): the panels of
`kernels.product`, into which the kernel is packed before it is transformed.
"""

import numpy as np
from numba import get_thread_id, njit, prange
from numba.extending import register_jitable

from minimrcnn.kernels.product import multiply, pack
from minimrcnn.kernels.twin import Twin, compiled_task

TILE = 4  # outputs of a tile, along each axis
PATCH = 6  # inputs it sees
COMPONENTS = 36
LANE = 64  # channels transformed at a time


@register_jitable
def transform_input(d0, d1, d2, d3, d4, d5):
    """B' d: six inputs become six components; sums instead of multiples keep the type of the array."""
    far = d4 - d2
    odd = d3 - d1
    odd += odd
    low = d2 + d2
    low += low
    one = d1 + d1
    one += one
    zero = d0 - d2
    zero += zero
    three = d1 - d3
    three += three
    return (
        zero + zero - d2 + d4,
        d4 + d3 - low - one,
        d4 - d3 - low + one,
        far + odd,
        far - odd,
        three + three - d3 + d5,
    )


@register_jitable
def transform_output(m0, m1, m2, m3, m4, m5):
    """A' m: six components become four outputs."""
    sum12, difference12 = m1 + m2, m1 - m2
    sum34, difference34 = m3 + m4, m3 - m4
    two = difference34 + difference34
    four = sum34 + sum34
    eight = two + two
    return m0 + sum12 + sum34, difference12 + two, sum12 + four + four, difference12 + eight + eight + m5


@register_jitable
def transform_output_back(y0, y1, y2, y3):
    """A y: the transpose of `transform_output`, four become six."""
    even, odd = y0 + y2, y1 + y3
    two = y1 + y1
    four = y2 + y2
    eight = y3 + y3
    eight += eight
    far, near = y0 + four + four, two + eight + eight
    return y0, even + odd, even - odd, far + near, far - near, y3


@register_jitable
def transform_kernel(g0, g1, g2, quarter, sixth):
    """G g: three taps become six components."""
    even = -(g0 + g2) * sixth
    odd = g1 * sixth
    far = (g0 * quarter + g2) * sixth
    half = odd * (quarter + quarter)
    return g0 * quarter, even - odd, even + odd, far + half, far - half, g2


@register_jitable
def transform_kernel_back(u0, u1, u2, u3, u4, u5, quarter, sixth):
    """G' u: the transpose of `transform_kernel`, six become three."""
    near = (u1 + u2) * sixth
    far = (u3 + u4) * sixth
    half = quarter + quarter
    return u0 * quarter - near + far * quarter, ((u2 - u1) + (u3 - u4) * half) * sixth, far - near + u5


@compiled_task
def transform_patch(x, padding, down, across, tile, patch, half, into, components):
    """components[k, into] (Cin,) = B' d B for one tile; what lies outside the map is 0."""
    n = tile // (down * across)
    top = tile // across % down * TILE - padding
    left = tile % across * TILE - padding
    channels = x.shape[3]
    lines = components.shape[0] // PATCH
    for lane in range(0, channels, LANE):
        size = min(LANE, channels - lane)
        read_square(x, n, top, left, lane, size, lines, patch)
        for i in range(lines):
            for c in range(size):
                b = i * PATCH * LANE + c
                (half[b], half[b + LANE], half[b + 2 * LANE], half[b + 3 * LANE], half[b + 4 * LANE],
                 half[b + 5 * LANE]) = transform_input(
                    patch[b], patch[b + LANE], patch[b + 2 * LANE], patch[b + 3 * LANE], patch[b + 4 * LANE],
                    patch[b + 5 * LANE])  # fmt: skip
        for j in range(lines):
            for c in range(size):
                b = j * LANE + c
                (patch[b], patch[b + 6 * LANE], patch[b + 12 * LANE], patch[b + 18 * LANE], patch[b + 24 * LANE],
                 patch[b + 30 * LANE]) = transform_input(
                    half[b], half[b + 6 * LANE], half[b + 12 * LANE], half[b + 18 * LANE], half[b + 24 * LANE],
                    half[b + 30 * LANE])  # fmt: skip
        for k in range(components.shape[0]):
            row = components[k, into, lane : lane + size]
            for c in range(size):
                row[c] = patch[k * LANE + c]


@compiled_task
def transform_gradient(y_gradient, down, across, tile, patch, half, into, components):
    """components[k, into] (Cout,) = A dy A' for one tile of the output's gradient; what lies outside the map is 0."""
    n = tile // (down * across)
    top = tile // across % down * TILE
    left = tile % across * TILE
    channels = y_gradient.shape[3]
    lines = components.shape[0] // PATCH
    for lane in range(0, channels, LANE):
        size = min(LANE, channels - lane)
        read_square(y_gradient, n, top, left, lane, size, lines - 2, patch)
        for j in range(lines - 2):  # down the columns: 4x4 to 6x4
            for c in range(size):
                b = j * LANE + c
                (half[b], half[b + 4 * LANE], half[b + 8 * LANE], half[b + 12 * LANE], half[b + 16 * LANE],
                 half[b + 20 * LANE]) = transform_output_back(
                    patch[b], patch[b + 4 * LANE], patch[b + 8 * LANE], patch[b + 12 * LANE])  # fmt: skip
        for i in range(lines):  # along the rows: 6x4 to 6x6
            for c in range(size):
                a = i * TILE * LANE + c
                b = i * PATCH * LANE + c
                (patch[b], patch[b + LANE], patch[b + 2 * LANE], patch[b + 3 * LANE], patch[b + 4 * LANE],
                 patch[b + 5 * LANE]) = transform_output_back(
                    half[a], half[a + LANE], half[a + 2 * LANE], half[a + 3 * LANE])  # fmt: skip
        for k in range(components.shape[0]):
            row = components[k, into, lane : lane + size]
            for c in range(size):
                row[c] = patch[k * LANE + c]


@register_jitable
def read_square(x, n, top, left, lane, size, side, square):
    """square[(i * side + j) * 64 + c] = x[n, top + i, left + j, lane + c], 0 outside the map."""
    for i in range(side):
        for j in range(side):
            start = (i * side + j) * LANE
            if 0 <= top + i < x.shape[1] and 0 <= left + j < x.shape[2]:
                row = x[n, top + i, left + j, lane : lane + size]
                for c in range(size):
                    square[start + c] = row[c]
            else:
                for c in range(size):
                    square[start + c] = 0


@compiled_task
def finish_tile(components, bias, residual, relu, down, across, tile, patch, half, at, output):
    """One output tile = A' M A (M: components[:, at]), += bias, += residual, ReLU; overhang is dropped."""
    height, width, channels = output.shape[1], output.shape[2], output.shape[3]
    n = tile // (down * across)
    top = tile // across % down * TILE
    left = tile % across * TILE
    lines = components.shape[0] // PATCH
    for lane in range(0, channels, LANE):
        size = min(LANE, channels - lane)
        for k in range(components.shape[0]):
            row = components[k, at, lane : lane + size]
            for c in range(size):
                patch[k * LANE + c] = row[c]
        for i in range(lines):
            for c in range(size):
                b = i * PATCH * LANE + c
                a = i * TILE * LANE + c
                half[a], half[a + LANE], half[a + 2 * LANE], half[a + 3 * LANE] = transform_output(
                    patch[b], patch[b + LANE], patch[b + 2 * LANE], patch[b + 3 * LANE], patch[b + 4 * LANE],
                    patch[b + 5 * LANE])  # fmt: skip
        for j in range(lines - 2):
            for c in range(size):
                b = j * LANE + c
                patch[b], patch[b + 4 * LANE], patch[b + 8 * LANE], patch[b + 12 * LANE] = transform_output(
                    half[b], half[b + 4 * LANE], half[b + 8 * LANE], half[b + 12 * LANE], half[b + 16 * LANE],
                    half[b + 20 * LANE])  # fmt: skip
        for i in range(min(TILE, height - top)):
            for j in range(min(TILE, width - left)):
                cells = patch[(i * TILE + j) * LANE : (i * TILE + j) * LANE + size]
                if bias.size:
                    row = bias[lane : lane + size]
                    for c in range(size):
                        cells[c] += row[c]
                if residual.size:
                    row = residual[n, top + i, left + j, lane : lane + size]
                    for c in range(size):
                        cells[c] += row[c]
                if relu:
                    for c in range(size):
                        if cells[c] < 0:  # written so that NaN stays NaN
                            cells[c] = 0
                row = output[n, top + i, left + j, lane : lane + size]
                for c in range(size):
                    row[c] = cells[c]


@compiled_task
def multiply_component(inputs, transformed, first, last, outputs):
    """outputs (tiles, Cout) = inputs (tiles, Cin) @ transformed (P, Cin, width); tiles first .. last - 1."""
    multiply(inputs[first:last], transformed, np.int64(0), outputs[first:last, :])


@compiled_task
def add_product(inputs, outputs, count, add, panels, total):
    """total (Cin, Cout) = or += inputs' @ outputs over the first ``count`` tiles; ``panels`` is scratch."""
    pack(outputs[:count, :], panels[:, :count])
    multiply(inputs[:count].T, panels[:, :count], add, total[:, :])


@compiled_task
def transform_pairs(weight, turned, quarter, sixth, first, size, lines, patch, half, transformed):
    """transformed[:, first + p] = G g G' for ``size`` pairs of channels: 3x3 to 6x3 to 6x6."""
    last = first + size
    for j in range(lines - 3):
        a, b, c = (8 - j, 5 - j, 2 - j) if turned else (j, 3 + j, 6 + j)
        tap0, tap1, tap2 = weight[a, first:last], weight[b, first:last], weight[c, first:last]  # (size,)
        for p in range(size):
            i = j * LANE + p
            (half[i], half[i + 3 * LANE], half[i + 6 * LANE], half[i + 9 * LANE], half[i + 12 * LANE],
             half[i + 15 * LANE]) = transform_kernel(tap0[p], tap1[p], tap2[p], quarter, sixth)  # fmt: skip
    for i in range(lines):
        for p in range(size):
            a = i * 3 * LANE + p
            b = i * PATCH * LANE + p
            (patch[b], patch[b + LANE], patch[b + 2 * LANE], patch[b + 3 * LANE], patch[b + 4 * LANE],
             patch[b + 5 * LANE]) = transform_kernel(
                half[a], half[a + LANE], half[a + 2 * LANE], quarter, sixth)  # fmt: skip
    for k in range(transformed.shape[0]):
        row = transformed[k, first:last]
        for p in range(size):
            row[p] = patch[k * LANE + p]


@compiled_task
def transform_pairs_back(sums, quarter, sixth, first, size, lines, patch, half, weight_gradient):
    """weight_gradient[:, first + p] = G' dU G for ``size`` pairs of channels: 6x6 to 6x3 to 3x3."""
    last = first + size
    for k in range(sums.shape[0]):
        row = sums[k, first:last]
        for p in range(size):
            patch[k * LANE + p] = row[p]
    for i in range(lines):
        for p in range(size):
            a = i * 3 * LANE + p
            b = i * PATCH * LANE + p
            half[a], half[a + LANE], half[a + 2 * LANE] = transform_kernel_back(
                patch[b], patch[b + LANE], patch[b + 2 * LANE], patch[b + 3 * LANE], patch[b + 4 * LANE],
                patch[b + 5 * LANE], quarter, sixth)  # fmt: skip
    for j in range(lines - 3):
        for p in range(size):
            i = j * LANE + p
            patch[p], patch[p + LANE], patch[p + 2 * LANE] = transform_kernel_back(
                half[i], half[i + 3 * LANE], half[i + 6 * LANE], half[i + 9 * LANE], half[i + 12 * LANE],
                half[i + 15 * LANE], quarter, sixth)  # fmt: skip
        for tap in range(lines - 3):
            row = weight_gradient[3 * tap + j, first:last]
            for p in range(size):
                row[p] = patch[tap * LANE + p]


@njit(parallel=True, cache=True, error_model="numpy")
def winograd_kernel_cpu(weight, turned, patches, transformed):
    """transformed (36, pairs) = G g G' for weight (9, pairs); ``turned`` by half a turn for the input's gradient."""
    quarter, sixth = weight.dtype.type(0.25), weight.dtype.type(1 / 6)
    pairs, lines = weight.shape[1], transformed.shape[0] // PATCH
    for block in prange((pairs + LANE - 1) // LANE):
        me = get_thread_id()
        first = block * LANE
        transform_pairs(weight, turned, quarter, sixth, first, min(LANE, pairs - first), lines, patches[me, 0],
                        patches[me, 1], transformed)  # fmt: skip


@njit(parallel=True, cache=True, error_model="numpy")
def winograd_cpu(x, transformed, bias, residual, relu, padding, inputs, outputs, patches, output):
    """Steps 2 to 4, by blocks of tiles.

    transformed is (36, P, Cin, width); ``inputs`` (36, block + 1, Cin), ``outputs`` (36, block + 1, Cout) and
    ``patches`` (threads, 2, 36 * 64) are scratch.
    """
    down = (output.shape[1] + TILE - 1) // TILE
    across = (output.shape[2] + TILE - 1) // TILE
    tiles, block = output.shape[0] * down * across, inputs.shape[1] - 1
    shares = (len(patches) + 11) // 12  # 36 products are few for more than a dozen threads
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        for t in prange(count):
            me, at = get_thread_id(), np.int64(t)
            transform_patch(x, padding, down, across, first + at, patches[me, 0], patches[me, 1], at, inputs)
        for t in prange(COMPONENTS * shares):
            k, share = np.int64(t) // shares, np.int64(t) % shares
            multiply_component(inputs[k], transformed[k], count * share // shares, count * (share + 1) // shares,
                               outputs[k])  # fmt: skip
        for t in prange(count):
            me, at = get_thread_id(), np.int64(t)
            finish_tile(outputs, bias, residual, relu, down, across, first + at, patches[me, 0], patches[me, 1], at,
                        output)  # fmt: skip


@njit(parallel=True, cache=True, error_model="numpy")
def winograd_weight_gradient_cpu(x, y_gradient, padding, inputs, outputs, panels, sums, patches, weight_gradient):
    """weight_gradient (9, Cin * Cout) = G' (sum over tiles of V[k]' (A dy A')[k]) G, by blocks of tiles.

    ``inputs`` (36, block + 1, Cin), ``outputs`` (36, block + 1, Cout), ``panels`` (threads, P, block + 1, width) of
    one component of the outputs, ``sums`` (36, Cin, Cout) and ``patches`` (threads, 2, 36 * 64) are scratch.
    """
    down = (y_gradient.shape[1] + TILE - 1) // TILE
    across = (y_gradient.shape[2] + TILE - 1) // TILE
    tiles, block = y_gradient.shape[0] * down * across, inputs.shape[1] - 1
    quarter, sixth = x.dtype.type(0.25), x.dtype.type(1 / 6)
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        for t in prange(count):
            me, at = get_thread_id(), np.int64(t)
            transform_patch(x, padding, down, across, first + at, patches[me, 0], patches[me, 1], at, inputs)
            transform_gradient(y_gradient, down, across, first + at, patches[me, 0], patches[me, 1], at, outputs)
        for k in prange(COMPONENTS):
            add_product(inputs[k], outputs[k], count, np.int64(first > 0), panels[get_thread_id()], sums[k])
    flat = sums.reshape(COMPONENTS, -1)
    pairs = flat.shape[1]
    for lane in prange((pairs + LANE - 1) // LANE):
        me = get_thread_id()
        start = lane * LANE
        transform_pairs_back(flat, quarter, sixth, start, min(LANE, pairs - start), sums.shape[0] // PATCH,
                             patches[me, 0], patches[me, 1], weight_gradient)  # fmt: skip


# On a GPU every step is a kernel of its own: `kernels.winograd_transforms`.
winograd_kernel = Twin("winograd_kernel", winograd_kernel_cpu)
winograd = Twin("winograd", winograd_cpu)
winograd_weight_gradient = Twin("winograd_weight_gradient", winograd_weight_gradient_cpu)
