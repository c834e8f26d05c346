"""Small arguments for the twins of a convolution on a GPU, and for those that the benchmarks compare them with.

Outputs are full of sevens, so that a number that was not written is seen.
"""

from __future__ import annotations

import numpy as np

from minimrcnn.kernels import (  # importing registers the twins
    direct_convolution,  # noqa: F401
    epilogue,  # noqa: F401
    matmul_tiled,  # noqa: F401
    narrow_groups,  # noqa: F401
    patches,  # noqa: F401
    winograd_transforms,  # noqa: F401
)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def sevens(*shape):
    return np.full(shape, 7, np.float32)


def _gather(rng, kernel_size, stride, padding, groups, first, rows):
    x = normal(rng, 2, 7, 6, 4)
    size = tuple((side + 2 * padding - kernel) // stride + 1 for side, kernel in zip((7, 6), kernel_size, strict=True))
    output = sevens(groups, rows, kernel_size[0] * kernel_size[1] * 4 // groups)
    return x, first, kernel_size, stride, padding, size, output


def _scatter(rng, kernel_size, stride, padding, groups, relu):
    """All lines of the second picture, from the output positions of that picture."""
    *_, size, rows = _gather(rng, kernel_size, stride, padding, groups, 0, 1)
    given = normal(rng, groups, size[0] * size[1], rows.shape[2])
    bias = normal(rng, 4) if relu else sevens(0)
    return given, size[0] * size[1], kernel_size, stride, padding, size, 7, 7, bias, relu, sevens(7, 6, 4)


def _epilogue(rng, groups, is_full):
    bias, residual = (normal(rng, 6), normal(rng, 5, 6)) if is_full else (sevens(0), sevens(0, 0))
    product = normal(rng, groups, 5, 6 // groups)
    product[0, 1, 1] = np.nan
    return product, bias, residual, is_full, sevens(5, 6)


def _transform_input(rng, transposed):
    components = sevens(36, 3, 5) if transposed else sevens(36, 5, 3)
    return normal(rng, 2, 7, 6, 3), 1, 1, 2, 2, components.swapaxes(1, 2) if transposed else components


def _transform_output(rng, is_full):
    """Tiles 2 to 6 of 8: what they do not cover stays."""
    shape = 2, 7, 6, 3
    bias, residual = (normal(rng, 3), normal(rng, *shape)) if is_full else (sevens(0), sevens(0, 0, 0, 0))
    return normal(rng, 36, 5, 3), 2, bias, residual, is_full, sevens(*shape)


def _transform_kernel(rng, turned):
    return normal(rng, 3, 3, 2, 3), turned, sevens(36, 3, 2) if turned else sevens(36, 2, 3)


def _direct(rng, stride, padding):
    size = [(side + 2 * padding - 3) // stride + 1 for side in (7, 6)]
    return normal(rng, 2, 7, 6, 3), normal(rng, 3, 3, 3, 4), stride, padding, sevens(2, *size, 4)


def _narrow_groups(rng, kernel, channels_in, stride, padding, is_full):
    """Lines that no four places divide; with a padding of 3, some see nothing of the map."""
    size = [(side + 2 * padding - taps) // stride + 1 for side, taps in zip((7, 6), kernel[:2], strict=True)]
    shape = 2, *size, kernel[3]
    bias, residual = (normal(rng, kernel[3]), normal(rng, *shape)) if is_full else (sevens(0), sevens(0, 0, 0, 0))
    x = normal(rng, 2, 7, 6, channels_in)
    x[1, 3, 2, 1] = np.nan
    return x, normal(rng, *kernel), bias, residual, is_full, stride, padding, sevens(*shape)


def _matmul(rng, rows, inner, columns):
    """Sizes that no tile divides."""
    return normal(rng, rows, inner), normal(rng, inner, columns), sevens(rows, columns)


ARGUMENTS = {
    "gather_patches": [
        lambda rng, a=a: _gather(rng, *a)
        for a in [((3, 3), 1, 1, 1, 0, 84), ((3, 2), 2, 0, 2, 7, 9), ((1, 1), 2, 0, 1, 3, 5), ((5, 5), 3, 2, 4, 2, 3)]
    ],
    "scatter_patches": [
        lambda rng, a=a: _scatter(rng, *a)
        for a in [((3, 3), 1, 1, 1, False), ((3, 2), 2, 0, 2, True), ((1, 1), 2, 0, 1, False), ((5, 5), 3, 2, 4, True)]
    ],
    "epilogue": [lambda rng, a=a: _epilogue(rng, *a) for a in [(1, True), (2, True), (3, False)]],
    "winograd_transform_input": [lambda rng, t=t: _transform_input(rng, t) for t in (False, True)],
    "winograd_transform_gradient": [lambda rng: (normal(rng, 2, 7, 6, 3), 3, sevens(36, 5, 3))],
    "winograd_transform_output": [lambda rng, f=f: _transform_output(rng, f) for f in (True, False)],
    "winograd_transform_kernel": [lambda rng, t=t: _transform_kernel(rng, t) for t in (False, True)],
    "winograd_transform_kernel_back": [lambda rng: (normal(rng, 36, 2, 3), sevens(3, 3, 2, 3))],
    "direct_convolution": [lambda rng, a=a: _direct(rng, *a) for a in [(1, 1), (2, 0)]],
    "convolve_narrow_groups": [
        lambda rng, a=a: _narrow_groups(rng, *a)
        for a in [
            ((3, 3, 4, 8), 8, 1, 1, True),
            ((3, 2, 8, 6), 16, 2, 0, False),
            ((2, 3, 16, 2), 32, 1, 3, True),
            ((1, 1, 4, 9), 12, 2, 0, False),
        ]
    ],
    "matmul_simple": [lambda rng: _matmul(rng, 5, 7, 6)],
    "matmul_tiled": [lambda rng: _matmul(rng, 18, 19, 17), lambda rng: _matmul(rng, 3, 40, 2)],
    "matmul_blocked": [lambda rng: _matmul(rng, 66, 17, 5)],
}


def _components_first(components, *_):
    return components[0].size


def _components_last(*arguments):
    return arguments[-1][0].size


# How many threads a kernel needs for its arguments, where it is not one for each number of the output.
THREADS = {
    "gather_patches": lambda *a: (
        a[-1].shape[0] * -(-a[-1].shape[1] // 4) * a[-1].shape[2] // (1 if a[0].shape[3] // a[-1].shape[0] % 4 else 4)
    ),
    "scatter_patches": lambda *a: a[-1].shape[0] * a[-1].shape[1] * min(-(-a[-1].shape[2] // 4), 32),
    "epilogue": lambda *a: -(-a[-1].shape[0] // 4) * a[-1].shape[1],
    "convolve_narrow_groups": lambda *a: a[-1].shape[0] * a[-1].shape[1] * -(-a[-1].shape[2] // 4) * a[-1].shape[3],
    "winograd_transform_input": _components_last,
    "winograd_transform_gradient": _components_last,
    "winograd_transform_kernel": _components_last,
    "winograd_transform_output": _components_first,
    "winograd_transform_kernel_back": _components_first,
    "matmul_tiled": lambda a, b, c: -(-len(c) // 16) * -(-c.shape[1] // 16) * 256,
    "matmul_blocked": lambda a, b, c: -(-len(c) // 64) * -(-c.shape[1] // 64) * 256,
}
