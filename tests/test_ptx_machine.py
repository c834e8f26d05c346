"""`benchmarks.ptx`, which runs compiled CUDA kernels: what instructions mean, and what it finds out about accesses."""

from __future__ import annotations

import operator
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.ptx import Counts, Fault, MachineKernel, Unknown, kernel, machine
from benchmarks.ptx.machine import run
from benchmarks.ptx.memory import Grid, Memory, Region
from benchmarks.ptx.program import DTYPES, parse
from minimrcnn.kernels.places import read_fours
from minimrcnn.kernels.twin import cuda

pytestmark = pytest.mark.usefixtures("cuda_compiler")


# What instructions mean, by Python's own numbers.


def calculate(instructions: str, kind: str, numbers, result: str):
    """What instructions on the registers %a, %b and %c of one thread leave in %d."""
    names = "abc"[: len(numbers)]
    sort = {name: f".reg .{'f' if name[0] == 'f' else 'b'}{DTYPES[name].itemsize * 8}" for name in (kind, result)}
    ptx = f"""
    .visible .entry one({", ".join(f".param .u64 one_{name}" for name in names + "d")})
    {{
        {" ".join(f"{sort[kind]} %{name}<1>;" for name in names)} {sort[result]} %d<1>;
        .reg .pred %p<1>; .reg .b64 %at<4>;
        {" ".join(f"ld.param.u64 %at{i}, [one_{name}];" for i, name in enumerate(names + "d"))}
        {" ".join(f"ld.global.{kind} %{name}, [%at{i}];" for i, name in enumerate(names))}
        {instructions}
        st.global.{result} [%at{len(names)}], %d;
        ret;
    }}"""
    arrays = [*(np.array([number], DTYPES[kind]) for number in numbers), np.zeros(1, DTYPES[result])]
    memory = Memory(Grid(1, 1))
    words = [memory.add(Region("array", array.view(np.uint8), array.itemsize)) for array in arrays]
    run(parse(ptx), np.array(words, np.uint64).tobytes(), memory)
    return arrays[-1][0].item()


INTEGERS = {
    "add.{0}": lambda a, b, bits: a + b,
    "sub.{0}": lambda a, b, bits: a - b,
    "mul.lo.{0}": lambda a, b, bits: a * b,
    "mul.hi.{0}": lambda a, b, bits: (a * b) >> bits,
    "div.{0}": lambda a, b, bits: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    "rem.{0}": lambda a, b, bits: abs(a) % abs(b) * (-1 if a < 0 else 1),
    "min.{0}": lambda a, b, bits: min(a, b),
    "max.{0}": lambda a, b, bits: max(a, b),
    "and.b{1}": lambda a, b, bits: a & b,
    "or.b{1}": lambda a, b, bits: a | b,
    "xor.b{1}": lambda a, b, bits: a ^ b,
    "shl.b{1}": lambda a, b, bits: a << b,
    "shr.{0}": lambda a, b, bits: a >> b,
}
FLOATS = {
    "add.f32": lambda a, b: a + b,
    "sub.f32": lambda a, b: a - b,
    "mul.rn.f32": lambda a, b: a * b,
    "div.rn.f32": lambda a, b: a / b if b else np.float64(a) / b,
    "min.f32": lambda a, b: b if a != a else a if b != b else min(a, b, key=lambda x: (x, np.copysign(1, x))),
    "max.f32": lambda a, b: b if a != a else a if b != b else max(a, b, key=lambda x: (x, np.copysign(1, x))),
}
COMPARISONS = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
               "ge": operator.ge}  # fmt: skip
EDGES = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 1e-40,
         *(sign * 2.0**n for n in (31, 32, 63, 64) for sign in (1, -1))]  # fmt: skip
floats = st.floats(width=32) | st.sampled_from([float(np.float32(x)) for x in EDGES])


def draw_integers(kind: str):
    ends = np.iinfo(DTYPES[kind])
    least, most = int(ends.min), int(ends.max)
    return st.integers(least, most) | st.integers(max(-9, least), 99) | st.sampled_from([least, most])


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("instruction", INTEGERS)
@given(st.data())
def test_integers(instruction, kind, data):
    a, b = data.draw(draw_integers(kind)), data.draw(draw_integers(kind))
    bits = int(kind[1:])
    if instruction[:3] in ("shl", "shr"):
        b %= 100
    if instruction[:3] in ("div", "rem"):
        b = b or 1
    wanted = INTEGERS[instruction](a, b, bits) % 2**bits
    assert calculate(f"{instruction.format(kind, bits)} %d, %a, %b;", kind, [a, b], kind) % 2**bits == wanted


@pytest.mark.parametrize("instruction", FLOATS)
@given(floats, floats)
def test_floats(instruction, a, b):
    with np.errstate(all="ignore"):
        wanted = np.float32(FLOATS[instruction](a, b))
    assert is_same(calculate(f"{instruction} %d, %a, %b;", "f32", [a, b], "f32"), wanted)


def is_same(a, b) -> bool:
    """To the last bit, and the sign of a zero."""
    a, b = np.float32(a), np.float32(b)
    return bool(np.isnan(a) and np.isnan(b)) or a.view(np.uint32) == b.view(np.uint32)


@given(floats, floats, floats)
@example(1 + 2**-12, 1 - 2**-12, -1.0)  # all of it is lost where the product is rounded
def test_a_fused_sum_is_rounded_once(a, b, c):
    with np.errstate(all="ignore"):
        wanted = np.float32(np.float64(a) * np.float64(b) + np.float64(c))
    assert is_same(calculate("fma.rn.f32 %d, %a, %b, %c;", "f32", [a, b, c], "f32"), wanted)


@pytest.mark.parametrize("name", COMPARISONS)
@given(st.data())
def test_comparisons(name, data):
    """An unordered one ("ltu") holds where there is a NaN, an ordered one does not."""
    kind = data.draw(st.sampled_from(["s32", "u64", "f32"]))
    a, b = data.draw(st.tuples(floats, floats) if kind == "f32" else st.tuples(*[draw_integers(kind)] * 2))
    is_ordered = a == a and b == b
    for ending in ("", "u") if kind == "f32" else ("",):
        lines = f"setp.{name}{ending}.{kind} %p0, %a, %b; selp.u32 %d, 1, 0, %p0;"
        wanted = COMPARISONS[name](a, b) if is_ordered else ending == "u"
        assert calculate(lines, kind, [a, b], "u32") == wanted


@given(floats)
def test_floats_become_integers(x):
    """Cut off, and brought into the range; of NaN the highest bit, if either has 64 bits, and else 0."""
    for kind in ("s32", "u32", "s64", "u64"):
        ends = np.iinfo(DTYPES[kind])
        least, most = int(ends.min), int(ends.max)
        for of in ("f32", "f64"):
            if x != x:
                wanted = 0 if (kind[1:], of) == ("32", "f32") else least or 1 << int(kind[1:]) - 1
            elif np.isinf(x):
                wanted = most if x > 0 else least
            else:
                wanted = max(least, min(most, int(x)))
            assert calculate(f"cvt.rzi.{kind}.{of} %d, %a;", of, [x], kind) == wanted


def test_a_float_is_written_by_its_bits():
    assert calculate("mov.b32 %d, 0f3F800000;", "u32", [0], "u32") == 0x3F800000
    assert calculate("mov.f32 %d, 0fBFC00000;", "f32", [0.0], "f32") == -1.5


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_numbers_get_wider(a, b):
    assert calculate("mul.wide.s32 %d, %a, %b;", "s32", [a, b], "s64") == a * b
    assert calculate("cvt.s64.s32 %d, %a;", "s32", [a], "s64") == a
    assert calculate("cvt.u64.u32 %d, %a;", "s32", [a], "u64") == a % 2**32
    assert calculate("cvt.u32.u64 %d, %a;", "s64", [a * b], "u32") == a * b % 2**32
    assert calculate("popc.b32 %d, %a;", "u32", [a % 2**32], "u32") == (a % 2**32).bit_count()
    assert calculate("clz.b32 %d, %a;", "u32", [a % 2**32], "u32") == 32 - (a % 2**32).bit_length()
    assert calculate("cvt.rn.f32.s64 %d, %a;", "s64", [a], "f32") == np.float32(a)


@pytest.mark.parametrize(
    "instruction",
    ["sin.approx.f32 %d, %a", "add.ftz.f32 %d, %a, %b", "cvt.sat.f32.f32 %d, %a", "mul.hi.f32 %d, %a, %b",
     "add.f16 %d, %a, %b", "setp.eq.ftz.f32 %p0, %a, %b", "mul.rz.f32 %d, %a, %b",
     "bar.warp.sync -1", "mov.b32 %d, {%a, %b}", "mov.u32 %d, %clock", "membar.gl"],
)  # fmt: skip
def test_what_is_not_known_is_refused(instruction):
    with pytest.raises(Unknown, match=re.escape(instruction)):
        calculate(f"{instruction};", "f32", [1.0, 2.0], "f32")


def test_a_division_by_zero_is_a_fault():
    with pytest.raises(Fault, match="divided by zero; in div.u32 %d, %a, %b"):
        calculate("div.u32 %d, %a, %b;", "u32", [1, 0], "u32")


# What must not be done, and what may.

BLOCK = 64


def reads_beyond(x, y):
    i = cuda.grid(1)
    y[i] = x[i + 1]


def has_no_barrier(x, y):
    shared, thread = cuda.shared.array(BLOCK, np.float32), cuda.threadIdx.x
    shared[thread] = x[cuda.grid(1)]
    y[cuda.grid(1)] = shared[BLOCK - 1 - thread]


def has_a_barrier(x, y):
    shared, thread = cuda.shared.array(BLOCK, np.float32), cuda.threadIdx.x
    shared[thread] = x[cuda.grid(1)]
    cuda.syncthreads()
    y[cuda.grid(1)] = shared[BLOCK - 1 - thread]


def writes_too_early(x, y):
    shared, thread = cuda.shared.array(BLOCK, np.float32), cuda.threadIdx.x
    shared[thread] = x[cuda.grid(1)]
    cuda.syncthreads()
    value = shared[BLOCK - 1 - thread]
    shared[thread] = value + value
    cuda.syncthreads()
    y[cuda.grid(1)] = shared[thread]


def reads_what_nobody_wrote(x, y):
    shared, thread = cuda.shared.array(BLOCK, np.float32), cuda.threadIdx.x
    if thread > 0:
        shared[thread] = x[cuda.grid(1)]
    cuda.syncthreads()
    y[cuda.grid(1)] = shared[BLOCK - 1 - thread]


def all_write_one(x, y):
    y[0] = x[cuda.grid(1)]


def blocks_share(x, y):
    """A barrier orders the threads of a block, not those of two."""
    i = cuda.grid(1)
    y[i] = x[i]
    cuda.syncthreads()
    y[i] = y[i] + y[(i + BLOCK) % len(y)]


def all_add(x, y):
    cuda.atomic.add(y, 0, x[cuda.grid(1)])


def one_reads_what_all_add(x, y):
    i = cuda.grid(1)
    cuda.atomic.add(y, 0, x[i])
    y[1 + i // BLOCK] = y[0]


def some_do_not_come(x, y):
    if cuda.threadIdx.x < 3:
        return
    y[cuda.grid(1)] = x[cuda.grid(1)]
    cuda.syncthreads()
    x[cuda.grid(1)] = y[(cuda.threadIdx.x + 1) % BLOCK]


def leaves_its_part(x, y):
    shared, thread = cuda.shared.array(BLOCK, np.float32), np.uint64(cuda.threadIdx.x)
    shared[thread] = x[cuda.grid(1)]
    cuda.syncthreads()
    y[cuda.grid(1)] = shared[thread + np.uint64(1)]


def never_ends(x, y):
    k = 0
    while k < 10:
        if x[cuda.grid(1)] < 0:
            k += 1
    y[0] = k


def writes_before(x, y):
    i = np.uint64(cuda.grid(1))
    y[i - np.uint64(1)] = x[i]


def reads_four_from_anywhere(x, y):
    numbers = read_fours(x, np.uint32(cuda.threadIdx.x))
    y[cuda.grid(1)] = numbers[0] + numbers[3]


def draws_numbers(x, y):
    y[cuda.grid(1)] = cuda.atomic.add(x, 0, 1)  # what was there before


def finds_the_largest(x, y):
    cuda.atomic.max(y, 0, x[cuda.grid(1)])


HERE = r"in test_ptx_machine.py, line \d+ \(.*\)"
FAULTS = {
    reads_beyond: f"thread 63 of block 1 reads number 128 of x, which has 128; {HERE}",
    writes_before: "thread 0 of block 0 writes 4 bytes before the beginning of y",
    leaves_its_part: "thread 63 of block 0 reads number 64 of shared array 1, which has 64",
    has_no_barrier: "reads number 63 of shared array 1, which (nobody has written before|thread 63 of block 0 writes: "
    "there is no cuda.syncthreads.. between that both pass)",
    writes_too_early: "writes number 0 of shared array 1, which thread 63 of block 0 reads: there is no cuda.sync",
    reads_what_nobody_wrote: "thread 63 of block 0 reads number 0 of shared array 1, which nobody has written before",
    all_write_one: "thread 0 of block 0 writes number 0 of y, which thread 63 of block 1 writes at the same time",
    blocks_share: "thread 0 of block 0 reads number 64 of y, which thread 0 of block 1 writes: nothing says which",
    one_reads_what_all_add: "thread 0 of block 0 reads number 0 of y, which thread 63 of block 1 changes: nothing says",
    some_do_not_come: "thread 3 of block 0 waits at test_ptx_machine.py, line .*, and thread 0 of block 0 has ended",
    reads_four_from_anywhere: "a thread wants 4 numbers at once, from an address that is no multiple of their bytes",
    never_ends: f"thread 0 of block 0 still runs after 1000 instructions; {HERE}",
}


def launch(body) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.arange(2 * BLOCK, dtype=np.float32), np.zeros(2 * BLOCK, np.float32)
    MachineKernel(body)[2, BLOCK](x, y)
    return x, y


@pytest.mark.parametrize("body", FAULTS, ids=lambda body: body.__name__)
def test_a_fault_is_found(body, monkeypatch):
    monkeypatch.setattr(machine, "LONGEST", 1000)
    with pytest.raises(Fault, match=f"^{body.__name__}: .*{FAULTS[body]}"):
        launch(body)


def test_what_is_in_order():
    x, y = launch(has_a_barrier)
    assert np.array_equal(y.reshape(2, BLOCK), x.reshape(2, BLOCK)[:, ::-1])
    x, y = launch(all_add)
    assert y[0] == x.sum()
    x, y = launch(finds_the_largest)
    assert y[0] == x.max()
    x, y = launch(draws_numbers)
    assert sorted(y) == list(range(2 * BLOCK))


def test_views_of_one_array_are_one():
    """What lies between them is theirs, what lies around them is not."""
    x = np.arange(3 * BLOCK, dtype=np.float32)
    with pytest.raises(Fault, match="reads number 0 of y or x|number 1 of x or y, which thread"):
        MachineKernel(reads_beyond)[1, BLOCK](x, x[:-1])
    with pytest.raises(Fault, match=f"reads number {BLOCK} of x, which has {BLOCK}"):
        MachineKernel(reads_beyond)[1, BLOCK](x[:BLOCK], np.zeros(BLOCK, np.float32))
    for one, other in (
        (x, np.lib.stride_tricks.as_strided(x, (BLOCK,), (4,))),
        (np.frombuffer(x.data, np.float32), np.frombuffer(x.data, np.float32)),
    ):
        with pytest.raises(Fault, match="which thread"):
            MachineKernel(reads_beyond)[1, BLOCK](one, other)
    with pytest.raises(ValueError, match="x and y are the same memory with numbers of different sizes"):
        MachineKernel(copies)[1, BLOCK](x, x.view(np.float64))
    x.flags.writeable = False
    with pytest.raises(Fault, match="writes number 0 of y, which is read-only"):
        MachineKernel(copies)[1, BLOCK](np.zeros(BLOCK, np.float32), x)


def reads_the_row_before(x, other, y):
    i = cuda.grid(1)
    y[i] = x[1, np.uint32(np.int64(i // 64) - 1), i % 4]


@pytest.mark.parametrize("channels", [4, 64, 256])
def test_an_index_that_was_to_be_negative_is_in_no_array(channels):
    x, other = np.zeros((2, 3, channels), np.float32), np.full(10**5, 777, np.float32)
    with pytest.raises(Fault, match="reads"):
        MachineKernel(reads_the_row_before)[1, BLOCK](x, other, np.zeros(BLOCK, np.float32))


def is_aligned_to_more(x, y):
    shared, thread = cuda.shared.array(BLOCK, np.float32, alignment=16), cuda.threadIdx.x
    shared[thread] = x[thread]
    y[thread] = shared[thread]


def test_shared_numbers_whose_size_is_not_known():
    with pytest.raises(Unknown, match="aligned to more than its numbers"):
        MachineKernel(is_aligned_to_more)[1, BLOCK](np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32))


def copies(x, y):
    y[cuda.grid(1)] = x[cuda.grid(1)]


def transposes(x, y):
    tile = cuda.shared.array((8, 9), np.float32)
    tile[cuda.threadIdx.y, cuda.threadIdx.x] = x[cuda.grid(2)[1], cuda.grid(2)[0]]
    cuda.syncthreads()
    row = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.y
    y[row, cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.x] = tile[cuda.threadIdx.x, cuda.threadIdx.y]


def test_two_axes():
    x, y = np.arange(16 * 24, dtype=np.float32).reshape(16, 24), np.zeros((24, 16), np.float32)
    MachineKernel(cuda.jit(transposes))[(3, 2), (8, 8)](x, y)
    assert np.array_equal(y, x.T)
    with pytest.raises(Fault, match=r"thread .0, 0. of block .3, 0. writes number 384 of y, which has 384"):
        MachineKernel(transposes)[(4, 2), (8, 8)](np.zeros((16, 32), np.float32), y)


def fills_a_corner(x, y):
    y[1, 2] = x[cuda.grid(1)]


def test_a_number_is_named_by_its_indices():
    with pytest.raises(Fault, match=r"writes y\[1, 2\], which thread"):
        MachineKernel(fills_a_corner)[1, 32](np.zeros(32, np.float32), np.zeros((3, 4), np.float32))


def strides_over_the_grid(x, y):
    own = cuda.local.array(4, np.float32)
    for i in range(cuda.grid(1), x.size, cuda.gridsize(1)):
        for k in range(4):
            own[k] = x[i] * k
        y[i] = own[int(x[i]) % 4]


def test_a_thread_has_memory_of_its_own():
    x, y = np.arange(100, dtype=np.float32), np.zeros(100, np.float32)
    MachineKernel(strides_over_the_grid)[2, 16](x, y)
    assert np.array_equal(y, x * (x % 4))


@pytest.mark.parametrize("blocks, threads", [(0, 32), (1, 0), (1, 1025), (1, (32, 33))])
def test_a_grid_that_no_gpu_takes(blocks, threads):
    with pytest.raises(Fault, match="^copies: .* blocks of .* wanted at least 1 and 1 to 1024"):
        MachineKernel(copies)[blocks, threads](np.zeros(1, np.float32), np.zeros(1, np.float32))


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(kernel, "cuda", None)
    with pytest.raises(RuntimeError, match=r"there is no numba-cuda; wanted a Linux with pip install"):
        MachineKernel(copies)[1, 32](np.zeros(32, np.int8), np.zeros(32, np.int8))


@pytest.mark.parametrize("stride, pieces", [(1, 8 + 8), (2, 16 + 8)])
def test_what_a_run_takes(stride, pieces):
    """Two warps read and write 128 bytes each; for every second number they read twice that."""
    x, y, counts = np.ones(stride * BLOCK, np.float32)[::stride], np.zeros(BLOCK, np.float32), Counts()
    MachineKernel(copies, counts=counts)[1, BLOCK](x, y)
    assert (counts.asked, counts.bytes) == (2 * 4 * BLOCK, 32 * pieces)
    assert counts.instructions > 10 * BLOCK
