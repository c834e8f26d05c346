"""Interpolation: reading a map between its cells.

You learn to read a value at a place like (y, x) = (3.625, 0.875), where a grid of numbers has none: linear
interpolation between two numbers, bilinear interpolation between four, why the weights are distances to the *other*
end, what is exact about it and what is not, and how a small map becomes a large one. (What the lessons lead up to, and
what the words "object" and "mask" mean: `lessons/README.md`.)

In the article: section 5.1, bilinear interpolation. In the papers: Mask R-CNN (He et al. 2017), section 3, "RoIAlign",
which reads feature maps this way (lesson 10).
In the package: `minimrcnn/reference.py` (interpolate_linear, interpolate_bilinear, resize_bilinear),
`minimrcnn/functional/resize.py`, `minimrcnn/kernels/resize.py`, and `find_corners` in `minimrcnn/kernels/samples.py`.
Before: NumPy, nothing else.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from style import BLUE, GRAY, GREEN, HEAT, ORANGE, PURPLE, RED, agree, draw_arrow, draw_grid, draw_points, save, section

from minimrcnn import functional, reference
from minimrcnn.kernels.samples import find_corners

# %% Linear interpolation: between two numbers
section("Linear interpolation")

# Known: y = 10 at x = 2, and y = 30 at x = 6. Wanted: y at x = 3, on the straight line between the two.
# From 2 to 3 is a quarter of the way, so y has done a quarter of its climb: 10 + 1/4 * 20 = 15.
# The same as a mixture: 3/4 of the left number and 1/4 of the right one. 3/4 is the distance from x to the *right* end
# (in units of the whole distance). Each end is weighted by the distance to the other end: the nearer end counts more.


def mix_two(x, x0, y0, x1, y1):
    """The straight line through (x0, y0) and (x1, y1), read at x."""
    weight0 = (x1 - x) / (x1 - x0)  # distance to the other end
    weight1 = (x - x0) / (x1 - x0)
    return weight0 * y0 + weight1 * y1


agree("y at x = 3", mix_two(3, 2, 10, 6, 30), 15)
agree("the same by minimrcnn.reference", reference.interpolate_linear(3, 2, 10, 6, 30), 15)
agree("the weights of the left and the right number (sum 1)", [(6 - 3) / (6 - 2), (3 - 2) / (6 - 2)], [0.75, 0.25])
agree("at the ends: the known numbers themselves", [mix_two(2, 2, 10, 6, 30), mix_two(6, 2, 10, 6, 30)], [10, 30])

# Erratum: the article says that dividing by x - x0 makes the weights sum to 1. It is x1 - x0, as in its own formula.
print("Erratum: the weights sum to 1 because they are divided by x1 - x0, not by x - x0 as the article's text says.")

# %% Bilinear interpolation: between four numbers
section("Bilinear interpolation")

# The four known numbers sit at the corners of a rectangle: Q11 at (x1, y1), Q21 at (x2, y1), Q12 at (x1, y2), Q22 at
# (x2, y2). First along x, twice: R1 between Q11 and Q21, R2 between Q12 and Q22. Then along y: P between R1 and R2.
x1, x2, y1, y2 = 2.0, 3.0, 1.0, 2.0
q11, q21, q12, q22 = 10.0, 20.0, 30.0, 50.0
x, y = 2.25, 1.6

r1 = mix_two(x, x1, q11, x2, q21)
r2 = mix_two(x, x1, q12, x2, q22)
p = mix_two(y, y1, r1, y2, r2)
agree("R1, R2 and P", [r1, r2, p], [12.5, 35, 26])

# Multiplied out, P is a mixture of all four. Each weight is a product of two distances, so it is an area: that of the
# rectangle between P and the *opposite* corner.
weights = {"Q11": (x2 - x) * (y2 - y), "Q21": (x - x1) * (y2 - y)}
weights |= {"Q12": (x2 - x) * (y - y1), "Q22": (x - x1) * (y - y1)}
agree("weights of Q11, Q21, Q12, Q22 (sum 1)", list(weights.values()), [0.3, 0.1, 0.45, 0.15])
agree("P as a mixture of four", 0.3 * q11 + 0.1 * q21 + 0.45 * q12 + 0.15 * q22, 26)

# The order does not matter: first along y, then along x.
left = mix_two(y, y1, q11, y2, q12)
right = mix_two(y, y1, q21, y2, q22)
agree("first along y: left, right and P", [left, right, mix_two(x, x1, left, x2, right)], [22, 38, 26])

figure, (line, square) = plt.subplots(1, 2, figsize=(11, 4.6))
line.plot([2, 6], [10, 30], color=GRAY, zorder=1)
line.scatter([2, 6], [10, 30], color=BLUE, s=60, zorder=3)
line.scatter([3], [15], color=ORANGE, marker="D", s=60, zorder=3)
for place, height, name in ((2, 10, "(x0, y0) = (2, 10)"), (3, 15, "y = 15 at x = 3"), (6, 30, "(x1, y1) = (6, 30)")):
    line.annotate(name, (place, height), (-10, 6), textcoords="offset points", ha="right")
    line.plot([place, place], [0, height], color=GRAY, linewidth=0.8, linestyle=":")
for start, end, color in ((2, 3, RED), (3, 6, BLUE)):
    line.annotate("", (end, 3), (start, 3), arrowprops={"arrowstyle": "<->", "color": color, "linewidth": 2})
line.text(1.9, 3, "1/4: weight of y1", color=RED, ha="right")
line.text(4.5, 4, "3/4: weight of y0", color=BLUE, ha="center")
line.set(xlabel="x", ylabel="y", xlim=(0, 7), ylim=(0, 34), title="Linear: a weight is the distance to the other end")
corners = {"Q11": (x1, y1, q11), "Q21": (x2, y1, q21), "Q12": (x1, y2, q12), "Q22": (x2, y2, q22)}
for (name, (cx, cy, value)), color in zip(corners.items(), (BLUE, RED, GREEN, PURPLE), strict=True):
    ox, oy = x1 + x2 - cx, y1 + y2 - cy  # the opposite corner
    area = Rectangle((min(x, ox), min(y, oy)), abs(ox - x), abs(oy - y), color=color, alpha=0.25, linewidth=0)
    square.add_patch(area)
    square.text((x + ox) / 2, (y + oy) / 2, f"weight\nof {name}:\n{weights[name]:.2f}", ha="center", va="center")
    square.scatter([cx], [cy], s=70, color=color, zorder=3)
    side, align = (0.05, "left") if cx == x2 else (-0.05, "right")
    square.text(cx + side, cy, f"{name} = {value:g}", ha=align, va="center")
draw_points(square, [[y1, x], [y2, x]], color="white", marker="s", size=55)
draw_points(square, [[y, x]], color=ORANGE, marker="D", size=70)
square.text(x, y1 - 0.05, "R1 = 12.5", ha="center", va="bottom")
square.text(x, y2 + 0.05, "R2 = 35", ha="center", va="top")
square.annotate("P = 26", (x, y), (10, -16), textcoords="offset points", weight="bold", ha="left")
square.set(xlabel="x", ylabel="y", xlim=(1.55, 3.45), ylim=(2.15, 0.85), xticks=[2, 2.25, 3], yticks=[1, 1.6, 2],
           title="Bilinear: a weight is the area at the opposite corner")  # fmt: skip
save(figure, "01_two_and_four")

# %% A map of numbers, read anywhere
section("Reading a map")

# A feature map is a grid of cells, each with a list of numbers, its channels: an array of shape (H, W, C). This is the
# article's 8x8 map, with one channel. Here the number of cell i sits at the coordinate i, so cell (3, 0) is the point
# y = 3, x = 0. To read the map at (y, x), find the cell above and to the left by cutting off the fractions; the other
# three neighbors follow.
table = """
0.88 0.44 0.14 0.16 0.37 0.77 0.96 0.27
0.19 0.45 0.57 0.16 0.63 0.29 0.71 0.70
0.66 0.26 0.82 0.64 0.54 0.73 0.59 0.26
0.85 0.34 0.76 0.84 0.29 0.75 0.62 0.25
0.32 0.74 0.21 0.39 0.34 0.03 0.33 0.48
0.20 0.14 0.16 0.13 0.73 0.65 0.96 0.32
0.19 0.69 0.09 0.86 0.88 0.07 0.01 0.48
0.83 0.24 0.97 0.04 0.24 0.35 0.50 0.91"""
cells = np.array(table.split(), float).reshape(8, 8, 1)  # (H, W, C)


def find_neighbors(y, x, height, width):
    """The four cells around a point, each with its weight; the map has at least 2x2 cells."""
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)  # outside the map: as at its edge
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    down, across = y - top, x - left  # how far beyond the cell above, beyond the cell to the left
    above = [(top, left, (1 - down) * (1 - across)), (top, left + 1, (1 - down) * across)]
    below = [(top + 1, left, down * (1 - across)), (top + 1, left + 1, down * across)]
    return above + below


def read_map(cells, y, x):
    total = np.zeros(cells.shape[2])
    for row, column, weight in find_neighbors(y, x, cells.shape[0], cells.shape[1]):
        total += weight * cells[row, column]
    return total


def read_by_package(cells, y, x):
    """RoIAlign reads maps in the package; asked for one sample, it reads the middle of the box it gets. Functions of
    the package return Tensors (lesson 3); ``.numpy()`` takes the array out."""
    box = [[0, x - 0.5, y - 0.5, x + 0.5, y + 0.5]]  # picture 0, then x1, y1, x2, y2
    return functional.roi_align(cells[None], box, (1, 1), 1.0, sampling_ratio=1, aligned=False).numpy()[0, 0, 0]


# Worked by hand at (3.625, 0.875): above, 0.125 * 0.85 + 0.875 * 0.34 = 0.40375; below, 0.125 * 0.32 + 0.875 * 0.74 =
# 0.6875; then 0.375 * 0.40375 + 0.625 * 0.6875 = 0.58109375. These are three of the points RoIAlign visits on this map.
above, below = mix_two(0.875, 0, 0.85, 1, 0.34), mix_two(0.875, 0, 0.32, 1, 0.74)
agree("above, below", [above, below], [0.40375, 0.6875])
points = [(3.625, 0.875), (4.875, 2.625), (6.125, 6.125)]
expected = [0.581094, 0.163906, 0.129062]
agree("three points of the map", [read_map(cells, *point)[0] for point in points], expected)
by_reference = [reference.interpolate_bilinear(cells, *point)[0] for point in points]
agree("the same by minimrcnn.reference", by_reference, expected)
agree("the same by the package", [read_by_package(cells, *point)[0] for point in points], expected)
agree(
    "at a cell, its own number; outside, the edge's",
    [read_map(cells, 3, 0), read_map(cells, -0.7, 9.2)],
    [[0.85], [0.27]],
)
# RoIAlign differs in one thing: more than a cell outside, as at x = 9.2, it reads 0 (lesson 10).
outside = [read_by_package(cells, -0.7, x)[0] for x in (7.9, 9.2)]
agree("RoIAlign at (-0.7, 7.9) and at (-0.7, 9.2)", outside, [0.27, 0])
# In its compiled inner loop (a kernel, lesson 17) the package does what `find_neighbors` does, one axis at a time, by a
# function that can be called as it stands:
agree("find_corners(3.625): two cells, the second one's weight", find_corners(3.625, 8, np.float64), [3, 4, 0.625])

figure, (whole, near) = plt.subplots(1, 2, figsize=(11.5, 5.2), width_ratios=(1.2, 1))
draw_grid(whole, cells[:, :, 0], centers=0, text=False, vmin=0, vmax=1)
for (row, column), value in np.ndenumerate(cells[:, :, 0]):
    shade = "white" if value < 0.5 else "black"
    whole.text(column - 0.45, row + 0.45, f"{value:.2f}", fontsize=7, va="bottom", color=shade)
draw_points(whole, points)
for point in points:
    for row, column, _ in find_neighbors(*point, 8, 8):
        draw_arrow(whole, (row, column), point)
whole.set(title="Three points, each read from its four neighbors")
draw_grid(near, cells[:, :, 0], centers=0, text=False, vmin=0, vmax=1)
for row, column, weight in find_neighbors(*points[0], 8, 8):
    draw_arrow(near, (row, column), points[0])
    near.text(column, row + (-0.12 if row == 3 else 0.12), f"{weight:.3f} x {cells[row, column, 0]:.2f}", ha="center",
              va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})  # fmt: skip
draw_points(near, points[:1], size=70)
near.text(0.43, 3.625, "sum 0.581", ha="center", va="center", bbox={"facecolor": "white", "edgecolor": ORANGE})
near.set(xlim=(-0.5, 1.5), ylim=(4.5, 2.5), xticks=[0, 1], yticks=[3, 4], title="At (3.625, 0.875): weights x values")
save(figure, "01_neighbors")

# %% What is exact
section("A linear function is exact")

# Numbers that grow steadily, f(y, x) = 5 + 2 y - 3 x, are read exactly at every point: between two cells f *is* a
# straight line. Numbers that bend are not: x * x at 2.5 lies between 4 and 9, so it is read as 6.5 instead of 6.25.
rows, columns = np.mgrid[:6, :9].astype(float)
ramp = (5 + 2 * rows - 3 * columns)[:, :, None]
somewhere = np.random.default_rng(1).uniform([0, 0], [5, 8], (100, 2))  # (100, 2): y, x
errors = [abs(read_map(ramp, y, x)[0] - (5 + 2 * y - 3 * x)) for y, x in somewhere]
agree("largest error at 100 random points", max(errors), 0, tolerance=1e-12)
agree("x * x at x = 2.5, read from 4 and 9", read_map((columns * columns)[:, :, None], 1.0, 2.5), [6.5])

# %% A small map becomes a large one
section("Resizing: nearest neighbor and bilinear")

# To make a map larger, ask for every new cell where it lies in the old map. Here cells are squares with a size, and a
# number sits in the middle of its square. With H cells before and OH after, the middle of new cell i is at
# (i + 0.5) * H / OH in the old map's lengths, and as the middle of old cell 0 is at 0.5, that is old coordinate
# (i + 0.5) * H / OH - 0.5. From 4 to 8 cells:
places = [(i + 0.5) * 4 / 8 - 0.5 for i in range(8)]
agree("where the new cells lie", places, [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25])

# Nearest neighbor takes the number of the old cell the new one lies in: floor(i * H / OH), nothing is mixed. The
# feature pyramid (lesson 5) does that; pictures are resized bilinearly.


def resize(cells, height, width):
    result = np.zeros((height, width, cells.shape[2]))
    for row in range(height):
        for column in range(width):
            y = (row + 0.5) * cells.shape[0] / height - 0.5
            x = (column + 0.5) * cells.shape[1] / width - 0.5
            result[row, column] = read_map(cells, y, x)
    return result


small = cells[:4, :4]
large = resize(small, 32, 32)
agree("loops against minimrcnn.reference", abs(large - reference.resize_bilinear(small[None], (32, 32))[0]).max(), 0)
agree("loops against the package", abs(large - functional.resize_bilinear(small[None], 32).numpy()[0]).max(), 0)
nearest = functional.upsample_nearest(small[None], 32).numpy()[0]  # (32, 32, 1)
by_reference = reference.upsample_nearest(small[None], (32, 32))[0]
agree("nearest neighbor, package against minimrcnn.reference", abs(nearest - by_reference).max(), 0)
agree("different numbers in the large map, nearest neighbor", len(np.unique(nearest)), 15)  # 0.16 stands there twice
print(f"different numbers in the large map, bilinear: {len(np.unique(large.round(9)))}")
# `kernels/resize.py` is these loops, compiled: which two rows, which two columns and how much of the second is found
# once for each axis, as the same columns serve every row.

figure, axes = plt.subplots(1, 4, figsize=(14, 3.7), width_ratios=(1, 1, 1, 1.25))
draw_grid(axes[0], small[:, :, 0], vmin=0, vmax=1)
axes[0].set(title="4x4 map", xticks=range(5), yticks=range(5))
for axis, picture, title in ((axes[1], nearest, "32x32, nearest neighbor"), (axes[2], large, "32x32, bilinear")):
    axis.imshow(picture[:, :, 0], cmap=HEAT, extent=(0, 4, 4, 0), vmin=0, vmax=1, alpha=0.85)
    axis.axhline(1.5, color=RED, linestyle="--", linewidth=1.5)
    axis.set(title=title, xlabel="x", xticks=range(5), yticks=range(5))
along = (np.arange(400) + 0.5) / 100
for function, color, look in ((functional.upsample_nearest, BLUE, "--"), (functional.resize_bilinear, ORANGE, "-")):
    values = function(small[None, 1:2], (1, 400)).numpy().ravel()
    axes[3].plot(along, values, color=color, linestyle=look, label="nearest" if look == "--" else "bilinear")
draw_points(axes[3], np.stack([small[1, :, 0], np.arange(4) + 0.5], axis=1), color="white", label="the four cells")
axes[3].set(xlabel="x", ylabel="value", ylim=(0, 0.85), title="Along the dashed line", xticks=range(5))
axes[3].legend(loc="upper left", ncols=3, fontsize=8, handlelength=1.5, columnspacing=1)
save(figure, "01_resize")

# %% Exercises
# 1. By hand: read the article's map at (y, x) = (6.125, 0.875). Replace None by your number.
answer = None
assert answer is None or abs(answer - reference.interpolate_bilinear(cells, 6.125, 0.875)[0]) < 1e-5  # about 0.588

# 2. How much does P change if Q12 grows from 30 to 31? Find it without computing P again. (It must come out as 0.45:
#    the value's derivative by a cell is the cell's weight. That is how RoIAlign sends gradients back.)

# 3. Write `bilinear(features, y, x)` into a copy of exercises/start_here.py, for arrays (H, W, C), with the edge
#    reaching on outside of the map. The grader tries it on maps of one row, on points outside and on the last cell:
#    minimrcnn check my_functions.py --only bilinear
