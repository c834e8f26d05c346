"""Layers: Functions with parameters. A Module finds its parameters, buffers and parts by looking at its attributes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from minimrcnn import functional
from minimrcnn.device import beside, module_of, to_device
from minimrcnn.functional.norm import fold_statistics
from minimrcnn.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that is learned."""

    __slots__ = ()

    def __init__(self, data, requires_grad: bool = True):
        super().__init__(np.ascontiguousarray(data, dtype=np.float32), requires_grad=requires_grad)


class Module:
    """A part of a network.

    Attributes that are Parameters are learned; float32 arrays are buffers (running statistics): saved, not learned;
    Modules and lists of Modules are parts, and their names come in front: ``layer1.0.conv1.weight``.
    """

    training = True

    def forward(self, *inputs):
        raise NotImplementedError

    def __call__(self, *inputs, **options):
        return self.forward(*inputs, **options)

    def parts(self) -> Iterator[tuple[str, Module]]:
        """The Modules among the attributes, and in lists of them, by name."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for number, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{number}", item

    def modules(self) -> Iterator[Module]:
        """This Module and all below it."""
        yield self
        for _, part in self.parts():
            yield from part.modules()

    def named_parameters(self) -> dict[str, Parameter]:
        """Every Parameter by its name, in order of definition; one that several parts share by its first name."""
        found = {name: value for name, value in vars(self).items() if isinstance(value, Parameter)}
        for prefix, part in self.parts():
            found.update({f"{prefix}.{name}": value for name, value in part.named_parameters().items()})
        first: dict[int, tuple[str, Parameter]] = {}
        for name, value in found.items():
            first.setdefault(id(value), (name, value))
        return dict(first.values())

    def parameters(self) -> list[Parameter]:
        return list(self.named_parameters().values())

    def buffers(self) -> dict[str, np.ndarray]:
        """Every array that is saved but not learned, by its name."""
        found = {
            name: value
            for name, value in vars(self).items()
            if hasattr(value, "dtype") and not isinstance(value, Tensor)
        }
        for prefix, part in self.parts():
            found.update({f"{prefix}.{name}": value for name, value in part.buffers().items()})
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by name, in this package's layout: the arrays themselves, not copies."""
        return {name: value.data for name, value in self.named_parameters().items()} | self.buffers()

    def load_arrays(self, arrays) -> None:
        """Copy arrays into the parameters and buffers of the same names.

        Parameters
        ----------
        arrays : mapping of str to ndarray

        Raises
        ------
        ValueError
            Names that are missing or unknown, or shapes that differ: all of them in one message, and nothing was
            copied.
        """
        mine = self.arrays()
        faults = [f"{name}: missing" for name in mine if name not in arrays]
        faults += [f"{name}: unknown" for name in arrays if name not in mine]
        faults += [
            f"{name}: shape {tuple(arrays[name].shape)}, wanted {array.shape}"
            for name, array in mine.items()
            if name in arrays and tuple(arrays[name].shape) != array.shape
        ]
        if faults:
            raise ValueError(f"load_arrays: {len(faults)} names do not fit this model:\n  " + "\n  ".join(faults))
        for name, array in mine.items():
            array[...] = beside(arrays[name], array)

    def train(self, training: bool = True):
        """Switch to training (batch statistics, losses); returns the Module."""
        for module in self.modules():
            module.training = training
        return self

    def eval(self):
        """Switch to inference; returns the Module."""
        return self.train(False)

    def to(self, device: str):
        """Move parameters and buffers to a device; returns the Module."""
        for module in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    value.data = to_device(value.data, device)
                    value.grad = None
                elif hasattr(value, "dtype"):
                    setattr(module, name, to_device(value, device))
        return self

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None


def he_normal(generator: np.random.Generator, shape, fan: int) -> np.ndarray:
    """Normal numbers of deviation sqrt(2 / fan), which keep the size of what goes through ReLU (He et al. 2015)."""
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(2 / fan))


def uniform(generator: np.random.Generator, shape, fan: int) -> np.ndarray:
    """Uniform numbers of deviation sqrt(1 / fan), for layers without ReLU (LeCun et al. 1998, section 4.6)."""
    bound = math.sqrt(3 / fan)
    return generator.uniform(-bound, bound, shape).astype(np.float32)


def normal(deviation: float):
    """An initializer of normal numbers of one deviation, whatever the fan."""

    def initialize(generator, shape, fan):
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    return initialize


class Conv2d(Module):
    """A convolution with square kernel; ``forward(x, residual=None, relu=False)``, see `functional.conv2d`.

    Parameters
    ----------
    channels_in, channels_out, kernel, stride, padding, groups : int
    bias : bool
    generator : numpy Generator
    initialize : callable
        `he_normal` (counting the outputs a weight reaches), `uniform` or `normal(deviation)`.
    """

    def __init__(
        self,
        channels_in,
        channels_out,
        kernel,
        stride=1,
        padding=0,
        groups=1,
        bias=True,
        *,
        generator,
        initialize=he_normal,
    ):
        fan = kernel * kernel * (channels_out if initialize is he_normal else channels_in) // groups
        self.weight = Parameter(initialize(generator, (kernel, kernel, channels_in // groups, channels_out), fan))
        self.bias = Parameter(np.zeros(channels_out)) if bias else None
        self.stride, self.padding, self.groups = stride, padding, groups

    def forward(self, x, residual=None, relu=False):
        return functional.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.groups, residual=residual, relu=relu
        )


class ConvTranspose2d(Module):
    """A transposed convolution with square kernel; ``forward(x, relu=False)``."""

    def __init__(self, channels_in, channels_out, kernel, stride, *, generator):
        fan = kernel * kernel * channels_in
        self.weight = Parameter(he_normal(generator, (kernel, kernel, channels_in, channels_out), fan))
        self.bias = Parameter(np.zeros(channels_out))
        self.stride = stride

    def forward(self, x, relu=False):
        return functional.conv_transpose2d(x, self.weight, self.bias, self.stride, relu=relu)


class Linear(Module):
    """x (R, I) to (R, O); ``forward(x, relu=False)``."""

    def __init__(self, features_in, features_out, *, generator, initialize=uniform):
        self.weight = Parameter(initialize(generator, (features_in, features_out), features_in))
        self.bias = Parameter(np.zeros(features_out))

    def forward(self, x, relu=False):
        return functional.linear(x, self.weight, self.bias, relu=relu)


def scale_channels(x, scale, shift, residual=None, relu=False) -> Tensor:
    """x (N, H, W, C) * scale (C,) + shift (C,), and what usually follows."""
    y = x * scale + shift
    if residual is not None:
        y = y + residual
    return functional.relu(y) if relu else y


class FrozenBatchNorm2d(Module):
    """Batch normalization whose statistics and scales are constants: what fine-tuning on small batches uses.

    It is a scale and a shift of each channel, so `ConvNorm` folds it into the convolution before it.
    """

    is_affine = True  # now a scale and a shift that do not depend on the batch

    def __init__(self, channels, eps=1e-5):
        self.weight = np.ones(channels, np.float32)
        self.bias = np.zeros(channels, np.float32)
        self.running_mean = np.zeros(channels, np.float32)
        self.running_var = np.ones(channels, np.float32)
        self.eps = eps

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """(C,), (C,): y = x * scale + shift."""
        return fold_statistics(self.weight, self.bias, self.running_mean, self.running_var, self.eps)

    def forward(self, x, residual=None, relu=False):
        return scale_channels(x, *self.scale_and_shift(), residual, relu)


class BatchNorm2d(Module):
    """Batch normalization: statistics of the batch in training, running ones in inference (Ioffe and Szegedy 2015)."""

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        self.weight = Parameter(np.ones(channels))
        self.bias = Parameter(np.zeros(channels))
        self.running_mean = np.zeros(channels, np.float32)
        self.running_var = np.ones(channels, np.float32)
        self.eps, self.momentum = eps, momentum

    @property
    def is_affine(self) -> bool:
        """Whether it is now a scale and a shift that do not depend on the batch."""
        return not self.training

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(C,), (C,): in inference y = x * scale + shift."""
        scale = self.weight * (1 / module_of(self.running_var).sqrt(self.running_var + np.float32(self.eps)))
        return scale, self.bias - scale * self.running_mean

    def forward(self, x, residual=None, relu=False):
        if self.training:
            y, mean, variance = functional.batch_norm(x, self.weight, self.bias, self.eps, residual, relu)
            count = x.size // x.shape[3]
            if count == 0:  # a head without RoIs: nothing to learn statistics from
                return y
            self.running_mean += self.momentum * (mean - self.running_mean).astype(np.float32)
            unbiased = variance * (count / max(count - 1, 1))
            self.running_var += self.momentum * (unbiased - self.running_var).astype(np.float32)
            return y
        return scale_channels(x, *self.scale_and_shift(), residual, relu)


class GroupNorm(Module):
    """Group normalization (Wu and He 2018): the same in training and inference, whatever the batch."""

    is_affine = False

    def __init__(self, channels, groups=32, eps=1e-5):
        self.weight = Parameter(np.ones(channels))
        self.bias = Parameter(np.zeros(channels))
        self.groups, self.eps = math.gcd(groups, channels), eps

    def forward(self, x, residual=None, relu=False):
        return functional.group_norm(x, self.groups, self.weight, self.bias, self.eps, residual, relu)


class ConvNorm(Module):
    """A convolution without bias, its normalization, an optional residual and ReLU: one pass where the norm is affine.

    Parameters
    ----------
    channels_in, channels_out, kernel, stride, groups : int
        The padding keeps the size (but for the stride).
    norm : callable
        ``norm(channels)`` makes the normalization.
    generator, initialize
        As `Conv2d`.
    """

    def __init__(self, channels_in, channels_out, kernel, stride=1, groups=1, *, norm, generator, initialize=he_normal):
        self.conv = Conv2d(
            channels_in, channels_out, kernel, stride, kernel // 2, groups,
            bias=False, generator=generator, initialize=initialize,
        )  # fmt: skip
        self.norm = norm(channels_out)

    def forward(self, x, residual=None, relu=False):
        if self.norm.is_affine:
            scale, shift = self.norm.scale_and_shift()
            return functional.conv2d(
                x, self.conv.weight, shift, self.conv.stride, self.conv.padding, self.conv.groups,
                residual=residual, relu=relu, scale=scale,
            )  # fmt: skip
        return self.norm(self.conv(x), residual=residual, relu=relu)


class Sequential(Module):
    """Modules one after the other."""

    def __init__(self, *layers: Module):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def make_norm(kind: str | None, groups: int, eps: float):
    """``norm(channels)`` for a Config's ``norm``: "frozen_batch", "batch" or "group"; None for None."""
    return {
        None: None,
        "frozen_batch": lambda channels: FrozenBatchNorm2d(channels, eps),
        "batch": lambda channels: BatchNorm2d(channels, eps),
        "group": lambda channels: GroupNorm(channels, groups, eps),
    }[kind]
