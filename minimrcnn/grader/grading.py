"""From a function to its verdict: its properties one after the other, and a picture of the first that is broken."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from minimrcnn.errors import DataError
from minimrcnn.grader.answers import LOST, Answer
from minimrcnn.grader.claims import SIGNATURES, Subject
from minimrcnn.grader.process import StudentProcess
from minimrcnn.grader.properties import PROPERTIES
from minimrcnn.grader.report import Report, Verdict
from minimrcnn.grader.search import EXAMPLES, Enough, find_failure, leave_no_folder

TIME_LIMIT = 10.0  # seconds for one call; the examples are tiny, but Numba may have to compile
BUDGET = 60.0  # seconds for all calls of one function; plain loops take one or two


def grade_file(
    path: str | Path,
    only: list[str] | None = None,
    figures: str | Path | None = None,
    time_limit: float = TIME_LIMIT,
    tell: Callable[[Verdict], None] | None = None,
    budget: float = BUDGET,
) -> Report:
    """Grade the functions that a file defines; `minimrcnn.grader.check` tells the arguments."""
    path, names = Path(path), list(SIGNATURES) if only is None else list(only)
    unknown = [name for name in names if name not in SIGNATURES]
    if unknown:
        raise DataError(f"there is nothing to check {', '.join(unknown)} with, only {', '.join(SIGNATURES)}")
    if not path.is_file():
        raise DataError(f"{path}: " + ("a folder, wanted one file" if path.is_dir() else "there is no such file"))
    if path.suffix != ".py":
        how = "; of a notebook, make one with: jupyter nbconvert --to script, and delete its lines of get_ipython()"
        wrong = f"got a file of type {path.suffix or 'none'}, wanted one of Python, .py"
        raise DataError(f"{path}: {wrong}{how if path.suffix == '.ipynb' else ''}")
    with leave_no_folder():
        return Report(path, list(_grade_all(path, names, figures, time_limit, tell, budget)))


def _grade_all(path, names, figures, time_limit, tell, budget) -> Iterator[Verdict]:
    """The verdicts, each told as soon as it is known."""
    process = StudentProcess(path, names, time_limit)
    try:
        defined = process.defined
        if not defined:
            raise DataError(f"{path}: the file defines none of {', '.join(names)}")
        for name in names:
            verdict = grade(name, process.ask, budget=budget) if name in defined else Verdict(name, "missing")
            if process.is_gone:  # the next function gets a fresh one
                process.close()
                process = StudentProcess(path, names, time_limit)
            if figures is not None:
                from minimrcnn.grader.pictures import draw_failure  # matplotlib takes a second

                with contextlib.suppress(OSError):  # a folder that cannot be written to: the words are what counts
                    verdict.picture = draw_failure(verdict, Path(figures))
            if tell is not None:
                tell(verdict)
            yield verdict
    finally:
        process.close()


def grade(
    name: str,
    ask: Callable[[str, tuple], Answer],
    first_only: bool = False,
    shrink: bool = True,
    examples: int = EXAMPLES,
    budget: float = BUDGET,
) -> Verdict:
    """The verdict on one function.

    Parameters
    ----------
    name : str
    ask : callable
        From a name and arguments to an `Answer`: `StudentProcess.ask`, or, in tests, a call in this process.
    first_only : bool
        Stop at the first property that is broken.
    shrink : bool
        Whether to look for a smallest example.
    examples : int
        Tried for each property.
    budget : float
        Seconds for all of it; the properties that are left when they are spent are skipped.
    """
    verdict, subject = Verdict(name), Subject(name, ask)
    properties, until = PROPERTIES[name], time.monotonic() + budget
    for position, prop in enumerate(properties):
        # One smallest example is enough to think about: of later properties, only whether they hold.
        try:
            failure = find_failure(prop, subject, shrink and verdict.failure is None, examples, until)
        except Enough:
            verdict.skip(properties[position:], budget)
            break
        if failure is not None and failure.kind == "todo" and position == 0:
            return Verdict(name, "todo")
        verdict.enter(prop, failure)
        if failure is not None and (first_only or failure.kind in LOST):
            verdict.skip(properties[position + 1 :])
            break
    return verdict
