"""The grader: right functions pass, and each known mistake is named."""

from __future__ import annotations

import contextlib
import doctest
import functools
import importlib.util
import math
import types
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from minimrcnn import Tensor, functional, geometry, reference
from minimrcnn.grader import draws, grading, search
from minimrcnn.grader.answers import ask
from minimrcnn.grader.claims import SIGNATURES, Broken, Property, Subject, agree, agree_exactly
from minimrcnn.grader.grading import grade
from minimrcnn.grader.pictures import GREEN, PICTURES, draw_failure
from minimrcnn.grader.properties import PROPERTIES
from minimrcnn.grader.report import Report, Verdict, format_value, format_verdict
from minimrcnn.grader.search import find_failure
from tests import right_versions
from tests.wrong_versions import MISTAKES, Mistake, find_mistake

EXERCISES = Path(__file__).parents[1] / "lessons" / "exercises" / "start_here.py"


def locally(function):
    """Ask a function of this process."""
    return lambda name, arguments: ask(function, arguments)


# ------------------------------------------------------------------------------------------------------ what is right


def single(features):
    return np.asarray(features, np.float32)


def send_back(gradient, features_shape, rois, *rest):
    """What RoIAlign's backward pass on the tape gives the map."""
    features = Tensor(np.zeros(features_shape, np.float32), requires_grad=True)
    functional.roi_align(features, rois, gradient.shape[1:3], *rest).backward(single(gradient))
    return features.grad


# This package's own functions behind the signatures of the exercises. `bilinear` is a RoIAlign of one sample.
PACKAGE = {
    "bilinear": lambda features, y, x: functional.roi_align(
        single(features)[None],
        [[0, *(side + shift for shift in (-0.5, 0.5) for side in clamped(features, y, x))]],
        (1, 1), 1.0, 1, False,
    ).numpy()[0, 0, 0],
    "roi_align": lambda features, *rest: functional.roi_align(single(features), *rest).numpy(),
    "roi_align_gradient": send_back,
    "roi_pool": lambda features, *rest: functional.roi_pool(single(features), *rest).numpy(),
    "box_iou": geometry.box_iou,
    "nms": geometry.nms,
    "encode_boxes": geometry.encode_boxes,
    "decode_boxes": geometry.decode_boxes,
    "assign_levels": geometry.assign_levels,
    "make_anchors": lambda size, ratios, level, image: geometry.make_anchors([size], ratios, [level], image)[0],
    "mask_loss": lambda logits, *rest: functional.mask_loss(single(logits), *rest).numpy(),
    "paste_masks": geometry.paste_masks,
    "conv2d": lambda x, weight, bias, *rest: functional.conv2d(
        single(x), single(weight), None if bias is None else single(bias), *rest
    ).numpy(),
}  # fmt: skip

# The textbook's, which the expected values come from: with them, the properties must agree among themselves.
TEXTBOOK = {
    "bilinear": reference.interpolate_bilinear,
    "roi_align": reference.roi_align,
    "roi_align_gradient": lambda gradient, features_shape, rois, *rest: reference.roi_align(
        np.zeros(features_shape), rois, gradient.shape[1:3], *rest, gradient=gradient
    ),
    "roi_pool": reference.roi_pool,
    "box_iou": reference.box_iou,
    "nms": reference.nms,
    "encode_boxes": lambda *rows: by_rows(reference.encode_box, *rows),
    "decode_boxes": lambda *rows: by_rows(reference.decode_box, *rows),
    "assign_levels": lambda boxes: np.array([reference.assign_level(box) for box in boxes], np.int64),
    "make_anchors": reference.make_anchors,
    "mask_loss": reference.mask_loss,
    "paste_masks": reference.paste_masks,
    "conv2d": reference.conv2d,
}

# Right functions that are written otherwise.
AT_ONCE = {
    "roi_align_gradient": right_versions.roi_align_gradient_at_once,
    "paste_masks": right_versions.paste_masks_at_once,
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
    hold_all(name, function, 10 if source == "package" else 5)


@pytest.mark.parametrize("name", AT_ONCE)
def test_right_functions_without_loops_pass(name):
    hold_all(name, AT_ONCE[name], search.EXAMPLES)


def hold_all(name, function, examples):
    verdict = grade(name, locally(function), shrink=False, examples=examples, budget=math.inf)  # Numba may compile
    assert verdict.state == "held" and [prop for prop, _ in verdict.marks] == PROPERTIES[name], format_verdict(verdict)


def test_no_adaptive_sample_hangs_on_the_last_digit():
    """Bins of a third of a cell are rounded, so that none of their samples may lie where the map ends."""
    rounded = Mistake("roi_align", "last digit", "adaptive", "* bin_height", "* bin_height * (1 + 1e-12)")
    prop = next(prop for prop in PROPERTIES["roi_align"] if prop.name == rounded.property)
    assert find_failure(prop, Subject("roi_align", locally(rounded.load())), shrink=False, examples=300) is None


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


def test_the_smallest_example():
    """Of a kernel that is turned around: one cell, one tap."""
    mistake = find_mistake("conv2d", "kernel flipped")
    verdict = grade("conv2d", locally(mistake.load()), first_only=True)
    x, weight, *_ = verdict.failure.arguments
    assert x.sum() == 1 and weight.sum() == 1 and weight.size == 2
    assert (verdict.failure.got != verdict.failure.expected).sum() == 1


def test_the_same_examples_each_time():
    """So that a file gets the same verdict again."""
    asked = [], []
    for calls in asked:

        def note(name, arguments, calls=calls):
            calls.append(repr(arguments))
            return ask(right_versions.nms, arguments)

        assert find_failure(PROPERTIES["nms"][-1], Subject("nms", note)) is None
    assert asked[0] == asked[1]


def test_a_failure_of_another_kind_is_another_story():
    """While it shrinks: an error on small examples is not what was found on large ones, nor the other way around."""
    kinds = []

    def either(subject, draw):
        number = draws.whole(draw, 0, 1000)
        if number > 6:
            kinds.append("value")
            raise Broken("value", str(number))
        if number > 3:
            kinds.append("raised")
            raise Broken("raised", str(number))

    failure = find_failure(Property("nms", "either", "", "", either), Subject("nms", locally(right_versions.nms)))
    assert set(kinds) == {"value", "raised"}
    assert failure.kind == kinds[0]


def test_what_is_written_for_most_examples_is_written():
    def partly(a, b):
        if (a[:, 2:] == a[:, :2]).any():  # what a later property asks
            raise NotImplementedError
        return right_versions.box_iou(a, b)

    verdict = grade("box_iou", locally(partly), shrink=False)
    assert verdict.state == "broke" and verdict.failure.kind == "todo" and verdict.broken[0].name == "no area"


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


class Attached:
    """Like a tensor of torch that requires a gradient."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("use tensor.detach()")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (Attached(), "an object of type Attached, wanted an array of numbers (RuntimeError: use tensor.detach())"),
        ([Attached()], "a list of Attached, wanted an array of numbers (RuntimeError: use tensor.detach())"),
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


def test_what_comes_back_of_nothing_and_of_infinity():
    """NumPy cannot know the type of an empty list, and what has no end is no number."""
    arguments = np.zeros((0, 4)), np.zeros(0), 0.5
    assert Subject("nms", locally(lambda *given: []))(*arguments).shape == (0,)
    with pytest.raises(Broken) as broken:
        Subject("bilinear", locally(lambda *given: [np.inf]))(np.ones((2, 2, 1)), 0.5, 0.5)
    assert broken.value.kind == "nan"


def test_a_wrapped_function_that_is_empty_is_empty():
    def empty(a, b):
        raise NotImplementedError

    @functools.wraps(empty)
    def wrapper(*given):
        return empty(*given)

    assert ask(wrapper, (1, 2)).kind == "todo"


@pytest.mark.parametrize(
    "got, expected, holds", [(1e-5, 0, True), (3e-5, 0, False), (1001.01, 1001, True), (1001.1, 1001, False)]
)
def test_what_float32_may_lose_depends_on_the_largest_number(got, expected, holds):
    """Of the largest one expected, or of 1."""
    with contextlib.nullcontext() if holds else pytest.raises(Broken):
        agree(np.array([got, 0]), [expected, 0])


@pytest.mark.parametrize("got, expected", [([], [0]), ([0], [0, 0]), ([0, 1], [1, 0])])
def test_too_few_whole_numbers_are_wrong_ones(got, expected):
    with pytest.raises(Broken):
        agree_exactly(np.array(got, np.int64), expected)


def test_examples_shrink_toward_nothing():
    """A byte of 0, which Hypothesis shrinks to, is a cell of 0, or the smallest there may be."""
    for low, high, wanted in ((0, 9, [0, 1]), (-9, 9, [0, 1]), (1, 9, [1, 2])):
        assert draws.cells(lambda strategy: bytes([0, 1]), 2, low=low, high=high).tolist() == wanted
        drawn = draws.cells(lambda strategy: bytes(range(256)), 256, low=low, high=high)
        assert set(drawn) == set(range(low, high + 1))


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


def test_maps_and_kernels_are_shown_as_grids():
    x, weight = np.arange(8.0).reshape(1, 2, 2, 2), np.arange(4.0).reshape(2, 2, 1, 1)
    assert format_value(x) == "shape (1, 2, 2, 2), [0, :, :, 0] is\n[[0 2]\n [4 6]]\n[0, :, :, 1] is\n[[1 3]\n [5 7]]"
    assert format_value(weight, kernel=True) == "shape (2, 2, 1, 1), [:, :, 0, 0] is\n[[0 1]\n [2 3]]"
    assert format_value(x[0], stack=True) == "shape (2, 2, 2), [0] is\n[[0 1]\n [2 3]]\n[1] is\n[[4 5]\n [6 7]]"
    assert format_value(np.array([0.5, 2.0])) == "[0.5 2. ]"
    assert format_value(x[0, :, :, :1]) == "shape (2, 2, 1), [:, :, 0] is\n[[0 2]\n [4 6]]"


def draw_mistake(mistake, folder, shrink=False):
    """A verdict on a mistake, and its picture."""
    verdict = Verdict(mistake.function)
    prop = next(prop for prop in PROPERTIES[mistake.function] if prop.name == mistake.property)
    verdict.enter(prop, find_failure(prop, Subject(mistake.function, locally(mistake.load())), shrink))
    return verdict, draw_failure(verdict, folder)


def test_a_wide_caption_is_not_cut_off(tmp_path):
    _, path = draw_mistake(find_mistake("roi_align", "samples outside counted"), tmp_path)
    picture = imread(path)[..., :3]
    assert (picture[:, [0, -1]] == 1).all() and (picture[[0, -1]] == 1).all()


def test_a_box_that_is_a_point_can_be_seen(tmp_path):
    verdict, path = draw_mistake(find_mistake("nms", "boxes of no area dropped"), tmp_path, shrink=True)
    assert not verdict.failure.arguments[0].any()
    assert (np.abs(imread(path)[..., :3] - to_rgb(GREEN)).max(axis=2) < 0.01).sum() > 10


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, tmp_path):
    # The last of a function's mistakes that leads to wrong numbers: NaN and errors have no picture.
    silent = ("answers", "no area", "large logits", "stride")
    mistake = [m for m in MISTAKES if m.function == name and m.property not in silent][-1]
    folder = tmp_path / "figures"
    verdict, path = draw_mistake(mistake, folder)
    assert path == folder / f"check-{name}.png" and path.read_bytes().startswith(b"\x89PNG")
    verdict.failure = None
    assert draw_failure(verdict, folder) is None and not path.exists()  # a picture of what has been mended is gone
