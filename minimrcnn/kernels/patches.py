"""Patches as a matrix, written out and added back: the two steps around the product of a convolution on a GPU.

Row (n, oy, ox) of the patch matrix holds what the kernel sees at that output position: KH * KW * Cin numbers. Times the
kernel as a matrix, it is the convolution. On a CPU the patches of a block never leave a core's cache, so gathering is
part of one loop with the product (`kernels.convolution`). On a GPU the product is the library's (cuBLAS), a kernel of
its own that reads whole matrices; so the patches are written to memory before it:

- `gather_patches`: from x to patches;
- `scatter_patches`: from the patches' gradients back to x. A place of x was seen by several patches. Instead of every
  patch adding to the places it saw (two threads would meet at one place, and the order of a sum would depend on who
  came first), every place collects from the patches that saw it, in the order of the taps.

A thread gathers a tap of four channels at four output positions, and scatters four channels of a place
(`kernels.four`): what a division costs is paid once for so many numbers, and neighboring threads read and write
neighboring numbers. Where there are no four channels, as in a picture, it gathers a tap of one.

Shapes: x (N, H, W, Cin), patches (groups, rows, KH * KW * Cin / groups).
"""

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.epilogue import finish_value
from minimrcnn.kernels.four import (
    FOUR,
    add_four,
    choose_four,
    find_first,
    find_lane,
    places_of_rows,
    read_places,
    read_side_by_side,
    rectify_four,
    threads_of_cells,
    write_cell,
    write_places,
    write_side_by_side,
)
from minimrcnn.kernels.places import lies_in_fours, multiply_add, read_at, read_fours
from minimrcnn.kernels.twin import Twin, cuda, divide, find_cell


@register_jitable
def gather_channel(x, first, kernel_size, stride, padding, out_size, row, channel, patches):
    """What all taps see of one channel at output position ``first + row``; 0 outside the map."""
    F = x.dtype.type
    height, width = x.shape[1], x.shape[2]
    group_in = x.shape[3] // patches.shape[0]
    group, at = channel // group_in, channel % group_in
    position = first + row
    n = position // (out_size[0] * out_size[1])
    top = position // out_size[1] % out_size[0] * stride - padding
    left = position % out_size[1] * stride - padding
    for y in range(top, top + kernel_size[0]):
        for column in range(left, left + kernel_size[1]):
            inside = y >= 0 and y < height and column >= 0 and column < width
            patches[group, row, at] = x[n, y, column, channel] if inside else F(0)
            at += group_in


@compiled()
def gather_patches_cpu(x, first, kernel_size, stride, padding, out_size, patches):
    for row in range(patches.shape[1]):
        for channel in range(x.shape[3]):
            gather_channel(x, first, kernel_size, stride, padding, out_size, row, channel, patches)


@register_jitable
def find_seen(x, n, y, column, channel):
    """Whether the map has a cell there, and the place of a channel of it. Without sign, what lies above or left of the
    map is far below and right of it."""
    n, y, column = np.uint32(n), np.uint32(y & 0xFFFFFFFF), np.uint32(column & 0xFFFFFFFF)
    inside = n < np.uint32(x.shape[0]) and y < np.uint32(x.shape[1]) and column < np.uint32(x.shape[2])
    cell = multiply_add(multiply_add(n, x.shape[1], y), x.shape[2], column)
    return inside, multiply_add(cell, x.shape[3], channel)


@register_jitable
def next_position(n, oy, ox, out_size):
    """The output position after this one; 32 bits are enough."""
    n, oy, ox = np.uint32(n), np.uint32(oy), np.uint32(ox + 1)
    if ox == np.uint32(out_size[1]):
        oy, ox = np.uint32(oy + np.uint32(1)), np.uint32(0)
    if oy == np.uint32(out_size[0]):
        n, oy = np.uint32(n + np.uint32(1)), np.uint32(0)
    return np.int64(n), np.int64(oy), np.int64(ox)


@register_jitable
def find_four_seen(x, position, stride, down, across, out_size, channel):
    """`find_seen` of what one tap sees at an output position and at the three after it."""
    n, oy, ox = position
    a = find_seen(x, n, oy * stride + down, ox * stride + across, channel)
    n, oy, ox = next_position(n, oy, ox, out_size)
    b = find_seen(x, n, oy * stride + down, ox * stride + across, channel)
    n, oy, ox = next_position(n, oy, ox, out_size)
    c = find_seen(x, n, oy * stride + down, ox * stride + across, channel)
    n, oy, ox = next_position(n, oy, ox, out_size)
    return a, b, c, find_seen(x, n, oy * stride + down, ox * stride + across, channel)


@register_jitable
def read_patch(x, seen):
    """A number of the map, 0 outside."""
    inside, place = seen
    return read_at(x, place) if inside else x.dtype.type(0)


@register_jitable
def read_four_of_patch(x, seen):
    """Four channels of the map side by side, 0 outside."""
    F, (inside, place) = x.dtype.type, seen
    values = (F(0), F(0), F(0), F(0))
    if inside:
        values = read_side_by_side(x, place)
    return values


@register_jitable
def gather_fours(x, seen, rows, places, patches):
    """Four channels at four output positions, into a column and the three behind it; all are read before the first is
    written, as memory is slow to answer."""
    a, b = read_four_of_patch(x, seen[0]), read_four_of_patch(x, seen[1])
    c, d = read_four_of_patch(x, seen[2]), read_four_of_patch(x, seen[3])
    write_side_by_side(a, places[0], patches)
    if rows[1] > rows[0]:
        write_side_by_side(b, places[1], patches)
    if rows[2] > rows[0]:
        write_side_by_side(c, places[2], patches)
    if rows[3] > rows[0]:
        write_side_by_side(d, places[3], patches)


@register_jitable
def gather_ones(x, seen, rows, places, patches):
    """The same of one channel."""
    a, b, c, d = read_patch(x, seen[0]), read_patch(x, seen[1]), read_patch(x, seen[2]), read_patch(x, seen[3])
    values = a, b if rows[1] > rows[0] else a, c if rows[2] > rows[0] else a, d if rows[3] > rows[0] else a
    write_places(values, places, patches)


def gather_patches_cuda(x, first, kernel_size, stride, padding, out_size, patches):
    """A thread has a tap of four channels, or of one, at four output positions."""
    groups, count, inner = patches.shape
    group_in, _ = divide(x.shape[3], groups)
    together = FOUR if group_in % FOUR == 0 else 1
    columns, _ = divide(groups * inner, together)
    quarter, column = divide(cuda.grid(1), columns)
    row = quarter * FOUR
    if row >= count:
        return
    group, column = divide(column * together, inner)
    tap, channel = divide(column, group_in)
    channel += group * group_in
    down, across = divide(tap, kernel_size[1])
    down, across = down - padding, across - padding
    position = find_cell(first + row, (0, out_size[0], out_size[1]))
    seen = find_four_seen(x, position, stride, down, across, out_size, channel)
    rows = choose_four(row, 1, count)
    places = places_of_rows(patches.shape, group, rows, column)
    if together == FOUR:
        gather_fours(x, seen, rows, places, patches)
    else:
        gather_ones(x, seen, rows, places, patches)


@register_jitable
def collect_place(patches, first, kernel_size, stride, padding, out_size, group_in, n, y, column, channel):
    """The sum of what the patches say about one channel of place (n, y, column) of x.

    Output position (oy, ox) saw it through tap (ky, kx) if y = oy * stride + ky - padding, and column alike: taps that
    do lie ``stride`` apart, and each next one belongs to the output position before.
    """
    group, total = channel // group_in, patches.dtype.type(0)
    oy = (y + padding) // stride
    for ky in range((y + padding) % stride, kernel_size[0], stride):
        ox = (column + padding) // stride
        for kx in range((column + padding) % stride, kernel_size[1], stride):
            if oy >= 0 and oy < out_size[0] and ox >= 0 and ox < out_size[1]:
                row = (n * out_size[0] + oy) * out_size[1] + ox - first
                total += patches[group, row, (ky * kernel_size[1] + kx) * group_in + channel % group_in]
            ox -= 1
        oy -= 1
    return total


@compiled()
def scatter_patches_cpu(patches, first, kernel_size, stride, padding, out_size, height, first_line, bias, relu, lines):
    F = lines.dtype.type
    group_in = lines.shape[2] // patches.shape[0]
    for line in range(lines.shape[0]):
        n, y = (first_line + line) // height, (first_line + line) % height
        for column in range(lines.shape[1]):
            for channel in range(lines.shape[2]):
                total = collect_place(patches, first, kernel_size, stride, padding, out_size, group_in, n, y, column,
                                      channel)  # fmt: skip
                lines[line, column, channel] = finish_value(total, bias, channel, relu, F)


@register_jitable
def read_four_columns(patches, row, groups, columns, tap):
    """Numbers of one row, each of a group and a column of its own; ``tap``: the column where a tap begins."""
    count, inner = patches.shape[1], patches.shape[2]
    places = (
        multiply_add(multiply_add(groups[0], count, row), inner, tap + columns[0]),
        multiply_add(multiply_add(groups[1], count, row), inner, tap + columns[1]),
        multiply_add(multiply_add(groups[2], count, row), inner, tap + columns[2]),
        multiply_add(multiply_add(groups[3], count, row), inner, tap + columns[3]),
    )
    return read_places(patches, places)


def scatter_patches_cuda(patches, first, kernel_size, stride, padding, out_size, height, first_line, bias, relu, lines):
    """Four channels of a place for each thread, which collects as `collect_place` does."""
    F = lines.dtype.type
    channels, group_in = lines.shape[2], np.uint32(lines.shape[2] // patches.shape[0])
    (n, line, column), lane, lanes = find_lane(cuda.grid(1), (1,) + lines.shape)
    if n > 0:
        return
    n, y = divide(first_line + line, height)
    last_oy, first_ky = divide(y + padding, stride)
    last_ox, first_kx = divide(column + padding, stride)
    together = group_in % FOUR == 0 and lies_in_fours(patches)  # the four are of one group, and side by side
    start, step = find_first(lane, lanes, channels)
    while start < channels:
        four = choose_four(start, step, channels)
        groups = four[0] // group_in, four[1] // group_in, four[2] // group_in, four[3] // group_in
        columns = four[0] % group_in, four[1] % group_in, four[2] % group_in, four[3] % group_in
        total = (F(0), F(0), F(0), F(0))
        ky, oy = first_ky, last_oy
        while ky < kernel_size[0]:
            kx, ox = first_kx, last_ox
            while kx < kernel_size[1]:
                if 0 <= oy and oy < out_size[0] and 0 <= ox and ox < out_size[1]:
                    row = (n * out_size[0] + oy) * out_size[1] + ox - first
                    tap = np.uint32((ky * kernel_size[1] + kx) * group_in)
                    if together:
                        at = multiply_add(groups[0], patches.shape[1], row)
                        seen = read_fours(patches, multiply_add(at, patches.shape[2], tap + columns[0]))
                    else:
                        seen = read_four_columns(patches, row, groups, columns, tap)
                    total = add_four(total, F(1), seen)
                kx, ox = kx + stride, ox - 1
            ky, oy = ky + stride, oy - 1
        if bias.size > 0:
            total = add_four(total, F(1), (bias[four[0]], bias[four[1]], bias[four[2]], bias[four[3]]))
        if relu:
            total = rectify_four(total, F)
        write_cell(total, four, multiply_add(line, lines.shape[1], column), lines)
        start += FOUR * lanes


def count_gatherers(x, *arguments) -> int:
    """Threads for the matrices of `gather_patches`."""
    groups, count, inner = arguments[-1].shape
    return groups * inner // (1 if x.shape[3] // groups % FOUR else FOUR) * -(-count // FOUR)


# gather_patches(x (N,H,W,Cin), first: int, kernel_size: (int, int), stride: int, padding: int, out_size: (int, int),
#                patches (groups, rows, KH * KW * Cin / groups))
# fills the rows of output positions ``first`` and on, counted by (n, oy, ox).
gather_patches = Twin(
    "gather_patches",
    gather_patches_cpu,
    gather_patches_cuda,
    threads=count_gatherers,
)

# scatter_patches(patches, first, kernel_size, stride, padding, out_size: as above, height: int, first_line: int,
#                 bias (Cin,) or (0,), relu: bool, lines (L, W, Cin))
# fills L lines of x, counted by (n, y), from ``first_line`` on. ``height`` is x's; the patches must hold every output
# position that saw one of these lines.
scatter_patches = Twin(
    "scatter_patches",
    scatter_patches_cpu,
    scatter_patches_cuda,
    threads=threads_of_cells,
)
