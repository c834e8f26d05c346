"""The recipe of a training: each of its options reaches the part that it is for."""

from types import SimpleNamespace

import numpy as np
import pytest

from minimrcnn.training.optimizer import SGD, AdamW
from minimrcnn.training.options import TrainOptions


def make_optimizer(**options):
    parameter = SimpleNamespace(data=np.ones((2, 2), np.float32), grad=None, requires_grad=True)
    return TrainOptions(**options).make_optimizer({"weight": parameter})


def test_the_optimizer():
    sgd = make_optimizer(optimizer="sgd", momentum=0.3, weight_decay=0.2)
    assert isinstance(sgd, SGD) and sgd.momentum == 0.3 and sgd.decay == {"weight": 0.2}
    assert make_optimizer(optimizer="sgd", norm_weight_decay=0.0, weight_decay=0.1).decay == {"weight": 0.1}
    adamw = make_optimizer(weight_decay=0.4)
    assert isinstance(adamw, AdamW) and adamw.decay == {"weight": 0.4}


def test_the_learning_rate():
    options = TrainOptions(
        steps=20, learning_rate=2.0, schedule="step", warmup_steps=4, milestones=(0.5, 0.75), gamma=0.5
    )
    assert [options.learning_rate_at(step) for step in (0, 3, 4, 9, 10, 15)] == [0.5, 2.0, 2.0, 2.0, 1.0, 0.5]
    assert TrainOptions(steps=20, learning_rate=2.0, warmup_steps=0).learning_rate_at(10) == pytest.approx(1.0)


def list_transforms(**options):
    return TrainOptions(**options).make_transform().transforms


def test_the_changes_to_pictures_and_their_order():
    """Crops are cut from scaled pictures, and colors, which make four bytes of one, come last."""
    some = list_transforms(scale=(0.5, 2.0), crop=64, flip_horizontal=0.1, flip_vertical=0.2, rotate=True)
    names = [type(one).__name__ for one in some]
    assert names == ["RandomScale", "RandomCrop", "RandomFlip", "RandomRotate90", "RandomColor"]
    scale, crop, flip, *_ = some
    assert (scale.low, scale.high, crop.height, crop.width) == (0.5, 2.0, 64, 64)
    assert (flip.horizontal, flip.vertical) == (0.1, 0.2)
    none = {"flip_horizontal": 0.0, "flip_vertical": 0.0, "color": False}
    assert list_transforms(**none) == []
    for side in ("flip_horizontal", "flip_vertical"):
        assert [type(one).__name__ for one in list_transforms(**{**none, side: 1.0})] == ["RandomFlip"]


@pytest.mark.parametrize("fields", [{"momentum": 1}, {"clip_norm": 0}, {"gamma": 1.1}, {"warmup_steps": -1}])
def test_limits(fields):
    with pytest.raises(ValueError, match=f"TrainOptions: {next(iter(fields))} is"):
        TrainOptions(**fields)


def test_what_the_runs_of_the_readme_were_trained_with():
    options = TrainOptions()
    assert (options.clip_norm, options.warmup_steps, options.learning_rate, options.weight_decay) == (
        10,
        100,
        5e-4,
        0.01,
    )
    assert (options.optimizer, options.schedule, options.norm_weight_decay) == ("adamw", "cosine", None)
    assert (options.flip_horizontal, options.flip_vertical, options.rotate, options.color) == (0.5, 0.5, False, True)
    assert (options.momentum, options.milestones, options.gamma) == (0.9, (2 / 3, 8 / 9), 0.1)  # as published
    assert options.checkpoint_seconds == 60  # what a power cut takes
