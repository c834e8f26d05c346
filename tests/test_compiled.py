"""What is kept on disk of a kernel is forgotten when a file that it takes something from has changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

import minimrcnn

# The body is in patches.py, what it does last in epilogue.py.
ASK = """
import numpy as np
from minimrcnn.kernels.patches import scatter_patches
lines = np.zeros((1, 1, 1), np.float32)
ones = np.ones((1, 1, 1), np.float32)
scatter_patches(ones, 0, (1, 1), 1, 0, (1, 1), 1, 0, ones[0, 0], False, lines)
print(lines.item(), sum(scatter_patches.cpu.stats.cache_misses.values()))
"""


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_an_edit_in_another_file_is_noticed(tmp_path):
    package = tmp_path / "minimrcnn"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(minimrcnn.__file__).parent, package, ignore=ignored)

    def ask() -> str:
        """The result, and how many times something was compiled for it."""
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
        command = [sys.executable, "-c", ASK]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert ask() == "2.0 1"
    assert ask() == "2.0 0"
    epilogue = package / "kernels" / "epilogue.py"
    source = epilogue.read_text(encoding="utf-8")
    assert source.count("value += bias[channel]") == 1
    epilogue.write_text(source.replace("value += bias[channel]", "value -= bias[channel]"), encoding="utf-8")
    assert ask() == "0.0 1"


# As where neither the package's folder nor the user's may be written.
NOWHERE = """
from numba.core import caching
caching.CacheImpl._locator_classes[:] = [caching.UserProvidedCacheLocator]
import os
from minimrcnn.geometry import run_lengths
place = os.environ["NUMBA_CACHE_DIR"]
run_lengths.iou([[0, 4]], [[0, 4]], [False])
print(place, len(os.listdir(place)))
"""


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_where_nothing_may_be_kept(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    command = [sys.executable, "-c", NOWHERE]
    done = subprocess.run(command, env=environment | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0 and "set NUMBA_CACHE_DIR" in done.stderr, done.stderr
    place, count = done.stdout.split()
    assert Path(place).parent == tmp_path and int(count) and not Path(place).exists()
