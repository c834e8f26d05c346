"""How minimrcnn does each kind of work: ``build(work, inputs)`` gives what a worker times."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np

from benchmarks.timing import Task
from benchmarks.work import BUILDERS, PICTURE, RESIZED, Work
from minimrcnn import functional as F
from minimrcnn import geometry, no_grad
from minimrcnn.device import beside, module_of
from minimrcnn.functional.conv import relu_gradient
from minimrcnn.tensor import Tensor

DEVICE = "cpu"  # of whole networks; benchmarks.gpu says "cuda". Otherwise the inputs decide.
LEARNING_RATE = 1e-4


def build(work: Work, inputs: dict, algorithm: str = "auto") -> Task:
    """The task of a work, on the inputs as they are: their type and device decide."""
    return globals()[BUILDERS.get(work.kind, work.kind)](work, algorithm=algorithm, **inputs)


def differentiate(work: Work, forward, *arrays, gradient=None) -> Task:
    """``forward(*tensors)``, its gradients alone, or both, as the work wants it; ``gradient`` None is made of noise."""
    if not (work.backward or work.both):

        def run():
            with no_grad():
                return forward(*arrays).data

        return Task(run)

    def before():
        leaves = [Tensor(array, requires_grad=True) for array in arrays]
        return leaves, forward(*leaves) if work.backward else None

    def run_backward(state):
        nonlocal gradient
        leaves, output = state
        if output is None:
            output = forward(*leaves)
        if gradient is None:  # in the first call only, which does not count
            noise = np.random.default_rng(1).standard_normal(output.shape, np.float32)
            gradient = beside(noise, output.data, output.dtype)
        output.backward(gradient)
        return [leaf.grad for leaf in leaves]

    return Task(run_backward, before)


def conv(work, algorithm, x, weight, bias):
    size = work.size
    settings = dict(stride=size["stride"], padding=size["kernel"] // 2, groups=size["groups"], algorithm=algorithm)
    return differentiate(work, lambda x, weight, bias: F.conv2d(x, weight, bias, **settings), x, weight, bias)


def conv_transpose(work, algorithm, x, weight):
    return differentiate(work, F.conv_transpose2d, x, weight)


def linear(work, algorithm, x, weight):
    return differentiate(work, F.linear, x, weight)


def cut(work, algorithm, x, rois, gradient=None):
    operation = dict(roi_align=F.roi_align, roi_pool=F.roi_pool)[work.kind]
    settings = dict(sampling_ratio=2, aligned=False) if work.kind == "roi_align" else {}

    def forward(features):
        return operation(features, rois, work.size["side"], 0.25, **settings)

    return differentiate(work, forward, x, gradient=gradient)


def nms(work, algorithm, boxes, scores):
    return Task(lambda: geometry.nms(boxes, scores, 0.7))


def box_iou(work, algorithm, a, b):
    return Task(lambda: geometry.box_iou(a, b))


def paste_masks(work, algorithm, masks, boxes):
    paste = geometry.paste_masks if work.size["soft"] else geometry.paste_masks_bool
    return Task(lambda: paste(masks, boxes, PICTURE))


def crop_masks(work, algorithm, masks, rois, matched):
    return Task(lambda: geometry.crop_masks(masks, rois, matched, 28))


def max_pool(work, algorithm, x, scale, shift):
    return differentiate(work, lambda x: F.max_pool2d(x, 3, 2, 1), x)


def upsample(work, algorithm, x, scale, shift):
    size = 2 * work.size["height"], 2 * work.size["width"]
    return differentiate(work, lambda x: F.upsample_nearest(x, size), x)


def resize(work, algorithm, x, scale, shift):
    return differentiate(work, lambda x: F.resize_bilinear(x, RESIZED), x)


def group_norm(work, algorithm, x, scale, shift):
    return differentiate(work, lambda *tensors: F.group_norm(tensors[0], 32, *tensors[1:]), x, scale, shift)


def relu(work, algorithm, x, scale, shift):
    output = module_of(x).maximum(x, 0)
    return Task(lambda: relu_gradient(x, output))


def clip(work, algorithm, parameter, gradient):
    from minimrcnn.training.optimizer import clip_gradients

    weights = Tensor(parameter, requires_grad=True)

    def before():
        weights.grad = gradient.copy()

    def run(_):
        clip_gradients([weights], 1.0)
        return weights.grad

    return Task(run, before)


def optimizer(work, algorithm, parameter, gradient):
    from minimrcnn.training.optimizer import SGD, AdamW

    weights = Tensor(parameter.copy(), requires_grad=True)
    stepper = dict(adamw=AdamW, sgd=SGD)[work.kind]({"weights": weights})

    def run():
        weights.grad = gradient
        stepper.step(LEARNING_RATE)
        return weights.data

    return Task(run)


def inference(work, algorithm, watch=None):
    from benchmarks.pictures import make_picture
    from minimrcnn import MaskRCNN

    model, picture = MaskRCNN(make_config(), seed=0).to(DEVICE), make_picture(PICTURE)
    if watch:
        watch(model)

    def run():  # nothing is handed back: the weights are random
        model.predict([picture], score_thresh=work.size["threshold"])

    return Task(run)


def save_weights(path: str) -> None:
    """Write the arrays of the whole network, for the peer to load."""
    from minimrcnn import MaskRCNN

    np.savez(path, **MaskRCNN(make_config(), seed=0).arrays())


def make_config():
    from minimrcnn import Config

    return Config(min_size=None)  # the pictures come in their final size


def training_step(work, algorithm):
    from benchmarks.pictures import make_picture, make_target
    from minimrcnn import MaskRCNN, Target
    from minimrcnn.training.optimizer import SGD

    model = MaskRCNN(make_config(), seed=0).to(DEVICE).train()
    for part in (model.backbone.stem, model.backbone.stages[0]):  # three trainable stages
        for parameter in part.parameters():
            parameter.requires_grad = False
    picture = make_picture((480, 640))
    boxes, labels, masks = make_target((480, 640), work.size["objects"])
    trained = {name: parameter for name, parameter in model.named_parameters().items() if parameter.requires_grad}
    return Task(stepper(model, SGD(trained), lambda: ([picture], [Target(boxes, labels, masks)]), LEARNING_RATE))


def demo_step(work, algorithm):
    from benchmarks.pictures import DemoBatches
    from minimrcnn import MaskRCNN
    from minimrcnn.models.presets import small_config
    from minimrcnn.training.optimizer import AdamW

    batches = DemoBatches(work.size["batch"])
    model = MaskRCNN(small_config(batches.class_names, rois=64), seed=0).to(DEVICE).train()
    return Task(stepper(model, AdamW(model.named_parameters()), batches.draw, 1e-6))


def stepper(model, optimizer, next_batch, learning_rate):
    """One step of a training as a function without arguments."""
    from minimrcnn.training.optimizer import clip_gradients

    def run():
        losses = model.losses(*next_batch())
        total = functools.reduce(operator.add, losses.values())
        model.zero_grad()
        total.backward()
        clip_gradients(model.parameters(), 10.0)
        optimizer.step(learning_rate)
        if not math.isfinite(total.item()):
            raise ArithmeticError(f"the loss became {total.item()}")

    return run
