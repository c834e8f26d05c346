"""Kernels compiled ahead of the first step: all that the network uses, with its types, by processes that share them."""

import subprocess
import sys
import time
import types

import pytest

from minimrcnn.training import compile_ahead as module

CHECK = """
import importlib, pkgutil, sys
import numpy as np
import minimrcnn.kernels
from minimrcnn.training import compile_ahead
from minimrcnn.data.shapes import Shapes
from minimrcnn.models.mask_rcnn import MaskRCNN
from minimrcnn.models.presets import small_config
from minimrcnn.training.optimizer import AdamW, clip_gradients

modules = [importlib.import_module("minimrcnn.kernels." + each.name)
           for each in pkgutil.iter_modules(minimrcnn.kernels.__path__)]

def compiled():
    return {(each.__module__, each.__name__, str(signature)) for module in modules for each in vars(module).values()
            if hasattr(each, "signatures") for signature in each.signatures}

for part in getattr(compile_ahead, sys.argv[1]):
    part()
before = compiled()
data = Shapes(2, seed=0)
pictures, targets = zip(*(data[i][:2] for i in range(2)))
model = MaskRCNN(small_config(data.class_names, rois=16), seed=0)
if sys.argv[1] == "TRAINING":
    losses = model.losses(pictures, targets)
    sum(losses.values(), start=losses.pop("loss_mask")).backward()
    clip_gradients(model.parameters(), 1.0)
    AdamW(model.named_parameters()).step(1e-4)
else:
    model.eval().predict(pictures, score_thresh=0.0)
print(sorted(compiled() - before))
"""


@pytest.mark.parametrize("parts", ["TRAINING", "PREDICTING"])
def test_parts_cover_the_network(parts):
    answer = subprocess.run([sys.executable, "-c", CHECK, parts], capture_output=True, text=True, timeout=600)
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr


def first_start(monkeypatch, threads=2):
    monkeypatch.setattr(module, "is_first_start", lambda last: True)
    monkeypatch.setattr(module.numba, "get_num_threads", lambda: threads)


def test_every_part_is_done_by_one_of_several_processes():
    done = []
    module.share_out(["suppression", "rectifying", "resizing"], 2, lambda: done.append(1))
    assert len(done) == 3


def test_the_last_part_is_done_last_and_here(monkeypatch, capsys):
    first_start(monkeypatch)
    calls = []
    monkeypatch.setattr(module, "share_out", lambda names, processes, done: calls.append((names, processes)))
    module.compile_ahead([module.resizing, module.rois, lambda: calls.append("last")], progress=True)
    assert calls == [(["resizing", "rois"], 2), "last"]
    assert "compiling kernels" in capsys.readouterr().err


def test_one_thread_compiles_alone_but_says_so(monkeypatch, capsys):
    first_start(monkeypatch, threads=1)
    monkeypatch.setattr(module.subprocess, "Popen", None)
    module.compile_ahead(module.TRAINING, progress=True)
    assert "compiling kernels" in capsys.readouterr().err


@pytest.mark.parametrize("last", [module.pasting, module.rectifying])
def test_a_start_is_the_first_until_the_last_kernel_is_on_disk(last, monkeypatch, tmp_path):
    last()
    assert not module.is_first_start(last)
    kernel = module.LAST[last].cpu
    elsewhere = types.SimpleNamespace(cache_path=str(tmp_path), cache_misses={})
    monkeypatch.setattr(type(kernel), "stats", property(lambda self: elsewhere))
    assert module.is_first_start(last)


def test_later_starts_start_no_process(monkeypatch):
    monkeypatch.setattr(module, "is_first_start", lambda last: False)
    monkeypatch.setattr(module.subprocess, "Popen", None)
    module.compile_ahead(module.TRAINING)


def test_a_process_that_cannot_start_costs_nothing(monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/nowhere/python")
    module.share_out(["rois"], 2, lambda: pytest.fail("nothing was done"))


def test_a_process_that_fails_costs_nothing():
    module.share_out(["no such part"], 2, lambda: pytest.fail("nothing was done"))


def test_an_interrupt_ends_the_processes(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        module.share_out(["suppression"] + ["no such part"] * 3, 1, interrupt)
    assert time.monotonic() - started < 60
