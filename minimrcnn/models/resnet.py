"""ResNet: the bottom-up way, from pixels to C2, C3, C4 and C5 at strides 4, 8, 16 and 32.

A residual block adds what it computes to what it was given, so that a block that has nothing to add does no harm.
ResNet-18 and 34 stack blocks of two 3x3 convolutions; ResNet-50 stacks bottlenecks, 1x1 down to a quarter of the
channels, 3x3, 1x1 back up, with the stride in the 3x3 as in the published torchvision weights (the paper had it in the
first 1x1).

Source: He et al. 2016, Deep Residual Learning for Image Recognition, table 1 and figure 5.
"""

from __future__ import annotations

from minimrcnn.functional import max_pool2d
from minimrcnn.nn import ConvNorm, Module, Sequential


class BasicBlock(Module):
    """Two 3x3 convolutions: (N, H, W, Cin) -> (N, H / stride, W / stride, channels)."""

    expansion = 1

    def __init__(self, channels_in, channels, stride, *, norm, generator):
        self.conv1 = ConvNorm(channels_in, channels, 3, stride, norm=norm, generator=generator)
        self.conv2 = ConvNorm(channels, channels, 3, norm=norm, generator=generator)
        self.shortcut = make_shortcut(channels_in, channels, stride, norm, generator)

    def forward(self, x):
        residual = self.shortcut(x) if self.shortcut else x
        return self.conv2(self.conv1(x, relu=True), residual=residual, relu=True)


class Bottleneck(Module):
    """1x1 down, 3x3, 1x1 up: (N, H, W, Cin) -> (N, H / stride, W / stride, 4 channels)."""

    expansion = 4

    def __init__(self, channels_in, channels, stride, *, norm, generator):
        self.conv1 = ConvNorm(channels_in, channels, 1, norm=norm, generator=generator)
        self.conv2 = ConvNorm(channels, channels, 3, stride, norm=norm, generator=generator)
        self.conv3 = ConvNorm(channels, 4 * channels, 1, norm=norm, generator=generator)
        self.shortcut = make_shortcut(channels_in, 4 * channels, stride, norm, generator)

    def forward(self, x):
        residual = self.shortcut(x) if self.shortcut else x
        return self.conv3(self.conv2(self.conv1(x, relu=True), relu=True), residual=residual, relu=True)


def make_shortcut(channels_in, channels_out, stride, norm, generator):
    """A 1x1 convolution where the block changes the shape, else None: the block's input itself."""
    if stride == 1 and channels_in == channels_out:
        return None
    return ConvNorm(channels_in, channels_out, 1, stride, norm=norm, generator=generator)


ARCHITECTURES = {  # block, blocks in each of the four stages
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}


class ResNet(Module):
    """Pixels (N, H, W, 3) -> [C2, C3, C4, C5], of C, 2C, 4C and 8C channels (C = 64, or 256 with bottlenecks).

    Parameters
    ----------
    name : {"resnet18", "resnet34", "resnet50"}
    norm : callable
        ``norm(channels)`` makes a normalization.
    generator : numpy Generator
        For the initial weights.
    """

    def __init__(self, name, *, norm, generator):
        block, depths = ARCHITECTURES[name]
        self.stem = ConvNorm(3, 64, 7, 2, norm=norm, generator=generator)
        self.stages, self.channels = [], []
        channels_in = 64
        for stage, depth in enumerate(depths):
            channels = 64 * 2**stage
            blocks = []
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(block(channels_in, channels, stride, norm=norm, generator=generator))
                channels_in = channels * block.expansion
            self.stages.append(Sequential(*blocks))
            self.channels.append(channels_in)

    def forward(self, pixels):
        x = self.stem(pixels, relu=True)  # (N, H/2, W/2, 64): C1, left out of the pyramid to save memory
        x = max_pool2d(x, 3, 2, 1)  # (N, H/4, W/4, 64)
        maps = []
        for stage in self.stages:
            x = stage(x)  # (N, H/4, W/4, C), then half the size and twice the channels with each
            maps.append(x)
        return maps
