"""Four numbers for each CUDA thread: four channels of a cell, or four rows of a channel.

Where a cell is, what lies around it and how much that counts is the same for all of its channels, and finding it out
takes a thread longer than the sum of a few numbers. So a thread takes four channels of a cell, and its neighbors the
channels between, so that what they read at a time still lies side by side:

    12 channels      0  1  2  3  4  5  6  7  8  9 10 11
    3 lanes          0  1  2  0  1  2  0  1  2  0  1  2

A cell of more than 128 channels has 32 lanes, which take 128 channels after the other. Where a number only depends on
its row and channel, a thread takes four rows of a channel. Either way four loads are on their way at a time: memory is
slow to answer, and quick once it does. Where less than four are left, the first stands in for those that are missing:
it is computed and written again, with the same result.

The four are tuples and spelled out: an array that is indexed in a loop would live in the GPU's memory. On an H200,
RoIAlign took 0.28 ms a prediction instead of 0.70 with a number each, and the epilogues of convolutions 0.56 instead
of 1.54.
"""

import math

import numpy as np
from numba.extending import register_jitable

from minimrcnn.kernels.twin import WARP

FOUR = 4


@register_jitable
def divide(a, b):
    """Quotient and rest of two numbers that 32 bits can hold: a GPU takes five times as many instructions for 64."""
    a, b = np.uint32(a), np.uint32(b)
    return np.int64(a // b), np.int64(a % b)


@register_jitable
def count_lanes(channels):
    """Threads of a cell."""
    needed = (channels + FOUR - 1) // FOUR
    return needed if needed < WARP else WARP


def threads_of_cells(array) -> int:
    """Threads for every cell of an array (..., C)."""
    channels = array.shape[-1]
    return array.size // channels * count_lanes(channels)


@register_jitable
def find_lane(thread, channels):
    """The cell of a thread, its lane and the cell's lanes."""
    lanes = count_lanes(channels)
    cell, lane = divide(thread, lanes)
    return cell, lane, lanes


@register_jitable
def find_cell(cell, shape):
    """The first three indices of a cell of an array (N, H, W, C), C-contiguous; one too large a first is beyond it."""
    row, column = divide(cell, shape[2])
    n, row = divide(row, shape[1])
    return n, row, column


@register_jitable
def choose_four(first, lanes, channels):
    """The four channels from ``first`` on. Without sign: nobody has to ask whether they count from the end."""
    second, third, fourth = first + lanes, first + 2 * lanes, first + 3 * lanes
    return (
        np.uint32(first),
        np.uint32(second if second < channels else first),
        np.uint32(third if third < channels else first),
        np.uint32(fourth if fourth < channels else first),
    )


@register_jitable
def read_four(x, n, row, column, four):
    """The numbers of four channels of x (N, H, W, C); the place must be inside."""
    cell = x[np.uint32(n), np.uint32(row), np.uint32(column)]
    return cell[four[0]], cell[four[1]], cell[four[2]], cell[four[3]]


@register_jitable
def write_four(values, four, n, row, column, y):
    """The numbers of four channels, into y (N, H, W, C)."""
    cell = y[np.uint32(n), np.uint32(row), np.uint32(column)]
    cell[four[0]], cell[four[1]], cell[four[2]], cell[four[3]] = values[0], values[1], values[2], values[3]


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
def take_won(values, winner, number, F):
    """Four numbers, and 0 for each whose winner is not ``number``."""
    return (
        values[0] if winner[0] == number else F(0),
        values[1] if winner[1] == number else F(0),
        values[2] if winner[2] == number else F(0),
        values[3] if winner[3] == number else F(0),
    )


@register_jitable
def count_row_threads(rows, channels):
    """Threads for every channel of a matrix (R, C), four rows each."""
    return (rows + FOUR - 1) // FOUR * channels


def threads_of_rows(array) -> int:
    """Threads for the matrices (R, C) of an array (.., R, C)."""
    return math.prod(array.shape[:-2]) * count_row_threads(*array.shape[-2:])


@register_jitable
def find_rows(thread, count, channels):
    """The four rows of a thread in a matrix (count, channels), and its channel.

    In place of a row that is not there comes the first, which itself is beyond the matrix if there is nothing to do.
    """
    thread, count, channels = np.uint32(thread), np.uint32(count), np.uint32(channels)
    first, channel = np.uint32(thread // channels) * np.uint32(FOUR), np.uint32(thread % channels)
    second, third, fourth = first + np.uint32(1), first + np.uint32(2), first + np.uint32(3)
    rows = (
        np.uint32(first),
        np.uint32(second if second < count else first),
        np.uint32(third if third < count else first),
        np.uint32(fourth if fourth < count else first),
    )
    return rows, np.uint32(channel)


@register_jitable
def read_rows(matrix, rows, channel):
    """A channel's numbers in four rows."""
    return matrix[rows[0], channel], matrix[rows[1], channel], matrix[rows[2], channel], matrix[rows[3], channel]


@register_jitable
def write_rows(values, rows, channel, matrix):
    """A channel's numbers, into four rows."""
    matrix[rows[0], channel], matrix[rows[1], channel] = values[0], values[1]
    matrix[rows[2], channel], matrix[rows[3], channel] = values[2], values[3]


@register_jitable
def rectify_four(values, F):
    """ReLU; written so that NaN stays NaN."""
    return (
        F(0) if values[0] < F(0) else values[0],
        F(0) if values[1] < F(0) else values[1],
        F(0) if values[2] < F(0) else values[2],
        F(0) if values[3] < F(0) else values[3],
    )


@register_jitable
def keep_greater(best, winning, values, number):
    """The largest so far and their numbers, after ``values``, which all have this number; the first of equals stays."""
    a, b, c, d = values[0] > best[0], values[1] > best[1], values[2] > best[2], values[3] > best[3]
    return (
        values[0] if a else best[0],
        values[1] if b else best[1],
        values[2] if c else best[2],
        values[3] if d else best[3],
    ), (
        number if a else winning[0],
        number if b else winning[1],
        number if c else winning[2],
        number if d else winning[3],
    )
