"""Batches without end, the next two made ready while the training step runs.

Batch k depends on the seed and on k alone. The pictures of all epochs, each shuffled anew, form one endless row; batch
k is the row's stretch from ``k * batch_size`` on, so a batch may take its first pictures from one epoch and its last
from the next, and no picture is ever left out. A picture's place in the row also seeds its random transforms. Hence
training that stopped after k batches goes on with ``start=k`` as if it had not stopped.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from minimrcnn.data.transforms import Transform
from minimrcnn.errors import DataError
from minimrcnn.structures import Target

AHEAD = 2  # batches made before they are asked for


class Batch(NamedTuple):
    """What one training step sees: N pictures (H, W, 3), each of its own size, their Targets and their indices."""

    pictures: list[np.ndarray]
    targets: list[Target]
    indices: list[int]


class Loader:
    """Iterate over batches of a data set forever, preparing them in one background thread.

    One thread and no more: it shares the processor with the training step, whose kernels are parallel.

    Parameters
    ----------
    dataset : object
        With ``len(dataset)`` and ``dataset[i] -> (picture, Target)``.
    batch_size : int
        Pictures in a batch; may exceed the data set's length.
    transform : callable, optional
        ``(picture, target, generator) -> (picture, target)``.
    seed : int
        Not negative.
    start : int
        The number of the first batch.

    Raises
    ------
    DataError
        From ``next``, when the data set raised it for a picture of the batch; other errors become a RuntimeError.
        Either names the picture, and the original error is its ``__cause__``.

    Examples
    --------
    >>> with Loader(Shapes(50, seed=0), batch_size=4, transform=RandomFlip()) as loader:
    ...     for step, (pictures, targets, indices) in zip(range(1000), loader):
    ...         ...
    """

    def __init__(self, dataset, batch_size: int, transform: Transform | None = None, seed: int = 0, start: int = 0):
        if len(dataset) == 0:
            raise ValueError("Loader: the data set has no pictures, wanted at least 1")
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("start", start, 0)):
            if value < least:
                raise ValueError(f"Loader: {name} is {value}, wanted at least {least}")
        self.dataset, self.batch_size, self.transform, self.seed = dataset, batch_size, transform, seed
        self.number = start  # of the batch that `next` will return
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # an epoch and its shuffled indices
        # The executor's one thread takes batches in the order they were submitted, hands their errors over, and ends
        # when the loader is closed or dropped, or the program exits.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._pending = deque(self._thread.submit(self.batch, start + ahead) for ahead in range(AHEAD))

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        if not self._pending:
            raise RuntimeError("Loader: a batch was asked for after close()")
        future = self._pending.popleft()
        self._pending.append(self._thread.submit(self.batch, self.number + AHEAD))
        self.number += 1
        return future.result()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """End the thread: waits for the batch in hand and forgets those not begun. May be called twice."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()

    def batch(self, number: int) -> Batch:
        """Batch ``number``, counted from 0, made here and now."""
        first = number * self.batch_size
        indices = [self._index(place) for place in range(first, first + self.batch_size)]
        samples = [self._sample(place, index) for place, index in enumerate(indices, first)]
        return Batch([picture for picture, _ in samples], [target for _, target in samples], indices)

    def _index(self, place: int) -> int:
        """Which picture stands at a place of the endless row."""
        epoch, within = divmod(place, len(self.dataset))
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.dataset))
            self._order = epoch, order
        return int(order[within])

    def _sample(self, place: int, index: int) -> tuple[np.ndarray, Target]:
        try:
            picture, target = self.dataset[index]
            if self.transform is not None:
                picture, target = self.transform(picture, target, np.random.default_rng([self.seed, 1, place]))
            return picture, target
        except DataError as error:
            raise DataError(f"picture {index} of the data set: {error}") from error
        except Exception as error:
            message = f"Loader: picture {index} of the data set: {type(error).__name__}: {error}"
            raise RuntimeError(message) from error
