"""What each choice buys: the same small network trained 18 times, one choice changed at a time.

You learn what RoIAlign, independent sigmoids, the pyramid, the average and four samples are worth to a mask, here and
in the paper's own tables; and what three runs can tell: error bars, and what an interval that contains zero means.

In the article: its sections on RoI pooling, RoIAlign, the pyramid and the losses, which give reasons but no figures. In
the paper: He et al. 2017, section 4.2, tables 2a to 2e.
In the package: minimrcnn/config.py (a choice is a field), minimrcnn/models/mask_rcnn.py.
Before: RoIAlign (10), levels (11), heads (12), losses (13), average precision (15).

    python lessons/16_choices.py                  # reads lessons/results/16_choices.json, which this script wrote
    python lessons/16_choices.py --train [SEED]   # trains all again (an hour or so), or those of one seed
    python lessons/16_choices.py --quick          # also trains two of the runs for a few steps, to see that it works
"""

# %% Which runs?
import dataclasses
import json
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import t as student
from style import BLUE, GRAY, GREEN, LESSONS, ORANGE, agree, save, section
from tqdm import tqdm

from minimrcnn import MaskRCNN
from minimrcnn.archive import atomic_file
from minimrcnn.data.loader import Loader
from minimrcnn.data.shapes import Shapes
from minimrcnn.environment import describe_environment
from minimrcnn.functional import mask_loss
from minimrcnn.geometry import crop_masks, paste_masks_bool
from minimrcnn.geometry.run_lengths import decode, encode, from_string, to_string
from minimrcnn.models.prepare import prepare
from minimrcnn.models.presets import small_config
from minimrcnn.tensor import no_grad
from minimrcnn.training.optimizer import clip_gradients
from minimrcnn.training.options import TrainOptions

arguments = [] if "ipykernel" in sys.modules else sys.argv[1:]  # in an editor's cells they are not ours
stored = LESSONS / "results" / "16_choices.json"
own = Path("16_choices.json")  # where --train writes, in the current folder

# Every variant is the first one with some fields of its Config changed. Nothing else differs: the same fifty pictures
# in the same order, the same recipe, the same random numbers to begin from where arrays have the same shapes. (But one
# level is more than one change: C4's heads come with it.)
ONE_LEVEL = {
    "pyramid": "c4", "box_pool_size": 14, "box_head_fcs": 0, "mask_head_channels": (), "mask_upsample_channels": 64,
}  # fmt: skip
VARIANTS = {
    "all as in the paper": {},
    "RoI pooling": {"roi_operation": "pool"},
    "one sample": {"roi_sampling_ratio": 1},
    "maximum": {"roi_mode": "max"},
    "softmax": {"mask_loss": "softmax"},
    "one level": ONE_LEVEL,
}
SEEDS = (0, 1, 2)
SIZE, STEPS = 96, 200  # pixels a side; steps of four pictures


# %% One run
# What differs is how a mask is found, so masks alone are learned, and boxes and classes are given: ResNet, pyramid and
# mask head of lesson 15, from scratch, and RoIs that are the true boxes, off by up to a tenth as proposals are. A whole
# detector would need thousands of steps before differences of masks stand out from those of luck. What is scored: the
# IoU of each mask with the truth, in its true box, on 100 pictures that no run has seen.
def move(boxes, generator):
    """(4 G, 4): four copies of boxes (G, 4), each side moved by up to a tenth of the box."""
    boxes = np.repeat(boxes, 4, axis=0)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (boxes + generator.uniform(-0.1, 0.1, boxes.shape) * sides).astype(np.float32)


def look_through(model, pictures, boxes):
    """Mask logits (R, M, M, K) of boxes (R_n, 4) in each picture."""
    pixels, _, _ = prepare(pictures, model.config)
    crops = model.crop(model.extract(pixels), boxes, model.config.mask_pool_size)
    return model.mask_head(model.look(crops))


def run(fields, seed, steps=STEPS, scored=100):
    config = small_config(Shapes.class_names, anchor_sizes=(8, 16, 32, 64, 128))
    model = MaskRCNN(dataclasses.replace(config, **fields), seed=seed)
    unused = "rpn.", "box_head."
    learning = {name: one for name, one in model.named_parameters().items() if not name.startswith(unused)}
    recipe = TrainOptions(steps=steps, learning_rate=1e-3, warmup_steps=steps // 10, seed=seed)
    optimizer, generator = recipe.make_optimizer(learning), np.random.default_rng(seed)
    start = time.monotonic()
    with Loader(Shapes(50, seed=0, size=SIZE), recipe.batch_size, recipe.make_transform(), seed=seed) as loader:
        for step in tqdm(range(steps), unit="step", leave=False):
            batch = next(loader)
            boxes = [move(target.boxes, generator) for target in batch.targets]
            logits = look_through(model, batch.pictures, boxes)
            matched = [np.repeat(np.arange(len(target.boxes)), 4) for target in batch.targets]
            parts = zip(batch.targets, boxes, matched, strict=True)
            wanted = np.concatenate([crop_masks(target.masks, *rest, logits.shape[1]) for target, *rest in parts])
            labels = np.concatenate([np.repeat(target.labels, 4) for target in batch.targets])
            mask_loss(logits, wanted, labels, model.config.mask_loss).backward()
            clip_gradients(learning.values(), recipe.clip_norm)
            optimizer.step(recipe.learning_rate_at(step))
            optimizer.clear_gradients()
    seconds = time.monotonic() - start
    ious, shown = [], []
    unseen = Shapes(scored, seed=10**6, size=SIZE)
    for picture, target in (unseen[n] for n in range(scored)):
        with no_grad():
            found = model.mask_head.choose(look_through(model.eval(), [picture], [target.boxes]), target.labels)
        masks, truth = paste_masks_bool(found, target.boxes, picture.shape[:2]), target.masks > 0
        ious += ((masks & truth).sum((1, 2)) / (masks | truth).sum((1, 2))).tolist()
        if len(shown) < 4:
            shown += [to_string(encode(mask)) for mask in masks]
    ious = np.array(ious)
    shares = {f"above {limit}": float((ious > limit).mean()) for limit in (0.75, 0.9)}
    return {"iou": float(ious.mean()), **shares, "seconds": seconds, "shown": shown if seed == 0 else []}


def train_all(seeds):
    """Train what is not in the file yet, and write it after every run, so that one can stop and go on."""
    found = json.loads(own.read_text()) if own.exists() else {"runs": []}
    found |= {"steps": STEPS, "size": SIZE, "environment": describe_environment()}
    done = {(row["variant"], row["seed"]) for row in found["runs"]}
    wanted = [(name, seed) for seed in seeds for name in VARIANTS if (name, seed) not in done]
    start = time.monotonic()
    for number, (name, seed) in enumerate(wanted):
        print(f"run {number + 1} of {len(wanted)}: {name}, seed {seed}, after {time.monotonic() - start:.0f} s")
        found["runs"].append({"variant": name, "seed": seed} | run(VARIANTS[name], seed))
        with atomic_file(own) as file:
            file.write(json.dumps(found, indent=1).encode())


if "--train" in arguments:
    train_all([int(word) for word in arguments if word.isdecimal()] or SEEDS)
if "--quick" in arguments:
    section("Two runs of six steps: nothing is learned, everything is run")
    for name in ("all as in the paper", "one level"):
        print(f"{name}: mean IoU {run(VARIANTS[name], 0, steps=6, scored=2)['iou']:.3f}")

source = own if own.exists() else stored
results = json.loads(source.read_text(encoding="utf-8"))
runs = {name: [row for row in results["runs"] if row["variant"] == name] for name in VARIANTS}
for name in [name for name in VARIANTS if not runs[name]]:
    print(f"{name}: not trained yet (--train does it), so it is left out")
    del VARIANTS[name]
seconds = sum(row["seconds"] for row in results["runs"])
print(f"{source}: {len(results['runs'])} runs of {results['steps']} steps, {seconds / 60:.0f} minutes of training")

# %% What to expect, before looking
# RoI pooling moves every side of a RoI to a whole cell. A side anywhere between two cells moves by a quarter of a cell
# in the mean, by up to a half. (The right and lower sides move one cell on, too, as Caffe's rule includes the last one:
# but always, which a network can learn.) If the mask that is learned from such crops is off by d pixels to the right
# and down, how much of a 40-pixel square is still right? IoU = (40 - d)^2 / (2 * 40^2 - (40 - d)^2).
section("What to expect")


def shifted_iou(d, side=40):
    return (side - d) ** 2 / (2 * side**2 - (side - d) ** 2)


for level, stride in (("P2", 4), ("C4", 16)):
    print(f"{level}, stride {stride:2}: a quarter of a cell is {stride / 4:.0f} pixels, half a cell {stride / 2:.0f}")
agree("IoU of the square with itself, 1 and 2 pixels off (P2)", [shifted_iou(1), shifted_iou(2)], [0.905896, 0.822323])
agree("IoU, 4 and 8 pixels off (C4)", [shifted_iou(4), shifted_iou(8)], [0.680672, 0.470588])
print("So RoI pooling should cost little on the pyramid's fine levels and much on one coarse level, most of it where a")
print("mask must fit well (AP75). Only the part that the network cannot make up for counts.")

# %% Error bars by hand
# Two variants are compared seed by seed: a difference for each seed, then mean and standard error s / sqrt(n). With so
# few runs s itself is badly known, so the interval that holds the true mean in 95 of 100 such experiments is not two
# standard errors wide to each side but 4.3 (Student's t with n - 1 = 2 degrees of freedom).
section("Error bars")


def interval(differences):
    """Mean, and half the width of its 95% interval."""
    differences = np.asarray(differences, np.float64)
    error = differences.std(ddof=1) / len(differences) ** 0.5
    return differences.mean(), student.ppf(0.975, len(differences) - 1) * error


agree("standard errors to each side, for 3, 5, 10 and 30 runs", student.ppf(0.975, [2, 4, 9, 29]),
      [4.302653, 2.776445, 2.262157, 2.04523])  # fmt: skip
agree("differences 0.02, 0.05, 0.02: mean and half width", interval([0.02, 0.05, 0.02]), [0.03, 0.043027])
print("Three runs, all of them better, and still the interval reaches below zero: that is not yet known to be a gain.")
agree("chance that at least one of five independent intervals around nothing misses zero", 1 - 0.95**5, 0.226219)
# The five intervals below are not independent: all of them subtract from the same three runs. If those happen to be
# bad, five changes look good. How often is zero missed then? Play it: 100,000 tables in which no choice matters.
luck = np.random.default_rng(0)
differences = luck.normal(size=(100_000, 1, 3)) - luck.normal(
    size=(100_000, 5, 3)
)  # base - change: table, change, seed
middles, errors = differences.mean(axis=2), differences.std(axis=2, ddof=1) / 3**0.5
missed = abs(middles) > student.ppf(0.975, 2) * errors  # (100000, 5)
agree("share of single intervals that miss zero", missed.mean(), 0.05, 0.001)
agree("share of tables in which at least one does", missed.any(axis=1).mean(), 0.208, 0.005)

# %% The paper's tables
section("The paper: mask AP, AP50, AP75 on COCO")
# The paper's figures on COCO: mask AP, AP50, AP75.
TABLES = {
    "2a ResNet-50-C4": (30.3, 51.2, 31.5), "2a ResNet-101-C4": (32.7, 54.2, 34.3),
    "2a ResNet-50-FPN": (33.6, 55.2, 35.3), "2a ResNet-101-FPN": (35.4, 57.3, 37.5),
    "2a ResNeXt-101-FPN": (36.7, 59.5, 38.9), "2b softmax": (24.8, 44.1, 25.1), "2b sigmoid": (30.3, 51.2, 31.5),
    "the text: one mask for all classes": (29.7,),  # "agnostic"; the text has its AP alone
    "2c RoIPool": (26.9, 48.8, 26.4), "2c RoIWarp, maximum": (27.2, 49.2, 27.1),
    "2c RoIWarp, average": (27.1, 48.9, 27.1), "2c RoIAlign, maximum": (30.2, 51.0, 31.8),
    "2c RoIAlign, average": (30.3, 51.2, 31.5), "2d RoIPool": (23.6, 46.5, 21.6), "2d RoIAlign": (30.9, 51.8, 32.1),
    "2d RoIPool, boxes": (28.2, 52.7, 26.9), "2d RoIAlign, boxes": (34.0, 55.3, 36.4),
    "2e fully connected mask head": (31.5, 53.7, 32.8), "2e convolutional mask head": (33.6, 55.2, 35.3),
}  # fmt: skip
for name, values in TABLES.items():
    print(f"{name:36}" + "".join(f"{value:6}" for value in values))
for what, wanted in (("", [7.3, 5.3, 10.5]), (", boxes", [5.8, 2.6, 9.5])):
    agree(f"RoIAlign's gains with stride 32 (2d{what}): AP, AP50, AP75",
          np.subtract(TABLES["2d RoIAlign" + what], TABLES["2d RoIPool" + what]), wanted)  # fmt: skip
print("as expected: the more must fit, the more the rounding costs.")
agree("what a mask for each class gains over one for all: AP",
      TABLES["2b sigmoid"][0] - TABLES["the text: one mask for all classes"][0], 0.6)  # fmt: skip
print("little: once the box head has named the class, one mask nearly does. Now the same choices here.")

# Which of them stands beside which of ours. One sample: no figure, but section 3 says that results hardly depend on how
# many samples there are.
PAIRS = {
    "RoI pooling": ("2c RoIAlign, average", "2c RoIPool"),
    "maximum": ("2c RoIAlign, average", "2c RoIAlign, maximum"),
    "softmax": ("2b sigmoid", "2b softmax"),
    "one level": ("2a ResNet-50-FPN", "2a ResNet-50-C4"),
}
paper = {name: TABLES[better][0] - TABLES[worse][0] for name, (better, worse) in PAIRS.items()}
agree("the paper's gains in mask AP", list(paper.values()), [3.4, 0.1, 5.5, 3.3])

# %% Here
section("Here: IoU of masks in true boxes")
base = "all as in the paper"


def figures_of(name, figure="iou"):
    """One figure of a variant's runs, in the order of the seeds."""
    return np.array([row[figure] for row in sorted(runs[name], key=lambda row: row["seed"])])


gains = {}
print(f"{'':24}{'mean IoU of each seed':^24}{'mean':>7}{'> 0.75':>8}{'> 0.9':>8}   gain of the choice, 95% interval")
for name in VARIANTS:
    every = figures_of(name)
    line = f"{name:24}{'  '.join(f'{value:.3f}' for value in every):^24}{every.mean():7.3f}"
    line += f"{figures_of(name, 'above 0.75').mean():8.0%}{figures_of(name, 'above 0.9').mean():8.0%}"
    if name != base:
        middle, half = gains[name] = interval(figures_of(base) - every)
        line += f"   {middle:+.3f} +- {half:.3f}" + (", not told from 0" if abs(middle) < half else "")
    print(line)
print("The gain is what the first line has more than the line with the change.")
if source == stored:
    means = [figures_of(name).mean() for name in VARIANTS]
    agree("mean IoU, line by line", means, [0.7791, 0.7752, 0.783, 0.7866, 0.1798, 0.7062], 1e-4)

# %% Beside each other
# The paper's are single runs on 118,000 pictures of 80 classes, measured as AP of a whole detector; ours are fifty
# pictures of three shapes, measured as IoU. Only the direction can be compared. What they show:
# - Four samples or one, RoIAlign or RoI pooling: no difference that three seeds could tell from luck. RoIs are cut from
#   P2 here, where a quarter of a cell is one pixel; the paper's 3.4 points were on C4, where it is four.
# - The maximum: better than the average by 0.007 to 0.008, seed by seed, where the paper found 0.1 points the other
#   way. That is little, and in 21 of 100 tables like this at least one of five misses zero by luck: it wants more
#   seeds.
# - One level: worse in all seeds. C4 has a cell for 16 pixels, the shapes are 20 to 58 pixels wide.
# - Softmax: its masks are nearly empty. It has to find the class of every pixel as well, which 200 steps do not teach,
#   and a pixel that is surely an object's, but not surely a disc's, stays below 0.5. Sigmoids leave the class to the
#   box head. This is the paper's point in the extreme of a short training: there softmax lost 5.5 points.
LEAST, MOST = 0.68, 15  # where the axes end
figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.2), sharey=True, width_ratios=(1.25, 1.25, 0.8))
for row, name in enumerate(VARIANTS):
    every, (middle, half) = figures_of(name), gains.get(name, (0.0, 0.0))
    if every.mean() < LEAST:  # far away: an arrow, and the numbers
        axes[0].annotate("", (LEAST, row), (LEAST + 0.02, row), arrowprops={"arrowstyle": "-|>", "color": BLUE})
        axes[0].text(
            LEAST + 0.022, row, f"{every.min():.2f} to {every.max():.2f}, mean {every.mean():.2f}", va="center"
        )
        axes[1].annotate("", (MOST, row), (MOST - 3, row), arrowprops={"arrowstyle": "-|>", "color": BLUE})
        axes[1].text(MOST - 3.3, row, f"{100 * middle:.0f} ± {100 * half:.0f}", va="center", ha="right")
    else:
        axes[0].plot(every, [row] * len(every), "o", color=BLUE, markersize=7, alpha=0.6)
        axes[0].plot(every.mean(), row, "|", color="black", markersize=20)
        if name in gains:
            axes[1].errorbar(100 * middle, row, xerr=100 * half, fmt="o", color=BLUE, capsize=4)
    if name in paper:
        axes[2].plot(paper[name], row, "D", color=ORANGE, markeredgecolor="black")
    elif name in gains:
        axes[2].text(0.3, row, "no figure", va="center", color=GRAY)
axes[0].set(yticks=range(len(VARIANTS)), yticklabels=VARIANTS, xlim=(LEAST, None))
axes[0].set(xlabel="mean IoU on 100 unseen pictures", title="Here: three seeds each (bar: their mean)")
axes[1].set(
    xlim=(-5, MOST),
    xticks=range(-5, 16, 5),
    xlabel="hundredths of IoU lost",
    title="Here: lost by the change, 95% interval",
)
axes[2].set(xlim=(-0.5, 6), xlabel="points of mask AP lost", title="The paper, on COCO")
for axis in axes[1:]:
    axis.axvline(0, color="black", linewidth=0.8)
for axis in axes:
    axis.grid(axis="x", alpha=0.3)
axes[0].invert_yaxis()  # shared
save(figure, "16_choices")

# %% Where it is lost
# A mask that is off by a pixel or two still has an IoU of 0.75; only one that fits has 0.9.
figure, axes = plt.subplots(figsize=(8.5, 3.8))
places = np.arange(len(VARIANTS))
for k, (key, color, hatch) in enumerate((("above 0.75", GREEN, ""), ("above 0.9", ORANGE, "//"))):
    values = np.array([figures_of(name, key) for name in VARIANTS])  # (variants, seeds)
    axes.bar(places + 0.4 * k - 0.2, values.mean(1), 0.36, color=color, hatch=hatch, edgecolor="black",
             label=f"IoU {key}")  # fmt: skip
    axes.plot(places + 0.4 * k - 0.2, values, "o", color="black", markersize=3)
axes.set(xticks=places, ylabel="share of the masks", title="How many masks are right, and how many fit (dots: seeds)")
axes.set_xticklabels([name.replace(" as ", "\nas ").replace(", ", ",\n") for name in VARIANTS], fontsize=9)
axes.legend()
save(figure, "16_fit")

# %% Look at it
# The masks of the first unseen pictures, seed 0, over the truth (white): what is wrong at the border is what the
# figures above count.
unseen = Shapes(4, seed=10**6, size=SIZE)
truth = [(picture, mask) for picture, target in (unseen[n] for n in range(4)) for mask in target.masks][:4]
drawn = [name for name in VARIANTS if runs[name] and runs[name][0]["shown"]]
figure, axes = plt.subplots(4, len(drawn), figsize=(1.75 * len(drawn), 7.2))
for column, name in zip(axes.T, drawn, strict=True):
    found = next(row["shown"] for row in runs[name] if row["seed"] == 0)
    for axis, (picture, mask), text in zip(column, truth, found[:4], strict=True):
        axis.imshow(picture)
        axis.contour(mask, [0.5], colors="white", linewidths=1)
        axis.contour(decode(from_string(text), (SIZE, SIZE)), [0.5], colors=ORANGE, linewidths=1.5)
        axis.set(xticks=[], yticks=[])
    column[0].set_title(name.replace(" as ", "\nas ").replace(", ", ",\n"), fontsize=9)
save(figure, "16_masks")

# %% Exercises
# 1. How many seeds would a gain of 0.02 need, if the differences of single seeds have a deviation of 0.02? Find the
#    smallest n for which `student.ppf(0.975, n - 1) * 0.02 / n ** 0.5` is below 0.02. (7.)
# 2. Add a variant: "agnostic" (`mask_loss`), RoIWarp (`roi_operation="warp"`), the fully connected mask head of table
#    2e (`mask_head="mlp"`). Copy `lessons/results/16_choices.json` into the current folder, so that `--train` trains
#    only what is not in it. Is zero in the interval?
# 3. The paper finds RoI pooling worst at stride 32. Add both to VARIANTS: {**ONE_LEVEL, "roi_operation": "pool"}, and
#    `pyramid="c5"` with RoIAlign and with RoI pooling, beside table 2d: 30.9 and 23.6.
