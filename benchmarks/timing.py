"""A task that can be timed, and how: untimed preparation, then the clock around the work alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

ENOUGH = 0.05  # seconds of measuring a turn, after which a short task has been seen often enough
MOST = 20  # repetitions a turn


@dataclass
class Task:
    """What is timed: ``run(before())``, or ``run()`` without ``before``; only ``run`` is on the clock."""

    run: Callable
    before: Callable | None = None

    def once(self) -> tuple[float, object]:
        """Seconds, and what came out."""
        arguments = () if self.before is None else (self.before(),)
        start = time.perf_counter()
        output = self.run(*arguments)
        return time.perf_counter() - start, output

    def turn(self) -> list[float]:
        """The times of one turn: one repetition to wake caches and threads up, then the ones that count."""
        seconds, _ = self.once()
        times = []
        while len(times) < 1 or (sum(times) < ENOUGH and len(times) < MOST):
            times.append(self.once()[0])
        return times if seconds < 1 else [*times, seconds]  # a second's work needs no waking up
