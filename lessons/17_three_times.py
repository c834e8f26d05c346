"""The same kernel three times: as the textbook says it, for the CPU with Numba, and for the GPU with CUDA.

You read box IoU in all three forms, check them and those of RoIAlign against one another, see which thread computes
what, how threads that share numbers must wait for one another, and measure what the fast forms gain. A kernel is the
inner loop of an operation: it fills an array, and does nothing else.

In the article: section 5 (RoIAlign); the article has no code. In the papers: He et al. 2017 (Mask R-CNN), section 3.
In the package: minimrcnn/kernels/twin.py (open it now), kernels/box_iou.py, kernels/roi_align.py and reference.py. To
go on: kernels/direct_convolution.py, one thread for each output, and kernels/matmul_tiled.py, where the threads of a
block work together.
Before: IoU (6), RoIAlign (10).

Without an NVIDIA GPU the CUDA forms run in Numba's simulator: ordinary Python that plays one GPU thread after another.
It shows that the arithmetic is right, not that no thread gets in the way of another: see "Threads that work together".
How fast it is says nothing, so they are timed on a real GPU only (and with more care by benchmarks/gpu.py).
"""

# %% Setup
import functools
import inspect
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numba
import numpy as np
from matplotlib.colors import ListedColormap
from style import BLUE, GREEN, ORANGE, PURPLE, SKY, YELLOW, agree, save, section

from minimrcnn import reference
from minimrcnn.device import to_device
from minimrcnn.functional import roi_align
from minimrcnn.kernels import box_iou as iou_kernels
from minimrcnn.kernels import roi_align as align_kernels
from minimrcnn.kernels.twin import THREADS_PER_BLOCK, Twin, cuda

try:
    HAS_GPU = bool(to_device(np.zeros(1), "cuda").size)
except RuntimeError as reason:
    HAS_GPU = False
    print(f"CUDA kernels run in the simulator: {reason}")

# %% Read: box IoU three times
# 1. The reference is the definition: two loops, float64, no type declared, every step an ordinary Python operation.
# 2. The CPU form is the same two loops. `compiled` (Numba's `njit`) makes machine code for the types they are called
#    with; `prange` is a range whose turns may run at the same time, on all cores. Each turn fills its own row: no two
#    threads ever write to the same place.
# 3. The CUDA form has no loop. It is what ONE thread does, and it is started once for every element of the output:
#    `cuda.grid(1)` is the thread's number. Threads come in blocks of 128, so the last ones may have no element.
# The arithmetic, `overlap`, is written once and used by both fast forms; `F` is the type of the arrays, because a plain
# 0.5 would make a GPU compute in 64 bits.
section("Box IoU, three times")
for title, function in (
    ("reference.py", reference.box_iou),
    ("kernels/box_iou.py, for both", iou_kernels.shared_length),
    ("kernels/box_iou.py, for both", iou_kernels.overlap),
    ("kernels/box_iou.py, CPU", getattr(iou_kernels.box_iou_cpu, "py_func", iou_kernels.box_iou_cpu)),
    ("kernels/box_iou.py, CUDA", iou_kernels.box_iou_cuda),
):
    print(f"\n# {title}\n{inspect.getsource(function)}", end="")  # .py_func is what was compiled


def my_iou_thread(element, a, b, output):
    """What a GPU thread does, as plain Python: find out which element is mine, and fill it."""
    if element < output.size:  # the last block may have more threads than there is work
        i, j = element // len(b), element % len(b)
        width = max(min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0]), 0)
        height = max(min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1]), 0)
        areas = (a[i, 2] - a[i, 0]) * (a[i, 3] - a[i, 1]) + (b[j, 2] - b[j, 0]) * (b[j, 3] - b[j, 1])
        output[i, j] = width * height / (areas - width * height)


a = np.array([[0, 0, 10, 10], [0, 0, 10, 5], [5, 5, 15, 15], [20, 20, 30, 40]], np.float32)
b = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [0, 0, 20, 20]], np.float32)
mine = np.zeros((4, 3))
blocks = (mine.size + THREADS_PER_BLOCK - 1) // THREADS_PER_BLOCK
for element in range(blocks * THREADS_PER_BLOCK):  # a GPU does these at the same time, in no order
    my_iou_thread(element, a, b, mine)
idle = blocks * THREADS_PER_BLOCK - mine.size
print(f"\n{mine.size} elements: {blocks} block of {THREADS_PER_BLOCK} threads, {idle} of them idle")
agree("mine", mine, reference.box_iou(a, b))
on_cpu = np.empty((4, 3), np.float32)
iou_kernels.box_iou(a, b, on_cpu)  # the Twin: the output is a NumPy array, so the CPU form is called
agree("CPU form is off from the reference by at most", np.abs(on_cpu - mine).max(), 0)

# %% What a Twin does
# `Twin` ties the two fast forms together. It chooses by where the output lives, so that callers need not, and knows all
# its kind, so that one test checks every pair: its CUDA form as Python (tests/test_cuda_simulator.py) and as it was
# compiled (tests/test_cuda_compiled.py), with an eye on who reads what while others write it. Neither needs a GPU.
section("Twin")
print(f"{len(Twin.registry)} twins are loaded: {', '.join(map(repr, Twin.registry.values()))}")
iou_kernels.box_iou(a[:0], b, np.empty((0, 3), np.float32))  # nothing to do: nothing is launched
try:
    iou_kernels.box_iou(a, b, [[0.0]])
except TypeError as error:
    print(f"refused: {error}")

# %% Who computes what
# The same output, 9 x 16 elements. On the CPU a thread takes whole rows, and walks along them: neighbors in memory are
# loaded together. On the GPU neighboring threads take neighboring elements, for the same reason.
figure, axes = plt.subplots(1, 2, figsize=(12, 3.9))
rows, columns = 9, 16
numbers = np.arange(rows * columns).reshape(rows, columns)
for axis, values, title in (
    (axes[0], (numbers // columns >= 5).astype(int), "CPU, here with two threads: each takes rows"),
    (axes[1], numbers // THREADS_PER_BLOCK, "CUDA: one thread per element (its number), blocks of 128"),
):
    axis.imshow(values, cmap=ListedColormap([SKY, YELLOW]), vmin=0, vmax=1, extent=(0, columns, rows, 0), alpha=0.8)
    axis.set(title=title, xlabel="j, box of the second list", ylabel="i, box of the first list")
for i in range(rows):
    axes[0].annotate("", (15.7, i + 0.5), (2.6, i + 0.5), arrowprops={"arrowstyle": "->"})
    axes[0].text(1.3, i + 0.5, f"thread {int(i >= 5)}", ha="center", va="center", fontsize=8)
    for j in range(columns):
        axes[1].text(j + 0.5, i + 0.5, str(numbers[i, j]), ha="center", va="center", fontsize=7)
axes[1].axhline(8, color="black")
save(figure, "17_threads")

# %% RoIAlign three times: what differs
# The reference and the CUDA form go sample by sample: four cells, four weights, one value; the samples are averaged.
# The CUDA form does so in one thread for four channels of a bin (RoI r, row p, column q), which share what it finds out
# about the bin. With 256 channels a bin has 32 threads, its lanes, and lane l takes channels l, l + 32, l + 64, l + 96,
# then the same 128 further on. So neighboring threads read neighboring channels of the same cells. From its number:
#     l = thread % 32      q = thread // 32 % Q      p = thread // (32 Q) % P      r = thread // (32 Q P)
# The CPU form uses that averaging is separable: the weight of a cell is a row weight times a column weight, and these
# are found once for a RoI. Then a bin is a sum of cells, each times its weight, for many channels at a time.
section("RoIAlign, three times: on the article's 8x8 map")
MAP = np.array([
    [0.88, 0.44, 0.14, 0.16, 0.37, 0.77, 0.96, 0.27], [0.19, 0.45, 0.57, 0.16, 0.63, 0.29, 0.71, 0.70],
    [0.66, 0.26, 0.82, 0.64, 0.54, 0.73, 0.59, 0.26], [0.85, 0.34, 0.76, 0.84, 0.29, 0.75, 0.62, 0.25],
    [0.32, 0.74, 0.21, 0.39, 0.34, 0.03, 0.33, 0.48], [0.20, 0.14, 0.16, 0.13, 0.73, 0.65, 0.96, 0.32],
    [0.19, 0.69, 0.09, 0.86, 0.88, 0.07, 0.01, 0.48], [0.83, 0.24, 0.97, 0.04, 0.24, 0.35, 0.50, 0.91],
], np.float32)  # fmt: skip
features = MAP.reshape(1, 8, 8, 1)  # (N, H, W, C)
roi = np.array([[0, 0, 3, 7, 8]], np.float32)  # image, x1, y1, x2, y2
answer = [[0.366328, 0.550117], [0.459805, 0.375234]]  # 2x2 bins, 2x2 samples each, average, aligned=False
agree("reference", reference.roi_align(features, roi, (2, 2), 1.0, 2, False)[0, :, :, 0], answer)
agree("CPU form", roi_align(features, roi, 2, 1.0, 2, aligned=False).numpy()[0, :, :, 0], answer)

# %% The CUDA forms: on the GPU, or in the simulator
# The simulator has to be chosen before Numba is imported, so it runs in a process of its own, which reads its inputs
# from a file and writes its outputs to another. There NumPy arrays are handed to the CUDA form with `Twin.launch`.
SIMULATED = """
import sys
import numpy as np
from minimrcnn.kernels import box_iou, roi_align
data = np.load(sys.argv[1])
a, b, features, rois = data["a"], data["b"], data["features"], data["rois"]
iou = np.zeros((len(a), len(b)), np.float32)
box_iou.box_iou.launch(a, b, iou)
crops = np.zeros((len(rois), 2, 2, features.shape[3]), np.float32)
roi_align.roi_align.launch(features, rois, 1.0, 2, False, False, np.zeros((0, 0, 0, 0), np.int32), crops)
np.savez(sys.argv[2], iou=iou, crops=crops)
"""


def run_in_simulator(**arrays):
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(inputs, **arrays)
        environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
        subprocess.run([sys.executable, "-c", SIMULATED, inputs, outputs], env=environment, check=True)
        return dict(np.load(outputs))


def run_on_gpu(a, b, features, rois):
    a, b, features, rois = (to_device(array, "cuda") for array in (a, b, features, rois))
    iou = to_device(np.zeros((len(a), len(b)), np.float32), "cuda")
    iou_kernels.box_iou(a, b, iou)  # the Twin sees where the output lives
    crops = roi_align(features, rois.get(), 2, 1.0, 2, aligned=False)
    return {"iou": iou.get(), "crops": crops.numpy()}


section(f"CUDA forms, {'on the GPU' if HAS_GPU else 'in the simulator'}")
by_cuda = (run_on_gpu if HAS_GPU else run_in_simulator)(a=a, b=b, features=features, rois=roi)
agree("CUDA RoIAlign", by_cuda["crops"][0, :, :, 0], answer)
agree("CUDA box IoU is off from the CPU form by at most", np.abs(by_cuda["iou"] - on_cpu).max(), 0)


# %% Threads that work together
# The threads of a block can share an array, as near to them as a register, which is how a product of matrices gets fast
# (kernels/matmul_tiled.py). Who reads there what another thread writes must know that it is written:
# `cuda.syncthreads()` lets no thread go on before all of its block have come to it. Where one is forgotten the numbers
# are right or wrong by chance. benchmarks/ptx, a machine for compiled kernels, watches who writes and reads each of
# them, without a GPU. Here is a kernel that turns 128 numbers around, without its barrier.
def turn(x, y):
    part = cuda.shared.array(128, np.float32)
    part[cuda.threadIdx.x] = x[cuda.grid(1)]
    y[cuda.grid(1)] = part[127 - cuda.threadIdx.x]


section("A missing barrier")
try:
    sys.path.append(str(Path(__file__).parents[1]))  # benchmarks/ is beside lessons/, not in the package
    from benchmarks.ptx import Fault, MachineKernel

    MachineKernel(turn)[2, 128](np.arange(256, dtype=np.float32), np.zeros(256, np.float32))  # two blocks of 128
except (ImportError, RuntimeError) as reason:
    print(f"not run: {reason}")  # the compiler of CUDA kernels is not here
except Fault as fault:
    print(fault)

# %% How fast?
# The first call of a compiled function includes compiling it (or loading it from disk), so it is timed apart. After
# that: the best of many calls, with one thread and with all. The reference gets two seconds: a few calls. On a GPU the
# arrays lie on the device before the clock starts. A call only puts the kernel into a queue there; `synchronize` waits
# until it is done, and the clock stops after that.
section("Times")
threads = numba.get_num_threads()
generator = np.random.default_rng(0)
corners = generator.uniform(0, 400, (300, 2))
boxes = np.concatenate([corners, corners + generator.uniform(20, 200, (300, 2))], axis=1).astype(np.float32)
features = generator.standard_normal((1, 50, 68, 256)).astype(np.float32)  # P4 of an 800x1088 picture
rois = np.concatenate([np.zeros((60, 1)), boxes[:60]], axis=1).astype(np.float32)
iou, crops = np.empty((300, 300), np.float32), np.empty((60, 7, 7, 256), np.float32)
no_winner = np.empty((0, 0, 0, 0), np.int32)


def best_of(function, seconds):
    """The shortest of the calls that fit into some seconds; at least one."""
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def time_on_gpu(twin, arguments):
    """Seconds of a first call and of the best one, and the output."""
    arguments = [to_device(value, "cuda") if isinstance(value, np.ndarray) else value for value in arguments]

    def call():
        twin(*arguments)
        cuda.synchronize()

    return best_of(call, 0), best_of(call, 0.7), arguments[-1].get()


JOBS = {  # the reference; the Twin and what it is called with
    "box IoU, 300 x 300": (lambda: reference.box_iou(boxes, boxes), iou_kernels.box_iou, (boxes, boxes, iou)),
    "RoIAlign, 60 RoIs, 7x7x256": (
        lambda: reference.roi_align(features, rois, (7, 7), 1 / 16, 2, False),
        align_kernels.roi_align,
        (features, rois, 1 / 16, 2, False, False, no_winner, crops),
    ),
}
if not HAS_GPU:
    print("no GPU here: the CUDA forms are not timed")
times = {}  # of each job, milliseconds by form
for name, (slow, twin, inputs) in JOBS.items():
    fast = functools.partial(twin, *inputs)
    expected, by_reference = slow(), best_of(slow, 2)
    first = best_of(fast, 0)
    numba.set_num_threads(1)
    found = {"reference": by_reference, "CPU, 1 thread": best_of(fast, 0.7)}
    numba.set_num_threads(threads)
    if threads > 1:
        found[f"CPU, {threads} threads"] = best_of(fast, 0.7)
    outputs = {"CPU": inputs[-1]}
    print(f"{name}: first call on the CPU {first * 1e3:.1f} ms")
    if HAS_GPU:
        first, found["GPU"], outputs["GPU"] = time_on_gpu(twin, inputs)
        print(f"  first call on the GPU {first * 1e3:.1f} ms")
    for form, output in outputs.items():
        error = np.abs(output - expected).max() / np.abs(expected).max()
        assert error < 1e-5, f"{name}, {form}: off by {error:g}"
        print(f"  {form}: off by {error:.0e} of the largest value")
    times[name] = {form: seconds * 1e3 for form, seconds in found.items()}
    print("  best: " + ", ".join(f"{form} {value:.3g} ms" for form, value in times[name].items()))

# Dots, no bars: a logarithmic axis has no zero that a bar could begin at. From tick to tick it is ten times more.
figure, axes = plt.subplots(1, len(times), figsize=(11, 3.4), sharex=True, sharey=True)
shortest, longest = (pick(value for found in times.values() for value in found.values()) for pick in (min, max))
for axis, (name, found) in zip(axes, times.items(), strict=True):
    looks = zip(found.items(), (ORANGE, BLUE, GREEN, PURPLE), "osD^", strict=False)
    for row, ((form, value), color, marker) in enumerate(looks):
        axis.plot(value, row, marker, color=color, markersize=10, markeredgecolor="black")
        caption = f"{value:,.0f} ms" if value > 100 else f"{value:.3g} ms"
        caption += f", {found['reference'] / value:,.0f} times as fast" if form != "reference" else ""
        axis.annotate(caption, (value, row), (10, 0), textcoords="offset points", va="center")
    axis.set(xscale="log", xlim=(shortest / 3, longest * 12), xlabel="milliseconds (logarithmic)", title=name)
    axis.set(yticks=range(len(found)), yticklabels=found)
    axis.grid(axis="x", alpha=0.3)
axes[0].set_ylim(len(found) - 0.5, -0.5)
save(figure, "17_times")
print("These are times of this machine, now; where it is busy with other work, more threads may even take longer.")
print("`python -m benchmarks` measures with more care, and every operation.")

# %% Exercises
# 1. RoIAlign's output (60, 7, 7, 256), thread 54,321: which RoI, row, column and first channel? Fill in and run.
mine = None
if mine is not None:
    agree("exercise 1", mine, (*np.unravel_index(54_321 // 32, (60, 7, 7)), 54_321 % 32))
# 2. How many blocks of 128 does it need, and how many threads are idle? (735, none.) And IoU 300 x 300? (704, 112)
# 3. Write roi_align in my_functions.py, compile it with numba.njit, time it with `best_of`, and have it checked:
#    minimrcnn check my_functions.py
# 4. Give `turn` its barrier, and see that the machine has nothing to say. Then let it sum up 128 numbers, half as many
#    threads adding in every round: how many barriers are needed? (kernels/optimizer.py, square_sums_cuda, has them.)
