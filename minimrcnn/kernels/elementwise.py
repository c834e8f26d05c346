"""Loops over every number of a large map, for which NumPy would use one thread, or not stop where it could."""

from numba import prange
from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.four import FOUR, choose_four, read_places, select_four, write_places
from minimrcnn.kernels.twin import WARP, Twin, cuda

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


@register_jitable
def count_quarter(size):
    """Threads that take four numbers each, in whole warps, so that what a warp reads at a time begins where a piece of
    memory does."""
    return (size + FOUR * WARP - 1) // (FOUR * WARP) * WARP


def relu_gradient_cuda(y_gradient, y, x_gradient):
    """Four numbers for each thread, a quarter of the array from one to the next."""
    quarter, first = count_quarter(x_gradient.size), cuda.grid(1)
    if first < quarter and first < x_gradient.size:
        F = y.dtype.type
        four = choose_four(first, quarter, x_gradient.size)
        a, b, c, d = read_places(y, four)
        which = a > F(0), b > F(0), c > F(0), d > F(0)
        write_places(select_four(which, read_places(y_gradient, four), (F(0), F(0), F(0), F(0))), four, x_gradient)


# relu_gradient(y_gradient (n,), y (n,), x_gradient (n,))
relu_gradient = Twin(
    "relu_gradient", relu_gradient_cpu, relu_gradient_cuda, threads=lambda *arguments: count_quarter(arguments[-1].size)
)
