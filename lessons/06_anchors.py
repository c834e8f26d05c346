"""Anchors, and how much two boxes overlap.

You learn what the network starts from when it looks for boxes: a fixed grid of boxes, three on every cell of every
level. You make them in ten lines, count them, round them as the published weights want it and see them on a picture.
Then you learn IoU, the measure of overlap, and use it to find out which objects no anchor fits.

Article: section 2 (P6 for anchors of 512 x 512). Papers: Ren et al. 2015, Faster R-CNN, section 3.1.1; Lin et al. 2017,
Feature Pyramid Networks, section 4.1.
In the package: geometry/anchors.py, geometry/boxes.py (box_iou), kernels/box_iou.py.
Before: lesson 5 (the levels P2 to P6 and their strides).
"""

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, COLORS, GRAY, GREEN, ORANGE, RED, agree, draw_box, draw_points, save, section

from minimrcnn import Config, reference
from minimrcnn.data.shapes import Shapes
from minimrcnn.geometry import box_area, box_iou, make_anchors

# %%
# A box is four numbers: x1, y1 (upper left corner), x2, y2 (lower right), in pixels, x to the right and y down. Its
# width is x2 - x1. A network can hardly say such numbers out of nothing. So it is given boxes, the anchors, and says
# two things about each: is there an object, and how must the anchor move and grow to fit it (both: lesson 7).
#
# An anchor has a size and a ratio, height / width. All anchors of one size have the same area, size * size:
#     width = size / sqrt(ratio),  height = size * sqrt(ratio)
section("1. Areas and ratios")
for ratio, sides in ((0.5, (45.2548, 22.6274)), (1, (32, 32)), (2, (22.6274, 45.2548))):
    width, height = 32 / math.sqrt(ratio), 32 * math.sqrt(ratio)
    agree(f"size 32, ratio {ratio}: width, height", [width, height], sides, 5e-5)
    agree("  area", width * height, 1024)
config = Config()
assert config.anchor_sizes == (32, 64, 128, 256, 512) and config.aspect_ratios == (0.5, 1, 2)
print("one size a level, P2 to P6:", config.anchor_sizes, "; ratios 1:2, 1:1, 2:1 on each")

# The published weights (lesson 4) were trained with anchors rounded to whole pixels about the center, so ours are
# rounded, too. A half goes to the even neighbor: 22.5 to 22. The area is then no longer exactly the same.
cell = [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
agree("rounded, by the reference", reference.make_anchors(32, (0.5, 1, 2), (1, 1), (4, 4)), cell)
agree("rounded, by the package", make_anchors([32], (0.5, 1, 2), [(1, 1)], (4, 4))[0], cell)
agree("areas of the rounded ones", box_area(cell), [1012, 1024, 1012])
agree("a square of 45", make_anchors([45], [1], [(1, 1)], (4, 4))[0], [[-22, -22, 22, 22]])

figure, axes = plt.subplots(1, 2, figsize=(10, 4.6))
names = ("1:2, wide", "1:1, square", "2:1, tall")
for corners, ratio, color, name in zip(cell, (0.5, 1, 2), (BLUE, ORANGE, GREEN), names, strict=True):
    exact = 16 / math.sqrt(ratio), 16 * math.sqrt(ratio)
    for place in axes:
        draw_box(place, corners, color, label=f"{name}: {corners[2] * 2} x {corners[3] * 2}")
        draw_box(place, (-exact[0], -exact[1], *exact), color, dashed=True, width=1.2)
draw_points(axes[0], [[0, 0]])
axes[0].set(
    xlim=(-40, 40), ylim=(44, -36), title="The anchors of one cell of P2", xlabel="x, pixels", ylabel="y, pixels"
)
axes[0].legend(loc="lower right", fontsize=8)
axes[1].set(xlim=(20.5, 24.5), ylim=(12.5, 8.5), title="Lower right corner of the wide one", xlabel="x, pixels")
axes[1].set_ylabel("y, pixels")
axes[1].annotate(
    "before rounding (dashed)\n22.63, 11.31", (22.63, 11.31), (20.7, 12.2), arrowprops={"arrowstyle": "->"}
)
axes[1].annotate("rounded\n23, 11", (23, 11), (23.5, 10.3), arrowprops={"arrowstyle": "->"})
for place in axes:
    place.set_aspect("equal")
save(figure, "06_cell")

# %%
# The same three boxes on every cell. Cell (row, column) puts their center at (column * stride, row * stride): the
# cell's upper left corner. Here is the core, in loops; the order is row, column, ratio.
section("2. A grid of anchors")


def anchors_of_level(size, ratios, level_size, image_size):
    rows, columns = level_size
    stride_y, stride_x = image_size[0] // rows, image_size[1] // columns
    boxes = []
    for row in range(rows):
        for column in range(columns):
            x, y = column * stride_x, row * stride_y
            for ratio in ratios:
                right, bottom = round(size / math.sqrt(ratio) / 2), round(size * math.sqrt(ratio) / 2)
                boxes.append([x - right, y - bottom, x + right, y + bottom])
    return np.array(boxes, float)


def level_sizes(height, width):
    """Cells of P2 to P6; P6 takes every second cell of P5, so an odd number is rounded up (lesson 5)."""
    sizes = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
    return [*sizes, (-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2))]


ratios, picture_size = config.aspect_ratios, (128, 128)
levels = make_anchors(config.anchor_sizes, ratios, level_sizes(*picture_size), picture_size)  # a list of 5 (A, 4)
for number, (size, cells, level) in enumerate(zip(config.anchor_sizes, level_sizes(128, 128), levels, strict=True), 2):
    ours = anchors_of_level(size, ratios, cells, picture_size)
    assert np.array_equal(ours, reference.make_anchors(size, ratios, cells, picture_size))
    assert np.array_equal(ours, level)
    print(f"P{number}: {cells[0]:2} x {cells[1]:2} cells, {len(level):4} anchors of size {size}")
# The network's output has the same order (lesson 7), so anchor k of a level belongs to cell and ratio:
row, column, ratio = 5, 7, 2
agree("P2's anchor of row 5, column 7, ratio 2:1", levels[0][(row * 32 + column) * 3 + ratio], [17, -3, 39, 43])
# On the corner of the cell, not in its middle: half a stride up and to the left. With a stride of 64 that is much.
centers = (levels[4][:, :2] + levels[4][:, 2:]) / 2
agree("P6: mean of all centers, in a picture whose middle is 64, 64", centers.mean(axis=0), [32, 32])
# The network learns to allow for it. Weights and anchors belong together: change one, and the other is wrong.

# %%
section("3. How many")
for size, wanted in (((128, 128), 4_092), ((800, 1216), 242_991), ((1024, 1024), 261_888)):
    cells = level_sizes(*size)
    made = make_anchors(config.anchor_sizes, ratios, cells, size)
    agree(f"anchors at {size[0]} x {size[1]}", sum(map(len, made)), wanted)
    agree("  by counting cells", 3 * sum(rows * columns for rows, columns in cells), wanted)
    print(f"  on P2 to P6: {[len(level) for level in made]}; P2 has {len(made[0]) / wanted:.0%} of them")
    if size == (800, 1216):
        # A trap: P6 has 13 rows (25 / 2 rounded up), and the stride is 800 // 13 = 61, not 64. Along x it is 64.
        y, x = made[4][3 * 19, 1] - made[4][0, 1], made[4][3, 0] - made[4][0, 0]
        agree("  strides of P6, y and x", [y, x], [61, 64])
        flat = np.concatenate(made)
        beyond = (flat[:, :2] < 0).any(axis=1) | (flat[:, 2] > size[1]) | (flat[:, 3] > size[0])
        print(f"  {beyond.mean():.0%} reach beyond the picture; they are used all the same (Lin et al., section 5.1)")

# %%
# On a picture: 512 x 512 pixels (a generated one, four times as large). Dots are the centers of all anchors of a level;
# drawn are the three of one cell near the middle.
picture = Shapes(11, seed=11)[10][0].repeat(4, 0).repeat(4, 1)  # (512, 512, 3)
figure, axes = plt.subplots(2, 3, figsize=(10, 7))
made = make_anchors(config.anchor_sizes, ratios, level_sizes(512, 512), (512, 512))
for number, (place, level, (rows, columns)) in enumerate(zip(axes.flat, made, level_sizes(512, 512), strict=False), 2):
    place.imshow(picture, extent=(0, 512, 512, 0), alpha=0.6)
    corner = (level[::3, :2] + level[::3, 2:]) / 2  # (cells, 2) x, y
    place.scatter(*corner.T, s=[0.15, 0.6, 2, 5, 12][number - 2], c="black", linewidths=0)
    middle = 3 * (rows // 2 * columns + columns // 2)
    for box, color in zip(level[middle : middle + 3], (BLUE, ORANGE, GREEN), strict=True):
        draw_box(place, box, color)
    place.set(title=f"P{number}: size {config.anchor_sizes[number - 2]}, stride {512 // rows}", aspect="equal")
    place.set(xlim=(-120, 632), ylim=(632, -120), xticks=(0, 256, 512), yticks=(0, 256, 512))
    place.set(xlabel="x, pixels", ylabel="y, pixels")
counts = [len(level) for level in made]
axes[1, 2].bar([f"P{number}" for number in range(2, 7)], counts, color=GRAY)
for position, count in enumerate(counts):
    axes[1, 2].text(position, count + 800, f"{count:,}", ha="center", fontsize=9)
axes[1, 2].set(title=f"{sum(counts):,} anchors at 512 x 512", ylabel="anchors")
save(figure, "06_levels")

# %%
# How well does an anchor fit an object? IoU, intersection over union, says it in one number: the area that two boxes
# share, over the area that they cover together. 1 for the same box, 0 for boxes that do not touch, whatever their size.
section("4. IoU")


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)  # apart: a negative length counts as 0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared  # the shared part counts once
    return shared / union if union > 0 else 0.0


a, b = [0, 0, 4, 4], [2, 1, 6, 5]
agree("shared 2 x 3 = 6, union 16 + 16 - 6 = 26, IoU", iou(a, b), 6 / 26)
agree("  reference", reference.box_iou([a], [b]), [[6 / 26]])
agree("  package", box_iou([a], [b]), [[6 / 26]])
agree("shifted by half its width", iou([0, 0, 4, 4], [2, 0, 6, 4]), 1 / 3)
agree("half of the other", iou([0, 0, 4, 4], [0, 0, 4, 2]), 0.5)

figure, axes = plt.subplots(figsize=(4.6, 3.8))
axes.fill_between([2, 4], 1, 4, color=ORANGE, alpha=0.6, hatch="//", linewidth=0)
draw_box(axes, a, BLUE)
draw_box(axes, b, GREEN, dashed=True)
axes.text(3, 2.5, "6", ha="center", va="center", fontsize=16, bbox={"facecolor": "white", "edgecolor": "none"})
axes.text(1, 2.5, "10", ha="center", va="center", fontsize=16)
axes.text(5, 3.5, "10", ha="center", va="center", fontsize=16)
axes.set(xlim=(-0.5, 6.5), ylim=(5.5, -0.5), aspect="equal", xlabel="x", ylabel="y")
axes.set_title("IoU = 6 / (10 + 6 + 10) = 0.231")
save(figure, "06_iou")

# %%
# Which objects do the anchors fit? Lay every object and every anchor on the same center and take the best IoU. (On the
# grid an object lies up to half a stride beside its anchor, so the truth is a little worse.) Lesson 7 calls an anchor
# a match from 0.7 on. Sizes go up by factors of 2, so between two of them there is a gap:
section("5. What fits")


def best_iou(side, ratio):
    """Of an object of area side * side, with the best of all fifteen kinds of anchors."""
    width, height = side / math.sqrt(ratio), side * math.sqrt(ratio)
    best = 0.0
    for size in config.anchor_sizes:
        for shape in ratios:
            w, h = size / math.sqrt(shape), size * math.sqrt(shape)
            best = max(best, iou((-w / 2, -h / 2, w / 2, h / 2), (-width / 2, -height / 2, width / 2, height / 2)))
    return best


agree("a square of 32", best_iou(32, 1), 1)
agree("a square of 45.25, half way from 32 to 64", best_iou(32 * math.sqrt(2), 1), 0.5)
agree("a square of 8", best_iou(8, 1), 1 / 16)
sides = np.geomspace(8, 1024, 300)
curves = {ratio: np.array([best_iou(side, ratio) for side in sides]) for ratio in (1, 1.5, 4)}
agree("an object of 4:1 and area 32 * 32", best_iou(32, 4), 0.546918)
assert curves[4].max() < 0.546919  # at no size is it more
print("so some objects have no anchor of 0.7; lesson 7's low-quality rule gives them their best one")

figure, axes = plt.subplots(figsize=(8, 4.2))
for (ratio, curve), color, line in zip(curves.items(), COLORS, ("-", "--", ":"), strict=False):
    axes.plot(sides, curve, color=color, linestyle=line, linewidth=2, label=f"objects of ratio {ratio}:1")
for threshold, text, x in ((0.7, "0.7: a match", 8.2), (0.3, "0.3: background below", 64)):
    axes.axhline(threshold, color=RED, linewidth=1)
    axes.text(x, threshold + 0.015, text, color=RED, fontsize=9)
axes.set_xscale("log", base=2)
axes.set(xticks=[8, 16, 32, 64, 128, 256, 512, 1024], xticklabels=[8, 16, 32, 64, 128, 256, 512, 1024], ylim=(0, 1.2))
axes.set(
    xlabel="sqrt(area) of the object, pixels", ylabel="IoU with the best anchor", title="Which objects fit an anchor"
)
axes.legend(loc="upper right", ncols=3, fontsize=9)
save(figure, "06_fit")

# %% Exercises
# 1. How many anchors has a picture of 640 x 480? Use level_sizes. Check: 76,740.
#
# 2. Which row and column has anchor 500 of P3 at 128 x 128, and which ratio, 0.5, 1 or 2? Fill in, then uncomment.
# row, column, ratio = ...
# assert np.array_equal(levels[1][500], anchors_of_level(64, [ratio], (16, 16), (128, 128))[row * 16 + column])
#
# 3. Take three sizes on every level, as some detectors do: size * 1, 2^(1/3), 2^(2/3). The worst square between 32 and
#    512 then has a best IoU of 0.794 instead of 0.5. Why 2^(-1/3)? Then write your own box_iou(a, b) and
#    make_anchors(size, ratios, level_size, image_size), which is one level as in anchors_of_level, both from
#    exercises/start_here.py on, and have them graded: `minimrcnn check my_functions.py`.
