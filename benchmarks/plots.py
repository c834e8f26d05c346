"""The pictures of a contest: bars of the ratio to torch, a roofline, growth curves."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.report import AVX2, OURS, best_peer, median, ratio  # noqa: E402

BLUE, PALE, ORANGE, GRAY = "#1f5fa8", "#9bbfe3", "#d9822b", "#777777"


def plot_all(results: dict, folder: Path) -> list[Path]:
    """Every picture that the results have the numbers for, as PNG files in the folder."""
    plots = {"ratios": plot_ratios, "roofline": plot_roofline, "growth": plot_growth}
    return save_figures({name: plot(results) for name, plot in plots.items()}, folder)


def save_figures(figures: dict, folder: Path) -> list[Path]:
    """Those of the figures, by name, that are not None."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, figure in figures.items():
        if figure is not None:
            made.append(folder / f"{name}.png")
            figure.savefig(made[-1], dpi=110, bbox_inches="tight")
            plt.close(figure)
    return made


def plot_ratios(results: dict):
    """Bars: how many times as fast as torch at its fastest, on a logarithmic axis."""
    records = [record for record in results["work"] if ratio(record) is not None]
    if not records:
        return None
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(records) + 1.2))
    for place, record in enumerate(records):
        for offset, name, color in ((-0.2, OURS, BLUE), (0.2, AVX2, PALE)):
            value = ratio(record, name)
            if value is not None:
                axes.barh(place + offset, value - 1, left=1, height=0.38, color=color)
        value = max(filter(None, (ratio(record), ratio(record, AVX2), 1)))
        axes.text(value * 1.05, place, f"{ratio(record):.1f}", va="center", fontsize=8)
    axes.axvline(1, color=GRAY, linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.margins(y=0.01)
    axes.set_yticks(range(len(records)), [record["name"] for record in records], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as torch at its fastest (left of 1: slower)")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in (BLUE, PALE)]
    axes.legend(handles, ["as it is", "compiled for AVX2"], fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_roofline(results: dict):
    """Operations a second over operations a byte, under the machine's own measured ceilings."""
    limits = results["ceilings"].get(OURS)
    return draw_roofline(
        results["work"], limits, lambda record: median(record, OURS), lambda record: (best_peer(record) or (0, None))[1]
    )


def draw_roofline(records: list[dict], limits: dict | None, ours, theirs):
    """A point for each work that has operations and bytes: our seconds, and torch's where there are any."""
    records = [record for record in records if record["operations"] and record["bytes"] and ours(record)]
    if not limits or not records:
        return None
    figure, axes = plt.subplots(figsize=(9, 5.5))
    points = [record["operations"] / record["bytes"] for record in records]
    edges = [min(points) / 2, limits["gflops"] / limits["gigabytes"], max(points) * 2]
    axes.plot(edges, [min(limits["gflops"], limits["gigabytes"] * x) for x in edges], color=GRAY)
    axes.text(edges[1] * 1.1, limits["gflops"] * 0.95, f"products {limits['gflops']:.0f} GFLOP/s", va="top", fontsize=8)
    start = limits["gigabytes"] * edges[0]
    axes.text(edges[0], start * 1.3, f"memory {limits['gigabytes']:.0f} GB/s", fontsize=8, rotation=30)
    labels = {}  # of the places of the points, one for all that lie together
    for number, (x, record) in enumerate(zip(points, records, strict=True), 1):
        height, peer = record["operations"] / ours(record) / 1e9, theirs(record)
        axes.plot(x, height, "o", color=BLUE)
        place = next((other for other in labels if np.abs(np.log10([x / other[0], height / other[1]])).max() < 0.06),
                     (x, height))  # fmt: skip
        labels.setdefault(place, []).append(str(number))
        if peer is not None:
            axes.plot(x, record["operations"] / peer / 1e9, "x", color=ORANGE)
    for place, numbers in labels.items():
        axes.annotate(",".join(numbers), place, textcoords="offset points", xytext=(5, 3), fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte, by the definition", ylabel="GFLOP/s")
    axes.plot([], [], "o", color=BLUE, label="minimrcnn")
    axes.plot([], [], "x", color=ORANGE, label="torch at its fastest")
    axes.legend(fontsize=8, loc="lower right")
    names = "\n".join(f"{number}  {record['name']}" for number, record in enumerate(records, 1))
    axes.text(1.02, 1, names, transform=axes.transAxes, va="top", fontsize=7)
    axes.set_title("Winograd needs fewer multiplications than the definition and may pass the roof", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_gpu(results: dict, folder: Path) -> list[Path]:
    """The pictures of `benchmarks.gpu`'s results: the kernels under the card's roofline, and growth on CPU and GPU."""

    def kernels(record, name):
        return (record.get("kernels", {}).get(name) or {}).get("median")

    def of_torch(record):
        times = [kernels(record, name) for name in record.get("kernels", {}) if name.startswith("torch")]
        return min(filter(None, times), default=None)

    roofline = draw_roofline(results["work"], results["card"], lambda record: kernels(record, "gpu"), of_torch)
    lines = [
        (BLUE, "o-", "CPU", "cpu"),
        (ORANGE, "x--", "GPU", "gpu"),
        (GRAY, ".:", "with transfers", "with transfers"),
    ]
    growth = draw_growth(results.get("growth", []), [
        (color, mark, label, lambda record, name=name: median(record, name)) for color, mark, label, name in lines
    ])  # fmt: skip
    return save_figures({"roofline_gpu": roofline, "growth_gpu": growth}, folder)


def plot_growth(results: dict):
    """How the time grows with channels, cells, RoIs, boxes and threads."""
    return draw_growth(results.get("growth", []), [
        (BLUE, "o-", "minimrcnn", lambda record: median(record, OURS)),
        (ORANGE, "x--", "torch at its fastest", lambda record: (best_peer(record) or (None, None))[1]),
    ])  # fmt: skip


def draw_growth(growth: list[dict], lines: list[tuple]):
    """A panel for each curve; lines of (color, mark, label, seconds of a record or None)."""
    curves = defaultdict(list)
    for record in growth:
        curves[record["curve"][0]].append(record)
    if not curves:
        return None
    rows = (len(curves) + 2) // 3
    figure, grid = plt.subplots(rows, 3, figsize=(11, 3.1 * rows), squeeze=False)
    for axes, (title, records) in zip(grid.flat, curves.items(), strict=False):
        records.sort(key=lambda record: record["curve"][1])
        for color, mark, label, get in lines:
            points = [(record["curve"][1], 1000 * get(record)) for record in records if get(record) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), mark, color=color, label=label, markersize=4)
        work, _, along = title.rpartition(": ")
        axes.set(title=work, xlabel=along, ylabel="ms")
        threads = along == "threads"
        if threads:
            axes.set_xticks([record["curve"][1] for record in records])
        else:
            axes.set(xscale="log", yscale="log")
        axes.title.set_fontsize(9)
        axes.set_ylim(bottom=0 if threads else None)
        axes.legend(fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    figure.tight_layout()
    return figure
