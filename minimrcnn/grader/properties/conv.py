"""What a convolution must do, channels last."""

from __future__ import annotations

import numpy as np

from minimrcnn import reference
from minimrcnn.grader.claims import agree, holds
from minimrcnn.grader.draws import cells, pick, whole


@holds(
    "conv2d", "answers", "(N, H - KH + 1, W - KW + 1, Cout) finite numbers",
    "One output for every place where the whole kernel fits; `bias` may be None.",
)  # fmt: skip
def conv2d_answers(conv2d, draw):
    images, height, width, channels = whole(draw, 1, 2), whole(draw, 3, 4), whole(draw, 3, 4), whole(draw, 1, 2)
    kernel = whole(draw, 1, 3), whole(draw, 1, 3)
    weight = np.ones((*kernel, channels, channels))
    conv2d(cells(draw, images, height, width, channels), weight, None, 1, 0)


@holds(
    "conv2d", "channels", "a kernel of 1 x 1 is a matrix (Cin, Cout) that every cell is multiplied by",
    "weight[i, j] is (Cin, Cout), input channels first: y = x @ weight[i, j], without a transpose.",
)  # fmt: skip
def conv2d_channels(conv2d, draw):
    x, weight = cells(draw, 1, 1, whole(draw, 1, 2), 2), cells(draw, 1, 1, 2, 2)
    agree(conv2d(x, weight, None, 1, 0), x @ weight[0, 0])


@holds(
    "conv2d", "not flipped", "a kernel of zeros with a single 1 copies the cell that lies under the 1",
    "weight[i, j] meets x[row + i, column + j]: the kernel is not turned around (as in mathematics), nor its axes "
    "exchanged.",
)  # fmt: skip
def conv2d_impulse(conv2d, draw):
    x, kernel = cells(draw, 1, 3, 4, 1), (whole(draw, 1, 3), whole(draw, 1, 3))
    i, j = whole(draw, 0, kernel[0] - 1), whole(draw, 0, kernel[1] - 1)
    weight = np.zeros((*kernel, 1, 1))
    weight[i, j] = 1
    rows, columns = 3 - kernel[0] + 1, 4 - kernel[1] + 1
    agree(conv2d(x, weight, None, 1, 0), x[:, i : i + rows, j : j + columns])


@holds(
    "conv2d", "bias", "the bias is added to every output once, each channel its own",
    "Add bias[channel] after the sum over the kernel, not in it.",
)  # fmt: skip
def conv2d_bias(conv2d, draw):
    x, weight, bias = cells(draw, 1, 3, 3, 1), cells(draw, 2, 2, 1, 2, high=2), cells(draw, 2)
    plain = conv2d(x, weight, None, 1, 0)
    agree(conv2d(x, weight, bias, 1, 0), plain + bias, "your own result without a bias, plus the bias")


@holds(
    "conv2d", "padding", "padding puts so many rows and columns of zeros around the map",
    "np.pad(x, ((0, 0), (p, p), (p, p), (0, 0))), zeros, on all four sides.",
)  # fmt: skip
def conv2d_padding(conv2d, draw):
    x, weight, padding = cells(draw, 1, 2, 3, 1), cells(draw, 2, 2, 1, 1, high=2), whole(draw, 1, 2)
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    expected = conv2d(padded, weight, None, 1, 0)
    agree(conv2d(x, weight, None, 1, padding), expected, "your own result for the padded map")


@holds(
    "conv2d", "stride", "stride s gives every s-th row and column of what stride 1 gives",
    "Output (row, column) starts at x[row * stride, column * stride]; its size is (H - KH) // stride + 1.",
)  # fmt: skip
def conv2d_stride(conv2d, draw):
    x, stride = cells(draw, 1, whole(draw, 2, 5), whole(draw, 2, 5), 1), whole(draw, 2, 3)
    weight = cells(draw, 2, 2, 1, 1, high=2)
    expected = conv2d(x, weight, None, 1, 0)[:, ::stride, ::stride]
    agree(conv2d(x, weight, None, stride, 0), expected, "every s-th of your own result at stride 1")


@holds(
    "conv2d", "textbook", "anything: the textbook's values",
    "Sums may have fractions and be negative, and every picture has its own. Compare with minimrcnn.reference.conv2d.",
)  # fmt: skip
def conv2d_reference(conv2d, draw):
    images, channels, out = whole(draw, 1, 2), whole(draw, 1, 2), whole(draw, 1, 2)
    x = cells(draw, images, whole(draw, 3, 4), whole(draw, 3, 4), channels)
    weight = cells(draw, whole(draw, 1, 3), whole(draw, 1, 3), channels, out, low=-2, high=2) / 2
    rest = pick(draw, None, np.arange(out) + 1.0), whole(draw, 1, 3), whole(draw, 0, 2)
    agree(conv2d(x, weight, *rest), reference.conv2d(x, weight, *rest))
