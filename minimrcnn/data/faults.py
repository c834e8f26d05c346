"""What is wrong with a data set: the first fault stops the reading, or all are gathered to be shown at once.

Whoever reads a data set wraps every row in ``with faults.at(where):``. A `DataError` in the block is then either
raised with the place before it, as training wants it, or written down, and reading goes on with the next row, as
``minimrcnn show --check`` wants it. What is no fault, but is not learned from either, such as a point without an area,
is noted and counted in both cases.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from minimrcnn.errors import DataError
from minimrcnn.spelling import printable

EXAMPLES = 3  # places named for what is noted, but no fault

# What differs between two faults of one kind: quoted words, lists, paths, numbers.
PARTICULARS = re.compile(
    r"""'[^']*' | "[^"]*" | \[[^\]]*\] | [^\s;:,]*[/\\][^\s;:,]* | \S+\.\w{2,4}(?=[:,;\s])"""
    r"""| [-+]?\d[\d.e+-]* | \bnan\b | \binf\b""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes
    ----------
    where : str
        The file and the row.
    message : str
        What was got, what was wanted, how to mend it.
    """

    where: str
    message: str

    @property
    def kind(self) -> str:
        """The message without what is particular to the row: faults that differ in nothing else are of one kind."""
        return PARTICULARS.sub("..", self.message)


class FirstFault(DataError):
    """A fault that ended the reading: there may be more behind it."""


class Faults:
    """Gathers faults, or raises the first.

    Parameters
    ----------
    gather : bool
        Write faults down in ``found`` and go on; otherwise the first is raised.

    Attributes
    ----------
    found : list of Fault
    photos : set of str
        Those left out for a fault, as their annotations call them.
    notes : dict of str to list of str
        What was noticed or left out without being a fault, and where.
    """

    def __init__(self, gather: bool = False):
        self.gather = gather
        self.found: list[Fault] = []
        self.photos: set[str] = set()
        self.notes: dict[str, list[str]] = {}

    @contextlib.contextmanager
    def at(self, where: str | os.PathLike, *photos: str) -> Iterator[None]:
        """Whatever `DataError` the block raises is about ``where``; when gathering, the program goes on behind it.

        ``photos`` are those that are then left out altogether.
        """
        try:
            yield
        except DataError as error:
            message = str(error).removeprefix(f"{where}: ")  # readers of files name them themselves
            if not self.gather:
                raise FirstFault(f"{where}: {message}") from None
            self.found.append(Fault(str(where), message))
            self.photos.update(photos)

    def note(self, what: str, where: str) -> None:
        """Remember what is no fault."""
        self.notes.setdefault(what, []).append(where)

    def describe_notes(self) -> str:
        """The notes in a line, empty if there are none."""
        return "; ".join(f"{what}: {len(places)}" for what, places in self.notes.items())

    def report(self) -> str:
        """All faults by kind, the most frequent first, each kind with its count, one message and its places."""
        kinds: dict[str, list[Fault]] = {}
        for fault in self.found:
            kinds.setdefault(fault.kind, []).append(fault)
        lines = []
        for faults in sorted(kinds.values(), key=len, reverse=True):
            lines.append(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'}: {faults[0].message}")
            lines += [f"    {fault.where}" for fault in faults]
        for what, places in self.notes.items():
            more = f" and {len(places) - EXAMPLES} more" if len(places) > EXAMPLES else ""
            lines.append(f"no fault, but noted: {what}: {len(places)} ({', '.join(places[:EXAMPLES])}{more})")
        return "\n".join(map(printable, lines))
