"""`trace`: look at what every stage of the network hands to the next."""

from __future__ import annotations

from contextlib import contextmanager

from minimrcnn.tensor import Tensor

_stages: dict | None = None


@contextmanager
def trace():
    """Collect the arrays of every stage by name while the model runs; costs nothing when it is not used.

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
    global _stages
    before, _stages = _stages, {}
    try:
        yield _stages
    finally:
        _stages = before


def record(**arrays) -> None:
    """Leave arrays for whoever traces; Tensors are handed over as host arrays."""
    if _stages is not None:
        _stages.update({name: value.numpy() if isinstance(value, Tensor) else value for name, value in arrays.items()})
