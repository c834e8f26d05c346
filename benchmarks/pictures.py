"""A picture and its objects for the whole network: noise will do, the time does not depend on what is to be seen."""

from __future__ import annotations

import numpy as np


class DemoBatches:
    """The demo's batches, drawn and augmented while the clock runs, the same ones for everybody."""

    def __init__(self, size: int):
        from minimrcnn.data import Compose, RandomColor, RandomFlip
        from minimrcnn.data.shapes import Shapes

        self.dataset, self.change = Shapes(50, seed=0), Compose([RandomFlip(), RandomColor()])
        self.class_names, self.size, self.rng = self.dataset.class_names, size, np.random.default_rng(0)

    def draw(self):
        """Pictures and Targets, two lists."""
        indices = self.rng.choice(len(self.dataset), self.size, replace=False)
        pairs = [self.change(*self.dataset[int(index)], self.rng) for index in indices]
        return [picture for picture, _ in pairs], [target for _, target in pairs]


def make_picture(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def make_target(size: tuple[int, int], objects: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (G, 4), labels (G,), masks (G, H, W): discs side by side."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    boxes, masks = [], []
    for number in range(objects):
        radius = 30 + 10 * number
        center_x, center_y = width * (number + 0.5) / objects, height / 2
        mask = (x - center_x) ** 2 + (y - center_y) ** 2 < radius**2
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        masks.append(mask)
    return np.float32(boxes), np.arange(1, objects + 1), np.uint8(masks)
