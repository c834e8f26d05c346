"""Patches as a matrix, written out and added back: the two steps around the product of a convolution on a GPU.

Row (n, oy, ox) of the patch matrix holds what the kernel sees at that output position: KH * KW * Cin numbers. Times the
kernel as a matrix, it is the convolution. On a CPU the patches of a block never leave a core's cache, so gathering is
part of one loop with the product (`kernels.convolution`). On a GPU the product is the library's (cuBLAS), a kernel of
its own that reads whole matrices; so the patches are written to memory before it:

- `gather_patches`: from x to patches;
- `scatter_patches`: from the patches' gradients back to x. A place of x was seen by several patches. Instead of every
  patch adding to the places it saw (two threads would meet at one place, and the order of a sum would depend on who
  came first), every place collects from the patches that saw it, in the order of the taps.

A thread has one channel of one output position, or of one place, and goes over the taps: what a division costs is paid
once for all of them, and neighboring threads, which have neighboring channels, read and write neighboring numbers.

Shapes: x (N, H, W, Cin), patches (groups, rows, KH * KW * Cin / groups).
"""

from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.epilogue import finish_value
from minimrcnn.kernels.twin import Twin, cuda


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


def gather_patches_cuda(x, first, kernel_size, stride, padding, out_size, patches):
    element = cuda.grid(1)
    channels = x.shape[3]
    if element < patches.shape[1] * channels:
        row, channel = element // channels, element % channels
        gather_channel(x, first, kernel_size, stride, padding, out_size, row, channel, patches)


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


def scatter_patches_cuda(patches, first, kernel_size, stride, padding, out_size, height, first_line, bias, relu, lines):
    element = cuda.grid(1)
    if element < lines.size:
        F = lines.dtype.type
        width, channels = lines.shape[1], lines.shape[2]
        line, column, channel = element // (width * channels), element // channels % width, element % channels
        n, y = (first_line + line) // height, (first_line + line) % height
        total = collect_place(patches, first, kernel_size, stride, padding, out_size, channels // patches.shape[0], n,
                              y, column, channel)  # fmt: skip
        lines[line, column, channel] = finish_value(total, bias, channel, relu, F)


# gather_patches(x (N,H,W,Cin), first: int, kernel_size: (int, int), stride: int, padding: int, out_size: (int, int),
#                patches (groups, rows, KH * KW * Cin / groups))
# fills the rows of output positions ``first`` and on, counted by (n, oy, ox).
gather_patches = Twin(
    "gather_patches",
    gather_patches_cpu,
    gather_patches_cuda,
    threads=lambda *arguments: arguments[-1].shape[1] * arguments[0].shape[3],
)

# scatter_patches(patches, first, kernel_size, stride, padding, out_size: as above, height: int, first_line: int,
#                 bias (Cin,) or (0,), relu: bool, lines (L, W, Cin))
# fills L lines of x, counted by (n, y), from ``first_line`` on. ``height`` is x's; the patches must hold every output
# position that saw one of these lines.
scatter_patches = Twin("scatter_patches", scatter_patches_cpu, scatter_patches_cuda)
