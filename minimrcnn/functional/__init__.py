"""Operations on Tensors: one Function and one friendly function each, with checks. Features are (N, H, W, C)."""

from minimrcnn.functional.conv import conv2d, conv_transpose2d, linear
from minimrcnn.functional.loss import bce_with_logits, cross_entropy, mask_loss, smooth_l1
from minimrcnn.functional.math import concatenate, exp, log, relu, sigmoid, softmax
from minimrcnn.functional.norm import batch_norm, group_norm
from minimrcnn.functional.pool import max_pool2d
from minimrcnn.functional.resize import resize_bilinear, upsample_nearest
from minimrcnn.functional.roi import pool_rois, roi_align, roi_pool

__all__ = [
    "batch_norm",
    "bce_with_logits",
    "concatenate",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "exp",
    "group_norm",
    "linear",
    "log",
    "mask_loss",
    "max_pool2d",
    "pool_rois",
    "relu",
    "resize_bilinear",
    "roi_align",
    "roi_pool",
    "sigmoid",
    "smooth_l1",
    "softmax",
    "upsample_nearest",
]
