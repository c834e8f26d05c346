"""``python -m benchmarks``: every operation of minimrcnn against its textbook, and against torch where it is there."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import contest, report
from benchmarks.work import GROWTH, WORK
from minimrcnn.cli import leave_output
from minimrcnn.device import to_device

EXAMPLE = """example:
  python -m benchmarks --only roi_align nms --rounds 5
  python -m benchmarks --peer peer/bin/python --json figures.json --plots figures
  python -m benchmarks --json new.json --compare figures.json
  python -m benchmarks --device cuda --growth --rounds 2 --json gpu.json
"""
THREADED = ("conv 3x3 256 at 50x68", "conv 3x3 64 at 200x272", "roi_align 1000 x 7x7 x 256 clustered")
STEPS = ("inference", "training_step")  # whose peak memory is measured


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only works whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="print the names of the works and stop")
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contestant (default 7)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: every work on the GPU against CPU and torch"
    )
    parser.add_argument("--threads", type=int, help="of everybody; by default each takes its own number")
    parser.add_argument(
        "--peer", metavar="PYTHON", help="an interpreter with torch and torchvision; by default this one"
    )
    parser.add_argument("--no-peer", action="store_true", help="leave torch out")
    parser.add_argument("--no-textbook", action="store_true", help="leave its loops out: half of the time of a run")
    parser.add_argument(
        "--growth", action="store_true", help="also how the time grows with channels, RoIs, threads ..."
    )
    parser.add_argument("--whole", action="store_true", help="also the stages and the peak memory of the whole network")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help="write ratios.png, roofline.png, growth.png; of a GPU roofline_gpu.png, growth_gpu.png",
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="show what moved since that run")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or (options.threads is not None and options.threads < 1):
        parser.error(f"--rounds {options.rounds}, --threads {options.threads}: wanted at least 1")
    return options, parser


def find_peer(options) -> str | None:
    """The interpreter that has torch and torchvision, if there is one."""
    if options.no_peer:
        return None
    python = options.peer or sys.executable
    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", "import torch, torchvision"], capture_output=True, text=True
        )
    except OSError as error:
        sys.exit(f"--peer {python}: {error.strerror}; wanted a Python interpreter with torch and torchvision")
    if done.returncode == 0:
        return python
    if options.peer:
        sys.exit(f"--peer {python}: {done.stderr.strip().splitlines()[-1]}; wanted one with torch and torchvision")
    print("torch and torchvision are not installed here: no peer (--peer names another interpreter)", file=sys.stderr)
    return None


def choose(works, texts) -> list[int]:
    return [n for n, work in enumerate(works) if not texts or any(text in work.name for text in texts)]


def main(arguments=None) -> None:
    options, parser = parse(arguments)
    numbers, growing = choose(WORK, options.only), choose(GROWTH, options.only)
    if options.list:
        print("\n".join(WORK[number].name for number in numbers))
        return
    if not numbers:
        parser.error(f"--only {' '.join(options.only)}: no work has such a name; --list shows them")
    old = read_results(options.compare) if options.compare else None
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: the folder {options.json.parent} is not there")
    if options.device == "cuda":
        from benchmarks import gpu

        try:
            to_device(np.zeros(1, np.float32), "cuda")
        except RuntimeError as error:
            sys.exit(f"--device cuda: {error}")
        gpu.main(options, numbers, growing)
        return
    contestants = contest.make_contestants(find_peer(options), options.threads)
    if options.no_textbook:
        contestants = [contestant for contestant in contestants if contestant.role != "reference"]
    results = {"started": time.strftime("%Y-%m-%d %H:%M"), "rounds": options.rounds, "contestants": {}, "ceilings": {}}
    for contestant in contestants:
        with contest.Player(contestant) as player:
            results["contestants"][contestant.name] = player.ask("describe")
            if contestant.name == report.OURS:
                results["ceilings"][contestant.name] = player.ask("ceilings")
    failed = [name for name, said in results["contestants"].items() if "error" in said]
    if report.OURS in failed:
        sys.exit(f"minimrcnn does not run: {results['contestants'][report.OURS]['error']}")
    contestants = [contestant for contestant in contestants if contestant.name not in failed]
    results["ceilings"] = {name: limits for name, limits in results["ceilings"].items() if "error" not in limits}
    results["work"] = []
    for record in contest.hold_contest(contestants, "work", WORK, numbers, options.rounds):
        results["work"].append(record)
        write(options.json, results)  # a run of an hour that is stopped has not been for nothing
    if options.growth:
        racing = [c for c in contestants if c.name == report.OURS or c.role == "torch"]
        results["growth"] = list(contest.hold_contest(racing, "growth", GROWTH, growing, options.rounds))
        labels = [(n, WORK[n].name) for n in numbers if WORK[n].name in THREADED]
        counts = sorted({1, 2, 3, os.cpu_count() or 1})
        results["growth"] += contest.measure_threads(labels, counts, options.rounds)
    if options.whole:
        results["stages"] = contest.measure_stages(contestants, WORK, numbers)
        write(options.json, results)
        results["memory"] = contest.measure_memory(contestants, WORK, numbers, STEPS)
    for contestant in contestants:  # once more: did the machine stay as it was?
        if contestant.name == report.OURS:
            with contest.Player(contestant) as player:
                results["ceilings after"] = {contestant.name: player.ask("ceilings")}
    write(options.json, results)
    show(results, old, report.markdown_table if options.markdown else report.plain_table)
    if options.plots:
        from benchmarks.plots import plot_all

        for path in plot_all(results, options.plots):
            print(path)


def write(path: Path | None, results: dict) -> None:
    """Keep what there is, as soon as there is something."""
    if path:
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")


def show(results: dict, old: dict | None, table) -> None:
    """Print what was measured, the machine first."""
    describe(results)
    print(table(report.make_rows(results)))
    for work, stages in results.get("stages", {}).items():
        print(f"\n{work}\n\n{table(report.stage_rows(stages))}")
    if results.get("memory"):
        print("\n" + table(report.memory_rows(results["memory"])))
    if old is not None:
        print("\n" + table(report.compare_results(results, old)))


def describe(results: dict) -> None:
    ours = results["contestants"][report.OURS]
    targets = {name: said["target"] for name, said in results["contestants"].items() if said.get("target")}
    machine = ours["machine"]
    print(f"{machine['processor']}, {machine['cores']} cores, {ours['threads']} threads; {ours['versions']}")
    print("compiled for: " + "; ".join(f"{name}: {target}" for name, target in targets.items()))
    for when in ("ceilings", "ceilings after"):
        for name, limits in results.get(when, {}).items():
            if "error" not in limits:
                print(f"{when}, {name}: {limits['gflops']:.0f} GFLOP/s, {limits['gigabytes']:.1f} GB/s")
    for name, said in results["contestants"].items():
        if name.startswith("torch"):
            print(f"{name}: {said.get('versions')}, {said.get('threads')} threads, {said.get('kernels')}")
    print()


def read_results(path: Path) -> dict:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        results["work"]
    except OSError as error:
        sys.exit(f"--compare {path}: {error.strerror}")
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        sys.exit(f"--compare {path}: not the JSON that --json writes")
    return results


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        sys.exit(leave_output())
    except KeyboardInterrupt:
        sys.exit(130)
