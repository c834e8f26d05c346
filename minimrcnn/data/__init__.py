"""Data sets, random changes to them, and the loader that makes batches."""

from minimrcnn.data.coco import CocoDataset, CocoFolder
from minimrcnn.data.formats import open_data
from minimrcnn.data.loader import Batch, Loader
from minimrcnn.data.pictures import as_picture, read_picture
from minimrcnn.data.shapes import Shapes
from minimrcnn.data.transforms import Compose, RandomColor, RandomCrop, RandomFlip, RandomRotate90, RandomScale

__all__ = [
    "Batch",
    "CocoDataset",
    "CocoFolder",
    "Compose",
    "Loader",
    "RandomColor",
    "RandomCrop",
    "RandomFlip",
    "RandomRotate90",
    "RandomScale",
    "Shapes",
    "as_picture",
    "open_data",
    "read_picture",
]
