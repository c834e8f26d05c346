"""Cutting RoIs out of feature maps: RoIAlign, RoI pooling, RoIWarp, and any of them from a pyramid."""

from __future__ import annotations

import numpy as np

from minimrcnn.device import beside, empty_beside, module_of, to_device
from minimrcnn.functional.resize import as_sides
from minimrcnn.geometry import assign_levels
from minimrcnn.kernels import roi_align as align_kernels
from minimrcnn.kernels import roi_align_gradient as align_gradients
from minimrcnn.kernels import roi_pool as pool_kernels
from minimrcnn.tensor import Function, Tensor, tensors

RULES = {"caffe": pool_kernels.CAFFE, "split": pool_kernels.SPLIT, "floor": pool_kernels.FLOOR}


def roi_align(
    features,
    rois,
    output_size,
    spatial_scale=1.0,
    sampling_ratio=2,
    aligned=True,
    mode="average",
    deterministic=False,
) -> Tensor:
    """RoIAlign: every cell of the crop averages bilinear samples, and nothing is rounded.

    Parameters
    ----------
    features : Tensor (N, H, W, C)
    rois : array (R, 5)
        Picture index, x1, y1, x2, y2 in pixels.
    output_size : int or (int, int)
        (height, width) of the crops.
    spatial_scale : float
        Cells per pixel: 1 / stride.
    sampling_ratio : int
        Samples along each axis of a cell; 0 takes one for each feature cell, rounded up.
    aligned : bool
        Pixel i has its center at i + 0.5. The published weights were trained without.
    mode : {"average", "max"}
        What becomes of a cell's samples; the paper found no difference.
    deterministic : bool
        On a GPU, add up the gradient always in the same order, which is slower. Otherwise two runs may differ by 1e-6
        of the largest gradient. On a CPU the order is always the same.

    Returns
    -------
    Tensor (R, height, width, C)

    Raises
    ------
    ValueError
        Shapes, or an argument out of its range.

    References
    ----------
    He, Gkioxari, Dollar and Girshick 2017, Mask R-CNN, section 3.
    """
    features, rois, output_size = _check("roi_align", features, rois, output_size, spatial_scale)
    if sampling_ratio < 0 or mode not in ("average", "max"):
        raise ValueError(
            f'roi_align: sampling_ratio {sampling_ratio}, mode {mode!r}; wanted 0 or more, "average" or "max"'
        )
    cut = AlignCut(output_size, int(sampling_ratio), bool(aligned), mode == "max", deterministic)
    return CutRoIs.apply(features, rois=rois, levels=None, scales=[spatial_scale], cut=cut)


def roi_pool(features, rois, output_size, spatial_scale=1.0, rule="caffe", deterministic=False) -> Tensor:
    """RoI pooling: the RoI and its bins are rounded to whole cells, and every bin takes its largest value.

    Parameters
    ----------
    features, rois, output_size, spatial_scale, deterministic
        As `roi_align`.
    rule : {"caffe", "split", "floor"}
        How to round: as Caffe and torchvision do, bins that share no cell (the article's example), or both roundings
        cut off.

    Returns
    -------
    Tensor (R, height, width, C)

    References
    ----------
    Girshick 2015, Fast R-CNN, section 2.1.
    """
    features, rois, output_size = _check("roi_pool", features, rois, output_size, spatial_scale)
    if rule not in RULES:
        raise ValueError(f"roi_pool: rule {rule!r}, wanted one of {', '.join(RULES)}")
    cut = PoolCut(output_size, RULES[rule], deterministic)
    return CutRoIs.apply(features, rois=rois, levels=None, scales=[spatial_scale], cut=cut)


def pool_rois(
    pyramid,
    rois,
    output_size,
    strides=(4, 8, 16, 32),
    operation="align",
    sampling_ratio=2,
    aligned=False,
    mode="average",
    deterministic=False,
) -> Tensor:
    """Cut every RoI from the level of the pyramid that fits its size.

    Parameters
    ----------
    pyramid : sequence of Tensor (N, H_l, W_l, C)
        P2, P3, ..., finest first.
    rois : array (R, 5)
        Picture index, x1, y1, x2, y2 in pixels.
    output_size : int or (int, int)
    strides : sequence of int
        Pixels per cell of each level.
    operation : {"align", "pool", "warp"}
        `roi_align`, `roi_pool`, or RoIWarp, which lies between them: the RoI is rounded to whole cells as in
        `roi_pool`, then sampled as in `roi_align`. It does hardly better than pooling: not rounding is what matters.
    sampling_ratio, aligned, mode
        As `roi_align`; they mean nothing to "pool".
    deterministic
        As `roi_align`.

    Returns
    -------
    Tensor (R, height, width, C)
        In the order of ``rois``.

    References
    ----------
    Lin et al. 2017, Feature Pyramid Networks, section 4.2, equation 1. RoIWarp: Dai, He and Sun 2016, Instance-aware
    Semantic Segmentation via Multi-task Network Cascades, section 4; He et al. 2017, section 4.2 and table 2c.
    """
    pyramid = tensors(*pyramid)
    if not pyramid or len(pyramid) != len(strides):
        raise ValueError(
            f"pool_rois: {len(pyramid)} levels and {len(strides)} strides, wanted as many, and at least one"
        )
    if operation not in ("align", "pool", "warp"):
        raise ValueError(f'pool_rois: operation {operation!r}, wanted "align", "pool" or "warp"')
    if sampling_ratio < 0 or mode not in ("average", "max"):
        raise ValueError(
            f'pool_rois: sampling_ratio {sampling_ratio}, mode {mode!r}; wanted 0 or more, "average" or "max"'
        )
    if len({(level.shape[0], level.shape[-1], level.dtype) for level in pyramid}) > 1:
        raise ValueError(
            f"pool_rois: levels {[level.shape for level in pyramid]}, wanted the same N, C and type in all"
        )
    for level in pyramid:
        _, rois, output_size = _check("pool_rois", level, rois, output_size, 1.0)
    if operation == "pool":
        cut = PoolCut(output_size, RULES["caffe"], deterministic)
    else:
        kind = WarpCut if operation == "warp" else AlignCut
        cut = kind(output_size, int(sampling_ratio), bool(aligned), mode == "max", deterministic)
    levels = None
    if len(pyramid) > 1:
        finest = int(np.log2(strides[0]))
        coarsest = finest + len(pyramid) - 1
        levels = assign_levels(rois[:, 1:], lowest=finest, highest=coarsest) - finest  # (R,) 0 is the finest
    return CutRoIs.apply(*pyramid, rois=rois, levels=levels, scales=[1 / stride for stride in strides], cut=cut)


def _check(function, features, rois, output_size, spatial_scale):
    (features,) = tensors(features)
    size = as_sides(output_size)
    rois = to_device(rois.data if isinstance(rois, Tensor) else rois, "cpu")
    rois = np.ascontiguousarray(rois, dtype=features.dtype)
    if rois.size == 0:
        rois = rois.reshape(0, 5)
    if features.ndim != 4 or min(features.shape[1:3]) < 1:
        raise ValueError(
            f"{function}: features have shape {features.shape}, wanted (N, H, W, C) with at least one cell"
        )
    if rois.ndim != 2 or rois.shape[1] != 5:
        raise ValueError(f"{function}: rois have shape {rois.shape}, wanted (R, 5): picture, x1, y1, x2, y2")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"{function}: output_size is {size}, wanted two numbers of at least 1")
    if not spatial_scale > 0:
        raise ValueError(f"{function}: spatial_scale is {spatial_scale}, wanted more than 0")
    if len(rois) and not (rois[:, 0].min() >= 0 and rois[:, 0].max() < len(features)):
        raise ValueError(
            f"{function}: rois name pictures {rois[:, 0].min():g} to {rois[:, 0].max():g}, there are {len(features)}"
        )
    return features, rois, size


class AlignCut:
    """RoIAlign with its settings, as the two kernels want them."""

    def __init__(self, output_size, sampling_ratio, aligned, use_max, deterministic):
        self.output_size = output_size
        self.settings = sampling_ratio, aligned, use_max
        self.use_max = use_max
        in_order, as_it_comes = align_gradients.roi_align_gradient_in_order, align_gradients.roi_align_gradient
        self.gradient = in_order if deterministic else as_it_comes

    def forward(self, features, rois, scale, crops):
        winner = empty_beside(crops.shape if self.use_max else (0, 0, 0, 0), crops, np.int32)
        align_kernels.roi_align(features, rois, float(scale), *self.settings, winner, crops)
        return winner

    def backward(self, gradient, winner, rois, scale, features_gradient):
        self.gradient(gradient, winner, rois, float(scale), *self.settings, features_gradient)


class WarpCut(AlignCut):
    """RoIAlign of RoIs that were first rounded to whole cells, by the rule "caffe" of RoI pooling."""

    def forward(self, features, rois, scale, crops):
        return super().forward(features, whole_cells(rois, scale), 1.0, crops)

    def backward(self, gradient, winner, rois, scale, features_gradient):
        super().backward(gradient, winner, whole_cells(rois, scale), 1.0, features_gradient)


def whole_cells(rois, scale):
    """RoIs (R, 5) in whole cells: corners rounded half away from zero, the last cell included, at least one cell."""
    xp = module_of(rois)
    corners = rois[:, 1:] * rois.dtype.type(scale)  # (R, 4)
    corners = xp.copysign(xp.floor(xp.abs(corners) + rois.dtype.type(0.5)), corners)
    ends = xp.maximum(corners[:, 2:], corners[:, :2]) + 1
    return xp.concatenate([rois[:, :1], corners[:, :2], ends], axis=1)  # (R, 5)


class PoolCut:
    """RoI pooling with its rule."""

    def __init__(self, output_size, rule, deterministic):
        self.output_size, self.rule = output_size, rule
        in_order, as_it_comes = pool_kernels.roi_pool_gradient_in_order, pool_kernels.roi_pool_gradient
        self.gradient = in_order if deterministic else as_it_comes

    def forward(self, features, rois, scale, crops):
        winner = empty_beside(crops.shape, crops, np.int32)
        pool_kernels.roi_pool(features, rois, float(scale), self.rule, winner, crops)
        return winner

    def backward(self, gradient, winner, rois, scale, features_gradient):
        self.gradient(gradient, winner, rois, float(scale), self.rule, features_gradient)


class CutRoIs(Function):
    """Crops of each level's RoIs, put back into the order of ``rois``; ``levels`` None means one level."""

    def forward(self, *pyramid, rois, levels, scales, cut):
        xp = module_of(pyramid[0])
        crops = empty_beside((len(rois), *cut.output_size, pyramid[0].shape[3]), pyramid[0])  # (R, h, w, C)
        self.shapes, self.cut, self.scales, self.parts = [level.shape for level in pyramid], cut, scales, []
        if levels is not None:  # level after level, so that no more than two arrays go to a GPU
            order = np.argsort(levels, kind="stable")  # (R,)
            ends = [0, *np.bincount(levels, minlength=len(pyramid)).cumsum().tolist()]
            rois, order = rois[order], beside(order, crops)
        rois = beside(rois, crops)
        for number, features in enumerate(pyramid):
            some = slice(None) if levels is None else slice(ends[number], ends[number + 1])
            chosen, rows = rois[some], some if levels is None else order[some]  # (R_l, 5), (R_l,)
            part = crops if levels is None else empty_beside((len(chosen), *crops.shape[1:]), crops)
            winner = cut.forward(xp.ascontiguousarray(features), chosen, scales[number], part)
            if levels is not None:
                crops[rows] = part
            self.parts.append((rows, chosen, winner))
        return crops

    def backward(self, gradient):
        xp = module_of(gradient)
        gradients = []
        for number, (rows, chosen, winner) in enumerate(self.parts):
            if not self.needs[number]:
                gradients.append(None)
                continue
            features_gradient = empty_beside(self.shapes[number], gradient)
            self.cut.backward(
                xp.ascontiguousarray(gradient[rows]), winner, chosen, self.scales[number], features_gradient
            )
            gradients.append(features_gradient)
        return tuple(gradients)
