"""Normalization, pooling, resizing, losses and RoI operations as Tensor functions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import functional, reference
from minimrcnn.geometry import crop_masks
from minimrcnn.tensor import Tensor, gradcheck
from tests.reference_cases import cases, relative_error


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def leaves(*arrays):
    return [Tensor(array, requires_grad=True) for array in arrays]


# --- normalization ---


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([(4, 1), (4, 2), (6, 3), (4, 4)]))
def test_group_norm_is_the_definition(count, height, width, channels_and_groups):
    channels, groups = channels_and_groups
    x, scale, shift = 3 + 2 * normal(count, height, width, channels), normal(channels, seed=1), normal(channels, seed=2)
    y = functional.group_norm(Tensor(x), groups, Tensor(scale), Tensor(shift))
    np.testing.assert_allclose(y.data, reference.group_norm(x, groups, scale, shift), atol=1e-9)


def test_group_norm_keeps_the_deviation_under_a_large_mean():
    """Sums of x^2 and of g * x are of float64, the products too: rounded to float32, 1000^2 would move by 0.03."""
    x, gradient = (1000 + normal(1, 40, 40, 4)).astype(np.float32), normal(1, 40, 40, 4, seed=1).astype(np.float32)
    leaf, scale = Tensor(x, requires_grad=True), Tensor(np.ones(4, np.float32), requires_grad=True)
    y = functional.group_norm(leaf, 2, scale, Tensor(np.zeros(4, np.float32)))
    y.backward(gradient)
    exact = x.astype(np.float64).reshape(-1, 2, 2)
    exact = ((exact - exact.mean(axis=(0, 2), keepdims=True)) / exact.std(axis=(0, 2), keepdims=True)).reshape(-1, 4)
    assert np.abs(y.data.reshape(-1, 4) - exact).max() < 2e-4  # x * a is some 1000, in float32
    assert y.data.std(dtype=np.float64) == pytest.approx(1, abs=1e-5)
    wanted = (gradient.reshape(-1, 4) * exact).sum(axis=0)
    assert scale.grad == pytest.approx(wanted, abs=5e-4)


@pytest.mark.parametrize("relu", [False, True])
def test_normalization_gradients(relu):
    x, scale, shift, residual = leaves(
        normal(2, 5, 6, 4), normal(4, seed=1), normal(4, seed=2), normal(2, 5, 6, 4, seed=3)
    )
    tolerance = 1e-4 if relu else 1e-6
    gradcheck(lambda x, s, b, r: functional.group_norm(x, 2, s, b, residual=r, relu=relu), x, scale, shift, residual,
              tolerance=tolerance)  # fmt: skip
    gradcheck(lambda x, s, b, r: functional.batch_norm(x, s, b, residual=r, relu=relu)[0], x, scale, shift, residual,
              tolerance=tolerance)  # fmt: skip


def test_batch_norm_statistics():
    x = 5 + 3 * normal(4, 6, 7, 3)
    ones, zeros = Tensor(np.ones(3)), Tensor(np.zeros(3))
    y, mean, variance = functional.batch_norm(Tensor(x), ones, zeros)
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(variance, x.var(axis=(0, 1, 2)))
    np.testing.assert_allclose(y.data, (x - mean) / np.sqrt(variance + 1e-5))


def test_normalization_of_nothing():
    """Be it no pictures, no rows or no channels: all is empty, forward and back."""
    for shape in ((0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 3, 0)):
        for norm in (lambda *a: functional.group_norm(a[0], 2, *a[1:]), lambda *a: functional.batch_norm(*a)[0]):
            x, scale, shift = leaves(np.zeros(shape), np.ones(shape[3]), np.ones(shape[3]))
            y = norm(x, scale, shift)
            y.backward(np.zeros(shape))
            assert y.shape == x.grad.shape == shape and not scale.grad.any() and not shift.grad.any()


def test_normalization_errors():
    x, scale = Tensor(np.ones((1, 2, 2, 6))), Tensor(np.ones(6))
    with pytest.raises(ValueError, match="6 channels do not fall into 4 groups"):
        functional.group_norm(x, 4, scale, scale)
    with pytest.raises(ValueError, match=r"shift is float64 \(5,\)"):
        functional.group_norm(x, 2, scale, Tensor(np.ones(5)))


# --- max pooling ---


@given(
    st.integers(0, 2),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([(3, 2, 1), (2, 2, 0), (1, 2, 0), (3, 1, 1)]),
)
def test_max_pool_is_the_definition(count, height, width, window):
    kernel, stride, padding = window
    if min(height, width) + 2 * padding < kernel:
        return
    x = np.random.default_rng(0).integers(-4, 4, (count, height, width, 2)).astype(np.float64)  # with ties
    (leaf,) = leaves(x)
    y = functional.max_pool2d(leaf, kernel, stride, padding)
    np.testing.assert_array_equal(y.data, reference.max_pool2d(x, kernel, stride, padding))
    gradient = normal(*y.shape)
    y.backward(gradient)
    np.testing.assert_allclose(leaf.grad, reference.max_pool2d(x, kernel, stride, padding, gradient))


@pytest.mark.parametrize("parameters, arrays", cases("max_pool2d"))
def test_stored_max_pools(parameters, arrays):
    (x,) = leaves(arrays["x"])
    y = functional.max_pool2d(x, **parameters)
    y.backward(arrays["grad_y"])
    assert relative_error(y.data, arrays["y"]) < 1e-5
    assert relative_error(x.grad, arrays["grad_x"]) < 1e-5


def test_max_pool_sees_nan_and_refuses_nonsense():
    x = normal(1, 4, 4, 1)
    x[0, 1, 1] = np.nan
    assert np.isnan(functional.max_pool2d(Tensor(x), 2, 2).data[0, 0, 0, 0])
    with pytest.raises(ValueError, match="padding 2"):
        functional.max_pool2d(Tensor(x), 3, 1, 2)
    with pytest.raises(ValueError, match="kernel 16, .* wanted a kernel of 1 to 15"):
        functional.max_pool2d(Tensor(x), 16, 1, 8)
    with pytest.raises(ValueError, match="smaller than the kernel"):
        functional.max_pool2d(Tensor(x), 7, 1)


# --- resizing ---


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_resize_is_the_definition(height, width, new_height, new_width):
    x = normal(2, height, width, 3)
    for function, definition in (
        (functional.upsample_nearest, reference.upsample_nearest),
        (functional.resize_bilinear, reference.resize_bilinear),
    ):
        (leaf,) = leaves(x)
        y = function(leaf, (new_height, new_width))
        np.testing.assert_allclose(y.data, definition(x, (new_height, new_width)), atol=1e-12)
        gradient = normal(*y.shape, seed=1)
        y.backward(gradient)
        assert (leaf.grad * x).sum() == pytest.approx((y.data * gradient).sum(), abs=1e-9)  # it is linear: the adjoint


@pytest.mark.parametrize("name", ["upsample_nearest", "resize_bilinear"])
def test_stored_resizes(name):
    for parameters, arrays in cases(name):
        (x,) = leaves(arrays["x"])
        y = getattr(functional, name)(x, parameters["size"])
        assert relative_error(y.data, arrays["y"]) < 1e-5
        if "grad_y" in arrays:
            y.backward(arrays["grad_y"])
            assert relative_error(x.grad, arrays["grad_x"]) < 1e-5


def test_resize_gradients_and_errors():
    (x,) = leaves(normal(1, 3, 4, 2))
    gradcheck(lambda x: functional.resize_bilinear(x, (5, 3)), x)
    with pytest.raises(ValueError, match="wanted two numbers of at least 1"):
        functional.upsample_nearest(x, (0, 3))
    with pytest.raises(ValueError, match=r"size is \(1, 2, 3\), wanted two numbers"):
        functional.resize_bilinear(x, (1, 2, 3))
    with pytest.raises(ValueError, match="with at least one pixel"):
        functional.resize_bilinear(Tensor(np.ones((1, 0, 3, 2))), 4)


# --- losses ---


@pytest.mark.parametrize("parameters, arrays", cases("smooth_l1"))
def test_stored_smooth_l1(parameters, arrays):
    (prediction,) = leaves(arrays["prediction"])
    loss = functional.smooth_l1(prediction, arrays["target"], parameters["beta"], parameters["reduction"])
    loss.backward()
    assert relative_error(loss.data, arrays["y"]) < 1e-5
    assert relative_error(prediction.grad, arrays["grad_prediction"]) < 1e-5


def test_stored_cross_entropies():
    for _, arrays in cases("cross_entropy"):
        (logits,) = leaves(arrays["logits"])
        loss = functional.cross_entropy(logits, arrays["labels"])
        loss.backward()
        assert relative_error(loss.data, arrays["y"]) < 1e-5
        assert relative_error(logits.grad, arrays["grad_logits"]) < 1e-5
    for _, arrays in cases("bce_with_logits"):
        (logits,) = leaves(arrays["logits"])
        loss = functional.bce_with_logits(logits, arrays["target"])
        loss.backward()
        assert relative_error(loss.data, arrays["y"]) < 1e-5
        assert relative_error(logits.grad, arrays["grad_logits"]) < 1e-5


def test_stored_mask_loss():
    for parameters, arrays in cases("mask_loss"):
        targets = crop_masks(arrays["gt_masks"], arrays["rois"], arrays["matched"], parameters["mask_size"])
        assert relative_error(targets, arrays["targets"]) < 1e-5
        (logits,) = leaves(arrays["logits"])
        loss = functional.mask_loss(logits, targets, arrays["gt_labels"][arrays["matched"]])
        loss.backward()
        assert relative_error(loss.data, arrays["y"]) < 1e-5
        assert relative_error(logits.grad, arrays["grad_logits"]) < 1e-5


@given(st.integers(0, 6), st.integers(2, 4), st.sampled_from([0.0, 1 / 9, 1.0]))
def test_losses_are_the_definitions(rows, classes, beta):
    rng = np.random.default_rng(rows)
    logits, other, labels = 3 * normal(rows, classes), normal(rows, classes, seed=1), rng.integers(0, classes, rows)
    target = rng.uniform(0, 1, (rows, classes))
    assert functional.smooth_l1(Tensor(logits), other, beta).item() == pytest.approx(
        reference.smooth_l1(logits, other, beta)
    )
    assert functional.smooth_l1(Tensor(logits), other, beta, "mean").item() == pytest.approx(
        reference.smooth_l1(logits, other, beta) / max(rows * classes, 1)
    )
    if rows:
        assert functional.cross_entropy(Tensor(logits), labels).item() == pytest.approx(
            reference.cross_entropy(logits, labels)
        )
        assert functional.bce_with_logits(Tensor(logits), target).item() == pytest.approx(
            reference.bce_with_logits(logits, target)
        )
    masks, soft = normal(rows, 3, 3, classes + 1, seed=2), rng.uniform(0, 1, (rows, 3, 3))
    for kind in ("sigmoid", "agnostic", "softmax"):
        used = masks[..., :1] if kind == "agnostic" else masks
        value = functional.mask_loss(Tensor(used), soft, labels + 1, kind).item()
        assert value == pytest.approx(reference.mask_loss(used, soft, labels + 1, kind) if rows else 0)


def test_loss_gradients():
    rng = np.random.default_rng(0)
    (logits,) = leaves(2 * normal(5, 4))
    labels, target = rng.integers(0, 4, 5), rng.uniform(0, 1, (5, 4))
    gradcheck(lambda x: functional.cross_entropy(x, labels), logits, tolerance=1e-5)
    gradcheck(lambda x: functional.bce_with_logits(x, target), logits, tolerance=1e-5)
    gradcheck(lambda x: functional.smooth_l1(x, target, 0.7), logits, tolerance=1e-5)
    gradcheck(lambda x: functional.smooth_l1(x, target, 0.7, "mean"), logits, tolerance=1e-5)
    for kind in ("sigmoid", "agnostic", "softmax"):
        (masks,) = leaves(normal(3, 4, 4, 1 if kind == "agnostic" else 3))
        gradcheck(
            lambda x, k=kind: functional.mask_loss(x, target[:3, :, None].repeat(4, 2), [1, 2, 2], k),
            masks,
            tolerance=1e-5,
        )


def test_roi_warp_of_halves_and_of_what_is_upside_down():
    """Corners are rounded half away from zero, the last cell is included, and there is at least one."""
    x = normal(1, 12, 12, 3)
    rois = np.float32([[0, 3, 5, 22, 30], [0, -2, 2, 10, 10], [0, 20, 20, 8, 32]])
    cells = np.float32([[0, 1, 1, 7, 9], [0, -1, 1, 4, 4], [0, 5, 5, 6, 9]])
    (leaf,), (other,) = leaves(x), leaves(x)
    crops = functional.pool_rois([leaf], rois, 2, (4,), "warp", aligned=True)
    wanted = functional.roi_align(other, cells, 2, aligned=True)
    np.testing.assert_array_equal(crops.data, wanted.data)
    gradient = normal(*crops.shape, seed=1)
    crops.backward(gradient)
    wanted.backward(gradient)
    np.testing.assert_array_equal(leaf.grad, other.grad)


def test_a_pyramid_may_begin_with_any_stride():
    """The formula's levels are numbered by their strides: of 8 and 16 the finest is level 3."""
    levels = [Tensor(normal(1, 16, 16, 2)), Tensor(normal(1, 8, 8, 2, seed=1))]
    rois = np.float32(
        [[0, 4, 4, 100, 100], [0, 0, 0, 120, 120]]
    )  # sides of 96 and 120 pixels: level 2, taken as 3, and 3
    large = np.float32([[0, 0, 0, 230, 230]])  # level 4
    crops = functional.pool_rois(levels, np.concatenate([rois, large]), 2, (8, 16))
    options = {"aligned": False}
    np.testing.assert_array_equal(crops.data[:2], functional.roi_align(levels[0], rois, 2, 1 / 8, **options).data)
    np.testing.assert_array_equal(crops.data[2:], functional.roi_align(levels[1], large, 2, 1 / 16, **options).data)


def test_the_last_axis_may_be_counted_from_the_end():
    a, b = leaves(np.zeros((2, 1)), np.zeros((2, 2)))
    functional.concatenate([a, b], axis=-1).backward(np.arange(6.0).reshape(2, 3))
    assert a.grad.tolist() == [[0], [3]] and b.grad.tolist() == [[1, 2], [4, 5]]


def test_large_logits_do_not_overflow():
    with np.errstate(over="raise", invalid="raise"):
        assert functional.cross_entropy(Tensor([[1000.0, 0.0]]), [1]).item() == 1000
        assert functional.bce_with_logits(Tensor([-1000.0, 1000.0]), [1, 0]).item() == 1000
        assert functional.sigmoid(Tensor([-1000.0, 1000.0])).data.tolist() == [0, 1]


def test_statistics_of_a_batch_are_the_callers():
    x, gradients = normal(2, 3, 4, 2), []
    for value in (None, 99.0):
        (leaf,) = leaves(x)
        y, mean, variance = functional.batch_norm(leaf, np.ones(2), np.zeros(2))
        if value is not None:
            mean[:] = variance[:] = value
        y.backward(normal(*x.shape, seed=1))
        gradients.append(leaf.grad)
    np.testing.assert_array_equal(*gradients)


def test_losses_of_nothing_are_zero_and_connected():
    labels = np.zeros(0, np.int64)
    for function, shape, arguments in (
        (functional.cross_entropy, (0, 3), (labels,)),
        (functional.bce_with_logits, (0, 3), (np.zeros((0, 3)),)),
        (functional.smooth_l1, (0, 3), (np.zeros((0, 3)), 1.0)),
        (functional.mask_loss, (0, 4, 4, 3), (np.zeros((0, 4, 4)), labels)),
        (functional.mask_loss, (0, 4, 4, 3), (np.zeros((0, 4, 4)), labels, "softmax")),
    ):
        (empty,) = leaves(np.zeros(shape, np.float32))
        loss = function(empty, *arguments)
        assert loss.item() == 0 and loss.requires_grad
        loss.backward()


def test_zero_logits():
    """ln 2 in one channel for the sigmoid; ln 3 and all channels for the softmax, where the classes compete."""
    (masks,) = leaves(np.zeros((1, 2, 2, 3)))
    loss = functional.mask_loss(masks, np.ones((1, 2, 2)), [1])
    loss.backward()
    assert loss.item() == pytest.approx(0.693147, abs=1e-6)
    assert (masks.grad[..., 1] != 0).all() and (masks.grad[..., [0, 2]] == 0).all()
    (masks,) = leaves(np.zeros((1, 2, 2, 3)))
    loss = functional.mask_loss(masks, np.ones((1, 2, 2)), [1], "softmax")
    loss.backward()
    assert loss.item() == pytest.approx(1.098612, abs=1e-6) and (masks.grad != 0).all()


def test_half_a_pixel_is_the_objects_where_classes_compete():
    logits = Tensor(np.tile(np.float32([0, 9]), (1, 1, 2, 1)))
    values = [functional.mask_loss(logits, [[[0.5, share]]], [1], "softmax").item() for share in (0.5, 0.49)]
    assert values == pytest.approx([0, 9 / 2], abs=1e-3)


def test_loss_errors():
    logits = Tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="labels 0 to 3, wanted 0 to 2"):
        functional.cross_entropy(logits, np.array([0, 3]))
    with pytest.raises(ValueError, match="wanted one shape"):
        functional.bce_with_logits(logits, np.zeros(2))
    masks = Tensor(np.zeros((1, 2, 2, 3)))
    with pytest.raises(ValueError, match="wanted 1 to 2"):
        functional.mask_loss(masks, np.zeros((1, 2, 2)), [0])
    with pytest.raises(ValueError, match="wanted 1"):
        functional.mask_loss(masks, np.zeros((1, 2, 2)), [1], "agnostic")
    with pytest.raises(ValueError, match="kind 'dice'"):
        functional.mask_loss(masks, np.zeros((1, 2, 2)), [1], "dice")


# --- RoI operations ---


@pytest.mark.parametrize("name", ["roi_align", "roi_pool"])
def test_stored_rois(name):
    for parameters, arrays in cases(name):
        (x,) = leaves(arrays["x"])
        y = getattr(functional, name)(x, arrays["rois"], **parameters)
        y.backward(arrays["grad_y"])
        assert relative_error(y.data, arrays["y"]) < 1e-5
        assert relative_error(x.grad, arrays["grad_x"]) < 1e-5


def test_stored_pyramid():
    for parameters, arrays in cases("pyramid_roi_align"):
        pyramid = leaves(*(arrays[f"p{level}"] for level in range(2, 6)))
        boxes = [arrays["boxes0"], arrays["boxes1"]]
        rois = np.concatenate([np.c_[np.full(len(b), n, np.float32), b] for n, b in enumerate(boxes)])
        y = functional.pool_rois(pyramid, rois, parameters["output_size"], parameters["strides"], "align", 2, False)
        assert relative_error(y.data, arrays["y"]) < 1e-5
        y.backward(normal(*y.shape).astype(np.float32))
        for number, level in enumerate(pyramid):
            assert (np.abs(level.grad).max() > 0) == (number + 2 in arrays["level"])


def test_pyramid_gradient_and_order():
    rois = np.array([[0, 0, 0, 60, 60], [1, 3, 3, 500, 450], [0, 10, 5, 130, 150], [1, 0, 0, 30, 20]], np.float64)
    pyramid = leaves(
        normal(2, 16, 16, 2), normal(2, 8, 8, 2, seed=1), normal(2, 4, 4, 2, seed=2), normal(2, 2, 2, 2, seed=3)
    )
    for operation in ("align", "pool"):
        gradcheck(
            lambda *levels, o=operation: functional.pool_rois(levels, rois, 3, operation=o), *pyramid, tolerance=1e-5
        )
        together = functional.pool_rois(pyramid, rois, 3, operation=operation).data
        for r in range(len(rois)):
            alone = functional.pool_rois(pyramid, rois[r : r + 1], 3, operation=operation).data
            np.testing.assert_array_equal(together[r], alone[0])
    assert functional.pool_rois(pyramid, rois[:0], (2, 3)).shape == (0, 2, 3, 2)


def test_roi_errors():
    x, rois = Tensor(np.ones((1, 8, 8, 2), np.float32)), np.zeros((1, 5), np.float32)
    for call, message in (
        (lambda: functional.roi_align(x, rois[:, :4], 2), r"rois have shape \(1, 4\)"),
        (lambda: functional.roi_align(x, rois + 1, 2), "there are 1"),
        (lambda: functional.roi_align(x, rois, 0), "output_size"),
        (lambda: functional.roi_align(x, rois, 2, mode="median"), "median"),
        (lambda: functional.roi_align(x, rois, 2, spatial_scale=0), "spatial_scale"),
        (lambda: functional.roi_pool(x, rois, 2, rule="round"), "wanted one of caffe"),
        (lambda: functional.pool_rois([x], rois, 2), "1 levels and 4 strides"),
        (lambda: functional.pool_rois([x], rois, 2, [4], operation="crop"), "warp"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_arrays_and_lists_are_taken_as_they_come():
    """Functions take arrays or Tensors; those of `functional` return Tensors."""
    ramp = np.arange(25).reshape(1, 5, 5, 1)  # integers
    y = functional.roi_align(ramp, [[0, 1, 1, 3, 3]], 4, sampling_ratio=2, aligned=False)
    np.testing.assert_allclose(y.data[0, :, :, 0], 7.5 + 2.5 * np.arange(4)[:, None] + 0.5 * np.arange(4))
    x = normal(1, 4, 4, 2).astype(np.float32)
    weight = normal(3, 3, 2, 2).astype(np.float32)
    ones = np.ones(2, np.float32)
    for y, shape in (
        (functional.conv2d(x, weight, ones, padding=1, residual=x), (1, 4, 4, 2)),
        (functional.conv_transpose2d(x, weight, ones), (1, 9, 9, 2)),
        (functional.linear(x[0, 0], weight[0, 0], ones), (4, 2)),
        (functional.group_norm(x, 1, ones, ones), (1, 4, 4, 2)),
        (functional.max_pool2d(x, 2, 2), (1, 2, 2, 2)),
        (functional.upsample_nearest(x, 8), (1, 8, 8, 2)),
        (functional.pool_rois([x], np.float32([[0, 0, 0, 9, 9]]), 2, [4]), (1, 2, 2, 2)),
        (functional.relu(x), x.shape),
        (functional.concatenate([x, x], axis=3), (1, 4, 4, 4)),
        (functional.smooth_l1([1.0, 2.0], [1.5, 2.0], 1.0), ()),
        (functional.cross_entropy(x[0, 0], [0, 1, 1, 0]), ()),
        (functional.bce_with_logits([0.0], [1.0]), ()),
        (functional.mask_loss(x, np.ones((1, 4, 4)), [1]), ()),
    ):
        assert isinstance(y, Tensor) and y.shape == shape and y.dtype == np.float32


def test_unequal_levels_are_refused():
    """Compiled code would write beyond the crops."""
    levels = [Tensor(np.ones((1, 8, 8, 2), np.float32)), Tensor(np.ones((1, 4, 4, 3), np.float32))]
    with pytest.raises(ValueError, match="the same N, C and type"):
        functional.pool_rois(levels, np.zeros((1, 5)), 2, [4, 8])
    with pytest.raises(ValueError, match="sampling_ratio -1"):
        functional.pool_rois(levels[:1], np.zeros((1, 5)), 2, [4], sampling_ratio=-1)


def test_lists_of_nothing():
    x = np.ones((1, 4, 4, 2), np.float32)
    assert functional.roi_align(x, [], 3).shape == (0, 3, 3, 2)
    assert functional.mask_loss(np.ones((0, 4, 4, 2), np.float32), np.ones((0, 4, 4)), []).item() == 0
    assert functional.cross_entropy(np.ones((0, 3), np.float32), []).item() == 0
    with pytest.raises(ValueError, match="smaller than the kernel"):
        functional.max_pool2d(np.ones((1, 0, 4, 2)), 1, 1)


def test_a_residual_alone_may_want_a_gradient():
    x, (residual,) = normal(1, 2, 2, 4), leaves(normal(1, 2, 2, 4, seed=1))
    functional.group_norm(x, 2, np.ones(4), np.zeros(4), residual=residual).backward(np.ones(x.shape))
    np.testing.assert_array_equal(residual.grad, np.ones(x.shape))
