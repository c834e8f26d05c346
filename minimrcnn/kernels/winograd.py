"""3x3 convolution with stride 1 by Winograd's algorithm F(4x4, 3x3): a quarter of the multiplications.

Four outputs of a one-dimensional convolution with three taps need six multiplications instead of twelve, once input
and kernel are transformed:  y = A' [ (G g) * (B' d) ].  Nested in two dimensions, a 4x4 tile of outputs comes from a
6x6 patch of inputs with 36 multiplications a channel pair instead of 144 (Lavin and Gray 2016, section 4.3). Summing
over the channels turns each of the 36 components into one matrix product:

1. U[k] (Cin, Cout)  = G g G'      for every pair of channels, once a call;
2. V[k] (tiles, Cin) = B' d B      for every tile and channel;
3. M[k] = V[k] @ U[k]              36 products;
4. y = A' M A                      for every tile and channel, then the epilogue.

With few channels, each thread takes blocks of 36 tiles through all of steps 2 to 4, and V and M stay in its own cache
(`winograd_apart`: 1.5 times as fast with 64 channels, 1.2 times with 128). With many, a product that reads all of U[k]
for so few rows would be slower. Then threads share the tiles in steps 2 and 4 and the components in step 3, and a map
goes by blocks of some thousand tiles, to bound what V and M take (`winograd`). The gradient of the kernel runs the same
transforms backwards: dU[k] = V[k]' @ (A dy A')[k], dg = G' dU G. The gradient of the input is the same convolution of
dy with the kernel turned around, so it needs no code but a flag.

The transforms are straight lines of vector instructions (`kernels.vectors`) that read the map and write V directly;
only tiles at the edge go through a small square, with zeros around the map. The 36 components of a tile lie side by
side: in 36 matrices far apart, each would touch 36 pages of memory (two and a half times slower with 256 channels).

A parallel kernel is a loop over calls of a compiled task: written inside the parallel loop, the same lines took five
times as long to compile. And tasks get all their numbers as np.int64: a parallel loop's own index is unsigned, and a
literal 0 or 1 is a type to itself, so each would have the same task compiled once more. What is copied channel by
channel is cut out as a row first: an index that might be negative, as far as the compiler knows, costs a gather
instruction instead of a vector load.

Shapes: x (N, H, W, Cin), output (N, OH, OW, Cout), transformed weight (36, P, Cin, width): the panels of
`kernels.product`, into which the kernel is packed before it is transformed.
"""

import numpy as np
from numba import get_thread_id, prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.convolution import finish_rows
from minimrcnn.kernels.product import multiply, pack
from minimrcnn.kernels.twin import Twin
from minimrcnn.kernels.vectors import make_transform

TILE = 4  # outputs of a tile, along each axis
PATCH = 6  # inputs it sees
COMPONENTS = 36
PAIRS = 1024  # of channels whose kernels are transformed at a time
STEP = COMPONENTS + 1  # rows from one tile to the next in V and M: a power of two apart, they would evict each other


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


QUARTER, SIXTH = 1 / 4, 1 / 6
transform_inputs = make_transform(transform_input)  # (6, 6, C) to (6, 6, C)
transform_outputs = make_transform(transform_output)  # (6, 6, C) to (4, 4, C)
transform_outputs_back = make_transform(transform_output_back)  # (4, 4, C) to (6, 6, C)
transform_kernels = make_transform(transform_kernel, QUARTER, SIXTH)  # (3, 3, pairs) to (6, 6, pairs)
transform_kernels_back = make_transform(transform_kernel_back, QUARTER, SIXTH)  # (6, 6, pairs) to (3, 3, pairs)


@register_jitable
def find_tile(tile, down, across):
    """(picture, first row, first column) of the outputs of a tile."""
    return tile // (down * across), tile // across % down * TILE, tile % across * TILE


@register_jitable
def read_square(x, n, top, left, side, square):
    """square[i, j, : C] = x[n, top + i, left + j] (C,), 0 outside the map."""
    channels = x.shape[3]
    for i in range(side):
        for j in range(side):
            cell = square[i, j]
            if 0 <= top + i < x.shape[1] and 0 <= left + j < x.shape[2]:
                row = x[n, top + i, left + j]
                for c in range(channels):
                    cell[c] = row[c]
            else:
                for c in range(channels):
                    cell[c] = 0


@register_jitable
def grid(components):
    """(6, 6, C) of the components (37, C) of a tile, the last of which is not used."""
    return components[:COMPONENTS].reshape(PATCH, PATCH, components.shape[1])


@compiled_task
def transform_patch(x, padding, down, across, tile, square, components):
    """components (36 + 1, Cin) = B' d B for one tile; what lies outside the map is 0."""
    n, top, left = find_tile(tile, down, across)
    top, left = top - padding, left - padding
    bottom, right = top + PATCH, left + PATCH
    if top >= 0 and left >= 0 and bottom <= x.shape[1] and right <= x.shape[2]:
        patch = x[n, top:bottom, left:right]
    else:
        read_square(x, n, top, left, PATCH, square)
        patch = square[:, :, : x.shape[3]]
    transform_inputs(patch, grid(components))


@compiled_task
def transform_gradient(y_gradient, down, across, tile, square, components):
    """components (36 + 1, Cout) = A dy A' for one tile of the output's gradient; what lies outside the map is 0."""
    n, top, left = find_tile(tile, down, across)
    bottom, right = top + TILE, left + TILE
    if bottom <= y_gradient.shape[1] and right <= y_gradient.shape[2]:
        patch = y_gradient[n, top:bottom, left:right]
    else:
        read_square(y_gradient, n, top, left, TILE, square)
        patch = square[:TILE, :TILE, : y_gradient.shape[3]]
    transform_outputs_back(patch, grid(components))


@compiled_task
def finish_tile(components, bias, residual, relu, down, across, tile, square, output):
    """One tile of output = A' M A (M: components (36 + 1, Cout)), += bias, += residual, ReLU; overhang is dropped."""
    height, width, channels = output.shape[1], output.shape[2], output.shape[3]
    n, top, left = find_tile(tile, down, across)
    fits = top + TILE <= height and left + TILE <= width
    if fits:
        target = output[n, top : top + TILE, left : left + TILE]
    else:
        target = square[:TILE, :TILE, :channels]
    transform_outputs(grid(components), target)
    all_rows = output.reshape(-1, channels)
    for i in range(min(TILE, height - top)):
        first = (n * height + top + i) * width + left
        rows = all_rows[first : first + min(TILE, width - left)]
        if not fits:
            for j in range(len(rows)):
                row, cell = rows[j], square[i, j]
                for c in range(channels):
                    row[c] = cell[c]
        finish_rows(rows, bias, residual[first : first + len(rows)], relu)


@compiled_task
def multiply_component(inputs, transformed, k, first, last, outputs):
    """outputs[:, k] = inputs[:, k] @ transformed (P, Cin, width), of component k for the tiles first .. last - 1."""
    multiply(inputs[first:last, k], transformed, np.int64(0), outputs[first:last, k])


@compiled_task
def add_product(inputs, outputs, k, count, add, rows, panels, total):
    """total (Cin, Cout) = or += inputs[:, k]' @ outputs[:, k] over the first ``count`` tiles.

    The inputs are copied into ``rows`` (tiles, Cin) first, as a product reads down their columns again and again.
    """
    for t in range(count):
        source, target = inputs[t, k], rows[t]
        for c in range(target.size):
            target[c] = source[c]
    pack(outputs[:count, k], panels[:, :count])
    multiply(rows[:count].T, panels[:, :count], add, total)


@compiled_task
def transform_pairs(taps, first, last, components):
    """components (6, 6, pairs) = G g G' of taps (3, 3, pairs), for the pairs of channels first .. last - 1."""
    transform_kernels(taps[:, :, first:last], components[:, :, first:last])


@compiled_task
def transform_pairs_back(components, first, last, taps):
    """taps (3, 3, pairs) = G' dU G of components (6, 6, pairs), for the pairs of channels first .. last - 1."""
    transform_kernels_back(components[:, :, first:last], taps[:, :, first:last])


@compiled(parallel=True)
def winograd_kernel_cpu(weight, turned, transformed):
    """transformed (36, pairs) = G g G' for weight (9, pairs); ``turned`` by half a turn for the input's gradient."""
    pairs = weight.shape[1]
    taps, components = weight.reshape(3, 3, pairs), transformed.reshape(PATCH, PATCH, pairs)
    taps = taps[::-1, ::-1] if turned else taps[:, :]
    for block in prange((pairs + PAIRS - 1) // PAIRS):
        first = np.int64(block) * PAIRS
        transform_pairs(taps, first, min(first + PAIRS, pairs), components)


@compiled(parallel=True)
def winograd_cpu(x, transformed, bias, residual, relu, padding, inputs, outputs, squares, output):
    """Steps 2 to 4, by blocks of tiles that the threads share.

    transformed is (36, P, Cin, width), residual (N * OH * OW, Cout) or empty; ``inputs`` (block, 36 + 1, Cin),
    ``outputs`` (block, 36 + 1, Cout) and ``squares`` (threads, 6, 6, most channels) are scratch.
    """
    down = (output.shape[1] + TILE - 1) // TILE
    across = (output.shape[2] + TILE - 1) // TILE
    tiles, block = output.shape[0] * down * across, len(inputs)
    shares = (len(squares) + 11) // 12  # 36 products are few for more than a dozen threads
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        for t in prange(count):
            tile = first + np.int64(t)
            transform_patch(x, padding, down, across, tile, squares[get_thread_id()], inputs[t])
        for t in prange(COMPONENTS * shares):
            k, share = np.int64(t) // shares, np.int64(t) % shares
            multiply_component(inputs, transformed[k], k, count * share // shares, count * (share + 1) // shares,
                               outputs)  # fmt: skip
        for t in prange(count):
            tile = first + np.int64(t)
            finish_tile(outputs[t], bias, residual, relu, down, across, tile, squares[get_thread_id()], output)


@compiled_task
def convolve_tiles(x, transformed, bias, residual, relu, padding, down, across, first, count, inputs, outputs, square,
                   output):  # fmt: skip
    """Steps 2 to 4 for the tiles first .. first + count - 1, by one thread."""
    for t in range(count):
        transform_patch(x, padding, down, across, first + t, square, inputs[t])
    for k in range(COMPONENTS):
        multiply_component(inputs, transformed[k], k, np.int64(0), count, outputs)
    for t in range(count):
        finish_tile(outputs[t], bias, residual, relu, down, across, first + t, square, output)


@compiled(parallel=True)
def winograd_apart_cpu(x, transformed, bias, residual, relu, padding, inputs, outputs, squares, output):
    """Steps 2 to 4, by blocks of tiles that one thread each takes all the way.

    As `winograd_cpu`, but for ``inputs`` (threads, block, 36 + 1, Cin) and ``outputs`` (threads, block, 36 + 1, Cout).
    """
    down = (output.shape[1] + TILE - 1) // TILE
    across = (output.shape[2] + TILE - 1) // TILE
    tiles, block = output.shape[0] * down * across, inputs.shape[1]
    for b in prange((tiles + block - 1) // block):
        me, first = get_thread_id(), np.int64(b) * block
        convolve_tiles(x, transformed, bias, residual, relu, padding, down, across, first, min(block, tiles - first),
                       inputs[me], outputs[me], squares[me], output)  # fmt: skip


@compiled(parallel=True)
def winograd_weight_gradient_cpu(x, y_gradient, padding, inputs, outputs, rows, panels, sums, squares,
                                 weight_gradient):  # fmt: skip
    """weight_gradient (9, Cin * Cout) = G' (sum over tiles of V[k]' (A dy A')[k]) G, by blocks of tiles.

    ``inputs`` (block, 36 + 1, Cin), ``outputs`` (block, 36 + 1, Cout), ``sums`` (36, Cin, Cout) and ``squares``
    (threads, 6, 6, most channels) are scratch; so are, for one component at a time, ``rows`` (threads, block, Cin) of
    the inputs and ``panels`` (threads, P, block, width) of the outputs.
    """
    down = (y_gradient.shape[1] + TILE - 1) // TILE
    across = (y_gradient.shape[2] + TILE - 1) // TILE
    tiles, block = y_gradient.shape[0] * down * across, len(inputs)
    for first in range(0, tiles, block):
        count = min(block, tiles - first)
        for t in prange(count):
            square, tile = squares[get_thread_id()], first + np.int64(t)
            transform_patch(x, padding, down, across, tile, square, inputs[t])
            transform_gradient(y_gradient, down, across, tile, square, outputs[t])
        for k in prange(COMPONENTS):
            me = get_thread_id()
            add_product(inputs, outputs, np.int64(k), count, np.int64(first > 0), rows[me], panels[me], sums[k])
    pairs = weight_gradient.shape[1]
    components, taps = sums.reshape(PATCH, PATCH, pairs), weight_gradient.reshape(3, 3, pairs)
    for piece in prange((pairs + PAIRS - 1) // PAIRS):
        start = np.int64(piece) * PAIRS
        transform_pairs_back(components, start, min(start + PAIRS, pairs), taps)


# On a GPU every step is a kernel of its own: `kernels.winograd_transforms`.
winograd_kernel = Twin("winograd_kernel", winograd_kernel_cpu)
winograd = Twin("winograd", winograd_cpu)
winograd_apart = Twin("winograd_apart", winograd_apart_cpu)
winograd_weight_gradient = Twin("winograd_weight_gradient", winograd_weight_gradient_cpu)
