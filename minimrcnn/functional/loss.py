"""The losses: each computes its gradient along with its value, which is one subtraction more."""

from __future__ import annotations

import numpy as np

from minimrcnn.device import beside, module_of, to_device
from minimrcnn.functional.math import sigmoid_array, softmax_array
from minimrcnn.tensor import Function, Tensor, tensors

MASK_LOSSES = ("sigmoid", "agnostic", "softmax")


def smooth_l1(prediction, target, beta: float, reduction: str = "sum") -> Tensor:
    """Half a square near 0, a straight line beyond: d^2 / 2 beta where |d| < beta, else |d| - beta / 2.

    Parameters
    ----------
    prediction, target : Tensor and array, of one shape
    beta : float
        Where the square becomes a line; 0 is the plain absolute difference.
    reduction : {"sum", "mean"}

    Returns
    -------
    Tensor ()

    References
    ----------
    Girshick 2015, Fast R-CNN, equation 3 (beta 1; torchvision has 1/9).
    """
    prediction, target = _pair(prediction, target)
    if prediction.shape != target.shape or beta < 0 or reduction not in ("sum", "mean"):
        raise ValueError(
            f"smooth_l1: prediction {prediction.shape}, target {target.shape}, beta {beta}, reduction {reduction!r}; "
            'wanted one shape, beta of at least 0, "sum" or "mean"'
        )
    return SmoothL1.apply(prediction, target=target, beta=beta, reduction=reduction)


def cross_entropy(logits, labels) -> Tensor:
    """The mean of -log softmax(logits)[label]; 0 and still connected where there are no rows.

    Parameters
    ----------
    logits : Tensor (R, K)
    labels : array (R,) of int, 0 to K - 1

    Returns
    -------
    Tensor ()
    """
    (logits,) = tensors(logits)
    labels = _labels(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"cross_entropy: logits {logits.shape}, labels {labels.dtype} {labels.shape}; "
            "wanted (R, K) and integers (R,)"
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < logits.shape[1]):
        raise ValueError(f"cross_entropy: labels {labels.min()} to {labels.max()}, wanted 0 to {logits.shape[1] - 1}")
    return CrossEntropy.apply(logits, labels=labels)


def bce_with_logits(logits, target) -> Tensor:
    """The mean of -t log s - (1 - t) log(1 - s) with s = sigmoid(logits), for targets t from 0 to 1, any one shape."""
    logits, target = _pair(logits, target)
    if logits.shape != target.shape:
        raise ValueError(f"bce_with_logits: logits {logits.shape}, target {target.shape}, wanted one shape")
    return BinaryCrossEntropy.apply(logits, target=target)


def mask_loss(logits, targets, labels, kind: str = "sigmoid") -> Tensor:
    """How far the predicted masks are from the true ones, in one of three ways.

    Parameters
    ----------
    logits : Tensor (R, M, M, K), background included in K; (R, M, M, 1) if agnostic
    targets : array (R, M, M), 0 to 1
    labels : array (R,) of int, from 1
        The class of each RoI.
    kind : {"sigmoid", "agnostic", "softmax"}
        "sigmoid": binary cross-entropy on the mask of the RoI's own class, the others are left alone; "agnostic": the
        same with one mask for all classes; "softmax": every pixel belongs to one class, the RoI's where its target is
        at least 1/2, else background (channel 0), so that the classes compete, as in an FCN.

    Returns
    -------
    Tensor ()
        A mean over RoIs and pixels; 0 and still connected where there are no RoIs.

    References
    ----------
    He et al. 2017, Mask R-CNN, section 3 and table 2b.
    """
    (logits,) = tensors(logits)
    if not hasattr(targets, "shape"):
        targets = np.asarray(targets)
    labels = _labels(labels)
    if kind not in MASK_LOSSES:
        raise ValueError(f"mask_loss: kind {kind!r}, wanted one of {', '.join(MASK_LOSSES)}")
    if (
        logits.ndim != 4
        or targets.shape != logits.shape[:3]
        or labels.shape != logits.shape[:1]
        or labels.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"mask_loss: logits {logits.shape}, targets {targets.shape}, labels {labels.shape}; "
            "wanted (R, M, M, K), (R, M, M), (R,)"
        )
    classes = logits.shape[3]
    if kind == "agnostic":
        if classes != 1:
            raise ValueError(f"mask_loss: agnostic logits have {classes} channels, wanted 1")
        labels = np.zeros_like(labels)
    elif labels.size and not (labels.min() >= 1 and labels.max() < classes):
        raise ValueError(f"mask_loss: labels {labels.min()} to {labels.max()}, wanted 1 to {classes - 1}")
    if kind == "softmax":
        targets = to_device(targets.data if isinstance(targets, Tensor) else targets, "cpu")
        pixels = np.where(targets >= 0.5, labels[:, None, None], 0)  # (R, M, M)
        return cross_entropy(logits.reshape(pixels.size, classes), pixels.reshape(-1))
    own, targets = _pair(logits[module_of(logits.data).arange(len(labels)), :, :, labels], targets)  # (R, M, M)
    return BinaryCrossEntropy.apply(own, target=targets)


def _labels(labels) -> np.ndarray:
    """Labels as a host array; an empty list is no labels, and NumPy's guess that they are floats does not count."""
    labels = np.asarray(to_device(labels.data if isinstance(labels, Tensor) else labels, "cpu"))
    return labels if labels.size else labels.astype(np.int64)


def _pair(prediction, target):
    """The prediction as a Tensor, the target as a constant array of its type, where it lives."""
    (prediction,) = tensors(prediction)
    target = target.data if isinstance(target, Tensor) else target
    return prediction, beside(target, prediction.data, prediction.dtype)


class Loss(Function):
    """A number with its gradient: forward leaves ``slope``, the gradient of the result."""

    def backward(self, gradient):
        return gradient * self.slope


class SmoothL1(Loss):
    def forward(self, prediction, target, beta, reduction):
        xp = module_of(prediction)
        difference = prediction - target
        size = xp.abs(difference)
        near = size < beta
        share = 1 / max(prediction.size, 1) if reduction == "mean" else 1.0
        safe = max(beta, 1e-30)
        self.slope = (xp.where(near, difference / safe, xp.sign(difference)) * share).astype(prediction.dtype)
        value = xp.where(near, difference * difference / (2 * safe), size - beta / 2).sum(dtype=np.float64) * share
        return xp.asarray(value, dtype=prediction.dtype)


class CrossEntropy(Loss):
    def forward(self, logits, labels):
        xp = module_of(logits)
        rows, labels = xp.arange(len(labels)), beside(labels, logits)
        if len(labels) == 0:
            self.slope = xp.zeros_like(logits)
            return xp.zeros((), logits.dtype)
        shifted = logits - logits.max(axis=1, keepdims=True)
        value = (xp.log(xp.exp(shifted).sum(axis=1)) - shifted[rows, labels]).mean(dtype=np.float64)
        slope = softmax_array(logits)
        slope[rows, labels] -= 1
        self.slope = slope / len(labels)
        return xp.asarray(value, dtype=logits.dtype)


class BinaryCrossEntropy(Loss):
    def forward(self, logits, target):
        xp = module_of(logits)
        count = max(logits.size, 1)
        # log(1 + e^x) - t x, with the exponential of what is negative only
        value = xp.maximum(logits, 0) - logits * target + xp.log1p(xp.exp(-xp.abs(logits)))
        self.slope = (sigmoid_array(logits) - target) / count
        return xp.asarray(value.sum(dtype=np.float64) / count, dtype=logits.dtype)
