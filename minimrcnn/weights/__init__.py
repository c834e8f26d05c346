"""Files of weights that others wrote: torch's .pth, .safetensors and .npz, read as named arrays and never run."""

from minimrcnn.weights.files import load, save

__all__ = ["load", "save"]
