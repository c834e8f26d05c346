"""A folder for each photo, with one PNG file for each object, as the nuclei challenge of 2018 came.

``ID/images/ID.png`` is the photo, each of ``ID/masks/*.png`` an object: whatever is not 0 belongs to it. All objects
are of one class. A photo without masks is left out; one with nothing to find in it has a mask that is 0 everywhere.

Source: Caicedo et al. 2019, Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from minimrcnn.data.faults import Faults
from minimrcnn.data.folder import DataFolder
from minimrcnn.data.photos import Marked, Photo, check_declared
from minimrcnn.data.pictures import picture_size, read_values
from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths


def find_photos(folder: DataFolder) -> list[tuple[list[str], list[str]]]:
    """The photo, which should be one, and the masks of every ``ID``; nothing if the folder has another layout."""
    photos, masks = {}, {}
    for name in folder.pictures:
        above, kind = posixpath.split(posixpath.dirname(name))
        if kind == "images" and above:
            photos.setdefault(above, []).append(name)
        elif kind == "masks" and above:
            masks.setdefault(above, []).append(name)
    several = sum(len(photos.get(above, [])) > 1 for above in masks)
    if 10 * several > len(masks):  # no slip: folders of photos with folders of label images
        return []
    return [(names, masks[above]) for above, names in photos.items() if above in masks]


def read_mask_files(folder: DataFolder, faults: Faults, max_pixels: int) -> Iterator[Photo]:
    """The photos, each with its objects; a picture of more than ``max_pixels`` is a fault."""
    for (name, *others), masks in find_photos(folder):
        path = folder.path(name)
        photo = Photo(str(path), name)
        size = None
        with faults.at(str(path), name):
            if others:
                raise DataError(f"{len(others)} more are beside it, wanted the photo alone; remove {others[0]}")
            size = picture_size(path, max_pixels)
        for mask in masks if size else []:
            with faults.at(folder.path(mask)):
                values = read_values(folder.path(mask), "mask", max_pixels)
                check_declared(values.shape, size, path)
                runs = {"size": list(size), "counts": run_lengths.encode(values)}
                photo.objects.append(Marked(mask, None, [runs]))
        if size:
            yield photo
