"""The learning rate of every step, from the number of the step alone: nothing to save, nothing to go out of step.

A linear warm-up (Goyal et al. 2017, section 2.2) keeps the first steps of fresh weights small; then the rate falls by
steps, as Mask R-CNN was trained (He et al. 2017, section 3.1), or along half a cosine (Loshchilov and Hutter 2017).
"""

from __future__ import annotations

import math

SCHEDULES = ("cosine", "step")


def learning_rate_at(
    step: int,
    steps: int,
    learning_rate: float,
    schedule: str = "cosine",
    warmup_steps: int = 0,
    milestones: tuple[float, ...] = (2 / 3, 8 / 9),
    gamma: float = 0.1,
) -> float:
    """The learning rate of step ``step``, counted from 0, of a run of ``steps``.

    Parameters
    ----------
    learning_rate : float
        The rate at the end of the warm-up.
    schedule : {"cosine", "step"}
        "cosine" falls to 0 after the last step; "step" is multiplied by ``gamma`` at every milestone.
    warmup_steps : int
        Step i of them has (i + 1) / ``warmup_steps`` of the rate.
    milestones : tuple of float
        For "step": shares of ``steps``, ascending; (2/3, 8/9) of 90,000 are the usual 60,000 and 80,000.
    gamma : float
        For "step".
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"learning_rate_at: schedule is {schedule!r}, wanted one of {', '.join(SCHEDULES)}")
    if step < warmup_steps:
        return learning_rate * (step + 1) / warmup_steps
    if schedule == "step":
        return learning_rate * gamma ** sum(step >= milestone * steps for milestone in milestones)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
