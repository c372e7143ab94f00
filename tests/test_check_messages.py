"""What a check says about typical slips, how it stops, raises and counts what is solved."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from course import ROOT
from shared.checks import CheckFailed, Mismatch, ch07, check, expect, outcome, register, registered
from shared.checks import _framework as framework
from shared.checks._limit import time_limit
from tools import progress as table
from tools.cells import code_cells, read_notebook
from tools.execute import kernel_environment

# Before a test replaces the registry, to which a module adds its checks only once.
REGISTERED = {chapter: registered(chapter) for chapter in table.exercises(ROOT)}


@pytest.fixture(autouse=True)
def exercises(monkeypatch):
    """Exercise 99.1 wants a function that doubles a number, 99.2 the letter b."""
    monkeypatch.setattr(framework, "_exercises", dict(framework._exercises))

    @register("99.1", title="doubling", hint="add the number to itself", hint2="value + value")
    def check_double(double):
        for value in (3, 0.5):
            expect(double(value), 2 * value, case=f"value={value}")

    @register("99.2", title="a letter", hint="a, b or c", hint2="not a, and not c")
    def check_letter(letter):
        expect(letter, "b", case="the letter")


def said(number, solution, **settings):
    result = outcome(number, solution, **settings)
    assert not result.passed
    assert "\n" not in result.message
    return result.message


# ------------------------------------------------------------------------------------- an answer of another kind


@pytest.mark.parametrize(
    ("number", "solution", "wanted"),
    [
        ("2.2", lambda model, ids: [0.0], "expected a tensor, got"),
        ("3.3", lambda problems, per_level, seed: tuple(problems), "a list of problems, got"),
        ("3.3", lambda problems, per_level, seed: ["problem"], "a list of problems, got"),
        ("3.4", lambda problem, examples: [problem], "expected a text, got"),
        ("4.5", lambda prompts, samples: "half", "expected a number, got"),
        ("6.1", lambda groups: [r for g in groups for r in g], "expected one list of advantages a group, as long"),
        ("8.3", lambda rows, most: {"A": rows}, "expected a list of rows, got"),
        ("8.5", lambda model, kept: model.blocks, "expected a CausalLM, got"),
    ],
)
def test_a_result_of_another_kind_is_told_what_is_wanted(number, solution, wanted):
    assert wanted in said(number, solution)


def test_a_diagnosis_that_is_left_open_is_not_solved_yet():
    message = said("7.5", dict.fromkeys(ch07.DIAGNOSES, ...))
    assert message.startswith("✗ 7.5: not solved yet: put a diagnosis in the place of each ...")


# ------------------------------------------------------------------------------------------ expected and what came


@pytest.mark.parametrize(
    ("expected", "got", "place"),
    [
        (torch.zeros(3), torch.zeros(3, 1), "the shape: (3,) is expected, (3, 1) came (dimensions of 1: "),
        (torch.zeros(2, 3), torch.zeros(3, 2), "the shape: (2, 3) is expected, (3, 2) came (the other way round)"),
        (torch.zeros(2), torch.zeros(5), "the shape: (2,) is expected, (5,) came"),
        (torch.zeros(2), "text", "the type: a tensor is expected, a text came"),
        (torch.ones(2), -torch.ones(2), "the sign"),
        (torch.ones(2), torch.tensor([1.0, float("nan")]), "where NaN comes from"),
        (torch.ones(2, 2), torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "the place [1, 0], the first that differs"),
        (1.5, torch.tensor([1.5]), "the type: a number is expected, a tensor came (result.item() is the number in it)"),
        (5, "5", "the type: a number is expected, a text came (float(...) makes a number of it)"),
        (["a"], "a", "the type: a list is expected, a text came"),
        ([1, 2], {1, 2}, "the type: a list is expected, a set came"),
        ([1, 2], (each for each in (1, 2)), "the type: a list is expected, a generator came (list(...) collects"),
        ("a", ["a"], "the type: a text is expected, a list came"),
        ({"a": 1}, [1], "the type: a dictionary is expected, a list came"),
        (1, True, "the type: a number is expected, a truth value came"),
        (7, 8, "the first and the last that count: it is one too many"),
        (7, np.int64(6), "the first and the last that count: it is one too few"),
        (0.25, -0.25, "the sign"),
        (0.25, 25.0, "shares and per cent: it is 100 times as much"),
        (25.0, 0.25, "shares and per cent: it is a hundredth"),
        (1.25, 2.5, "what is counted twice"),
        (1.25, 1.251, "roundings and small terms"),
        (1.25, float("nan"), "where NaN comes from"),
        ([1, 2, 3], [1, 2], "the length: 3 items are expected, 2 came, one too few"),
        ([1, 2], [1, 2, 3, 4], "the length: 2 items are expected, 4 came"),
        ([1, 2, 3], [1, 3, 2], "the order: the items are right"),
        ([4, 7], [4, 9], "item 1 (counted from 0), the first that differs"),
        ([4.5, 7.5], [-4.5, -7.5], "the sign"),
        ({"a": 1, "b": 2}, {"a": 1, "c": 2}, "the keys; missing: 'b'; not wanted: 'c'"),
        ({"a": 5}, {"a": 6}, "the value of 'a': the first and the last that count: it is one too many"),
        ("a b", "ab", "white space: nothing else differs"),
        ("Ab", "ab", "capital letters: nothing else differs"),
        ("abc", "abcd", "the ends: the right text is there, with more around it"),
        ("abc", "ab", "the ends: a part of the right text is missing"),
        ("abc", "axy", "the text from 'xy' on, where it begins to differ"),
        (5, None, "where None comes from: does every way through the function return something?"),
        (None, 5, "the case in which there is no result: None is expected"),
        (5, len, "the parentheses: a function came, and not what it returns"),
    ],
)
def test_a_typical_slip_is_named(expected, got, place):
    with pytest.raises(Mismatch, match=r"^expected .*, got .*; look at ") as caught:
        expect(got, expected)
    assert f"; look at {place}" in str(caught.value)


@pytest.mark.parametrize(
    ("expected", "got"),
    [(True, False), (1.0, 0.0), (7, 19), ("a", "b"), ([1, 5], [3, 9]), (torch.tensor(2.0), torch.tensor(9.0))],
)
def test_where_nothing_typical_fits_nothing_is_added(expected, got):
    with pytest.raises(Mismatch) as caught:
        expect(got, expected)
    assert "look at" not in str(caught.value)


# ------------------------------------------------------------------------------------------- what the reader wrote


def prints_it(value):
    print(2 * value)


def forgets_to_return(value):
    value = 2 * value


def test_a_function_that_prints_in_place_of_returning_is_told_so():
    message = said("99.1", prints_it)
    assert "prints_it(3) returned None, and a result is expected; look at `print`: it shows" in message
    assert outcome("99.1", prints_it).started
    assert "forgets_to_return(3) returned None, and a result is expected; look at where" in said(
        "99.1", forgets_to_return
    )


def fails(value):
    return value + undefined  # noqa: F821


class Doubler:
    """A callable object that raises."""

    def __call__(self, value):
        raise IndexError("list index out of range")


def two(first, second):
    return first


@pytest.mark.parametrize(
    ("solution", "words"),
    [
        (fails, ["fails(3) raised NameError", "(line 2 of it); look at the name"]),
        (functools.partial(fails), ["fails(3) raised NameError", "(line 2 of it)"]),
        (Doubler(), ["Doubler(3) raised IndexError", "(line 2 of it); look at where the counting ends"]),
        (two, ["two(3) raised TypeError", "look at the parameters: it is called with 1"]),
        (lambda value: 1 / 0, ["raised ZeroDivisionError", "look at the case with nothing to divide by"]),
        (lambda value: {}["a"], ["raised KeyError", "look at the keys"]),
        (lambda value: None + 1, ["raised TypeError", "look at what is None there"]),
        (lambda value: torch.zeros(2) + torch.zeros(3), ["raised RuntimeError", "look at the shapes"]),
        (len, ["len(3) raised TypeError"]),
    ],
)
def test_what_a_solution_raises_is_reported_with_its_place_and_what_to_look_at(solution, words):
    message = said("99.1", solution)
    assert all(each in message for each in words), message
    assert "0x" not in message


def test_a_decorated_function_is_counted_in_its_own_lines():
    @torch.inference_mode()
    def decorated(value):
        return value + undefined  # noqa: F821

    assert "(line 3 of it)" in said("99.1", decorated)


def test_the_result_in_place_of_the_function_and_the_other_way_round():
    assert said("99.1", {"a": 1}).startswith(
        "✗ 99.1: expected a function, got a dictionary: {'a': 1}; look at the parentheses: "
    )
    assert said("99.1", None) == "✗ 99.1: not solved yet: the answer is None: put your answer in the place of ..."
    assert "expected an answer, got the function fails: give what it returns" in said("99.2", fails)


def test_a_number_or_the_wrong_order_in_place_of_the_exercises_number():
    assert said(99.1, fails) == "✗ 99.1: the number of the exercise is a text: expected '99.1', got a number"
    assert said(fails, "99.1") == '✗ the number of the exercise comes first: check("99.1", fails)'


# ----------------------------------------------------------------------------------------------- loops and Ctrl-C


def never_ends(value):
    while True:
        value += 1


needs_a_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer that stops a loop")


@needs_a_timer
def test_what_only_waits_has_four_times_as_long():
    message = said("99.1", waits, seconds=0.1)
    assert re.match(r"✗ 99\.1: stopped after (0\.[4-9]|[1-9]) s in waits \(line 2 of it\)", message)


def waits(value):
    time.sleep(60)


@needs_a_timer
def test_an_endless_loop_is_stopped_and_the_timer_is_put_back():
    ours = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        message = said("99.1", never_ends, seconds=0.2)
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert 90 < left < 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert signal.signal(signal.SIGALRM, ours) is not signal.SIG_DFL
    assert re.match(r"✗ 99\.1: stopped after 0\.[2-9] s in never_ends \(line [123] of it\); ", message)
    assert "look at the loop there: what makes it end?" in message


@needs_a_timer
def test_a_loop_is_stopped_where_calls_of_the_library_are_looked_for_too():
    @register("99.4", title="doubling", hint="add the number to itself", yourself=(waits,))
    def check_double(double):
        expect(double(3), 6)

    message = said("99.4", never_ends, seconds=0.2)
    assert re.match(r"✗ 99\.4: stopped after 0\.[2-9] s in never_ends \(line [123] of it\); ", message)
    assert sys.getprofile() is None


def test_in_another_thread_or_without_a_timer_the_reader_is_told(capsys, monkeypatch):
    def slow():
        with time_limit(0.05):
            time.sleep(0.5)

    thread = threading.Thread(target=slow)
    thread.start()
    thread.join()
    sentence = "The check has been running for 0.05 s: if your code loops for ever, interrupt the cell.\n"
    assert capsys.readouterr().out == sentence
    monkeypatch.delattr(signal, "setitimer", raising=False)
    slow()
    assert capsys.readouterr().out == sentence
    with time_limit(60):
        pass
    assert capsys.readouterr().out == ""


def interrupted(value):
    raise KeyboardInterrupt


def shown_in_a_notebook(code, **names):
    """What a cell prints and shows of an exception, and the exception."""
    shell = InteractiveShell(user_ns=names)
    stream = io.StringIO()
    with redirect_stdout(stream):
        result = shell.run_cell(code)
    return stream.getvalue(), result.error_in_exec


def test_an_interrupt_is_one_line_and_stops_what_waits_behind_the_cell():
    shown, error = shown_in_a_notebook('check("99.1", interrupted)', check=check, interrupted=interrupted)
    assert isinstance(error, KeyboardInterrupt)
    assert shown.strip() == "✗ 99.1: interrupted in interrupted (line 2 of it)"


# ---------------------------------------------------------------------------------------------------- strict mode


def test_a_failed_check_raises_where_that_is_asked_for(monkeypatch, capsys):
    with pytest.raises(CheckFailed, match=r"^✗ 99\.1: for value=3: expected 6, got 3"):
        check("99.1", lambda value: value, strict=True)
    monkeypatch.setenv("COURSE_CHECKS", "raise")
    with pytest.raises(CheckFailed, match="not solved yet"):
        check("99.1", ...)
    with pytest.raises(CheckFailed, match="no exercise of this number"):
        check("99.7", ...)
    assert capsys.readouterr().out == ""
    check("99.1", lambda value: 2 * value)
    check("99.1", ..., strict=False)
    assert capsys.readouterr().out == (
        "✓ 99.1 passed: doubling\n✗ 99.1: not solved yet: put your answer in the place of ...\n"
    )
    shown, error = shown_in_a_notebook('check("99.2", "c")', check=check)
    assert isinstance(error, AssertionError)
    assert shown.strip() == str(error)


def test_a_starter_of_an_exercise_notebook_fails_in_strict_mode(monkeypatch):
    cells = code_cells(read_notebook(ROOT / "ch02" / "ch02_exercises.ipynb"))
    place = next(i for i, cell in enumerate(cells) if cell.source.startswith('check("2.5"'))
    names = {"check": check}
    exec(cells[place - 1].source, names)
    exec(cells[place].source, names)
    monkeypatch.setenv("COURSE_CHECKS", "raise")
    with pytest.raises(CheckFailed, match=r"^✗ 2\.5: not solved yet: cache_bytes returns None$"):
        exec(cells[place].source, names)


# ------------------------------------------------------------------------------------------------ any output at all


@pytest.mark.parametrize(("encoding", "line"), [("ascii", "WRONG 99.2: "), ("utf-8", "✗ 99.2: ")])
def test_an_output_without_the_signs_gets_words(encoding, line, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    check("99.2", "Ł")
    assert stream.buffer.getvalue().decode(encoding).startswith(line)
    check("99.2", "b")


# -------------------------------------------------------------------------------------------------------- progress


@pytest.fixture
def progress(monkeypatch, tmp_path):
    path = tmp_path / "deep" / "progress.json"
    monkeypatch.setenv("COURSE_PROGRESS", str(path))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return path


def last_line(capsys):
    return capsys.readouterr().out.splitlines()[-1]


def test_each_check_says_how_much_of_its_chapter_is_solved(progress, capsys):
    check("99.1", ...)
    assert last_line(capsys) == "chapter 99: 0 of 2 solved"
    assert not progress.exists()
    check("99.2", "b")
    assert last_line(capsys) == "chapter 99: 1 of 2 solved"
    check("99.2", "c")
    assert last_line(capsys) == "chapter 99: 1 of 2 solved"
    assert list(json.loads(progress.read_text())["solved"]) == ["99.2"]
    check("99.3", "c")
    assert last_line(capsys).endswith("(there are: 99.1, 99.2)")


def test_while_notebooks_are_executed_and_in_worked_solutions_nothing_is_counted(progress, capsys, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "ch99/ch99_solutions.ipynb")
    check("99.2", "b")
    assert capsys.readouterr().out == "✓ 99.2 passed: a letter\n"
    assert not progress.exists()
    assert kernel_environment()["COURSE_PROGRESS"] == os.devnull
    monkeypatch.setenv("JPY_SESSION_NAME", "ch99/ch99_exercises.ipynb")
    monkeypatch.setenv("COURSE_PROGRESS", os.devnull)
    check("99.2", "b")
    assert capsys.readouterr().out == "✓ 99.2 passed: a letter\n"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"solved": 3}', '{"solved": ["99.1"]}', "\x00"])
def test_a_damaged_file_breaks_no_check(progress, capsys, damage):
    progress.parent.mkdir()
    progress.write_text(damage, encoding="utf-8")
    check("99.2", "b")
    assert last_line(capsys) == "chapter 99: 1 of 2 solved"


def test_a_file_that_cannot_be_written_breaks_no_check(progress, capsys):
    progress.parent.write_text("a file where the folder would be", encoding="utf-8")
    check("99.2", "b")
    assert re.fullmatch(r"chapter 99: 1 of 2 solved \(.* cannot be written, so this is not kept\)", last_line(capsys))


def test_the_table_of_the_course_agrees_with_the_checks(progress, capsys):
    numbers = table.exercises(ROOT)
    assert numbers == REGISTERED
    check("2.5", lambda config, tokens, texts, size: (
        2 * config.num_layers * config.num_kv_heads * config.head_dim * tokens * texts * size
    ))  # fmt: skip
    assert last_line(capsys) == f"chapter 2: 1 of {len(numbers['2'])} solved"
    assert table.progress_file(ROOT) == progress
    assert table.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["chapter", "solved", "open"]
    row = next(line for line in lines if line.startswith("2 "))
    assert row.split() == ["2", "1", "of", "5", "2.1", "2.2", "2.3", "2.4"]
    assert re.fullmatch(rf"all +1 of {sum(map(len, numbers.values()))}", lines[len(numbers) + 1])


def test_without_a_file_or_with_a_damaged_one_nothing_is_solved(progress, capsys):
    assert table.main() == 0
    assert "Nothing is solved yet" in capsys.readouterr().out
    progress.parent.mkdir()
    progress.write_text("{", encoding="utf-8")
    assert table.solved(progress) == set()


def test_a_diagnosis_counts_in_the_words_of_the_text_too():
    told = (
        "the token limit was too small", "it could be had without being right", "Healthy", "The verifier was broken",
        "learning rate TOO high",
    )  # fmt: skip
    assert outcome("7.5", dict(zip("ABCDE", told, strict=True))).passed


def test_a_word_within_another_is_no_diagnosis():
    """A reason after the diagnosis may hold "generated" or "accurate" without speaking of the learning rate."""
    reasons = {
        "A": "token limit too small, and few of the generated texts end",
        "B": "reward hacked: the generated texts grow, and the answers are less accurate",
        "C": "healthy", "D": "broken verifier, unlimited in its severity", "E": "learning rate too high",
    }  # fmt: skip
    assert outcome("7.5", reasons).passed
    assert not outcome("7.5", reasons | {"C": "unhealthy"}).passed


def test_what_is_wanted_in_words_stands_without_quotation_marks():
    assert 'expected a dictionary, {"direct": number, "steps": number}, got 20' in outcome("1.10", 20).message
    assert "expected another answer, got " in outcome("1.10", {"direct": 20, "steps": 90}).message


def a_column_late(rows):
    width = max(length + len(own) for length, own in rows)
    return torch.tensor([([False] * length + own + [False] * width)[: width - 1] for length, own in rows])


def with_a_column_for_token_0(rows):
    width = max(length + len(own) for length, own in rows)
    return torch.tensor([([False] * length + own + [False] * width)[:width] for length, own in rows])


def by_eval(text, problem):
    left, right = text.rpartition("\n")[2].removesuffix("=?").split(")", 1)
    (a, b), (c, d) = (side.strip(" +()").split(",") for side in (left, right))
    return f"({eval(a.strip()) + eval(c.strip())},{eval(b.strip()) + eval(d.strip())})\n"


@pytest.mark.parametrize(
    ("number", "answer", "words"),
    [
        ("K.1", by_eval, "for arithmetic in the place of a number, '(1+1,2)+(3,4)=?': expected 'error\\n', got '(5,6)"),
        (
            "K.2",
            a_column_late,
            "column i is about token i + 1, since nothing stands before token 0; yours is one column too late",
        ),
        ("K.2", with_a_column_for_token_0, "expected a shape of (2, 7), got (2, 8); look at the columns: column i is"),
    ],
)
def test_the_slips_of_appendix_k_are_called_by_their_name(number, answer, words):
    assert words in outcome(number, answer).message
