"""Names and commands as they can be shown: what is called somehow acts neither on a terminal nor on a shell."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def printable(text: str) -> str:
    """The text, of which line breaks, control characters and halves of letters are spelled out, as ``repr`` does."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def spell_command(arguments: Sequence[str]) -> str:
    """The command with these arguments, to be typed or pasted."""
    as_module = Path(sys.argv[0]).parts[-2:] == ("minimrcnn", "__main__.py")
    start = [Path(sys.executable).name, "-m", "minimrcnn"] if as_module else ["minimrcnn"]  # or there is no "python"
    return quote_arguments([*start, *arguments])


def quote_arguments(arguments: Sequence[str]) -> str:
    """Arguments of a command in a line, as the shell of this system wants them."""
    return subprocess.list2cmdline(arguments) if sys.platform == "win32" else shlex.join(arguments)
