"""VIA's files, as its versions write them, and all the ways to spoil a region."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimrcnn.data.formats import open_data
from minimrcnn.data.outlines import ellipse
from minimrcnn.errors import DataError
from minimrcnn.geometry.run_lengths import polygons_to_mask
from tests.photos_made import CLOSED, HEIGHT, RECT, SQUARE, WIDTH, inside, region, save, via_entry, via_project, write


@pytest.mark.parametrize("version", [1, 2, "project"])
def test_via_reads_every_shape(tmp_path, version):
    shapes = {
        "square": SQUARE,
        "closed": CLOSED,
        "box": RECT,
        "disc": {"name": "circle", "cx": 16, "cy": 12, "r": 6.5},
        "egg": {"name": "ellipse", "cx": 16, "cy": 12, "rx": 9, "ry": 4},
        "turned": {"name": "ellipse", "cx": 16, "cy": 12, "rx": 9, "ry": 4, "theta": 0.5},
        "line": {"name": "polyline", "all_points_x": [4, 12, 12, 4], "all_points_y": [2, 2, 10, 10]},
    }
    regions = [region(shape, kind=name) for name, shape in shapes.items()]
    regions.insert(3, region({"name": "point", "cx": 3, "cy": 4}, kind="dot"))
    entries = via_entry("a.png", regions, version=version)
    write(tmp_path / "via.json", via_project(entries) if version == "project" else entries)
    save(tmp_path / "a.png")
    opened = open_data(tmp_path)
    assert (opened.format, opened.source) == ("via", "via.json")
    _, target = opened.dataset[0]
    names = [opened.dataset.class_names[label] for label in target.labels]
    assert names == list(shapes) and opened.dataset.class_names[1:] == tuple(sorted(shapes))
    masks = dict(zip(names, target.masks, strict=True))
    x, y = inside()
    square = (x > 4) & (x < 12) & (y > 2) & (y < 10)
    for name in ("square", "closed", "line"):
        np.testing.assert_array_equal(masks[name], square)
    np.testing.assert_array_equal(masks["box"], (x > 20) & (x < 26) & (y > 5) & (y < 9))
    assert (masks["disc"] != ((x - 16) ** 2 + (y - 12) ** 2 < 6.5**2)).sum() <= 8
    assert (masks["egg"] != (((x - 16) / 9) ** 2 + ((y - 12) / 4) ** 2 < 1)).sum() <= 8
    along = (x - 16) * np.cos(0.5) + (y - 12) * np.sin(0.5)
    across = (y - 12) * np.cos(0.5) - (x - 16) * np.sin(0.5)
    assert (masks["turned"] != ((along / 9) ** 2 + (across / 4) ** 2 < 1)).sum() <= 8
    np.testing.assert_array_equal(target.boxes[0], [4, 2, 12, 10])
    notes = opened.faults.describe_notes()
    assert "points left out, as they have no area: 1" in notes and "polylines closed to polygons: 1" in notes
    assert "rectangles, whose masks are filled boxes: 1" in notes
    assert opened.describe() == (
        f"{tmp_path}: VIA (via.json), 1 photo, 7 objects, 7 classes (box 1, closed 1, disc 1, egg 1, ...)"
    )


@pytest.mark.parametrize("radius", [2, 30, 400])
def test_a_circle_leaves_its_polygon_by_a_twentieth_of_a_pixel(radius):
    corners = np.reshape(ellipse(7, 9, radius, radius), (-1, 2)) - [7, 9]
    middles = (corners + np.roll(corners, 1, axis=0)) / 2
    assert 0 <= radius - np.hypot(*middles.T).min() <= 0.051  # corners are rounded to thousandths


def test_what_lies_beyond_the_photo_is_said_in_run_lengths(tmp_path):
    save(tmp_path / "a.png")
    beyond = {**SQUARE, "all_points_x": [-4, 12, 12, -4]}
    write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE), region(beyond)]))
    inner, outer = (row["segmentation"] for row in open_data(tmp_path).dataset.annotations()["annotations"])
    assert isinstance(inner, list) and outer["size"] == [HEIGHT, WIDTH]


CHECKBOX = {"cat": True, "dog": False}


@pytest.mark.parametrize(
    "attributes, option, classes",
    [
        ([{}, {}], None, ["object"]),
        ([{"animal": "cat"}, {"animal": " dog "}], None, ["cat", "dog"]),
        ([{"animal": CHECKBOX}, {"animal": {"dog": True}}], None, ["cat", "dog"]),
        ([{"animal": {"cat": "true", "dog": "false"}}, {"animal": {"dog": "true"}}], None, ["cat", "dog"]),
        ([{"animal": "cat", "Class": "b"}, {"animal": "dog", "Class": "a"}], None, ["a", "b"]),
        ([{"animal": "cat", "seen": ""}, {"animal": "dog", "seen": {}}], None, ["cat", "dog"]),
        ([{"animal": "cat", "seen": "well"}, {"animal": "dog", "seen": "badly"}], "animal", ["cat", "dog"]),
        ([{"animal": 3}, {"animal": 12}], None, ["12", "3"]),
    ],
)
def test_via_class_attribute(tmp_path, attributes, option, classes):
    entries = via_entry("a.png", [region(SQUARE, **one) for one in attributes])
    write(tmp_path / "via.json", entries)
    save(tmp_path / "a.png")
    assert open_data(tmp_path, class_attribute=option).dataset.class_names == ("background", *classes)


@pytest.mark.parametrize(
    "attributes, option, message",
    [
        (
            [{"animal": "cat", "seen": "well"}, {"animal": "dog", "seen": "well"}],
            None,
            "which attribute is the class? Name one with --class-attribute; there are 'animal' (cat 1, dog 1); "
            "'seen' (well 2)",
        ),
        ([{"class": "cat", "label": "dog"}] * 2, None, "which attribute is the class? Name one"),
        ([{"animal": "cat"}] * 2, "kind", "no region has the attribute 'kind'; there are 'animal' (cat 2)"),
        ([{}] * 2, "kind", "no region has the attribute 'kind'; there are none"),
        ([{"animal": "cat"}, {}], None, "a.png: regions[1]: attribute 'animal' is missing, wanted one class; set it"),
        ([{"animal": {"cat": True, "dog": True}}] * 2, None, "regions[0]: attribute 'animal' is 'cat' and 'dog', want"),
    ],
)
def test_via_class_attribute_refused(tmp_path, attributes, option, message):
    path = write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE, **one) for one in attributes]))
    save(tmp_path / "a.png")
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        open_data(tmp_path, class_attribute=option)
    assert str(caught.value).startswith(str(path))


BAD_SHAPES = {
    "two points": (
        {**SQUARE, "all_points_x": [1, 2], "all_points_y": [1, 2]},
        "the polygon has 2 points, wanted 3",
    ),
    "closed line": ({**SQUARE, "all_points_x": [1, 9, 1], "all_points_y": [1, 2, 1]}, "the polygon has 2 points"),
    "unequal": ({**SQUARE, "all_points_x": [1, 2, 3]}, "not two lists of one length; export the annotations again"),
    "no points": ({"name": "polygon"}, "not two lists of one length"),
    "text": ({**SQUARE, "all_points_x": [1, "2", 3, 4]}, "x is '2', wanted a finite number"),
    "NaN": ({**SQUARE, "all_points_y": [1, 2, float("nan"), 4]}, "y is nan, wanted a finite number"),
    "far": ({**SQUARE, "all_points_y": [1, 2, 3e7, 4]}, "has a coordinate that is not finite or beyond"),
    "outside": (
        {**SQUARE, "all_points_x": [40, 50, 50, 40]},
        "reaches from x 40, y 2 to x 50, y 10, wanted some of it inside the photo, 32 wide and 24 high",
    ),
    "right of it": ({**SQUARE, "all_points_x": [32, 50, 50, 32]}, "reaches from x 32, y 2 to x 50, y 10, wanted some"),
    "left of it": ({**SQUARE, "all_points_x": [-9, 0, 0, -9]}, "reaches from x -9, y 2 to x 0, y 10, wanted some"),
    "below it": ({**SQUARE, "all_points_y": [24, 24, 30, 30]}, "reaches from x 4, y 24 to x 12, y 30, wanted some"),
    "above it": ({**SQUARE, "all_points_y": [-9, -9, 0, 0]}, "reaches from x 4, y -9 to x 12, y 0, wanted some"),
    "flat box": ({**RECT, "height": 0}, "the rectangle is 6 wide and 0 high, wanted both above 0"),
    "box without x": ({"name": "rect", "y": 1, "width": 2, "height": 3}, "x is 'missing', wanted a finite number"),
    "no radius": ({"name": "circle", "cx": 1, "cy": 2, "r": -1}, "the radii are -1 and -1, wanted both above 0"),
    "unknown": ({"name": "heart"}, "the shape is 'heart', wanted one of polygon, polyline, circle, ellipse, rect"),
    "no name": ({}, "the shape is None"),
}


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_via_bad_regions_are_named(tmp_path, name):
    shape, message = BAD_SHAPES[name]
    path = write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE), region(shape)]))
    save(tmp_path / "a.png")
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        open_data(tmp_path)
    assert str(caught.value).startswith(f"{path}: a.png: regions[1]: ")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda entry: entry.pop("filename"), "an entry holds"),
        (lambda entry: entry.update(regions=5), "regions is 5, wanted a list or an object"),
        (lambda entry: entry.update(regions=[7]), "holds 7, wanted shape_attributes"),
        (lambda entry: entry["regions"][0].update(region_attributes=3), "region_attributes is 3, wanted an object"),
        (lambda entry: entry.update(filename="b.png"), "file name 'b.png': no such photo in"),
        (lambda entry: entry.update(filename="../../etc/passwd"), "no such photo in"),
        (lambda entry: entry.update(filename=""), "no such photo in"),
    ],
)
def test_via_bad_entries(tmp_path, change, message):
    entries = via_entry("a.png", [region(SQUARE)])
    change(entries["a.png-1"])
    write(tmp_path / "via.json", via_project(entries))
    save(tmp_path / "a.png")
    with pytest.raises(DataError, match=re.escape(message)):
        open_data(tmp_path)


def test_via_photos_of_one_name_are_told_apart_by_their_bytes(tmp_path):
    first, second = save(tmp_path / "x" / "a.png"), save(tmp_path / "y" / "a.png", 48, 64, value=3)
    entries = via_entry("a.png", [region(SQUARE)], second.stat().st_size)
    assert first.stat().st_size != second.stat().st_size
    path = write(tmp_path / "via.json", entries)
    assert open_data(tmp_path).dataset[0][0].shape == (48, 64, 3)
    write(path, via_entry("a.png", [region(SQUARE)]))
    with pytest.raises(DataError, match=re.escape("file name 'a.png' may mean x/a.png or y/a.png")):
        open_data(tmp_path)


@pytest.mark.parametrize("mark", ["", "#", "\ufeff"])
def test_the_export_in_csv_says_which_one_is_wanted(tmp_path, mark):
    columns = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    save(tmp_path / "a.png")
    path = tmp_path / "via_region_data.csv"
    path.write_text(f'{mark}{columns}\na.png,12,"{{}}",0,0,"{{}}","{{}}"\n', encoding="utf-8")
    for data in (tmp_path, path):
        with pytest.raises(DataError, match=re.escape(f"{path}: this is VIA's export in CSV, wanted the one in JSON")):
            open_data(data)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-10, 40), st.integers(-10, 30)), min_size=3, max_size=9, unique=True))
def test_any_polygon_is_read_clipped_or_refused(tmp_path_factory, points):
    folder = tmp_path_factory.mktemp("polygon")
    save(folder / "a.png")
    xs, ys = ([float(point[axis]) for point in points] for axis in (0, 1))
    write(
        folder / "via.json", via_entry("a.png", [region({"name": "polygon", "all_points_x": xs, "all_points_y": ys})])
    )
    mask = polygons_to_mask([[value for point in points for value in point]], (HEIGHT, WIDTH))
    try:
        dataset = open_data(folder).dataset
    except DataError as error:
        assert "wanted some of it inside the photo" in str(error) and not mask.any()
        return
    _, target = dataset[0]
    if mask.any():
        np.testing.assert_array_equal(target.masks[0], mask)
        rows, columns = np.nonzero(mask)
        assert target.boxes[0].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    else:
        assert not len(target.masks)
