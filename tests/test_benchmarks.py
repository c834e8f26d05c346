"""The benchmarks: every twin is timed, what is timed is right, and a run leaves what it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
if not (ROOT / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not beside these tests", allow_module_level=True)

from benchmarks import contest, ours, plots, report, textbook  # noqa: E402
from benchmarks.timing import Task  # noqa: E402
from benchmarks.work import GROWTH, WORK, Work, make_inputs  # noqa: E402
from minimrcnn.kernels.twin import Twin  # noqa: E402
from tests.convolution_twin_arguments import ARGUMENTS as OF_A_GPU  # noqa: E402

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
    large = Work("large", "conv", TINY["conv"] | dict(height=100, width=100, inner=16, outer=16))
    ours.build(large, make_inputs(large)).once()
    on_a_gpu = {*OF_A_GPU, "roi_align_gradient_in_order", "roi_pool_gradient_in_order"}
    assert called == set(Twin.registry) - on_a_gpu


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
    subprocess.run([*command, "--json", old], cwd=ROOT, env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [*command, "--json", new, "--compare", old, "--plots", tmp_path], cwd=ROOT, env=environment, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    (record,) = json.loads(new.read_text())["work"]
    assert record["times"]["minimrcnn"]["error"] == 0
    assert record["times"]["minimrcnn"]["median"] > 0
    assert record["times"]["textbook"]["median"] > 0
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


def test_a_contestant_that_fails_is_reported_and_the_others_go_on(tmp_path):
    class Broken:
        contestant = contest.Contestant("broken", "ours")

        def ask(self, do, **order):
            return {"error": "no memory"}

    judge = Broken()
    record = contest.compete([Broken()], judge, "work", WORK[0], 0, 1, tmp_path)
    assert record["times"] == {"broken": {"failed": "no memory"}}
