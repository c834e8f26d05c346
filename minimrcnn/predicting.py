"""``minimrcnn predict``: objects in pictures, as pictures, as COCO's results, and as files to correct in LabelMe."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from minimrcnn.archive import atomic_file, make_place
from minimrcnn.data.gather import gather_pictures
from minimrcnn.data.pictures import TOO_DARK, is_too_dark, read_picture
from minimrcnn.errors import DataError
from minimrcnn.progress import tqdm
from minimrcnn.show import draw_detections, shorten
from minimrcnn.spelling import quote_arguments
from minimrcnn.training.compile_ahead import PREDICTING, compile_ahead

RESULTS = "detections.json"
CORRECTIONS = "labelme"  # the folder of what is to be corrected
KEPT = (".jpg", ".jpeg", ".png")  # formats a result has as well; those of the others are PNG
LONGEST_NAME = 240  # bytes, of 255 that file systems allow: a number and an ending come behind it
JPEG = {"quality": 92, "subsampling": 0}  # thin lines keep their colors


def predict_files(
    model, names: Sequence[str], folder: Path, score: float, labelme: bool = False, device: str = "cpu"
) -> int:
    """Find objects in pictures and write what was found.

    A picture that cannot be read is named and does not hold up the others. What was found is written in any case, also
    after Ctrl-C.

    Parameters
    ----------
    model : MaskRCNN
    names : sequence of str
        Files, folders and patterns; see `minimrcnn.data.gather.gather_pictures`.
    folder : Path
        Gets each picture with what was found in it under the picture's name, in the subfolder it was in, and
        ``detections.json``.
    score : float
        Least score of a detection.
    labelme : bool
        Write ``labelme/`` as well: copies of the pictures, beside each a file to be corrected in LabelMe.
    device : {"cpu", "cuda"}
        Where the model is.

    Returns
    -------
    int
        How many pictures could not be read.

    Raises
    ------
    DataError
        A folder or pattern has no pictures, or results would replace anything but earlier results.
    """
    pictures = gather_pictures(names, without=folder)
    outputs = [folder / name for name in name_outputs([picture.name for picture in pictures])]
    if {output.resolve() for output in outputs} & {picture.path.resolve() for picture in pictures}:
        raise DataError(f"{folder}: the results would replace the pictures; name another folder with -o")
    earlier = read_results(folder / RESULTS)
    there = next((output for output in outputs if output.exists()), None)
    if there and earlier is None:
        raise DataError(
            f"{there}: is there already, and is not the result of a prediction; name another folder with -o"
        )
    copies = [
        folder / CORRECTIONS / output.relative_to(folder).with_suffix(picture.path.suffix)
        for output, picture in zip(outputs, pictures, strict=True)
    ]
    if labelme:
        check_corrections(outputs, copies)
    make_place(folder / RESULTS)
    compile_ahead(PREDICTING, progress=True, device=device)
    class_names = model.config.class_names or tuple(str(label) for label in range(model.config.num_classes))
    category_ids = model.config.category_ids or (None, *range(1, model.config.num_classes))
    name_of = dict(zip(category_ids, class_names, strict=True))

    results, dark, done, failed = [], [], 0, 0
    numbers = number_pictures([picture.path for picture in pictures])
    bar = tqdm(pictures, unit="picture", disable=len(pictures) == 1)
    try:
        for image_id, picture, output, copy in zip(numbers, bar, outputs, copies, strict=True):
            try:
                pixels = read_picture(picture.path)
            except DataError as error:
                tqdm.write(f"minimrcnn: error: {error}", file=sys.stderr)
                failed += 1
                continue
            (detections,) = model.predict([pixels], score_thresh=score)
            save_drawn(output, draw_detections(pixels, detections, class_names))
            for row in detections.to_coco(image_id, category_ids):
                results.append(
                    {**row, "category_name": name_of[row["category_id"]], "file_name": picture.name.as_posix()}
                )
            if labelme:
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(picture.path, copy)
                detections.to_labelme(copy.with_suffix(".json"), copy)
            done += 1
            if is_too_dark(pixels, picture.path):
                dark.append(picture.path)
            counts = [
                f"{int((detections.labels == k).sum())} {class_names[k]}" for k in np.unique(detections.labels).tolist()
            ]
            most = ", the most this model gives" * (len(detections) == model.config.box_detections_per_img)
            tqdm.write(f"{picture.path}: {', '.join(counts) or 'nothing'}{most} -> {output}", file=sys.stdout)
    except KeyboardInterrupt:
        kept = f"; {folder / RESULTS} has what was found in these" if done else ""
        raise KeyboardInterrupt(f"stopped after {done + failed} of {len(pictures)} pictures{kept}") from None
    finally:
        if done:  # else what an earlier prediction found is still all there is
            with atomic_file(folder / RESULTS) as file:
                file.write((json.dumps(results, indent=1) + "\n").encode())
    if failed:
        tqdm.write(f"{failed} of {len(pictures)} pictures could not be read; see above", file=sys.stderr)
    if not done:
        return failed
    tqdm.write(f"all of it in COCO's form: {folder / RESULTS}", file=sys.stderr)
    if dark:
        tqdm.write(f"{dark[0]}: {TOO_DARK}: {len(dark)} of {len(pictures)}", file=sys.stderr)
    left = (earlier or set()) - {picture.name.as_posix() for picture in pictures}
    if left:
        tqdm.write(
            f"{folder} still has results of {len(left)} pictures of an earlier prediction, such as {min(left)}, which "
            f"{RESULTS} has no more",
            file=sys.stderr,
        )
    if labelme:
        command = quote_arguments(["labelme", str(folder / CORRECTIONS)])
        tqdm.write(f"to correct by hand: {command}", file=sys.stderr)
    return failed


def read_results(path: Path) -> set[str] | None:
    """The names of the pictures in which an earlier prediction found something; None if there was none.

    Raises
    ------
    DataError
        The file is something else, and not to be written over.
    """
    if not path.exists():
        return None
    try:
        return {row["file_name"] for row in json.loads(path.read_bytes())}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(
            f"{path}: is there already, and is not the result of a prediction; name another folder with -o"
        ) from None


def check_corrections(outputs: list[Path], copies: list[Path]) -> None:
    """Nothing is written over anything: hours of somebody's work may be in a file that is there."""
    there = next((path for path in (copy.with_suffix(".json") for copy in copies) if path.exists()), None)
    if there:
        raise DataError(f"{there}: is there already, and may have been corrected; name another folder with -o")
    twice = next((output for output in outputs if output in copies), None)
    if twice:
        raise DataError(
            f"{twice}: is the result of one picture and the copy of another; rename the folder of the former"
        )


def number_pictures(paths: list[Path]) -> list[int]:
    """COCO's image ids: the numbers that are the files' names, if all are and none is there twice; else 1, 2, .."""
    numbers = [int(path.stem) for path in paths if path.stem.isdecimal()]
    return numbers if len(set(numbers)) == len(paths) else list(range(1, len(paths) + 1))


def name_outputs(names: list[Path]) -> Iterator[Path]:
    """Where each picture's result goes: under the picture's name, the middle of a long one left out; where that is
    taken, numbered.

    Names that differ in their endings only are numbered too, as there is one .json for each.
    """
    taken: set[str] = set()  # in small letters: some systems make no difference
    for name in names:
        stem, suffix, count = name.with_suffix(""), name.suffix if name.suffix.lower() in KEPT else ".png", 1
        plain = stem = stem.with_name(shorten(stem.name, lambda one: len(os.fsencode(one)) <= LONGEST_NAME))
        while str(stem).lower() in taken:
            count += 1
            stem = plain.with_name(f"{plain.name}-{count}")
        taken.add(str(stem).lower())
        yield stem.with_name(stem.name + suffix)


def save_drawn(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3), whole or not at all, in the format that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    png = path.suffix.lower() == ".png"
    with atomic_file(path) as file:
        Image.fromarray(picture).save(file, "PNG" if png else "JPEG", **({} if png else JPEG))
