"""ResNet: from pixels to four maps.

You learn what a residual connection is and why depth needs it, how a bottleneck saves work, how a frozen batch
normalization melts into the convolution before it, how C2 to C5 lie over the picture, and how much of the picture one
of their cells can see.

In the article: section 2, ResNet-FPN, "bottom-up". In the papers: He et al. 2016, Deep Residual Learning, sections 3
and 4.1, table 1; Xie et al. 2017 for ResNeXt; Luo et al. 2016 for what a cell really sees.
In the package: `minimrcnn/models/resnet.py`, and `ConvNorm` and `FrozenBatchNorm2d` in `minimrcnn/nn.py`.
Before: lesson 2 (convolution), lesson 3 (gradients).
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from style import BLUE, GREEN, HEAT, ORANGE, RED, agree, draw_box, save, section

from minimrcnn import Tensor, no_grad, reference
from minimrcnn.data.shapes import Shapes
from minimrcnn.functional import max_pool2d
from minimrcnn.models.resnet import ARCHITECTURES, Bottleneck, ResNet
from minimrcnn.nn import BatchNorm2d, ConvNorm, FrozenBatchNorm2d

# %% Why depth needs a shortcut
section("The residual connection")

# Twenty layers can do whatever one layer can: one does the work, nineteen copy. But layers find copying hard to learn,
# so a deep plain network ends up worse than a shallow one, even on the data it trains on. A residual layer gives
# x + f(x) instead of f(x): copying is then f = 0, which is easy. Try it: learn to mix 16 numbers a little. (ReLU sets
# negative numbers to 0; without it, twenty layers would be one.) That is near copying, where residual layers start: one
# of them alone does well, too. The point is the other nineteen: plain ones do harm, residual ones do none, and here
# they even help. (300 steps are few: in 3000 the single plain layer gets down to 0.06.)
generator = np.random.default_rng(4)
inputs = np.maximum(generator.standard_normal((128, 16)), 0)
targets = np.maximum(inputs @ (np.eye(16) + 0.075 * generator.standard_normal((16, 16))), 0)


def relu(z):
    return z * (z.data > 0)


def train(depth, residual, steps=300, rate=0.1):
    """The loss after every step of gradient descent. Residual layers start with small weights, so nearly as copies; a
    plain network of such weights would give next to nothing."""
    generator = np.random.default_rng(0)
    size = np.sqrt(2 / 16) * (0.1 if residual else 1)
    weights = [Tensor(size * generator.standard_normal((16, 16)), requires_grad=True) for _ in range(depth)]
    losses = []
    for _ in range(steps):
        y = Tensor(inputs)
        for weight in weights:
            y = relu(y + y @ weight) if residual else relu(y @ weight)
        loss = ((y - targets) ** 2).mean()
        loss.backward()
        losses.append(loss.item())
        for weight in weights:
            weight.data = weight.data - rate * weight.grad
            weight.grad = None
    return losses


curves = {"plain, 1 layer": train(1, False), "plain, 20 layers": train(20, False)}
curves |= {"residual, 1": train(1, True), "residual, 20": train(20, True)}
for name, losses in curves.items():
    print(f"{name}: training loss {losses[0]:.3f} at first, {losses[-1]:.4f} after 300 steps")
assert curves["plain, 1 layer"][-1] < 0.7 * curves["plain, 20 layers"][-1]
assert curves["residual, 20"][-1] < 0.5 * curves["residual, 1"][-1] < 0.05 * curves["plain, 1 layer"][-1]
# The bump of the green curve near step 240: there, steps of 0.1 times the gradient are a little too long. With 0.05 it
# goes down all the way.

figure, axes = plt.subplots(figsize=(7, 3.8))
looks = zip((BLUE, RED, ORANGE, GREEN), ("--", ":", "-.", "-"), strict=True)
for (name, losses), (color, look) in zip(curves.items(), looks, strict=True):
    axes.semilogy(losses, look, color=color, label=name, linewidth=2)
axes.set(xlabel="step", ylabel="training loss", title="The same task, with and without shortcuts")
axes.legend()
save(figure, "04_residual")

# %% Batch normalization, and how it melts away when frozen
section("Folding a frozen batch normalization")

# After each convolution ResNet normalizes every channel: subtract its mean, divide by its deviation (the square root of
# the variance), multiply by a learned weight, add a learned bias. In training, mean and variance are those of the
# batch: the pictures that one step learns from together. Detectors train on batches of one or two pictures, too few for
# that, and freeze all four numbers. Then it is y = x * scale + shift:
mean, variance, weight, bias = 3.0, 4.0, 6.0, 1.0
scale = weight / np.sqrt(variance)
shift = bias - mean * scale
agree("scale and shift", [scale, shift], [3, -8])
step_by_step = (5 - mean) / np.sqrt(variance) * weight + bias
agree("5, normalized step by step and at once", [step_by_step, 5 * scale + shift], [7, 7])
# A convolution is linear, so the scale can go into its kernel, and the shift becomes its bias: nothing is left to do.


def normalize(y, norm):  # eps is 1e-5: nothing is ever divided by 0
    return (y - norm.running_mean) / np.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias


def draw_statistics(norm):
    """Numbers as training might have left them."""
    shape = norm.weight.shape
    norm.weight, norm.bias, norm.running_mean = (np.float32(generator.uniform(0.5, 1.5, shape)) for _ in range(3))
    norm.running_var = np.float32(generator.uniform(0.5, 2, shape))


layer = ConvNorm(4, 8, 3, norm=FrozenBatchNorm2d, generator=generator)
draw_statistics(layer.norm)
x = generator.standard_normal((1, 6, 6, 4), dtype=np.float32)
in_two_steps = normalize(reference.conv2d(x, layer.conv.weight.data, padding=1), layer.norm)
scale, shift = layer.norm.scale_and_shift()
folded = reference.conv2d(x, layer.conv.weight.data * scale, shift, padding=1)
agree("convolve, then normalize: against the folded kernel", abs(in_two_steps - folded).max(), 0, tolerance=1e-5)
agree("against the package's ConvNorm", abs(in_two_steps - layer(Tensor(x)).numpy()).max(), 0, tolerance=1e-5)

# %% A bottleneck
section("A bottleneck")

# Two 3x3 convolutions on 256 channels have 1.18 million weights. A bottleneck squeezes to 64 channels by a 1x1
# convolution, does the 3x3 there, and comes back up by another 1x1: a seventeenth of that.
agree("weights of two 3x3 on 256 channels", 2 * 3 * 3 * 256 * 256, 1179648)
agree("weights of a bottleneck", 256 * 64 + 3 * 3 * 64 * 64 + 64 * 256, 69632)


def run_bottleneck(x, block):
    """Three convolutions, each normalized; ReLU after the first two, and after the sum."""
    y = np.maximum(normalize(reference.conv2d(x, block.conv1.conv.weight.data), block.conv1.norm), 0)
    y = np.maximum(normalize(reference.conv2d(y, block.conv2.conv.weight.data, padding=1), block.conv2.norm), 0)
    y = normalize(reference.conv2d(y, block.conv3.conv.weight.data), block.conv3.norm)
    return np.maximum(x + y, 0)  # the shortcut: x itself, as the shape is the same


block = Bottleneck(32, 8, 1, 1, 64, norm=FrozenBatchNorm2d, generator=generator)  # 32 channels to 8 and back
for layer in (block.conv1, block.conv2, block.conv3):
    draw_statistics(layer.norm)
x = np.maximum(generator.standard_normal((1, 5, 5, 32), dtype=np.float32), 0)
by_package = block(Tensor(x)).numpy()
agree("step by step against the package", abs(run_bottleneck(x, block) - by_package).max(), 0, tolerance=1e-4)
block.conv3.norm.weight[:] = block.conv3.norm.bias[:] = block.conv3.norm.running_mean[:] = 0
agree("a block with nothing to add changes nothing", abs(block(Tensor(x)).numpy() - x).max(), 0)
# The first block of each stage but the first halves the map (stride 2, in the 3x3) and doubles the channels; that of
# the first keeps the size, which the pooling has halved, and goes from 64 to 256 channels. Its shortcut is a 1x1
# convolution that makes the same change. (The paper had the stride in the first 1x1. The published weights, those of
# torchvision's model, trained on the photos of COCO, which the package can load, have it in the 3x3.)

# %% C2 to C5
section("C2 to C5")

# ResNet-50: a 7x7 convolution with stride 2 (C1), a 3x3 max pooling with stride 2 (the largest number under the
# window), then four stages of 3, 4, 6 and 3 bottlenecks. The last map of each stage is C2, C3, C4, C5. Their strides,
# the pixels from one cell to the next, are 4, 8, 16 and 32.
picture = Shapes(1, seed=7)[0][0]  # (128, 128, 3) uint8
# These numbers bring ImageNet's photos (1.3 million, on which ResNets learn first) to a mean of 0 and a deviation of 1.
pixels = (picture[None] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]  # red, green, blue
body = ResNet("resnet50", norm=FrozenBatchNorm2d, generator=np.random.default_rng(5))
with no_grad():
    maps = [level.numpy() for level in body(Tensor(pixels.astype(np.float32)))]
agree("sides of C2 to C5", [level.shape[1] for level in maps], [32, 16, 8, 4])
agree("strides", [128 // level.shape[1] for level in maps], [4, 8, 16, 32])
agree("channels", [level.shape[3] for level in maps], [256, 512, 1024, 2048])
# Why is there no C1 in what follows? Memory: at 800x1216 pixels, a pyramid level of 256 channels at stride 2 would take
agree("MB at stride 2, and at stride 4", [400 * 608 * 256 * 4 / 1e6, 200 * 304 * 256 * 4 / 1e6], [249.0368, 62.2592])

# The weights are random, so the maps mean nothing yet. But they show what no training changes: which cell lies where.
# (The dark rims come from the zeros of the padding.)
figure, axes = plt.subplots(1, 5, figsize=(14, 3.0))
axes[0].imshow(picture)
axes[0].set(title="picture, 128x128", xlabel="x in pixels", ylabel="y in pixels")
for number, (axis, level) in enumerate(zip(axes[1:], maps, strict=True), 2):
    channel = level[0].std(axis=(0, 1)).argmax()  # the liveliest
    axis.imshow(level[0, :, :, channel], cmap=HEAT, extent=(0, 128, 128, 0))
    side = level.shape[1]
    axis.set(title=f"C{number}: {side}x{side}, stride {128 // side}", xlabel="x in pixels")
for axis in axes:
    axis.set(xticks=[0, 64, 128], yticks=[0, 64, 128])
save(figure, "04_maps")

# %% What a cell can see
section("The receptive field")

# A cell of a 3x3 layer sees three cells a side of the map before. Each layer adds (kernel - 1) times the stride so far.


def count_field(blocks):
    side, stride = 1 + (7 - 1), 2  # the 7x7 with stride 2
    side, stride = side + (3 - 1) * stride, 4  # the pooling, stride 2
    fields = []
    for stage, number in enumerate(blocks):
        for block in range(number):
            side += (3 - 1) * stride  # 1x1 convolutions add nothing
            if stage > 0 and block == 0:
                stride *= 2  # after the first 3x3 of the stages that end in C3, C4 and C5
        fields.append(side)
    return fields


agree("receptive fields of C2 to C5, in pixels a side", count_field((3, 4, 6, 3)), [35, 91, 267, 427])

# The gradient (lesson 3) shows it: make a cell's numbers a loss, and see which pixels have a gradient.
# Winograd's sums (lesson 2) mix neighbors and cancel them again but for rounding, so "has a gradient" means more than
# 1e-12 of the largest, and the network is brought to float64.
for module in body.modules():
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            value.data, value.requires_grad = value.data.astype(float), False  # only the pixels' gradient is wanted
        elif isinstance(value, np.ndarray):
            setattr(module, name, value.astype(float))
looked = []
for stages, field in ((1, 35), (2, 91), (3, 267)):
    pixels = Tensor(generator.standard_normal((1, 288, 288, 3)), requires_grad=True)
    y = max_pool2d(body.stem(pixels, relu=True), 3, 2, 1)
    for stage in body.stages[:stages]:
        y = stage(y)
    middle = y.shape[1] // 2
    (y[0, middle, middle] * generator.standard_normal(y.shape[3])).sum().backward()
    strength = abs(pixels.grad[0]).sum(axis=2)  # (288, 288)
    rows, columns = np.nonzero(strength > 1e-12 * strength.max())
    (top, left), (bottom, right) = (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)
    agree(f"C{stages + 1}: pixels with a gradient, a side", [bottom - top, right - left], [field, field])
    quarter = field // 4
    inner = strength[top + quarter : bottom - quarter, left + quarter : right - quarter]  # half the side
    print(f"  the middle quarter of its area has {inner.sum() / strength.sum():.0%} of the gradient")
    looked.append((f"C{stages + 1}", strength, (left, top, right, bottom)))

figure, axes = plt.subplots(1, 3, figsize=(12, 4.2))
for axis, (name, strength, box) in zip(axes, looked, strict=True):
    image = axis.imshow(strength / strength.max(), cmap=HEAT, extent=(0, 288, 288, 0), vmin=0, vmax=0.5)
    draw_box(axis, box, color=ORANGE)
    axis.set(title=f"middle cell of {name} sees {box[2] - box[0]} pixels a side", xlabel="x in pixels")
axes[0].set(ylabel="y in pixels")
figure.colorbar(image, ax=axes, shrink=0.8, label="gradient, as a share of the largest")
save(figure, "04_field")

# %% Counting parameters
section("Parameters")

# As a classifier, ResNet ends with the mean over C5's cells and a fully connected layer (every output has a weight for
# every input: a matrix; lesson 12 has more of them) to ImageNet's 1000 classes.
# ResNeXt's 3x3 is wider but falls into 32 groups of channels that do not see each other, so all of them together have a
# 32nd of the weights of one undivided 3x3 of that width.


def count_parameters(blocks, groups, group_channels):
    total, channels_in = 7 * 7 * 3 * 64 + 2 * 64, 64  # the stem; a normalization has a weight and a bias a channel
    for stage, number in enumerate(blocks):
        width, channels_out = groups * group_channels * 2**stage, 256 * 2**stage
        for block in range(number):
            total += channels_in * width + 9 * width * width // groups + width * channels_out  # 1x1, 3x3, 1x1
            total += 2 * (2 * width + channels_out)  # their normalizations
            total += channels_in * channels_out + 2 * channels_out if block == 0 else 0  # the shortcut's convolution
            channels_in = channels_out
    return total + 2048 * 1000 + 1000  # the classifier


for name, expected in (
    ("resnet50", 25557032), ("resnet101", 44549160), ("resnext50_32x4d", 25028904), ("resnext101_32x8d", 88791336),
):  # fmt: skip
    agree(f"{name}, by the formula", count_parameters(*ARCHITECTURES[name][1:]), expected)
arrays = ResNet("resnet50", norm=BatchNorm2d, generator=generator).parameters()
agree("resnet50, by the package", sum(array.size for array in arrays) + 2048 * 1000 + 1000, 25557032)
frozen = sum(parameter.size for parameter in body.parameters())
agree("ResNet-50 without classifier, normalizations frozen, as in Mask R-CNN", frozen, 23454912)

stages = [sum(parameter.size for parameter in stage.parameters()) for stage in body.stages]
print("of these in C2 to C5:", stages, "- the weights are where the maps are small")

# %% Exercises
# 1. By hand: fold mean 2, variance 9, weight 6, bias 5 (eps 0) into scale and shift.
answer = None
assert answer is None or answer == (2, 1)

# 2. What does a cell of C2 see in ResNet-18, whose first stage has two blocks of two 3x3 convolutions? (43 pixels a
#    side: 11 after the pooling, then four times 2 * 4. Check it with ResNet("resnet18", ...) and the gradient.)

# 3. Why does `draw_statistics` draw variances above 0, and what is eps for? Set a running_var to 0 and look at
#    `scale_and_shift`. (The scale is the weight / sqrt(1e-5): large, but finite: 316.23 times the weight.)
