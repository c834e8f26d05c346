"""What calls CUDA bodies, against the textbook: for a file of tests that says where the bodies run, `on_cuda`.

So a CPU body and a CUDA body with the same mistake are found out, and so is a caller that asks the GPU for the wrong
thing. `tests.test_cuda_simulator` runs them as Python, `tests.test_cuda_compiled` as they were compiled.
"""

from __future__ import annotations

import numpy as np
import pytest

from minimrcnn import functional, geometry, reference
from minimrcnn.functional import norm
from minimrcnn.kernels import nms
from minimrcnn.kernels import optimizer as optimizer_kernels
from minimrcnn.kernels.twin import Twin
from minimrcnn.tensor import Tensor, gradcheck
from minimrcnn.training import optimizer as optimizer_module
from minimrcnn.training.optimizer import SGD, AdamW, clip_gradients
from tests.reference_cases import relative_error
from tests.twin_arguments import BOXES, ROIS, draw_boxes


def launch_all(monkeypatch) -> set[str]:
    """Have whatever is called run its CUDA body. Gives the names of those that ran."""
    ran = set()

    def launch(self, *arguments):
        ran.add(self.name)
        self.launch(*arguments)

    monkeypatch.setattr(Twin, "__call__", launch)
    for module in (norm, optimizer_module):
        monkeypatch.setattr(module, "device_of", lambda array: "cuda")
    return ran


def normal(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward_and_backward(function, x):
    """(what the function makes of x, a gradient, what that becomes on its way back)"""
    leaf = Tensor(x, requires_grad=True)
    y = function(leaf)
    gradient = normal(*y.shape, seed=1)
    y.backward(gradient)
    return y.data, gradient, leaf.grad


USABLE = ROIS[(ROIS[:, 0] >= 0) & (ROIS[:, 0] < 2) & np.isfinite(ROIS).all(axis=1) & (np.abs(ROIS) < 1e6).all(axis=1)]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("mode, ratio, aligned", [("average", 2, False), ("average", 0, True), ("max", 0, True)])
@pytest.mark.parametrize("count", [0, len(USABLE)])
def test_roi_align(on_cuda, mode, ratio, aligned, deterministic, count):
    x, options = normal(2, 7, 6, 3), ((2, 3), 0.25, ratio, aligned, mode)
    y, gradient, x_gradient = forward_and_backward(
        lambda x: functional.roi_align(x, USABLE[:count], *options, deterministic=deterministic), x
    )
    assert np.allclose(y, reference.roi_align(x, USABLE[:count], *options), atol=2e-6)
    expected = reference.roi_align(x, USABLE[:count], *options, gradient=gradient)
    assert np.allclose(x_gradient, expected, atol=2e-6)
    assert on_cuda == {"roi_align", "roi_align_gradient_in_order" if deterministic else "roi_align_gradient"}


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("rule", ["caffe", "split", "floor"])
def test_roi_pool(on_cuda, rule, deterministic):
    x, options = np.random.default_rng(0).integers(-3, 4, (2, 7, 6, 3)).astype(np.float32), ((2, 3), 0.25, rule)
    y, gradient, x_gradient = forward_and_backward(
        lambda x: functional.roi_pool(x, USABLE, *options, deterministic=deterministic), x
    )
    assert np.array_equal(y, reference.roi_pool(x, USABLE, *options))
    assert np.allclose(x_gradient, reference.roi_pool(x, USABLE, *options, gradient=gradient), atol=2e-6)


def test_many_channels_share_a_warp(on_cuda):
    x, options = normal(1, 3, 2, 37), ((2, 1), 1.0, 2, False)
    rois = np.float32([[0, 0.2, 0.3, 1.9, 2.4]])
    _, gradient, x_gradient = forward_and_backward(
        lambda x: functional.roi_align(x, rois, *options, deterministic=True), x
    )
    assert np.allclose(x_gradient, reference.roi_align(x, rois, *options, gradient=gradient), atol=2e-6)


@pytest.mark.parametrize("shape", [(2, 7, 5, 3), (1, 1, 3, 1), (1, 3, 2, 2), (0, 4, 4, 2), (1, 4, 4, 0)])
@pytest.mark.parametrize("window", [(3, 2, 1), (1, 2, 0), (3, 1, 1)])
def test_max_pool(on_cuda, shape, window):
    x = np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)  # with ties
    y, gradient, x_gradient = forward_and_backward(lambda x: functional.max_pool2d(x, *window), x)
    assert np.array_equal(y, reference.max_pool2d(x, *window))
    assert np.allclose(x_gradient, reference.max_pool2d(x, *window, gradient=gradient), atol=1e-6)


@pytest.mark.parametrize("size, new_size", [((3, 4), (5, 9)), ((5, 7), (2, 3)), ((1, 2), (3, 1))])
@pytest.mark.parametrize("name", ["upsample_nearest", "resize_bilinear"])
def test_resize(on_cuda, name, size, new_size):
    x, direction = normal(2, *size, 3), normal(2, *size, 3, seed=2)
    y, gradient, x_gradient = forward_and_backward(lambda x: getattr(functional, name)(x, new_size), x)
    assert np.allclose(y, getattr(reference, name)(x, new_size), atol=1e-6)
    forth = np.vdot(getattr(reference, name)(direction, new_size), gradient)  # <A d, g> = <d, A' g>: A is linear
    assert np.vdot(direction.astype(float), x_gradient) == pytest.approx(forth, abs=1e-5)
    assert on_cuda == {"resize", "resize_gradient"}


@pytest.mark.parametrize("shape", [(2, 5, 3, 6), (1, 17, 16, 34), (0, 2, 2, 6), (2, 1, 1, 6)])
def test_group_norm(on_cuda, shape):
    """The mean is far larger than the deviation, which a plain sum of squares in float32 would not survive."""
    x, channels = 300 + normal(*shape), shape[3]
    scale, shift = normal(channels, seed=1), normal(channels, seed=2)
    y = functional.group_norm(x, 2, scale, shift, residual=x - 300, relu=True)
    expected = np.maximum(reference.group_norm(x, 2, scale, shift) + (x - 300), 0)
    groups = x.reshape(len(x), shape[1] * shape[2], 2, channels // 2)
    smallest = groups.std(axis=(1, 3)).min(initial=1)  # deviation of a group
    assert np.allclose(y.data, expected, atol=1e-4 / smallest * np.abs(scale).max())  # 300 is rounded to 3e-5
    assert on_cuda == {"channel_sums", "fold_sums", "scale_channels"}


@pytest.mark.parametrize("kind", ["group", "batch"])
def test_normalization_gradients(on_cuda, kind):
    arrays = [normal(*shape, seed=seed, dtype=np.float64) for seed, shape in enumerate([(2, 3, 2, 4), (4,), (4,)])]
    leaves = [Tensor(array, requires_grad=True) for array in (*arrays, normal(2, 3, 2, 4, seed=4, dtype=np.float64))]
    if kind == "group":
        gradcheck(lambda x, s, b, r: functional.group_norm(x, 2, s, b, residual=r, relu=True), *leaves, directions=1,
                  tolerance=1e-5)  # fmt: skip
    else:
        gradcheck(lambda x, s, b: functional.batch_norm(x, s, b)[0], *leaves[:3], directions=1)
    forward = {"channel_sums", "fold_sums", "scale_channels"}
    assert on_cuda == forward | {"fold_gradient_sums", "normalization_gradient"}


def test_relu_gradient(on_cuda):
    x = normal(2, 70)
    _, gradient, x_gradient = forward_and_backward(functional.relu, x)
    assert np.array_equal(x_gradient, np.where(x > 0, gradient, 0))


@pytest.mark.parametrize("count, leaders", [(0, 128), (1, 128), (40, 128), (150, 128)])
def test_nms(on_cuda, monkeypatch, count, leaders):
    monkeypatch.setattr(nms, "LEADERS", leaders)
    rng = np.random.default_rng(count)
    boxes, scores = draw_boxes(rng, count), rng.integers(0, 5, count).astype(np.float32)
    monkeypatch.setattr("minimrcnn.geometry.boxes.device_of", lambda array: "cuda")
    monkeypatch.setattr("minimrcnn.geometry.boxes.to_device", lambda array, device: array)
    assert np.array_equal(geometry.nms(boxes, scores, 0.4), reference.nms(boxes, scores, 0.4))
    assert on_cuda == {"nms_sort"} | ({"nms_compare", "nms_settle"} if count else set())


def test_nms_of_an_overlap_that_is_the_threshold(on_cuda, monkeypatch):
    monkeypatch.setattr("minimrcnn.geometry.boxes.device_of", lambda array: "cuda")
    monkeypatch.setattr("minimrcnn.geometry.boxes.to_device", lambda array, device: array)
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 9]])
    assert geometry.nms(boxes, np.float32([3, 2, 1]), 0.5).tolist() == [0, 1]


def test_box_iou(on_cuda):
    a, b = draw_boxes(np.random.default_rng(0), 7), draw_boxes(np.random.default_rng(1), 19)
    assert np.allclose(geometry.box_iou(a, b), reference.box_iou(a, b), atol=1e-6)
    assert on_cuda == {"box_iou"}


def test_masks(on_cuda):
    rng = np.random.default_rng(0)
    boxes = BOXES[np.isfinite(BOXES).all(axis=1)]
    masks = rng.random((len(boxes), 4, 4), np.float32)
    expected = reference.paste_masks(masks, boxes, (9, 11))
    assert np.allclose(geometry.paste_masks(masks, boxes, (9, 11)), expected, atol=1e-6)
    assert np.array_equal(geometry.paste_masks_bool(masks, boxes, (9, 11)), expected > 0.5)
    pictures, matched = rng.integers(0, 2, (3, 9, 11), np.uint8), rng.integers(0, 3, len(boxes))
    expected = reference.crop_masks(pictures, boxes, matched, 3)
    assert np.allclose(geometry.crop_masks(pictures, boxes, matched, 3), expected, atol=1e-6)
    assert on_cuda == {"paste_masks", "paste_masks_bool", "crop_masks"}


@pytest.mark.parametrize("size", [1, 259])
def test_optimizers(on_cuda, size):
    """The formulas at the top of `training.optimizer`, in float64."""
    start, gradients = normal(size, 1), normal(3, size, 1, seed=1)
    for kind in (SGD, AdamW):
        parameter = Tensor(start.copy(), requires_grad=True)
        optimizer = kind({"p": parameter}, weight_decay=0.1)
        p, u, a, s = start.astype(float), 0.0, 0.0, 0.0
        for t, gradient in enumerate(gradients, 1):
            parameter.grad, g = gradient, gradient.astype(float)
            optimizer.step(0.02)
            if kind is SGD:
                u = 0.9 * u + (g + 0.1 * p)
                p = p - 0.02 * u
            else:
                a, s = 0.9 * a + 0.1 * g, 0.999 * s + 0.001 * g * g
                p = p - 0.02 * 0.1 * p - 0.02 * (a / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
        assert relative_error(parameter.data, p) < 1e-6
    assert on_cuda == {"sgd", "adamw"}


@pytest.mark.parametrize("size", [1, 300, optimizer_kernels.SQUARES_BLOCK + 1])
def test_gradient_norm(on_cuda, size):
    parameter = Tensor(np.zeros(size, np.float32), requires_grad=True)
    parameter.grad = normal(size)
    assert clip_gradients([parameter], np.inf) == pytest.approx(np.linalg.norm(parameter.grad.astype(float)), rel=1e-6)
    assert on_cuda == {"square_sums"}
