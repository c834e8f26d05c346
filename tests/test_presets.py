"""How the small model is fitted to a data set, at every limit."""

import pytest

from minimrcnn.models.presets import (
    choose_anchor_sizes,
    choose_detections,
    choose_min_size,
    object_sizes,
    small_config,
)


def data(height, width, sides=()):
    """A photo with square objects."""
    rows = [{"image_id": 1, "bbox": [0, 0, side, side], "iscrowd": 0} for side in sides]
    return {"images": [{"id": 1, "height": height, "width": width}], "annotations": rows}


@pytest.mark.parametrize(
    "height, width, sides, size",
    [
        (720, 1200, [], None),  # large is what has more
        (1200, 721, [], 480),
        (960, 960, [32] * 5, 480),  # 16 pixels are enough
        (960, 960, [31.9] * 5, 640),
        (960, 960, [20, 20, 32, 32, 32], 800),  # of all but the smallest quarter
        (960, 960, [1, 32, 32, 32, 32], 480),
        (960, 960, [2] * 5, 960),
    ],
)
def test_input_size(height, width, sides, size):
    assert choose_min_size(data(height, width, sides)) == size


def test_long_pictures_are_reduced_further():
    assert object_sizes(data(100, 1000, [50]), 480) == pytest.approx([50 * 0.8])  # 800 pixels long, not 4800
    assert object_sizes(data(100, 1000, [50])) == [50]
    sizes = [small_config(("background", "a"), min_size=size).max_size for size in (480, 640, None)]
    assert sizes == [800, 1067, 1333]


def test_the_small_model_is_that_of_the_readme():
    config = small_config(("background", "a"))
    assert (config.backbone, config.norm, config.pyramid_channels) == ("resnet18", "group", 64)
    assert (config.box_head_channels, config.mask_head_channels) == (256, (64, 64, 64, 64))
    assert (config.rpn_pre_nms_top_n_train, config.rpn_pre_nms_top_n_test) == (1000, 1000)
    assert (config.rpn_post_nms_top_n_train, config.box_batch_size_per_image) == (1000, 128)


@pytest.mark.parametrize("middle, smallest", [(2, 4), (10, 4), (12, 8), (64, 32), (128, 64), (1000, 64), (None, 32)])
def test_anchors_begin_an_octave_below_the_middle_object(middle, smallest):
    sides = [] if middle is None else [1, middle, 2000]
    assert choose_anchor_sizes(data(4000, 4000, sides)) == tuple(smallest * 2**level for level in range(5))


@pytest.mark.parametrize(
    "objects, most, candidates, proposals",
    [(0, 100, 1000, 300), (50, 100, 1000, 300), (51, 102, 1000, 306), (200, 400, 2000, 1200)],
)
def test_twice_as_many_detections_as_objects(objects, most, candidates, proposals):
    assert choose_detections(data(100, 100, [5] * objects)) == most
    config = small_config(("background", "a"), detections=most)
    assert (config.rpn_pre_nms_top_n_test, config.rpn_post_nms_top_n_test) == (candidates, proposals)
