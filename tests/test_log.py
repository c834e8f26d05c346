"""The log of a run: read, plotted, smoothed; and the page it goes to."""

import sys

import numpy as np
import pytest
from PIL import Image

from minimrcnn.errors import DataError
from minimrcnn.training import log as run_log
from minimrcnn.training.page import write_page


def test_times_are_the_middle_one_and_the_sum(tmp_path):
    (tmp_path / "log.jsonl").write_text("".join(f'{{"step": 1, "seconds": {s}}}\n' for s in (1.0, 8.0, 2.0)))
    assert run_log.read_times(tmp_path / "log.jsonl") == {"seconds_per_step": 2.0, "seconds": 11.0}


def test_a_total_is_that_of_the_losses_that_are_there(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    run_log.plot_log([{"step": 1, "loss_a": 1.0, "loss_b": 2.0}, {"step": 2, "loss_a": 4.0}], tmp_path / "a.png")
    lines = {line.get_label(): line.get_ydata().tolist() for line in drawn[0].axes[0].lines}
    assert lines["total"] == [3, 4] and lines["a"] == [1, 4]


def test_a_loss_of_0_leaves_a_gap(tmp_path, monkeypatch):
    """A logarithm has no place for it, as the mask loss of no objects."""
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, *_, **__: drawn.append(figure))
    run_log.plot_log([{"step": step, "loss_a": float(step % 2)} for step in (1, 2, 3)], tmp_path / "a.png")
    np.testing.assert_array_equal(drawn[0].axes[0].lines[1].get_ydata(), [1, np.nan, 1])


def test_losses_are_plotted_without_pyplot(tmp_path):
    sys.modules.pop("matplotlib.pyplot", None)
    rows = [
        f'{{"step": {s}, "learning_rate": 0.001, "loss_mask": {s % 3}, "loss_objectness": {1 / s}}}'
        for s in range(1, 90)
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(['{"event": "start"}', *rows, '{"step": 90, "loss_ma']))
    assert len(run_log.read_log(log)) == 90, "the row that was cut off is left out"
    run_log.plot_log(log, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        assert min(picture.size) > 500
    run_log.plot_log([{"step": 1, "loss_mask": 0.7}], tmp_path / "one.svg")
    assert "matplotlib.pyplot" not in sys.modules

    log.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(DataError, match="row 2"):
        run_log.plot_log(log, tmp_path / "x.png")
    with pytest.raises(DataError, match="no losses"):
        run_log.plot_log([{"step": 1}], tmp_path / "x.png")


def test_smooth_keeps_a_constant_and_skips_what_is_absent():
    values = np.full(200, 2.5)
    values[50:60] = np.nan
    smoothed = run_log.smooth(values)
    np.testing.assert_allclose(smoothed[np.isfinite(smoothed)], 2.5)
    assert np.isfinite(smoothed[[0, 51, 199]]).all() and np.isnan(smoothed[55])


def test_the_plot_says_what_it_shows(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *arguments, **names: seen.append(figure.axes[0]))
    for steps in (1, 59, 150):
        run_log.plot_log(
            [{"step": s, "learning_rate": 1e-3, "loss_mask": 0.5 + s % 3} for s in range(1, steps + 1)],
            tmp_path / "x.png",
        )
    one, short, long = seen
    assert one.get_title() == short.get_title() == "Losses in training"  # nothing is smoothed
    assert "means over 5 steps" in long.get_title()
    assert [len(axes.lines) for axes in seen] == [2, 2, 4]  # the total and the mask's, single steps faintly below
    assert [axes.lines[0].get_marker() for axes in seen] == ["o", "None", "None"]  # a single step is seen


def test_more_losses_than_colors(tmp_path):
    run_log.plot_log([{"step": 1, "learning_rate": 1e-3, **{f"loss_{k}": 1.0 for k in range(15)}}], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size


def test_a_page_appears_whole_and_needs_no_network(tmp_path):
    page = write_page(tmp_path, "Squares & <discs>", ["<p>one</p>", "<p>more</p>"], None)
    html = page.read_text(encoding="utf-8")
    assert page == tmp_path / "index.html" and "Squares &amp; &lt;discs&gt;" in html and "<p>one</p>" in html
    assert "http:" not in html and "https:" not in html and "refresh" not in html
    assert '<meta http-equiv="refresh" content="10">' in write_page(tmp_path, "t", [], 10).read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
