"""Masks as COCO writes them: the lengths of alternating runs of 0 and 1, walking down the columns from left to right.

The first run is of zeros and may be empty, so ``[0, 2, 4]`` fills the first two pixels of a 3 x 2 mask's first column.
A mask of H x W pixels is the run lengths plus its size, which travels beside them: ``{"size": [H, W], "counts": ...}``.
COCO's files hold the counts as a list, or squeezed into text (see `from_string`), or polygons instead of a mask.

Everything here works on the lengths, never on the pixels, except `encode` and `decode` themselves. What a caller gives
may come from a user's file: what does not hold together raises `DataError`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence

import numpy as np
from numba import njit

from minimrcnn.errors import DataError

FURTHEST = 1e7  # pixels; a polygon's coordinate beyond this is a slip, and would cost float64 its exactness


def encode(mask: np.ndarray) -> list[int]:
    """The run lengths of a mask (H, W); everything but 0 is 1."""
    if mask.ndim != 2:
        raise ValueError(f"encode: mask has shape {mask.shape}, wanted (H, W)")
    pixels = mask if mask.dtype == bool else mask != 0
    height, width = pixels.shape
    if not pixels.size:
        return [0]
    changes = np.zeros((height, width), bool)  # against the pixel before: above, or at the bottom of the last column
    np.not_equal(pixels[1:], pixels[:-1], out=changes[1:])
    changes[0, 1:] = pixels[0, 1:] != pixels[-1, :-1]
    changes[0, 0] = pixels[0, 0]
    row, column = np.divmod(np.flatnonzero(changes), width)
    return _counts_between(
        np.sort(column * height + row), height * width
    )  # a few positions, instead of all, are transposed


def decode(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) uint8, 0 or 1, of run lengths; `DataError` if they do not fill ``size`` = (H, W) exactly."""
    height, width = size
    counts = check_counts(counts, size)
    pixels = np.repeat(np.arange(len(counts), dtype=np.uint8) % 2, counts)  # (W*H,)
    return np.ascontiguousarray(pixels.reshape(width, height).T)  # (W, H) -> (H, W)


def decode_at(counts: Sequence[int], size: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """``decode(counts, size)[rows][:, columns]``, without the other pixels: of a large photo these are nearly all."""
    height, _ = size
    edges = _edges(check_counts(counts, size))
    pixels = np.zeros((len(columns), len(rows)), np.uint8)
    seen = (columns >= edges[0] // height) & (columns <= (edges[-1] - 1) // height) if len(edges) else slice(0)
    places = columns[seen, None] * height + rows  # (columns with ones, rows)
    pixels[seen] = np.searchsorted(edges, places, side="right") % 2
    return np.ascontiguousarray(pixels.T)


def check_counts(counts: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """The run lengths as int64, once it is sure that they are whole, not negative and fill ``size`` = (H, W)."""
    height, width = size
    lengths = _flat_numbers(counts)
    if lengths is None or (lengths.dtype.kind == "f" and lengths.size):
        raise DataError("run lengths are not a flat list of whole numbers")
    lengths = lengths.astype(np.int64)
    if (lengths < 0).any():
        raise DataError(f"run {np.flatnonzero(lengths < 0)[0]} has the negative length {lengths[lengths < 0][0]}")
    pixels = lengths.sum(dtype=np.float64)  # which, unlike an integer, cannot overflow into the right sum
    if pixels != height * width:
        raise DataError(
            f"run lengths add up to {pixels:.0f}, wanted {height * width} (height {height} x width {width})"
        )
    return lengths


def area(counts: Sequence[int]) -> int:
    """How many pixels are 1."""
    return int(np.sum(counts[1::2], dtype=np.int64))


def bounding_box(counts: Sequence[int], height: int) -> np.ndarray:
    """The smallest box (4,) float32 ``x1, y1, x2, y2`` around the pixels that are 1; four zeros if none is."""
    edges = _edges(counts)
    first, last = edges[0::2], edges[1::2] - 1  # of every run of ones
    first, last = first[first <= last], last[first <= last]
    if not len(first):
        return np.zeros(4, np.float32)
    left, right = first // height, last // height
    if (left < right).any():  # a run that goes on in the next column touches the bottom and the top
        top, bottom = 0, height
    else:
        top, bottom = (first % height).min(), (last % height).max() + 1
    return np.array([left.min(), top, right.max() + 1, bottom], np.float32)


def union(many: Sequence[Sequence[int]]) -> list[int]:
    """The run lengths of the pixels that are 1 in any of several masks of one size."""
    totals = {int(np.sum(counts, dtype=np.int64)) for counts in many}
    if len(totals) != 1:
        raise ValueError(f"union: masks of {sorted(totals)} pixels, wanted one or more masks of one size")
    # Depth says how many masks cover a pixel: it rises by 1 where a run of ones begins and falls by 1 where it ends.
    edges = [_edges(counts) for counts in many]
    changes = np.concatenate([np.tile([1, -1], len(one) // 2) for one in edges])
    positions, where = np.unique(np.concatenate(edges), return_inverse=True)
    depth = np.cumsum(np.bincount(where, weights=changes, minlength=len(positions)))
    covered = depth > 0
    flips = positions[covered != np.concatenate([[False], covered[:-1]])]
    pixels = totals.pop()
    return _counts_between(flips[flips < pixels], pixels)


def iou(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]], crowd: Sequence[bool]) -> np.ndarray:
    """Intersection over union of every mask of ``a`` with every mask of ``b``.

    Parameters
    ----------
    a, b : sequences of run lengths
        P and Q masks, all of one size.
    crowd : sequence of Q bools
        Where True, ``b`` is a region of many objects, and what counts is how much of ``a`` lies inside: the
        intersection is divided by the area of ``a`` alone (Lin et al. 2014, COCO's evaluation).

    Returns
    -------
    ndarray (P, Q) float64
        0 where the masks share no pixel, even if both are empty.
    """
    if len(crowd) != len(b):
        raise ValueError(f"iou: crowd has {len(crowd)} entries, wanted one for each of the {len(b)} masks of b")
    shared = np.zeros((len(a), len(b)), np.int64)
    if not shared.size:
        return shared.astype(np.float64)
    totals = {int(np.sum(counts, dtype=np.int64)) for counts in (*a, *b)}
    if len(totals) > 1:
        raise ValueError(f"iou: masks of {sorted(totals)} pixels, wanted masks of one size")
    _count_shared(*_edges_in_one(a), *_edges_in_one(b), shared)
    area_a = np.array([area(counts) for counts in a])[:, None]  # (P, 1)
    area_b = np.array([area(counts) for counts in b])[None, :]  # (1, Q)
    whole = np.where(np.asarray(crowd, bool), area_a, area_a + area_b - shared)  # (P, Q)
    return shared / np.maximum(whole, 1)


@njit(cache=True, nogil=True)
def _count_shared(a, a_first, b, b_first, shared):
    """Count the pixels each pair of masks shares, walking both masks' runs of ones side by side."""
    for i in range(shared.shape[0]):
        for j in range(shared.shape[1]):
            p, q, pixels = a_first[i], b_first[j], 0
            while p < a_first[i + 1] and q < b_first[j + 1]:
                pixels += max(0, min(a[p + 1], b[q + 1]) - max(a[p], b[q]))
                if a[p + 1] <= b[q + 1]:  # the run that ends first meets nothing more
                    p += 2
                else:
                    q += 2
            shared[i, j] = pixels


def to_string(counts: Sequence[int]) -> str:
    """Squeeze run lengths into COCO's text; `from_string` tells its form."""
    numbers = np.array(counts, np.int64)
    numbers[3:] -= numbers[1:-2].copy()
    shifts = 5 * np.arange(13)  # 13 digits of 5 bits hold every int64
    digits = (numbers[:, None] >> shifts) & 31  # (runs,) -> (runs, 13), lowest digit first
    rest = numbers[:, None] >> (shifts + 5).clip(max=63)
    enough = rest == np.where(digits & 16, -1, 0)  # what is left is only the sign the digit shows already
    last = enough.argmax(axis=1)[:, None]  # (runs, 1)
    place = np.arange(13)
    characters = digits + 32 * (place < last) + 48
    return characters[place <= last].astype(np.uint8).tobytes().decode("ascii")


def from_string(text: bytes | str) -> list[int]:
    """The run lengths in COCO's compressed text.

    From the fourth on, a run is written as its difference to the run two before, which is usually small. A number is
    written in digits of 5 bits, lowest first, as few as hold its two's complement; a digit followed by another has 32
    added, and each is the character 48 places on: ``0`` to ``o``.

    Raises
    ------
    DataError
        A character outside that range, or a text that breaks off within a number.
    """
    try:
        codes = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        codes = np.array([-1])
    if ((codes < 0) | (codes > 63)).any():
        raise DataError("compressed run lengths hold a character outside '0' to 'o'")
    if not len(codes):
        return []
    ends = np.flatnonzero(codes < 32)  # the digits with nothing to follow
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise DataError("compressed run lengths break off within a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 12:
        raise DataError("compressed run lengths hold a number of more than 60 bits")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((codes & 31) << 5 * place, starts)  # (characters,) -> (runs,)
    numbers -= np.where(codes[ends] & 16, 1 << 5 * lengths, 0)
    for first in (1, 2):  # undo the differences: each parity is a running sum, but for the very first number
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers.tolist()


def polygons_to_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) uint8 that polygons cover together; see `polygons_to_counts`."""
    return decode(polygons_to_counts(polygons, size), size)


def polygons_to_counts(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> list[int]:
    """The run lengths of the pixels that any of the polygons covers, bit for bit those of COCO's own tools.

    The rule, in words:

    1. Corners are rounded to fifths of a pixel. Edges are walked in such steps along their longer axis.
    2. The centers of column x lie at 5x + 2.5 fifths. Where an edge steps from 5x + 2 to 5x + 3 it crosses the
       column, at the smaller of the two steps' y.
    3. A crossing flips every pixel of the column whose center is below it. A pixel is inside where it was flipped an
       odd number of times.

    Parameters
    ----------
    polygons : sequence of flat sequences ``x1, y1, x2, y2, ...``
        Three points or more each, in pixels; an edge leads from the last point back to the first.
    size : (H, W)

    Raises
    ------
    DataError
        Fewer than three points, an odd number of coordinates, or one that is not a number of a sane size.
    """
    height, width = size
    covered = []
    for polygon in check_polygons(polygons):
        corners = np.trunc(5 * polygon.reshape(-1, 2) + 0.5).astype(np.int64)  # (2P,) -> (P, 2); toward zero, as in C
        left, right = ((corners[:, 0].min() + 2) // 5).clip(0, width), ((corners[:, 0].max() + 2) // 5).clip(0, width)
        flips = np.zeros((right - left) * height + 1, np.bool_)  # one more: below the last pixel of the last column
        _flip_at_crossings(corners, height, left, right, flips)
        positions = left * height + np.flatnonzero(flips)
        covered.append(_counts_between(positions[positions < height * width], height * width))
    return union(covered) if len(covered) > 1 else covered[0]


def check_polygons(polygons: Sequence[Sequence[float]]) -> list[np.ndarray]:
    """The polygons as arrays, once it is sure that each has three points or more of finite coordinates."""
    if not isinstance(polygons, (list, tuple)) or not polygons:
        raise DataError("polygons are not a list of one or more lists of coordinates")
    checked = []
    for position, polygon in enumerate(polygons):
        numbers = _flat_numbers(polygon)
        if numbers is None:
            raise DataError(f"polygon {position} is not a flat list of numbers x1, y1, x2, y2, ...")
        if len(numbers) < 6 or len(numbers) % 2:
            raise DataError(
                f"polygon {position} has {len(numbers)} coordinates, wanted an even number from 6 (3 points)"
            )
        if not (np.abs(numbers) <= FURTHEST).all():  # so written, NaN fails
            raise DataError(f"polygon {position} has a coordinate that is not finite or beyond {FURTHEST:.0f} pixels")
        checked.append(numbers.astype(np.float64))
    return checked


@njit(cache=True, nogil=True)
def _flip_at_crossings(corners, height, left, right, flips):
    """Toggle ``flips`` (columns ``left`` .. ``right`` - 1, each from its top) below every crossing of an edge with a
    column of pixel centers.

    ``(v + 2) // 5`` is the first pixel whose center, at 5i + 2.5 fifths, lies beyond v.
    """
    for corner in range(len(corners)):
        x0, y0 = corners[corner - 1]
        x1, y1 = corners[corner]
        flat = abs(x1 - x0) >= abs(y1 - y0)
        if (x0 > x1) if flat else (y0 > y1):  # walk upwards along the longer axis
            x0, y0, x1, y1 = x1, y1, x0, y0
        for column in range(max(left, (min(x0, x1) + 2) // 5), min(right, (max(x0, x1) + 2) // 5)):
            before = 5 * column + 2
            if flat:
                slope = (y1 - y0) / (x1 - x0)
                step = before - x0
                y = min(np.floor(y0 + slope * step + 0.5), np.floor(y0 + slope * (step + 1) + 0.5))
            else:
                # The last step on the side the edge comes from: solved, then settled by looking, as each is rounded.
                slope = (x1 - x0) / (y1 - y0)
                step = int((before + 0.5 - x0) / slope)
                while (np.floor(x0 + slope * step + 0.5) > before) == (slope > 0):
                    step -= 1
                while (np.floor(x0 + slope * (step + 1) + 0.5) > before) != (slope > 0):
                    step += 1
                y = y0 + step
            row = min(max(0, (int(y) + 2) // 5), height)
            flips[(column - left) * height + row] ^= True


def segmentation_to_counts(segmentation: dict | list, size: tuple[int, int]) -> list[int]:
    """The run lengths of what a COCO file may hold as ``segmentation``: polygons or either spelling of run lengths."""
    checked = check_segmentation(segmentation, size)
    return polygons_to_counts(checked, size) if isinstance(checked, list) else checked.tolist()


def check_segmentation(segmentation: dict | list, size: tuple[int, int]) -> list[np.ndarray] | np.ndarray:
    """Look whether a COCO ``segmentation`` fits a picture of ``size`` = (H, W), without drawing anything.

    Returns
    -------
    list of ndarray, or ndarray int64
        The polygons, or the run lengths.

    Raises
    ------
    DataError
        What is wrong, without the place, which the caller knows.
    """
    if isinstance(segmentation, list):
        return check_polygons(segmentation)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise DataError("segmentation is neither a list of polygons nor an object with size and counts")
    if segmentation["size"] not in (list(size), tuple(size)):
        got = reprlib.repr(segmentation["size"])
        raise DataError(f"run lengths are for size {got}, wanted the picture's [height, width] {list(size)}")
    counts = segmentation["counts"]
    return check_counts(from_string(counts) if isinstance(counts, (str, bytes)) else counts, size)


def _flat_numbers(values) -> np.ndarray | None:
    """A list of plain numbers as an array; None for anything else, such as text, nested lists and huge integers."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        return None
    return array if array.ndim == 1 and array.dtype.kind in "iuf" else None


def _counts_between(flips: np.ndarray, pixels: int) -> list[int]:
    """The run lengths of a mask that changes at ``flips``, ascending, and begins with 0."""
    return np.diff(flips, prepend=0, append=pixels).tolist()


def _edges(counts: Sequence[int]) -> np.ndarray:
    """Start and stop of every run of ones, alternating, int64."""
    return np.cumsum(counts, dtype=np.int64)[: len(counts) // 2 * 2]


def _edges_in_one(many: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The edges of all masks behind each other, and where each mask's begin (one entry more than masks)."""
    edges = [_edges(counts) for counts in many]
    return np.concatenate(edges), np.cumsum([0] + [len(one) for one in edges], dtype=np.int64)
