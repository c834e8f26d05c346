"""Rows of JSON files, as data sets and results keep them: reading them, and asking a row for a value of a kind."""

from __future__ import annotations

import json
import os
import reprlib
from pathlib import Path

from minimrcnn.errors import DataError

MOST_BYTES = 2**30  # of a JSON file; COCO's own annotations of 118,000 photos take half of it


def read_json(path: str | os.PathLike):
    """What a JSON file holds; `DataError` if it is missing, not JSON, or too large to be one of annotations."""
    try:
        if os.stat(path).st_size > MOST_BYTES:
            raise DataError(f"{path}: has more than {MOST_BYTES} bytes; split the annotations into several files")
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))  # some tools begin with a mark of the encoding
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}; was it cut short?"
        ) from None
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not JSON in UTF-8 ({error}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON that can be read ({error})") from None


def learned_from(annotations: list[dict]) -> list[dict]:
    """The annotations that a training learns from: no crowd regions, and no boxes without area."""
    return [row for row in annotations if not row.get("iscrowd") and min(row["bbox"][2:]) > 0]


def wanted_number(row: dict, key: str) -> float:
    """``row[key]`` once it is sure that it is a finite number; NaN and what float64 cannot hold fail."""
    value = row.get(key, "missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e300:
        raise DataError(f"{key} is {reprlib.repr(value)}, wanted a finite number")
    return value


def wanted_integer(row: dict, key: str, default: int | None = None) -> int:
    """``row[key]`` once it is sure that it is an integer; ``default``, if there is one, is put where it is missing."""
    if default is not None:
        row.setdefault(key, default)
    value = row.get(key, "missing")
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{key} is {reprlib.repr(value)}, wanted an integer")
    return value


def wanted_box(row: dict) -> list[float]:
    """``row["bbox"]`` once it is sure that it holds four finite numbers."""
    box = row.get("bbox", "missing")
    if not isinstance(box, list) or len(box) != 4:
        raise DataError(f"bbox is {reprlib.repr(box)}, wanted a list of four numbers x, y, width, height")
    for name, value in zip(("x", "y", "width", "height"), box, strict=True):
        wanted_number({f"bbox {name}": value}, f"bbox {name}")
    return box
