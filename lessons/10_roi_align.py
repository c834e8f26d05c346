"""RoIAlign: a region of any size becomes a small grid, and nothing is rounded. The heart of Mask R-CNN.

You learn which two roundings RoI pooling makes and what they cost in pixels; how RoIAlign places its samples and reads
each between four cells, down to all sixteen values of the article's example; what `aligned`, the number of samples and
max or average change; and a list of properties that a right implementation has, each tried out.

In the article: section 5, part 3 (ROI Align). In the papers: He et al. 2017, Mask R-CNN, section 3 and table 2c.
In the package: minimrcnn/reference.py (sample_points, corner_weights, roi_align), minimrcnn/functional/roi.py,
minimrcnn/kernels/roi_align.py.
Before: bilinear interpolation (lesson 1), gradients (3), RoI pooling (9).
"""

import math

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, COLORS, RED, agree, draw_arrow, draw_bins, draw_box, draw_grid, draw_points, save, section

from minimrcnn import Tensor, reference
from minimrcnn.functional import roi_align, roi_pool

# %% Two roundings
# An object is 665 pixels wide. A cell of the map is 32 pixels wide (the stride of C5). So the object is
# 665 / 32 = 20.78 cells wide. RoI pooling wants whole cells, twice:
#   1. The RoI: 20.78 -> 20.          2. The bins, seven of them: 20 / 7 = 2.857 -> 2.
# Seven bins of 2 cells are 14 cells. The last 6.78 cells, 217 pixels of the object, are in no bin.
# This is how the story is usually told; we call that rule "floor". Caffe's and torchvision's own rule rounds 20.78 to
# 21, counts both ends (22 cells, 0 to 21) and lets bins overlap: it drops no cell, but its bins are too wide and moved.
section("Two roundings: 665 pixels at stride 32, seven bins")
width = 665 / 32
floor_bins = reference.bin_cells(0, width, 7, "floor")
caffe_bins = reference.bin_cells(0, width, 7, "caffe")
agree("the object in cells", width, 20.78125)
agree("rule floor: cells of the RoI, of a bin, of all bins", [int(width), len(floor_bins[0]), floor_bins[-1].stop],
      [20, 2, 14])  # fmt: skip
agree("rule caffe: cells of the RoI, of every bin", [caffe_bins[-1].stop, *map(len, caffe_bins)], [22] + [4] * 7)
agree("RoIAlign: the size of a bin", width / 7, 2.96875)
agree("a tenth of a cell, in pixels", 0.1 * 32, 3.2)

figure, axes = plt.subplots(figsize=(11, 4.2))
align_bins = [(k * width / 7, (k + 1) * width / 7) for k in range(7)]
rows = {"object": [(0, width)], "floor": floor_bins, "caffe": caffe_bins, "RoIAlign": align_bins}
for y, (name, spans), color in zip((0, 1, 2, 3.3), rows.items(), COLORS[3::-1], strict=True):
    for k, span in enumerate(spans):
        low, high = (span.start, span.stop) if isinstance(span, range) else span
        lift = 0.32 * (k % 2) * (name == "caffe")  # they overlap: draw every second one a little lower
        axes.barh(y + lift, high - low, left=low, height=0.5, color=color, edgecolor="black")
axes.text(17.4, 1, "6.78 cells in no bin", ha="center", va="center")
along = np.array(reference.sample_points(0, width, 7, 1, 2, False)).ravel()  # 14 samples
axes.scatter(along, np.full(14, 3.3), color="white", edgecolor="black", zorder=3, label="sample")
axes.axvline(width, color=RED, linestyle="--", linewidth=1)
axes.set(title="Where seven bins lie on an object of 665 pixels", xlabel="cells (1 cell = 32 pixels)",
         xticks=range(23), xlim=(-0.2, 22.4), ylim=(3.8, -0.5), yticks=(0, 1, 2.16, 3.3), yticklabels=rows)  # fmt: skip
axes.legend(loc="lower right", bbox_to_anchor=(1, 1))
save(figure, "10_two_roundings")

# %% One sample: a point between four cells
# RoIAlign asks for the map's value at points that are not whole cells. It mixes the four cells around the point, as in
# lesson 1: the nearer a cell is to the point, the more it weighs. The value of cell i sits AT the coordinate i.
MAP = np.array([
    [0.88, 0.44, 0.14, 0.16, 0.37, 0.77, 0.96, 0.27],
    [0.19, 0.45, 0.57, 0.16, 0.63, 0.29, 0.71, 0.70],
    [0.66, 0.26, 0.82, 0.64, 0.54, 0.73, 0.59, 0.26],
    [0.85, 0.34, 0.76, 0.84, 0.29, 0.75, 0.62, 0.25],
    [0.32, 0.74, 0.21, 0.39, 0.34, 0.03, 0.33, 0.48],
    [0.20, 0.14, 0.16, 0.13, 0.73, 0.65, 0.96, 0.32],
    [0.19, 0.69, 0.09, 0.86, 0.88, 0.07, 0.01, 0.48],
    [0.83, 0.24, 0.97, 0.04, 0.24, 0.35, 0.50, 0.91],
])  # fmt: skip
BOX = [0, 3, 7, 8]  # x1, y1, x2, y2, in cells


def read(cells, y, x):
    height, width = cells.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0  # more than a cell away from the map
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)  # a little outside: the edge
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left  # how far down and right, 0 to 1
    above = (1 - u) * cells[top, left] + u * cells[top, right]
    below = (1 - u) * cells[bottom, left] + u * cells[bottom, right]
    return (1 - v) * above + v * below


section("One sample")
agree("the map at y = 3.625, x = 2.625", read(MAP, 3.625, 2.625), 0.505313)


# %% All samples
# Cut the RoI into bins of equal size, fractions and all. Cut each bin into 2x2 squares; a sample stands in the middle
# of each square. (`samples` is called sampling_ratio in the package; 0 means: as many as a bin has cells, rounded up.)
def place(low, high, bins, samples, aligned):
    if aligned:
        low, high = low - 0.5, high - 0.5  # told below
    elif high - low < 1:
        high = low + 1  # without `aligned`, a RoI is at least one cell wide
    size = (high - low) / bins
    samples = samples or math.ceil(size)
    return [[low + p * size + (i + 0.5) * size / samples for i in range(samples)] for p in range(bins)]


def align(cells, box, bins, samples, aligned, combine=np.mean):
    x1, y1, x2, y2 = box
    crop = np.zeros((bins, bins))
    for p, ys in enumerate(place(y1, y2, bins, samples, aligned)):
        for q, xs in enumerate(place(x1, x2, bins, samples, aligned)):
            crop[p, q] = combine([read(cells, y, x) for y in ys for x in xs])
    return crop


section("The article's example: sixteen samples, four in each bin")
EXPECTED = {
    (0, 0): [0.581094, 0.505313, 0.215, 0.163906],
    (0, 1): [0.313281, 0.433125, 0.640469, 0.813594],
    (1, 0): [0.588281, 0.548438, 0.31375, 0.38875],
    (1, 1): [0.539375, 0.129062, 0.28125, 0.55125],
}
all_y, all_x = place(3, 8, 2, 2, aligned=False), place(0, 7, 2, 2, aligned=False)
agree("their y", all_y, [[3.625, 4.875], [6.125, 7.375]])
agree("their x", all_x, [[0.875, 2.625], [4.375, 6.125]])
for (p, q), values in EXPECTED.items():
    agree(f"bin ({p}, {q})", [read(MAP, y, x) for y in all_y[p] for x in all_x[q]], values)
# The samples at y = 7.375 lie below the last row of values, which is at y = 7: they take the value at y = 7.
assert read(MAP, 7.375, 0.875) == read(MAP, 7, 0.875)
points = [(y, x) for ys in all_y for y in ys for xs in all_x for x in xs]


# %% The picture of it: the map, the RoI (solid), its bins (dashed), their squares (dotted), and one sample up close
def draw_map(axes, centers):
    """Dots where the values sit, and the values beside them, out of the samples' way."""
    draw_grid(axes, MAP, centers=centers, text=False, heat="Greys", vmin=0, vmax=2.5)
    side = 1 if centers == 0 else -1
    for (row, column), value in np.ndenumerate(MAP):
        y, x = row + centers, column + centers
        axes.plot(x, y, "k.", markersize=4)
        axes.text(x + 0.27 * (side if x < 3.6 else -side), y + 0.14 * (side if y < 5.6 else -side), f"{value:.2f}",
                  fontsize=8, ha="center", va="center")  # fmt: skip
    draw_box(axes, BOX, RED)
    axes.plot([3.5, 3.5, np.nan, 0, 7], [3, 8, np.nan, 5.5, 5.5], "--", color=RED)
    axes.set(xticks=range(9), yticks=range(9), xlim=(-0.6, 8.1), ylim=(8.2, -0.6))


figure, (axes, zoom) = plt.subplots(1, 2, figsize=(13, 6.7))
draw_map(axes, centers=0)
draw_bins(axes, BOX, 4, 4, BLUE)
draw_points(axes, points)
neighbors = [(3, 2), (3, 3), (4, 2), (4, 3)]
for cell in neighbors:
    draw_arrow(axes, cell, (3.625, 2.625), BLUE)
axes.set_title("RoI [0, 3, 7, 8], 2x2 bins, 2x2 samples each (aligned=False)")
for (row, column), color, hatch in zip(neighbors, COLORS[:4], ("/", "\\", ".", "x"), strict=True):
    weight = (1 - abs(row - 3.625)) * (1 - abs(column - 2.625))
    other_y, other_x = 7 - row, 5 - column  # the corner across
    corner, middle = (min(other_x, 2.625), min(other_y, 3.625)), ((other_x + 2.625) / 2, (other_y + 3.625) / 2)
    zoom.add_patch(plt.Rectangle(corner, abs(other_x - 2.625), abs(other_y - 3.625), facecolor=color, alpha=0.3,
                                 hatch=hatch, edgecolor=color))  # fmt: skip
    zoom.text(*middle, f"{weight:.6f}", ha="center", va="center", fontsize=9, bbox={"facecolor": "white", "pad": 1.5})
    draw_arrow(zoom, (row, column), (3.625, 2.625))
    zoom.scatter(column, row, s=120, color=color, edgecolor="black", zorder=3)
    zoom.text(column, row + (0.12 if row == 4 else -0.1), f"{MAP[row, column]} x {weight:.6f}", ha="center")
draw_points(zoom, [(3.625, 2.625)], "white", size=90)
zoom.text(2.5, 4.28, "the sample: their sum, 0.505313", ha="center")
zoom.set(title="one sample: each cell weighs as much as the\nrectangle between the sample and the OPPOSITE cell",
         xlabel="x", ylabel="y", xlim=(1.6, 3.4), ylim=(4.35, 2.75), aspect="equal")  # fmt: skip
save(figure, "10_samples")


# %% What becomes of the four samples of a bin, how many there are, and where a cell's value sits
# The textbook and the fast function get the same map, box and settings. `cut` returns what the fast one says.
def cut(cells, boxes, bins, samples=2, aligned=True, mode="average"):
    rois = np.insert(np.reshape(boxes, (-1, 4)).astype(float), 0, 0, axis=1)  # the picture's number comes first
    features = np.asarray(cells, float)[None, :, :, None]  # (1, H, W, 1)
    crops = roi_align(features, rois, bins, 1.0, samples, aligned, mode).numpy()
    textbook = reference.roi_align(features, rois, (bins, bins), 1.0, samples, aligned, mode)
    assert np.allclose(crops, textbook, atol=1e-12)
    return crops[..., 0]  # (R, bins, bins)


TABLE = [  # samples, mode, aligned=False, aligned=True
    (1, "average", [[0.295625, 0.260625], [0.650625, 0.304375]], [[0.566875, 0.239375], [0.510625, 0.285]]),
    (2, "average", [[0.366328, 0.550117], [0.459805, 0.375234]], [[0.476953, 0.470977], [0.456914, 0.455234]]),
    (2, "max", [[0.581094, 0.813594], [0.588281, 0.55125]], [[0.702813, 0.612344], [0.770313, 0.794063]]),
    (0, "average", [[0.372687, 0.489327], [0.474922, 0.409905]], [[0.474449, 0.479466], [0.432595, 0.423446]]),
]
# 4x4 bins with one sample each have their samples in the same places: that shows all sixteen of the package's.
sixteen = cut(MAP, BOX, 4, samples=1, aligned=False)[0]
assert np.allclose(sixteen, [[read(MAP, y, x) for x in np.ravel(all_x)] for y in np.ravel(all_y)], atol=1e-12)

section("Samples, mode and aligned: eight answers")
for samples, mode, *answers in TABLE:
    for aligned, answer in zip((False, True), answers, strict=True):
        mine = align(MAP, BOX, 2, samples, aligned, np.mean if mode == "average" else np.max)
        assert np.allclose(mine, cut(MAP, BOX, 2, samples, aligned, mode)[0], atol=1e-12)
        agree(f"samples {samples or '3x4 (adaptive)'}, {mode}, aligned={aligned}", mine, answer)

# Erratum: the article takes the maximum of the samples. The paper takes the average, and says that max does as well:
# 30.3 mask AP (lesson 15 explains AP) against 30.2, ResNet-50-C4, table 2c.
print("Erratum: the article takes the maximum of the samples; the paper averages (30.3 AP against 30.2 with max).")
# Four samples are best, says the article, and one is nearly as good: true of the scores, not of single numbers.
# What decides is that nothing is rounded. RoIWarp (operation="warp" of `pool_rois`) samples as RoIAlign does, but
# rounds the RoI first: it has 27.1 to 27.2, and RoI pooling 26.9.

# %% aligned
# A pixel is a small square. Does its value sit at its corner or at its middle? With aligned=False the value of cell i
# sits at i; with aligned=True at i + 0.5, the middle, so that the RoI [0, 3, 7, 8] lies exactly on rows 3:8 and
# columns 0:7. The code shifts the RoI by half a cell instead of the map. A network can be trained with either, and then
# wants the same to predict: the published weights (lesson 4) want aligned=False.
figure, pair = plt.subplots(1, 2, figsize=(12, 6.9))
for axes, aligned in zip(pair, (False, True), strict=True):
    draw_map(axes, centers=0.5 if aligned else 0)
    draw_points(axes, points)  # the same points of the RoI; other cells lie around them
    values = " / ".join("  ".join(f"{value:.3f}" for value in row) for row in cut(MAP, BOX, 2, aligned=aligned)[0])
    axes.set_title(f"aligned={aligned}: the value of cell i at {'i + 0.5' if aligned else 'i'}\n{values}")
save(figure, "10_aligned")

# A second example, easy to do in the head: the values 0 to 24 row by row, value = 5 y + x.
section("arange(25) as 5x5, box [1, 1, 3, 3], 4x4 bins")
counting, steps = np.arange(25.0).reshape(5, 5), 2.5 * np.arange(4)[:, None] + 0.5 * np.arange(4)
agree("aligned=False", cut(counting, [1, 1, 3, 3], 4, aligned=False)[0], 7.5 + steps)
agree("aligned=True ", cut(counting, [1, 1, 3, 3], 4, aligned=True)[0], 4.5 + steps)

# %% The weight of every cell
# A crop is a weighted sum of cells. The weights are also the gradient: what each cell gets back when every bin sends
# 1. RoI pooling pays four winners. RoIAlign shares: all cells of the RoI learn from it, and the shares still sum to 4.
# With 2x2 samples the shares are uneven, for a sample hardly reads what is far from it; adaptive samples even them out.
# (aligned=True here, so that the RoI lies exactly on cells.)
section("The gradient: who gets how much")
features, rois, ones = MAP[None, :, :, None], [[0, *BOX]], np.ones((1, 2, 2, 1))
figure, three = plt.subplots(1, 3, figsize=(15, 5.2))
for axes, name, samples, count in zip(
    three, ("RoI pooling (split)", "RoIAlign, 2x2 samples, aligned", "RoIAlign, adaptive (3x4), aligned"), (None, 2, 0),
    (4, 35, 48), strict=True,
):  # fmt: skip
    leaf = Tensor(features, requires_grad=True)
    if samples is None:
        crop = roi_pool(leaf, rois, 2, 1.0, "split")
        textbook = reference.roi_pool(features, rois, (2, 2), 1, "split", ones)
    else:
        crop = roi_align(leaf, rois, 2, 1.0, samples)
        textbook = reference.roi_align(features, rois, (2, 2), 1, samples, gradient=ones)
    crop.backward(ones)
    assert np.allclose(leaf.grad, textbook, atol=1e-12)
    agree(f"{name}: cells with a share, sum of shares", [np.count_nonzero(leaf.grad), leaf.grad.sum()], [count, 4])
    draw_grid(axes, leaf.grad[0, :, :, 0], vmin=0, vmax=0.35)
    draw_box(axes, BOX, RED)
    axes.set_title(f"{name}: {count} cells")
save(figure, "10_weights")

# %% How many cells are read?
# RoI pooling reads every cell of its bins. RoIAlign reads four for each sample, whatever the size of the RoI. So the
# article is right that RoIAlign visits fewer points: in the object of 665 pixels 14 x 14 samples, against the 22 x 22
# cells of Caffe's rule. But these samples read 784 cells, as many as Caffe's overlapping bins.
section("How much is read, one channel")
agree("RoIAlign: samples, reads", [len(along) ** 2, 4 * len(along) ** 2], [196, 784])
agree("RoI pooling, caffe: cells, reads", [caffe_bins[-1].stop ** 2, sum(map(len, caffe_bins)) ** 2], [484, 784])

# %% Misalignment, measured
# Slide a RoI to the right by a tenth of a cell at a time. Does the crop follow? First on the 8x8 map. Then on a map
# that is a ruler: its values say where they are, in pixels, so the crop says where it was cut from, and we can subtract
# where it should have been cut from.
section("A RoI slides by 0.1 of a cell")


def slide(cells, box, shifts, operation):
    boxes = [[0, box[0] + shift, box[1], box[2] + shift, box[3]] for shift in shifts]
    settings = ("caffe",) if operation is roi_pool else (2, False)
    return operation(np.asarray(cells, float)[None, :, :, None], boxes, 2, 1.0, *settings).numpy()[..., 0]  # (S, 2, 2)


start, shifts = [0, 3, 5, 8], np.arange(21) / 10
pooled = slide(MAP, start, np.arange(51) / 100, roi_pool)  # 0, 0.01 .. 0.50
assert (pooled[:50] == pooled[0]).all() and (pooled[50] != pooled[0]).any()
print("RoI pooling: the same crop at every shift from 0 to 0.49, another at 0.50")
moved = np.abs(np.diff(slide(MAP, start, shifts, roi_align), axis=0)).max(axis=(1, 2))
assert (moved > 1e-3).all()
print(f"RoIAlign: another crop at each of the 20 steps, by {moved.min():.4f} at least")
ruler = np.tile(32.0 * np.arange(30), (12, 1))  # value = 32 x: the pixel, at stride 32


def ruler_error(shifts, operation):
    says = slide(ruler, [4, 2, 11, 9], shifts, operation)[:, 0, 0]
    return says - says[0] - 32 * shifts  # how far the crop is from where it should be


agree("RoI pooling, largest error in pixels", np.abs(ruler_error(shifts, roi_pool)).max(), 16)
agree("RoIAlign, largest error in pixels", np.abs(ruler_error(shifts, roi_align)).max(), 0)

# Erratum: the article says that RoIAlign keeps the location "roughly". It keeps it exactly; that is its point.
print('Erratum: RoIAlign does not keep the location "roughly", as the article has it, but exactly.')
figure, axes = plt.subplots(figsize=(7, 4.2))
fine = np.arange(201) / 100
axes.plot(fine, ruler_error(fine, roi_pool), color=RED, linewidth=0.8)
axes.plot(shifts, ruler_error(shifts, roi_pool), "s", color=RED, label="RoI pooling (caffe)")
axes.plot(shifts, ruler_error(shifts, roi_align), "o-", color=BLUE, label="RoIAlign")
axes.set(xlabel="shift of the RoI to the right, in cells", ylabel="pixels", ylim=(-20, 26), xticks=np.arange(5) / 2,
         title="stride 32: where the crop was cut, less where it should be")  # fmt: skip
axes.legend(loc="upper right")
save(figure, "10_sliding")

# %% Properties of a right implementation
# Each is tried on the fast function, after the textbook agreed (`cut`). They make good tests of your own RoIAlign.
section("Properties")
generator = np.random.default_rng(0)
noise, box = generator.standard_normal((16, 20)), np.array([3.3, 2.6, 14.9, 11.2])

# 1. A ramp is read exactly at the middle of each bin, wherever the RoI lies inside the map.
ramp = 2.0 * (np.arange(16)[:, None] + 0.5) - 3.0 * (np.arange(20) + 0.5) + 1
middle_y, middle_x = box[1] + (np.arange(4) + 0.5) * 8.6 / 4, box[0] + (np.arange(4) + 0.5) * 11.6 / 4
agree("1. ramp: error", np.abs(cut(ramp, box, 4)[0] - (2 * middle_y[:, None] - 3 * middle_x + 1)).max(), 0, 1e-12)

# 2. `aligned` is nothing but a shift by half a cell, for boxes of at least one cell.
agree("2. aligned(box) - unaligned(box - 0.5)",
      np.abs(cut(noise, box, 4) - cut(noise, box - 0.5, 4, aligned=False)).max(), 0, 1e-12)  # fmt: skip

# 3. Move the map and the RoI together by whole cells: the same crop.
moved = np.roll(noise, (2, 3), axis=(0, 1))
agree("3. map and RoI moved together: change", np.abs(cut(moved, box + [3, 2, 3, 2], 4) - cut(noise, box, 4)).max(),
      0, 1e-12)  # fmt: skip

# 4. RoIAlign is linear in the map: its crop is A x, with a matrix A of weights. Backward multiplies by the transpose:
#    <A x, g> = <x, A' g>, where < , > multiplies entry by entry and sums up.
# 5. What every bin sends, arrives: no gradient is lost.
leaf, g = Tensor(noise[None, :, :, None], requires_grad=True), generator.standard_normal((1, 4, 4, 1))
crop = roi_align(leaf, [[0, *box]], 4, 1.0)
crop.backward(g)
agree("4. <A x, g> - <x, A' g>", (crop.numpy() * g).sum() - (leaf.data * leaf.grad).sum(), 0, 1e-12)
agree("5. sum of the gradient, in less out", leaf.grad.sum() - g.sum(), 0, 1e-12)

# 6. A sample counts from -1 to H, both included: beside the map it takes the edge's value, further out it is 0.
column = np.tile(np.array([[1.0], [2], [3], [4]]), (1, 4))  # H = 4
boxes = [[1, y - 0.5, 2, y + 0.5] for y in (-1.01, -1, 3, 4, 4.01)]  # one sample, in the middle, at y
agree("6. samples at y = -1.01, -1, 3, 4, 4.01", cut(column, boxes, 1, 1, aligned=False).ravel(), [0, 1, 4, 4, 0])

# 7. A box of no area: its point when aligned, nothing when aligned and adaptive (0 cells: 0 samples), else 1x1.
point, unit = [5.5, 4.5, 5.5, 4.5], [5.5, 4.5, 6.5, 5.5]
agree("7. no area: aligned", cut(noise, point, 2), np.full((1, 2, 2), noise[4, 5]))
agree("   aligned and adaptive", cut(noise, point, 2, samples=0), np.zeros((1, 2, 2)))
agree("   not aligned, less the box of 1x1", cut(noise, point, 2, aligned=False) - cut(noise, unit, 2, aligned=False),
      np.zeros((1, 2, 2)))  # fmt: skip

# 8. No RoIs: no crops, but of the right shape.
assert cut(noise, np.zeros((0, 4)), 4).shape == (0, 4, 4)
print("8. no RoIs: shape (0, 4, 4), and a channel axis")
# `minimrcnn/kernels/roi_align.py` says how the fast function is fast, and lesson 17 times it against the textbook.

# %% Exercises
# 1. By hand: the map at y = 4.875, x = 4.375. (Four cells, four weights; the value is in EXPECTED.)
answer = None
if answer is not None:
    agree("exercise 1", answer, read(MAP, 4.875, 4.375))

# 2. A box head at stride 16 was trained with aligned=True and is run with aligned=False. By how many pixels does it
#    look beside the object, and in which direction? Check with `ruler` and property 2.
answer = None
if answer is not None:
    agree("exercise 2, pixels", abs(answer), 8)

# 3. Write roi_align(features, rois, output_size, spatial_scale, sampling_ratio, aligned) for maps (N, H, W, C) from
#    `read`, `place` and `align` into a file my_functions.py (mind property 7), and have it graded:
#    minimrcnn check my_functions.py

# 4. Write its backward pass, roi_align_gradient(gradient, features_shape, rois, spatial_scale, sampling_ratio,
#    aligned): every sample sends its share of the gradient back to the cells that it has read (properties 4 and 5). By
#    hand: a bin has the gradient 16 and 1 sample, amid four cells. What does each of them get? Have it graded:
#    minimrcnn check my_functions.py --only roi_align_gradient
answer = None
if answer is not None:
    leaf = Tensor(np.zeros((1, 2, 2, 1)), requires_grad=True)
    roi_align(leaf, [[0, 0, 0, 2, 2]], 1, 1.0, 1).backward(np.full((1, 1, 1, 1), 16.0))
    agree("exercise 4", answer, leaf.grad[0, 0, 0, 0])
