"""Modules: names, buffers, loading, normalization layers, initial weights."""

import numpy as np
import pytest

from minimrcnn import nn
from minimrcnn.tensor import Tensor, no_grad


def generator():
    return np.random.default_rng(0)


class Net(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(3, 4, 3, padding=1, generator=generator())
        self.blocks = [
            nn.ConvNorm(4, 4, 1, norm=nn.make_norm("batch", 2, 1e-5), generator=generator()) for _ in range(2)
        ]
        self.rest = nn.Sequential(nn.GroupNorm(4, 2), nn.Conv2d(4, 2, 1, bias=False, generator=generator()))

    def forward(self, x):
        x = self.conv(x, relu=True)
        for block in self.blocks:
            x = block(x, residual=x, relu=True)
        return self.rest(x)


def test_names():
    net = Net()
    assert list(net.named_parameters()) == [
        "conv.weight", "conv.bias", "blocks.0.conv.weight", "blocks.0.norm.weight", "blocks.0.norm.bias",
        "blocks.1.conv.weight", "blocks.1.norm.weight", "blocks.1.norm.bias", "rest.layers.0.weight",
        "rest.layers.0.bias", "rest.layers.1.weight",
    ]  # fmt: skip
    assert set(net.buffers()) == {f"blocks.{n}.norm.running_{kind}" for n in (0, 1) for kind in ("mean", "var")}
    assert set(net.arrays()) == set(net.named_parameters()) | set(net.buffers())


def test_initial_weights_count_the_outputs_that_an_input_reaches():
    """With ReLU; of a transposed convolution and of layers without, the inputs of an output."""
    for layer, fan in (
        (nn.Conv2d(2, 300, 3, generator=generator()), 2 / (9 * 300)),
        (nn.Conv2d(300, 2, 3, generator=generator(), initialize=nn.uniform), 1 / (9 * 300)),
        (nn.ConvTranspose2d(300, 2, 2, 2, generator=generator()), 2 / (4 * 300)),
    ):
        assert layer.weight.data.std() == pytest.approx(fan**0.5, rel=0.05)


def test_a_batch_of_nothing_leaves_the_statistics():
    norm = nn.BatchNorm2d(3)
    assert norm(Tensor(np.zeros((0, 2, 2, 3), np.float32))).shape == (0, 2, 2, 3)
    assert norm.running_mean.tolist() == [0, 0, 0] and norm.running_var.tolist() == [1, 1, 1]


def test_load_arrays_copies_and_lists_every_fault():
    net, other = Net(), Net()
    arrays = {name: np.full_like(array, 2) for name, array in other.arrays().items()}
    net.load_arrays(arrays)
    assert all((array == 2).all() for array in net.arrays().values())
    assert net.arrays()["conv.weight"] is not arrays["conv.weight"]
    before = net.conv.weight.data.copy()
    wrong = {**arrays, "conv.weight": np.zeros(3), "extra": np.zeros(1)}
    del wrong["conv.bias"]
    with pytest.raises(ValueError) as error:
        net.load_arrays(wrong)
    for part in ("3 names", "conv.bias: missing", "extra: unknown", "conv.weight: shape (3,), wanted (3, 3, 3, 4)"):
        assert part in str(error.value)
    np.testing.assert_array_equal(net.conv.weight.data, before)


def test_train_and_eval_reach_every_part():
    net = Net()
    assert net.eval() is net and not any(module.training for module in net.modules())
    assert net.train().blocks[1].norm.training


def test_every_parameter_gets_a_gradient():
    net = Net()
    x = Tensor(np.random.default_rng(1).standard_normal((2, 5, 6, 3), dtype=np.float32))
    y = net(x)
    y.backward(np.random.default_rng(2).standard_normal(y.shape))
    for name, parameter in net.named_parameters().items():
        assert parameter.grad is not None and parameter.grad.shape == parameter.shape, name
        assert parameter.grad.dtype == np.float32 and np.abs(parameter.grad).max() > 0, name
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())


def test_batch_norm_learns_its_statistics():
    assert (nn.BatchNorm2d(3).momentum, nn.BatchNorm2d(3).eps) == (0.1, 1e-5)  # as torch has it
    norm = nn.BatchNorm2d(3, momentum=0.5)
    x = Tensor((4 + 2 * np.random.default_rng(0).standard_normal((8, 9, 9, 3))).astype(np.float32))
    for _ in range(12):
        norm(x)
    np.testing.assert_allclose(norm.running_mean, x.data.mean(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(norm.running_var, x.data.var(axis=(0, 1, 2), ddof=1), rtol=1e-3)
    trained = norm(x).data
    norm.eval()
    np.testing.assert_allclose(norm(x).data, trained, atol=5e-3)
    residual = Tensor(np.ones(x.shape, np.float32))
    np.testing.assert_allclose(norm(x, residual, relu=True).data, np.maximum(norm(x).data + 1, 0), atol=1e-6)


def test_frozen_batch_norm_folds_into_the_convolution():
    rng = np.random.default_rng(0)
    layer = nn.ConvNorm(3, 5, 3, 2, norm=nn.make_norm("frozen_batch", 32, 1e-5), generator=rng)
    for name, low in (("weight", 0.5), ("bias", -1), ("running_mean", -1), ("running_var", 0.5)):
        getattr(layer.norm, name)[:] = rng.uniform(low, low + 1, 5)
    x = Tensor(rng.standard_normal((2, 7, 8, 3), dtype=np.float32))
    residual = Tensor(rng.standard_normal((2, 4, 4, 5), dtype=np.float32))
    folded = layer(x, residual, relu=True)
    apart = layer.norm(layer.conv(x), residual, relu=True)
    np.testing.assert_allclose(folded.data, apart.data, atol=1e-5)
    assert not any("norm" in name for name in layer.named_parameters())
    folded.backward(np.ones(folded.shape))
    grad, layer.conv.weight.grad = layer.conv.weight.grad, None
    apart.backward(np.ones(apart.shape))
    np.testing.assert_allclose(grad, layer.conv.weight.grad, atol=1e-4)


def test_group_norm_divides_what_groups_there_can_be():
    assert nn.GroupNorm(64, 32).groups == 32
    assert nn.GroupNorm(48, 32).groups == 16  # 32 do not divide 48


def test_initial_weights_keep_the_size_of_the_signal():
    rng = generator()
    x = Tensor(rng.standard_normal((4, 16, 16, 64), dtype=np.float32))
    with no_grad():
        for _ in range(6):
            x = nn.Conv2d(64, 64, 3, padding=1, generator=rng)(x, relu=True)
    assert 0.2 < np.sqrt((x.data**2).mean()) < 2
    assert nn.he_normal(rng, (1000, 100), 50).std() == pytest.approx(0.2, rel=0.02)
    assert nn.uniform(rng, (1000, 100), 25).std() == pytest.approx(0.2, rel=0.02)
    assert nn.normal(0.01)(rng, (1000, 100), 25).std() == pytest.approx(0.01, rel=0.02)


def test_a_shared_part_is_learned_once():
    class Twice(nn.Module):
        def __init__(self):
            self.first = nn.Linear(2, 2, generator=np.random.default_rng(0))
            self.second = self.first

    assert list(Twice().named_parameters()) == list(Twice().arrays()) == ["first.weight", "first.bias"]


def test_frozen_statistics_are_used_with_their_eps():
    norm = nn.FrozenBatchNorm2d(2, eps=3.0)
    assert norm.scale_and_shift()[0].tolist() == [0.5, 0.5]
