"""The page of a run: how far it is, its losses and average precision as curves, truth beside prediction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from minimrcnn.archive import atomic_file
from minimrcnn.chart import draw_chart, thin
from minimrcnn.training.log import smooth, smoothing_window

LOWEST_LEFT = 90  # seconds: more are told in minutes

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{again}<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-weight: 600; overflow-wrap: anywhere; line-height: 1.2; }}
figure {{ margin: 2rem 0; }}
img {{ max-width: 100%; border-radius: 6px; border: 1px solid #8884; }}
figcaption {{ margin-top: .4rem; opacity: .8; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .25rem 1.2rem .25rem 0; text-align: left; border-bottom: 1px solid #8884; font-weight: normal; }}
td {{ text-align: right; padding: .25rem 0 .25rem 1.2rem; }}
code {{ overflow-wrap: anywhere; }}
progress {{ width: 100%; }}
.side {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(25rem, 100%), 1fr)); gap: 1rem; }}
.side figure {{ margin: .5rem 0; }}
.side img, svg {{ width: 100%; box-sizing: border-box; }}
svg text {{ font: 13px system-ui, sans-serif; fill: currentColor; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    step, steps : int
        Done, and in all.
    seconds_left : float or None
        None as long as nothing is known.
    ended : str or None
        None while it goes on; then why it stopped, or an empty text when all steps are done.
    again : str
        The command that goes on with it.
    watching, evaluating : float
        Shares of the time since the start.
    """

    step: int
    steps: int
    seconds_left: float | None
    ended: str | None
    again: str
    watching: float
    evaluating: float


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Attributes
    ----------
    name : str
    step : int
        After which it was drawn.
    files : mapping of str to str
        The truth and the prediction: files relative to the page, with captions.
    """

    name: str
    step: int
    files: Mapping[str, str]


def write_run_page(
    folder: Path,
    title: str,
    progress: Progress,
    losses: Mapping[str, Sequence[float]],
    scores: Sequence[Mapping],
    best: Mapping | None,
    shown: Sequence[Shown],
    caption: str,
    refresh: int,
) -> Path:
    """Write ``index.html`` of a run; while it goes on, a browser looks again every ``refresh`` seconds."""
    parts = [*describe_progress(progress), '<div class="side">', *draw_curves(losses, scores), "</div>"]
    parts += tabulate_scores(scores, best)
    if shown:
        parts.append(f"<h2>Truth and prediction</h2><p>{escape(caption[:1].upper() + caption[1:])}.</p>")
    for picture in shown:
        figures = [
            # The step, for a browser not to show what it has seen before under the same name.
            f'<figure><img src="{quote(file)}?step={picture.step}" alt="{escape(words)}">'
            f"<figcaption>{escape(words)}</figcaption></figure>"
            for file, words in picture.files.items()
        ]
        parts.append(f'<h3>{escape(picture.name)}</h3><div class="side">{"".join(figures)}</div>')
    share = f"Of the training's time, {progress.watching:.1%} went into this page, {progress.evaluating:.1%} into AP"
    share += " on the way."
    parts.append(f"<p><small>{share}</small></p>")
    return write_page(folder, title, parts, refresh if progress.ended is None else None)


def write_page(folder: Path, title: str, parts: Sequence[str], refresh: int | None) -> Path:
    """Write ``index.html`` of parts in HTML; it appears whole or not at all, so that a browser may look at any time."""
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    html = PAGE.format(title=escape(title), again=again, body="\n".join(parts))
    with atomic_file(folder / "index.html") as file:
        file.write(html.encode(errors="backslashreplace"))  # not every file name is text
    return folder / "index.html"


def describe_progress(progress: Progress) -> list[str]:
    """How far the run is, and how one goes on with it."""
    at, now = f"{progress.step} of {progress.steps} steps", time.strftime("%H:%M:%S")
    again = f"<code>{escape(progress.again)}</code>"
    if progress.ended is None:
        left = f", {tell_time(progress.seconds_left)} left" if progress.seconds_left is not None else ""
        waits = "" if progress.step else " Before the first one kernels are compiled, a minute where they never were."
        parts = [f"<p>{at}{left}, at {now}.{waits}</p>"]
        if progress.again:
            parts.append(
                "<p><small>Ctrl-C stops after the step at hand. If the time above stands still, the run was ended from "
                f"outside. In either case this goes on: {again}</small></p>"
            )
    elif progress.ended == "":
        parts = [f"<p>All {progress.steps} steps are done, at {now} on {time.strftime('%Y-%m-%d')}.</p>"]
    else:
        parts = [f"<p>{at}: {escape(progress.ended)}</p>"]
        if progress.again:
            parts.append(f"<p>This goes on: {again}</p>")
    bar = f'<progress max="{progress.steps}" value="{progress.step}">{at}</progress>'
    return [parts[0], bar, *parts[1:]]


def draw_curves(losses: Mapping[str, Sequence[float]], scores: Sequence[Mapping]) -> list[str]:
    """Losses, and average precision from the first evaluation on."""
    charts = []
    if losses:
        curves, every = {}, np.arange(1, len(losses["total"]) + 1)
        for name, values in losses.items():
            steps, means = thin(every[: len(values)], values, logarithmic=True)
            curves[name] = steps, smooth(means)
        window = smoothing_window(len(steps)) * -(-len(every) // len(steps))
        words = f", means over {window} steps" if window > 1 else ""
        charts.append(draw_chart(curves, f"Losses in training, by step{words}", logarithmic=True))
    if scores:
        steps = np.array([row["step"] for row in scores])
        names = ("mask_ap", "mask_ap50", "box_ap") if "mask_ap" in scores[-1] else ("box_ap", "box_ap50")
        names = [name for name in names if name in scores[-1]]
        columns = {name: np.array([row.get(name, -1) for row in scores], np.float64) for name in names}
        curves = {tell_name(name): (steps, np.where(values < 0, np.nan, values)) for name, values in columns.items()}
        words, until = "Average precision on the validation pictures, by step", len(losses.get("total", ()))
        charts.append(draw_chart(curves, words, until=until))
    return charts


def tabulate_scores(scores: Sequence[Mapping], best: Mapping | None) -> list[str]:
    """AP of the last and of the best model."""
    if not scores:
        return []
    rows = {f"last evaluation, step {scores[-1]['step']}": scores[-1]}
    if best:
        rows[f"best, step {best['step']} (best.npz)"] = next((r for r in scores if r["step"] == best["step"]), best)
    names = [name for name in ("mask_ap", "mask_ap50", "mask_ap75", "box_ap") if name in scores[-1]]
    lines = ["<table>", "<tr><th></th>" + "".join(f"<td>{tell_name(name)}</td>" for name in names) + "</tr>"]
    for words, row in rows.items():
        values = [row.get(name, -1) for name in names]
        cells = "".join(f"<td>{value:.3f}</td>" if value >= 0 else "<td>-</td>" for value in values)
        lines.append(f"<tr><th>{escape(words)}</th>{cells}</tr>")
    return [*lines, "</table>"]


def tell_name(name: str) -> str:
    """``mask_ap50`` as people write it."""
    return name.replace("_", " ").replace("ap", "AP")


def tell_time(seconds: float) -> str:
    """A time as one says it."""
    if seconds < LOWEST_LEFT:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def tell_count(labels: Sequence[int]) -> str:
    return "1 object" if len(labels) == 1 else f"{len(labels)} objects"
