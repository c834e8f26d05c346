"""The feature pyramid (FPN).

You learn how four feature maps of one picture, fine and shallow to coarse and deep, become five maps that all know
what the deepest one knows: a 1x1 convolution on each, nearest 2x upsampling, addition, a 3x3 convolution. You see the
jagged steps that upsampling leaves, in the map and in its spectrum, and what a 3x3 kernel can do about them. Last comes
P6, where the article errs.

Article: section 2, ResNet-FPN. Papers: Lin et al. 2017, Feature Pyramid Networks, section 3; Mask R-CNN, section 3.
In the package: models/pyramid.py, functional/resize.py, functional/pool.py, kernels/resize.py.
Before: lesson 1 (bilinear interpolation), lesson 2 (convolution), lesson 4 (ResNet, C2 to C5).
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, GRAY, GREEN, ORANGE, RED, agree, draw_arrow, draw_box, draw_grid, save, section, show_picture

from minimrcnn import Config, reference
from minimrcnn.data.shapes import Shapes
from minimrcnn.functional import conv2d, max_pool2d, resize_bilinear, upsample_nearest
from minimrcnn.models.pyramid import STRIDES, Pyramid
from minimrcnn.models.vgg import VGG

rng = np.random.default_rng(5)

# %%
# A backbone (lesson 4) turns a picture into C2, C3, C4, C5. One cell of C2 stands for 4x4 pixels, one of C5 for 32x32:
# these are the strides 4, 8, 16, 32. C2 knows exactly where things are, but little about what they are; C5 is the other
# way round. A small object needs both. The first convolution's map, C1, is left out: see the print.
section("1. The maps")
height, width = 800, 1088  # a common size after resizing
assert STRIDES == (4, 8, 16, 32, 64)
for name, stride, channels in zip(("C2", "C3", "C4", "C5"), STRIDES, (256, 512, 1024, 2048), strict=False):
    print(f"{name}: stride {stride:2}, {height // stride:3} x {width // stride:3} cells of {channels:4} channels")
print(
    f"P1, from C1, would have {height // 2} x {width // 2} cells: four times as many as P2, and four times the memory"
)

# %%
# The whole way, drawn. Read it from the lower left: up the backbone, across to the right, and down again.
figure, axes = plt.subplots(figsize=(10, 5.2))
for number in range(2, 6):
    y, half = 2.0 * (5 - number), 1.15 - 0.15 * (number - 2)
    for x, letter, color in ((0, "C", BLUE), (4.2, "M", ORANGE), (8.4, "P", GREEN)):
        draw_box(axes, (x - half, y - 0.4, x + half, y + 0.4), color)
        axes.text(x, y, f"{letter}{number}", ha="center", va="center", fontsize=12)
        if letter == "C":
            size = f"{height // 2**number} x {width // 2**number} x {128 * 2 ** (number - 1)}"
            axes.text(-1.35, y, size, ha="right", va="center", color=GRAY, fontsize=9)
    draw_arrow(axes, (y, half), (y, 4.2 - half), BLUE)
    axes.text(2.1, y - 0.12, "1x1 to 256", ha="center", fontsize=9)
    draw_arrow(axes, (y, 4.2 + half), (y, 8.4 - half), GREEN)
    axes.text(6.3, y - 0.12, "3x3", ha="center", fontsize=9)
    if number > 2:
        draw_arrow(axes, (y + 1.6, 0), (y + 0.4, 0), BLUE)
        draw_arrow(axes, (y + 0.4, 4.2), (y + 1.6, 4.2), ORANGE)
        axes.text(4.35, y + 1.05, "twice as large, then added (+)", fontsize=9)
draw_box(axes, (7.85, -2.4, 8.95, -1.6), GREEN, dashed=True)
axes.text(8.4, -2, "P6", ha="center", va="center", fontsize=12)
axes.text(8.2, -0.95, "every second cell", ha="right", fontsize=9)
draw_arrow(axes, (-0.4, 8.4), (-1.6, 8.4), GREEN)
axes.text(0, 6.75, f"picture {height} x {width}", ha="center", color=GRAY, fontsize=9)
axes.set(xlim=(-4.2, 9.7), ylim=(7, -2.7), title="Up the backbone (C), down the pyramid (M), out through a 3x3 (P)")
axes.set_axis_off()
save(figure, "05_pyramid")

# %%
# Step 1, lateral ("sideways"). A 1x1 convolution looks at one cell at a time: the cell's channels, as a vector, times a
# matrix. It brings every map to the same number of channels, 256 in the paper, so that they can be added.
section("2. Lateral: a 1x1 convolution is one matrix for every cell")


def lateral(cells, weight, bias):
    result = np.zeros((*cells.shape[:2], weight.shape[1]))
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            result[row, column] = cells[row, column] @ weight + bias  # (Cin,) @ (Cin, C)
    return result


cells, weight, bias = rng.normal(size=(4, 5, 6)), rng.normal(size=(6, 3)), rng.normal(size=3)
ours = lateral(cells, weight, bias)  # (4, 5, 3)
slow = reference.conv2d(cells[None], [[weight]], bias)
agree("lateral - reference, largest difference", np.abs(ours - slow).max(), 0)
fast = conv2d(cells[None], weight[None, None], bias).numpy()
agree("lateral - package, largest difference", np.abs(ours - fast).max(), 0)
# No activation function (what bends numbers after a layer, as ReLU does, lesson 4) follows: a lateral value may be
# negative and take something away from the sum.
print(f"negative values: {(ours < 0).sum()} of {ours.size}; a ReLU would have set them all to 0")

# %%
# Step 2, upsampling by 2. "Nearest neighbor": every new cell copies the old cell that it lies in.
section("3. Upsampling: every cell is copied 2x2 times")


def upsample(cells):
    result = np.zeros((2 * cells.shape[0], 2 * cells.shape[1], cells.shape[2]))
    for row in range(result.shape[0]):
        for column in range(result.shape[1]):
            result[row, column] = cells[row // 2, column // 2]
    return result


small = np.array([[1.0, 5, 3], [9, 5, 1], [5, 7, 3]])[:, :, None]  # (3, 3, 1)
large = upsample(small)
print(large[:, :, 0])
agree("copies - reference", np.abs(large - reference.upsample_nearest(small[None], (6, 6))).max(), 0)
agree("copies - package", np.abs(large - upsample_nearest(small[None], (6, 6)).numpy()).max(), 0)
# The other choice was a transposed convolution ("deconvolution", lesson 12), which stamps a learned 2x2 kernel for each
# cell. Copying is the stamp of four ones, so copying has nothing to learn. Three learned stamps would cost:
stamp = reference.conv_transpose2d(small[None], np.ones((2, 2, 1, 1)))
agree("copies - stamps of ones", np.abs(large - stamp).max(), 0)
agree("parameters of three 2x2 deconvolutions, 256 to 256 channels", 3 * (2 * 2 * 256 * 256 + 256), 787_200)

# %%
# Step 3, addition, and step 4, a 3x3 convolution on each sum. Here is the whole pyramid, in its few lines. What goes
# down is the sum M, before the 3x3. P6 belongs to section 6.
section("4. The whole pyramid")


def pyramid(maps, laterals, outputs):
    merged = lateral(maps[-1], *laterals[-1])  # M5: there is nothing above it
    sums = [merged]
    for number in (2, 1, 0):
        merged = lateral(maps[number], *laterals[number]) + upsample(merged)  # M4, M3, M2
        sums.insert(0, merged)
    levels = []
    for merged, (weight, bias) in zip(sums, outputs, strict=True):
        levels.append(reference.conv2d(merged[None], weight, bias, padding=1)[0])  # lesson 2
    return sums, [*levels, levels[-1][::2, ::2]]


counts = (4, 5, 6, 7)  # channels of C2 to C5: any four will do
package = Pyramid(counts, 3, norm=None, generator=rng)
inputs = [rng.normal(size=(16 // 2**i, 24 // 2**i, count)).astype(np.float32) for i, count in enumerate(counts)]
laterals = [(layer.weight.data[0, 0], layer.bias.data) for layer in package.lateral]
outputs = [(layer.weight.data, layer.bias.data) for layer in package.output]
sums, levels = pyramid(inputs, laterals, outputs)
for name, level, fast in zip(("P2", "P3", "P4", "P5", "P6"), levels, package([m[None] for m in inputs]), strict=True):
    agree(f"{name} {level.shape}: loops - package", np.abs(level - fast.numpy()[0]).max(), 0, 1e-5)

# It asks for four maps, each half as large as the one before, of any backbone. VGG-16, an older and simpler network
# (3x3 convolutions with ReLU, max poolings, nothing else), has such maps as well:
channels = VGG(generator=np.random.default_rng(0)).channels
agree("channels of C2 to C5 of a VGG-16", channels, [256, 512, 512, 512])
on_vgg = Pyramid(channels, 256, norm=None, generator=np.random.default_rng(0))
some = [np.zeros((1, 32 // 2**i, 48 // 2**i, count), np.float32) for i, count in enumerate(channels)]
shapes = [(1, 32, 48, 256), (1, 16, 24, 256), (1, 8, 12, 256), (1, 4, 6, 256), (1, 2, 3, 256)]
agree("  P2 to P6 from a picture of 128 x 192", [level.shape for level in on_vgg(some)], shapes)
# And on a ResNet-50:
full = Pyramid((256, 512, 1024, 2048), 256, norm=None, generator=rng)
agree("parameters of the pyramid on a ResNet-50", sum(p.data.size for p in full.parameters()), 3_344_384)
agree("  lateral", sum(count * 256 + 256 for count in (256, 512, 1024, 2048)), 984_064)
agree("  3x3", 4 * (3 * 3 * 256 * 256 + 256), 2_360_320)

# %%
# What is it good for? An example by hand, with one channel. C2 sees edges, wherever they come from. C5 has understood
# which of its cells hold an object. (A trained network makes such maps; here we take them from the truth.) C3 and C4
# are 0, the laterals copy. Their sum M2 knows both: strong edges near objects, at a stride of 4.
picture, target = Shapes(6, seed=11, hard=True)[5]
gray = picture.mean(axis=2) / 255  # (128, 128)
down, right = np.gradient(gray)
edges = np.hypot(down, right).reshape(32, 4, 32, 4).mean(axis=(1, 3))
edges /= edges.max()  # C2 (32, 32)
objects = target.masks.max(axis=0).reshape(4, 32, 4, 32).mean(axis=(1, 3))  # C5 (4, 4)
hats = np.outer([1, 2, 1], [1, 2, 1])[:, :, None, None] / 16  # a 3x3 kernel that smooths
copy, soften = (np.ones((1, 1)), np.zeros(1)), (hats, np.zeros(1))  # weight and bias of a 1x1 and of a 3x3
maps = [edges[:, :, None], np.zeros((16, 16, 1)), np.zeros((8, 8, 1)), objects[:, :, None]]
(m2, *_), (p2, *_) = pyramid(maps, [copy] * 4, [soften] * 4)

figure, axes = plt.subplots(2, 3, figsize=(10, 6.6))
show_picture(axes[0, 0], picture, "picture, 128 x 128")
for place, values, most, title in (
    (axes[0, 1], edges, 1, "C2, 32 x 32: edges everywhere"),
    (axes[0, 2], objects, 1, "C5, 4 x 4: objects somewhere here"),
    (axes[1, 0], m2[:, :, 0], 1.6, "M2 = C2 + C5 doubled three times"),
    (axes[1, 1], p2[:, :, 0], 1.6, "P2: M2 through a 3x3 that smooths"),
):
    draw_grid(place, values, text=False, vmin=0, vmax=most)
    place.set(title=title, xlabel="x, cells", ylabel="y, cells")
axes[0, 2].set(xticks=range(5), yticks=range(5))
row = 18
for place in axes[1, :2]:
    place.axhline(row + 0.5, color="white", linestyle="--")
axes[1, 2].step(range(32), m2[row, :, 0], where="mid", color=ORANGE, linestyle="--", label="M2")
axes[1, 2].plot(range(32), p2[row, :, 0], color=BLUE, marker=".", label="P2")
axes[1, 2].set(title=f"row {row} (the dashed line)", xlabel="x, cells", ylabel="value", ylim=(0, 1.6))
axes[1, 2].legend(loc="upper right", ncols=2)
save(figure, "05_top_down")
print("row 2 of C5, the height of the blocks under the dashed line:", objects[2].round(2))
# The blocks are 8 cells wide, for M5 was doubled three times and only the last sum went through a 3x3. One 3x3 makes a
# ramp of two cells out of each step, not more. (In a network, C4 and C3 speak as well and refine M5 on its way down.)

# %%
# Why a 3x3 after the sum? Copies make steps where there were none. Look at a wave of 5 periods over 64 cells: kept at
# every second cell, then copied back to 64. Its spectrum (how much of each number of periods a signal holds) has gained
# a ghost at 32 - 5 = 27 periods. Signal processing calls it an image of the wave; the paper, an aliasing effect.
section("5. The steps, and the 3x3 against them")
periods, places = 5, np.arange(64)
wave = np.cos(2 * np.pi * periods * places / 64)
steps = wave[::2].repeat(2)  # (64,): a coarse level, upsampled
smooth = (np.roll(steps, 1) + 2 * steps + np.roll(steps, -1)) / 4  # the kernel 1 2 1, a 3x3 seen from the side
spectra = [np.abs(np.fft.rfft(signal)) / 32 for signal in (wave, steps, smooth)]  # 3 of (33,)
agree("spectrum of the wave at 5 and 27 periods", spectra[0][[5, 27]], [1, 0])
# Copying leaves cos(pi k / 64) of the wave at k = 5 and of the ghost at k = 27. The kernel 1 2 1 multiplies by that
# factor twice more, which takes little from the wave and nearly all from the ghost.
agree("after the copies", spectra[1][[5, 27]], [np.cos(np.pi * 5 / 64), np.cos(np.pi * 27 / 64)])
agree("after 1 2 1 as well", spectra[2][[5, 27]], [np.cos(np.pi * 5 / 64) ** 3, np.cos(np.pi * 27 / 64) ** 3])
ghosts = [spectrum[27] / spectrum[5] for spectrum in spectra[1:]]
agree("ghost over wave, before and after the smoothing", ghosts, [0.2505, 0.0157], 5e-5)
# In the left picture the smoothed wave lags half a cell: a value was taken at a left cell, but the middle of its two
# copies lies half a cell further right.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
axes[0].plot(places, wave, color=GRAY, label="the wave")
axes[0].step(places, steps, where="mid", color=ORANGE, linestyle="--", label="kept at every second cell, copied")
axes[0].plot(places, smooth, color=BLUE, marker=".", label="then smoothed by 1 2 1")
axes[0].set(xlim=(0, 26), ylim=(-1.2, 1.9), xlabel="x, cells", ylabel="value", title="In the map (26 of 64 cells)")
axes[0].legend(loc="upper right")
axes[1].bar(np.arange(33) - 0.2, spectra[1], 0.4, color=ORANGE, hatch="//", label="copied")
axes[1].bar(np.arange(33) + 0.2, spectra[2], 0.4, color=BLUE, label="then smoothed by 1 2 1")
axes[1].annotate("ghost", (27, 0.26), (27, 0.5), ha="center", arrowprops={"arrowstyle": "->"})
axes[1].annotate("the wave", (6, 0.9), (11, 0.9), va="center", arrowprops={"arrowstyle": "->"})
axes[1].set(xlabel="periods in 64 cells", ylabel="amplitude", title="In the spectrum", ylim=(0, 1.25))
axes[1].legend(loc="upper right")
save(figure, "05_ghost")

# %%
# The same with numbers. Copies, then 1 2 1 in both directions: 3/4 of a cell and 1/4 of its neighbor on either axis.
# Those are lesson 1's weights: the two steps together ARE bilinear upsampling. (The edge is repeated outward here; the
# network pads with 0.) So a network that wants bilinear upsampling can learn it, and anything else as well: nothing
# forces the learned 3x3 to smooth. And it smooths the sum with its lateral part, not the copies alone.
padded = np.pad(large[None], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
smoothed = reference.conv2d(padded, hats)  # (1, 6, 6, 1)
agree("smoothed copies - bilinear", np.abs(smoothed - resize_bilinear(small[None], (6, 6)).numpy()).max(), 0)
fast = conv2d(upsample_nearest(small[None], (6, 6)), hats, padding=1).numpy()[0, 1:5, 1:5]  # the package, inside
agree("inside, by the package", np.abs(smoothed[0, 1:5, 1:5] - fast).max(), 0)

# One thing no 3x3 repairs: what was lost on the way up. 29 periods, kept at every second of 64 cells, look just like 3.

# %%
# P6: every second row and column of P5, for the largest anchors (lesson 6). The code writes it as a max pooling with a
# kernel of 1: a maximum over one value. Only the RPN (lesson 7) looks at P6; the heads get P2 to P5 (lesson 11).
section("6. P6")
p5 = levels[3]  # (2, 3, 3)
agree("P6 - P5[::2, ::2]", np.abs(levels[4] - p5[::2, ::2]).max(), 0)
agree("P6 - max pooling", np.abs(max_pool2d(p5[None], 1, 2).numpy()[0] - levels[4]).max(), 0)
print("Erratum: the article takes P6 from M5. The paper and torchvision take it from P5, after the 3x3.")
from_m5 = reference.max_pool2d(sums[3][None], 1, 2)[0]
print(f"from P5, channel 0: {levels[4][:, :, 0]}; from M5: {from_m5[:, :, 0]}")
assert np.abs(from_m5 - levels[4]).max() > 0.1, "they differ"
package.p6 = "m5"  # the package can do both; Config(p6="m5") builds the article's
agree("M5's, package - mine", np.abs(package([m[None] for m in inputs])[4].numpy() - from_m5).max(), 0, 1e-5)
assert Config().p6 == "p5"

odd = rng.integers(0, 10, (5, 7)).astype(float)
kept = max_pool2d(odd[None, :, :, None], 1, 2).numpy()[0, :, :, 0]
agree("an odd map of 5 x 7 keeps", kept.shape, (3, 4))  # as 25 x 34 becomes 13 x 17 at 800 x 1088
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), width_ratios=(7, 4))
draw_grid(axes[0], odd, digits=0, vmin=0, vmax=10)
for row, column in np.ndindex(kept.shape):
    draw_box(axes[0], (2 * column, 2 * row, 2 * column + 1, 2 * row + 1), RED, width=3)
draw_grid(axes[1], kept, digits=0, vmin=0, vmax=10)
axes[0].set_title("P5: the framed cells are kept")
axes[1].set(title="P6", xticks=range(5), yticks=range(4))
save(figure, "05_p6")

# %% Exercises
# 1. A picture of 640 x 480 (height x width): how many cells have P2 to P6 together? Count, then uncomment.
# count = ...
# assert count == 25_580
#
# 2. Make the pyramid of "05_top_down" without the way down (a copy of pyramid() that adds nothing from above). The
#    largest value of |P2 - P2 without| must come out as objects.max(). Why not more, and where in the map is it?
#
# 3. Smooth `steps` with 1 1 1 (over 3) in place of 1 2 1. Ghost over wave must come out as 0.0692. Why is 1 2 1 better?
#    Then write your own upsample_nearest(x, size), for any size, and hold it against the reference:
# assert np.array_equal(mine(small[None], (7, 5)), reference.upsample_nearest(small[None], (7, 5)))
