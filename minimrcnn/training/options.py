"""How to train, in one frozen record that is saved with every checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass

from minimrcnn.data.transforms import Compose, RandomColor, RandomCrop, RandomFlip, RandomRotate90, RandomScale
from minimrcnn.fields import check_fields, either, every, is_positive, is_share, number, whole
from minimrcnn.training.optimizer import SGD, AdamW, Optimizer
from minimrcnn.training.schedule import SCHEDULES, learning_rate_at

OPTIMIZERS = ("adamw", "sgd")
RULES = (
    ("optimizer", f"one of {', '.join(OPTIMIZERS)}", either(*OPTIMIZERS)),
    ("schedule", f"one of {', '.join(SCHEDULES)}", either(*SCHEDULES)),
    ("steps batch_size", "a whole number of at least 1", whole(1)),
    ("warmup_steps seed", "a whole number of at least 0", whole(0)),
    ("learning_rate", "a number above 0", is_positive),
    ("clip_norm", "a number above 0; math.inf clips nothing", lambda value: number(0, math.inf)(value) and value > 0),
    ("weight_decay", "a number of at least 0", number(0)),
    ("norm_weight_decay", "a number of at least 0, or None for none", either(None, test=number(0))),
    ("momentum", "a number from 0 on, below 1", lambda value: is_share(value) and value < 1),
    ("gamma flip_horizontal flip_vertical", "a number from 0 to 1", is_share),
    ("milestones", "shares of steps, numbers from 0 to 1", every(is_share)),
    (
        "scale",
        "2 numbers above 0, the lower first",
        lambda value: every(is_positive, 2)(value) and value[0] <= value[1],
    ),
    ("crop", "a whole number of at least 1, or None", either(None, test=whole(1))),
    ("rotate color", "True or False", either(True, False)),
    ("checkpoint_seconds", "a number of at least 0", number(0, math.inf)),
)


@dataclass(frozen=True)
class TrainOptions:
    """The recipe of a run. The defaults are for a small model, from scratch, on some fifty pictures.

    Attributes
    ----------
    steps : int
        Updates in the whole run.
    batch_size : int
        Pictures in a step.
    optimizer : {"adamw", "sgd"}
    learning_rate : float
        At the end of the warm-up.
    momentum : float
        For "sgd".
    weight_decay : float
        Not applied to biases and to the scales and shifts of normalizations, unless these have one of their own:
    norm_weight_decay : float or None
        Of normalizations; then ``weight_decay`` is applied to biases as well, as torchvision's reference script does.
    clip_norm : float
        Gradients are scaled down to this common norm.
    schedule : {"cosine", "step"}
    warmup_steps : int
    milestones : tuple of float
        For "step": shares of ``steps`` at which the rate is multiplied by ``gamma``.
    gamma : float
    flip_horizontal, flip_vertical : float
        Probability of mirroring a picture.
    rotate : bool
        Turn pictures by multiples of 90 degrees.
    scale : tuple of 2 floats
        Pictures are resized by a factor in this range; of no use where the model resizes them once more (`Config`'s
        ``min_size``).
    crop : int or None
        Then at most crop x crop pixels are cut out, wherever; for a model that does not resize pictures.
    color : bool
        Reorder, invert, stretch and shift the color channels.
    seed : int
        Of the order of the pictures and of the changes to them.
    checkpoint_seconds : float
        Time between two checkpoints; at the end there is one in any case.
    """

    steps: int = 1000
    batch_size: int = 4
    optimizer: str = "adamw"
    learning_rate: float = 5e-4
    momentum: float = 0.9
    weight_decay: float = 0.01
    norm_weight_decay: float | None = None
    clip_norm: float = 10.0
    schedule: str = "cosine"
    warmup_steps: int = 100
    milestones: tuple[float, ...] = (2 / 3, 8 / 9)
    gamma: float = 0.1
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.5
    rotate: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    crop: int | None = None
    color: bool = True
    seed: int = 0
    checkpoint_seconds: float = 60.0

    def __post_init__(self):
        check_fields(self, RULES)

    def make_optimizer(self, parameters) -> Optimizer:
        """The optimizer of these parameters, a dictionary by name; frozen ones are left out."""
        decay = {"weight_decay": self.weight_decay, "norm_weight_decay": self.norm_weight_decay}
        if self.optimizer == "sgd":
            return SGD(parameters, momentum=self.momentum, **decay)
        return AdamW(parameters, **decay)

    def make_transform(self) -> Compose:
        """The random changes to a picture and its Target, in the order in which they are made."""
        transforms = []
        if self.scale != (1.0, 1.0):
            transforms.append(RandomScale(*self.scale))
        if self.crop is not None:
            transforms.append(RandomCrop(self.crop, self.crop))
        if self.flip_horizontal or self.flip_vertical:
            transforms.append(RandomFlip(self.flip_horizontal, self.flip_vertical))
        if self.rotate:
            transforms.append(RandomRotate90())
        if self.color:
            transforms.append(RandomColor())
        return Compose(transforms)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of step ``step``, counted from 0."""
        return learning_rate_at(
            step, self.steps, self.learning_rate, self.schedule, self.warmup_steps, self.milestones, self.gamma
        )
