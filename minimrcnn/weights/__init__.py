"""Files of weights that others wrote, read as named arrays and never run, and their names and layouts in our terms."""

from minimrcnn.weights.files import load, load_with_config, save
from minimrcnn.weights.names import to_native, to_public
from minimrcnn.weights.recognize import is_ours, load_state, recognize, state_of

__all__ = [
    "is_ours",
    "load",
    "load_state",
    "load_with_config",
    "recognize",
    "save",
    "state_of",
    "to_native",
    "to_public",
]
