"""RoI pooling: from a region of any size to a small grid of fixed size, in whole cells.

You learn why a region must become a grid of fixed size, how RoI pooling does it, what is rounded on the way, and why
the same four numbers of a box give four different answers in four programs. You see each rule drawn on one 8x8 map,
and where the gradient goes.

In the article: section 5, part 2 (ROIpooling). In the papers: Girshick 2015, Fast R-CNN, section 2.1.
In the package: minimrcnn/reference.py (bin_cells, roi_pool), minimrcnn/functional/roi.py and
minimrcnn/kernels/roi_pool.py.
Before: feature maps and strides (lesson 4), levels of a pyramid (5), proposals (7).
"""

import math

import numpy as np
from style import BLUE, GREEN, ORANGE, PURPLE, RED, agree, draw_box, draw_grid, plt, save, section

from minimrcnn import Tensor, reference
from minimrcnn.functional import roi_pool

# %% The question
# A feature map is a grid of numbers that a network made from a picture. One place of the grid is a cell. (Real maps
# have 256 numbers, "channels", in every cell; one is enough here, as every channel is pooled on its own.)
# A RoI, "region of interest", is a box in which an object may be. RoIs have all sizes. The fully connected layers that
# come next (lesson 12) want the same number of inputs every time: say 2x2. So every RoI must become 2x2.
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
BOX = [0, 3, 7, 8]  # x1, y1, x2, y2: x runs to the right, y down

# The box is already in cells. In a network it comes in pixels and is multiplied by `spatial_scale` first: 1 / stride,
# the cells per pixel. Here spatial_scale is 1.


# %% Pooling, once the bins are known
# Cut the RoI into 2x2 "bins", and let every bin be its largest value. That is all. Each bin is a range of rows times a
# range of columns. Remember where the largest value stood: the gradient will go there.
def pool(cells, row_bins, column_bins):
    answer = np.zeros((len(row_bins), len(column_bins)))
    winners = []
    for p, rows in enumerate(row_bins):
        for q, columns in enumerate(column_bins):
            best, place = -math.inf, None
            for row in rows:
                for column in columns:
                    if row < len(cells) and column < len(cells[0]) and cells[row, column] > best:
                        best, place = cells[row, column], (row, column)
            answer[p, q] = best if place else 0  # a bin without any cell is 0
            winners.append(place)
    return answer, winners


# %% The rule of the article: "split"
# Corners are rounded to whole cells. The RoI is half-open: it starts at cell x1 and ends before cell x2, like a Python
# slice. So [0, 3, 7, 8] is rows 3:8, five of them, and columns 0:7, seven. Five does not divide by two: 2 + 3. Seven
# becomes 3 + 4. No cell is in two bins, and none is left out.
def split(low, high, bins):
    first, size = round(low), round(high) - round(low)
    return [range(first + p * size // bins, first + (p + 1) * size // bins) for p in range(bins)]


section("The article's example: rule 'split' on [0, 3, 7, 8]")
rows, columns = split(3, 8, 2), split(0, 7, 2)
print("rows", rows, "columns", columns)
assert [len(part) for part in rows] == [2, 3] and [len(part) for part in columns] == [3, 4]
answer, winners = pool(MAP, rows, columns)
agree("the largest value of every bin", answer, [[0.85, 0.84], [0.97, 0.96]])
print("they stand at (row, column)", winners)


# %% The rule of Caffe and of torchvision: "caffe"
# Two things differ. (1) The corner x2 belongs to the RoI: the size is x2 - x1 + 1. So [0, 3, 7, 8] has 8 columns,
# 0 to 7, and 6 rows, 3 to 8; row 8 is off the map and is skipped. (2) Bins reach from floor to ceil: where the size
# does not divide, two neighbors share a cell. No cell is left out here either.
def caffe(low, high, bins):
    first, size = round(low), max(round(high) - round(low) + 1, 1)
    return [range(first + math.floor(p * size / bins), first + math.ceil((p + 1) * size / bins)) for p in range(bins)]


# %% Adaptive max pooling of the crop: cut MAP[3:8, 0:7] out first, then pool with floor and ceil
# The ends are half-open, and the bins overlap: rows 3..5 and 5..7 share row 5.
def adaptive(low, high, bins):
    first, size = round(low), round(high) - round(low)
    return [range(first + math.floor(p * size / bins), first + math.ceil((p + 1) * size / bins)) for p in range(bins)]


# %% Both roundings cut off: "floor"
# This is how RoI pooling is often told. A bin is 5 // 2 = 2 rows and 7 // 2 = 3 columns. The last row and the last
# column of the RoI are in no bin: they are lost.
def floor(low, high, bins):
    first, size = math.floor(low), math.floor(high - low) // bins
    return [range(first + p * size, first + (p + 1) * size) for p in range(bins)]


# %% The trap
# The same map and the same four numbers, and the answers differ. If your numbers do not agree with somebody else's,
# compare the rules before you look for a bug: are the ends included? Do bins overlap? What is rounded, and how?
section("The trap: one box, several answers")
CASES = [  # name, rule, box, what must come out
    ("split", split, [0, 3, 7, 8], [[0.85, 0.84], [0.97, 0.96]]),
    ("caffe", caffe, [0, 3, 7, 8], [[0.85, 0.96], [0.97, 0.91]]),
    ("caffe", caffe, [0, 3, 6, 7], [[0.85, 0.96], [0.97, 0.96]]),
    ("adaptive", adaptive, [0, 3, 7, 8], [[0.85, 0.96], [0.97, 0.96]]),
    ("floor", floor, [0, 3, 7, 8], [[0.85, 0.84], [0.69, 0.88]]),
]
features = MAP[None, :, :, None]  # (1, 8, 8, 1): one picture, one channel
for name, rule, (x1, y1, x2, y2), expected in CASES:
    rows, columns = rule(y1, y2, 2), rule(x1, x2, 2)
    agree(f"{name:8} on {[x1, y1, x2, y2]}", pool(MAP, rows, columns)[0], expected)
    if name != "adaptive":  # not an operation of the package: its answer is caffe's on [0, 3, 6, 7], see below
        rois = [[0, x1, y1, x2, y2]]  # the picture's number comes first
        assert reference.bin_cells(y1, y2, 2, name) == rows and reference.bin_cells(x1, x2, 2, name) == columns
        assert np.array_equal(reference.roi_pool(features, rois, (2, 2), 1, name)[0, :, :, 0], expected)
        assert np.array_equal(roi_pool(features, rois, 2, 1, rule=name).numpy()[0, :, :, 0], expected)
print("minimrcnn.reference and minimrcnn.functional.roi_pool give the same, rule by rule.")
# To say rows 3:8 and columns 0:7 to Caffe's rule, name the last cell, not the one after it: [0, 3, 6, 7].
assert caffe(3, 7, 2) == adaptive(3, 8, 2) and caffe(0, 6, 2) == adaptive(0, 7, 2)


# %% The picture of it
# A, B, C, D are the bins, drawn a little smaller than they are, so that shared cells show. A ring marks the
# winner of the bin of its color. Below y = 8 the map ends.
def draw_case(axes, title, row_bins=(), column_bins=()):
    draw_grid(axes, MAP, heat="Greys", vmin=0, vmax=2.2)
    styles = zip("ABCD", (BLUE, RED, GREEN, PURPLE), ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1))), strict=True)
    pairs = [(rows, columns) for rows in row_bins for columns in column_bins]
    for number, ((rows, columns), (letter, color, line)) in enumerate(zip(pairs, styles, strict=False)):
        inset = 0.04 + 0.045 * number
        x, y = columns[0] + inset, rows[0] + inset
        width, height = len(columns) - 2 * inset, len(rows) - 2 * inset
        axes.add_patch(plt.Rectangle((x, y), width, height, fill=False, edgecolor=color, linestyle=line, linewidth=2))
        axes.text(columns[0] + 1, rows[0] + 1, letter, color=color, weight="bold", ha="center", va="center",
                  bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": color})  # fmt: skip
        if rows[-1] == 8:
            axes.text(columns[1] + 1, 8.42, "off the map", fontsize=9, ha="center", va="center")
        row, column = pool(MAP, [rows], [columns])[1][0]
        axes.add_patch(plt.Circle((column + 0.5, row + 0.5), 0.34 + 0.05 * (number == 3), fill=False, edgecolor=color,
                                  linewidth=2))  # fmt: skip
    axes.set(title=title, xticks=range(9), yticks=range(9), ylim=(9.2, 0))


def row_by_row(values):
    return " / ".join("  ".join(f"{value:.2f}" for value in row) for row in values)


figure, grid = plt.subplots(2, 3, figsize=(13, 9.6))
draw_case(grid[0, 0], "the map and the RoI [0, 3, 7, 8]\n(half-open: rows 3:8, columns 0:7)")
draw_box(grid[0, 0], BOX, color=ORANGE, width=3)
for axes, (name, rule, (x1, y1, x2, y2), expected) in zip(grid.flat[1:], CASES, strict=True):
    title = f"{name} on {[x1, y1, x2, y2]}\n{row_by_row(expected)}"
    draw_case(axes, title, rule(y1, y2, 2), rule(x1, x2, 2))
save(figure, "09_rules")

# %% Where the gradient goes
# Only the winner of a bin had a say, so only the winner gets the bin's gradient. A cell that wins two bins gets both:
# with overlapping bins, 0.96 at row 5, column 6 is the winner of B and of D. All other cells learn nothing.
section("Gradient: every bin pays its winner")
figure, pair = plt.subplots(1, 2, figsize=(9, 5.2))
for axes, (name, _, box, _) in zip(pair, (CASES[0], CASES[2]), strict=True):
    leaf = Tensor(features, requires_grad=True)
    roi_pool(leaf, [[0, *box]], 2, 1, rule=name).backward(np.ones((1, 2, 2, 1)))  # a gradient of 1 for every bin
    textbook = reference.roi_pool(features, [[0, *box]], (2, 2), 1, name, gradient=np.ones((1, 2, 2, 1)))
    assert np.array_equal(leaf.grad, textbook)
    winners = {
        (int(row), int(column)): leaf.grad[0, row, column, 0] for row, column in np.argwhere(leaf.grad[0, ..., 0])
    }
    print(f"{name} on {box}: gradient at (row, column)", {place: float(value) for place, value in winners.items()})
    draw_grid(axes, leaf.grad[0, :, :, 0], digits=0, vmin=0, vmax=2)
    axes.set(title=f"{name} on {box}: gradient", xticks=range(9), yticks=range(9))
assert leaf.grad[0, 5, 6, 0] == 2 and leaf.grad.sum() == 4
save(figure, "09_gradient")

# %% Small RoIs
# A RoI of 2x2 cells and 4x4 bins: there are fewer cells than bins. Caffe's rule repeats cells. "split" leaves bins
# without cells, and those are 0: holes in the crop that say nothing about the object.
section("A RoI of 2x2 cells in 4x4 bins")
small = [[0, 2, 4, 3, 5]]  # caffe: columns 2 and 3, rows 4 and 5
agree("caffe", roi_pool(features, small, 4, 1, rule="caffe")[0, :, :, 0],
      [[0.21, 0.21, 0.39, 0.39]] * 2 + [[0.16, 0.16, 0.13, 0.13]] * 2)  # fmt: skip
small = [[0, 2, 4, 4, 6]]  # half-open: the same cells
agree("split", roi_pool(features, small, 4, 1, rule="split")[0, :, :, 0],
      [[0, 0, 0, 0], [0, 0.21, 0, 0.39], [0, 0, 0, 0], [0, 0.16, 0, 0.13]])  # fmt: skip

# %% Many RoIs, many channels
# The kernel (minimrcnn/kernels/roi_pool.py) has the same loops, compiled; RoIs are dealt out to the cores. Proposals
# have fractions, and a real stride: here 16 pixels a cell. Halves are rounded away from zero (`round_half_up` in the
# reference); Python's round(), used above for whole numbers, would send 2.5 to 2.
section("The fast kernel and the textbook, 20 RoIs, 4 channels, 7x7 bins, stride 16")
generator = np.random.default_rng(0)
many = generator.standard_normal((2, 20, 25, 4))
corners = generator.uniform(0, [300, 220], (20, 2))
rois = np.concatenate(
    [generator.integers(0, 2, (20, 1)), corners, corners + generator.uniform(1, 150, (20, 2))], axis=1
)
for name in ("caffe", "split", "floor"):
    difference = np.abs(
        roi_pool(many, rois, 7, 1 / 16, name).numpy() - reference.roi_pool(many, rois, (7, 7), 1 / 16, name)
    )
    agree(f"{name}: largest difference", difference.max(), 0, 1e-7)

# What was lost? The first rounding moved the RoI's edges by up to half a cell, 16 pixels at stride 32 (and Caffe's
# included end adds a cell); the second moved the edges of the bins by up to a whole one. For "is there a dog" that is
# little. For "is this pixel dog" it is much. Lesson 10 measures it, and removes it.

# %% Exercises
# 1. By hand, then in code: rule "split", RoI [1, 2, 6, 5], 2x2 bins. Fill in your answer and run this cell.
answer = None
if answer is not None:
    agree("exercise 1", answer, pool(MAP, split(2, 5, 2), split(1, 6, 2))[0])

# 2. Average pooling: let every bin be the mean of its cells instead of the largest. On [0, 3, 7, 8] with "split" the
#    upper left bin must give 3.22 / 6 = 0.536667. How many cells get a gradient now? (All 35.)
answer = None
if answer is not None:
    agree("exercise 2", answer, MAP[3:5, 0:3].mean())

# 3. Write roi_pool(features, rois, output_size, spatial_scale) with Caffe's rule for many channels, with slices and
#    .max(axis=(0, 1)) in place of the two inner loops, into a file my_functions.py, and have it graded:
#    minimrcnn check my_functions.py
