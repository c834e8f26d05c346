"""On a GPU: ``pytest -m cuda``. Kernels, the whole model and training against the CPU, and against themselves.

Tolerances are of the largest value of an array. 1e-5: sums of a few hundred float32 in another order. 1e-4: Winograd's
convolution, whose intermediate numbers are ten times the result, and whatever goes through many layers. Training: the
first step's losses 1e-3; of ten steps 5%, as a last bit may decide which of two equal proposals is drawn.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import gpu, ours
from benchmarks.pictures import make_picture, make_target
from benchmarks.work import WORK, make_inputs
from minimrcnn import Config, MaskRCNN, Target, functional, trace
from minimrcnn.device import count_transfers, to_device
from minimrcnn.tensor import Tensor
from minimrcnn.training.compile_ahead import PREDICTING, TRAINING, compile_ahead
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.trainer import take_step
from tests.launch_cuda_kernels import compare
from tests.reference_cases import relative_error
from tests.twin_arguments import ARGUMENTS


def missing() -> str:
    """Why nothing of this can run; empty if it can."""
    try:
        to_device(np.zeros(1, np.float32), "cuda")
    except RuntimeError as error:
        return str(error)
    return ""


WHY_NOT = missing()
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "there is a GPU")]
EXACT = ("nms", "relu")
DRIFT = 0.05  # of the losses, in ten steps


@pytest.fixture(scope="module", autouse=True)
def cpu_kernels():
    """Compiled by several processes, as one would take minutes."""
    if not WHY_NOT:
        compile_ahead(PREDICTING)
        compile_ahead(TRAINING)


@pytest.mark.parametrize("name, number", [(name, i) for name, makers in ARGUMENTS.items() for i in range(len(makers))])
def test_bodies_agree(name, number):
    assert compare(name, number) < 1e-5


@pytest.mark.parametrize("work", [work for work in WORK if work.kind not in gpu.WHOLE], ids=lambda work: work.name)
def test_real_sizes_agree(work):
    inputs = make_inputs(work)
    here, there = (gpu.build(work, inputs, device).once()[1] for device in ("cpu", "cuda"))
    if work.kind in EXACT:
        assert gpu.difference(there, here) == 0
    else:  # of pasted masks, the share of pixels that differ
        assert gpu.difference(there, here) < 1e-4


def draw():
    boxes, labels, masks = make_target((320, 480), 4)
    return [make_picture((320, 480))], [Target(boxes, labels, masks)]


def make(**fields) -> MaskRCNN:
    return MaskRCNN(Config(min_size=None, **fields), seed=0)


@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "group"])
def test_a_prediction_is_the_cpus(norm):
    """Features stage by stage; the proposals as sets, as equal scores may change places."""
    traces = []
    for device in ("cpu", "cuda"):
        with trace() as stages:
            make(norm=norm).to(device).predict(draw()[0], score_thresh=0.0)
        traces.append(stages)
    here, there = traces
    for name in ("c2", "c3", "c4", "c5", "p2", "p3", "p4", "p5", "p6", "rpn_logits_p2", "rpn_deltas_p5"):
        assert relative_error(there[name], here[name]) < 1e-4, name
    near = np.abs(there["proposals"][0][:, None] - here["proposals"][0][None]).max(axis=2).min(axis=1)  # (R,) pixels
    assert np.mean(near < 0.05) > 0.98


def test_losses_are_the_cpus():
    wanted, found = (
        {name: loss.item() for name, loss in make().to(device).train().losses(*draw()).items()}
        for device in ("cpu", "cuda")
    )
    assert found == pytest.approx(wanted, rel=1e-3)


class Batch:
    indices = [0]

    def __init__(self):
        self.pictures, self.targets = draw()


def train(device, steps, **fields):
    """A small model after some steps, and the losses of each."""
    small = {"backbone": "resnet18", "pyramid_channels": 64, "box_head_channels": 256, "mask_head_channels": (64, 64)}
    model = make(num_classes=6, norm="group", **{**small, **fields}).to(device).train()
    options = TrainOptions(optimizer="sgd", learning_rate=1e-3, warmup_steps=1)
    optimizer = options.make_optimizer(model.named_parameters())
    return model, [take_step(model, optimizer, [], options, Batch(), number)[0] for number in range(steps)]


def test_ten_steps_are_the_cpus():
    (_, here), (_, there) = train("cpu", 10), train("cuda", 10)
    assert there[0] == pytest.approx(here[0], rel=1e-3)
    for wanted, found in zip(here, there, strict=True):
        assert sum(found.values()) == pytest.approx(sum(wanted.values()), rel=DRIFT)


def test_the_same_seed_gives_the_same_bits():
    (first, losses), (second, again) = train("cuda", 3), train("cuda", 3)
    assert losses == again
    for name, array in first.arrays().items():
        assert np.array_equal(to_device(array, "cpu"), to_device(second.arrays()[name], "cpu")), name


def test_order_of_addition_hardly_matters():
    rng = np.random.default_rng(0)
    x, rois = rng.standard_normal((1, 100, 136, 64), np.float32), make_inputs(WORK[gpu_work("roi_align 1000")])["rois"]
    gradients = []
    for deterministic in (True, True, False):
        leaf = Tensor(x, requires_grad=True, device="cuda")
        y = functional.roi_align(leaf, rois, 7, 1 / 8, deterministic=deterministic)
        y.backward(np.ones(y.shape, np.float32))
        gradients.append(to_device(leaf.grad, "cpu"))
    assert np.array_equal(gradients[0], gradients[1])
    assert relative_error(gradients[2], gradients[0]) < 1e-5


def gpu_work(start: str) -> int:
    return next(number for number, work in enumerate(WORK) if work.name.startswith(start))


def test_a_model_moves_to_a_cpu(tmp_path):
    model, _ = train("cuda", 1)
    model.save(tmp_path / "model.npz")
    loaded = MaskRCNN.load(tmp_path / "model.npz")
    for name, array in loaded.arrays().items():
        assert np.array_equal(array, to_device(model.arrays()[name], "cpu"))
    with count_transfers() as transfers:
        loaded.to("cuda").predict(draw()[0])
    assert sum(t.direction == "to cpu" for t in transfers) == 6  # as benchmarks/README.md says


@pytest.mark.parametrize("work", [work for work in WORK if work.kind in gpu.WHOLE], ids=lambda work: work.name)
def test_whole_networks_run(work, monkeypatch):
    monkeypatch.setattr(ours, "DEVICE", "cuda")
    ours.build(work, {}).once()
