"""``log.jsonl``: a line of JSON for each step of a run, with its losses, read again, cut, and plotted.

Lines are written by `training.trainer`. The last one may have broken off, where the program was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

import numpy as np

from minimrcnn.archive import atomic_file
from minimrcnn.chart import choose_colors
from minimrcnn.errors import DataError

LOG = "log.jsonl"
SHORT = 30  # steps: of so few each is a dot, and a single one is seen


def read_log(path: str | Path) -> list[dict]:
    """The records of a ``log.jsonl``; a last line that was cut off as the program was stopped is left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    records = []
    for row, text in enumerate(lines, 1):
        try:
            records.append(json.loads(text))
        except json.JSONDecodeError as error:
            if row < len(lines):
                raise DataError(f"{path}: row {row} is not JSON ({error}); remove the row") from error
    return records


def cut_log(path: Path, steps: int) -> None:
    """Keep what is said of the first ``steps`` steps; the steps that came later are computed again."""
    kept = [record for record in read_log(path) if record["step"] <= steps] if path.exists() else []
    with atomic_file(path) as file:
        file.writelines(f"{json.dumps(record)}\n".encode() for record in kept)


def read_times(path: Path) -> dict[str, float]:
    """``seconds_per_step`` (median) and ``seconds`` (sum) of the steps in a log."""
    seconds = [record["seconds"] for record in read_log(path)]
    return {"seconds_per_step": median(seconds or [0.0]), "seconds": sum(seconds)}


def plot_log(log: str | Path | Iterable[Mapping], output: str | Path) -> None:
    """Plot the losses of a training, in long ones each raw and smoothed, and below them the learning rate.

    Parameters
    ----------
    log : path of a ``log.jsonl``, or its records
        Records with ``step``, losses (``loss_...``) and ``learning_rate``; those without losses are passed over.
    output : path
        The picture to write; its suffix decides the format (.png, .svg, .pdf).

    Raises
    ------
    DataError
        The log holds no losses, or a row is not JSON.
    """
    from matplotlib.figure import Figure  # a Figure of its own, not pyplot's global state: nothing opens, nothing leaks

    records = read_log(log) if isinstance(log, (str, Path)) else list(log)
    records = [record for record in records if "step" in record and any(name.startswith("loss_") for name in record)]
    if not records:
        raise DataError(f"plot_log: no losses in {log if isinstance(log, (str, Path)) else 'the records'}")
    steps = np.array([record["step"] for record in records])
    terms = dict.fromkeys(name for record in records for name in record if name.startswith("loss_"))
    curves = {name.removeprefix("loss_"): _column(records, name) for name in terms}
    curves = {"total": np.nansum(list(curves.values()), axis=0), **curves}
    window = smoothing_window(len(steps))

    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    for (name, values), color in zip(curves.items(), choose_colors(len(curves)), strict=True):  # as on a run's page
        color = "black" if name == "total" else color
        positive = np.where(values > 0, values, np.nan)  # a logarithm has no place for the mask loss of no objects, 0
        thick, dots = 2.2 if name == "total" else 1.5, "o" if len(steps) <= SHORT else None
        if window > 1:
            upper.plot(steps, positive, color=color, alpha=0.18, linewidth=0.8)
        upper.plot(steps, smooth(positive), color=color, linewidth=thick, marker=dots, markersize=4, label=name)
    words = f", means over {window} steps above the single ones (faint)" if window > 1 else ""
    upper.set(yscale="log", ylabel="loss", title=f"Losses in training{words}")
    upper.legend(ncols=3, frameon=False)
    lower.plot(steps, _column(records, "learning_rate"), color="black", linewidth=1.2)
    lower.set(xlabel="step", ylabel="learning rate")
    lower.set_ylim(bottom=0)
    for axes in (upper, lower):
        axes.grid(alpha=0.25, which="major")
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_file(output) as file:
        figure.savefig(file, dpi=110, format=Path(output).suffix[1:] or "png")


def smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a window of a thirtieth of all values, cut at the ends; NaN counts as absent."""
    known = np.isfinite(values)
    window = np.ones(smoothing_window(len(values)))
    half = len(window) // 2
    sums = np.convolve(np.where(known, values, 0), window)[half : half + len(values)]
    counts = np.convolve(known, window)[half : half + len(values)]
    return np.where(counts > 0.5, sums / np.maximum(counts, 1), np.nan)


def smoothing_window(count: int) -> int:
    """How many of ``count`` values `smooth` takes the mean of: an odd number, 1 where there are fewer than 60."""
    return 2 * (count // 60) + 1


def _column(records: list[Mapping], name: str) -> np.ndarray:
    return np.array([record.get(name, np.nan) for record in records], np.float64)
