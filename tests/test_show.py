"""Pictures of results: what is drawn, where, and that odd input is drawn too."""

import numpy as np
import pytest

from minimrcnn import show
from minimrcnn.structures import Detections, Target

NAMES = ("background", "square", "disc", "triangle")


def gray(height, width):
    return np.full((height, width, 3), 90, np.uint8)


def one_object(label=1):
    masks = np.zeros((1, 128, 128), np.uint8)
    masks[0, 40:80, 30:90] = 1
    return Target(np.array([[30, 40, 90, 80]], np.float32), np.array([label]), masks)


def test_an_object_is_tinted_outlined_and_boxed_in_the_color_of_its_class():
    picture = gray(128, 128)
    drawn = show.draw_target(picture, one_object(label=2), NAMES)
    assert drawn.shape == (384, 384, 3) and drawn.dtype == np.uint8
    color = show.PALETTE[1].astype(float)
    expected = 90 * (1 - show.MASK_OPACITY) + color * show.MASK_OPACITY
    np.testing.assert_allclose(drawn[180, 180], expected, atol=1)
    np.testing.assert_array_equal(drawn[180, 90], color)  # the box's left edge, x = 30 of 128
    np.testing.assert_array_equal(drawn[350, 350], 90)  # the ground stays
    assert (picture == 90).all(), "the picture itself is not drawn on"


def test_the_label_is_written_above_the_box():
    target = one_object()
    drawn = show.draw_target(gray(128, 128), target, NAMES)
    band = drawn[102:118, 92:130]  # just above y = 120, x from 90 on
    assert (band == show.PALETTE[0]).all(axis=-1).mean() > 0.3
    assert (band.sum(axis=-1) < 100).mean() > 0.05, "dark letters on a bright ground"
    unnamed = show.draw_target(gray(128, 128), target, ("background", "nucleus"))
    np.testing.assert_array_equal(unnamed[102:116, 92:130], 90)  # the only class needs no name


def test_detections_bring_their_names_and_scores():
    target = one_object()
    found = Detections(target.boxes, target.labels, np.array([0.875], np.float32), target.masks > 0, NAMES)
    assert not np.array_equal(
        show.draw_detections(gray(128, 128), found), show.draw_target(gray(128, 128), target, NAMES)
    )
    assert show.caption(1, 0.875, NAMES) == "square 0.88"
    assert show.caption(1, 0.5, ("background", "nucleus")) == "0.50"
    assert show.caption(7, None, ()) == "7"


def test_labels_do_not_cover_each_other():
    boxes = np.tile(np.array([[100.0, 100, 300, 300]]), (3, 1))
    drawn = show.draw_objects(gray(400, 400), boxes, None, np.array([1, 2, 3]), names=NAMES)
    sizes = [(drawn == color).all(axis=-1).sum() for color in show.PALETTE[:3]]
    assert sizes[1] > 150 and sizes[2] > 150, (
        "boxes are the same: what shows of the second and the third is their labels"
    )


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (600, 2), (385, 385)])
def test_odd_pictures_and_boxes_are_drawn(size):
    boxes = np.array([[0, 0, size[1], size[0]], [-50, -50, 900, 900], [0.2, 0.2, 0.3, 0.3]])
    masks = np.stack([np.ones(size), np.zeros(size), np.zeros(size)]).astype(bool)
    drawn = show.draw_objects(np.random.default_rng(0).random((*size, 3)), boxes, masks, np.array([1, 5, 90]))
    assert drawn.shape[0] % size[0] == 0 and drawn.shape[0] / size[0] == drawn.shape[1] / size[1]


def test_nothing_found_leaves_the_picture():
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32), None)
    np.testing.assert_array_equal(show.draw_detections(gray(400, 400), nothing), gray(400, 400))


def test_a_picture_of_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        show.enlarge(np.zeros((4, 4)))


def test_anchors_are_colored_by_their_match():
    anchors = np.array([[10, 10, 50, 50], [60, 60, 100, 100], [20, 70, 40, 90]])
    drawn = show.draw_anchors(gray(128, 128), anchors, np.array([2, -1, -2]))
    np.testing.assert_array_equal(drawn[90, 30], show.PALETTE[2])
    np.testing.assert_array_equal(drawn[240, 180], 128)
    np.testing.assert_array_equal(drawn[240, 60], 90)  # neither: not drawn


def test_an_outlier_does_not_darken_all_the_rest():
    values = np.linspace(0, 1, 400).reshape(20, 20)
    values[0, 0] = 1e6
    assert len(np.unique(show.feature_map(values).reshape(-1, 3), axis=0)) > 200


def test_feature_map_runs_from_dark_to_bright():
    array = np.linspace(-3, 5, 12).reshape(3, 4)
    array[1, 1] = np.nan
    picture = show.feature_map(array)
    assert picture.shape == (288, 384, 3)
    cells = picture[48::96, 48::96].astype(int)
    assert (np.diff(np.delete(cells.sum(axis=-1).ravel(), 5)) > 0).all() and (cells[1, 1] == 128).all()
    assert show.feature_map(np.zeros((2, 2))).shape == (384, 384, 3)
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        show.feature_map(np.zeros((2, 2, 2)))


def test_contact_sheet_puts_pictures_side_by_side():
    sheet = show.contact_sheet([[gray(20, 30), gray(10, 50)], [gray(5, 5)]], gap=4)
    assert sheet.shape == (4 + 20 + 4 + 5 + 4, 4 + 30 + 4 + 50 + 4, 3)
    assert (sheet == 90).all(axis=-1).sum() >= 20 * 30 + 10 * 50 + 5 * 5
    with pytest.raises(ValueError, match="no pictures"):
        show.contact_sheet([])


def test_large_pictures_and_their_objects_are_shrunk():
    picture = np.zeros((300, 100, 3), np.uint8)
    picture[100:200] = 200
    masks = np.zeros((1, 300, 100), np.uint8)
    masks[0, 100:200] = 1
    target = Target(np.array([[0, 100, 100, 200]], np.float32), np.array([1]), masks)
    small, shrunk = show.shrink(picture, target, 30)
    assert small.shape == (30, 10, 3) and shrunk.boxes.tolist() == [[0, 10, 10, 20]] and isinstance(shrunk, Target)
    np.testing.assert_array_equal(shrunk.masks[0], small[..., 0] > 0)
    assert show.shrink(picture, target, 300) == (picture, target)
    found = Detections(target.boxes, target.labels, np.ones(1), names=NAMES)
    assert show.shrink(picture, found, 30)[1].masks is None and show.shrink(picture, found, 30)[1].names == NAMES
    thin = show.shrink(np.zeros((2000, 1, 3)), found, 100)[0]
    assert thin.shape == (100, 1, 3) and thin.dtype == np.uint8


def test_the_first_box_lies_on_top():
    boxes = np.float32([[100, 100, 300, 300]] * 2)
    drawn = show.draw_objects(np.zeros((400, 400, 3), np.uint8), boxes, None, np.array([1, 2]))
    assert drawn[299, 200].tolist() == show.PALETTE[0].tolist()


def test_boxes_shrink_with_the_pixels_of_either_side():
    found = Target(np.float32([[0, 0, 1000, 3]]), np.array([1]), np.ones((1, 3, 1000), np.uint8))
    picture, smaller = show.shrink(np.zeros((3, 1000, 3), np.uint8), found, 10)
    assert picture.shape == (1, 10, 3) and smaller.boxes.tolist() == [[0, 0, 10, 1]]
