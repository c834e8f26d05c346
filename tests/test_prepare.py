"""Sizes and places of pictures that are resized, and the way back."""

import numpy as np
import pytest

from minimrcnn.config import Config
from minimrcnn.data.pictures import reduce_picture, reduced_size
from minimrcnn.errors import DataError
from minimrcnn.functional import resize_bilinear
from minimrcnn.models import prepare
from minimrcnn.structures import Detections, Target


@pytest.mark.parametrize(
    "size, resized",
    [
        ((480, 640), (800, 1066)),  # 1066.7, cut off
        ((400, 1000), (533, 1333)),  # no longer than that
        ((1, 5000), (1, 1333)),  # and never without a pixel
        ((5000, 1), (1333, 1)),
    ],
)
def test_sizes(size, resized):
    assert prepare.resized(size, Config(min_size=800, max_size=1333)) == resized
    assert prepare.resized(size, Config(min_size=None)) == size


def test_a_reduced_picture_is_not_resized_once_more():
    config = Config(min_size=480, max_size=800)
    for size in [(height, width) for height in range(481, 4000, 37) for width in range(481, 4000, 41)]:
        reduced = reduced_size(size, 480, 800)
        assert prepare.resized(reduced, config) == reduced
        assert np.abs(np.subtract(reduced, prepare.resized(size, config))).max() <= 1
    assert reduced_size((479, 500), 480, 800) == (479, 500)  # a model makes it larger
    assert reduced_size((4000, 1), 480, 800) == (800, 1)


def test_a_picture_is_reduced_as_a_model_resizes_it():
    picture = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    for size in ((12, 17), (37, 20), (1, 1), (37, 50)):
        wanted = resize_bilinear(picture[None].astype(np.float32), size).numpy()[0]
        got = reduce_picture(picture, size)
        assert got.dtype == np.uint8 and np.abs(got - wanted).max() < 0.5001


def test_the_batch_is_as_large_as_its_largest_sides_rounded_up(monkeypatch):
    config = Config(min_size=None, size_divisible=64)
    pictures = [np.zeros((65, 10, 3), np.uint8), np.zeros((10, 129, 3), np.uint8)]
    assert prepare.prepare(pictures, config)[0].shape == (2, 128, 192, 3)
    monkeypatch.setattr(prepare, "MOST_PIXELS", 128 * 192)
    prepare.prepare(pictures, config)
    monkeypatch.setattr(prepare, "MOST_PIXELS", 128 * 192 - 1)
    with pytest.raises(DataError, match="pictures of 192 x 128 pixels, as this model would make them, are more than"):
        prepare.prepare(pictures, config)


def test_the_truth_moves_along():
    masks = np.zeros((1, 5, 4), np.uint8)
    masks[0, 2:, 1] = 1
    target = Target(np.float32([[1, 2, 2, 5]]), np.array([1]), masks)
    moved = prepare.resize_target(target, (10, 12))
    assert moved.boxes.tolist() == [[3, 4, 6, 10]]
    assert np.argwhere(moved.masks[0])[[0, -1]].tolist() == [[4, 3], [9, 5]]
    assert prepare.resize_target(target, (5, 4)) is target
    assert prepare.resize_target(target, (3, 4)).masks[0, :, 1].tolist() == [0, 0, 1]  # rows 0, 1 and 3


def test_the_way_back():
    found = Detections(np.float32([[3, 4, 6, 10]]), np.ones(1, int), np.float32([0.9]))
    back = prepare.restore(found, np.ones((1, 2, 2), np.float32), (10, 12), (5, 4))
    assert back.boxes.tolist() == [[1, 2, 2, 5]] and back.masks.shape == (1, 5, 4)
