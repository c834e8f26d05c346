"""What the network is asked to make small: three losses in two stages, and why the mask loss uses a sigmoid per class.

You learn cross-entropy, smooth L1 with its three betas, and binary cross-entropy, each with its gradient. Then the mask
loss: with one sigmoid per class the classes do not compete for a pixel, with a softmax they do. You see it in gradient
maps and in two objects that overlap.

In the article: section 6 (losses). In the papers: Girshick 2015 (Fast R-CNN), section 2.3 and equation 3; He et al.
2017 (Mask R-CNN), section 3 and table 2b. In the package: minimrcnn/functional/loss.py, minimrcnn/models/mask_head.py.
Before: gradients (lesson 3), box code (lesson 7), RoIAlign (lesson 10), the heads and their shapes (lesson 12).
"""

# %% Setup
# L = L_cls + L_box + L_mask, for the RoIs (regions of interest: the boxes that stage two looks at, lesson 7).
#
#   L_cls   what is in the RoI?             cross-entropy on one logit per class
#   L_box   how must the box move?          smooth L1 on four numbers
#   L_mask  which pixels are the object?    binary cross-entropy on a mask of m x m pixels
#
# Stage one (the RPN, lesson 7) adds two of the same kinds: object or not (binary cross-entropy), and its own boxes
# (smooth L1). A *logit* is a raw output of the network: any number, 0 means "I do not know".
import math

import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, GREEN, ORANGE, SIGNED, agree, draw_box, draw_grid, save, section

from minimrcnn import MaskRCNN, Tensor, reference
from minimrcnn.functional import bce_with_logits, concatenate, cross_entropy, mask_loss, smooth_l1
from minimrcnn.models.rpn import BETA

# %% Cross-entropy: one class out of several
# Softmax turns logits into probabilities: exponentials over their sum. The loss is minus the logarithm of the
# probability that the right class got: 0 if that was 1, and without limit as it goes to 0.
section("Cross-entropy")


def my_cross_entropy(logits, label):
    """Loss and gradient for one RoI."""
    exponentials = [math.exp(logit - max(logits)) for logit in logits]  # less the largest: none overflows
    probabilities = [value / sum(exponentials) for value in exponentials]
    gradient = [p - (k == label) for k, p in enumerate(probabilities)]  # raise the right class, lower all others
    return -math.log(probabilities[label]), gradient


logits, label = [2.0, 1.0, 0.0], 0  # say: background, disc, triangle
loss, gradient = my_cross_entropy(logits, label)
agree("my loss of logits (2, 1, 0) when class 0 is right", loss, 0.407606)
agree("my gradient: probabilities, less 1 for the right class", gradient, [-0.334759, 0.244728, 0.090031])
agree("reference", reference.cross_entropy([logits], [label]), loss)

x = Tensor(np.array([logits]), requires_grad=True)  # (R, K) = (1, 3)
value = cross_entropy(x, [label])
value.backward()  # lesson 3: leaves d(value) / d(x) in x.grad
agree("package", value.numpy(), loss)
agree("package, gradient", x.grad[0], gradient)
agree("no idea among 3 classes costs ln 3", my_cross_entropy([0, 0, 0], 1)[0], math.log(3))

# %% Smooth L1: a number that should be another
# d is prediction minus target. Near 0 the loss is a parabola, so that the gradient fades as d does; beyond beta it is a
# straight line of slope 1, so that one wild box cannot pull with a huge gradient. Three betas are in use:
#   Fast R-CNN 1 (the paper), torchvision 1/9 (and this package), Detectron2 0 (the plain absolute difference).
section("Smooth L1")


def my_smooth_l1(d, beta):
    d = abs(d)
    return d * d / (2 * beta) if d < beta else d - beta / 2


BETAS = {"1 (Fast R-CNN)": 1.0, "1/9 (torchvision)": 1 / 9, "0 (Detectron2)": 0.0}
expected = {1.0: [0.005, 0.125, 1.5], 1 / 9: [0.045, 0.444444, 1.944444], 0.0: [0.1, 0.5, 2.0]}
for name, beta in BETAS.items():
    mine = [my_smooth_l1(d, beta) for d in (0.1, -0.5, 2.0)]
    agree(f"beta {name}: d = 0.1, -0.5, 2 cost", mine, expected[beta])
    agree("  reference, their sum", reference.smooth_l1([0.1, -0.5, 2.0], [0, 0, 0], beta), sum(mine))
    x = Tensor(np.array([0.1, -0.5, 2.0]), requires_grad=True)
    value = smooth_l1(x, np.zeros(3), beta)  # reduction "sum"
    value.backward()
    agree("  package, their sum", value.numpy(), sum(mine))
    agree("  slopes", x.grad, [0.1 / beta if 0.1 < beta else 1, -0.5 / beta if 0.5 < beta else -1, 1])
agree("the package's own beta, in RPN and box head", BETA, 1 / 9)

# %% Binary cross-entropy: yes or no
# Sigmoid turns one logit into one probability, s = 1 / (1 + e^-z). The target t is 1 (object) or 0, or anything between
# (mask targets are resized, so their edges are soft). The loss is the cross-entropy of the two answers:
#   -t log(s) - (1 - t) log(1 - s), and its gradient is s - t.
# Written like this it breaks where s is rounded to 0 or 1. max(z, 0) - z t + log(1 + e^-|z|) is the same, and holds.
section("Binary cross-entropy")


def my_bce(z, t):
    return max(z, 0) - z * t + math.log1p(math.exp(-abs(z)))


s = 1 / (1 + math.exp(-1.5))
agree("z = 1.5, t = 1: by the definition", -math.log(s), 0.201413)
agree("the same in the safe form", my_bce(1.5, 1), 0.201413)
agree("reference, and package", [reference.bce_with_logits([1.5], [1]), bce_with_logits([1.5], [1.0]).numpy()],
      [0.201413, 0.201413])  # fmt: skip
x = Tensor(np.array([1.5, 1.5]), requires_grad=True)
(bce_with_logits(x, [1.0, 0.0]) * 2).backward()  # times 2: the package takes the mean
agree("gradient for t = 1 and t = 0: s - t", x.grad, [s - 1, s])
agree("z = 1000, t = 0: the safe form", my_bce(1000, 0), 1000)
agree("no idea costs ln 2", my_bce(0, 1), 0.693147)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6))
p = np.linspace(0.01, 1, 200)
left.plot(p, -np.log(p), color=BLUE)
left.plot([1 / 3], [math.log(3)], "o", color=ORANGE)
left.text(0.38, 1.2, "1/3: ln 3 = 1.0986")
left.set(title="Cross-entropy", xlabel="probability of the right class", ylabel="loss")
d = np.linspace(-1.6, 1.6, 401)
for (name, beta), color, dash in zip(BETAS.items(), (BLUE, ORANGE, GREEN), ("-", "--", ":"), strict=True):
    middle.plot(d, [my_smooth_l1(value, beta) for value in d], color=color, linestyle=dash, label=f"beta {name}")
middle.set(title="Smooth L1", xlabel="prediction - target", ylabel="loss", ylim=(0, 2.6))
middle.legend(loc="upper center", fontsize=9)
z = np.linspace(-4, 4, 201)
right.plot(z, [my_bce(value, 1) for value in z], color=BLUE, label="target 1")
right.plot(z, [my_bce(value, 0) for value in z], color=ORANGE, linestyle="--", label="target 0")
right.plot([0], [math.log(2)], "o", color=GREEN)
right.text(0, 2.1, "ln 2 = 0.6931", ha="center")
right.plot([0, 0], [0.8, 2.0], color="black", linewidth=0.8)
right.set(title="Binary cross-entropy", xlabel="logit", ylabel="loss")
right.legend(loc="upper center")
save(figure, "13_curves")

# %% The mask loss, and who gets a gradient
# For every RoI the mask head gives K masks of m x m logits, one per class (here the background counts as channel 0, and
# its mask is never asked). Take one RoI of class 1, all logits 0, m = 4, K = 3.
#   "sigmoid" (Mask R-CNN): binary cross-entropy on channel 1 alone. The other channels are not even looked at.
#   "softmax" (as in an FCN, a fully convolutional network that gives every pixel one class): in each pixel the K
#   channels share a probability of 1. The pixel's class is the RoI's where the mask is 1, else background.
section("The mask loss at zero logits")
TARGET = np.array([[[0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 1, 0, 0]]], float)  # (R, M, M): one RoI


def my_mask_loss(logits, target, label):
    """One RoI, logits (M, M, K), one sigmoid per class: only the channel of the RoI's class is asked."""
    total = 0.0
    for row in range(len(target)):
        for column in range(len(target)):
            total += my_bce(logits[row, column, label], target[row, column])
    return total / target.size


agree("my sigmoid loss", my_mask_loss(np.zeros((4, 4, 3)), TARGET[0], 1), 0.693147)
figure, axes = plt.subplots(2, 4, figsize=(11, 5.6))
for row, (kind, expected_loss) in enumerate({"sigmoid": 0.693147, "softmax": 1.098612}.items()):
    logits = Tensor(np.zeros((1, 4, 4, 3)), requires_grad=True)  # (R, M, M, K)
    value = mask_loss(logits, TARGET, [1], kind)
    value.backward()
    by_reference = reference.mask_loss(np.zeros((1, 4, 4, 3)), TARGET, [1], kind)
    agree(f"{kind}: package, reference", [value.numpy(), by_reference], [expected_loss] * 2)
    per_pixel = logits.grad[0] * 16  # (M, M, K): the loss is a mean over 16 pixels
    reached = [int(np.abs(per_pixel[:, :, k]).max() > 0) for k in range(3)]
    agree(f"{kind}: channels with a gradient", reached, [0, 1, 0] if kind == "sigmoid" else [1, 1, 1])
    draw_grid(axes[row, 0], TARGET[0], digits=0)
    axes[row, 0].set(title="target: the RoI's mask", ylabel=f"{kind}\ny")
    for k, name in enumerate(("background", "class 1 (the RoI's)", "class 2")):
        draw_grid(axes[row, k + 1], per_pixel[:, :, k] + 0.0, heat=SIGNED, vmin=-1.3, vmax=1.3)
        axes[row, k + 1].set(title=f"gradient, {name}", ylabel="y")
figure.suptitle("One RoI of class 1 at zero logits: the gradient of each channel (times the number of pixels)")
save(figure, "13_gradients")
print(
    "Sigmoid: -1/2 inside, +1/2 outside, in one channel. Softmax: 1/3 - 1 = -2/3 where a class is wanted, +1/3 where it"
)
print("is not. Class 2 is pushed down in every pixel though nobody asked about it: the classes compete.")

# %% Whose class?
section("Erratum")
print(
    "Erratum: the article says that the sigmoid of the class 'the pixel belongs to' counts. It is the class of the\n"
    "RoI. A RoI is matched to one object (lesson 7); all its m x m pixels go to that object's channel. Pixels of\n"
    "another object in the same RoI have target 0 there, whatever their own class."
)
# The disc's RoI below has pixels of the triangle in it. They are asked one question: "disc?", and the answer is no.

# %% Two objects that overlap
# A map of 16 x 16 pixels, a disc and a triangle, each annotated whole, so that some pixels are in both masks. Both RoIs
# read the same logits, as if what a pixel looks like did not depend on who asks. (In the network it does, a little:
# each RoI has a crop of its own, but the crops are cut from one feature map.) Gradient descent on the logits themselves
# shows what each loss can reach at best.
section("Two objects of two classes, one map of logits")
DISC, TRIANGLE = 1, 2
y, x = np.mgrid[:16, :16] + 0.5  # the middles of the pixels
disc = (y - 6) ** 2 + (x - 6) ** 2 < 25
triangle = (2 * np.abs(x - 10) < y - 5) & (y < 15)
masks = np.stack([disc, triangle]).astype(float)  # (2, 16, 16)
boxes = np.array([[1, 1, 11, 11], [5, 5, 15, 15]])  # x1, y1, x2, y2
crops = [(slice(y1, y2), slice(x1, x2)) for x1, y1, x2, y2 in boxes]
targets = np.stack([mask[crop] for mask, crop in zip(masks, crops, strict=True)])  # (R, M, M) = (2, 10, 10)

logits, losses = {}, {}
for kind in ("sigmoid", "softmax"):
    logits[kind], losses[kind] = Tensor(np.zeros((16, 16, 3)), requires_grad=True), []
    for _ in range(300):
        asked = concatenate([logits[kind][crop].reshape(1, 10, 10, 3) for crop in crops])  # (R, M, M, K)
        loss = mask_loss(asked, targets, [DISC, TRIANGLE], kind)
        losses[kind].append(float(loss.numpy()))
        logits[kind].grad = None
        loss.backward()
        logits[kind].data = logits[kind].data - 200 * logits[kind].grad  # the mean is over 200 pixels
    print(f"{kind}: loss {losses[kind][0]:.4f} -> {losses[kind][-1]:.4f}")

# Where do the two RoIs want different answers of a softmax? Everywhere in both boxes where a mask is 1: the disc's RoI
# says disc, and the triangle's says triangle or background. Half and half is the best compromise, and costs ln 2.
wanted = np.full((2, 16, 16), -1)  # what each RoI wants each pixel to be; -1: does not ask
for r, (crop, target, label) in enumerate(zip(crops, targets, (DISC, TRIANGLE), strict=True)):
    wanted[r][crop] = np.where(target > 0, label, 0)
torn = (wanted >= 0).all(axis=0) & (wanted[0] != wanted[1])
print(f"{torn.sum()} pixels get two different orders from the softmax loss, of {(wanted >= 0).any(axis=0).sum()} asked")
best = math.log(2) * 2 * torn.sum() / (wanted >= 0).sum()
agree("the lowest softmax loss there is: ln 2 on those pixels", best, 0.693147 * 2 * 36 / 200, 1e-6)
agree("softmax after 300 steps", losses["softmax"][-1], best, 0.01)
agree("sigmoid after 300 steps: no such limit", losses["sigmoid"][-1], 0, 0.01)

found = {}  # how probable each RoI's own class is in each pixel
for kind in ("sigmoid", "softmax"):
    e = np.exp(logits[kind].data)
    probable = e / e.sum(axis=2, keepdims=True) if kind == "softmax" else e / (1 + e)
    found[kind] = [probable[crop][:, :, label] for crop, label in zip(crops, (DISC, TRIANGLE), strict=True)]

figure, axes = plt.subplots(2, 4, figsize=(12, 5.8))
for row, kind in enumerate(found):
    for r, name in enumerate(("disc", "triangle")):
        image = axes[row, r + 1].imshow(found[kind][r], cmap="cividis", vmin=0, vmax=1,
                                        extent=(boxes[r, 0], boxes[r, 2], boxes[r, 3], boxes[r, 1]))  # fmt: skip
        axes[row, r + 1].set(title=f"{kind}: RoI {name}, its mask", xlabel="x", ylabel="y")
    figure.colorbar(image, ax=axes[row, 2], label="probability", shrink=0.85)
axes[0, 0].imshow(masks[0] + 2 * masks[1], cmap="cividis", extent=(0, 16, 16, 0), alpha=0.85)
axes[0, 0].text(3.5, 5, "disc", color="white", ha="center")
axes[0, 0].text(10.5, 13.8, "triangle", ha="center", fontsize=9)
axes[0, 0].text(9.95, 7.3, "both", ha="center", va="center", fontsize=7)
axes[1, 0].imshow(torn, cmap="Greys", vmin=0, vmax=2, extent=(0, 16, 16, 0))
for axis, title in zip(axes[:, 0], ("two masks, two RoIs", f"the {torn.sum()} torn pixels"), strict=True):
    axis.set(title=title, xlabel="x", ylabel="y", xticks=range(0, 17, 4), yticks=range(0, 17, 4))
    draw_box(axis, boxes[0], BLUE)
    draw_box(axis, boxes[1], ORANGE, dashed=True)
for axis in axes[:, 3]:
    axis.remove()
lines = figure.add_subplot(axes[0, 3].get_gridspec()[:, 3])
for kind, color, dash in (("sigmoid", BLUE, "-"), ("softmax", ORANGE, "--")):
    lines.plot(losses[kind], color=color, linestyle=dash, label=kind)
lines.axhline(best, color="black", linewidth=0.8, linestyle=":")
lines.text(300, best - 0.08, f"softmax cannot go below {best:.2f}", ha="right", fontsize=9)
lines.set(title="loss", xlabel="step", ylabel="loss", ylim=(0, 1.15))
lines.legend()
save(figure, "13_competition")
print("On COCO the paper measured 30.3 mask AP with sigmoids, 24.8 with a softmax (table 2b; AP: lesson 15).")

# %% At test time the class branch picks the mask
# The mask head does not say what the object is. The box head does, and its class chooses which of the K masks is shown.
# Below the mask of class 1 is the surer one, and still class 2 is shown, because the box head said 2.
section("Test time")
mask_logits = np.zeros((1, 28, 28, 3), np.float32)  # (R, M, M, K)
mask_logits[0, :, :, 1] = 6.0
mask_logits[0, 8:20, 8:20, 2] = 2.0
label = int(np.argmax([0.1, -1.0, 3.0]))  # the box head's class logits of this RoI
by_hand = 1 / (1 + np.exp(-mask_logits[0, :, :, label]))
head = MaskRCNN(num_classes=3, backbone="resnet18", norm="group", pyramid_channels=64).mask_head
chosen = head.choose(Tensor(mask_logits), np.array([label]))[0]  # (M, M)
agree("package: `choose` is off from the line by hand by at most", np.abs(chosen - by_hand).max(), 0)
agree("probability in the middle, and in a corner, of the mask shown", by_hand[[14, 0], [14, 0]], [0.880797, 0.5])

# %% Exercises
# 1. Logits (0, 0, 0, 0), any label: what does cross-entropy cost? Fill it in and run the assert.
answer = None
if answer is not None:
    agree("exercise 1", answer, reference.cross_entropy([[0, 0, 0, 0]], [2]))
# 2. Move the triangle one pixel down and to the right (its box becomes [6, 6, 16, 16]; replace x - 10 by x - 11, y - 5
#    by y - 6, y < 15 by y < 16). How many torn pixels are left, and what is the lowest softmax loss then? (The
#    lesson prints 24; then its assert on the loss stops and shows 0.166355.)
# 3. Write mask_loss(logits, targets, labels) yourself, for all RoIs at once (lessons/exercises/start_here.py says what
#    it must return), save it as my_functions.py, and have it checked: minimrcnn check my_functions.py --only mask_loss
