"""The feature pyramid: the top-down way, which gives every level the knowledge of the coarser ones.

1. A 1x1 convolution brings each of C2 to C5 to the same number of channels (lateral; no activation).
2. From the top, every map is upsampled (nearest neighbor: simple, and nothing to learn) and added to the one below it.
3. A 3x3 convolution on every sum smooths what upsampling left jagged: P2 to P5.
4. P6, every second cell of P5, serves the largest anchors of the RPN and nobody else. (The article takes M5, the sum
   before its 3x3 convolution, instead of P5.)

Source: Lin et al. 2017, Feature Pyramid Networks for Object Detection, section 3.
"""

from __future__ import annotations

from minimrcnn.functional import max_pool2d, upsample_nearest
from minimrcnn.nn import Conv2d, ConvNorm, Module, uniform

STRIDES = (4, 8, 16, 32, 64)  # pixels per cell of P2 to P6


class Pyramid(Module):
    """[C2, C3, C4, C5] -> [P2, P3, P4, P5, P6], all (N, H / stride, W / stride, channels).

    Parameters
    ----------
    channels_in : sequence of int
        Of C2 to C5.
    channels : int
    p6 : {"p5", "m5"}
        What P6 is taken from.
    norm : callable or None
        ``norm(channels)`` makes a normalization; None leaves a bias instead, as the paper does.
    generator : numpy Generator
    initialize : callable
        The weights' initializer, as of `Conv2d`: by default that for layers without ReLU.
    """

    def __init__(self, channels_in, channels, p6="p5", *, norm, generator, initialize=uniform):
        def layer(count, kernel):
            if norm is not None:
                return ConvNorm(count, channels, kernel, norm=norm, generator=generator, initialize=initialize)
            return Conv2d(count, channels, kernel, padding=kernel // 2, generator=generator, initialize=initialize)

        self.p6 = p6
        self.lateral = [layer(count, 1) for count in channels_in]
        self.output = [layer(channels, 3) for _ in channels_in]

    def forward(self, maps):
        merged = top = self.lateral[-1](maps[-1])  # (N, H/32, W/32, C): M5
        levels = [self.output[-1](merged)]
        for number in reversed(range(len(maps) - 1)):
            above = upsample_nearest(merged, maps[number].shape[1:3])
            merged = self.lateral[number](maps[number], residual=above)  # M4, M3, M2
            levels.insert(0, self.output[number](merged))
        return [*levels, max_pool2d(top if self.p6 == "m5" else levels[-1], 1, 2)]  # P6: (N, H/64, W/64, C)
