"""Elementwise functions and softmax."""

from __future__ import annotations

from minimrcnn.device import module_of
from minimrcnn.functional.conv import relu_gradient
from minimrcnn.tensor import Function, Tensor, tensors


def relu(x: Tensor) -> Tensor:
    """max(x, 0), any shape."""
    return ReLU.apply(*tensors(x))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), any shape, without overflow."""
    return Sigmoid.apply(*tensors(x))


def exp(x: Tensor) -> Tensor:
    """e to the power of x, any shape."""
    return Exp.apply(*tensors(x))


def log(x: Tensor) -> Tensor:
    """The natural logarithm, any shape."""
    return Log.apply(*tensors(x))


def softmax(x: Tensor) -> Tensor:
    """exp(x) / sum(exp(x)) along the last axis."""
    return Softmax.apply(*tensors(x))


def concatenate(parts, axis: int = 0) -> Tensor:
    """Tensors joined along an axis."""
    return Concatenate.apply(*tensors(*parts), axis=axis)


def sigmoid_array(x):
    """`sigmoid` of a raw array: the exponential only ever sees what cannot overflow."""
    xp = module_of(x)
    small = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def softmax_array(x):
    """`softmax` of a raw array."""
    xp = module_of(x)
    small = xp.exp(x - x.max(axis=-1, keepdims=True))
    return small / small.sum(axis=-1, keepdims=True)


class ReLU(Function):
    def forward(self, x):
        self.y = module_of(x).maximum(x, 0)
        return self.y

    def backward(self, gradient):
        return relu_gradient(gradient, self.y)


class Sigmoid(Function):
    def forward(self, x):
        self.y = sigmoid_array(x)
        return self.y

    def backward(self, gradient):
        return gradient * self.y * (1 - self.y)


class Exp(Function):
    def forward(self, x):
        self.y = module_of(x).exp(x)
        return self.y

    def backward(self, gradient):
        return gradient * self.y


class Log(Function):
    def forward(self, x):
        self.x = x
        return module_of(x).log(x)

    def backward(self, gradient):
        return gradient / self.x


class Softmax(Function):
    def forward(self, x):
        self.y = softmax_array(x)
        return self.y

    def backward(self, gradient):
        weighted = gradient * self.y
        return weighted - self.y * weighted.sum(axis=-1, keepdims=True)


class Concatenate(Function):
    def forward(self, *arrays, axis):
        self.axis = axis
        self.ends = [0]
        for array in arrays:
            self.ends.append(self.ends[-1] + array.shape[axis])
        return module_of(arrays[0]).concatenate(arrays, axis=axis)

    def backward(self, gradient):
        before = (slice(None),) * (self.axis % gradient.ndim)
        return tuple(
            gradient[(*before, slice(start, end))] for start, end in zip(self.ends[:-1], self.ends[1:], strict=True)
        )
