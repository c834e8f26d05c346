"""A whole model on a stand-in for a GPU: nothing forgets a transfer, and the numbers are the CPU's.

The stand-in (`tests.stand_in_cupy`) refuses whatever would cross between host and device without `to_device`.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types

import numpy as np
import pytest

from minimrcnn import Config, MaskRCNN, Target, device, functional, geometry
from minimrcnn.device import beside, count_transfers, device_of, module_of, to_device
from minimrcnn.functional import conv_cuda
from minimrcnn.geometry.boxes import best_first
from minimrcnn.kernels.twin import Twin
from minimrcnn.tensor import Tensor
from minimrcnn.training.checkpoint import restore, save_checkpoint
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.trainer import rehearse, take_step
from tests.reference_cases import relative_error
from tests.stand_in_cupy import DeviceArray, Module, launch

# So little that no 3x3 convolution of 16 channels or more has 32 tiles, from which on it is Winograd's: the CPU bodies
# of those steps are plain Python. `test_convolutions` has a small one.
SIZE = 64  # of the pictures, in pixels
SMALL = {
    "num_classes": 3, "min_size": None, "pyramid_channels": 8, "norm_groups": 4, "anchor_sizes": (8, 16, 32, 64, 128),
    "rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20, "box_head_channels": 16,
    "mask_head_channels": (8,), "box_batch_size_per_image": 16, "rpn_batch_size_per_image": 32,
    "backbone": "resnet18", "box_score_thresh": 0.0, "box_detections_per_img": 5,
}  # fmt: skip
MODELS = {
    "pyramid, group norm": {"norm": "group"},
    "pyramid, frozen batch norm, all resized": {"min_size": 48, "mask_loss": "agnostic", "roi_deterministic": False},
    "C4, batch norm, pooling": {
        "norm": "batch", "pyramid": "c4", "roi_operation": "pool", "mask_loss": "softmax", "box_pool_size": 4,
        "mask_pool_size": 4, "box_head_fcs": 0, "mask_head_channels": (),
    },
}  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    """Something that answers to "cuda"."""
    module = Module()
    monkeypatch.setattr(device, "_cupy", lambda: module)
    monkeypatch.setattr(Twin, "launch", launch)


def make(name: str) -> MaskRCNN:
    return MaskRCNN(Config(**{**SMALL, **MODELS[name]}), seed=1)


def draw(count: int = 1):
    """Pictures with two objects each, and what there is to know about them."""
    rng = np.random.default_rng(0)
    pictures, targets = [], []
    for _ in range(count):
        masks = np.zeros((2, SIZE, SIZE), np.uint8)
        masks[0, 8:40, 4:30] = masks[1, 20:60, 30:62] = 1
        boxes = np.float32([[4, 8, 30, 40], [30, 20, 62, 60]])
        pictures.append(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
        targets.append(Target(boxes, np.array([1, 2]), masks))
    return pictures, targets


class Batch:
    indices = [0]

    def __init__(self):
        self.pictures, self.targets = draw()


def step(model, optimizer, number=0):
    return take_step(model, optimizer, [], TrainOptions(warmup_steps=1), Batch(), number)


def close(a, b, tolerance=1e-5):
    return relative_error(to_device(a, "cpu"), to_device(b, "cpu")) < tolerance


@pytest.mark.parametrize("name", MODELS)
def test_predicts_as_on_a_cpu(name, gpu):
    pictures, _ = draw()
    wanted = make(name).predict(pictures)
    found = make(name).to("cuda").predict(pictures)
    for a, b in zip(found, wanted, strict=True):
        assert len(a) > 0 and np.array_equal(a.labels, b.labels)
        assert close(a.boxes, b.boxes) and close(a.scores, b.scores)
        assert a.masks.shape == b.masks.shape and np.mean(a.masks != b.masks) < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_trains_as_on_a_cpu(name, gpu):
    options = TrainOptions(warmup_steps=1, optimizer="sgd" if "C4" in name else "adamw", learning_rate=1e-3)
    models = make(name).train(), make(name).to("cuda").train()
    optimizers = [options.make_optimizer(model.named_parameters()) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        rehearse(model, optimizer, options, Batch())
    for number in range(2):
        (wanted, norm), (losses, norm_there) = (step(*pair, number) for pair in zip(models, optimizers, strict=True))
        assert losses == pytest.approx(wanted, rel=1e-4) and norm_there == pytest.approx(norm, rel=1e-3)
    for (name, here), there in zip(models[0].arrays().items(), models[1].arrays().values(), strict=True):
        assert isinstance(there, DeviceArray) and there.dtype == here.dtype == np.float32
        assert close(there, here, 1e-2), name  # Adam's first steps are the sign of the gradient, however small


def test_transfers_of_a_prediction(gpu):
    """What benchmarks/README.md lists."""
    model, (pictures, _) = make("pyramid, group norm").to("cuda"), draw()
    with count_transfers() as transfers:
        model.predict(pictures)
    assert [(t.direction, t.where) for t in transfers] == [
        ("to cuda", "models.prepare.prepare"),  # mean and deviation of the colors
        ("to cuda", "models.prepare.prepare"),  # the picture
        *[("to cpu", "models.rpn.to_host")] * 3,  # logits, deltas and numbers of the best anchors
        *[("to cuda", "functional.roi.forward")] * 2,  # RoIs, and their order by level
        ("to cpu", "models.box_head.detect"),  # scores
        ("to cpu", "models.box_head.detect"),  # deltas
        *[("to cuda", "functional.roi.forward")] * 2,
        ("to cuda", "models.mask_head.choose"),  # labels
        ("to cpu", "models.mask_head.choose"),  # the masks of these labels
    ]
    assert transfers[1].bytes == SIZE * SIZE * 3 and transfers[1].what == f"uint8 ({SIZE}, {SIZE}, 3)"


def test_transfers_of_a_training_step(gpu):
    """What benchmarks/README.md lists."""
    options = TrainOptions(warmup_steps=1)
    model = make("pyramid, group norm").to("cuda").train()
    optimizer = options.make_optimizer(model.named_parameters())
    with count_transfers() as transfers:
        step(model, optimizer)
    assert [(t.direction, t.where) for t in transfers] == [
        *[("to cuda", "models.prepare.prepare")] * 2,
        *[("to cpu", "models.rpn.to_host")] * 3,
        *[("to cuda", "models.rpn.losses")] * 4,  # which logits and deltas were drawn
        *[("to cuda", "functional.loss._pair")] * 2,  # what they should be
        *[("to cuda", "functional.roi.forward")] * 2,
        *[("to cuda", "models.box_head.losses")] * 2,  # which deltas
        ("to cuda", "functional.loss.forward"),  # the classes
        ("to cuda", "functional.loss._pair"),  # the deltas
        *[("to cuda", "functional.roi.forward")] * 2,
        ("to cuda", "functional.loss.mask_loss"),  # which masks
        ("to cuda", "functional.loss._pair"),  # the masks
        ("to cpu", "training.trainer.take_step"),  # the losses
        ("to cpu", "training.optimizer.clip_gradients"),  # the gradients' norm
    ]


def test_a_model_of_a_gpu_is_a_model_of_a_cpu(gpu, tmp_path):
    options = TrainOptions(warmup_steps=1)
    model = make("pyramid, group norm").to("cuda").train()
    optimizer = options.make_optimizer(model.named_parameters())
    step(model, optimizer)
    model.save(tmp_path / "model.npz")
    save_checkpoint(tmp_path / "checkpoint.npz", model, optimizer, options, 1)
    wanted = {name: array.get() for name, array in model.arrays().items()}
    assert all(
        np.array_equal(array, wanted[name]) for name, array in MaskRCNN.load(tmp_path / "model.npz").arrays().items()
    )
    assert all(isinstance(array, np.ndarray) for array in model.state().values())
    for where in ("cpu", "cuda"):
        other = make("pyramid, group norm").to(where).train()
        again = options.make_optimizer(other.named_parameters())
        assert restore(tmp_path / "checkpoint.npz", other, again, options) == again.steps == 1
        assert {device_of(array) for array in (*other.arrays().values(), *again.state["mean"].values())} == {where}
        for name, array in (*other.arrays().items(), *again.state["mean"].items()):
            there = {**wanted, **{f"mean {n}": a.get() for n, a in optimizer.state["mean"].items()}}
            assert to_device(array, "cpu").shape == there[name].shape
        other.load_state(model.state())
        assert all(np.array_equal(to_device(array, "cpu"), wanted[name]) for name, array in other.arrays().items())


def test_no_picture_has_anything(gpu):
    """No proposals and no detections on the way, and no objects to learn from."""
    model, (pictures, _) = make("pyramid, group norm").to("cuda"), draw()
    empty = np.zeros((0, 4), np.float32)
    (found,) = model.predict(pictures, proposals=[empty])
    assert len(found) == 0 and found.masks.shape == (0, SIZE, SIZE)
    nothing = Target(empty, np.zeros(0, np.int64), np.zeros((0, SIZE, SIZE), np.uint8))
    losses = model.train().losses(pictures, [nothing])
    assert float(losses["loss_mask"].numpy()) == 0


@pytest.mark.parametrize("algorithm", ["patches", "winograd"])
def test_convolutions(algorithm, gpu, monkeypatch):
    monkeypatch.setattr(conv_cuda, "SCRATCH", 4000)  # several blocks
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, np.float32) for shape in ((2, 6, 5, 3), (3, 3, 3, 4), (4,))]
    results = []
    for where in ("cpu", "cuda"):
        leaves = [Tensor(array, requires_grad=True, device=where) for array in arrays]
        y = functional.conv2d(*leaves, padding=1, algorithm=algorithm, relu=True)
        y.backward(np.ones(y.shape))
        results.append([y.numpy(), *(to_device(leaf.grad, "cpu") for leaf in leaves)])
    assert all(close(there, here) for there, here in zip(*results[::-1], strict=True))


def test_geometry_answers_where_its_input_lives(gpu):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 40, (30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 20, (30, 2))], axis=1).astype(np.float32)
    scores, masks = rng.random(30, np.float32), rng.random((30, 4, 4), np.float32)
    for function, arguments in (
        (geometry.box_iou, (boxes, boxes[:7])),
        (lambda *a: geometry.nms(*a, 0.4), (boxes, scores)),
        (lambda *a: geometry.paste_masks(*a, (50, 60)), (masks, boxes)),
        (lambda *a: geometry.paste_masks_bool(*a, (50, 60)), (masks, boxes)),
    ):
        there = function(*(to_device(argument, "cuda") for argument in arguments))
        assert isinstance(there, DeviceArray) and np.array_equal(there.get(), function(*arguments))
    there = geometry.box_iou(to_device(boxes, "cuda"), boxes)  # the second goes where the first is
    assert np.array_equal(there.get(), geometry.box_iou(boxes, boxes))


def test_losses_take_targets_of_either_device(gpu):
    rng = np.random.default_rng(0)
    logits, targets, labels = rng.standard_normal((3, 2, 2, 4), np.float32), rng.random((3, 2, 2)), np.array([1, 3, 2])
    for kind in ("sigmoid", "softmax"):
        wanted = functional.mask_loss(logits, targets, labels, kind).item()
        there = Tensor(logits, device="cuda")
        for move in (lambda array: array, lambda array: to_device(array, "cuda")):
            found = functional.mask_loss(there, move(targets), move(labels), kind)
            assert found.device == "cuda" and found.item() == pytest.approx(wanted, rel=1e-6)


def test_scores_that_are_no_numbers_come_last_on_either_device(gpu):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(40).astype(np.float32)
    scores[[3, 20]] = np.nan
    wanted = best_first(scores)
    assert wanted[-2:].tolist() == [3, 20]
    assert np.array_equal(best_first(to_device(scores, "cuda")).get(), wanted)


@pytest.mark.parametrize("here, there", [("cpu", "cuda"), ("cuda", "cpu")])
def test_gradients_go_back_to_where_they_are_wanted(here, there, gpu):
    leaf = Tensor(np.arange(3), requires_grad=True, device=here)
    (leaf.to(there) * 2.0).sum().backward()
    assert device_of(leaf.grad) == here and to_device(leaf.grad, "cpu").tolist() == [2, 2, 2]


def test_what_is_beside_what(gpu):
    there = to_device(np.zeros(3, np.float32), "cuda")
    assert module_of([1.0]) is np and module_of(np.float32(1)) is np and isinstance(module_of(there), Module)
    with count_transfers() as transfers:
        assert beside(2.5, there, np.float32).get() == np.float32(2.5)  # a number is no transfer
        assert beside(there, there) is there and to_device(there, "cuda") is there
        assert transfers == []
        assert np.array_equal(beside([1, 2], there).get(), [1, 2])
        assert np.array_equal(beside(there, np.zeros(1)), np.zeros(3))
        other = threading.Thread(target=to_device, args=(there, "cpu"))  # whose transfers are its own
        other.start()
        other.join()
    assert [(t.direction, t.bytes) for t in transfers] == [("to cuda", 16), ("to cpu", 12)]
    to_device(there, "cpu")
    assert len(transfers) == 2, "counted after the block"


def test_the_stand_in_refuses_what_cupy_does():
    there = DeviceArray(np.ones((2, 3), np.float32))
    for wrong in (
        lambda: there + np.ones((2, 3)),
        lambda: np.ones((2, 3)) * there,
        lambda: np.asarray(there),
        lambda: np.concatenate([there, there]),
        lambda: Module().maximum(there, np.ones(3)),
        lambda: there[np.array([0])],
        lambda: float(there),
        lambda: there.tolist(),
    ):
        with pytest.raises((TypeError, AttributeError)):
            wrong()
    assert isinstance(np.float32(2) * there, DeviceArray) and isinstance(2 - there, DeviceArray)
    with pytest.raises(AssertionError, match="float64"):
        Module().zeros(5000)


def test_says_what_is_missing(monkeypatch):
    device._cupy.cache_clear()
    real = builtins.__import__

    def without_cupy(name, *rest):
        if name == "cupy":
            raise ImportError("No module named 'cupy'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_cupy)
    with pytest.raises(RuntimeError, match=r"minimrcnn\[cuda\].*CUDA 13.*minimrcnn\[cuda12\].*CUDA 12"):
        to_device(np.zeros(1), "cuda")
    monkeypatch.undo()

    class CUDARuntimeError(Exception):
        pass

    def count():
        raise CUDARuntimeError("cudaErrorNoDevice")

    runtime = types.SimpleNamespace(getDeviceCount=count, CUDARuntimeError=CUDARuntimeError)
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(device, "numba_cuda", object())
    with pytest.raises(RuntimeError, match=r"NVIDIA GPU and its driver; none was found \(cudaErrorNoDevice\)"):
        MaskRCNN(Config(**SMALL)).to("cuda")
    runtime.getDeviceCount = lambda: 0
    with pytest.raises(RuntimeError, match="knows of none"):
        to_device(np.zeros(1), "cuda")
    monkeypatch.setattr(device, "numba_cuda", None)
    with pytest.raises(RuntimeError, match=r"numba-cuda.*minimrcnn\[cuda\]"):
        to_device(np.zeros(1), "cuda")
    with pytest.raises(ValueError, match="wanted one of cpu, cuda"):
        to_device(np.zeros(1), "tpu")
