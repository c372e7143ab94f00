"""The quiz of ch01: the answers that the notebook gives are right, in every form that a reader may write them."""

from __future__ import annotations

import ast
import re

import pytest

from shared.checks import outcome, registered
from tools.cells import read_notebook

NOTEBOOK = "ch01/ch01_main.ipynb"


def printed_answers(root) -> dict[str, object]:
    """The assignments in the notebook's fold-out of answers, by exercise number."""
    cells = [cell.source for cell in read_notebook(root / NOTEBOOK).cells if "<details>" in cell.source]
    code = re.search(r"```python\n(.*?)```", cells[0], re.DOTALL)[1]
    return {
        "1." + line.targets[0].id.removeprefix("answer_"): ast.literal_eval(line.value) for line in ast.parse(code).body
    }


def test_every_answer_that_the_notebook_gives_passes_and_is_explained(root):
    answers = printed_answers(root)
    assert sorted(answers) == sorted(registered("1"))
    assert len(answers) >= 8
    for number, answer in answers.items():
        result = outcome(number, answer)
        assert result.passed, result.message
        assert len(result.message) > 40, "a right answer is told why it is right"


def test_every_question_stands_in_the_notebook(root):
    sources = [cell.source for cell in read_notebook(root / NOTEBOOK).cells]
    for number in registered("1"):
        assert any(source.startswith(f"**Question {number}.**") for source in sources)
        assert any(f'check("{number}", answer)' in source for source in sources)


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("1.1", "C"),
        ("1.1", ["c"]),
        ("1.2", ["c", "d", "a", "b"]),
        ("1.2", "c, d, a, b"),
        ("1.3", {"c", "b"}),
        ("1.3", "b and c"),
        ("1.4", ("d", "a")),
        ("1.5", 0.9 * 0.8),
        ("1.6", " Swim"),
        ("1.8", ["No", "Unknown"]),
        ("1.8", "no, unknown"),
        ("1.9", 1.008e11),
        ("1.10", {"direct": 6 / 0.3, "steps": 90 / 0.9}),
    ],
)
def test_a_right_answer_in_another_form_passes(number, answer):
    result = outcome(number, answer)
    assert result.passed, result.message


@pytest.mark.parametrize("answer", [3, [], {}, object(), ("no",), float("nan")])
def test_an_answer_of_an_odd_type_is_refused_in_words(answer):
    for number in registered("1"):
        result = outcome(number, answer, hint=1)
        assert not result.passed
        assert "hint: " in result.message
