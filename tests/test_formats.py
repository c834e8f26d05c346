"""What all formats have in common: recognizing them, the rules for photos and objects, and writing COCO's."""

import copy
import os
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minimrcnn.data import outlines
from minimrcnn.data.coco import CocoDataset, CocoFolder
from minimrcnn.data.convert import check_apart, join, write_coco
from minimrcnn.data.folder import DataFolder
from minimrcnn.data.formats import FORMATS, open_data
from minimrcnn.data.pictures import picture_size, read_picture, read_values
from minimrcnn.errors import DataError
from tests.photos_made import (
    HEIGHT,
    POINTS,
    RECT,
    SQUARE,
    WIDTH,
    coco,
    inside,
    labelme,
    png,
    region,
    rows_of,
    save,
    save_values,
    shape,
    via_entry,
    via_project,
    write,
    write_nuclei,
)


@pytest.fixture
def several(tmp_path):
    """A folder with VIA's and LabelMe's annotations of the same photo."""
    save(tmp_path / "a.png")
    write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE)]))
    write(tmp_path / "a.json", labelme([shape("polygon", POINTS)]))
    return tmp_path


def test_ambiguity_names_the_candidates_and_the_option(several):
    with pytest.raises(DataError) as caught:
        open_data(several)
    assert str(caught.value) == (
        f"{several}: holds VIA (via.json), LabelMe; say which is meant: --format via or --format labelme"
    )
    assert open_data(several, "via").dataset.class_names[1] == "object"
    assert open_data(several, "labelme").dataset.class_names[1] == "cat"
    assert open_data(several / "via.json").format == "via"
    write(several / "via2.json", via_project(via_entry("a.png", [])))
    with pytest.raises(DataError, match=re.escape("holds VIA (via.json), VIA (via2.json); name the file that is mea")):
        open_data(several, "via")
    advice = f"say which is meant: --format labelme, or name the file that is meant, as {several / 'via.json'}, in pla"
    with pytest.raises(DataError, match=re.escape(advice)):
        open_data(several)
    assert len(rows_of(open_data(several / "via2.json").dataset)) == 0
    with pytest.raises(DataError, match=re.escape("wanted annotations.json with images, annotations and categories")):
        open_data(several, "coco")
    assert open_data(several, "labelme", class_attribute="kind").format == "labelme"


def test_nothing_that_is_known(tmp_path):
    save(tmp_path / "photos" / "a.png")
    write(tmp_path / "notes.json", {"hello": 1})
    with pytest.raises(DataError) as caught:
        open_data(tmp_path)
    assert "1 photo, but no annotations that are known" in str(caught.value)
    assert all(words in str(caught.value) for words, _ in FORMATS.values())
    (tmp_path / "photos" / "a.xml").write_text("<annotation/>")
    with pytest.raises(DataError, match="of its .xml files the annotation tool can make one of these"):
        open_data(tmp_path)
    with pytest.raises(
        DataError, match="photos: 1 photo, but no annotations that are known; of its .xml files[^;]*;.want"
    ):
        open_data(tmp_path / "photos")
    write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE)]))
    with pytest.raises(DataError, match="of its .xml files.*; .*via.json may be about them: name that file or its fol"):
        open_data(tmp_path / "photos")
    (tmp_path / "via.json").unlink()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no photos and no annotations that are known; wanted one of\n"):
        open_data(tmp_path / "empty")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match=re.escape("notes.json: wanted annotations in JSON, of COCO, VIA or LabelMe")):
        open_data(tmp_path / "notes.json")
    (tmp_path / "via.json").write_text("{")
    with pytest.raises(DataError, match="via.json: not JSON at line 1"):
        open_data(tmp_path)


@pytest.fixture
def damaged_first(tmp_path):
    """LabelMe's files of three photos, of which the first is cut short."""
    for name in "abc":
        save(tmp_path / f"{name}.png")
        write(tmp_path / f"{name}.json", labelme([shape("polygon", POINTS)], f"{name}.png"))
    (tmp_path / "a.json").write_text('{"shapes": [')
    return tmp_path


@pytest.mark.parametrize("format", [None, "labelme"])
def test_the_first_file_of_labelme_may_be_damaged(damaged_first, format):
    opened = open_data(damaged_first, format, gather=True)
    assert opened.format == "labelme" and len(opened.dataset) == 2
    assert [(fault.where, fault.message[:18]) for fault in opened.faults.found] == [
        (str(damaged_first / "a.json"), "not JSON at line 1")
    ]
    assert "JSON files that cannot be read, left out" not in opened.faults.notes  # said already, as a fault
    with pytest.raises(DataError, match="a.json: not JSON at line 1"):
        open_data(damaged_first, format)


def test_damaged_files_alone(damaged_first):
    with pytest.raises(DataError, match=r"\(--format coco\); there is LabelMe; .*a.json: not JSON at line 1"):
        open_data(damaged_first, "coco")
    for name in "bc":
        (damaged_first / f"{name}.json").write_text("[")
    with pytest.raises(DataError, match="a.json: not JSON at .*; 2 more JSON files cannot be read either"):
        open_data(damaged_first, gather=True)
    assert len(open_data(damaged_first, "labelme", gather=True).faults.found) == 3
    with pytest.raises(DataError, match="a.json: not JSON at line 1"):
        open_data(damaged_first, "coco", gather=True)


def test_a_cameras_files_do_not_hide_those_of_labelme(damaged_first):
    write(damaged_first / "a.json", {"exposure": 3})
    assert len(open_data(damaged_first).dataset) == 2
    for number in range(60):  # more than are looked into without being told
        save(damaged_first / f"A{number}.png")
        write(damaged_first / f"A{number}.json", {"exposure": number})
    with pytest.raises(DataError, match="no annotations that are known"):
        open_data(damaged_first)
    assert len(open_data(damaged_first, "labelme").dataset) == 2


def test_damaged_json_beside_an_annotation_file_is_noted(damaged_first):
    for name in "bc":
        (damaged_first / f"{name}.json").unlink()
    write(damaged_first / "via.json", via_entry("a.png", [region(SQUARE)]))
    notes = open_data(damaged_first).faults.notes
    assert notes["JSON files that cannot be read, left out"] == ["a.json"]


def test_one_folder_too_high_is_said(tmp_path):
    for part in ("train", "val"):
        save(tmp_path / part / "images" / "a.png")
        save(tmp_path / part / "images" / "b.png")
        save_values(tmp_path / part / "masks" / "a.png", np.ones((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(DataError, match="no data set itself, but .*train, .*val may be; name one of them"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    "source, photo, name",
    [
        ("annotations.json", "images/a.png", "a.png"),
        ("annotations.json", "images/a.png", "images\\A.png"),
        ("_annotations.coco.json", "a.png", "a.png"),
        ("annotations/instances_train.json", "train/a.png", "a.png"),
        ("annotations.json", "b/a.png", "/home/me/a.png"),
    ],
)
def test_coco_layouts(tmp_path, source, photo, name):
    write(tmp_path / source, coco(name))
    save(tmp_path / photo)
    for path in (tmp_path, tmp_path / source):
        opened = open_data(path)
        assert opened.format == "coco" and opened.dataset.paths[0].resolve() == (tmp_path / photo).resolve()


def test_links_that_lead_out_are_not_followed(tmp_path):
    save(tmp_path / "outside" / "a.png")
    data = tmp_path / "data"
    write(data / "a.json", labelme([shape("polygon", POINTS)]))
    (data / "a.png").symlink_to(tmp_path / "outside" / "a.png")
    (data / "deep").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="file name 'a.png' is a link out of .*, which is not followed; copy the photo"):
        open_data(data)
    assert DataFolder(data).files == ["a.json"] and sorted(DataFolder(data).links) == ["a.png", "deep"]
    save(tmp_path / "data-of-others" / "b.png")  # a folder whose name begins like that of the data is another
    (data / "b.png").symlink_to(tmp_path / "data-of-others" / "b.png")
    assert DataFolder(data).files == ["a.json"]
    (data / "b.png").unlink()
    (data / "a.json").unlink()
    with pytest.raises(DataError, match="left out as links out of the folder: 2 names; copy"):
        open_data(data)


def test_what_is_hidden_is_left_out(tmp_path):
    for name in ("a.png", ".b.png", ".c/c.png", "d/__MACOSX/d.png", "__MACOSX/e.png"):
        save(tmp_path / name)
    assert DataFolder(tmp_path).files == ["a.png"]


def test_capitals_tell_names_apart_where_both_are_there(tmp_path):
    for value, name in enumerate(("one/a.png", "two/A.PNG")):
        save(tmp_path / name, value=value)
    folder = DataFolder(tmp_path)
    assert folder.find("elsewhere/A.PNG") == "two/A.PNG" and folder.find("elsewhere\\a.png") == "one/a.png"
    with pytest.raises(DataError, match="may mean one/a.png or two/A.PNG"):
        folder.find("elsewhere/a.PNG")


def test_a_data_set_in_a_line(tmp_path):
    """The most frequent class first, and one of a kind is no plural."""
    regions = [region(SQUARE, kind=kind) for kind in ("ant", "bee", "bee", "cat", "cat", "cat")]
    write(tmp_path / "via.json", via_entry("a.png", regions))
    save(tmp_path / "a.png")
    assert open_data(tmp_path).describe().endswith("1 photo, 6 objects, 3 classes (cat 3, bee 2, ant 1)")
    write(tmp_path / "via.json", via_entry("a.png", []))
    assert "1 photo, 0 objects, " in open_data(tmp_path).describe()


def test_names_that_are_nearly_right(tmp_path):
    for name in ("0402.png", "my cat.png"):
        save(tmp_path / name)
    for name, advice in (("0025.png", "put it there$"), ("my_cat.png", "put it there; the nearest .* is my cat.png$")):
        write(tmp_path / "via.json", via_entry(name, [region(SQUARE)]))
        with pytest.raises(DataError, match=advice):
            open_data(tmp_path)


def test_what_is_beyond_the_photo_is_cut_off(tmp_path):
    corner = {"name": "polygon", "all_points_x": [-10, 6, 6, -10], "all_points_y": [-5, -5, 7, 7]}
    slight = {"name": "polygon", "all_points_x": [20, 32.4, 32.4, 20], "all_points_y": [4, 4, 24.5, 24.5]}
    dot = {"name": "polygon", "all_points_x": [3, 3.1, 3], "all_points_y": [3, 3, 3.1]}
    write(tmp_path / "via.json", via_entry("a.png", [region(corner), region(slight), region(dot)]))
    save(tmp_path / "a.png")
    opened = open_data(tmp_path)
    rows = rows_of(opened.dataset)
    assert [row["bbox"] for row in rows] == [[0, 0, 6, 7], [20, 4, 12, 20]]
    assert [row["area"] for row in rows] == [42, 240]
    _, target = opened.dataset[0]
    x, y = inside()
    np.testing.assert_array_equal(target.masks[0], (x < 6) & (y < 7))
    assert list(opened.faults.notes) == [
        "objects clipped at the edge of their photo",
        "objects left out, as they cover no pixel",
    ]
    assert all(len(places) == 1 for places in opened.faults.notes.values())


def test_negatives_are_kept_and_photos_without_annotation_left_out(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "images" / name)
    write(tmp_path / "via.json", {**via_entry("a.png", [region(SQUARE)]), **via_entry("b.png", [])})
    opened = open_data(tmp_path)
    assert [path.name for path in opened.dataset.paths] == ["a.png", "b.png"]
    assert opened.dataset[1][1].masks.shape == (0, HEIGHT, WIDTH)
    assert opened.faults.describe_notes() == (
        "photos without an object, kept: 1; photos without annotation, left out: 1"
    )
    assert opened.faults.notes["photos without annotation, left out"] == ["images/c.png"]


def test_photos_with_faulty_annotations_are_not_without(tmp_path):
    """In every format photo a, and d where there is one, is left out for a fault, b is fine, c is not annotated."""
    images = [{"id": 1, "file_name": "a.png", "width": 0, "height": 5}, *coco("b.png")["images"]]
    images.append({"id": 5, "file_name": "d.png", "width": 5, "height": 5})
    documents = {
        "via": {"via.json": {**via_entry("a.png", 5), **via_entry("b.png", [])}},
        "coco": {"annotations.json": {**coco(), "images": images}},
        "labelme": {"a.json": {}, "b.json": labelme([], "b.png"), "d.json": labelme([], "d.png", height=5)},
    }
    for format, files in documents.items():
        for photo in "abc" if format == "via" else "abcd":
            save(tmp_path / format / f"{photo}.png")
        for name, document in files.items():
            write(tmp_path / format / name, document)
    (tmp_path / "labelme" / "a.json").write_text("{")
    for format in ("mask-files", "label-images"):
        for photo in "abc":
            folder = tmp_path / format / (photo if format == "mask-files" else "")
            save(folder / "images" / f"{photo}.png")
            if photo != "c":
                save_values(folder / "masks" / f"{photo}.png", np.ones((HEIGHT, WIDTH), np.uint8))
    (tmp_path / "mask-files" / "a" / "images" / "a.png").write_bytes(b"")
    (tmp_path / "label-images" / "masks" / "a.png").write_bytes(b"")
    for format in FORMATS:
        opened = open_data(tmp_path / format, gather=True)
        assert opened.format == format and opened.faults.found
        assert [path.name for path in opened.dataset.paths] == ["b.png"], format
        left_out = opened.faults.notes["photos without annotation, left out"]
        assert [name.rpartition("/")[2] for name in left_out] == ["c.png"], format


def test_a_photo_annotated_twice_is_refused(tmp_path):
    save(tmp_path / "a.png")
    write(tmp_path / "via.json", {**via_entry("a.png", [region(SQUARE)]), **via_entry("A.PNG", [])})
    with pytest.raises(DataError, match=re.escape("A.PNG: a.png is annotated in")):
        open_data(tmp_path)


def test_rotated_photos_are_annotated_as_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.jpg", exif=exif)
    low = {"name": "rect", "x": 2, "y": 26, "width": 5, "height": 5}  # seen, the photo is 32 high
    write(tmp_path / "via.json", via_entry("a.jpg", [region(low)]))
    dataset = open_data(tmp_path).dataset
    picture, target = dataset[0]
    assert picture.shape == (WIDTH, HEIGHT, 3) and target.boxes.tolist() == [[2, 26, 7, 31]]


def test_classes_take_the_numbers_of_what_is_known(tmp_path):
    save(tmp_path / "a.png")
    path = write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE, kind="dog")]))
    known = ("background", "cat", "dog"), (None, 3, 18)
    dataset = open_data(tmp_path, known=known).dataset
    assert dataset.class_names == known[0] and dataset.category_ids == known[1]
    assert dataset[0][1].labels.tolist() == [2]
    write(path, via_entry("a.png", [region(SQUARE, kind="emu")]))
    message = "a.png: regions[0]: the class is 'emu', wanted one of those that are known, cat, dog; rename it"
    with pytest.raises(DataError, match=re.escape(message)):
        open_data(tmp_path, known=known)
    write(path, via_entry("a.png", [region(SQUARE)]))  # without attributes: the only class that is known
    assert open_data(tmp_path, known=(("background", "cell"), (None, 1))).dataset.class_names == ("background", "cell")


def test_classes_in_capitals_and_not_are_noticed(tmp_path):
    save(tmp_path / "a.png")
    write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE, kind="Dog"), region(RECT, kind="dog")]))
    notes = open_data(tmp_path).faults.notes
    assert notes["class whose name another has in other letters"] == ["'Dog'", "'dog'"]


def test_copies_within_a_data_set_are_its_own_matter(tmp_path):
    """Only of two data sets one may be validated on what the other is trained on."""
    for folder, names in (("one", "ab"), ("two", "c")):
        for name in names:
            photo = save(tmp_path / folder / f"{name}.png", value=len(names))
            write(photo.with_suffix(".json"), labelme([shape("polygon", POINTS)], photo.name))
    one, two = (open_data(tmp_path / folder, gather=True).dataset for folder in ("one", "two"))
    assert len(join([one, two])) == 3


def test_a_rare_class_with_nearly_the_name_of_another_is_noticed(tmp_path):
    save(tmp_path / "a.png")
    kinds = ["nucleus"] * 40 + ["nucleas", "cell 1", *["cell 2"] * 20, "house", *["horse"] * 19]  # too few
    write(tmp_path / "via.json", via_entry("a.png", [region(RECT, kind=kind) for kind in kinds]))
    notes = open_data(tmp_path).faults.notes
    assert notes["rare class whose name is nearly another's; a slip?"] == ["'nucleas', 'nucleus'"]


def test_an_annotation_file_above_is_named_if_it_names_a_photo(tmp_path):
    (tmp_path / "bare").mkdir()
    save(tmp_path / "photos" / "a.png")
    write(tmp_path / "others.json", via_entry("aa.png", [region(SQUARE)]))
    for folder in ("bare", "photos"):
        with pytest.raises(DataError, match="no annotations that are known; wanted"):
            open_data(tmp_path / folder)


@pytest.mark.parametrize(
    ("photos_of", "slips"),
    [
        ({"nucleus": 10, "nucelus": 1}, ["'nucelus', 'nucleus'"]),
        ({"nucleus": 9, "Nukleus": 3}, ["'Nukleus', 'nucleus'"]),
        ({"cat": 9, "bat": 3, "rat": 1, "cell 1": 9, "cell 2": 1}, []),
        ({"male": 12, "female": 4}, []),  # in many photos
        ({"house": 2, "horse": 1}, []),  # too few to tell
    ],
)
def test_a_name_that_was_misspelt_in_one_photo_is_noticed(tmp_path, photos_of, slips):
    names = [name for name, count in photos_of.items() for _ in range(count)]
    for number, name in enumerate(names):
        photo = save(tmp_path / f"{number}.png")
        write(photo.with_suffix(".json"), labelme([shape("polygon", POINTS, name)] * 4, photo.name))
    notes = open_data(tmp_path).faults.notes
    assert notes.get("rare class whose name is nearly another's; a slip?", []) == slips


@pytest.fixture
def nuclei(tmp_path):
    return write_nuclei(tmp_path)


def test_the_limit_of_pixels_reaches_all_who_read(tmp_path, monkeypatch):
    """Whoever leaves it out is refused: a photo has 768 pixels, and 700 are allowed to those who name no limit."""
    write_nuclei(tmp_path / "mask-files")
    save(tmp_path / "label-images" / "images" / "a.png", value=1)
    save_values(tmp_path / "label-images" / "masks" / "a.png", np.ones((HEIGHT, WIDTH), np.uint8))
    save(tmp_path / "labelme" / "a.png", value=2)
    mask = shape("mask", POINTS[::2], mask=png(np.full((8, 8), True)))
    write(tmp_path / "labelme" / "a.json", labelme([mask]))
    for read in (picture_size, read_values, read_picture):
        monkeypatch.setattr(read, "__defaults__", (700,))
    monkeypatch.setattr(CocoDataset.of_rows.__func__, "__defaults__", (700,))
    formats = "mask-files", "label-images", "labelme"
    opened = [open_data(tmp_path / format, max_pixels=800).dataset for format in formats]
    joined = join(opened)
    assert [len(joined[index][1].masks) for index in range(4)] == [3, 1, 1, 1]
    for format in formats:
        with pytest.raises(DataError, match="more than the 767"):
            open_data(tmp_path / format, max_pixels=767)


def test_every_format_goes_to_coco_and_back(tmp_path, nuclei):
    made = {"mask-files": nuclei}
    for name in ("via", "labelme", "label-images", "coco"):
        made[name] = tmp_path.parent / f"{tmp_path.name}-{name}"
        save(made[name] / "images" / "a.png", value=9)
    beyond = {"name": "circle", "cx": 2, "cy": 2, "r": 6.3}
    write(made["via"] / "v.json", via_entry("a.png", [region(SQUARE, kind="b"), region(beyond, kind="a")]))
    write(
        made["labelme"] / "images" / "a.json", labelme([shape("polygon", POINTS, group=1), shape("circle", POINTS[:2])])
    )
    save_values(made["label-images"] / "masks" / "a.png", np.tri(HEIGHT, WIDTH, dtype=np.uint8) * 5)
    write(made["coco"] / "annotations.json", coco())
    for name, folder in made.items():
        before = open_data(folder)
        assert before.format == name
        out = tmp_path.parent / f"{tmp_path.name}-{name}-coco"
        write_coco(before.dataset, out)
        after = CocoFolder(out)
        assert open_data(out).format == "coco"
        assert len(after) == len(before.dataset) > 0 and after.class_names == before.dataset.class_names
        for (one, truth), (other, copied) in zip(
            map(before.dataset.__getitem__, range(len(after))), map(after.__getitem__, range(len(after))), strict=True
        ):
            np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(truth.masks, copied.masks)
            np.testing.assert_array_equal(truth.boxes, copied.boxes)
            np.testing.assert_array_equal(truth.labels, copied.labels)
            assert len(truth.masks)


def test_photos_of_one_name_are_numbered(tmp_path):
    for folder, name in (("x", "a.png"), ("y", "A.png"), ("z", "a.png")):
        save(tmp_path / "in" / folder / name)
        write(tmp_path / "in" / folder / "a.json", labelme([], name))
    write_coco(open_data(tmp_path / "in").dataset, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out" / "images")) == ["A-2.png", "a-3.png", "a.png"]
    with pytest.raises(DataError, match="out: there is something already; name a new folder"):
        write_coco(open_data(tmp_path / "in").dataset, tmp_path / "out")
    with pytest.raises(DataError, match="would become a part of it"):
        check_apart(tmp_path / "in", tmp_path / "in" / "coco")
    check_apart(tmp_path / "in", tmp_path / "in-coco")


@settings(max_examples=60, deadline=None)
@given(st.floats(-20, 60), st.floats(-20, 60), st.floats(0.6, 30), st.floats(0.6, 30), st.floats(-4, 4))
def test_an_ellipse_has_its_area_and_stays_within_its_radii(x, y, radius_x, radius_y, angle):
    points = np.reshape(outlines.ellipse(x, y, radius_x, radius_y, angle), (-1, 2)) - (x, y)
    along = points @ (np.cos(angle), np.sin(angle)) / radius_x
    across = points @ (-np.sin(angle), np.cos(angle)) / radius_y
    np.testing.assert_allclose(along**2 + across**2, 1, atol=0.01)
    following = np.roll(points, -1, axis=0)
    area = abs(points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum() / 2
    assert 0.95 * np.pi * radius_x * radius_y <= area <= 1.01 * np.pi * radius_x * radius_y


def test_documents_of_any_other_kind_end_in_data_errors(tmp_path):
    """Whatever stands where an object, a list or a number is wanted: an error that names the file, never another."""
    save(tmp_path / "a.png")
    path = tmp_path / "a.json"
    documents = (
        via_project(via_entry("a.png", [region(SQUARE, kind="x")])),
        labelme([shape("polygon", POINTS)]),
        coco(),
    )
    for document in documents:
        for place in list(places(document)):
            for value in (None, 5, "x", [], {"x": None}, -1e400):
                spoiled = copy.deepcopy(document)
                put(spoiled, place, value)
                write(path, spoiled)
                try:
                    open_data(tmp_path, gather=True).describe()
                except DataError as error:
                    assert str(tmp_path) in str(error), (place, value)


def places(value, path=()):
    """The paths to all parts of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def put(document, path, value):
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


def test_a_picture_too_many(tmp_path):
    for photo in "abcdefghijkl":
        save(tmp_path / photo / "images" / f"{photo}.png")
        save_values(tmp_path / photo / "masks" / "1.png", np.ones((HEIGHT, WIDTH), np.uint8))
    save(tmp_path / "b" / "images" / "thumbnail.png")
    opened = open_data(tmp_path, gather=True)
    assert opened.format == "mask-files" and len(opened.dataset) == 11
    (fault,) = opened.faults.found
    assert fault.where.endswith("b.png") and "wanted the photo alone; remove b/images/thumbnail.png" in fault.message


def test_a_photo_in_place_of_a_folder(tmp_path):
    with pytest.raises(DataError, match="a.png: this is a photo; wanted the folder of photos"):
        open_data(save(tmp_path / "a.png"))
