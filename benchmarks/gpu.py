"""The CUDA bodies at the same work: the kernel alone, its arrays on the device, or with the way there and back."""

from __future__ import annotations

import numpy as np

from benchmarks import ours
from benchmarks.timing import Task
from benchmarks.work import Work
from minimrcnn.device import to_device

WITH_A_BODY = ("roi_align", "roi_pool", "nms", "box_iou")


def build(work: Work, inputs: dict[str, np.ndarray], with_transfers: bool) -> Task | None:
    """The task, ended by a synchronize; None where the operation has no CUDA body yet."""
    import cupy

    if work.kind not in WITH_A_BODY or (with_transfers and work.backward):
        return None
    on_device = {name: to_device(value, "cuda") for name, value in inputs.items()}
    task = ours.build(work, on_device)
    task.once()

    def before():
        state = task.before()
        cupy.cuda.runtime.deviceSynchronize()
        return state

    def run_alone(*state):
        output = task.run(*state)
        cupy.cuda.runtime.deviceSynchronize()
        return output

    def run_with_transfers():
        there = ours.build(work, {name: to_device(value, "cuda") for name, value in inputs.items()})
        output = there.run(*(() if there.before is None else (there.before(),)))
        return [to_host(value) for value in (output if isinstance(output, list) else [output])]

    return Task(run_with_transfers) if with_transfers else Task(run_alone, before if task.before else None)


def to_host(value):
    return to_device(value, "cpu")
