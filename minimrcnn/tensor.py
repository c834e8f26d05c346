"""Reverse-mode automatic differentiation: Tensors remember the Functions that made them, and walk back.

A `Function` is one operation on raw arrays: ``forward`` computes, and keeps the arrays that ``backward`` will need.
`Function.apply` is the only place that knows Tensors. The graph consists of Functions alone: each points to the
Functions that made its inputs (or to the leaf Tensors that collect gradients), and none points to an output, so a
feature map that nobody needs any longer is freed at once, without waiting for the garbage collector.

``backward`` counts how many Functions still owe each Function a part of its gradient, starts at the last, and runs
each one when its count is zero; what it kept is freed as soon as it has run.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from minimrcnn.device import beside, device_of, module_of, to_device

FLOATS = np.dtype(np.float32), np.dtype(np.float64)  # what kernels are compiled for

_recording = ContextVar("recording", default=True)


@contextmanager
def no_grad():
    """Nothing computed inside is recorded, by this thread: no gradients, and no memory kept for them."""
    before = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(before)


class Tensor:
    """An array that may want a gradient.

    Parameters
    ----------
    data : array_like or Tensor
        Arrays of float32 and float64 stay as they are (NumPy or CuPy); all other numbers become float32.
    requires_grad : bool
        Collect a gradient in ``grad`` when ``backward`` comes by.
    device : {"cpu", "cuda"}, optional
        Where it shall live; by default where it lives.

    Attributes
    ----------
    data : ndarray
    grad : ndarray or None
        The sum of all gradients that arrived, of the shape of ``data``.
    """

    __slots__ = ("__weakref__", "data", "function", "grad", "requires_grad")
    __array_priority__ = 100  # ndarray + Tensor asks the Tensor

    def __init__(self, data, requires_grad: bool = False, device: str | None = None):
        if isinstance(data, Tensor):
            data = data.data
        if isinstance(data, np.generic):  # what NumPy makes of an array of no axes, whenever it can
            data = np.asarray(data)
        listed = not hasattr(data, "dtype")
        if listed:
            data = np.asarray(data)
        if data.dtype.kind not in "fiub":
            raise TypeError(f"Tensor: data of type {data.dtype}, wanted numbers")
        if listed or data.dtype not in FLOATS:
            data = data.astype(np.float32)
        self.data = data if device is None else to_device(data, device)
        self.requires_grad = requires_grad
        self.grad = None
        self.function = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def device(self) -> str:
        return device_of(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({self.data!r}{grad})"

    def numpy(self) -> np.ndarray:
        """The data on the host, detached: the border between features and boxes."""
        return to_device(self.data, "cpu")

    def __array__(self, dtype=None, copy=None):
        """What NumPy makes of a Tensor, so that functions of arrays take Tensors as well; detached."""
        return np.array(self.numpy(), dtype, copy=True) if copy else np.asarray(self.numpy(), dtype)

    def item(self) -> float:
        return self.numpy().item()

    def detach(self) -> Tensor:
        return Tensor(self.data)

    def to(self, device: str) -> Tensor:
        """This Tensor on a device; gradients find their way back."""
        return self if device == self.device else Move.apply(self, device=device)

    def backward(self, gradient=None) -> None:
        """Add d(self)/d(leaf), weighted with ``gradient``, to the ``grad`` of every leaf that requires one.

        Parameters
        ----------
        gradient : array_like, optional
            Of the shape of this Tensor; may be left out for a single number, and is 1 then.

        Raises
        ------
        RuntimeError
            Nothing here requires a gradient, or the graph was walked before and is gone.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: nothing this Tensor was computed from requires a gradient")
        if gradient is None:
            if self.size != 1:
                raise ValueError(f"backward: a Tensor of shape {self.shape} needs the gradient to start from")
            gradient = module_of(self.data).ones(self.shape, self.dtype)
        gradient = beside(gradient, self.data, self.dtype)
        if gradient.shape != self.shape:
            raise ValueError(f"backward: gradient has shape {gradient.shape}, the Tensor {self.shape}")
        walk_back(self, gradient)

    def __add__(self, other):
        return Add.apply(self, other)

    def __sub__(self, other):
        return Add.apply(self, -as_tensor(other, self))

    def __mul__(self, other):
        return Multiply.apply(self, other)

    def __truediv__(self, other):
        return Multiply.apply(self, as_tensor(other, self) ** -1)

    def __rsub__(self, other):
        return Add.apply(-self, other)

    def __rtruediv__(self, other):
        return Multiply.apply(self**-1, other)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return Multiply.apply(self, -1.0)

    def __pow__(self, exponent: float):
        return Power.apply(self, exponent=exponent)

    def __matmul__(self, other):
        return MatrixProduct.apply(self, other)

    def __rmatmul__(self, other):
        return MatrixProduct.apply(other, self)

    def __getitem__(self, index):
        return Take.apply(self, index=index)

    def sum(self, axis=None, keepdims: bool = False):
        return Sum.apply(self, axis=axis, keepdims=keepdims)

    def mean(self, axis=None, keepdims: bool = False):
        axes = range(self.ndim) if axis is None else np.atleast_1d(axis)
        return self.sum(axis, keepdims) * (1 / max(int(np.prod([self.shape[a] for a in axes])), 1))

    def reshape(self, *shape):
        return Reshape.apply(self, shape=_spread(shape))

    def transpose(self, *axes):
        axes = _spread(axes) or range(self.ndim)[::-1]
        return Transpose.apply(self, axes=tuple(axis + self.ndim if axis < 0 else axis for axis in axes))


def _spread(numbers: tuple) -> tuple:
    """``f(2, 3)``, ``f((2, 3))`` and ``f([2, 3])`` mean the same."""
    return tuple(numbers[0]) if len(numbers) == 1 and isinstance(numbers[0], (tuple, list)) else numbers


def as_tensor(value, like: Tensor) -> Tensor:
    """A number or array as a constant of the type and on the device of ``like``; a Tensor as it is."""
    if isinstance(value, Tensor):
        return value
    return Tensor(beside(value, like.data, like.dtype))


def tensors(*values) -> tuple:
    """Arrays, numbers and lists as constant Tensors; Tensors, and None, as they are."""
    return tuple(value if value is None or isinstance(value, Tensor) else Tensor(value) for value in values)


class Function:
    """One operation, recorded once for each call.

    Subclasses write ``forward(self, *arrays, **options) -> array`` and ``backward(self, gradient) -> array or tuple``,
    one gradient for each positional input, None where there is none. ``self.needs[i]`` says whether input i wants one:
    what is not needed should be neither kept nor computed. A gradient may be the incoming array or a view of it, and
    ``backward`` must keep neither: a single one may be added to, or become a leaf's. Several may be one and the same
    array, but must not overlap otherwise. The incoming one has the type of what ``forward`` returned.
    """

    __slots__ = ("__dict__", "dtype", "needs", "sources")

    def forward(self, *arrays, **options):
        raise NotImplementedError

    def backward(self, gradient):
        raise NotImplementedError

    @classmethod
    def apply(cls, *inputs, **options) -> Tensor:
        """Run the operation on Tensors; a number or array among them is a constant, None stays None."""
        like = next((x for x in inputs if isinstance(x, Tensor)), None)
        if like is None:
            raise ValueError(f"{cls.__name__}: no Tensor among its inputs, wanted at least one")
        inputs = [None if x is None else as_tensor(x, like) for x in inputs]
        devices = {x.device for x in inputs if x is not None}
        if len(devices) > 1:
            raise ValueError(f"{cls.__name__}: inputs on {' and '.join(sorted(devices))}, wanted all on one device")
        function = cls()
        recording = _recording.get()
        function.needs = tuple(recording and x is not None and x.requires_grad for x in inputs)
        result = Tensor(function.forward(*[None if x is None else x.data for x in inputs], **options))
        if any(function.needs):
            function.sources = [
                (x.function or x) if needed else None for x, needed in zip(inputs, function.needs, strict=True)
            ]
            function.dtype = result.dtype
            result.requires_grad = True
            result.function = function
        return result


def walk_back(result: Tensor, gradient) -> None:
    """Hand ``gradient`` down from the Function that made ``result`` to the leaves, freeing as it goes."""
    if result.function is None:
        collect(result, gradient, is_ours=False)
        return
    owed = count_users(result.function)
    gradients = {result.function: (gradient, False)}
    ready = [result.function]
    while ready:
        function = ready.pop()
        incoming, is_ours = gradients.pop(function)
        # Of one type, as kernels take, where types were mixed later on. And an array again, of which views can be told:
        # NumPy makes a number of an array without axes.
        incoming = module_of(incoming).asarray(incoming, function.dtype)
        outgoing = function.backward(incoming)
        if not isinstance(outgoing, tuple):
            outgoing = (outgoing,)
        sources, function.sources = function.sources, None
        function.__dict__.clear()  # what forward kept
        for source, part in zip(sources, outgoing, strict=True):
            if source is None:
                continue
            # ours to keep and to add to only if nobody else may hold it
            is_part_ours = not shares_memory(part, incoming) and sum(part is other for other in outgoing) == 1
            is_part_ours = is_part_ours or (is_ours and len(outgoing) == 1 and is_whole(part, incoming))
            if isinstance(source, Tensor):
                collect(source, part, is_part_ours)
                continue
            if source not in gradients:
                gradients[source] = (part, is_part_ours)
            else:
                total, is_total_ours = gradients[source]
                if is_total_ours:
                    total += part
                else:
                    total = total + part
                gradients[source] = (total, True)
            owed[source] -= 1
            if owed[source] == 0:
                ready.append(source)


def count_users(last: Function) -> dict[Function, int]:
    """How many recorded uses each Function's output has on the way to ``last``; without recursion."""
    users = {last: 0}
    stack = [last]
    while stack:
        function = stack.pop()
        if function.sources is None:
            raise RuntimeError("backward: this graph was walked before and is freed; compute the loss again")
        for source in function.sources:
            if isinstance(source, Function):
                if source not in users:
                    users[source] = 0
                    stack.append(source)
                users[source] += 1
    return users


def collect(leaf: Tensor, gradient, is_ours: bool) -> None:
    """Add to a leaf's gradient, which has its type; one that somebody else may hold is copied."""
    total = gradient if leaf.grad is None else leaf.grad + gradient
    total = module_of(leaf.data).asarray(total, leaf.dtype)  # NumPy makes a number of an array without axes
    leaf.grad = total if is_ours or leaf.grad is not None else total.copy()


def shares_memory(a, b) -> bool:
    return a is b or (device_of(a) == device_of(b) and bool(module_of(a).may_share_memory(a, b)))


def is_whole(view, array) -> bool:
    """Whether a view of an array shows all of it, each number once, and can be written to (the reshaped, say).

    One of the same size that is broadcast, as that of a sum over an axis of length 1, cannot be written to.
    """
    return view.size == array.size and getattr(view.flags, "writeable", True)


def sum_to(gradient, shape: tuple[int, ...]):
    """The gradient of something that was broadcast from ``shape``: summed over the axes that were stretched."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, side in enumerate(shape) if side == 1 and gradient.shape[extra + i] != 1
    )
    return gradient.sum(axis=axes, keepdims=True).reshape(shape)


class Add(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        return a + b

    def backward(self, gradient):
        return tuple(
            sum_to(gradient, shape) if needed else None for shape, needed in zip(self.shapes, self.needs, strict=True)
        )


class Multiply(Function):
    def forward(self, a, b):
        self.shapes = a.shape, b.shape
        self.a = a if self.needs[1] else None
        self.b = b if self.needs[0] else None
        return a * b

    def backward(self, gradient):
        return (
            sum_to(gradient * self.b, self.shapes[0]) if self.needs[0] else None,
            sum_to(gradient * self.a, self.shapes[1]) if self.needs[1] else None,
        )


class Power(Function):
    def forward(self, a, exponent):
        self.a, self.exponent = a, exponent
        return a**exponent

    def backward(self, gradient):
        if self.exponent == 0:  # a constant, also where a is 0
            return module_of(gradient).zeros_like(gradient)
        return gradient * self.exponent * self.a ** (self.exponent - 1)


class MatrixProduct(Function):
    """a (..., P, Q) @ b (..., Q, R), for small products; layers use `functional.linear`."""

    def forward(self, a, b):
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matrix product: shapes {a.shape} and {b.shape}, wanted (..., P, Q) and (..., Q, R)")
        self.a, self.b = a, b
        return a @ b

    def backward(self, gradient):
        return (
            sum_to(gradient @ self.b.swapaxes(-1, -2), self.a.shape) if self.needs[0] else None,
            sum_to(self.a.swapaxes(-1, -2) @ gradient, self.b.shape) if self.needs[1] else None,
        )


class Sum(Function):
    def forward(self, a, axis, keepdims):
        self.shape, self.axis, self.keepdims = a.shape, axis, keepdims
        return module_of(a).asarray(a.sum(axis=axis, keepdims=keepdims))

    def backward(self, gradient):
        xp = module_of(gradient)
        if self.axis is not None and not self.keepdims:
            gradient = xp.expand_dims(gradient, self.axis)
        return xp.broadcast_to(gradient, self.shape)


class Reshape(Function):
    def forward(self, a, shape):
        self.shape = a.shape
        return a.reshape(shape)

    def backward(self, gradient):
        return gradient.reshape(self.shape)


class Transpose(Function):
    def forward(self, a, axes):
        self.axes = axes
        return a.transpose(axes)

    def backward(self, gradient):
        return gradient.transpose(np.argsort(self.axes).tolist())


class Take(Function):
    """a[index], with slices, integers, masks or arrays of rows, which may repeat.

    On a GPU the gradients of what repeats are added up in no fixed order.
    """

    def forward(self, a, index):
        parts = index if isinstance(index, tuple) else (index,)
        self.is_plain = all(isinstance(part, (int, slice)) or part is Ellipsis or part is None for part in parts)
        if not self.is_plain:  # arrays go where a is
            parts = tuple(beside(part, a) if hasattr(part, "dtype") else part for part in parts)
        self.shape, self.index = a.shape, parts
        if self.needs[0]:  # whoever has the arrays may change them before the way back
            self.index = tuple(part.copy() if hasattr(part, "copy") else part for part in parts)
        return a[parts]

    def backward(self, gradient):
        xp = module_of(gradient)
        result = xp.zeros(self.shape, gradient.dtype)
        if self.is_plain:
            result[self.index] = gradient  # nothing repeats
        else:
            xp.add.at(result, self.index, gradient)
        return result


class Move(Function):
    def forward(self, a, device):
        self.device = device_of(a)
        return to_device(a, device)

    def backward(self, gradient):
        return to_device(gradient, self.device)


def gradcheck(
    function, *inputs: Tensor, directions: int = 4, step: float = 1e-6, tolerance: float = 1e-6, seed: int = 0
):
    """Compare the gradients of a function with differences, in float64.

    The function's output is weighted with random numbers; then, along random directions of every input that requires a
    gradient, the slope that ``backward`` gives is held against (f(x + step d) - f(x - step d)) / 2 step.

    Parameters
    ----------
    function : callable
        Takes the inputs, returns a Tensor.
    inputs : Tensor
        float64.
    directions : int
        Random directions tried for each input.
    step : float
        Half the distance of the two points.
    tolerance : float
        Largest difference allowed, as a share of the larger slope, or of 1.

    Raises
    ------
    AssertionError
        A gradient is wrong; the message names the input and both slopes.
    """
    generator = np.random.default_rng(seed)
    for x in inputs:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck: an input is {x.dtype}, wanted float64")
        x.grad = None
    output = function(*inputs)
    weights = generator.standard_normal(output.shape)
    output.backward(weights)
    for number, x in enumerate(inputs):
        if not x.requires_grad:
            continue
        gradient = np.zeros(x.shape) if x.grad is None else x.grad
        for _ in range(directions):
            direction = generator.standard_normal(x.shape)
            original, ends = x.data, []
            for sign in (1, -1):
                x.data = original + sign * step * direction
                with no_grad():
                    ends.append(float((function(*inputs).data * weights).sum()))
            x.data = original
            slope = (ends[0] - ends[1]) / (2 * step)
            claimed = float((gradient * direction).sum())
            if not abs(slope - claimed) <= tolerance * max(abs(slope), abs(claimed), 1.0):
                raise AssertionError(f"gradcheck: input {number}: backward says {claimed:.9g}, differences {slope:.9g}")
