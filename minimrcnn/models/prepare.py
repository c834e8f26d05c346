"""From pictures of any size to one batch of pixels, and back with what was found in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from minimrcnn import geometry
from minimrcnn.data.pictures import MAX_PIXELS, as_picture, find_scale
from minimrcnn.device import module_of, to_device
from minimrcnn.errors import DataError
from minimrcnn.functional import resize_bilinear
from minimrcnn.geometry.resizing import find_nearest
from minimrcnn.structures import Detections, Target
from minimrcnn.tensor import Tensor, no_grad

MOST_PIXELS = 4 * MAX_PIXELS  # of a batch's picture, resized and padded: beyond, it is a mistake, or meant to harm


def resized(size: tuple[int, int], config) -> tuple[int, int]:
    """The (height, width) a picture of this size is brought to: see `Config.min_size`."""
    if config.min_size is None:
        return size
    scale = find_scale(size, config.min_size, config.max_size)
    return max(int(size[0] * scale), 1), max(int(size[1] * scale), 1)


def read_pictures(pictures) -> list[np.ndarray]:
    """Each picture as `as_picture` has it; `DataError` says which is none."""
    checked = []
    for number, picture in enumerate(pictures):
        try:
            checked.append(as_picture(picture))
        except (TypeError, ValueError) as error:
            raise DataError(f"pictures[{number}]: {str(error).removeprefix('as_picture: ')}") from error
    return checked


def prepare(pictures, config, device: str = "cpu") -> tuple[np.ndarray, list[tuple[int, int]], list[tuple[int, int]]]:
    """Pictures as one batch of pixels: resized, normalized, padded with zeros on the right and below.

    Parameters
    ----------
    pictures : list of (H, W, 3) uint8 or float arrays, paths or PIL images
    config : Config
    device : {"cpu", "cuda"}
        Where the pixels shall be. Pictures go to a GPU as they are, a byte a color, and become pixels there.

    Returns
    -------
    pixels : array (N, H, W, 3) float32
        H and W are multiples of ``config.size_divisible``.
    image_sizes : list of (int, int)
        (height, width) of every picture within the batch.
    original_sizes : list of (int, int)
        Before resizing.

    Raises
    ------
    DataError
        A picture cannot be read or is none, or they would be too large.
    ValueError
        There is none.
    """
    pictures = read_pictures(pictures)
    if not pictures:
        raise ValueError("no pictures: wanted a list of at least one")
    original_sizes = [picture.shape[:2] for picture in pictures]
    image_sizes = [resized(size, config) for size in original_sizes]
    step = config.size_divisible
    height, width = (-(-max(side) // step) * step for side in zip(*image_sizes, strict=True))
    if height * width > MOST_PIXELS:
        raise DataError(
            f"pictures of {width} x {height} pixels, as this model would make them, are more than the {MOST_PIXELS} "
            "that are allowed; wanted smaller ones, or a smaller min_size, max_size or size_divisible"
        )
    colors = to_device(np.float32([config.image_mean, config.image_std]), device)  # (2, 3)
    xp = module_of(colors)
    pixels = xp.zeros((len(pictures), height, width, 3), np.float32)
    for target, picture, size in zip(pixels, pictures, image_sizes, strict=True):
        values = to_device(picture, device).astype(np.float32)
        if picture.dtype == np.uint8:
            values /= 255
        if size != picture.shape[:2]:
            with no_grad():
                values = resize_bilinear(Tensor(values[None]), size).data[0]
        rows = values.reshape(size[0], -1)  # three numbers at a time take NumPy long: 40 instead of 14 ms
        mean, deviation = xp.tile(colors, size[1])  # (W * 3,) each
        rows = (rows - mean) / deviation
        target[: size[0], : size[1]] = rows.reshape(*size, 3)
    return pixels, image_sizes, original_sizes


def resize_target(target: Target, size: tuple[int, int]) -> Target:
    """The truth about a picture that was resized to ``size``; masks by nearest neighbor."""
    height, width = target.masks.shape[1:]
    if (height, width) == size:
        return target
    scale = np.float32([size[1] / width, size[0] / height] * 2)
    rows, columns = find_nearest(height, size[0]), find_nearest(width, size[1])
    return replace(target, boxes=target.boxes * scale, masks=np.ascontiguousarray(target.masks[:, rows][:, :, columns]))


def restore(detections: Detections, masks, image_size, original_size) -> Detections:
    """Detections in the pixels of the original picture, with their masks (D, M, M) pasted into it."""
    scale = np.float32([original_size[1] / image_size[1], original_size[0] / image_size[0]] * 2)
    boxes = detections.boxes * scale
    if masks is not None:
        masks = geometry.paste_masks_bool(masks, boxes, original_size)  # (D, H, W)
    return replace(detections, boxes=boxes, masks=masks)
