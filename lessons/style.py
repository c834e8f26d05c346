"""How the lessons look: one set of colors, maps drawn with their values, and a folder for the figures.

Colors are Okabe and Ito's, which color-blind readers can tell apart; a second mark (a dash, a shape, a letter) always
says the same as the color. Grids are drawn as arrays are read: row 0 on top, x to the right, y down. The value of cell
i sits in the middle of the cell; ``centers=0.5`` draws it at i + 0.5 (a cell is a pixel with a size), ``centers=0`` at
i (a cell is a point).

Figures go to ``lessons/drawn/``, or to the folder that ``MINIMRCNN_FIGURES`` names in the environment. What the READMEs
show is in ``lessons/figures/``, copied from there: no lesson that is run changes what the repository keeps.
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib

if matplotlib.get_backend().lower() not in ("inline", "module://matplotlib_inline.backend_inline"):
    matplotlib.use("Agg")  # figures go to files; an editor's cells show them inline

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, Rectangle

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
GRAY = "#6B6B6B"
COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
HEAT = "cividis"  # a scale from low to high that survives gray print
SIGNED = "PuOr"  # around zero
LESSONS = Path(__file__).parent
FIGURES = Path(os.environ.get("MINIMRCNN_FIGURES") or LESSONS / "drawn")

plt.rcParams.update({
    "figure.dpi": 110, "savefig.dpi": 130, "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "figure.constrained_layout.use": True,
})  # fmt: skip


def save(figure, name: str) -> Path:
    """Write ``name.png`` into the folder of the figures and say so; the figure stays open for an editor to show."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / f"{name}.png"
    figure.savefig(path)
    print(f"  -> {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    if matplotlib.get_backend().lower() == "agg":
        plt.close(figure)
    return path


def section(title: str) -> None:
    """A headline in what the lesson prints."""
    print(f"\n{title}\n{'-' * len(title)}")


def agree(what: str, found, expected, tolerance: float = 1e-6) -> None:
    """Print a number the lesson speaks of, and insist on it."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, the lesson says {expected.shape}"
    worst = np.abs(found - expected).max(initial=0.0)
    assert worst <= tolerance, f"{what}: found {found}, the lesson says {expected} (off by {worst:g})"
    print(f"{what}: {np.array2string(found, precision=6, suppress_small=True)}")


def draw_grid(axes, values, centers: float = 0.5, text: bool = True, digits: int = 2, heat: str = HEAT, **limits):
    """A map (H, W) as colored cells with their values; axes in cells. Limits: vmin, vmax. Returns the image."""
    values = np.asarray(values)
    height, width = values.shape
    low, high = centers - 0.5, centers - 0.5
    image = axes.imshow(values, cmap=heat, extent=(low, low + width, high + height, high), alpha=0.85, **limits)
    if text:
        for row in range(height):
            for column in range(width):
                shade = image.norm(values[row, column])
                axes.text(
                    low + column + 0.5, high + row + 0.5, f"{values[row, column]:.{digits}f}", ha="center", va="center",
                    fontsize=8, color="white" if shade < 0.5 and heat == HEAT else "black",
                )  # fmt: skip
    axes.set(xlabel="x", ylabel="y", xlim=(low, low + width), ylim=(high + height, high))
    return image


def draw_box(axes, box, color=RED, label: str | None = None, dashed: bool = False, width: float = 2.0) -> None:
    """A box x1, y1, x2, y2 in the grid's coordinates."""
    x1, y1, x2, y2 = (float(side) for side in box)
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width, label=label,
                  linestyle="--" if dashed else "-")
    )  # fmt: skip


def draw_bins(axes, box, rows: int, columns: int, color=RED) -> None:
    """The lines that cut a box into bins."""
    x1, y1, x2, y2 = (float(side) for side in box)
    for k in range(1, rows):
        y = y1 + (y2 - y1) * k / rows
        axes.plot([x1, x2], [y, y], color=color, linewidth=1, linestyle=":")
    for k in range(1, columns):
        x = x1 + (x2 - x1) * k / columns
        axes.plot([x, x], [y1, y2], color=color, linewidth=1, linestyle=":")


def draw_points(axes, points, color=ORANGE, marker: str = "o", label: str | None = None, size: float = 36) -> None:
    """Points (P, 2) as (y, x), the order in which arrays are indexed."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    axes.scatter(points[:, 1], points[:, 0], s=size, c=color, marker=marker, edgecolors="black", linewidths=0.7,
                 zorder=3, label=label)  # fmt: skip


def draw_arrow(axes, start, end, color=BLACK) -> None:
    """An arrow between two points (y, x)."""
    axes.add_patch(
        FancyArrowPatch((start[1], start[0]), (end[1], end[0]), arrowstyle="-|>", mutation_scale=10, color=color,
                        shrinkA=0, shrinkB=2, zorder=2)
    )  # fmt: skip


def show_picture(axes, picture, title: str = "") -> None:
    """A picture (H, W, 3) or map (H, W) without axes."""
    axes.imshow(picture, cmap=HEAT)
    axes.set_axis_off()
    if title:
        axes.set_title(title)
