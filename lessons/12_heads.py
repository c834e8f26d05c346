"""The heads: from a crop to a class, a box and a mask.

You learn what stands behind RoIAlign in stage two (lesson 7 draws both stages): two fully connected layers that name
the object and correct its box, and a small convolutional network that draws its mask. You follow every shape through
the real modules, count parameters and multiplications, stamp a transposed convolution by hand, and see why a mask has
28x28 pixels.

In the article: section 4, the picture of the heads. In the papers: He et al. 2017, Mask R-CNN, section 3 and figure 4;
Lin et al. 2017, Feature Pyramid Networks, section 4.2.
In the package: minimrcnn/models/box_head.py, mask_head.py and, for C4, published.py and mask_rcnn.py;
minimrcnn/functional/conv.py (conv_transpose2d).
Before: convolutions (lesson 2), ResNet's bottleneck (4), RoIAlign (10), levels (11).
"""

import numpy as np
from style import BLUE, COLORS, GRAY, ORANGE, RED, agree, draw_arrow, draw_grid, plt, save, section, show_picture

from minimrcnn import Tensor, reference
from minimrcnn.functional import conv_transpose2d, upsample_nearest
from minimrcnn.geometry import crop_masks, paste_masks
from minimrcnn.models import maskrcnn_resnet50_c4, maskrcnn_resnet50_fpn

CLASSES = 91  # COCO's labels go up to 90, of which 80 are in use; 0 is the background. "K" below

# %% Two heads, two tasks
# RoIAlign made a crop of every RoI: a small map of 256 channels. Two heads look at it.
#   The box head asks: what is it, and where exactly? It flattens a crop of 7x7 cells into one long vector.
#   The mask head asks: which pixels are it? It keeps the cells of a crop of 14x14 in their places.
# To follow the shapes, we call the layers of the real model one by one, and note what each one costs:
#   parameters: the numbers that it learned; multiplications: one for each weight at each place where it is laid on.
fpn = maskrcnn_resnet50_fpn()
generator = np.random.default_rng(0)
COSTS = []  # (head, layer, parameters, multiplications for one RoI, output shape of one RoI)


def step(head, name, layer, x, **options):
    """Call a layer, and note its cost."""
    y = layer(x, **options)
    inner = getattr(layer, "conv", layer)  # a ConvNorm holds its convolution
    parameters = sum(parameter.size for parameter in layer.parameters())
    if x.ndim == 2:
        places = 1  # fully connected
    elif "Transpose" in type(layer).__name__:
        places = x.shape[1] * x.shape[2]  # every input cell is used once
    else:
        places = y.shape[1] * y.shape[2]  # every output cell is computed once
    COSTS.append((head, name, parameters, inner.weight.size * places, y.shape[1:]))
    print(f"{name:12} {x.shape!s:>18} -> {y.shape!s:18} {parameters:>12,} parameters {COSTS[-1][3] / 1e6:8.1f} M mult.")
    return y


# %% The box head on the pyramid
# 7 x 7 x 256 numbers in a row are 12,544. Fully connected means: every output has a weight for every input. fc6 alone
# has 12,544 x 1024 weights and 1024 biases, nearly all of the head. ("6" and "7" are the places that these two layers
# had in an older network.) Then come K class scores, and four box deltas (lesson 7) for each class.
section("Box head on the pyramid, three RoIs")
crops7 = Tensor(generator.standard_normal((3, 7, 7, 256)).astype(np.float32))
x = crops7.reshape(3, 7 * 7 * 256)
assert x.shape == (3, 12544)
x = step("box", "fc6", fpn.box_head.fc6, x, relu=True)
x = step("box", "fc7", fpn.box_head.fc7, x, relu=True)
logits = step("box", "classes", fpn.box_head.class_logits, x)
deltas = step("box", "boxes", fpn.box_head.box_deltas, x)
together = fpn.box_head(crops7)  # the head itself does the same
agree("the head, less our steps", np.abs(together[0].numpy() - logits.numpy()).max(), 0, 1e-5)
assert logits.shape == (3, CLASSES) and together[1].shape == (3, CLASSES, 4)
agree("parameters", [cost[2] for cost in COSTS],
      [12544 * 1024 + 1024, 1024 * 1024 + 1024, 1024 * 91 + 91, 1024 * 364 + 364], 0)  # fmt: skip

# %% The mask head on the pyramid
# Four 3x3 convolutions keep 14x14. A transposed convolution doubles it to 28x28. A 1x1 convolution turns 256 channels
# into K masks, one for each class; lesson 13 says which of them counts. No layer here is fully connected: what the
# head says about a pixel comes from the cells around that pixel.
section("Mask head on the pyramid, three RoIs")
crops14 = Tensor(generator.standard_normal((3, 14, 14, 256)).astype(np.float32))
x = crops14
for number, conv in enumerate(fpn.mask_head.convs, 1):
    x = step("mask", f"conv{number}", conv, x, relu=True)
    assert x.shape == (3, 14, 14, 256)
x = step("mask", "transposed", fpn.mask_head.upsample, x, relu=True)
assert x.shape == (3, 28, 28, 256)
masks = step("mask", "masks", fpn.mask_head.logits, x)
assert masks.shape == (3, 28, 28, CLASSES)
agree("the head, less our steps", np.abs(fpn.mask_head(crops14).numpy() - masks.numpy()).max(), 0, 1e-4)
agree("parameters", [cost[2] for cost in COSTS[4:]],
      [9 * 256 * 256 + 256] * 4 + [4 * 256 * 256 + 256, 256 * 91 + 91], 0)  # fmt: skip
total = sum(parameter.size for parameter in fpn.parameters())
agree("the whole model, parameters", total, 44401393, 0)
heads = sum(cost[2] for cost in COSTS)
print(f"the two heads together: {heads:,}, {heads / total:.0%} of them")

# A convolution keeps things in their places: move the crop by one cell, and the mask moves by two pixels. (Not near
# the border: each 3x3 carries the zeros of its padding one cell further in.)
moved = fpn.mask_head(Tensor(np.roll(crops14.numpy(), 1, axis=2)))  # one cell to the right
difference = moved.numpy()[:, 8:20, 10:20] - masks.numpy()[:, 8:20, 8:18]
agree("crop moved by 1 cell, mask by 2 pixels: difference", np.abs(difference).max(), 0, 1e-4)

# %% The heads on C4
# Before there were pyramids, everything was cut from C4 (stride 16, 1024 channels). The crops of 14x14 go through res5,
# the last stage of ResNet (lesson 4), once for every RoI. Class and box are read from the average over its 7x7 cells;
# the mask from the cells. (The paper's figure takes 7x7 crops and no stride in res5: the same shapes after it.)
section("Heads on C4, three RoIs")
c4 = maskrcnn_resnet50_c4()
x = Tensor(generator.standard_normal((3, 14, 14, 1024)).astype(np.float32))
crops = x
for number, block in enumerate(c4.res5.layers, 1):  # three bottlenecks
    before = x
    shortcut = step("c4", f"res5.{number} side", block.shortcut, x) if block.shortcut else x
    x = step("c4", f"res5.{number} 1x1", block.conv1, x, relu=True)
    x = step("c4", f"res5.{number} 3x3", block.conv2, x, relu=True)
    x = step("c4", f"res5.{number} 1x1", block.conv3, x, residual=shortcut, relu=True)
assert x.shape == (3, 7, 7, 2048)
agree("res5 of the model, less our steps", np.abs(c4.res5(crops).numpy() - x.numpy()).max() / np.abs(x.numpy()).max(),
      0, 1e-5)  # fmt: skip
mean = x.mean(axis=(1, 2))
assert mean.shape == (3, 2048)
c4_logits = step("c4", "classes", c4.box_head.class_logits, mean)
step("c4", "boxes", c4.box_head.box_deltas, mean)
y = step("c4", "transposed", c4.mask_head.upsample, x, relu=True)
assert y.shape == (3, 14, 14, 256)
c4_masks = step("c4", "masks", c4.mask_head.logits, y)
assert c4_masks.shape == (3, 14, 14, CLASSES)
assert np.allclose(c4.box_head(x)[0].numpy(), c4_logits.numpy(), atol=1e-4)
assert np.allclose(c4.mask_head(x).numpy(), c4_masks.numpy(), atol=1e-4)

# %% What it costs
# A picture at test time: 1000 proposals through the box head, at most 100 detections through the mask head. On C4 all
# 1000 would have to go through res5; so there are 300 only, and 64 RoIs a picture to train on (512 on the pyramid). The
# 100 detections are cut out again for their masks, so res5 runs 300 + 100 times.
section("How many RoIs")
counted = ("rpn_post_nms_top_n_test", "box_detections_per_img", "box_batch_size_per_image")
for name, model, wanted in (("pyramid", fpn, [1000, 100, 512]), ("C4", c4, [300, 100, 64])):
    agree(
        f"{name}: proposals, detections, RoIs to train on", [getattr(model.config, field) for field in counted], wanted
    )

section("Multiplications for one RoI, and for one picture, in billions")


def billions(head, part=""):
    return sum(cost[3] for cost in COSTS if cost[0] == head and part in cost[1]) / 1e9


box, mask, res5 = billions("box"), billions("mask"), billions("c4", "res5")
agree("pyramid: box head, mask head; C4: res5", [box, mask, res5], [0.01436, 0.532066, 0.809239], 1e-6)
print(f"pyramid: 1000 x {box:.3f} + 100 x {mask:.3f} = {1000 * box + 100 * mask:.0f}")
print(f"C4: (300 + 100) x {res5:.3f} = {400 * res5:.0f}; with 1000 proposals {1100 * res5:.0f}")

# %% The shapes as a picture
FLOWS = [
    ("pyramid", "box", ["7x7x256", "1024", "1024", "91 classes\n91 x 4 deltas"], ["fc6", "fc7", "two layers"]),
    ("pyramid", "mask", ["14x14x256", "14x14x256", "28x28x256", "28x28x91"], ["4 conv 3x3", "transposed", "1x1"]),
    ("C4", "box", ["14x14x1024", "7x7x2048", "2048", "91 classes\n91 x 4 deltas"], ["res5", "average", "two layers"]),
    ("C4", "mask", ["14x14x1024", "7x7x2048", "14x14x256", "14x14x91"], ["res5", "transposed", "1x1"]),
]
figure, axes = plt.subplots(figsize=(12, 4.4))
for row, (level, head, shapes, layers) in enumerate(FLOWS):
    color = BLUE if head == "box" else ORANGE
    axes.text(-1.1, row, f"{level},\n{head} head", va="center", weight="bold")
    for column, shape in enumerate(shapes):
        frame = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": color, "linewidth": 2}
        axes.text(2 * column, row, shape, ha="center", va="center", bbox=frame)
    for column, layer in enumerate(layers):
        draw_arrow(axes, (row, 2 * column + 0.5), (row, 2 * column + 1.48), color=GRAY)
        axes.text(2 * column + 1, row - 0.14, layer, ha="center", fontsize=9)
axes.set(xlim=(-1.2, 6.8), ylim=(3.4, -0.5))
axes.set_axis_off()
axes.set_title("One RoI through the heads (height x width x channels); the two C4 heads share res5")
save(figure, "12_shapes")


# %% A transposed convolution, stamped by hand
# A convolution gathers: each output looks at the inputs under the kernel. A transposed convolution stamps: each input
# puts the kernel, times itself, onto the output, `stride` cells from the next one. Where stamps overlap, they add up.
def stamp(x, kernel, stride):
    rows, columns = x.shape
    height, width = kernel.shape
    y = np.zeros(((rows - 1) * stride + height, (columns - 1) * stride + width))
    for row in range(rows):
        for column in range(columns):
            y[row * stride : row * stride + height, column * stride : column * stride + width] += (
                x[row, column] * kernel
            )
    return y


section("Transposed convolution")
small, kernel = np.array([[1.0, 2], [3, 4]]), np.array([[1.0, 10], [100, 1000]])  # each place of the kernel has a digit
by_hand = stamp(small, kernel, 2)
agree("2x2 kernel, stride 2", by_hand,
      [[1, 10, 2, 20], [100, 1000, 200, 2000], [3, 30, 4, 40], [300, 3000, 400, 4000]])  # fmt: skip
ones = stamp(np.ones((3, 3)), np.ones((3, 3)), 2)
agree("3x3 kernel of ones, stride 2, on ones: stamps in each cell", ones[:4, :4],
      [[1, 1, 2, 1], [1, 1, 2, 1], [2, 2, 4, 2], [1, 1, 2, 1]])  # fmt: skip
for values, weights in ((small, kernel), (np.ones((3, 3)), np.ones((3, 3)))):
    arguments = values[None, :, :, None], weights[:, :, None, None]
    assert np.array_equal(reference.conv_transpose2d(*arguments)[0, :, :, 0], stamp(values, weights, 2))
    assert np.allclose(conv_transpose2d(*arguments).numpy()[0, :, :, 0], stamp(values, weights, 2))
# The mask head's kernel is 2x2 with stride 2: stamps lie side by side, so what is uneven comes from the weights alone,
# and can be learned away. With 3x3 they overlap, unevenly: a checkerboard that the next layers would have to remove.
# And a kernel of four ones is nearest upsampling (lesson 5):
assert np.array_equal(
    stamp(small, np.ones((2, 2)), 2), upsample_nearest(small[None, :, :, None], (4, 4)).numpy()[0, :, :, 0]
)
figure, four = plt.subplots(1, 4, figsize=(14, 3.9), width_ratios=(0.8, 0.8, 1.4, 1.4))
for axes, values, title in zip(four, (small, kernel, by_hand, ones), ("input", "kernel, stride 2",
        "output: four stamps", "3x3 kernel of ones on ones:\nhow many stamps add up"), strict=True):  # fmt: skip
    draw_grid(axes, values, digits=0, heat="Greys", vmin=0, vmax=2.5 * values.max())
    axes.set(title=title, xticks=[], yticks=[], xlabel="", ylabel="")
for number, (row, column) in enumerate(np.ndindex(2, 2)):
    box = {"fill": False, "edgecolor": COLORS[number], "linewidth": 4, "linestyle": ("-", "--", "-.", ":")[number]}
    four[0].add_patch(plt.Rectangle((column + 0.05, row + 0.05), 0.9, 0.9, **box))
    four[2].add_patch(plt.Rectangle((2 * column + 0.06, 2 * row + 0.06), 1.88, 1.88, **box))
save(figure, "12_transposed")

# %% Why 28x28?
# The mask is stretched over its box, whatever the box's size, and cut at 0.5. How much of a shape survives? Take a
# flower of 600 pixels, cut its mask out as a grid of m x m (`crop_masks`: what the head learns to say), and paste it
# back (`paste_masks`). No head with m x m outputs can do better. IoU: the shared area over the area of both together.
section("A perfect mask of m x m pixels")


def draw_flower(petals):
    """A picture of 600x600, 1 inside; without petals a disc."""
    y, x = (np.mgrid[:600, :600] + 0.5 - 300) / 300
    angle = np.arctan2(y, x)
    return (np.hypot(y, x) < 0.7 + petals * (0.2 * np.cos(5 * angle) + 0.07 * np.cos(13 * angle))).astype(np.uint8)


def survive(shape, m):
    """The shape after a trip through m x m, and its IoU with itself."""
    rows, columns = np.flatnonzero(shape.any(axis=1)), np.flatnonzero(shape.any(axis=0))
    box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
    pasted = paste_masks(crop_masks(shape[None], box, [0], m), box, shape.shape)[0] > 0.5
    return pasted, (pasted & (shape > 0)).sum() / (pasted | (shape > 0)).sum()


flower, grids = draw_flower(1), (7, 14, 28, 56)
overlaps = [survive(flower, m)[1] for m in grids]
agree("IoU with 7, 14, 28, 56", overlaps, [0.896063, 0.956923, 0.980011, 0.990371], 1e-4)
# The strictest of the paper's scores counts a mask as right from IoU 0.95 on (lesson 15). With 14x14, what C4 has, a
# perfect head would just get there with this flower, and a real one makes mistakes of its own; 28x28 leaves it room.
# 56x56 would gain 0.01, for four times as many outputs. A disc needs no more than 7x7.
figure, six = plt.subplots(1, 6, figsize=(15.5, 3.2), width_ratios=(1, 1, 1, 1, 1, 1.7))
show_picture(six[0], flower, "the shape, 600x600 pixels")
for axes, m, overlap in zip(six[1:5], grids, overlaps, strict=True):
    show_picture(axes, survive(flower, m)[0], f"{m}x{m}: IoU {overlap:.3f}")
    axes.contour(flower, [0.5], colors=RED, linewidths=1)
sides = (7, 10, 14, 20, 28, 40, 56)
for shape, label, color, style in ((flower, "flower", BLUE, "-o"), (draw_flower(0), "disc", ORANGE, "--s")):
    six[5].plot(sides, [survive(shape, m)[1] for m in sides], style, color=color, label=label)
six[5].axhline(0.95, color=GRAY, linestyle=":")
six[5].set(xscale="log", xlabel="m", ylabel="IoU", title="the best that m x m can do")
six[5].set_xticks((7, 14, 28, 56), (7, 14, 28, 56))
six[5].minorticks_off()
six[5].legend(loc="lower right")
save(figure, "12_mask_size")

# %% Exercises
# 1. How many parameters would fc6 have, if the box head looked at crops of 14x14? (Compare with the whole model.)
answer = None
if answer is not None:
    agree("exercise 1", answer, 51381248, 0)

# 2. By hand: stamp [[2, 1]] (one row, two columns) with the 1x3 kernel [[1, 2, 3]], stride 2. Which output gets two
#    stamps? Fill in the row.
answer = None
if answer is not None:
    agree("exercise 2", answer, stamp(np.array([[2.0, 1]]), np.array([[1.0, 2, 3]]), 2)[0])

# 3. You have one class, so K = 2 with the background. How many parameters do both heads on the pyramid lose? Check
#    your sum with maskrcnn_resnet50_fpn(num_classes=2): it must be the difference of the two models, 478,998.
answer = None
if answer is not None:
    one_class = maskrcnn_resnet50_fpn(num_classes=2)
    agree("exercise 3", answer, total - sum(parameter.size for parameter in one_class.parameters()), 0)

# 4. By hand: a mask of a single cell of 1 over the box [2, 2, 4, 4], in a picture of 7x7. Which pixels does the widened
#    box have, and what is in row 3? (The rules are in lessons/exercises/start_here.py.) Then write paste_masks(masks,
#    boxes, image_size) yourself and have it graded: minimrcnn check my_functions.py --only paste_masks
answer = None
if answer is not None:
    agree("exercise 4", answer, reference.paste_masks(np.ones((1, 1, 1)), [[2, 2, 4, 4]], (7, 7))[0, 3])
