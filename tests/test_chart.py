"""Charts in a page: round ticks around all values, gaps where nothing can be drawn, no more points than are seen."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minimrcnn.chart import DIGIT, HEIGHT, MOST_POINTS, WIDTH, draw_chart, linear_ticks, logarithmic_ticks, thin

positive = st.floats(1e-6, 1e6)


@given(positive, positive)
def test_ticks_enclose_the_values(a, b):
    low, high = min(a, b), max(a, b)
    for ticks, most in ((logarithmic_ticks(low, high), 16), (linear_ticks(0, high), 12)):
        assert ticks[0] <= low and ticks[-1] >= high * (1 - 1e-9) and 2 <= len(ticks) <= most
        assert (np.diff(ticks) > 0).all()


def test_steps_have_whole_ticks():
    assert linear_ticks(1, 3, least=1) == [1, 2, 3]
    assert linear_ticks(1, 1, least=1) == [1]
    assert linear_ticks(0, 0.35) == [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35]


@given(st.integers(1, 3000), st.booleans())
def test_thinning_takes_means_in_order(count, logarithmic):
    values = np.random.default_rng(count).uniform(0.5, 2, count)
    values[::7] = np.nan
    steps, means = thin(np.arange(1, count + 1), values, logarithmic)
    assert len(steps) == len(means) <= MOST_POINTS and steps[-1] == count and (np.diff(steps) > 0).all()
    assert np.nanmin(values, initial=9) - 1e-9 <= np.nanmin(means, initial=9)
    assert np.nanmax(values, initial=0) + 1e-9 >= np.nanmax(means, initial=0)


def parse(html):
    figure = ElementTree.fromstring(html.replace("&#9632;", "").replace("<br>", "<br/>"))
    return figure, [path for path in figure.iter("path") if path.get("fill") == "none"]


def test_a_chart_is_whole_and_stays_within_its_frame():
    steps = np.arange(1, 1001)
    curves = {"total": (steps, 3 / steps), "mask <1>": (steps, np.where(steps % 2, 1 / steps, 0))}
    figure, paths = parse(draw_chart(curves, 'Losses & "more"', logarithmic=True))
    assert len(paths) == 2 and "mask <1>" in "".join(figure.itertext())
    for path in paths:
        numbers = np.array(re.findall(r"[\d.]+", path.get("d")), float).reshape(-1, 2)
        assert (numbers >= 0).all() and (numbers <= (WIDTH, HEIGHT)).all() and len(numbers) > 200


@given(st.integers(1, 10**6), st.floats(1e-5, 10))
def test_the_words_at_the_axes_are_whole_and_apart(last, least):
    figure, _ = parse(draw_chart({"total": ([1, last], [least, 10])}, "Losses", logarithmic=True, until=last))
    across: dict[str, list] = {}
    for text in figure.iter("text"):
        x, width = float(text.get("x")), len(text.text) * DIGIT
        left = x - width / (1 if text.get("text-anchor") == "end" else 2)
        assert left >= 0 and (text.get("text-anchor") == "end" or left + width <= WIDTH + 0.1), text.text
        across.setdefault(text.get("text-anchor"), []).append((left, left + width))
    for (_, end), (start, _) in itertools.pairwise(across["middle"]):
        assert start - end > DIGIT


def test_what_cannot_be_drawn_leaves_gaps_or_nothing():
    _, (path,) = parse(draw_chart({"a": ([1, 2, 3, 4, 5], [0.5, 0.6, np.nan, 0.1, 0.2])}, "AP"))
    assert path.get("d").count("M") == 2 and path.get("d").count("L") == 2
    figure, _ = parse(draw_chart({"a": ([7], [0.0])}, "AP"))
    assert len(list(figure.iter("circle"))) == 1  # a single point is seen
    figure, _ = parse(draw_chart({"a": ([500], [0.5])}, "AP", until=1000))
    assert "1000" in "".join(figure.itertext()) and 220 < float(figure.find(".//circle").get("cx")) < 260
    assert draw_chart({"a": ([1, 2], [np.nan, np.inf])}, "AP") == draw_chart({}, "AP") == ""
