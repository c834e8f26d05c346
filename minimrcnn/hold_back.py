"""Which photos a training is validated on: some that it is not trained on, nor the model it begins with was.

A fifth of them, drawn at random. Photos are added, or corrected by hand, to train on from an earlier model: drawn anew
among all, some of those that this has learned by heart would be held back now, and scores would flatter. So a model
remembers the fingerprints of the photos that it was trained on and of those that were held back, and these are held
back again, before new ones, which are there to be learned.
"""

from __future__ import annotations

from pathlib import Path

from minimrcnn.archive import read_header
from minimrcnn.data.coco import CocoDataset
from minimrcnn.data.folder import fingerprint
from minimrcnn.models.saved import photos_of
from minimrcnn.training.checkpoint import read_checkpoint
from minimrcnn.weights import is_ours

SHARE = 0.2


def read_photos(path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fingerprints of the photos that the model in a file was trained on, and of those held back, if it knows them."""
    header = read_header(path) if path and is_ours(path) else {}
    return photos_of(header, "trained_on"), photos_of(header, "validated_on")


def count_seen(dataset: CocoDataset, seen) -> int:
    """How many photos have fingerprints among those ``seen``."""
    seen = set(seen)
    return sum(fingerprint(path) in seen for path in dataset.paths) if seen else 0


def hold_back(dataset: CocoDataset, seed: int, seen=(), held_before=()) -> tuple[CocoDataset, CocoDataset]:
    """The photos to train on and those to validate on, both in the order of the file.

    Of photos that were ``seen`` none is held back, unless there are no others; those ``held_before`` come first.
    """
    share = max(SHARE, 1 / len(dataset))
    if not (seen or held_before):
        return dataset.split(share, seed)
    prints, seen, held_before = [fingerprint(path) for path in dataset.paths], set(seen), set(held_before)
    unseen = sum(one not in seen for one in prints)
    if unseen:
        share = min(share, unseen / len(dataset))
    return dataset.split(share, seed, lambda index: (prints[index] in seen, prints[index] not in held_before))


def hold_back_again(dataset: CocoDataset, checkpoint: Path) -> tuple[CocoDataset, CocoDataset] | None:
    """The same of a run that goes on, by the names of the photos; None if these are not all there."""
    photos = read_checkpoint(checkpoint, header_only=True).photos or {}
    names = [image["file_name"] for image in dataset.annotations()["images"]]
    held = set(photos.get("validation", ()))
    if not held or not held < set(names):
        return None
    places = range(len(names))
    return (
        dataset.subset([place for place in places if names[place] not in held]),
        dataset.subset([place for place in places if names[place] in held]),
    )
