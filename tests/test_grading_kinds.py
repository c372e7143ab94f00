"""Kinds of answers that were once graded wrongly, and properties that no answer may break.

What reinforcement learning exploits first is a wrong answer that is accepted, above all one that is accepted for many
problems; the properties look for such answers over the whole grammar.
"""

# ruff: noqa: UP031 - with format, the braces of LaTeX would be doubled
from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.grader import grade

KINDS = Path(__file__).parents[1] / "benchmarks" / "data" / "grader_kinds.jsonl"
PAIRS = [json.loads(line) for line in KINDS.read_text(encoding="utf-8").splitlines()]
GOLDS = [str(n) for n in range(-10, 30)] + [rf"\frac{{{n}}}{{7}}" for n in (1, 2, 3, 5, 9)] + ["0.1", "2.5", "-0.3"]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair['prediction']}-{pair['gold']}"[:60])
def test_kinds_that_were_graded_wrongly(pair):
    assert grade(pair["prediction"], pair["gold"]) is pair["equal"]
    assert grade(pair["gold"], pair["prediction"]) is pair["equal"]


@pytest.mark.parametrize("gold", [np.int64(5), np.float64(5.0), Decimal("5.0"), Fraction(5), 5, 5.0, "5"])
def test_golds_of_other_types_are_graded(gold):
    assert grade("5", gold) is True
    assert grade("6", gold) is False


@pytest.mark.parametrize("gold", [None, True, [5], {"answer": 5}, b"5", np.bool_(True), float("nan"), 5j])
def test_what_is_no_number_is_never_right(gold):
    assert grade("5", gold) is False
    assert grade(str(gold), gold) is False


# --- properties ---------------------------------------------------------------------------------------------

WHOLE = st.integers(-50, 50).map(str)
LEAVES = st.one_of(WHOLE, st.sampled_from([r"\pi", "e", "i", "x", r"\infty", "0.5", "12.25", r"\frac12"]))
FUNCTIONS = ["ln", "log", "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "sinh"]
WRAPPERS = [r"\sqrt{%s}", "|%s|", r"\lfloor %s \rfloor", r"\lceil %s \rceil", "(%s)!", "-(%s)", "(%s)^{-1}", "%s%%"]


def larger(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions made of smaller ones."""
    return st.one_of(
        st.tuples(parts, st.sampled_from(["+", "-", r"\cdot ", "/", "^"]), parts).map(lambda p: "{(%s)%s(%s)}" % p),
        st.tuples(st.sampled_from(FUNCTIONS), parts).map(lambda p: r"\%s(%s)" % p),
        st.tuples(st.sampled_from(WRAPPERS), parts).map(lambda p: p[0] % p[1]),
        st.tuples(parts, parts).map(lambda p: r"\frac{%s}{%s}" % p),
        st.tuples(parts, parts).map(lambda p: r"\log_{%s}{(%s)}" % p),
    )


EXPRESSIONS = st.recursive(LEAVES, larger, max_leaves=5)
NUMBERS = st.recursive(WHOLE, larger, max_leaves=4)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS)
def test_every_answer_equals_itself(text):
    assert grade(text, text)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS)
def test_equality_is_symmetric(first, second):
    assert grade(first, second) == grade(second, first)


@settings(max_examples=300, deadline=None)
@given(EXPRESSIONS)
def test_no_value_equals_itself_plus_one(text):
    """Unless it is a whole line or has no value; an infinite one has none."""
    assert not grade(f"({text})+1", f"{text}+0") or "infty" in text


@settings(max_examples=300, deadline=None)
@given(NUMBERS)
def test_only_zero_equals_its_negative(text):
    assert not grade(f"-({text})", f"({text})") or grade(text, "0")


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS)
def test_there_is_no_universal_answer(text):
    """No answer is right for two different numbers; a percentage may stand for its value or its number."""
    right = [gold for gold in GOLDS if grade(text, gold)]
    assert len(right) <= (2 if "%" in text else 1), right


@pytest.mark.parametrize(
    "joined", ["%s, %s", "%s or %s", r"\{%s, %s\}", "(%s, %s)", "%s = %s", "%s = x = %s", "x = %s"]
)
@pytest.mark.parametrize(
    "part", [r"\ln 0", r"\frac{1}{0}", r"0^{-1}", r"\infty", r"\operatorname{arccot}(i)", "x", "?"]
)
def test_nothing_without_a_value_is_right_for_numbers(joined, part):
    text = joined % ((part,) * joined.count("%s"))
    for gold in ("7", "0", r"\frac{14}{3}", "(3, 4)", "2, 5", "[1, 2)", "y = 2x + 1"):
        assert not grade(text, gold), gold
