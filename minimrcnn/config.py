"""Every choice of the network in one frozen record, named as torchvision's arguments where it has one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from minimrcnn.fields import check_fields, either, every, is_positive, is_share, number, whole

CHOICES = {
    "backbone": ("resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d", "vgg16"),
    "norm": ("frozen_batch", "batch", "group"),
    "head_norm": (None, "batch", "group"),
    "pyramid": ("fpn", "c4", "c5"),
    "p6": ("p5", "m5"),
    "mask_head": ("convolutional", "mlp", None),
    "roi_operation": ("align", "pool", "warp"),
    "roi_mode": ("average", "max"),
    "mask_loss": ("sigmoid", "agnostic", "softmax"),
}
# The upper bounds are for files of strangers: a crop's side and a picture's padding cost memory before anything fails.
RULES = (
    *((name, f"one of {', '.join(map(str, allowed))}", either(*allowed)) for name, allowed in CHOICES.items()),
    ("num_classes", "a whole number of at least 2 (the background counts)", whole(2)),
    ("class_names", "one text a class", every(lambda value: isinstance(value, str))),
    (
        "category_ids",
        "one whole number a class, None for the background",
        every(either(None, test=whole())),
    ),
    ("trainable_backbone_layers", "a whole number from 0 to 5, all of them", whole(0, 5)),
    (
        "max_size pyramid_channels rpn_conv_depth box_head_channels norm_groups "
        "rpn_batch_size_per_image box_batch_size_per_image",
        "a whole number of at least 1",
        whole(1),
    ),
    ("min_size mask_upsample_channels", "a whole number of at least 1, or None", either(None, test=whole(1))),
    ("box_pool_size mask_pool_size", "a whole number from 1 to 64", whole(1, 64)),
    ("box_head_convs mask_head_channels mask_mlp_channels", "whole numbers of at least 1", every(whole(1))),
    (
        "box_head_fcs roi_sampling_ratio rpn_pre_nms_top_n_train rpn_pre_nms_top_n_test rpn_post_nms_top_n_train "
        "rpn_post_nms_top_n_test box_detections_per_img",
        "a whole number, 0 or more",
        whole(0),
    ),
    (
        "size_divisible",
        "a multiple of 32, the stride of C5, of at most 1024",
        lambda value: whole(32, 1024)(value) and value % 32 == 0,
    ),
    ("norm_eps", "a number, 0 or more", number(0)),
    (
        "rpn_nms_thresh rpn_fg_iou_thresh rpn_bg_iou_thresh rpn_positive_fraction box_fg_iou_thresh box_bg_iou_thresh "
        "box_positive_fraction box_score_thresh box_nms_thresh",
        "a number from 0 to 1",
        is_share,
    ),
    ("image_mean", "3 numbers from 0 to 1, of red, green and blue", every(is_share, 3)),
    ("image_std", "3 numbers above 0, of red, green and blue", every(is_positive, 3)),
    ("bbox_reg_weights", "4 numbers above 0, of x, y, width and height", every(is_positive, 4)),
    (
        "anchor_sizes",
        "at least one size, all of at least 2 pixels",
        lambda value: value != () and every(number(2))(value),
    ),
    ("aspect_ratios", "at least one ratio, all above 0", lambda value: value != () and every(is_positive)(value)),
    ("roi_aligned roi_deterministic", "True or False", either(True, False)),
)


@dataclass(frozen=True)
class Config:
    """The architecture and its settings; saved with every checkpoint. Defaults are the published COCO settings.

    It cannot be changed: ``dataclasses.replace(config, min_size=512)`` makes another, and
    ``MaskRCNN.load(path, box_score_thresh=0.9)`` a model with another.

    Attributes
    ----------
    num_classes : int
        Classes, the background (label 0) included.
    class_names : tuple of str
        One name a class, ``class_names[0]`` is the background; empty if unknown.
    category_ids : tuple
        The number of each class in the data set's annotation file, None for the background; empty if labels are meant.
    backbone : {"resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d", "vgg16"}
    trainable_backbone_layers : int
        How many of the backbone's five parts learn, counted from the last: 3 are the last three stages, 5 all.
    norm : {"frozen_batch", "batch", "group"}
        Normalization of the backbone; VGG has none.
    head_norm : {None, "batch", "group"}
        Normalization of the pyramid and of the heads' convolutions. None is none, but where ``norm`` is "group" it is
        "group" as well, which is what training from scratch on small batches needs (Wu and He 2018, section 4.2).
    norm_groups : int
        Groups of the group normalization.
    norm_eps : float
        Added to the variance.
    pyramid : {"fpn", "c4", "c5"}
        What RPN and heads look at: P2 to P6; or C4 alone (stride 16), the backbone's last stage being a part of the
        heads; or C5 alone (stride 32).
    p6 : {"p5", "m5"}
        What P6 is every second cell of: P5 (the paper, torchvision), or M5, the sum before P5's convolution (the
        article).
    pyramid_channels : int
        Channels of P2 to P6.
    mask_head : {"convolutional", "mlp", None}
        Convolutions, or fully connected layers (He et al. 2017, table 2e); None makes the model a Faster R-CNN. True
        and False, as older files have it, mean "convolutional" and None.
    min_size, max_size : int or None
        A picture is resized so that its shorter side has ``min_size`` pixels, or less where its longer side would
        exceed ``max_size``, cut off to whole pixels as in torchvision, so it may be one less. ``min_size`` None leaves
        pictures at their own size.
    size_divisible : int
        Batches are padded to a multiple of this on both sides, so that every level has a whole number of cells.
    image_mean, image_std : tuple of 3 floats
        Of red, green and blue in 0..1.
    anchor_sizes : tuple of floats
        The side of a square anchor on P2, P3, P4, P5, P6, in pixels of the resized picture; without a pyramid, any
        number of sizes, all on the one level.
    aspect_ratios : tuple of floats
        Height over width of the anchors of every cell.
    rpn_conv_depth : int
        3x3 convolutions in the RPN, of as many channels as come in.
    rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test : int
        Best proposals of a level that enter its NMS.
    rpn_post_nms_top_n_train, rpn_post_nms_top_n_test : int
        Best proposals of a picture that leave the RPN.
    rpn_nms_thresh : float
    rpn_fg_iou_thresh, rpn_bg_iou_thresh : float
        Anchors of at least the first are positive, below the second negative, between them neither.
    rpn_batch_size_per_image : int
        Anchors sampled a picture to train on.
    rpn_positive_fraction : float
        At most this share of them positive.
    roi_operation : {"align", "pool", "warp"}
        How features are cut out for the heads: RoIAlign, RoI pooling, RoIWarp.
    roi_mode : {"average", "max"}
        What RoIAlign and RoIWarp make of the samples in a cell; RoI pooling knows the maximum alone.
    roi_sampling_ratio : int
        Samples along each axis of a cell; 0 adapts to the cell's size.
    roi_aligned : bool
        RoIAlign's half-pixel shift; the published weights want False.
    roi_deterministic : bool
        On a GPU, add up the crops' gradients always in the same order, so that the same seed gives the same bits, as on
        a CPU. False leaves the order to chance, which is faster: gradients then differ from run to run by about 1e-6 of
        the largest. No part of the architecture: a training may go on with the other.
    box_pool_size, mask_pool_size : int
        Side of the crops; with ``pyramid`` "c4" the backbone's last stage halves it before the heads.
    box_head_convs : tuple of int
        Channels of the box head's 3x3 convolutions, before its fully connected layers.
    box_head_fcs : int
        Fully connected layers of the box head; with 0 the crop is averaged.
    box_head_channels : int
        Width of each.
    mask_head_channels : tuple of int
        Channels of the mask head's 3x3 convolutions, if it is "convolutional".
    mask_upsample_channels : int or None
        Channels of the transposed convolution after them; None: as many as come in.
    mask_mlp_channels : tuple of int
        Widths of the mask head's fully connected layers, if it is an "mlp".
    box_fg_iou_thresh, box_bg_iou_thresh : float
    box_batch_size_per_image : int
        RoIs sampled a picture to train the heads on.
    box_positive_fraction : float
    bbox_reg_weights : tuple of 4 floats
        Scale of the box head's targets for x, y, width, height.
    box_score_thresh, box_nms_thresh : float
    box_detections_per_img : int
    mask_loss : {"sigmoid", "agnostic", "softmax"}
        K independent sigmoid masks; one mask for all classes; or a per-pixel softmax over classes as in an FCN.
    """

    num_classes: int = 91
    class_names: tuple[str, ...] = ()
    category_ids: tuple[int | None, ...] = ()
    backbone: str = "resnet50"
    trainable_backbone_layers: int = 5
    norm: str = "frozen_batch"
    head_norm: str | None = None
    norm_groups: int = 32
    norm_eps: float = 1e-5
    pyramid: str = "fpn"
    p6: str = "p5"
    pyramid_channels: int = 256
    mask_head: str | bool | None = "convolutional"

    min_size: int | None = 800
    max_size: int = 1333
    size_divisible: int = 32
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)

    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_conv_depth: int = 1
    rpn_pre_nms_top_n_train: int = 2000
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_train: int = 2000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_thresh: float = 0.7
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5

    roi_operation: str = "align"
    roi_mode: str = "average"
    roi_sampling_ratio: int = 2
    roi_aligned: bool = False
    roi_deterministic: bool = True
    box_pool_size: int = 7
    mask_pool_size: int = 14
    box_head_convs: tuple[int, ...] = ()
    box_head_fcs: int = 2
    box_head_channels: int = 1024
    mask_head_channels: tuple[int, ...] = (256, 256, 256, 256)
    mask_upsample_channels: int | None = None
    mask_mlp_channels: tuple[int, ...] = (1024, 1024)
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    bbox_reg_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    mask_loss: str = "sigmoid"

    def __post_init__(self):
        if isinstance(self.mask_head, bool):
            object.__setattr__(self, "mask_head", "convolutional" if self.mask_head else None)
        check_fields(self, RULES)
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"Config: {len(self.class_names)} class_names for num_classes {self.num_classes} (with the background)"
            )
        if self.category_ids and len(self.category_ids) != self.num_classes:
            raise ValueError(f"Config: {len(self.category_ids)} category_ids for num_classes {self.num_classes}")
        if self.pyramid == "fpn" and len(self.anchor_sizes) != 5:
            raise ValueError(f"Config: {len(self.anchor_sizes)} anchor_sizes, wanted 5, for P2 to P6")
        thinnest = min(self.anchor_sizes) * min(min(ratio, 1 / ratio) for ratio in self.aspect_ratios) ** 0.5
        if thinnest <= 1:  # half of it is rounded to 0: see `geometry.make_anchors`
            raise ValueError(
                f"Config: anchor_sizes {self.anchor_sizes}, aspect_ratios {self.aspect_ratios} make an anchor "
                f"{thinnest:.2g} pixels wide or high, wanted more than 1; take larger sizes, or ratios closer to 1"
            )
        for part in ("rpn", "box"):
            low, high = getattr(self, f"{part}_bg_iou_thresh"), getattr(self, f"{part}_fg_iou_thresh")
            if low > high:
                raise ValueError(
                    f"Config: {part}_bg_iou_thresh is {low}, wanted at most {part}_fg_iou_thresh, which is {high}"
                )
        if self.pyramid == "c4" and self.backbone == "vgg16":
            raise ValueError('Config: pyramid "c4" wants a ResNet or ResNeXt, whose last stage goes into the heads')

    @classmethod
    def from_dict(cls, fields: dict) -> Config:
        """The Config a dictionary (as `dataclasses.asdict` or JSON gives it) describes; unknown names are refused."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(f"Config: unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**fields)
