"""Kernels compiled ahead of the first step: all that the network uses, with its types, by processes that share them."""

import subprocess
import sys

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


def test_every_part_is_done_once_by_several_processes(monkeypatch, capsys):
    answered = []
    monkeypatch.setattr(module, "compiles", lambda part: True)
    monkeypatch.setattr(module.numba, "get_num_threads", lambda: 2)

    class Bar:
        def __init__(self, total, **options):
            self.total = total

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def update(self):
            answered.append(1)

    monkeypatch.setattr(module, "tqdm", Bar)
    module.compile_ahead([module.suppression, module.rectifying, module.resizing, module.rectifying], progress=True)
    assert len(answered) == 3
    assert "compiling kernels" in capsys.readouterr().err


def test_later_starts_start_no_process(monkeypatch):
    monkeypatch.setattr(module, "compiles", lambda part: False)
    monkeypatch.setattr(module.subprocess, "Popen", None)
    module.compile_ahead(module.TRAINING)


def test_a_process_that_cannot_start_costs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(module, "compiles", lambda part: True)
    monkeypatch.setattr(module.numba, "get_num_threads", lambda: 2)
    monkeypatch.setattr(module.sys, "executable", "/nowhere/python")
    module.compile_ahead(module.TRAINING)


def test_kernels_on_disk_are_not_compiled_again():
    module.rectifying()
    assert not module.compiles(module.rectifying)
