"""A data set in one picture: photos with what was marked in them, and below them the statistics as plots."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from minimrcnn.config import Config
from minimrcnn.data.statistics import Statistics, octaves, ratio_bins
from minimrcnn.models.coverage import FAIR, resized_boxes
from minimrcnn.models.prepare import resize_target
from minimrcnn.show import LEAST_SIDE, PALETTE, draw_target, load_font, shorten
from minimrcnn.spelling import printable

WIDTH, GAP = 1900, 12  # pixels
HIGHEST = 520  # a row of photos; the lowest is what show does not enlarge
NARROWEST = 0.4  # width over height: there has to be a place for the line below a photo
MOST_CLASSES = 12  # bars in the plot
LONGEST_NAME = 24  # letters of a class beside its bar
INK = "#333333"


def draw_overview(dataset, found: Statistics, ious: np.ndarray, config: Config, photos: int = 12) -> np.ndarray:
    """The sheet of photos above the plots.

    Parameters
    ----------
    dataset : object
        With ``len(dataset)``, ``dataset[i]``, ``paths`` and ``class_names``.
    found : Statistics
    ious : ndarray (G,)
        See `minimrcnn.models.coverage.best_ious`.
    config : Config
        Whose anchors are shown.
    photos : int
        Most photos on the sheet, chosen evenly over the data set.

    Returns
    -------
    ndarray (H, W, 3) uint8
    """
    boxes, _ = resized_boxes(dataset.annotations(), config)
    sizes = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))  # (G,)
    return np.concatenate([draw_photos(dataset, photos), draw_plots(found, sizes, ious, config)])


def draw_photos(dataset, photos: int) -> np.ndarray:
    """Photos with boxes, masks and names, in rows of one height, each with a line below that says which it is."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(photos, len(dataset))).round().astype(int)).tolist()
    sizes = dataset.annotations()["images"]
    shapes = [max(sizes[index]["width"] / sizes[index]["height"], NARROWEST) for index in chosen]  # width over height
    rows = [np.full((GAP, WIDTH, 3), 255, np.uint8)]
    while chosen:
        heights = [(WIDTH - (count + 1) * GAP) / sum(shapes[:count]) for count in range(1, len(chosen) + 1)]
        count = max(1, sum(height >= LEAST_SIDE for height in heights))  # one more in the row makes it lower
        height = max(int(min(heights[count - 1], HIGHEST)), 1)
        cells = [draw_photo(dataset, index, height) for index in chosen[:count]]
        del chosen[:count], shapes[:count]
        rows.append(join_cells(cells))
    return np.concatenate(rows)


def draw_photo(dataset, index: int, height: int) -> np.ndarray:
    """One photo of the sheet, ``height`` pixels high without its line."""
    picture, target = dataset[index]
    size = height, max(1, int(height * picture.shape[1] / picture.shape[0]))
    small = np.array(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))
    small = draw_target(small, resize_target(target, size), dataset.class_names)
    count = len(target.labels)
    return add_caption(small, dataset.paths[index].name, f"{count} object{'' if count == 1 else 's'}")


def join_cells(cells: list[np.ndarray]) -> np.ndarray:
    """Pictures side by side with gaps, on white; what is too wide is cut off."""
    row = np.full((max(cell.shape[0] for cell in cells) + GAP, WIDTH, 3), 255, np.uint8)
    left = GAP
    for cell in cells:
        part = cell[:, : max(WIDTH - left, 0)]
        row[: part.shape[0], left : left + part.shape[1]] = part
        left += cell.shape[1] + GAP
    return row


def add_caption(picture: np.ndarray, name: str, words: str) -> np.ndarray:
    """The picture with a line of text below it; a long name loses its middle."""
    font = load_font(14)
    height, width = picture.shape[:2]
    image = Image.new("RGB", (width, height + 22), "white")
    image.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(image)
    name = shorten(printable(name), lambda one: draw.textlength(f"{one}: {words}", font) <= width - 8)
    draw.text((width / 2, height + 11), f"{name}: {words}", fill=(60, 60, 60), font=font, anchor="mm")
    return np.array(image)


def draw_plots(found: Statistics, sizes: np.ndarray, ious: np.ndarray, config: Config) -> np.ndarray:
    """Classes, objects a photo, sizes as the model sees them, forms, and what the anchors cover."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot: nothing opens, nothing leaks
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 100, 8), dpi=100, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
    axes = figure.subplots(2, 3)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(colors=INK)
    plot_classes(axes[0, 0], found)
    plot_per_photo(axes[0, 1], found)
    plot_photo_sizes(axes[0, 2], found, config)
    if len(found.sizes):
        plot_sizes(axes[1, 0], sizes, config)
        plot_ratios(axes[1, 1], found, config)
        plot_coverage(axes[1, 2], ious, config)
    else:
        for one in axes[1]:
            one.set_axis_off()
        axes[1, 1].text(0.5, 0.5, "no objects", ha="center", va="center", color=INK)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]


def shade(number: int) -> tuple[float, ...]:
    """A color of the palette for matplotlib."""
    return tuple((PALETTE[number % len(PALETTE)] / 255).tolist())


def plot_classes(axes, found: Statistics) -> None:
    names = list(found.objects_of)[:MOST_CLASSES]
    counts = [found.objects_of[name] for name in names]
    words = [shorten(printable(name), lambda one: len(one) <= LONGEST_NAME) for name in names]
    places = np.arange(len(names))
    axes.barh(places, counts, color=shade(5), height=0.7)
    axes.set_yticks(places, words, parse_math=False)  # $ is a letter
    axes.set_ylim(max(len(names), 5) - 0.5, -0.5)  # one class alone is not to fill the plot
    axes.set_xlim(0, 1.25 * max([*counts, 1]))
    for place, count, name in zip(places, counts, names, strict=True):
        axes.text(count, place, f" {count} in {found.photos_of[name]}", va="center", color=INK, fontsize=9)
    rest = len(found.objects_of) - len(names)
    axes.set_title("objects of each class, and photos they are in" + (f"; {rest} classes more" if rest else ""))


def plot_per_photo(axes, found: Statistics) -> None:
    most = int(found.per_photo.max(initial=0))
    step = max(1, -(-most // 30))
    axes.hist(found.per_photo, np.arange(0, most + step + 1, step) - 0.5, color=shade(1), edgecolor="white")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="objects", ylabel="photos", title="objects in a photo")


def plot_photo_sizes(axes, found: Statistics, config: Config) -> None:
    sizes, counts = np.unique(found.photo_sizes, axis=0, return_counts=True)  # (S, 2)
    axes.scatter(sizes[:, 1], sizes[:, 0], s=20 + 200 * counts / max(counts.sum(), 1), color=shade(2), alpha=0.6)
    axes.set_xlim(0, 1.15 * max(found.photo_sizes[:, 1].max(initial=1), 1))
    axes.set_ylim(0, 1.15 * max(found.photo_sizes[:, 0].max(initial=1), 1))
    resized = "not resized" if config.min_size is None else f"resized to a shorter side of {config.min_size}"
    axes.set(xlabel="width", ylabel="height", title=f"photos in pixels; {resized}")


def plot_sizes(axes, sizes: np.ndarray, config: Config) -> None:
    edges = octaves(sizes)[0]
    fine = 2.0 ** np.arange(np.log2(edges[0]), np.log2(edges[-1]) + 0.01, 0.25)
    axes.hist(sizes, fine, color=shade(0), edgecolor="white")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    for size in config.anchor_sizes:
        axes.axvline(size, color="black", linestyle=":", linewidth=1.2)
    resized = "" if config.min_size is None else " of the resized photo"
    axes.set(
        xlabel=f"side of a square as large as the box, pixels{resized}", ylabel="objects", title="size; dotted: anchors"
    )


def plot_ratios(axes, found: Statistics, config: Config) -> None:
    edges, counts = ratio_bins(found.ratios)
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=shade(4), edgecolor="white")
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["1:4", "1:2", "1:1", "2:1", "4:1"])
    for ratio in config.aspect_ratios:
        axes.axvline(ratio, color="black", linestyle=":", linewidth=1.2)
    axes.set(xlabel="height : width of the box", ylabel="objects", title="form; dotted: anchors")


def plot_coverage(axes, ious: np.ndarray, config: Config) -> None:
    counts, edges, patches = axes.hist(ious, np.arange(0, 1.01, 0.05), edgecolor="white")
    for patch, left in zip(patches, edges, strict=False):
        patch.set_facecolor(shade(3 if left + 0.01 < FAIR else 2))
    for threshold in (config.rpn_bg_iou_thresh, config.rpn_fg_iou_thresh):
        words = f"{float((ious < threshold).mean()):.0%} below {threshold} "
        axes.axvline(threshold, color="black", linestyle=":", linewidth=1.2)
        axes.text(threshold, 1.0, words, ha="right", va="top", transform=axes.get_xaxis_transform())
    axes.set_ylim(0, 1.12 * max(counts.max(), 1))
    axes.set(
        xlabel="IoU of an object with its best anchor",
        ylabel="objects",
        title=f"what anchors cover: {float((ious < FAIR).mean()):.0%} of the objects below {FAIR}",
    )
