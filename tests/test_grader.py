"""The grader: right functions pass, each known mistake is named, and no file of a student's can break it."""

from __future__ import annotations

import doctest
import importlib.util
import math
import os
import re
import shutil
import time
import types
from pathlib import Path

import numpy as np
import pytest

from minimrcnn import functional, geometry, grader, reference
from minimrcnn.errors import DataError
from minimrcnn.grader import grading, process, search
from minimrcnn.grader.answers import ask
from minimrcnn.grader.claims import SIGNATURES, Property, Subject
from minimrcnn.grader.grading import grade
from minimrcnn.grader.pictures import PICTURES, draw_failure
from minimrcnn.grader.properties import PROPERTIES
from minimrcnn.grader.report import Report, Verdict, format_verdict
from minimrcnn.grader.search import find_failure
from tests import right_versions
from tests.wrong_versions import MISTAKES

EXERCISES = Path(__file__).parents[1] / "lessons" / "exercises" / "start_here.py"


def locally(function):
    """Ask a function of this process."""
    return lambda name, arguments: ask(function, arguments)


# ------------------------------------------------------------------------------------------------------ what is right


def single(features):
    return np.asarray(features, np.float32)


# This package's own functions behind the signatures of the exercises. `bilinear` is a RoIAlign of one sample.
PACKAGE = {
    "bilinear": lambda features, y, x: functional.roi_align(
        single(features)[None],
        [[0, *(side + shift for shift in (-0.5, 0.5) for side in clamped(features, y, x))]],
        (1, 1), 1.0, 1, False,
    ).numpy()[0, 0, 0],
    "roi_align": lambda features, *rest: functional.roi_align(single(features), *rest).numpy(),
    "roi_pool": lambda features, *rest: functional.roi_pool(single(features), *rest).numpy(),
    "box_iou": geometry.box_iou,
    "nms": geometry.nms,
    "encode_boxes": geometry.encode_boxes,
    "decode_boxes": geometry.decode_boxes,
    "assign_levels": geometry.assign_levels,
    "make_anchors": lambda size, ratios, level, image: geometry.make_anchors([size], ratios, [level], image)[0],
    "mask_loss": lambda logits, *rest: functional.mask_loss(single(logits), *rest).numpy(),
    "conv2d": lambda x, weight, bias, *rest: functional.conv2d(
        single(x), single(weight), None if bias is None else single(bias), *rest
    ).numpy(),
}  # fmt: skip

# The textbook's, which the expected values come from: with them, the properties must agree among themselves.
TEXTBOOK = {
    "bilinear": reference.interpolate_bilinear,
    "roi_align": reference.roi_align,
    "roi_pool": reference.roi_pool,
    "box_iou": reference.box_iou,
    "nms": reference.nms,
    "encode_boxes": lambda *rows: by_rows(reference.encode_box, *rows),
    "decode_boxes": lambda *rows: by_rows(reference.decode_box, *rows),
    "assign_levels": lambda boxes: np.array([reference.assign_level(box) for box in boxes], np.int64),
    "make_anchors": reference.make_anchors,
    "mask_loss": reference.mask_loss,
    "conv2d": reference.conv2d,
}


def clamped(features, y, x):
    """x and y, in the order of a box, moved to the map: RoIAlign's own border is one cell wide."""
    return min(max(x, 0), features.shape[1] - 1), min(max(y, 0), features.shape[0] - 1)


def by_rows(function, first, second, weights):
    rows = [function(*pair, weights) for pair in zip(first, second, strict=True)]
    return np.array(rows, float).reshape(-1, 4)


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize("source", ["package", "textbook", "plain"])
def test_right_functions_pass(source, name):
    function = {"package": PACKAGE, "textbook": TEXTBOOK, "plain": vars(right_versions)}[source][name]
    examples = 10 if source == "package" else 5
    verdict = grade(name, locally(function), shrink=False, examples=examples, budget=math.inf)  # Numba may compile
    assert verdict.state == "held", format_verdict(verdict)


def test_exercises_and_their_examples():
    """The empty functions have the signatures the grader uses, and right functions give their examples' results."""
    specification = importlib.util.spec_from_file_location("start_here", EXERCISES)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    names = {"np": np, **{name: getattr(right_versions, name) for name in SIGNATURES}}
    for name, arguments in SIGNATURES.items():
        code = getattr(module, name).__code__
        assert code.co_varnames[: code.co_argcount] == arguments
        (test,) = finder.find(getattr(module, name), name, globs=names)
        assert test.examples, f"{name} has no worked example"
        assert runner.run(test, out=lambda text: None).failed == 0, name


# ------------------------------------------------------------------------------------------------------ what is wrong


# Properties that compare not the last answer itself, but the same in order, or how many of several answers changed.
COMPARED_OTHERWISE = [("nms", "answers"), ("make_anchors", "stride"), ("mask_loss", "one channel")]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # wrong versions divide by 0
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: f"{mistake.function}, {mistake.name}")
def test_each_mistake_breaks_its_own_property_first(mistake):
    function = mistake.load()
    for prop in PROPERTIES[mistake.function]:
        # Of those before, a few examples must do: it is a hundred mistakes.
        examples = search.EXAMPLES if prop.name == mistake.property else 4
        failure = find_failure(prop, Subject(mistake.function, locally(function)), shrink=False, examples=examples)
        if prop.name == mistake.property:
            assert failure is not None
            if failure.kind == "value" and (mistake.function, prop.name) not in COMPARED_OTHERWISE:
                # What came is printed and drawn beside the arguments that it came from.
                assert np.array_equal(function(*failure.arguments), failure.got)
            return
        assert failure is None, f"{prop.name} broke first: {failure}"
    raise AssertionError(f"there is no property {mistake.property}")


def test_names_of_properties_and_mistakes_are_used_once():
    for name, properties in PROPERTIES.items():
        assert len({prop.name for prop in properties}) == len(properties) >= 5
        assert sum(mistake.function == name for mistake in MISTAKES) >= 5
    assert len({(mistake.function, mistake.name) for mistake in MISTAKES}) == len(MISTAKES) > 100


def find_mistake(function, name):
    return next(mistake for mistake in MISTAKES if (mistake.function, mistake.name) == (function, name))


def test_the_smallest_example():
    """Of a kernel that is turned around: one cell, one tap."""
    mistake = find_mistake("conv2d", "kernel flipped")
    verdict = grade("conv2d", locally(mistake.load()), first_only=True)
    x, weight, *_ = verdict.failure.arguments
    assert x.sum() == 1 and weight.sum() == 1 and weight.size == 2
    assert (verdict.failure.got != verdict.failure.expected).sum() == 1


def test_shrinking_has_an_end(monkeypatch):
    monkeypatch.setattr(search, "SHRINKS", 3)
    mistake = find_mistake("conv2d", "kernel flipped")
    assert grade("conv2d", locally(mistake.load()), first_only=True).broken[0].name == "not flipped"


class Slowly:
    """Asks a function that takes 0.1 s for each call, by a clock that stands still otherwise."""

    def __init__(self, function, monkeypatch):
        self.function, self.calls = function, 0
        clock = types.SimpleNamespace(monotonic=lambda: 0.1 * self.calls)
        for module in (grading, search):
            monkeypatch.setattr(module, "time", clock)

    def __call__(self, name, arguments):
        self.calls += 1
        return ask(self.function, arguments)


def test_a_slow_function_is_not_asked_for_ever(monkeypatch):
    slow = Slowly(right_versions.conv2d, monkeypatch)
    verdict = grade("conv2d", slow, budget=8)
    marks = [mark for _, mark in verdict.marks]
    assert slow.calls == 81 and marks == ["held"] + ["skipped"] * (len(PROPERTIES["conv2d"]) - 1)
    report = Report(Path("homework.py"), [verdict])
    assert "The 8 s for one function are over, so the rest was skipped" in str(report)
    assert verdict.state == "slow" and "held: 0, that broke: 0, not written yet: 0, too slow to tell: 1" in str(report)
    assert report.exit_code == 1


def test_shrinking_ends_when_the_time_is_spent(monkeypatch):
    slow = Slowly(find_mistake("conv2d", "channels transposed").load(), monkeypatch)
    verdict = grade("conv2d", slow, budget=8)
    assert slow.calls == 81 and verdict.state == "broke" and verdict.broken[0].name == "channels"
    assert [mark for _, mark in verdict.marks[2:]] == ["skipped"] * (len(PROPERTIES["conv2d"]) - 2)
    assert "so the rest was skipped" in format_verdict(verdict)


def first_failure(name, function):
    verdict = grade(name, locally(function), first_only=True, shrink=False)
    return verdict.failure, format_verdict(verdict)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.array([None, 1.0]), "an array of dtype object, wanted an array of numbers"),
        (np.array([1j]), "an array of dtype complex128, wanted"),
        (np.array(["7"]), "an array of dtype <U1, wanted"),
        ([[1.0], [1.0, 2.0]], "lists of unequal lengths, wanted"),
        ([[1.0, None]], "a list of list, which is an array of dtype object to NumPy, wanted"),
        ({7}, "an object of type set, wanted"),
    ],
)
def test_results_that_are_no_numbers(result, message):
    failure, text = first_failure("box_iou", lambda a, b: result)
    assert failure.kind == "type" and f"returned {message}" in text


def test_booleans_are_no_numbers():
    failure, text = first_failure("roi_align", lambda *arguments: right_versions.roi_align(*arguments) > 0)
    assert failure.kind == "type" and "returned booleans, wanted numbers" in text


def test_what_no_property_foresees_is_a_verdict():
    def never(box_iou, draw):
        box_iou(np.zeros((0, 4)), np.zeros((0, 4)))[7]

    prop = Property("box_iou", "never", "", "", never)
    failure = find_failure(prop, Subject("box_iou", locally(geometry.box_iou)))
    assert failure.kind == "odd" and "comparing it failed with IndexError: index 7" in failure.message
    verdict = Verdict("box_iou")
    verdict.enter(prop, failure)
    assert "box_iou returned something that cannot be compared" in format_verdict(verdict)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, tmp_path):
    # The last of a function's mistakes that leads to wrong numbers: NaN and errors have no picture.
    silent = ("answers", "no area", "large logits", "stride")
    mistake = [m for m in MISTAKES if m.function == name and m.property not in silent][-1]
    folder, verdict = tmp_path / "figures", Verdict(name)
    prop = next(prop for prop in PROPERTIES[name] if prop.name == mistake.property)
    verdict.enter(prop, find_failure(prop, Subject(name, locally(mistake.load())), shrink=False))
    path = draw_failure(verdict, folder)
    assert path == folder / f"check-{name}.png" and path.read_bytes().startswith(b"\x89PNG")
    verdict.failure = None
    assert draw_failure(verdict, folder) is None and not path.exists()  # a picture of what has been mended is gone


# -------------------------------------------------------------------------------------------- the student's own process

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
    assert "took longer than 1.5 s" in text
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


def test_only_the_students_own_lines_are_shown(tmp_path):
    """Also if the file lies beside the package, or has the name of one of its files."""

    def nms(boxes):
        return boxes[99]

    (line,) = ask(nms, ([],), Path(__file__).parents[1] / "homework.py").trace
    assert line.startswith("test_grader.py, line ") and line.endswith("in nms: return boxes[99]")

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
    assert "held: 0, that broke: 0, not written yet: 11" in str(report)


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
    with pytest.raises(DataError, match=r"file of type \.ipynb, wanted one of Python, \.py; of a notebook.* nbconvert"):
        grader.check(write(tmp_path, "{}", "homework.ipynb"))
    with pytest.raises(DataError, match=r"file of type none, wanted one of Python, \.py$"):
        grader.check(write(tmp_path, "", "homework"))
    monkeypatch.setattr(process, "START", 1.0)
    with pytest.raises(DataError, match="took longer than 1 s(.|\n)*line 1, in <module>: while True"):
        grader.check(write(tmp_path, "while True: pass\n"), time_limit=1.0)


def test_without_hypothesis(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "hypothesis", None)
    with pytest.raises(DataError, match=r"pip install 'minimrcnn\[check\]'"):
        grader.check(tmp_path / "homework.py")
