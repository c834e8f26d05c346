"""VGG-16: thirteen 3x3 convolutions in five stages, and nothing else, from pixels to C2, C3, C4 and C5.

Each stage ends where a 2x2 max pooling halves the map. The last map of a stage is what the pyramid takes: conv3_3 at
stride 4 as C2, conv4_3 at 8 as C3, conv5_3 at 16 as C4; the last pooling, at 32, is C5. The three fully connected
layers that follow in the classifier, 124 of its 138 million parameters, are left out.

Source: Simonyan and Zisserman 2015, Very Deep Convolutional Networks for Large-Scale Image Recognition, table 1, D;
Ren et al. 2015, Faster R-CNN, section 3.1, took conv5_3 alone.
"""

from __future__ import annotations

from minimrcnn.functional import max_pool2d
from minimrcnn.nn import Conv2d, Module, Sequential

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # channels of every convolution
FIRST = 2  # the stage that C2 is taken from


class Stage(Sequential):
    """3x3 convolutions, each with ReLU: (N, H, W, Cin) -> (N, H, W, C)."""

    def forward(self, x):
        for conv in self.layers:
            x = conv(x, relu=True)
        return x


class VGG(Module):
    """Pixels (N, H, W, 3) -> [C2, C3, C4, C5], of 256, 512, 512 and 512 channels.

    Parameters
    ----------
    generator : numpy Generator
        For the initial weights.

    Attributes
    ----------
    channels : list of int
        Of every map.
    """

    def __init__(self, *, generator):
        self.stages, channels_in = [], 3
        for stage in STAGES:
            convs = []
            for channels in stage:
                convs.append(Conv2d(channels_in, channels, 3, padding=1, generator=generator))
                channels_in = channels
            self.stages.append(Stage(*convs))
        self.channels = [stage[-1] for stage in (*STAGES[FIRST:], STAGES[-1])]

    def forward(self, pixels):
        x, maps = pixels, []
        for number, stage in enumerate(self.stages):
            x = stage(x)  # (N, H, W, 64), then half the size with each
            if number >= FIRST:
                maps.append(x)
            x = max_pool2d(x, 2, 2)  # (N, H/2, W/2, C)
        return [*maps, x]
