"""Pictures made of squares, discs and triangles: a data set that needs no download and never ends.

Picture ``i`` is drawn from the pair ``(seed, i)`` alone, so the first fifty of a thousand are the fifty of fifty:

1. Draw the ground's color and how many shapes there should be.
2. Draw shapes (class, radius, center, color) one after the other; each hides what it covers of the earlier ones. One
   that would leave less than 60 pixels of another to be seen is drawn again.
3. Paint ground and shapes, plain or textured, and add noise. The masks are what is still visible, the boxes tight
   around the masks.

A shape of radius r spans 2r x 2r pixels whatever its class: the box does not give the class away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from minimrcnn.archive import atomic_file
from minimrcnn.data.transforms import tight_boxes
from minimrcnn.structures import Target

CLASS_NAMES = ("background", "square", "disc", "triangle")
RADII = (10, 29)  # pixels, both included
MOST_SHAPES = 4
VISIBLE_PIXELS = 60  # at least so many are seen of every shape
NOISE = 0.02  # standard deviation, of 0..1
ATTEMPTS = 200  # shapes drawn for a picture before it does with fewer than planned


class Shapes:
    """A data set of generated pictures, with the interface of every data set here.

    Pictures are generated when they are first asked for and kept; callers must not write into them.

    Parameters
    ----------
    count : int
        Number of pictures.
    seed : int
        Not negative. Other seeds give other pictures: take one for training and another for validation.
    size : int
        Height and width in pixels, at least 64.
    hard : bool
        Textured grounds and shapes in place of plain ones. The layout is that of the plain picture of the same seed.

    Attributes
    ----------
    class_names : tuple of str
        ``class_names[label]``; label 0 is the background.
    category_ids : tuple
        ``category_ids[label]`` is the COCO category; ``category_ids[0]`` is None.
    image_ids : list of int
        The COCO image id of each picture; a subset keeps those of the whole.
    """

    class_names = CLASS_NAMES
    category_ids = (None, 1, 2, 3)

    def __init__(self, count: int, seed: int, size: int = 128, hard: bool = False):
        if count < 1:
            raise ValueError(f"Shapes: count is {count}, wanted at least 1")
        if seed < 0:
            raise ValueError(f"Shapes: seed is {seed}, wanted 0 or more")
        if size < 64:
            raise ValueError(
                f"Shapes: size is {size}, wanted at least 64: the largest shapes span {2 * RADII[1]} pixels"
            )
        self.seed, self.size, self.hard = seed, size, hard
        self.image_ids = list(range(1, count + 1))
        self._made: dict[int, tuple[np.ndarray, Target]] = {}

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Target]:
        """The picture, (size, size, 3) uint8, and the Target of its G visible shapes."""
        image_id = self.image_ids[index]
        if image_id not in self._made:
            self._made[image_id] = make_picture(np.random.default_rng([self.seed, image_id - 1]), self.size, self.hard)
        return self._made[image_id]

    def subset(self, indices: Iterable[int]) -> Shapes:
        """The data set of these pictures only, in this order, none twice; their ids stay as they are."""
        part = Shapes(1, self.seed, self.size, self.hard)
        part.image_ids = [self.image_ids[index] for index in indices]
        if not part.image_ids or len(set(part.image_ids)) != len(part.image_ids):
            raise ValueError(f"Shapes.subset: {len(part.image_ids)} indices, wanted one or more, none twice")
        part._made = self._made
        return part

    def annotations(self) -> dict:
        """The truth as a COCO dictionary: images, annotations with compressed run lengths, categories."""
        from minimrcnn.geometry.run_lengths import encode, to_string

        size = [self.size, self.size]
        images, rows = [], []
        for index, image_id in enumerate(self.image_ids):
            images.append({"id": image_id, "file_name": f"{image_id:06d}.png", "height": self.size, "width": self.size})
            target = self[index][1]
            for box, label, mask in zip(target.boxes.tolist(), target.labels.tolist(), target.masks, strict=True):
                rows.append(
                    {
                        "id": len(rows) + 1,
                        "image_id": image_id,
                        "category_id": self.category_ids[label],
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": int(mask.sum()),
                        "iscrowd": 0,
                        "segmentation": {"size": size, "counts": to_string(encode(mask))},
                    }
                )
        categories = [{"id": self.category_ids[label], "name": CLASS_NAMES[label]} for label in (1, 2, 3)]
        return {"images": images, "annotations": rows, "categories": categories}

    def write(self, folder: str | Path) -> None:
        """Write a data folder: ``annotations.json`` in COCO format and ``images/*.png``, made if it is not there.

        The annotations come last, and no file is ever there in part.
        """
        folder = Path(folder)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        annotations = self.annotations()
        for index, image in enumerate(annotations["images"]):
            with atomic_file(folder / "images" / image["file_name"]) as file:
                Image.fromarray(self[index][0]).save(file, "PNG")
        with atomic_file(folder / "annotations.json") as file:
            file.write(json.dumps(annotations).encode())


@dataclass(frozen=True)
class Shape:
    """One shape: what it is, where (pixels), and its color (3,) in 0..1."""

    label: int
    x: int
    y: int
    radius: int
    color: np.ndarray


def make_picture(generator: np.random.Generator, size: int, hard: bool) -> tuple[np.ndarray, Target]:
    """One picture (size, size, 3) uint8 and its Target."""
    ground, shapes, masks = draw_layout(generator, size)

    paint = paint_textured if hard else paint_plain
    picture = paint(generator, size, ground)  # (H, W, 3)
    for shape, mask in zip(shapes, masks, strict=True):
        picture[mask] = paint(generator, size, shape.color)[mask]
    picture += generator.normal(0, NOISE, picture.shape)
    picture = (picture.clip(0, 1) * 255).round().astype(np.uint8)

    masks = np.stack(masks).astype(np.uint8)  # (G, H, W)
    labels = np.array([shape.label for shape in shapes], np.int64)  # (G,)
    return picture, Target(boxes=tight_boxes(masks), labels=labels, masks=masks)


def draw_layout(generator: np.random.Generator, size: int) -> tuple[np.ndarray, list[Shape], list[np.ndarray]]:
    """The ground's color, the shapes from the lowest to the topmost, and what is visible of each, (H, W) bool."""
    ground = generator.uniform(0, 1, 3)
    wanted = generator.integers(1, MOST_SHAPES + 1)
    shapes, masks = [], []
    for _ in range(ATTEMPTS):
        if len(shapes) == wanted:
            break
        radius = int(generator.integers(RADII[0], RADII[1] + 1))
        x, y = generator.integers(radius, size - radius + 1, 2)  # the shape lies inside the picture
        shape = Shape(int(generator.integers(1, len(CLASS_NAMES))), int(x), int(y), radius, generator.uniform(0, 1, 3))
        covered = inside(shape, size)
        visible = [mask & ~covered for mask in masks]
        if all(mask.sum() >= VISIBLE_PIXELS for mask in visible):
            shapes.append(shape)
            masks = [*visible, covered]
    return ground, shapes, masks


def inside(shape: Shape, size: int) -> np.ndarray:
    """(size, size) bool: the pixels whose centers lie in the shape."""
    right = np.arange(size) + 0.5 - shape.x  # (W,)
    down = (np.arange(size) + 0.5 - shape.y)[:, None]  # (H, 1)
    name = CLASS_NAMES[shape.label]
    if name == "square":
        return np.maximum(abs(right), abs(down)) < shape.radius
    if name == "disc":
        return right**2 + down**2 < shape.radius**2
    return (2 * abs(right) < down + shape.radius) & (down < shape.radius)  # tip above, base below


def paint_plain(generator: np.random.Generator, size: int, color: np.ndarray) -> np.ndarray:
    """(size, size, 3) of one color."""
    return np.tile(color, (size, size, 1))


def paint_textured(generator: np.random.Generator, size: int, color: np.ndarray) -> np.ndarray:
    """(size, size, 3): a color with three oriented waves and a blocky noise laid over it."""
    steps = np.arange(size)
    picture = paint_plain(generator, size, color)
    for _ in range(3):
        angle, phase = generator.uniform(0, 2 * np.pi, 2)
        wavelength = 2 ** generator.uniform(2, 5)  # 4 to 32 pixels
        along = np.cos(angle) * steps + np.sin(angle) * steps[:, None]  # (H, W)
        wave = np.sin(2 * np.pi * along / wavelength + phase)
        picture += wave[..., None] * generator.normal(0, 0.07, 3)  # (H, W, 1) * (3,)
    block = int(generator.choice((2, 4, 8)))
    cells = -(-size // block)
    blocks = generator.normal(0, 0.05, (cells, cells, 3))
    return picture + blocks.repeat(block, 0).repeat(block, 1)[:size, :size]
