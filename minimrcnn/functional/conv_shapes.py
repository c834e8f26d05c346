"""What convolutions on CPU and GPU share: sizes, tiles, the algorithm that "auto" stands for, scales, turns."""

from __future__ import annotations

from minimrcnn.kernels.winograd import TILE

ALGORITHMS = ("auto", "pointwise", "winograd", "patches")


def output_size(size, kernel_size, stride, padding) -> tuple[int, int]:
    """(OH, OW) of a window of ``kernel_size`` that moves by ``stride`` over a padded map."""
    return tuple((side + 2 * padding - kernel) // stride + 1 for side, kernel in zip(size, kernel_size, strict=True))


def transposed_size(size, kernel_size, stride, padding) -> tuple[int, int]:
    """(OH, OW) of a transposed convolution: the map whose `output_size` is ``size``, the smallest there is."""
    return tuple((side - 1) * stride + kernel - 2 * padding for side, kernel in zip(size, kernel_size, strict=True))


def choose_algorithm(algorithm, weight_shape, stride, groups, count, size) -> str:
    """What "auto" stands for, and whether what was asked for can be had.

    Winograd's products have ``tiles`` rows, one for 16 outputs: it pays where there are enough to fill a product, and
    enough channels to make up for the transforms. Measured on 2 cores with AVX-512; on a GPU not yet.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"conv2d: algorithm {algorithm!r}, wanted one of {', '.join(ALGORITHMS)}")
    kernel_height, kernel_width, channels_in, channels_out = weight_shape
    can_pointwise = kernel_height == kernel_width == stride == groups == 1
    can_winograd = kernel_height == kernel_width == 3 and stride == 1 and groups == 1
    if algorithm == "auto":
        tiles = count_tiles((count, *size))
        pays = tiles >= 32 and channels_in >= 16 and channels_out >= 16
        return "winograd" if can_winograd and pays else "patches"
    if (algorithm == "pointwise" and not can_pointwise) or (algorithm == "winograd" and not can_winograd):
        raise ValueError(
            f'conv2d: algorithm "{algorithm}" cannot do a {kernel_height}x{kernel_width} kernel with stride {stride} '
            f'and {groups} groups; "patches" can'
        )
    return algorithm


def scaled(weight, scale):
    """The weight (KH, KW, Cin / groups, Cout) times the scale (Cout,), if there is one."""
    return weight if scale is None else weight * scale


def turn_kernel(weight, groups):
    """The kernel (KH, KW, Cout / groups, Cin) that carries the gradient of (KH, KW, Cin / groups, Cout) back."""
    kernel_height, kernel_width, group_in, channels = weight.shape
    turned = weight[::-1, ::-1].reshape(kernel_height, kernel_width, group_in, groups, channels // groups)
    return turned.transpose(0, 1, 4, 3, 2).reshape(kernel_height, kernel_width, channels // groups, groups * group_in)


def count_tiles(shape) -> int:
    count, height, width = shape
    return count * -(-height // TILE) * -(-width // TILE)
