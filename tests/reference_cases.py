"""The values torch and torchvision gave for random inputs; tests/reference/README.md tells how they were made."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "reference"


@cache
def _arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def cases(op: str, file: str = "ops") -> list[tuple[dict, dict[str, np.ndarray]]]:
    """The stored cases of one operation: (parameters, arrays by name without the type suffix)."""
    listed = json.loads((FOLDER / f"{file}.json").read_text())["cases"]
    arrays = _arrays(f"{file}.npz")
    found = [
        (
            case["params"],
            {re.sub(r"_(int64|uint8)$", "", name): arrays[f"{op}/{case['case']}/{name}"] for name in case["arrays"]},
        )
        for case in listed
        if case["op"] == op
    ]
    assert found, f"no stored case of {op}"
    return found


def relative_error(got, wanted) -> float:
    """max |difference| / max |wanted|, with shapes that must agree; NaN fails every bound it is compared with."""
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, f"shape {got.shape}, wanted {wanted.shape}"
    if wanted.size == 0:
        return 0.0
    return float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-30))
