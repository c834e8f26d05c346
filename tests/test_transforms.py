"""Transforms keep picture, boxes and masks together: the masks' tight boxes stay the boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn.data import Compose, RandomColor, RandomCrop, RandomFlip, RandomRotate90, RandomScale
from minimrcnn.data import transforms as T
from minimrcnn.structures import Target

sides = st.integers(1, 24)
seeds = st.integers(0, 2**32)
transforms = st.sampled_from(
    [
        RandomFlip(),
        RandomRotate90(),
        RandomScale(0.5, 2),
        RandomCrop(9, 7, min_pixels=1, min_share=0),
        RandomColor(),
        Compose([RandomColor(), RandomFlip(), RandomRotate90(), RandomScale(0.3, 3), RandomCrop(12, 12)]),
    ]
)


def make_sample(height, width, objects, seed):
    """A picture whose first channel holds the number of the object seen, and its Target."""
    generator = np.random.default_rng(seed)
    owner = np.zeros((height, width), np.int64)  # 0 is the ground
    for number in range(1, objects + 1):
        top, left = generator.integers(height), generator.integers(width)
        owner[top : top + generator.integers(1, height + 1), left : left + generator.integers(1, width + 1)] = number
    seen = np.unique(owner[owner > 0])
    masks = (owner == seen[:, None, None]).astype(np.uint8)
    picture = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture[..., 0] = owner
    return picture, Target(T.tight_boxes(masks), seen, masks)


def assert_sound(picture, target):
    objects = len(target.labels)
    assert target.boxes.shape == (objects, 4) and target.boxes.dtype == np.float32
    assert target.masks.shape == (objects, *picture.shape[:2]) and target.masks.dtype == np.uint8
    assert picture.flags.c_contiguous and target.masks.flags.c_contiguous and target.boxes.flags.c_contiguous
    assert target.masks.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(target.boxes, T.tight_boxes(target.masks))


@given(sides, sides, st.integers(0, 4), seeds, transforms)
def test_boxes_stay_tight_and_nothing_is_changed_in_place(height, width, objects, seed, transform):
    picture, target = make_sample(height, width, objects, seed)
    before = picture.copy(), target.boxes.copy(), target.masks.copy()
    result = transform(picture, target, np.random.default_rng(seed))
    assert_sound(*result)
    for array, copy in zip((picture, target.boxes, target.masks), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    again = transform(picture, target, np.random.default_rng(seed))
    np.testing.assert_array_equal(result[0], again[0])
    np.testing.assert_array_equal(result[1].masks, again[1].masks)


@given(sides, sides, st.integers(1, 4), seeds)
def test_masks_go_where_their_pixels_go(height, width, objects, seed):
    picture, target = make_sample(height, width, objects, seed)
    generator = np.random.default_rng(seed)
    moved = (
        T.flip_horizontal(picture, target),
        T.flip_vertical(picture, target),
        T.rotate90(picture, target, int(generator.integers(4))),
        RandomCrop(height // 2 + 1, width // 2 + 1, min_pixels=0, min_share=0)(picture, target, generator),
    )
    for changed, found in moved:
        for label, mask in zip(found.labels, found.masks, strict=True):
            np.testing.assert_array_equal(mask, changed[..., 0] == label)


@given(sides, sides, seeds)
def test_flips_and_turns_undo_themselves(height, width, seed):
    picture, target = make_sample(height, width, 3, seed)
    twice = [flip(*flip(picture, target)) for flip in (T.flip_horizontal, T.flip_vertical, T.transpose)]
    twice.append(T.rotate90(*T.rotate90(picture, target, 3), 1))
    for same, found in twice:
        np.testing.assert_array_equal(same, picture)
        np.testing.assert_array_equal(found.boxes, target.boxes)
    np.testing.assert_array_equal(T.rotate90(picture, target, 1)[0], np.rot90(picture))


def test_boxes_that_are_not_tight_are_flipped_as_they_are():
    picture, _ = make_sample(10, 20, 0, 0)
    masks = np.zeros((1, 10, 20), np.uint8)
    masks[0, 4:6, 4:6] = 1
    target = Target(np.array([[2.5, 3, 7, 8.25]], np.float32), np.array([1]), masks)
    assert T.flip_horizontal(picture, target)[1].boxes.tolist() == [[13, 3, 17.5, 8.25]]
    assert T.flip_vertical(picture, target)[1].boxes.tolist() == [[2.5, 1.75, 7, 7]]
    assert T.crop(picture, target, 1, 2, 9, 18, min_pixels=1)[1].boxes.tolist() == [[0.5, 2, 5, 7.25]]
    assert T.crop(picture, target, 5, 2, 5, 18, min_pixels=1)[1].boxes.tolist() == [[2, 0, 4, 1]], "cut: tight"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resize_of_a_smooth_picture(dtype):
    ramp = np.tile(np.linspace(0, 200, 16)[:, None, None], (1, 8, 3))
    picture = ramp.astype(dtype) if dtype == np.uint8 else (ramp / 255).astype(dtype)
    masks = np.zeros((2, 16, 8), np.uint8)
    masks[0, :8] = 1
    masks[1, 9, 3] = 1  # a single pixel: lost when shrinking
    target = Target(T.tight_boxes(masks), np.array([1, 2]), masks)
    larger, found = T.resize(picture, target, 32, 24)
    assert larger.shape == (32, 24, 3) and larger.dtype == dtype
    np.testing.assert_allclose(larger[1:-1:2].mean(axis=0), picture.mean(axis=0)[0, 0], rtol=0.05)
    assert found.boxes.tolist() == [[0, 0, 24, 16], [9, 18, 12, 20]]
    _, found = T.resize(picture, target, 4, 2)
    assert found.labels.tolist() == [1] and found.boxes.tolist() == [[0, 0, 2, 2]]


def test_crop_drops_what_is_hardly_left():
    picture = np.zeros((20, 20, 3), np.uint8)
    masks = np.zeros((3, 20, 20), np.uint8)
    masks[0, :, :10] = 1  # 200 pixels, of which the crop keeps 20
    masks[1, 2:4, 7:10] = 1  # 6 pixels, of which it keeps 4
    masks[2, :, 12:] = 1
    target = Target(T.tight_boxes(masks), np.array([1, 2, 3]), masks)
    kept = {
        limits: T.crop(picture, target, 0, 8, 10, 12, *limits)[1].labels.tolist()
        for limits in ((1, 0.0), (5, 0.0), (1, 0.15), (21, 0.7))
    }
    assert kept == {(1, 0.0): [1, 2, 3], (5, 0.0): [1, 3], (1, 0.15): [2, 3], (21, 0.7): []}


def test_crop_keeps_small_objects_that_it_does_not_cut():
    masks = np.zeros((2, 20, 20), np.uint8)
    masks[0, 5, 5] = masks[1, 9, 9:12] = 1  # one pixel, well inside; three, of which the crop keeps one
    target = Target(T.tight_boxes(masks), np.array([1, 2]), masks)
    _, found = T.crop(np.zeros((20, 20, 3), np.uint8), target, 0, 0, 10, 10)
    assert found.labels.tolist() == [1] and found.boxes.tolist() == [[5, 5, 6, 6]]


def test_limits_of_what_a_crop_drops():
    picture, masks = np.zeros((32, 32, 3), np.uint8), np.zeros((3, 32, 32), np.uint8)
    masks[0], masks[1, :10, :20], masks[2, 20:, 20:] = 1, 1, 1
    target = Target(T.tight_boxes(masks), np.array([1, 2, 3]), masks)
    # 256 pixels of the first, more than a byte counts; of the second 20 of 200, a tenth, which is enough; of the third
    # none, which never is.
    found = T.crop(picture, target, 0, 0, 1, 20, 0, 0.1)[1], T.crop(picture, target, 0, 0, 16, 16, 0, 0.0)[1]
    assert [part.labels.tolist() for part in found] == [[2], [1, 2]]


def test_a_box_that_is_cut_off_whole_is_made_anew():
    """It lay beside its mask, which is all there."""
    masks = np.zeros((1, 20, 20), np.uint8)
    masks[0, 5:9, 12:18] = 1
    target = Target(np.float32([[2, 5, 8, 9]]), np.array([1]), masks)
    assert T.crop(np.zeros((20, 20, 3), np.uint8), target, 0, 10, 20, 10)[1].boxes.tolist() == [[2, 5, 8, 9]]


def test_masks_shrink_to_the_pixels_at_the_centers():
    masks = np.zeros((1, 4, 6), np.uint8)
    masks[0, 1, 4] = 1  # the middle of three columns, the lower of two rows
    target = Target(T.tight_boxes(masks), np.array([1]), masks)
    assert T.resize(np.zeros((4, 6, 3), np.uint8), target, 2, 2)[1].boxes.tolist() == [[1, 0, 2, 1]]


def test_doubling_is_as_likely_as_halving():
    class Middle:
        def uniform(self, low, high):
            return (low + high) / 2

    picture, target = make_sample(10, 20, 1, 0)
    assert RandomScale(0.5, 2)(picture, target, Middle())[0].shape == picture.shape


def test_random_crop_leaves_small_pictures_alone_and_reaches_every_place():
    picture, target = make_sample(4, 30, 2, 1)
    generator = np.random.default_rng(0)
    assert RandomCrop(4, 30)(picture, target, generator)[0] is picture
    picture[..., 1] = np.arange(30)
    lefts = {int(RandomCrop(9, 28)(picture, target, generator)[0][0, 0, 1]) for _ in range(50)}
    assert lefts == {0, 1, 2}


@given(seeds)
def test_color_does_what_its_arguments_say(seed):
    generator = np.random.default_rng(seed)
    picture = generator.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    order, gain, offset = generator.permutation(3), generator.uniform(0.5, 1.5, 3), generator.uniform(-0.3, 0.3, 3)
    for invert in (False, True):
        value = picture[..., order] / 255.0
        expected = (gain * (1 - value if invert else value) + offset).clip(0, 1)
        for given_picture in (picture, (picture / 255).astype(np.float32)):
            changed = T.change_color(given_picture, order, invert, gain, offset)
            assert changed.dtype == np.float32
            np.testing.assert_allclose(changed, expected, atol=1e-6)


def test_color_reaches_every_order_and_both_signs():
    picture = np.zeros((1, 1, 3), np.uint8)
    picture[0, 0] = 10, 120, 230
    transform, generator = RandomColor(gain=0, offset=0), np.random.default_rng(0)
    seen = {tuple(transform(picture, None, generator)[0].ravel().round(3).tolist()) for _ in range(200)}
    assert len(seen) == 12


def test_tight_boxes_of_nothing_are_zeros():
    assert T.tight_boxes(np.zeros((0, 5, 5), np.uint8)).shape == (0, 4)
    assert T.tight_boxes(np.zeros((2, 5, 5), np.uint8)).tolist() == [[0] * 4] * 2
    assert T.tight_boxes(np.eye(3, dtype=np.uint8)[None, :, :]).tolist() == [[0, 0, 3, 3]]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="low is 2 and high 1"):
        RandomScale(2, 1)
    with pytest.raises(ValueError, match="height is 0"):
        RandomCrop(0, 5)
    with pytest.raises(ValueError, match="horizontal is 7 and vertical 0.5, wanted 0 to 1"):
        RandomFlip(7)
    with pytest.raises(ValueError, match="gain is 0.3 and offset -1, wanted 0 to 1"):
        RandomColor(offset=-1)


@pytest.mark.parametrize("place", [(-2, 0, 5, 5), (0, 0, 0, 5), (6, 0, 5, 5), (0, 6, 5, 5), (0, -1, 5, 5)])
def test_a_crop_lies_in_the_picture(place):
    top, left, height, width = place
    message = f"crop: {height} x {width} pixels from row {top} and column {left} on, wanted .* picture of 10 x 10"
    with pytest.raises(ValueError, match=message):
        T.crop(*make_sample(10, 10, 1, 0), *place)
