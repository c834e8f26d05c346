"""Looking for an example that breaks a property, and for the smallest one, with Hypothesis."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, configuration, given, settings
from hypothesis import errors as hypothesis_errors
from hypothesis import strategies as st

from minimrcnn.grader.answers import describe_error
from minimrcnn.grader.claims import Broken, Property, Subject
from minimrcnn.grader.process import Gone

EXAMPLES = 50  # tried for each property
SHRINKS = 400  # tries to make a failing example smaller


@dataclass(frozen=True)
class Failure:
    """How a property broke: the arguments of the call, what was expected, and what came."""

    kind: str
    message: str
    arguments: tuple
    expected: np.ndarray | None = None
    got: np.ndarray | None = None
    why: str = ""
    trace: tuple[str, ...] = ()


class Enough(BaseException):
    """Ends Hypothesis' search, for an example or for a smaller one."""


def find_failure(
    prop: Property, subject: Subject, shrink: bool = True, examples: int = EXAMPLES, until: float = math.inf
) -> Failure | None:
    """The smallest example found that breaks a property; None if it holds. The same subject gets the same examples.

    Parameters
    ----------
    prop : Property
    subject : Subject
    shrink : bool
        Whether the first example found shall be made smaller.
    examples : int
        How many to try.
    until : float
        When to end, by `time.monotonic`: with the smallest example found by then.

    Raises
    ------
    Enough
        If none was found by then, and not all were tried.
    """
    found: list[Failure] = []
    tries, over = 0, False

    def attempt(data):
        nonlocal tries, over
        tries += bool(found)
        over = tries > SHRINKS or time.monotonic() > until
        if over:
            raise Enough
        try:
            test_or_break(prop, subject, data.draw)
        except Broken as broken:
            failure = Failure(
                broken.kind, broken.message, subject.arguments, broken.expected, broken.got, broken.why, broken.trace
            )
            # While it shrinks, each example that fails is smaller than the one before. One that fails in another way
            # (an error in place of a wrong number) is another story.
            if not found or failure.kind == found[0].kind:
                found.append(failure)
            raise
        except Gone as gone:
            over = True
            found[:] = [Failure(gone.answer.kind, gone.answer.message, subject.arguments, trace=gone.answer.trace)]
            raise

    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    search = settings(
        derandomize=True, database=None, deadline=None, max_examples=examples, report_multiple_bugs=False,
        phases=phases, verbosity=Verbosity.quiet, suppress_health_check=list(HealthCheck), print_blob=False,
    )(given(st.data())(attempt))  # fmt: skip
    try:
        search()
    except (Broken, Enough, Gone):
        pass
    except hypothesis_errors.Flaky:
        if not over:  # an example that we have cut short is flaky to Hypothesis, too
            last = found[-1]
            return Failure("unsteady", "called again with the same arguments, it answered otherwise", last.arguments)
    if over and not found:
        raise Enough
    return found[-1] if found else None


def test_or_break(prop: Property, subject: Subject, draw) -> None:
    """Test one example. What no property foresees in an answer is the answer's fault, and no traceback of ours."""
    try:
        prop.test(subject, draw)
    except (Broken, hypothesis_errors.HypothesisException):
        raise
    except Exception as error:
        raise Broken("odd", f"comparing it failed with {describe_error(error)}") from error


@contextmanager
def leave_no_folder() -> Iterator[None]:
    """Hypothesis keeps notes in a folder ``.hypothesis`` where it is started; a student has no use for one."""
    with tempfile.TemporaryDirectory() as folder:
        configuration.set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(None)
