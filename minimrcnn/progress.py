"""The progress bar: in a terminal tqdm's, in a notebook its widget, or the terminal's where there are no widgets.

What is written to a file is read when it is long; there the bar says twice a minute how far it is, not ten times a
second.
"""

from __future__ import annotations

import sys
import warnings

from tqdm import TqdmWarning

from minimrcnn.spelling import printable

with warnings.catch_warnings():  # a notebook without ipywidgets gets the terminal's bar, and need not be told so
    warnings.simplefilter("ignore", category=TqdmWarning)
    from tqdm.auto import tqdm as bar

__all__ = ["tqdm"]

IN_A_FILE = 30.0  # seconds from one look to the next


class tqdm(bar):
    """tqdm's own bar, with its arguments; what is written beside it is a line, whatever is called so in it."""

    def __init__(self, *arguments, **options):
        isatty = getattr(sys.stderr, "isatty", None)  # where there is no terminal at all, not even that
        if not (isatty and isatty()) and "ipykernel" not in sys.modules:
            options.setdefault("mininterval", IN_A_FILE)
            options.setdefault("maxinterval", IN_A_FILE)
        super().__init__(*arguments, **options)

    @classmethod
    def write(cls, line: str, **options):
        super().write(printable(line), **options)
