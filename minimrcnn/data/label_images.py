"""A label image for each photo: the value of a pixel is the number of the object it belongs to, 0 is none.

Two layouts are known: ``PNGImages/NAME.png`` with ``PedMasks/NAME_mask.png``, as the Penn-Fudan pedestrians came, and
``images/`` with ``masks/``, where the label image is called like the photo, or like it with ``_mask``, ``_masks``,
``_label`` or ``_labels`` behind. All objects are of one class, those of Penn-Fudan persons. A label image that is 0
everywhere makes its photo one with nothing to find in it; a photo without a label image is left out.

Source: Wang et al. 2007, Object detection combining recognition and segmentation (Penn-Fudan).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

import numpy as np
import scipy.ndimage

from minimrcnn.data.faults import Faults
from minimrcnn.data.folder import DataFolder, plain, stem
from minimrcnn.data.photos import Marked, Photo, check_declared
from minimrcnn.data.pictures import picture_size, read_values
from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths

LAYOUTS = {"images": "masks", "PNGImages": "PedMasks"}  # folder of the photos: of the label images
CLASSES = {"PNGImages": "person"}
MOST_OBJECTS = 5000  # in a photo; a picture with more values is no label image


def find_pairs(folder: DataFolder) -> dict[str, str]:
    """The label image of every photo that has one."""
    exact, similar = {}, {}  # by the folder and the place in it
    for name in folder.pictures:
        top, _, rest = name.partition("/")
        place = plain(posixpath.join(posixpath.dirname(rest), stem(rest)))
        exact[top, place] = name
        similar[top, re.sub("_(mask|label)s?$", "", place)] = name
    pairs = {}
    for name in folder.pictures:
        top, _, rest = name.partition("/")
        key = LAYOUTS.get(top), plain(posixpath.join(posixpath.dirname(rest), stem(rest)))
        label = exact.get(key) or similar.get(key)
        if label:
            pairs[name] = label
    return pairs


def read_label_images(folder: DataFolder, faults: Faults, max_pixels: int) -> Iterator[Photo]:
    """The photos, each with its objects; a picture of more than ``max_pixels`` is a fault."""
    for name, label in find_pairs(folder).items():
        path = folder.path(label)
        photo = None
        with faults.at(path, name):
            values = read_values(path, "label image", max_pixels)  # (H, W)
            check_declared(values.shape, picture_size(folder.path(name), max_pixels), folder.path(name))
            numbers = np.unique(values)
            numbers = numbers[numbers != 0]
            if len(numbers) > MOST_OBJECTS or (len(numbers) and numbers[0] < 0):
                raise DataError(
                    f"holds {len(numbers)} values from {numbers[0]} to {numbers[-1]}, wanted the numbers of objects "
                    f"from 1 on, at most {MOST_OBJECTS}; is it a photo?"
                )
            if len(numbers) == 1 and scipy.ndimage.label(values)[1] > 1:
                faults.note("label images with one value in several places, taken for one object", label)
            photo = Photo(str(path), name)
            for number in numbers.tolist():
                runs = {"size": list(values.shape), "counts": run_lengths.encode(values == number)}
                photo.objects.append(Marked(f"object {number}", CLASSES.get(name.partition("/")[0]), [runs]))
        if photo is not None:
            yield photo
