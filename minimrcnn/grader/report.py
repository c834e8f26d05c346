"""What the grader found, as an object and as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minimrcnn.grader.answers import KINDS, LOST
from minimrcnn.grader.claims import SIGNATURES, Property
from minimrcnn.grader.search import Failure

WIDTH = 110  # columns of the text
MARKS = {"held": "held ", "broke": "BROKE", "skipped": "  -  "}
SLOW = "A loop that never ends? If it is Numba that compiles, allow it more seconds with --time-limit."
OVER = "The {:g} s for one function are over, so the rest was skipped; --budget allows it more, --only asks it alone."
MOST_CELLS = 100  # of an array; of a larger one, the shape is shown


@dataclass
class Verdict:
    """One function: which of its properties held, and how the first that did not was broken.

    ``state`` is "held", "broke", "slow" (what was asked in the time held), "todo" (written as `raise
    NotImplementedError`) or "missing"; ``marks`` has every property in order, with "held", "broke" or "skipped";
    ``failure`` is how the first one broke, ``ended`` the later one after which nobody could be asked any more, and how;
    ``spent`` the seconds after which the rest was skipped.
    """

    function: str
    state: str = "held"
    marks: list[tuple[Property, str]] = field(default_factory=list)
    failure: Failure | None = None
    ended: tuple[Property, Failure] | None = None
    picture: Path | None = None
    spent: float | None = None

    @property
    def broken(self) -> list[Property]:
        return [prop for prop, mark in self.marks if mark == "broke"]

    def enter(self, prop: Property, failure: Failure | None) -> None:
        """Note how a property came out."""
        self.marks.append((prop, "held" if failure is None else "broke"))
        if failure is not None:
            if self.failure is not None and failure.kind in LOST:
                self.ended = prop, failure
            self.state, self.failure = "broke", self.failure or failure

    def skip(self, properties: list[Property], spent: float | None = None) -> None:
        """Note that properties were not asked for, if so because of the seconds that the others took."""
        self.marks += [(prop, "skipped") for prop in properties]
        self.spent = spent
        if spent is not None and self.state == "held":
            self.state = "slow"


@dataclass
class Report:
    """All functions of one file."""

    path: Path
    verdicts: list[Verdict]

    def __getitem__(self, function: str) -> Verdict:
        return next(verdict for verdict in self.verdicts if verdict.function == function)

    def count(self, state: str) -> int:
        return sum(verdict.state == state for verdict in self.verdicts)

    @property
    def exit_code(self) -> int:
        """0 if something is written and all of that held, else 1."""
        return 0 if self.count("held") and not self.count("broke") + self.count("slow") else 1

    def __str__(self) -> str:
        return "\n".join([*(format_verdict(verdict) for verdict in self.verdicts), self.summary()])

    def summary(self) -> str:
        held, broke, slow, todo = (self.count(state) for state in ("held", "broke", "slow", "todo"))
        missing = [verdict.function for verdict in self.verdicts if verdict.state == "missing"]
        text = f"{self.path}: functions that held: {held}, that broke: {broke}, not written yet: {todo}"
        text += f", too slow to tell: {slow}" if slow else ""
        return text + (f"; not in this file: {', '.join(missing)}" if missing else "")


def format_verdict(verdict: Verdict) -> str:
    """One block: a line for each property, then the first that is broken, in numbers."""
    if verdict.state == "missing":
        return ""
    if verdict.state == "todo":
        return f"{verdict.function}\n  not written yet: it raises NotImplementedError\n"
    lines = [verdict.function]
    for prop, mark in verdict.marks:
        lines.append(f"  {MARKS[mark]}  {prop.name:<18} {prop.says}")
    if verdict.spent is not None:
        lines += textwrap.wrap(OVER.format(verdict.spent), WIDTH, initial_indent="  ", subsequent_indent="  ")
    if verdict.failure is not None:
        lines += ["", *format_failure(verdict.function, verdict.broken[0], verdict.failure)]
        if verdict.picture is not None:
            lines.append(f"    picture:  {verdict.picture}")
    if verdict.ended is not None:
        prop, failure = verdict.ended
        lines += [
            "",
            f'  Then "{prop.name}" broke: {verdict.function} {KINDS[failure.kind]}, and the rest was skipped.',
        ]
        lines += [f"      {line}" for line in failure.trace]
    return "\n".join([*lines, ""])


def format_failure(function: str, prop: Property, failure: Failure) -> Iterator[str]:
    """The smallest example, what was expected, what came, and the usual cause."""
    what, stack = KINDS[failure.kind], function == "paste_masks"
    yield f'  "{prop.name}" broke: {function} {what}.'
    if failure.message and failure.kind != "value":
        yield from indent("", failure.message)
    for line in failure.trace:
        yield f"      {line}"
    if failure.arguments:
        yield "    the smallest example found:"
        for name, argument in zip(SIGNATURES[function], failure.arguments, strict=True):
            yield from indent(f"{name} = ", format_value(argument, kernel=name == "weight", stack=stack))
    if failure.expected is not None:
        yield from indent("expected  ", format_value(failure.expected, digits=6, stack=stack))
        if failure.why:
            yield from indent("          ", f"({failure.why})")
    if failure.got is not None:
        yield from indent("got       ", format_value(failure.got, digits=6, stack=stack))
    # Of a function that ended Python, or changed its inputs, enough is said already.
    hint = SLOW if failure.kind == "slow" else prop.hint
    if failure.kind in ("value", "nan", "shape", "type", "odd", "raised", "slow"):
        yield from textwrap.wrap(hint, WIDTH, initial_indent="    hint:     ", subsequent_indent=" " * 14)


def indent(label: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines()):
        yield "      " + (label if number == 0 else " " * len(label)) + line


def format_value(value, digits: int = 4, kernel: bool = False, stack: bool = False) -> str:
    """A number or a short array in full; maps of channels as one grid for each picture and channel.

    A ``kernel``, (KH, KW, Cin, Cout), is one grid for each pair of channels, and a ``stack`` of masks, (N, H, W), one
    for each mask.
    """
    if not isinstance(value, np.ndarray):
        return repr(value)
    if value.size == 0:
        return f"an empty array {value.shape}"
    if value.size > MOST_CELLS:
        return f"an array {value.shape}, from {value.min():g} to {value.max():g}"
    if value.ndim == 4:
        maps = np.moveaxis(value, (2, 3) if kernel else (0, 3), (0, 1))
        place = "[:, :, {}, {}]" if kernel else "[{}, :, :, {}]"
        grids = {place.format(*pair): maps[pair] for pair in np.ndindex(maps.shape[:2])}
    elif value.ndim == 3 and stack:
        grids = {f"[{n}]": mask for n, mask in enumerate(value)}
    elif value.ndim == 3 and value.shape[2] == 1:
        grids = {"[:, :, 0]": value[:, :, 0]}
    else:
        return format_plain(value, digits)
    shown = [f"{place} is\n{format_plain(grid, digits)}" for place, grid in grids.items()]
    return f"shape {value.shape}, " + "\n".join(shown)


def format_plain(value: np.ndarray, digits: int) -> str:
    if value.dtype.kind == "f" and np.isfinite(value).all() and (value == np.round(value)).all():
        value = value.astype(np.int64) if np.abs(value).max(initial=0) < 1e15 else value
    return np.array2string(value, precision=digits, suppress_small=True, max_line_width=WIDTH - 12)
