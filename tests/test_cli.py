"""The command line: help, errors without tracebacks, and the way from a data folder to masks in new pictures."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minimrcnn
from minimrcnn.cli import main, make_parser
from minimrcnn.data.shapes import Shapes
from minimrcnn.evaluate import detections_to_results
from minimrcnn.structures import Detections

COMMANDS = ("demo", "train", "evaluate", "predict")
FIGURES = {"box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75"}
TIMES = {"seconds_per_step", "seconds", "seconds_compiling", "peak_memory_mib"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of five small pictures."""
    folder = tmp_path_factory.mktemp("data")
    Shapes(5, seed=3, size=64).write(folder)
    return folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A training of three steps."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", "--data", str(data), "--steps", "3", "-o", str(folder)]) == 0
    return folder


def fail(capsys, *arguments):
    """Run a command that has to end with exit code 2 and one line of error; returns the line."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("minimrcnn: error: ") == 1 and "Traceback" not in error
    return error.strip().splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"  minimrcnn {command} " in shown.partition("example")[2]
    for option in ("--seed", "--threads", "--device"):
        assert option in shown


def test_examples_parse(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            main([command, "--help"])
        examples = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  minimrcnn ")]
        assert examples
        for example in examples:
            words = example.partition("   ")[0].split()[1:]
            assert make_parser().parse_args(words).command == command


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"minimrcnn {minimrcnn.__version__}"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "COMMAND"),
        (["demo", "--threads", "0"], "--threads: 0 is less than 1"),
        (["train", "--data", "x"], "-o/--output"),
        (["train", "--data", "x", "-o", "y", "--steps", "many"], "invalid whole number value: 'many'"),
        (["train", "--data", "x", "-o", "y", "--lr", "-1"], "-1 is not a number above 0"),
        (["train", "--data", "x", "-o", "y", "--lr", "nan"], "nan is not a number above 0"),
        (["predict", "--model", "m", "-o", "y"], "PICTURE"),
        (["predict", "p", "--model", "m", "-o", "y", "--score", "2"], "2 is not between 0 and 1"),
    ],
)
def test_wrong_arguments(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_errors_name_the_file(data, tmp_path, capsys):
    picture = data / "images" / "000001.png"
    assert "none.npz: there is no such file" in fail(capsys, "predict", picture, "--model", "none.npz", "-o", tmp_path)
    (tmp_path / "model.npz").write_bytes(b"\x80\x04\x95pickle")
    assert "pickle" in fail(capsys, "evaluate", "--model", tmp_path / "model.npz", "--data", data)
    assert "nowhere" in fail(capsys, "train", "--data", "nowhere", "-o", tmp_path / "run")
    assert "wanted --model with --data" in fail(capsys, "evaluate", "--model", "x")
    assert "wanted --model with --data" in fail(capsys, "evaluate", "--model", "x", "--annotations", "y")
    assert "at most" in fail(capsys, "demo", "--threads", 10_000, "-o", tmp_path / "demo")
    assert not (tmp_path / "run").exists() and not (tmp_path / "demo").exists()


def test_one_picture_is_not_enough(tmp_path, capsys):
    Shapes(1, seed=0, size=64).write(tmp_path / "one")
    assert "--val" in fail(capsys, "train", "--data", tmp_path / "one", "-o", tmp_path / "run")


def test_cuda_says_what_is_missing(tmp_path, capsys):
    try:
        import cupy  # noqa: F401
    except ImportError:
        message = fail(capsys, "demo", "--device", "cuda", "-o", tmp_path / "demo")
        assert "--device cuda" in message and "pip install" in message


def test_train_leaves_model_figures_and_page(run):
    names = {path.name for path in run.iterdir()}
    assert {"model.npz", "checkpoint.npz", "log.jsonl", "losses.png", "predictions.png", "index.html"} <= names
    results = json.loads((run / "results.json").read_text())
    assert FIGURES | TIMES <= set(results)
    assert results["steps"] == 3 and results["pictures_scored"] == 1  # a fifth of five
    assert results["versions"]["minimrcnn"] == minimrcnn.__version__
    assert results["machine"]["cores"] >= 1 and all(library["kernels"] for library in results["blas"])
    assert len((run / "log.jsonl").read_text().splitlines()) == 3
    page = (run / "index.html").read_text()
    assert "predictions.png" in page and "losses.png" in page


def test_train_does_not_overwrite_but_resumes(run, data, capsys):
    before = (run / "model.npz").read_bytes()
    assert "--resume" in fail(capsys, "train", "--data", data, "--steps", 3, "-o", run)
    assert main(["train", "--data", str(data), "--steps", "3", "-o", str(run), "--resume"]) == 0
    assert (run / "model.npz").read_bytes() == before
    assert "steps 3 there, 4 here" in fail(capsys, "train", "--data", data, "--steps", 4, "-o", run, "--resume")


def test_train_from_a_model_and_validate_elsewhere(run, data, tmp_path, capsys):
    arguments = [
        "train",
        "--data",
        data,
        "--val",
        data,
        "--steps",
        1,
        "--init",
        run / "model.npz",
        "-o",
        tmp_path / "r",
    ]
    assert main([str(argument) for argument in [*arguments, "--flips", "none", "--no-color", "--crop", 64]]) == 0
    assert json.loads((tmp_path / "r" / "results.json").read_text())["pictures_scored"] == 5
    annotations = json.loads((data / "annotations.json").read_text())
    annotations["categories"][0]["name"] = "cube"
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    for path in (data / "images").iterdir():
        (other / "images" / path.name).write_bytes(path.read_bytes())
    (other / "annotations.json").write_text(json.dumps(annotations))
    message = fail(capsys, "train", "--data", data, "--val", other, "-o", tmp_path / "q")
    assert "cube, disc, triangle" in message and "square, disc, triangle" in message
    assert "cube" in fail(capsys, "evaluate", "--model", run / "model.npz", "--data", other)


def test_evaluate_a_model(run, data, tmp_path, capsys):
    arguments = ["evaluate", "--model", run / "model.npz", "--data", data, "--json", tmp_path / "f.json"]
    assert main([str(argument) for argument in arguments]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert FIGURES <= set(figures) and len(figures) == 24
    assert "AP50" in capsys.readouterr().out


def test_evaluate_detections_against_annotations(data, tmp_path, capsys):
    shapes = Shapes(5, seed=3, size=64)
    results = []
    for index, image_id in enumerate(shapes.image_ids):
        target = shapes[index][1]
        found = Detections(target.boxes, target.labels, np.ones(len(target.labels), np.float32), target.masks > 0)
        results += detections_to_results(found, image_id, shapes.category_ids)
    (tmp_path / "d.json").write_text(json.dumps(results))
    arguments = ["evaluate", "--annotations", data / "annotations.json", "--detections", tmp_path / "d.json"]
    assert main([str(argument) for argument in [*arguments, "--json", tmp_path / "f.json"]]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["box_ap"] == pytest.approx(1) and figures["mask_ap"] == pytest.approx(1)

    boxes_only = [{key: value for key, value in row.items() if key != "segmentation"} for row in results]
    (tmp_path / "d.json").write_text(json.dumps(boxes_only))
    assert main([str(argument) for argument in [*arguments, "--json", tmp_path / "f.json"]]) == 0
    assert not any(name.startswith("mask") for name in json.loads((tmp_path / "f.json").read_text()))

    results[2]["image_id"] = 77
    (tmp_path / "d.json").write_text(json.dumps(results))
    message = fail(capsys, *arguments)
    assert "d.json" in message and "row 2" in message and "77" in message


def test_predict_leaves_pictures_and_detections(run, data, tmp_path, capsys):
    pictures = sorted((data / "images").iterdir())[:2]
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:100])
    paths = [pictures[0], broken, pictures[1]]
    arguments = ["predict", *paths, "--model", run / "model.npz", "-o", tmp_path / "found", "--score", "0"]
    assert main([str(argument) for argument in arguments]) == 2  # the broken one is named, the others are done
    error = capsys.readouterr().err
    assert "broken.png" in error and "Traceback" not in error
    assert sorted(os.listdir(tmp_path / "found")) == ["000001.png", "000002.png", "detections.json"]
    with Image.open(tmp_path / "found" / "000001.png") as picture:
        assert picture.mode == "RGB"
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert rows and {row["file_name"] for row in rows} <= {"000001.png", "000002.png"}
    for row in rows:
        assert {"image_id", "category_id", "bbox", "score", "segmentation", "category_name"} <= set(row)

    arguments[2:3] = []  # without the broken one, the detections can be scored as they are
    assert main([str(argument) for argument in arguments]) == 0
    detections, annotations = tmp_path / "found" / "detections.json", data / "annotations.json"
    assert main(["evaluate", "--annotations", str(annotations), "--detections", str(detections)]) == 0


def test_predict_never_replaces_the_pictures(run, data, capsys):
    picture = data / "images" / "000001.png"
    before = picture.read_bytes()
    assert "another folder" in fail(capsys, "predict", picture, "--model", run / "model.npz", "-o", data / "images")
    assert picture.read_bytes() == before


def test_detections_carry_the_data_sets_own_category_ids(run, data, tmp_path):
    from minimrcnn import MaskRCNN
    from minimrcnn.data import CocoFolder

    assert MaskRCNN.load(run / "model.npz").config.category_ids == CocoFolder(data).category_ids == (None, 1, 2, 3)


def test_pictures_are_numbered_and_named_apart():
    from minimrcnn.commands import name_outputs, number_pictures

    assert number_pictures([Path("a/000012.jpg"), Path("7.png")]) == [12, 7]
    assert number_pictures([Path("a/12.jpg"), Path("b/12.jpg")]) == [1, 2]
    assert number_pictures([Path("12.jpg"), Path("cat.jpg")]) == [1, 2]
    assert list(name_outputs([Path("a/x.jpg"), Path("b/x.png"), Path("y.gif")])) == ["x.png", "x-2.png", "y.png"]


def test_presets_fit_the_data():
    from minimrcnn.models.presets import choose_anchor_sizes, choose_detections, choose_min_size

    def annotate(height, width, side, count=3):
        rows = [{"image_id": 1, "bbox": [0, 0, side, side]}] * count
        return {"images": [{"id": 1, "height": height, "width": width}], "annotations": rows}

    assert choose_min_size(annotate(480, 640, 9)) is None
    assert choose_min_size(annotate(3000, 4000, 9)) == 480
    assert choose_anchor_sizes(annotate(256, 256, 16)) == (8, 16, 32, 64, 128)
    assert choose_anchor_sizes(Shapes(50, seed=0).annotations()) == (16, 32, 64, 128, 256)
    assert choose_anchor_sizes(annotate(3000, 4000, 400), 480) == (32, 64, 128, 256, 512)
    assert choose_anchor_sizes({"images": [], "annotations": []}) == (32, 64, 128, 256, 512)
    assert choose_detections(annotate(9, 9, 9)) == 100 and choose_detections(annotate(9, 9, 9, 77)) == 154
