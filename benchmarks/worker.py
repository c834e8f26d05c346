"""One contestant in a process of its own: its allocator and its BLAS are settled before it starts.

Reads orders from its input, one JSON object a line, and answers each with one line:

``{"do": "build", "work": number, "table": "work", "save": path or null}``
    -> the seconds of the first call, which include compilation, and the output saved for comparison.
``{"do": "turn"}`` -> the times of one turn.
``{"do": "describe"}``, ``{"do": "ceilings"}``, ``{"do": "peak"}``, ``{"do": "stages", ...}`` -> what they say.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.work import GROWTH, WORK, make_inputs

TABLES = {"work": WORK, "growth": GROWTH}


class Worker:
    """The task in hand, and what is asked about it."""

    def __init__(self, role: str, layout: str | None):
        self.role, self.layout, self.task = role, layout, None

    def build(self, table: str, number: int, save: str | None):
        self.drop()
        work = TABLES[table][number]
        if self.role == "torch":
            from benchmarks import peer

            if self.layout == "last" and work.kind in peer.WITHOUT_LAYOUT:
                return {"skipped": "knows no layout"}
            self.task = peer.build(work, make_inputs(work), self.layout)
        elif self.role == "reference":
            from benchmarks import textbook

            self.task = textbook.build(work)
            if self.task is None:
                return {"skipped": "no textbook definition of its own"}
        else:
            from benchmarks import ours

            inputs = make_inputs(work)
            if self.role == "float64":
                inputs = {name: widen(value) for name, value in inputs.items()}
            self.task = ours.build(work, inputs, "patches" if self.role == "float64" else "auto")
        start = time.perf_counter()
        output = self.task.once()[1]
        first = time.perf_counter() - start
        if save and output is not None:
            arrays = output if isinstance(output, list) else [output]
            np.savez(save, *arrays)
        return {"first": first, "scale": getattr(self.task, "scale", 1.0)}

    def turn(self):
        return {"times": self.task.turn()}

    def drop(self):
        """Let go of the task, so that the next one has the memory."""
        self.task = None
        gc.collect()
        return {}

    def describe(self):
        if self.role == "torch":
            import torch
            import torchvision

            return {
                "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
                "threads": torch.get_num_threads(),
                "kernels": torch.backends.cpu.get_cpu_capability(),
            }
        from minimrcnn.environment import describe_environment

        return describe_environment()

    def ceilings(self):
        from benchmarks.ceilings import measure_ceilings

        return measure_ceilings()

    def stages(self, table: str, number: int, repeats: int):
        from benchmarks import stages

        self.drop()
        return stages.time_stages(self.role, TABLES[table][number], self.layout, repeats)

    def peak(self):
        """The most memory since the process began to work, in MiB."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return {"mib": int(line.split()[1]) / 1024}


def widen(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float64) if value.dtype == np.float32 else value


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is for the contest to speak of
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("--layout")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    if options.role != "torch":  # of whose four settings two keep memory
        from minimrcnn.device import keep_freed_memory

        keep_freed_memory()  # as the commands do
    elif options.threads:
        import torch

        torch.set_num_threads(options.threads)
    with suppress(OSError):  # forget the peak of the process that started this one, which a child inherits
        Path("/proc/self/clear_refs").write_text("5")
    worker = Worker(options.role, options.layout)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(worker, order.pop("do"))(**order)
        except Exception as error:  # the contest goes on without this one, and says so
            answer = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
