"""Small arguments for every twin that has a CUDA body, so that tests can run both bodies, or compile them, by name."""

from __future__ import annotations

import numpy as np

from minimrcnn.kernels import (  # importing registers the twins
    box_iou,  # noqa: F401
    crop_masks,  # noqa: F401
    elementwise,  # noqa: F401
    nms,
    normalization,
    optimizer,
    paste_masks,  # noqa: F401
    pooling,  # noqa: F401
    resize,  # noqa: F401
    roi_align,
    roi_align_gradient,  # noqa: F401
    roi_pool,
)
from tests.convolution_twin_arguments import ARGUMENTS as OF_CONVOLUTION

# RoIs (image, x1, y1, x2, y2) inside, partly and wholly outside of a 7 x 6 map of cells of 4 pixels, of no area, upside
# down, of no such image, and broken.
ROIS = np.array(
    [
        [0, 2.5, 3.5, 17.3, 25.9],
        [1, -9, -7, 13, 11],
        [1, 20, 22, 60, 70],
        [0, 400, 400, 500, 500],
        [0, 8, 8, 8, 8],
        [1, 15, 15, 5, 5],
        [2, 1, 1, 9, 9],
        [-1, 1, 1, 9, 9],
        [np.nan, 1, 1, 9, 9],
        [0, np.nan, 1, 9, 9],
        [0, 1, 1, np.inf, 9],
        [0, -np.inf, 1, 9, 1e30],
        [0, 23.9, 27.9, 24.1, 28.1],
    ],
    np.float32,
)


def _roi_align(rng, ratio, aligned, use_max, images=2):
    features = rng.standard_normal((images, 7, 6, 3)).astype(np.float32)
    output = np.full((len(ROIS), 2, 3, 3), 7, np.float32)
    winner = np.zeros(output.shape if use_max else (0, 0, 0, 0), np.int32)
    return features, ROIS, 0.25, ratio, aligned, use_max, winner, output


def _roi_align_gradient(rng, ratio, aligned, use_max):
    features, _, scale, *_, winner, output = _roi_align(rng, ratio, aligned, use_max)
    if use_max:
        roi_align.roi_align_cpu(features, ROIS, scale, ratio, aligned, True, winner, output)
    gradient = rng.standard_normal(output.shape).astype(np.float32)
    return gradient, winner, ROIS, scale, ratio, aligned, use_max, np.full_like(features, 7)


def _roi_align_gradient_of_many(rng):
    """More RoIs than a block of CUDA threads looks at in one turn."""
    corners, sides = rng.uniform(0, 2, (150, 2)), rng.uniform(0.1, 1, (150, 2))
    rois = np.concatenate([np.zeros((150, 1)), corners, corners + sides], axis=1).astype(np.float32)
    winner = np.zeros((0, 0, 0, 0), np.int32)
    return normal(rng, 150, 1, 1, 3), winner, rois, 1.0, 1, True, False, unset(1, 2, 3, 3)


def _roi_pool(rng, rule):
    features = rng.standard_normal((2, 7, 6, 3)).astype(np.float32)
    output = np.full((len(ROIS), 2, 3, 3), 7, np.float32)
    return features, ROIS, 0.25, rule, np.zeros(output.shape, np.int32), output


def _roi_pool_gradient(rng, rule):
    features, _, scale, _, winner, output = arguments = _roi_pool(rng, rule)
    roi_pool.roi_pool_cpu(*arguments)
    gradient = rng.standard_normal(output.shape).astype(np.float32)
    return gradient, winner, ROIS, scale, rule, np.full_like(features, 7)


def draw_boxes(rng, count, size=100.0):
    """`count` boxes (P, 4) float32 in a picture of `size` pixels, some the same."""
    corner = rng.uniform(0, size, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, size / 2, (count, 2))], axis=1).astype(np.float32)
    boxes[count // 2 :] = boxes[: count - count // 2][rng.permutation(count - count // 2)]
    return boxes


def _box_iou(rng):
    return draw_boxes(rng, 7), draw_boxes(rng, 5), np.full((7, 5), 7, np.float32)


def _nms_sort(rng, count):
    """Few different scores, infinite ones and some that are no numbers."""
    scores = rng.choice(np.array([0.5, -1, 0.0, -0.0, 3e38, np.inf, -np.inf, np.nan], np.float32), count)
    return draw_boxes(rng, count), scores, np.full(count, 7, np.int64), np.full((4, count), 7, np.float32)


def _nms_compare(rng, count, first):
    boxes = np.ascontiguousarray(draw_boxes(rng, count).T)
    return boxes, 0.3, first, np.full((min(count - first, 70), -(-count // nms.BITS)), 7, np.uint64)


def _nms_settle(rng, count, leaders, first):
    """Rows of bits with every 16th set, of later boxes only; some boxes are out already, two earlier ones stay."""
    words = -(-count // nms.BITS)
    suppresses = rng.integers(0, 2**63, (4, leaders, words), np.uint64)
    suppresses = suppresses[0] & suppresses[1] & suppresses[2] & suppresses[3]
    for i, row in enumerate(suppresses, first):
        row[: i // nms.BITS] = 0
        row[i // nms.BITS] &= ~np.uint64(2 ** (i % nms.BITS + 1) - 1)
    gone = rng.integers(0, 2**63, (2, words), np.uint64)
    kept = np.zeros(1 + count, np.int64)
    kept[0] = 2 if first else 0
    return suppresses, rng.permutation(count), first, gone[0] & gone[1], kept


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def unset(*shape):
    """An output to be filled."""
    return np.full(shape, 7, np.float32)


def _relu_gradient(rng):
    y = np.maximum(normal(rng, 259), 0)
    y[5] = np.nan
    return normal(rng, 259), y, unset(259)


def _max_pool(rng, kernel, stride, padding):
    x = rng.integers(-3, 4, (2, 7, 5, 3)).astype(np.float32)  # with ties
    x[0, 2:4, 3] = np.nan
    x[1, :3, :3, 2] = -np.inf  # windows of nothing else, also at the border
    size = [(side + 2 * padding - kernel) // stride + 1 for side in x.shape[1:3]]
    return x, kernel, stride, padding, np.full((2, *size, 3), 99, np.uint8), unset(2, *size, 3)


def _max_pool_gradient(rng, *window):
    x, kernel, *_, taps, y = _max_pool(rng, *window)
    taps[:] = rng.integers(0, kernel * kernel, taps.shape)
    return normal(rng, *y.shape), taps, *window, unset(*x.shape)


# How 5 places come from 3 (low, high, part), and 2 from 4; nothing of the third of four is read.
STRETCHED = np.array([0, 0, 1, 1, 2]), np.array([1, 1, 2, 2, 2]), np.float32([0, 0.6, 0.2, 0.8, 0])
SHRUNK = np.array([0, 3]), np.array([1, 3]), np.float32([0.5, 0])


def _resize(rng):
    x = normal(rng, 2, 3, 4, 3)
    x[0, 1, 3, 0] = np.inf  # must not get into what takes nothing of it
    return x, *STRETCHED, *SHRUNK, unset(2, 5, 2, 3)


def _resize_gradient(rng):
    axes = []
    for (low, high, part), side in ((STRETCHED, 3), (SHRUNK, 4)):
        places = np.arange(side)
        axes += [low, high, part, np.searchsorted(high, places, "left"), np.searchsorted(low, places, "right")]
    return normal(rng, 2, 5, 2, 3), *axes, unset(2, 3, 4, 3)


NOTHING = np.zeros((0, 0, 0), np.float32)


def _channel_sums(rng, backward, relu, positions=normalization.PIECE + 5, channels=35):
    shape = 2, positions, channels
    gradient, y = (normal(rng, *shape) if used else NOTHING for used in (backward, relu))
    terms = normalization.count_terms(positions)
    return normal(rng, *shape), gradient, y, backward, relu, unset(2, terms, 2, channels)


def _scale_channels(rng, has_residual, relu):
    x = normal(rng, 2, 7, 5)
    x[0, 0, 0] = np.nan
    residual = normal(rng, *x.shape) if has_residual else NOTHING
    return x, normal(rng, 2, 5), normal(rng, 2, 5), residual, relu, unset(*x.shape)


def _normalization_gradient(rng, has_residual, relu):
    x, gradient, y = normal(rng, 3, 2, 7, 5)
    factors = normal(rng, 3, 2, 5)
    residual_gradient = unset(*x.shape) if has_residual else NOTHING
    return x, gradient, y if relu else NOTHING, relu, *factors, residual_gradient, unset(*x.shape)


def _fold_statistics(rng):
    return normal(rng, 5), normal(rng, 5), normal(rng, 5), normal(rng, 5) ** 2, 1e-5, unset(2, 5)


def _fold_sums(rng, groups):
    sums = normal(rng, 3, 2, 6).astype(np.float64)
    sums[:, 1] = 10 + sums[:, 1] ** 2
    sums[1, :, 0] = np.nan
    sums[2, 1] = 0  # less than the square of the mean
    statistics = unset(3, 3, 6).astype(np.float64)
    return sums, 7 * 6 // groups, groups, 1e-5, normal(rng, 6), normal(rng, 6), statistics, unset(2, 3, 6)


def _fold_gradient_sums(rng, groups):
    sums, statistics = normal(rng, 3, 2, 6).astype(np.float64), normal(rng, 3, 3, 6).astype(np.float64)
    statistics = np.repeat(statistics[..., :groups], 6 // groups, axis=2)
    gradients = unset(3, 6).astype(np.float64)
    return sums, 7 * 6 // groups, groups, normal(rng, 6), statistics, gradients, unset(3, 3, 6)


def _sgd(rng):
    return normal(rng, 259), 0.02, 0.9, 1e-4, normal(rng, 259), normal(rng, 259)


def _adamw(rng):
    settings = 0.999, 0.01, 3.0, 1e-8, 0.9, 1 - 0.9, 0.999, 1 - 0.999
    return normal(rng, 259), *settings, normal(rng, 259), normal(rng, 259) ** 2, normal(rng, 259)


def _square_sums(rng):
    return normal(rng, optimizer.SQUARES_BLOCK + 259), unset(2)


# Boxes inside, partly and wholly outside of a picture of 9 x 11, of no area, upside down, and broken.
BOXES = np.array(
    [
        [2.3, 1.2, 8.9, 7.7],
        [-3, -2, 4, 5.5],
        [7, 6, 30, 20],
        [40, 40, 50, 50],
        [5, 5, 5, 5],
        [6, 6, 3, 2],
        [np.nan, 1, 5, 5],
        [0, 0, np.inf, 5],
        [0, 0, 11, 9],
    ],
    np.float32,
)


def _paste_masks(rng):
    return rng.random((len(BOXES), 4, 4), np.float32), BOXES, np.zeros((len(BOXES), 9, 11), np.float32)


def _paste_masks_bool(rng):
    masks, boxes, output = _paste_masks(rng)
    return masks, boxes, 0.5, output.astype(np.bool_)


def _crop_masks(rng):
    masks = rng.integers(0, 2, (3, 9, 11), np.uint8)
    return masks, BOXES, rng.integers(0, 3, len(BOXES)), unset(len(BOXES), 3, 3)


WINDOWS = (3, 2, 1), (2, 2, 0), (3, 1, 1)
FUSED = (True, True), (False, True), (True, False)  # residual, ReLU
ALIGN = (2, False, False), (0, True, False), (0, True, True)  # sampling ratio, aligned, maximum


def each(make, *cases):
    """One maker for each of the cases."""
    return [lambda rng, case=case: make(rng, *case) for case in cases]


# name -> how to make each of its argument lists from a generator
ARGUMENTS = {
    "roi_align": each(_roi_align, *ALIGN),
    "roi_align_gradient": each(_roi_align_gradient, *ALIGN),
    "roi_align_gradient_in_order": [*each(_roi_align_gradient, *ALIGN), _roi_align_gradient_of_many],
    "roi_pool": each(_roi_pool, (0,), (1,), (2,)),
    "roi_pool_gradient": each(_roi_pool_gradient, (0,), (1,), (2,)),
    "roi_pool_gradient_in_order": each(_roi_pool_gradient, (0,), (1,), (2,)),
    "box_iou": [_box_iou],
    "nms_sort": each(_nms_sort, (1,), (150,)),
    "nms_compare": each(_nms_compare, (150, 0), (37, 0), (150, 128)),
    "nms_settle": each(_nms_settle, (150, 150, 0), (37, 37, 0), (200, 72, 128), (5000, 64, 0)),
    "relu_gradient": [_relu_gradient],
    "max_pool": each(_max_pool, *WINDOWS),
    "max_pool_gradient": each(_max_pool_gradient, *WINDOWS),
    "resize": [_resize],
    "resize_gradient": [_resize_gradient],
    "channel_sums": each(_channel_sums, (False, False), (True, True), (True, False, 3, 2)),
    "scale_channels": each(_scale_channels, *FUSED),
    "normalization_gradient": each(_normalization_gradient, *FUSED),
    "fold_statistics": [_fold_statistics],
    "fold_sums": each(_fold_sums, (2,), (6,)),
    "fold_gradient_sums": each(_fold_gradient_sums, (2,), (6,)),
    "sgd": [_sgd],
    "adamw": [_adamw],
    "square_sums": [_square_sums],
    "paste_masks": [_paste_masks],
    "paste_masks_bool": [_paste_masks_bool],
    "crop_masks": [_crop_masks],
    **OF_CONVOLUTION,
}
