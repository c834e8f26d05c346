"""Checkpoints: all of a run in one file; what does not fit is refused in words, and changes nothing."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest

from minimrcnn.archive import read_archive, write_archive
from minimrcnn.errors import DataError
from minimrcnn.spelling import quote_arguments
from minimrcnn.training.checkpoint import initialize, list_differences, read_checkpoint, restore, save_checkpoint
from minimrcnn.training.options import TrainOptions
from tests.tiny_model import TinyModel

OPTIONS = TrainOptions(steps=5)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint after step 3, of a model that has drawn numbers and an optimizer that has moved."""
    model = TinyModel(seed=1)
    optimizer = OPTIONS.make_optimizer(model.named_parameters())
    for parameter in model.named_parameters().values():
        parameter.grad = np.full(parameter.data.shape, 0.25, np.float32)
    optimizer.step(0.1)
    model.generator.standard_normal(17)
    model.seen[:] = 42
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, model, optimizer, OPTIONS, 3)
    return path, model, optimizer


def fresh():
    model = TinyModel(seed=8)
    return model, OPTIONS.make_optimizer(model.named_parameters())


def assert_untouched(model, optimizer):
    other, other_optimizer = fresh()
    for mine, expected in ((model.arrays(), other.arrays()), (optimizer.arrays(), other_optimizer.arrays())):
        for name, array in expected.items():
            np.testing.assert_array_equal(mine[name], array)
    assert model.generator.bit_generator.state == other.generator.bit_generator.state


def rewrite(path, change):
    arrays, header = read_archive(path)
    change(arrays, header)
    write_archive(path, arrays, header)


def test_everything_comes_back(saved):
    path, model, optimizer = saved
    other, other_optimizer = fresh()
    assert restore(path, other, other_optimizer, OPTIONS) == 3
    for mine, expected in ((other.arrays(), model.arrays()), (other_optimizer.arrays(), optimizer.arrays())):
        for name, array in expected.items():
            np.testing.assert_array_equal(mine[name], array)
    assert other_optimizer.steps == 1
    np.testing.assert_array_equal(other.generator.standard_normal(5), model.generator.standard_normal(5))


def test_checkpoint_holds_configuration_and_options(saved):
    checkpoint = read_checkpoint(saved[0])
    assert checkpoint.config == {"size": 3, "names": ["background", "thing"]}
    assert TrainOptions(**checkpoint.options) == OPTIONS
    assert TinyModel(checkpoint.config["size"]).config.size == 3


def test_truncated(saved):
    path = saved[0]
    path.write_bytes(path.read_bytes()[:-100])
    model, optimizer = fresh()
    with pytest.raises(DataError, match="checkpoint.npz: the file is truncated or damaged"):
        restore(path, model, optimizer, OPTIONS)
    assert_untouched(model, optimizer)


def test_pickle_in_disguise(saved):
    path = saved[0]
    path.write_bytes(pickle.dumps({"model": 1}))
    with pytest.raises(DataError, match=r"checkpoint.npz.*pickle"):
        restore(path, *fresh(), OPTIONS)


def test_model_is_not_a_checkpoint(saved, tmp_path):
    saved[1].save(tmp_path / "model.npz")
    with pytest.raises(DataError, match=r"model.npz: this is not a checkpoint .*--init"):
        restore(tmp_path / "model.npz", *fresh(), OPTIONS)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda arrays, header: header["config"].update(size=4), "other architecture (size 4 there, 3 here)"),
        (lambda arrays, header: header["options"].update(seed=7), "other options (seed 7 there, 0 here)"),
        (lambda arrays, header: header["options"].pop("steps"), "(steps not known there yet, so 1000; 5 here)"),
        (lambda arrays, header: header["config"].update(color=1), "(color 1 there, which this version of minimrcnn"),
        (lambda arrays, header: arrays.pop("model/bias"), "wanted ['bias', 'seen', 'weight']"),
        (lambda arrays, header: arrays.update({"optimizer/mean/bias": np.zeros(7)}), "mean/bias has shape (7,)"),
        (lambda arrays, header: arrays.update({"stray": np.zeros(7)}), "'stray'"),
        (lambda arrays, header: header.pop("generator"), "'generator'"),
        (lambda arrays, header: header.update(generator={"bit_generator": "PCG64"}), "does not fit"),
        (lambda arrays, header: header.update(generator={}), "does not fit"),
        (lambda arrays, header: header.update(step="3"), "step is '3', wanted a int"),
        (lambda arrays, header: header.update(step=-3), "step is -3"),
        (lambda arrays, header: header.update(options=None), "options is None"),
    ],
)
def test_what_does_not_fit_is_named(saved, change, words):
    path = saved[0]
    rewrite(path, change)
    with pytest.raises(DataError) as caught:
        restore(path, *fresh(), OPTIONS)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_pause_between_checkpoints_may_change(saved):
    restore(saved[0], *fresh(), TrainOptions(steps=5, checkpoint_seconds=1.0))


def test_what_an_older_version_did_not_know_has_its_default(saved):
    def forget(arrays, header):
        del header["options"]["rotate"], header["options"]["milestones"], header["config"]["names"], header["finished"]

    rewrite(saved[0], forget)
    assert restore(saved[0], *fresh(), OPTIONS) == 3
    with pytest.raises(DataError, match=r"\(rotate not known there yet, so False; True here\)"):
        restore(saved[0], *fresh(), TrainOptions(steps=5, rotate=True))
    assert list_differences({}, {"a": 1, "b": 2}, {"b": 2}) == ["a missing there, 1 here"]
    free = ("checkpoint_seconds", "norm_eps", "roi_deterministic")  # with others it is the same run
    assert list_differences(dict.fromkeys((*free, "a"), 1), dict.fromkeys((*free, "a"), 2)) == ["a 1 there, 2 here"]


def test_the_command_that_began_a_run_is_kept(saved):
    path, model, optimizer = saved
    assert not read_checkpoint(path).arguments
    for finished in (False, True):
        save_checkpoint(path, model, optimizer, OPTIONS, 3, finished, arguments=["train", "--steps", "5"])
        assert read_checkpoint(path).arguments == ["train", "--steps", "5"]
    for other in (None, "train", [5]):
        rewrite(path, lambda arrays, header, other=other: header.update(arguments=other))
        assert read_checkpoint(path).arguments == ()


def test_the_photos_of_an_older_checkpoint_are_not_known(saved):
    rewrite(saved[0], lambda arrays, header: header.pop("photos"))
    assert restore(saved[0], *fresh(), OPTIONS, {"training": ["a.jpg"]}) == 3
    for no_names in (7, {"training": 7}, {"training": [7]}):
        rewrite(saved[0], lambda arrays, header, photos=no_names: header.update(photos=photos))
        assert restore(saved[0], *fresh(), OPTIONS, {"training": ["a.jpg"]}) == 3


def test_a_finished_run_is_a_note_and_the_model_beside_it(saved):
    path, model, optimizer = saved
    before = path.stat().st_size
    model.save(path.with_name("model.npz"))
    save_checkpoint(path, model, optimizer, OPTIONS, 5, finished=True)
    assert path.stat().st_size < before
    other, other_optimizer = fresh()
    assert restore(path, other, other_optimizer, OPTIONS) == 5
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(other.arrays()[name], array)
    np.testing.assert_array_equal(other.generator.standard_normal(5), model.generator.standard_normal(5))
    with pytest.raises(DataError, match=r"steps 5 there, 9 here\); that run is finished; .*--init .*model\.npz"):
        restore(path, *fresh(), TrainOptions(steps=9))
    spaced = path.parent / "my run"
    spaced.mkdir()
    shutil.copy(path, spaced / path.name)
    with pytest.raises(DataError, match=re.escape(quote_arguments(["--init", str(spaced / "model.npz")]))):
        restore(spaced / path.name, *fresh(), TrainOptions(steps=9))
    path.with_name("model.npz").unlink()
    with pytest.raises(DataError, match=r"model.npz: there is no such file"):
        restore(path, *fresh(), OPTIONS)


def test_lists_and_tuples_are_the_same():
    assert list_differences(json.loads(json.dumps({"a": (1, 2), "b": None})), {"a": (1, 2), "b": None}) == []


def test_initialize_takes_what_fits(saved, tmp_path):
    saved[1].save(tmp_path / "model.npz")
    model = TinyModel(seed=8)
    assert initialize(model, tmp_path / "model.npz") == []
    np.testing.assert_array_equal(model.weight.data, saved[1].weight.data)
    smaller = TinyModel(size=1)
    assert initialize(smaller, tmp_path / "model.npz") == ["weight", "bias"]
    assert smaller.seen[0] == 42 and smaller.weight.data[0, 0] == 0.5
    write_archive(tmp_path / "other.npz", {"x": np.zeros(3)}, {})
    with pytest.raises(DataError, match="other.npz: none of its 1 arrays fits"):
        initialize(model, tmp_path / "other.npz")
