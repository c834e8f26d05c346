"""Every lesson runs from top to bottom: its numbers are asserted in it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minimrcnn.errors import DataError
from minimrcnn.lessons import find_lessons, read_title, run_lesson

FOLDER = Path(__file__).parents[1] / "lessons"
LESSONS = find_lessons(FOLDER) if FOLDER.is_dir() else []
LONG = {15, 16}  # have a short form


def run(lesson, folder) -> subprocess.CompletedProcess:
    """In an empty folder: nothing may be missing that is not in the repository, and its figures stay as they are."""
    command = [sys.executable, str(lesson.path), *(["--quick"] if lesson.number in LONG else [])]
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8", "NUMBA_NUM_THREADS": "1"}
    environment["MINIMRCNN_FIGURES"] = str(folder / "figures")
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lessons")


@pytest.fixture(scope="module")
def runs(folder):
    """All lessons, as many at a time as there are cores, on one thread each."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(LESSONS, pool.map(lambda lesson: run(lesson, folder), LESSONS), strict=True))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_lesson(lesson, runs, folder):
    done = runs[lesson]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert list((folder / "figures").glob(f"{lesson.number:02}_*.png"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_cells_and_exercises(lesson):
    text = lesson.path.read_text(encoding="utf-8")
    assert lesson.title and not lesson.title.startswith("(cannot")
    assert text.count("\n# %%") >= 4 and "# %% Exercises" in text


def test_numbers_follow_one_another():
    assert [lesson.number for lesson in LESSONS] == sorted({lesson.number for lesson in LESSONS})


@pytest.fixture
def as_it_was(monkeypatch):
    """What a lesson that is run in this process leaves behind."""
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_list_and_run(tmp_path, capsys, as_it_was):
    third = '"""The third.\n\nMore.\n"""\nimport sys\n\nfrom beside import WORD\n\nprint(WORD, *sys.argv[1:])\n'
    (tmp_path / "03_third.py").write_text(third)
    (tmp_path / "01_first.py").write_text('"""The first."""\n')
    (tmp_path / "beside.py").write_text('WORD = "third"\n')
    lessons = find_lessons(tmp_path)
    assert [(lesson.number, lesson.title) for lesson in lessons] == [(1, "The first."), (3, "The third.")]
    run_lesson(3, lessons, ["--quick"])
    assert capsys.readouterr().out == "third --quick\n"
    with pytest.raises(DataError, match="lesson 2: there are 1, 3"):
        run_lesson(2, lessons)


@pytest.mark.parametrize("stop, code", [("KeyboardInterrupt", 130), ("BrokenPipeError", 141)])
def test_a_lesson_that_is_stopped_shows_no_traceback(stop, code, tmp_path):
    (tmp_path / "01_first.py").write_text(f'"""The first."""\n\nraise {stop}\n')
    command = [sys.executable, "-m", "minimrcnn", "lessons", "1", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr


def test_a_lesson_that_fails_shows_the_line(tmp_path, capsys, as_it_was):
    (tmp_path / "01_first.py").write_text('"""The first."""\n\nopen("is not there")\n')
    with pytest.raises(SystemExit, match="1"):
        run_lesson(1, find_lessons(tmp_path))
    assert '01_first.py", line 3' in capsys.readouterr().err


def test_nowhere(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no lessons there"):
        find_lessons(tmp_path)
    (tmp_path / "01_broken.py").write_text("def")
    assert "cannot be read" in read_title(tmp_path / "01_broken.py")
