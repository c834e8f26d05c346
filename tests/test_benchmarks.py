"""The benchmarks: every twin is timed, what is timed is right, and a run leaves what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not beside these tests", allow_module_level=True)

from benchmarks import contest, gpu, ours, plots, report, textbook  # noqa: E402
from benchmarks.timing import Task  # noqa: E402
from benchmarks.work import GROWTH, WORK, Work, make_inputs  # noqa: E402
from minimrcnn import device  # noqa: E402
from minimrcnn.kernels.twin import Twin  # noqa: E402
from tests import stand_in_cupy  # noqa: E402

TINY = {
    "conv": dict(batch=1, height=9, width=7, inner=4, outer=6, kernel=3, stride=1, groups=1),
    "conv_transpose": dict(batch=1, height=3, width=4, inner=4, outer=6),
    "linear": dict(rows=3, inner=4, outer=5),
    "roi_align": dict(rois=3, side=2, channels=2, clustered=True),
    "roi_pool": dict(rois=3, side=2, channels=2, clustered=False),
    "nms": dict(count=300),
    "box_iou": dict(first=3, second=4),
    "paste_masks": dict(masks=1, soft=False),
    "crop_masks": dict(masks=1, rois=2),
    "max_pool": dict(height=7, width=6, channels=3),
    "upsample": dict(height=4, width=3, channels=2),
    "resize": dict(height=6, width=8, channels=1),
    "group_norm": dict(batch=1, height=3, width=3, channels=32),
    "relu": dict(height=3, width=4, channels=2),
    "adamw": dict(parameters=10),
    "sgd": dict(parameters=10),
    "clip": dict(parameters=10),
}
WHOLE = ("inference", "training_step", "demo_step")
# A convolution's steps on a GPU, and the products and the convolution that lessons compare with the library's.
COMPARED = {"matmul_simple", "matmul_tiled", "matmul_blocked", "direct_convolution"}
ONLY_ON_A_GPU = COMPARED | {
    *("gather_patches", "scatter_patches", "epilogue", "winograd_transform_input", "winograd_transform_output"),
    *("convolve_narrow_groups", "nms_sort", "nms_compare", "nms_settle"),
    *("winograd_transform_gradient", "winograd_transform_kernel", "winograd_transform_kernel_back"),
}
# Gradients in a fixed order have the CPU's body; the whole networks take them on a GPU, and fold statistics.
BESIDE_THE_WORKS = COMPARED | {"roi_align_gradient_in_order", "roi_pool_gradient_in_order", "fold_statistics"}


def test_a_reader_that_goes_away():
    command = [sys.executable, "-m", "benchmarks", "--list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 141


def test_every_twin_is_timed(monkeypatch):
    called = set()

    def launch(self, *arguments):
        called.add(self.name)
        self.cpu(*arguments)

    monkeypatch.setattr(Twin, "__call__", launch)
    for work in WORK:
        if work.kind in WHOLE:
            continue
        size = TINY[work.kind] | {"soft": work.size["soft"]} if work.kind == "paste_masks" else TINY[work.kind]
        small = Work(work.name, work.kind, size, backward=work.backward, both=work.both)
        for algorithm in ("auto", "winograd") if work.kind == "conv" else ("auto",):
            ours.build(small, make_inputs(small), algorithm).once()
    for other in (dict(height=100, width=100, inner=16, outer=16), dict(inner=16, outer=16, groups=2)):
        work = Work("large, then in groups", "conv", TINY["conv"] | other)
        ours.build(work, make_inputs(work)).once()
    assert called == set(Twin.registry) - ONLY_ON_A_GPU - BESIDE_THE_WORKS


def clock_once(task):
    seconds, output = task.once()
    return gpu.summarize([seconds]), gpu.keep(output)


def measure_on_stand_in(monkeypatch, work) -> dict:
    """A work's record as a GPU would leave it, but for the times, which are NumPy's."""
    monkeypatch.setattr(device, "_cupy", stand_in_cupy.Module)
    monkeypatch.setattr(gpu, "clock_on_gpu", lambda task, rounds: clock_once(task))
    monkeypatch.setattr(gpu, "clock_kernels", lambda task, rounds: clock_once(task)[0])
    monkeypatch.setattr(gpu, "free_memory", lambda peer: None)
    monkeypatch.setattr(ours, "DEVICE", "cpu")
    return gpu.measure(work, {"gflops": 100.0, "gigabytes": 10.0}, None, 1)


def test_every_cuda_body_is_timed_on_a_gpu(monkeypatch):
    """Each work on a stand-in for a GPU: it runs, comes to what the CPU comes to, and says what it moved."""
    called = set()

    def launch(self, *arguments):
        called.add(self.name)
        stand_in_cupy.launch(self, *arguments)

    monkeypatch.setattr(Twin, "launch", launch)
    works = [work for work in WORK if work.kind not in WHOLE and "spread" not in work.name]
    large = Work("large", "conv", TINY["conv"] | dict(height=24, width=24, inner=16, outer=16), both=True)
    grouped = Work("in narrow groups", "conv", TINY["conv"] | dict(inner=8, outer=8, groups=2), both=True)
    small = [large, grouped]
    for work in works:
        size = TINY[work.kind] | {"soft": work.size["soft"]} if work.kind == "paste_masks" else TINY[work.kind]
        small.append(Work(work.name, work.kind, size, backward=work.backward, both=work.both))
    for work in small:
        record = measure_on_stand_in(monkeypatch, work)
        assert record["failed"] == {} and record["error"] < 1e-4, record
        moved = not (work.backward or work.both)
        assert set(record["times"]) == {"cpu", "gpu", *(["with transfers"] if moved else [])}
        assert set(record["kernels"]) == {"gpu"}
    assert {name for name, twin in Twin.registry.items() if twin.cuda} - called == BESIDE_THE_WORKS & set(Twin.registry)


def test_a_work_that_fails_on_the_gpu_is_named(monkeypatch):
    monkeypatch.setattr(Twin, "launch", lambda self, *arguments: 1 / 0)
    record = measure_on_stand_in(monkeypatch, Work("iou", "box_iou", TINY["box_iou"]))
    assert set(record["failed"]) == {"gpu", "with transfers"} and "ZeroDivisionError" in record["failed"]["gpu"]


@pytest.mark.parametrize("waits", [False, True])
def test_kernels_are_timed_behind_other_work(monkeypatch, waits):
    """A call that waits for the GPU finds the other work done when it comes back, and has no time of its kernels."""

    class Event:
        done = waits

        def record(self):
            events.append("record")

        def synchronize(self):
            events.append("synchronize")

    events = []
    runtime = SimpleNamespace(deviceSynchronize=lambda: events.append("wait"))
    clock = SimpleNamespace(Event=Event, runtime=runtime, get_elapsed_time=lambda first, last: 2.5)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=clock))
    monkeypatch.setattr(gpu, "make_hold", lambda: (lambda: events.append("hold"), 1e-9))
    found = gpu.clock_kernels(Task(lambda: events.append("run")), 1)
    assert (found is None) == waits and (waits or found["median"] == 0.0025)
    assert events[:6] == ["wait", "hold", "record", "run", "record", "synchronize"]
    assert events[7:9] == ["hold", "hold"]  # longer than the call took the host


def test_the_pictures_of_a_gpu(tmp_path):
    times = {"median": 0.001, "low": 0.001, "high": 0.001, "count": 3}
    work = {"name": "conv", "operations": 1e9, "bytes": 1e6, "kernels": {"gpu": times, "torch, channels last": None}}
    growth = [{"name": "nms", "curve": ["boxes", x], "times": {"cpu": times, "gpu": times}} for x in (10, 100)]
    results = {"card": {"gflops": 5e4, "gigabytes": 4e3}, "work": [work], "growth": growth}
    assert [path.name for path in plots.plot_gpu(results, tmp_path)] == ["roofline_gpu.png", "growth_gpu.png"]
    assert plots.plot_gpu({**results, "work": [], "growth": []}, tmp_path) == []


def test_the_table_of_a_gpu(tmp_path):
    def record(x, cpu, there, back):
        times = {name: dict(median=t, low=t, high=t, count=3) for name, t in
                 (("cpu", cpu), ("gpu", there), ("with transfers", back), ("torch, channels last", 0.01))}  # fmt: skip
        kernels = {"gpu": times["gpu"], "torch, channels first": None}
        return dict(name=f"nms {x}", curve=("nms: boxes", x), times=times, kernels=kernels, share=0.5, error=0.0)

    moved = [dict(direction="to cpu", where="a.b", what="float32 (3,)", bytes=12, times=2)]
    growth = [record(10, 0.001, 0.002, 0.003), record(100, 0.004, 0.002, 0.005), record(1000, 0.1, 0.01, 0.02)]
    (tmp_path / "gpu.json").write_text(json.dumps({"work": [growth[2] | {"transfers": moved}], "growth": growth}))
    lines = gpu.write_table(tmp_path / "gpu.json").splitlines()
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert "10.00" in lines[2] and "1.00 even" in lines[2] and lines[2].split()[-2:] == ["2", "24"]
    assert gpu.describe_crossings(growth) == [
        "nms: boxes: gpu faster from 100 on", "nms: boxes: with transfers faster from 1000 on"
    ]  # fmt: skip
    assert gpu.describe_crossings(growth[:1])[0] == "nms: boxes: gpu not faster than the cpu"


def test_a_gpu_is_missed_in_a_sentence(monkeypatch, capsys):
    def no_gpu():
        raise RuntimeError("no GPU here")

    from benchmarks.__main__ import main

    monkeypatch.setattr(device, "_cupy", no_gpu)
    with pytest.raises(SystemExit, match="--device cuda: no GPU here"):
        main(["--device", "cuda"])


def test_the_gpu_check_is_a_script():
    subprocess.run(["bash", "-n", ROOT / "benchmarks" / "gpu_check.sh"], check=True)
    done = subprocess.run(["bash", ROOT / "benchmarks" / "gpu_check.sh"], capture_output=True, text=True)
    assert done.returncode == 2 and "gpu_check.sh FOLDER" in done.stdout


@pytest.mark.parametrize("kind", sorted(textbook.SMALL))
def test_textbook_does_the_same(kind):
    work = Work(kind, kind, TINY[kind])
    expected = textbook.RUN[kind](work, **make_inputs(work))()
    np.testing.assert_allclose(ours.build(work, make_inputs(work)).once()[1], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", sorted(TINY))
@pytest.mark.parametrize("layout", ["first", "last"])
def test_torch_does_the_same(kind, layout):
    pytest.importorskip("torch", reason="torch is not installed (the extra `reference`)")
    pytest.importorskip("torchvision", reason="torchvision is not installed (the extra `reference`)")
    from benchmarks import peer

    both = kind in ("conv", "conv_transpose", "linear", "group_norm")
    backward = kind in ("relu", "max_pool", "upsample", "roi_align", "roi_pool")
    for passes in ({}, {"both": True}) if both else ({}, {"backward": True}) if backward else ({},):
        work = Work(kind, kind, TINY[kind], **passes)
        mine, theirs = (
            ours.build(work, make_inputs(work)).once()[1],
            peer.build(work, make_inputs(work), layout).once()[1],
        )
        for a, b in zip(*(x if isinstance(x, list) else [x] for x in (mine, theirs)), strict=True):
            if kind == "paste_masks":  # torch rounds a few pixels at the edge of 0.5 otherwise
                assert np.mean(a != b) < 1e-4
            else:
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_textbook_is_scaled_by_the_work():
    work = next(work for work in WORK if work.name == "conv 3x3 64 at 200x272")
    task = textbook.build(work)
    assert task.scale == pytest.approx(work.operations / (2 * 8 * 8 * 9 * 64 * 32))
    assert textbook.build(next(work for work in WORK if work.both)) is None


def test_operations_and_bytes_are_counted():
    work = next(work for work in WORK if work.name == "conv 3x3 256 at 200x272")
    assert work.operations == 2 * 200 * 272 * 256 * 256 * 9
    assert work.bytes == 4 * (2 * 200 * 272 * 256 + 9 * 256 * 256)
    assert all(work.operations >= 0 and work.bytes >= 0 for work in (*WORK, *GROWTH))


def test_only_the_work_is_on_the_clock():
    log = []
    task = Task(lambda state: log.append(state), before=lambda: log.append("before") or len(log))
    assert len(task.turn()) >= 1
    assert log[:2] == ["before", 1]


def test_a_run_leaves_table_json_and_comparison(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    command = [sys.executable, "-m", "benchmarks", "--no-peer", "--rounds", "1", "--only", "nms 1000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [*command, "--no-textbook", "--json", old], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    done = subprocess.run(
        [*command, "--json", new, "--compare", old, "--plots", tmp_path], cwd=ROOT, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    (record,) = json.loads(new.read_text())["work"]
    assert record["times"]["minimrcnn"]["error"] == 0
    assert record["times"]["minimrcnn"]["median"] > 0
    assert record["times"]["textbook"]["median"] > 0
    assert "textbook" not in json.loads(old.read_text())["work"][0]["times"]
    assert "ours was, ms" in done.stdout and "GFLOP/s" in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--only", "nothing of the kind"], "--list"),
        (["--peer", "no/such/python", "--only", "nms 1000"], "wanted a Python interpreter"),
        (["--compare", str(ROOT / "pyproject.toml"), "--only", "nms 1000"], "not the JSON"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and words in done.stderr and "Traceback" not in done.stderr


def make_results() -> dict:
    def record(name, ours, avx2, torch, operations=1e9):
        times = {
            report.OURS: ours,
            report.AVX2: avx2,
            "torch, channels last": torch,
            "torch, channels first": 9.0,
        }
        spread = {who: dict(median=t, low=t, high=t, count=3, first=t, error=1e-6) for who, t in times.items()}
        return dict(name=name, kind="conv", size={}, curve=None, operations=operations, bytes=1e6, times=spread)

    growth = [record("a", 0.1, 0.1, 0.2) | {"curve": ("cells", cells)} for cells in (1, 10)]
    return {
        "ceilings": {report.OURS: {"gflops": 100.0, "gigabytes": 10.0}},
        "work": [record("fast", 0.1, 0.2, 0.4), record("even", 1.0, 1.0, 1.1)],
        "growth": growth,
        "stages": {}, "memory": {"step": {report.OURS: 500.0, "torch": 700.0}},
    }  # fmt: skip


def test_ratios_are_to_the_fastest_peer():
    results = make_results()
    rows = report.make_rows(results)
    assert rows[1][:1] + rows[1][4:9] == ["fast", "400 (400 to 400)", "channels last", "4.00", "2.00", "10%"]
    assert rows[2][6] == "1.10 even"
    assert report.ratio(results["work"][0]) == 4


def test_a_comparison_shows_what_moved():
    old, new = make_results(), make_results()
    new["work"][0]["times"][report.OURS]["median"] = 0.05
    assert report.compare_results(new, old)[1][1:4] == ["100", "50.0", "2.00"]


def test_tables_hold_every_cell():
    rows = report.make_rows(make_results())
    assert len({len(line) for line in report.plain_table(rows).splitlines()}) == 1
    assert report.markdown_table(rows).count("\n") == len(rows)
    assert report.memory_rows(make_results()["memory"])[1] == ["step", "500", "700"]


def test_plots_are_made(tmp_path):
    made = plots.plot_all(make_results(), tmp_path)
    assert [path.name for path in made] == ["ratios.png", "roofline.png", "growth.png"]
    assert all(path.stat().st_size > 5000 for path in made)


@pytest.mark.parametrize("machine, has_avx2", [("x86_64", True), ("AMD64", True), ("aarch64", False), ("arm64", False)])
def test_nobody_is_compiled_for_a_processor_of_another_kind(monkeypatch, machine, has_avx2):
    monkeypatch.setattr(contest.platform, "machine", lambda: machine)
    names = [contestant.name for contestant in contest.make_contestants(None, None)]
    assert (report.AVX2 in names) == has_avx2 and report.OURS in names


def test_a_contestant_that_fails_is_reported_and_the_others_go_on(tmp_path):
    class Broken:
        contestant = contest.Contestant("broken", "ours")

        def ask(self, do, **order):
            return {"error": "no memory"}

    judge = Broken()
    record = contest.compete([Broken()], judge, "work", WORK[0], 0, 1, tmp_path)
    assert record["times"] == {"broken": {"failed": "no memory"}}


@pytest.mark.parametrize("seconds, turn", [(2.0, [2.0, 2.0]), (0.04, [0.04, 0.04]), (0.5, [0.5])])
def test_the_first_repetition_counts_where_no_waking_up_is_needed(monkeypatch, seconds, turn):
    monkeypatch.setattr(Task, "once", lambda task: (seconds, None))
    assert Task(run=print).turn() == turn
