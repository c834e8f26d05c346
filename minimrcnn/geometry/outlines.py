"""Masks as polygons: what annotation tools show and people correct by hand.

1. Follow the cracks between the pixels of the mask and the others, the mask on the right: a ring around every part,
   clockwise, and one around every hole, the other way. Parts that touch at a corner only are two.
2. Leave out corners as long as the ring moves by less than a tolerance (Douglas and Peucker 1973).
3. A polygon has no holes. So a ring around a hole is joined to the ring around its part by a slit, there and back.
4. Draw the polygons and compare. Where they cover the mask too badly, begin again with half the tolerance.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from scipy.ndimage import label as label_parts

from minimrcnn.geometry.run_lengths import encode, iou, polygons_to_counts

TOLERANCE = 0.02  # at first, in sides of a square of the mask's area; at least a pixel, which smooths the stairs
LEAST_TOLERANCE = 0.2  # pixels; below it all corners are kept
STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # x, y: right, down, left, up


def mask_to_polygons(mask: np.ndarray, least_iou: float = 0.95) -> list[list[float]]:
    """The outline of every part of a mask, with few corners.

    Parameters
    ----------
    mask : ndarray (H, W)
        Everything but 0 belongs to it.
    least_iou : float
        How well the polygons, drawn again by COCO's rule, have to cover the mask; with 1 they do so exactly.

    Returns
    -------
    list of lists ``x1, y1, x2, y2, ...``
        One for each part, in pixels, the first pixel from 0 to 1; none of an empty mask. Holes are cut out by slits.
    """
    mask = np.asarray(mask) != 0
    if mask.ndim != 2:
        raise ValueError(f"mask_to_polygons: mask has shape {mask.shape}, wanted (H, W)")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]  # the mask's box, (h, w): a photo is large
    counts, rings = encode(part), trace_rings(part)
    tolerance = max(TOLERANCE * np.sqrt(np.count_nonzero(part)), 1.0)
    while True:
        if tolerance < LEAST_TOLERANCE or least_iou >= 1:
            tolerance = 0.0
        polygons = [join_rings([simplify(ring, tolerance) for ring in rings_of_part]) for rings_of_part in rings]
        flat = [polygon.ravel().tolist() for polygon in polygons]
        if tolerance == 0 or iou([polygons_to_counts(flat, part.shape)], [counts], [False])[0, 0] >= least_iou:
            return [(polygon + (left, top)).astype(np.float64).ravel().tolist() for polygon in polygons]
        tolerance /= 2


def trace_rings(mask: np.ndarray) -> list[list[np.ndarray]]:
    """The rings (P, 2) int64 of corners x, y around each part of a mask (H, W) bool: the outer one, then its holes'."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    leaving = np.zeros((height + 1, width + 1), np.uint8)  # by corner: a bit for each direction that a crack leaves in
    leaving[:-1, :-1] |= (mask & ~padded[:-2, 1:-1]).astype(np.uint8)  # along the top of a pixel, to the right
    leaving[:-1, 1:] |= (mask & ~padded[1:-1, 2:]).astype(np.uint8) << 1  # along its right side, down
    leaving[1:, 1:] |= (mask & ~padded[2:, 1:-1]).astype(np.uint8) << 2  # along its bottom, to the left
    leaving[1:, :-1] |= (mask & ~padded[1:-1, :-2]).astype(np.uint8) << 3  # along its left side, up

    parts, count = label_parts(mask)  # (H, W): 1 to count, neighbors at a side belong together
    rings: list[list[np.ndarray]] = [[] for _ in range(count)]
    corners = np.empty((4 * np.count_nonzero(leaving), 2), np.int64)
    for y, x in np.argwhere(leaving & 1):  # row by row: the ring around a part begins above those around its holes
        if leaving[y, x] & 1:  # not followed yet
            number = _follow(leaving, x, y, STEPS, corners)
            rings[parts[y, x] - 1].append(corners[:number].copy())
    return rings


@njit(cache=True, nogil=True)
def _follow(leaving, x, y, steps, corners):
    """Follow the cracks from a corner where one leaves to the right; clear their bits, return the number of corners."""
    corners[0, 0], corners[0, 1] = start_x, start_y = x, y
    number, direction = 1, 0
    while True:
        leaving[y, x] &= ~np.uint8(1 << direction)
        x, y = x + steps[direction, 0], y + steps[direction, 1]
        if x == start_x and y == start_y and not leaving[y, x] & 1 << (direction + 1) % 4:
            return number
        for turn in (1, 0, 3):  # right first: where two pixels touch at a corner, it stays with its own
            ahead = (direction + turn) % 4
            if leaving[y, x] & 1 << ahead:
                break
        if ahead != direction:
            corners[number, 0], corners[number, 1] = x, y
            number += 1
        direction = ahead


def simplify(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """The ring (P, 2) without the corners that lie within a tolerance of the line without them; all, if that is less
    than a triangle."""
    if tolerance <= 0:
        return ring
    far = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]]).astype(np.float64)
    kept = np.zeros(len(closed), bool)
    kept[[0, far, -1]] = True
    pending = [(0, far), (far, len(ring))]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        along = closed[last] - closed[first]
        between = closed[first + 1 : last] - closed[first]  # (P, 2)
        length = np.hypot(*along)
        if length:
            away = abs(between[:, 0] * along[1] - between[:, 1] * along[0]) / length
        else:
            away = np.hypot(*between.T)
        furthest = int(away.argmax())
        if away[furthest] > tolerance:
            middle = first + 1 + furthest
            kept[middle] = True
            pending += [(first, middle), (middle, last)]
    return ring[kept[:-1]] if np.count_nonzero(kept[:-1]) > 2 else ring


def join_rings(rings: list[np.ndarray]) -> np.ndarray:
    """One ring (P, 2) of an outer one and its holes: each hole is joined where it comes nearest, there and back.

    The nearest hole is the next, so that slits cross nothing, and only its corners are new to those that wait (Prim
    1957).
    """
    corners = np.concatenate(rings)  # (P, 2)
    ends = np.cumsum([len(ring) for ring in rings])
    starts = ends - [len(ring) for ring in rings]
    squares = np.full(len(corners), np.iinfo(np.int64).max)  # (P,) distance to what is joined; -1: it is
    nearest = np.zeros(len(corners), np.int64)  # (P,) the corner that is so near
    order = list(range(len(corners)))  # places of corners, those at both ends of a slit once more
    following = [*range(1, len(corners)), 0]  # the next place in order, around every ring
    for start, end in zip(starts, ends, strict=True):
        following[end - 1] = start
    ring = 0
    for _ in rings[1:]:
        squares[starts[ring] : ends[ring]] = -1
        here = _approach(corners, starts[ring], ends[ring], squares, nearest)
        there = nearest[here]
        ring = np.searchsorted(ends, here, side="right")
        following[here - 1 if here > starts[ring] else ends[ring] - 1] = len(order)  # around the hole, here again,
        following += [len(order) + 1, following[there]]  # there again, and on
        following[there] = here
        order += [here, there]
    places = [0]
    while following[places[-1]]:
        places.append(following[places[-1]])
    return corners[np.array(order)[places]]


@njit(cache=True, nogil=True)
def _approach(corners, start, end, squares, nearest):
    """Compare the corners that wait with those just joined, from start to end; return the one that is nearest now."""
    left, right = corners[start:end, 0].min(), corners[start:end, 0].max()
    top, bottom = corners[start:end, 1].min(), corners[start:end, 1].max()
    best = -1
    for corner in range(len(corners)):
        if squares[corner] < 0:
            continue
        x, y = corners[corner]
        across, down = max(left - x, x - right, 0), max(top - y, y - bottom, 0)
        if across * across + down * down < squares[corner]:  # else all of them are further away
            for joined in range(start, end):
                square = (x - corners[joined, 0]) ** 2 + (y - corners[joined, 1]) ** 2
                if square < squares[corner]:
                    squares[corner], nearest[corner] = square, joined
        if best < 0 or squares[corner] < squares[best]:
            best = corner
    return best
