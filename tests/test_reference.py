"""The textbook spellings give the numbers of the article, of the papers, and of torchvision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minimrcnn import reference
from minimrcnn.grader.draws import ARTICLE as MAP  # (1, 8, 8, 1)
from tests.reference_cases import cases, relative_error

ROI = [[0, 0, 3, 7, 8]]


@pytest.mark.parametrize(
    "rule, roi, expected",
    [
        ("split", ROI, [[0.85, 0.84], [0.97, 0.96]]),
        ("caffe", ROI, [[0.85, 0.96], [0.97, 0.91]]),
        ("caffe", [[0, 0, 3, 6, 7]], [[0.85, 0.96], [0.97, 0.96]]),
    ],
)
def test_roi_pooling_of_the_article(rule, roi, expected):
    assert np.allclose(reference.roi_pool(MAP, roi, (2, 2), 1.0, rule)[0, :, :, 0], expected)


def test_both_roundings_of_roi_pooling_lose_a_third():
    bins = reference.bin_cells(0, 665 / 32, 7, "floor")
    assert sum(map(len, bins)) == 14 and all(len(cells) == 2 for cells in bins)
    points = np.ravel(reference.sample_points(0, 665, 7, 1 / 32, 1, aligned=False))
    assert np.allclose(np.diff(points), 665 / 32 / 7)


@pytest.mark.parametrize(
    "ratio, aligned, mode, expected",
    [
        (1, False, "average", [[0.295625, 0.260625], [0.650625, 0.304375]]),
        (1, True, "average", [[0.566875, 0.239375], [0.510625, 0.285]]),
        (2, False, "average", [[0.366328, 0.550117], [0.459805, 0.375234]]),
        (2, True, "average", [[0.476953, 0.470977], [0.456914, 0.455234]]),
        (2, False, "max", [[0.581094, 0.813594], [0.588281, 0.55125]]),
        (2, True, "max", [[0.702813, 0.612344], [0.770313, 0.794063]]),
        (0, False, "average", [[0.372687, 0.489327], [0.474922, 0.409905]]),
        (0, True, "average", [[0.474449, 0.479466], [0.432595, 0.423446]]),
    ],
)
def test_roi_align_of_the_article(ratio, aligned, mode, expected):
    got = reference.roi_align(MAP, ROI, (2, 2), 1.0, ratio, aligned, mode)[0, :, :, 0]
    assert np.abs(got - expected).max() < 1e-6


def test_sample_points_of_the_article():
    rows = reference.sample_points(3, 8, 2, 1.0, 2, aligned=False)
    columns = reference.sample_points(0, 7, 2, 1.0, 2, aligned=False)
    assert np.allclose(rows, [[3.625, 4.875], [6.125, 7.375]])
    assert np.allclose(columns, [[0.875, 2.625], [4.375, 6.125]])
    assert reference.interpolate_bilinear(MAP[0], 4.875, 6.125)[0] == pytest.approx(0.813594, abs=1e-6)


def test_interpolation_is_exact_on_a_plane():
    assert reference.interpolate_linear(2.5, 2, 10, 4, 20) == 12.5
    rows, columns = np.mgrid[:5, :7]
    plane = (3.0 * rows - 2.0 * columns + 1)[:, :, None]
    assert reference.interpolate_bilinear(plane, 2.3, 4.7)[0] == pytest.approx(3 * 2.3 - 2 * 4.7 + 1)


@pytest.mark.parametrize("ratio", [1, 2, 3, 0])
def test_roi_align_of_a_ramp(ratio):
    ramp = np.arange(25.0).reshape(1, 5, 5, 1)
    got = reference.roi_align(ramp, [[0, 1, 1, 3, 3]], (4, 4), 1.0, ratio, aligned=True)[0, :, :, 0]
    assert np.allclose(got, np.add.outer([4.5, 7, 9.5, 12], [0, 0.5, 1, 1.5]))
    got = reference.roi_align(ramp, [[0, 1, 1, 3, 3]], (4, 4), 1.0, ratio, aligned=False)[0, :, :, 0]
    assert np.allclose(got, np.add.outer([7.5, 10, 12.5, 15], [0, 0.5, 1, 1.5]))


def test_a_box_of_no_area():
    box, features = [[0, 3, 4, 3, 4]], MAP
    point = reference.interpolate_bilinear(MAP[0], 3.5, 2.5)[0]
    assert np.allclose(reference.roi_align(features, box, (2, 2), 1.0, 2, aligned=True), point)
    assert not reference.roi_align(features, box, (2, 2), 1.0, 0, aligned=True).any()
    one = reference.roi_align(features, [[0, 3, 4, 4, 5]], (2, 2), 1.0, 2, aligned=False)
    assert np.allclose(reference.roi_align(features, box, (2, 2), 1.0, 2, aligned=False), one)
    assert reference.roi_align(features, [], (2, 3), 1.0).shape == (0, 2, 3, 1)


def test_losses_at_zero_logits():
    logits, targets, labels = np.zeros((1, 2, 2, 3)), np.ones((1, 2, 2)), [1]
    assert reference.mask_loss(logits, targets, labels, "sigmoid") == pytest.approx(math.log(2))
    assert reference.mask_loss(logits, targets, labels, "softmax") == pytest.approx(math.log(3))
    assert reference.mask_loss(np.zeros((0, 2, 2, 3)), np.zeros((0, 2, 2)), []) == 0


def _results():
    """(name, error) of every stored case against its textbook spelling."""
    for params, a in cases("roi_align"):
        size = params.pop("output_size")
        yield "roi_align", reference.roi_align(a["x"], a["rois"], size, **params), a["y"]
        gradient = reference.roi_align(a["x"], a["rois"], size, **params, gradient=a["grad_y"])
        yield "roi_align gradient", gradient, a["grad_x"]
    for params, a in cases("roi_pool"):
        size, scale = params["output_size"], params["spatial_scale"]
        yield "roi_pool", reference.roi_pool(a["x"], a["rois"], size, scale), a["y"]
        gradient = reference.roi_pool(a["x"], a["rois"], size, scale, gradient=a["grad_y"])
        yield "roi_pool gradient", gradient, a["grad_x"]
    for _, a in cases("box_iou"):
        yield "box_iou", reference.box_iou(a["a"], a["b"]), a["y"]
    for params, a in cases("box_coder"):
        pairs = zip(a["gt"], a["proposals"], strict=True)
        yield "encode_box", [reference.encode_box(*pair, params["weights"]) for pair in pairs], a["deltas"]
        pairs = zip(a["any_deltas"], a["proposals"], strict=True)
        yield "decode_box", [reference.decode_box(*pair, params["weights"]) for pair in pairs], a["decoded"]
    for params, a in cases("nms")[:1]:
        yield "nms", reference.nms(a["boxes"], a["scores"], params["iou_threshold"]), a["keep"]
    for params, a in cases("matcher"):
        yield "match", reference.match(a["iou"], **params), a["match"]
    for params, a in cases("anchors"):
        levels = zip(params["sizes"], params["level_sizes"], strict=True)
        got = [reference.make_anchors(size, params["ratios"], cells, params["image_size"]) for size, cells in levels]
        yield "make_anchors", np.concatenate(got), a["y"]
    for _, a in cases("pyramid_roi_align"):
        boxes = np.concatenate([a["boxes0"], a["boxes1"]])
        yield "assign_level", [reference.assign_level(box) for box in boxes], a["level"]
    for params, a in cases("conv2d"):
        yield "conv2d", reference.conv2d(a["x"], a["weight"], a["bias"], **params), a["y"]
        gradients = reference.conv2d_gradient(a["grad_y"], a["x"], a["weight"], **params)
        for name, gradient in zip(("x", "weight", "bias"), gradients, strict=True):
            yield f"conv2d gradient of {name}", gradient, a[f"grad_{name}"]
    for params, a in cases("conv_transpose2d"):
        yield "conv_transpose2d", reference.conv_transpose2d(a["x"], a["weight"], a["bias"], **params), a["y"]
    for params, a in cases("max_pool2d"):
        yield "max_pool2d", reference.max_pool2d(a["x"], **params), a["y"]
        yield "max_pool2d gradient", reference.max_pool2d(a["x"], **params, gradient=a["grad_y"]), a["grad_x"]
    for params, a in cases("upsample_nearest"):
        yield "upsample_nearest", reference.upsample_nearest(a["x"], params["size"]), a["y"]
    for params, a in cases("resize_bilinear"):
        yield "resize_bilinear", reference.resize_bilinear(a["x"], params["size"]), a["y"]
    for params, a in cases("smooth_l1"):
        yield "smooth_l1", reference.smooth_l1(a["prediction"], a["target"], params["beta"]), a["y"]
    for _, a in cases("cross_entropy"):
        yield "cross_entropy", reference.cross_entropy(a["logits"], a["labels"]), a["y"]
        yield "cross_entropy gradient", reference.cross_entropy_gradient(a["logits"], a["labels"]), a["grad_logits"]
    for _, a in cases("bce_with_logits"):
        yield "bce_with_logits", reference.bce_with_logits(a["logits"], a["target"]), a["y"]
    for params, a in cases("mask_loss"):
        yield "mask_loss", reference.mask_loss(a["logits"], a["targets"], a["gt_labels"][a["matched"]]), a["y"]
        few = slice(3)
        got = reference.crop_masks(a["gt_masks"], a["rois"][few], a["matched"][few], params["mask_size"])
        yield "crop_masks", got, a["targets"][few]
    for params, a in cases("paste_masks"):
        yield "paste_masks", reference.paste_masks(a["masks"], a["boxes"], params["image_size"]), a["y"]


def test_stored_values():
    errors = [(name, relative_error(got, wanted)) for name, got, wanted in _results()]
    wrong = [(name, error) for name, error in errors if not error < 2e-6]
    assert not wrong and len(errors) > 80


def test_group_norm():
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 6)) * 3 + 1
    y = reference.group_norm(x, 2, np.ones(6), np.zeros(6)).reshape(2, 15, 2, 3)
    assert np.allclose(y.mean(axis=(1, 3)), 0) and np.allclose(y.std(axis=(1, 3)), 1, atol=1e-5)
    shifted = reference.group_norm(x, 2, np.full(6, 2.0), np.arange(6.0))
    assert np.allclose(shifted.reshape(2, 15, 6), 2 * y.reshape(2, 15, 6) + np.arange(6))


@pytest.mark.parametrize("mode", ["average", "max"])
def test_roi_align_gradient_against_differences(mode):
    rng = np.random.default_rng(3)
    features, direction = rng.standard_normal((2, 1, 6, 5, 2))
    rois = [[0, 0.3, 1.1, 4.2, 5.7], [0, -2, -1, 7, 3]]
    gradient = rng.standard_normal((2, 2, 3, 2))

    def value(step):
        return (reference.roi_align(features + step * direction, rois, (2, 3), 0.9, 2, True, mode) * gradient).sum()

    exact = (reference.roi_align(features, rois, (2, 3), 0.9, 2, True, mode, gradient=gradient) * direction).sum()
    assert (value(1e-6) - value(-1e-6)) / 2e-6 == pytest.approx(exact, rel=1e-6)
