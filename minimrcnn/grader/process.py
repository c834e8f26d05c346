"""Our side of the student's process: start it, ask it, and end it when it does not come back."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from minimrcnn.errors import DataError
from minimrcnn.grader.answers import Answer, is_foreign

GRACE = 5.0  # seconds that the watchdog in the process gets beyond its limit before we end it from here
START = 60.0  # seconds to load the file: it may import and compile what it likes


class Gone(BaseException):
    """The process did not answer and is no more: nothing can be asked again, so Hypothesis must not catch this."""

    def __init__(self, answer: Answer):
        super().__init__(answer.message)
        self.answer = answer


class StudentProcess:
    """A fresh Python that has loaded the student's file. Whoever starts it must `close` it.

    Parameters
    ----------
    path : Path
    names : list of str
        The functions to look for.
    time_limit : float
        Seconds for one call.

    Attributes
    ----------
    defined : list of str
        The functions that are there.
    is_gone : bool
        It did not answer once, and must not be asked again.

    Raises
    ------
    DataError
        If the file does not load.
    """

    def __init__(self, path: Path, names: list[str], time_limit: float):
        self.path, self.time_limit, self.is_gone = path, time_limit, False
        self.errors = tempfile.TemporaryFile()
        # -c and not a file's name or -m: what lies beside our file must not hide modules the student imports.
        code = f"import sys; sys.path[:] = {sys.path!r}; from minimrcnn.grader.student import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(max(START, time_limit)), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "MPLBACKEND": "Agg"},  # a plt.show() at the end of the file must not wait for anyone
            start_new_session=True,  # and so a group of processes, which `_kill` ends with all that the file starts
        )
        self.answers: queue.Queue = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        try:
            self.defined = self._wait(max(START, time_limit))
        except Gone as gone:
            self.close()
            raise DataError(f"{path}: while the file was loaded it {describe_end(gone.answer)}") from None
        if isinstance(self.defined, Answer):
            self.close()
            where = "".join(f"\n  {line}" for line in self.defined.trace)
            raise DataError(f"{path}: the file does not load: {self.defined.message}{where}")

    def ask(self, name: str, arguments: tuple) -> Answer:
        """The answer of one function; raises `Gone` if there is none."""
        try:
            pickle.dump((name, arguments, self.time_limit), self.process.stdin)
            self.process.stdin.flush()
        except OSError:  # it has ended since; the listener says so
            pass
        try:
            return self._wait(self.time_limit)
        except Gone:
            self.is_gone = True
            raise

    def _listen(self) -> None:
        """Runs in a thread of its own, as a pipe cannot be read with a time limit on every system."""
        try:
            while True:
                self.answers.put(pickle.load(self.process.stdout))
        except Exception:  # the end of the pipe, or half an answer
            self.answers.put(None)

    def _wait(self, seconds: float):
        try:
            answer = self.answers.get(timeout=seconds + GRACE)
        except queue.Empty:
            answer = None
            if self.process.poll() is None:  # else it has ended, but one that it had started holds the pipe
                raise Gone(Answer("slow", message=f"took longer than {seconds:g} s")) from None
        if answer is None:
            raise Gone(self._explain_end(seconds))
        return answer

    def _explain_end(self, seconds: float) -> Answer:
        """What the process wrote before it ended."""
        try:
            code = self.process.wait(GRACE)
        except subprocess.TimeoutExpired:  # it has closed the pipe and lives on
            self._kill()
            code = self.process.wait()
        self.errors.seek(0)
        text = self.errors.read().decode("utf-8", "replace")
        start = max(text.rfind("Timeout ("), text.rfind("Fatal Python error"))
        trace = own_lines(text[start:], self.path) if start >= 0 else ()
        if start >= 0 and text.startswith("Timeout (", start):
            return Answer("slow", message=f"took longer than {seconds:g} s", trace=trace)
        if start >= 0:
            return Answer("died", message=text[start:].splitlines()[0], trace=trace)
        return Answer("died", message=f"ended Python with exit code {code}")

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._kill()
        self.process.wait()
        self.listener.join(GRACE)
        with contextlib.suppress(OSError):  # a question that was never read
            self.process.stdin.close()
        if not self.listener.is_alive():  # to close a pipe that is being read waits for whoever still holds its end
            self.process.stdout.close()
        self.errors.close()

    def _kill(self) -> None:
        """End the process, and on POSIX those that it has started."""
        if not hasattr(os, "killpg"):
            self.process.kill()
            return
        with contextlib.suppress(OSError):  # all have ended
            os.killpg(self.process.pid, signal.SIGKILL)


def own_lines(text: str, path: Path) -> tuple[str, ...]:
    """The lines of the student's file in what `faulthandler` wrote, the outermost first."""
    source = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = []
    for file, number, function in re.findall(r'File "(.*?)", line (\d+) in (\S+)', text):
        if Path(file).name == path.name and not is_foreign(Path(file)) and int(number) <= len(source):
            found.append(f"{path.name}, line {number}, in {function}: {source[int(number) - 1].strip()}")
    return tuple(reversed(found[:6]))


def describe_end(answer: Answer) -> str:
    return answer.message + "".join(f"\n  {line}" for line in answer.trace)
