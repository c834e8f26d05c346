"""``python -m benchmarks --device cuda``: every operation on the GPU, against the CPU and against torch on the GPU.

For each work of `benchmarks.work`:

- "cpu": minimrcnn on all cores;
- "called": between two CUDA events around a call, its arrays on the device. Where the host starts kernels more slowly
  than the GPU does them, that is the host's time;
- "kernels": the same, but the GPU is kept busy until the host has started all of them: the GPU's own time, with little
  of the work in its caches. "-" where the host has to wait for the GPU in the middle of a call;
- "transfers": on the wall clock, from host arrays to host arrays; not for gradients, which a training never moves;
- "torch": torch and torchvision with CUDA, in the faster of two layouts, if they are there, but not for growth; both
  clocks as ours, in float32 as ours;
- "error": the largest difference between GPU and CPU, over the largest value; of whole numbers, the share that differ;
- "of card": the time that the card's own product rate and copy bandwidth, both measured here, would allow, over that
  of the kernels. Winograd's algorithm needs fewer multiplications than are counted, and may pass 1.

All run in one process. Products are float32: TensorFloat-32, ten bits of mantissa, is off on both sides.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import ours, report
from benchmarks.timing import Task
from benchmarks.work import GROWTH, WORK, Work, make_inputs
from minimrcnn.device import count_transfers, to_device
from minimrcnn.environment import describe_environment

ENOUGH, FEWEST, MOST = 0.06, 3, 15  # seconds and repetitions of a work on the GPU
HELD, MISSES = 3072, 3  # side of the products that keep the GPU busy; times that they may be too short
WHOLE = ("inference", "training_step", "demo_step")
ON_HOST = {"roi_align": ("rois",), "roi_pool": ("rois",), "crop_masks": ("matched",)}  # where these live
SIDE, COPIED = 8192, 2**28  # of the product that tells the card's rate; float32 of the copy that tells its bandwidth


def main(options, numbers: list[int], growing: list[int]) -> None:
    """Measure, write JSON after every work, print the table."""
    results = {"started": time.strftime("%Y-%m-%d %H:%M"), "environment": describe_environment()}
    results |= {"card": measure_card(), "work": [], "growth": []}
    peer = None if options.no_peer else find_torch()
    results["torch"] = None if peer is None else peer.torch.__version__
    print(describe_card(results), file=sys.stderr)
    write(options.json, results)
    numbers = sorted(numbers, key=lambda number: WORK[number].kind not in WHOLE)  # what matters most comes first
    tables = [("work", WORK, numbers)] + ([("growth", GROWTH, growing)] if options.growth else [])
    for table, works, chosen in tables:
        for number in tqdm(chosen, desc=table, unit="work"):
            rival = None if table == "growth" else peer
            results[table].append(measure(works[number], results["card"], rival, options.rounds))
            write(options.json, results)
    print(describe_card(results))
    print((report.markdown_table if options.markdown else report.plain_table)(make_rows(results)))
    for line in describe_crossings(results["growth"]):
        print(line)
    if options.plots:
        from benchmarks.plots import plot_gpu

        for path in plot_gpu(results, options.plots):
            print(path)


def write(path: Path | None, results: dict) -> None:
    """What was measured so far."""
    if path:
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def find_torch():
    """`benchmarks.peer`, working on the GPU; None where torch has none."""
    if not (find_spec("torch") and find_spec("torchvision")):
        return None
    from benchmarks import peer

    if not peer.torch.cuda.is_available():
        return None
    peer.torch.backends.cuda.matmul.allow_tf32 = peer.torch.backends.cudnn.allow_tf32 = False
    peer.torch.backends.cudnn.benchmark = True  # it may try its algorithms, and take the fastest
    peer.DEVICE = "cuda"
    return peer


def measure(work: Work, card: dict, peer, rounds: int) -> dict:
    """A work's record; what fails is named in it, and the others go on."""
    record = {"name": work.name, "kind": work.kind, "size": work.size, "curve": work.curve, "times": {}, "kernels": {},
              "failed": {}, "operations": work.operations, "bytes": work.bytes}  # fmt: skip
    inputs, outputs = make_inputs(work), {}
    if work.kind in ("roi_align", "roi_pool") and not work.backward:
        del inputs["gradient"]  # its way to the GPU would be counted
    layouts = [] if peer is None else ["first"] if work.kind in peer.WITHOUT_LAYOUT else ["first", "last"]
    contestants = {
        "cpu": lambda: build(work, inputs, "cpu"),
        "gpu": lambda: build(work, inputs, "cuda"),
        "with transfers": lambda: Task(lambda: there_and_back(work, inputs)),
        **{f"torch, channels {layout}": lambda layout=layout: peer.build(work, inputs, layout) for layout in layouts},
    }  # fmt: skip
    if work.backward or work.both or work.kind in WHOLE:
        del contestants["with transfers"]

    @contextmanager
    def naming_failures(name):
        try:
            yield
        except Exception as error:  # no memory, say
            record["failed"][name] = f"{type(error).__name__}: {error}"
            tqdm.write(f"  {work.name}, {name}: {record['failed'][name]}", file=sys.stderr)

    for name, make in contestants.items():
        with naming_failures(name):
            task = make()
            clock = clock_on_host if name in ("cpu", "with transfers") else clock_on_gpu
            record["times"][name], outputs[name] = clock(task, rounds)
            if clock is clock_on_gpu and work.kind not in WHOLE:
                record["kernels"][name] = clock_kernels(task, rounds)
        task = None
        with naming_failures("freeing memory"):
            free_memory(peer)
    if work.kind in WHOLE:
        with naming_failures("transfers"):
            record["transfers"] = list_transfers(work)
    elif "cpu" in outputs and "gpu" in outputs:
        with naming_failures("error"):
            record["error"] = difference(outputs["gpu"], outputs["cpu"])
    if record["kernels"].get("gpu") and (work.operations or work.bytes):
        least = max(work.operations / card["gflops"], work.bytes / card["gigabytes"]) / 1e9
        record["share"] = least / record["kernels"]["gpu"]["median"]
    return record


def build(work: Work, inputs: dict, device: str) -> Task:
    """Our task, its arrays on a device."""
    ours.DEVICE = device
    stay = ON_HOST.get(work.kind, ())
    moved = {name: value if name in stay else to_device(value, device) for name, value in inputs.items()}
    return ours.build(work, {name: value.copy() if device == "cpu" else value for name, value in moved.items()})


def there_and_back(work: Work, inputs: dict):
    task = build(work, inputs, "cuda")
    output = task.once()[1]
    return [to_device(value, "cpu") for value in (output if isinstance(output, list) else [output])]


def keep(output):
    """A copy of what the first call put out: an optimizer goes on writing into what it has handed over."""
    if isinstance(output, list):
        return [keep(value) for value in output]
    copy = getattr(output, "copy", None) or getattr(output, "clone", None)  # torch's word
    return copy() if copy else output


def clock_on_host(task: Task, rounds: int) -> tuple[dict, object]:
    """Median seconds on the wall clock, and what came out. The first call, which compiles, does not count."""
    output = keep(task.once()[1])
    return summarize([seconds for _ in range(rounds) for seconds in task.turn()]), output


def clock_on_gpu(task: Task, rounds: int) -> tuple[dict, object]:
    """Median seconds between two events, and what came out; the first two calls do not count."""
    import cupy

    output = keep(task.once()[1])
    task.once()
    first, last = cupy.cuda.Event(), cupy.cuda.Event()
    taken: list[float] = []
    while len(taken) < FEWEST or (sum(taken) < ENOUGH * rounds and len(taken) < MOST * rounds):
        arguments = () if task.before is None else (task.before(),)
        cupy.cuda.runtime.deviceSynchronize()
        first.record()
        task.run(*arguments)
        last.record()
        last.synchronize()
        taken.append(cupy.cuda.get_elapsed_time(first, last) / 1000)
    return summarize(taken), output


@cache
def make_hold() -> tuple[Callable[[], None], float]:
    """Work that keeps the GPU busy for some time, a product, and for how many seconds."""
    import cupy

    matrix = cupy.ones((HELD, HELD), np.float32)
    product = cupy.empty_like(matrix)
    hold = Task(lambda: cupy.matmul(matrix, matrix, out=product))
    return hold.run, clock_on_gpu(hold, 1)[0]["low"]


def clock_kernels(task: Task, rounds: int) -> dict | None:
    """Median seconds between two events that both wait behind other work; None if the call itself waits for the GPU.

    That other work is long enough for the host to start all of the call's kernels meanwhile.
    """
    import cupy

    (hold, each), wait = make_hold(), cupy.cuda.runtime.deviceSynchronize
    first, last = cupy.cuda.Event(), cupy.cuda.Event()
    taken: list[float] = []
    needed, misses = 0.0, 0
    while len(taken) < FEWEST or (sum(taken) < ENOUGH * rounds and len(taken) < MOST * rounds):
        arguments = () if task.before is None else (task.before(),)
        wait()
        for _ in range(1 + math.ceil(2 * needed / each)):
            hold()
        first.record()
        start = time.perf_counter()
        task.run(*arguments)
        needed = max(needed, time.perf_counter() - start)
        came_too_late = first.done
        last.record()
        last.synchronize()
        if not came_too_late:
            taken.append(cupy.cuda.get_elapsed_time(first, last) / 1000)
        elif (misses := misses + 1) > MISSES:
            return summarize(taken) if len(taken) >= FEWEST else None
    return summarize(taken)


def summarize(taken: list[float]) -> dict:
    low, middle, high = statistics.quantiles(taken, n=4, method="inclusive") if len(taken) > 1 else taken * 3
    return {"median": middle, "low": low, "high": high, "count": len(taken)}


def free_memory(peer) -> None:
    import cupy

    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    if peer is not None:
        peer.torch.cuda.empty_cache()


def list_transfers(work: Work) -> list[dict]:
    """What one run of a whole network moves between host and GPU."""
    task = build(work, {}, "cuda")
    task.once()
    with count_transfers() as transfers:
        task.once()
    counts = Counter(transfers)
    return [{"direction": t.direction, "where": t.where, "what": t.what, "bytes": t.bytes, "times": times}
            for t, times in counts.items()]  # fmt: skip


def difference(there, here) -> float | None:
    """The largest difference over the largest value; of whole numbers, the share that differ."""
    errors = []
    for a, b in zip(*(value if isinstance(value, list) else [value] for value in (there, here)), strict=True):
        if b is None:
            continue
        a = to_device(a, "cpu")
        if a.shape != b.shape:
            return float("inf")
        if b.dtype.kind != "f":
            errors.append(float(np.mean(a != b)) if b.size else 0.0)
        elif b.size:
            errors.append(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)))
    return max(errors, default=None)


def measure_card() -> dict:
    """The card's name, and the best of a few: float32 products and copies within its memory, copies to and from it."""
    import cupy

    properties, wait = cupy.cuda.runtime.getDeviceProperties(0), cupy.cuda.runtime.deviceSynchronize
    a, source = cupy.ones((SIDE, SIDE), np.float32), cupy.ones(COPIED, np.float32)
    product, target, host = cupy.empty_like(a), cupy.empty_like(source), np.ones(COPIED // 4, np.float32)
    best = {
        "product": clock_on_gpu(Task(lambda: cupy.matmul(a, a, out=product)), 1)[0]["low"],
        "copy": clock_on_gpu(Task(lambda: cupy.copyto(target, source)), 1)[0]["low"],
        "to cuda": clock_on_host(Task(lambda: (to_device(host, "cuda"), wait())), 1)[0]["low"],
        "to cpu": clock_on_host(Task(lambda: to_device(source[: host.size], "cpu")), 1)[0]["low"],
    }
    return {
        "name": properties["name"].decode(), "memory_gib": properties["totalGlobalMem"] / 2**30,
        "capability": f"{properties['major']}.{properties['minor']}",
        "driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__, "gflops": 2 * SIDE**3 / best["product"] / 1e9,
        "gigabytes": 2 * source.nbytes / best["copy"] / 1e9,
        "gigabytes to cuda": host.nbytes / best["to cuda"] / 1e9,
        "gigabytes to cpu": host.nbytes / best["to cpu"] / 1e9,
    }  # fmt: skip


def describe_card(results: dict) -> str:
    card = results["card"]
    return (
        f"{card['name']}, {card['memory_gib']:.0f} GiB, CuPy {card['cupy']}, torch {results['torch']}: "
        f"{card['gflops'] / 1000:.1f} TFLOP/s in float32, {card['gigabytes']:.0f} GB/s; "
        f"from the host {card['gigabytes to cuda']:.1f} GB/s, to it {card['gigabytes to cpu']:.1f}"
    )


def make_rows(results: dict) -> list[list[str]]:
    """The table, heading first; then a row for each point of growth."""
    rows = [["work, ms", "cpu", "called", "kernels", "transfers", "over cpu", "torch", "kernels", "its setting",
             "over torch", "of kernels", "of card", "error", "moved", "bytes"]]  # fmt: skip
    for record in results["work"] + results["growth"]:
        of_kernels = {"times": {name: found for name, found in record.get("kernels", {}).items() if found}}
        peer, peer_kernels, moved = report.best_peer(record), report.best_peer(of_kernels), record.get("transfers")
        cpu, gpu, kernels = report.median(record, "cpu"), report.median(record, "gpu"), report.median(of_kernels, "gpu")
        rows.append(
            [
                record["name"], report.format_seconds(cpu), report.format_spread(record, "gpu"),
                report.format_seconds(kernels), report.format_seconds(report.median(record, "with transfers")),
                report.format_ratio(cpu / gpu if cpu and gpu else None),
                report.format_seconds(peer[1] if peer else None),
                report.format_seconds(peer_kernels[1] if peer_kernels else None),
                peer[0].removeprefix("torch, ") if peer else "-",
                report.format_ratio(peer[1] / gpu if peer and gpu else None),
                report.format_ratio(peer_kernels[1] / kernels if peer_kernels and kernels else None),
                f"{record['share']:.0%}" if "share" in record else "-", report.format_error(record.get("error")),
                str(sum(t["times"] for t in moved)) if moved else "-",
                str(sum(t["times"] * t["bytes"] for t in moved)) if moved else "-",
            ]
        )  # fmt: skip
    return rows


def describe_crossings(growth: list[dict]) -> list[str]:
    """From which size on the GPU is faster than the CPU, on each curve of growth."""
    curves: dict[str, list[dict]] = {}
    for record in growth:
        curves.setdefault(record["curve"][0], []).append(record)
    lines = []
    for curve, records in curves.items():
        for name in ("gpu", "with transfers"):
            slower = True
            for record in sorted(records, key=lambda record: -record["curve"][1]):  # from the largest down
                cpu, gpu = report.median(record, "cpu"), report.median(record, name)
                if cpu is None or gpu is None or gpu >= cpu:
                    break
                slower, since = False, record["curve"][1]
            lines.append(f"{curve}: {name} {'not faster than the cpu' if slower else f'faster from {since:g} on'}")
    return lines


def write_table(results: Path) -> str:
    """The table of a JSON that a run left, finished or not."""
    return report.plain_table(make_rows(json.loads(results.read_text(encoding="utf-8"))))
