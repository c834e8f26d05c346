"""Four numbers for each CUDA thread: four channels of a cell, or four rows or columns of a channel.

Where a cell is, what lies around it and how much that counts is the same for all of its channels, and finding it out
takes a thread longer than the sum of a few numbers. So a thread takes four channels of a cell, and its neighbors the
ones beside them:

    12 channels      0  1  2  3  4  5  6  7  8  9 10 11
    3 lanes          0  0  0  0  1  1  1  1  2  2  2  2

A cell of more than 128 channels has 32 lanes, which take 128 channels after the other. If the four can be read and
written at once (`places.lies_in_fours`), they are. Where there is no multiple of four channels, the lanes take turns,
for what neighbors read at a time to lie side by side; and where less than four are left, the first stands in for those
that are missing: it is computed and written again, with the same result.

    7 channels       0  1  2  3  4  5  6
    2 lanes          0  1  0  1  0  1  0      and lane 1 computes channel 1 twice

Where a number only depends on its row and channel, a thread takes four rows of a channel, and its neighbors the
channels beside it. Most have four loads on their way at a time: memory is slow to answer, and quick once it does.

The four are tuples and spelled out: an array that is indexed in a loop would live in the GPU's memory. On an H200,
RoIAlign took 0.28 ms a prediction instead of 0.70 with a number each, and the epilogues of convolutions 0.56 instead
of 1.54; then still with four loads for four channels.
"""

import math

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.places import lies_in_fours, multiply_add, read_at, read_fours, write_at, write_fours
from minimrcnn.kernels.twin import WARP, divide, find_cell

FOUR = 4


@register_jitable
def count_lanes(channels):
    """Threads of a cell."""
    needed = (channels + FOUR - 1) // FOUR
    return needed if needed < WARP else WARP


def threads_of_cells(*arguments) -> int:
    """Threads for every cell of a Twin's output (.., C)."""
    channels = arguments[-1].shape[-1]
    return arguments[-1].size // channels * count_lanes(channels)


@register_jitable
def find_lane(thread, shape):
    """The cell of a thread in an array (N, H, W, C), its lane there and how many there are; as `find_cell`."""
    lanes = count_lanes(shape[3])
    cell, lane = divide(thread, lanes)
    return find_cell(cell, shape), lane, lanes


@register_jitable
def find_first(lane, lanes, channels):
    """The first number of a lane, and how far it is from there to its next."""
    return (lane * FOUR, 1) if channels % FOUR == 0 else (lane, lanes)


@register_jitable
def choose_four(first, step, count):
    """Four of ``count`` numbers, from ``first`` on, so far apart; in place of one that is not there, the first.

    Without sign: nobody has to ask whether they count from the end.
    """
    second, third, fourth = first + step, first + 2 * step, first + 3 * step
    return (
        np.uint32(first),
        np.uint32(second if second < count else first),
        np.uint32(third if third < count else first),
        np.uint32(fourth if fourth < count else first),
    )


@register_jitable
def read_places(x, places):
    """Four numbers."""
    return read_at(x, places[0]), read_at(x, places[1]), read_at(x, places[2]), read_at(x, places[3])


@register_jitable
def write_places(values, places, y):
    """Four numbers."""
    write_at(y, places[0], values[0])
    write_at(y, places[1], values[1])
    write_at(y, places[2], values[2])
    write_at(y, places[3], values[3])


@register_jitable
def places_in_cell(cell, channels, four):
    """Where four channels of a cell are, all of whose cells are counted one after the other."""
    return (
        multiply_add(cell, channels, four[0]),
        multiply_add(cell, channels, four[1]),
        multiply_add(cell, channels, four[2]),
        multiply_add(cell, channels, four[3]),
    )


@register_jitable
def read_cell(x, cell, four):
    """The numbers of four channels of a cell of x (.., C)."""
    channels = x.shape[x.ndim - 1]
    if lies_in_fours(x):
        return read_fours(x, multiply_add(cell, channels, four[0]))
    return read_places(x, places_in_cell(cell, channels, four))


@register_jitable
def write_cell(values, four, cell, y):
    """The numbers of four channels, into a cell of y (.., C)."""
    channels = y.shape[y.ndim - 1]
    if lies_in_fours(y):
        write_fours(y, multiply_add(cell, channels, four[0]), values)
    else:
        write_places(values, places_in_cell(cell, channels, four), y)


@register_jitable
def read_four(x, n, row, column, four):
    """The numbers of four channels of x (N, H, W, C); the cell must be inside."""
    return read_cell(x, multiply_add(multiply_add(n, x.shape[1], row), x.shape[2], column), four)


@register_jitable
def write_four(values, four, n, row, column, y):
    """The numbers of four channels, into y (N, H, W, C)."""
    write_cell(values, four, multiply_add(multiply_add(n, y.shape[1], row), y.shape[2], column), y)


@register_jitable
def read_side_by_side(x, place):
    """Four channels of x (.., C), a multiple of four, the first at this place."""
    if lies_in_fours(x):
        return read_fours(x, place)
    return read_places(x, places_side_by_side(place))


@register_jitable
def write_side_by_side(values, place, y):
    """Four channels of y (.., C), a multiple of four, the first at this place."""
    if lies_in_fours(y):
        write_fours(y, place, values)
    else:
        write_places(values, places_side_by_side(place), y)


@register_jitable
def places_side_by_side(place):
    """A place and the three behind it."""
    second = multiply_add(1, 1, place)
    third = multiply_add(1, 1, second)
    return place, second, third, multiply_add(1, 1, third)


@register_jitable
def places_of_columns(shape, n, row, columns, channel):
    """Where a channel of four cells of a line is, in an array (N, H, W, C)."""
    line = multiply_add(n, shape[1], row)
    return (
        multiply_add(multiply_add(line, shape[2], columns[0]), shape[3], channel),
        multiply_add(multiply_add(line, shape[2], columns[1]), shape[3], channel),
        multiply_add(multiply_add(line, shape[2], columns[2]), shape[3], channel),
        multiply_add(multiply_add(line, shape[2], columns[3]), shape[3], channel),
    )


@register_jitable
def move_places(places, step):
    """Four places, so many numbers further on."""
    return (
        multiply_add(step, 1, places[0]),
        multiply_add(step, 1, places[1]),
        multiply_add(step, 1, places[2]),
        multiply_add(step, 1, places[3]),
    )


@register_jitable
def add_four(totals, weight, values):
    """totals + weight * values"""
    return (
        totals[0] + weight * values[0],
        totals[1] + weight * values[1],
        totals[2] + weight * values[2],
        totals[3] + weight * values[3],
    )


@register_jitable
def select_four(which, values, others):
    """The values where ``which`` is true, the others elsewhere."""
    return (
        values[0] if which[0] else others[0],
        values[1] if which[1] else others[1],
        values[2] if which[2] else others[2],
        values[3] if which[3] else others[3],
    )


@register_jitable
def take_won(values, winner, number, F):
    """Four numbers, and 0 for each whose winner is not ``number``."""
    which = winner[0] == number, winner[1] == number, winner[2] == number, winner[3] == number
    return select_four(which, values, (F(0), F(0), F(0), F(0)))


@register_jitable
def rectify_four(values, F):
    """ReLU; written so that NaN stays NaN."""
    negative = values[0] < F(0), values[1] < F(0), values[2] < F(0), values[3] < F(0)
    return select_four(negative, (F(0), F(0), F(0), F(0)), values)


@register_jitable
def keep_greater(best, winning, values, number):
    """The largest so far and their numbers, after ``values``, which all have this number; the first of equals stays."""
    which = values[0] > best[0], values[1] > best[1], values[2] > best[2], values[3] > best[3]
    return select_four(which, values, best), select_four(which, (number, number, number, number), winning)


@register_jitable
def count_row_threads(rows, channels):
    """Threads for every channel of a matrix (R, C), four rows each."""
    return (rows + FOUR - 1) // FOUR * channels


def threads_of_rows(*arguments) -> int:
    """Threads for the matrices (R, C) of a Twin's output (.., R, C)."""
    *matrices, rows, channels = arguments[-1].shape
    return math.prod(matrices) * count_row_threads(rows, channels)


@register_jitable
def find_rows(thread, count, channels):
    """The four rows of a thread in a matrix (count, channels), and its channel; the first row is beyond the matrix if
    there is nothing to do."""
    quarter, channel = divide(thread, channels)
    return choose_four(quarter * FOUR, 1, count), np.uint32(channel)


@register_jitable
def places_of_rows(shape, n, rows, channel):
    """Where a channel of four rows of a matrix is, the n-th of an array (N, R, C)."""
    return (
        multiply_add(multiply_add(n, shape[1], rows[0]), shape[2], channel),
        multiply_add(multiply_add(n, shape[1], rows[1]), shape[2], channel),
        multiply_add(multiply_add(n, shape[1], rows[2]), shape[2], channel),
        multiply_add(multiply_add(n, shape[1], rows[3]), shape[2], channel),
    )
