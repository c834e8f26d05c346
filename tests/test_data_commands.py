"""show, show --check and convert-data, and the lines that train says about its data."""

import json
import os
import re
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from minimrcnn import cli
from minimrcnn.cli import main
from minimrcnn.data.coco import CocoFolder
from minimrcnn.data.faults import Fault, Faults
from minimrcnn.data.folder import find_copies
from minimrcnn.data.formats import FORMATS, open_data
from minimrcnn.data.pictures import read_picture
from minimrcnn.data.shapes import Shapes
from minimrcnn.data.statistics import describe_statistics, measure
from minimrcnn.errors import DataError
from minimrcnn.overview import add_caption
from minimrcnn.show import draw_objects
from minimrcnn.spelling import printable, quote_arguments
from tests.photos_made import (
    HEIGHT,
    POINTS,
    RECT,
    SQUARE,
    WIDTH,
    coco,
    labelme,
    region,
    save,
    save_values,
    shape,
    via_entry,
    write,
    write_nuclei,
)


def run(capsys, *arguments):
    """Exit code, output and errors of a command."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


@pytest.fixture
def spoiled(tmp_path):
    """VIA's file of four photos with six faults of five kinds."""
    entries = {}
    for name in "abcd":
        line = {"name": "polygon", "all_points_x": [1, int(name, 16)], "all_points_y": [1, 2]}
        good = [region(SQUARE, kind="cat"), region({"name": "point", "cx": 1, "cy": 1}, kind="cat")]
        bad = {
            "a": [region(line, kind="cat"), region(RECT)],
            "b": [region(line, kind="cat"), region(SQUARE, kind="cat")],
            "c": [region({"name": "heart"}, kind="cat")],
            "d": [],
        }
        entries |= via_entry(f"{name}.png", good + bad[name])
        save(tmp_path / f"{name}.png", value=ord(name))
    entries |= via_entry("e.png", [])
    write(tmp_path / "via.json", entries)
    path = tmp_path / "d.png"
    path.write_bytes(path.read_bytes()[:60])
    return tmp_path


def test_check_lists_all_faults_by_kind(spoiled, capsys):
    code, out, _ = run(capsys, "show", spoiled, "--check")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == f"{spoiled}: VIA (via.json), 4 photos, 5 objects, 1 class (cat 5)"
    assert lines[1] == "2 faults: the polygon has 2 points, wanted 3 or more; draw it again, or remove it"
    assert lines[2:4] == [f"    {spoiled}/via.json: {name}.png: regions[2]" for name in "ab"]
    heads = [line for line in lines if re.match(r"\d+ fault", line)]
    assert [head.split(":")[0] for head in heads] == ["2 faults"] + ["1 fault"] * 5
    for words in ("attribute 'kind' is missing", "'heart'", "no such photo", "is the same as object", "damaged or cut"):
        assert sum(words in head for head in heads) == 1, words
    assert lines[-2].startswith("no fault, but noted: points left out, as they have no area: 4 (")
    with pytest.raises(DataError, match="has 2 points"):  # what training says is the first of them
        open_data(spoiled)


def test_an_error_of_the_data_says_what_lists_all(spoiled, capsys):
    data = (spoiled.parent / "my data").resolve()
    spoiled.rename(data)
    for command in (["show", data], ["train", "--data", data, "-o", "run"], ["convert-data", data, "coco"]):
        code, _, err = run(capsys, *command, "--class-attribute", "kind")
        assert code == 2 and err.count("--check") == 1
        assert (
            f"or remove it; minimrcnn show {quote_arguments([str(data)])} --class-attribute kind --check lists" in err
        )
    code, _, err = run(capsys, "show", data / "nowhere")
    assert code == 2 and "--check" not in err


def test_the_formats_of_the_options_are_those_there_are():
    assert cli.FORMATS == tuple(FORMATS)


def test_check_of_good_data(tmp_path, capsys):
    code, out, _ = run(capsys, "show", write_nuclei(tmp_path), "--check")
    assert code == 0 and out.endswith("one PNG an object, 2 photos, 4 objects, 1 class (object 4)\nno faults\n")


def test_check_of_coco_goes_on_behind_bad_rows(tmp_path, capsys):
    document = coco()
    save(tmp_path / "images" / "a.png")
    first = document["annotations"][0]
    document["images"] += [
        {"id": 5, "file_name": "b.png", "width": 9, "height": 9},
        {"id": 6, "file_name": "c.png", "width": 0, "height": 9},
        {"id": 7, "file_name": "images/a.png", "width": WIDTH, "height": HEIGHT},
    ]
    document["categories"] += [{"id": 10, "name": ""}, {"id": 11, "name": "cat"}]
    document["annotations"] += [
        {**first, "id": 2, "segmentation": [[1, 1, 3, 3]]},
        {**first, "id": 3, "segmentation": [[1, 1, 3, 3]]},
        {**first, "id": 4, "bbox": [4, 2, 0, 8]},
        {**first, "id": 5, "image_id": 6},  # of a row with a fault: not one more
        {**first, "id": 6, "category_id": 10},
        {**first, "id": 8, "category_id": 11},
        {**first, "id": 9, "image_id": 7},
        {**first, "id": 7, "image_id": 77},
        {**first, "id": 1},
    ]
    write(tmp_path / "annotations.json", document)
    code, out, _ = run(capsys, "show", tmp_path, "--check")
    assert code == 1 and out.splitlines()[0].endswith("1 photo, 1 object, 1 class (cat 1)")
    heads = [line for line in out.splitlines() if re.match(r"\d+ fault", line)]
    assert heads[0].startswith("2 faults: segmentation: polygon 0 has 4 coordinates") and len(heads) == 9
    assert sum("is the photo of id 4 as well" in head for head in heads) == 1
    assert sum("name 'cat' is that of id 9 as well" in head for head in heads) == 1
    write(tmp_path / "annotations.json", {"images": 5})
    code, _, err = run(capsys, "show", tmp_path, "--check", "--format", "coco")
    assert code == 2 and "annotations.json" in err


def test_copies_are_told_by_all_bytes(tmp_path):
    """Sizes and ends tell most files apart; only what they do not is read whole."""
    whole = np.random.default_rng(0).bytes(200_000)
    contents = whole, whole[:-1], whole[:90_000] + b"x" + whole[90_001:], whole, b"", b"x" + whole[1:], b"", whole
    for number, content in enumerate(contents):
        (tmp_path / f"{number}").write_bytes(content)
    assert find_copies([tmp_path / f"{number}" for number in range(len(contents))]) == {3: 0, 6: 4, 7: 0}
    assert find_copies([]) == {}


def test_check_of_data_without_objects(tmp_path, capsys):
    """COCO's and LabelMe's: a fault, as train refuses them. A photo without is none beside one that has one."""
    none = "1 fault: there is no object in the pictures to train on; annotate some"
    for document in ({**coco(), "annotations": []}, labelme([])):
        photo = save(tmp_path / "a.png")
        write(tmp_path / "a.json", document)
        code, out, _ = run(capsys, "show", tmp_path, "--check")
        assert code == 1 and none in out and "no faults" not in out
        assert "no fault, but noted: photos without an object, kept: 1 (a.png)" in out
    photo.unlink()
    document = coco()
    document["images"].append({**document["images"][0], "id": 5, "file_name": "b.png"})
    document["annotations"].append({**document["annotations"][0], "id": 2, "image_id": 5, "bbox": None})
    document["images"].append({**document["images"][0], "id": 6, "file_name": "c.png"})
    for value, image in enumerate(document["images"]):
        save(tmp_path / image["file_name"], value=value)
    write(tmp_path / "a.json", document)
    code, out, _ = run(capsys, "show", tmp_path, "--check")
    assert code == 1 and "to train on" not in out and "without an object, kept: 1 (c.png)" in out


def test_check_notes_photos_that_use_few_of_their_bits(tmp_path, capsys):
    """As cameras of microscopes leave them: 12 bits in files of 16. Dark photos of 8 bits are what they are."""
    gray = np.linspace(0, 4095, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    photos = {
        "12.png": gray,
        "12.tif": gray,
        "16.png": gray * 16,
        "8.png": (gray // 256).astype(np.uint8),
        "fraction.tif": (gray / 65536).astype(np.float32),
    }
    for name, pixels in photos.items():
        save_values(tmp_path / name, pixels)
    write_deep_colors(tmp_path / "colors.png", np.dstack([gray] * 3))
    shapes = [shape("polygon", POINTS)]
    for number, name in enumerate([*photos, "colors.png"]):
        write(tmp_path / f"{number}.json", labelme(shapes, name))
    code, out, _ = run(capsys, "show", tmp_path, "--check")
    assert code == 0
    (line,) = (line for line in out.splitlines() if "more than 8 bits" in line)
    assert "which makes them dark; multiply the values, those of 12 bits by 16" in line
    assert line.endswith(
        "photos of 8 bits: 4 ("
        + ", ".join(str(tmp_path / name) for name in ("12.png", "12.tif", "fraction.tif"))
        + " and 1 more)"
    )
    code, out, _ = run(capsys, "show", tmp_path / "5.json", "--check")
    assert f"photos of 8 bits: 1 ({tmp_path / 'colors.png'})" in out
    code, _, err = run(capsys, "show", tmp_path, "-o", tmp_path / "look.png")
    assert code == 0 and "which makes them dark; multiply the values, those of 12 bits by 16, or save" in err
    assert "photos of 8 bits: 2 of 3 looked at\n" in err
    code, _, err = run(capsys, "show", tmp_path / "3.json", "-o", tmp_path / "look.png")
    assert code == 0 and "8 bits" not in err


def write_deep_colors(path, values):
    """A PNG of 16 bits in three colors, which Pillow reads and does not write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks.items():
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)


def test_kinds_of_faults_differ_in_more_than_numbers_and_names():
    same = [
        ("x is '2', wanted a finite number", "x is 'a b', wanted a finite number"),
        ("file name 'a.png': no such photo in my/data; ..", "file name 'b.png': no such photo in other/data; .."),
        ("bbox is [1, 2, -3.5], wanted 4", "bbox is [], wanted 4"),
        ("width 3 and height 4, but /x/a.png is 4 wide", "width 30 and height 4, but /x/y/b.jpg is 7 wide"),
    ]
    for one, other in same:
        assert Fault("a", one).kind == Fault("b", other).kind, (one, other)
    assert Fault("a", "x is 3, wanted more").kind != Fault("a", "y is 3, wanted more").kind


def test_faults_raise_the_first_or_gather_all():
    with pytest.raises(DataError, match="^here: wrong$"), Faults().at("here"):
        raise DataError("here: wrong")  # a reader that named its file already
    faults = Faults(gather=True)
    for number in range(5):
        with faults.at(f"row {number}"):
            raise DataError(f"number {number} is wrong")
    assert faults.report() == "5 faults: number 0 is wrong\n    row 0\n    row 1\n    row 2\n    row 3\n    row 4"
    with pytest.raises(ZeroDivisionError), faults.at("elsewhere"):
        1 / 0  # noqa: B018


def test_show_says_and_draws_what_is_in_the_data(tmp_path, capsys):
    Shapes(5, seed=3, size=64).write(tmp_path / "data")
    code, out, err = run(capsys, "show", tmp_path / "data", "-o", tmp_path / "look.png", "--photos", 3)
    assert code == 0 and "COCO (annotations.json), 5 photos" in err
    objects = sum(len(target.labels) for _, target in (Shapes(5, seed=3, size=64)[k] for k in range(5)))
    assert f"objects     {objects}, " in out and "photos      5, 64 wide, 64 high, 0 without an object" in out
    for words in ("square", "disc", "triangle", "size in pixels", "height over width", "anchors of 16, 32", "best IoU"):
        assert words in out
    with Image.open(tmp_path / "look.png") as picture:
        assert picture.mode == "RGB" and picture.width >= 1500 and picture.height > 1000
    code, _, err = run(capsys, "show", tmp_path / "data", "-o", tmp_path / "look.jpg")
    assert code == 2 and "written as .png" in err and not (tmp_path / "look.jpg").exists()


def test_show_of_photos_without_objects(tmp_path, capsys):
    save(tmp_path / "a_very_long_name_of_a_photo_that_somebody_took_last_summer_by_the_lake_before_it_rained.png")
    name = next(tmp_path.iterdir()).name
    write(tmp_path / "x.json", labelme([], name))
    code, out, err = run(capsys, "show", tmp_path, "-o", tmp_path / "look.png")
    assert code == 0 and "photos without an object, kept: 1" in err and "no object in the pictures" in out


def test_statistics_count(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    write(tmp_path / "a.json", labelme([shape("polygon", POINTS), shape("rectangle", [[0, 0], [4, 16]], "dog")]))
    write(tmp_path / "b.json", labelme([], "b.png"))
    found = measure(open_data(tmp_path).dataset)
    assert found.objects_of == {"cat": 1, "dog": 1} and found.photos_of == {"cat": 1, "dog": 1}
    assert found.per_photo.tolist() == [2, 0] and found.sizes.tolist() == [8, 8]
    assert found.ratios.tolist() == [1, 4] and found.crowds == 0
    text = describe_statistics(found)
    assert "2, 0 to 2 a photo, 1 in the middle one" in text and "1 without an object" in text
    assert "  8 to 16  ######################################## 2" in text


def test_captions_and_labels_stay_in_the_picture():
    picture = np.zeros((60, 300, 3), np.uint8)
    caption = add_caption(picture, "n" * 200 + ".png", "3 objects")
    assert caption.shape == (82, 300, 3)
    assert (caption[60:, :3] == 255).all() and (caption[60:, -3:] == 255).all()
    names = ("background", "a" * 90, "b")
    picture, boxes = np.zeros((400, 200, 3), np.uint8), np.array([[50, 50, 90, 90]])
    drawn = draw_objects(picture, boxes, None, np.array([1]), names=names)
    ground = (drawn == (230, 159, 0)).all(axis=-1)
    label = drawn[ground.sum(axis=1) > 100]  # its rows; the box has fewer
    assert len(label) > 5 and (label[:, 0] == 0).all() and (label[:, -1] == 0).all(), "both ends of its frame"


def test_convert_data(tmp_path, capsys):
    write_nuclei(tmp_path / "in")
    code, out, err = run(capsys, "convert-data", tmp_path / "in", tmp_path / "out")
    assert code == 0 and "one PNG an object, 2 photos" in err and "copied" in out
    assert len(CocoFolder(tmp_path / "out")) == 2
    code, _, err = run(capsys, "convert-data", tmp_path / "in", tmp_path / "out")
    assert code == 2 and "name a new folder" in err
    code, _, err = run(capsys, "convert-data", tmp_path / "in", tmp_path / "in" / "coco")
    assert code == 2 and "a part of it" in err and not (tmp_path / "in" / "coco").exists()


def test_several_data_sets_become_one(tmp_path, capsys):
    """Photos of one name, classes in common and not, ids that both use."""
    for folder, kinds in (("first", ("dog", "emu")), ("second", ("cat", "dog"))):
        save(tmp_path / folder / "a.png", value=len(folder))
        entry = via_entry("a.png", [region(SQUARE, kind=kinds[0]), region(RECT, kind=kinds[1])])
        write(tmp_path / folder / "via.json", entry)
    code, _, err = run(capsys, "convert-data", tmp_path / "first", tmp_path / "second", tmp_path / "both")
    assert code == 0, err
    both = CocoFolder(tmp_path / "both")
    assert both.class_names == ("background", "dog", "emu", "cat") and len(set(both.paths)) == 2
    first, second = both[0][1], both[1][1]
    assert first.labels.tolist() == [1, 2] and second.labels.tolist() == [3, 1]
    assert np.array_equal(first.boxes, second.boxes)
    code, _, err = run(capsys, "convert-data", tmp_path / "first", tmp_path / "first", tmp_path / "doubled")
    assert code == 2 and "a.png: is in two of the data sets" in err and not (tmp_path / "doubled").exists()


def test_copies_of_photos_are_noticed(tmp_path, capsys):
    """As predict --labelme leaves them: the photo is in another folder, of another name or not."""
    for name, value in (("first/a.png", 1), ("first/b.png", 2), ("second/c.png", 3), ("second/d.png", 2)):
        photo = save(tmp_path / name, value=value)
        write(photo.with_suffix(".json"), labelme([shape("polygon", POINTS)], photo.name))
    first, second = tmp_path / "first" / "b.png", tmp_path / "second" / "d.png"
    code, _, err = run(capsys, "convert-data", first.parent, second.parent, tmp_path / "both")
    assert code == 2 and not (tmp_path / "both").exists()
    assert f"{first}: is in two of the data sets, in the other as {second} (1 in all); wanted each once: take" in err
    code, out, _ = run(capsys, "show", tmp_path, "--check", "--format", "labelme")
    assert code == 1 and f"1 fault: is a copy of {first}, and a training may be validated on one" in out
    assert f"remove one of the two with its annotations\n    {second}\n" in out


@pytest.fixture
def mixed(tmp_path):
    """VIA's data that need --class-attribute, LabelMe's, and both in one folder."""
    regions = [region(SQUARE, kind="cat", color="red"), region(RECT, kind="dog", color="red")]
    for value, folder in enumerate(("via", "both")):
        save(tmp_path / folder / "a.png", value=value)
        write(tmp_path / folder / "via.json", via_entry("a.png", regions))
    for value, folder in enumerate(("labelme", "both"), 2):
        save(tmp_path / folder / "b.png", value=value)
        write(tmp_path / folder / "b.json", labelme([shape("polygon", POINTS)], "b.png"))
    return tmp_path


def test_data_of_several_formats_become_one(mixed, capsys):
    """Each option is for the data that have a use for it, and refused where none has."""
    pair = mixed / "via", mixed / "labelme"
    code, _, err = run(capsys, "convert-data", *pair, mixed / "one", "--class-attribute", "kind")
    assert code == 0, err
    assert CocoFolder(mixed / "one").class_names == ("background", "cat", "dog")
    for format, photos in (("via", "a.png"), ("labelme", "b.png")):
        arguments = "--format", format, "--class-attribute", "kind"
        out = mixed / f"both-{format}"
        code, _, err = run(capsys, "convert-data", mixed / "both", *pair, out, *arguments)
        assert code == 0, err
        assert sorted(os.listdir(out / "images")) == sorted(["a.png", "b.png", photos.replace(".", "-2.")])
    both = f"{pair[0]} is VIA, {pair[1]} is LabelMe; leave it out"
    code, _, err = run(capsys, "convert-data", *pair, mixed / "no", "--format", "coco", "--class-attribute", "kind")
    assert code == 2 and f"--format coco: {both}" in err and not (mixed / "no").exists()
    for command in (("show", pair[1]), ("show", pair[1], "--check"), ("convert-data", pair[1], mixed / "no")):
        code, _, err = run(capsys, *command, "--class-attribute", "kind")
        assert code == 2 and f"--class-attribute kind: is for VIA's files; {pair[1]} is LabelMe; leave it out" in err
        code, _, err = run(capsys, *command, "--format", "via")
        assert code == 2 and "(--format via); there is LabelMe" in err


def test_a_reader_that_goes_away_ends_a_command_quietly(tmp_path):
    save(tmp_path / "a.png")
    write(tmp_path / "via.json", via_entry("a.png", [region(SQUARE, kind="dog")] * 2))
    command = [sys.executable, "-m", "minimrcnn", "show", "--check", str(tmp_path)]
    for buffered in ("", "1"):  # words that are still there at the end, and words that are sent at once
        environment = os.environ | {"PYTHONUNBUFFERED": buffered}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141


def test_captions_have_umlauts():
    """What has no letter is drawn as a box, the same for all."""
    picture = np.zeros((20, 200, 3), np.uint8)
    drawn = [add_caption(picture, name, "1 object").tobytes() for name in ("Zähne", "Zöhne", "Zęhne", "Zжhne")]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    "name", ["red\nfox", "a\tb", "a\0b", "\x1b[31mred", "a\ud800b", "price $\\frac$", "5$ and 10$"]
)
def test_any_name_is_shown_and_none_acts_on_the_terminal(tmp_path, capsys, name):
    photo = save(tmp_path / ("a.png" if os.name == "nt" else "a\n\x1b[31m.png"))
    shapes = [shape("polygon", POINTS, name), shape("polygon", [[1, 1], [2, 2]], "dog")]
    write(tmp_path / "a.json", labelme(shapes[:1], photo.name))
    code, out, err = run(capsys, "show", tmp_path, "-o", tmp_path / "out" / "data.png")
    assert code == 0 and (tmp_path / "out" / "data.png").exists()
    write(tmp_path / "a.json", labelme(shapes, photo.name))
    for command in (
        ["show", tmp_path, "--check"],
        ["convert-data", tmp_path, tmp_path.parent / f"{tmp_path.name}-coco"],
    ):
        words = run(capsys, *command)
        assert words[0] in (1, 2)
        out, err = out + words[1], err + words[2]
    assert printable(name) in out and printable(name) in err
    assert all(line == printable(line) for line in (out + err).split("\n"))


def test_large_photos_are_looked_at_as_they_are_trained_on(tmp_path, capsys, monkeypatch):
    """At the size that a model resizes them to: whole, their masks could be more than is allowed."""
    photo = save(tmp_path / "data" / "a.png")
    write(photo.with_suffix(".json"), labelme([shape("polygon", POINTS)], photo.name))
    output = tmp_path / "data.png"
    monkeypatch.setattr("minimrcnn.data.coco.MOST_MASK_PIXELS", HEIGHT * WIDTH - 1)
    assert "are more than" in run(capsys, "show", photo.parent, "-o", output)[2]
    monkeypatch.setattr("minimrcnn.recipes.choose_min_size", lambda annotations: HEIGHT // 2)
    assert run(capsys, "show", photo.parent, "-o", output)[0] == 0 and output.exists()
    assert run(capsys, "show", photo.parent, "--check")[0] == 0


def test_pillow_does_not_talk_of_files_without_a_name(tmp_path, capsys):
    photo = save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")  # of which the pixels are fine
    write(tmp_path / "a.json", labelme([shape("polygon", POINTS)], photo.name))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert read_picture(photo).shape == (HEIGHT, WIDTH, 3) and any("EXIF" in str(one.message) for one in said)
        said.clear()
        assert run(capsys, "show", tmp_path, "--check")[0] == 0 and not said


def test_train_says_what_it_found_and_chose(tmp_path, capsys):
    """From LabelMe's files, validated on others that lack a class, with anchors that do not fit."""
    for folder, labels in (("photos", ("cat", "dog")), ("val", ("dog",))):
        for number in range(2):
            save(tmp_path / folder / f"{number}.png", 64, 64)
            shapes = [shape("polygon", POINTS, label) for label in labels]
            write(tmp_path / folder / f"{number}.json", labelme(shapes, f"{number}.png", 64, 64))
    arguments = ["train", "--data", tmp_path / "photos", "--val", tmp_path / "val", "--steps", 1]
    code, _, err = run(capsys, *arguments, "--anchors", 64, 128, 256, 512, 999, "-o", tmp_path / "run")
    assert code == 0
    assert f"{tmp_path}/photos: LabelMe, 2 photos, 4 objects, 2 classes (cat 2, dog 2)" in err
    assert f"{tmp_path}/val: LabelMe, 2 photos, 2 objects, 2 classes (dog 2, cat 0)" in err
    assert "anchors of 64, 128, 256, 512, 999 pixels, as given; 4 of 4 objects (100%) have a best IoU below 0.5" in err
    assert "hardly be learned; leave out --anchors: with 4, 8, 16, 32, 64 there are 0" in err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["pictures_scored"] == 2
    code, out, err = run(capsys, "evaluate", "--model", tmp_path / "run" / "model.npz", "--data", tmp_path / "val")
    assert code == 0 and "AP50" in out
    code, _, err = run(capsys, *arguments, "--anchors", 8, "-o", tmp_path / "other")
    assert code == 2 and "wanted five sizes" in err


def test_train_wants_objects(tmp_path, capsys):
    """What comes first behind the data is a wrong --anchors: with objects it gets that far."""

    def train(marked, *more):
        for number in range(5):
            save(tmp_path / "photos" / f"{number}.png")
            shapes = [shape("polygon", POINTS)] if number in marked else []
            write(tmp_path / "photos" / f"{number}.json", labelme(shapes, f"{number}.png"))
        arguments = "train", "--data", tmp_path / "photos", "--anchors", 8, "-o", tmp_path / "run", *more
        return run(capsys, *arguments)[::2]

    none = "there is no object in the pictures to train on"
    code, err = train([])
    assert code == 2 and f"{tmp_path / 'photos'}: {none}, 4 in all; annotate more" in err
    first_fifth = [train([number])[1] for number in range(5)]
    held = [f"{none}, 4 in all; all 1 are in those held back, so name a --val" in err for err in first_fifth]
    assert sum(held) == 1
    for err in (err for err, one in zip(first_fifth, held, strict=True) if not one):
        assert "no object in the pictures to validate on, 1 in all" in err and "wanted five sizes" in err
    code, err = train(range(5))
    assert "no object in" not in err and "wanted five sizes" in err
    save(tmp_path / "val" / "a.png")
    write(tmp_path / "val" / "a.json", labelme([shape("polygon", POINTS)]))
    code, err = train([], "--val", tmp_path / "val")
    assert code == 2 and f"{none}, 5 in all; annotate more" in err, err


def test_train_on_one_format_and_validate_on_another(mixed, capsys):
    """What comes first behind the data is a wrong --anchors: that far it gets."""
    document = coco("b.png")
    document["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    document["annotations"][0]["category_id"] = 1
    write(mixed / "coco" / "annotations.json", document)
    save(mixed / "coco" / "images" / "b.png")
    arguments = "--anchors", 8, "--class-attribute", "kind", "-o", mixed / "run"
    for data, val in (("via", "coco"), ("coco", "via"), ("via", "labelme")):
        code, _, err = run(capsys, "train", "--data", mixed / data, "--val", mixed / val, *arguments)
        assert code == 2 and "wanted five sizes" in err
