"""Run lengths against pycocotools, and against the words of the format."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minimrcnn.errors import DataError
from minimrcnn.geometry import run_lengths

peer = pytest.importorskip("pycocotools.mask", reason="pycocotools is what run lengths are compared with")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools

sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


def masks_of(size):
    """Speckled masks, and blocky ones as objects are."""
    height, width = size
    blocks = st.tuples(*[st.integers(0, height), st.integers(0, width)] * 2).map(lambda ends: block(size, *ends))
    return st.one_of(hnp.arrays(np.uint8, size, elements=st.integers(0, 1)), blocks)


def block(size, y1, x1, y2, x2):
    mask = np.zeros(size, np.uint8)
    mask[min(y1, y2) : max(y1, y2), min(x1, x2) : max(x1, x2)] = 1
    return mask


masks = sizes.flatmap(masks_of)
mask_lists = sizes.flatmap(lambda size: st.lists(masks_of(size), min_size=2, max_size=5))


def their(mask):
    return peer.encode(np.asfortranarray(mask))


def test_the_first_run_is_of_zeros_and_runs_go_down_the_columns():
    mask = np.array([[1, 0], [1, 0], [0, 1]], np.uint8)
    assert run_lengths.encode(mask) == [0, 2, 3, 1]
    assert run_lengths.encode(mask * 255) == run_lengths.encode(mask.astype(bool)) == [0, 2, 3, 1]
    np.testing.assert_array_equal(run_lengths.decode([0, 2, 3, 1], (3, 2)), mask)
    assert run_lengths.encode(np.zeros((2, 2))) == [4]
    assert run_lengths.encode(np.ones((2, 2))) == [0, 4]
    assert run_lengths.encode(np.zeros((0, 5))) == [0]


@given(masks, st.data())
def test_some_rows_and_columns(mask, data):
    rows, columns = (
        np.array(data.draw(st.lists(st.integers(0, side - 1), max_size=5)) if side else [], np.int64)
        for side in mask.shape
    )
    got = run_lengths.decode_at(run_lengths.encode(mask), mask.shape, rows, columns)
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    np.testing.assert_array_equal(got, mask[rows][:, columns])


def test_rows_and_columns_of_runs_without_length():
    everything = np.arange(3)
    for counts in ([0, 0, 9], [4, 0, 0, 5], [9, 0], [0, 9, 0, 0], [9]):
        got = run_lengths.decode_at(counts, (3, 3), everything, everything)
        np.testing.assert_array_equal(got, run_lengths.decode(counts, (3, 3)))


@given(masks)
def test_encode_and_string_and_back(mask):
    counts, text = run_lengths.encode(mask), their(mask)["counts"]
    assert all(type(count) is int for count in counts)  # JSON takes no NumPy integers
    assert run_lengths.to_string(counts).encode() == text
    assert run_lengths.from_string(text) == run_lengths.from_string(text.decode()) == counts
    decoded = run_lengths.decode(counts, mask.shape)
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)


@given(st.lists(st.integers(0, 2**31), max_size=12))
def test_strings_hold_any_counts(counts):
    assert run_lengths.from_string(run_lengths.to_string(counts)) == counts


@given(masks)
def test_area_and_bounding_box(mask):
    counts = run_lengths.encode(mask)
    assert run_lengths.area(counts) == peer.area(their(mask)) == mask.sum()
    x, y, width, height = peer.toBbox(their(mask))
    np.testing.assert_array_equal(run_lengths.bounding_box(counts, len(mask)), [x, y, x + width, y + height])


@given(mask_lists)
def test_union(several):
    counts = run_lengths.union([run_lengths.encode(mask) for mask in several])
    assert counts == run_lengths.encode(np.any(several, axis=0))
    assert run_lengths.to_string(counts).encode() == peer.merge([their(mask) for mask in several])["counts"]


@given(mask_lists, st.data())
def test_iou(several, data):
    a, b = several[:2], several[1:]
    crowd = data.draw(st.lists(st.booleans(), min_size=len(b), max_size=len(b)))
    got = run_lengths.iou([run_lengths.encode(m) for m in a], [run_lengths.encode(m) for m in b], crowd)
    wanted = peer.iou([their(m) for m in a], [their(m) for m in b], np.array(crowd, np.uint8))
    np.testing.assert_array_equal(got, wanted)


def test_iou_of_none():
    assert run_lengths.iou([], [[4]], [False]).shape == (0, 1)
    assert run_lengths.iou([[4]], [], []).shape == (1, 0)


def round_twice(a, b, c):
    """a * b + c as NumPy has it everywhere, and Numba without leave to do otherwise."""
    return a * b + c


def round_once(a, b, c):
    """The same as a compiler of C may have it where the processor has an instruction for it, as every ARM does."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def draw_step_by_step(several, size, multiply_add):
    """The counts of polygons by pycocotools' own steps (rleFrPoly in maskApi.c), its products with ``multiply_add``."""
    height, width = size
    drawn = []
    for polygon in several:
        fifths = [int(multiply_add(5.0, float(value), 0.5)) for value in polygon]
        corners, path, crossings = list(zip(fifths[::2], fifths[1::2], strict=True)), [], []
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            flat = abs(x1 - x0) >= abs(y1 - y0)
            backwards = x0 > x1 if flat else y0 > y1
            if backwards:
                x0, y0, x1, y1 = x1, y1, x0, y0
            steps = x1 - x0 if flat else y1 - y0
            slope = (y1 - y0 if flat else x1 - x0) / max(steps, 1)
            points = [
                (x0 + t, int(multiply_add(slope, t, y0) + 0.5)) if flat else
                (int(multiply_add(slope, t, x0) + 0.5), y0 + t)
                for t in range(steps + 1)
            ]  # fmt: skip
            path += points[::-1] if backwards else points
        for (u0, v0), (u1, v1) in zip(path, path[1:], strict=False):
            column, beside = divmod(min(u0, u1) if u1 < u0 else u1 - 1, 5)
            if u0 != u1 and beside == 2 and 0 <= column < width:
                crossings.append(column * height + min(max(-(-(min(v0, v1) - 2) // 5), 0), height))
        flips = np.bincount(crossings, minlength=height * width + 1)[:-1] % 2
        drawn.append(run_lengths.encode((np.cumsum(flips) % 2).reshape(width, height).T))
    return run_lengths.union(drawn)


def assert_drawn_alike(several, size):
    """Ours are pycocotools' counts, to the pixel.

    Its C is compiled for ARM with products and sums that are rounded once, and a corner or crossing that lies at a half
    but for a last bit may fall on the other side: then each must be what its own roundings make of it.
    """
    ours = run_lengths.polygons_to_counts(several, size)
    theirs = run_lengths.from_string(peer.merge(peer.frPyObjects(several, *size))["counts"])
    if ours != theirs:
        assert ours == draw_step_by_step(several, size, round_twice)
        assert theirs == draw_step_by_step(several, size, round_once)


coordinates = st.one_of(
    st.integers(-30, 60).map(lambda fifths: fifths / 5 + 0.1),  # on the edge between two roundings
    st.integers(-8, 30).map(float),
    st.floats(-100, 100),
    st.floats(-1e5, 1e5),
)
points = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)
polygons = points.map(lambda corners: [value for corner in corners for value in corner])


@given(st.lists(polygons, min_size=1, max_size=3), sizes)
@example([[1, 1, 1, 1, 1, 1]], (4, 4))  # one point
@example([[0, 0, 3, 0, 6, 0]], (4, 8))  # a line
@example([[-9, -9, -9, -5, -5, -5]], (4, 4))  # outside
@example([[-5, -5, 50, -5, 50, 50, -5, 50]], (6, 7))  # around the picture
@example([[0, 0, 4, 0, 0, 4, 4, 4]], (5, 5))  # crossing itself
@example([[0, 0, 5, 0, 5, 5, 0, 5], [0, 0, 5, 0, 5, 5, 0, 5]], (5, 5))  # the same twice
@example([[0.5, 0.5, 0.5, 9.5, 9.5, 9.5]], (10, 10))
def test_polygons_pixel_by_pixel(several, size):
    assert_drawn_alike(several, size)
    counts = run_lengths.polygons_to_counts(several, size)
    theirs = peer.decode({"size": list(size), "counts": run_lengths.to_string(counts).encode()})
    np.testing.assert_array_equal(run_lengths.polygons_to_mask(several, size), theirs)


@pytest.mark.parametrize("seed", range(4))
def test_polygons_many_random(seed):
    generator = np.random.default_rng(seed)
    for _ in range(250):
        height, width = generator.integers(1, 60, 2).tolist()
        corners = generator.normal(0.5, generator.choice([0.3, 1, 5]), (generator.integers(3, 12), 2)) * [width, height]
        corners = np.round(corners, generator.integers(0, 3)) if generator.random() < 0.5 else corners
        polygon = [corners.ravel().tolist()]
        assert_drawn_alike(polygon, (height, width))


def test_ties_are_rounded_twice_on_every_processor():
    """A point of an edge is so near a half that the roundings decide, as in one of 1000 polygons drawn at random."""
    polygon, size = [[4, 10, 2, 29, 1, 19, 6, 5, 0, -1]], (25, 7)
    assert run_lengths.polygons_to_counts(polygon, size) == draw_step_by_step(polygon, size, round_twice)
    assert draw_step_by_step(polygon, size, round_once) != draw_step_by_step(polygon, size, round_twice)
    assert_drawn_alike(polygon, size)


def test_segmentation_in_its_three_spellings():
    mask = block((6, 5), 1, 1, 4, 3)
    counts = run_lengths.encode(mask)
    polygon = [[1, 1, 3, 1, 3, 4, 1, 4]]
    for segmentation in (
        polygon,
        {"size": [6, 5], "counts": counts},
        {"size": [6, 5], "counts": run_lengths.to_string(counts)},
    ):
        assert run_lengths.segmentation_to_counts(segmentation, (6, 5)) == counts


@pytest.mark.parametrize(
    "segmentation, message",
    [
        ([[1, 1, 2, 2]], "polygon 0 has 4 coordinates, wanted an even number from 6"),
        ([[1, 1, 2, 2, 3, 3], [1, 1, 2, 2, 3, 3, 4]], "polygon 1 has 7 coordinates"),
        ([[1, 1, 2, 2, 3, float("nan")]], "polygon 0 has a coordinate that is not finite"),
        ([[1, 1, 2, 2, 3, float("inf")]], "polygon 0 has a coordinate that is not finite"),
        ([[1, 1, 2, 2, 3, 1e9]], "polygon 0 has a coordinate that is not finite or beyond"),
        ([[[1, 1], [2, 2], [3, 3]]], "polygon 0 is not a flat list"),
        ([["1", "1", "2", "2", "3", "3"]], "polygon 0 is not a flat list of numbers"),
        ([[1, 1, 2, 2, 3, 10**30]], "polygon 0 is not a flat list of numbers"),
        ([1, 1, 2, 2, 3, 3], "polygon 0 is not a flat list"),
        ([], "polygons are not a list of one or more"),
        ("none", "neither a list of polygons nor an object"),
        ({"counts": [16]}, "neither a list of polygons nor an object with size and counts"),
        ({"size": [4, 5], "counts": [20]}, r"for size \[4, 5\], wanted the picture's \[height, width\] \[4, 4\]"),
        ({"size": [4, 4], "counts": [10, 5]}, "add up to 15, wanted 16"),
        ({"size": [4, 4], "counts": [2**62, 2**62, 2**62, 2**62, 16]}, "add up to 18446744073709551616, wanted 16"),
        ({"size": [4, 4], "counts": [20, -4]}, "run 1 has the negative length -4"),
        ({"size": [4, 4], "counts": [8.0, 8.0]}, "not a flat list of whole numbers"),
        ({"size": [4, 4], "counts": None}, "not a flat list of whole numbers"),
        ({"size": [4, 4], "counts": [[16]]}, "not a flat list of whole numbers"),
        ({"size": [4, 4], "counts": "é"}, "a character outside '0' to 'o'"),
        ({"size": [4, 4], "counts": "~"}, "a character outside '0' to 'o'"),
        ({"size": [4, 4], "counts": "P"}, "break off within a number"),
        ({"size": [4, 4], "counts": "P" * 40 + "0"}, "more than 60 bits"),
        ({"size": [4, 4], "counts": "P" * 12 + "0"}, "more than 60 bits"),
        ({"size": [4, 4], "counts": "p0"}, "a character outside '0' to 'o'"),
        ({"size": [4, 4], "counts": ""}, "add up to 0, wanted 16"),
    ],
)
def test_what_does_not_hold_together_is_refused(segmentation, message):
    with pytest.raises(DataError, match=message):
        run_lengths.segmentation_to_counts(segmentation, (4, 4))


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"encode: mask has shape \(3,\)"):
        run_lengths.encode(np.zeros(3))
    with pytest.raises(ValueError, match=r"union: masks of \[4, 5\] pixels"):
        run_lengths.union([[4], [5]])
    with pytest.raises(ValueError, match="union: masks of"):
        run_lengths.union([])
    with pytest.raises(ValueError, match="iou: crowd has 1 entries"):
        run_lengths.iou([[4]], [[4], [4]], [False])
    with pytest.raises(ValueError, match=r"iou: masks of \[4, 5\] pixels"):
        run_lengths.iou([[4]], [[5]], [False])
    with pytest.raises(DataError, match="add up to 3, wanted 4"):
        run_lengths.decode([3], (2, 2))
