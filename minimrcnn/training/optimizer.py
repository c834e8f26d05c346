"""SGD with momentum and AdamW: what becomes of a parameter p, given the gradient g of the loss.

SGD, as Mask R-CNN was trained (He et al. 2017, section 3.1), with velocity u, momentum m, decay d, learning rate r::

    u <- m u + (g + d p)
    p <- p - r u

AdamW (Kingma and Ba 2015, algorithm 1; the decay: Loshchilov and Hutter 2019, algorithm 2), step t = 1, 2, ..::

    a <- b1 a + (1 - b1) g                   running mean of the gradient
    s <- b2 s + (1 - b2) g g                 running mean of its square
    p <- p - r d p - r (a / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + e)

The divisions by 1 - b^t undo that the means started at zero; t counts the updates of all parameters together, also for
one whose first gradient comes late. Decay comes in two groups. As a rule parameters of one
axis, the biases and the scales of normalizations, are not decayed: pulling them to zero makes nothing simpler. Where a
decay of their own is given for the scales and shifts of normalizations, everything else is decayed alike, biases
included: so does torchvision's reference script (references/detection/train.py, ``--norm-weight-decay``).
"""

from __future__ import annotations

import math

import numpy as np

from minimrcnn.device import beside, device_of, module_of, to_device
from minimrcnn.kernels import optimizer as kernels


class Optimizer:
    """What SGD and AdamW share: named parameters with state arrays of their shapes, to be saved and restored.

    Parameters
    ----------
    parameters : dict of str to Parameter
        As ``model.named_parameters()`` gives them. ``.data`` is updated in place, ``.grad`` is read; a parameter whose
        ``.grad`` is None is left alone, and frozen ones, without ``.requires_grad``, are not kept at all.
    weight_decay : float
    norm_weight_decay : float, optional
        For the parameters of normalizations; what None means is said at the top of this file.

    Attributes
    ----------
    parameters : dict of str to Parameter
        Those that learn.
    decay : dict of str to float
        The weight decay of each.
    steps : int
        Updates done.
    """

    state_names: tuple[str, ...] = ()

    def __init__(self, parameters, weight_decay, norm_weight_decay=None):
        parameters = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        for name, parameter in parameters.items():
            if not parameter.data.flags.c_contiguous:
                raise ValueError(f"{type(self).__name__}: {name} is not C-contiguous, so it cannot be updated in place")
        self.parameters = parameters
        self.decay = choose_decay(parameters, float(weight_decay), norm_weight_decay)
        self.steps = 0
        self.state = {
            kind: {name: module_of(parameter.data).zeros_like(parameter.data) for name, parameter in parameters.items()}
            for kind in self.state_names
        }

    def step(self, learning_rate: float) -> None:
        """Update every parameter that has a gradient.

        Raises
        ------
        ValueError
            A parameter is no longer of the shape it had, or its gradient has another; nothing is changed. The kernels
            would read and write beyond the shorter ones.
        """
        for name, parameter in self.parameters.items():
            shapes = [self.state[kind][name].shape for kind in self.state_names]
            if parameter.grad is not None and {*shapes, parameter.data.shape} != {parameter.grad.shape}:
                raise ValueError(
                    f"{type(self).__name__}.step: {name} is {parameter.data.shape}, its gradient "
                    f"{parameter.grad.shape} and its state {', '.join(map(str, shapes))}; wanted one shape"
                )
        self.steps += 1
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                state = [self.state[kind][name].reshape(-1) for kind in self.state_names]  # (n,) views
                gradient = module_of(parameter.grad).ascontiguousarray(parameter.grad).reshape(-1)  # (n,)
                self.update(gradient, float(learning_rate), self.decay[name], *state, parameter.data.reshape(-1))

    def clear_gradients(self) -> None:
        """Forget all gradients: `backward` adds to what is there."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The state, for a checkpoint: ``steps`` and, for every kind of state, ``kind/parameter``."""
        state = {f"{kind}/{name}": array for kind in self.state_names for name, array in self.state[kind].items()}
        return {"steps": np.array(self.steps, np.int64), **state}

    def load_arrays(self, arrays) -> None:
        """Continue from what `arrays` gave.

        Raises
        ------
        ValueError
            Names or shapes are not those of this optimizer; all of them are listed, and nothing is changed.
        """
        mine = self.arrays()
        problems = [f"{name} is missing" for name in mine if name not in arrays]
        problems += [f"{name} is unknown" for name in arrays if name not in mine]
        problems += [
            f"{name} has shape {arrays[name].shape}, wanted {array.shape}"
            for name, array in mine.items()
            if name in arrays and arrays[name].shape != array.shape
        ]
        if problems:
            raise ValueError(f"{type(self).__name__}.load_arrays: {'; '.join(problems)}")
        for name, array in mine.items():
            array[...] = beside(arrays[name], array)
        self.steps = int(arrays["steps"])

    def update(self, gradient, learning_rate, weight_decay, *state_and_parameter):
        """Update one parameter and its state, flat arrays (n,), in place."""
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; the formula is at the top of this file."""

    state_names = ("velocity",)

    def __init__(self, parameters, momentum=0.9, weight_decay=1e-4, norm_weight_decay=None):
        super().__init__(parameters, weight_decay, norm_weight_decay)
        self.momentum = float(momentum)

    def update(self, gradient, learning_rate, weight_decay, velocity, parameter):
        kernels.sgd(gradient, learning_rate, self.momentum, weight_decay, velocity, parameter)


class AdamW(Optimizer):
    """Adam with decoupled weight decay; the formula is at the top of this file."""

    state_names = ("mean", "square")

    def __init__(self, parameters, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, norm_weight_decay=None):
        super().__init__(parameters, weight_decay, norm_weight_decay)
        self.betas = float(betas[0]), float(betas[1])
        self.eps = float(eps)

    def update(self, gradient, learning_rate, weight_decay, mean, square, parameter):
        beta1, beta2 = self.betas
        shrink = 1.0 - learning_rate * weight_decay
        step_size = learning_rate / (1.0 - beta1**self.steps)
        root_scale = 1.0 / math.sqrt(1.0 - beta2**self.steps)
        kernels.adamw(
            gradient, shrink, step_size, root_scale, self.eps, beta1, 1.0 - beta1, beta2, 1.0 - beta2,
            mean, square, parameter,
        )  # fmt: skip


def choose_decay(parameters, weight_decay: float, norm_weight_decay: float | None) -> dict[str, float]:
    """The weight decay of every parameter. A normalization is known by its name: the part is called ``norm``."""
    if norm_weight_decay is None:
        return {name: weight_decay if parameter.data.ndim > 1 else 0.0 for name, parameter in parameters.items()}
    return {
        name: float(norm_weight_decay) if name.split(".")[-2:-1] == ["norm"] else weight_decay for name in parameters
    }


def clip_gradients(parameters, max_norm: float) -> float:
    """Scale all gradients down, in place, so that their common Euclidean norm is at most ``max_norm``.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those whose ``.grad`` is None are passed over.
    max_norm : float
        ``math.inf`` measures only.

    Returns
    -------
    float
        The norm before. If it is NaN or infinite, nothing was scaled.

    Source: Pascanu et al. 2013, algorithm 1.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return 0.0
    xp, kind = module_of(gradients[0]), np.float64 if device_of(gradients[0]) == "cpu" else gradients[0].dtype
    ends = np.cumsum([0, *(-(-gradient.size // kernels.SQUARES_BLOCK) for gradient in gradients)]).tolist()
    sums = xp.empty(ends[-1], kind)  # of all, so that a GPU is asked once
    for gradient, start, end in zip(gradients, ends[:-1], ends[1:], strict=True):
        kernels.square_sums(xp.ascontiguousarray(gradient).reshape(-1), sums[start:end])
    norm = math.sqrt(float(to_device(sums.sum(dtype=np.float64), "cpu")))
    if max_norm < norm < math.inf:
        scale = np.float32(max_norm / norm)
        for gradient in gradients:
            gradient *= scale
    return norm
