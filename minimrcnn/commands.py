"""What the commands do. Everything heavy is imported here; `minimrcnn.cli` imports this file when one is run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from minimrcnn.archive import atomic_file
from minimrcnn.config import Config
from minimrcnn.data.coco import read_annotations
from minimrcnn.data.pictures import read_picture
from minimrcnn.data.shapes import Shapes
from minimrcnn.data_commands import open_dataset
from minimrcnn.device import keep_freed_memory, to_device
from minimrcnn.environment import describe_environment
from minimrcnn.errors import DataError
from minimrcnn.evaluate import detections_to_results, evaluate_model, format_figures, load_results
from minimrcnn.evaluate import evaluate as evaluate_results
from minimrcnn.explain import make_page, tell, trace_picture
from minimrcnn.loading import InTermsOf, check_classes, check_count, describe_model, load_model, names_contain
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.models.presets import small_config
from minimrcnn.recipes import explain_fit, list_parts, make_published, make_recipe, make_small
from minimrcnn.show import contact_sheet, draw_detections, draw_target, write_page
from minimrcnn.training.checkpoint import initialize
from minimrcnn.training.compile_ahead import PREDICTING, compile_ahead
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.trainer import CHECKPOINT, MODEL, PLOT
from minimrcnn.training.trainer import train as run_training
from minimrcnn.weights import is_ours, recognize, save
from minimrcnn.weights.recognize import EPS

UNSEEN = 10**6  # the seed of the pictures that the demo is scored on; another if it was trained on these
FULL_STEPS = 1000  # of the demo
DEMO_ROIS = 64  # a picture of at most four shapes has no use for more
HELD_BACK = 0.2  # of the pictures, where there is no --val
SHOWN_PICTURES = 8  # on the page
SHOWN_SCORE = 0.5  # least score of what the page shows


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
    model = MaskRCNN(config, seed=options.seed)
    recipe = TrainOptions(steps=steps, batch_size=4, warmup_steps=warmup, seed=options.seed)
    say(f"training on {pictures} generated pictures for {steps} steps; Ctrl-C stops")
    folder = Path(options.output)
    times = run_training(on_device(model, options), dataset, recipe, folder)
    report(model, unseen, folder, times, f"Mask R-CNN after {steps} steps on {pictures} generated pictures", recipe)
    if options.quick:
        say(f"{steps} steps show that it works, and find nothing yet; without --quick it takes {FULL_STEPS}")


def train(options) -> None:
    """Train on a data folder, validate, leave model, figures and a page."""
    folder = Path(options.output)
    begun = next((name for name in (CHECKPOINT, MODEL) if (folder / name).exists()), None)
    if begun and not options.resume:
        raise DataError(
            f"{folder / begun}: a training is in this folder; go on with it (--resume), or name another folder with -o"
        )
    dataset = open_dataset(options, options.data)
    if options.val:
        validation = open_dataset(options, options.val, (dataset.class_names, dataset.category_ids))
        check_classes(dataset.class_names, validation, options.val, options.data)
    elif len(dataset) > 1:
        dataset, validation = dataset.split(max(HELD_BACK, 1 / len(dataset)), options.seed)
        say(f"{len(validation)} of {len(validation) + len(dataset)} pictures are held back for validation")
    else:
        raise DataError(
            f"{options.data}: one picture cannot be trained and validated on; add pictures, or name a --val"
        )

    if options.architecture == "small":
        model = make_small(options, dataset)
    else:
        model = make_published(options, dataset)
        if not options.init:
            say("from random weights, so with group norm throughout; --init with published weights learns faster")
    recipe = make_recipe(options, model.config)
    if options.init and not (options.resume and begun):
        fresh = initialize(model, options.init)
        say(f"starting from {options.init}" + (f"; afresh: {list_parts(fresh, model.arrays())}" if fresh else ""))
    for line in explain_fit(options, dataset, model.config):
        say(line)
    try:
        times = run_training(on_device(model, options), dataset, recipe, folder, resume=options.resume)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop or 'stopped'}; the same command with --resume goes on") from None
    report(model, validation, folder, times, f"Mask R-CNN after {options.steps} steps on {options.data}", recipe)


def evaluate(options) -> None:
    """Score a model on a data folder, or detections against annotations."""
    given = {name for name in ("model", "weights", "data", "annotations", "detections") if getattr(options, name)}
    if given in ({"model", "data"}, {"weights", "data"}):
        model = on_device(load_either(options), options)
        known = model.config.class_names, model.config.category_ids
        dataset = open_dataset(options, options.data, known if all(known) else None)
        if names_contain(model.config, dataset):
            model = InTermsOf(model, dataset)
        else:
            check_classes(model.config.class_names, dataset, options.data, options.model or options.weights)
            check_count(model.config.num_classes, dataset, options.data, options.model or options.weights)
        compile_ahead(PREDICTING, progress=True, device=options.device)
        figures, _ = evaluate_model(model, dataset, options.score)
    elif given == {"annotations", "detections"}:
        annotations = read_annotations(options.annotations)
        results = load_results(options.detections, annotations)
        if options.score is not None:
            results = [row for row in results if row["score"] >= options.score]
        figures = {}
        for name, kind, key in (("box", "bbox", "bbox"), ("mask", "segm", "segmentation")):
            if all(key in row for row in results):
                scored = evaluate_results(annotations, results, kind)
                figures |= {f"{name}_{figure.lower()}": value for figure, value in scored.items()}
        if not figures:
            raise DataError(
                f"{options.detections}: some rows lack bbox and others segmentation; wanted one in every row"
            )
    else:
        raise DataError("evaluate: wanted --model or --weights with --data, or --annotations with --detections")
    print(format_figures(figures))
    if options.json:
        write_json(options.json, figures)


def predict(options) -> int:
    """Find objects in pictures; a picture that cannot be read is named and does not hold up the others."""
    model = on_device(load_either(options), options)
    names = model.config.class_names or tuple(str(label) for label in range(model.config.num_classes))
    category_ids = model.config.category_ids or (None, *range(1, model.config.num_classes))
    name_of = dict(zip(category_ids, names, strict=True))
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [Path(name) for name in options.pictures]
    outputs = list(name_outputs(paths))
    if {(folder / output).resolve() for output in outputs} & {path.resolve() for path in paths}:
        raise DataError(f"{folder}: the results would replace the pictures; name another folder with -o")
    compile_ahead(PREDICTING, progress=True, device=options.device)
    results, failed = [], 0
    for image_id, path, output in zip(number_pictures(paths), paths, outputs, strict=True):
        try:
            picture = read_picture(path)
        except DataError as error:
            say(f"minimrcnn: error: {error}")
            failed += 1
            continue
        (detections,) = model.predict([picture], score_thresh=options.score)
        Image.fromarray(draw_detections(picture, detections, names)).save(folder / output)
        for row in detections_to_results(detections, image_id, category_ids):
            results.append({**row, "category_name": name_of[row["category_id"]], "file_name": path.name})
        counts = [f"{int((detections.labels == k).sum())} {names[k]}" for k in np.unique(detections.labels).tolist()]
        print(f"{path}: {', '.join(counts) or 'nothing'} -> {folder / output}")
    write_json(folder / "detections.json", results)
    return 2 if failed else 0


def explain(options) -> None:
    """Follow a photo through the model, onto a page of its own."""
    source, output = Path(options.picture), Path(options.output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{output}: the page is written as .html; wanted a name such as page.html after -o")
    picture = read_picture(source)
    model = on_device(load_either(options), options)
    compile_ahead(PREDICTING, progress=True, device=options.device)
    found = trace_picture(model, picture, options.score)
    page = make_page(tell(found, source.name)).encode()
    with atomic_file(output) as file:
        file.write(page)
    print(f"{source}: {len(found.detections)} found -> {output} ({len(page) / 1e6:.1f} MB)")


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
        save(output, state)
        say(f"{output}: {len(state)} arrays under torchvision's names, for load_state_dict(strict=True)")
        say_eps(model.config, recognize(state)["norm_eps"])
    else:
        if output.suffix != ".npz":
            raise DataError(f"{output}: a model is written as .npz; wanted a name such as model.npz after -o")
        fields = {} if options.norm_eps is None else {"norm_eps": options.norm_eps}
        model = load_model(source, **fields)
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
    model = load_model(options.weights)
    say(f"{options.weights}: {describe_model(model.config)}")
    return model


def report(model, dataset, folder: Path, times: dict, title: str, recipe: TrainOptions) -> None:
    """Score a trained model on unseen pictures; write ``results.json`` and ``index.html``, and say where they are."""
    figures, _ = evaluate_model(model.eval(), dataset)
    run = {"steps": recipe.steps, "batch_size": recipe.batch_size, "seed": recipe.seed, "pictures_scored": len(dataset)}
    write_json(folder / "results.json", {**figures, **times, **run, **describe_environment()})

    rows = []
    for index in range(min(SHOWN_PICTURES, len(dataset))):
        picture, target = dataset[index]
        (detections,) = model.predict([picture], score_thresh=SHOWN_SCORE)
        names = dataset.class_names
        rows.append([draw_target(picture, target, names), draw_detections(picture, detections, names)])
    Image.fromarray(contact_sheet(rows, titles=("truth", "prediction"))).save(folder / "predictions.png")
    shown = ("box_ap", "box_ap50", "box_ap75", "mask_ap", "mask_ap50", "mask_ap75", *times)
    page = write_page(
        folder,
        title,
        {
            "predictions.png": f"Unseen pictures: the truth, and what the model finds (score {SHOWN_SCORE} and more)",
            PLOT: "Losses in training",
        },
        {name: value for name, value in {**figures, **times}.items() if name in shown},
    )
    print(format_figures(figures))
    print(f"{times['seconds_per_step']:.3f} s a step, {times['seconds']:.0f} s in all; look at {page}")


def on_device(model: MaskRCNN, options) -> MaskRCNN:
    """The model where ``--device`` wants it."""
    return model if options.device == "cpu" else model.to(options.device)


def number_pictures(paths: list[Path]) -> list[int]:
    """COCO's image ids: the numbers that are the files' names, if all are and none is there twice; else 1, 2, .."""
    numbers = [int(path.stem) for path in paths if path.stem.isdecimal()]
    return numbers if len(set(numbers)) == len(paths) else list(range(1, len(paths) + 1))


def name_outputs(paths: list[Path]) -> Iterator[str]:
    """A file name for each picture's result; those of the same name in different folders are numbered."""
    taken: set[str] = set()
    for path in paths:
        name, count = f"{path.stem}.png", 1
        while name in taken:
            count += 1
            name = f"{path.stem}-{count}.png"
        taken.add(name)
        yield name


def write_json(path, value) -> None:
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def say(text: str) -> None:
    """To the terminal, not into what is piped on."""
    tqdm.write(text, file=sys.stderr)
