"""Boxes, masks, anchors and feature maps as pictures.

Pictures go in as (H, W, 3), uint8 or float in 0..1, and come out as uint8 arrays, ready for
``PIL.Image.fromarray(picture).save(path)``. Small ones are enlarged by a whole factor, so that lines and labels are
legible. Drawing is Pillow and NumPy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from minimrcnn.data.transforms import tight_boxes
from minimrcnn.geometry.resizing import find_nearest
from minimrcnn.spelling import printable
from minimrcnn.structures import Detections, Target

# The colors of Okabe and Ito (2008), told apart with every kind of color vision; black is kept for lines.
PALETTE = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (213, 94, 0), (204, 121, 167), (0, 114, 178), (240, 228, 66)],
    np.uint8,
)
HEAT = np.array([(0, 4, 38), (60, 20, 112), (150, 44, 104), (222, 88, 62), (250, 164, 40), (252, 255, 190)], np.float64)
MASK_OPACITY = 0.35
SMALL = 3  # heights of a line: objects no larger are not to be hidden by labels
LEAST_SIDE = 384  # pixels: pictures whose longer side is shorter are enlarged
Found = TypeVar("Found", Target, Detections)


def draw_objects(
    picture: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray | None,
    labels: np.ndarray,
    scores: np.ndarray | None = None,
    names: Sequence[str] = (),
) -> np.ndarray:
    """Lay masks, outlines, boxes and labels over a picture; the first object comes out on top.

    A class has one color while ``names`` holds no more classes than there are colors; otherwise, and where there is one
    class only (whose name then need not be said), an object has.

    Parameters
    ----------
    picture : ndarray (H, W, 3) uint8, or float in 0..1
    boxes : ndarray (G, 4)
    masks : ndarray (G, H, W) bool or uint8, or None
    labels : ndarray (G,) int, from 1
    scores : ndarray (G,), optional
    names : sequence of str
        ``names[label]``; without it labels are numbers.

    Returns
    -------
    ndarray (S H, S W, 3) uint8
        S is 1 for pictures of at least 384 pixels.
    """
    canvas, scale = enlarge(picture)
    line = max(2, round(min(canvas.shape[:2]) / 300))
    by_class = 2 < len(names) <= len(PALETTE) + 1
    numbers = np.asarray(labels, np.int64) - 1 if by_class else np.arange(len(labels))
    colors = PALETTE[numbers % len(PALETTE)]  # (G, 3)
    boxes = np.asarray(boxes, np.float64) * scale

    if masks is not None:
        for mask, color in reversed(list(zip(masks, colors, strict=True))):
            lay_mask(canvas, mask, color, scale, line)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for box, color in reversed(list(zip(boxes, colors, strict=True))):
        draw_box(draw, box, color, line)
    captions = [caption(label, None if scores is None else scores[g], names) for g, label in enumerate(labels)]
    draw_labels(draw, image.size, boxes, captions, colors)
    return np.array(image)


def draw_target(picture: np.ndarray, target: Target, names: Sequence[str] = ()) -> np.ndarray:
    """The picture with its truth laid over it; see `draw_objects`."""
    return draw_objects(picture, target.boxes, target.masks, target.labels, names=names)


def draw_detections(picture: np.ndarray, detections: Detections, names: Sequence[str] = ()) -> np.ndarray:
    """The picture with what was found laid over it; ``names`` not given are the detections' own. See `draw_objects`."""
    found = detections
    return draw_objects(picture, found.boxes, found.masks, found.labels, found.scores, names or found.names)


def draw_anchors(picture: np.ndarray, anchors: np.ndarray, matches: np.ndarray | None = None) -> np.ndarray:
    """The picture with anchors (A, 4) on it, parts outside cut off.

    With ``matches`` (A,), as `geometry.match` gives them, anchors of one object share a color, the background's (-1)
    are thin and gray beneath the others, and those that are neither (-2) are not drawn. Without, each has a color.
    """
    canvas, scale = enlarge(picture)
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    anchors = np.asarray(anchors, np.float64) * scale
    matches = np.arange(len(anchors)) if matches is None else np.asarray(matches)
    for box in anchors[matches == -1]:
        draw.rectangle([*box.round()[:2], *(box.round()[2:] - 1)], outline=(128, 128, 128))
    for box, match in zip(anchors[matches >= 0], matches[matches >= 0], strict=True):
        draw_box(draw, box, PALETTE[match % len(PALETTE)], line=2)
    return np.array(image)


def feature_map(array: np.ndarray) -> np.ndarray:
    """A map (H, W) of any numbers as a picture, from dark for the least to bright for the greatest; NaN is gray.

    One channel of a feature array is ``features[n, :, :, c]``. The lowest and the highest hundredth share the end
    colors, so that one outlier does not darken all the rest.
    """
    array = np.asarray(array, np.float64)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"feature_map: array has shape {array.shape}, wanted (H, W) with at least one cell")
    finite = np.isfinite(array)
    low, high = np.percentile(array[finite], (1, 99)) if finite.any() else (0.0, 0.0)
    level = (np.where(finite, array, low) - low).clip(0, None) / (high - low if high > low else 1.0)
    stops = np.linspace(0, 1, len(HEAT))
    picture = np.stack([np.interp(level, stops, HEAT[:, c]) for c in range(3)], axis=-1).round()  # (H, W, 3)
    picture[~finite] = 128
    return enlarge(picture.astype(np.uint8))[0]


def shrink(picture: np.ndarray, objects: Found, longest: int) -> tuple[np.ndarray, Found]:
    """The picture and the objects in it with a longer side of at most ``longest`` pixels; masks by nearest neighbor."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture, objects
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    smaller = np.array(Image.fromarray(as_bytes(picture)).resize(size[::-1], Image.Resampling.BOX))
    boxes = objects.boxes * np.float32([size[1] / width, size[0] / height] * 2)
    masks = objects.masks
    if masks is not None:
        rows, columns = (find_nearest(old, new) for old, new in zip((height, width), size, strict=True))
        masks = masks[:, rows][:, :, columns]  # (G, H, W) -> (G, h, w)
    return smaller, dataclasses.replace(objects, boxes=boxes, masks=masks)


def as_bytes(picture: np.ndarray) -> np.ndarray:
    """A picture as uint8, copied only where it is not."""
    picture = np.asarray(picture)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0:
        raise ValueError(f"show: picture has shape {picture.shape}, wanted (H, W, 3)")
    return picture if picture.dtype == np.uint8 else (picture.clip(0, 1) * 255).round().astype(np.uint8)


def enlarge(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """A uint8 copy of a picture, each pixel S x S pixels, and S."""
    picture = as_bytes(picture)
    scale = math.ceil(LEAST_SIDE / max(picture.shape[:2]))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1), scale  # (S H, S W, 3)


def lay_mask(canvas: np.ndarray, mask: np.ndarray, color: np.ndarray, scale: int, line: int) -> None:
    """Tint the canvas where the mask (H, W) is and draw the mask's outline, dark outside and colored inside."""
    left, top, right, bottom = tight_boxes(mask[None])[0].astype(np.int64)
    if right == left:
        return
    part = mask[top:bottom, left:right].astype(bool).repeat(scale, axis=0).repeat(scale, axis=1)
    region = canvas[
        top * scale : bottom * scale, left * scale : right * scale
    ]  # a view: the canvas is painted through it
    tinted = region * np.float32(1 - MASK_OPACITY) + color * np.float32(MASK_OPACITY)
    np.copyto(region, tinted.astype(np.uint8), where=part[:, :, None])
    region[part & ~erode(part, line + 1)] = color * 0.25
    inner = erode(part, 1)
    region[inner & ~erode(inner, line)] = color


def erode(mask: np.ndarray, times: int) -> np.ndarray:
    """The mask without the pixels that lie within ``times`` steps of what is outside it."""
    inner = np.pad(mask, 1)
    for _ in range(times):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return inner[1:-1, 1:-1]


def draw_box(draw: ImageDraw.ImageDraw, box: np.ndarray, color: np.ndarray, line: int) -> None:
    """A box with a thin dark rim on either side, which shows on any ground."""
    left, top, right, bottom = (int(round(edge)) for edge in box)
    if right - left < 2 or bottom - top < 2:
        return
    dark = tuple(int(c) // 4 for c in color)
    draw.rectangle([left - 1, top - 1, right, bottom], outline=dark, width=line + 2)
    draw.rectangle([left, top, right - 1, bottom - 1], outline=tuple(color.tolist()), width=line)


def caption(label: int, score: float | None, names: Sequence[str]) -> str:
    """The class, unless there is only one, and the score."""
    name = str(label) if label >= len(names) else names[label] if len(names) != 2 else ""
    return printable(f"{name} {score:.2f}".strip() if score is not None else name)


def draw_labels(
    draw: ImageDraw.ImageDraw, size: tuple[int, int], boxes: np.ndarray, captions: list[str], colors: np.ndarray
) -> None:
    """Write captions above, below or inside their boxes, where no earlier one is; in a crowd the last go without.

    Of several free places the one is taken that hides least of the small objects.
    """
    font = load_font(max(13, min(size) // 36))
    small = [tuple(box) for box in boxes if (box[2:] - box[:2]).max() < SMALL * font.size]
    taken: list[tuple[int, int, int, int]] = []
    for (left, top, right, bottom), text, color in zip(boxes, captions, colors, strict=True):
        if not text:
            continue
        text = shorten(text, lambda one: draw.textlength(one, font) + 8 <= size[0])
        width, height = int(draw.textlength(text, font)) + 8, int(font.size) + 6
        corners = ((left, top - height), (left, bottom), (left, top), (right - width, top - height))
        places = [_within(x, y, width, height, size) for x, y in corners]
        places = [place for place in places if not any(_overlap(place, other) for other in taken)]
        if not places:
            continue
        place = min(places, key=lambda place: sum(_overlap(place, other) for other in small))  # the first of equals
        taken.append(place)
        draw.rectangle([place[0], place[1], place[2] - 1, place[3] - 1], fill=tuple(color.tolist()), outline=(0, 0, 0))
        bright = color @ (0.299, 0.587, 0.114) > 110
        middle = (place[0] + width / 2, place[1] + height / 2)
        draw.text(middle, text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font, anchor="mm")


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's DejaVu Sans, which has the letters of most alphabets; Pillow's own has no umlaut."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """The text, its middle left out as far as it has to be to fit."""
    kept, short = len(text), text
    while not fits(short) and kept > 2:
        kept -= 1
        short = f"{text[: kept - kept // 2]}..{text[len(text) - kept // 2 :]}"
    return short


def _within(x: float, y: float, width: int, height: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The rectangle moved into the picture."""
    left, top = max(0, min(int(x), size[0] - width)), max(0, min(int(y), size[1] - height))
    return left, top, left + width, top + height


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], gap: int = 12) -> np.ndarray:
    """Pictures in rows and columns on white, as truth beside prediction.

    Parameters
    ----------
    rows : sequence of rows of (h, w, 3) uint8 pictures, of any sizes
    gap : int
        Pixels between pictures.
    """
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise ValueError("contact_sheet: no pictures, wanted at least one")
    heights = [max((picture.shape[0] for picture in row), default=0) for row in rows]
    widths = [max(row[c].shape[1] for row in rows if c < len(row)) for c in range(columns)]
    sheet = Image.new("RGB", (sum(widths) + gap * (columns + 1), sum(heights) + gap * (len(rows) + 1)), "white")
    lefts = [gap + sum(widths[:c]) + gap * c for c in range(columns)]
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for picture, left, width in zip(row, lefts, widths, strict=False):  # a row may end early
            sheet.paste(Image.fromarray(picture), (left + (width - picture.shape[1]) // 2, top))
        top += height + gap
    return np.array(sheet)
