"""Data sets of any format as one folder in COCO's format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from minimrcnn.archive import atomic_file
from minimrcnn.data.coco import CocoDataset
from minimrcnn.data.folder import find_copies, plain
from minimrcnn.errors import DataError
from minimrcnn.progress import tqdm


def join(datasets: Sequence[CocoDataset]) -> CocoDataset:
    """One data set of several. Classes of one name are one class; those of the first keep their ids.

    Parameters
    ----------
    datasets : sequence of CocoDataset
        One or more.

    Raises
    ------
    DataError
        A photo, or a copy of it, is in two of them: a training would be validated on what it is trained on.
    """
    if len(datasets) == 1:
        return datasets[0]
    photos = [(path, number) for number, dataset in enumerate(datasets) for path in dataset.paths]
    copies = find_copies([path for path, _ in photos]).items()
    twice = [(photos[copy][0], photos[first][0]) for copy, first in copies if photos[copy][1] != photos[first][1]]
    if twice:
        copy, first = twice[0]
        raise DataError(
            f"{first}: is in two of the data sets, in the other as {copy} ({len(twice)} in all); wanted each once: "
            "take one of the two out of its data set, with its annotations"
        )
    ids: dict[str, int] = {}
    images, annotations, categories, paths = [], [], [], {}
    for dataset in datasets:
        document = dataset.annotations()
        for category in document["categories"]:
            if category["name"] not in ids:
                ids[category["name"]] = category["id"] if dataset is datasets[0] else max(ids.values(), default=0) + 1
                categories.append({**category, "id": ids[category["name"]]})
        id_here = {category["id"]: ids[category["name"]] for category in document["categories"]}
        image_id = {image["id"]: len(images) + number for number, image in enumerate(document["images"], 1)}
        images += [{**image, "id": image_id[image["id"]]} for image in document["images"]]
        paths |= dict(zip(image_id.values(), dataset.paths, strict=True))
        annotations += [
            {
                **row,
                "id": len(annotations) + number,
                "image_id": image_id[row["image_id"]],
                "category_id": id_here[row["category_id"]],
            }
            for number, row in enumerate(document["annotations"], 1)
        ]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return CocoDataset.of_rows(document, paths, max(dataset.max_pixels for dataset in datasets))


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
        There is something in the folder.
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
