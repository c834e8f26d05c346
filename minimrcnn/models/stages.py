"""`trace`: look at what every stage of the network hands to the next."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar

from minimrcnn.tensor import Tensor

_stages: ContextVar[dict | None] = ContextVar("stages", default=None)


@contextmanager
def trace():
    """Collect the arrays of every stage by name while this thread runs the model; costs nothing when it is not used.

    Yields
    ------
    dict
        ``c2`` .. ``c5``, ``p2`` .. ``p6`` (N, H, W, C), ``rpn_logits_p2`` .., ``rpn_deltas_p2`` .. (without a pyramid
        ``rpn_logits_c4`` ..), ``proposals`` [(R, 4)], ``box_crops``, ``class_logits``, ``box_deltas``, ``mask_crops``,
        ``mask_logits`` (all K classes),
        ``detections``. A second run of the model inside overwrites the first.

    Examples
    --------
    >>> with trace() as stages:
    ...     model.predict([picture])
    >>> stages["p2"].shape
    """
    before = _stages.set({})
    try:
        yield _stages.get()
    finally:
        _stages.reset(before)


def record(**arrays) -> None:
    """Leave arrays for whoever traces; Tensors are handed over as host arrays."""
    stages = _stages.get()
    if stages is not None:
        stages.update({name: value.numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()})
