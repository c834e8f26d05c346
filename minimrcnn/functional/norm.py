"""Normalization of feature maps, with what follows it (residual, ReLU) in the same pass."""

from __future__ import annotations

import numpy as np

from minimrcnn.device import device_of, empty_beside, module_of
from minimrcnn.kernels import normalization
from minimrcnn.tensor import Function, Tensor, tensors


def group_norm(x, groups: int, scale, shift, eps=1e-5, residual=None, relu=False) -> Tensor:
    """Group normalization: mean 0 and deviation 1 within each picture's group of channels, then scale and shift.

    Parameters
    ----------
    x : Tensor (N, H, W, C)
    groups : int
        Divides C.
    scale, shift : Tensor (C,)
    eps : float
        Added to the variance.
    residual : Tensor (N, H, W, C), optional
        Added to the result.
    relu : bool
        Negative results become 0, last of all.

    Returns
    -------
    Tensor (N, H, W, C)

    Raises
    ------
    ValueError
        The groups do not divide the channels, or shapes do not fit.

    References
    ----------
    Wu and He 2018, Group Normalization, section 3.
    """
    x, scale, shift, residual = tensors(x, scale, shift, residual)
    _check("group_norm", x, scale, shift, residual)
    if groups < 1 or x.shape[3] % groups:
        raise ValueError(f"group_norm: {x.shape[3]} channels do not fall into {groups} groups")
    return Normalization.apply(x, scale, shift, residual, groups=groups, eps=eps, relu=relu)


def batch_norm(x, scale, shift, eps=1e-5, residual=None, relu=False) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Batch normalization in training: every channel has mean 0 and deviation 1 over the batch, then scale and shift.

    Arguments as `group_norm`.

    Returns
    -------
    y : Tensor (N, H, W, C)
    mean, variance : ndarray (C,)
        Of the batch, for the running statistics; the variance is the biased one.

    References
    ----------
    Ioffe and Szegedy 2015, Batch Normalization, algorithm 1.
    """
    x, scale, shift, residual = tensors(x, scale, shift, residual)
    _check("batch_norm", x, scale, shift, residual)
    statistics: dict = {}
    as_one = (1, x.shape[0] * x.shape[1], x.shape[2], x.shape[3])  # one picture, a group for each channel
    y = Normalization.apply(
        x.reshape(as_one), scale, shift, None if residual is None else residual.reshape(as_one),
        groups=x.shape[3], eps=eps, relu=relu, statistics=statistics,
    )  # fmt: skip
    return y.reshape(x.shape), statistics["mean"][0], statistics["variance"][0]


def fold_statistics(weight, bias, mean, variance, eps: float):
    """(C,), (C,): the scale and the shift of a normalization whose statistics (C,) are constants, arrays as these."""
    folded = empty_beside((2, len(weight)), weight)
    normalization.fold_statistics(weight, bias, mean, variance, eps, folded)
    return folded[0], folded[1]


def _check(function, x, scale, shift, residual):
    if x.ndim != 4:
        raise ValueError(f"{function}: x has shape {x.shape}, wanted (N, H, W, C)")
    for name, other, shape in (
        ("scale", scale, x.shape[3:]),
        ("shift", shift, x.shape[3:]),
        ("residual", residual, x.shape),
    ):
        if other is not None and (other.shape != shape or other.dtype != x.dtype):
            raise ValueError(f"{function}: {name} is {other.dtype} {other.shape}, wanted {x.dtype} {shape}")


class Normalization(Function):
    """See `kernels.normalization` for the algebra; N C G pictures, channels, groups."""

    def forward(self, x, scale, shift, residual, groups, eps, relu, statistics=None):
        xp = module_of(x)
        self.shape = x.shape
        count, channels = x.shape[0], x.shape[3]
        x = xp.ascontiguousarray(x).reshape(count, x.shape[1] * x.shape[2], channels)  # (N, P, C)
        none = xp.empty((0, 0, 0), x.dtype)
        sums = self.sum_channels(x, none, none, False, False)  # (N, 2, C)
        members = max(x.shape[1] * channels // max(groups, 1), 1)  # without channels there are no groups
        of_groups, folded = xp.empty((3, count, channels), np.float64), xp.empty((2, count, channels), x.dtype)
        normalization.fold_sums(sums, members, groups, eps, scale, shift, of_groups, folded)
        if statistics is not None:
            statistics["mean"], statistics["variance"] = of_groups[0].copy(), of_groups[1].copy()  # the caller's
        y = empty_beside(x.shape, x)
        flat_residual = none if residual is None else xp.ascontiguousarray(residual).reshape(x.shape)
        normalization.scale_channels(x, folded[0], folded[1], flat_residual, relu, y)
        if any(self.needs):
            self.x, self.y, self.scale = x, y if relu else none, scale
            self.statistics, self.members, self.groups, self.relu = of_groups, members, groups, relu
        return y.reshape(self.shape)

    def backward(self, gradient):
        xp, x = module_of(gradient), self.x
        count, _, channels = x.shape
        gradient = xp.ascontiguousarray(gradient).reshape(x.shape)
        sums = self.sum_channels(x, gradient, self.y, True, self.relu)  # (N, 2, C): of g and g * x
        scale_gradients, folded = xp.empty((count, channels), np.float64), xp.empty((3, count, channels), x.dtype)
        normalization.fold_gradient_sums(
            sums, self.members, self.groups, self.scale, self.statistics, scale_gradients, folded
        )
        scale_gradient, shift_gradient = (part.sum(axis=0).astype(x.dtype) for part in (scale_gradients, sums[:, 0]))
        if not self.needs[0] and not self.needs[3]:
            return None, scale_gradient, shift_gradient, None
        x_gradient = empty_beside(x.shape, x)
        residual_gradient = empty_beside(x.shape if self.needs[3] else (0, 0, 0), x)
        normalization.normalization_gradient(x, gradient, self.y, self.relu, *folded, residual_gradient, x_gradient)
        return (
            x_gradient.reshape(self.shape),
            scale_gradient,
            shift_gradient,
            residual_gradient.reshape(self.shape) if self.needs[3] else None,
        )

    def sum_channels(self, x, gradient, y, backward, relu):
        """(N, 2, C) float64, the terms added up in order."""
        xp, (count, positions, channels) = module_of(x), x.shape
        if device_of(x) == "cpu":
            sums = xp.empty((count, normalization.count_chunks(positions, channels), 2, channels), np.float64)
        else:
            sums = xp.empty((count, normalization.count_terms(positions), 2, channels), x.dtype)
        normalization.channel_sums(x, gradient, y, backward, relu, sums)
        return sums.sum(axis=1, dtype=np.float64)
