"""A stand-in with the trainer's view of a model: two parameters, one statistic, losses with noise."""

from dataclasses import dataclass

import numpy as np

from minimrcnn.archive import write_archive
from minimrcnn.structures import Detections, Target
from minimrcnn.tensor import Tensor


@dataclass(frozen=True)
class TinyConfig:
    size: int = 3
    names: tuple[str, ...] = ("background", "thing")


class TinyModel:
    """Fits ``weight`` to the pictures' mean colors, through noise from its generator.

    Pictures whose first value is 1.0 give a NaN loss; ``explode`` makes the loss finite and its gradient infinite.
    """

    def __init__(self, seed=0, size=3, explode=False):
        self.config = TinyConfig(size)
        self.generator = np.random.default_rng(seed)
        self.weight = Tensor(np.full((1, size), 0.5, np.float32), requires_grad=True)
        self.bias = Tensor(np.zeros(size, np.float32), requires_grad=True)
        self.seen = np.zeros(1, np.float32)  # as the running mean of a batch norm
        self.explode = explode
        self.trained_on = self.validated_on = ()

    def named_parameters(self):
        return {"weight": self.weight, "bias": self.bias}

    def arrays(self):
        return {"weight": self.weight.data, "bias": self.bias.data, "seen": self.seen}

    def load_arrays(self, arrays):
        mine = self.arrays()
        if set(arrays) != set(mine) or any(arrays[name].shape != mine[name].shape for name in mine):
            raise ValueError(f"load_arrays: {sorted(arrays)}, wanted {sorted(mine)}")
        for name, array in mine.items():
            array[...] = arrays[name]

    def train(self):
        return self

    def losses(self, pictures, targets):
        self.seen += 1
        colors = np.stack([picture.reshape(-1, 3).mean(axis=0) for picture in pictures]).astype(np.float32)  # (N, 3)
        colors += 0.01 * self.generator.standard_normal(colors.shape).astype(np.float32)
        if any(picture.flat[0] == 1.0 for picture in pictures):
            colors[:] = np.nan
        distance = self.weight + self.bias - Tensor(colors)
        if self.explode:
            distance = (distance - Tensor(distance.data)) ** 0.5  # the square root's slope at 0
        return {"loss_a": (distance * distance).sum(), "loss_b": (distance + 1.0).sum() * 0.1}

    def predict(self, pictures, score_thresh=None):
        """One thing in each picture, as wide as the weight is large: what is found changes while the model learns."""
        found = []
        for picture in pictures:
            height, width = picture.shape[:2]
            masks = np.zeros((1, height, width), bool)
            masks[:, :, : round(width * float(np.clip(self.weight.data.mean(), 0.25, 1)))] = True
            boxes = np.float32([[0, 0, masks[0, 0].sum(), height]])
            found.append(Detections(boxes, np.ones(1, np.int64), np.float32([0.9]), masks, self.config.names))
        return found

    def save(self, path, **notes):
        write_archive(path, self.arrays(), {"size": self.config.size, **notes})


class TinyData:
    """Pictures of one random color each; those in ``poisoned`` begin with 1.0."""

    class_names, category_ids = ("background", "thing"), (None, 1)

    def __init__(self, count=7, poisoned=()):
        generator = np.random.default_rng(5)
        self.pictures = [
            np.full((4, 4, 3), 0.9 * generator.random(3, dtype=np.float32), np.float32) for _ in range(count)
        ]
        for index in poisoned:
            self.pictures[index][0, 0, 0] = 1.0

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        empty = Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 4, 4), np.uint8))
        return self.pictures[index], empty

    @property
    def image_ids(self):
        return list(range(len(self)))

    def annotations(self):
        images = [{"id": n, "file_name": f"photo{n}.png", "height": 4, "width": 4} for n in self.image_ids]
        whole = {"size": [4, 4], "counts": [0, 16]}  # a thing in each, as large as the picture
        thing = {"category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0, "segmentation": whole}
        rows = [{"id": n, "image_id": n, **thing} for n in self.image_ids]
        return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "thing"}]}
