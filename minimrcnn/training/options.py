"""How to train, in one frozen record that is saved with every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from minimrcnn.data.transforms import Compose, RandomColor, RandomCrop, RandomFlip, RandomRotate90, RandomScale
from minimrcnn.training.optimizer import SGD, AdamW, Optimizer
from minimrcnn.training.schedule import learning_rate_at


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
        Pictures are resized by a factor in this range.
    crop : int or None
        Then at most crop x crop pixels are cut out, wherever.
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
        for name in ("milestones", "scale"):  # lists, as JSON brings them, become tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, least in (("steps", 1), ("batch_size", 1), ("warmup_steps", 0), ("seed", 0), ("weight_decay", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"TrainOptions: {name} is {getattr(self, name)}, wanted at least {least}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"TrainOptions: {name} is {getattr(self, name)}, wanted more than 0")
        if self.norm_weight_decay is not None and not self.norm_weight_decay >= 0:
            raise ValueError(
                f"TrainOptions: norm_weight_decay is {self.norm_weight_decay}, wanted at least 0, or None for none"
            )
        if self.optimizer not in ("adamw", "sgd"):
            raise ValueError(f"TrainOptions: optimizer is {self.optimizer!r}, wanted one of adamw, sgd")
        self.learning_rate_at(0)  # refuses an unknown schedule

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
