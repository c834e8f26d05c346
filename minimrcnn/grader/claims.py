"""What a property is, and how one says that it is broken.

A property is a plain function ``property(subject, draw)``: it draws an example with Hypothesis, asks the function under
test, the subject, and compares with what must come back. The call whose answer is compared comes last, as it is the
one that the report shows: what is expected of it is asked before. It knows nothing of where the subject runs, so that
the same properties grade a student's file, test this package, and are themselves tested with wrong functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from minimrcnn.grader.answers import Answer

# The functions a student can write, and the names of their arguments in order.
SIGNATURES = {
    "bilinear": ("features", "y", "x"),
    "roi_align": ("features", "rois", "output_size", "spatial_scale", "sampling_ratio", "aligned"),
    "roi_align_gradient": ("gradient", "features_shape", "rois", "spatial_scale", "sampling_ratio", "aligned"),
    "roi_pool": ("features", "rois", "output_size", "spatial_scale"),
    "box_iou": ("a", "b"),
    "nms": ("boxes", "scores", "iou_threshold"),
    "encode_boxes": ("boxes", "proposals", "weights"),
    "decode_boxes": ("deltas", "proposals", "weights"),
    "assign_levels": ("boxes",),
    "make_anchors": ("size", "ratios", "level_size", "image_size"),
    "mask_loss": ("logits", "targets", "labels"),
    "paste_masks": ("masks", "boxes", "image_size"),
    "conv2d": ("x", "weight", "bias", "stride", "padding"),
}

# The shape of each answer, from the arguments; None is any length.
SHAPES = {
    "bilinear": lambda features, y, x: features.shape[2:],
    "roi_align": lambda features, rois, size, *_: (len(rois), *size, features.shape[3]),
    "roi_align_gradient": lambda gradient, features_shape, *_: features_shape,
    "roi_pool": lambda features, rois, size, *_: (len(rois), *size, features.shape[3]),
    "box_iou": lambda a, b: (len(a), len(b)),
    "nms": lambda *_: (None,),
    "encode_boxes": lambda boxes, *_: boxes.shape,
    "decode_boxes": lambda deltas, *_: deltas.shape,
    "assign_levels": lambda boxes: (len(boxes),),
    "make_anchors": lambda size, ratios, level, image: (level[0] * level[1] * len(ratios), 4),
    "mask_loss": lambda *_: (),
    "paste_masks": lambda masks, boxes, image_size: (len(masks), *image_size),
    "conv2d": lambda x, weight, bias, stride, padding: (
        len(x), *((x.shape[i + 1] + 2 * padding - weight.shape[i]) // stride + 1 for i in (0, 1)), weight.shape[3]
    ),
}  # fmt: skip
WHOLE = ("nms", "assign_levels")  # answer with integers

# Of the largest expected number, or of 1: what float32 may lose. Half a pixel and its like are far larger.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Property:
    """One thing that a function must do; within a function, they go from the particular to the general.

    The first one that is broken is the one a student is told of, so each comes after those that would break with it and
    say more.
    """

    function: str
    name: str
    says: str
    hint: str
    test: Callable


class Broken(Exception):
    """A property does not hold; ``kind`` is one of `minimrcnn.grader.answers.KINDS`."""

    def __init__(self, kind, message="", expected=None, got=None, trace=(), why=""):
        super().__init__(message or kind)
        self.kind, self.message, self.trace, self.why = kind, message, trace, why
        self.expected, self.got = expected, got


class Subject:
    """A function under test: answers with finite numbers in the right shape, or raises `Broken`.

    ``arguments`` are those of the last call.
    """

    def __init__(self, name: str, ask: Callable[[str, tuple], Answer]):
        self.name, self.ask, self.arguments = name, ask, ()

    def __call__(self, *arguments) -> np.ndarray:
        self.arguments = arguments
        answer = self.ask(self.name, arguments)
        if answer.kind == "changed":
            name = SIGNATURES[self.name][int(answer.message)]
            raise Broken("changed", f"`{name}` was not the same after the call; work on a copy")
        if answer.kind != "value":
            raise Broken(answer.kind, answer.message, trace=answer.trace)
        self._check(answer.value, SHAPES[self.name](*arguments))
        return answer.value

    def _check(self, got: np.ndarray, shape: tuple) -> None:
        if len(got.shape) != len(shape) or any(b not in (a, None) for a, b in zip(got.shape, shape, strict=True)):
            wanted = "(K,)" if None in shape else tuple(shape)
            raise Broken("shape", f"returned shape {got.shape}, wanted {wanted}", got=got)
        kinds, wanted = ("iu", "whole numbers of an integer type") if self.name in WHOLE else ("iuf", "numbers")
        if got.size and got.dtype.kind not in kinds:  # of nothing, NumPy cannot know the type
            what = "booleans" if got.dtype.kind == "b" else f"numbers of type {got.dtype}"
            raise Broken("type", f"returned {what}, wanted {wanted}", got=got)
        if not np.isfinite(got).all():
            raise Broken("nan", "there is NaN or infinity in what it returned", got=got)


PROPERTIES: dict[str, list[Property]] = {name: [] for name in SIGNATURES}


def holds(function: str, name: str, says: str, hint: str) -> Callable:
    """Enter a test as a property of a function."""

    def enter(test: Callable) -> Callable:
        PROPERTIES[function].append(Property(function, name, says, hint, test))
        return test

    return enter


def agree(got: np.ndarray, expected, why: str = "") -> None:
    """Hold an answer against what was expected; ``why`` says where that came from if not from the textbook."""
    expected = np.asarray(expected, np.float64)
    tolerance = TOLERANCE * max(1.0, float(np.abs(expected).max(initial=0.0)))
    if got.shape != expected.shape or (np.abs(got - expected) > tolerance).any():
        raise Broken("value", expected=expected, got=got, why=why)


def agree_exactly(got: np.ndarray, expected) -> None:
    """Hold whole numbers (indices, levels) against what was expected; a wrong number of them is a wrong answer."""
    expected = np.asarray(expected, np.int64)
    if got.shape != expected.shape or (got != expected).any():
        raise Broken("value", expected=expected, got=got)
