"""The command line: ``minimrcnn demo | train | evaluate | predict``.

Only arguments are dealt with here; the commands stand in `minimrcnn.commands`, which is imported when one is run, so
that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys

import minimrcnn

EXAMPLES = {
    "demo": """\
examples:
  minimrcnn demo                      train on 50 generated pictures, look at 50 others: minutes
  minimrcnn demo --quick -o trial     the same in short, to see that everything works

Leaves DIR/index.html (truth beside prediction, loss curves), results.json, model.npz and log.jsonl.""",
    "train": """\
examples:
  minimrcnn train --data photos -o run
  minimrcnn train --data photos --val more_photos --steps 3000 -o run
  minimrcnn train --data photos -o run --resume         go on after Ctrl-C or a power cut

photos/ holds annotations.json (COCO's format) and images/.
Leaves DIR/model.npz, index.html (truth beside prediction, loss curves), results.json and log.jsonl.""",
    "evaluate": """\
examples:
  minimrcnn evaluate --model run/model.npz --data more_photos --json figures.json
  minimrcnn evaluate --annotations annotations.json --detections detections.json""",
    "predict": """\
examples:
  minimrcnn predict holiday.jpg garden.png --model run/model.npz -o found

Leaves a picture with boxes, masks, labels and scores for each, and detections.json (COCO's results format, with file
names; image_id is the number that is the file's name if every name is one, else the place in the list from 1).""",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    options = make_parser().parse_args(arguments)
    from minimrcnn import commands
    from minimrcnn.errors import DataError

    try:
        commands.prepare(options)
        return getattr(commands, options.command)(options) or 0
    except (DataError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        print(f"minimrcnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"minimrcnn: {stop or 'stopped'}", file=sys.stderr)
        return 130


def make_parser() -> argparse.ArgumentParser:
    """The parser of all four commands."""
    parser = argparse.ArgumentParser(
        prog="minimrcnn", description="Mask R-CNN: find the objects in a picture, each with its mask."
    )
    parser.add_argument("--version", action="version", version=f"minimrcnn {minimrcnn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = add_command(commands, "demo", "train on generated pictures and look at the masks on others")
    demo.add_argument("--quick", action="store_true", help="30 steps on 10 pictures: shows that it works, not how well")
    demo.add_argument("-o", "--output", default="minimrcnn-demo", metavar="DIR", help="default: %(default)s")

    train = add_command(commands, "train", "train on your pictures")
    train.add_argument("--data", required=True, metavar="DIR", help="folder with annotations.json and images/")
    train.add_argument("--val", metavar="DIR", help="another such folder to validate on; default: a fifth of --data")
    train.add_argument("-o", "--output", required=True, metavar="DIR", help="where the model and its figures go")
    train.add_argument("--steps", type=at_least(1), default=1000, metavar="N", help="default: %(default)s")
    train.add_argument("--init", metavar="FILE", help="start from a saved model; what does not fit starts afresh")
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    train.add_argument("--batch", type=at_least(1), default=2, metavar="N", help="pictures in a step: %(default)s")
    train.add_argument("--lr", type=positive, default=5e-4, metavar="RATE", help="learning rate: %(default)s")
    train.add_argument(
        "--backbone", choices=("resnet18", "resnet34", "resnet50"), default="resnet18", help="default: %(default)s"
    )
    train.add_argument(
        "--size", type=at_least(32), metavar="N", help="resize pictures to this shorter side; default: only large ones"
    )
    train.add_argument(
        "--crop", type=at_least(32), metavar="N", help="train on crops of at most N x N; default: 256 unless resized"
    )
    train.add_argument(
        "--anchors",
        type=positive,
        nargs=5,
        metavar="N",
        help="five anchor sizes in pixels; default: fitted to the data",
    )
    train.add_argument("--flips", choices=("none", "horizontal", "both"), default="both", help="default: %(default)s")
    train.add_argument("--no-color", dest="color", action="store_false", help="leave the colors of the pictures alone")

    evaluate = add_command(commands, "evaluate", "score a model on a data set, or detections against annotations")
    evaluate.add_argument("--model", metavar="FILE", help="with --data")
    evaluate.add_argument("--data", metavar="DIR", help="folder with annotations.json and images/")
    evaluate.add_argument("--annotations", metavar="FILE", help="COCO annotations, with --detections")
    evaluate.add_argument("--detections", metavar="FILE", help="COCO results")
    evaluate.add_argument("--json", metavar="FILE", help="write the figures there, too")
    evaluate.add_argument(
        "--score", type=share, metavar="S", help="leave out detections below; default: the model's own"
    )

    predict = add_command(commands, "predict", "find objects in pictures")
    predict.add_argument("pictures", nargs="+", metavar="PICTURE")
    predict.add_argument("--model", required=True, metavar="FILE")
    predict.add_argument("-o", "--output", required=True, metavar="DIR")
    predict.add_argument(
        "--score", type=share, default=0.5, metavar="S", help="leave out what scores less: %(default)s"
    )

    for command in (demo, train, evaluate, predict):
        command.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of all randomness: %(default)s")
        command.add_argument("--threads", type=at_least(1), metavar="N", help="default: all cores")
        command.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    return parser


def add_command(commands, name: str, summary: str) -> argparse.ArgumentParser:
    """A command with its examples."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=EXAMPLES[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def at_least(least: int):
    """A parser of whole numbers from ``least`` on."""

    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    parse.__name__ = "whole number"  # in argparse's own message: invalid whole number value
    return parse


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
