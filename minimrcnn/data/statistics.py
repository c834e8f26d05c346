"""What decides a training, counted before it: objects a class and a photo, their sizes and forms; in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimrcnn.data.rows import learned_from
from minimrcnn.spelling import printable

BAR = 40  # characters of the longest bar


@dataclass(frozen=True, eq=False)
class Statistics:
    """N photos, G objects (crowd regions are counted apart), by classes.

    Attributes
    ----------
    objects_of, photos_of : dict of str to int
        Of every class: its objects, and the photos with one of them; most objects first.
    per_photo : ndarray (N,) int64
        Objects.
    photo_sizes : ndarray (N, 2) int64
        Height and width in pixels.
    sizes : ndarray (G,) float64
        Side of a square as large as the box, in pixels of the photo.
    ratios : ndarray (G,) float64
        Height over width of the box.
    crowds : int
        Regions of many objects, which are not learned from.
    """

    objects_of: dict[str, int]
    photos_of: dict[str, int]
    per_photo: np.ndarray
    photo_sizes: np.ndarray
    sizes: np.ndarray
    ratios: np.ndarray
    crowds: int


def measure(dataset) -> Statistics:
    """Count what is in a data set; no picture is read.

    Parameters
    ----------
    dataset : object
        With ``annotations()``, ``class_names`` and ``category_ids``.
    """
    document = dataset.annotations()
    rows = learned_from(document["annotations"])
    name_of = dict(zip(dataset.category_ids[1:], dataset.class_names[1:], strict=True))
    place_of = {image["id"]: place for place, image in enumerate(document["images"])}
    objects_of, photos_of = {name: 0 for name in name_of.values()}, {name: set() for name in name_of.values()}
    for row in rows:
        objects_of[name_of[row["category_id"]]] += 1
        photos_of[name_of[row["category_id"]]].add(row["image_id"])
    order = sorted(objects_of, key=objects_of.get, reverse=True)
    lengths = np.array([row["bbox"][2:] for row in rows], np.float64).reshape(-1, 2)  # (G, 2) width, height
    places = np.array([place_of[row["image_id"]] for row in rows], np.int64)
    return Statistics(
        {name: objects_of[name] for name in order},
        {name: len(photos_of[name]) for name in order},
        np.bincount(places, minlength=len(place_of)),
        np.array([[image["height"], image["width"]] for image in document["images"]], np.int64).reshape(-1, 2),
        np.sqrt(lengths.prod(axis=1)),
        lengths[:, 1] / lengths[:, 0],
        sum(bool(row.get("iscrowd")) for row in document["annotations"]),
    )


def describe_statistics(found: Statistics) -> str:
    """The statistics as text for a terminal."""
    lines = [f"photos      {len(found.per_photo)}, {_range(found.photo_sizes[:, 1])} wide, ", "objects     "]
    lines[0] += f"{_range(found.photo_sizes[:, 0])} high, {int((found.per_photo == 0).sum())} without an object"
    lines[1] += f"{len(found.sizes)}, {_range(found.per_photo)} a photo, {_middle(found.per_photo)} in the middle one"
    if found.crowds:
        lines[1] += f"; and {found.crowds} crowd regions, which are not learned from"
    names = list(found.objects_of)
    shown = [printable(name) for name in names]
    width = max([len(name) for name in shown] + [10])
    lines += ["", f"{'class':<{width}}  objects   photos"]
    lines += [
        f"{word:<{width}}  {found.objects_of[name]:7d}  {found.photos_of[name]:7d}"
        for word, name in zip(shown, names, strict=True)
    ]
    if len(found.sizes):
        lines += ["", "size in pixels (side of a square as large as the box)"]
        lines += bars(*octaves(found.sizes), "{:g} to {:g}")
        lines += ["", "height over width"]
        lines += bars(*ratio_bins(found.ratios), "{:.2f} to {:.2f}")
    return "\n".join(lines)


def octaves(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges at powers of 2 around all sizes, (B + 1,), and how many lie between them, (B,)."""
    low, high = np.floor(np.log2(sizes.min())), np.floor(np.log2(sizes.max())) + 1
    edges = 2.0 ** np.arange(low, high + 1)
    return edges, np.histogram(sizes, edges)[0]


def ratio_bins(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges at half octaves from 1:4 to 4:1, what is beyond in the outer bins; and the counts between them."""
    edges = 2.0 ** np.arange(-2, 2.25, 0.5)
    return edges, np.histogram(ratios.clip(edges[0], edges[-1]), edges)[0]


def bars(edges: np.ndarray, counts: np.ndarray, form: str) -> list[str]:
    """A line for every bin: from where to where, a bar, the count."""
    names = [form.format(low, high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    width, most = max(map(len, names)), max(counts.max(), 1)
    return [
        f"  {name:>{width}}  {'#' * int(np.ceil(BAR * count / most)):<{BAR}} {count}"
        for name, count in zip(names, counts.tolist(), strict=True)
    ]


def _range(values: np.ndarray) -> str:
    if not len(values):
        return "0"
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _middle(values: np.ndarray) -> str:
    return f"{np.median(values):g}" if len(values) else "0"
