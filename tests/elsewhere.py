"""Tests that need another start of Python: without a compiler, or compiled for another processor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_elsewhere(arguments: list[str], cache: Path, **variables: str) -> subprocess.CompletedProcess:
    """Python with these arguments, from the folder above the tests, and with kernels of its own in ``cache``."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **variables}
    folder = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=600
    )
