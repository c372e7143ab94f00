"""The results ledger: its file, its table, its figures."""

from __future__ import annotations

import itertools
import json

import pytest

from ch08.figures import plot_accuracy_against_tokens
from shared.evaluation import ledger
from shared.evaluation.evaluator import EvalResult
from shared.evaluation.ledger import append_result, ledger_path, ledger_table, plot_ledger, read_ledger
from shared.evaluation.statistics import wilson_interval
from shared.support.jsonl import append_jsonl, write_jsonl
from tools import ledger as of_authors
from tools.ledger import refresh_figure


@pytest.fixture
def own(tmp_path, monkeypatch):
    """An empty ledger and no reference."""
    monkeypatch.setenv("COURSE_LEDGER", str(tmp_path / "deep" / "own.jsonl"))
    monkeypatch.setattr(ledger, "REFERENCE", tmp_path / "reference.jsonl")
    return ledger_path()


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


def test_labels_of_crowded_points_stay_inside_the_second_figure_and_apart(own):
    for correct in (36, 36, 37, 38, 40, 40, 12):
        append_result(result(correct, 40), chapter="ch08", method=f"method {len(read_ledger())}")
    axes = plot_accuracy_against_tokens()
    heights = sorted(label.xy[1] for label in axes.texts)
    assert len(heights) == 7
    assert heights[-1] < 98
    assert heights[0] == pytest.approx(30)
    assert all(above - below > 4.5 for below, above in itertools.pairwise(heights))


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
