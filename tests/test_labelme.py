"""LabelMe's files: every shape, photos that are called otherwise, and what is refused."""

import base64
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minimrcnn.data.coco import CocoFolder
from minimrcnn.data.formats import open_data
from minimrcnn.errors import DataError
from tests.photos_made import HEIGHT, POINTS, WIDTH, inside, labelme, png, rows_of, save, shape, write

DATA = Path(__file__).parents[2] / "shared" / "data"


def test_labelme_reads_every_shape(tmp_path):
    mask = np.zeros((6, 9), bool)
    mask[1:5, 2:8] = True
    shapes = [
        shape("polygon", POINTS, "polygon"),
        shape("rectangle", [[26.0, 9.0], [20.0, 5.0]], "rectangle"),
        shape("circle", [[16.0, 12.0], [16.0, 18.5]], "circle"),
        shape("mask", [[10.0, 3.0], [18.0, 8.0]], "mask", mask=png(mask)),
        shape("rotation", POINTS, "rotation"),
        {"label": "old", "points": POINTS},  # before version 3.2 all shapes were polygons
        shape("linestrip", POINTS, "road"),
        shape("line", POINTS[:2], "road"),
        shape("point", POINTS[:1], "road"),
    ]
    write(tmp_path / "a.json", labelme(shapes, imageData="!" * 1000))
    save(tmp_path / "a.png")
    opened = open_data(tmp_path)
    assert (opened.format, opened.source) == ("labelme", "")
    _, target = opened.dataset[0]
    masks = {opened.dataset.class_names[label]: one for label, one in zip(target.labels, target.masks, strict=True)}
    x, y = inside()
    for name in ("polygon", "rotation", "old"):
        np.testing.assert_array_equal(masks[name], (x > 4) & (x < 12) & (y > 2) & (y < 10))
    np.testing.assert_array_equal(masks["rectangle"], (x > 20) & (x < 26) & (y > 5) & (y < 9))
    assert (masks["circle"] != ((x - 16) ** 2 + (y - 12) ** 2 < 6.5**2)).sum() <= 8
    np.testing.assert_array_equal(masks["mask"], (x > 12) & (x < 18) & (y > 4) & (y < 8))
    assert "road" not in opened.dataset.class_names
    assert "lines and points left out, as they have no area: 3" in opened.faults.describe_notes()


def test_real_photos_and_polygons_survive_labelme(tmp_path):
    """Photos of COCO, written as LabelMe would have them: objects of several polygons as groups, no crowd regions."""
    if not (DATA / "coco").exists():
        pytest.skip(f"{DATA / 'coco'} is not on this machine")
    truth = CocoFolder(DATA / "coco").subset(range(0, 23, 4))
    document = truth.annotations()
    name_of = dict(zip(truth.category_ids, truth.class_names, strict=True))
    for image, path in zip(document["images"], truth.paths, strict=True):
        shapes = []
        for row in document["annotations"]:
            if row["image_id"] == image["id"] and not row["iscrowd"]:
                parts = [np.reshape(polygon, (-1, 2)).tolist() for polygon in row["segmentation"]]
                shapes += [shape("polygon", part, name_of[row["category_id"]], group=row["id"]) for part in parts]
        write(tmp_path / f"{path.stem}.json", labelme(shapes, path.name, image["height"], image["width"]))
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dataset = open_data(tmp_path, known=(truth.class_names, truth.category_ids)).dataset
    assert len(dataset) == len(truth) == 6
    for index in range(len(truth)):
        picture, wanted = truth[index]
        again, target = dataset[[path.name for path in dataset.paths].index(truth.paths[index].name)]
        np.testing.assert_array_equal(picture, again)
        np.testing.assert_array_equal(wanted.masks, target.masks)
        np.testing.assert_array_equal(wanted.labels, target.labels)
        if len(wanted.boxes):
            assert np.abs(wanted.boxes - target.boxes).max() <= 5  # tight around the pixels, not the tips of polygons


def test_labelme_groups_join_parts(tmp_path):
    mask = np.full((4, 4), 255, np.uint8)
    shapes = [
        shape("polygon", POINTS, group=1),
        shape("rectangle", [[20.0, 5.0], [26.0, 9.0]], group=1),
        shape("polygon", POINTS, "dog", group=1),  # another class: another object
        shape("polygon", POINTS),
        shape("polygon", POINTS),
        shape("polygon", POINTS, group=0),
        shape("mask", [[28.0, 20.0], [31.0, 23.0]], group=0, mask=png(mask)),
    ]
    write(tmp_path / "a.json", labelme(shapes))
    save(tmp_path / "a.png")
    dataset = open_data(tmp_path).dataset
    assert [row["area"] for row in rows_of(dataset)] == [64 + 24, 64, 64, 64, 64 + 16]
    assert isinstance(rows_of(dataset)[0]["segmentation"], list) and "counts" in rows_of(dataset)[4]["segmentation"]
    assert dataset[0][1].boxes[0].tolist() == [4, 2, 26, 10]


def test_labelme_masks_are_clipped(tmp_path):
    mask = np.full((10, 10), True)
    mask[6, 5:] = mask[8:, 9] = False
    shapes = [shape("mask", [[x, y], [x + 9, y + 9]], mask=png(mask)) for x, y in ((-5, -4), (28, 20))]
    far = [shape("mask", [[x, 2], [9, 9]], mask=png(mask)) for x in (1e300, -1e300)]
    write(tmp_path / "a.json", labelme(shapes + far))
    save(tmp_path / "a.png")
    opened = open_data(tmp_path)
    assert [row["bbox"] for row in rows_of(opened.dataset)] == [[0, 0, 5, 6], [28, 20, 4, 4]]
    np.testing.assert_array_equal(opened.dataset[0][1].masks[0, :6, :5], mask[4:, 5:])
    assert "objects left out, as they cover no pixel: 2" in opened.faults.describe_notes()


@pytest.mark.parametrize(
    "name, json_name, photo",
    [
        ("..\\photos\\a.png", "labels/a.json", "photos/a.png"),
        ("C:\\Users\\me\\photos\\a.png", "a.json", "a.png"),
        ("/home/me/a.png", "labels/a.json", "photos/a.png"),
        ("A.PNG", "a.json", "a.png"),
        ("a.png", "a.json", "A.png"),
        ("renamed.jpg", "a.json", "a.png"),  # by the name of the JSON file
        (None, "a.json", "a.png"),
        ("a\u0308.png", "other.json", "\u00e4.png"),
    ],
)
def test_labelme_finds_the_photo(tmp_path, name, json_name, photo):
    write(tmp_path / json_name, labelme([shape("polygon", POINTS)], name))
    save(tmp_path / photo)
    assert [path for path in open_data(tmp_path).dataset.paths] == [tmp_path / photo]


def test_names_that_differ_in_capitals_only_mean_the_exact_one(tmp_path):
    for name, value in (("a.png", 10), ("A.png", 20)):
        save(tmp_path / name, value=value)
    write(tmp_path / "a.json", labelme([shape("polygon", POINTS)], "A.png"))
    assert (open_data(tmp_path).dataset[0][0] == 20).all()
    write(tmp_path / "a.json", labelme([shape("polygon", POINTS)], "elsewhere/A.PNG"))
    with pytest.raises(DataError, match=re.escape("may mean A.png or a.png; give the photos names of their own")):
        open_data(tmp_path)


def test_labelme_sizes(tmp_path):
    save(tmp_path / "a.png")
    path = write(tmp_path / "a.json", labelme([shape("polygon", POINTS)], height=None))
    assert len(open_data(tmp_path).dataset) == 1  # not stated: read from the photo
    write(path, labelme([shape("polygon", POINTS)], height=True))
    assert len(open_data(tmp_path).dataset) == 1  # that is no number
    write(path, labelme([shape("polygon", POINTS)], height=WIDTH, width=HEIGHT))
    with pytest.raises(DataError, match=r"a.json: width 24 and height 32, but .*a.png is 32 wide and 24 high; was it"):
        open_data(tmp_path)
    write(path, labelme([shape("polygon", POINTS)], height=48))
    with pytest.raises(DataError, match="use the picture that was annotated, or correct the annotations"):
        open_data(tmp_path)


LABELME_FAULTS = {
    "no label": (shape("polygon", POINTS, label=None), "holds {"),
    "empty label": (shape("polygon", POINTS, label=" "), "the label is empty; name it in LabelMe, or remove the shape"),
    "a number": (3, "holds 3, wanted a label, points and a shape_type"),
    "two points": (shape("polygon", POINTS[:2]), "the polygon has 2 points, wanted 3 or more"),
    "no points": (shape("polygon", None), "points is None, wanted a list of [x, y]"),
    "three numbers": (shape("polygon", [[1, 2, 3]] * 3), "wanted a list of [x, y]"),
    "text": (shape("polygon", [[1, "2"], *POINTS]), "y is '2', wanted a finite number"),
    "rectangle": (shape("rectangle", POINTS[:3]), "the rectangle has 3 points, wanted 2; draw it again, or remove it"),
    "empty circle": (shape("circle", [POINTS[0]] * 2), "the radii are 0 and 0, wanted both above 0"),
    "heart": (shape("heart", POINTS), "shape_type is 'heart', wanted one of polygon, rectangle, circle"),
    "no mask": (shape("mask", POINTS[:2]), "the mask holds no picture; draw the object again, or remove it"),
    "bad mask": (shape("mask", POINTS[:2], mask="abc"), "the mask holds no picture"),
    "not a picture": (shape("mask", POINTS[:2], mask="abcd"), "the mask is not a picture that can be read"),
    "huge mask": (shape("mask", POINTS[:2], mask=png(np.zeros((500, 500), bool))), "the mask has 500 x 500 pixels, mo"),
}


@pytest.mark.parametrize("name", LABELME_FAULTS)
def test_labelme_faults_are_named(tmp_path, name):
    wrong, message = LABELME_FAULTS[name]
    path = write(tmp_path / "a.json", labelme([shape("polygon", POINTS), wrong]))
    save(tmp_path / "a.png")
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        open_data(tmp_path)
    assert str(caught.value).startswith(f"{path}: shapes[1]: ") and len(str(caught.value)) < 400 + len(str(path))


def test_labelme_photo_of_a_kind_that_cannot_be_read(tmp_path):
    save(tmp_path / "b.png")
    (tmp_path / "IMG_1.HEIC").write_bytes(b"ftypheic")
    write(tmp_path / "IMG_1.json", labelme([shape("polygon", POINTS)], "IMG_1.HEIC"))
    with pytest.raises(DataError, match="IMG_1.HEIC is of no kind that can be read; save the photo as JPEG or PNG"):
        open_data(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="shlex splits as a shell of the others does")
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_photo_that_a_labelme_file_contains_can_be_taken_out(tmp_path, suffix):
    """By the command that is told, in a folder that is called awkwardly."""
    folder = tmp_path / 'day "1" ü\'s $HOME'
    photo = save(tmp_path / f"b{suffix}")
    copy = base64.b64encode(photo.read_bytes()).decode()
    write(folder / "a.json", labelme([shape("polygon", POINTS)], "b.jpg", imageData=copy))
    with pytest.raises(DataError, match="no such photo in .*; or take out the one that this file") as caught:
        open_data(folder)
    command = shlex.split(str(caught.value).partition("this file contains (")[2][:-1])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert (folder / f"a{suffix}").read_bytes() == photo.read_bytes() and len(open_data(folder).dataset) == 1


def test_labelme_file_with_a_mark_of_its_encoding(tmp_path):
    save(tmp_path / "a.png")
    path = write(tmp_path / "a.json", labelme([shape("polygon", POINTS)]))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(open_data(tmp_path).dataset) == 1


def test_one_labelme_file_that_is_named_is_read_alone(tmp_path):
    for name in "ab":
        save(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", labelme([shape("polygon", POINTS)], f"{name}.png"))
    (tmp_path / "a.json").write_text("{")
    for format in (None, "labelme"):
        opened = open_data(tmp_path / "b.json", format)
        assert opened.dataset.paths == [tmp_path / "b.png"] and not opened.faults.notes
        assert opened.describe().startswith(f"{tmp_path / 'b.json'}: LabelMe (b.json), 1 photo, 1 object")
    assert len(open_data(tmp_path / "a.json", "labelme", gather=True).faults.found) == 1


def test_labelme_file_that_was_cut_short(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", labelme([shape("polygon", POINTS)], f"{name}.png"))
    (tmp_path / "b.json").write_text('{"shapes": [')
    with pytest.raises(DataError, match=re.escape("b.json: not JSON at line 1")) as caught:
        open_data(tmp_path)
    assert str(caught.value).count("b.json") == 1
