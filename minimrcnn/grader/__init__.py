"""The grader: a student's own RoIAlign, NMS and the like, held against properties and reference values.

``minimrcnn check FILE.py`` looks for thirteen functions by name in a file (``lessons/exercises/start_here.py`` has all
of them, empty, with what each must do), calls them with small examples, and says what held and what broke, with the
smallest example that breaks it, in numbers and as a picture, and the usual cause.

1. The student's file runs in a process of its own (`process`, `student`), with a time limit for each call, and one for
   all calls of a function.
2. A property (`properties`) draws an example, asks the function, and compares with the textbook (`minimrcnn.reference`)
   or with another answer of the same function.
3. Hypothesis looks for an example that breaks it, then for a smaller one (`search`).
4. `report` and `pictures` tell.

The properties know nothing of where a function comes from: with them, the tests hold this package's own functions to
the same rules.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minimrcnn.errors import DataError

if TYPE_CHECKING:
    from minimrcnn.grader.report import Report


def check(
    path: str | Path,
    only: list[str] | None = None,
    figures: str | Path | None = None,
    time_limit: float = 10.0,
    budget: float = 60.0,
) -> Report:
    """Grade a file.

    Parameters
    ----------
    path : str or Path
        A Python file that defines some of the functions.
    only : list of str, optional
        Look at these functions only.
    figures : str or Path, optional
        Folder for pictures of what broke, ``check-FUNCTION.png``; without it none are drawn.
    time_limit : float
        Seconds that a single call may take.
    budget : float
        Seconds that all calls of one function may take; properties that are left then are skipped.

    Returns
    -------
    Report
        ``report["roi_align"]`` is one function's verdict, ``str(report)`` all of it, ``report.exit_code`` 0 or 1.

    Raises
    ------
    DataError
        If the file cannot be read or loaded, defines none of the functions, or Hypothesis is not installed.
    """
    return _grading().grade_file(path, only, figures, time_limit, budget=budget)


def check_command(options) -> int:
    """``minimrcnn check``: print each verdict as soon as it is known. Options: file, only, output, time_limit, budget.

    Returns
    -------
    int
        0 if all that is written held, 1 if something broke, was too slow or nothing is written; a `DataError` is for
        exit code 2.
    """
    path = Path(options.file)
    figures = Path(options.output) if options.output else path.with_name(f"{path.stem}-figures")

    def tell(verdict) -> None:
        text = report.format_verdict(verdict)
        if text:
            print(text, flush=True)

    grading = _grading()
    from minimrcnn.grader import report

    result = grading.grade_file(path, options.only, figures, options.time_limit, tell, options.budget)
    print(result.summary())
    return result.exit_code


def _grading():
    """The part that needs Hypothesis, which only those need who check."""
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        raise DataError('checking needs Hypothesis; install it with: pip install "minimrcnn[check]"') from None
    from minimrcnn.grader import grading

    return grading
