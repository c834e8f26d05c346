"""The command line: help, errors without tracebacks, and the way from a data folder to masks in new pictures."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from html import escape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import minimrcnn
from minimrcnn import cli, commands, data_commands, predicting
from minimrcnn.archive import read_archive, write_archive
from minimrcnn.cli import main, make_parser
from minimrcnn.config import Config
from minimrcnn.data.coco_names import COCO_NAMES
from minimrcnn.data.pictures import read_picture
from minimrcnn.data.shapes import Shapes
from minimrcnn.errors import DataError
from minimrcnn.evaluate import detections_to_results, load_results
from minimrcnn.models import published
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.spelling import quote_arguments, spell_command
from minimrcnn.structures import Detections
from minimrcnn.training.checkpoint import read_checkpoint, save_checkpoint
from minimrcnn.training.lock import lock_folder
from minimrcnn.training.options import TrainOptions
from minimrcnn.weights import load, save, state_of
from tests.foreign_weights import tensor, write_pth

COMMANDS = ("demo", "train", "evaluate", "predict", "explain", "convert")
TINY = {"backbone": "resnet18", "pyramid_channels": 8, "box_head_channels": 8, "mask_head_channels": (8,)}
FASTER = {**TINY, "mask_head": None}
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


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Published weights of a tiny detector of COCO's 91 classes, in torchvision's names."""
    path = tmp_path_factory.mktemp("weights") / "coco.safetensors"
    save(path, state_of(MaskRCNN(**TINY, num_classes=91, seed=5)))
    return path


@pytest.fixture
def tiny_architecture(monkeypatch):
    """``maskrcnn_resnet50_fpn`` of a size for tests."""
    monkeypatch.setattr(
        published, "maskrcnn_resnet50_fpn", lambda seed, **fields: MaskRCNN(**TINY, **fields, seed=seed)
    )


def run_command(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


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
    for command in (*COMMANDS, "show", "convert-data"):
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


def test_a_command_to_paste_names_the_python_that_runs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/there/minimrcnn/__main__.py"])
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert spell_command(["demo", "-o", "run"]) == "python3 -m minimrcnn demo -o run"


def test_the_command_that_goes_on(monkeypatch):
    said = []
    monkeypatch.setattr(cli, "run_command", lambda options, others: said.append(options.command_to_resume))
    for more in ([], ["--resume"]):
        main(["demo", *more, "-o", "my run"])
    said = [text.replace("'", '"') for text in said]  # as Windows has them
    assert said == ['minimrcnn demo -o "my run" --resume', 'minimrcnn demo --resume -o "my run"']


def test_a_program_without_a_terminal(tmp_path):
    """As pythonw starts it on Windows, or a service whose output is closed."""
    (tmp_path / "01_first.py").write_text('"""The first."""\n')
    code = "import sys\nsys.stdout = sys.stderr = None\nfrom minimrcnn.cli import main\nsys.exit(main(sys.argv[1:]))"
    for arguments, expected in ((["lessons", "--folder", tmp_path], 0), (["show", tmp_path / "nowhere"], 2)):
        assert subprocess.run([sys.executable, "-c", code, *arguments]).returncode == expected


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
        (["predict", "p", "-o", "y"], "one of the arguments --model --weights is required"),
        (["predict", "p", "--model", "m", "--weights", "w", "-o", "y"], "--weights: not allowed with argument --model"),
        (["train", "--data", "x", "-o", "y", "--trainable-backbone-layers", "6"], "6 is more than 5"),
        (["train", "--data", "x", "-o", "y", "--architecture", "vgg"], "invalid choice: 'vgg'"),
        (["train", "--data", "x", "-o", "y", "--anchors", "8", "-1"], "-1 is not a side of at least 2"),
        (["train", "--data", "x", "-o", "y", "--anchors", "1", "2", "4", "8", "16"], "1 is not a side of at least 2"),
        (["show", "x", "--anchors", "1.5", "2", "4", "8", "16"], "1.5 is not a side of at least 2"),
        (["show", "x", "--anchors", "big"], "invalid anchor size value: 'big'"),
        (["train", "--data", "x", "-o", "y", "--lr", "abc"], "invalid number value: 'abc'"),
        (["predict", "p", "--model", "m", "-o", "y", "--score", "half"], "invalid number value: 'half'"),
        (["show", "x", "--format", "voc"], "invalid choice: 'voc'"),
        (["convert-data", "x"], "OUT"),
        (["train", "--data", "x", "-o", "y", "--weight-decay", "-1"], "-1 is not a number from 0 on"),
        (["convert", "x", "-o", "y", "--norm-eps", "nan"], "nan is not a number from 0 on"),
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
    assert "a b.json: no such file;" in fail(capsys, "train", "--data", "a b.json", "-o", tmp_path / "run")
    assert "wanted --model or --weights with" in fail(capsys, "evaluate", "--model", "x")
    assert "wanted --model or --weights with" in fail(capsys, "evaluate", "--model", "x", "--annotations", "y")
    assert "at most" in fail(capsys, "demo", "--threads", 10_000, "-o", tmp_path / "demo")
    assert not (tmp_path / "run").exists() and not (tmp_path / "demo").exists()


def test_one_picture_is_not_enough(tmp_path, capsys):
    Shapes(1, seed=0, size=64).write(tmp_path / "one")
    assert "--val" in fail(capsys, "train", "--data", tmp_path / "one", "-o", tmp_path / "run")
    Shapes(2, seed=0, size=64).write(two := tmp_path / "two")  # are: one of them is held back, though a fifth is none
    document = json.loads((two / "annotations.json").read_text())
    (two / "annotations.json").write_text(json.dumps({**document, "annotations": []}))
    assert "pictures to train on, 1 in all; annotate" in fail(capsys, "train", "--data", two, "-o", tmp_path / "run")


def test_cuda_says_what_is_missing(tmp_path, capsys):
    try:
        import cupy  # noqa: F401
    except ImportError:
        message = fail(capsys, "demo", "--device", "cuda", "-o", tmp_path / "demo")
        assert "--device cuda" in message and "pip install" in message


def test_train_leaves_model_figures_and_page(run, data):
    names = {path.name for path in run.iterdir()}
    assert {"model.npz", "best.npz", "checkpoint.npz", "log.jsonl", "validation.jsonl", "losses.png"} <= names
    assert (run / "checkpoint.npz").stat().st_size < 10_000  # the optimizer's state is not needed any more
    results = json.loads((run / "results.json").read_text())
    assert FIGURES | TIMES <= set(results)
    assert results["steps"] == 3 and results["pictures_scored"] == 1  # a fifth of five
    assert results["versions"]["minimrcnn"] == minimrcnn.__version__
    assert results["machine"]["cores"] >= 1 and all(library["kernels"] for library in results["blas"])
    assert results["best"] == {"step": 3, "mask_ap": results["mask_ap"]}
    assert len((run / "log.jsonl").read_text().splitlines()) == 3
    page = (run / "index.html").read_text()
    assert (
        "All 3 steps are done" in page
        and "that were held back, which it is not trained on" in page
        and "refresh" not in page
    )
    shown = re.findall(r'src="([^"?]+)', page)
    assert len(shown) == 2 and all((run / name).exists() for name in shown)


def test_train_does_not_overwrite_but_resumes(run, data, capsys):
    before = (run / "model.npz").read_bytes()
    assert "--resume" in fail(capsys, "train", "--data", data, "--steps", 3, "-o", run)
    assert main(["train", "--data", str(data), "--steps", "3", "-o", str(run), "--resume"]) == 0
    assert (run / "model.npz").read_bytes() == before
    assert "no such folder, so no run" in fail(capsys, "train", "--data", data, "-o", run / "typo", "--resume")
    message = fail(capsys, "train", "--data", data, "--steps", 4, "-o", run, "--resume")
    assert "other options (--steps 3 there, 4 here)" in message and f"--init {run / 'model.npz'}" in message


def test_resume_does_not_start_over_an_existing_model(run, data, tmp_path, capsys):
    model = tmp_path / "model.npz"
    model.write_bytes((run / "model.npz").read_bytes())
    arguments = ["train", "--data", data, "--steps", 3, "--init", run / "best.npz", "-o", tmp_path, "--resume"]
    assert f"{model}: a model without the checkpoint.npz" in fail(capsys, *arguments)
    assert "a model without" in fail(capsys, "demo", "--quick", "-o", tmp_path, "--resume")
    assert os.listdir(tmp_path) == ["model.npz"] and model.read_bytes() == (run / "model.npz").read_bytes()


def test_a_watched_training_has_the_same_bits_and_a_best_model(run, data, tmp_path):
    arguments = ["train", "--data", data, "--steps", 3, "-o", tmp_path / "r", "--watch", 1, "--evaluate-every", 1]
    run_command(*arguments)
    assert (tmp_path / "r" / "model.npz").read_bytes() == (run / "model.npz").read_bytes()
    scores = [json.loads(line) for line in (tmp_path / "r" / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in scores] == [1, 2, 3]
    picture = data / "images" / "000001.png"
    run_command("predict", picture, "--model", tmp_path / "r" / "best.npz", "-o", tmp_path / "found")


def test_ctrl_c_says_what_goes_on(data, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "a run"
    arguments = ["train", "--data", str(data), "--steps", "3", "-o", str(folder)]
    losses, calls = MaskRCNN.losses, iter(range(100))

    def press(*given):
        if next(calls) == 1:  # in the first step; before, there is the rehearsal
            os.kill(os.getpid(), signal.SIGINT)
        return losses(*given)

    monkeypatch.setattr(MaskRCNN, "losses", press)
    assert main(arguments) == 130
    error = capsys.readouterr().err
    command = f"minimrcnn train --data {data} --steps 3 -o '{folder}' --resume"
    assert error.strip().endswith(f"minimrcnn: stopped after step 1 of 3, which is saved; this goes on: {command}")
    assert f"This goes on: <code>{escape(command)}</code>" in (folder / "index.html").read_text()
    stopped = folder / "checkpoint.npz"  # there is no model.npz yet
    run_command("predict", data / "images" / "000001.png", "--model", stopped, "-o", tmp_path / "found")
    run_command("train", "--data", data, "--steps", 1, "--init", stopped, "-o", tmp_path / "other")
    assert "afresh" not in capsys.readouterr().err
    other = fail(capsys, *arguments, "--steps", 9, "--anchors", "8", "--seed", 1, "--resume")
    differences = "--steps 3 there, 9 here; --anchors auto there, 8.0 here; --seed 0 there, 1 here"
    assert f"other options ({differences}); leave them out to go on, or start another in a new folder" in other
    run_command("train", "--data", data, "--watch", 2, "-o", folder, "--resume")
    assert "going on after step 1 of 3" in capsys.readouterr().err
    checkpoint = read_checkpoint(stopped)
    assert checkpoint.arguments == arguments and checkpoint.options["warmup_steps"] == 0
    assert main(shlex.split(command)[1:]) == 0


@pytest.mark.parametrize("words", [["--help"], ["--\x1b[31mred"]])
def test_a_checkpoint_with_options_that_are_not_known_is_refused(run, data, tmp_path, capsys, words):
    arrays, header = read_archive(run / "checkpoint.npz")
    header["arguments"] = [*header["arguments"], *words]
    write_archive(tmp_path / "checkpoint.npz", arrays, header)
    assert main(["train", "--data", str(data), "-o", str(tmp_path), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "began with options that this version does not know; start in a new folder with --init" in error
    assert "\x1b" not in error


def test_a_demo_goes_on_in_the_folder_that_is_named_wherever_it_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["demo", "--quick", "--seed", "3", "-o", str(tmp_path / "elsewhere")]
    folder = tmp_path / "minimrcnn-demo"
    folder.mkdir()
    model = SimpleNamespace(
        arrays=dict, generator=np.random.default_rng(0), config=Config(), trained_on=(), validated_on=()
    )
    save_checkpoint(folder / "checkpoint.npz", model, None, TrainOptions(), 1, finished=True, arguments=arguments)
    seen = []
    monkeypatch.setattr(commands, "demo", seen.append)
    run_command("demo", "--resume")
    assert (seen[0].output, seen[0].quick, seen[0].seed) == ("minimrcnn-demo", True, 3)
    assert seen[0].arguments == arguments


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
    assert "warning: 5 of the 5 pictures to validate on are trained on too" in capsys.readouterr().err
    assert f"Pictures of {data}, 5 of which it is trained on, found" in (tmp_path / "r" / "index.html").read_text()
    assert f"{data / 'run'}: lies in {data}" in fail(capsys, "train", "--data", data, "-o", data / "run")
    copies = tmp_path / "copies"  # a photo's name does not tell
    shutil.copytree(data, copies)
    arguments[4], arguments[-1] = copies, tmp_path / "s"
    assert main([str(argument) for argument in arguments]) == 0
    assert "warning: 5 of the 5 pictures to validate on are trained on too" in capsys.readouterr().err
    annotations = json.loads((data / "annotations.json").read_text())
    annotations["categories"][0]["name"] = "cube"
    other = tmp_path / "other"
    (other / "images").mkdir(parents=True)
    for path in (data / "images").iterdir():
        (other / "images" / path.name).write_bytes(path.read_bytes())
    (other / "annotations.json").write_text(json.dumps(annotations))
    message = fail(capsys, "train", "--data", data, "--val", other, "-o", tmp_path / "q")
    assert f"{other}: there are objects of classes that are not known, cube; wanted square, disc, triangle;" in message
    assert "--check" not in message  # which looks at these data alone, and finds no fault
    assert "not known, cube; wanted" in fail(capsys, "evaluate", "--model", run / "model.npz", "--data", other)


def test_classes_are_found_by_name_in_what_a_model_is_scored_on(run, data, tmp_path):
    annotations = json.loads((data / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in annotations["categories"]}
    numbers = {"triangle": 3, "disc": 8}  # the other way round, and one less
    rows = [row for row in annotations["annotations"] if names[row["category_id"]] in numbers]
    annotations["annotations"] = rows
    (tmp_path / "images").symlink_to(data / "images")

    def evaluate():
        (tmp_path / "annotations.json").write_text(json.dumps(annotations))
        arguments = ["--model", run / "model.npz", "--data", tmp_path, "--score", 0, "--json", tmp_path / "f.json"]
        run_command("evaluate", *arguments)
        return json.loads((tmp_path / "f.json").read_text())

    before = evaluate()
    annotations["categories"] = [{"id": number, "name": name} for name, number in numbers.items()]
    annotations["annotations"] = [{**row, "category_id": numbers[names[row["category_id"]]]} for row in rows]
    assert evaluate() == before and before["box_ar100"] > 0


def test_a_model_is_scored_whatever_numbers_it_has_for_its_classes(run, data, tmp_path, capsys):
    figures = []
    for numbers in ([None, 1, 2, 3], [None, 1, 1, None], []):
        arrays, header = read_archive(run / "model.npz")
        header["config"]["category_ids"] = numbers
        write_archive(tmp_path / "model.npz", arrays, header)
        run_command("evaluate", "--model", tmp_path / "model.npz", "--data", data, "--score", 0)
        figures.append(capsys.readouterr().out)
    assert len(set(figures)) == 1 and "AP50" in figures[0]


def test_a_model_is_trained_on_at_its_own_size_and_anchors(run, data, tmp_path, capsys):
    model = MaskRCNN.load(run / "model.npz")
    own = {"anchor_sizes": (256, 512, 1024, 2048, 4096), "min_size": 96, "max_size": 160}
    assert not own.items() & vars(model.config).items()
    MaskRCNN.load(run / "model.npz", **own).save(tmp_path / "own.npz")
    crop = "--crop", 64
    run_command("train", "--data", data, "--steps", 1, "--init", tmp_path / "own.npz", *crop, "-o", tmp_path / "r")
    assert own.items() <= vars(MaskRCNN.load(tmp_path / "r" / "model.npz").config).items()
    said = capsys.readouterr().err
    assert said.count(f", as in {tmp_path / 'own.npz'}; ") == 2 and "hardly be learned; with --anchors 32 64" in said
    assert "warning: crops of 64 pixels are resized to a shorter side of 96" in said


def test_mended_annotations_go_on_with_what_was_fitted(data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    arguments = ["train", "--data", folder, "--steps", 1, "-o", tmp_path / "r"]
    run_command(*arguments)
    before = (tmp_path / "r" / "model.npz").read_bytes()
    annotations = json.loads((folder / "annotations.json").read_text())
    (row, *_), image = annotations["annotations"], annotations["images"][0]["id"]
    tiny = {"bbox": [8, 8, 4, 4], "segmentation": [[8, 8, 12, 8, 12, 12, 8, 12]], "area": 16, "image_id": image}
    annotations["annotations"] += [{**row, **tiny, "id": 1000 + n} for n in range(200)]
    (folder / "annotations.json").write_text(json.dumps(annotations))
    run_command(*arguments, "--resume")
    assert (tmp_path / "r" / "model.npz").read_bytes() == before


def test_evaluate_a_model(run, data, tmp_path, capsys):
    arguments = ["evaluate", "--model", run / "model.npz", "--data", data, "--json", tmp_path / "f.json"]
    assert main([str(argument) for argument in arguments]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert FIGURES <= set(figures) and len(figures) == 24
    printed = capsys.readouterr()
    assert "AP50" in printed.out and "4 of the 5 pictures are what the model was trained on" in printed.err


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
    run_command(*arguments, "--score", "1", "--json", tmp_path / "f.json")  # a least score is one that counts
    assert json.loads((tmp_path / "f.json").read_text()) == figures

    boxes_only = [{key: value for key, value in row.items() if key != "segmentation"} for row in results]
    (tmp_path / "d.json").write_text(json.dumps(boxes_only))
    assert main([str(argument) for argument in [*arguments, "--json", tmp_path / "f.json"]]) == 0
    assert not any(name.startswith("mask") for name in json.loads((tmp_path / "f.json").read_text()))

    results[2]["image_id"] = 77
    (tmp_path / "d.json").write_text(json.dumps(results))
    message = fail(capsys, *arguments)
    assert "d.json" in message and "row 2" in message and "77" in message


def test_boxes_alone_are_scored_and_trained_on_without_masks(data, tmp_path, capsys, monkeypatch):
    annotations = json.loads((data / "annotations.json").read_text())
    results = [{**row, "score": 1.0} for row in annotations["annotations"]]
    (tmp_path / "d.json").write_text(json.dumps(results))
    (boxes := tmp_path / "boxes").mkdir()
    (boxes / "images").symlink_to(data / "images")
    file = boxes / "annotations.json"
    evaluate = ["evaluate", "--annotations", file, "--detections", tmp_path / "d.json", "--json", tmp_path / "f.json"]

    def leave_outlines(count):
        rows = [{**row, "segmentation": row["segmentation"] if n < count else []} for n, row in enumerate(results)]
        file.write_text(json.dumps({**annotations, "annotations": rows}))

    leave_outlines(1)
    assert re.search(r"annotations: row \d+: .* no outline, and masks are scored", fail(capsys, *evaluate))
    leave_outlines(0)
    run_command(*evaluate)
    assert "no outlines, so boxes alone are scored" in capsys.readouterr().err
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["box_ap"] == pytest.approx(1) and len(figures) == 12

    monkeypatch.setattr(
        published, "fasterrcnn_resnet50_fpn", lambda seed, **fields: MaskRCNN(**FASTER, **fields, seed=seed)
    )
    arguments = ["train", "--data", boxes, "--steps", 1, "--size", 64, "-o", tmp_path / "r"]
    message = fail(capsys, *arguments)
    assert "masks are wanted" in message and "--architecture fasterrcnn_resnet50_fpn" in message
    run_command(*arguments, "--architecture", "fasterrcnn_resnet50_fpn")
    assert f"without an outline, of which the box is enough here: {len(results)}" in capsys.readouterr().err
    run_command("evaluate", "--model", tmp_path / "r" / "model.npz", "--data", boxes)
    results[0]["bbox"][2] = 0
    leave_outlines(0)
    message = fail(capsys, "evaluate", "--model", tmp_path / "r" / "model.npz", "--data", boxes)
    assert "both lengths above 0" in message and "--check" not in message  # which wants masks


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
    capsys.readouterr()
    run_command(*arguments[:-1], "1")
    assert capsys.readouterr().out.count(": nothing -> ") == 2


def test_outputs_are_refused_before_the_work_and_their_folders_made(run, data, weights, tmp_path, capsys, monkeypatch):
    def work(*arguments, **names):
        raise AssertionError("worked first")

    model, picture, file = run / "model.npz", data / "images" / "000001.png", tmp_path / "file"
    file.write_text("no folder")
    with monkeypatch.context() as patch:
        for module in (commands, predicting):
            patch.setattr(module, "compile_ahead", work)
        patch.setattr(data_commands, "draw_overview", work)
        for arguments in (
            ["predict", picture, "--model", model, "-o", file],
            ["explain", picture, "--model", model, "-o", file / "page.html"],
            ["evaluate", "--model", model, "--data", data, "--json", file / "figures.json"],
            ["convert", model, "-o", file / "weights.npz"],
            ["convert", weights, "-o", file / "model.npz"],
            ["show", data, "-o", file / "data.png"],
        ):
            assert re.search(rf"{file}/?\S*: it cannot be written \(", fail(capsys, *arguments))
    run_command("show", data, "-o", tmp_path / "a" / "new" / "data.png")
    run_command("convert", model, "-o", tmp_path / "another" / "weights.npz")
    run_command("evaluate", "--model", model, "--data", data, "--json", tmp_path / "third" / "figures.json")


def test_ctrl_c_in_predict_keeps_what_was_found(run, data, tmp_path, monkeypatch, capsys):
    predict, calls = MaskRCNN.predict, iter(range(100))

    def press(*arguments, **names):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return predict(*arguments, **names)

    monkeypatch.setattr(MaskRCNN, "predict", press)
    (broken := tmp_path / "broken.png").touch()  # is done with, too
    arguments = ["predict", broken, data / "images", "--model", run / "model.npz", "-o", tmp_path / "found"]
    assert main([str(argument) for argument in [*arguments, "--score", 0]]) == 130
    assert "minimrcnn: stopped after 2 of 6 pictures" in capsys.readouterr().err
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert rows and {row["file_name"] for row in rows} == {"000001.png"}
    assert sorted(os.listdir(tmp_path / "found")) == ["000001.png", "detections.json"]


def test_predict_never_replaces_the_pictures(run, data, capsys):
    picture = data / "images" / "000001.png"
    before = picture.read_bytes()
    for folder in (data / "images", data / "images" / ".." / "images"):
        arguments = "--model", run / "model.npz", "-o", folder
        assert "the results would replace the pictures" in fail(capsys, "predict", picture, *arguments)
        assert "would lie among the pictures" in fail(capsys, "predict", data / "images", *arguments)
    assert picture.read_bytes() == before


def test_no_training_is_overwritten_or_disturbed(run, data, capsys):
    before = (run / "model.npz").read_bytes()
    for command in (["demo", "--quick"], ["train", "--data", data]):
        assert "a training is in this folder; go on with it (--resume)" in fail(capsys, *command, "-o", run)
        with lock_folder(run):
            assert fail(capsys, *command, "-o", run).startswith(f"minimrcnn: error: {run}: another training writes")
    assert (run / "model.npz").read_bytes() == before


def test_a_demo_is_scored_on_other_pictures_whatever_its_seed(monkeypatch):
    class Made(Exception):
        pass

    for seed in (0, commands.UNSEEN):
        seeds = []

        def note(count, seed, seeds=seeds):
            seeds.append(seed)
            if len(seeds) == 2:
                raise Made

        monkeypatch.setattr(commands, "Shapes", note)
        with pytest.raises(Made):
            commands.demo(SimpleNamespace(quick=True, seed=seed))
        assert seeds[0] == seed != seeds[1]


def test_copies_among_the_pictures_to_train_on_flatter_nobody(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "run_watched", lambda *given: None)
    for folder, seed in (("data", 3), ("val", 4)):
        Shapes(3, seed=seed, size=64).write(tmp_path / folder)
        images = tmp_path / folder / "images"
        shutil.copy(images / "000001.png", images / "000002.png")
    run_command("train", "--data", tmp_path / "data", "--val", tmp_path / "val", "-o", tmp_path / "run")
    assert "trained on too" not in capsys.readouterr().err


def test_photos_that_a_model_has_learned_flatter_nobody(run, data, tmp_path, capsys, monkeypatch):
    """Of the five photos of that run it was trained on four."""
    monkeypatch.setattr(commands, "run_watched", lambda *given: None)
    shutil.copytree(data, more := tmp_path / "more")
    Shapes(3, seed=4, size=64).write(other := tmp_path / "other")
    for path in other.glob("images/*"):
        shutil.copy(path, more / "images" / f"1{path.name}")
    document, rest = (json.loads((folder / "annotations.json").read_text()) for folder in (data, other))
    for image in rest["images"]:
        document["images"].append({**image, "id": image["id"] + 100, "file_name": f"1{image['file_name']}"})
    (more / "annotations.json").write_text(json.dumps(document))

    arguments = ["train", "--init", run / "model.npz", "-o", tmp_path / "run", "--data"]
    run_command(*arguments, more)
    said = capsys.readouterr().err
    assert "2 of 8 pictures are held back" in said and "AP will flatter" not in said
    run_command(*arguments, other, "--val", data)
    assert f"4 of the 5 pictures to validate on are what {run / 'model.npz'} was trained on" in capsys.readouterr().err


def test_what_a_model_has_learned_is_told_of_a_run_that_goes_on_too(run, data, tmp_path, capsys):
    other, folder = tmp_path / "other", tmp_path / "run"
    Shapes(3, seed=4, size=64).write(other)
    begin = ["train", "--data", other, "--steps", 1, "-o", folder]
    run_command(*begin, "--val", data, "--init", run / "model.npz")
    for _ in range(2):
        assert "4 of the 5 pictures to validate on are what" in capsys.readouterr().err
        assert "4 of which the model that it began with was trained on" in (folder / "index.html").read_text()
        run_command(*begin, "--resume")


def test_a_demo_replaces_a_shorter_one_only(run, tmp_path):
    config, path = MaskRCNN.load(run / "model.npz").config, run / "checkpoint.npz"  # taken for a demo's, of 3 steps
    assert read_checkpoint(path).finished and commands.is_shorter_demo(path, config, 3)
    assert not commands.is_shorter_demo(path, config, 2)
    assert not commands.is_shorter_demo(path, dataclasses.replace(config, box_batch_size_per_image=63), 3)
    assert not commands.is_shorter_demo(tmp_path / "checkpoint.npz", config, 1000)


def test_predict_replaces_nothing_but_its_own(run, data, tmp_path, capsys):
    picture, mine = data / "images" / "000001.png", tmp_path / "000001.png"
    mine.write_bytes(b"another photo of this name")
    arguments = "predict", picture, "--model", run / "model.npz", "-o"
    for more in ([], ["--labelme"]):
        assert f"{mine}: is there already, and is not the result of" in fail(capsys, *arguments, tmp_path, *more)
    assert mine.read_bytes() == b"another photo of this name"
    for _ in range(2):  # earlier results are replaced
        run_command(*arguments, tmp_path / "found")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "detections.json").write_text('{"mine": 1}')
    assert "detections.json: is there already" in fail(capsys, *arguments, tmp_path / "others")


def test_what_was_found_earlier_is_not_forgotten(run, data, tmp_path, capsys):
    options = "--model", run / "model.npz", "-o", tmp_path / "found", "--score", 0
    run_command("predict", data / "images", *options)
    before = (tmp_path / "found" / "detections.json").read_bytes()
    assert "1 of 1 pictures could not be read" in fail(capsys, "predict", data / "images" / "typo.png", *options)
    assert (tmp_path / "found" / "detections.json").read_bytes() == before
    run_command("predict", data / "images" / "000002.png", *options)
    earlier = {row["file_name"] for row in json.loads(before)} - {"000002.png"}
    assert earlier and f"still has results of {len(earlier)} pictures" in capsys.readouterr().err
    found = {row["file_name"] for row in json.loads((tmp_path / "found" / "detections.json").read_text())}
    assert found == {"000002.png"} and (tmp_path / "found" / "000001.png").exists()


def test_labels_stand_for_names_and_the_most_detections_are_told(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predicting, "compile_ahead", lambda *_, **__: None)
    model = SimpleNamespace(config=Config(num_classes=3, box_detections_per_img=2))
    for count, words in ((1, ": 1 2 -> "), (2, ": 2 2, the most this model gives -> ")):
        found = Detections(np.float32([[0, 0, 9, 9]] * count), np.full(count, 2), np.ones(count, np.float32))
        model.predict = lambda pictures, score_thresh, found=found: [found]
        assert predicting.predict_files(model, [str(data / "images" / "000001.png")], tmp_path, 0.5) == 0
        assert words in capsys.readouterr().out
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert [(row["category_id"], row["category_name"]) for row in rows] == [(2, "2")] * 2


def test_a_result_is_not_written_over_a_copy_to_correct(data, tmp_path, monkeypatch):
    """A picture in a folder of the name that the copies' folder has."""
    monkeypatch.setattr(predicting, "compile_ahead", lambda *_, **__: pytest.fail("worked first"))
    for folder in ("photos", "photos/labelme"):
        (tmp_path / folder).mkdir()
        shutil.copy(data / "images" / "000001.png", tmp_path / folder / "a.png")
    with pytest.raises(DataError, match=r"a\.png: is the result of one picture and the copy of another"):
        predicting.predict_files(None, [str(tmp_path / "photos")], tmp_path / "found", 0.5, labelme=True)


def test_dark_photos_are_told(run, data, tmp_path, capsys):
    Image.fromarray(np.linspace(0, 4095, 4096).astype(np.uint16).reshape(64, 64)).save(tmp_path / "dark.png")
    pictures = data / "images" / "000001.png", tmp_path / "dark.png"
    run_command("predict", *pictures, "--model", run / "model.npz", "-o", tmp_path / "found")
    assert f"{tmp_path / 'dark.png'}: photos of more than 8 bits" in capsys.readouterr().err


def test_results_stay_in_their_folder(run, data, tmp_path, monkeypatch):
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "z").mkdir()
    shutil.copy(data / "images" / "000001.png", tmp_path / "z")
    monkeypatch.chdir(tmp_path / "here")
    run_command("predict", "*/../../z/*.png", "--model", run / "model.npz", "-o", "found")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"z/000001.png", "here/found/detections.json", "here/found/deep/z/000001.png"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere every file name is text")
def test_file_names_that_are_no_text(run, data, tmp_path, capsys):
    picture = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    shutil.copy(data / "images" / "000001.png", picture)
    run_command("predict", picture, "--model", run / "model.npz", "-o", tmp_path / "found")
    assert "caf\\udce9.png" in capsys.readouterr().out
    run_command("explain", picture, "--model", run / "model.npz", "-o", tmp_path / "page.html")
    assert b"caf\\udce9.png" in (tmp_path / "page.html").read_bytes()
    picture = shutil.copy(data / "images" / "000001.png", tmp_path / "a\n\x1b[31m.png")
    capsys.readouterr()
    for arguments in (("predict", picture, "-o", tmp_path / "red"), ("explain", picture, "-o", tmp_path / "red.html")):
        run_command(*arguments, "--model", run / "model.npz")
        shown = "".join(capsys.readouterr())
        assert "a\\n\\x1b[31m.png: " in shown and "\x1b[31m" not in shown


def test_detections_carry_the_data_sets_own_category_ids(run, data, tmp_path):
    from minimrcnn.data import CocoFolder

    model = MaskRCNN.load(run / "model.npz")
    assert model.config.category_ids == CocoFolder(data).category_ids == (None, 1, 2, 3)
    path = data / "images" / "000001.png"
    array = read_picture(path)
    by_path, by_array = model.predict([path, array], score_thresh=0)
    assert by_path.category_ids == (None, 1, 2, 3) and by_path.picture == str(path) and by_array.picture() is array
    np.testing.assert_array_equal(by_path.draw(), by_array.draw())
    del array
    assert by_array.picture() is None  # detections keep no picture in memory


def test_pictures_are_numbered_and_named_apart():
    from minimrcnn.predicting import name_outputs, number_pictures

    assert number_pictures([Path("a/000012.jpg"), Path("7.png")]) == [12, 7]
    assert number_pictures([Path("a/12.jpg"), Path("b/12.jpg")]) == [1, 2]
    assert number_pictures([Path("12.jpg"), Path("cat.jpg")]) == [1, 2]
    names = [Path(name) for name in ("x.jpg", "x.png", "X.JPG", "y.gif", "sub/x.jpg", "a.b.png", "plain")]
    outputs = ["x.jpg", "x-2.png", "X-3.JPG", "y.png", "sub/x.jpg", "a.b.png", "plain.png"]
    assert [output.as_posix() for output in name_outputs(names)] == outputs
    assert [output.name for output in name_outputs([Path("X.JPG"), Path("x.png")])] == ["X.JPG", "x-2.png"]


@pytest.mark.skipif(os.name == "nt", reason="whole paths are short there")
def test_long_file_names_hold_up_no_picture(run, data, tmp_path, capsys):
    names = ["ü" * 125 + "a.jpg", "ü" * 125 + "a.png", "b.png"]
    for name in names:
        shutil.copy(data / "images" / "000001.png", tmp_path / name)
    pictures = [tmp_path / name for name in ("x" * 300, *names)]
    code = main(
        ["predict", *map(str, pictures), "--model", str(run / "model.npz"), "-o", str(tmp_path / "found"), "--labelme"]
    )
    assert code == 2 and "x: cannot be read" in capsys.readouterr().err
    found = [path.suffix for path in (tmp_path / "found").iterdir()]
    assert sorted(found) == ["", ".jpg", ".json", ".png", ".png"]
    assert len(list((tmp_path / "found" / "labelme").iterdir())) == 6


@pytest.mark.parametrize("name, form", [("a.PNG", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG")])
def test_a_result_is_what_its_name_says(tmp_path, name, form):
    predicting.save_drawn(tmp_path / "sub" / name, np.zeros((8, 8, 3), np.uint8))
    with Image.open(tmp_path / "sub" / name) as picture:
        assert picture.format == form


@pytest.fixture(scope="module")
def photos(data, tmp_path_factory):
    """A folder of three pictures, two of one name, and of one that is damaged."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    for number, name in enumerate(("a.jpg", "b.png", "sub/a.jpg"), 1):
        with Image.open(data / "images" / f"00000{number}.png") as picture:
            picture.save(folder / name)
    (folder / "sub" / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    return folder


def test_predict_goes_through_folders_and_leaves_what_to_correct(run, photos, tmp_path, capsys):
    found = tmp_path / "found"
    arguments = [
        "predict",
        str(photos),
        "--model",
        str(run / "model.npz"),
        "-o",
        str(found),
        "--score",
        "0",
        "--labelme",
    ]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert "broken.jpg" in shown.err and "1 of 4 pictures could not be read" in shown.err and "4/4" in shown.err
    assert len(shown.out.splitlines()) == 3 and quote_arguments(["labelme", str(found / "labelme")]) in shown.err
    results = {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()}
    pictures = {"a.jpg", "b.png", "sub/a.jpg"}
    copies = {f"labelme/{name}" for name in pictures}
    assert results == {*pictures, *copies, *(f"{name[:-4]}.json" for name in copies), "detections.json"}
    rows = json.loads((found / "detections.json").read_text())
    assert {row["file_name"] for row in rows} == pictures and len({row["image_id"] for row in rows}) == 3
    with Image.open(found / "a.jpg") as picture:
        assert picture.format == "JPEG" and picture.size == (384, 384)
    document = json.loads((found / "labelme/sub/a.json").read_text())
    assert document["imagePath"] == "a.jpg" and document["imageWidth"] == 64 and document["shapes"]
    assert (found / "labelme/sub/a.jpg").read_bytes() == (photos / "sub/a.jpg").read_bytes()

    (found / "labelme/a.json").write_text("corrected")
    assert "may have been corrected" in fail(capsys, *arguments)
    assert (found / "labelme/a.json").read_text() == "corrected"
    assert "no pictures there" in fail(capsys, "predict", photos / "*.gif", *arguments[2:])
    with Image.open(photos / "b.png") as picture:
        picture.save(tmp_path / "c.bmp")  # what was found is drawn into a PNG; what is corrected is the picture itself
    options = "--model", run / "model.npz", "-o", tmp_path / "one", "--score", 1, "--labelme"
    run_command("predict", tmp_path / "c.bmp", *options)
    results = {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*.*")}
    assert results == {"c.png", "detections.json", "labelme/c.bmp", "labelme/c.json"}


def test_predict_tells_pictures_of_one_name_apart(run, photos, tmp_path):
    annotations = {"images": [], "categories": [{"id": n, "name": str(n)} for n in (1, 2, 3)], "annotations": []}
    for number, name in enumerate(("a.jpg", "sub/a.jpg"), 7):
        annotations["images"].append({"id": number, "file_name": name, "width": 64, "height": 64})
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    run_command("predict", photos / "**/a.jpg", "--model", run / "model.npz", "-o", tmp_path / "found", "--score", 0)
    detections = tmp_path / "found" / "detections.json"
    rows = load_results(detections, annotations)
    assert {(row["file_name"], row["image_id"]) for row in rows} == {("a.jpg", 7), ("sub/a.jpg", 8)}


def test_presets_fit_the_data():
    from minimrcnn.models.presets import choose_anchor_sizes, choose_detections, choose_min_size

    def annotate(height, width, side, count=3):
        rows = [{"image_id": 1, "bbox": [0, 0, side, side]}] * count
        return {"images": [{"id": 1, "height": height, "width": width}], "annotations": rows}

    assert choose_min_size(annotate(480, 640, 9)) is None
    assert choose_min_size(annotate(3000, 4000, 400)) == 480
    assert choose_min_size(annotate(3000, 4000, 9)) == 960  # the largest, for small objects
    assert choose_anchor_sizes(annotate(256, 256, 16)) == (8, 16, 32, 64, 128)
    assert choose_anchor_sizes(Shapes(50, seed=0).annotations()) == (16, 32, 64, 128, 256)
    assert choose_anchor_sizes(annotate(3000, 4000, 400), 480) == (32, 64, 128, 256, 512)
    assert choose_anchor_sizes({"images": [], "annotations": []}) == (32, 64, 128, 256, 512)
    assert choose_detections(annotate(9, 9, 9)) == 100 and choose_detections(annotate(9, 9, 9, 77)) == 154


def test_predict_with_published_weights(weights, data, tmp_path, capsys):
    picture = data / "images" / "000001.png"
    run_command("predict", picture, "--weights", weights, "-o", tmp_path, "--score", 0)
    output = capsys.readouterr()
    assert "resnet18 with fpn, convolutional mask head, 91 classes, frozen_batch norm, eps 0.0" in output.err
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert rows and all(COCO_NAMES[row["category_id"]] == row["category_name"] for row in rows)
    assert rows[0]["category_name"] in output.out
    (tmp_path / "odd.npz").write_bytes(weights.read_bytes()[:100])
    assert "odd.npz" in fail(capsys, "predict", picture, "--weights", tmp_path / "odd.npz", "-o", tmp_path)


def test_evaluate_published_weights(weights, data, tmp_path, capsys):
    assert "not known, disc, square, triangle; wanted person, bicycle" in fail(
        capsys, "evaluate", "--weights", weights, "--data", data
    )
    annotations = json.loads((data / "annotations.json").read_text())
    for category, number in zip(annotations["categories"], (1, 18, 62), strict=True):  # COCO's, with gaps in between
        for row in annotations["annotations"]:
            if row["category_id"] == category["id"]:
                row["category_id"] = -number
        category |= {"id": number, "name": COCO_NAMES[number]}
    annotations["images"] = annotations["images"][:1]
    rows = [row for row in annotations["annotations"] if row["image_id"] == annotations["images"][0]["id"]]
    annotations["annotations"] = [{**row, "category_id": abs(row["category_id"])} for row in rows]
    (tmp_path / "images").symlink_to(data / "images")
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    run_command("evaluate", "--weights", weights, "--data", tmp_path, "--json", tmp_path / "figures.json")
    assert FIGURES <= set(json.loads((tmp_path / "figures.json").read_text()))


def test_a_model_without_names_has_to_have_as_many_classes(data, tmp_path, capsys):
    save(tmp_path / "two.npz", state_of(MaskRCNN(**TINY, num_classes=3)))
    message = fail(capsys, "evaluate", "--weights", tmp_path / "two.npz", "--data", data)
    assert message.endswith(f"{data}: it has 3 classes, {tmp_path / 'two.npz'} knows 2; wanted as many")


def test_model_and_weights_mixed_up_name_each_other(weights, run, tmp_path, capsys):
    state = load(weights)
    save(tmp_path / "weights.npz", state)
    torchs = write_pth(tmp_path / "weights.pth", {name: tensor(array) for name, array in state.items()})
    for path in (weights, tmp_path / "weights.npz", torchs):
        assert "--weights instead of --model" in fail(capsys, "predict", "a.jpg", "--model", path, "-o", tmp_path / "p")
    message = fail(capsys, "predict", "a.jpg", "--weights", run / "model.npz", "-o", tmp_path / "p")
    assert "--model instead of --weights" in message


def test_a_pth_goes_through_the_commands(weights, data, tmp_path, tiny_architecture, capsys):
    state = load(weights)
    path = write_pth(tmp_path / "weights.pth", {name: tensor(array) for name, array in state.items()})
    run_command("convert", path, "-o", tmp_path / "model.npz")
    run_command("convert", tmp_path / "model.npz", "-o", tmp_path / "back.npz")
    back = load(tmp_path / "back.npz")
    assert set(back) == set(state) and all(np.array_equal(back[name], state[name]) for name in state)
    for source in (["--weights", path], ["--model", tmp_path / "model.npz"]):
        run_command("predict", data / "images" / "000001.png", *source, "-o", tmp_path / source[0], "--score", 0)
    found = [(tmp_path / name / "detections.json").read_text() for name in ("--weights", "--model")]
    assert found[0] == found[1] and json.loads(found[0])
    arguments = ["train", "--data", data, "--architecture", "maskrcnn_resnet50_fpn", "--size", 64, "--steps", 1]
    run_command(*arguments, "--init", path, "-o", tmp_path / "r")
    assert "afresh: box_head.class_logits, box_head.box_deltas, mask_head.logits" in capsys.readouterr().err


def test_convert_there_and_back(weights, tmp_path, capsys):
    run_command("convert", weights, "-o", tmp_path / "model.npz")
    model = MaskRCNN.load(tmp_path / "model.npz")
    assert model.config.class_names == COCO_NAMES and model.config.norm_eps == 0.0
    state = load(weights)
    for name in ("back.npz", "back.safetensors"):
        run_command("convert", tmp_path / "model.npz", "-o", tmp_path / name)
        assert "eps is 0.0: set it in torch's model as well" in capsys.readouterr().err
        back = load(tmp_path / name)
        assert set(back) == set(state) and all(np.array_equal(back[key], state[key]) for key in state)
    run_command("convert", weights, "-o", tmp_path / "other.npz", "--norm-eps", 1e-3)
    assert MaskRCNN.load(tmp_path / "other.npz").config.norm_eps == 1e-3
    run_command("convert", tmp_path / "other.npz", "-o", tmp_path / "back.npz")
    assert "--norm-eps 0.001" in capsys.readouterr().err


def test_convert_says_what_public_names_do_not_tell(run, weights, data, tmp_path, capsys):
    run_command("convert", run / "model.npz", "-o", tmp_path / "small.npz")
    said = capsys.readouterr().err
    assert "though it has no such model" in said and "strict" not in said
    call = re.search(r"as it was, the model is (load_model\(.*\))\n", said)[1]
    for words in ("'square'", "min_size=None", "anchor_sizes=(16, 32,", "category_ids=(None, 1, 2, 3)"):
        assert words in call
    assert not re.search("_train|trainable|norm", call)
    found = []
    for model in (MaskRCNN.load(run / "model.npz"), eval(call, {"load_model": minimrcnn.load_model})):
        found.append(model.predict([data / "images" / "000001.png"], score_thresh=0)[0])
    assert len(found[0]) and found[0].names == found[1].names
    np.testing.assert_array_equal(found[0].boxes, found[1].boxes)
    run_command("convert", weights, "-o", tmp_path / "coco.npz")
    capsys.readouterr()
    run_command("convert", tmp_path / "coco.npz", "-o", tmp_path / "back.npz")
    assert "as it was" not in capsys.readouterr().err  # nothing is lost


def test_safetensors_bring_the_whole_model_back(run, data, tmp_path, capsys):
    model = MaskRCNN.load(run / "model.npz")
    run_command("convert", run / "model.npz", "-o", tmp_path / "w.safetensors")
    assert "load_model" not in capsys.readouterr().err
    run_command("convert", tmp_path / "w.safetensors", "-o", tmp_path / "back.npz")
    assert "assumed" not in capsys.readouterr().err
    back = MaskRCNN.load(tmp_path / "back.npz")
    assert back.config == model.config and back.config.class_names[1] == "square"
    arrays = back.arrays()
    assert all(np.array_equal(arrays[name], array) for name, array in model.arrays().items())
    assert minimrcnn.load_model(tmp_path / "w.safetensors", box_nms_thresh=0.3).config.box_nms_thresh == 0.3

    run_command("convert", run / "model.npz", "-o", tmp_path / "w.npz")
    run_command("convert", tmp_path / "w.npz", "-o", tmp_path / "other.npz")
    assert "w.npz: it does not tell anchors, picture size and class names; assumed are" in capsys.readouterr().err
    fields = dataclasses.asdict(model.config)
    for other, message in (
        ({"flux": 1}, "unknown fields flux"),
        ({"num_classes": "4"}, "num_classes is '4'"),
        ({"mask_pool_size": 4000}, "mask_pool_size is 4000"),
        ({"box_head_channels": 10**7}, "far more weights than the file"),
        ({"rpn_conv_depth": 2}, "names do not fit this model"),
    ):
        save(tmp_path / "w.safetensors", state_of(model), {**fields, **other})
        with pytest.raises(DataError, match=f"w.safetensors: .*{message}"):
            minimrcnn.load_model(tmp_path / "w.safetensors")


def test_convert_refuses(weights, run, tmp_path, capsys):
    assert "written as .npz" in fail(capsys, "convert", weights, "-o", tmp_path / "model.safetensors")
    for same in (weights, weights.parent / ".." / weights.parent.name / weights.name):
        assert "another file" in fail(capsys, "convert", weights, "-o", same)
    assert "leave out --norm-eps" in fail(
        capsys, "convert", run / "model.npz", "-o", tmp_path / "w.npz", "--norm-eps", 0
    )
    assert "wanted .npz or .safetensors" in fail(capsys, "convert", run / "model.npz", "-o", tmp_path / "w.pth")
    assert "there is no such file" in fail(capsys, "convert", tmp_path / "none.pth", "-o", tmp_path / "model.npz")


def test_train_on_published_weights_and_resume(weights, data, tmp_path, tiny_architecture, capsys):
    arguments = ["train", "--data", data, "--architecture", "maskrcnn_resnet50_fpn", "--init", weights, "--size", 64]
    arguments += [
        "--steps",
        2,
        "--optimizer",
        "sgd",
        "--schedule",
        "step",
        "--norm-weight-decay",
        0,
        "-o",
        tmp_path / "r",
    ]
    run_command(*arguments, "--trainable-backbone-layers", 0)
    said = capsys.readouterr().err
    assert "afresh: box_head.class_logits, box_head.box_deltas, mask_head.logits" in said
    model = MaskRCNN.load(tmp_path / "r" / "model.npz")
    assert model.config.norm_eps == 0.0 and model.config.class_names[1] == "square" and model.config.min_size == 64
    state, mine = load(weights), state_of(model)
    body = "backbone.body."
    assert all(np.array_equal(mine[name], state[name]) for name in state if name.startswith(body))
    assert not np.array_equal(mine["rpn.head.cls_logits.weight"], state["rpn.head.cls_logits.weight"])
    recipe = TrainOptions(**read_checkpoint(tmp_path / "r" / "checkpoint.npz").options)
    assert recipe.learning_rate == 0.0025 and recipe.weight_decay == 1e-4
    assert recipe.flip_vertical == 0 and not recipe.color
    optimized = recipe.make_optimizer(model.named_parameters()).arrays()
    assert optimized and not any("backbone" in name for name in optimized)
    before = (tmp_path / "r" / "model.npz").read_bytes()
    for more in ([], ["--trainable-backbone-layers", 0]):
        run_command(*arguments, *more, "--resume")
        assert (tmp_path / "r" / "model.npz").read_bytes() == before
    message = fail(capsys, *arguments, "--trainable-backbone-layers", 3, "--resume")
    assert "--trainable-backbone-layers 0 there, 3 here" in message


def test_train_an_architecture_from_scratch(data, tmp_path, tiny_architecture, capsys):
    arguments = ["train", "--data", data, "--architecture", "maskrcnn_resnet50_fpn", "--steps", 1, "--size", 64]
    run_command(*arguments, "-o", tmp_path / "r")
    assert "group norm throughout" in capsys.readouterr().err
    config = MaskRCNN.load(tmp_path / "r" / "model.npz").config
    assert config.norm == "group" and config.trainable_backbone_layers == 5
    assert "--architecture small" in fail(capsys, *arguments, "--backbone", "resnet18", "-o", tmp_path / "q")
