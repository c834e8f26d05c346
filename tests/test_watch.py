"""What is seen and kept of a training: nothing of it touches the model, and nothing is lost or half written."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from minimrcnn.archive import read_archive
from minimrcnn.config import Config
from minimrcnn.errors import DataError
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.structures import Target
from minimrcnn.training import trainer
from minimrcnn.training import watch as watching
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.page import Progress, Shown, tabulate_scores, tell_time, write_run_page
from minimrcnn.training.trainer import train
from minimrcnn.training.watch import Watch, choose_evaluations
from tests.test_trainer import OPTIONS, Stop, stop_after
from tests.tiny_model import TinyData, TinyModel

RUN = """
import sys
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.trainer import train
from minimrcnn.training.watch import Watch
from tests.tiny_model import TinyData, TinyModel
options = TrainOptions(steps=100000, batch_size=3, learning_rate=1e-4, color=False, checkpoint_seconds=0.05)
model = TinyModel()
with Watch(model, TinyData(2), sys.argv[1], "Things", 1, 1, progress=False) as watch:
    train(model, TinyData(), options, sys.argv[1], resume=True, progress=False, watch=watch)
"""


def run(folder, model=None, every=3, evaluate_every=4, resume=False, validation=None, finish=True, **options):
    """Train a tiny model, watched; returns what `finish` gave."""
    model = model or TinyModel()
    recipe = TrainOptions(**{**OPTIONS, "checkpoint_seconds": 0.0, **options})
    with Watch(model, validation or TinyData(6), folder, "Things & <more>", every, evaluate_every, "unseen things",
               "minimrcnn train --resume", progress=False) as watch:  # fmt: skip
        train(model, TinyData(), recipe, folder, resume, progress=False, watch=watch)
        return watch.finish() if finish else None


def read_scores(folder):
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def page(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(autouse=True)
def unplotted(monkeypatch):
    """Without the plot of the losses, which takes matplotlib longer than the rest of such a run."""
    monkeypatch.setattr(trainer, "plot_log", lambda log, output: None)


@pytest.fixture
def script(monkeypatch):
    """Evaluations with mask AP as a test says, one after the other; the rest is real."""

    def play(*values):
        row = iter(values)
        figures = lambda: {"box_ap": 0.9, "mask_ap": next(row), "mask_ap50": 0.8, "mask_ap75": 0.1}  # noqa: E731
        monkeypatch.setattr(watching, "evaluate_model", lambda *arguments, **names: (figures(), []))

    return play


def test_watched_and_unwatched_have_the_same_bits(tmp_path):
    train(TinyModel(), TinyData(), TrainOptions(**OPTIONS), tmp_path / "alone", progress=False)
    run(tmp_path / "watched", every=1, evaluate_every=1)
    assert (tmp_path / "watched/model.npz").read_bytes() == (tmp_path / "alone/model.npz").read_bytes()


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_looking_leaves_the_model_as_it_was(tmp_path, norm):
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[0, 8:40, 8:40] = 1

    class OnePicture(TinyData):
        def __getitem__(self, index):
            return picture, Target(np.float32([[8, 8, 40, 40]]), np.ones(1, np.int64), mask)

        def annotations(self):
            rows = super().annotations()
            rows["images"][0] |= {"height": 64, "width": 64}
            rows["annotations"][0] |= {"segmentation": {"size": [64, 64], "counts": [0, 64 * 64]}}
            return rows

    model = MaskRCNN(
        num_classes=2, class_names=OnePicture.class_names, norm=norm, backbone="resnet18", pyramid_channels=8,
        norm_groups=8, box_head_channels=8, mask_head_channels=(8,), box_score_thresh=0.0,
    ).train()  # fmt: skip
    before = {name: array.copy() for name, array in model.arrays().items()}
    state = model.generator.bit_generator.state
    (tmp_path / "log.jsonl").write_text("")
    watch = Watch(model, OnePicture(1), tmp_path, "One", 1, 1, progress=False)
    watch.begin(0, 5)
    watch.after_step(1, {"loss_a": 1.0}, threading.Event())
    assert len(read_scores(tmp_path)) == 1 and (tmp_path / "best.npz").exists()
    assert model.generator.bit_generator.state == state and model.training
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_the_page_refreshes_itself_until_the_run_is_over(tmp_path, monkeypatch):
    pages = []
    write = watching.write_run_page
    monkeypatch.setattr(watching, "PAGE_SECONDS", 1e9)
    monkeypatch.setattr(watching, "write_run_page", lambda *a: (write(*a), pages.append(page(tmp_path))))
    figures = run(tmp_path)
    announced, *during, last = pages
    assert "0 of 12 steps" in announced and "kernels are compiled" in announced and "<img" not in announced
    assert [re.search(r"(\d+) of 12 steps", text)[1] for text in during] == ["0", "3", "6", "9"]
    assert all("kernels" not in text for text in (*during[1:], last))
    for text in during:
        assert '<meta http-equiv="refresh" content="10">' in text and "minimrcnn train --resume" in text
        assert "Things &amp; &lt;more&gt;" in text and 'name="viewport"' in text and "color-scheme: light dark" in text
    assert during[0].count("<img") == 4 and during[1].count("<img") == 8  # nothing is found before the first step
    assert ["average precision from step 4 on" in text for text in during] == [True, True, False, False]
    assert " left, at " in during[1] and "found after step 9" in during[3]
    assert during[0].count("<svg") == 0 and during[3].count("<svg") == 2  # losses, and AP after step 4
    assert "refresh" not in last and "All 12 steps are done" in last and "--resume" not in last
    assert last.count("<h3>") == 6 and during[0].count("<h3>") == 4  # more pictures in the end
    for text in pages:
        assert "http://" not in text and "https://" not in text and "<script" not in text and text.endswith("</html>\n")
    seen = re.findall(r'src="([^"?]+)\?step=12"', last)
    assert len(seen) == last.count("<img") == 12
    for name in seen:
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (384, 384)
    assert {"box_ap", "mask_ap", "seconds_watching", "seconds_evaluating"} <= set(figures)


def test_nothing_is_shown_where_nobody_watches(tmp_path):
    run(tmp_path, every=0, evaluate_every=0, finish=False)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.npz", "log.jsonl", "model.npz"]
    run(tmp_path, every=0, evaluate_every=0, resume=True)
    assert "All 12 steps are done" in page(tmp_path) and [row["step"] for row in read_scores(tmp_path)] == [12]


def test_the_best_model_is_kept(tmp_path, script):
    script(0.1, 0.6, 0.6, 0.2)
    figures = run(tmp_path, evaluate_every=3)
    assert [row["step"] for row in read_scores(tmp_path)] == [3, 6, 9, 12]
    assert figures["best"] == {"step": 9, "mask_ap": 0.6} and figures["mask_ap"] == 0.2  # of equals the later one
    arrays, header = read_archive(tmp_path / "best.npz")
    assert header["validation"] == figures["best"]
    with pytest.raises(Stop):
        run(tmp_path / "nine", model=(model := stop_after(TinyModel(), 10)), evaluate_every=0)
    np.testing.assert_array_equal(arrays["weight"], model.weight.data)  # the rehearsal and nine steps
    assert "best, step 9 (best.npz)" in page(tmp_path) and "0.600" in page(tmp_path)


def test_the_best_by_boxes_where_there_are_no_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "evaluate_model", lambda *arguments, **names: ({"box_ap": 0.25}, []))
    assert run(tmp_path)["best"] == {"step": 12, "box_ap": 0.25}


def test_a_resumed_run_goes_on_with_page_scores_and_best(tmp_path, script):
    script(0.3, 0.5, 0.1, 0.2)
    run(tmp_path / "straight", evaluate_every=3)
    script(0.3, 0.5)
    with pytest.raises(Stop):
        run(tmp_path / "halted", stop_after(TinyModel(), 8), evaluate_every=3)
    script(0.1, 0.2)
    run(tmp_path / "halted", TinyModel(seed=3), evaluate_every=3, resume=True)
    for name in ("model.npz", "best.npz"):
        assert (tmp_path / "halted" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert without_seconds(read_scores(tmp_path / "halted")) == without_seconds(read_scores(tmp_path / "straight"))
    charts = [re.findall(r"<svg.*?</svg>", page(tmp_path / name))[1] for name in ("halted", "straight")]
    assert charts[0] == charts[1]
    script(0.7)
    run(tmp_path / "halted", every=0, evaluate_every=0)  # another run: what was kept of the first one goes
    assert [row["step"] for row in read_scores(tmp_path / "halted")] == [12]


def test_a_resumed_run_is_scored_on_the_same_photos(tmp_path, script):
    script(*[0.1] * 5)
    run(tmp_path)
    with pytest.raises(
        DataError, match=r"the photos are not those of that run \(for validation 1 of 6 are gone, 0 are"
    ):
        run(tmp_path, resume=True, validation=TinyData(5))
    run(tmp_path, resume=True)


def test_a_score_from_beyond_the_checkpoint_is_made_again(tmp_path, script):
    script(0.3, 0.5)
    with pytest.raises(Stop):
        run(tmp_path, stop_after(TinyModel(), 8), evaluate_every=3, checkpoint_seconds=1e9)
    assert [row["step"] for row in read_scores(tmp_path)] == [3, 6] and not (tmp_path / "checkpoint.npz").exists()
    script(0.3, 0.5, 0.1, 0.2)
    assert run(tmp_path, evaluate_every=3, resume=True)["best"]["step"] == 6
    assert [row["step"] for row in read_scores(tmp_path)] == [3, 6, 9, 12]


def test_ctrl_c_in_an_evaluation_gives_it_up_and_resuming_makes_it(tmp_path):
    model = TinyModel()
    predict, calls = model.predict, iter(range(1000))

    def press(*arguments, **names):
        if next(calls) == 3:  # in the fourth picture of the first evaluation
            os.kill(os.getpid(), signal.SIGINT)
        return predict(*arguments, **names)

    model.predict = press
    with pytest.raises(KeyboardInterrupt, match="after step 4 of 12"):
        run(tmp_path, model, every=100)
    assert next(calls) == 4 and not (tmp_path / "validation.jsonl").exists()
    text = page(tmp_path)
    assert "refresh" not in text and "4 of 12 steps: stopped after step 4 of 12, which is saved" in text
    assert "This goes on: <code>minimrcnn train --resume</code>" in text
    run(tmp_path, every=100, resume=True)
    assert [row["step"] for row in read_scores(tmp_path)] == [4, 8, 12]


def test_what_goes_wrong_in_looking_loses_no_step(tmp_path):
    class Damaged(TinyData):
        def __getitem__(self, index):
            if index == 1:  # not among the four that are looked at
                raise DataError("photo1.png: the picture is damaged")
            return super().__getitem__(index)

    with pytest.raises(DataError, match="photo1.png"):
        run(tmp_path, validation=Damaged(6), checkpoint_seconds=1e9)
    assert read_archive(tmp_path / "checkpoint.npz")[1]["step"] == 4
    assert "4 of 12 steps: photo1.png: the picture is damaged" in page(tmp_path) and "refresh" not in page(tmp_path)


def test_killed_at_any_time_every_file_is_whole(tmp_path):
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    for pause in (0.05, 0.3):
        known = len(read_scores(tmp_path)) if (tmp_path / "validation.jsonl").exists() else 0
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(pause)
            if (tmp_path / "checkpoint.npz").exists() and len(read_scores(tmp_path)) > known + 3:
                break
        process.kill()
        process.wait()
        done = read_archive(tmp_path / "checkpoint.npz")[1]["step"]
        best = read_archive(tmp_path / "best.npz")[1]["validation"]
        scores = read_scores(tmp_path)
        assert [row["step"] for row in scores] == list(range(1, len(scores) + 1)) and len(scores) >= done
        assert best["mask_ap"] >= max(row["mask_ap"] for row in scores)
        assert page(tmp_path).endswith("</html>\n")
        for name in (tmp_path / "watch").glob("*.jpg"):
            Image.open(name).load()


@pytest.mark.parametrize(
    "count, side, min_size, crop, batch_size, expected",
    [
        (12, 256, None, None, 2, 150),  # as long as six steps, 25 times
        (1, 256, None, 256, 4, 50),  # at most twenty times in a run
        (12, 512, None, 256, 2, 600),  # four times the pixels of what is trained on
        (12, 4000, 480, None, 2, 150),  # both are resized
        (6000, 256, None, None, 2, 75_000),  # at the end only
    ],
)
def test_evaluations_take_a_small_part(count, side, min_size, crop, batch_size, expected):
    images = [{"height": side, "width": side}] * count
    validation = SimpleNamespace(annotations=lambda: {"images": images})
    config, recipe = Config(min_size=min_size), TrainOptions(steps=1000, batch_size=batch_size, crop=crop)
    assert choose_evaluations(validation, config, recipe) == expected


def test_times_as_people_say_them():
    assert [tell_time(seconds) for seconds in (7.4, 89, 100, 600, 3 * 3600 + 300)] == [
        "7 s",
        "89 s",
        "2 minutes",
        "10 minutes",
        "3 h 05 min",
    ]


def test_a_run_that_goes_on_knows_what_was_before_and_nothing_later(tmp_path):
    rows = [{"step": step, "loss_a": step / 2, "loss_b": 1.0} for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "validation.jsonl").write_text('{"step": 2, "box_ap": 0.1}\n{"step": 3, "box_ap": 0.2}\n')
    watch = Watch(TinyModel(), TinyData(), tmp_path, "a run", every=0, evaluate_every=0)
    watch.begin(2, 5)
    assert watch.losses["total"].tolist() == [1.5, 2.0] and watch.losses["a"].tolist() == [0.5, 1.0]
    assert [row["step"] for row in watch.scores] == [2]


def test_what_was_scored_is_not_scored_again(tmp_path, monkeypatch):
    monkeypatch.setattr(Watch, "evaluate", lambda watch, stop: pytest.fail("scored again"))
    (tmp_path / "log.jsonl").write_text("")
    (tmp_path / "validation.jsonl").write_text('{"step": 2, "box_ap": 0.1}\n')
    Watch(TinyModel(), TinyData(), tmp_path, "a run", every=0, evaluate_every=2).begin(2, 5)


def test_the_time_left_is_that_of_the_steps_of_this_part(tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(watching, "write_run_page", lambda folder, title, progress, *_: pages.append(progress))
    watch = Watch(TinyModel(), TinyData(), tmp_path, "a run", every=1, evaluate_every=0)
    watch.first, watch.step, watch.steps, watch.started = 4, 6, 10, time.monotonic() - 200
    watch.write_page()
    assert pages[0].seconds_left == pytest.approx(400, abs=20)


def test_a_step_is_scored_once(tmp_path):
    watch = Watch(TinyModel(), TinyData(2), tmp_path, "a run", every=0, evaluate_every=0, progress=False)
    watch.step = 3
    for _ in range(2):
        watch.evaluate(threading.Event())
    assert [row["step"] for row in watch.scores] == [3] and watch.seconds_evaluating > 0


def test_what_is_shown_has_the_score_that_the_page_names(tmp_path):
    model, asked = TinyModel(), []
    predict = model.predict
    model.predict = lambda pictures, score_thresh=None: (asked.append(score_thresh), predict(pictures))[1]
    watch = Watch(model, TinyData(2), tmp_path, "a run", every=1, evaluate_every=0, progress=False)
    watch.step = 1
    watch.look(2)
    assert asked == [watching.SHOWN_SCORE] * 2


def test_a_page_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch):
    """And what was seen before the first step is not beside the steps."""
    (tmp_path / "log.jsonl").write_text("")
    watch = Watch(TinyModel(), TinyData(2), tmp_path, "a run", every=1, evaluate_every=0, progress=False)
    watch.begin(0, 5)
    assert watch.seconds_watching == 0

    def held(*arguments):
        raise PermissionError("a browser holds it")

    monkeypatch.setattr(watching, "write_run_page", held)
    watch.after_step(1, {"loss_a": 1.0}, threading.Event())
    assert watch.shown[0].step == 1 and watch.seconds_watching > 0


def test_why_a_run_ended_is_said_though_the_page_cannot_say_it(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(watching, "write_run_page", full)
    watch = Watch(TinyModel(), TinyData(2), tmp_path, "a run", every=1, evaluate_every=0)
    watch.steps = 5
    with pytest.raises(DataError, match="the first error"), watch:
        raise DataError("the first error")


def test_a_page_that_is_old_is_written_between_two_looks(tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(watching, "PAGE_SECONDS", -1.0)
    monkeypatch.setattr(watching, "write_run_page", lambda folder, title, progress, *_: pages.append(progress.step))
    run(tmp_path, every=100, evaluate_every=0, finish=False)
    assert pages == [0, *range(12)]  # announced, begun, and after every step but the last


def test_a_run_that_goes_on_does_not_empty_the_page(tmp_path, monkeypatch):
    with pytest.raises(Stop):
        run(tmp_path, stop_after(TinyModel(), 5))
    monkeypatch.setattr(Watch, "announce", lambda watch, steps: pytest.fail("the page of before is gone"))
    run(tmp_path, resume=True)


def test_the_page_in_the_end_says_what_looking_and_evaluating_took_beside_the_steps(tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(watching, "write_run_page", lambda folder, title, progress, *_: pages.append(progress))
    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=lambda: 300.0, perf_counter=time.perf_counter))
    watch = Watch(TinyModel(), TinyData(2), tmp_path, "a run", every=1, evaluate_every=1, progress=False)
    watch.started, watch.seconds_watching, watch.seconds_evaluating = 100.0, 20.0, 50.0

    def evaluate(stop):  # the last one is not beside the steps
        watch.seconds_evaluating += 1000
        return {"step": 0, "box_ap": 0.5, "seconds": 1000.0}

    watch.evaluate = evaluate
    figures = watch.finish()
    assert (pages[0].watching, pages[0].evaluating) == (0.1, 0.25)
    assert (figures["seconds_watching"], figures["seconds_evaluating"]) == (20.0, 50.0)


def test_a_large_picture_is_shown_small(tmp_path):
    class Tall(TinyData):
        def __getitem__(self, index):
            empty = Target(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, 1280, 640), np.uint8))
            return np.zeros((1280, 640, 3), np.uint8), empty

    watch = Watch(TinyModel(), Tall(1), tmp_path, "a run", every=1, evaluate_every=0, progress=False)
    watch.step = 1
    watch.look(1)
    assert [Image.open(path).size for path in (tmp_path / "watch").iterdir()] == [(320, 640)] * 2


def test_a_score_of_nothing_to_find_is_a_dash():
    row = {"step": 3, "mask_ap": 0.0, "mask_ap50": -1, "mask_ap75": -1.0, "box_ap": 0.25}
    assert re.findall("<td>([-0-9.]*)</td>", "".join(tabulate_scores([row], None))) == ["0.000", "-", "-", "0.250"]


def test_names_of_pictures_are_no_markup(tmp_path):
    progress, shown = Progress(1, 2, None, None, "", 0.0, 0.0), [Shown("<b>&.png", 1, {})]
    write_run_page(tmp_path, "a run", progress, {}, [], None, shown, "what", 10)
    assert "<h3>&lt;b&gt;&amp;.png</h3>" in page(tmp_path)
