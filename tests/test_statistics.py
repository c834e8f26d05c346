"""What is counted before a training, to the letter."""

from types import SimpleNamespace

import numpy as np

from minimrcnn.data.statistics import bars, describe_statistics, measure, octaves, ratio_bins


def data_set(boxes, names=("cell",), crowds=0):
    """A photo 200 wide and 100 high with these (class, width, height), and a smaller one of crowds."""
    rows = [
        {"image_id": 7, "category_id": 10 + label, "bbox": [0, 0, width, height], "iscrowd": 0}
        for label, width, height in boxes
    ]
    rows += [{"image_id": 9, "category_id": 10, "bbox": [0, 0, 5, 5], "iscrowd": 1}] * crowds
    images = [{"id": 7, "width": 200, "height": 100}, {"id": 9, "width": 150, "height": 80}]
    return SimpleNamespace(
        annotations=lambda: {"images": images, "annotations": rows},
        class_names=("background", *names),
        category_ids=(None, *range(10, 10 + len(names))),
    )


def test_in_words():
    dataset = data_set([(0, 16, 4), (1, 4, 16), (1, 4, 16)], ("cell", "rod"), crowds=3)
    assert describe_statistics(measure(dataset)).splitlines() == [
        "photos      2, 150 to 200 wide, 80 to 100 high, 1 without an object",
        "objects     3, 0 to 3 a photo, 1.5 in the middle one; and 3 crowd regions, which are not learned from",
        "",
        "class       objects   photos",
        "rod               2        1",
        "cell              1        1",
        "",
        "size in pixels (side of a square as large as the box)",
        "  8 to 16  ######################################## 3",
        "",
        "height over width",
        "  0.25 to 0.35  ####################                     1",
        "  0.35 to 0.50                                           0",
        "  0.50 to 0.71                                           0",
        "  0.71 to 1.00                                           0",
        "  1.00 to 1.41                                           0",
        "  1.41 to 2.00                                           0",
        "  2.00 to 2.83                                           0",
        "  2.83 to 4.00  ######################################## 2",
    ]


def test_of_many_classes_all_are_listed():
    """The rarest, the last ones, are where slips are."""
    names = [f"class {number}" for number in range(100)]
    lines = describe_statistics(measure(data_set([(label, 4, 4) for label in range(100)], names))).splitlines()
    assert [line.split("  ")[0].strip() for line in lines if line.startswith("class ")][1:] == names


def test_no_size_and_no_form_falls_out_of_the_bins():
    edges, counts = octaves(np.array([4.0, 7.9, 8.0, 16.0]))
    assert edges.tolist() == [4, 8, 16, 32] and counts.tolist() == [2, 1, 1]
    assert ratio_bins(np.array([0.01, 1.0, 100.0]))[1].tolist() == [1, 0, 0, 0, 1, 0, 0, 1]


def test_one_of_many_is_seen():
    assert bars(np.array([0, 1, 2]), np.array([1, 1000]), "{:g} to {:g}")[0].count("#") == 1
