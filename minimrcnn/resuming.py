"""The options of a run that goes on: those that it began with.

A checkpoint has the words of the command that began its run. Behind them come those of the command that goes on, and as
ever the last word holds: what is not given again stays, what is given anew shows. Where it would make another run, it
is refused by the name that it has on the command line. The folder is the one that the command names: a run may have
been moved, and a file says nobody where to write.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minimrcnn.errors import DataError
from minimrcnn.training.checkpoint import read_checkpoint, refuse, spell_init
from minimrcnn.training.trainer import CHECKPOINT

# Where things are, how the run is looked at, and what computes: with others it is the same run. Photos and classes are
# compared by themselves.
MAY_CHANGE = frozenset(
    "command data val output format class_attribute init resume watch evaluate_every threads device".split()
)


def take_up(options, parse: Callable[[list[str]], dict]) -> None:
    """Give options the values that they had when the run began, unless the command gives them, in place.

    Parameters
    ----------
    options : namespace
        With ``output``, the folder of the run, and ``arguments``, the words of the command.
    parse : callable
        From words to options by name; `SystemExit` where it knows them not.

    Raises
    ------
    DataError
        The command gives some that make it another run, or the checkpoint has such as are not known.
    """
    path = Path(options.output) / CHECKPOINT
    run = read_checkpoint(path, header_only=True) if path.exists() else None
    if not run or run.arguments[:1] != options.arguments[:1]:  # of an older version, or of another command
        return
    try:
        there, here = parse(run.arguments), parse([*run.arguments, *options.arguments[1:]])
    except SystemExit:  # the parser has said which
        raise DataError(
            f"{path}: its run began with options that this version does not know; start in a new folder with "
            f"{spell_init(path, run)}"
        ) from None
    differences = [
        f"--{name.replace('_', '-')} {tell(there[name])} there, {tell(here[name])} here"
        for name in there
        if name not in MAY_CHANGE and there[name] not in (None, here[name])  # what was left open, `restore` compares
    ]
    if differences:
        raise refuse(path, run, "options", differences, "leave them out to go on")
    vars(options).update({**here, "output": options.output, "arguments": run.arguments})


def tell(value) -> str:
    """An option's value, or its values."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
