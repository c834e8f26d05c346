"""The progress bar: in a terminal tqdm's, in a notebook its widget, or the terminal's where there are no widgets."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():  # a notebook without ipywidgets gets the terminal's bar, and need not be told so
    warnings.simplefilter("ignore", category=TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
