"""Loops over every number of a large map, for which NumPy would use one thread, or not stop where it could."""

from numba import prange

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.four import FOUR, choose_four, read_cell, select_four, write_cell
from minimrcnn.kernels.twin import Twin, cuda

CHUNK = 16384  # numbers a task takes: enough to be worth it, few enough to share well


@compiled()
def find_nonzero_rows(rows, found):
    """Write the indices of those rows (R, C) that are not all 0 to ``found``; their count, or -1 if there is no room.

    Most maps have no zeros to speak of, and are done after a look at the first number of as many rows as there is room.
    """
    count = 0
    for r in range(len(rows)):
        row = rows[r]
        for c in range(row.size):
            if row[c] != 0:  # or not a number
                if count == found.size:
                    return -1
                found[count] = r
                count += 1
                break
    return count


@compiled_task
def keep_positive(y_gradient, y, x_gradient):
    for i in range(y.size):
        x_gradient[i] = y_gradient[i] if y[i] > 0 else 0


@compiled(parallel=True)
def relu_gradient_cpu(y_gradient, y, x_gradient):
    """x_gradient = y_gradient where y > 0, else 0; all (size,)."""
    for chunk in prange((y.size + CHUNK - 1) // CHUNK):
        some = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, y.size))
        keep_positive(y_gradient[some], y[some], x_gradient[some])


def relu_gradient_cuda(y_gradient, y, x_gradient):
    """Four numbers for each thread."""
    first = cuda.grid(1) * FOUR
    if first < x_gradient.size:
        F, four = y.dtype.type, choose_four(first, 1, x_gradient.size)
        a, b, c, d = read_cell(y, 0, four)
        which = a > F(0), b > F(0), c > F(0), d > F(0)
        write_cell(select_four(which, read_cell(y_gradient, 0, four), (F(0), F(0), F(0), F(0))), four, 0, x_gradient)


# relu_gradient(y_gradient (n,), y (n,), x_gradient (n,))
relu_gradient = Twin(
    "relu_gradient", relu_gradient_cpu, relu_gradient_cuda, threads=lambda *arguments: -(-arguments[-1].size // FOUR)
)
