"""Arrays as small pictures that stand within the page: data URIs of PNG and JPEG.

Heat maps have a palette of 256 colors, one byte a cell, and are enlarged by the browser, so a map of any size costs
little; large ones are reduced first. Everything is reduced to what a screen can show.
"""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from minimrcnn.show import HEAT, erode

LONGEST = 1280  # pixels: the longer side of the photo on the page
LOSSLESS = 512  # up to this side the photo is not compressed with losses: its pixels can be seen one by one
MOST_CELLS = 256  # the longer side of a heat map
SOFTEST = 160  # the longer side of a pasted mask, before the threshold: it is smooth
PALETTE = np.stack(
    [np.interp(np.linspace(0, 1, 256), np.linspace(0, 1, len(HEAT)), HEAT[:, c]) for c in range(3)], axis=1
).round().astype(np.uint8)  # (256, 3)  # fmt: skip
OPACITY = (np.linspace(0, 1, 256) ** 0.6 * 225).astype(np.uint8)  # of a heat map over the photo, by its value


def data_uri(image: Image.Image, kind: str = "PNG", **options) -> str:
    """A Pillow image as text that stands where an address would."""
    file = io.BytesIO()
    image.save(file, kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def photo_uri(picture: np.ndarray) -> tuple[str, float]:
    """The photo (H, W, 3), and by what factor it was scaled down."""
    if picture.dtype != np.uint8:
        picture = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    image, longer = Image.fromarray(picture), max(picture.shape[:2])
    scale = min(LONGEST / longer, 1.0)
    if scale < 1:
        image = image.resize(scaled(picture.shape[:2], scale)[::-1], Image.Resampling.LANCZOS)
    if longer <= LOSSLESS:
        return data_uri(image), scale
    return data_uri(image, "JPEG", quality=85), scale


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) scaled, at least one pixel each."""
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def block_side(size: tuple[int, int], most: int = MOST_CELLS) -> int:
    """Cells on a side of the blocks that a map of (height, width) is reduced to."""
    return -(-max(size) // most)


def heat_uri(values: np.ndarray, low: float, high: float, over: bool = False, most: int = MOST_CELLS) -> str:
    """A map (H, W) in the colors of heat: ``low`` and less dark, ``high`` and more bright.

    With ``over`` what is low is transparent, to lie over the photo. A map of more than ``most`` cells on a side is
    reduced, each block to its largest value.
    """
    values = np.nan_to_num(np.asarray(values, np.float64), nan=low, posinf=high, neginf=low)
    step = block_side(values.shape, most)
    if step > 1:
        down, right = (-side % step for side in values.shape)
        blocks = np.pad(values, ((0, down), (0, right)), mode="edge")
        values = blocks.reshape(blocks.shape[0] // step, step, blocks.shape[1] // step, step).max(axis=(1, 3))
    level = ((values - low) / (high - low if high > low else 1.0)).clip(0, 1)
    image = Image.fromarray((level * 255).round().astype(np.uint8), "P")
    image.putpalette(PALETTE.tobytes())
    return data_uri(image, transparency=OPACITY.tobytes()) if over else data_uri(image)


def mask_uri(mask: np.ndarray, color, line: int) -> str:
    """A mask (H, W) bool as a tint with an outline of ``line`` pixels, transparent elsewhere."""
    levels = mask.astype(np.uint8)
    levels[mask & ~erode(mask, line)] = 2
    image = Image.fromarray(levels, "P")
    image.putpalette(bytes(3) + bytes(color) * 2)
    return data_uri(image, transparency=bytes([0, 110, 255]))
