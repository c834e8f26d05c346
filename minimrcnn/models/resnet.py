"""ResNet and ResNeXt: the bottom-up way, from pixels to C2, C3, C4 and C5 at strides 4, 8, 16 and 32.

A residual block adds what it computes to what it was given, so that a block that has nothing to add does no harm.
ResNet-18 and 34 stack blocks of two 3x3 convolutions; ResNet-50 stacks bottlenecks, 1x1 down to a quarter of the
channels, 3x3, 1x1 back up, with the stride in the 3x3 as in the published torchvision weights (the paper had it in the
first 1x1). ResNeXt widens the 3x3 convolution and cuts it into groups that do not see each other: 32x4d are 32 groups
of 4 channels in the first stage, twice as many channels in each one after it.

Source: He et al. 2016, Deep Residual Learning for Image Recognition, table 1 and figure 5; Xie et al. 2017, Aggregated
Residual Transformations for Deep Neural Networks, table 1 and figure 3c.
"""

from __future__ import annotations

from minimrcnn.functional import max_pool2d
from minimrcnn.nn import ConvNorm, Module, Sequential


class BasicBlock(Module):
    """Two 3x3 convolutions: (N, H, W, Cin) -> (N, H / stride, W / stride, channels)."""

    expansion = 1

    def __init__(self, channels_in, channels, stride, groups, base_width, *, norm, generator):
        self.conv1 = ConvNorm(channels_in, channels, 3, stride, norm=norm, generator=generator)
        self.conv2 = ConvNorm(channels, channels, 3, norm=norm, generator=generator)
        self.shortcut = make_shortcut(channels_in, channels, stride, norm, generator)

    def forward(self, x):
        residual = self.shortcut(x) if self.shortcut else x
        return self.conv2(self.conv1(x, relu=True), residual=residual, relu=True)


class Bottleneck(Module):
    """1x1 down, 3x3, 1x1 up: (N, H, W, Cin) -> (N, H / stride, W / stride, 4 channels).

    The 3x3 has ``groups`` groups, each of ``base_width`` / 64 of ``channels``.
    """

    expansion = 4

    def __init__(self, channels_in, channels, stride, groups, base_width, *, norm, generator):
        width = channels * base_width // 64 * groups
        self.conv1 = ConvNorm(channels_in, width, 1, norm=norm, generator=generator)
        self.conv2 = ConvNorm(width, width, 3, stride, groups, norm=norm, generator=generator)
        self.conv3 = ConvNorm(width, 4 * channels, 1, norm=norm, generator=generator)
        self.shortcut = make_shortcut(channels_in, 4 * channels, stride, norm, generator)

    def forward(self, x):
        residual = self.shortcut(x) if self.shortcut else x
        return self.conv3(self.conv2(self.conv1(x, relu=True), relu=True), residual=residual, relu=True)


def make_shortcut(channels_in, channels_out, stride, norm, generator):
    """A 1x1 convolution where the block changes the shape, else None: the block's input itself."""
    if stride == 1 and channels_in == channels_out:
        return None
    return ConvNorm(channels_in, channels_out, 1, stride, norm=norm, generator=generator)


ARCHITECTURES = {  # block, blocks in each of the four stages, groups of the 3x3, channels of a group in the first stage
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": (Bottleneck, (3, 4, 23, 3), 32, 8),
}


def count_channels(name, stage: int) -> int:
    """The channels that stage 0, 1, 2 or 3 (C2 to C5) gives; of stage -1, the stem's."""
    block = ARCHITECTURES[name][0]
    return 64 * 2**stage * block.expansion if stage >= 0 else 64


def make_stage(name, stage: int, *, norm, generator) -> Sequential:
    """The blocks of stage 0, 1, 2 or 3; from 1 on, the first halves the size."""
    block, depths, groups, base_width = ARCHITECTURES[name]
    channels_in, blocks = count_channels(name, stage - 1), []
    for number in range(depths[stage]):
        stride = 2 if stage > 0 and number == 0 else 1
        blocks.append(block(channels_in, 64 * 2**stage, stride, groups, base_width, norm=norm, generator=generator))
        channels_in = count_channels(name, stage)
    return Sequential(*blocks)


class ResNet(Module):
    """Pixels (N, H, W, 3) -> [C2, C3, C4, C5], of C, 2C, 4C and 8C channels (C = 64, or 256 with bottlenecks).

    Parameters
    ----------
    name : str
        One of `ARCHITECTURES`.
    depth : int
        The number of stages: 4 end with C5, 3 with C4.
    norm : callable
        ``norm(channels)`` makes a normalization.
    generator : numpy Generator
        For the initial weights.

    Attributes
    ----------
    channels : list of int
        Of every map.
    """

    def __init__(self, name, depth=4, *, norm, generator):
        self.stem = ConvNorm(3, 64, 7, 2, norm=norm, generator=generator)
        self.stages = [make_stage(name, stage, norm=norm, generator=generator) for stage in range(depth)]
        self.channels = [count_channels(name, stage) for stage in range(depth)]

    def forward(self, pixels):
        x = self.stem(pixels, relu=True)  # (N, H/2, W/2, 64): C1, left out of the pyramid to save memory
        x = max_pool2d(x, 3, 2, 1)  # (N, H/4, W/4, 64)
        maps = []
        for stage in self.stages:
            x = stage(x)  # (N, H/4, W/4, C), then half the size and twice the channels with each
            maps.append(x)
        return maps
