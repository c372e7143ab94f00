"""The exercise checks: the framework, and for every registered check that wrong answers are rejected."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.checks import Mismatch, check, expect, outcome, register, registered
from shared.checks import _framework as framework

WRONG_ANSWERS = sorted((Path(__file__).parent / "checks").glob("*_wrong.py"))


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    monkeypatch.setattr(framework, "_exercises", dict(framework._exercises))


@pytest.fixture
def doubling():
    """Exercise 99.1: double a number."""

    @register("99.1", title="doubling", hint="add the number to itself", hint2="value + value")
    def check_double(double):
        for value in (3, 0.5):
            expect(double(value), 2 * value, case=f"value={value}")
        return "doubles numbers"


def test_a_right_solution_passes_with_one_line(doubling, capsys):
    assert check("99.1", lambda value: 2 * value) is None
    assert capsys.readouterr().out == "✓ 99.1 passed: doubles numbers\n"


def test_a_wrong_solution_is_told_expected_and_got_and_the_hint_that_is_asked_for(doubling, capsys):
    def add_three(value):
        return value + 3

    for hint in (0, 1, 2):
        check("99.1", add_three, hint=hint)
    wrong = "✗ 99.1: for value=0.5: expected 1.0, got 3.5; "
    assert capsys.readouterr().out.splitlines() == [
        wrong + 'for a hint: check("99.1", add_three, hint=1)',
        wrong + "hint: add the number to itself; more: hint=2",
        wrong + "second hint: value + value",
    ]


def starter_ellipsis(value): ...


def starter_pass(value):
    pass


def starter_raises(value):
    raise NotImplementedError


def starter_returns_ellipsis(value):
    return ...


@pytest.mark.parametrize(
    "starter", [None, ..., starter_ellipsis, starter_pass, starter_raises, starter_returns_ellipsis]
)
def test_an_untouched_starter_never_passes(doubling, starter):
    result = outcome("99.1", starter)
    assert not result.passed
    assert not result.started
    assert result.message.startswith("✗ 99.1: not solved yet: ")


def failing(value):
    doubled = 2 * value
    raise ValueError(f"bad\n  value {doubled}")


def test_an_exception_is_reported_with_cause_and_line_not_as_a_traceback(doubling, capsys):
    check("99.1", failing)
    out = capsys.readouterr().out
    assert out.startswith("✗ 99.1: failing(3) raised ValueError: bad value 6 (line 3 of it); for a hint: ")


def leaving(value):
    raise SystemExit("bye")


def test_even_exit_is_caught(doubling):
    assert "leaving(3) raised SystemExit: bye" in outcome("99.1", leaving).message


def failing_on_four(number, text, items, last):
    raise IndexError("list index out of range")


def test_the_message_names_the_plain_arguments_on_which_a_solution_raised():
    @register("99.4", title="four arguments", hint="none")
    def check_four(solution):
        solution(3, "two" * 40, [1.5, None], last=torch.zeros(2))

    long = repr("two" * 40)[:57] + "..."
    wanted = f"failing_on_four(3, {long}, [1.5, None], last=...) raised IndexError: list index out of range"
    assert wanted in outcome("99.4", failing_on_four).message


@pytest.mark.parametrize("solution", ["text", 3, lambda value: object(), lambda: 1, [1]])
def test_a_solution_of_another_form_is_rejected_in_words(doubling, solution):
    result = outcome("99.1", solution, hint=1)
    assert not result.passed
    assert "hint: add the number to itself" in result.message
    assert "Traceback" not in result.message
    assert "0x" not in result.message


def test_an_unknown_number_says_which_there_are(doubling):
    assert outcome("99.7", None).message == "✗ 99.7: there is no exercise of this number (there are: 99.1)"
    assert "none in this chapter" in outcome("98.1", None).message


def test_a_number_is_given_once(doubling):
    with pytest.raises(ValueError, match=r"Exercise 99\.1 has a check already"):
        register("99.1", title="other", hint="")(lambda solution: None)


def test_a_check_that_never_calls_the_function_does_not_pass():
    register("99.2", title="lazy", hint="")(lambda solution: None)
    assert not outcome("99.2", lambda value: value).passed


def test_none_can_be_a_right_answer_where_the_check_says_so():
    @register("99.3", title="first word", hint="there may be none", may_return_none=True)
    def check_first(first):
        expect(first(""), None, case="the empty text")
        expect(first("a b"), "a", case="'a b'")

    assert outcome("99.3", lambda text: text.split()[0] if text else None).passed
    assert not outcome("99.3", starter_pass).passed
    assert not outcome("99.3", starter_ellipsis).passed


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.0 + 1e-9, 1.0),
        (1, 1.0),
        ((1, 2.0), [1, 2]),
        ({"a": [1]}, {"a": [1.0]}),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")])),
        ([[1, 2]], torch.tensor([[1, 2]])),
        (float("nan"), float("nan")),
        (True, True),
        (None, None),
        ("a", "a"),
    ],
)
def test_expect_accepts(got, expected):
    expect(got, expected)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (1.001, 1.0),
        (10**20 + 1, 10**20),
        ("1", 1),
        (1, True),
        (1, None),
        ([1], [1, 2]),
        ([1, 2], 1),
        ({"a": 1}, {"b": 1}),
        (torch.zeros(2), torch.zeros(3)),
        (torch.zeros(2), torch.ones(2)),
        ("text", torch.zeros(1)),
        ("a ", "a"),
        ("12", ["1", "2"]),
    ],
)
def test_expect_rejects(got, expected):
    with pytest.raises(Mismatch, match=r"expected .*, got "):
        expect(got, expected)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (np.int64(3), 3),
        (np.int64(3), 3.0),
        (np.float64(0.5), 0.5),
        (np.float32(0.1), 0.1),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        (np.array([[0.5], [1.5]]), [[0.5], [1.5]]),
        (np.array([1.0, 2.0]), torch.tensor([1.0, 2.0])),
        ({"a": np.int64(1), "b": np.array([True, False])}, {"a": 1, "b": [True, False]}),
        ([np.float64(0.5), (np.int64(1), np.bool_(False))], [0.5, (1, False)]),
    ],
)
def test_expect_accepts_numpy(got, expected):
    expect(got, expected)


def test_numpy_numbers_agree_within_the_tolerance():
    expect(np.float32(0.1004), 0.1, tolerance=1e-3)
    with pytest.raises(Mismatch):
        expect(np.float32(0.1004), 0.1, tolerance=1e-4)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (np.int64(4), 3),
        (np.int64(1), True),
        (np.bool_(True), 1),
        (np.bool_(False), True),
        (np.float64("nan"), 1.0),
        (np.array([1, 2]), [1, 3]),
        (np.array([1, 2]), [1, 2, 3]),
        (np.array([3]), 3),
        ({"a": np.int64(2)}, {"a": 1}),
        ([0.5, np.float64(0.6)], [0.5, 0.5]),
    ],
)
def test_expect_rejects_numpy(got, expected):
    with pytest.raises(Mismatch, match=r"expected .*, got "):
        expect(got, expected)


def test_long_results_are_shortened():
    assert len(str(Mismatch("x" * 1000, torch.zeros(1000)))) < 400


# ------------------------------------------------------------------------------------- the course's own checks


def chapter_of(path: Path) -> str:
    """Chapter of a module such as ch02.py, ch02_wrong.py or appendix_c.py, as exercise numbers begin."""
    name = path.stem.removesuffix("_wrong")
    return str(int(name[2:])) if name.startswith("ch") else name.removeprefix("appendix_").upper()


def wrong_answers() -> dict[str, list]:
    found: dict[str, list] = {}
    for path in WRONG_ANSWERS:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found.update(module.WRONG)
    return found


def registered_numbers() -> list[str]:
    folder = Path(framework.__file__).parent
    modules = [*sorted(folder.glob("ch[0-9][0-9].py")), *sorted(folder.glob("appendix_?.py"))]
    return [number for path in modules for number in registered(chapter_of(path))]


def test_every_check_has_wrong_answers_and_every_wrong_answer_a_check():
    counts = {number: len(answers) for number, answers in wrong_answers().items()}
    assert sorted(counts) == sorted(registered_numbers())
    assert {number: count for number, count in counts.items() if count < 2} == {}


def test_every_exercise_has_two_hints_that_differ_each_a_sentence_on_one_line():
    numbers = registered_numbers()
    assert len(numbers) > 40
    for number in numbers:
        first, second = framework._exercises[number].hints
        assert len({first, second}) == 2, f"exercise {number} has no second hint"
        for hint in (first, second):
            assert 20 < len(hint) < 280
            assert "\n" not in hint
            assert not hint.endswith(".")


WRONG_CASES = [(number, answer) for number, answers in wrong_answers().items() for answer in answers]


@pytest.mark.parametrize(
    ("number", "answer"), WRONG_CASES, ids=[f"{number}-{index}" for index, (number, _) in enumerate(WRONG_CASES)]
)
def test_a_plausible_wrong_answer_is_rejected(number, answer, capsys):
    result = outcome(number, answer, hint=1)
    assert not result.passed
    assert result.started, f"a wrong answer, not a starter, is wanted: {result.message}"
    assert result.message.startswith(f"✗ {number}: ")
    assert "; hint: " in result.message
    assert "Traceback" not in result.message


LIBRARY_CASES = [case for case in WRONG_CASES if getattr(case[1], "__name__", "").startswith("asks_the_library")]


@pytest.mark.parametrize(("number", "answer"), LIBRARY_CASES)
def test_a_solution_that_calls_what_it_is_to_write_is_told_so(number, answer):
    assert "expected work of your own, got 'a call of " in outcome(number, answer).message


@torch.inference_mode()
def logits_with_a_cache(model, ids):
    return model(torch.tensor([ids], device=model.device), model.new_cache())[0, -1]


@torch.inference_mode()
def logits_in_double_precision(model, ids):
    return model(torch.tensor([ids], device=model.device))[0, -1].double()


@pytest.mark.parametrize(("number", "answer"), [("2.2", logits_with_a_cache), ("2.2", logits_in_double_precision)])
def test_another_right_answer_passes(number, answer):
    result = outcome(number, answer)
    assert result.passed, result.message


@pytest.mark.parametrize("number", registered_numbers())
def test_no_check_passes_an_untouched_starter(number):
    for starter in (None, ..., lambda *args, **kwargs: None, lambda *args, **kwargs: ...):
        assert not outcome(number, starter).passed
