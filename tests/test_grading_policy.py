r"""What counts as an answer: the policy that chapter 3 prints, answers not worked out, thinking, golds of other types,
and a search over the whole grammar for an answer that is right for several problems.
"""

# ruff: noqa: UP031 - with format, the braces of LaTeX would be doubled
from __future__ import annotations

import json
import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from course import ROOT
from shared.evaluation.data import load_minimath
from shared.grader import extract_answer, grade
from shared.grader.answer_text import squash
from shared.grader.equality import Comparison
from shared.grader.evaluated import is_evaluated
from shared.grader.grading import _after_thinking, _read, normalize_answer
from shared.grader.numeric import MAX_STEPS, Evaluator
from shared.grpo import GRPOConfig, reward_correct, reward_evaluated
from shared.grpo.problems import split_problems
from shared.teacher.replies import Reply, make_row, split_thinking

# --- the table of chapter 3 -----------------------------------------------------------------------------------


def policy_rows():
    """The rows of the chapter's table, from the cell that grades them."""
    cells = json.loads((ROOT / "ch03" / "ch03_main.ipynb").read_text(encoding="utf-8"))["cells"]
    [source] = [
        "".join(c["source"]) for c in cells if c["cell_type"] == "code" and "POLICY = [" in "".join(c["source"])
    ]
    namespace: dict = {}
    exec(source[: source.index("\n]") + 2], namespace)
    return namespace["POLICY"]


def test_the_policy_of_the_chapter_is_what_grade_does():
    rows = policy_rows()
    assert len(rows) >= 30
    for rule, text, gold, right in rows:
        assert grade(text, gold) is right, (rule, text, gold)
        assert grade(gold, text) is right, (rule, text, gold)


def test_each_rule_of_the_readme_has_rows():
    readme = (ROOT / "ch03" / "README.md").read_text(encoding="utf-8")
    for rule in {row[0] for row in policy_rows()}:
        assert f"| {rule} |" in readme, rule


# --- answers that are not worked out --------------------------------------------------------------------------

WORKED_OUT = [
    "119", "-119", "0", "0.5", "1,234", r"\frac{7}{3}", "1/2", "-1/2", r"-\frac{3}{7}", "3 1/2", r"-3\frac12", r"35\%",
    "5 cm", r"2\sqrt{3}", r"\frac{\sqrt{3}}{2}", r"\frac{1}{\sqrt2}", r"\sqrt[3]{9}", r"\frac{3\pi}{4}", r"\pi",
    "e^{2}", r"\ln 2", r"\cos 1", r"\frac{1+\sqrt5}{2}", r"3\pm2\sqrt2", "3+4i", r"1-i\sqrt2", "2^{100}",
    r"3\times 10^8", "10^{-5}", "5 million", "2x+1", "x^2-3x+2", "2^x", r"\frac{x}{2}", r"\frac{x+1}{x-1}",
    r"\frac12x-3", "xy+x", r"\frac{1}{x}+\frac{1}{x^2}", "y=2x+1", "x=5", "x=7*17=119", "119=x", "(1,2)", "[0,5)",
    "x>3", r"\{1,2\}", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\text{even}", "1011_2", "3:4", r"90^\circ", r"\infty",
    "A",
]  # fmt: skip
NOT_WORKED_OUT = [
    "7*17", "(7)(17)", r"7\cdot(2\cdot 3)", "100+19", "119+0", "3-3", r"\frac{14}{6}", "6/4", "8/8", "0.5/2",
    "5/8-1/3", r"3+\frac12", "2^3", r"\sqrt{16}", r"\sqrt{2+3}", r"\sqrt2\sqrt2", r"2\cdot3\sqrt5", r"2\sqrt3+3\sqrt3",
    "i^2", r"\binom{5}{2}", "8 C 2", "5!", "|-5|", r"\lfloor 3.5\rfloor", r"\sin 30^\circ", r"\log_2 8",
    r"\frac{\ln 8}{\ln 2}", "2x+3x", "x+2+3", "2(x+1)", "(x+1)^2", "(2x)^3", "x^2x^3", "12/(4x)",
    r"\frac{x}{2}\cdot\frac13", "2*(-5-7i)+(-7+6i)", "x=7*17", "7*17=x", "x < 2+3", "2+3,4", "(2+3,4)",
    r"\begin{pmatrix}1+1\\2\end{pmatrix}", "7*17 cm", r"2*3\%",
]  # fmt: skip


@pytest.mark.parametrize("text", WORKED_OUT)
def test_worked_out(text):
    assert is_evaluated(text)


@pytest.mark.parametrize("text", NOT_WORKED_OUT)
def test_not_worked_out(text):
    assert not is_evaluated(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_worked_out_or_not(text):
    assert is_evaluated(text) in (True, False)


def test_what_is_no_text_is_not_worked_out():
    assert is_evaluated(None) is False


WHOLE = st.integers(-99, 99).map(str)
NUMBERS = st.one_of(WHOLE, st.fractions(max_denominator=30).map("{0.numerator}/{0.denominator}".format))
FORMS = ["%s+%s", "%s-(%s)", r"\sqrt{%s^2}+%s", "(%s)x+%sx", "((%s)x+1)(%s)"]


@settings(max_examples=150, deadline=None)
@given(NUMBERS, st.sampled_from(FORMS), NUMBERS)
def test_an_operation_between_two_numbers_is_left(first, form, second):
    """Unless one of them is 1 or -1, for which nothing is carried out."""
    if not {first, second} & {"1", "-1", "1/1", "-1/1"}:
        assert not is_evaluated(form % (first, second))


@settings(max_examples=100, deadline=None)
@given(WHOLE, WHOLE)
def test_a_product_of_whole_numbers_is_left(first, second):
    if not {first, second} & {"1", "-1"}:
        assert not is_evaluated(r"%s\cdot (%s)" % (first, second))


VALUES = ["%s", r"%s\pi", r"%s\sqrt{2}", "%sx+1", "(%s, 3)", "x=%s", r"%s\text{ cm}"]


@settings(max_examples=150, deadline=None)
@given(st.integers().filter(bool), st.integers(1, 10**6), st.sampled_from(VALUES))
@example(p=12_607_901_547_973_158_419_445_055_483, q=1, form=r"%s\pi")
def test_a_value_is_worked_out(p, q, form):
    value = Fraction(p, q)
    written = (
        str(value.numerator) if value.denominator == 1 else r"\frac{%d}{%d}" % (value.numerator, value.denominator)
    )
    assert is_evaluated(form % written)


def printed_answer(problem: dict) -> str | None:
    """An expression in the question that is the answer, left to be worked out."""
    words = (word.strip(".,?;:") for word in problem["problem"].split())
    return next(
        (w for w in words if w != problem["answer"] and set("+-*/^(") & set(w) and grade(w, problem["answer"])), None
    )


def test_minimath_prints_the_answer_of_many_problems_in_the_question():
    """Copying an expression out of the question is right for 182 of 1,000 problems; `reward_evaluated` never pays."""
    problems = load_minimath("test")
    printed = {p["problem"]: f"\\boxed{{{expression}}}" for p in problems if (expression := printed_answer(p))}
    copied = [(printed[p["problem"]], p) for p in problems if p["problem"] in printed]
    assert len(copied) == 182
    assert sum(reward_correct(text, p) for text, p in copied) == 182
    assert sum(reward_evaluated(text, p) for text, p in copied) == 0
    assert all(reward_evaluated(p["solution"], p) == 1.0 for p in problems)


def test_the_reward_asks_for_no_more_than_the_known_answer_gives():
    assert reward_evaluated(r"\boxed{(x+1)(x-2)}", {"answer": "(x-2)(x+1)"}) == 1.0
    assert reward_evaluated(r"\boxed{(x+1)(x-2)}", {"answer": "x^2-x-2"}) == 0.0
    assert reward_evaluated(r"\boxed{x^2-x-2}", {"answer": "(x-2)(x+1)"}) == 1.0
    assert reward_evaluated(r"\boxed{120}", {"answer": 119}) == reward_evaluated("119", {"answer": 119}) == 0.0
    assert reward_evaluated(r"\boxed{119}", {"answer": np.int64(119)}) == 1.0


# --- thinking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think> maybe \boxed{5}? let me check", None),
        (r" <think>\boxed{5}</think> It is five.", None),
        (r"maybe \boxed{5}</think> \boxed{6}", "6"),
        (r"<think>\boxed{5}</think> So \boxed{6}", "6"),
        (r"I write <think> in front: \boxed{5}", "5"),
        (r"<think>a</think><think>b \boxed{5}", None),
    ],
)
def test_thinking_is_no_answer(text, answer):
    assert extract_answer(text) == answer
    assert grade(text, "6") is (answer == "6")
    assert extract_answer(text, fallback="number") == ("5" if answer == "5" else answer)


TAGGED = st.lists(st.sampled_from(["<think>", "</think>", r"\boxed{5}", r"\boxed{6}", " so ", "\n"]), max_size=8).map(
    "".join
)


@settings(max_examples=300, deadline=None)
@given(TAGGED)
def test_a_reward_and_a_teacher_see_the_same_answer(text):
    problem = {"unique_id": "1", "problem": "P", "answer": "5"}
    thinking, content, _ = split_thinking(text)
    row = make_row(problem, 0, Reply(thinking, content, "stop"), "m")
    assert reward_correct(text, problem) == float(row["correct"])


# --- golds of other types -------------------------------------------------------------------------------------

NO_EVALUATION = GRPOConfig(eval_every=None)
GRADED = [5, 5.0, np.int8(5), np.int64(5), np.float32(5), np.float64(5), Decimal("5.00"), Fraction(10, 2)]
REFUSED = [
    True,
    np.bool_(True),
    None,
    [5],
    np.array([5]),
    float("nan"),
    float("inf"),
    Decimal("inf"),
    5j,
    b"5",
    object(),
]


@pytest.mark.parametrize("gold", GRADED)
def test_numbers_are_graded(gold):
    assert [grade(text, gold) for text in ("5", r"\frac{10}{2}", "6")] == [True, True, False]
    assert reward_correct(r"\boxed{5}", {"answer": gold}) == 1.0
    assert split_problems([{"problem": "P", "answer": gold}], [], [reward_correct], NO_EVALUATION)[0]


@pytest.mark.parametrize(("text", "gold"), [
    (r"\frac13", Fraction(1, 3)), ("-0.25", Fraction(-1, 4)), ("0.1", 0.1), ("0.1", np.float32(0.1)),
    ("0.1", Decimal("0.10")), ("10^{22}", 1e22), ("0.00001", 1e-5), ("1" + "0" * 350, 10**350),
    ("1000", Decimal("1E+3")),
])  # fmt: skip
def test_numbers_are_graded_by_their_value(text, gold):
    assert grade(text, gold) is True
    assert grade(f"{text}+1", gold) is False


@pytest.mark.parametrize("gold", REFUSED, ids=lambda gold: type(gold).__name__)
def test_what_is_no_answer_is_refused_in_words(gold):
    """`grade` is total and says False; a run that learns from such problems does not begin."""
    assert grade("5", gold) is False
    for reward in (reward_correct, reward_evaluated):
        with pytest.raises(ValueError, match=r"Problem 2 has the answer .*: give text or a finite number"):
            split_problems(
                [{"problem": "P", "answer": "5"}, {"problem": "Q", "answer": gold}], [], [reward], NO_EVALUATION
            )


# --- a search for universal answers ---------------------------------------------------------------------------

GOLDS = [
    *map(str, range(-9, 21)), r"\frac12", r"-\frac13", r"\frac{7}{4}", "0.1", "2.75", "1000", "10^6", r"\sqrt2",
    r"3\sqrt5", r"\pi", r"\frac{\pi}{6}", "e", r"\ln 3", "2i", "1+i", r"45^\circ", "37 cm", r"\$112", "99", "-250",
]  # fmt: skip
ATOMS = [
    "0", "1", "2", "7", "-3", "0.5", r"\frac12", "x", "n", r"\pi", "e", "i", r"\infty", r"-\infty", r"\ln 0",
    r"\frac{1}{0}", "0^0", "0^{-1}", r"\emptyset", r"\mathbb{R}", "yes", "none", "all real numbers", "undefined",
    "DNE", "A", "?", "f(x)", "10^{9999}", r"\binom{0}{1}", "1000!", "", " ",
]  # fmt: skip
UNARY = [
    "-%s",
    "(%s)",
    "[%s]",
    r"\{%s\}",
    "|%s|",
    "%s!",
    r"%s\%%",
    r"%s^\circ",
    r"%s\text{ cm}",
    r"\$%s",
    "%s_2",
    r"\sqrt{%s}",
    r"\sqrt[0]{%s}",
    r"\lfloor %s \rfloor",
    r"\lceil %s \rceil",
    "x=%s",
    "%s=x",
    r"x\in %s",
    r"\pm %s",
    r"\text{%s}",
    "%s?",
    r"\approx %s",
    "%s or more",
    "about %s",
    "the answer is %s",
    r"\boxed{%s}",
    "<think>%s",
    r"\begin{pmatrix}%s\end{pmatrix}",
    *(rf"\{name}(%s)" for name in ("ln", "log", "exp", "sin", "cos", "tan", "cot", "sec", "csc", "arctan", "sinh")),
    *(
        rf"\operatorname{{{name}}}(%s)"
        for name in ("arccot", "arcsec", "arcsin", "arccos", "arcsinh", "arccosh", "arctanh")
    ),
]
BINARY = [
    "%s+%s", "%s-%s", r"%s\cdot %s", "%s/%s", "(%s)^{%s}", r"\frac{%s}{%s}", r"\log_{%s}(%s)", r"\binom{%s}{%s}",
    "%s,%s", "(%s,%s)", "[%s,%s)", r"\{%s,%s\}", "%s=%s", "%s<%s", r"%s \le %s", r"%s \ne %s", r"%s \text{ or } %s",
    r"%s \cup %s", "%s:%s", r"%s \text{ and } %s", r"%s \setminus %s", r"%s \approx %s", r"%s \pm %s", "%s %s",
    "%s;%s",
]  # fmt: skip


def any_answer(rng: random.Random, depth: int) -> str:
    """A short text from the grammar, and from what surrounds it."""
    form = rng.choice(["%s"] if depth == 0 else UNARY * 2 + BINARY * 3 + ["%s"] * 10)
    parts = tuple(any_answer(rng, depth - 1) if depth else rng.choice(ATOMS) for _ in range(form.count("%s")))
    return form % parts


READ = {gold: _read(normalize_answer(gold)) for gold in GOLDS}


def right_for(text: str) -> list[str]:
    """The golds that a text is right for: what `grade` does, but the text is read and evaluated once for all."""
    answer = normalize_answer(extract_answer(text) or _after_thinking(text))
    try:
        read, comparison = _read(answer), Comparison()
    except (Exception, RecursionError):
        return []
    comparison.numbers = Evaluator(max_steps=len(GOLDS) * MAX_STEPS)
    right = []
    for gold, form in READ.items():
        try:
            if answer and (squash(answer) == squash(normalize_answer(gold)) or comparison.equal(read, form)):
                right.append(gold)
        except (Exception, RecursionError):
            continue
    return right


def test_the_golds_are_different():
    assert len(GOLDS) == 50
    assert [right_for(gold) for gold in GOLDS] == [[gold] for gold in GOLDS]


def search(find: Callable[[str], list[str]], texts: int = 800) -> None:
    """Look for a text that is right for two golds. A percentage may stand for its number and for its value."""
    rng = random.Random(22)
    for _ in range(texts):
        text = any_answer(rng, rng.choice((0, 1, 1, 2, 2, 3)))
        right = find(text)
        assert len(right) <= (2 if "%" in text else 1), (text, right)


def test_no_answer_of_the_grammar_is_right_for_two_problems():
    search(right_for)


def test_the_search_sees_what_grade_does():
    rng = random.Random(7)
    for text in [any_answer(rng, rng.choice((1, 2))) for _ in range(40)] + [
        rf"\boxed{{{gold}}}" for gold in GOLDS[::5]
    ]:
        assert right_for(text) == [gold for gold in GOLDS if grade(text, gold)], text


def test_the_search_would_find_a_universal_answer():
    """What has no value once equalled everything; the search meets such texts."""
    with pytest.raises(AssertionError, match="ln 0"):
        search(lambda text: GOLDS if text == r"\ln 0" else right_for(text), texts=4_000)
