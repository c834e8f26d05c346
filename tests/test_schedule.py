"""The learning rate of every step."""

import pytest

from minimrcnn.training.schedule import learning_rate_at


def test_cosine_with_warmup():
    rates = [learning_rate_at(step, 20, 2.0, "cosine", warmup_steps=4) for step in range(21)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[12] == pytest.approx(1.0)  # half of the cosine
    assert all(later < earlier for earlier, later in zip(rates[4:], rates[5:], strict=False))
    assert rates[20] == learning_rate_at(25, 20, 2.0, "cosine", warmup_steps=4) == pytest.approx(0.0)


def test_steps():
    rates = [learning_rate_at(step, 90, 1.0, "step", warmup_steps=0) for step in range(90)]
    assert rates[0] == rates[59] == 1.0
    assert rates[60] == rates[79] == pytest.approx(0.1)
    assert rates[80] == rates[89] == pytest.approx(0.01)
    assert learning_rate_at(5, 10, 1.0, "step", milestones=(0.5,), gamma=0.5) == 0.5


def test_short_runs():
    assert learning_rate_at(0, 1, 1.0, "cosine") == 1.0
    assert learning_rate_at(2, 3, 1.0, "cosine", warmup_steps=100) == pytest.approx(0.03)
    assert learning_rate_at(100, 100, 1.0, "cosine", warmup_steps=100) == 1.0


def test_unknown_schedule():
    with pytest.raises(ValueError, match="'linear', wanted one of cosine, step"):
        learning_rate_at(0, 1, 1.0, "linear")
