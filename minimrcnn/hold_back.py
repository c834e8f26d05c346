"""Which photos a training is validated on: some that it is not trained on, nor the model it begins with was.

A fifth of them, drawn at random. Photos are added, or corrected by hand, to train on from an earlier model: drawn anew
among all, some of those that this has learned by heart would be held back now, and scores would flatter. So a model
remembers the fingerprints of what it was trained on (`MaskRCNN.trained_on`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minimrcnn.archive import read_archive
from minimrcnn.data.coco import CocoDataset
from minimrcnn.data.folder import fingerprint
from minimrcnn.models.saved import trained_on
from minimrcnn.training.checkpoint import read_checkpoint
from minimrcnn.weights import is_ours

SHARE = 0.2


def read_seen(path) -> tuple[str, ...]:
    """The fingerprints of the photos that the model in a file was trained on, of one of ours that knows them."""
    return trained_on(read_archive(path)[1]) if path and is_ours(path) else ()


def count_seen(dataset: CocoDataset, seen) -> int:
    """How many photos have fingerprints among those ``seen``."""
    seen = set(seen)
    return sum(fingerprint(path) in seen for path in dataset.paths) if seen else 0


def hold_back(dataset: CocoDataset, seed: int, seen=()) -> tuple[CocoDataset, CocoDataset]:
    """The photos to train on and those to validate on, both in the order of the file.

    Of photos that were ``seen`` none is held back, unless there are no others.
    """
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    seen, paths = set(seen), dataset.paths
    unseen = [place for place in order if not seen or fingerprint(paths[place]) not in seen]
    held = (unseen or order)[: max(round(SHARE * len(dataset)), 1)]
    return dataset.subset(sorted({*order} - {*held})), dataset.subset(sorted(held))


def hold_back_again(dataset: CocoDataset, checkpoint: Path) -> tuple[CocoDataset, CocoDataset] | None:
    """The same of a run that goes on, by the names of the photos; None if these are not all there."""
    photos = read_checkpoint(checkpoint).photos or {}
    names = [image["file_name"] for image in dataset.annotations()["images"]]
    held = set(photos.get("validation", ()))
    if not held or not held < set(names):
        return None
    places = range(len(names))
    return (
        dataset.subset([place for place in places if names[place] not in held]),
        dataset.subset([place for place in places if names[place] in held]),
    )
