"""Convolution: three ways to the same numbers.

You learn what a convolution computes, what kernel, stride, padding and channels are, and how one is made fast: as
loops, as gathered patches times a matrix, and by Winograd's algorithm, which needs a quarter of the multiplications.
You count the multiplications of each, and see what a kernel does to a picture.

In the article: named in sections 1, 2 and 4, explained nowhere. In the papers: Lavin and Gray 2016, Fast Algorithms
for Convolutional Neural Networks, sections 4.1 and 4.3; Goto and van de Geijn 2008 for matrix products.
In the package: `minimrcnn/reference.py` (conv2d), in `minimrcnn/functional/` `conv.py` and `conv_cpu.py` and, in
`minimrcnn/kernels/`, `convolution.py`, `product.py`, `winograd.py`. For a GPU: `functional/conv_cuda.py`.
Before: NumPy. Lesson 1 says what a feature map is.
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from style import BLACK, BLUE, GREEN, ORANGE, RED, SIGNED, agree, draw_box, draw_grid, save, section

from minimrcnn import functional, reference
from minimrcnn.data.shapes import Shapes
from minimrcnn.kernels import convolution, winograd

generator = np.random.default_rng(2)

# %% The definition, as loops
section("First way: loops")

# A kernel is a small grid of weights; its cells are called taps. Lay it over the map, multiply every tap with the
# number under it, add it all up: one output number. Move the kernel on by one cell (the stride) and do it again. With
# more than one channel, the kernel has weights for each of them and the sum runs over all; for more than one output
# channel there is one such kernel for each. Arrays: x (H, W, Cin), weight (KH, KW, Cin, Cout). A rim of zeros around x
# is its padding. (Mathematicians turn the kernel around first; for networks, nobody does.)
# The word has a second meaning: the compiled inner loop of an operation is called a kernel as well (lesson 17). The
# folder `minimrcnn/kernels` is named after those; in this lesson a kernel is a grid of weights.


def convolve(x, weight, stride=1, padding=0):
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    kernel_y, kernel_x, channels_in, channels_out = weight.shape
    height, width = (x.shape[0] - kernel_y) // stride + 1, (x.shape[1] - kernel_x) // stride + 1
    y = np.zeros((height, width, channels_out))
    multiplications = 0
    for row in range(height):
        for column in range(width):
            for out in range(channels_out):
                for i in range(kernel_y):
                    for j in range(kernel_x):
                        for channel in range(channels_in):
                            number = x[row * stride + i, column * stride + j, channel]
                            y[row, column, out] += number * weight[i, j, channel, out]
                            multiplications += 1
    return y, multiplications


rows, columns = np.mgrid[:6, :6]
x = (rows + 6.0 * (columns >= 3))[:, :, None]  # (6, 6, 1): grows downwards by 1, jumps by 6 in the middle
edge = np.array([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])[:, :, None, None]  # right minus left: Sobel's edge kernel
y, count = convolve(x, edge)
agree("what the kernel sees for output cell (1, 2)", x[1:4, 2:5, 0], [[1, 7, 7], [2, 8, 8], [3, 9, 9]])
agree("output cell (1, 2) = -1 + 7 - 2 * 2 + 2 * 8 - 3 + 9", y[1, 2], [24])
agree("every output row: the jump, and nothing of the growth downwards", y[:, :, 0], [[0, 24, 24, 0]] * 4)
agree("multiplications: 4 * 4 outputs of 9 taps", count, 144)
agree(
    "loops against minimrcnn.reference", abs(y - reference.conv2d(x[None], edge)[0]).max(), 0
)  # x[None]: (N, H, W, C)
agree("loops against the package", abs(y - functional.conv2d(x[None], edge).numpy()[0]).max(), 0)

# The size of the output: (H + 2 padding - K) // stride + 1. A 3x3 kernel with padding 1 keeps the size; the first
# layer of ResNet, 7x7 with stride 2 and padding 3, halves it.
agree("padding 1 keeps 6", convolve(x, edge, padding=1)[0].shape, (6, 6, 1))
agree("7x7, stride 2, padding 3: 128 becomes", functional.conv_shapes.output_size((128, 128), (7, 7), 2, 3), (64, 64))

figure, axes = plt.subplots(1, 3, figsize=(12, 4.3), width_ratios=(6, 3, 4))
draw_grid(axes[0], x[:, :, 0], digits=0)
draw_box(axes[0], (2, 1, 5, 4))
axes[0].set(title="Map: the kernel lies over rows 1 to 3,\ncolumns 2 to 4")
draw_grid(axes[1], edge[:, :, 0, 0], digits=0, heat=SIGNED, vmin=-4, vmax=4)
axes[1].set(title="Kernel: right minus left", xticks=range(4), yticks=range(4))
draw_grid(axes[2], y[:, :, 0], digits=0)
draw_box(axes[2], (2, 1, 3, 2))
axes[2].set(title="Output: cell (1, 2) is 24", xticks=range(5), yticks=range(5))
save(figure, "02_sliding")

# %% What kernels see in a picture
section("Kernels on a picture")

picture = Shapes(1, seed=7)[0][0].mean(axis=2)[:, :, None] / 255  # (128, 128, 1), gray, 0 to 1
blur = np.full((9, 9, 1, 1), 1 / 81)
kernels = {"right minus left": edge / 8, "below minus above": edge.swapaxes(0, 1) / 8, "mean of 9x9": blur}
agree("the blur keeps what is constant (inside)", functional.conv2d(np.ones((1, 9, 9, 1)), blur).numpy().ravel(), [1])
agree("an edge kernel sees nothing there", functional.conv2d(np.ones((1, 3, 3, 1)), edge).numpy().ravel(), [0])
# Nobody writes kernels into Mask R-CNN: training finds them. In first layers it finds edge kernels as well.

figure, axes = plt.subplots(1, 4, figsize=(13, 3.6))
axes[0].imshow(picture[:, :, 0], cmap="gray", vmin=0, vmax=1)
for axis, (name, kernel) in zip(axes[1:], kernels.items(), strict=True):
    values = functional.conv2d(picture[None], kernel).numpy()[0, :, :, 0]
    heat, low, high = ("gray", 0, 1) if name == "mean of 9x9" else (SIGNED, -0.35, 0.35)
    axis.imshow(values, cmap=heat, vmin=low, vmax=high)
for axis, name in zip(axes, ["picture", *kernels], strict=True):
    axis.set_axis_off()
    axis.set_title(name)
figure.colorbar(
    axes[1].images[0], ax=axes[1:3], shrink=0.7, location="bottom", label="below 0: it gets darker; above 0: brighter"
)
save(figure, "02_edges")

# %% Patches: a convolution is one matrix product
section("Second way: gathered patches times a matrix")

# Write what the kernel sees at each output cell into one row of a matrix: 16 rows of 9 numbers here. The kernel becomes
# a column of 9. Their product is the output. Matrix products are what processors do best.


def gather(x, size):
    height, width = x.shape[0] - size + 1, x.shape[1] - size + 1
    patches = np.zeros((height * width, size * size * x.shape[2]))
    for row in range(height):
        for column in range(width):
            patches[row * width + column] = x[row : row + size, column : column + size].ravel()
    return patches


patches = gather(x, 3)
agree("row 6, for output cell (1, 2)", patches[6], [1, 7, 7, 2, 8, 8, 3, 9, 9])
agree("patches @ kernel against loops", abs(patches @ edge.reshape(9, 1) - y.reshape(16, 1)).max(), 0)
# `gather_patches` of the package does this, compiled. `py_func` is its Python, to be stepped through. (Under
# NUMBA_DISABLE_JIT=1 nothing is compiled, and the function itself is Python.) Its arguments: the map, the first output
# cell and how many, the size of the kernel, stride, padding, the size of the output, the first tap and how many, the
# first channel and how many, and the matrix to fill.
step_through = getattr(convolution.gather_patches, "py_func", convolution.gather_patches)
theirs = np.empty((16, 9))
step_through(x[None], 0, 16, (3, 3), 1, 0, (4, 4), 0, 9, 0, 1, theirs)
agree("the package's patch matrix", abs(theirs - patches).max(), 0)
# The price is memory: every number is written down nine times. For 256 channels at 200x272, in float32 (4 bytes):
agree("map and patch matrix in MB", [200 * 272 * 256 * 4 / 1e6, 9 * 200 * 272 * 256 * 4 / 1e6], [55.7056, 501.3504])
# So `convolve_patches_cpu` gathers a block of rows at a time, small enough for the processor's own fast memory (cache),
# and multiplies it. While the result is still there, it adds the bias (one number for each output channel) and, if
# asked, sets what is negative to 0 (ReLU). Then comes the next block. How the product itself is made, so that a number
# that was read is used many times, is told at the top of `kernels/product.py`.

figure, axes = plt.subplots(1, 3, figsize=(11, 5.2), width_ratios=(9, 1.6, 1.6))
draw_grid(axes[0], patches, digits=0)
draw_box(axes[0], (0, 6, 9, 7))
axes[0].set(
    title="patches (16, 9), times ...", xlabel="tap of the kernel", ylabel="output cell, row by row", aspect="auto"
)
draw_grid(axes[1], edge.reshape(9, 1), digits=0, heat=SIGNED, vmin=-4, vmax=4)
axes[1].set(title="kernel (9, 1), ...", xticks=[], xlabel="", ylabel="tap", aspect="auto")
draw_grid(axes[2], y.reshape(16, 1), digits=0)
draw_box(axes[2], (0, 6, 1, 7))
axes[2].set(title="is output (16, 1)", xticks=[], xlabel="", ylabel="output cell", aspect="auto")
save(figure, "02_patches")

# %% Winograd in one dimension: F(2, 3)
section("Third way: Winograd")

# Two neighboring outputs of a kernel of three taps, y0 = d0 g0 + d1 g1 + d2 g2 and y1 = d1 g0 + d2 g1 + d3 g2, take six
# multiplications. Four are enough:
d0, d1, d2, d3 = 2, 1, 4, 3  # four inputs
g0, g1, g2 = 1, 2, 3  # the kernel
m1 = (d0 - d2) * g0
m2 = (d1 + d2) * (g0 + g1 + g2) / 2
m3 = (d2 - d1) * (g0 - g1 + g2) / 2
m4 = (d1 - d3) * g2
agree("m1, m2, m3, m4", [m1, m2, m3, m4], [-2, 15, 3, -6])
agree("y0 = m1 + m2 + m3 and y1 = m2 - m3 - m4", [m1 + m2 + m3, m2 - m3 - m4], [16, 18])
agree("the plain way", [d0 * g0 + d1 * g1 + d2 * g2, d1 * g0 + d2 * g1 + d3 * g2], [16, 18])
# Why it works: m2 + m3 is d1 g1 + d2 (g0 + g2), and m1 = d0 g0 - d2 g0 makes y0 of it; m2 - m3 is d1 (g0 + g2) + d2 g1,
# and taking away m4 = d1 g2 - d3 g2 makes y1 of it. Sums like (g0 + g1 + g2) / 2 are made once for the whole map, sums
# of inputs once for all output channels: only the products remain.

# %% Winograd in two dimensions: F(4x4, 3x3), the package's
# The package takes four outputs from six inputs, with six multiplications instead of twelve, and does it along both
# axes: a 4x4 tile of outputs from a 6x6 patch of inputs, 36 multiplications instead of 144. The sums are matrices: B'
# for inputs, G for the kernel, A' for outputs (' is the transpose, .T). They come from polynomials taken at 0, 1, -1,
# 2, -2 and infinity, which Lavin and Gray derive; here it is enough that they give the same numbers. Below they are
# read off the package's functions with unit vectors; 1/4 and 1/6 are constants of G.
B_t = np.array([winograd.transform_input(*unit) for unit in np.eye(6)]).T  # (6, 6)
G = np.array([winograd.transform_kernel(*unit, 1 / 4, 1 / 6) for unit in np.eye(3)]).T  # (6, 3)
A_t = np.array([winograd.transform_output(*unit) for unit in np.eye(6)]).T  # (4, 6)
agree("B', for six inputs", B_t, [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
                                  [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]])  # fmt: skip
agree("A', for four outputs", A_t, [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0],
                                    [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])  # fmt: skip
agree("24 * G, for three taps", 24 * G, [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]])


def convolve_winograd(x, weight):
    """x (H, W, Cin), padding 1, 4 divides H and W."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = np.zeros((*x.shape[:2], weight.shape[3]))
    U = np.einsum("ai,ijcd,bj->abcd", G, weight, G)  # (6, 6, Cin, Cout): once for the map
    for row in range(0, x.shape[0], 4):
        for column in range(0, x.shape[1], 4):
            patch = padded[row : row + 6, column : column + 6]  # patches overlap by two cells
            V = np.einsum("ai,ijc,bj->abc", B_t, patch, B_t)  # (6, 6, Cin): B' d B for every channel
            M = np.einsum("abc,abcd->abd", V, U)  # (6, 6, Cout): the only place where channels meet
            y[row : row + 4, column : column + 4] = np.einsum("ai,ijd,bj->abd", A_t, M, A_t)
    return y


x, weight = generator.standard_normal((8, 12, 5)), generator.standard_normal((3, 3, 5, 7))
loops, count = convolve(x, weight, padding=1)
agree("largest error against the loops", abs(convolve_winograd(x, weight) - loops).max(), 0, tolerance=1e-12)
agree("against minimrcnn.reference", abs(loops - reference.conv2d(x[None], weight, padding=1)[0]).max(), 0)
for algorithm in ("patches", "winograd"):
    result = functional.conv2d(x[None], weight, padding=1, algorithm=algorithm).numpy()[0]
    agree(f'the package, algorithm="{algorithm}"', abs(result - loops).max(), 0, tolerance=1e-12)
agree("multiplications, loops and Winograd (6 tiles)", [count, 6 * 36 * 5 * 7], [30240, 7560])

# The transforms of inputs and outputs are additions (the package takes d + d for 2 d), which we did not count: some
# hundred for each of Cin + Cout channels of a tile, beside 36 * Cin * Cout multiplications. So Winograd pays with many
# channels and does not with three.
# And it costs digits: in sums like 8 m4 - 8 m5 (the last row of A') some cancel. In float32, a map of 52x68 with 256
# channels:
x = generator.standard_normal((1, 52, 68, 256), dtype=np.float32)
weight = generator.standard_normal((3, 3, 256, 256), dtype=np.float32)
exact = functional.conv2d(x.astype(float), weight.astype(float), padding=1, algorithm="patches").numpy()
for algorithm in ("patches", "winograd"):
    functional.conv2d(x, weight, padding=1, algorithm=algorithm)  # the first call may compile
    times = []
    for _ in range(5):
        start = time.perf_counter()
        result = functional.conv2d(x, weight, padding=1, algorithm=algorithm).numpy()
        times.append(1000 * (time.perf_counter() - start))
    error = abs(result - exact).max() / abs(exact).max()
    print(f"{algorithm}: error {error:.1e} of the largest output; the best of five took {min(times):.0f} ms here")
    assert error < 5e-5

figure, (map_axes, bar_axes) = plt.subplots(1, 2, figsize=(11, 4.4), width_ratios=(1.15, 1))
for place in range(-1, 14):
    map_axes.plot([place, place], [-1, 9], color="#D0D0D0", linewidth=0.6, zorder=0.5)
    map_axes.plot([-1, 13], [min(place, 9)] * 2, color="#D0D0D0", linewidth=0.6, zorder=0.5)
draw_box(map_axes, (0, 0, 12, 8), color=BLACK, width=1)
map_axes.text(11.8, 7.8, "map of 12x8 cells", ha="right", va="bottom")
map_axes.text(12.9, 8.9, "padding", ha="right", va="bottom")
for column, color, dashed in ((0, BLUE, False), (4, RED, True)):
    draw_box(map_axes, (column - 1, -1, column + 5, 5), color=color, dashed=dashed)
    map_axes.fill_between([column, column + 4], 0, 4, color=color, alpha=0.25, linewidth=0)
    map_axes.text(column + 2, 2, "4x4\noutputs", ha="center", va="center")
map_axes.set(xlabel="x", ylabel="y", xlim=(-1.2, 13.2), ylim=(9.2, -1.2), aspect="equal",
             title="Two tiles and their 6x6 patches")  # fmt: skip
bars = bar_axes.bar(["loops or\npatches", "F(2x2, 3x3)", "F(4x4, 3x3)"], [9, 4, 2.25], color=[BLUE, ORANGE, GREEN])
bar_axes.bar_label(bars, labels=["9", "16 / 4 = 4", "36 / 16 = 2.25"])
bar_axes.set(ylabel="multiplications for an output\nand a pair of channels", title="3x3 convolution", ylim=(0, 10))
save(figure, "02_winograd")

# %% Exercises
# 1. ResNet's first layer makes 64 maps of 64x64 from a 128x128 picture of 3 channels, with a 7x7 kernel. How many
#    multiplications is that? (Between 38 and 39 million.)
answer = None
assert answer is None or answer == 64 * 64 * 7 * 7 * 3 * 64

# 2. Write down A', B' and G of F(2, 3) from the four products above, shapes (2, 4), (4, 4), (4, 3), and convolve a 4x4
#    patch with a 3x3 kernel by A' [(G g G') * (B' d B)] A (* entry by entry): `convolve` must give the same 2x2
#    numbers, from 16 multiplications instead of 36.

# 3. Write `conv2d(x, weight, bias, stride, padding)` into a copy of exercises/start_here.py, for x (N, H, W, Cin). The
#    grader tries it on odd sizes, strides and paddings: minimrcnn check my_functions.py --only conv2d
