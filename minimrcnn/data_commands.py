"""What ``minimrcnn show`` and ``minimrcnn convert-data`` do, and how every command opens its data."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from minimrcnn.archive import atomic_file, make_place
from minimrcnn.data.coco import CocoDataset, count_objects
from minimrcnn.data.convert import check_apart, join, write_coco
from minimrcnn.data.faults import Faults, FirstFault
from minimrcnn.data.folder import find_copies
from minimrcnn.data.formats import FORMATS, Opened, open_data
from minimrcnn.data.pictures import TOO_DARK, is_too_dark, read_picture
from minimrcnn.data.statistics import describe_statistics, measure
from minimrcnn.errors import DataError
from minimrcnn.models.coverage import best_ious
from minimrcnn.overview import draw_overview
from minimrcnn.progress import tqdm
from minimrcnn.recipes import explain_fit, fit_small
from minimrcnn.spelling import spell_command

FEW = 4  # photos of which a look at the data, which is no check, tells whether they are too dark


def open_dataset(options, path, known: tuple[tuple, tuple] | None = None, masks: bool = True) -> CocoDataset:
    """The data set of ``--data`` or the like, once it was said what it is.

    Parameters
    ----------
    options : namespace
        With ``format`` and ``class_attribute``.
    path : path
    known, masks
        See `open_data`.
    """
    return open_datasets(options, [path], known, masks=masks)[0]


def open_datasets(
    options, paths: Sequence, known: tuple[tuple, tuple] | None = None, alike: bool = False, masks: bool = True
) -> list[CocoDataset]:
    """Several data sets, which may be in several formats: each option is for those that have a use for it.

    Parameters
    ----------
    options, known, masks
        See `open_dataset`.
    paths : sequence of path
    alike : bool
        The classes of the first are those that are known for the others.
    """
    found = []
    for path in paths:
        several = len(paths) > 1
        try:
            opened = open_data(path, options.format, options.class_attribute, known, or_other=several, masks=masks)
        except FirstFault as error:
            if not masks:  # which the look at all faults wants
                raise
            raise DataError(f"{error}; {spell_check(options, path)} lists all faults") from None
        found.append(opened)
        say_found(found[-1])
        if alike and sum(count_objects(found[0].dataset).values()):  # without, some formats know no classes
            known = found[0].dataset.class_names, found[0].dataset.category_ids
    check_used(options, found)
    return [opened.dataset for opened in found]


def spell_check(options, path) -> str:
    """The command that looks for all faults of a data set."""
    given = {"--format": options.format, "--class-attribute": options.class_attribute}
    words = [word for name, value in given.items() if value is not None for word in (name, value)]
    return spell_command(["show", str(path), *words, "--check"])


def check_used(options, found: Sequence[Opened]) -> None:
    """Raise `DataError` for an option that none of the data sets had a use for."""
    there = ", ".join(f"{opened.folder} is {FORMATS[opened.format][0]}" for opened in found)
    formats = {opened.format for opened in found}
    if options.format not in (None, *formats):
        raise DataError(f"--format {options.format}: {there}; leave it out, or name data of this format")
    if options.class_attribute is not None and "via" not in formats:
        raise DataError(f"--class-attribute {options.class_attribute}: is for VIA's files; {there}; leave it out")


def say_found(opened: Opened) -> None:
    """Format, photos, objects and classes in a line, and what was noticed, if anything was, in another."""
    tqdm.write(opened.describe(), file=sys.stderr)
    if opened.faults.notes:
        tqdm.write(f"{opened.folder}: {opened.faults.describe_notes()}", file=sys.stderr)


def show(options) -> int:
    """Look at a data set: statistics in the terminal, photos and plots in a picture; or only its faults."""
    if options.check:
        return check(options)
    output = Path(options.output)
    if output.suffix.lower() != ".png":
        raise DataError(f"{output}: a picture is written as .png; wanted a name such as data.png after -o")
    dataset = open_dataset(options, options.data)
    make_place(output)
    tell_darkness(dataset, options.data)
    config, found = fit_small(options, dataset), measure(dataset)
    ious = best_ious(dataset.annotations(), config)
    print(describe_statistics(found))
    print()
    print("\n".join(explain_fit(options, dataset, config)))
    if len(ious):
        low, high = config.rpn_bg_iou_thresh, config.rpn_fg_iou_thresh
        print(
            f"best IoU with an anchor: {(ious < low).mean():.0%} of the objects below {low} (background to the RPN but "
            f"for their best anchor), {(ious < high).mean():.0%} below {high} (one positive anchor)"
        )
    read_from = dataset.reduced(config.min_size, config.max_size)  # as a training reads them
    picture = Image.fromarray(draw_overview(read_from, found, ious, config, options.photos))
    with atomic_file(output) as file:
        picture.save(file, "PNG")
    print(f"look at {output}")
    return 0


def tell_darkness(dataset: CocoDataset, name) -> None:
    """Say if photos are too dark, after a look at a few."""
    looked_at, dark, most = dataset.paths[:: -(-len(dataset) // FEW)], 0, dataset.max_pixels
    for path in looked_at:
        with contextlib.suppress(DataError):  # whoever needs the photo says that it is damaged
            dark += is_too_dark(read_picture(path, most), path, most)
    if dark:
        tqdm.write(f"{name}: {TOO_DARK}: {dark} of {len(looked_at)} looked at", file=sys.stderr)


def check(options) -> int:
    """All faults of a data set; 1 if there are any."""
    opened = open_data(options.data, options.format, options.class_attribute, gather=True)
    check_used(options, [opened])
    print(opened.describe())
    config = fit_small(options, opened.dataset)
    look_at_pixels(opened.dataset.reduced(config.min_size, config.max_size), opened.faults)  # as a training reads them
    if not opened.faults.found and not sum(count_objects(opened.dataset).values()):
        with opened.faults.at(opened.folder):
            raise DataError("there is no object in the pictures to train on; annotate some, or export them again")
    if opened.faults.report():
        print(opened.faults.report())
    if not opened.faults.found:
        print("no faults")
    return 1 if opened.faults.found else 0


def look_at_pixels(dataset: CocoDataset, faults: Faults) -> None:
    """What only shows when photos are decoded and masks drawn: damage, darkness; and what is there twice."""
    document, copies = dataset.annotations(), find_copies(dataset.paths)
    rows_of: dict[int, list] = {}
    for row in document["annotations"]:
        rows_of.setdefault(row["image_id"], []).append(row)
    for index, path in enumerate(tqdm(dataset.paths, desc="checking", unit=" photos", leave=False, delay=2)):
        with faults.at(path):
            picture, _ = dataset[index]
            if is_too_dark(picture, path, dataset.max_pixels):
                faults.note(TOO_DARK, str(path))
        with faults.at(path):
            if index in copies:
                raise DataError(
                    f"is a copy of {dataset.paths[copies[index]]}, and a training may be validated on one and trained "
                    "on the other; remove one of the two with its annotations"
                )
        first: dict[str, int] = {}
        for row in rows_of.get(dataset.image_ids[index], []):
            with faults.at(f"{path}: object {row['id']}"):
                same = first.setdefault(str((row["category_id"], row["segmentation"])), row["id"])
                if same != row["id"]:
                    raise DataError(f"is the same as object {same}, class and outline; remove one of them")
    for id in sorted(dataset.empty_masks):
        faults.note("objects left out, as they cover no pixel", f"annotation {id}")


def convert_data(options) -> int:
    """Write data sets of any format as one of COCO's."""
    for path in options.data:
        check_apart(path, options.output)
    dataset = join(open_datasets(options, options.data))
    print(f"{write_coco(dataset, options.output)}: COCO's format; the photos are copied to images/ beside it")
    return 0
