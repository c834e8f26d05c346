"""The contestants, each in its own process, taking turns at the same work.

How a contest goes:

1. Every contestant builds the work and runs it once: that time contains compilation and stands apart.
2. What came out is compared with the same in float64.
3. In every round each contestant gets one turn, forwards in one round and backwards in the next, so that a slow minute
   of the machine hits all of them.
4. The median of all its repetitions is a contestant's time, the quartiles are its spread.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tqdm.auto import tqdm

KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
AVX2 = {"OPENBLAS_CORETYPE": "Haswell", "NUMBA_CPU_NAME": "haswell"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
LONG = 1.0  # seconds of a repetition, from which a work gets three rounds at most
UNJUDGED = ("inference", "training_step", "demo_step", "box_iou", "paste_masks", "crop_masks")  # float32 in any case
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Contestant:
    """Who runs, and how its process is set up."""

    name: str
    role: str
    layout: str | None = None
    threads: int | None = None
    environment: dict = field(default_factory=dict, hash=False)
    once: bool = False  # one turn is enough: nobody races it
    python: str = sys.executable


def make_contestants(peer: str | None, threads: int | None) -> list[Contestant]:
    """Ours with all the processor has, compiled for AVX2 if it is of that kind, on one thread; torch both ways in both
    layouts."""
    for_less = [Contestant("minimrcnn, AVX2", "ours", threads=threads, environment=AVX2)]
    ours = [
        Contestant("minimrcnn", "ours", threads=threads),
        *(for_less if platform.machine().lower() in ("x86_64", "amd64") else []),
        Contestant("minimrcnn, 1 thread", "ours", threads=1),
        Contestant("textbook", "reference", once=True),
    ]
    torch = [
        Contestant(f"torch, channels {layout}{note}", "torch", layout, threads, environment, python=peer)
        for note, environment in (("", {}), (", keeping memory", KEEP_MEMORY))
        for layout in ("first", "last")
        if peer
    ]
    return ours + torch


class Player:
    """A contestant's process, and the line to it."""

    def __init__(self, contestant: Contestant):
        self.contestant = contestant
        settled_here = (*KERNELS, *KEEP_MEMORY, *THREADS)
        environment = {name: value for name, value in os.environ.items() if name not in settled_here}
        environment |= contestant.environment | {"PYTHONPATH": str(ROOT)}
        if contestant.threads:
            environment["NUMBA_NUM_THREADS"] = str(contestant.threads)  # may be more than there are cores
        command = [contestant.python, "-W", "ignore", "-m", "benchmarks.worker", contestant.role]
        command += ["--layout", contestant.layout] if contestant.layout else []
        command += ["--threads", str(contestant.threads)] if contestant.threads else []
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )

    def ask(self, do: str, **order) -> dict:
        """The answer to an order; a process that died answers with an error."""
        try:
            self.process.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it died, or died before
            line = ""
        if not line:
            return {"error": f"the process ended with {self.process.poll()}"}
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def hold_contest(contestants, table: str, works, numbers, rounds: int) -> Iterator[dict]:
    """The records of the chosen works, one a work: who took how long, and how far from float64 it ended."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        players = [stack.enter_context(Player(contestant)) for contestant in contestants]
        judge = stack.enter_context(Player(Contestant("float64", "float64")))
        for number in tqdm(numbers, desc=table, unit="work"):
            tqdm.write(works[number].name, file=sys.stderr)
            yield compete(players, judge, table, works[number], number, rounds, folder)


def compete(players, judge, table, work, number, rounds, folder) -> dict:
    """One work's record."""
    truth = folder / "truth.npz"
    truth.unlink(missing_ok=True)
    if work.kind not in UNJUDGED:
        answer = judge.ask("build", table=table, number=number, save=str(truth))
        if "error" in answer:
            tqdm.write(f"  float64: {answer['error']}: no errors are shown", file=sys.stderr)
    results, running = {}, []
    for player in players:
        output = folder / "output.npz"
        output.unlink(missing_ok=True)
        answer = player.ask("build", table=table, number=number, save=str(output))
        name = player.contestant.name
        if "skipped" in answer:
            continue
        if "error" in answer:
            results[name] = {"failed": answer["error"]}
            tqdm.write(f"  {name}: {answer['error']}\n{answer.get('trace', '')}", file=sys.stderr)
            continue
        scale = answer["scale"]
        results[name] = {"first": answer["first"] * scale, "scale": scale, "error": None}
        if scale == 1 and truth.exists() and output.exists():
            results[name]["error"] = compare(output, truth)
        running.append(player)
    times = {player.contestant.name: [] for player in running}
    for turn in range(rounds):
        for player in running[:: -1 if turn % 2 else 1]:
            name = player.contestant.name
            if not (player.contestant.once and times[name]):
                times[name] += player.ask("turn").get("times", [])
        racing = [times[player.contestant.name] for player in running if not player.contestant.once]
        if turn == 2 and any(max(taken, default=0) > LONG for taken in racing):
            break
    for name, taken in times.items():
        taken = [seconds * results[name]["scale"] for seconds in taken]
        if not taken:
            results[name] = {"failed": "stopped while it was timed"}
            continue
        low, middle, high = statistics.quantiles(taken, n=4, method="inclusive") if len(taken) > 1 else taken * 3
        results[name] |= {"median": middle, "low": low, "high": high, "count": len(taken)}
    for player in (*players, judge):
        player.ask("drop")
    return {
        "name": work.name, "kind": work.kind, "size": work.size, "curve": work.curve, "operations": work.operations,
        "bytes": work.bytes, "times": results,
    }  # fmt: skip


def compare(output: Path, truth: Path) -> float:
    """The largest difference over the largest value, of the worst array; of whole numbers, the share that differ."""
    errors = []
    with np.load(output) as got, np.load(truth) as wanted:
        for name in wanted.files:
            ours, exact = got[name], wanted[name]
            if ours.shape != exact.shape:
                return float("inf")
            if exact.dtype.kind != "f":
                errors.append(float(np.mean(ours != exact)) if exact.size else 0.0)
            elif exact.size:
                error = float(np.abs(ours - exact).max() / max(np.abs(exact).max(), 1e-30))
                errors.append(error if np.isfinite(error) else float("inf"))
    return max(errors, default=0.0)


def choose_whole(contestants) -> list[Contestant]:
    """Those who race with the whole network: ours on all threads, and torch."""
    return [one for one in contestants if one.role in ("ours", "torch") and one.threads != 1]


def measure_memory(contestants, works, numbers, kinds) -> dict[str, dict[str, float]]:
    """Peak memory (MiB) of fresh processes that do one work a few times and nothing else."""
    peaks: dict[str, dict[str, float]] = {}
    for number in numbers:
        work = works[number]
        if work.kind not in kinds:
            continue
        for contestant in choose_whole(contestants):
            with Player(contestant) as player:
                if "first" in player.ask("build", table="work", number=number, save=None):
                    player.ask("turn")
                    peaks.setdefault(work.name, {})[contestant.name] = player.ask("peak").get("mib")
    return peaks


def measure_stages(contestants, works, numbers, repeats: int = 3) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds of each stage of the whole inference, by work and contestant."""
    found: dict[str, dict] = {}
    for contestant in choose_whole(contestants):
        with Player(contestant) as player:
            for number in numbers:
                if works[number].kind == "inference":
                    answer = player.ask("stages", table="work", number=number, repeats=repeats)
                    if "error" in answer:
                        tqdm.write(f"stages, {contestant.name}: {answer['error']}", file=sys.stderr)
                    else:
                        found.setdefault(works[number].name, {})[contestant.name] = answer
    return found


def measure_threads(works, counts, rounds: int) -> list[dict]:
    """How the chosen works (number, label) grow with threads: a record for each count."""
    records = []
    for number, label in works:
        for count in counts:
            with Player(Contestant("minimrcnn", "ours", threads=count)) as player:
                if "first" not in player.ask("build", table="work", number=number, save=None):
                    continue
                times = [seconds for _ in range(rounds) for seconds in player.ask("turn").get("times", [])]
            if not times:
                continue
            record = {"median": statistics.median(times), "count": len(times)}
            records.append({"name": label, "curve": (f"{label}: threads", count), "times": {"minimrcnn": record}})
    return records
