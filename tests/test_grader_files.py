"""The grader on files: the command, and no file of a student's can break it."""

from __future__ import annotations

import os
import re
import shutil
import time
import types
from pathlib import Path

import pytest

from minimrcnn import grader
from minimrcnn.errors import DataError
from minimrcnn.grader import process
from minimrcnn.grader.answers import ask
from minimrcnn.grader.claims import SIGNATURES
from minimrcnn.grader.report import Report
from tests import right_versions
from tests.wrong_versions import find_mistake

EXERCISES = Path(__file__).parents[1] / "lessons" / "exercises" / "start_here.py"

NAUGHTY = """
import os, random, re, time
import numpy as np
print("printed while it was loaded")

def helper(features):
    return features[99]

def bilinear(features, y, x):
    return helper(features)

def nms(boxes, scores, iou_threshold):
    while True:
        pass

def box_iou(a, b):
    re.match("(a+)+$", "a" * 64 + "b")  # minutes in a loop of C that never looks up

def roi_pool(features, rois, output_size, spatial_scale):
    print("debugging", len(rois))
    os.write(1, b"past Python")
    try:
        input()
    except EOFError:
        pass
    return np.ones((len(rois), *output_size, features.shape[3]))

def encode_boxes(boxes, proposals, weights):
    boxes -= proposals
    return boxes

def decode_boxes(deltas, proposals, weights):
    pass

def assign_levels(boxes):
    raise NotImplementedError

def make_anchors(size, ratios, level_size, image_size):
    os._exit(3)

def conv2d(x, weight, bias, stride, padding):
    raise SystemExit("enough")

def mask_loss(logits, targets, labels):
    return random.random()
"""


def write(folder, text, name="homework.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_naughty_file(tmp_path, capfd):
    report = grader.check(write(tmp_path, NAUGHTY), figures=tmp_path / "figures", time_limit=1.5)
    text = str(report)
    kinds = {verdict.function: verdict.failure and verdict.failure.kind for verdict in report.verdicts}
    assert kinds["bilinear"] == "raised"
    trace = report["bilinear"].failure.trace
    assert trace[-1] == "homework.py, line 7, in helper: return features[99]" and len(trace) == 2
    assert kinds["nms"] == kinds["box_iou"] == "slow"
    assert re.search(r"homework.py, line 1[34], in nms", text) and "in box_iou: re.match" in text
    assert "took longer than 1.5 s" in text and "allow it more seconds with --time-limit" in text
    assert report["nms"].marks[1][1] == "skipped"
    assert report["roi_pool"].broken[0].name == "picture"  # what it printed and asked for disturbed nothing
    assert kinds["encode_boxes"] == "changed" and "`boxes` was not the same after the call" in text
    assert kinds["decode_boxes"] == "type" and "returned None" in text
    assert report["assign_levels"].state == "todo" and "assign_levels\n  not written yet" in text
    assert kinds["make_anchors"] == "died" and "exit code 3" in text
    assert kinds["conv2d"] == "raised" and "SystemExit: enough" in text
    assert kinds["mask_loss"] in ("value", "unsteady")
    assert report["roi_align"].state == "missing" and "not in this file: roi_align" in text
    assert report.exit_code == 1
    assert capfd.readouterr().out == ""


WRONG_THEN_GONE = """
import os
import numpy as np
from minimrcnn.reference import nms

def box_iou(a, b):
    if (a[:, 2:] == a[:, :2]).any():  # what a later property asks
        {end}
    return np.ones((len(a), len(b)))
"""


@pytest.mark.parametrize("end, says", [("while True: pass", "did not come back"), ("os._exit(3)", "ended Python")])
def test_the_next_function_is_not_blamed(tmp_path, end, says):
    """What is wrong first, and ends the process later, leaves none for what comes after it."""
    path = write(tmp_path, WRONG_THEN_GONE.format(end=end))
    report = grader.check(path, ["box_iou", "nms"], time_limit=1.5)
    assert report["nms"].state == "held"
    assert report["box_iou"].failure.kind == "value" and report["box_iou"].ended[0].name == "no area"
    then = str(report).split("Then", 1)[1]
    assert f"broke: box_iou {says}" in then
    assert bool(re.search("homework.py, line [78], in box_iou", then)) == ("while" in end)  # where it was, if it was


def test_a_folder_that_cannot_be_written_to_hides_no_verdict(tmp_path):
    (tmp_path / "file").touch()
    path = write(tmp_path, "def nms(boxes, scores, iou_threshold):\n    return []\n")
    report = grader.check(path, ["nms"], figures=tmp_path / "file" / "figures")
    assert report["nms"].state == "broke" and report["nms"].picture is None


def test_only_the_students_own_lines_are_shown(tmp_path):
    """Also if the file lies beside the package, or has the name of one of its files."""

    def nms(boxes):
        return boxes[99]

    (line,) = ask(nms, ([],), Path(__file__).parents[1] / "homework.py").trace
    assert line.startswith("test_grader_files.py, line ") and line.endswith("in nms: return boxes[99]")

    path = write(tmp_path, "while True: pass\n", Path(process.__file__).name)
    text = f'Timeout (0:00:01)!\n  File "{path}", line 1 in <module>\n  File "{process.__file__}", line 1 in ask\n'
    assert process.own_lines(text, path) == ("process.py, line 1, in <module>: while True: pass",)


UNFINISHED = """
import functools

def interpolate(features, y, x):
    raise NotImplementedError("later")

def bilinear(features, y, x):
    return interpolate(features, y, x)

def announced(function):
    @functools.wraps(function)
    def call(*arguments):
        print("now")
        return function(*arguments)

    return call

@announced
def box_iou(a, b):
    raise NotImplementedError

def conv2d(x, weight, bias, stride, padding):
    raise NotImplementedError("first read the lesson")
"""


def test_a_function_that_calls_an_empty_one_is_not_empty(tmp_path):
    report = grader.check(write(tmp_path, UNFINISHED), only=["bilinear", "box_iou", "conv2d"])
    failure = report["bilinear"].failure
    assert failure.kind == "raised" and failure.message == "NotImplementedError: later"
    assert [line.split(":")[0] for line in failure.trace] == [
        "homework.py, line 8, in bilinear",
        "homework.py, line 5, in interpolate",
    ]
    assert report["box_iou"].state == report["conv2d"].state == "todo"  # a decorator is no function called


STARTS_OTHERS = """
import os, time

def box_iou(a, b):
    if os.fork() == 0:
        os.setsid() if LEAVES else None
        time.sleep(20)
        os._exit(0)
    os._exit(3)

def nms(boxes, scores, iou_threshold):
    os.fork()
    return boxes
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX systems fork")
@pytest.mark.parametrize("leaves", [False, True])
def test_a_file_that_starts_other_processes(tmp_path, monkeypatch, leaves):
    """They hold the pipe of the answers open, and are ended with the file's own, or outlive it if they leave it."""
    start, names = time.monotonic(), ["box_iou", "nms"]
    student = process.StudentProcess(write(tmp_path, STARTS_OTHERS.replace("LEAVES", str(leaves))), names, 1.0)
    try:
        assert [student.ask("nms", (question, 0, 0)).value for question in range(5)] == [0, 1, 2, 3, 4]
        monkeypatch.setattr(process, "GRACE", 1.0)
        with pytest.raises(process.Gone, match="exit code 3"):
            student.ask("box_iou", ([], []))
    finally:
        student.close()
    assert time.monotonic() - start < 15
    assert student.listener.is_alive() == leaves


REPLACES = """
import io, sys
sys.stderr = io.StringIO()

class Odd(Exception):
    def __str__(self):
        raise ValueError("nothing to say")

def box_iou(a, b):
    raise Odd

def nms(boxes, scores, iou_threshold):
    while True:
        pass
"""


def test_a_file_that_replaces_the_standard_error(tmp_path):
    """The watchdog writes past it; and what an error says may be an error itself."""
    report = grader.check(write(tmp_path, REPLACES), only=["box_iou", "nms"], time_limit=1.0)
    assert report["box_iou"].failure.message == "Odd: (its text cannot be read)"
    assert report["nms"].failure.kind == "slow" and ", in nms: " in report["nms"].failure.trace[-1]


def options(path, **others):
    return types.SimpleNamespace(
        **{"file": str(path), "only": None, "output": None, "time_limit": 10.0, "budget": 60.0, **others}
    )


def test_the_command_on_a_right_and_a_wrong_file(tmp_path, capsys):
    path = write(tmp_path, Path(right_versions.__file__).read_text(encoding="utf-8"))
    assert grader.check_command(options(path, only=["assign_levels"])) == 0
    printed = capsys.readouterr().out
    assert "BROKE" not in printed and "functions that held: 1, that broke: 0" in printed
    assert not (tmp_path / "homework-figures").exists()
    assert grader.check_command(options(path, only=["assign_levels"], budget=0.0)) == 1
    assert "too slow to tell: 1" in capsys.readouterr().out

    path = write(tmp_path, find_mistake("box_iou", "union forgotten").source())
    assert grader.check_command(options(path, only=["box_iou"])) == 1
    printed = capsys.readouterr().out
    assert '"itself" broke: box_iou returned wrong numbers' in printed
    assert "got       [[0.5]]" in printed and "hint:     The union is area a + area b - shared" in printed
    assert (tmp_path / "homework-figures" / "check-box_iou.png").exists()
    assert str(tmp_path / "homework-figures" / "check-box_iou.png") in printed


def test_the_same_file_gets_the_same_verdict(tmp_path):
    path = write(tmp_path, find_mistake("mask_loss", "all classes").source())
    first, second = (grader.check(path, only=["mask_loss"]) for _ in range(2))
    assert str(first) == str(second) and isinstance(first, Report)
    assert first["mask_loss"].broken[0].name == "one channel"


def test_nothing_written_yet(tmp_path):
    report = grader.check(shutil.copy(EXERCISES, tmp_path))
    assert report.count("todo") == len(SIGNATURES) and report.exit_code == 1
    assert f"held: 0, that broke: 0, not written yet: {len(SIGNATURES)}" in str(report)


def test_files_that_cannot_be_checked(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="there is no such file"):
        grader.check(tmp_path / "nothing.py")
    with pytest.raises(DataError, match="SyntaxError(.|\n)*homework.py, line 2: def nms"):
        grader.check(write(tmp_path, "\ndef nms(:\n"))
    with pytest.raises(DataError, match=r"ModuleNotFoundError(.|\n)*homework.py, line 1, in <module>: import turtle_"):
        grader.check(write(tmp_path, "import turtle_soup\n"))
    with pytest.raises(DataError, match="defines none of bilinear, roi_align"):
        grader.check(write(tmp_path, "nms = 3\n"))
    with pytest.raises(DataError, match="nothing to check roi_allign with"):
        grader.check(write(tmp_path, ""), only=["roi_allign"])
    with pytest.raises(DataError, match=r"file of type \.ipynb, wanted one of Python, \.py; of a notebook.*ipython"):
        grader.check(write(tmp_path, "{}", "homework.ipynb"))
    with pytest.raises(DataError, match="a folder, wanted one file"):
        grader.check(tmp_path)
    with pytest.raises(DataError, match=r"file of type none, wanted one of Python, \.py$"):
        grader.check(write(tmp_path, "", "homework"))
    monkeypatch.setattr(process, "START", 1.0)
    with pytest.raises(DataError, match="took longer than 1 s(.|\n)*line 1, in <module>: while True"):
        grader.check(write(tmp_path, "while True: pass\n"), time_limit=1.0)


def test_without_hypothesis(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    with pytest.raises(DataError, match=r'pip install "minimrcnn\[check\]"'):
        grader.check(tmp_path / "homework.py")
