"""A matrix product on a GPU in three steps: c (R, N) = a (R, K) @ b (K, N). For reading and for the benchmarks.

An output takes K multiplications, and a GPU multiplies some twenty times faster than it reads. What decides is how
often a number that was read is used:

1. `matmul_simple`: a thread for each output reads its row of a and its column of b. Every number is used once.
2. `matmul_tiled`: 16 x 16 threads work together on 16 x 16 outputs. They walk along K by steps of 16. At each step
   every thread copies one number of a and one of b into memory that the block shares and that answers at once; then
   all of them need only those. Every number read is used 16 times. Two barriers a step: nobody multiplies before all
   have copied, and nobody copies the next before all have multiplied.
3. `matmul_blocked`: shared memory is fast, but two loads for one multiplication are still too many. Now a thread has
   4 x 4 outputs in its registers: at each k it loads four numbers of a and four of b for 16 multiplications, and the
   block's tile is 64 x 64, so a number from memory is used 64 times.

cuBLAS goes on from there: larger tiles for the chip at hand, loads of 16 bytes, the next step's copies on their way
while this one multiplies. The network multiplies with cuBLAS. On a CPU, registers and caches play the same parts:
`kernels.product`.

Where a tile hangs over the edge of a matrix, zeros are copied, and outputs that do not exist are not stored. So every
thread comes to every barrier; one that left early would let the others wait for ever.
"""

from numba.extending import register_jitable

from minimrcnn.kernels.compiled import compiled
from minimrcnn.kernels.twin import Twin, cuda

TILE = 16  # outputs of a block along each axis, and steps of k at a time
SIDE = 4  # outputs of a thread along each axis, in `matmul_blocked`
WIDE = TILE * SIDE


@register_jitable
def multiply_at(a, b, row, column):
    """One output."""
    total = a.dtype.type(0)
    for k in range(a.shape[1]):
        total += a[row, k] * b[k, column]
    return total


@compiled()
def matmul_cpu(a, b, c):
    """The definition: what all three CUDA bodies compute."""
    for row in range(c.shape[0]):
        for column in range(c.shape[1]):
            c[row, column] = multiply_at(a, b, row, column)


def matmul_simple_cuda(a, b, c):
    element = cuda.grid(1)
    if element < c.size:
        row, column = element // c.shape[1], element % c.shape[1]
        c[row, column] = multiply_at(a, b, row, column)


@register_jitable
def read(matrix, row, column):
    """A number of the matrix, 0 beyond its edge."""
    return matrix[row, column] if row < matrix.shape[0] and column < matrix.shape[1] else matrix.dtype.type(0)


def matmul_tiled_cuda(a, b, c):
    a_tile = cuda.shared.array((TILE, TILE), a.dtype)  # rows of c, steps of k
    b_tile = cuda.shared.array((TILE, TILE), b.dtype)  # steps of k, columns of c
    across = (c.shape[1] + TILE - 1) // TILE
    i, j = cuda.threadIdx.x // TILE, cuda.threadIdx.x % TILE  # neighboring threads: neighboring columns
    row, column = cuda.blockIdx.x // across * TILE + i, cuda.blockIdx.x % across * TILE + j
    total = c.dtype.type(0)
    for first in range(0, a.shape[1], TILE):
        a_tile[i, j] = read(a, row, first + j)
        b_tile[i, j] = read(b, first + i, column)
        cuda.syncthreads()
        for k in range(TILE):
            total += a_tile[i, k] * b_tile[k, j]
        cuda.syncthreads()
    if row < c.shape[0] and column < c.shape[1]:
        c[row, column] = total


def matmul_blocked_cuda(a, b, c):
    a_tile = cuda.shared.array((TILE, WIDE), a.dtype)  # steps of k, rows of c: a lies transposed
    b_tile = cuda.shared.array((TILE, WIDE), b.dtype)  # steps of k, columns of c
    sums = cuda.local.array((SIDE, SIDE), c.dtype)  # in registers: all loops over it have a length that is known
    across = (c.shape[1] + WIDE - 1) // WIDE
    top, left = cuda.blockIdx.x // across * WIDE, cuda.blockIdx.x % across * WIDE
    i, j = cuda.threadIdx.x // TILE, cuda.threadIdx.x % TILE  # has rows i, i + 16, .. and columns j, j + 16, ..
    for p in range(SIDE):
        for q in range(SIDE):
            sums[p, q] = 0
    for first in range(0, a.shape[1], TILE):
        for p in range(SIDE):
            a_tile[j, p * TILE + i] = read(a, top + p * TILE + i, first + j)
            b_tile[i, p * TILE + j] = read(b, first + i, left + p * TILE + j)
        cuda.syncthreads()
        for k in range(TILE):
            for p in range(SIDE):
                for q in range(SIDE):
                    sums[p, q] += a_tile[k, p * TILE + i] * b_tile[k, q * TILE + j]
        cuda.syncthreads()
    for p in range(SIDE):
        for q in range(SIDE):
            row, column = top + p * TILE + i, left + q * TILE + j
            if row < c.shape[0] and column < c.shape[1]:
                c[row, column] = sums[p, q]


def threads_for_tiles(side: int):
    """Threads for c, a block of 16 x 16 for each tile of ``side`` x ``side`` outputs."""
    return lambda a, b, c: -(-c.shape[0] // side) * -(-c.shape[1] // side) * TILE * TILE


# All three take (a (R, K), b (K, N), c (R, N)).
matmul_simple = Twin("matmul_simple", matmul_cpu, matmul_simple_cuda)
matmul_tiled = Twin("matmul_tiled", matmul_cpu, matmul_tiled_cuda, threads_for_tiles(TILE), block=TILE * TILE)
matmul_blocked = Twin("matmul_blocked", matmul_cpu, matmul_blocked_cuda, threads_for_tiles(WIDE), block=TILE * TILE)
