"""What the commands do. Everything heavy is imported here; `minimrcnn.cli` imports this file when one is run."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numba
import numpy as np
from threadpoolctl import threadpool_limits

from minimrcnn.archive import atomic_file, make_place
from minimrcnn.config import Config
from minimrcnn.data.coco import count_objects, read_annotations
from minimrcnn.data.convert import check_apart
from minimrcnn.data.folder import find_copies
from minimrcnn.data.pictures import read_picture
from minimrcnn.data.shapes import Shapes
from minimrcnn.data_commands import open_dataset, open_datasets, tell_darkness
from minimrcnn.device import keep_freed_memory, to_device
from minimrcnn.environment import describe_environment
from minimrcnn.errors import DataError
from minimrcnn.evaluate import evaluate as evaluate_results
from minimrcnn.evaluate import evaluate_model, format_figures, load_results
from minimrcnn.explain import make_page, tell, trace_picture
from minimrcnn.hold_back import count_seen, hold_back, hold_back_again, read_photos
from minimrcnn.loading import (
    assume_config,
    check_count,
    describe_model,
    is_torchvisions,
    list_untold,
    load_told,
)
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.models.presets import small_config
from minimrcnn.predicting import predict_files
from minimrcnn.progress import tqdm
from minimrcnn.recipes import (
    explain_fit,
    find_earlier,
    judge_crops,
    learns_masks,
    list_parts,
    make_published,
    make_recipe,
    make_small,
)
from minimrcnn.spelling import printable
from minimrcnn.training.checkpoint import initialize, list_differences, read_checkpoint
from minimrcnn.training.compile_ahead import PREDICTING, compile_ahead
from minimrcnn.training.lock import lock_folder
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.page import tell_name
from minimrcnn.training.trainer import CHECKPOINT, MODEL
from minimrcnn.training.trainer import train as run_training
from minimrcnn.training.watch import BEST, Watch, choose_evaluations
from minimrcnn.weights import is_ours, save
from minimrcnn.weights.recognize import EPS

UNSEEN = 10**6  # the seed of the pictures that the demo is scored on; another if it was trained on these
FULL_STEPS = 1000  # of the demo
DEMO_ROIS = 64  # a picture of at most four shapes has no use for more
KINDS = (("box", "bbox", "bbox"), ("mask", "segm", "segmentation"))  # of figures: name, kind, what a row needs
WATCH_EVERY = 100  # steps of the demo between two looks


def prepare(options) -> None:
    """Threads, memory and device, as the options common to all commands say."""
    keep_freed_memory()
    if options.threads is not None:
        most = numba.config.NUMBA_NUM_THREADS
        if options.threads > most:
            raise DataError(f"--threads is {options.threads}, wanted at most {most}, one for each core")
        numba.set_num_threads(options.threads)
        threadpool_limits(limits=options.threads)
    if options.device == "cuda":
        try:
            to_device(np.zeros(1, np.float32), "cuda")
        except RuntimeError as error:
            raise DataError(f"--device cuda: {error}") from None


def demo(options) -> None:
    """Train on generated pictures, score on others, leave a page."""
    pictures, steps, warmup = (10, 30, 5) if options.quick else (50, FULL_STEPS, 100)
    dataset, unseen = Shapes(pictures, seed=options.seed), Shapes(pictures, seed=UNSEEN + (options.seed == UNSEEN))
    config = small_config(dataset.class_names, dataset.category_ids, rois=DEMO_ROIS)
    is_less = not options.resume and is_shorter_demo(Path(options.output) / CHECKPOINT, config, steps)
    check_folder(options, may_replace=is_less)
    model = MaskRCNN(config, seed=options.seed)
    recipe = TrainOptions(steps=steps, batch_size=4, warmup_steps=warmup, seed=options.seed)
    say(f"training on {pictures} generated pictures for {steps} steps; Ctrl-C saves and stops")
    folder = Path(options.output)
    title = f"Mask R-CNN on {pictures} generated pictures"
    watch = Watch(
        on_device(model, options), unseen, folder, title, WATCH_EVERY,
        choose_evaluations(unseen, config, recipe), "generated pictures it is not trained on",
        options.command_to_resume,
    )  # fmt: skip
    run_watched(watch, dataset, recipe, options)
    if options.quick:
        say(f"{steps} steps show that it works, and find nothing yet; without --quick it takes {FULL_STEPS}")


def train(options) -> None:
    """Train on a data folder, validate, leave model, figures and a page."""
    begun, folder = check_folder(options), Path(options.output)
    if Path(options.data).is_dir() and not options.resume:
        check_apart(options.data, folder)
    paths = [options.data, *([options.val] if options.val else [])]
    dataset, *others = open_datasets(options, paths, alike=True, masks=learns_masks(options.architecture))
    is_going_on = options.resume and (folder / CHECKPOINT).exists()
    known, held_before = read_photos(folder / CHECKPOINT if is_going_on else options.init)
    if options.val:
        (validation,) = others
    elif len(dataset) > 1:
        again = hold_back_again(dataset, folder / CHECKPOINT) if is_going_on else None
        dataset, validation = again or hold_back(dataset, options.seed, known, held_before)
        say(f"{len(validation)} of {len(validation) + len(dataset)} pictures are held back for validation")
    else:
        raise DataError(
            f"{options.data}: one picture cannot be trained and validated on; add pictures, or name a --val"
        )
    check_objects(options, dataset, validation)
    tell_darkness(dataset, options.data)

    earlier = find_earlier(options, folder / CHECKPOINT)
    if options.architecture == "small":
        model = make_small(options, dataset, earlier)
    else:
        model = make_published(options, dataset, earlier)
        if not options.init:
            say("from random weights, so with group norm throughout; --init with published weights learns faster")
    recipe = make_recipe(options, model.config)
    if options.init and not (options.resume and begun):
        fresh = initialize(model, options.init)
        say(f"starting from {options.init}" + (f"; afresh: {list_parts(fresh, model.arrays())}" if fresh else ""))
        if any("class_logits" in name for name in fresh):
            say(f"the heads start anew: {options.init} has none for the {len(dataset.class_names) - 1} classes here")
    for line in [*explain_fit(options, dataset, model.config, earlier), *judge_crops(dataset, recipe, model.config)]:
        say(line)
    if options.evaluate_every is None:
        options.evaluate_every = choose_evaluations(validation, model.config, recipe)
    unseen = f"pictures of {options.val}" if options.val else f"pictures of {options.data} that were held back"
    copies = find_copies([*dataset.paths, *validation.paths])
    both = sum(first < len(dataset) <= place for place, first in copies.items())
    learned = count_seen(validation, known if options.init else ())
    if both:
        say(f"warning: {both} of the {len(validation)} pictures to validate on are trained on too: AP will flatter")
        seen = f"{both} of which it is trained on"
    elif learned:
        say(
            f"warning: {learned} of the {len(validation)} pictures to validate on are what {options.init} was trained "
            "on: AP will flatter; name others with --val"
        )
        seen = f"{learned} of which the model that it began with was trained on"
    else:
        seen = "which it is not trained on"
    make_place(folder / CHECKPOINT)
    watch = Watch(
        on_device(model, options), validation, folder, f"Mask R-CNN on {options.data}", options.watch,
        options.evaluate_every, f"{unseen}, {seen}", options.command_to_resume,
    )  # fmt: skip
    run_watched(watch, dataset, recipe, options)


def check_objects(options, dataset, validation) -> None:
    """Raise `DataError` if there is nothing to learn; say it if there is nothing to find."""
    learned, held = (sum(count_objects(part).values()) for part in (dataset, validation))
    if not learned:
        elsewhere = f"all {held} are in those held back, so name a --val, or " if held and not options.val else ""
        raise DataError(
            f"{options.data}: there is no object in the pictures to train on, {len(dataset)} in all; "
            f"{elsewhere}annotate more"
        )
    if not held:
        say(
            f"there is no object in the pictures to validate on, {len(validation)} in all, so AP will say nothing; "
            "name a --val with some"
        )


def is_shorter_demo(path: Path, config, steps: int) -> bool:
    """Whether a checkpoint is of a demo that is done and has no more steps: nothing is lost if another replaces it."""
    if not path.exists():
        return False
    run = read_checkpoint(path, header_only=True)
    is_demo = not list_differences(run.config, dataclasses.asdict(config))
    return run.finished and is_demo and run.options.get("steps", math.inf) <= steps


def check_folder(options, may_replace: bool = False) -> bool:
    """Whether a training is in the folder already, which is only fine if it shall go on, and if nobody else does that.

    A run to go on with has its folder, be there a checkpoint in it yet or not; without one, a name was misspelt. Where
    a model is there and no checkpoint, to begin anew would overwrite the model. ``may_replace``: what is there is worth
    nothing.
    """
    folder = Path(options.output)
    if folder.is_dir():
        with lock_folder(folder):
            pass
    begun = next((name for name in (CHECKPOINT, MODEL) if (folder / name).exists()), None)
    if begun and not (options.resume or may_replace):
        raise DataError(
            f"{folder / begun}: a training is in this folder; go on with it (--resume), or name another folder with -o"
        )
    if options.resume and not folder.is_dir():
        raise DataError(f"{folder}: no such folder, so no run to go on with; name its folder, or leave out --resume")
    if options.resume and (folder / MODEL).exists() and not (folder / CHECKPOINT).exists():
        raise DataError(
            f"{folder / MODEL}: a model without the {CHECKPOINT} of its training, so there is none to go on with; put "
            "that back, or start in a new folder (train --init takes up a model)"
        )
    return begun is not None


def run_watched(watch: Watch, dataset, recipe: TrainOptions, options) -> None:
    """Train and report; on Ctrl-C, say which command goes on."""
    if watch.every:
        say(f"{watch.folder / 'index.html'} shows how it goes")
    try:
        with watch:
            times = run_training(
                watch.model, dataset, recipe, watch.folder, options.resume, watch=watch, arguments=options.arguments
            )
            report(watch, times, recipe)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{str(stop) or 'stopped'}; this goes on: {options.command_to_resume}") from None


def evaluate(options) -> None:
    """Score a model on a data folder, or detections against annotations."""
    given = {name for name in ("model", "weights", "data", "annotations", "detections") if getattr(options, name)}
    if given in ({"model", "data"}, {"weights", "data"}):
        model = on_device(load_either(options), options)
        config = model.config
        known = config.class_names, (None, *range(1, config.num_classes))
        dataset = open_dataset(options, options.data, known if config.class_names else None, bool(config.mask_head))
        if not config.class_names:
            check_count(config.num_classes, dataset, options.data, options.model or options.weights)
        learned = count_seen(dataset, model.trained_on)
        if learned:
            say(f"warning: {learned} of the {len(dataset)} pictures are what the model was trained on: AP flatters")
        if options.json:
            make_place(options.json)
        compile_ahead(PREDICTING, progress=True, device=options.device)
        figures, _ = evaluate_model(model, dataset, options.score)
    elif given == {"annotations", "detections"}:
        annotations = read_annotations(options.annotations, masks=False)
        results = load_results(options.detections, annotations)
        if options.json:
            make_place(options.json)
        if options.score is not None:
            results = [row for row in results if row["score"] >= options.score]
        figures = score_results(options, annotations, results)
    else:
        raise DataError("evaluate: wanted --model or --weights with --data, or --annotations with --detections")
    print(format_figures(figures))
    if options.json:
        write_json(options.json, figures)


def score_results(options, annotations: dict, results: list[dict]) -> dict[str, float]:
    """The figures of detections in COCO's form: of boxes, masks or both, as all detections have them."""
    kinds = [kind for kind in KINDS if all(kind[2] in row for row in results)]
    if not kinds:
        raise DataError(f"{options.detections}: some rows lack bbox and others segmentation; wanted one in every row")
    objects = annotations["annotations"]
    if len(kinds) > 1 and objects and not any("segmentation" in row for row in objects):
        say(f"{options.annotations}: the objects have no outlines, so boxes alone are scored")
        kinds = kinds[:1]
    figures = {}
    for name, kind, _ in kinds:
        scored = evaluate_results(annotations, results, kind)
        figures |= {f"{name}_{figure.lower()}": value for figure, value in scored.items()}
    return figures


def predict(options) -> int:
    """Find objects in pictures; see `minimrcnn.predicting`."""
    model = on_device(load_either(options), options)
    folder = Path(options.output)
    failed = predict_files(model, options.pictures, folder, options.score, options.labelme, options.device)
    return 2 if failed else 0


def explain(options) -> None:
    """Follow a photo through the model, onto a page of its own."""
    source, output = Path(options.picture), Path(options.output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{output}: the page is written as .html; wanted a name such as page.html after -o")
    picture = read_picture(source)
    model = on_device(load_either(options), options)
    make_place(output)
    compile_ahead(PREDICTING, progress=True, device=options.device)
    found = trace_picture(model, picture, options.score)
    page = make_page(tell(found, source.name)).encode(errors="backslashreplace")  # not every file name is text
    with atomic_file(output) as file:
        file.write(page)
    print(printable(f"{source}: {len(found.detections)} found -> {output} ({len(page) / 1e6:.1f} MB)"))


def convert(options) -> None:
    """Published weights into a model of ours, or a model of ours into published names and torch's layout."""
    source, output = Path(options.file), Path(options.output)
    if source.resolve() == output.resolve():
        raise DataError(f"{output}: the result would replace its source; name another file with -o")
    if is_ours(source):
        if options.norm_eps is not None:
            raise DataError(f"{source}: this is a model of ours, whose eps is known; leave out --norm-eps")
        model = MaskRCNN.load(source)
        state = model.state()
        make_place(output)
        save(output, state, dataclasses.asdict(model.config))
        fits = "for load_state_dict(strict=True)" if is_torchvisions(model.config) else "though it has no such model"
        say(f"{output}: {len(state)} arrays under torchvision's names, {fits}")
        is_told = output.suffix == ".safetensors"  # which has a place for the Config
        assumed = assume_config(state)
        say_eps(model.config, model.config.norm_eps if is_told else assumed.norm_eps)
        untold = ", ".join(f"{name}={value!r}" for name, value in list_untold(model.config, assumed).items())
        if untold and not is_told:
            say(f"it tells the weights alone; as it was, the model is load_model({str(output)!r}, {untold})")
    else:
        if output.suffix != ".npz":
            raise DataError(f"{output}: a model is written as .npz; wanted a name such as model.npz after -o")
        fields = {} if options.norm_eps is None else {"norm_eps": options.norm_eps}
        model = load_published(source, **fields)
        make_place(output)
        model.save(output)
        say(f"{output}: {describe_model(model.config)}")


def say_eps(config: Config, assumed: float) -> None:
    """What a public file cannot hold: the eps of the batch norm, where it is not what its readers take it for."""
    if config.norm == "group" or config.backbone == "vgg16":
        return
    if config.norm_eps != EPS:
        say(f"the batch norm's eps is {config.norm_eps}: set it in torch's model as well, which has {EPS}")
    if config.norm_eps != assumed:
        say(f"the batch norm's eps is {config.norm_eps}: back to a model of ours it wants --norm-eps {config.norm_eps}")


def load_either(options) -> MaskRCNN:
    """The model of ``--model`` or of ``--weights``."""
    if not options.weights:
        return MaskRCNN.load(options.model)
    model = load_published(options.weights)
    say(f"{options.weights}: {describe_model(model.config)}")
    return model


def load_published(path, **fields) -> MaskRCNN:
    """`minimrcnn.load_model`, and what it had to assume is said."""
    model, is_told = load_told(path, **fields)
    if not is_told:
        say(
            f"{path}: it does not tell anchors, picture size and class names; assumed are those of the published models"
        )
    return model


def report(watch: Watch, times: dict, recipe: TrainOptions) -> None:
    """Score the trained model on unseen pictures; write ``results.json`` and the page, and say where they are."""
    figures, count = watch.finish(), len(watch.validation)
    run = {"steps": recipe.steps, "batch_size": recipe.batch_size, "seed": recipe.seed, "pictures_scored": count}
    write_json(watch.folder / "results.json", {**figures, **times, **run, **describe_environment()})
    print(format_figures(figures))
    page = watch.folder / "index.html"
    print(f"{times['seconds_per_step']:.3f} s a step, {times['seconds']:.0f} s in all; look at {page}")
    best = figures["best"]
    if best["step"] < recipe.steps:
        name = next(name for name in best if name != "step")
        print(f"{watch.folder / BEST} is of step {best['step']}, when {tell_name(name)} was {best[name]:.3f}")


def on_device(model: MaskRCNN, options) -> MaskRCNN:
    """The model where ``--device`` wants it."""
    return model if options.device == "cpu" else model.to(options.device)


def write_json(path, value) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def say(text: str) -> None:
    """To the terminal, not into what is piped on."""
    tqdm.write(text, file=sys.stderr)
