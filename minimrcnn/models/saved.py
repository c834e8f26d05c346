"""What a file of ours says of a model: the arrays and the Config, be it a saved model or the checkpoint of a training.

Until a training is done there is no model.npz, and its checkpoint has the newest weights; afterwards the checkpoint is
a note without arrays, and the model beside it has them.
"""

from __future__ import annotations

import math

import numpy as np

from minimrcnn.archive import read_archive, read_header
from minimrcnn.config import Config
from minimrcnn.errors import DataError

PART = "model/"  # what the arrays of a model are below in a checkpoint
OLDER = "rpn.conv.", "rpn.convs.0."  # its name when there was no more than one


def read_model(path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a model by their names of today, and the header of its file.

    Raises
    ------
    DataError
        The file is damaged, or the checkpoint of a training that is done.
    """
    arrays, header = read_archive(path)
    if str(header.get("kind")).startswith("minimrcnn checkpoint"):
        arrays = {name.removeprefix(PART): array for name, array in arrays.items() if name.startswith(PART)}
        if not arrays:
            raise DataError(
                f"{path}: this is the checkpoint of a training that is done; wanted the model.npz beside it"
            )
    return {name.replace(*OLDER): array for name, array in arrays.items()}, header


class Zeros(np.random.Generator):
    """Draws nothing but zeros, for layers whose weights are to be replaced by a file's arrays, and not many more.

    A file of a few bytes can name a Config of layers that no memory holds. Where it is a slip, and not that many, the
    arrays are left to say what does not fit.
    """

    def __init__(self, arrays):
        super().__init__(np.random.PCG64(0))
        self.left = 4 * sum(array.size for array in arrays.values()) + 10_000_000

    def draw(self, shape) -> np.ndarray:
        self.left -= math.prod(shape)
        if self.left < 0:
            raise ValueError("the layers of its configuration have far more weights than the file")
        return np.zeros(shape, np.float32)

    def standard_normal(self, shape, dtype=np.float32):
        return self.draw(shape)

    def uniform(self, low, high, shape):
        return self.draw(shape)


def config_of(path, header: dict, **fields) -> Config:
    """The Config in the header of a file, model or checkpoint, even of a training that is done; with other ``fields``.

    Raises
    ------
    DataError
        There is none that this version knows.
    """
    try:
        return Config.from_dict({**header["config"], **fields})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a model this version can load: {error}") from error


def photos_of(header: dict, use: str) -> tuple[str, ...]:
    """The photos that a file's model was "trained_on" or "validated_on", by their fingerprints, as far as it tells."""
    photos = header.get(use)
    return tuple(photos) if isinstance(photos, list) and all(isinstance(one, str) for one in photos) else ()


def read_config(path) -> Config:
    """The Config of a file, model or checkpoint; see `config_of`."""
    return config_of(path, read_header(path))
