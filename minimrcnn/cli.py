"""The command line: ``minimrcnn demo | show | train | evaluate | predict | explain | convert | convert-data | lessons |
check``.

Only arguments are dealt with here; the commands stand in `minimrcnn.commands`, those about data alone in
`minimrcnn.data_commands`, the last two in modules of their own, which are imported when one is run, so that ``--help``
answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable

import minimrcnn
from minimrcnn.models import PUBLISHED  # names; the models are imported when they are made
from minimrcnn.spelling import printable, spell_command

FORMATS = ("coco", "via", "labelme", "mask-files", "label-images")
EXAMPLES = {
    "demo": """\
examples:
  minimrcnn demo                      train on 50 generated pictures, look at 50 others: minutes
  minimrcnn demo --quick -o trial     the same in short, to see that everything works

Leaves DIR/index.html (truth beside prediction, loss curves), results.json, model.npz and log.jsonl.""",
    "show": """\
examples:
  minimrcnn show photos -o photos.png     what is in the data, and how well the anchors would fit it
  minimrcnn show photos --check           all that is wrong with it; the exit code is 1 if anything is
  minimrcnn show photos/via.json --class-attribute species

Leaves a picture: photos with boxes, masks and names, and plots of the statistics that the terminal has in words.""",
    "convert-data": """\
examples:
  minimrcnn convert-data photos coco              VIA, LabelMe, masks, .. to coco/annotations.json and coco/images/
  minimrcnn convert-data photos/via.json coco
  minimrcnn convert-data photos found/labelme all     several as one

The photos are copied. What the data's format is, is recognized; see minimrcnn show.""",
    "train": """\
examples:
  minimrcnn train --data photos -o run
  minimrcnn train --data photos --val more_photos --steps 3000 -o run
  minimrcnn train --data photos -o run --resume         go on after Ctrl-C or a power cut, with the same options
  minimrcnn train --data photos --init run/model.npz -o more    train on, when all steps are done
  minimrcnn train --data photos --architecture maskrcnn_resnet50_fpn --init coco.pth --optimizer sgd -o run

photos/ holds the photos and their annotations: COCO's, VIA's or LabelMe's JSON, one PNG an object (ID/images, ID/masks)
or label images (images/, masks/). minimrcnn show photos looks at them first.
While it goes on, DIR/index.html shows truth beside prediction, losses, AP and the time left. Leaves DIR/model.npz (the
last model), best.npz (that with the best AP so far), index.html, results.json, log.jsonl and validation.jsonl.""",
    "evaluate": """\
examples:
  minimrcnn evaluate --model run/model.npz --data more_photos --json figures.json
  minimrcnn evaluate --weights coco.pth --data coco
  minimrcnn evaluate --annotations annotations.json --detections detections.json""",
    "predict": """\
examples:
  minimrcnn predict holiday.jpg garden.png --model run/model.npz -o found
  minimrcnn predict photos --model run/best.npz -o found --labelme
  minimrcnn predict "photos/**/2024-*.jpg" --weights maskrcnn_resnet50_fpn_coco.pth -o found

Leaves each picture with boxes, masks, labels and scores under its name, in the subfolder it was in, and detections.json
(COCO's results format, with file names; image_id is the number that is the file's name if every name is one, else the
place in the list from 1). With --labelme, copies of the pictures as well, beside each a file to correct in LabelMe.""",
    "explain": """\
examples:
  minimrcnn explain holiday.jpg --model run/model.npz -o holiday.html
  minimrcnn explain holiday.jpg --weights maskrcnn_resnet50_fpn_coco.pth -o holiday.html --score 0.3

Leaves one file that opens in any browser, without a network: the photo on its way through the model, from the feature
maps to the anchors, the proposals, RoIAlign's samples and the masks, for each detection, with all numbers.""",
    "convert": """\
examples:
  minimrcnn convert maskrcnn_resnet50_fpn_coco.pth -o model.npz
  minimrcnn convert run/model.npz -o weights.safetensors    under torchvision's names
  minimrcnn convert weights.npz -o model.npz                arrays by torchvision's names, as above

What FILE is decides the direction: published weights of a detector become a model, a model published weights.
Nothing in a file is run, wherever it comes from.""",
    "lessons": """\
examples:
  minimrcnn lessons                   list them
  minimrcnn lessons 10                run one; its figures are in lessons/drawn/
  minimrcnn lessons 15 --quick        the short form of a long one""",
    "check": """\
examples:
  cp lessons/exercises/start_here.py my_functions.py
  minimrcnn check my_functions.py
  minimrcnn check my_functions.py --only roi_align nms

Calls your functions with small examples and says what held, and what broke: the smallest example that breaks it, in
numbers and as a picture, and the usual cause. Your file runs in a process of its own. Needs minimrcnn[check].

The exit code is 0 if all that is written held, 1 if something broke, was too slow or nothing is written, 2 if the file
does not load. minimrcnn.grader.check(FILE) gives the same in Python, as an object.""",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0; 1 for faults that `show --check` or `check` found; 2 for what the user can mend; 130 after Ctrl-C; 141 when what
    reads our words goes away, as `head` does.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, or of pythonw, which has no terminal
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    options, others = make_parser().parse_known_args(arguments)
    options.command_to_resume = spell_command([*arguments, *(() if "--resume" in arguments else ("--resume",))])
    options.arguments = arguments
    if others and options.command != "lessons":  # which are for the lesson
        Parser(prog=f"minimrcnn {options.command}").error(f"unrecognized arguments: {' '.join(others)}")
    from minimrcnn.errors import DataError

    if hasattr(sys.stdout, "reconfigure"):  # a photo's name may have letters that a terminal has not
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file; of what cannot be read an error does
    try:
        code = run_command(options, others)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return leave_output()
    except (DataError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        lines = [printable(line) for line in str(error).split("\n")]
        print("minimrcnn: error:", "\n".join(lines), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"minimrcnn: {str(stop) or 'stopped'}", file=sys.stderr)
        return 130


def leave_output() -> int:
    """The exit code when what reads our words has gone away; nothing is written to it any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it ends
    return 141


def run_command(options, others: list[str]) -> int:
    """Import what the command needs, and run it."""
    if options.command == "lessons":
        from minimrcnn.lessons import lessons_command

        return lessons_command(options, others)
    if options.command in ("show", "convert-data"):
        from minimrcnn import data_commands

        return getattr(data_commands, options.command.replace("-", "_"))(options)
    if options.command == "check":
        from minimrcnn.grader import check_command

        return check_command(options)
    from minimrcnn import commands

    if getattr(options, "resume", False):
        from minimrcnn.resuming import take_up

        take_up(options, lambda words: vars(make_parser().parse_args(words)))
    commands.prepare(options)
    return getattr(commands, options.command)(options) or 0


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, where argparse would say after all options what a line had been enough for."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {printable(message)}\n({self.prog} --help has all options, and examples)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(prog="minimrcnn", description="Mask R-CNN: find the objects in a picture, each with its mask.")
    parser.add_argument("--version", action="version", version=f"minimrcnn {minimrcnn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = add_command(commands, "demo", "train on generated pictures and look at the masks on others")
    demo.add_argument("--quick", action="store_true", help="30 steps on 10 pictures: shows that it works, not how well")
    demo.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    demo.add_argument("-o", "--output", default="minimrcnn-demo", metavar="DIR", help="default: %(default)s")

    show = add_command(commands, "show", "look at a data set, and at what is wrong with it")
    show.add_argument("data", metavar="DATA", help="folder of photos and annotations, or their file")
    show.add_argument("-o", "--output", default="minimrcnn-data.png", metavar="FILE", help="default: %(default)s")
    show.add_argument("--check", action="store_true", help="list all faults instead; exit code 1 if there are any")
    show.add_argument("--photos", type=at_least(1), default=12, metavar="N", help="in the picture: %(default)s")
    add_format(show)
    add_fit(show)
    show.set_defaults(architecture="small", backbone=None)

    train = add_command(commands, "train", "train on your pictures")
    train.add_argument("--data", required=True, metavar="DIR", help="folder of photos and annotations, or their file")
    add_format(train)
    train.add_argument("--val", metavar="DIR", help="another such folder to validate on; default: a fifth of --data")
    train.add_argument("-o", "--output", required=True, metavar="DIR", help="where the model and its figures go")
    train.add_argument("--steps", type=at_least(1), default=1000, metavar="N", help="default: %(default)s")
    train.add_argument(
        "--init", metavar="FILE", help="start from a model (with its anchors and size) or published weights"
    )
    train.add_argument(
        "--resume", action="store_true", help="go on from the checkpoint in the output folder, with its options"
    )
    train.add_argument("--batch", type=at_least(1), default=2, metavar="N", help="pictures in a step: %(default)s")
    train.add_argument(
        "--architecture",
        choices=("small", *PUBLISHED),
        default="small",
        metavar="NAME",
        help=f"small (the default, to train from scratch), {', '.join(PUBLISHED)}",
    )
    train.add_argument(
        "--backbone", choices=("resnet18", "resnet34", "resnet50"), help="of the small model; default: resnet18"
    )
    train.add_argument(
        "--trainable-backbone-layers",
        type=at_least(0, 5),
        metavar="N",
        help="parts of the backbone that learn, from the last on: 0 to 5; default: 5, from --init on 3 but if small",
    )
    train.add_argument("--optimizer", choices=("sgd", "adamw"), default="adamw", help="default: %(default)s")
    train.add_argument(
        "--lr", type=positive, metavar="RATE", help="learning rate; default: 5e-4 (adamw), 0.00125 a picture (sgd)"
    )
    train.add_argument("--schedule", choices=("cosine", "step"), default="cosine", help="default: %(default)s")
    train.add_argument(
        "--weight-decay", type=not_negative, metavar="D", help="default: 0.01 (adamw), 1e-4 (sgd), not of biases"
    )
    train.add_argument(
        "--norm-weight-decay",
        type=not_negative,
        metavar="D",
        help="of normalizations; biases are then decayed too, as in torchvision's reference",
    )
    add_fit(train)
    train.add_argument(
        "--crop", type=at_least(32), metavar="N", help="train on crops of at most N x N; default: 256 unless resized"
    )
    train.add_argument(
        "--flips", choices=("none", "horizontal", "both"), help="default: both if small, else horizontal"
    )
    train.add_argument(
        "--color", action=argparse.BooleanOptionalAction, help="change the colors of the pictures; default: if small"
    )

    train.add_argument(
        "--watch", type=at_least(0), default=100, metavar="N",
        help="look at a few pictures every N steps, on DIR/index.html, which refreshes itself; 0: never; %(default)s",
    )  # fmt: skip
    train.add_argument(
        "--evaluate-every", type=at_least(0), metavar="N",
        help="score the model every N steps, and keep the best one; 0: only the last; default: by what it costs",
    )  # fmt: skip

    evaluate = add_command(commands, "evaluate", "score a model on a data set, or detections against annotations")
    add_model(evaluate, required=False)
    evaluate.add_argument("--data", metavar="DIR", help="folder of photos and annotations, or their file")
    add_format(evaluate)
    evaluate.add_argument("--annotations", metavar="FILE", help="COCO annotations, with --detections")
    evaluate.add_argument("--detections", metavar="FILE", help="COCO results")
    evaluate.add_argument("--json", metavar="FILE", help="write the figures there, too")
    evaluate.add_argument(
        "--score", type=share, metavar="S", help="leave out detections below; default: the model's own"
    )

    predict = add_command(commands, "predict", "find objects in pictures")
    predict.add_argument("pictures", nargs="+", metavar="PICTURE", help="files, folders, or patterns in quotes")
    add_model(predict, required=True)
    predict.add_argument("-o", "--output", required=True, metavar="DIR")
    predict.add_argument(
        "--score", type=share, default=0.5, metavar="S", help="leave out what scores less: %(default)s"
    )
    predict.add_argument("--labelme", action="store_true", help="write DIR/labelme/ too, to correct by hand in LabelMe")

    explain = add_command(commands, "explain", "show on a page how the model came to what it found in a photo")
    explain.add_argument("picture", metavar="PHOTO")
    add_model(explain, required=True)
    explain.add_argument("-o", "--output", required=True, metavar="FILE", help="the page, .html")
    explain.add_argument(
        "--score", type=share, default=0.5, metavar="S", help="follow no detection that scores less: %(default)s"
    )

    convert = add_command(commands, "convert", "turn published weights into a model, or a model into published weights")
    convert.add_argument("file", metavar="FILE", help=".pth, .safetensors or .npz; or a model.npz")
    convert.add_argument("-o", "--output", required=True, metavar="FILE", help="model.npz; or .safetensors or .npz")
    convert.add_argument(
        "--norm-eps",
        type=not_negative,
        metavar="EPS",
        help="of the batch norm; default: 0 if published with COCO, else 1e-5",
    )

    convert_data = add_command(commands, "convert-data", "write data sets of any format as one in COCO's")
    convert_data.add_argument("data", metavar="IN", nargs="+", help="folder of photos and annotations, or their file")
    convert_data.add_argument("output", metavar="OUT", help="a new folder")
    add_format(convert_data)

    lessons = add_command(commands, "lessons", "list the lessons, or run one")
    lessons.add_argument("number", type=at_least(0), nargs="?", metavar="N", help="the lesson to run")
    lessons.add_argument("--folder", metavar="DIR", help="default: lessons/ here, or beside the package")

    check = add_command(commands, "check", "grade your own RoIAlign, NMS, ... against properties and reference values")
    check.add_argument(
        "file", metavar="FILE.py", help="defines some of the functions of lessons/exercises/start_here.py"
    )
    check.add_argument("--only", nargs="+", metavar="NAME", help="look at these functions only")
    check.add_argument("-o", "--output", metavar="DIR", help="for pictures of what broke; default: FILE-figures")
    check.add_argument(
        "--time-limit", type=positive, default=10.0, metavar="S", help="seconds for a single call: %(default)s"
    )
    check.add_argument(
        "--budget", type=positive, default=60.0, metavar="S", help="seconds for all calls of a function: %(default)s"
    )

    for command in (demo, train, evaluate, predict, explain, convert):
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


def add_format(command) -> None:
    """What says how data are to be read, where they do not say it themselves."""
    command.add_argument(
        "--format", choices=FORMATS, help="of the annotations, where data hold several; default: recognized"
    )
    command.add_argument("--class-attribute", metavar="NAME", help="the region attribute of VIA that is the class")


def add_fit(command) -> None:
    """What is fitted to the data unless it is given."""
    command.add_argument(
        "--size", type=at_least(32), metavar="N", help="resize pictures to this shorter side; default: only large ones"
    )
    command.add_argument(
        "--anchors",
        type=anchor_size,
        nargs="+",
        default=["auto"],
        metavar="N",
        help="five anchor sizes in pixels, or auto, the default: fitted to the data",
    )


def add_model(command, required: bool) -> None:
    """The two ways to name a model."""
    model = command.add_mutually_exclusive_group(required=required)
    model.add_argument("--model", metavar="FILE", help="model.npz of a training")
    model.add_argument("--weights", metavar="FILE", help="published weights: .pth, .safetensors or .npz")


def at_least(least: int, most: float = float("inf")):
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        if value > most:
            raise argparse.ArgumentTypeError(f"{value} is more than {most}")
        return value

    parse.__name__ = "whole number"  # in argparse's own message: invalid whole number value
    return parse


def number(fits: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    """A parser of numbers that fit; others are not ``wanted``."""

    def parse(text: str) -> float:
        value = float(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
        return value

    parse.__name__ = "number"
    return parse


positive = number(lambda value: 0 < value < float("inf"), "a number above 0")
not_negative = number(lambda value: 0 <= value < float("inf"), "a number from 0 on")
share = number(lambda value: 0 <= value <= 1, "between 0 and 1")
side = number(lambda value: 2 <= value < float("inf"), "a side of at least 2 pixels")  # as the Config wants it


def anchor_size(text: str) -> float | str:
    return text if text == "auto" else side(text)


anchor_size.__name__ = "anchor size"
