"""Which object each anchor or proposal should learn, and which of them are asked at all."""

from __future__ import annotations

import numpy as np


def match(iou, low: float, high: float, allow_low_quality: bool) -> np.ndarray:
    """Give every anchor its best object, if that is good enough (Ren et al. 2015, section 3.1.2).

    1. The best object of an anchor is its match if their IoU is at least `high`.
    2. Below `low` the anchor is background, -1; between the two it is left alone, -2.
    3. With `allow_low_quality`, every anchor that overlaps an object as much as the object's best one does gets its own
       best object back, however small the IoU, so that an object rarely remains without an anchor. (Its own best, as in
       torchvision's code, which need not be the object that it is the best for.)

    Parameters
    ----------
    iou : array (G, A)
    low, high : float
    allow_low_quality : bool

    Returns
    -------
    ndarray (A,) int64
        The object's row in `iou`, -1 for background, -2 for neither.

    Raises
    ------
    ValueError
        If `iou` is not two-dimensional or `low` is above `high`.

    Examples
    --------
    >>> match([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]], 0.3, 0.7, True).tolist()
    [-2, 1, -1, 0]
    """
    iou = np.asarray(iou)
    if iou.ndim != 2:
        raise ValueError(f"match: iou has shape {iou.shape}, wanted (objects, anchors)")
    if low > high:
        raise ValueError(f"match: low is {low} and high is {high}, wanted low <= high")
    if iou.size == 0:  # no objects: all is background
        return np.full(iou.shape[1], -1, np.int64)
    best = iou.argmax(axis=0)  # (A,)
    quality = iou.max(axis=0)  # (A,)
    matches = np.where(quality >= high, best, np.where(quality >= low, -2, -1))  # NaN is background
    if allow_low_quality:
        is_best_of_some = (iou == iou.max(axis=1, keepdims=True)).any(axis=0)  # (A,)
        matches = np.where(is_best_of_some, best, matches)
    return matches.astype(np.int64)


def sample_balanced(
    labels, count: int, positive_fraction: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what to train on: as many positives as the fraction allows, negatives for the rest.

    Parameters
    ----------
    labels : integer array (A,)
        1 positive (any number above 0), 0 negative, below 0 never drawn.
    count : int
        How many to draw; fewer if there are not enough.
    positive_fraction : float
        The largest share of positives; missing ones are made up for by negatives.
    generator : numpy.random.Generator

    Returns
    -------
    positive, negative : ndarray int64
        Indices into `labels`, ascending.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(f"sample_balanced: labels has shape {labels.shape}, wanted (A,)")
    positive, negative = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
    positives = min(int(count * positive_fraction), len(positive))
    negatives = min(count - positives, len(negative))
    return (
        np.sort(generator.choice(positive, positives, replace=False)),
        np.sort(generator.choice(negative, negatives, replace=False)),
    )
