"""Small arguments for every twin that has a CUDA body, so that tests can run both bodies, or compile them, by name."""

from __future__ import annotations

import numpy as np

from minimrcnn.kernels import box_iou, nms, roi_align, roi_pool  # noqa: F401  (importing registers the twins)
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
    features, _, scale, _, _, _, winner, output = arguments = _roi_align(rng, ratio, aligned, use_max)
    roi_align.roi_align(*arguments)
    gradient = rng.standard_normal(output.shape).astype(np.float32)
    return gradient, winner, ROIS, scale, ratio, aligned, use_max, np.zeros_like(features)


def _roi_pool(rng, rule):
    features = rng.standard_normal((2, 7, 6, 3)).astype(np.float32)
    output = np.full((len(ROIS), 2, 3, 3), 7, np.float32)
    return features, ROIS, 0.25, rule, np.zeros(output.shape, np.int32), output


def _roi_pool_gradient(rng, rule):
    features, _, scale, _, winner, output = arguments = _roi_pool(rng, rule)
    roi_pool.roi_pool(*arguments)
    gradient = rng.standard_normal(output.shape).astype(np.float32)
    return gradient, winner, ROIS, scale, rule, np.zeros_like(features)


def draw_boxes(rng, count, size=100.0):
    """`count` boxes (P, 4) float32 in a picture of `size` pixels, some the same."""
    corner = rng.uniform(0, size, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0, size / 2, (count, 2))], axis=1).astype(np.float32)
    boxes[count // 2 :] = boxes[: count - count // 2][rng.permutation(count - count // 2)]
    return boxes


def _box_iou(rng):
    return draw_boxes(rng, 7), draw_boxes(rng, 5), np.full((7, 5), 7, np.float32)


def _nms(rng, count):
    boxes = np.ascontiguousarray(draw_boxes(rng, count).T)
    return boxes, 0.3, 0, np.ones(boxes.shape[1], np.bool_)


# name -> how to make each of its argument lists from a generator
ARGUMENTS = {
    "roi_align": [lambda rng, a=a: _roi_align(rng, *a) for a in [(2, False, False), (0, True, False), (2, True, True)]],
    "roi_align_gradient": [
        lambda rng, a=a: _roi_align_gradient(rng, *a) for a in [(2, False, False), (0, True, False), (2, True, True)]
    ],
    "roi_pool": [lambda rng, rule=rule: _roi_pool(rng, rule) for rule in range(3)],
    "roi_pool_gradient": [lambda rng, rule=rule: _roi_pool_gradient(rng, rule) for rule in range(3)],
    "box_iou": [_box_iou],
    "nms_leaders": [lambda rng: _nms(rng, 12)],  # the simulator is slow to synchronize threads
    "nms_followers": [lambda rng: _nms(rng, nms.BLOCK + 9)],
    **OF_CONVOLUTION,
}
