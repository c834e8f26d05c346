"""Non-maximum suppression (NMS).

You learn how many boxes on one object become one: keep the best, drop those that overlap it too much, go on with the
rest. You watch it box by box, meet its borderline cases (a tie, an overlap of exactly the threshold, a chain of boxes),
apply it to each class on its own, and measure how its time grows with the number of boxes.

Article: section 1 (the proposals). Papers: Ren et al. 2015, Faster R-CNN, section 3.3 (threshold 0.7); Mask R-CNN,
section 3.1 (inference).
In the package: geometry/boxes.py (nms, batched_nms), kernels/nms.py.
Before: lesson 6 (IoU), lesson 7 (where the boxes come from).
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from style import BLACK, BLUE, GRAY, GREEN, ORANGE, RED, agree, draw_arrow, draw_box, save, section

from minimrcnn import Config, geometry, reference
from minimrcnn.data.shapes import Shapes

# %%
# A detector finds every object many times: anchors side by side (lesson 7) all move to the same object. Each box has a
# score. NMS goes through the boxes from the highest score down:
#   1. Take the best box that is left, and keep it.
#   2. Drop every other box whose IoU with it is greater than the threshold.
#   3. Begin again with those that are left, until none is.
section("1. Step by step")


def nms(boxes, scores, threshold):
    left = sorted(range(len(scores)), key=lambda k: -scores[k])  # equal scores stay in their order
    kept, dropped_by = [], {}
    while left:
        best = left.pop(0)
        kept.append(best)
        for k in list(left):
            if reference.box_iou([boxes[best]], [boxes[k]])[0, 0] > threshold:  # IoU: lesson 6
                left.remove(k)
                dropped_by[k] = best
    return kept, dropped_by


picture, target = Shapes(4, seed=11)[3]
boxes = np.array([
    [90, 3, 127, 43], [84, 6, 121, 46], [95, 0, 130, 35], [67, 4, 99, 35], [63, 8, 93, 39], [43, 63, 67, 87],
    [47, 59, 71, 83],
], np.float32)  # fmt: skip
scores = np.array([0.95, 0.70, 0.60, 0.90, 0.65, 0.85, 0.50], np.float32)
kept, dropped_by = nms(boxes, scores, 0.5)
agree("kept", kept, [0, 3, 5])
for k, best in dropped_by.items():
    overlap = reference.box_iou([boxes[k]], [boxes[best]])[0, 0]
    print(f"  box {k} (score {scores[k]:.2f}) goes because of box {best} ({scores[best]:.2f}): IoU {overlap:.2f}")
agree("reference", reference.nms(boxes, scores, 0.5), kept)
agree("package", geometry.nms(boxes, scores, 0.5), kept)

figure, axes = plt.subplots(2, 2, figsize=(9, 8.4))
texts = [(128, 40), (86, 50), (132, 3), (67, 1), (62, 43), (43, 91), (73, 79)]  # x, y of the labels
for step, place in enumerate(axes.flat):
    place.imshow(picture, extent=(0, 128, 128, 0), alpha=0.35)
    for k, box in enumerate(boxes):
        decided = k in kept[:step] or dropped_by.get(k) in kept[:step]
        color = (GREEN if k in kept else RED) if decided else GRAY
        now = step and (k == kept[step - 1] or dropped_by.get(k) == kept[step - 1])
        draw_box(place, box, color, dashed=decided and k not in kept, width=2.8 if now else 1.2)
        place.text(*texts[k], f"{k}: {scores[k]:.2f}", color=color if decided else BLACK, fontsize=9, va="center")
        if now and k not in kept:
            best = boxes[kept[step - 1]]
            middles = [(some[1::2].mean(), some[0::2].mean()) for some in (best, box)]  # y, x
            draw_arrow(place, *middles, RED)
    place.set(xlim=(34, 156), ylim=(98, -8), xlabel="x, pixels", ylabel="y, pixels")
    place.set_title("seven boxes with scores" if step == 0 else f"step {step}: box {kept[step - 1]} is the best left")
save(figure, "08_steps")
print("in the picture: green boxes stay, red dashed ones go, an arrow says because of whom")

# %%
# Borderline cases. Twins with equal scores: the first wins. A box that is exactly half of another has an IoU of 0.5
# with it, and 0.5 is not greater than 0.5: it stays.
section("2. Exactly the threshold")
twins, twin_scores = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.9, 0.8]
for threshold, wanted in ((0.5, [0, 2]), (0.49999, [0])):
    agree(f"threshold {threshold}: mine", nms(twins, twin_scores, threshold)[0], wanted)
    agree("  reference", reference.nms(twins, twin_scores, threshold), wanted)
    agree("  package", geometry.nms(twins, twin_scores, threshold), wanted)
agree("the second twin with a higher score", geometry.nms(twins, [0.7, 0.9, 0.8], 0.5), [1, 2])
# Two boxes without area share nothing, even in the same place: 0 / 0 is not greater than anything, so both stay.
agree("two points", geometry.nms([[3, 3, 3, 3], [3, 3, 3, 3]], [0.9, 0.8], 0.5), [0, 1])

# %%
# A box that was dropped no longer drops others. In a row of three, a-b and b-c overlap by 7/13 = 0.54, a-c by 4/16 =
# 0.25. If a is the best, b goes and c stays. If b is the best, a and c go. Same boxes, another order.
section("3. A chain")
row = [[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]]
agree("IoU of a-b, b-c, a-c", reference.box_iou(row, row)[[0, 1, 0], [1, 2, 2]], [7 / 13, 7 / 13, 4 / 16])
cases = (([0.9, 0.8, 0.7], [0, 2]), ([0.8, 0.9, 0.7], [1]))
figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for place, (row_scores, wanted) in zip(axes, cases, strict=True):
    agree(f"scores {row_scores}: kept", geometry.nms(row, row_scores, 0.5), wanted)
    for k, (box, score) in enumerate(zip(row, row_scores, strict=True)):
        stays = k in wanted
        moved = np.add(box, [0, 0.4 * k, 0, 0.4 * k])  # down a little, so that the lines can be told apart
        draw_box(place, moved, GREEN if stays else RED, dashed=not stays)
        place.text(0.5 + 5.5 * k, -1, f"{'abc'[k]}: {score}", fontsize=10, color=GREEN if stays else RED)
    place.set(xlim=(-1, 17), ylim=(12, -2.5), aspect="equal", xlabel="x", ylabel="y")
    place.set_title("stays: " + ", ".join("abc"[k] for k in wanted))
save(figure, "08_chain")

# The price: two objects that really overlap by more than the threshold look like one object found twice.
crowd = [[0, 0, 40, 100], [10, 0, 50, 100]]
agree("two people side by side, IoU", reference.box_iou(crowd[:1], crowd[1:])[0, 0], 0.6)
for threshold, wanted in ((0.5, [0]), (0.7, [0, 1])):
    agree(f"threshold {threshold} keeps", geometry.nms(crowd, [0.9, 0.8], threshold), wanted)
# So the RPN, which may propose too much, uses 0.7; the last NMS, after which nothing else sorts out duplicates, 0.5.
agree("thresholds of the two", [Config().rpn_nms_thresh, Config().box_nms_thresh], [0.7, 0.5])

# %%
# After stage two (lesson 7 draws both) boxes have classes. A horse does not suppress its rider: NMS runs for each
# class on its own. The RPN does the same with levels of the pyramid.
section("4. Class by class")


def batched_nms(boxes, scores, groups, threshold):
    kept = []
    for group in set(groups):
        members = [k for k in range(len(boxes)) if groups[k] == group]
        chosen, _ = nms([boxes[k] for k in members], [scores[k] for k in members], threshold)
        kept += [members[k] for k in chosen]
    return sorted(kept, key=lambda k: -scores[k])


pair = np.array([[10, 30, 60, 80], [20, 8, 48, 60], [12, 34, 64, 84], [19, 31, 51, 72]], np.float32)
pair_scores, classes = np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([1, 2, 1, 2])
agree("IoU with box 0", reference.box_iou(pair[:1], pair)[0], [1, 0.269576, 0.763485, 0.5248])
agree("all together", geometry.nms(pair, pair_scores, 0.5), [0, 1])
agree("by class", batched_nms(pair, pair_scores, classes, 0.5), [0, 1, 3])
agree("  package", geometry.batched_nms(pair, pair_scores, classes, 0.5), [0, 1, 3])
agree("  package, the best two only", geometry.batched_nms(pair, pair_scores, classes, 0.5, most=2), [0, 1])
figure, axes = plt.subplots(1, 2, figsize=(9, 4.2))
for place, stay, title in (
    (axes[0], [0, 1], "all together: box 0 drops box 3"),
    (axes[1], [0, 1, 3], "class by class"),
):
    for k, box in enumerate(pair):
        draw_box(place, box, (BLUE, ORANGE)[classes[k] - 1], dashed=k not in stay, width=2.6 if k in stay else 1.4)
        place.text(*[(10, 27), (20, 5), (45, 88), (28, 78)][k], f"{k}: {pair_scores[k]:.1f}", fontsize=9)
    place.set(xlim=(0, 75), ylim=(95, 0), aspect="equal", xlabel="x, pixels", ylabel="y, pixels", title=title)
axes[1].plot([], [], color=BLUE, label="class 1")
axes[1].plot([], [], color=ORANGE, label="class 2")
axes[1].plot([], [], color=GRAY, linestyle="--", label="dropped")
axes[1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
save(figure, "08_classes")
# Another way to the same end: move each class to a place of its own, then a single NMS. It costs digits: far from 0 the
# float32 numbers lie further apart, and a borderline IoU may change sides: 90 classes, each moved by 1333 pixels, reach
# 119,970. The package goes class by class instead.
offset = classes[:, None] * (pair.max() + 1)
agree("moved apart", geometry.nms(pair + offset, pair_scores, 0.5), [0, 1, 3])
agree("pixels between float32 numbers at 90 * 1333", np.spacing(np.float32(90 * 1333)), 0.0078125)

# %%
# How much work is it? Count the IoUs. If nothing overlaps, the first box is compared with n - 1, the next with n - 2:
# n (n - 1) / 2 in all, four times as many for twice the boxes. If all lie on one object, n - 1.
section("5. Time")


def count_overlaps(boxes, threshold):
    """How many IoUs NMS computes; the boxes come best first."""
    left, count = np.asarray(boxes, np.float32), 0
    while len(left):
        best, left = left[:1], left[1:]
        count += len(left)
        left = left[geometry.box_iou(best, left)[0] <= threshold]
    return count


def apart(count):
    x = 20.0 * np.arange(count)
    return np.stack([x, 0 * x, x + 10, 0 * x + 10], axis=1).astype(np.float32)  # (count, 4)


def clustered(count, generator):
    """Around 50 objects, as proposals are."""
    middle = generator.uniform(100, 900, (50, 2))[generator.integers(0, 50, count)] + generator.normal(0, 6, (count, 2))
    half = np.exp(generator.normal(3.5, 0.15, (count, 2)))
    return np.concatenate([middle - half, middle + half], axis=1).astype(np.float32)


rng = np.random.default_rng(8)
agree("100 boxes apart", count_overlaps(apart(100), 0.5), 100 * 99 / 2)
agree("1,000 boxes apart", count_overlaps(apart(1000), 0.5), 499_500)
agree("1,000 times the same box", count_overlaps(np.tile(apart(1), (1000, 1)), 0.5), 999)
print("1,000 boxes on 50 objects, threshold 0.5:", count_overlaps(clustered(1000, rng), 0.5))


def seconds(function, *arguments, times=3):
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        function(*arguments)
        spent.append(time.perf_counter() - begin)
    return min(spent)


# Scores all equal: the order is that of the list. The first call would include compilation, so one goes before.
geometry.nms(apart(600), np.ones(600), 0.5)
counts = {"reference": 2 ** np.arange(5, 9), "package": 2 ** np.arange(5, 14)}
curves = {}
for name, function in (("reference", reference.nms), ("package", geometry.nms)):
    for kind, make in (("apart", apart), ("clustered", lambda count: clustered(count, rng))):
        curves[name, kind] = [seconds(function, make(count), np.ones(count, np.float32), 0.5) for count in counts[name]]
        print(f"{name:9}, {kind:9}: {counts[name][-1]:4} boxes in {1000 * curves[name, kind][-1]:8.2f} ms")
ratio = curves["reference", "apart"][-1] / curves["package", "apart"][3]
print(f"256 boxes apart: the package takes 1 / {ratio:.0f} of the reference's time. It computes the same IoUs, but in")
print("compiled loops, several at a time (kernels/nms.py). Its worst case is quadratic as well: look at the slope.")

figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.3))
for ((name, kind), curve), color, marker in zip(curves.items(), (RED, ORANGE, BLUE, GREEN), "os^v", strict=True):
    line = "-" if kind == "apart" else "--"
    axes[0].plot(
        counts[name], 1000 * np.array(curve), color=color, marker=marker, linestyle=line, label=f"{name}, {kind}"
    )
guide = np.array([512, 8192])
axes[0].plot(guide, 3e-6 * guide**2, color=GRAY, linestyle=":", label="4 times for twice the boxes")
axes[0].set_xscale("log", base=2)
axes[0].set_xticks([32, 128, 512, 2048, 8192], [32, 128, 512, 2048, 8192])
axes[0].set(yscale="log", ylim=(0.01, 4e4), xlabel="boxes", ylabel="milliseconds (log)", title="Time of one NMS")
axes[0].legend(fontsize=8)
thresholds = np.linspace(0.05, 0.95, 19)
many = clustered(1000, rng)
left = [len(geometry.nms(many, np.ones(1000), threshold)) for threshold in thresholds]
axes[1].plot(thresholds, left, color=BLUE, marker="o")
axes[1].axhline(50, color=GRAY, linestyle=":")
axes[1].text(0.05, 58, "50 objects", color=GRAY)
axes[1].set(yscale="log", xlabel="threshold", ylabel="boxes left (log)", title="1,000 boxes on 50 objects")
save(figure, "08_time")
# On a fixed number of objects few boxes are kept, each compared with those left: the time grows almost like n. On the
# right, a low threshold loses objects that lie close together, a high one keeps duplicates. Here about 0.33 would be
# right, and 0.5 leaves two for one: these clusters are looser than a trained detector's, for which 0.5 does. No one
# threshold is right for all.

# %% Exercises
# 1. Which boxes of section 1 stay at a threshold of 0.3? And of 0.7? Think first, then call nms. Check: 3 and 7 boxes.
#
# 2. "Soft" NMS lowers the score of an overlapping box to score * (1 - IoU) instead of dropping it, and sorts again.
#    Write it, and drop what falls below 0.3. For the crowd of section 3 (scores 0.9, 0.8) it must leave both boxes, the
#    second with 0.8 * (1 - 0.6) = 0.32.
#
# 3. Write nms(boxes, scores, iou_threshold) with one matrix box_iou(boxes, boxes) in the beginning, and have it graded:
#    `minimrcnn check my_functions.py`. How much memory would it take for 20,000 boxes in float32? Check: 1.6 GB.
