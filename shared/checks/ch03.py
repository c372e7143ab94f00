"""Checks of the exercises of chapter 3."""

import copy
import re
from collections import Counter

import sympy

from shared.checks import Mismatch, expect, register
from shared.generation.prompts import render_prompt
from shared.grader import grade
from shared.grader.answer_text import normalize_answer
from shared.grader.answers import parse_answer
from shared.grader.numeric import Evaluator
from shared.tiny.corpus import generate_minimath

MOST_CASES = 30


# --------------------------------------------------------------------------------- 3.1: verifiers with a fault


def _texts(prediction: str, gold: str) -> bool:
    return prediction.strip() == gold.strip()


def _no_sign(prediction: str, gold: str) -> bool:
    return grade(prediction.replace("-", ""), gold.replace("-", ""))


def _number(text: str) -> float | None:
    """The value of an answer that is a real number, however it is written; None for any other."""
    try:
        read = parse_answer(normalize_answer(text))
        return float(Evaluator().value(read)) if isinstance(read, sympy.Expr) and not read.free_symbols else None
    except (ValueError, ArithmeticError, TypeError, RecursionError):
        return None


def _rounds(prediction: str, gold: str) -> bool:
    first, second = _number(prediction), _number(gold)
    return grade(prediction, gold) if None in (first, second) else abs(first - second) < 0.01


def _any_order(prediction: str, gold: str) -> bool:
    first, second = (normalize_answer(text).strip("()").replace(" ", "").split(",") for text in (prediction, gold))
    return grade(prediction, gold) or (len(first) > 1 and sorted(first) == sorted(second))


def _any_bracket(prediction: str, gold: str) -> bool:
    return grade(*(text.replace("[", "(").replace("]", ")") for text in (prediction, gold)))


def _no_root(prediction: str, gold: str) -> bool:
    return grade(*(text.replace("\\sqrt", "") for text in (prediction, gold)))


def _part(prediction: str, gold: str) -> bool:
    return grade(prediction, gold) or gold.strip() in prediction


def _no_algebra(prediction: str, gold: str) -> bool:
    letters = any(re.search(r"(?<![a-z\\])[a-z](?![a-z])", text) for text in (prediction, gold))
    return _texts(prediction, gold) if letters else grade(prediction, gold)


FAULTS = {
    "compares texts only": _texts,
    "ignores minus signs": _no_sign,
    "calls numbers equal that differ by less than 0.01": _rounds,
    "ignores the order of the coordinates of a point": _any_order,
    "takes open and closed intervals for the same": _any_bracket,
    "overlooks roots": _no_root,
    "is content if the right answer is a part of the text": _part,
    "compares formulas with variables as texts": _no_algebra,
}


def _well_formed(case: object) -> bool:
    kinds = [type(part) for part in case] if isinstance(case, (tuple, list)) else []
    return kinds == [str, str, bool]


@register(
    "3.1",
    title="test cases",
    hint="a fault is caught by a pair on which that verifier and a teacher disagree",
    hint2="for each fault take one pair that differs in that respect alone: a lost minus sign, two numbers that "
    "are close, two coordinates swapped, a bracket, a root, a right answer inside a longer text, a "
    "formula in another order",
)
def check_test_cases(cases):
    """Every case must be labelled rightly; together they must tell every faulty verifier from a right one."""
    if not isinstance(cases, (list, tuple)) or not cases:
        raise Mismatch("a list of cases (prediction, gold, True or False)", cases)
    for number, case in enumerate(cases, start=1):
        if not _well_formed(case):
            raise Mismatch("(prediction, gold, True or False), the first two of them texts", case, f"case {number}")
    if len(cases) > MOST_CASES:
        raise Mismatch(f"at most {MOST_CASES} cases", f"{len(cases)} cases")
    for prediction, gold, same in cases:
        expect(same, grade(prediction, gold), case=f"the label of the pair {prediction!r} and {gold!r}")
    missed = [fault for fault, grader in FAULTS.items() if all(grader(p, g) == same for p, g, same in cases)]
    if missed:
        caught = len(FAULTS) - len(missed)
        raise Mismatch(
            f"all {len(FAULTS)} faults caught", f"{caught} caught, not the verifier that {missed[0]}", "your cases"
        )
    return f"your {len(cases)} cases catch all {len(FAULTS)} faulty verifiers"


# --------------------------------------------------------------------------------------------- 3.2: lengths


def _records(lengths: list[int], verdicts: list[bool]) -> list[dict]:
    # The text is no guide to the number of tokens.
    return [{"tokens": n, "correct": v, "text": "x" * (100 - n)} for n, v in zip(lengths, verdicts, strict=True)]


@register(
    "3.2",
    title="response length",
    hint="average record['tokens']; an empty group has no average, so None",
    hint2="write a mean(group) that gives None for an empty list, and call it with all records, those with "
    "record['correct'] and those without",
)
def check_length_by_verdict(length_by_verdict):
    """Groups of different sizes, and groups that are empty."""
    cases = [
        ([10, 20, 60, 90], [True, True, False, True], {"all": 45, "right": 40, "wrong": 60}, "four records"),
        ([10, 21, 30], [True, True, False], {"all": 61 / 3, "right": 15.5, "wrong": 30}, "uneven averages"),
        ([], [], {"all": None, "right": None, "wrong": None}, "no records"),
        ([10, 20], [True, True], {"all": 15, "right": 15, "wrong": None}, "two records that are both right"),
        ([30, 40, 80], [False] * 3, {"all": 50, "right": None, "wrong": 50}, "three records that are all wrong"),
    ]
    for lengths, verdicts, expected, case in cases:
        expect(length_by_verdict(_records(lengths, verdicts)), expected, case=case)
    return "averages over all, the right and the wrong answers"


# ------------------------------------------------------------------------------------ 3.3: an evaluation set


@register(
    "3.3",
    title="a balanced evaluation set",
    hint="group by level; a random.Random of your own keeps the seed to itself",
    hint2="rng = random.Random(seed), then for each level in sorted order rng.sample(its problems, per_level), "
    "after a test whether there are enough",
)
def check_balanced_set(balanced_set):
    """Counts by level, membership, seeds, and the error where there are too few."""
    problems = generate_minimath(120, seed=3)
    before = copy.deepcopy(problems)
    chosen = balanced_set(problems, per_level=6, seed=0)
    if not isinstance(chosen, list) or not all(isinstance(p, dict) and "unique_id" in p for p in chosen):
        raise Mismatch("a list of problems", chosen, "per_level=6")
    expect(dict(sorted(Counter(p["level"] for p in chosen).items())), dict.fromkeys(range(1, 6), 6), "per_level=6")
    names = [p["unique_id"] for p in chosen]
    expect(len(set(names)), 30, case="the number of different problems with per_level=6")
    expect(set(names) <= {p["unique_id"] for p in problems}, True, case="all chosen problems being given ones")
    expect(problems == before, True, case="the given list being unchanged")
    again = [p["unique_id"] for p in balanced_set(problems, per_level=6, seed=0)]
    expect(again == names, True, case="the same problems in the same order with the same seed")
    other = [p["unique_id"] for p in balanced_set(problems, per_level=6, seed=1)]
    expect(set(other) == set(names), False, case="the same problems with another seed")
    without = [p for p in problems if p["level"] != 2]
    smallest = min(Counter(p["level"] for p in without).values())
    counts = Counter(p["level"] for p in balanced_set(without, per_level=smallest, seed=0))
    case = f"problems without level 2, per_level={smallest}, as many as the smallest level has"
    expect(dict(sorted(counts.items())), dict.fromkeys((1, 3, 4, 5), smallest), case)
    _expect_refusal(balanced_set, problems)
    return "equally many problems of each level, the same ones for the same seed"


def _expect_refusal(balanced_set, problems: list[dict]) -> None:
    try:
        balanced_set(problems, per_level=100, seed=0)
    except Exception as error:
        # The reader's exception arrives wrapped, with the original as its cause.
        if isinstance(error.__cause__, ValueError):
            return
        raise
    raise Mismatch("a ValueError", "a result", "per_level=100, with 120 problems in all")


# ---------------------------------------------------------------------------------------- 3.4: few-shot prompts


@register(
    "3.4",
    title="few-shot prompt",
    hint="each example as its prompt and its solution, then the problem's prompt; leave out the problem itself",
    hint2="join render_prompt(example's problem, 'cot'), a newline, the solution and an empty line for each "
    "example that is not the problem; then append render_prompt(problem, 'cot')",
)
def check_few_shot_prompt(few_shot_prompt):
    """Order, completeness, the end, and no example that gives the answer away."""
    one, two, three = generate_minimath(3, seed=8)
    prompt = few_shot_prompt(three["problem"], [one, two])
    if not isinstance(prompt, str):
        raise Mismatch("a text", prompt, "two examples")
    parts = [one["problem"], one["solution"], two["problem"], two["solution"], three["problem"]]
    places = [prompt.find(part) for part in parts]
    expect(-1 in places, False, case="a problem or solution missing from the prompt")
    expect(places, sorted(places), case="the places of example 1, its solution, example 2, its solution, the problem")
    question = render_prompt(three["problem"], "cot")
    expect(prompt.endswith(question), True, case="the prompt ending with render_prompt(problem, 'cot')")
    for problem in (one, two):
        starts = render_prompt(problem["problem"], "cot")
        expect(starts in prompt, True, case="each example being asked with render_prompt(..., 'cot')")
    for problem in (one, two):
        lines = f"{render_prompt(problem['problem'], 'cot')}\n{problem['solution']}\n\n"
        expect(lines in prompt, True, case="each solution on a new line after its prompt, and an empty line behind it")
    expect(few_shot_prompt(three["problem"], []), question, case="no examples")
    given = [one, two]
    leaking = few_shot_prompt(one["problem"], given)
    expect(len(given), 2, case="the length of the list of examples, which must stay as it is")
    expect(one["solution"] in leaking, False, case="the problem's own solution standing in its prompt")
    expect(two["solution"] in leaking, True, case="the other example standing in it all the same")
    return "worked examples first, then the problem, and never its own solution"


# --------------------------------------------------------------------------------- 3.5: an interval by hand


@register(
    "3.5",
    title="normal interval",
    hint="p ± 1.96·sqrt(p(1-p)/n), cut off at 0 and 1",
    hint2="p is correct / n; return the larger of 0 and the lower end, and the smaller of 1 and the upper end",
)
def check_normal_interval(normal_interval):
    """Figures worked out by hand, and both ends of the scale."""
    cases = {
        (250, 500): (0.456173, 0.543827),
        (160, 500): (0.279112, 0.360888),
        (9, 10): (0.714058, 1.0),
        (1, 20): (0.0, 0.145519),
        (0, 20): (0.0, 0.0),
        (20, 20): (1.0, 1.0),
    }
    for (correct, n), expected in cases.items():
        expect(normal_interval(correct, n), expected, case=f"{correct} right of {n}", tolerance=1e-4)
    return "the textbook's interval, cut off at 0 and 1"
