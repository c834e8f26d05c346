"""Matrix products, where nearly all of the time goes: y (R, N) = x (R, K) @ w (K, N).

A processor multiplies far faster than it reads, so a product is fast if every number that is read is used many times:

1. w is copied once into panels of 64 columns (`pack`), so that a row of a panel is four vectors side by side;
2. a tile of y, six rows by 64 columns, stays in 24 of the processor's vector registers while k goes from 0 to K. At
   each k, one row of the panel and six numbers of x are read: ten loads for 24 multiplications of 16 numbers each;
3. rows go by blocks of 192 and k by blocks of 384, so that they wait in the second-level cache for their turns. Down
   the columns of a matrix, as a weight's gradient reads, six numbers of x fetch a line of the cache at each k: by
   blocks of 128, so that the line is still in the first-level cache when the next six are wanted of it (the product
   alone is 1.1 times as fast, the gradient 1.03 times);
4. x comes from memory while the first panel goes by. Six rows in turns are more than a processor foresees, so the next
   six are fetched meanwhile, if rows lie side by side and have at most 384 numbers;
5. a row of x may be several runs of numbers, and rows may overlap (`multiply_runs`): so the patches of a map with few
   channels are multiplied where they lie.

The tile is written in the compiler's own language, LLVM, by `make_tile`, as Numba has no word for "this sum stays in a
register". Its Python twin beside it says what it computes, and is what a debugger steps into (NUMBA_DISABLE_JIT=1). The
rest is loops.

Why not BLAS: it copies x as well, which pays for large squares, not for the long and narrow products of a convolution;
and its threads would have to be told to stand aside. `python -m benchmarks.products` compares them.

A sum is made in the order of k, so it does not depend on the number of threads. After Goto and van de Geijn 2008,
Anatomy of High-Performance Matrix Multiplication.
"""

from __future__ import annotations

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import config, prange, types
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numpy.lib.stride_tricks import as_strided

from minimrcnn.kernels.compiled import compiled, compiled_task
from minimrcnn.kernels.instructions import declare_fused, locate, prefetch, spread
from minimrcnn.kernels.turn import turn
from minimrcnn.kernels.twin import Twin

ROWS = 6  # of a tile
VECTOR = 64  # bytes; a processor with shorter vectors takes two or four for one
BLOCK_ROWS = 192
BLOCK_DEPTH = 384
BLOCK_DEPTH_DOWN = 128  # where rows of x are read down the columns of a matrix
PACKED = 32  # rows of panels that are written at a time


def count_wide_vectors() -> int:
    """How many vectors side by side a wide tile has: what the registers hold, and only AVX-512 has 32 of 64 bytes."""
    if config.CPU_NAME is not None:  # Numba was told to compile for another processor
        has_avx512 = "+avx512f" in (config.CPU_FEATURES or "")
    else:
        has_avx512 = llvmlite.binding.get_host_cpu_features().get("avx512f", False)
    return 4 if has_avx512 else 1


WIDE = count_wide_vectors()


def make_tile(rows: int, vectors: int, fetches: bool = False):
    """The product of a tile for use in kernels; its size must be known to the compiler.

    With ``fetches`` x is one piece of memory, and its next rows are brought to the caches. From 256 to 64 channels at
    200x272 that takes 15.5 instead of 17.9 ms on one thread; for rows that are there already, it takes up to 6% more.
    """

    def tile(x, row, panel, add, column, y):
        """y[row : row + rows, column : column + width] = those rows of x (R, S, D) @ panel (S * D, width); += with
        ``add``."""
        target = y[row : row + rows, column : column + panel.shape[1]]
        product = x[row : row + rows].reshape(rows, -1) @ panel
        target[:] = target + product if add else product

    @intrinsic
    def compiled_tile(typing_context, x, row, panel, add, column, y):
        if not x.dtype == panel.dtype == y.dtype:
            raise TypingError(f"tile: x of {x.dtype}, panel of {panel.dtype}, y of {y.dtype}; wanted the same")
        signature = types.void(x, types.intp, panel, types.intp, types.intp, y)
        return signature, lambda *given: generate_tile(rows, vectors, fetches, *given)

    return tile if config.DISABLE_JIT else compiled_tile


def generate_tile(rows, vectors, fetches, context, builder, signature, arguments):
    """The instructions of a tile: a loop over s, in it one over d, whose sums are values, not places in memory."""
    x, row, panel, add, column, y = arguments
    x_type, panel_type, y_type = (signature.args[i] for i in (0, 2, 5))
    x = context.make_array(x_type)(context, builder, x)
    panel = context.make_array(panel_type)(context, builder, panel)
    y = context.make_array(y_type)(context, builder, y)
    number = context.get_value_type(y_type.dtype)  # float or double, in LLVM's words
    itemsize = y_type.dtype.bitwidth // 8
    lanes = VECTOR // itemsize
    integer, vector = ir.IntType(64), ir.VectorType(number, lanes)
    fused = declare_fused(builder, vector)

    def locate_vectors(array, i, j):
        """Those of ``vectors`` vectors side by side, from array[i, j] on."""
        return [locate(builder, array, vector, i, builder.add(j, integer(v * lanes))) for v in range(vectors)]

    def choose(given, block, others, other_block):
        """Values that depend on the block one comes from."""
        chosen = []
        for one, other in zip(given, others, strict=True):
            chosen.append(builder.phi(vector))
            chosen[-1].add_incoming(one, block)
            chosen[-1].add_incoming(other, other_block)
        return chosen

    def begin_loop(block, totals):
        """(block, index, sums) of a loop that is entered from here: 0, then what `end_loop` says."""
        before = builder.block
        builder.branch(block)
        builder.position_at_end(block)
        index, sums = builder.phi(integer), [builder.phi(vector) for _ in totals]
        index.add_incoming(integer(0), before)
        for one, total in zip(sums, totals, strict=True):
            one.add_incoming(total, before)
        return block, index, sums

    def end_loop(loop, count, totals):
        """Once more while the index is below ``count``."""
        block, index, sums = loop
        following = builder.add(index, integer(1))
        index.add_incoming(following, builder.block)
        for one, total in zip(sums, totals, strict=True):
            one.add_incoming(total, builder.block)
        after = builder.append_basic_block()
        builder.cbranch(builder.icmp_signed("<", following, count), block, after)
        builder.position_at_end(after)

    own_rows = [builder.add(row, integer(r)) for r in range(rows)]
    runs, depth = (builder.extract_value(x.shape, axis) for axis in (1, 2))
    names = "over runs", "over depth", "adding", "storing"
    over_runs, over_depth, adding, storing = (builder.append_basic_block(name) for name in names)

    outer = begin_loop(over_runs, [ir.Constant(vector, None)] * (rows * vectors))  # for s in range(S):
    inner = begin_loop(over_depth, outer[2])  # for d in range(D):
    (_, s, _), (_, d, sums) = outer, inner
    k = builder.add(builder.mul(s, depth), d)
    weights = [builder.load(place, align=itemsize) for place in locate_vectors(panel, k, integer(0))]
    if fetches:  # a place further by so many numbers in every turn, which is all of these rows in the end
        prefetch(builder, locate(builder, x, number, builder.add(row, integer(rows)), 0, builder.mul(k, integer(rows))))
    grown = []
    for r in range(rows):
        value = spread(builder, builder.load(locate(builder, x, number, own_rows[r], s, d)), lanes)
        for v in range(vectors):
            grown.append(builder.call(fused, [value, weights[v], sums[r * vectors + v]]))
    end_loop(inner, depth, grown)
    end_loop(outer, runs, grown)
    leaving = builder.block

    places = [place for one in own_rows for place in locate_vectors(y, one, column)]
    builder.cbranch(builder.icmp_signed("!=", add, integer(0)), adding, storing)

    builder.position_at_end(adding)  # if add:
    added = [builder.fadd(builder.load(place, align=itemsize), more) for place, more in zip(places, grown, strict=True)]
    builder.branch(storing)

    builder.position_at_end(storing)
    for place, value in zip(places, choose(grown, leaving, added, adding), strict=True):
        builder.store(value, place, align=itemsize)
    return context.get_dummy_value()


wide_tile, wide_fetching_tile, wide_row = make_tile(ROWS, WIDE), make_tile(ROWS, WIDE, fetches=True), make_tile(1, WIDE)
narrow_tile, narrow_fetching_tile, narrow_row = make_tile(ROWS, 1), make_tile(ROWS, 1, fetches=True), make_tile(1, 1)


def panel_width(columns: int, itemsize: int) -> int:
    """Columns of a panel: a wide tile's, or one vector's if that would be mostly empty."""
    narrow = VECTOR // itemsize
    return WIDE * narrow if 2 * columns > WIDE * narrow else narrow


def panels_shape(inner: int, columns: int, itemsize: int) -> tuple[int, int, int]:
    """(P, K, width) of the panels of a matrix (K, N)."""
    width = panel_width(columns, itemsize)
    return -(-columns // width), inner, width


@compiled_task
def pack_rows(matrix, start, columns, first, last, panels):
    """panels[:, first:last] = those rows of matrix[:, start : start + columns], zeros where a panel is wider."""
    width = panels.shape[2]
    for k in range(first, last):
        for p in range(len(panels)):
            target, column = panels[p, k], p * width
            some = min(width, columns - column)
            source = matrix[k, start + column : start + column + some]
            for c in range(some):
                target[c] = source[c]
            for c in range(some, width):
                target[c] = 0


@compiled_task
def pack_columns(matrix, scale, start, row, panel):
    """panel (K, width) = (matrix * scale)[row : row + width, start : start + K]', zeros where there are no rows."""
    inner, width = panel.shape
    some = min(width, len(matrix) - row)
    turn(matrix[row : row + some, start : start + inner], panel[:, :some])
    for k in range(inner):
        if scale.size:
            for c in range(some):
                panel[k, c] *= scale[start + k]
        for c in range(some, width):
            panel[k, c] = 0


@compiled_task
def scale_packed(scale, start, columns, first, last, panels):
    """panels[:, first:last] times scale[start : start + columns], a factor for each column of the matrix."""
    width = panels.shape[2]
    for k in range(first, last):
        for p in range(len(panels)):
            column = p * width
            some = min(width, columns - column)
            factors, target = scale[start + column : start + column + some], panels[p, k]
            for c in range(some):
                target[c] *= factors[c]


@compiled_task
def pack(matrix, panels):
    """panels (P, K, width) = matrix (K, N), by one thread."""
    pack_rows(matrix, np.int64(0), np.int64(matrix.shape[1]), np.int64(0), np.int64(len(matrix)), panels)


@compiled(parallel=True)
def pack_weight_cpu(weight, scale, turned, panels):
    """panels (groups, T, P, K, width) of weight (T, I, O) * scale (O,): of the columns of each group, transposed if
    ``turned``. An empty scale is none.

    The weight is read along its rows, a page of memory after the other: written panel by panel, one that is not
    transposed took three times as long.
    """
    groups, taps, count, inner, width = panels.shape
    columns = weight.shape[2] // groups
    pieces = count if turned else (inner + PACKED - 1) // PACKED
    for task in prange(groups * taps * pieces):
        g, t, piece = np.int64(task) // (taps * pieces), np.int64(task) // pieces % taps, np.int64(task) % pieces
        if turned:
            pack_columns(weight[t], scale, g * columns, piece * width, panels[g, t, piece])
        else:
            first = piece * PACKED
            last = min(first + PACKED, inner)
            pack_rows(weight[t], g * columns, columns, first, last, panels[g, t])
            if scale.size:
                scale_packed(scale, g * columns, columns, first, last, panels[g, t])


pack_weight = Twin("pack_weight", pack_weight_cpu)


@compiled_task
def multiply_tiles(x, panel, add, fetch, column, y):
    """y[:, column : column + width] = or += x (R, S, D) @ panel (S * D, width), all of it."""
    is_wide = panel.shape[1] * panel.itemsize > VECTOR
    whole = len(x) // ROWS * ROWS
    for row in range(0, whole, ROWS):
        if is_wide and fetch:
            wide_fetching_tile(x, row, panel, add, column, y)
        elif is_wide:
            wide_tile(x, row, panel, add, column, y)
        elif fetch:
            narrow_fetching_tile(x, row, panel, add, column, y)
        else:
            narrow_tile(x, row, panel, add, column, y)
    for row in range(whole, len(x)):
        if is_wide:
            wide_row(x, row, panel, add, column, y)
        else:
            narrow_row(x, row, panel, add, column, y)


@compiled_task
def multiply_panel(x, panel, add, fetch, column, y):
    """The same, but for columns that y does not have."""
    width = panel.shape[1]
    columns = min(width, y.shape[1] - column)
    if columns == width:
        multiply_tiles(x, panel, add, fetch, column, y)
        return
    product = np.empty((len(x), width), y.dtype)
    multiply_tiles(x, panel, np.int64(0), fetch, np.int64(0), product[:, :])
    for row in range(len(x)):
        source, target = product[row], y[row, column : column + columns]
        for c in range(columns):
            target[c] = target[c] + source[c] if add else source[c]


@compiled_task
def multiply_runs(x, panels, add, y):
    """y (R, N) = x (R, S, D) @ w, or += if ``add`` is np.int64(1), for panels (P, S * D, width) of w.

    A row of x is S runs of D numbers, as a patch of a map has them: rows may overlap. S and D are at least 1. A row of
    y is contiguous.
    """
    runs, depth = x.shape[1], x.shape[2]
    deepest = BLOCK_DEPTH_DOWN if x.strides[0] == x.itemsize else BLOCK_DEPTH
    together = max(1, deepest // depth)  # runs
    for first in range(0, len(x), BLOCK_ROWS):
        target = y[first : first + BLOCK_ROWS, :]
        for s in range(0, runs, together):
            for d in range(0, depth, deepest):
                some = x[first : first + BLOCK_ROWS, s : s + together, d : d + deepest]
                k, more = s * depth + d, some.shape[1] * some.shape[2]
                is_piece = some.shape[1] == 1 and some.strides[0] == some.shape[2] * some.itemsize
                for p in range(len(panels)):
                    panel, column = panels[p, k : k + more, :], np.int64(p * panels.shape[2])
                    multiply_panel(some, panel, add if k == 0 else np.int64(1), is_piece and p == 0, column, target)


@compiled_task
def multiply(x, panels, add, y):
    """The same with x (R, K), of one run; all go on as views, so that it is compiled once for all callers."""
    one_run = as_strided(x, (x.shape[0], 1, x.shape[1]), (x.strides[0], 0, x.strides[1]))
    multiply_runs(one_run, panels[:, :, :], add, y[:, :])
