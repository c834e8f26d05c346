"""The optimizers against their formulas, written out in NumPy and float64."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn.errors import DataError
from minimrcnn.kernels.optimizer import SQUARES_BLOCK
from minimrcnn.training.optimizer import SGD, AdamW, clip_gradients
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.trainer import train
from tests.tiny_model import TinyData, TinyModel

SHAPES = {"weight": (3, 2, 5), "bias": (5,), "scalar": (), "empty": (0, 4), "long": (40_000, 2)}


def make_parameters(seed=0):
    generator = np.random.default_rng(seed)
    return {
        name: SimpleNamespace(
            data=np.array(generator.standard_normal(shape), np.float32), grad=None, requires_grad=True
        )
        for name, shape in SHAPES.items()
    }


def give_gradients(parameters, seed):
    generator = np.random.default_rng(seed)
    for parameter in parameters.values():
        parameter.grad = np.array(generator.standard_normal(parameter.data.shape), np.float32)


def assert_close(parameters, expected):
    for name, parameter in parameters.items():
        assert parameter.data.dtype == np.float32
        np.testing.assert_allclose(parameter.data, expected[name], rtol=1e-5, atol=1e-6)


def decay_of(parameter, weight_decay):
    return weight_decay if parameter.data.ndim > 1 else 0.0


@given(momentum=st.sampled_from([0.0, 0.9]), weight_decay=st.sampled_from([0.0, 0.1]))
def test_sgd(momentum, weight_decay):
    parameters = make_parameters()
    optimizer = SGD(parameters, momentum=momentum, weight_decay=weight_decay)
    value = {name: parameter.data.astype(np.float64) for name, parameter in parameters.items()}
    velocity = {name: 0.0 for name in parameters}
    for step in range(4):
        give_gradients(parameters, step)
        rate = 0.1 / (step + 1)
        optimizer.step(rate)
        for name, parameter in parameters.items():
            decay = decay_of(parameter, weight_decay)
            velocity[name] = momentum * velocity[name] + parameter.grad.astype(np.float64) + decay * value[name]
            value[name] = value[name] - rate * velocity[name]
    assert_close(parameters, value)


@given(weight_decay=st.sampled_from([0.0, 0.1]), beta2=st.sampled_from([0.99, 0.999]))
def test_adamw(weight_decay, beta2):
    parameters = make_parameters()
    optimizer = AdamW(parameters, betas=(0.9, beta2), weight_decay=weight_decay)
    value = {name: parameter.data.astype(np.float64) for name, parameter in parameters.items()}
    mean = {name: 0.0 for name in parameters}
    square = {name: 0.0 for name in parameters}
    for step in range(1, 5):
        give_gradients(parameters, step)
        rate = 0.1 / step
        optimizer.step(rate)
        for name, parameter in parameters.items():
            gradient = parameter.grad.astype(np.float64)
            mean[name] = 0.9 * mean[name] + 0.1 * gradient
            square[name] = beta2 * square[name] + (1 - beta2) * gradient**2
            unbiased = mean[name] / (1 - 0.9**step) / (np.sqrt(square[name] / (1 - beta2**step)) + 1e-8)
            value[name] = value[name] - rate * decay_of(parameter, weight_decay) * value[name] - rate * unbiased
    assert_close(parameters, value)


def name_groups():
    """A convolution with its bias, and a normalization; ``denorm`` is none."""
    shapes = {"conv.weight": (2, 2), "conv.bias": (2,), "stem.norm.weight": (2,), "stem.norm.bias": (2,)}
    shapes |= {"denorm.weight": (2, 2)}
    return {
        name: SimpleNamespace(data=np.ones(shape, np.float32), grad=np.zeros(shape, np.float32), requires_grad=True)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_normalizations_have_a_decay_of_their_own(kind):
    parameters = name_groups()
    kind(parameters, weight_decay=0.5).step(0.1)
    left = {name: parameter.data.flat[0] for name, parameter in parameters.items()}
    assert left == pytest.approx({**dict.fromkeys(left, 1.0), "conv.weight": 0.95, "denorm.weight": 0.95})
    parameters = name_groups()
    # As in torchvision's reference script: biases are no exception then.
    kind(parameters, weight_decay=0.5, norm_weight_decay=0.1).step(0.1)
    left = {name: parameter.data.flat[0] for name, parameter in parameters.items()}
    norm = {"stem.norm.weight": 0.99, "stem.norm.bias": 0.99}
    assert left == pytest.approx({**dict.fromkeys(left, 0.95), **norm})


def test_what_is_not_given_is_as_published():
    sgd, adamw = SGD(name_groups()), AdamW(name_groups())
    assert (sgd.momentum, sgd.decay["conv.weight"]) == (0.9, 1e-4)
    assert (*adamw.betas, adamw.eps, adamw.decay["conv.weight"]) == (0.9, 0.999, 1e-8, 0.01)


def test_options_make_the_groups():
    decay = TrainOptions(weight_decay=0.5, norm_weight_decay=0.0).make_optimizer(name_groups()).decay
    assert decay["conv.bias"] == 0.5 and decay["stem.norm.bias"] == 0.0
    assert TrainOptions(weight_decay=0.5, optimizer="sgd").make_optimizer(name_groups()).decay["conv.bias"] == 0.0


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"norm_weight_decay": -1}, "norm_weight_decay is -1"),
        ({"crop": -5}, "TrainOptions: crop is -5, wanted a whole number of at least 1, or None"),
        ({"scale": (1.0,)}, r"scale is \(1\.0,\), wanted 2 numbers above 0, the lower first"),
        ({"scale": (2, 1)}, "scale is .* the lower first"),
        ({"momentum": 5}, "momentum is 5, wanted a number from 0 on, below 1"),
        ({"flip_horizontal": 7}, "flip_horizontal is 7, wanted a number from 0 to 1"),
        ({"steps": 3.5}, r"steps is 3\.5, wanted a whole number of at least 1"),
        ({"seed": 1.5}, r"seed is 1\.5"),
        ({"learning_rate": float("inf")}, "learning_rate is inf, wanted a number above 0"),
        ({"milestones": [60_000, 80_000]}, "wanted shares of steps"),
        ({"optimizer": "adam"}, "wanted one of adamw, sgd"),
        ({"schedule": "linear"}, "wanted one of cosine, step"),
    ],
)
def test_options_that_no_run_can_have_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions(**fields)


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_frozen_parameters_are_left_out(kind):
    parameters = make_parameters()
    parameters["weight"].requires_grad = False
    optimizer = kind(parameters, weight_decay=0.1)
    give_gradients(parameters, 0)
    before = parameters["weight"].data.copy()
    optimizer.step(0.1)
    np.testing.assert_array_equal(parameters["weight"].data, before)
    assert set(optimizer.parameters) == set(SHAPES) - {"weight"}
    assert not any(name.endswith("/weight") for name in optimizer.arrays())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_with_frozen_parameters_resumes_bit_by_bit(tmp_path, optimizer):
    class Damaged(TinyData):
        """Ends after some pictures, as one that turns out to be damaged ends a run."""

        def __init__(self, left):
            super().__init__()
            self.left = left

        def __getitem__(self, index):
            self.left -= 1
            if self.left < 0:
                raise DataError("photo: damaged")
            return super().__getitem__(index)

    def make_model():
        model = TinyModel()
        model.bias.requires_grad = False
        return model

    fields = {"steps": 8, "batch_size": 3, "color": False, "norm_weight_decay": 0.0, "checkpoint_seconds": 0}
    options = TrainOptions(optimizer=optimizer, **fields)
    train(make_model(), TinyData(), options, tmp_path / "straight", progress=False)
    with pytest.raises(DataError, match="damaged"):
        train(make_model(), Damaged(3 * 5), options, tmp_path / "halted", progress=False)
    train(make_model(), TinyData(), options, tmp_path / "halted", resume=True, progress=False)
    for name in ("model.npz", "checkpoint.npz"):
        assert (tmp_path / "halted" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_without_gradient_nothing_moves(kind):
    parameters = make_parameters()
    before = parameters["weight"].data.copy()
    optimizer = kind(parameters, weight_decay=0.1)
    give_gradients(parameters, 0)
    parameters["weight"].grad = None
    optimizer.step(0.1)
    np.testing.assert_array_equal(parameters["weight"].data, before)
    assert not np.array_equal(parameters["bias"].data, make_parameters()["bias"].data)
    optimizer.clear_gradients()
    assert all(parameter.grad is None for parameter in parameters.values())


@pytest.mark.parametrize("kind", [SGD, AdamW])
def test_restored_state_goes_on_bit_by_bit(kind):
    straight, halted = make_parameters(), make_parameters()
    optimizer, first = kind(straight), kind(halted)
    for step in range(3):
        give_gradients(straight, step)
        give_gradients(halted, step)
        optimizer.step(0.1)
        first.step(0.1)
    saved = {name: array.copy() for name, array in first.arrays().items()}
    second = kind(halted)
    second.load_arrays(saved)
    for step in range(3, 6):
        give_gradients(straight, step)
        give_gradients(halted, step)
        optimizer.step(0.1)
        second.step(0.1)
    for name in straight:
        np.testing.assert_array_equal(straight[name].data, halted[name].data)


def test_wrong_state_is_listed_and_changes_nothing():
    optimizer = AdamW(make_parameters())
    arrays = {name: array + 1 for name, array in optimizer.arrays().items()}
    del arrays["mean/bias"]
    arrays["velocity/bias"] = np.zeros(5)
    arrays["square/weight"] = np.zeros((3, 3))
    with pytest.raises(ValueError) as caught:
        optimizer.load_arrays(arrays)
    for words in (
        "mean/bias is missing",
        "velocity/bias is unknown",
        "square/weight has shape (3, 3), wanted (3, 2, 5)",
    ):
        assert words in str(caught.value)
    assert optimizer.steps == 0 and not optimizer.state["mean"]["weight"].any()


def test_strided_parameter_is_refused():
    strided = SimpleNamespace(data=np.zeros((4, 4), np.float32).T[:2], grad=None, requires_grad=True)
    with pytest.raises(ValueError, match="w is not C-contiguous"):
        SGD({"w": strided})


@pytest.mark.parametrize("kind", [SGD, AdamW])
@pytest.mark.parametrize("field", ["data", "grad"])
def test_another_shape_is_refused(kind, field):
    """A kernel asks nothing: it would read, and write the state, beyond their ends."""
    parameters = make_parameters()
    optimizer = kind(parameters)
    give_gradients(parameters, 1)
    setattr(parameters["bias"], field, np.ones(7, np.float32))
    before = {name: array.copy() for name, array in optimizer.arrays().items()}
    weight = parameters["weight"].data.copy()
    with pytest.raises(ValueError, match=r"bias is \(\d,\), its gradient \(\d,\) and its state \(5,\)"):
        optimizer.step(0.1)
    assert np.array_equal(parameters["weight"].data, weight)
    assert all(np.array_equal(array, before[name]) for name, array in optimizer.arrays().items())


def test_strided_gradient_is_used():
    gradient = np.arange(6, dtype=np.float32).reshape(3, 2).T
    parameter = SimpleNamespace(data=np.zeros((2, 3), np.float32), grad=gradient, requires_grad=True)
    SGD({"w": parameter}, momentum=0.0, weight_decay=0.0).step(1.0)
    np.testing.assert_array_equal(parameter.data, [[0, -2, -4], [-1, -3, -5]])


@pytest.mark.parametrize("size", [0, 1, 7, SQUARES_BLOCK, SQUARES_BLOCK + 1, 3 * SQUARES_BLOCK + 5])
def test_norm_of_any_size(size):
    gradient = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    norm = clip_gradients([SimpleNamespace(grad=gradient)], math.inf)
    assert norm == pytest.approx(np.linalg.norm(gradient.astype(np.float64)), rel=1e-12)


def test_clipping():
    parameters = [SimpleNamespace(grad=np.full((2, 2), 3.0, np.float32)), SimpleNamespace(grad=None)]
    assert clip_gradients(parameters, 10.0) == 6.0
    np.testing.assert_array_equal(parameters[0].grad, np.full((2, 2), 3.0))  # short enough
    assert clip_gradients(parameters, 2.0) == 6.0
    np.testing.assert_allclose(parameters[0].grad, np.full((2, 2), 1.0), rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norm_tells_of_nan_and_infinity(bad):
    gradient = np.ones(100, np.float32)
    gradient[37] = bad
    assert not math.isfinite(clip_gradients([SimpleNamespace(grad=gradient)], 1.0))
    assert gradient[0] == 1.0


def test_large_gradients_do_not_overflow():
    assert clip_gradients([SimpleNamespace(grad=np.full(4, 1e30, np.float32))], math.inf) == pytest.approx(2e30)
