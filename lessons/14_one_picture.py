"""One picture all the way through Mask R-CNN: every array between the pixels and the masks, in numbers and in pictures.

You learn how the parts of lessons 4 to 12 hand over to one another, with `trace`, which collects what each stage
makes. Three of the hand-overs you compute yourself: logits to proposals, class logits to detections, mask logits to
masks.

In the article: sections 1 to 4, put together. In the papers: He et al. 2017 (Mask R-CNN), section 3 and figure 4.
In the package: minimrcnn/models/mask_rcnn.py (read `predict` beside this lesson), models/stages.py, models/rpn.py,
models/box_head.py, models/mask_head.py, models/prepare.py.
`minimrcnn explain PHOTO --model FILE -o page.html` makes a page of the same way, for a photo and a model of yours.
Before: pyramid (5), anchors (6), proposals (7), NMS (8), RoIAlign (10), levels (11), heads (12), losses (13).

Where `minimrcnn demo` has left minimrcnn-demo/model.npz in the current folder, that model is looked at, on a picture it
never saw. Otherwise the lesson trains a small one for 32 steps on the very picture it then looks at. Such a model knows
one picture by heart: good for watching the stages, and no sign at all of how well it would do on another picture.
"""

# %% A model and a picture
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, COLORS, HEAT, ORANGE, RED, SIGNED, agree, draw_box, save, section, show_picture

from minimrcnn import MaskRCNN, geometry, reference, trace
from minimrcnn.data.shapes import Shapes
from minimrcnn.models.prepare import prepare
from minimrcnn.models.presets import small_config
from minimrcnn.show import draw_detections, draw_target
from minimrcnn.training.optimizer import clip_gradients
from minimrcnn.training.options import TrainOptions

section("A model")
DEMO = Path("minimrcnn-demo/model.npz")
NAMES = Shapes.class_names  # background, square, disc, triangle: K = 4 classes
if DEMO.exists():
    model = MaskRCNN.load(DEMO)
    picture, target = Shapes(50, seed=10**6)[4]
    print(f"{DEMO.resolve()}, on a picture it was not trained on")
else:
    # small_config: ResNet-18, a pyramid of 64 channels. The optimizer moves the weights against their gradients; the
    # first 6 steps are short (warm-up), and gradients that are too long together are shortened (clipped).
    picture, target = Shapes(50, seed=0)[3]
    model = MaskRCNN(small_config(NAMES, rois=64), seed=0).train()
    options = TrainOptions(steps=32, learning_rate=1e-3, warmup_steps=6)
    optimizer = options.make_optimizer(model.named_parameters())
    for step in range(options.steps):
        losses = model.losses([picture], [target])  # five numbers (lesson 13)
        total = sum(losses.values())
        total.backward()
        clip_gradients(optimizer.parameters.values(), options.clip_norm)
        optimizer.step(options.learning_rate_at(step))
        optimizer.clear_gradients()
        if step % 10 == 0 or step == options.steps - 1:
            parts = ", ".join(f"{name.removeprefix('loss_')} {loss.item():.3f}" for name, loss in losses.items())
            print(f"step {step + 1:2}: loss {total.item():.3f} = {parts}")
    model.eval()
print(f"a picture {picture.shape} of {len(target.boxes)} objects: {', '.join(NAMES[k] for k in target.labels)}")

with trace() as stages:  # from here on every stage leaves its arrays in this dictionary
    (detections,) = model.predict([picture], score_thresh=0.5)
for name, value in stages.items():
    if isinstance(value, np.ndarray):
        print(f"  {name:15} {value.shape}")

# %% Pixels -> C2 to C5 -> P2 to P6
# Pixels are brought to mean 0 and deviation 1, by fixed numbers for red, green and blue. The backbone (lesson 4) makes
# four maps, each half the size of the one before, the pyramid (lesson 5) five maps of equal depth.
section("Features")
pixels, _, _ = prepare([picture], model.config)  # (N, H, W, 3)
by_hand = (picture / 255 - model.config.image_mean) / model.config.image_std
agree("normalized pixels are off from the line by hand by at most", np.abs(pixels[0] - by_hand).max(), 0, 1e-5)
for level, side in zip((2, 3, 4, 5), (32, 16, 8, 4), strict=True):
    agree(
        f"C{level}, P{level}: cells along a side",
        [stages[f"c{level}"].shape[1], stages[f"p{level}"].shape[1]],
        [side] * 2,
    )
agree("P6, every second cell of P5", np.abs(stages["p6"] - stages["p5"][:, ::2, ::2]).max(), 0)

figure, axes = plt.subplots(2, 5, figsize=(13, 5.6))
show_picture(axes[0, 0], picture, "picture 128x128")
for column, name in enumerate(("c2", "c3", "c4", "c5"), 1):
    show_picture(axes[0, column], np.abs(stages[name][0]).mean(axis=2), f"{name.upper()} {stages[name].shape[1:]}")
for column, name in enumerate(("p2", "p3", "p4", "p5", "p6")):
    show_picture(axes[1, column], np.abs(stages[name][0]).mean(axis=2), f"{name.upper()} {stages[name].shape[1:]}")
figure.suptitle("Feature maps: the mean over the channels of the absolute values, bright is large")
save(figure, "14_features")

# %% P2 to P6 -> objectness
# The RPN (region proposal network, lesson 7) gives each of the 3 anchors in each cell of each level one logit: is it
# an object? The map shows the best of the 3, as a probability.
section("Objectness")
LEVELS = (2, 3, 4, 5, 6)
logits = [stages[f"rpn_logits_p{level}"] for level in LEVELS]  # (N, H_l, W_l, A)
deltas = [stages[f"rpn_deltas_p{level}"] for level in LEVELS]  # (N, H_l, W_l, 4 A)
agree("anchors of a 128x128 picture", sum(level.size for level in logits), 4092)

figure, axes = plt.subplots(1, 6, figsize=(14, 2.9))
show_picture(axes[0], picture, "picture")
for axis, level, values in zip(axes[1:], LEVELS, logits, strict=True):
    image = axis.imshow(1 / (1 + np.exp(-values[0].max(axis=2))), cmap=HEAT, vmin=0, vmax=1, extent=(0, 128, 128, 0))
    axis.set(title=f"P{level}: anchors of {model.config.anchor_sizes[level - 2]}", xticks=[0, 64, 128], yticks=[])
    axis.set_xlabel("x, pixels")
axes[1].set(ylabel="y, pixels", yticks=[0, 64, 128])
figure.colorbar(image, ax=axes[1:], label="object?", shrink=0.8)
save(figure, "14_objectness")

# %% Objectness -> proposals, by hand
# Of each level the best 1000 anchors; moved by their deltas; cut at the picture's border; NMS within each level at IoU
# 0.7; of what is left the best 300 over all levels.
section("Proposals")
anchors = model.rpn.anchors(logits, (128, 128))  # one array (H_l * W_l * A, 4) per level
boxes, scores, levels = [], [], []
for number, level_anchors in enumerate(anchors):
    level_scores = logits[number].reshape(-1)
    best = np.argsort(-level_scores, kind="stable")[: model.config.rpn_pre_nms_top_n_test]
    moved = geometry.decode_boxes(deltas[number].reshape(-1, 4)[best], level_anchors[best])
    boxes.append(geometry.clip_boxes(moved, (128, 128)))
    scores.append(level_scores[best])
    levels.append(np.full(len(best), number))
before, scores, levels = np.concatenate(boxes), np.concatenate(scores), np.concatenate(levels)
before_size = len(before)
large = geometry.keep_large_boxes(before, 1e-3)  # boxes that clipping left without area are dropped
before, scores, levels = before[large], scores[large], levels[large]
kept = geometry.batched_nms(before, scores, levels, model.config.rpn_nms_thresh)
after = before[kept[: model.config.rpn_post_nms_top_n_test]]
agree("before NMS: 1000 of P2, all of P3 to P6", before_size, 1000 + 768 + 192 + 48 + 12)
print(f"after NMS: {len(kept)}, of which the best {len(after)} go on")
proposals = stages["proposals"][0]  # (R, 4)
agree("the model's proposals are off from these by at most", np.abs(proposals - after).max(), 0, 1e-4)
on_p4 = np.flatnonzero(levels == 2)
by_reference = reference.nms(before[on_p4], scores[on_p4], model.config.rpn_nms_thresh)
agree("P4 alone: kept by reference.nms, and by the package", [len(by_reference), (levels[kept] == 2).sum()],
      [len(by_reference)] * 2)  # fmt: skip

best = np.argsort(-scores, kind="stable")[:20]
stays = np.isin(best, kept)
print(f"of the best {len(best)} before NMS, {stays.sum()} stay: at 0.7 only boxes that are nearly the same go")

figure, axes = plt.subplots(1, 3, figsize=(12, 4.4))
titles = f"the best {len(best)} before NMS: dashed ones go", f"the {stays.sum()} of them that NMS keeps", "the truth"
for axis, title in zip(axes, titles, strict=True):
    show_picture(axis, 0.35 * picture / 255 + 0.65, title)  # faded, so that the boxes can be seen
for box, stay in zip(before[best], stays, strict=True):
    draw_box(axes[0], box, BLUE if stay else RED, dashed=not stay, width=1.5)
for axis, some in ((axes[1], before[best][stays]), (axes[2], target.boxes)):
    for number, box in enumerate(some):
        draw_box(axis, box, COLORS[number % len(COLORS)], width=1.5)
save(figure, "14_proposals")

# %% Proposals -> crops -> class scores -> detections, by hand
# Each proposal becomes a crop of 7x7 cells (RoIAlign), the box head gives it K class logits and a box delta for each
# class. Softmax, a threshold, the delta of that class, and NMS within each class.
section("Detections")
class_logits, box_deltas = stages["class_logits"], stages["box_deltas"]  # (R, K), (R, K, 4)
agree("crops for the box head", stages["box_crops"].shape, [len(proposals), 7, 7, 64])
sides = np.sqrt((proposals[:, 2] - proposals[:, 0]) * (proposals[:, 3] - proposals[:, 1]))
cut_from = geometry.assign_levels(proposals)  # lesson 11: P2 below a side of 112 pixels, P3 from there
agree("proposals cut from P2, and proposals smaller than 112", (cut_from == 2).sum(), (sides < 112).sum())
probabilities = np.array([reference.softmax(row) for row in class_logits])  # (R, K), rows sum to 1
rows, labels = np.nonzero(probabilities[:, 1:] > 0.5)  # column 0, the background, is nobody's label
labels = labels + 1
weights = model.config.bbox_reg_weights  # 10, 10, 5, 5 (lesson 7)
found = [reference.clip_box(reference.decode_box(box_deltas[r, k], proposals[r], weights), (128, 128))
         for r, k in zip(rows, labels, strict=True)]  # fmt: skip
found = np.array(found, np.float32).reshape(-1, 4)
kept = geometry.batched_nms(found, probabilities[rows, labels].astype(np.float32), labels, model.config.box_nms_thresh)
print(f"{len(rows)} proposals score above 0.5 in a class; NMS leaves {len(kept)}")
agree("the model's detections: as many", len(detections), len(kept))
agree("their boxes are off from these by at most", np.abs(detections.boxes - found[kept]).max(initial=0), 0, 1e-2)
for box, label, score in zip(detections.boxes, detections.labels, detections.scores, strict=True):
    overlap = geometry.box_iou(box[None], target.boxes)[0]
    print(f"  {NAMES[label]:9} {score:.2f}  box {np.round(box, 1)}  IoU with the nearest object {overlap.max():.2f}")
# NMS drops a box only if it overlaps a better one of the same class by more than 0.5. So an object may be found twice:
# as two classes, or by a second box that fits badly, and 32 steps do not teach a model to score such boxes low. Each of
# them gets its own mask.

# %% Detections -> crops -> mask logits -> masks, by hand
# The detections (not the proposals: their boxes are better) are cut out again, 14x14, and become K masks of 28x28. The
# class found by the box head picks one; its sigmoid is stretched over the box; more than 1/2 is the object. Look at the
# masks that are not picked, too: each channel answers for its own class, whatever the others say (lesson 13). So the
# disc's channel may well mark a disc that sticks into the triangle's RoI. The fine checkerboard in the logits: every
# cell's 2x2 stamp has four weights of its own (lesson 12), which 32 steps have not yet made even.
section("Masks")
mask_logits = stages["mask_logits"]  # (D, 28, 28, K)
agree("mask logits", mask_logits.shape, [len(detections), 28, 28, 4])
own = mask_logits[np.arange(len(detections)), :, :, detections.labels]  # (D, 28, 28)
pasted = reference.paste_masks(1 / (1 + np.exp(-own[:3].astype(float))), detections.boxes[:3], (128, 128))
wrong = [int((mask != (soft > 0.5)).sum()) for mask, soft in zip(detections.masks, pasted, strict=False)]
agree("pixels in which the first masks differ from reference.paste_masks", max(wrong, default=0), 0, 2)

shown = range(min(3, len(detections)))
figure, axes = plt.subplots(max(len(shown), 1), 8, figsize=(16, 2.4 * max(len(shown), 1) + 0.4), squeeze=False)
for d in shown:
    proposal, box, label = proposals[rows[kept[d]]], detections.boxes[d], detections.labels[d]
    show_picture(axes[d, 0], picture, "proposal, detection")
    draw_box(axes[d, 0], proposal, ORANGE, dashed=True)
    draw_box(axes[d, 0], box, RED)
    show_picture(axes[d, 1], np.abs(stages["box_crops"][rows[kept[d]]]).mean(axis=2), "its crop 7x7")
    bars = axes[d, 2].barh(NAMES, probabilities[rows[kept[d]]], color=BLUE)
    bars[label].set(facecolor=ORANGE, edgecolor="black", hatch="//")
    axes[d, 2].set(xlim=(0, 1), title="class scores", xticks=[0, 0.5, 1])
    show_picture(axes[d, 3], np.abs(stages["mask_crops"][d]).mean(axis=2), "crop 14x14")
    limit = np.abs(mask_logits[d]).max()
    for k in (1, 2, 3):
        axes[d, 3 + k].imshow(mask_logits[d, :, :, k], cmap=SIGNED, vmin=-limit, vmax=limit)
        axes[d, 3 + k].set(title=f"logits, {NAMES[k]}" + (" *" if k == label else ""), xticks=[], yticks=[])
    show_picture(axes[d, 7], pasted[d], "pasted, soft")
figure.suptitle(
    "From the proposal (dashed) to the detection to the mask. Mask logits: purple yes, orange no; * the class picks it"
)
save(figure, "14_heads")

# %% The final picture
figure, axes = plt.subplots(1, 2, figsize=(9, 4.8))
show_picture(axes[0], draw_target(picture, target, NAMES), "truth")
title = f"{len(detections)} detections of {len(target.boxes)} objects (class, score)"
show_picture(axes[1], draw_detections(picture, detections), title)
save(figure, "14_result")
if not DEMO.exists():
    other, other_target = Shapes(50, seed=0)[5]
    lucky = len(model.predict([other], score_thresh=0.5)[0])
    print(
        f"On another picture, of {len(other_target.boxes)} objects, the same model finds {lucky}: do not trust it, it"
    )
    print("has seen one picture in its life. Lesson 15 trains on fifty.")


# %% Exercises
# 1. Predict with score_thresh=0.05. Which arrays in `stages` change their shape, and why do the others not?
#    (mask_crops, mask_logits: one row per detection.)
# 2. How well would the anchors alone do? geometry.box_iou(target.boxes, np.concatenate(anchors)).max(axis=1) is the
#    best IoU for each object (0.61, 0.51, 0.77 on the picture trained on here). Compare with the same for `proposals`.
# 3. Write your own decode_boxes(deltas, proposals, weights) in `my_functions.py`; `minimrcnn check my_functions.py`
#    compares it with known answers.
