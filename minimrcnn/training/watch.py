"""What is seen and kept of a training while it goes on: one page that refreshes itself, and the best model so far.

1. At the start, and after every so many steps, the model looks at a few pictures it is not trained on; the page shows
   the truth beside what it finds.
2. More rarely it looks at all of them. The average precision goes into ``validation.jsonl``, and the model that has
   the highest so far into ``best.npz``, which says itself of which step it is.
3. In between the page is written anew when it is a few seconds old: how far the run is, time left, curves.

Nothing of this touches the training. Predictions draw no random numbers and leave the weights alone, and every file
appears whole or not at all, so that a run may be killed while it is watched.
"""

from __future__ import annotations

import json
import math
import threading
import time
from array import array
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from minimrcnn.archive import atomic_file, read_header
from minimrcnn.data.coco import CocoDataset
from minimrcnn.evaluate import evaluate_model
from minimrcnn.models.prepare import resized
from minimrcnn.show import draw_detections, draw_target, shrink
from minimrcnn.training.log import LOG, read_log
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.page import Progress, Shown, tell_count, write_run_page

BEST, SCORES, PICTURES = "best.npz", "validation.jsonl", "watch"
WATCHED, SHOWN = 4, 8  # pictures on the page, while the run goes on and in the end
SHOWN_SCORE = 0.5  # least score of what the page shows
SHOWN_SIDE = 640  # pixels; larger pictures are shown smaller
REFRESH = 10  # seconds after which a browser looks again
PAGE_SECONDS = 5.0  # how old the page may get
RARE = 25  # from one evaluation to the next, so many times the steps that could be made meanwhile: 4 percent
MOST_EVALUATIONS = 20  # in a run


class Watch:
    """Looks on as a model is trained, on pictures it is not trained on; a context that closes the page.

    Parameters
    ----------
    model : MaskRCNN
    validation : object
        A data set, as `minimrcnn.data` describes.
    folder : path
        Of the run.
    title : str
        Of the page.
    every : int
        Steps from one look at a few pictures to the next; 0 for no page until the end.
    evaluate_every : int
        Steps from one evaluation on all pictures to the next; 0 for none until the end. See `choose_evaluations`.
    unseen : str
        Which pictures these are, in words.
    again : str
        The command that goes on with the run, for the page.
    progress : bool
        Show bars for evaluations.
    """

    def __init__(
        self,
        model,
        validation,
        folder,
        title: str,
        every: int,
        evaluate_every: int,
        unseen: str = "unseen pictures",
        again: str = "",
        progress: bool = True,
    ):
        self.model, self.validation, self.folder, self.title = model, validation, Path(folder), title
        self.every, self.evaluate_every, self.unseen, self.again = every, evaluate_every, unseen, again
        self.progress = progress
        self.shown_from = validation  # at the size that the model resizes pictures to, as the page needs no more
        if isinstance(validation, CocoDataset):
            self.shown_from = validation.reduced(model.config.min_size, model.config.max_size)
        self.names = [image["file_name"] for image in validation.annotations()["images"]]
        self.losses: dict[str, array] = defaultdict(lambda: array("d"))  # by name, one for each step done
        self.scores: list[dict] = []  # one row for each evaluation
        self.best: dict | None = None  # the row of the model in best.npz
        self.shown: list[Shown] = []
        self.seconds_watching = self.seconds_evaluating = 0.0
        self.step = self.steps = self.first = 0
        self.started = self.written = time.monotonic()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is not None and self.steps:
            with suppress(OSError):  # of the full disk that ended the run
                self.write_page(str(error) or "stopped")

    def announce(self, steps: int) -> None:
        """Leave a page with nothing on it yet: it is looked for while the kernels are compiled, which takes a while."""
        self.steps = steps
        if self.every:
            self.write_page()

    def begin(self, done: int, steps: int) -> None:
        """Take up a run of which ``done`` of ``steps`` steps are done."""
        self.step = self.first = done
        self.steps = steps
        for record in read_log(self.folder / LOG):
            if record["step"] <= done:
                self.remember(record)
        path = self.folder / SCORES
        self.scores = [row for row in read_log(path) if row["step"] <= done] if path.exists() else []
        if (self.folder / BEST).exists():
            self.best = read_header(self.folder / BEST).get("validation")
        if done < steps:
            if self.is_due(done, self.evaluate_every) and not any(row["step"] == done for row in self.scores):
                self.evaluate(threading.Event())  # the run was stopped in the middle of it
            if self.every:
                self.look(WATCHED)
                self.write_page()
        self.seconds_watching = self.seconds_evaluating = 0.0  # from here on, beside steps
        self.started = time.monotonic()

    def after_step(self, step: int, record: dict, stop: threading.Event) -> None:
        """Look, evaluate and write the page, if it is time; not after the last step, nor once ``stop`` is set."""
        self.step = step
        self.remember(record)
        if step == self.steps or stop.is_set():
            return
        if self.is_due(step, self.evaluate_every):
            self.evaluate(stop)
        if self.every and not stop.is_set():
            due = self.is_due(step, self.every)
            if due:
                self.look(WATCHED)
            if due or time.monotonic() - self.written > PAGE_SECONDS:
                with suppress(OSError):  # as where a browser holds the page: the next one will do
                    self.write_page()

    def finish(self) -> dict:
        """Evaluate the trained model and leave the page in its last state.

        Returns
        -------
        dict
            The last model's figures, ``best`` with ``step`` and AP of the model in ``best.npz``, and
            ``seconds_watching`` and ``seconds_evaluating``, beside the steps.
        """
        times = {"seconds_watching": self.seconds_watching, "seconds_evaluating": self.seconds_evaluating}
        shares = self.shares()  # what follows is not done beside steps any more
        row = self.evaluate(threading.Event())
        self.look(SHOWN)
        self.write_page("", shares)
        figures = {name: value for name, value in row.items() if name not in ("step", "seconds")}
        return {**figures, "best": self.best, **times}

    def shares(self) -> tuple[float, float]:
        """Of the time since the start: what went into looking, and into evaluating."""
        passed = max(time.monotonic() - self.started, 1e-9)
        return self.seconds_watching / passed, self.seconds_evaluating / passed

    def is_due(self, step: int, every: int) -> bool:
        return bool(every and step) and step % every == 0

    def remember(self, record: dict) -> None:
        losses = {name.removeprefix("loss_"): value for name, value in record.items() if name.startswith("loss_")}
        for name, value in {"total": sum(losses.values()), **losses}.items():
            self.losses[name].append(value)

    def look(self, count: int) -> None:
        """Draw the truth about some pictures, spread over all of them, and beside it what the model finds.

        Before the first step it finds anything and nothing, so that is not shown.
        """
        start = time.perf_counter()
        places = np.linspace(0, len(self.validation) - 1, min(count, len(self.validation))).round().astype(int)
        (self.folder / PICTURES).mkdir(exist_ok=True)
        shown, names = [], self.validation.class_names
        for place in places.tolist():
            picture, target = self.shown_from[place]
            file = f"{PICTURES}/{place}-truth.jpg"
            save_picture(self.folder / file, draw_target(*shrink(picture, target, SHOWN_SIDE), names))
            drawn = {file: f"the truth: {tell_count(target.labels)}"}
            if self.step:
                (found,) = self.model.predict([picture], score_thresh=SHOWN_SCORE)
                file = f"{PICTURES}/{place}-found.jpg"
                save_picture(self.folder / file, draw_detections(*shrink(picture, found, SHOWN_SIDE), names))
                drawn[file] = f"found after step {self.step}: {tell_count(found.labels)}"
            shown.append(Shown(self.names[place], self.step, drawn))
        self.shown = shown
        self.seconds_watching += time.perf_counter() - start

    def evaluate(self, stop: threading.Event) -> dict | None:
        """Score the model on all pictures and keep it if it is the best; None if ``stop`` was set in the middle."""
        start = time.perf_counter()

        def predict(pictures, score_thresh=None):
            if stop.is_set():
                raise GivenUp
            return self.model.predict(pictures, score_thresh=score_thresh)

        try:
            figures, _ = evaluate_model(SimpleNamespace(predict=predict), self.validation, progress=self.progress)
        except GivenUp:
            return None
        score = "mask_ap" if "mask_ap" in figures else "box_ap"
        if self.best is None or figures[score] >= self.best.get(score, -1):  # of equals the one that learned longer
            self.best = {"step": self.step, score: figures[score]}
            self.model.save(self.folder / BEST, validation=self.best)
        seconds = time.perf_counter() - start
        row = {"step": self.step, **figures, "seconds": round(seconds, 3)}
        self.scores = [*(other for other in self.scores if other["step"] != self.step), row]
        with atomic_file(self.folder / SCORES) as file:
            file.writelines((json.dumps(row) + "\n").encode() for row in self.scores)
        self.seconds_evaluating += seconds
        return row

    def write_page(self, ended: str | None = None, shares: tuple[float, float] | None = None) -> None:
        """Write the page; ``ended`` says why the run is over, an empty text that it is done."""
        start, left = time.perf_counter(), None
        if self.step > self.first:
            left = (time.monotonic() - self.started) / (self.step - self.first) * (self.steps - self.step)
        caption = f"{self.unseen}, found with a score of at least {SHOWN_SCORE}"
        if self.every and len(self.shown[0].files if self.shown else ()) == 1 and ended is None:
            caption += f"; what the model finds is seen from step {min(self.every, self.steps)} on"
        if self.evaluate_every and not self.scores and ended is None:
            caption += f"; average precision from step {min(self.evaluate_every, self.steps)} on"
        progress = Progress(self.step, self.steps, left, ended, self.again, *(shares or self.shares()))
        write_run_page(
            self.folder, self.title, progress, self.losses, self.scores, self.best, self.shown,
            caption, REFRESH,
        )  # fmt: skip
        self.written = time.monotonic()
        self.seconds_watching += time.perf_counter() - start


class GivenUp(Exception):
    """Somebody wants the run to stop, and does not care to wait for an evaluation."""


def choose_evaluations(validation, config, recipe: TrainOptions) -> int:
    """Steps from one evaluation to the next, so that evaluating takes about a twenty-fifth of the time.

    Estimated by pixels, not measured, so that a run that is repeated has the same best model. To evaluate a picture
    takes about as long as to train on it: there is no way back, but early in a run many things are found.
    """
    images = validation.annotations()["images"]
    areas = np.array([math.prod(resized((image["height"], image["width"]), config)) for image in images])
    trained = np.minimum(areas, recipe.crop**2) if recipe.crop else areas
    steps = areas.sum() / (trained.mean() * recipe.batch_size)  # that take as long as an evaluation
    return max(math.ceil(RARE * steps), math.ceil(recipe.steps / MOST_EVALUATIONS))


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) as JPEG, whole or not at all."""
    with atomic_file(path) as file:
        Image.fromarray(picture).save(file, "JPEG", quality=90)
