"""Photos to validate on: none that is trained on, here or before."""

import numpy as np
import pytest
from PIL import Image

from minimrcnn.data.coco import CocoDataset
from minimrcnn.data.folder import fingerprint
from minimrcnn.hold_back import count_seen, hold_back, hold_back_again, read_photos
from minimrcnn.training.checkpoint import save_checkpoint
from minimrcnn.training.options import TrainOptions
from tests.tiny_model import TinyModel


@pytest.fixture
def photos(tmp_path):
    """A data set of so many photos of a folder, made when they are first asked for."""

    def make(count):
        paths = {number: tmp_path / f"{number}.png" for number in range(1, count + 1)}
        for number, path in paths.items():
            if not path.exists():
                Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(path)
        images = [{"id": id, "file_name": path.name, "height": 4, "width": 5} for id, path in paths.items()]
        return CocoDataset.of_rows({"images": images, "annotations": [], "categories": []}, paths)

    return make


def test_a_fifth_and_the_same_for_a_seed(photos):
    dataset = photos(10)
    training, validation = hold_back(dataset, 3)
    assert len(validation) == 2 and sorted(training.image_ids + validation.image_ids) == dataset.image_ids
    assert training.image_ids == sorted(training.image_ids)
    assert hold_back(dataset, 3)[1].image_ids == validation.image_ids == dataset.split(0.2, 3)[1].image_ids
    assert len(hold_back(photos(2), 0)[1]) == 1


@pytest.mark.parametrize("added", [0, 1, 5, 20])
def test_what_was_trained_on_is_not_held_back_when_photos_are_added(photos, added):
    training, validation = hold_back(photos(10), 0)
    seen = [fingerprint(path) for path in training.paths]
    assert count_seen(training, seen) == 8 and count_seen(validation, seen) == 0
    more, held = hold_back(photos(10 + added), 0, seen)
    assert (
        count_seen(held, seen) == 0
        and len(held) == round(0.2 * (10 + added))
        and len(more) == 8 + added + 2 - len(held)
    )
    if not added:
        assert held.image_ids == validation.image_ids


def test_where_all_was_trained_on_some_is_held_back_all_the_same(photos):
    dataset = photos(5)
    seen = [fingerprint(path) for path in dataset.paths]
    assert len(hold_back(dataset, 0, seen)[1]) == 1
    assert len(hold_back(photos(12), 0, seen)[0]) == 10


def test_a_run_goes_on_with_the_photos_that_were_held_back(photos, tmp_path):
    dataset = photos(5)
    names = {"validation": ["2.png", "4.png"], "training": ["1.png", "3.png", "5.png"]}
    save_checkpoint(tmp_path / "checkpoint.npz", TinyModel(), None, TrainOptions(), 5, finished=True, photos=names)
    training, validation = hold_back_again(dataset, tmp_path / "checkpoint.npz")
    assert training.image_ids == [1, 3, 5] and validation.image_ids == [2, 4]
    assert hold_back_again(photos(3), tmp_path / "checkpoint.npz") is None  # one of them is gone
    save_checkpoint(tmp_path / "older.npz", TinyModel(), None, TrainOptions(), 5, finished=True)
    assert hold_back_again(dataset, tmp_path / "older.npz") is None


def test_a_model_says_what_it_was_trained_on(photos, tmp_path):
    model = TinyModel()
    model.trained_on, model.validated_on = ("4b-00", "4c-11"), ("4d-22",)
    save_checkpoint(tmp_path / "checkpoint.npz", model, None, TrainOptions(), 5, finished=True)
    assert read_photos(tmp_path / "checkpoint.npz") == (model.trained_on, model.validated_on)
    assert read_photos(None) == ((), ())


@pytest.mark.parametrize("added, new", [(5, 1), (10, 2), (50, 10)])
def test_what_was_held_back_is_held_back_again_before_what_is_new(photos, added, new):
    """A fifth of the photos that are added to ten, more than which would be kept from being learned."""
    training, validation = hold_back(photos(10), 0)
    seen, before = ([fingerprint(path) for path in part.paths] for part in (training, validation))
    _, held = hold_back(photos(10 + added), 1, seen, before)
    assert set(validation.image_ids) < set(held.image_ids) and sum(id > 10 for id in held.image_ids) == new
