"""Outlines of masks: drawn again they are the mask, with few corners, whatever parts and holes it has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import cdist

from minimrcnn.geometry.outlines import join_rings, mask_to_polygons, simplify, trace_rings
from minimrcnn.geometry.run_lengths import polygons_to_mask

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14))


def draw(polygons, size):
    return polygons_to_mask(polygons, size) > 0 if polygons else np.zeros(size, bool)


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


@given(masks)
def test_all_corners_draw_the_mask_exactly(mask):
    np.testing.assert_array_equal(draw(mask_to_polygons(mask, least_iou=1), mask.shape), mask)


@given(masks, st.integers(1, 9), st.integers(1, 9), st.floats(0.5, 0.99))
def test_few_corners_draw_the_mask_as_well_as_was_asked_for(mask, wide, high, least_iou):
    mask = mask.repeat(high, axis=0).repeat(wide, axis=1)
    polygons = mask_to_polygons(mask, least_iou)
    assert not mask.any() or iou(draw(polygons, mask.shape), mask) >= least_iou
    assert all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in polygons)


@given(masks)
def test_rings_turn_clockwise_around_parts_and_back_around_holes(mask):
    area = 0
    for outer, *holes in trace_rings(mask):
        areas = [np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2 for x, y in (ring.T for ring in (outer, *holes))]
        assert areas[0] > 0 and all(hole < 0 for hole in areas[1:])
        area += sum(areas)
    assert area == mask.sum()


@given(masks)
def test_holes_are_joined_by_the_shortest_slits(mask):
    def around(ring):
        return np.hypot(*(ring - np.roll(ring, -1, axis=0)).T).sum()

    for outer, *holes in trace_rings(mask):
        ring, slits = join_rings([outer, *holes]), 0
        wanted, joined = around(outer) + sum(map(around, holes)), outer
        assert len(ring) == len(outer) + sum(len(hole) + 2 for hole in holes)
        while holes:
            lengths = [cdist(joined, hole).min() for hole in holes]
            slits += min(lengths)
            joined = np.concatenate([joined, holes.pop(int(np.argmin(lengths)))])
        np.testing.assert_allclose(around(ring), wanted + 2 * slits)


def test_many_holes():
    mask = np.ones((91, 91), bool)
    mask[1::3, 1::3] = False  # 900 holes, of a pixel each
    (polygon,) = mask_to_polygons(mask, least_iou=1)  # which did take one, with all distances found anew each time
    np.testing.assert_array_equal(draw([polygon], mask.shape), mask)


def test_parts_and_holes():
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:25] = True
    mask[10:20, 10:20] = mask[25:30, 10:15] = False  # two holes, an island in the first
    mask[14:16, 14:16] = True
    mask[2:12, 40:55] = True
    mask[12:20, 55:58] = True  # touches at a corner only
    polygons = mask_to_polygons(mask, least_iou=1)
    assert sorted(len(polygon) // 2 for polygon in polygons) == [4, 4, 4, 4 + 2 * (4 + 2)]  # a slit: two corners twice
    np.testing.assert_array_equal(draw(polygons, mask.shape), mask)


def test_a_disc_needs_few_corners_and_a_square_four():
    y, x = np.mgrid[:300, :300] + 0.5
    disc = (x - 150) ** 2 + (y - 140) ** 2 < 100**2
    (polygon,) = mask_to_polygons(disc)
    assert 12 <= len(polygon) // 2 <= 40 and iou(draw([polygon], disc.shape), disc) > 0.96
    square = np.zeros((50, 50), np.uint8)
    square[10:30, 20:45] = 1
    assert mask_to_polygons(square) == [[20, 10, 45, 10, 45, 30, 20, 30]]


def test_odd_masks():
    assert mask_to_polygons(np.zeros((5, 5))) == mask_to_polygons(np.zeros((0, 3))) == []
    assert mask_to_polygons(np.ones((1, 1))) == [[0, 0, 1, 0, 1, 1, 0, 1]]
    line = np.eye(200, dtype=bool) | np.eye(200, k=1, dtype=bool)  # a pixel or two wide
    assert iou(draw(mask_to_polygons(line), line.shape), line) >= 0.95
    with pytest.raises(ValueError, match=r"\(2, 3, 4\), wanted \(H, W\)"):
        mask_to_polygons(np.zeros((2, 3, 4)))


def test_simplify_keeps_what_is_farther_than_the_tolerance():
    ring = np.array([[0, 0], [5, 1], [10, 0], [10, 10], [5, 13], [0, 10]])
    assert simplify(ring, 2).tolist() == [[0, 0], [10, 0], [10, 10], [5, 13], [0, 10]]
    assert simplify(ring, 0).tolist() == simplify(ring, 0.5).tolist() == ring.tolist()
    assert len(simplify(ring, 1000)) == 6  # less than a triangle would be left
