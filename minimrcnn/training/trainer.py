"""The training loop: what it computes is four lines; the rest sees to it that nothing is lost, whatever happens.

A run lives in a folder: ``checkpoint.npz`` (model, optimizer and generator after some step, replaced about every
minute), ``log.jsonl`` (one line a step), and at the end ``model.npz`` and ``losses.png``; the checkpoint then shrinks
to a note that the run is done. Whoever wants to look on while it goes is a `Watch`. How it goes:

1. Resume from the checkpoint, if asked to, and cut the log to the steps that the checkpoint knows.
2. Rehearse: losses and gradients of the first batch, put back afterwards, so that compiling is measured apart.
3. Each step: losses, gradients, their norm, and only if all of them are finite the update and its line in the log.
4. Let the watch look. It predicts, which changes nothing: a run that is watched computes the bits of one that is not.
5. Write checkpoints on time, when interrupted, and at the end.

A batch depends on the seed and the step's number, the learning rate on the number alone, and the model's generator is
in the checkpoint: a run that was stopped and resumed computes the same bits as one that was not.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from minimrcnn.archive import make_place
from minimrcnn.data.coco import CocoDataset
from minimrcnn.data.folder import fingerprint
from minimrcnn.data.loader import Loader
from minimrcnn.device import module_of, to_device
from minimrcnn.environment import peak_memory_mib
from minimrcnn.errors import DataError
from minimrcnn.progress import tqdm
from minimrcnn.tensor import Tensor, no_grad
from minimrcnn.training.checkpoint import MODEL, list_photos, restore, save_checkpoint
from minimrcnn.training.compile_ahead import TRAINING, compile_ahead
from minimrcnn.training.lock import lock_folder
from minimrcnn.training.log import LOG, cut_log, plot_log, read_times
from minimrcnn.training.optimizer import clip_gradients
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.watch import BEST, SCORES, Watch

SMOOTHING = 0.95  # of the losses beside the progress bar
CHECKPOINT, PLOT = "checkpoint.npz", "losses.png"


def train(
    model,
    dataset,
    options: TrainOptions,
    folder,
    resume: bool = False,
    progress: bool = True,
    watch: Watch | None = None,
    arguments: Sequence[str] = (),
) -> dict:
    """Train a model and leave it, its log and the plot of its losses in a folder.

    Parameters
    ----------
    model : MaskRCNN
        Changed in place, and in training mode afterwards.
    dataset : object
        With ``len(dataset)`` and ``dataset[i] -> (picture, Target)``.
    options : TrainOptions
    folder : path
        Made if it is not there. Without ``resume``, an earlier run in it is overwritten.
    resume : bool
        Go on from the checkpoint in the folder; where there is none, start.
    progress : bool
        Show a bar with the losses and the time left.
    watch : Watch, optional
        Shows how the training goes and keeps the best model, in the same folder.
    arguments : sequence of str
        Of the command that begins the run, kept in its checkpoints.

    Returns
    -------
    dict
        ``seconds_per_step`` (median), ``seconds`` (of all steps), ``seconds_compiling``, ``peak_memory_mib``.

    Raises
    ------
    DataError
        A loss or gradient is not finite: step, picture and loss are named, the update is not made and the last
        checkpoint stays. Or the checkpoint to resume from does not fit, or another training is in the folder.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, once the step is done and a checkpoint is written.
    """
    folder = Path(folder)
    make_place(folder / CHECKPOINT)
    with lock_folder(folder):
        return _train_in(folder, model, dataset, options, resume, progress, watch, arguments)


def _train_in(
    folder: Path, model, dataset, options: TrainOptions, resume: bool, progress: bool, watch, arguments
) -> dict:
    """`train`, in a folder that nobody else writes into."""
    checkpoint = folder / CHECKPOINT
    optimizer = options.make_optimizer(model.named_parameters())
    model.train()
    photos = list_photos(dataset, watch.names if watch else None)
    done = restore(checkpoint, model, optimizer, options, photos) if resume and checkpoint.exists() else 0
    if resume and progress:
        if done == options.steps:
            print(f"{folder}: all {done} steps are done already", file=sys.stderr)
        elif done:
            print(f"going on after step {done} of {options.steps}", file=sys.stderr)
        else:
            print(f"{checkpoint}: there is none to go on from; starting at the beginning", file=sys.stderr)
    if isinstance(dataset, CocoDataset):
        model.trained_on = tuple(sorted({*model.trained_on, *map(fingerprint, dataset.paths)}))
    if watch and isinstance(watch.validation, CocoDataset):
        model.validated_on = tuple(sorted(map(fingerprint, watch.validation.paths)))
    if done == 0:
        for name in (CHECKPOINT, BEST, SCORES):
            (folder / name).unlink(missing_ok=True)
    cut_log(folder / LOG, done)

    save = functools.partial(save_checkpoint, checkpoint, model, optimizer, options, photos=photos, arguments=arguments)
    if done < options.steps:
        seconds_compiling = run_steps(model, optimizer, dataset, options, folder, done, save, progress, watch)
    else:
        seconds_compiling = 0.0
        if watch:
            watch.begin(done, options.steps)
    model.save(folder / MODEL)
    save(options.steps, finished=True)
    if (folder / LOG).stat().st_size:  # else somebody removed it from a run that was done
        plot_log(folder / LOG, folder / PLOT)
    return {**read_times(folder / LOG), "seconds_compiling": seconds_compiling, "peak_memory_mib": peak_memory_mib()}


def run_steps(
    model, optimizer, dataset, options: TrainOptions, folder: Path, done: int, save, progress: bool, watch: Watch | None
) -> float:
    """All steps after the first ``done``, with bar, log and checkpoints, which ``save`` writes for a number of steps.

    Returns the seconds spent compiling before.
    """
    transform = options.make_transform()
    read_from = dataset  # at no more pixels than are trained on, if it can: phones' photos have twenty times as many
    if isinstance(dataset, CocoDataset) and not options.crop:
        read_from = dataset.reduced(model.config.min_size, model.config.max_size)
    with (
        Loader(read_from, options.batch_size, transform, seed=options.seed, start=done) as loader,
        open(folder / LOG, "a", encoding="utf-8") as log,
    ):
        first = next(loader)
        if watch and not done:
            watch.announce(options.steps)
        start = time.perf_counter()
        compile_ahead(TRAINING, progress, device=next(iter(optimizer.parameters.values())).device)
        rehearse(model, optimizer, options, first)
        seconds_compiling = time.perf_counter() - start
        if progress:
            print(f"kernels are ready after {seconds_compiling:.1f} s", file=sys.stderr)
        if watch:
            watch.begin(done, options.steps)

        def keep(steps: int) -> None:
            """Save, after the log: a checkpoint must not count steps that a power cut took from the log."""
            os.fsync(log.fileno())
            save(steps)

        smooth: dict[str, float] = {}
        saved_at = time.monotonic()
        with (
            tqdm(total=options.steps, initial=done, disable=not progress, unit="step", smoothing=0.05) as bar,
            deferred_interrupts() as interrupted,
        ):
            for step in range(done, options.steps):
                start = time.perf_counter()
                try:
                    batch = first if step == done else next(loader)
                except DataError:  # a picture that turned out to be damaged: mend it and resume
                    if step > done:
                        keep(step)
                    raise
                losses, norm = take_step(model, optimizer, dataset, options, batch, step)
                record = {
                    "step": step + 1,
                    "total": sum(losses.values()),
                    **losses,
                    "learning_rate": options.learning_rate_at(step),
                    "gradient_norm": norm,
                    "seconds": round(time.perf_counter() - start, 4),
                }
                write_line(log, record)
                smooth = {
                    name: smooth.get(name, value) * SMOOTHING + value * (1 - SMOOTHING)
                    for name, value in losses.items()
                }
                bar.set_postfix_str(describe_losses(smooth), refresh=False)
                bar.update()
                if watch:
                    try:
                        watch.after_step(step + 1, record, interrupted)
                    except Exception:  # a damaged picture to validate on, a full disk: the step is done all the same
                        keep(step + 1)
                        raise

                last = step + 1 == options.steps
                if last or interrupted.is_set() or time.monotonic() - saved_at > options.checkpoint_seconds:
                    keep(step + 1)
                    saved_at = time.monotonic()
                if interrupted.is_set() and not last:
                    raise KeyboardInterrupt(f"stopped after step {step + 1} of {options.steps}, which is saved")
    return seconds_compiling


def write_line(log, record: dict) -> None:
    """A line of the log, all the way to the system; an error names the file."""
    try:
        log.write(json.dumps(record) + "\n")
        log.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, log.name) from error


def take_step(model, optimizer, dataset, options, batch, step: int) -> tuple[dict[str, float], float]:
    """One update, unless a loss or the gradient is not finite. Returns the losses and the gradient's norm."""
    losses = model.losses(batch.pictures, batch.targets)
    numbers = [loss.data for loss in losses.values()]
    numbers = to_device(module_of(numbers[0]).stack(numbers), "cpu").tolist()  # in one go, as a GPU is waited for
    values = dict(zip(losses, numbers, strict=True))
    check_losses(values, model, dataset, batch, step)
    functools.reduce(operator.add, losses.values()).backward()
    norm = clip_gradients(optimizer.parameters.values(), options.clip_norm)
    check_norm(norm, optimizer, dataset, batch, step)
    optimizer.step(options.learning_rate_at(step))
    optimizer.clear_gradients()
    return values, norm


def rehearse(model, optimizer, options: TrainOptions, batch) -> None:
    """Run every kernel of a step once, and leave everything as it was.

    Losses draw from the model's generator and move the running statistics of batch norm: both are put back. The update
    is made to a parameter of no account.
    """
    generator = model.generator.bit_generator.state
    statistics = {name: array.copy() for name, array in model.arrays().items() if name not in optimizer.parameters}
    losses = model.losses(batch.pictures, batch.targets)
    functools.reduce(operator.add, losses.values()).backward()
    clip_gradients(optimizer.parameters.values(), math.inf)
    optimizer.clear_gradients()
    model.load_arrays({**model.arrays(), **statistics})
    model.generator.bit_generator.state = generator

    device = next(iter(optimizer.parameters.values())).device
    stand_in = Tensor(np.zeros(1, np.float32), requires_grad=True, device=device)
    stand_in.grad = Tensor(np.zeros(1, np.float32), device=device).data
    options.make_optimizer({"stand_in": stand_in}).step(0.0)


def check_losses(values: dict[str, float], model, dataset, batch, step: int) -> None:
    """Stop at a loss that is not finite, and find the picture that made it."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    guilty = []
    for index, picture, target in zip(batch.indices, batch.pictures, batch.targets, strict=True):
        with no_grad():
            alone = model.losses([picture], [target])
        if not all(math.isfinite(float(loss.numpy())) for loss in alone.values()):
            guilty.append(index)
    raise DataError(
        f"step {step + 1}: {' and '.join(f'{name} is {values[name]}' for name in bad)} for "
        f"{describe_pictures(dataset, guilty or batch.indices)}; the last checkpoint is kept. "
        "Look at the picture and its annotations; if it is every picture, the training has diverged: lower --lr"
    )


def check_norm(norm: float, optimizer, dataset, batch, step: int) -> None:
    """Stop at a gradient that is not finite, before it gets into the parameters."""
    if math.isfinite(norm):
        return
    parameters = optimizer.parameters.items()
    bad = next(name for name, parameter in parameters if not math.isfinite(clip_gradients([parameter], math.inf)))
    raise DataError(
        f"step {step + 1}: the gradient of {bad} is not finite though the losses are, for "
        f"{describe_pictures(dataset, batch.indices)}; the last checkpoint is kept. Lower --lr"
    )


def describe_pictures(dataset, indices: list[int]) -> str:
    """Indices and, where the data set knows them, file names."""
    images = dataset.annotations()["images"] if hasattr(dataset, "annotations") else ()
    names = [f"{index} ({images[index]['file_name']})" if images else str(index) for index in indices]
    return f"picture{'s' if len(names) > 1 else ''} {', '.join(names)} of the data set"


def describe_losses(values: dict[str, float]) -> str:
    parts = [f"{name.removeprefix('loss_')} {value:.3f}" for name, value in values.items()]
    return ", ".join([f"loss {sum(values.values()):.3f}", *parts])


@contextmanager
def deferred_interrupts():
    """Within the block, the first Ctrl-C or SIGTERM only sets the event that is yielded; the second acts as ever.

    An update that is broken off halfway would leave a model that belongs to no step. Python hands signals to its main
    thread only; in another thread nothing is deferred.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def defer(number, frame):
        event.set()
        signal.signal(number, before[number])
        print("\nfinishing this step, then saving; once more to stop at once", file=sys.stderr)

    for number in signals:
        signal.signal(number, defer)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
