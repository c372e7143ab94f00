"""The results ledger: its file, its table, its figures."""

from __future__ import annotations

import itertools
import json

import pytest

from ch08.figures import CONTROL, label_places, plot_accuracy_against_tokens, plot_every_method, spread
from shared.evaluation import ledger
from shared.evaluation.evaluator import EvalResult
from shared.evaluation.ledger import append_result, ledger_table, plot_ledger, read_ledger, results_file
from shared.evaluation.statistics import wilson_interval
from shared.support.jsonl import append_jsonl, write_jsonl
from tools import ledger as of_authors
from tools.ledger import refresh_figure


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An empty ledger and no reference."""
    monkeypatch.setenv("COURSE_LEDGER", str(tmp_path / "deep" / "own.jsonl"))
    monkeypatch.setattr(ledger, "REFERENCE", tmp_path / "reference.jsonl")
    return results_file()


def result(correct: int, n: int, seconds: float = 2.0) -> EvalResult:
    records = [{"unique_id": str(i), "correct": i < correct, "tokens": 10} for i in range(n)]
    return EvalResult(records, seconds, {"seed": 7})


def test_a_row_says_what_was_measured_and_how(own):
    row = append_result(result(30, 40), chapter="ch03", method="direct")
    assert json.loads(own.read_text(encoding="utf-8")) == row
    low, high = wilson_interval(30, 40)
    assert row["ci95"] == [pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6)]
    expected = {"n": 40, "correct": 30, "accuracy": 0.75, "tokens_per_problem": 10.0, "seconds": 2.0, "seed": 7}
    assert {name: row[name] for name in expected} == expected
    assert {row["model"], row["dataset"]} == {"tiny", "minimath-test"}
    assert set(row["versions"]) == {"python", "torch"}


def test_rows_are_appended_and_the_latest_counts(own):
    for correct in (10, 20):
        append_result(result(correct, 40), chapter="ch04", method="cot")
    append_result(result(5, 40), chapter="ch03", method="cot")
    append_result(result(7, 40), chapter="ch04", method="cot", model="other")
    assert len(own.read_text(encoding="utf-8").splitlines()) == 4
    assert [(row["chapter"], row["correct"]) for row in read_ledger()] == [("ch03", 5), ("ch04", 20), ("ch04", 7)]


def test_a_row_that_was_cut_off_does_not_spoil_the_ledger(own):
    append_result(result(10, 40), chapter="ch03", method="direct")
    with own.open("a", encoding="utf-8") as file:
        file.write('{"chapter": "ch0')
    assert len(read_ledger()) == 1
    append_result(result(20, 40), chapter="ch03", method="cot")
    assert [row["method"] for row in read_ledger()] == ["direct", "cot"]


@pytest.mark.parametrize(("line", "message"), [("{,}", "Line 1 of own.jsonl is damaged"), ("{}", "no 'chapter'")])
def test_a_damaged_ledger_is_named(own, line, message):
    own.parent.mkdir()
    own.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_ledger()


@pytest.mark.parametrize("names", [{"chapter": 3}, {"method": None}, {"model": 5}, {"dataset": ["test"]}])
def test_a_name_that_is_no_text_is_refused_before_it_is_written(own, names):
    with pytest.raises(ValueError, match=f"{next(iter(names))} is .*: give a text"):
        append_result(result(1, 2), **{"chapter": "ch03", "method": "direct", **names})
    assert not own.exists()


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("chapter", 3, "text"),
        ("method", None, "text"),
        ("n", "40", "number"),
        ("accuracy", None, "number"),
        ("accuracy", float("nan"), "number"),
        ("tokens_per_problem", [10], "number"),
        ("seconds", True, "number"),
        ("ci95", 0.5, "pair of numbers"),
        ("ci95", [0.5], "pair of numbers"),
        ("ci95", [0.5, None], "pair of numbers"),
    ],
)
def test_a_row_with_a_wrong_or_missing_field_is_named(own, field, value, kind):
    row = append_result(result(10, 40), chapter="ch03", method="direct")
    append_jsonl(own, [row | {field: value}])
    with pytest.raises(ValueError, match=rf"Row 2 of own.jsonl has {field} = .*, which is no {kind}: delete"):
        ledger_table()
    write_jsonl(own, [{name: row[name] for name in row if name != field}])
    with pytest.raises(ValueError, match=f"Row 1 of own.jsonl has no '{field}': delete that line"):
        ledger_table()


def test_the_table_shows_own_rows_first_and_the_reference_beside(own, monkeypatch):
    assert ledger_table() == "The ledger is empty: run a chapter's notebook first."
    monkeypatch.setenv("COURSE_LEDGER", str(ledger.REFERENCE))
    append_result(result(20, 40), chapter="ch03", method="direct")
    append_result(result(30, 40), chapter="ch03", method="chain of thought")
    monkeypatch.setenv("COURSE_LEDGER", str(own))
    append_result(result(31, 40), chapter="ch03", method="chain of thought")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in ledger_table().splitlines()]
    assert lines[2] == [
        "ch03", "chain of thought", "tiny, minimath-test", "40", "77.5 % (62.5 to 87.7)", "10.0", "2.0",
        "75.0 % (59.8 to 85.8)",
    ]  # fmt: skip
    assert lines[3] == ["ch03", "direct", "tiny, minimath-test", "40", "-", "-", "-", "50.0 % (35.2 to 64.8)"]


def test_the_figure_shows_every_measurement(own, monkeypatch):
    with pytest.raises(ValueError, match="The ledger is empty"):
        plot_ledger()
    append_result(result(20, 40), chapter="ch03", method="direct")
    append_result(result(9, 40), chapter="ch03", method="direct", model="other")
    axes = plot_ledger()
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["ch03 direct", "ch03 direct (other, minimath-test)"]
    points = axes.containers[0].lines[0].get_xdata()
    assert list(points) == [50.0, 22.5]
    path = refresh_figure()
    assert path == own.with_suffix(".png")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_authors_command_makes_own_rows_the_reference(own, monkeypatch, capsys):
    append_result(result(20, 40), chapter="ch03", method="direct")
    monkeypatch.setattr("sys.argv", ["ledger", "--as-reference"])
    of_authors.main()
    assert "Wrote 1 rows to reference.jsonl." in capsys.readouterr().out
    assert read_ledger(ledger.REFERENCE) == read_ledger()


def test_the_second_figure_shows_accuracy_against_tokens_of_the_usual_model_only(own):
    append_result(result(20, 40), chapter="ch03", method="direct")
    append_result(result(30, 40), chapter="ch04", method="vote")
    append_result(result(9, 40), chapter="ch03", method="direct", model="other")
    axes = plot_accuracy_against_tokens()
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert labels == ["1 ch03 direct", "2 ch04 vote"]
    assert axes.get_xscale() == "log"
    [first, second] = [container.lines[0].get_xydata()[0] for container in axes.containers]
    assert tuple(first) == (10.0, 50.0)
    assert tuple(second) == (10.0, 75.0)
    refresh_figure()
    assert own.with_name("own-tokens.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_of_crowded_points_stand_beside_all_of_them_inside_the_figure_and_apart(own):
    for correct in (36, 36, 37, 38, 40, 40, 12):
        append_result(result(correct, 40), chapter="ch08", method=f"method {len(read_ledger())}")
    numbers = [label for label in plot_accuracy_against_tokens().texts if label.get_text().isdigit()]
    places = [label.xyann for label in numbers]
    assert [label.xy[1] for label in numbers] == [90.0, 90.0, 92.5, 95.0, 100.0, 100.0, 30.0]
    assert all(not 10 / 1.1 < cost < 10 * 1.1 for cost, _ in places), "no number stands where the points are"
    for column in {cost for cost, _ in places}:
        heights = sorted(height for cost, height in places if cost == column)
        assert all(0 < height < 98 for height in heights)
        assert all(above - below > 4.4 for below, above in itertools.pairwise(heights))


def test_a_lonely_point_has_its_number_at_its_height():
    assert label_places([(10.0, 30.0), (500.0, 60.0)]) == [(11.6, 30.0), (580.0, 60.0)]


@pytest.mark.parametrize(
    ("heights", "places"),
    [
        ([], []),
        ([10, 50, 51], [10, 48, 53]),
        ([50, 50, 50], [45, 50, 55]),
        ([99, 100], [92, 97]),
        ([0, 0], [2.5, 7.5]),
        ([20, 40, 60], [20, 40, 60]),
    ],
)
def test_heights_are_spread_as_little_as_needed(heights, places):
    assert spread(heights, 5) == pytest.approx(places)


def test_heights_that_have_no_room_share_what_there_is():
    placed = spread([50.0] * 40, 5)
    assert placed[0] == pytest.approx(2.5)
    assert placed[-1] == pytest.approx(97.0)
    assert all(above > below for below, above in itertools.pairwise(placed))


def test_the_control_is_a_line_in_both_figures(own):
    append_result(result(20, 40), chapter="ch03", method="direct")
    assert not dashed(plot_every_method())
    assert not dashed(plot_accuracy_against_tokens())
    append_result(result(30, 40), chapter="ch04", method=CONTROL)
    append_result(result(5, 40), chapter="ch04", method=CONTROL, model="other")
    assert dashed(plot_every_method()) == [[75.0, 75.0]]
    assert [list(line.get_ydata()) for line in plot_accuracy_against_tokens().lines if is_dashed(line)] == [
        [75.0, 75.0]
    ]


def is_dashed(line) -> bool:
    return line.get_linestyle() == "--"


def dashed(axes) -> list[list[float]]:
    return [list(line.get_xdata()) for line in axes.lines if is_dashed(line)]


def test_without_a_measurement_of_the_usual_model_the_second_figure_says_what_to_do(own):
    append_result(result(9, 40), chapter="ch03", method="direct", model="other")
    with pytest.raises(ValueError, match="run a chapter's notebook first"):
        plot_accuracy_against_tokens()
    refresh_figure()
    assert not own.with_name("own-tokens.png").exists()


def test_rows_of_reader_and_reference_stand_in_the_order_of_the_chapters(own):
    append_result(result(20, 40), chapter="ch03", method="direct")
    own.rename(ledger.REFERENCE)
    append_result(result(30, 40), chapter="ch08", method="distilled")
    assert ledger_table().index("ch03") < ledger_table().index("ch08")


def test_a_chapter_shows_what_was_measured_up_to_it(own):
    for chapter in ("appF", "ch03", "ch08"):
        append_result(result(20, 40), chapter=chapter, method=f"of {chapter}")
    assert "of ch03" in ledger_table(until="ch07")
    assert "of ch08" not in ledger_table(until="ch07")
    assert "of ch08" in ledger_table(until="ch08")
    assert "of appF" not in ledger_table(until="ch08")
    assert [text.get_text() for text in plot_ledger(until="ch03").get_yticklabels()] == ["ch03 of ch03"]
    assert all(f"of {chapter}" in ledger_table() for chapter in ("ch03", "ch08", "appF"))
