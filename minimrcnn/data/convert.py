"""A data set of any format as a folder in COCO's format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from minimrcnn.archive import atomic_file
from minimrcnn.data.coco import CocoDataset
from minimrcnn.data.folder import plain
from minimrcnn.errors import DataError
from minimrcnn.progress import tqdm


def write_coco(dataset: CocoDataset, output) -> Path:
    """Write ``annotations.json`` and copies of the photos in ``images/``.

    The photos are copied byte by byte, not linked: the new folder stands alone, may be moved and changed, and shows
    what was annotated even if the original is edited. Photos of one name from several folders are numbered; names that
    differ in capitals only count as one, since other computers take them for the same.

    Parameters
    ----------
    dataset : CocoDataset
    output : path
        A folder that is empty or does not exist yet.

    Returns
    -------
    Path
        Of the annotation file, which is written last.

    Raises
    ------
    DataError
        There is something in the folder, or it lies in one of the photos' folders.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output}: there is something already; name a new folder")
    document, paths = dataset.annotations(), dataset.paths
    (output / "images").mkdir(parents=True, exist_ok=True)
    images, taken = [], set()
    for image, path in tqdm(list(zip(document["images"], paths, strict=True)), desc="copying", leave=False, delay=2):
        name = free_name(path, taken)
        shutil.copyfile(path, output / "images" / name)
        images.append({**image, "file_name": name})
    with atomic_file(output / "annotations.json") as file:
        file.write(json.dumps({**document, "images": images}).encode())
    return output / "annotations.json"


def free_name(path: Path, taken: set[str]) -> str:
    """The file's name, with a number behind it if there is such a one already; the result is taken then."""
    name, count = path.name, 1
    while plain(name) in taken:
        count += 1
        name = f"{path.stem}-{count}{path.suffix}"
    taken.add(plain(name))
    return name


def check_apart(source, output) -> None:
    """Raise `DataError` if a folder lies in another, whose data set it would become a part of."""
    inner, outer = Path(output).resolve(), Path(source).resolve()
    if inner.is_relative_to(outer if outer.is_dir() else outer.parent):
        raise DataError(f"{output}: lies in {source} and would become a part of it; name a folder outside")
