"""Tensors, the tape, and gradcheck: gradients against differences, memory, depth, errors."""

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn import functional
from minimrcnn.tensor import Function, Tensor, gradcheck, no_grad


def draw(shape, seed=0, positive=False):
    data = np.random.default_rng(seed).standard_normal(shape)
    return Tensor(np.abs(data) + 0.5 if positive else data, requires_grad=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: 3 - a * 2 + 1 / b,
        lambda a, b: -(a**3) + b**0.5,
        lambda a, b: (a * b).sum(axis=0) + a.mean(axis=(0, 1)) + b.sum(),
        lambda a, b: a @ b.transpose(),
        lambda a, b: (a + b)[1:, ::2].reshape(-1),
        lambda a, b: a[[0, 0, 1]] * b[np.array([True, False, True])].sum(axis=0),
        lambda a, b: functional.exp(a) + functional.log(b) + functional.sigmoid(a) * functional.relu(a),
        lambda a, b: functional.softmax(a) * b,
        lambda a, b: functional.concatenate([a, b, a], axis=1),
    ],
)
def test_gradients(function):
    gradcheck(function, draw((3, 4)), draw((3, 4), 1, positive=True), tolerance=1e-5)


@given(st.lists(st.sampled_from([1, 3]), max_size=3), st.lists(st.sampled_from([1, 3]), max_size=3))
def test_broadcasting(a, b):
    gradcheck(lambda x, y: x * y + x, draw(a), draw(b, 1), tolerance=1e-5)


def test_a_tensor_used_twice_collects_both():
    x = Tensor(np.array([3.0]), requires_grad=True)
    y = x * x + x
    y.backward()
    assert x.grad == 7
    (x * 1.0).backward()  # a second graph adds
    assert x.grad == 8


def test_gradients_do_not_share_memory():
    """Whoever scales one gradient in place must not scale another."""
    x, y = Tensor(np.ones(3), requires_grad=True), Tensor(np.ones(3), requires_grad=True)
    (x + y).backward(np.ones(3))
    x.grad *= 5
    np.testing.assert_array_equal(y.grad, 1)
    x.grad = y.grad = None
    ((x + y) * 3.0).backward(np.ones(3))
    x.grad *= 5
    np.testing.assert_array_equal(y.grad, 3)
    z = x.reshape(3, 1)
    start = np.ones((3, 1))
    x.grad = None
    z.backward(start)
    x.grad *= 5
    np.testing.assert_array_equal(start, 1)


class Halve(Function):
    """Hands one array to both of its inputs."""

    def forward(self, a, b):
        return (a + b) / 2

    def backward(self, gradient):
        half = gradient / 2
        return half, half


def test_gradients_of_one_array():
    x, y = Tensor(np.ones(3), requires_grad=True), Tensor(np.ones(3), requires_grad=True)
    Halve.apply(x, y).backward(np.ones(3))
    x.grad *= 5
    np.testing.assert_array_equal(y.grad, 0.5)
    x.grad = y.grad = None
    a, b = x * 1.0, y * 1.0
    (Halve.apply(a, b).sum() + (a * 3.0).sum()).backward()
    np.testing.assert_array_equal(x.grad, 3.5)
    np.testing.assert_array_equal(y.grad, 0.5)


def test_a_gradient_is_an_array_of_the_tensors_type():
    x, y = Tensor(np.float32(2)), Tensor(np.ones(3, np.float32), requires_grad=True)
    x.requires_grad = True
    for _ in range(2):
        ((y * Tensor(np.full(3, 2.0))).sum() * x).backward()
    assert isinstance(x.grad, np.ndarray) and x.grad.shape == () and x.grad.dtype == y.grad.dtype == np.float32
    assert x.grad == 12
    np.testing.assert_array_equal(y.grad, 8)


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, ">f4", np.int64, bool])
def test_kinds_of_numbers_become_float32(kind):
    wanted = np.float64 if np.dtype(kind) == np.float64 else np.float32  # longdouble is float64 on Apple silicon
    assert Tensor(np.ones(3, kind)).dtype == wanted and Tensor(np.ones(3, "<f8")).dtype == np.float64


def test_recording_is_for_each_thread():
    inside, leave = threading.Event(), threading.Event()

    def predict():
        with no_grad():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=predict)
    thread.start()
    inside.wait(10)
    x = Tensor(np.ones(3), requires_grad=True)
    with no_grad():
        leave.set()
        thread.join()
        assert (x * 2).function is None
    assert (x * 2).function is not None


def test_gradients_can_be_added_to():
    """A sum over an axis of length 1 hands back a view of the same size that cannot be written to."""
    x = Tensor(np.ones((1, 3)), requires_grad=True)
    h = x * 2.0
    ((h * h).reshape(3) + h.sum(axis=0) * 3.0).backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, 14)  # 2 (3 + 2 h)
    x.grad = None
    (x.sum(axis=0) * 3.0).backward(np.ones(3))
    x.grad *= 5
    np.testing.assert_array_equal(x.grad, 15)
    for twice in (lambda y: y.mean() * 2.0 + y.mean(), lambda y: (y * y).mean() - y.mean() * y.mean()):
        gradcheck(lambda x, twice=twice: twice(functional.relu(x)), draw((3, 4)), tolerance=1e-5)
    x.grad = None
    x.mean().backward()  # of a number, which NumPy makes of an array without axes
    x.grad *= 6
    np.testing.assert_allclose(x.grad, 2)


@pytest.mark.parametrize("walk", [True, False])
def test_deep_graph(walk):
    x = Tensor(np.ones(2), requires_grad=True)
    y = x
    for _ in range(50_000):
        y = y + 1.0
    if walk:
        y.backward(np.ones(2))
        np.testing.assert_array_equal(x.grad, 1)
    del y  # freeing the chain must not recurse either


def test_a_diamond_of_many_paths_is_walked_once():
    x = Tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(60):  # 2^60 paths
        y = (y + y) * 0.5
    y.backward()
    assert x.grad == 1


class Keep(Function):
    """Keeps a large array between forward and backward."""

    alive = None

    def forward(self, x):
        self.kept = np.empty(10)
        Keep.alive = weakref.ref(self.kept)
        return x * 1

    def backward(self, gradient):
        return gradient


def test_memory_is_freed_without_the_collector():
    gc.disable()
    try:
        x = Tensor(np.ones(3), requires_grad=True)
        y = Keep.apply(x)
        feature = weakref.ref((y * 2.0).data)
        assert feature() is None  # nobody needs the product: freed at once
        assert Keep.alive() is not None
        y.backward(np.ones(3))
        assert Keep.alive() is None  # freed as the walk goes, though y lives
        y = Keep.apply(x)
        del y
        assert Keep.alive() is None
    finally:
        gc.enable()


def test_what_needs_no_gradient_is_not_recorded():
    x, constant = Tensor(np.ones(3), requires_grad=True), Tensor(np.ones(3))
    assert (constant * 2).function is None
    with no_grad():
        assert (x * 2).function is None and not (x * 2).requires_grad
    product = x * constant
    assert product.function.b is constant.data and product.function.a is None


def test_errors():
    x = Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(RuntimeError, match="requires a gradient"):
        Tensor(np.ones(1)).backward()
    with pytest.raises(ValueError, match=r"shape \(3,\) needs the gradient"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"shape \(2,\), the Tensor \(3,\)"):
        (x * 2).backward(np.ones(2))
    y = (x * 2).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="walked before"):
        y.backward()
    assert Tensor(np.ones(3, np.int64)).dtype == np.float32
    with pytest.raises(TypeError, match="wanted numbers"):
        Tensor(["a"])
    with pytest.raises(ValueError, match="matrix product"):
        x @ x
    with pytest.raises(ValueError, match="wanted one of cpu, cuda"):
        x.to("tpu")


def test_gradcheck_finds_a_wrong_gradient():
    class Wrong(Function):
        def forward(self, x):
            return x * 2

        def backward(self, gradient):
            return gradient * 1.99

    with pytest.raises(AssertionError, match=r"input 0: backward says"):
        gradcheck(Wrong.apply, draw((3,)))
    with pytest.raises(TypeError, match="float64"):
        gradcheck(lambda x: x, Tensor(np.ones(2, np.float32), requires_grad=True))


def test_cuda_without_a_gpu_says_what_is_missing():
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match=r'pip install "minimrcnn\[cuda\]"'):
            Tensor(np.ones(1), device="cuda")


def test_functions_of_arrays_take_tensors():
    from minimrcnn import geometry

    boxes = Tensor(np.float32([[0, 0, 10, 10], [5, 5, 15, 15]]))
    assert geometry.box_iou(boxes, boxes)[0, 0] == 1
    np.testing.assert_array_equal(np.asarray(boxes), boxes.data)
    assert isinstance(np.ones(4, np.float32) + boxes, Tensor)  # arithmetic stays with the Tensor


def test_axes_from_the_end():
    x = draw((2, 3, 4))
    gradcheck(lambda x: x.transpose(0, -1, 1) ** 2, x)
    assert x.transpose([2, 0, 1]).shape == x.transpose((2, 0, 1)).shape == (4, 2, 3)
    with pytest.raises(ValueError, match="out of bounds"):
        x.transpose(0, 1, 3)
    assert x.reshape([6, 4]).shape == (6, 4) and x.transpose().shape == (4, 3, 2)


def test_the_zeroth_power_is_a_constant():
    x = Tensor([0.0, 2.0], requires_grad=True)
    (x**0).sum().backward()
    assert np.array_equal(x.grad, [0, 0])


def test_an_index_may_change_before_the_way_back():
    x, rows = draw((3, 3)), np.arange(2)
    y = x[rows, rows]
    rows[:] = 2
    y.backward(np.ones(2))
    assert np.array_equal(x.grad, np.diag([1, 1, 0]))


def test_arrays_on_the_left():
    a, x = np.ones((2, 3)), draw((3, 4))
    gradcheck(lambda x: a @ x, x)
    assert Tensor(1.0) and not Tensor([0.0])
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)


def test_the_mean_over_some_axes():
    x = np.arange(24.0).reshape(2, 3, 4)
    for axis in (None, 1, -1, (0, 2)):
        np.testing.assert_allclose(Tensor(x).mean(axis).data, x.mean(axis))


def test_a_gradient_of_another_shape_is_refused():
    x = Tensor(np.zeros((2, 3)), requires_grad=True)
    with pytest.raises(ValueError, match=r"gradient has shape \(3, 2\), the Tensor \(2, 3\)"):
        (x * 2).backward(np.zeros((3, 2)))


def test_a_gradient_has_the_type_of_what_it_is_of():
    seen = []

    class Spy(Function):
        def forward(self, a):
            return a

        def backward(self, gradient):
            seen.append(gradient.dtype)
            return gradient

    leaf = Tensor(np.ones(3, np.float32), requires_grad=True)
    (Spy.apply(leaf) * Tensor(np.ones(3))).sum().backward()
    assert seen == [np.float32]


def test_nothing_to_concatenate():
    with pytest.raises(ValueError, match="Concatenate: no Tensor among its inputs"):
        functional.concatenate([])
