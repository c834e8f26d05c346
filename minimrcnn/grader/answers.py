"""Asking a student's function one question, and what may come back instead of an answer.

This runs in the student's process (`minimrcnn.grader.student`), and in the tests' own. It needs NumPy only, so that the
process starts fast.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parents[1]

# What an Answer can be, besides a "value".
KINDS = {
    "todo": "is not written yet",
    "raised": "raised an error",
    "type": "returned the wrong type",
    "shape": "returned the wrong shape",
    "nan": "returned NaN or infinity",
    "changed": "changed its own inputs",
    "value": "returned wrong numbers",
    "unsteady": "gave two answers to the same question",
    "odd": "returned something that cannot be compared",
    "slow": "did not come back",
    "died": "ended Python itself",
}
LOST = ("slow", "died")  # after which there is no process to ask


@dataclass(frozen=True)
class Answer:
    """What a call came to: a value that NumPy can hold, or one of `KINDS` with a message and the lines it came from."""

    kind: str
    value: np.ndarray | None = None
    message: str = ""
    trace: tuple[str, ...] = ()


def ask(function: Callable, arguments: tuple, home: Path | None = None) -> Answer:
    """Call a function and look at what it does.

    Parameters
    ----------
    function : callable
    arguments : tuple
        Passed by position: parameters may have any names.
    home : Path, optional
        The student's file; a traceback shows the lines of its folder only.
    """
    before = [np.array(argument) if isinstance(argument, np.ndarray) else None for argument in arguments]
    try:
        result = function(*arguments)
    except (Exception, SystemExit) as error:
        empty = isinstance(error, NotImplementedError) and comes_from(function, error)
        return Answer("todo" if empty else "raised", message=describe_error(error), trace=short_trace(error, home))
    for position, (copy, argument) in enumerate(zip(before, arguments, strict=True)):
        if copy is not None and not np.array_equal(copy, argument, equal_nan=True):
            return Answer("changed", message=str(position))
    return read_result(result)


def read_result(result) -> Answer:
    """A number, an array or a list of numbers as an array; anything else is the wrong type."""
    if result is None:
        return Answer("type", message="returned None; is there a `return` on every path?")
    value, why = None, ""
    try:
        value = np.array(result)  # a copy, without what a subclass may add
    except Exception as error:  # whatever a foreign object raises, and lists of unequal lengths
        why = "" if "inhomogeneous" in str(error) else f" ({describe_error(error)})"
    if value is None or value.dtype.kind not in "biuf":
        return Answer("type", message=f"returned {describe_type(result, value, why)}, wanted an array of numbers{why}")
    return Answer("value", value)


def describe_type(result, value: np.ndarray | None, why: str) -> str:
    """What a result is that is no array of numbers; ``value`` is what NumPy made of it, or ``why`` it did not."""
    if isinstance(result, np.ndarray):
        return f"an array of dtype {result.dtype}"
    if not isinstance(result, (list, tuple)):
        return f"an object of type {type(result).__name__}"
    if value is None and not why:
        return "lists of unequal lengths"
    inner = ", ".join(sorted({type(item).__name__ for item in result}))
    to_numpy = "" if value is None else f", which is an array of dtype {value.dtype} to NumPy"
    return f"a {type(result).__name__} of {inner}{to_numpy}"


def comes_from(function: Callable, error: BaseException) -> bool:
    """Whether a function has raised an error itself, rather than another one that it calls."""
    code = getattr(inspect.unwrap(function), "__code__", None)  # under functools.wraps or numba.njit
    last = traceback.extract_tb(error.__traceback__)[-1]
    return code is not None and (last.filename, last.name) == (code.co_filename, code.co_name)


def describe_error(error: BaseException) -> str:
    try:
        message = str(error).strip()
    except Exception:  # a __str__ of the student's own
        message = "(its text cannot be read)"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def short_trace(error: BaseException, home: Path | None) -> tuple[str, ...]:
    """The lines of the student's own files that led to an error, the outermost first."""
    if home is None:
        return ()
    folder = home.resolve().parent
    lines = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.exists() and path.resolve().is_relative_to(folder) and not is_foreign(path):
            lines.append(f"{path.name}, line {frame.lineno}, in {frame.name}: {frame.line}")
    return tuple(lines[-6:])  # a recursion without end has a thousand


def is_foreign(path: Path) -> bool:
    """Whether a file is an installed one or this package's, which may lie in the student's folder, too."""
    return "site-packages" in path.parts or path.resolve().is_relative_to(PACKAGE)
