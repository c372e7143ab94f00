"""The plots show all that they are given."""

from __future__ import annotations

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest

from shared.plots import interval_points, lines, new_figure, panels, token_bars
from shared.support.jsonl import read_jsonl
from shared.tiny.plot_log import LOG, plot_log


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_lines_of_many_series_are_all_drawn_and_differ():
    """Six colours and seven markers: no two of the first 42 look alike."""
    series = {f"series {i}": [i, i + 1] for i in range(20)}
    axes = lines([1, 2], series)
    assert [line.get_label() for line in axes.lines] == list(series)
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 20


def test_points_of_many_series_are_all_drawn_and_differ():
    series = {f"series {i}": [(0.04 * i, 0.04 * i, 0.05 * i)] for i in range(20)}
    axes = interval_points(["tiny"], series)
    drawn = [container.lines[0] for container in axes.containers]
    assert [line.get_xdata()[0] for line in drawn] == pytest.approx([4 * i for i in range(20)])
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 20
    assert len(axes.figure.legends[0].get_texts()) == 20


@pytest.mark.parametrize("values", [[-3, -1], [-3, 1], [float("nan"), -1], [None, -1]])
def test_lines_below_zero_are_shown(values):
    low, high = lines([1, 2], {"a": values, "b": [-2, -1]}).get_ylim()
    assert low < min(value for value in (-2, *values) if value is not None and value == value)
    assert high > -1


@pytest.mark.parametrize("values", [[3, 4], [0, 1], [float("nan"), 4], [None, 4]])
def test_lines_above_zero_start_at_zero(values):
    assert lines([1, 2], {"a": values}).get_ylim()[0] == 0


def test_a_logarithmic_axis_has_its_ticks_at_the_values():
    axes = lines([1, 2, 8], {"a": [3, 4, 5]}, log="x")
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "8"]


def test_bars_can_be_drawn_beside_others():
    _, mine = new_figure()
    assert token_bars(["a b", "\n"], [0.75, 0.25], axes=mine) is mine
    assert [label.get_text() for label in mine.get_yticklabels()] == ["a␣b", "\\n"]
    assert token_bars(["a"], [1.0]) is not mine


def test_panels_that_are_not_asked_for_are_not_drawn():
    drawn = panels(3)
    assert drawn == drawn[0].figure.axes
    assert len(drawn) == 3


def test_the_log_of_pre_training_is_drawn_to_its_end():
    axes = plot_log().axes[0]
    last = [row for row in read_jsonl(LOG) if "accuracy" in row][-1]
    drawn = {line.get_label(): line for line in axes.lines}
    for level in "12345":
        assert drawn[f"level {level}"].get_ydata()[-1] == 100 * last["accuracy"]["cot"][level]
    assert drawn["direct, all"].get_ydata()[-1] == 100 * last["accuracy"]["direct"]["all"]
    assert drawn["direct, all"].get_xdata()[-1] == last["tokens"] / 1e6
    assert axes.get_ylim() == (0, 100)
