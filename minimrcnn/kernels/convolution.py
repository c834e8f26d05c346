"""Convolution by blocks of gathered patches: every kernel size, stride, padding and number of groups.

A convolution is one matrix product in disguise. Row (n, oy, ox) of the patch matrix holds the KH * KW * Cin numbers
that the kernel sees at that output position; times the kernel as a (KH * KW * Cin, Cout) matrix it gives the output
row. The whole patch matrix would be KH * KW times the picture, so it is made block by block:

1. ``prange`` over blocks of output rows;
2. gather the block's patches into the thread's own buffer (a 1x1 kernel needs no gathering, one that sees few channels
   next to none);
3. one product with the kernel (`kernels.product`);
4. the epilogue on the block while it is still in cache: bias, residual, ReLU.

The gradients are products as well. With respect to the input each tap of the kernel sends the output's gradient back
to the places it read; the blocks own their places, so nothing is written twice. With respect to the kernel it is
patches transposed times the output's gradient, by pieces of the patch matrix's columns.

Shapes: x (N, H, W, Cin), y (N, OH, OW, Cout), weight as panels (P, K, width) of the (K, Cout / groups) matrix of each
group, K = KH * KW * Cin / groups; a zero-size array stands for "no bias" and "no residual". A parallel kernel is a loop
over calls of a compiled task: written inside the parallel loop, the same lines took twice as long to compile. What is
copied or added channel by channel is cut out as a row first, as `winograd.py` explains.
"""

import numpy as np
from numba import get_thread_id, prange
from numba.extending import register_jitable
from numpy.lib.stride_tricks import as_strided

from minimrcnn.kernels.compiled import clear, compiled, compiled_task
from minimrcnn.kernels.product import multiply, multiply_runs, pack
from minimrcnn.kernels.twin import Twin


@compiled_task
def gather_patches(x, first, count, kernel_size, stride, padding, out_size, first_tap, taps, first_channel, channels,
                   patches):  # fmt: skip
    """patches[r, t * channels + c] = what tap ``first_tap + t`` sees of channel ``first_channel + c`` at row ``first +
    r``.

    Taps of one kernel row lie side by side in memory if all channels are wanted, and are copied as one run. A run is
    short: places are counted in unsigned numbers, which saves cutting out rows (7 ms become 2.4 ms for 7x7 taps of 3
    channels).
    """
    height, width, all_channels = x.shape[1], x.shape[2], x.shape[3]
    source, target = x.reshape(-1), patches.reshape(-1)
    longest = kernel_size[1] if channels == all_channels else 1
    at = np.uint64(0)
    for r in range(count):
        row = first + r
        n = row // (out_size[0] * out_size[1])
        left = row % out_size[1] * stride - padding
        y = row // out_size[1] % out_size[0] * stride - padding + first_tap // kernel_size[1]
        t, kx = 0, first_tap % kernel_size[1]
        while t < taps:
            run, column = min(kernel_size[1] - kx, taps - t, longest), left + kx
            if run > 1 and (column < 0 or column + run > width):
                run = 1  # at the edge, one by one
            length = np.uint64(run * channels)
            if 0 <= y < height and 0 <= column < width:
                start = np.uint64(((n * height + y) * width + column) * all_channels + first_channel)
                for c in range(length):
                    target[at + c] = source[start + c]
            else:
                for c in range(length):
                    target[at + c] = 0
            at += length
            t += run
            kx += run
            if kx == kernel_size[1]:
                kx = 0
                y += 1


@compiled_task
def finish_rows(rows, bias, residual, relu):
    """rows += bias, += residual, ReLU: in place, (B, C)."""
    for r in range(rows.shape[0]):
        row = rows[r]
        if bias.size:
            for c in range(row.size):
                row[c] += bias[c]
        if residual.size:
            other = residual[r]
            for c in range(row.size):
                row[c] += other[c]
        if relu:
            for c in range(row.size):
                if row[c] < 0:  # written so that NaN stays NaN
                    row[c] = 0


@register_jitable
def find_inside(width, kernel_width, stride, padding, out_width):
    """(first, last): outputs first .. last - 1 of a line see nothing to the left or the right of the map."""
    first = min((padding + stride - 1) // stride, out_width)
    return first, max(min((width + padding - kernel_width) // stride + 1, out_width), first)


@register_jitable
def find_taps(start, taps, cells):
    """(first, last): taps first .. last - 1 of a kernel see one of so many cells, if the first tap is at ``start``."""
    return max(0, -start), min(taps, cells - start)


@compiled_task
def convolve_line(x, weight, kernel_size, stride, padding, out_size, number, patches, line):
    """``line`` (OW, Cout) = line ``number`` of the output, counted through all pictures, gathering only at its ends.

    What one row of the kernel sees, place after place, is in memory already, as a matrix (OW, KW * Cin) whose rows
    begin ``stride * Cin`` numbers apart and overlap. So away from the map's sides the patches are a view of x. With
    few channels, gathering took as long as the product. Above and below the map there is nothing to multiply: a weight
    that is not finite makes no NaN out of the zeros there.
    """
    height, width, channels = x.shape[1], x.shape[2], x.shape[3]
    n, top, run = number // out_size[0], number % out_size[0] * stride - padding, kernel_size[1] * channels
    first, last = find_inside(width, kernel_size[1], stride, padding, len(line))
    above, below = find_taps(top, kernel_size[0], height)  # the kernel's rows that see the map
    if first < last and above < below:
        corner = x[n, top + above :, first * stride - padding :]
        seen = as_strided(corner, (last - first, below - above, run), (stride * x.strides[2], x.strides[1], x.itemsize))
        multiply_runs(seen, weight[:, above * run : below * run, :], np.int64(0), line[first:last, :])
    else:
        clear(line[first:last])
    for start, stop in ((np.int64(0), first), (last, np.int64(len(line)))):
        count = stop - start
        gather_patches(x, number * len(line) + start, count, kernel_size, stride, padding, out_size, np.int64(0),
                       kernel_size[0] * kernel_size[1], np.int64(0), channels, patches)  # fmt: skip
        multiply(patches[:count], weight, np.int64(0), line[start:stop])


@compiled_task
def convolve_rows(x, x_rows, weight, bias, residual, relu, kernel_size, stride, padding, out_size, in_lines, first,
                  patches, output):  # fmt: skip
    """Steps 2 to 4 for output rows first .. first + len(output)."""
    groups, inner = weight.shape[0], weight.shape[2]
    taps = kernel_size[0] * kernel_size[1]
    group_in, group_out = inner // taps, output.shape[1] // groups
    rows = len(output)
    for g in range(groups):
        target = output[:, g * group_out : (g + 1) * group_out]
        if taps == 1 and stride == 1 and padding == 0 and groups == 1:
            multiply(x_rows[first : first + rows], weight[g], np.int64(0), target)
        elif in_lines:
            convolve_line(x, weight[g], kernel_size, stride, padding, out_size, first // rows, patches, target)
        else:
            gather_patches(x, first, rows, kernel_size, stride, padding, out_size, np.int64(0), taps, g * group_in,
                           group_in, patches[:rows])  # fmt: skip
            multiply(patches[:rows], weight[g], np.int64(0), target)
    finish_rows(output, bias, residual, relu)


@compiled(parallel=True)
def convolve_patches_cpu(x, weight, bias, residual, relu, kernel_size, stride, padding, out_size, in_lines, patches,
                         output):  # fmt: skip
    """output (N*OH*OW, Cout) = patches @ weight, with the epilogue; one block for each ``patches.shape[1]`` rows.

    weight is (groups, P, K, width), ``patches`` (threads, block, K) is scratch; residual is (N*OH*OW, Cout) or empty.
    With ``in_lines``, for one group, a block is a line and `convolve_line` does it.
    """
    rows, block = output.shape[0], patches.shape[1]
    x_rows = x.reshape(-1, x.shape[3])
    for b in prange((rows + block - 1) // block):
        last = min((b + 1) * block, rows)
        convolve_rows(x, x_rows, weight, bias, residual[b * block : last], relu, kernel_size, stride, padding, out_size,
                      in_lines, b * block, patches[get_thread_id()], output[b * block : last])  # fmt: skip


@compiled_task
def gather_gradients(y_gradient, phase_size, first, count, offset_y, offset_x, first_channel, taken):
    """taken[r] = the output's gradient that reaches place ``first + r`` of a phase by one tap, or 0."""
    for r in range(count):
        n = (first + r) // (phase_size[0] * phase_size[1])
        oy = (first + r) // phase_size[1] % phase_size[0] + offset_y
        ox = (first + r) % phase_size[1] + offset_x
        target = taken[r]
        if 0 <= oy < y_gradient.shape[1] and 0 <= ox < y_gradient.shape[2]:
            source = y_gradient[n, oy, ox, first_channel : first_channel + target.size]
            for c in range(target.size):
                target[c] = source[c]
        else:
            for c in range(target.size):
                target[c] = 0


@compiled_task
def send_back_rows(y_gradient, y_rows, weight, bias, relu, kernel_size, stride, padding, phase_y, phase_x, phase_size,
                   first, count, taken, sums, x_gradient):  # fmt: skip
    """x_gradient at places first .. first + count of one phase: the sum over the taps that reach them."""
    height, width = x_gradient.shape[1], x_gradient.shape[2]
    groups, taps, group_out = weight.shape[0], weight.shape[1], weight.shape[3]
    group_in = sums.shape[1]
    is_direct = groups == 1 and stride == 1  # places follow each other as in x_gradient: no copy is needed
    total = x_gradient.reshape(-1, group_in)[first : first + count] if is_direct else sums[:count]
    for g in range(groups):
        reached = np.int64(0)
        for tap in range(taps):
            from_y = phase_y + padding - tap // kernel_size[1]
            from_x = phase_x + padding - tap % kernel_size[1]
            if from_y % stride or from_x % stride:
                continue
            offset_y, offset_x = from_y // stride, from_x // stride
            if groups == 1 and offset_y == offset_x == 0 and phase_size == y_gradient.shape[1:3]:  # in the same order
                sent = y_rows[first : first + count]
            else:
                sent = taken[:count]
                gather_gradients(y_gradient, phase_size, first, count, offset_y, offset_x, g * group_out, sent)
            multiply(sent, weight[g, tap], reached, total)
            reached = np.int64(1)
        if not reached:
            clear(total)
        finish_rows(total, bias[g * group_in : (g + 1) * group_in], total[:0], relu)
        for r in range(0 if is_direct else count):
            n = (first + r) // (phase_size[0] * phase_size[1])
            y = phase_y + (first + r) // phase_size[1] % phase_size[0] * stride
            column = phase_x + (first + r) % phase_size[1] * stride
            if y < height and column < width:
                target, source = x_gradient[n, y, column, g * group_in : (g + 1) * group_in], total[r]
                for c in range(target.size):
                    target[c] = source[c]


@compiled(parallel=True)
def convolve_input_gradient_cpu(y_gradient, weight, bias, relu, kernel_size, stride, padding, gathered, sums,
                                x_gradient):  # fmt: skip
    """x_gradient (N, H, W, Cin) of a convolution, and with a bias and ReLU the transposed convolution itself.

    Place (y, x) was read by tap (ky, kx) of output (oy, ox) where y = oy * stride + ky - padding. Places with the same
    remainders of y and x by the stride are reached by the same taps: they are one phase, and blocks are cut within
    phases. weight is (groups, KH * KW, P, Cout / groups, width), panels of every tap's (Cout, Cin) / groups matrix;
    ``gathered`` (threads, block, Cout / groups) and ``sums`` (threads, block, Cin / groups) are scratch; without groups
    and stride, sums go where they belong at once.
    """
    y_rows = y_gradient.reshape(-1, y_gradient.shape[3])
    block = gathered.shape[1]
    phase_size = (
        (x_gradient.shape[1] + stride - 1) // stride,
        (x_gradient.shape[2] + stride - 1) // stride,
    )  # of the largest
    places = x_gradient.shape[0] * phase_size[0] * phase_size[1]
    blocks = (places + block - 1) // block
    for task in prange(stride * stride * blocks):
        me = get_thread_id()
        first = task % blocks * block
        send_back_rows(y_gradient, y_rows, weight, bias, relu, kernel_size, stride, padding, task // blocks // stride,
                       task // blocks % stride, phase_size, first, min(block, places - first), gathered[me], sums[me],
                       x_gradient)  # fmt: skip


@compiled_task
def add_patches_product(x, y_gradient, y_rows, kernel_size, stride, padding, first_tap, taps, first_channel, channels,
                        group, first_row, last_row, block, gathered, panels, total):  # fmt: skip
    """total (taps * channels, Cout / groups) = patches' @ y_gradient over rows first_row .. last_row, by blocks."""
    width, group_out = total.shape
    out_size = y_gradient.shape[1], y_gradient.shape[2]
    if first_row == last_row:
        clear(total)
    for row in range(first_row, last_row, block):
        count = min(block, last_row - row)
        patches = gathered[: count * width].reshape(count, width)
        gather_patches(
            x, row, count, kernel_size, stride, padding, out_size, first_tap, taps, first_channel, channels, patches
        )
        pack(y_rows[row : row + count, group * group_out : (group + 1) * group_out], panels[:, :count])
        multiply(patches.T, panels[:, :count], np.int64(row > first_row), total)


@compiled_task
def sum_parts(parts, row, target):
    """target (C,) = the sum over parts[:, row], in order."""
    for s in range(len(parts)):
        part = parts[s, row]
        for c in range(target.size):
            target[c] = part[c] if s == 0 else target[c] + part[c]


@compiled(parallel=True)
def convolve_weight_gradient_cpu(x, y_gradient, kernel_size, stride, padding, taps_per_piece, channels_per_piece,
                                 gathered, panels, sums, weight_gradient):  # fmt: skip
    """weight_gradient (groups, KH * KW * Cin / groups, Cout / groups) = patches transposed @ y_gradient.

    Tasks are pieces of the patch matrix's columns (some taps, or some channels of one tap), times ``splits`` shares of
    its rows; each task owns its piece of ``sums`` (splits, groups * K, Cout / groups), which are added up at the end.
    With one share, ``sums`` may be weight_gradient itself: a small map's gradient is as large as its kernel, and would
    be written twice. ``gathered`` (threads, block * piece) and ``panels`` (threads, P, block, width) of y_gradient are
    scratch.
    """
    groups, inner, group_out = weight_gradient.shape
    taps = kernel_size[0] * kernel_size[1]
    group_in = inner // taps
    y_rows = y_gradient.reshape(-1, y_gradient.shape[3])
    rows, splits = y_rows.shape[0], sums.shape[0]
    tap_pieces = (taps + taps_per_piece - 1) // taps_per_piece
    channel_pieces = (group_in + channels_per_piece - 1) // channels_per_piece
    pieces = groups * tap_pieces * channel_pieces
    for task in prange(pieces * splits):
        me = get_thread_id()
        split = task // pieces
        group = task // (tap_pieces * channel_pieces) % groups
        first_tap = task // channel_pieces % tap_pieces * taps_per_piece
        first_channel = task % channel_pieces * channels_per_piece
        some_taps = min(taps_per_piece, taps - first_tap)
        some_channels = min(channels_per_piece, group_in - first_channel)
        start = group * inner + first_tap * group_in + first_channel
        add_patches_product(x, y_gradient, y_rows, kernel_size, stride, padding, first_tap, some_taps,
                            group * group_in + first_channel, some_channels, group, rows * split // splits,
                            rows * (split + 1) // splits, panels.shape[2], gathered[me], panels[me],
                            sums[split, start : start + some_taps * some_channels])  # fmt: skip
    target = weight_gradient.reshape(groups * inner, group_out)
    for k in prange(groups * inner if splits > 1 else 0):
        sum_parts(sums, np.int64(k), target[k])


# On a GPU a convolution is several kernels: `functional.conv_cuda`.
convolve_patches = Twin("convolve_patches", convolve_patches_cpu)
convolve_input_gradient = Twin("convolve_input_gradient", convolve_input_gradient_cpu)
convolve_weight_gradient = Twin("convolve_weight_gradient", convolve_weight_gradient_cpu)
