"""The lessons: where they are, and running one. They lie beside the package in the repository, not in it."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from minimrcnn.errors import DataError

SCRIPT = re.compile(r"(\d\d)_\w+\.py")


@dataclass(frozen=True)
class Lesson:
    """A script, its number, and the first line of what it says about itself."""

    number: int
    title: str
    path: Path


def find_lessons(folder=None) -> list[Lesson]:
    """The lessons in a folder, by number.

    Parameters
    ----------
    folder : path, optional
        By default ``lessons`` in the current folder, or else beside the package.

    Raises
    ------
    DataError
        There is no such folder, or there are no lessons in it.
    """
    places = [Path(folder)] if folder else [Path("lessons"), Path(__file__).parents[1] / "lessons"]
    for place in places:
        scripts = sorted(path for path in place.glob("*.py") if SCRIPT.fullmatch(path.name))
        if scripts:
            return [Lesson(int(path.name[:2]), read_title(path), path) for path in scripts]
    raise DataError(
        f"{' and '.join(map(str, places))}: no lessons there; they come with the repository, not with the package: "
        "clone it and run this in its folder, or name the folder with --folder"
    )


def read_title(path: Path) -> str:
    """The first line of a script's docstring."""
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        return f"(cannot be read: {error})"
    return text.partition("\n")[0]


def run_lesson(number: int, lessons: list[Lesson], arguments=()) -> None:
    """Run a lesson as ``python lessons/NN_name.py`` would, but in this process, where Ctrl-C is dealt with.

    Raises
    ------
    DataError
        There is no such lesson.
    """
    for lesson in lessons:
        if lesson.number == number:
            sys.argv = [str(lesson.path), *arguments]
            sys.path.insert(0, str(lesson.path.parent))
            try:
                runpy.run_path(str(lesson.path), run_name="__main__")
            except BrokenPipeError:
                raise
            except (DataError, OSError):
                traceback.print_exc()  # whoever changes a lesson wants the line; the command would say but a word of it
                sys.exit(1)
            return
    raise DataError(f"lesson {number}: there are {', '.join(str(lesson.number) for lesson in lessons)}")


def lessons_command(options, arguments) -> int:
    """``minimrcnn lessons [N]``: run lesson N with what else was given, or list them all."""
    lessons = find_lessons(options.folder)
    if options.number is not None:
        run_lesson(options.number, lessons, arguments)
        return 0
    for lesson in lessons:
        print(f"{lesson.number:2}  {lesson.title}")
    print("\nminimrcnn lessons N runs one; or open it in an editor and run it cell by cell")
    return 0
