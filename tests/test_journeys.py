"""How far a reader has to travel: what one call runs through can be read in an hour."""

from __future__ import annotations

import pytest

from tools import journey


@pytest.fixture(scope="module")
def calls():
    return journey.journeys()


def test_generate_runs_through_few_files(calls):
    assert len(journey.travel(calls["generate"]).functions) <= 6


def test_a_step_of_grpo_runs_through_few_files_and_lines(calls):
    made = journey.travel(calls["GRPO step"])
    assert "loss" in made.functions["grpo/trainer.py"], "a step with signal"
    assert len(made.functions) <= 12, str(made.functions)
    assert sum(made.lines.values()) <= 900, str(made.lines)


def test_lines_are_code_and_no_words_about_it(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        '"""A file."""\n\n\ndef f(x):\n    """Doc\n    string."""\n    # why\n    return (\n        x\n    )\n'
    )
    assert journey.code_lines(path) == {4, 8, 9, 10}
    [function] = journey.functions_of(path).values()
    assert list(journey.span(function)) == list(range(4, 11))


def test_what_is_not_called_does_not_count():
    from shared.support.values import as_number

    made = journey.travel(lambda: as_number("1.5"))
    assert made.functions == {"support/values.py": ["as_number"]}
    assert made.lines == {"support/values.py": 5}
