"""How one RoI is cut out of its map: where RoIAlign takes its samples, and which whole cells RoI pooling takes.

The arithmetic is that of the kernels, asked one RoI at a time. Positions on a map are in cells: RoIAlign takes the
value of cell i to sit at i, so with ``aligned`` half a cell is added on the way back to the photo, and without it
nothing is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minimrcnn.config import Config
from minimrcnn.functional.roi import RULES, whole_cells
from minimrcnn.kernels.roi_pool import divide_cells, find_bin
from minimrcnn.kernels.samples import divide_axis, find_corners, place_sample

F = np.float32


@dataclass(frozen=True)
class Sample:
    """One sample of a bin: where it lies on the map (in cells), and what it is mixed from.

    ``corners`` are (row, column, weight, value) of the four cells around it; none outside the map, where it is 0.
    """

    y: float
    x: float
    corners: tuple[tuple[int, int, float, float], ...]
    value: float


@dataclass(frozen=True)
class Bin:
    """One bin of a crop, in the channel that is largest there: everything that went into its value.

    ``samples`` is empty for RoI pooling, which takes the largest of the ``cells`` (top, bottom, left, right).
    """

    row: int
    column: int
    channel: int
    samples: tuple[Sample, ...]
    cells: tuple[int, int, int, int] | None
    value: float


@dataclass(frozen=True)
class WholeCells:
    """One side of a RoI as RoI pooling rounds it: twice.

    ``first`` and ``size`` are the RoI in whole cells, ``bins`` the cells (first, one past the last) of every bin.
    """

    first: int
    size: int
    bins: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Cut:
    """How a RoI is cut from a map, by RoIAlign and by RoI pooling, whichever of them the model uses.

    Attributes
    ----------
    stride : int
        Pixels per cell.
    roi : tuple of 4 floats
        In pixels.
    size : int
        Bins on a side.
    rows, columns : tuple of ``size`` tuples
        The coordinates of every bin's samples along y and x, in cells. RoIWarp's, where the model uses that.
    edges : (tuple, tuple)
        The ``size`` + 1 borders between the bins along y and x, in cells.
    shift : float
        Cells to be added on the way from the map to the photo: 0.5 with ``aligned``.
    pooled : dict of str to (WholeCells, WholeCells)
        RoI pooling's cells along y and x: "caffe", the rule of Caffe and torchvision, and "floor", both cut off.
    """

    stride: int
    roi: tuple[float, ...]
    size: int
    rows: tuple[tuple[float, ...], ...]
    columns: tuple[tuple[float, ...], ...]
    edges: tuple[tuple[float, ...], tuple[float, ...]]
    shift: float
    pooled: dict[str, tuple[WholeCells, WholeCells]]

    def to_pixels(self, position: float) -> float:
        """Where on the resized photo a position on the map is."""
        return (position + self.shift) * self.stride


def lay_cut(roi, map_size: tuple[int, int], size: int, stride: int, config: Config) -> Cut:
    """The grids over one RoI (4,), in pixels, on a map of (height, width) cells, ``size`` bins on a side."""
    box, scale = np.asarray(roi, F), 1 / stride
    aligned, ratio = config.roi_aligned, config.roi_sampling_ratio
    if config.roi_operation == "warp":  # RoIAlign of what was rounded to whole cells
        box = whole_cells(np.concatenate([[F(0)], box])[None], scale)[0, 1:]
        scale = 1.0
    axes = [divide_axis(box[side], box[side + 2], size, ratio, aligned, scale, F) for side in (1, 0)]
    positions = [
        tuple(tuple(float(place_sample(start, step, count, b, s, F)) for s in range(count)) for b in range(size))
        for start, step, count in axes
    ]
    edges = tuple(tuple(float(start + F(b) * step) for b in range(size + 1)) for start, step, _ in axes)
    pooled = {
        rule: tuple(pool_axis(roi[side], roi[side + 2], cells, size, rule, 1 / stride)
                    for side, cells in ((1, map_size[0]), (0, map_size[1])))
        for rule in ("caffe", "floor")
    }  # fmt: skip
    shift = 0.5 if aligned else 0.0
    return Cut(stride, tuple(map(float, roi)), size, *positions, edges, shift, pooled)


def pool_axis(low, high, cells: int, size: int, rule: str, scale: float) -> WholeCells:
    """One side of a RoI, from ``low`` to ``high`` pixels, by a rule of RoI pooling, on a map of so many cells."""
    first, count = divide_cells(F(low), F(high), RULES[rule], scale, F)
    bins = tuple(tuple(map(int, find_bin(first, count, cells, size, b, RULES[rule], F))) for b in range(size))
    return WholeCells(int(first), int(count), bins)


def follow_bin(cut: Cut, features: np.ndarray, crop: np.ndarray, config: Config) -> Bin:
    """The bin of a crop (S, S, C) with the value farthest from 0, and what it was mixed from on its map (H, W, C)."""
    size = np.where(np.isfinite(crop), np.abs(crop), -1)
    row, column, channel = (int(place) for place in np.unravel_index(size.argmax(), crop.shape))
    value = float(crop[row, column, channel])
    if config.roi_operation == "pool":
        cells = *cut.pooled["caffe"][0].bins[row], *cut.pooled["caffe"][1].bins[column]
        return Bin(row, column, channel, (), cells, value)
    samples = tuple(
        take_sample(features[:, :, channel], y, x) for y in cut.rows[row] for x in cut.columns[column]
    )  # fmt: skip
    return Bin(row, column, channel, samples, None, value)


def take_sample(cells: np.ndarray, y: float, x: float) -> Sample:
    """A bilinear sample of one channel (H, W), with its four corners."""
    top, bottom, v = find_corners(F(y), cells.shape[0], F)
    left, right, u = find_corners(F(x), cells.shape[1], F)
    if top < 0 or left < 0:
        return Sample(y, x, (), 0.0)
    u, v = float(u), float(v)
    corners = tuple(
        (int(i), int(j), weight_y * weight_x, float(cells[i, j]))
        for i, weight_y in ((top, 1 - v), (bottom, v))
        for j, weight_x in ((left, 1 - u), (right, u))
    )
    return Sample(y, x, corners, math.fsum(weight * value for _, _, weight, value in corners))
