"""The training loop with a tiny model: nothing is lost, and a resumed run computes the same bits."""

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from minimrcnn.archive import read_archive
from minimrcnn.data.coco import CocoDataset
from minimrcnn.data.loader import Loader
from minimrcnn.errors import DataError
from minimrcnn.tensor import Tensor
from minimrcnn.training import trainer
from minimrcnn.training.lock import lock_folder, open_locked
from minimrcnn.training.optimizer import Optimizer
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.trainer import train
from tests.tiny_model import TinyData, TinyModel

OPTIONS = {"steps": 12, "batch_size": 3, "learning_rate": 0.05, "warmup_steps": 3, "color": False}
RUN = """
import sys
from minimrcnn.training.options import TrainOptions
from minimrcnn.training.trainer import train
from tests.tiny_model import TinyData, TinyModel
options = TrainOptions(steps=int(sys.argv[2]), batch_size=3, learning_rate=0.05, color=False, checkpoint_seconds=0.05)
try:
    train(TinyModel(), TinyData(), options, sys.argv[1], resume=True, progress=False)
except KeyboardInterrupt as stop:
    print(stop)
    sys.exit(130)
"""


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def without_times(records):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


class Stop(Exception):
    pass


@pytest.mark.parametrize("crop, sides", [(None, (16, 24)), (40, (32, 40))])
def test_large_photos_are_read_small_unless_they_are_cut_out_of(tmp_path, crop, sides):
    image = {"id": 1, "file_name": "a.png", "height": 32, "width": 48}
    Image.fromarray(np.full((32, 48, 3), 9, np.uint8)).save(tmp_path / "a.png")
    photos = CocoDataset.of_rows(
        {"images": [image], "categories": [{"id": 1, "name": "thing"}], "annotations": []}, {1: tmp_path / "a.png"}
    )
    model, seen = TinyModel(), []
    model.config = dataclasses.make_dataclass("Sides", ["min_size", "max_size", "size"])(16, 100, 3)
    losses = model.losses
    model.losses = lambda pictures, targets: seen.append(pictures[0].shape[:2]) or losses(pictures, targets)
    options = TrainOptions(steps=1, batch_size=1, color=False, crop=crop)
    train(model, photos, options, tmp_path / "run", progress=False)
    assert set(seen) == {sides}


def test_a_full_disk_names_the_log(tmp_path, monkeypatch):
    def write_line(log, record):
        full = mock.Mock()
        full.name, full.flush.side_effect = log.name, OSError(28, "No space left on device")
        real(full, record)

    real = trainer.write_line
    monkeypatch.setattr(trainer, "write_line", write_line)
    with pytest.raises(OSError, match=r"No space left on device: .*log\.jsonl"):
        train(TinyModel(), TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=False)


def stop_after(model, calls):
    """Make the model raise at its n-th losses, as a power cut would."""
    losses, count = model.losses, iter(range(calls + 1))

    def counted(*arguments):
        if next(count) == calls:
            raise Stop
        return losses(*arguments)

    model.losses = counted
    return model


def test_a_run_leaves_model_log_plot_and_figures(tmp_path):
    options = TrainOptions(**OPTIONS)
    figures = train(TinyModel(), TinyData(), options, tmp_path, progress=False)
    assert set(figures) == {"seconds_per_step", "seconds", "seconds_compiling", "peak_memory_mib"}
    assert figures["peak_memory_mib"] > 10 and figures["seconds"] >= figures["seconds_per_step"] >= 0
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.npz", "log.jsonl", "losses.png", "model.npz"]
    records = read_log(tmp_path)
    assert [record["step"] for record in records] == list(range(1, 13))
    first = records[0]
    assert set(first) == {"step", "total", "loss_a", "loss_b", "learning_rate", "gradient_norm", "seconds"}
    assert first["total"] == pytest.approx(first["loss_a"] + first["loss_b"])
    assert [record["learning_rate"] for record in records] == [options.learning_rate_at(step) for step in range(12)]
    assert records[-1]["loss_a"] < first["loss_a"]


def test_each_step_has_its_own_learning_rate_and_the_seed_its_own_order(tmp_path):
    options, logs = TrainOptions(**{**OPTIONS, "steps": 4}), []
    clip = mock.patch.object(trainer, "clip_gradients", side_effect=trainer.clip_gradients)
    with mock.patch.object(Optimizer, "step", autospec=True, side_effect=Optimizer.step) as step, clip as clipped:
        for seed in (0, 0, 1):
            with_seed = TrainOptions(**{**OPTIONS, "steps": 4, "seed": seed, "clip_norm": 0.25})
            train(TinyModel(), TinyData(), with_seed, tmp_path, progress=False)
            logs.append(without_times(read_log(tmp_path)))
    rates = [call.args[1] for call in step.call_args_list]
    assert rates == [0.0, *[options.learning_rate_at(step) for step in range(4)]] * 3  # the rehearsal's first
    assert [call.args[1] for call in clipped.call_args_list] == [np.inf, 0.25, 0.25, 0.25, 0.25] * 3
    assert logs[0] == logs[1] != logs[2]


def test_rehearsal_leaves_no_trace(tmp_path):
    model = TinyModel()
    train(model, TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=False)
    assert model.seen[0] == 12  # one more call of losses than steps, and the statistic does not know of it
    by_hand = TinyModel()
    for _ in range(12):
        by_hand.generator.standard_normal((3, 3))
    assert model.generator.bit_generator.state == by_hand.generator.bit_generator.state


def test_rehearsal_leaves_no_gradient():
    """It would be added to that of the first step."""
    model, options = TinyModel(), TrainOptions(**OPTIONS)
    with Loader(TinyData(), 3, options.make_transform(), seed=0) as loader:
        trainer.rehearse(model, options.make_optimizer(model.named_parameters()), options, next(loader))
    assert [parameter.grad for parameter in model.named_parameters().values()] == [None, None]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resumed_run_has_the_same_bits(tmp_path, optimizer):
    options = TrainOptions(**OPTIONS, optimizer=optimizer, checkpoint_seconds=0.0)
    train(TinyModel(), TinyData(), options, tmp_path / "straight", progress=False)
    for calls in (1 + 5, 1 + 4):  # the rehearsal and five steps; resumed, the rehearsal and four more
        with pytest.raises(Stop):
            train(stop_after(TinyModel(), calls), TinyData(), options, tmp_path / "halted", resume=True, progress=False)
    assert len(read_log(tmp_path / "halted")) == 9
    train(TinyModel(seed=99), TinyData(), options, tmp_path / "halted", resume=True, progress=False)
    for name in ("model.npz", "checkpoint.npz"):
        assert (tmp_path / "halted" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    assert without_times(read_log(tmp_path / "halted")) == without_times(read_log(tmp_path / "straight"))


def test_two_trainings_do_not_share_a_folder(tmp_path):
    options = TrainOptions(**OPTIONS)
    with lock_folder(tmp_path), pytest.raises(DataError, match="another training writes into this folder"):
        train(TinyModel(), TinyData(), options, tmp_path, progress=False)
    assert os.listdir(tmp_path) == []
    train(TinyModel(), TinyData(), options, tmp_path, progress=False)
    (tmp_path / "train.lock").touch()  # of a process that was killed: the system knows that it is gone
    train(TinyModel(), TinyData(), options, tmp_path, progress=False)


def test_a_lock_that_its_owner_removed_locks_nobody_out(tmp_path):
    """B opens the file, A leaves and removes it, B locks what it opened: C must not get in beside B."""
    path = tmp_path / "train.lock"
    opened, removed = open, []

    def open_slowly(*arguments, **options):
        file = opened(*arguments, **options)
        if not removed:
            removed.append(path.unlink())
        return file

    with mock.patch("builtins.open", open_slowly), lock_folder(tmp_path):
        assert removed and path.exists()
        with pytest.raises(DataError, match="another training"), lock_folder(tmp_path):
            pass


def test_a_file_system_without_locks_is_written_to(tmp_path):
    no_locks = mock.patch("minimrcnn.training.lock._lock", side_effect=OSError(errno.ENOLCK, "no locks available"))
    with no_locks, lock_folder(tmp_path):
        assert (tmp_path / "train.lock").exists()


def test_a_lock_where_no_file_is_the_one_it_was(tmp_path):
    """As on drives that Windows mounts over WebDAV, which number a file anew whenever it is opened."""
    with mock.patch("os.name", "nt"), mock.patch("os.path.samestat", side_effect=[False, False]):
        file = open_locked(tmp_path / "train.lock")
    file.close()


def test_a_log_may_lack_steps(tmp_path):
    """After a power cut it may be behind the checkpoint, or gone."""
    options = TrainOptions(**OPTIONS, checkpoint_seconds=0.0)
    with pytest.raises(Stop):
        train(stop_after(TinyModel(), 8), TinyData(), options, tmp_path, progress=False)
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))
    done = read_archive(tmp_path / "checkpoint.npz")[1]["step"]
    for stop in (10, 99):
        with contextlib.suppress(Stop):
            train(stop_after(TinyModel(), stop - done), TinyData(), options, tmp_path, resume=True, progress=False)
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2, 3, *range(done + 1, 13)]
    log.unlink()
    assert train(TinyModel(), TinyData(), options, tmp_path, resume=True, progress=False)["seconds"] == 0


def test_log_is_cut_to_the_checkpoint(tmp_path):
    options = TrainOptions(**OPTIONS, checkpoint_seconds=0.0)
    with pytest.raises(Stop):
        train(stop_after(TinyModel(), 7), TinyData(), options, tmp_path, progress=False)
    with open(tmp_path / "log.jsonl", "a") as log:  # steps after the last checkpoint, and one cut off in its line
        log.write('{"step": 7, "loss_a": 99.0, "seconds": 1.0}\n{"step": 8, "lo')
    train(TinyModel(), TinyData(), options, tmp_path, resume=True, progress=False)
    records = read_log(tmp_path)
    assert [record["step"] for record in records] == list(range(1, 13))
    assert all(record["loss_a"] < 99 for record in records)


def test_the_log_is_on_the_disk_before_the_checkpoint_that_counts_its_steps(tmp_path, monkeypatch):
    """What is only written is gone after a power cut."""
    order, log, sync, save = [], tmp_path / "log.jsonl", os.fsync, trainer.save_checkpoint

    def synced(number):
        if log.exists() and os.path.samestat(os.fstat(number), log.stat()):
            order.append(("log", len(read_log(tmp_path))))
        sync(number)

    def saved(path, model, optimizer, options, steps, **names):
        order.append(("checkpoint", steps))
        save(path, model, optimizer, options, steps, **names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(trainer, "save_checkpoint", saved)
    options = TrainOptions(**{**OPTIONS, "steps": 2, "checkpoint_seconds": 0.0})
    train(TinyModel(), TinyData(), options, tmp_path, progress=False)
    assert order == [("log", 1), ("checkpoint", 1), ("log", 2), ("checkpoint", 2), ("checkpoint", 2)]


def test_finished_run_resumes_to_itself(tmp_path):
    options = TrainOptions(**OPTIONS)
    train(TinyModel(), TinyData(), options, tmp_path, progress=False)
    assert read_archive(tmp_path / "checkpoint.npz")[0] == {}  # what it held is in the model, or needed no more
    before = (tmp_path / "model.npz").read_bytes()
    figures = train(TinyModel(), TinyData(), options, tmp_path, resume=True, progress=False)
    assert (tmp_path / "model.npz").read_bytes() == before and len(read_log(tmp_path)) == 12
    assert figures["seconds_compiling"] == 0


def test_resuming_says_from_where(tmp_path, capsys):
    options = TrainOptions(**OPTIONS)
    for said in ("there is none to go on from", "all 12 steps are done already"):
        train(TinyModel(), TinyData(), options, tmp_path, resume=True)
        assert said in capsys.readouterr().err


def test_without_resume_a_run_starts_over(tmp_path):
    train(TinyModel(), TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=False)
    train(TinyModel(), TinyData(), TrainOptions(**{**OPTIONS, "steps": 2}), tmp_path, progress=False)
    assert len(read_log(tmp_path)) == 2
    assert read_archive(tmp_path / "checkpoint.npz")[1]["step"] == 2


def test_a_run_that_starts_over_forgets_the_one_before(tmp_path):
    """Stopped before its first checkpoint, it must not be resumed with the other's."""
    train(TinyModel(), TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=False)
    for name in ("best.npz", "validation.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(Stop):
        train(stop_after(TinyModel(), 0), TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=False)
    assert sorted(os.listdir(tmp_path)) == ["log.jsonl", "losses.png", "model.npz"]
    assert read_log(tmp_path) == []


def test_checkpoints_are_so_many_seconds_apart(tmp_path, monkeypatch):
    """By a clock that goes on by a second a step."""
    clock = types.SimpleNamespace(monotonic=lambda: len(read_log(tmp_path)), perf_counter=time.perf_counter)
    monkeypatch.setattr(trainer, "time", clock)
    with mock.patch.object(trainer, "save_checkpoint", side_effect=trainer.save_checkpoint) as save:
        options = TrainOptions(**OPTIONS, checkpoint_seconds=4.5)
        train(TinyModel(), TinyData(), options, tmp_path, progress=False)
    assert [call.args[4] for call in save.call_args_list] == [5, 10, 12, 12]


def test_a_model_is_brought_into_training(tmp_path):
    """One that was loaded is ready to predict."""
    model = TinyModel()
    model.train = mock.Mock()
    train(model, TinyData(), TrainOptions(**{**OPTIONS, "steps": 1}), tmp_path, progress=False)
    model.train.assert_called_once_with()


def test_nan_loss_names_step_picture_and_loss_and_keeps_the_checkpoint(tmp_path):
    options = TrainOptions(**OPTIONS, checkpoint_seconds=0.0)
    model = TinyModel()
    data = TinyData(poisoned=[4])
    with pytest.raises(DataError) as caught:
        train(model, data, options, tmp_path, progress=False)
    step = len(read_log(tmp_path)) + 1
    assert f"step {step}: loss_a is nan and loss_b is nan for picture 4 (photo4.png)" in str(caught.value)
    if step > 1:
        arrays, header = read_archive(tmp_path / "checkpoint.npz")
        assert header["step"] == step - 1
        np.testing.assert_array_equal(arrays["model/weight"], model.weight.data)  # the update was not made
    assert np.isfinite(model.weight.data).all()
    assert not (tmp_path / "model.npz").exists()


def test_infinite_gradient_stops_before_the_update(tmp_path):
    model = TinyModel(explode=True)
    with (
        np.errstate(all="ignore"),
        pytest.raises(DataError, match=r"step 1: the gradient of (weight|bias) is not finite"),
    ):
        train(model, TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=False)
    np.testing.assert_array_equal(model.weight.data, np.full((1, 3), 0.5))
    assert read_log(tmp_path) == []


def test_the_gradient_that_is_not_finite_is_named():
    parameters = {name: Tensor(np.zeros(2, np.float32), requires_grad=True) for name in ("good", "bad", "worse")}
    for parameter, value in zip(parameters.values(), (1, np.inf, np.nan), strict=True):
        parameter.grad = np.full(2, value, np.float32)
    optimizer, batch = types.SimpleNamespace(parameters=parameters), types.SimpleNamespace(indices=[1])
    with pytest.raises(DataError, match=r"step 4: the gradient of bad is not finite .* for picture 1 \(photo1.png\)"):
        trainer.check_norm(np.inf, optimizer, TinyData(), batch, 3)


def test_pictures_are_named_where_the_data_set_knows_their_files():
    assert trainer.describe_pictures(TinyData(), [1]) == "picture 1 (photo1.png) of the data set"
    assert trainer.describe_pictures(TinyData(), [3, 0]) == "pictures 3 (photo3.png), 0 (photo0.png) of the data set"
    assert trainer.describe_pictures([], [3, 0]) == "pictures 3, 0 of the data set"


def test_other_options_or_architecture_do_not_resume(tmp_path):
    options = TrainOptions(**OPTIONS)
    train(TinyModel(), TinyData(), options, tmp_path, progress=False)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    with pytest.raises(DataError, match="other options .*steps 12 there, 13 here"):
        other = TrainOptions(**{**OPTIONS, "steps": 13})
        train(TinyModel(), TinyData(), other, tmp_path, resume=True, progress=False)
    with pytest.raises(DataError, match="other architecture .*size 3 there, 1 here"):
        train(TinyModel(size=1), TinyData(), options, tmp_path, resume=True, progress=False)
    with pytest.raises(DataError, match=r"other options \(seed 0 there, 1 here\)"):  # by which photos are held back
        train(TinyModel(), TinyData(6), TrainOptions(**OPTIONS, seed=1), tmp_path, resume=True, progress=False)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before and len(read_log(tmp_path)) == 12


def test_other_photos_do_not_resume_but_mended_annotations_do(tmp_path):
    class Mended(TinyData):
        def annotations(self):
            document = super().annotations()
            document["annotations"][0]["bbox"] = [1, 1, 2, 2]
            return document

    options = TrainOptions(**OPTIONS, checkpoint_seconds=0.0)
    with pytest.raises(Stop):
        train(stop_after(TinyModel(), 5), TinyData(), options, tmp_path, progress=False)
    with pytest.raises(DataError, match=r"training 0 of 7 are gone, 2 are new\).* --init .*checkpoint\.npz"):
        train(TinyModel(), TinyData(9), options, tmp_path, resume=True, progress=False)
    train(TinyModel(), Mended(), options, tmp_path, resume=True, progress=False)
    with pytest.raises(DataError, match=r"training 1 of 7 are gone, 0 are new\).* --init .*model\.npz"):
        train(TinyModel(), TinyData(6), options, tmp_path, resume=True, progress=False)


def test_ctrl_c_saves_and_resume_goes_on(tmp_path):
    handler = signal.getsignal(signal.SIGINT)  # a shell's background job is started with another than Python's own
    options = TrainOptions(**OPTIONS)
    train(TinyModel(), TinyData(), options, tmp_path / "straight", progress=False)

    model = TinyModel()
    losses, calls = model.losses, iter(range(100))

    def press(*arguments):
        if next(calls) == 6:  # in the sixth step; the first call is the rehearsal
            os.kill(os.getpid(), signal.SIGINT)
        return losses(*arguments)

    model.losses = press
    with pytest.raises(KeyboardInterrupt, match="after step 6 of 12"):
        train(model, TinyData(), options, tmp_path / "halted", progress=False)
    assert signal.getsignal(signal.SIGINT) is handler
    assert read_archive(tmp_path / "halted" / "checkpoint.npz")[1]["step"] == 6
    train(TinyModel(), TinyData(), options, tmp_path / "halted", resume=True, progress=False)
    assert (tmp_path / "halted" / "model.npz").read_bytes() == (tmp_path / "straight" / "model.npz").read_bytes()


def test_sigterm_waits_for_the_step_as_ctrl_c_does(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with trainer.deferred_interrupts() as interrupted:
        assert signal.getsignal(signal.SIGTERM) is not before
        signal.raise_signal(signal.SIGTERM)
        assert interrupted.is_set() and signal.getsignal(signal.SIGTERM) is before  # which acts at once
    assert "finishing this step" in capsys.readouterr().err


def test_ctrl_c_again_stops_at_once(tmp_path):
    model = TinyModel()
    losses, calls = model.losses, iter(range(100))

    def press(*arguments):
        if next(calls) == 3:  # in the third step
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        return losses(*arguments)

    model.losses = press
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    try:
        with pytest.raises(KeyboardInterrupt) as stop:
            train(model, TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=False)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert "is saved" not in str(stop.value) and len(read_log(tmp_path)) == 2


def test_ctrl_c_in_the_last_step_comes_too_late(tmp_path):
    model = TinyModel()
    losses, calls = model.losses, iter(range(100))
    model.losses = lambda *a: (signal.raise_signal(signal.SIGINT) if next(calls) == 2 else None, losses(*a))[1]
    try:
        train(model, TinyData(), TrainOptions(**{**OPTIONS, "steps": 2}), tmp_path, progress=False)
    except KeyboardInterrupt:
        pytest.fail("a run that is done was stopped")
    assert read_archive(tmp_path / "checkpoint.npz")[1]["step"] == 2 and (tmp_path / "model.npz").exists()


def test_a_damaged_picture_loses_no_step(tmp_path):
    class Damaged(TinyData):
        def __getitem__(self, index):
            if index == 4:
                raise DataError("photo4.png: the picture is damaged")
            return super().__getitem__(index)

    for seed in range(3):  # in an order in which it does not come first
        with pytest.raises(DataError, match="photo4.png"):
            train(TinyModel(), Damaged(), TrainOptions(**OPTIONS, seed=seed), tmp_path, progress=False)
        done = len(read_log(tmp_path))
        if done:
            assert read_archive(tmp_path / "checkpoint.npz")[1]["step"] == done
            return
    raise AssertionError("there was nothing to lose")


def test_trains_outside_the_main_thread(tmp_path):
    arguments = (TinyModel(), TinyData(), TrainOptions(**OPTIONS), tmp_path, False, False)
    thread = threading.Thread(target=train, args=arguments)
    thread.start()
    thread.join()
    assert (tmp_path / "model.npz").exists()


def test_killed_at_any_time_the_checkpoint_is_whole(tmp_path):
    command = [sys.executable, "-c", RUN, str(tmp_path), "100000"]
    for pause in (0.3, 0.05, 0.8):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        deadline = time.monotonic() + 120
        known = read_archive(tmp_path / "checkpoint.npz")[1]["step"] if (tmp_path / "checkpoint.npz").exists() else 0
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(pause)
            if (tmp_path / "checkpoint.npz").exists():
                step = read_archive(tmp_path / "checkpoint.npz")[1]["step"]
                if step > known:
                    break
        process.kill()
        process.wait()
        after = read_archive(tmp_path / "checkpoint.npz")[1]["step"]  # reads: it is whole
        assert after >= step > known
        lines = (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)
        assert len(lines) >= after  # the log is ahead of the checkpoint, never behind
        assert json.loads(lines[after - 1])["step"] == after


def test_progress_bar_shows_losses(tmp_path, capfd):
    train(TinyModel(), TinyData(), TrainOptions(**OPTIONS), tmp_path, progress=True)
    shown = capfd.readouterr().err
    assert "kernels are ready" in shown and "12/12" in shown and "loss " in shown and "a 0." in shown


@pytest.mark.parametrize("steps", [1, 12])
def test_what_the_bar_shows_begins_with_the_first_loss_and_moves_slowly(tmp_path, capfd, steps):
    train(TinyModel(), TinyData(), TrainOptions(**{**OPTIONS, "steps": steps}), tmp_path, progress=True)
    first, *others = [record["loss_a"] for record in read_log(tmp_path)]
    for value in others:
        first += 0.05 * (value - first)
    assert f"a {first:.3f}" in capfd.readouterr().err.splitlines()[-1]
