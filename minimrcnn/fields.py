"""Rules for the fields of a frozen record: what each must be, in words and as a test, so that all are checked alike.

A rule is (names of fields, what is wanted of each, a test). `Config` and `TrainOptions` have a table of them each.
"""

from __future__ import annotations

import math
import sys
from reprlib import repr as shown  # of a value that may be very long


def whole(least: float = -math.inf, most: float = math.inf):
    """A test for a whole number in this range; True and False are none."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def number(least: float, most: float = sys.float_info.max):
    """A test for a number in this range: finite, unless ``most`` is infinite."""
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def is_share(value) -> bool:
    """Whether a value is a number from 0 to 1."""
    return number(0, 1)(value)


def is_positive(value) -> bool:
    """Whether a value is a finite number above 0."""
    return number(0)(value) and value > 0


def either(*others, test=lambda value: False):
    """A test for one of these values, or for what another test is fine with."""
    return lambda value: value in others or test(value)


def every(test, length: int | None = None):
    """A test for a tuple, of this length if one is given, of values that are fine with another test."""
    return lambda value: isinstance(value, tuple) and length in (None, len(value)) and all(map(test, value))


def plain(value):
    """Tuples of the lists that JSON brings, and Python's numbers of NumPy's, which JSON does not know."""
    value = to_python(value)
    return tuple(map(to_python, value)) if isinstance(value, (list, tuple)) else value


def to_python(value):
    return value.tolist() if hasattr(value, "tolist") else value


def check_fields(record, rules) -> None:
    """Make the fields of a frozen record `plain`, and raise `ValueError` for the first that breaks a rule.

    Parameters
    ----------
    record : dataclass
    rules : iterable of (str, str, callable)
        Names of fields, what is wanted of each in words, and a test that says whether a value is that.
    """
    for name, value in list(vars(record).items()):
        object.__setattr__(record, name, plain(value))
    for names, wanted, test in rules:
        for name in names.split():
            value = getattr(record, name)
            if not test(value):
                raise ValueError(f"{type(record).__name__}: {name} is {shown(value)}, wanted {wanted}")
