"""The models of the papers by name: each is `MaskRCNN` with some fields of its Config set, and random weights.

Every function takes ``seed`` and any field of the `Config`, which wins over what is set here:
``maskrcnn_resnet50_c4(num_classes=3, roi_operation="pool")`` is a row of the paper's table 2c.
"""

from __future__ import annotations

from minimrcnn.models.mask_rcnn import MaskRCNN

ON_C4 = {
    "pyramid": "c4",
    "box_pool_size": 14,
    "mask_pool_size": 14,
    "box_head_fcs": 0,  # res5, then an average
    "mask_head_channels": (),
    "mask_upsample_channels": 256,
    "rpn_pre_nms_top_n_train": 12000,  # those of Ren et al.'s code: all cells are on one level
    "rpn_pre_nms_top_n_test": 6000,
    "rpn_post_nms_top_n_test": 300,
    "box_batch_size_per_image": 64,
}
V2 = {
    "norm": "batch",
    "head_norm": "batch",
    "rpn_conv_depth": 2,
    "box_head_convs": (256, 256, 256, 256),
    "box_head_fcs": 1,
}


def maskrcnn_resnet50_fpn(seed: int = 0, **fields) -> MaskRCNN:
    """Mask R-CNN with ResNet-50 and a pyramid: the Config's defaults, torchvision's model of that name.

    Source: He et al. 2017, section 3 and figure 4, right; torchvision trained it to 34.6 mask AP, and freezes conv1
    and the first stage as it goes on from its weights (``trainable_backbone_layers=3``).
    """
    return MaskRCNN(seed=seed, **fields)


def maskrcnn_resnet101_fpn(seed: int = 0, **fields) -> MaskRCNN:
    """Mask R-CNN with ResNet-101 and a pyramid.

    Source: He et al. 2017, table 2a: 35.4 mask AP, where ResNet-50 has 33.6.
    """
    return MaskRCNN(seed=seed, **{"backbone": "resnet101", **fields})


def maskrcnn_resnext101_fpn(seed: int = 0, **fields) -> MaskRCNN:
    """Mask R-CNN with ResNeXt-101 (32 groups of 8 channels) and a pyramid.

    Source: He et al. 2017, table 2a: 36.7 mask AP; Xie et al. 2017. 32x8d is one of those with published ImageNet
    weights in torchvision.
    """
    return MaskRCNN(seed=seed, **{"backbone": "resnext101_32x8d", **fields})


def maskrcnn_vgg16_fpn(seed: int = 0, **fields) -> MaskRCNN:
    """Mask R-CNN with VGG-16 and a pyramid.

    Source: Lin et al. 2017, Feature Pyramid Networks, section 3: the pyramid does not depend on the backbone; levels as
    in `models.vgg`.
    """
    return MaskRCNN(seed=seed, **{"backbone": "vgg16", **fields})


def maskrcnn_resnet50_c4(seed: int = 0, **fields) -> MaskRCNN:
    """Mask R-CNN with ResNet-50 and no pyramid: RPN and heads look at C4, the last stage is shared by the heads.

    Source: He et al. 2017, figure 4, left; section 3.1: 64 RoIs a picture, anchors of 5 scales and 3 ratios, 300
    proposals to test. Before NMS the best 12,000 (6,000 to test), as in the code of Ren et al. 2015.
    """
    return MaskRCNN(seed=seed, **{**ON_C4, **fields})


def fasterrcnn_resnet50_fpn(seed: int = 0, **fields) -> MaskRCNN:
    """Faster R-CNN with ResNet-50 and a pyramid: `maskrcnn_resnet50_fpn` without masks.

    Source: Lin et al. 2017, Feature Pyramid Networks, section 4; torchvision's model of that name (with RoIAlign).
    """
    return MaskRCNN(seed=seed, **{"mask_head": None, **fields})


def fasterrcnn_resnet50_c4(seed: int = 0, **fields) -> MaskRCNN:
    """Faster R-CNN with ResNet-50 and RoI pooling from C4.

    Source: He et al. 2016, Deep Residual Learning, appendix A: RoI pooling before conv5_1; Ren et al. 2015, section
    4.2: on COCO, anchors of 4 scales and 3 ratios, 300 proposals; Girshick 2015, section 2.3: 64 RoIs a picture.
    """
    anchors = (64, 128, 256, 512)
    settings = {**ON_C4, "mask_head": None, "roi_operation": "pool", "anchor_sizes": anchors}
    return MaskRCNN(seed=seed, **{**settings, **fields})


def maskrcnn_resnet50_fpn_v2(seed: int = 0, **fields) -> MaskRCNN:
    """Mask R-CNN with batch normalization that learns, two convolutions in the RPN, four in the box head.

    Source: Li et al. 2021, Benchmarking Detection Transfer Learning with Vision Transformers; torchvision's model of
    that name, which has 41.8 mask AP.
    """
    return MaskRCNN(seed=seed, **{**V2, **fields})
