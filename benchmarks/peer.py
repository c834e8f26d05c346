"""How torch and torchvision do each kind of work: ``build(work, inputs, layout)`` gives what a worker times.

Arrays come channels last and become torch's (N, C, H, W), laid out in memory as ``layout`` says: "first" is torch's
default, "last" its ``channels_last``. What has no maps knows no layout.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from benchmarks.timing import Task
from benchmarks.work import BUILDERS, PICTURE, RESIZED, Work

DEVICE = "cpu"  # where torch works; benchmarks.gpu says "cuda"
LEARNING_RATE = 1e-4
MEMORY = {"first": torch.contiguous_format, "last": torch.channels_last}
WITHOUT_LAYOUT = ("linear", "nms", "box_iou", "paste_masks", "crop_masks", "adamw", "sgd", "clip")


def build(work: Work, inputs: dict, layout: str) -> Task:
    """The task of a work in one layout."""
    return globals()[BUILDERS.get(work.kind, work.kind)](work, layout, **inputs)


def given(array):
    """An array as torch's, where torch works."""
    return torch.from_numpy(array).to(DEVICE)


def left(output):
    """A result as NumPy's; on a GPU as it is, as the way to the host would be on the clock."""
    return output.numpy() if output.device.type == "cpu" else output


def tensor(array, layout="first"):
    """Maps (N, H, W, C) as (N, C, H, W) in the layout; everything else as it is."""
    if array.ndim != 4:
        return given(array)
    return given(array).permute(0, 3, 1, 2).contiguous(memory_format=MEMORY[layout])


def kernel(array, layout):
    """(KH, KW, Cin, Cout) as torch's (Cout, Cin, KH, KW)."""
    return given(array).permute(3, 2, 0, 1).contiguous(memory_format=MEMORY[layout])


def array(output):
    """Back to NumPy, maps channels last."""
    output = output.detach()
    return left(output.permute(0, 2, 3, 1) if output.ndim == 4 else output)


def kernel_array(weight):
    return left(weight.permute(2, 3, 1, 0))


def differentiate(work, forward, *leaves, backs=None) -> Task:
    """``forward(*leaves)``, its gradients alone, or both; ``backs`` bring the gradients into our layout."""
    if not (work.backward or work.both):

        def run():
            with torch.no_grad():
                return forward(*leaves)

        return Task(lambda: array(run()))

    leaves = [leaf.requires_grad_() for leaf in leaves]
    backs = backs or [array] * len(leaves)
    with torch.no_grad():
        example = forward(*leaves)
    shape = example.permute(0, 2, 3, 1).shape if example.ndim == 4 else example.shape
    incoming = given(np.random.default_rng(1).standard_normal(tuple(shape), np.float32))
    if example.ndim == 4:
        incoming = incoming.permute(0, 3, 1, 2)
        incoming = incoming.contiguous(
            memory_format=torch.channels_last
            if example.is_contiguous(memory_format=torch.channels_last) and not example.is_contiguous()
            else torch.contiguous_format
        )

    def before():
        for leaf in leaves:
            leaf.grad = None
        return forward(*leaves) if work.backward else None

    def run_backward(output):
        output = forward(*leaves) if output is None else output
        output.backward(incoming)
        return [back(leaf.grad) for back, leaf in zip(backs, leaves, strict=True)]

    return Task(run_backward, before)


def conv(work, layout, x, weight, bias):
    size = work.size
    settings = dict(stride=size["stride"], padding=size["kernel"] // 2, groups=size["groups"])
    return differentiate(
        work,
        lambda x, weight, bias: F.conv2d(x, weight, bias, **settings),
        tensor(x, layout),
        kernel(weight, layout),
        given(bias),
        backs=[array, kernel_array, array],
    )


def conv_transpose(work, layout, x, weight):
    weight = kernel(weight.swapaxes(2, 3), layout)  # torch's are (Cin, Cout, KH, KW) here
    return differentiate(
        work,
        lambda x, weight: F.conv_transpose2d(x, weight, stride=2),
        tensor(x, layout),
        weight,
        backs=[array, lambda gradient: left(gradient.permute(2, 3, 0, 1))],
    )


def linear(work, layout, x, weight):
    weight = given(np.ascontiguousarray(weight.T))
    return differentiate(work, F.linear, given(x), weight, backs=[array, lambda gradient: left(gradient.T)])


def cut(work, layout, x, rois, gradient=None):
    operation = dict(
        roi_align=functools.partial(torchvision.ops.roi_align, sampling_ratio=2), roi_pool=torchvision.ops.roi_pool
    )[work.kind]
    rois, side = given(rois), work.size["side"]
    features = tensor(x, layout)
    if not work.backward:
        return differentiate(work, lambda features: operation(features, rois, side, spatial_scale=0.25), features)
    features.requires_grad_()
    incoming = tensor(gradient)

    def before():
        features.grad = None
        return operation(features, rois, side, spatial_scale=0.25)

    def run(crops):
        crops.backward(incoming)
        return array(features.grad)

    return Task(run, before)


def nms(work, layout, boxes, scores):
    boxes, scores = given(boxes), given(scores)
    return Task(lambda: left(torchvision.ops.nms(boxes, scores, 0.7)))


def box_iou(work, layout, a, b):
    a, b = given(a), given(b)
    return Task(lambda: left(torchvision.ops.box_iou(a, b)))


def paste_masks(work, layout, masks, boxes):
    masks, boxes = given(masks[:, None]), given(boxes)
    if work.size["soft"]:
        return Task(lambda: left(paste_masks_in_image(masks, boxes, PICTURE)[:, 0]))
    return Task(lambda: left(paste_masks_in_image(masks, boxes, PICTURE)[:, 0] > 0.5))


def crop_masks(work, layout, masks, rois, matched):
    masks = given(masks)
    rois = torch.cat([given(matched)[:, None].to(torch.float32), given(rois)], dim=1)

    def run():  # as torchvision's project_masks_on_boxes
        return left(torchvision.ops.roi_align(masks[:, None].to(torch.float32), rois, (28, 28), 1.0)[:, 0])

    return Task(run)


def max_pool(work, layout, x, scale, shift):
    return differentiate(work, lambda x: F.max_pool2d(x, 3, 2, 1), tensor(x, layout))


def upsample(work, layout, x, scale, shift):
    size = 2 * work.size["height"], 2 * work.size["width"]
    return differentiate(work, lambda x: F.interpolate(x, size, mode="nearest"), tensor(x, layout))


def resize(work, layout, x, scale, shift):
    return differentiate(
        work, lambda x: F.interpolate(x, RESIZED, mode="bilinear", align_corners=False), tensor(x, layout)
    )


def group_norm(work, layout, x, scale, shift):
    return differentiate(
        work,
        lambda x, scale, shift: F.group_norm(x, 32, scale, shift),
        tensor(x, layout),
        given(scale),
        given(shift),
    )


def relu(work, layout, x, scale, shift):
    x = tensor(x, layout)
    output = torch.relu(x)
    return Task(lambda: array(torch.ops.aten.threshold_backward(x, output, 0)))


def clip(work, layout, parameter, gradient):
    weights = nn.Parameter(given(parameter))

    def before():
        weights.grad = given(gradient.copy())

    def run(_):
        nn.utils.clip_grad_norm_([weights], 1.0)
        return left(weights.grad)

    return Task(run, before)


def optimizer(work, layout, parameter, gradient):
    weights = nn.Parameter(given(parameter.copy()))
    weights.grad = given(gradient)
    if work.kind == "adamw":
        stepper = torch.optim.AdamW([weights], LEARNING_RATE, fused=True)
    else:
        stepper = torch.optim.SGD([weights], LEARNING_RATE, momentum=0.9, weight_decay=1e-4, fused=True)

    def run():
        stepper.step()
        return left(weights.detach())

    return Task(run)


def resnet50_fpn():
    """torchvision's Mask R-CNN as it comes with published weights, three stages trainable; the weights are ours."""
    from tests.published import our_name

    body = torchvision.models.resnet50(weights=None, norm_layer=torchvision.ops.misc.FrozenBatchNorm2d)
    backbone = _resnet_fpn_extractor(body, trainable_layers=3)
    model = torchvision.models.detection.MaskRCNN(backbone, 91, min_size=1, max_size=10**6)
    with TemporaryDirectory() as folder:  # from another process: ours would count into this one's peak memory
        path = Path(folder) / "weights.npz"
        code = "import sys; from benchmarks.ours import save_weights; save_weights(sys.argv[1])"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)
        with np.load(path) as ours:
            weights = {
                public: given(np.ascontiguousarray(their_layout(public, ours[our_name(published_name(public))])))
                for public in model.state_dict()
            }
    model.load_state_dict(weights)
    return model


def published_name(current: str) -> str:
    """The name in the published files, which are older than the modules: ``conv.0.0.weight`` was ``conv.weight``."""
    name = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", current)
    name = re.sub(r"mask_head\.(\d)\.0\.", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}.", name)
    return name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")


def their_layout(public: str, ours: np.ndarray) -> np.ndarray:
    """The inverse of ``tests.published.our_layout``."""
    if "conv5_mask" in public and ours.ndim == 4:
        return ours.transpose(2, 3, 0, 1)
    if ours.ndim == 4:
        return ours.transpose(3, 2, 0, 1)
    if "fc6" in public and ours.ndim == 2:  # its input is a crop, channels last there and first here
        return ours.reshape(7, 7, -1, ours.shape[1]).transpose(3, 2, 0, 1).reshape(ours.shape[1], -1)
    return ours.T if ours.ndim == 2 else ours


def in_layout(model, layout):
    return model.to(DEVICE, memory_format=MEMORY[layout])


def without_resizing(model):
    """Pictures come in their final size: only normalize."""
    model.transform.resize = lambda image, target: (image, target)
    return model


def picture_tensor(picture):
    return given(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / np.float32(255))


def inference(work, layout, watch=None):
    from benchmarks.pictures import make_picture

    model = without_resizing(in_layout(resnet50_fpn(), layout)).eval()
    model.roi_heads.score_thresh = work.size["threshold"]
    if watch:
        watch(model)
    picture = make_picture(PICTURE)

    def run():  # nothing is handed back: the weights are random
        with torch.no_grad():
            model([picture_tensor(picture)])[0]["masks"].gt(0.5)

    return Task(run)


def target_dict(boxes, labels, masks):
    return dict(boxes=given(boxes), labels=given(np.int64(labels)), masks=given(masks))


def training_step(work, layout):
    from benchmarks.pictures import make_picture, make_target

    model = without_resizing(in_layout(resnet50_fpn(), layout)).train()
    for parameter in [*model.backbone.body.conv1.parameters(), *model.backbone.body.layer1.parameters()]:
        parameter.requires_grad = False
    picture, target = make_picture((480, 640)), make_target((480, 640), work.size["objects"])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stepper = torch.optim.SGD(trained, LEARNING_RATE, momentum=0.9, weight_decay=1e-4, fused=True)
    return Task(step(model, stepper, lambda: ([picture_tensor(picture)], [target_dict(*target)])))


def demo_model(classes: int):
    """The demo's network in torchvision: ResNet-18 with group norm, a pyramid of 64 channels, small heads."""
    from torchvision.models import resnet18
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import AnchorGenerator

    norm = functools.partial(nn.GroupNorm, 32)
    levels = {"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"}
    body = BackboneWithFPN(resnet18(norm_layer=norm), levels, [64, 128, 256, 512], 64, norm_layer=norm)
    return MaskRCNN(
        body, num_classes=None, min_size=128, max_size=256,
        rpn_anchor_generator=AnchorGenerator(tuple((size,) for size in (16, 32, 64, 128, 256)), ((0.5, 1, 2),) * 5),
        box_head=TwoMLPHead(64 * 49, 256), box_predictor=FastRCNNPredictor(256, classes),
        mask_head=MaskRCNNHeads(64, (64,) * 4, 1, norm_layer=norm), mask_predictor=MaskRCNNPredictor(64, 64, classes),
        rpn_pre_nms_top_n_train=1000, rpn_post_nms_top_n_train=1000, box_batch_size_per_image=64,
    )  # fmt: skip


def demo_step(work, layout):
    from benchmarks.pictures import DemoBatches

    batches = DemoBatches(work.size["batch"])
    model = without_resizing(in_layout(demo_model(len(batches.class_names)), layout)).train()

    def next_batch():
        pictures, targets = batches.draw()
        dicts = [target_dict(target.boxes, target.labels, target.masks) for target in targets]
        return [picture_tensor(picture) for picture in pictures], dicts

    return Task(step(model, torch.optim.AdamW(model.parameters(), 1e-6, fused=True), next_batch))


def step(model, optimizer, next_batch):
    def run():
        losses = model(*next_batch())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return run
