"""Levels: from which map of the pyramid is a RoI cut?

You learn the formula that sends large RoIs to coarse maps and small ones to fine maps, why 224 stands in it, what the
"floor" does at the borders, why one millionth is added, and what becomes of a RoI on its level: whatever its size, it
covers about the same number of cells.

In the article: section 3, the formula for k. In the papers: Lin et al. 2017, Feature Pyramid Networks, section 4.2,
equation 1.
In the package: minimrcnn/geometry/levels.py (assign_levels), minimrcnn/functional/roi.py (pool_rois).
Before: the pyramid P2 to P6 (lesson 5), RoIAlign (10).
"""

import math

import numpy as np
from style import BLACK, BLUE, GREEN, ORANGE, RED, agree, draw_box, plt, save, section

from minimrcnn import reference
from minimrcnn.functional import pool_rois
from minimrcnn.geometry import assign_levels

COLORS = {2: BLUE, 3: ORANGE, 4: GREEN, 5: RED}
LINES = {2: "-", 3: "--", 4: "-.", 5: ":"}  # the second mark beside the color

# %% The question
# The pyramid has the same picture on several maps: P2 with 4 pixels a cell, P3 with 8, P4 with 16, P5 with 32. (P6 is
# for the region proposal network alone; no RoI is cut from it.) A RoI must be cut from one of them.
# Cut a mouse of 40 pixels from P5, and it is a little more than one cell: too coarse. Cut a bus of 800 pixels from P2,
# and it is 200 cells wide, of which RoIAlign's 14 samples a row see few. Each wants its own level.


# %% The formula
#     k = floor(k0 + log2(sqrt(w h) / 224)),  k0 = 4,  and never below 2 or above 5.
# sqrt(w h) is the side of the square with the RoI's area. log2 counts how often it must be doubled to get from 224 to
# that side: 0 for 224, 1 for 448, -1 for 112. So: twice the side, one level coarser.
# 224 is the size of the ImageNet pictures that the backbone learned from. An object that fills 224 pixels is what it
# knows best, and before there were pyramids, Faster R-CNN with ResNet cut everything from C4: hence k0 = 4.
def choose_level(width, height, epsilon=1e-6, clamp=True):
    side = math.sqrt(width * height)
    k = math.floor(4 + math.log2(side / 224) + epsilon)
    return min(max(k, 2), 5) if clamp else k


def box_of(width, height):
    return [0, 0, width, height]


section("Squares")
SQUARES = {56: 2, 111: 2, 112: 3, 224: 4, 447: 4, 448: 5, 896: 5}
for side, level in SQUARES.items():
    exact = 4 + math.log2(side / 224)
    print(f"side {side:3}: 4 + log2({side}/224) = {exact:.4f} -> P{choose_level(side, side)}")
    assert choose_level(side, side) == level
agree("side 896, before it is brought down to 5", choose_level(896, 896, clamp=False), 6)

section("Rectangles: only the area counts")
RECTANGLES = {(100, 300): 3, (448, 112): 4, (50, 800): 3}
for (width, height), level in RECTANGLES.items():
    print(f"{width} x {height}: sqrt(w h) = {math.sqrt(width * height):.1f} -> P{choose_level(width, height)}")
    assert choose_level(width, height) == level
# 448x112 has the area of 224x224 and goes where that goes. 50x800 is long, but its area is that of a square of 200.

section("The same from the textbook and from the package")
boxes = [box_of(side, side) for side in SQUARES] + [box_of(*size) for size in RECTANGLES]
expected = [*SQUARES.values(), *RECTANGLES.values()]
agree("minimrcnn.reference.assign_level", [reference.assign_level(box) for box in boxes], expected)
agree("minimrcnn.geometry.assign_levels", assign_levels(boxes), expected)

# %% One millionth
# A box of 224 pixels that went through a little arithmetic may come back as 223.9999. 4 + log2(223.9999 / 224) is a
# hair below 4, and floor sends it to level 3. torchvision adds 0.000001 before the floor, and so does this package: the
# published weights were trained with it.
section("The epsilon")
side = 223.9999
print(f"4 + log2({side}/224) = {4 + math.log2(side / 224):.8f}")
agree("without epsilon", choose_level(side, side, epsilon=0), 3)
agree("with 1e-6", choose_level(side, side), 4)
agree("the package", assign_levels([box_of(side, side)]), [4])
# How far does it reach? 224 * 2**-0.000001 = 223.99984: a shorter side is not forgiven.
agree("side 223.9998, with 1e-6", choose_level(223.9998, 223.9998), 3)


# %% Another rule: round
# matterport's code, which the author of the article used, rounds to the nearest whole number instead. The borders
# between P2, P3, P4 and P5 move from 112, 224 and 448 pixels to 79.2, 158.4 and 316.8: boxes change their level, and
# weights trained with one rule see features they do not expect with the other.
def round_level(width, height):
    return min(max(round(4 + math.log2(math.sqrt(width * height) / 224)), 2), 5)


section("matterport rounds")
for width, height, level in ((111, 111, 3), (447, 447, 5), (100, 300, 4)):
    agree(f"{width} x {height}: floor P{choose_level(width, height)}, round", round_level(width, height), level)

# %% k over the side
# Left: the steps. Right: what it is for. On its level, a RoI of 56 to 895 pixels is 14 to 28 cells wide; a 7x7
# crop then has bins of 2 to 4 cells, and with 2x2 samples in each no cell is far from a sample. At the ends there is
# no better level: small RoIs get bins smaller than a cell, and large ones larger bins.
sides = np.geomspace(20, 1200, 600)
levels = assign_levels([box_of(side, side) for side in sides])
cells = sides / 2.0**levels
inside = (sides >= 56) & (sides < 895)
assert cells[inside].min() >= 14 and cells[inside].max() <= 28
print(f"\nsides from 56 to 895 pixels: {cells[inside].min():.1f} to {cells[inside].max():.1f} cells on their level")
figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6))
exact = 4 + np.log2(sides / 224)
left.plot(sides, exact, color=BLACK, linewidth=0.8, label="4 + log2(side / 224)")
left.step(sides, [round_level(side, side) for side in sides], where="post", color=RED, linestyle=":", label="round")
left.step(sides, levels, where="post", color=BLUE, linewidth=2, label="floor, 2 to 5")
left.plot(list(SQUARES), list(SQUARES.values()), "o", color=BLUE, markeredgecolor="black", label="printed above")
left.set(xscale="log", xlabel="side of a square RoI, pixels", ylabel="level k", yticks=range(1, 7), ylim=(0.4, 6.6),
         title="From which level?")  # fmt: skip
left.legend(loc="upper left")
for level in (2, 3, 4, 5):
    own = levels == level
    right.plot(sides[own], cells[own], color=COLORS[level], linestyle=LINES[level], linewidth=2, label=f"P{level}")
right.axhspan(14, 28, color="0.9")
right.set(xscale="log", xlabel="side of a square RoI, pixels", ylabel="cells", title="How many cells wide is it there?")
right.legend(loc="upper left")
for axes in (left, right):
    axes.set_xticks([28, 56, 112, 224, 448, 896], [28, 56, 112, 224, 448, 896])
    axes.minorticks_off()
save(figure, "11_curve")

# %% RoIs by their level
# Left: RoIs in a picture 1216 wide and 800 high. Right: all widths and heights. A level is a band between two lines of
# equal area.
rois = np.array([
    [30, 60, 100, 120], [60, 640, 110, 740], [1050, 60, 1150, 140], [900, 700, 950, 770],  # small
    [150, 40, 300, 160], [40, 260, 140, 560], [930, 170, 1150, 290], [600, 715, 780, 785],  # middle
    [340, 40, 640, 290], [230, 430, 610, 610], [700, 40, 900, 420], [910, 440, 1190, 680], [150, 650, 520, 780],
    [200, 190, 860, 700],
])  # fmt: skip
figure, (picture, plane) = plt.subplots(1, 2, figsize=(14, 5.4), width_ratios=(1.35, 1))
for box, level in zip(rois, assign_levels(rois), strict=True):
    picture.add_patch(plt.Rectangle(box[:2], box[2] - box[0], box[3] - box[1], color=COLORS[level], alpha=0.12))
    draw_box(picture, box, COLORS[level], dashed=level % 2 == 1)
    picture.text(box[0] + 8, box[1] + 8, f"P{level}", va="top", weight="bold", fontsize=9)
picture.set(xlim=(0, 1216), ylim=(800, 0), aspect="equal", xlabel="x, pixels", ylabel="y, pixels",
            title="14 RoIs, each with its level")  # fmt: skip
axis = np.geomspace(20, 1200, 200)
area = [box_of(width, height) for height in axis for width in axis]
plane.contourf(axis, axis, assign_levels(area).reshape(200, 200), levels=[1.5, 2.5, 3.5, 4.5, 5.5],
               colors=list(COLORS.values()), alpha=0.35)  # fmt: skip
for level, at in {2: 42, 3: 158, 4: 317, 5: 680}.items():
    plane.text(at, at, f"P{level}", ha="center", va="center", weight="bold", fontsize=12)
for width, height in RECTANGLES:
    plane.plot(width, height, "ko")
    plane.annotate(f"{width}x{height}", (width, height), xytext=(7, 4), textcoords="offset points")
plane.set(xscale="log", yscale="log", xlabel="width, pixels", ylabel="height, pixels", aspect="equal",
          title="The level of every width and height")  # fmt: skip
ticks = [28, 56, 112, 224, 448, 896]
plane.set_xticks(ticks, ticks)
plane.set_yticks(ticks, ticks)
plane.minorticks_off()
save(figure, "11_rois")

# %% pool_rois: the levels at work
# `pool_rois` cuts every RoI from its level and gives the crops back in the order of the RoIs. To see where it cut, let
# every map consist of its own number: P2 of twos, P3 of threes, and so on. Then the crops tell.
section("pool_rois on maps that consist of their own number")
pyramid = [np.full((1, 800 // stride, 1216 // stride, 1), level, np.float32)
           for level, stride in zip((2, 3, 4, 5), (4, 8, 16, 32), strict=True)]  # fmt: skip
crops = pool_rois(pyramid, np.insert(rois, 0, 0, axis=1), 7).numpy()  # the picture's number comes first
print("shape of the crops:", crops.shape)
assert crops.shape == (14, 7, 7, 1)
assert np.allclose(crops, crops[:, :1, :1], rtol=1e-6)  # a bin's weights add up to 1 but for the last bit
agree("levels the crops come from", crops[:, 0, 0, 0], assign_levels(rois))

# %% Exercises
# 1. In the head: the levels of 300x300, 60x60 and 900x20. Fill in the list.
answer = None
if answer is not None:
    agree("exercise 1", answer, assign_levels([box_of(300, 300), box_of(60, 60), box_of(900, 20)]))

# 2. A model for small objects is to send squares of 64 to 127 pixels to P4. Which canonical size replaces 224? Check
#    your number: both levels must be 4, and that of 63 pixels 3.
answer = None
if answer is not None:
    agree("exercise 2", assign_levels([box_of(s, s) for s in (63, 64, 127)], canonical_size=answer), [3, 4, 4])

# 3. Write assign_levels(boxes), for boxes (R, 4), without a loop, into a file my_functions.py. Think of boxes without
#    area, whose logarithm is minus infinity. minimrcnn check my_functions.py grades it.
