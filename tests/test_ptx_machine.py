"""CUDA bodies as they were compiled, run without a GPU by `benchmarks.ptx`, which ends at an access that must not be.

Every twin against its CPU body, the functions that call them against the textbook, a whole model against the CPU's;
and the machine itself, against what its instructions mean and with kernels that do what must not be done.
"""

from __future__ import annotations

import inspect
import operator
import os
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ptx import __main__ as of_typical_sizes
from benchmarks.ptx.kernel import MachineKernel, run_in_machine
from benchmarks.ptx.machine import Counts, run
from benchmarks.ptx.memory import Fault, Memory, Region
from benchmarks.ptx.program import DTYPES, parse
from minimrcnn import device, functional, reference
from minimrcnn.kernels.twin import Twin, cuda
from tests import cuda_functions, stand_in_cupy, test_conv_cuda, test_device
from tests.cuda_functions import forward_and_backward, launch_all
from tests.launch_cuda_kernels import difference
from tests.twin_arguments import ARGUMENTS

IN_SIMULATOR = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
pytestmark = [
    pytest.mark.skipif(find_spec("numba_cuda") is None, reason="CUDA kernels are compiled with numba-cuda"),
    pytest.mark.skipif(IN_SIMULATOR, reason="the simulator compiles nothing"),
]
if not IN_SIMULATOR:
    from tests.cuda_functions import *  # noqa: F403

CASES = [(name, i) for name, makers in ARGUMENTS.items() for i in range(len(makers))]
OF_ALL_PARAMETERS = ("sgd", "adamw", "square_sums")  # of 11 million, one like the other


@pytest.fixture(scope="module", autouse=True)
def compiler():
    """NVIDIA's compiler library, which `numba-cuda[cu13]` brings; the test extra has it on Linux."""
    try:
        cuda.compile_ptx(lambda: None, (), cc=(8, 0))
    except Exception as error:
        pytest.skip(f"no CUDA compiler here (pip install 'numba-cuda[cu13]' brings one): {type(error).__name__}")


@pytest.fixture
def in_machine(monkeypatch):
    run_in_machine(monkeypatch)


@pytest.fixture
def on_cuda(monkeypatch, in_machine):
    """Whatever is called runs its CUDA body. Gives the names of those that ran."""
    return launch_all(monkeypatch)


@pytest.mark.parametrize("name, number", CASES)
def test_bodies_agree(name, number, in_machine):
    here, there = (ARGUMENTS[name][number](np.random.default_rng(number)) for _ in range(2))
    Twin.registry[name].launch(*there)
    assert not np.array_equal(there[-1], here[-1]), "nothing was computed"
    assert difference(name, here, there) < 1e-5


BARRIER = "cuda.syncthreads()"
BARRIERS = [(name, i) for name in ARGUMENTS for i in range(inspect.getsource(Twin.registry[name].cuda).count(BARRIER))]


@pytest.mark.parametrize("name, number", BARRIERS)
def test_every_barrier_is_needed(name, number, tmp_path):
    """Without it the machine finds a fault: so it sees what barriers are for, and there is none too many."""
    twin = Twin.registry[name]
    parts = inspect.getsource(twin.cuda).split(BARRIER)
    file = tmp_path / "without.py"
    file.write_text(f"{BARRIER.join(parts[: number + 1])}pass{BARRIER.join(parts[number + 1 :])}")
    names = dict(twin.cuda.__globals__)
    exec(compile(file.read_text(), file, "exec"), names)
    with pytest.raises(Fault):
        for make in ARGUMENTS[name]:
            arguments = make(np.random.default_rng(0))
            blocks = -(-twin.threads(*arguments) // twin.block)
            MachineKernel(names[twin.cuda.__name__])[blocks, twin.block](*arguments)


@pytest.fixture
def gpu(monkeypatch, in_machine):
    """Something that answers to "cuda", whose kernels run in the machine."""
    module, launch = stand_in_cupy.Module(), Twin.launch

    def launch_there(twin, *arguments):
        if twin.name in OF_ALL_PARAMETERS:
            stand_in_cupy.launch(twin, *arguments)
        else:
            launch(twin, *stand_in_cupy.unwrap(arguments))

    monkeypatch.setattr(device, "_cupy", lambda: module)
    monkeypatch.setattr(Twin, "launch", launch_there)


@pytest.mark.parametrize("name", test_device.MODELS)
def test_a_model_predicts_as_on_a_cpu(name, gpu):
    test_device.test_predicts_as_on_a_cpu(name, gpu)


def test_a_model_trains_as_on_a_cpu(gpu):
    test_device.test_trains_as_on_a_cpu("pyramid, frozen batch norm, all resized", gpu)


@pytest.mark.parametrize("algorithm", ["patches", "winograd"])
def test_a_convolution_and_its_gradients(algorithm, gpu, monkeypatch):
    test_device.test_convolutions(algorithm, gpu, monkeypatch)


@given(test_conv_cuda.convolutions(), test_conv_cuda.SCRATCHES, st.booleans())
def test_convolutions(case, scratch, extras):
    with pytest.MonkeyPatch.context() as patch:
        run_in_machine(patch)
        launch_all(patch)
        test_conv_cuda.check_convolution(np.float32, *case, scratch, extras)


@pytest.mark.parametrize("channels", [31, 128, 300])
def test_many_channels(channels, on_cuda):
    """Up to 128 channels each thread of a cell takes four, beyond them four at a time."""
    rng = np.random.default_rng(channels)
    x = rng.integers(-9, 10, (1, 4, 5, channels)).astype(np.float32)
    rois = np.float32([[0, 0.2, 0.3, 3.9, 3.4], [0, 1, 1, 4.9, 2]])
    cut = rois, (2, 2), 1.0
    for name, options in {"max_pool2d": (3, 2, 1), "roi_align": cut, "roi_pool": cut}.items():
        function, wanted = getattr(functional, name), getattr(reference, name)
        y, gradient, x_gradient = forward_and_backward(lambda x: function(x, *options), x)  # noqa: B023
        assert np.allclose(y, wanted(x, *options), atol=1e-5), name
        assert np.allclose(x_gradient, wanted(x, *options, gradient=gradient), atol=1e-5), name
    assert len(on_cuda) == 6


def test_many_boxes(on_cuda, monkeypatch):
    cuda_functions.test_nms(on_cuda, monkeypatch, 1500, 512)


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
    memory = Memory(1)
    words = [memory.add(Region("array", array.view(np.uint8), array.itemsize)) for array in arrays]
    run(parse(ptx), np.array(words, np.uint64).tobytes(), memory, 1, 1)
    return arrays[-1][0].item()


INTEGERS = {
    "add.{0}": lambda a, b, bits: a + b,
    "sub.{0}": lambda a, b, bits: a - b,
    "mul.lo.{0}": lambda a, b, bits: a * b,
    "div.{0}": lambda a, b, bits: abs(a) // abs(b or 1) * (1 if (a < 0) == (b < 0) else -1),
    "rem.{0}": lambda a, b, bits: abs(a) % abs(b or 1) * (-1 if a < 0 else 1),
    "min.{0}": lambda a, b, bits: min(a, b),
    "max.{0}": lambda a, b, bits: max(a, b),
    "and.b{1}": lambda a, b, bits: a & b,
    "or.b{1}": lambda a, b, bits: a | b,
    "xor.b{1}": lambda a, b, bits: a ^ b,
    "shl.b{1}": lambda a, b, bits: a << (b % 100) if b % 100 < bits else 0,
    "shr.{0}": lambda a, b, bits: a >> (b % 100),
}
FLOATS = {
    "add.f32": lambda a, b: a + b,
    "sub.f32": lambda a, b: a - b,
    "mul.rn.f32": lambda a, b: a * b,
    "div.rn.f32": lambda a, b: a / b if b else np.float64(a) / b,
    "min.f32": lambda a, b: b if a != a else a if b != b else min(a, b),
    "max.f32": lambda a, b: b if a != a else a if b != b else max(a, b),
}
COMPARISONS = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt,
               "ge": operator.ge}  # fmt: skip
floats = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf])


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
        wanted = np.float32(FLOATS[instruction](a, b)).item()
    assert calculate(f"{instruction} %d, %a, %b;", "f32", [a, b], "f32") == pytest.approx(wanted, rel=0, nan_ok=True)


@given(floats, floats, floats)
def test_a_fused_sum_is_rounded_once(a, b, c):
    wanted = a * b + c
    found = calculate("fma.rn.f32 %d, %a, %b, %c;", "f32", [a, b, c], "f32")
    assert found == pytest.approx(np.float32(wanted).item(), rel=1e-6, nan_ok=True)


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
    """Cut off, and brought into the range."""
    for kind in ("s32", "u32", "s64"):
        ends = np.iinfo(DTYPES[kind])
        wanted = 0 if x != x else max(int(ends.min), min(int(ends.max), int(x))) if np.isfinite(x) else None
        if wanted is None:
            wanted = int(ends.max if x > 0 else ends.min)
        assert calculate(f"cvt.rzi.{kind}.f32 %d, %a;", "f32", [x], kind) == wanted


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_numbers_get_wider(a, b):
    assert calculate("mul.wide.s32 %d, %a, %b;", "s32", [a, b], "s64") == a * b
    assert calculate("cvt.s64.s32 %d, %a;", "s32", [a], "s64") == a
    assert calculate("cvt.u64.u32 %d, %a;", "s32", [a], "u64") == a % 2**32
    assert calculate("cvt.u32.u64 %d, %a;", "s64", [a * b], "u32") == a * b % 2**32
    assert calculate("popc.b32 %d, %a;", "u32", [a % 2**32], "u32") == (a % 2**32).bit_count()
    assert calculate("clz.b32 %d, %a;", "u32", [a % 2**32], "u32") == 32 - (a % 2**32).bit_length()
    assert calculate("cvt.rn.f32.s64 %d, %a;", "s64", [a], "f32") == np.float32(a)


@pytest.mark.parametrize("instruction", ["sin.approx.f32", "add.ftz.f32", "cvt.sat.f32.f32", "mul.hi.f32"])
def test_what_is_not_known_is_refused(instruction):
    with pytest.raises(NotImplementedError, match=instruction):
        calculate(f"{instruction} %d, %a{', %b' * (instruction[:3] in ('add', 'mul'))};", "f32", [1.0, 2.0], "f32")


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


FAULTS = {
    reads_beyond: "thread 127 reads 4 bytes from byte 512 on of argument 0, which has 512 bytes, 4 a number",
    has_no_barrier: "reads number 63 of .*, which thread 63 writes, with nothing that says who is first|"
    "reads number 63 of .*, which nothing was written to",
    writes_too_early: "thread 0 writes number 0 of .*, which thread 63 reads, with nothing that says who is first",
    reads_what_nobody_wrote: "thread 63 reads number 0 of .*, which nothing was written to",
    all_write_one: "thread 0 writes number 0 of argument 1, which another thread writes at the same time",
    blocks_share: "thread 0 reads number 64 of argument 1, which thread 64 writes, with nothing that says",
    one_reads_what_all_add: "thread 0 reads number 0 of argument 1, which thread 127 changes, with nothing that says",
    some_do_not_come: "not all threads of block 0 come to a barrier",
}


def launch(body) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.arange(2 * BLOCK, dtype=np.float32), np.zeros(2 * BLOCK, np.float32)
    MachineKernel(body)[2, BLOCK](x, y)
    return x, y


@pytest.mark.parametrize("body", FAULTS, ids=lambda body: body.__name__)
def test_a_fault_is_found(body):
    with pytest.raises(Fault, match=FAULTS[body]):
        launch(body)


def test_what_is_in_order():
    x, y = launch(has_a_barrier)
    assert np.array_equal(y.reshape(2, BLOCK), x.reshape(2, BLOCK)[:, ::-1])
    x, y = launch(all_add)
    assert y[0] == x.sum()


def test_views_of_one_array_are_one():
    """A kernel that reads and writes the same memory by two arguments."""
    x = np.arange(2 * BLOCK, dtype=np.float32)
    with pytest.raises(Fault, match="which thread"):
        MachineKernel(reads_beyond)[1, BLOCK](x, x[:-1])
    with pytest.raises(ValueError, match="argument 1 is not one piece of memory"):
        MachineKernel(copies)[1, BLOCK](x, np.lib.stride_tricks.as_strided(x, (BLOCK,), (8,)))


def copies(x, y):
    y[cuda.grid(1)] = x[cuda.grid(1)]


@pytest.mark.parametrize("stride, pieces", [(1, 8 + 8), (2, 16 + 8)])
def test_what_a_run_takes(stride, pieces):
    """Two warps read and write 128 bytes each; for every second number they read twice that."""
    x, y, counts = np.ones(stride * BLOCK, np.float32)[::stride], np.zeros(BLOCK, np.float32), Counts()
    MachineKernel(copies, counts=counts)[1, BLOCK](x, y)
    assert (counts.asked, counts.bytes) == (2 * 4 * BLOCK, 32 * pieces)
    assert counts.instructions > 10 * BLOCK


# Of one thread for each number of the output; with places of 64 bits, 58, 274, 118, 335 and 340.
MOST = {"epilogue": 50, "max_pool": 220, "gather_patches": 106, "roi_align": 290, "roi_pool": 255}


@pytest.mark.parametrize("name", MOST)
def test_places_are_found_in_few_instructions(name):
    instructions, moved, used = of_typical_sizes.count(name)
    assert instructions < MOST[name]
    assert moved > 4 and used > 0.9  # neighbors read what lies side by side


def test_what_a_product_reads():
    """Threads that share tiles read an eighth of the bytes, and with sixteen outputs each a third of that."""
    simple, tiled, blocked = (of_typical_sizes.count(f"matmul_{name}") for name in ("simple", "tiled", "blocked"))
    assert simple[1] > 8 * tiled[1] and tiled[1] == 3 * blocked[1]
    assert simple[0] > 4 * tiled[0] and tiled[0] > 1.5 * blocked[0]


def test_the_table(monkeypatch, capsys):
    monkeypatch.setattr(of_typical_sizes, "TYPICAL", {"relu_gradient": of_typical_sizes.TYPICAL["relu_gradient"]})
    monkeypatch.setattr(sys, "argv", ["ptx"])
    of_typical_sizes.main()
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split()[-5:] == ["instructions", "read", "and", "written", "used"]
    assert row.split()[0] == "relu_gradient" and row.split()[3] == "bytes"
