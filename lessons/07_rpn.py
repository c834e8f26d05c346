"""The region proposal network (RPN).

You learn what the two stages of Mask R-CNN are, and of the first one how anchors become proposals, boxes in which there
may be an object of whatever class. To learn, every anchor is matched to an object, to the background or to nothing; a
few are drawn; the way from anchor to object is written as four numbers. To propose, the same four numbers are read
backwards. Each step is a loop of yours first.

Article: sections 1, 3 and 4. Papers: Ren et al. 2015, Faster R-CNN, sections 3.1.1 to 3.1.3; Girshick et al. 2014,
R-CNN, appendix C (the box code); Lin et al. 2017, section 4.1; He et al. 2017, Mask R-CNN, section 3 (the two stages).
In the package: models/rpn.py, geometry/matching.py, geometry/boxes.py.
Before: lesson 5 (the pyramid), lesson 6 (anchors, IoU). Lesson 8 takes NMS apart, lesson 13 the losses.
"""

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, COLORS, GRAY, ORANGE, RED, agree, draw_arrow, draw_box, save, section
from two_stages import draw_two_stages

from minimrcnn import Config, Tensor, geometry, reference
from minimrcnn.data.shapes import Shapes
from minimrcnn.models.published import ON_C4
from minimrcnn.models.pyramid import STRIDES
from minimrcnn.models.rpn import RegionProposalNetwork

# %%
# The whole of Mask R-CNN, before its parts. Backbone and pyramid (lessons 4, 5) make maps of the picture. Then:
#   Stage one proposes. The RPN looks at every anchor (lesson 6) and says two things: how likely there is an object, of
#   whatever class, and how the anchor must move to fit it. The best of the moved boxes are the proposals.
#   Stage two looks at each proposal. Now the box is a region of interest (RoI). RoIAlign (lesson 10) cuts it out of the
#   maps, as a crop of 7x7 cells, however large it is. The box head (lesson 12) says which class it is, or background,
#   and moves the box once more. What is left after NMS (lesson 8) are the detections. Each is cut out again, as a crop
#   of 14x14, and the mask head says of every pixel whether it is the object's: that is its mask.
# So the cheap question is asked everywhere, the expensive ones in few places. (Detectors of one stage, such as YOLO,
# which the article names, ask at once what is where.) Without the mask head this is Faster R-CNN, the article's section
# 1, on a pyramid, its section 3; with it, section 4. In training both heads look at RoIs drawn from the proposals and
# the true boxes together (at first no proposal would fit an object), the mask head at those that lie on an object.
section("The two stages, at test time")
config, height, width = Config(), 800, 1088
sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]  # cells of P2 to P6
agree("anchors, 3 a cell", 3 * sum(rows * columns for rows, columns in sizes), 217_413)
agree("proposals; detections, at most", [config.rpn_post_nms_top_n_test, config.box_detections_per_img], [1000, 100])
agree("sides of the crops", [config.box_pool_size, config.mask_pool_size], [7, 14])
agree("classes, with the background; the published model's are COCO's", config.num_classes, 91)

# The way of a picture of 800 x 1088 pixels (the small pictures in it are the one of section 3). Below each part: the
# shape of what comes out of it. (Logits are scores that may be any number; 4 deltas say how a box moves. See below.)
picture, target = Shapes(4, seed=11)[3]
save(draw_two_stages(picture, target, sizes), "07_two_stages")

# %%
# Now stage one by itself. Its network is small. Over every cell of every level goes a 3x3 convolution with ReLU, then
# two 1x1: one gives a logit for each of the cell's 3 anchors (above 0: more likely an object than not), the other 4
# deltas for each (how the anchor must move and grow). The same weights serve all five levels.
section("1. What the network says")
names = ("p2", "p3", "p4", "p5", "p6")
rpn = RegionProposalNetwork(Config(), 256, names, generator=np.random.default_rng(0))
agree("parameters", sum(p.data.size for p in rpn.parameters()), 593_935)
agree("  3x3, logits, deltas", [9 * 256 * 256 + 256, 256 * 3 + 3, 256 * 12 + 12], [590_080, 771, 3_084])
logits, deltas = rpn([np.zeros((1, 32 // 2**i, 48 // 2**i, 256), np.float32) for i in range(5)])  # N, H, W, C
agree("logits of P2, 32 x 48 cells", logits[0].shape, (1, 32, 48, 3))
agree("deltas of P6, 2 x 3 cells", deltas[4].shape, (1, 2, 3, 12))

# %%
# To learn, each anchor needs an answer: object or background? The measure is IoU (lesson 6). Three rules:
#   1. IoU with its best object at least 0.7: positive, the anchor belongs to that object.
#   2. IoU with its best object below 0.3: background, -1. In between: left alone, -2, asked nothing.
#   3. "Low quality": for every object, the anchors that no other beats are positive as well, however small the IoU.
section("2. Matching")


def match(iou, low, high, allow_low_quality):
    answers = []
    for anchor in range(iou.shape[1]):
        best = int(np.argmax(iou[:, anchor]))  # of equals the first
        quality = iou[best, anchor]
        answers.append(best if quality >= high else -1 if quality < low else -2)
    if allow_low_quality:
        for row in iou:  # an object
            for anchor in range(iou.shape[1]):
                if row[anchor] == row.max():
                    answers[anchor] = int(np.argmax(iou[:, anchor]))  # its own best object, as torchvision does
    return answers


iou = np.array([[0.15, 0.45, 0.20, 0.60], [0.30, 0.65, 0.05, 0.10], [0.05, 0.40, 0.25, 0.40]])  # 3 objects, 4 anchors
agree("rules 1 and 2 alone", match(iou, 0.3, 0.7, False), [-2, -2, -1, -2])
agree("with rule 3", match(iou, 0.3, 0.7, True), [-2, 1, -1, 0])
agree("  reference", reference.match(iou, 0.3, 0.7, True), [-2, 1, -1, 0])
agree("  package", geometry.match(iou, 0.3, 0.7, True), [-2, 1, -1, 0])
# Anchor 0 has exactly 0.30: not below, so -2. Object 2 is best served by anchors 1 and 3 (0.40 each), but both have a
# better object of their own and go there. Object 2 gets nobody: the code does not promise what the paper wants.

# %%
# On the picture above: 128 x 128 pixels, three objects, anchors of sizes 16 to 256 (the objects are small).
section("3. Matching on a picture")
cells = [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
levels = geometry.make_anchors((16, 32, 64, 128, 256), (0.5, 1, 2), cells, (128, 128))
anchors = np.concatenate(levels)  # (4092, 4)
iou = geometry.box_iou(target.boxes, anchors)  # (3, 4092)
matched = geometry.match(iou, 0.3, 0.7, True)
agree("my loops say the same", np.abs(match(iou, 0.3, 0.7, True) - matched).max(), 0)
print("best IoU of each object:", iou.max(axis=1).round(2))
strict = geometry.match(iou, 0.3, 0.7, False)
agree("positives by rule 1; with rule 3", [(strict >= 0).sum(), (matched >= 0).sum()], [1, 6])
agree("left alone; background", [(matched == -2).sum(), (matched == -1).sum()], [161, 3925])

figure, axes = plt.subplots(2, 2, figsize=(10, 9.6))
middles = (target.boxes[:, 1::2].mean(axis=1), target.boxes[:, 0::2].mean(axis=1))  # y, x of the three objects
for place in axes.flat:
    place.imshow(picture, extent=(0, 128, 128, 0), alpha=0.4)
    place.set(xlim=(36, 132), ylim=(94, -2), xlabel="x, pixels", ylabel="y, pixels")
for k in np.flatnonzero(matched >= 0):
    draw_box(axes[0, 0], anchors[k], COLORS[matched[k]], width=1.2, dashed=True)
for box, color in zip(target.boxes, COLORS, strict=False):
    draw_box(axes[0, 0], box, color, width=2.5)
axes[0, 0].set_title("the objects and the positive anchors (dashed)")
starts = np.cumsum([0, *map(len, levels)])
for number, place in enumerate((axes[0, 1], axes[1, 0], axes[1, 1])):
    of_level = matched[starts[number] : starts[number + 1]].reshape(-1, 3)  # (cells, anchors of a cell)
    centers = levels[number].reshape(-1, 3, 4)[:, 0].reshape(-1, 2, 2).mean(axis=1)  # (cells, 2) x, y
    positive, alone = (of_level >= 0).any(axis=1), (of_level == -2).any(axis=1)
    best = iou[:, starts[number] : starts[number + 1]].reshape(3, -1, 3).max(axis=2).argmax(axis=0)  # (cells,)
    for cell in np.flatnonzero(positive | alone):
        goal = middles[0][best[cell]], middles[1][best[cell]]
        if np.hypot(goal[1] - centers[cell, 0], goal[0] - centers[cell, 1]) > 6:
            draw_arrow(place, centers[cell, ::-1], goal, COLORS[best[cell]])
    for rows, color, marker, size, label in (
        (~positive & ~alone, GRAY, ".", 12, "all three background"),
        (alone & ~positive, "white", "s", 26, "one or more left alone"),
        (positive, "black", "*", 190, "one or more positive"),
    ):
        look = {"s": size, "c": color, "marker": marker, "edgecolors": "black", "linewidths": 0.6 * (marker == "s")}
        place.scatter(*centers[rows].T, label=label, zorder=3, **look)
    place.set_title(f"P{number + 2}: what became of a cell's three anchors")
axes[1, 0].legend(loc="lower right", fontsize=8, frameon=True)
save(figure, "07_anchors")
# Arrows lead to the object that a cell's anchors overlap most. The right disc (38 pixels wide) is overlapped by
# 0.3 or more on P3 and P4 only, the small one (22 pixels) on P2 and P3: the object's size decides the level.

# %%
# 6 positives in 4,092: whoever always says "background" is right 99.9 times in 100 and has learned
# nothing. So 256 anchors of a picture are drawn: at most half of them positives, the rest from the background.
section("4. Sampling")


def sample(labels, count, share, generator):
    positive = [k for k, label in enumerate(labels) if label == 1]
    negative = [k for k, label in enumerate(labels) if label == 0]  # -1 is never drawn
    positives = min(int(count * share), len(positive))
    negatives = min(count - positives, len(negative))  # missing positives are made up for
    yes = generator.choice(positive, positives, replace=False)
    return sorted(yes), sorted(generator.choice(negative, negatives, replace=False))


labels = np.where(matched >= 0, 1, np.where(matched == -1, 0, -1))
yes, no = sample(labels, 256, 0.5, np.random.default_rng(1))
package_yes, package_no = geometry.sample_balanced(labels, 256, 0.5, np.random.default_rng(1))
assert np.array_equal(yes, package_yes) and np.array_equal(no, package_no)
agree("drawn here: positives, background", [len(yes), len(no)], [6, 250])
many = np.repeat([1, 0, -1], [300, 3000, 50])
agree("with 300 positives", [len(part) for part in sample(many, 256, 0.5, np.random.default_rng(1))], [128, 128])
print(f"256 drawn from all alike would hold {256 * 6 / 4092:.2f} positives on average")

# %%
# The positives also learn where to go. The way from an anchor to its object is written so that it does not depend on
# size: the shift in widths and heights of the anchor, the growth as a logarithm (twice as wide +0.69, half -0.69).
section("5. The box code")


def encode(box, start, weights=(1, 1, 1, 1)):
    width, height = start[2] - start[0], start[3] - start[1]
    dx = ((box[0] + box[2]) - (start[0] + start[2])) / 2 / width  # from center to center
    dy = ((box[1] + box[3]) - (start[1] + start[3])) / 2 / height
    dw, dh = math.log((box[2] - box[0]) / width), math.log((box[3] - box[1]) / height)
    return [dx * weights[0], dy * weights[1], dw * weights[2], dh * weights[3]]


def decode(deltas, start, weights=(1, 1, 1, 1)):
    dx, dy, dw, dh = (float(delta) / weight for delta, weight in zip(deltas, weights, strict=True))
    width, height = start[2] - start[0], start[3] - start[1]
    x, y = start[0] + width / 2 + dx * width, start[1] + height / 2 + dy * height
    limit = math.log(1000 / 16)  # nothing grows by more than 62.5
    width, height = width * math.exp(min(dw, limit)), height * math.exp(min(dh, limit))
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


start, box, weights = [0, 0, 100, 200], [10, 20, 110, 220], (10, 10, 5, 5)
agree("moved by 10 and 20, a tenth of either side", encode(box, start), [0.1, 0.1, 0, 0])
# Stage two multiplies by weights, so that usual deltas are about as large as 1; the RPN does not.
agree("times the weights 10, 10, 5, 5", encode(box, start, weights), [1, 1, 0, 0])
agree("  reference", reference.encode_box(box, start, weights), [1, 1, 0, 0])
agree("  package", geometry.encode_boxes([box], [start], weights), [[1, 1, 0, 0]])
agree("and back", decode([1, 1, 0, 0], start, weights), box)
agree("  package", geometry.decode_boxes([[1, 1, 0, 0]], [start], weights), [box], 1e-4)
agree("the largest growth, log(1000 / 16)", math.log(1000 / 16), 4.135, 2e-4)
agree("16 x 16 with dw = 100", decode([0, 0, 100, 0], [0, 0, 16, 16]), [-492, 0, 508, 16], 1e-9)
agree("  package", geometry.decode_boxes([[0, 0, 100, 0]], [[0, 0, 16, 16]]), [[-492, 0, 508, 16]], 1e-3)
print(f"  without the limit it would be {16 * math.exp(100):.1e} pixels wide, and in float32 infinite")

figure, axes = plt.subplots(figsize=(5, 4.2))
small, object_box = [20, 20, 60, 60], [36, 14, 96, 74]
draw_box(axes, small, BLUE, "anchor, 40 x 40", dashed=True)
draw_box(axes, object_box, ORANGE, "object, 60 x 60")
draw_arrow(axes, (40, 40), (44, 66), RED)
dx, dy, dw, dh = encode(object_box, small)
axes.text(63, 68, f"dx {dx:.2f}\ndy {dy:.2f}\ndw {dw:.3f}\ndh {dh:.3f}", fontsize=9)
axes.set(xlim=(0, 110), ylim=(100, 0), aspect="equal", xlabel="x, pixels", ylabel="y, pixels")
axes.set_title("26 / 40, 4 / 40, log(60 / 40) twice")
axes.legend(loc="lower right", fontsize=9)
save(figure, "07_box_code")

# %%
# To propose: of each level the anchors with the highest logits, decoded, clipped to the picture, thinned out by NMS
# (non-maximum suppression, lesson 8: of boxes that overlap by more than 0.7 only the best stays), the best of all.
section("6. From logits and deltas to proposals")


def propose(logits, deltas, anchors, size, before, after, threshold):
    boxes, scores, kept = [], [], []
    for level in range(len(anchors)):
        first = len(boxes)
        for k in sorted(range(len(logits[level])), key=lambda k: -logits[level][k])[:before]:  # noqa: B023
            box = reference.clip_box(decode(deltas[level][k], anchors[level][k]), size)
            if min(box[2] - box[0], box[3] - box[1]) >= 1e-3:  # some end up outside the picture, with no area left
                boxes.append(box)
                scores.append(float(logits[level][k]))
        if len(boxes) > first:  # levels do not suppress one another
            kept += [first + k for k in reference.nms(boxes[first:], scores[first:], threshold)]
    kept = sorted(kept, key=lambda k: -scores[k])[:after]
    return np.array([boxes[k] for k in kept]), np.array([scores[k] for k in kept])


# We play the trained network: logits that rise with the IoU, deltas that nearly hit the best object, both with noise.
rng = np.random.default_rng(7)
wanted = geometry.encode_boxes(target.boxes[iou.argmax(axis=0)], anchors)
said = np.split((10 * iou.max(axis=0) - 5 + rng.normal(0, 0.7, len(anchors))).astype(np.float32), starts[1:-1])
moves = np.split((wanted + rng.normal(0, 0.06, wanted.shape)).astype(np.float32), starts[1:-1])
boxes, scores = propose(said, moves, levels, (128, 128), 40, 20, 0.7)

config = Config(rpn_pre_nms_top_n_test=40, rpn_post_nms_top_n_test=20)
rpn = RegionProposalNetwork(config, 256, names, generator=np.random.default_rng(0)).eval()
as_maps = [Tensor(part.reshape(1, *size, 3)) for part, size in zip(said, cells, strict=True)]
move_maps = [Tensor(part.reshape(1, *size, 12)) for part, size in zip(moves, cells, strict=True)]
(fast,) = rpn.propose(as_maps, move_maps, levels, [(128, 128)])
agree("package's proposals - mine", np.abs(fast - boxes).max(), 0, 1e-3)
overlap = geometry.box_iou(target.boxes, boxes)
agree("proposals; objects met with 0.7 or more", [len(boxes), (overlap.max(axis=1) >= 0.7).sum()], [20, 3])

figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), sharey=True)
chosen = [np.argsort(-part, kind="stable")[:40] for part in said]
before = np.concatenate([level[k] for level, k in zip(levels, chosen, strict=True)])
after = geometry.decode_boxes(np.concatenate([part[k] for part, k in zip(moves, chosen, strict=True)]), before)
for place, some, title in (
    (axes[0], before[40:80], "40 best anchors of P3"),
    (axes[1], geometry.clip_boxes(after[40:80], (128, 128)), "decoded, and clipped to the picture"),
    (axes[2], boxes[:8], "best 8 of all levels after NMS"),
):
    place.imshow(picture, extent=(0, 128, 128, 0), alpha=0.5)
    for box in some:
        draw_box(place, box, BLUE, width=0.8 if len(some) > 8 else 1.8)
    place.set(xlim=(-12, 144), ylim=(140, -16), title=title, xlabel="x, pixels", aspect="equal")
axes[0].set_ylabel("y, pixels")
save(figure, "07_proposals")

# %%
# The numbers of the published network. Those that begin with "box" are stage two's, which draws RoIs to train on from
# proposals and true boxes as section 4 did from the anchors. Without a pyramid, on C4 (lesson 12), it draws 64 a
# picture, not 512.
section("7. Settings")
config = Config()
for field, wanted in {
    "rpn_fg_iou_thresh": 0.7, "rpn_bg_iou_thresh": 0.3, "rpn_batch_size_per_image": 256, "rpn_positive_fraction": 0.5,
    "rpn_nms_thresh": 0.7, "rpn_post_nms_top_n_train": 2000, "rpn_post_nms_top_n_test": 1000,
    "box_batch_size_per_image": 512, "box_positive_fraction": 0.25, "box_fg_iou_thresh": 0.5,
}.items():  # fmt: skip
    agree(field, getattr(config, field), wanted)
agree("box_batch_size_per_image on C4", ON_C4["box_batch_size_per_image"], 64)

# %% Exercises
# 1. Raise `high` to 0.8 in section 3. How many positives are there, and why not fewer? Check: 6 again.
#
# 2. An anchor of 40 x 40 is to become a box of 20 x 80 with the same center. Which deltas? Fill in, then uncomment.
# deltas = ...
# assert np.allclose(decode(deltas, [0, 0, 40, 40]), [10, -20, 30, 60])
#
# 3. Change rule 3 so that an anchor goes to the object that it is the best FOR. The example of section 2 must then give
#    [-2, 2, -1, 2] if later objects win: which objects lose now? (Objects 0 and 1.) Then write encode_boxes and
#    decode_boxes your own way and have them graded: `minimrcnn check my_functions.py`.
