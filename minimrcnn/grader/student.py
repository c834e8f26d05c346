"""The student's process: load a file, then answer questions until there are none left.

Questions come through standard input and answers go out through standard output, both pickled; before the file is
loaded, the two are put out of its reach, so that neither a `print` nor an `input` of its can disturb them. A watchdog
(`faulthandler`, a thread of C that needs no Python) ends the process when an answer takes too long, even in a loop of
C, and writes to standard error where the function was.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import pickle
import sys
from pathlib import Path

from minimrcnn.grader.answers import Answer, ask, describe_error, short_trace


def main() -> None:
    """``student FILE SECONDS NAME...``: says which of the names the file defines, then answers."""
    path, seconds, names = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    questions, answers = take_pipes()
    errors = os.dup(2)  # the file may put what it likes in the place of sys.stderr
    faulthandler.enable(errors)  # a crash in C says where it was

    def send(answer) -> None:
        pickle.dump(answer, answers)
        answers.flush()

    faulthandler.dump_traceback_later(seconds, exit=True, file=errors)
    try:
        module = load(path)
    except (Exception, SystemExit) as error:
        send(Answer("raised", message=describe_error(error), trace=syntax_trace(error) or short_trace(error, path)))
        return
    faulthandler.cancel_dump_traceback_later()
    send([name for name in names if callable(getattr(module, name, None))])

    while True:
        try:
            name, arguments, seconds = pickle.load(questions)
        except EOFError:
            return
        faulthandler.dump_traceback_later(seconds, exit=True, file=errors)
        answer = ask(getattr(module, name), arguments, path)
        faulthandler.cancel_dump_traceback_later()
        send(answer)


def take_pipes():
    """Private copies of standard input and output; what the student's code sees is empty and goes nowhere."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return questions, answers


def load(path: Path):
    """The file as a module of a name that hides no other; its folder can be imported from, as if it were run."""
    sys.path.insert(0, str(path.resolve().parent))
    specification = importlib.util.spec_from_file_location("student_file", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules["student_file"] = module
    specification.loader.exec_module(module)
    return module


def syntax_trace(error: BaseException) -> tuple[str, ...]:
    if not isinstance(error, SyntaxError) or error.filename is None:
        return ()
    return (f"{Path(error.filename).name}, line {error.lineno}: {(error.text or '').strip()}",)
