"""A failing example as a picture: the map and the RoI, the boxes, or the kernel, beside what was expected and got.

Grids are drawn as arrays are read, row 0 on top, with y down and x to the right. What is wrong is framed in red.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minimrcnn import reference
from minimrcnn.grader.claims import TOLERANCE
from minimrcnn.grader.report import Verdict
from minimrcnn.grader.search import Failure

RED, BLUE, GREEN, GRAY = "#D55E00", "#0072B2", "#009E73", "#6B6B6B"  # Okabe and Ito's


def draw_failure(verdict: Verdict, folder: Path) -> Path | None:
    """Write ``check-FUNCTION.png`` if a picture says something about a failure; an old one is removed."""
    path, failure = folder / f"check-{verdict.function}.png", verdict.failure
    path.unlink(missing_ok=True)
    if failure is None or failure.kind != "value" or verdict.function not in PICTURES:
        return None
    if any(isinstance(argument, np.ndarray) and argument.size == 0 for argument in failure.arguments):
        return None  # there is nothing to see in nothing
    figure = Figure(layout="constrained")
    PICTURES[verdict.function](figure, failure)
    prop = verdict.broken[0]
    width = max(40, int(figure.get_figwidth() * 12))
    figure.suptitle("\n".join(textwrap.wrap(f"{verdict.function}, {prop.name}: {prop.says}", width)), fontsize=11)
    folder.mkdir(parents=True, exist_ok=True)
    # A caption may be wider than what it stands under, which matplotlib 3.10 does not see by itself.
    seen = [*figure.get_default_bbox_extra_artists(), *(axes.xaxis.label for axes in figure.axes)]
    figure.savefig(path, dpi=110, bbox_inches="tight", bbox_extra_artists=seen)
    return path


# -------------------------------------------------------------------------------------------------------------- pieces


def panels(figure, widths: list[float], height: float):
    """Axes side by side, as wide as their grids ask for."""
    figure.set_size_inches(max(5.0, sum(widths)), height + 0.9)
    return np.atleast_1d(figure.subplots(1, len(widths), gridspec_kw={"width_ratios": widths}))


def draw_grid(axes, values, title: str, center: float = 0.0, wrong=None, scale_of=None) -> None:
    """A map (H, W) as cells with their values; the middle of cell i is drawn at i + ``center``.

    Colors run from the least to the largest value of ``scale_of``, so that grids side by side can be compared.
    """
    values = np.asarray(values, float)
    height, width = values.shape
    low = center - 0.5
    scale = values if scale_of is None else np.asarray(scale_of, float)
    axes.imshow(
        values, cmap="Blues", extent=(low, low + width, low + height, low), vmin=scale.min(initial=0), alpha=0.6,
        vmax=scale.max(initial=0) + 1e-9,
    )  # fmt: skip
    for (row, column), value in np.ndenumerate(values):
        axes.text(low + column + 0.5, low + row + 0.5, f"{value:.4g}", ha="center", va="center", fontsize=8)
        if wrong is not None and wrong[row, column]:
            axes.add_patch(Rectangle((low + column + 0.04, low + row + 0.04), 0.92, 0.92, fill=False, ec=RED, lw=2.5))
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)


def draw_box(axes, box, color, label=None, dashed=False, width=2.0) -> None:
    x1, y1, x2, y2 = (float(corner) for corner in box)
    style = "--" if dashed else "-"
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=color, lw=width, ls=style, label=label))
    axes.plot([x1, x2], [y1, y2], "o", color=color, ms=4, alpha=float(x1 == x2 and y1 == y2))  # makes room for it


def make_room(axes, x, y) -> None:
    """Widen the limits of a map, y down, for some points."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    x, y = [left + 0.3, right - 0.3, *x], [bottom - 0.3, top + 0.3, *y]
    axes.set(xlim=(min(x) - 0.3, max(x) + 0.3), ylim=(max(y) + 0.3, min(y) - 0.3))


def frame_boxes(axes, boxes, title) -> None:
    """Axes of pixels around boxes, y down, with a margin."""
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    low = boxes[:, :2].min(axis=0)
    high = np.maximum(boxes[:, 2:].max(axis=0), low + 1)
    margin = 0.08 * max(high - low)
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)


def differ(failure: Failure) -> np.ndarray:
    """Where what came is not what was expected."""
    scale = max(1.0, float(np.abs(failure.expected).max(initial=0.0)))
    return np.abs(failure.got - failure.expected) > TOLERANCE * scale


def first_wrong(failure: Failure) -> tuple[int, ...]:
    return tuple(int(place[0]) for place in np.nonzero(differ(failure)))


def grid_size(*counts: int) -> list[float]:
    """Inches for grids of so many columns."""
    return [max(1.7, 0.48 * count + 0.6) for count in counts]


# ---------------------------------------------------------------------------------------------------------- functions


def draw_bilinear(figure, failure: Failure) -> None:
    features, y, x = failure.arguments
    (channel,) = first_wrong(failure)
    (axes,) = panels(figure, grid_size(features.shape[1] + 2), 0.5 * features.shape[0] + 1.2)
    title = f"expected {failure.expected[channel]:.6g}, got {failure.got[channel]:.6g} at the cross"
    draw_grid(axes, features[:, :, channel], title)
    axes.plot([x], [y], "+", color=RED, ms=22, mew=2)
    axes.set(xticks=range(features.shape[1]), yticks=range(features.shape[0]))


def draw_roi_align(figure, failure: Failure) -> None:
    features, rois, size, scale, ratio, aligned = failure.arguments
    row = first_wrong(failure)[0]
    shift = 0.5 if aligned else 0.0  # aligned, the value of cell i sits at i + 0.5
    map_axes = draw_cut(figure, failure, shift)
    x1, y1, x2, y2 = rois[row, 1:]
    rows = np.concatenate(reference.sample_points(y1, y2, size[0], scale, ratio, aligned)) + shift
    columns = np.concatenate(reference.sample_points(x1, x2, size[1], scale, ratio, aligned)) + shift
    y, x = (points.ravel() for points in np.meshgrid(rows, columns, indexing="ij"))
    map_axes.plot(x, y, "o", color=RED, ms=5, mec="white", mew=0.8)
    make_room(map_axes, x, y)
    map_axes.set_xlabel("x in cells\nframe: the RoI; dots: where its samples should be", fontsize=9)


def draw_sent(figure, failure: Failure) -> None:
    """The map that the gradient came to, and the RoIs and samples of its picture that sent it."""
    gradient, _, rois, scale, ratio, aligned = failure.arguments
    image, _, _, channel = first_wrong(failure)
    expected, got, wrong = (part[image, :, :, channel] for part in (failure.expected, failure.got, differ(failure)))
    height, width = expected.shape
    shift = 0.5 if aligned else 0.0  # aligned, the value of cell i sits at i + 0.5
    sides = panels(figure, grid_size(width + 2, width + 2), max(0.5 * height + 1.4, 2.8))
    draw_grid(sides[0], expected, f"expected, picture {image}, channel {channel}", shift)
    draw_grid(sides[1], got, "got", shift, wrong=wrong, scale_of=expected)
    for roi in rois[rois[:, 0] == image]:
        x1, y1, x2, y2 = roi[1:]
        rows = np.concatenate(reference.sample_points(y1, y2, gradient.shape[1], scale, ratio, aligned)) + shift
        columns = np.concatenate(reference.sample_points(x1, x2, gradient.shape[2], scale, ratio, aligned)) + shift
        y, x = (points.ravel() for points in np.meshgrid(rows, columns, indexing="ij"))
        draw_box(sides[0], roi[1:] * scale, RED)
        sides[0].plot(x, y, "o", color=RED, ms=5, mec="white", mew=0.8)
        for axes in sides:  # both alike, so that they can be compared
            make_room(axes, [*x, x1 * scale, x2 * scale], [*y, y1 * scale, y2 * scale])
    sides[0].set_xlabel("x in cells\nframes: the RoIs; dots: their samples", fontsize=9)
    sides[0].set_ylabel("y in cells", fontsize=9)


def draw_roi_pool(figure, failure: Failure) -> None:
    _, rois, size, scale = failure.arguments
    axes = draw_cut(figure, failure, 0.0)
    x1, y1, x2, y2 = rois[first_wrong(failure)[0], 1:] * scale
    for rows in reference.bin_cells(y1, y2, size[0], "caffe"):
        for columns in reference.bin_cells(x1, x2, size[1], "caffe"):
            if rows and columns:
                box = columns[0] - 0.42, rows[0] - 0.42, columns[-1] + 0.42, rows[-1] + 0.42
                draw_box(axes, box, BLUE, dashed=True, width=1.5)
    axes.set_xlabel("x in cells\nframe: the RoI; dashed: the cells that its bins should have", fontsize=9)


def draw_cut(figure, failure: Failure, center: float):
    """The map with the RoI that came out wrong, what was expected of it, and what came; returns the map's axes."""
    features, rois, _, scale, *_ = failure.arguments
    row, _, _, channel = first_wrong(failure)
    _, height, width, _ = features.shape
    expected, got, wrong = (part[row, :, :, channel] for part in (failure.expected, failure.got, differ(failure)))
    widths = grid_size(width + 2, expected.shape[1], expected.shape[1])
    axes = panels(figure, widths, max(0.5 * height + 1.4, 2.8))
    image = int(rois[row, 0])
    box = rois[row, 1:] * scale
    cells = features[image, :, :, channel]
    draw_grid(axes[0], cells, f"picture {image}, channel {channel}, RoI {row}", center)
    draw_box(axes[0], box, RED)
    start = center - 0.5
    make_room(axes[0], [start, start + width, *box[::2]], [start, start + height, *box[1::2]])
    axes[0].set_ylabel("y in cells", fontsize=9)
    draw_grid(axes[1], expected, "expected", scale_of=cells)
    draw_grid(axes[2], got, "got", wrong=wrong, scale_of=cells)
    for side in axes[1:]:
        side.set(xticks=range(expected.shape[1]), yticks=range(expected.shape[0]))
    return axes[0]


def draw_overlap(figure, failure: Failure) -> None:
    i, j = first_wrong(failure)
    a, b = (boxes[place] for boxes, place in zip(failure.arguments, (i, j), strict=True))
    (axes,) = panels(figure, [5.0], 3.6)
    draw_box(axes, a, BLUE, f"a[{i}]")
    draw_box(axes, b, RED, f"b[{j}]", dashed=True)
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    if (high > low).all():
        axes.add_patch(Rectangle(low, *(high - low), color=GRAY, alpha=0.3, lw=0, label="shared"))
    frame_boxes(axes, [a, b], f"expected {failure.expected[i, j]:.6g}, got {failure.got[i, j]:.6g}")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def draw_nms(figure, failure: Failure) -> None:
    boxes, scores, threshold = failure.arguments
    sides = panels(figure, [3.6, 3.6], 3.2)
    for axes, kept, title in zip(sides, (failure.expected, failure.got), ("expected", "got"), strict=True):
        for position, box in enumerate(boxes):
            stays = position in kept
            draw_box(axes, box, GREEN if stays else GRAY, dashed=not stays, width=2.5 if stays else 1.2)
            # Each a little further down, as the boxes of an example often lie on each other.
            place = box[0] + 0.15, box[1] + (position + 0.7) * max(box[3] - box[1], 1) / (len(boxes) + 0.5)
            axes.text(
                *place, f"{position}: {scores[position]:g}", fontsize=8, color="black" if stays else GRAY, va="center"
            )
        frame_boxes(axes, boxes, f"{title}: keep {kept.tolist()}")
    sides[0].set_xlabel(f"index: score; threshold {threshold:g}", fontsize=8)
    sides[1].set_xlabel("green: kept; dashed: sent away", fontsize=8)


def draw_encoded(figure, failure: Failure) -> None:
    boxes, proposals, weights = failure.arguments
    row = first_wrong(failure)[0]
    reached = reference.decode_box(failure.got[row], proposals[row], weights)
    draw_way(figure, proposals[row], boxes[row], reached, "where these deltas lead")


def draw_decoded(figure, failure: Failure) -> None:
    _, proposals, _ = failure.arguments
    row = first_wrong(failure)[0]
    draw_way(figure, proposals[row], failure.expected[row], failure.got[row], "got")


def draw_way(figure, proposal, wanted, reached, label: str) -> None:
    (axes,) = panels(figure, [6.0], 3.6)
    draw_box(axes, proposal, GRAY, "proposal", dashed=True, width=1.5)
    draw_box(axes, wanted, GREEN, "expected", width=3.5)
    draw_box(axes, reached, RED, label, width=1.5)
    frame_boxes(axes, [proposal, wanted, reached], "")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def draw_anchors(figure, failure: Failure) -> None:
    _, _, level, image = failure.arguments
    first = first_wrong(failure)[0]
    sides = panels(figure, [3.8, 3.8], 3.8)
    for axes, anchors, title in zip(sides, (failure.expected, failure.got), ("expected", "got"), strict=True):
        frame_boxes(axes, np.concatenate([failure.expected, failure.got, [[0, 0, image[1], image[0]]]]), title)
        axes.set_xticks([image[1] // level[1] * column for column in range(level[1] + 1)])
        axes.set_yticks([image[0] // level[0] * row for row in range(level[0] + 1)])
        axes.grid(color=GRAY, lw=0.5, alpha=0.5)
        draw_box(axes, (0, 0, image[1], image[0]), GRAY, width=1)
        for position, anchor in enumerate(anchors):
            color, line = (RED, 2.5) if position == first else (BLUE, 0.8)
            draw_box(axes, anchor, color, width=line)
            axes.plot(*((anchor[:2] + anchor[2:]) / 2), ".", color=color, ms=6)
        axes.set_xlabel(f"red: anchor {first}; gray: picture and cells", fontsize=8)


def draw_conv(figure, failure: Failure) -> None:
    x, weight, *_ = failure.arguments
    image, _, _, channel = first_wrong(failure)
    expected, got, wrong = (part[image, :, :, channel] for part in (failure.expected, failure.got, differ(failure)))
    grids = [(x[image, :, :, k], f"x[{image}, :, :, {k}]") for k in range(x.shape[3])]
    grids += [(weight[:, :, k, channel], f"weight[:, :, {k}, {channel}]") for k in range(x.shape[3])]
    grids += [(expected, "expected"), (got, "got")]
    sides = panels(figure, grid_size(*(grid.shape[1] for grid, _ in grids)), 0.5 * max(3, x.shape[1]) + 0.6)
    for axes, (grid, title) in zip(sides, grids, strict=True):
        draw_grid(axes, grid, title, wrong=wrong if title == "got" else None)
        axes.set(xticks=range(grid.shape[1]), yticks=range(grid.shape[0]))


def draw_masks(figure, failure: Failure) -> None:
    logits, targets, labels = failure.arguments
    classes = logits.shape[3]
    sides = panels(figure, [2.0] * (classes + 1), 2.2)
    draw_grid(sides[0], targets[0], "targets[0]")
    for k, axes in enumerate(sides[1:]):
        mine = k == labels[0]
        draw_grid(axes, logits[0, :, :, k], f"logits[0, :, :, {k}]" + ("\nits class" if mine else ""))
        if mine:
            for spine in axes.spines.values():
                spine.set(color=GREEN, linewidth=3)
    for axes in sides:
        axes.set(xticks=[], yticks=[])


def draw_pasted(figure, failure: Failure) -> None:
    masks, boxes, _ = failure.arguments
    n = first_wrong(failure)[0]
    expected, got, wrong = (part[n] for part in (failure.expected, failure.got, differ(failure)))
    side, (height, width) = len(masks[n]), expected.shape
    sides = panels(figure, grid_size(side, width + 1, width + 1), max(0.5 * height + 1.0, 2.2))
    draw_grid(sides[0], masks[n], f"masks[{n}]")
    draw_grid(sides[1], expected, "expected", 0.5)
    draw_grid(sides[2], got, "got", 0.5, wrong=wrong, scale_of=expected)
    x1, y1, x2, y2 = boxes[n]
    cell_x, cell_y = (x2 - x1) / side, (y2 - y1) / side
    widened = x1 - cell_x, y1 - cell_y, x2 + cell_x, y2 + cell_y
    draw_box(sides[1], boxes[n], RED)
    draw_box(sides[1], widened, BLUE, dashed=True, width=1.5)
    for axes in sides[1:]:
        make_room(axes, widened[::2], widened[1::2])
    sides[0].set(xticks=[], yticks=[])
    sides[1].set_xlabel("x in pixels\nframe: the box; dashed: widened by a cell of the mask", fontsize=9)
    sides[1].set_ylabel("y in pixels", fontsize=9)


PICTURES = {
    "bilinear": draw_bilinear,
    "roi_align": draw_roi_align,
    "roi_align_gradient": draw_sent,
    "roi_pool": draw_roi_pool,
    "box_iou": draw_overlap,
    "nms": draw_nms,
    "encode_boxes": draw_encoded,
    "decode_boxes": draw_decoded,
    "make_anchors": draw_anchors,
    "mask_loss": draw_masks,
    "paste_masks": draw_pasted,
    "conv2d": draw_conv,
}
