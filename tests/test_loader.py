"""Batches: every picture once an epoch, the same again from any place, errors handed over, threads ended."""

import gc
import threading
import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn.data import Loader
from minimrcnn.errors import DataError
from minimrcnn.structures import Target

NOTHING = Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 1, 1), np.uint8))


class Numbers:
    """Picture i is the number i; ``bad`` maps indices to what they raise."""

    def __init__(self, count, bad=()):
        self.count, self.bad = count, dict(bad)
        self.asked = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.asked.append(index)
        if index in self.bad:
            raise self.bad[index]
        return np.full((1, 1, 3), index, np.float32), NOTHING


def add_noise(picture, target, generator):
    return picture + generator.random(picture.shape), target


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def wait_for_no_thread():
    """Loaders that were dropped, not closed, end their threads in their own time."""
    gc.collect()
    deadline = time.monotonic() + 10
    while loader_threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not loader_threads()


@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32))
def test_every_epoch_has_every_picture_once(count, batch_size, seed):
    with Loader(Numbers(count), batch_size, seed=seed) as loader:
        batches = list(islice(loader, 2 * count))
    row = [index for batch in batches for index in batch.indices]
    assert len(row) == 2 * count * batch_size, "no batch is short"
    for start in range(0, len(row), count):
        assert sorted(row[start : start + count]) == list(range(count))
    for pictures, targets, indices in batches:
        assert [int(picture[0, 0, 0]) for picture in pictures] == indices and len(targets) == batch_size


def test_epochs_and_seeds_differ():
    def row(seed):
        return Loader(Numbers(40), 80, seed=seed).batch(0).indices

    assert row(0)[:40] != row(0)[40:] and row(0) != row(1) and row(0) == row(0)
    assert row(0)[:40] != list(range(40))


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 8))
def test_resuming_gives_the_same_batches(count, batch_size, start):
    with Loader(Numbers(count), batch_size, add_noise, seed=3) as loader:
        whole = list(islice(loader, start + 3))
    with Loader(Numbers(count), batch_size, add_noise, seed=3, start=start) as loader:
        rest = list(islice(loader, 3))
        assert loader.number == start + 3
    for first, second in zip(whole[start:], rest, strict=True):
        assert first.indices == second.indices
        np.testing.assert_array_equal(first.pictures, second.pictures)


def test_one_picture_is_changed_otherwise_every_time():
    pictures = Loader(Numbers(1), 5, add_noise).batch(0).pictures
    assert len({float(picture.sum()) for picture in pictures}) == 5
    of_the_order = np.random.default_rng([0, 0, 0]).random((1, 1, 3))  # of the first epoch
    assert not np.array_equal(pictures[0], of_the_order)


def test_two_batches_are_made_ahead_and_not_more():
    dataset = Numbers(100)
    with Loader(dataset, 10) as loader:
        next(loader)
        deadline = time.monotonic() + 10
        while len(dataset.asked) < 30 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert len(dataset.asked) == 30


def test_an_error_names_the_picture_and_comes_in_its_turn():
    dataset = Numbers(6, bad={4: DataError("images/x.png: truncated"), 2: KeyError("annotation")})
    with Loader(dataset, 1) as loader:
        met = []
        for _ in range(6):
            try:
                met.append(next(loader).indices[0])
            except (DataError, RuntimeError) as error:
                met.append(error)
    order = [index for number in range(6) for index in Loader(Numbers(6), 1).batch(number).indices]
    damaged, broken = met[order.index(4)], met[order.index(2)]
    assert type(damaged) is DataError and "picture 4" in str(damaged) and "images/x.png" in str(damaged)
    assert type(broken) is RuntimeError and "picture 2" in str(broken) and "KeyError" in str(broken)
    assert broken.__cause__ is dataset.bad[2]
    assert [item for item in met if isinstance(item, int)] == [index for index in order if index not in (2, 4)]


def test_threads_end_when_closed_after_an_error_and_when_dropped():
    wait_for_no_thread()
    with Loader(Numbers(3), 1) as loader:
        next(loader)
        assert len(loader_threads()) == 1
    assert not loader_threads()
    loader.close()
    with pytest.raises(RuntimeError, match="after close"):
        next(loader)

    with pytest.raises(DataError), Loader(Numbers(1, bad={0: DataError("bad")}), 1) as loader:
        next(loader)
    assert not loader_threads()

    loader = Loader(Numbers(3), 1)
    next(loader)
    del loader
    wait_for_no_thread()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="no pictures"):
        Loader(Numbers(0), 1)
    with pytest.raises(ValueError, match="batch_size is 0"):
        Loader(Numbers(1), 0)
    with pytest.raises(ValueError, match="start is -1"):
        Loader(Numbers(1), 1, start=-1)
