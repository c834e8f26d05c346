"""COCO data sets: two small pictures made here, every way to spoil their file, and the real ones where they are."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minimrcnn import Config
from minimrcnn.data import coco
from minimrcnn.data.coco import CocoDataset, CocoFolder, count_objects, read_annotations
from minimrcnn.data.faults import Faults
from minimrcnn.data.pictures import reduce_picture
from minimrcnn.data.statistics import describe_statistics, measure
from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths
from minimrcnn.geometry.checks import check_target
from minimrcnn.models.coverage import resized_boxes
from minimrcnn.models.prepare import resize_target
from minimrcnn.models.presets import object_sizes
from minimrcnn.structures import Target

DATA = Path(__file__).parents[2] / "shared" / "data"
SQUARE = [2, 1, 5, 1, 5, 4, 2, 4]  # x 2 to 5, y 1 to 4
DOCUMENT = {
    "images": [
        {"id": 30, "file_name": "a.png", "width": 10, "height": 8},
        {"id": 20, "file_name": "b.png", "width": 6, "height": 8},
        {"id": 10, "file_name": "c.png", "width": 6, "height": 8},
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
    "annotations": [
        {"id": 5, "image_id": 30, "category_id": 7, "bbox": [2, 1, 3, 3], "segmentation": [SQUARE], "area": 9.5},
        {
            "id": 6,
            "image_id": 30,
            "category_id": 3,
            "bbox": [0, 0, 1, 2],
            "segmentation": {"size": [8, 10], "counts": [0, 2, 78]},
            "iscrowd": 0,
        },
        {
            "id": 7,
            "image_id": 30,
            "category_id": 3,
            "bbox": [4.5, 0, 5.5, 8],
            "segmentation": {"size": [8, 10], "counts": run_lengths.to_string([40, 40])},
            "iscrowd": 1,
            "area": 40,
        },
        {"id": 9, "image_id": 20, "category_id": 3, "bbox": [-0.4, 5, 6.9, 3.5], "segmentation": [[0, 5, 6, 5, 3, 8]]},
        {"id": 8, "image_id": 20, "category_id": 3, "bbox": [1, 1, 0.1, 0.1], "segmentation": [[1, 1, 1.1, 1, 1, 1.1]]},
    ],
}


def write(folder, document=DOCUMENT, exif=None):
    """A data folder; the pictures are those of DOCUMENT whatever the document says."""
    (folder / "images").mkdir(exist_ok=True)
    for image in DOCUMENT["images"]:
        pixels = np.full((image["height"], image["width"], 3), image["id"], np.uint8)
        Image.fromarray(pixels).save(folder / "images" / image["file_name"], exif=exif)
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "annotations.json").write_text(text, encoding="utf-8")
    return folder


def test_items_are_pictures_and_targets(tmp_path):
    dataset = CocoFolder(write(tmp_path))
    assert len(dataset) == 3
    assert dataset.class_names == ("background", "cat", "dog")
    assert dataset.category_ids == (None, 3, 7)
    assert dataset.image_ids == [30, 20, 10]

    picture, target = dataset[0]  # the crowd region is left out
    assert picture.shape == (8, 10, 3) and (picture == 30).all()
    np.testing.assert_array_equal(target.boxes, np.array([[2, 1, 5, 4], [0, 0, 1, 2]], np.float32))
    np.testing.assert_array_equal(target.labels, [2, 1])
    wanted = np.zeros((2, 8, 10), np.uint8)
    wanted[0, 1:4, 2:5] = wanted[1, :2, 0] = 1
    np.testing.assert_array_equal(target.masks, wanted)
    assert (target.boxes.dtype, target.labels.dtype, target.masks.dtype) == (np.float32, np.int64, np.uint8)

    assert dataset.empty_masks == set()
    _, target = dataset[1]  # the box is clipped, the object without pixels is left out
    np.testing.assert_allclose(target.boxes, [[0, 5, 6, 8]])
    assert dataset.empty_masks == {8}

    picture, target = dataset[-1]  # nothing on it
    assert (picture == 10).all() and target.boxes.shape == (0, 4) and target.masks.shape == (0, 8, 6)
    with pytest.raises(IndexError):
        dataset[3]


def test_large_photos_are_read_at_the_size_that_a_model_wants(tmp_path, monkeypatch):
    """The picture, boxes and masks that the model would make of the whole ones, in a fraction of the memory."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    star = [45, 3, 80, 50, 5, 20, 85, 20, 10, 50]
    rows = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 3, 80, 47], "segmentation": [star], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 90, 60], "iscrowd": 0,
         "segmentation": {"size": [60, 90], "counts": [0, 5400]}},
    ]  # fmt: skip
    image = {"id": 1, "file_name": "a.png", "height": 60, "width": 90}
    document = {"images": [image], "categories": [{"id": 1, "name": "star"}], "annotations": rows}
    (tmp_path / "images").mkdir()
    Image.fromarray(picture).save(tmp_path / "images" / "a.png")
    (tmp_path / "annotations.json").write_text(json.dumps(document))

    whole = CocoFolder(tmp_path)
    small = whole.reduced(20, 100)
    _, target = whole[0]
    got_picture, got = small[0]
    wanted = resize_target(target, (20, 30))
    np.testing.assert_array_equal(got.masks, wanted.masks)
    np.testing.assert_array_equal(got.boxes, wanted.boxes)
    np.testing.assert_array_equal(got_picture, reduce_picture(picture, (20, 30)))
    np.testing.assert_array_equal(small.picture(0), got_picture)
    np.testing.assert_array_equal(whole.picture(0), picture)
    assert small.annotations() == whole.annotations()
    for same in (whole.reduced(None, 100), whole.reduced(70, 100), small.reduced(None, 1)):
        np.testing.assert_array_equal(same[0][1].masks, target.masks)
    monkeypatch.setattr(coco, "MOST_MASK_PIXELS", 2 * 20 * 30)
    assert len(small[0][1].masks) == 2
    with pytest.raises(DataError, match="2 masks of 90 x 60 pixels are more than"):
        whole[0]


def test_an_object_of_nothing_is_kept_for_scores_alone(tmp_path):
    """Two of COCO's training photos of 2017 have one: a box that is not high, around a mask without a pixel."""
    document = copy.deepcopy(DOCUMENT)
    line = [2.5, 3, 2.5, 3, 4.5, 3, 4.5, 3]
    document["annotations"].append(
        {"id": 918, "image_id": 30, "category_id": 7, "bbox": [2.5, 3, 2, 0], "segmentation": [line], "area": 0.3}
    )
    plain, dataset = CocoFolder(write(tmp_path)), CocoFolder(write(tmp_path, document))
    np.testing.assert_array_equal(dataset[0][1].boxes, plain[0][1].boxes)
    assert dataset.empty_masks == {918}
    rows, plain_rows = dataset.annotations(), plain.annotations()
    assert 918 in [row["id"] for row in rows["annotations"]]
    assert count_objects(dataset) == count_objects(plain)
    assert describe_statistics(measure(dataset)) == describe_statistics(measure(plain))
    assert object_sizes(rows) == object_sizes(plain_rows)
    for found, wanted in zip(resized_boxes(rows, Config()), resized_boxes(plain_rows, Config()), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_annotations_keep_the_crowd_and_fill_in_areas(tmp_path):
    document = CocoFolder(write(tmp_path)).annotations()
    assert [row["id"] for row in document["annotations"]] == [5, 6, 7, 9, 8]
    assert [row["iscrowd"] for row in document["annotations"]] == [0, 0, 1, 0, 0]
    areas = [row["area"] for row in document["annotations"]]
    assert areas[:3] == [9.5, 2, 40] and 5 <= areas[3] <= 12 and areas[4] == 0
    json.dumps(document)


def test_a_crowd_may_be_true_or_false(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    for row in document["annotations"]:
        row["iscrowd"] = row.get("iscrowd", 0) == 1
    found = CocoFolder(write(tmp_path, document)).annotations()["annotations"]
    assert [json.dumps(row["iscrowd"]) for row in found] == ["0", "0", "1", "0", "0"]


def test_subset_and_split(tmp_path):
    dataset = CocoFolder(write(tmp_path))
    part = dataset.subset([2, 0])
    assert part.image_ids == [10, 30] and (part[0][0] == 10).all() and len(part[1][1].boxes) == 2
    assert [row["id"] for row in part.annotations()["annotations"]] == [5, 6, 7]
    assert part.category_ids == dataset.category_ids and len(dataset) == 3
    rest, held = dataset.split(1 / 3, seed=4)
    assert (len(rest), len(held)) == (2, 1) and set(rest.image_ids + held.image_ids) == {10, 20, 30}
    assert len(dataset.split(0.6)[1]) == 2  # 1.8 pictures are nearer to two than to one
    assert dataset.split(1 / 3, seed=4)[1].image_ids == held.image_ids
    in_order = dataset.image_ids
    for seed in range(5):
        for part in (dataset.split(1 / 3, seed)[0], dataset.split(2 / 3, seed)[1]):
            assert part.image_ids == sorted(part.image_ids, key=in_order.index)
    assert len({dataset.split(1 / 3, seed=seed)[1].image_ids[0] for seed in range(20)}) == 3
    for wrong in ([], [0, 0], [0, -3]):
        with pytest.raises(ValueError, match="wanted one or more, none twice"):
            dataset.subset(wrong)
    with pytest.raises(IndexError):
        dataset.subset([3])
    left, right = dataset.subset([0]), dataset.subset([1])
    assert len(right[0][1].boxes) == 1 and right.empty_masks == {8} and not left.empty_masks | dataset.empty_masks
    with pytest.raises(ValueError, match="fraction 0.01 of 3 pictures leaves one part empty"):
        dataset.split(0.01)


def test_classes_are_renumbered_by_name(tmp_path):
    dataset = CocoFolder(write(tmp_path))  # cat is 3, dog 7
    other = dataset.renumbered(("nothing", "dog", "emu", "cat"), (None, 9, 4, 5))
    assert other.class_names == ("background", "dog", "emu", "cat") and other.category_ids == (None, 9, 4, 5)
    assert dataset[0][1].labels.tolist() == [2, 1] and other[0][1].labels.tolist() == [1, 3]
    assert [row["category_id"] for row in other.annotations()["annotations"]] == [9, 5, 5, 5, 5]
    assert other.annotations()["categories"] == [
        {"id": 9, "name": "dog"},
        {"id": 4, "name": "emu"},
        {"id": 5, "name": "cat"},
    ]
    back = other.renumbered(dataset.class_names, dataset.category_ids)  # no object is of an emu
    assert back.annotations() == dataset.annotations()
    with pytest.raises(DataError, match="classes that are not known, cat; wanted dog, emu; rename them, or train"):
        dataset.renumbered(("nothing", "dog", "emu"), (None, 1, 2))
    document = copy.deepcopy(DOCUMENT)
    for row in document["annotations"]:
        row["iscrowd"] = int(row["category_id"] == 3)
    rows = CocoFolder(write(tmp_path, document)).renumbered(("nothing", "dog"), (None, 1)).annotations()["annotations"]
    assert rows and {row["category_id"] for row in rows} == {1}  # the crowds of cats are gone


def spoiled(path, value=None, remove=False):
    """DOCUMENT with the entry at ``path`` replaced or removed; a path ending in -1 appends."""
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path
    place = document
    for key in parents:
        place = place[key]
    if remove:
        del place[last]
    elif last == -1:
        place.append(value)
    else:
        place[last] = value
    return document


@pytest.mark.parametrize("outline", [[0, 0, 0, 3, 0, 5], [1, 1, 3, 1, 2, 1]])
def test_a_box_without_height_may_have_an_outline_without_pixels(tmp_path, outline):
    """COCO's own training set has two such; they are left out."""
    row = {"id": 99, "image_id": 30, "category_id": DOCUMENT["annotations"][0]["category_id"], "iscrowd": 0}
    row |= {"bbox": [5, 4, 2, 0], "segmentation": [outline], "area": 0}
    write(tmp_path, spoiled(["annotations", -1], row))
    assert len(read_annotations(tmp_path / "annotations.json")["annotations"]) == 6


def test_boxes_alone_are_enough_without_masks(tmp_path):
    document = spoiled(["annotations", 0, "segmentation"], [[]])
    del document["annotations"][0]["area"], document["annotations"][3]["segmentation"]
    file, faults = write(tmp_path, document) / "annotations.json", Faults()
    rows = read_annotations(file, faults, masks=False)["annotations"]
    assert ["segmentation" in row for row in rows] == [False, True, True, False, True] and rows[0]["area"] == 9
    assert "objects without an outline, of which the box is enough here: 2" in faults.describe_notes()
    dataset = CocoDataset(file, tmp_path / "images", masks=False)
    masks = np.zeros((2, 8, 10), np.uint8)
    masks[0, 1:4, 2:5] = masks[1, :2, 0] = 1
    np.testing.assert_array_equal(dataset[0][1].masks, masks)
    assert dataset[1][1].boxes.tolist() == [[0, 5, 6, 8]] and dataset[1][1].masks[0, 5:].all()
    with pytest.raises(DataError, match="no outline, and masks are wanted"):
        read_annotations(file)
    document["annotations"][0]["bbox"][2] = 0
    write(tmp_path, document)
    with pytest.raises(DataError, match=r"bbox is \[2, 1, 0, 3\], wanted .* with both lengths above 0"):
        read_annotations(file, masks=False)


FIRST = ("annotations", 0)
RUNS = ("annotations", 1, "segmentation")
BAD_ROWS = {
    "no images": (spoiled(["images"], remove=True), "'images' is missing or not a list"),
    "annotations of another kind": (spoiled(["annotations"], {}), "'annotations' is missing or not a list"),
    "no pictures": (spoiled(["images"], []), "'images' is empty, wanted at least one"),
    "no categories": (spoiled(["categories"], []), "'categories' is empty, wanted at least one"),
    "list": ([], "holds a list, wanted an object with images, annotations, categories"),
    "row of another kind": (spoiled(["images", 1], 5), "images[1]: holds a int, wanted an object"),
    "picture without width": (spoiled(["images", 1, "width"], remove=True), "images[1] (id 20): width is 'missing'"),
    "height of no pixels": (spoiled(["images", 1, "height"], 0), "images[1] (id 20): height is 0, wanted 1 or more"),
    "picture without name": (spoiled(["images", 0, "file_name"], None), "images[0] (id 30): file_name is None"),
    "id is text": (spoiled(["images", 0, "id"], "30"), "images[0] (id '30'): id is '30', wanted an integer"),
    "id is a bool": (spoiled(["images", 0, "id"], True), "id is True, wanted an integer"),
    "two pictures, one id": (
        spoiled(["images", 1, "id"], 30),
        "images[1] (id 30): id 30 is taken by images[0]; remove one",
    ),
    "two annotations, one id": (
        spoiled(["annotations", 3, "id"], 5),
        "annotations[3] (id 5): id 5 is taken by annotat",
    ),
    "two categories, one id": (
        spoiled(["categories", 1, "id"], 7),
        "categories[1] (id 7): id 7 is taken by categories",
    ),
    "category without name": (
        spoiled(["categories", 1, "name"], ""),
        "categories[1] (id 3): name is '', wanted a text",
    ),
    "two categories, one name": (
        spoiled(["categories", 1, "name"], "dog"),
        "categories[1] (id 3): name 'dog' is that of id 7 as well; give all annotations of this class category_id 7",
    ),
    "one photo, two ids": (
        spoiled(["images", -1], {"id": 4, "file_name": "./a.png", "width": 10, "height": 8}),
        "a.png is the photo of id 30 as well; give all its annotations image_id 30, and remove this row",
    ),
    "name leads out": (
        spoiled(["images", 0, "file_name"], "../a.png"),
        "images[0] (id 30): file name '../a.png' leads out",
    ),
    "name is absolute": (
        spoiled(["images", 0, "file_name"], "/a.png"),
        "images[0] (id 30): file name '/a.png' is absolute",
    ),
    "no such file": (spoiled(["images", 0, "file_name"], "x.png"), "x.png: no such file"),
    "other size": (spoiled(["images", 2, "width"], 7), "images[2] (id 10): width 7 and height 8, but"),
    "annotation without id": (
        spoiled([*FIRST, "id"], remove=True),
        "annotations[0]: id is 'missing', wanted an integer",
    ),
    "no such picture": (
        spoiled([*FIRST, "image_id"], 4),
        "annotations[0] (id 5): image_id is 4, but the file has no such",
    ),
    "no such category": (
        spoiled([*FIRST, "category_id"], 4),
        "category_id is 4, but the file has no such category; add",
    ),
    "without category": (spoiled([*FIRST, "category_id"], remove=True), "category_id is 'missing', wanted an integer"),
    "without box": (
        spoiled([*FIRST, "bbox"], remove=True),
        "annotations[0] (id 5): bbox is 'missing', wanted a list of fou",
    ),
    "three numbers": (
        spoiled([*FIRST, "bbox"], [1, 2, 3]),
        "bbox is [1, 2, 3], wanted a list of four numbers x, y, width",
    ),
    "text in the box": (spoiled([*FIRST, "bbox", 2], "3"), "bbox width is '3', wanted a finite number"),
    "NaN": (spoiled([*FIRST, "bbox", 0], float("nan")), "annotations[0] (id 5): bbox x is nan, wanted a finite number"),
    "infinite": (spoiled([*FIRST, "bbox", 3], float("inf")), "bbox height is inf, wanted a finite number"),
    "beyond float": (spoiled([*FIRST, "bbox", 3], 10**400), ", wanted a finite number"),
    "no width": (spoiled([*FIRST, "bbox", 2], 0), "bbox is [2, 1, 0, 3], wanted x, y, width, height with both lengths"),
    "negative height": (spoiled([*FIRST, "bbox", 3], -1), "with both lengths above 0; mend or remove this row"),
    "box to the right": (
        spoiled([*FIRST, "bbox"], [8, 1, 3.1, 3]),
        "inside the picture, which is 10 wide and 8 high; is it",
    ),
    "box to the left": (spoiled([*FIRST, "bbox"], [-1.5, 1, 3, 3]), "a box inside the picture, which is 10 wide"),
    "box below": (spoiled([*FIRST, "bbox"], [1, 6, 3, 4]), "a box inside the picture, which is 10 wide"),
    "box beside": (spoiled([*FIRST, "bbox"], [10, 1, 1, 1]), "a box inside the picture, which is 10 wide"),
    "too thin for float32": (spoiled([*FIRST, "bbox"], [9, 1, 1e-9, 1]), "a box inside the picture, which is 10 wide"),
    "crowd of two": (spoiled([*FIRST, "iscrowd"], 2), "iscrowd is 2, wanted 0 or 1"),
    "negative area": (spoiled([*FIRST, "area"], -2), "area is -2, wanted 0 or more"),
    "area is text": (spoiled([*FIRST, "area"], "2"), "area is '2', wanted a finite number"),
    "without mask": (
        spoiled([*FIRST, "segmentation"], remove=True),
        "(id 5): segmentation is 'missing': the object has a box but no outline",
    ),
    "box alone": (
        spoiled([*FIRST, "segmentation"], []),
        "(id 5): segmentation is []: the object has a box but no outline, and masks are wanted; export the "
        "annotations with polygons",
    ),
    "two points": (
        spoiled([*FIRST, "segmentation", 0], [1, 1, 3, 3]),
        "segmentation: polygon 0 has 4 coordinates, wanted",
    ),
    "odd polygon": (
        spoiled([*FIRST, "segmentation", -1], [1, 1, 3, 3, 4, 4, 4]),
        "polygon 1 has 7 coordinates, wanted an",
    ),
    "infinite polygon": (
        spoiled([*FIRST, "segmentation", 0, 0], float("inf")),
        "polygon 0 has a coordinate that is not fin",
    ),
    "polygons beyond the picture": (
        spoiled([*FIRST, "segmentation"], [[20, 1, 30, 1, 30, 4], [12, 1, 15, 1, 15, 4]]),
        "annotations[0] (id 5): reaches from x 12, y 1 to x 30, y 4, wanted some of it inside the photo, 10 wide and 8",
    ),
    "polygons far from their box": (
        spoiled([*FIRST, "segmentation"], [[6.5, 1, 9, 1, 9, 4]]),
        "(id 5): bbox is [2, 1, 3, 3], but its polygons reach from x 6.5, y 1 to x 9, y 4, wanted x, y, width, height",
    ),
    "size of runs": (
        spoiled([*RUNS, "size"], [10, 8]),
        "annotations[1] (id 6): segmentation: run lengths are for size [10, 8",
    ),
    "runs too short": (
        spoiled([*RUNS, "counts"], [0, 2]),
        "run lengths add up to 2, wanted 80 (height 8 x width 10); draw",
    ),
    "runs too long": (spoiled([*RUNS, "counts"], [0, 2, 79]), "run lengths add up to 81, wanted 80"),
    "broken text": (spoiled([*RUNS, "counts"], "0P"), "compressed run lengths break off within a number"),
    "not JSON": ('{"images": [', "not JSON at line 1, column 13"),
    "nested too deeply": ("[" * 100_000, "not JSON"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_files_are_refused_with_the_row(tmp_path, name):
    document, message = BAD_ROWS[name]
    write(tmp_path, document)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        CocoFolder(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "annotations.json"))
    assert len(str(caught.value)) < 700 + 2 * len(str(tmp_path))


def test_a_group_that_is_called_like_its_only_class_is_no_class(tmp_path):
    """As Roboflow writes data sets of one class."""
    document = copy.deepcopy(DOCUMENT)
    document["categories"] = [{"id": id, "name": name} for id, name in ((0, "cat"), (3, "cat"), (7, "dog"), (8, "dog"))]
    write(tmp_path, document)
    faults = Faults()
    assert len(read_annotations(tmp_path / "annotations.json", faults)["categories"]) == 2
    assert [places for what, places in faults.notes.items() if "another has their name" in what] == [["id 0", "id 8"]]
    assert CocoFolder(tmp_path).class_names == ("background", "cat", "dog")
    document["annotations"] = []
    write(tmp_path, document)
    assert CocoFolder(tmp_path).category_ids == (None, 0, 7)


def test_an_absurd_declared_size_is_refused(tmp_path):
    write(tmp_path, spoiled(("images", 1, "width"), 10**20))
    with pytest.raises(DataError, match=r"annotations\.json: .*wanted at most"):
        CocoFolder(tmp_path)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path) / "annotations.json"
    monkeypatch.setattr("minimrcnn.data.rows.MOST_BYTES", path.stat().st_size)
    assert read_annotations(path)["images"]
    monkeypatch.setattr("minimrcnn.data.rows.MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"annotations.json: has more than \d+ bytes; split the annotations"):
        read_annotations(path)


def test_of_a_picture_with_a_fault_no_annotation_is_left(tmp_path):
    document = copy.deepcopy(DOCUMENT)
    spoiled_image = document["images"][0]
    spoiled_image["width"] = -1
    path = write(tmp_path, document) / "annotations.json"
    found = read_annotations(path, Faults(gather=True))
    assert spoiled_image["id"] in {row["image_id"] for row in document["annotations"]}
    assert spoiled_image["id"] not in {row["image_id"] for row in found["annotations"]} != set()


def test_missing_parts_of_the_folder_are_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: missing; a data folder holds annotations.json"):
        CocoFolder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="annotations.json: missing"):
        CocoFolder(tmp_path)
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(DataError, match="images: missing"):
        CocoFolder(tmp_path)
    with pytest.raises(DataError, match="nothing.json: no such file"):
        CocoDataset(tmp_path / "nothing.json", tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"images": "\xe9"}')
    with pytest.raises(DataError, match="latin.json: not JSON in UTF-8 .*; save it as UTF-8"):
        read_annotations(tmp_path / "latin.json")


def test_pictures_with_exif_rotation_are_annotated_as_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(DataError, match="annotated before it was rotated. Remove its EXIF rotation, or turn the annot"):
        CocoFolder(write(tmp_path, exif=exif))
    turned = copy.deepcopy(DOCUMENT)
    turned["annotations"] = []
    for image in turned["images"]:
        image["width"], image["height"] = image["height"], image["width"]
    picture, _ = CocoFolder(write(tmp_path, turned, exif=exif))[0]
    assert picture.shape == (10, 8, 3)


def test_too_many_pixels_and_a_picture_that_changes_later(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"images\[0\] \(id 30\): .*a.png: 10 x 8 pixels are more than the 79"):
        CocoFolder(tmp_path, max_pixels=79)
    dataset = CocoFolder(tmp_path, max_pixels=80)
    Image.fromarray(np.zeros((8, 11, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match="more than the 80"):
        dataset[0]
    Image.fromarray(np.zeros((10, 8, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"a.png: .*masks of shape \(2, 8, 10\) uint8, wanted \(2, 10, 8\)"):
        dataset[0]


def test_masks_that_would_eat_the_memory_are_refused(tmp_path, monkeypatch):
    dataset = CocoFolder(write(tmp_path))
    monkeypatch.setattr(coco, "MOST_MASK_PIXELS", 159)
    with pytest.raises(DataError, match=r"a.png: 2 masks of 10 x 8 pixels are more than the 159 bytes .* into tiles"):
        dataset[0]
    assert len(dataset[1][1].masks) == 1  # of 6 x 8


GOOD = Target(
    np.array([[0, 0, 4, 4], [1, 1, 6, 8.5]], np.float32), np.array([1, 2]), np.ones((2, 8, 6), np.uint8)
)  # for a picture of 8 x 6


def test_check_target_passes_what_is_right():
    check_target(GOOD, (8, 6), num_classes=3)
    check_target(Target(GOOD.boxes, GOOD.labels, GOOD.masks > 0), (8, 6, 3))
    check_target(Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 8, 6), np.uint8)), (8, 6, 3))


def changed(**fields):
    return Target(**{"boxes": GOOD.boxes, "labels": GOOD.labels, "masks": GOOD.masks, **fields})


@pytest.mark.parametrize(
    "target, message",
    [
        (changed(boxes=GOOD.boxes.tolist()), "boxes of type list, wanted a Target of NumPy arrays"),
        ({"boxes": GOOD.boxes}, "boxes of type NoneType"),
        (changed(boxes=GOOD.boxes[0]), r"boxes of shape \(4,\) float32, wanted \(G, 4\)"),
        (changed(boxes=GOOD.boxes.astype(int)), r"boxes of shape \(2, 4\) int64, wanted \(G, 4\) float32"),
        (changed(boxes=GOOD.boxes * np.float32("nan")), "box 0 is x1, y1, x2, y2 = nan, .* wanted finite numbers"),
        (
            changed(boxes=GOOD.boxes[:, [0, 1, 0, 3]]),
            "box 0 is x1, y1, x2, y2 = 0, 0, 0, 4, wanted x2 > x1 and y2 > y1",
        ),
        (
            changed(boxes=GOOD.boxes + np.float32(2)),
            "box 1 .*wanted a box inside the picture, which is 6 wide and 8 high",
        ),
        (changed(boxes=GOOD.boxes - np.float32(2)), "box 0 .*wanted a box inside the picture"),
        *(  # beside the picture, which has no width to lie in
            (changed(boxes=np.float32([[0, 0, 4, 4], box])), "box 1 .*wanted a box inside the picture")
            for box in ((-1, 1, 0, 4), (1, -1, 4, 0), (6, 1, 7, 4), (1, 8, 4, 9))
        ),
        (changed(labels=np.array([1, 2], np.uint64)), r"labels of shape \(2,\) uint64"),
        (changed(labels=np.array([1])), r"labels of shape \(1,\) int64, wanted \(2,\) int64"),
        (changed(labels=np.array([1.0, 2.0])), r"labels of shape \(2,\) float64"),
        (changed(labels=np.array([1, 0])), r"label 1 is 0, wanted labels from 1 to 2, .* 3 classes"),
        (changed(labels=np.array([3, 1])), "label 0 is 3, wanted labels from 1 to 2"),
        (changed(masks=GOOD.masks[:1]), r"masks of shape \(1, 8, 6\) uint8, wanted \(2, 8, 6\)"),
        (changed(masks=GOOD.masks.transpose(0, 2, 1)), r"masks of shape \(2, 6, 8\)"),
        (changed(masks=GOOD.masks.astype(np.float32)), r"masks of shape \(2, 8, 6\) float32, wanted"),
        (changed(masks=GOOD.masks * 255), "masks hold values up to 255, wanted 0 and 1"),
        (changed(masks=GOOD.masks * 2), "masks hold values up to 2, wanted 0 and 1"),
    ],
)
def test_check_target_refuses(target, message):
    with pytest.raises(DataError, match="^picture 4: " + message):
        check_target(target, (8, 6, 3), "picture 4", num_classes=3)


@pytest.mark.parametrize(
    "name, pictures, objects, classes",
    [("coco", 23, 229, 81), ("nuclei/train", 50, 1153, 2), ("nuclei/val", 20, 537, 2)],
)
def test_real_data(name, pictures, objects, classes):
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not on this machine")
    dataset = CocoFolder(DATA / name)
    assert (len(dataset), len(dataset.class_names)) == (pictures, classes)
    found = 0
    for picture, target in (dataset[index] for index in range(len(dataset))):
        found += len(target.boxes)
        for box, mask in zip(target.boxes, target.masks, strict=True):  # drawn where the box says
            rows, columns = np.nonzero(mask)
            around = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert np.abs(np.array(around) - box).max() <= 5, picture.shape  # the tips of thin polygons hold no pixel
    assert found == objects and not dataset.empty_masks
