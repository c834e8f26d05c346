"""The first start compiles some forty kernels: a minute and a half for Numba, which compiles on one core.

So several processes share the work: each takes a part, calls its kernels with tiny arrays of the types that the network
uses, and leaves them on disk, where Numba finds them; then it asks for the next. It is no more than a head start:
what a process could not do is compiled when it is first called. So are narrow groups of channels, which only a ResNeXt
has: 4 s for each width.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import numba
import numpy as np

from minimrcnn import geometry
from minimrcnn.functional import conv, conv2d, conv_cpu, group_norm, max_pool2d, pool_rois, upsample_nearest
from minimrcnn.functional.conv_few import find_few
from minimrcnn.kernels.elementwise import relu_gradient
from minimrcnn.kernels.paste_masks import paste_masks_bool
from minimrcnn.progress import tqdm
from minimrcnn.tensor import Tensor
from minimrcnn.training.optimizer import AdamW, clip_gradients

MOST_PROCESSES = 4  # the longest part is a fifth of all; each takes up to 500 MiB


def winograd() -> None:
    conv2d(zeros(1, 8, 8, 16), zeros(3, 3, 16, 16), padding=1, algorithm="winograd")


def winograd_apart() -> None:  # on maps of enough tiles for all threads
    conv2d(zeros(1, 24, 24 * numba.get_num_threads(), 16), zeros(3, 3, 16, 16), padding=1, algorithm="winograd")


def winograd_gradient() -> None:
    x = zeros(1, 8, 8, 16)
    conv_cpu.kernel_gradient(x, x, (3, 3, 16, 16), 1, 1, 1, "winograd")


def patches() -> None:
    conv2d(zeros(1, 8, 8, 16), zeros(3, 3, 16, 16), algorithm="patches")


def patches_input_gradient() -> None:  # the mask head's transposed convolution as well
    x = zeros(1, 8, 8, 16)
    conv_cpu.input_gradient(x, zeros(3, 3, 16, 16), x.shape, 1, 1, 1, "patches")


def patches_kernel_gradient() -> None:
    x = zeros(1, 8, 8, 16)
    conv_cpu.kernel_gradient(x, x, (3, 3, 16, 16), 1, 1, 1, "patches")
    find_few(zeros(1, 32, 32, 16), x.shape)


def normalization() -> None:
    group_norm(zeros(1, 8, 8, 16), 8, zeros(16), zeros(16))


def normalization_gradient() -> None:
    backward(group_norm(leaf(1, 8, 8, 16), 8, zeros(16), zeros(16), relu=True))


def rois() -> None:
    pool_rois([zeros(1, 8, 8, 16)], np.float32([[0, 0, 0, 9, 9]]), 7, [4])


def rois_gradient() -> None:
    backward(pool_rois([leaf(1, 8, 8, 16)], np.float32([[0, 0, 0, 9, 9]]), 7, [4]))


def resizing() -> None:
    upsample_nearest(zeros(1, 8, 8, 16), 16)
    max_pool2d(zeros(1, 8, 8, 16), 3, 2, 1)


def resizing_gradient() -> None:
    backward(upsample_nearest(leaf(1, 8, 8, 16), 16))
    backward(max_pool2d(leaf(1, 8, 8, 16), 3, 2, 1))


def pasting() -> None:
    geometry.paste_masks_bool(zeros(1, 28, 28), np.float32([[0, 0, 9, 9]]), (9, 9))


def targets() -> None:
    box = np.float32([[0, 0, 9, 9]])
    geometry.box_iou(box, box)
    geometry.crop_masks(np.zeros((1, 9, 9), np.uint8), box, [0], 28)


def suppression() -> None:
    geometry.nms(zeros(300, 4), zeros(300), 0.5)  # more than are judged at a time


def updates() -> None:
    parameter = leaf(1)
    parameter.grad = zeros(1)
    clip_gradients([parameter], 1.0)
    AdamW({"parameter": parameter}).step(0.0)


def rectifying() -> None:
    conv.relu_gradient(zeros(1), zeros(1))


def zeros(*shape) -> np.ndarray:
    return np.zeros(shape, np.float32)


def leaf(*shape) -> Tensor:
    return Tensor(zeros(*shape), requires_grad=True)


def backward(y: Tensor) -> None:
    y.backward(np.zeros_like(y.data))


# Long ones first, for the last to end together, and gradients after what they share tasks with. The very last is called
# by whoever starts, when the others are done: if its kernel, in `LAST`, is on disk, so are theirs. A task that several
# parts share must have the same types in all of them: Numba's index of what is on disk knows no locks.
PREDICTING = [
    winograd, patches, patches_input_gradient, rois, winograd_apart, normalization, resizing, suppression, pasting,
]  # fmt: skip
TRAINING = [
    winograd, patches, patches_input_gradient, patches_kernel_gradient, winograd_gradient, winograd_apart,
    normalization_gradient, rois_gradient, resizing_gradient, targets, suppression, updates, rectifying,
]  # fmt: skip
PARTS = {part.__name__: part for part in (*PREDICTING, *TRAINING)}
LAST = {pasting: paste_masks_bool, rectifying: relu_gradient}


def compile_ahead(parts, progress: bool = False, device: str = "cpu") -> None:
    """Leave the kernels of ``parts`` on disk, compiled by as many processes as there are threads, at most four.

    Parameters
    ----------
    parts : sequence of callable
        `PREDICTING` or `TRAINING`.
    progress : bool, optional
        Say so on standard error, with a bar.
    device : {"cpu", "cuda"}, optional
        Where the kernels are to run; those for CUDA are compiled when they are launched.
    """
    *parts, last = parts
    if device != "cpu" or not is_first_start(last):
        return
    if progress:
        print("compiling kernels, once (about a minute; later starts find them ready) ...", file=sys.stderr)
    processes = min(numba.get_num_threads(), MOST_PROCESSES)
    if processes > 1:
        with tqdm(total=len(parts), unit="part", desc="compiling", disable=not progress, leave=False) as bar:
            share_out([part.__name__ for part in parts], processes, bar.update)
    last()


def is_first_start(last) -> bool:
    """Whether a part's kernel is not on disk, or is there of another version of its source (it is not, any more)."""
    kernel = LAST[last].cpu
    if not hasattr(kernel, "stats"):  # NUMBA_DISABLE_JIT=1
        return False
    if not list(Path(kernel.stats.cache_path).glob(f"*.{kernel.__name__}-*.nbi")):
        return True
    before = sum(kernel.stats.cache_misses.values())
    last()
    return sum(kernel.stats.cache_misses.values()) > before


def share_out(names: list[str], processes: int, done: Callable[[], object]) -> None:
    """Have processes compile the parts of these names, whoever is free the next; call ``done`` after each."""
    waiting: SimpleQueue = SimpleQueue()
    for name in names:
        waiting.put(name)
    home = str(Path(__file__).parents[2])
    environment = {
        "NUMBA_OPT": "2",  # instead of 3: as fast a step, compiled in 7% less time
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")])),
        "PYTHONSAFEPATH": "1",  # not what lies in the user's folder
    }
    helpers = []

    def work() -> None:
        with suppress(OSError), subprocess.Popen(
            [sys.executable, "-m", "minimrcnn.training.compile_ahead"], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as helper, suppress(Empty):  # fmt: skip
            helpers.append(helper)
            while True:
                print(waiting.get_nowait(), file=helper.stdin, flush=True)
                if not helper.stdout.readline():
                    return  # it gave up; what it did not do is compiled when it is called
                done()

    with ThreadPoolExecutor(processes) as pool:
        try:
            for future in [pool.submit(work) for _ in range(processes)]:
                future.result()
        except BaseException:  # Ctrl-C, above all
            with suppress(Empty):
                while True:
                    waiting.get_nowait()
            for helper in helpers:
                helper.terminate()
            raise


def main() -> None:
    """Compile the parts that standard input names, a line each, and answer each with a line."""
    gc.disable()  # a twentieth of the time, for 140 MiB
    for line in sys.stdin:
        PARTS[line.strip()]()
        print(line, end="", flush=True)


if __name__ == "__main__":
    main()
