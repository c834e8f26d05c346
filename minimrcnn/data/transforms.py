"""Changes to a picture and its Target, drawn at random: what makes fifty pictures last for a thousand steps.

A transform is a callable ``(picture, target, generator) -> (picture, target)``; the pure functions that do the work
stand above the classes that draw their arguments. Pictures are (H, W, 3), uint8 or float32 in 0..1. Nothing is changed
in place, what comes out is C-contiguous, and everything is NumPy and Pillow: transforms run in the loader's thread,
where no parallel kernel may.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from minimrcnn.structures import Target

Transform = Callable[[np.ndarray, Target, np.random.Generator], "tuple[np.ndarray, Target]"]


def tight_boxes(masks: np.ndarray) -> np.ndarray:
    """The smallest boxes around masks.

    Parameters
    ----------
    masks : ndarray (G, H, W)
        Nonzero where the object is.

    Returns
    -------
    ndarray (G, 4) float32
        Half-open: a mask of the single pixel (x, y) gives (x, y, x + 1, y + 1), an empty one gives zeros.
    """
    height, width = masks.shape[1:]
    columns, rows = masks.any(axis=1), masks.any(axis=2)  # (G, W), (G, H)
    if not (columns.size and rows.size):
        return np.zeros((len(masks), 4), np.float32)
    left, top = columns.argmax(axis=1), rows.argmax(axis=1)  # (G,): the first that is True
    right, bottom = width - columns[:, ::-1].argmax(axis=1), height - rows[:, ::-1].argmax(axis=1)
    boxes = np.stack([left, top, right, bottom], axis=1).astype(np.float32)  # (G, 4)
    return boxes * columns.any(axis=1, keepdims=True)


def flip_horizontal(picture: np.ndarray, target: Target) -> tuple[np.ndarray, Target]:
    """Mirror left and right."""
    width = picture.shape[1]
    left, top, right, bottom = target.boxes.T
    boxes = np.stack([width - right, top, width - left, bottom], axis=1)  # (G, 4)
    return _contiguous(picture[:, ::-1], boxes, target.labels, target.masks[:, :, ::-1])


def flip_vertical(picture: np.ndarray, target: Target) -> tuple[np.ndarray, Target]:
    """Mirror top and bottom."""
    height = picture.shape[0]
    left, top, right, bottom = target.boxes.T
    boxes = np.stack([left, height - bottom, right, height - top], axis=1)  # (G, 4)
    return _contiguous(picture[::-1], boxes, target.labels, target.masks[:, ::-1])


def transpose(picture: np.ndarray, target: Target) -> tuple[np.ndarray, Target]:
    """Mirror at the diagonal: x becomes y. With the two flips it makes every turn by 90 degrees."""
    turned = picture.transpose(1, 0, 2)  # (W, H, 3)
    return _contiguous(turned, target.boxes[:, [1, 0, 3, 2]], target.labels, target.masks.transpose(0, 2, 1))


def rotate90(picture: np.ndarray, target: Target, turns: int) -> tuple[np.ndarray, Target]:
    """Turn counterclockwise by ``turns`` times 90 degrees."""
    for _ in range(turns % 4):
        picture, target = flip_vertical(*transpose(picture, target))
    return picture, target


def resize(picture: np.ndarray, target: Target, height: int, width: int) -> tuple[np.ndarray, Target]:
    """Bring to ``height`` x ``width``: the picture bilinear (averaging where it shrinks), the masks nearest pixel.

    The boxes become tight around the new masks; an object that has lost its last pixel is dropped.
    """
    rows = ((np.arange(height) + 0.5) * picture.shape[0] / height).astype(np.int64)  # (height,)
    columns = ((np.arange(width) + 0.5) * picture.shape[1] / width).astype(np.int64)  # (width,)
    masks = target.masks[:, rows][:, :, columns]  # (G, height, width)
    kept = masks.any(axis=(1, 2))
    masks = masks[kept]

    if picture.dtype == np.uint8:
        resized = np.array(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
    else:  # Pillow knows float pictures of one channel only
        channels = [Image.fromarray(np.ascontiguousarray(picture[:, :, c], np.float32)) for c in range(3)]
        resized = np.stack([np.array(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels], axis=-1)
    return _contiguous(resized, tight_boxes(masks), target.labels[kept], masks)


def crop(
    picture: np.ndarray,
    target: Target,
    top: int,
    left: int,
    height: int,
    width: int,
    min_pixels: int = 10,
    min_share: float = 0.1,
) -> tuple[np.ndarray, Target]:
    """Cut out ``height`` x ``width`` pixels from row ``top`` and column ``left`` on.

    Objects the edge cuts get the tight box of what is left of their mask, or are dropped if that is fewer than
    ``min_pixels`` pixels or less than ``min_share`` of what was visible; the others keep their box, moved along.
    """
    if not (0 <= top < top + height <= picture.shape[0] and 0 <= left < left + width <= picture.shape[1]):
        raise ValueError(
            f"crop: {height} x {width} pixels from row {top} and column {left} on, wanted at least one pixel, all of "
            f"them in the picture of {picture.shape[0]} x {picture.shape[1]}"
        )
    masks = target.masks[:, top : top + height, left : left + width]  # (G, height, width)
    before, after = target.masks.sum(axis=(1, 2), dtype=np.int64), masks.sum(axis=(1, 2), dtype=np.int64)  # (G,)
    moved = target.boxes - np.array([left, top, left, top], np.float32)
    moved = moved.clip(0, np.array([width, height, width, height], np.float32))
    cut_off = (after < before) | (moved[:, 2:] <= moved[:, :2]).any(axis=1)  # (G,) some of the mask, or all of the box
    boxes = np.where(cut_off[:, None], tight_boxes(masks), moved)  # (G, 4)
    kept = (after > 0) & ((after == before) | ((after >= min_pixels) & (after >= min_share * before)))  # (G,)
    cut = picture[top : top + height, left : left + width]  # (height, width, 3)
    return _contiguous(cut, boxes[kept], target.labels[kept], masks[kept])


def change_color(
    picture: np.ndarray, order: np.ndarray, invert: bool, gain: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Reorder the channels, invert, then ``gain * picture + offset`` per channel, in float32 clipped to 0..1.

    Parameters
    ----------
    picture : ndarray (H, W, 3) uint8, or float in 0..1
    order : (3,) int
        Channel c of the result is channel ``order[c]`` of the picture.
    invert : bool
        Replace v by 1 - v first.
    gain, offset : ndarray (3,)
    """
    slope = np.asarray(gain, np.float32)
    shift = np.asarray(offset, np.float32)
    if invert:  # gain (1 - v) + offset = -gain v + (gain + offset)
        slope, shift = -slope, slope + shift
    if picture.dtype == np.uint8:
        slope = slope / np.float32(255)
    changed = picture[:, :, order].astype(np.float32)
    changed *= slope
    changed += shift
    return np.ascontiguousarray(changed.clip(0, 1))


def _contiguous(picture, boxes, labels, masks) -> tuple[np.ndarray, Target]:
    """Copies of the views that flips and crops are: kernels are compiled for one layout."""
    return np.ascontiguousarray(picture), Target(np.ascontiguousarray(boxes), labels, np.ascontiguousarray(masks))


class Compose:
    """One transform after the other.

    Parameters
    ----------
    transforms : list of callables ``(picture, target, generator) -> (picture, target)``
    """

    def __init__(self, transforms: list[Transform]):
        self.transforms = list(transforms)

    def __call__(self, picture, target, generator):
        for transform in self.transforms:
            picture, target = transform(picture, target, generator)
        return picture, target


class RandomFlip:
    """Mirror left and right with probability ``horizontal``, top and bottom with probability ``vertical``."""

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.5):
        if not (0 <= horizontal <= 1 and 0 <= vertical <= 1):
            raise ValueError(f"RandomFlip: horizontal is {horizontal} and vertical {vertical}, wanted 0 to 1")
        self.horizontal, self.vertical = horizontal, vertical

    def __call__(self, picture, target, generator):
        across, down = generator.random(2) < (self.horizontal, self.vertical)
        if across:
            picture, target = flip_horizontal(picture, target)
        if down:
            picture, target = flip_vertical(picture, target)
        return picture, target


class RandomRotate90:
    """Turn by 0, 90, 180 or 270 degrees, each as likely. For pictures without an up, as a microscope's."""

    def __call__(self, picture, target, generator):
        return rotate90(picture, target, int(generator.integers(4)))


class RandomScale:
    """Resize by a factor between ``low`` and ``high``; doubling is as likely as halving where both are in reach."""

    def __init__(self, low: float, high: float):
        if not 0 < low <= high:
            raise ValueError(f"RandomScale: low is {low} and high {high}, wanted 0 < low <= high")
        self.low, self.high = low, high

    def __call__(self, picture, target, generator):
        factor = np.exp(generator.uniform(np.log(self.low), np.log(self.high)))
        height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
        return resize(picture, target, height, width)


class RandomCrop:
    """Cut out at most ``height`` x ``width`` pixels, wherever; a picture that is smaller stays as large as it is.

    See `crop` for what becomes of the objects, ``min_pixels`` and ``min_share``.
    """

    def __init__(self, height: int, width: int, min_pixels: int = 10, min_share: float = 0.1):
        if height < 1 or width < 1:
            raise ValueError(f"RandomCrop: height is {height} and width {width}, wanted at least 1")
        self.height, self.width = height, width
        self.min_pixels, self.min_share = min_pixels, min_share

    def __call__(self, picture, target, generator):
        height, width = min(self.height, picture.shape[0]), min(self.width, picture.shape[1])
        top = int(generator.integers(picture.shape[0] - height + 1))
        left = int(generator.integers(picture.shape[1] - width + 1))
        if (height, width) == picture.shape[:2]:
            return picture, target
        return crop(picture, target, top, left, height, width, self.min_pixels, self.min_share)


class RandomColor:
    """Colors that say nothing: any order of the channels, inverted or not, and a gain and an offset for each channel.

    What remains is the form, which is what fifty pictures can teach. The picture becomes float32 in 0..1.

    Parameters
    ----------
    gain : float
        Each channel is multiplied by a number in 1 - gain .. 1 + gain,
    offset : float
        and a number in -offset .. offset is added.
    """

    def __init__(self, gain: float = 0.3, offset: float = 0.2):
        if not (0 <= gain <= 1 and 0 <= offset <= 1):
            raise ValueError(f"RandomColor: gain is {gain} and offset {offset}, wanted 0 to 1")
        self.gain, self.offset = gain, offset

    def __call__(self, picture, target, generator):
        order = generator.permutation(3)
        invert = generator.random() < 0.5
        gain = generator.uniform(1 - self.gain, 1 + self.gain, 3)
        offset = generator.uniform(-self.offset, self.offset, 3)
        return change_color(picture, order, invert, gain, offset), target
