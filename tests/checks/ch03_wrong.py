"""Plausible wrong answers to the exercises of chapter 3."""

import math
import random
import statistics

from shared.generation.prompts import render_prompt

# 3.1: cases that catch too little, a wrong label, another form, too many cases
ONLY_EASY_ONES = [("1", "1", True), ("2", "3", False), ("10", "10", True)]
WRONG_LABEL = [("0.33", "1/3", True), ("-3", "3", False), ("2x+1", "1+2x", True)]
ALL_BUT_INTERVALS = [
    ("1/2", "0.5", True), ("-3", "3", False), ("0.33", "1/3", False), ("(2,1)", "(1,2)", False),
    (r"\sqrt{2}", "2", False), ("5 or more", "5", False), ("x+1", "1+x", True),
]  # fmt: skip
PAIRS_WITHOUT_LABEL = [("1/2", "0.5"), ("-3", "3")]
TOO_MANY = [(str(n), str(n + 1), False) for n in range(200)]


# 3.2
def median_length(records):
    groups = {"right": [r for r in records if r["correct"]], "wrong": [r for r in records if not r["correct"]]}
    groups["all"] = records
    return {name: statistics.median([r["tokens"] for r in g]) if g else None for name, g in groups.items()}


def characters(records):
    def mean(group):
        return sum(len(r["text"]) for r in group) / len(group) if group else None

    right = [r for r in records if r["correct"]]
    return {"all": mean(records), "right": mean(right), "wrong": mean([r for r in records if not r["correct"]])}


def divides_by_all(records):
    n = len(records)
    right = sum(r["tokens"] for r in records if r["correct"]) / n
    wrong = sum(r["tokens"] for r in records if not r["correct"]) / n
    return {"all": right + wrong, "right": right, "wrong": wrong}


def fails_on_empty_groups(records):
    right = [r["tokens"] for r in records if r["correct"]]
    wrong = [r["tokens"] for r in records if not r["correct"]]
    return {
        "all": (sum(right) + sum(wrong)) / len(records),
        "right": sum(right) / len(right),
        "wrong": sum(wrong) / len(wrong),
    }


def whole_numbers(records):
    groups = {"right": [r for r in records if r["correct"]], "wrong": [r for r in records if not r["correct"]]}
    groups["all"] = records
    return {name: sum(r["tokens"] for r in g) // len(g) if g else None for name, g in groups.items()}


# 3.3
def plain_sample(problems, per_level, seed):
    return random.Random(seed).sample(problems, 5 * per_level)


def first_of_each_level(problems, per_level, seed):
    return [p for level in range(1, 6) for p in [q for q in problems if q["level"] == level][:per_level]]


def unseeded(problems, per_level, seed):
    groups = [[p for p in problems if p["level"] == level] for level in range(1, 6)]
    if any(len(group) < per_level for group in groups):
        raise ValueError("too few problems")
    return [p for group in groups for p in random.sample(group, per_level)]


def shuffles_the_given_list(problems, per_level, seed):
    random.Random(seed).shuffle(problems)
    return first_of_each_level(problems, per_level, seed)


def with_repetition(problems, per_level, seed):
    rng = random.Random(seed)
    groups = [[p for p in problems if p["level"] == level] for level in range(1, 6)]
    return [p for group in groups for p in rng.choices(group, k=per_level)]


def levels_1_to_5(problems, per_level, seed):
    rng = random.Random(seed)
    groups = [[p for p in problems if p["level"] == level] for level in range(1, 6)]
    return [p for group in groups for p in rng.sample(group, per_level)]


def refuses_exactly_enough(problems, per_level, seed):
    rng = random.Random(seed)
    levels = sorted({p["level"] for p in problems})
    groups = [[p for p in problems if p["level"] == level] for level in levels]
    if any(len(group) <= per_level for group in groups):
        raise ValueError("too few problems")
    return [p for group in groups for p in rng.sample(group, per_level)]


# 3.4
def answers_only(problem, examples):
    shots = "".join(f"{render_prompt(e['problem'], 'cot')} {e['answer']}\n\n" for e in examples)
    return shots + render_prompt(problem, "cot")


def without_a_gap(problem, examples):
    shots = [f"{render_prompt(e['problem'], 'cot')}\n{e['solution']}" for e in examples if e["problem"] != problem]
    return "".join(shots) + render_prompt(problem, "cot")


def one_line_break_behind(problem, examples):
    shots = [f"{render_prompt(e['problem'], 'cot')}\n{e['solution']}\n" for e in examples if e["problem"] != problem]
    return "".join(shots) + render_prompt(problem, "cot")


def solution_glued_to_its_prompt(problem, examples):
    shots = [f"{render_prompt(e['problem'], 'cot')}{e['solution']}\n\n" for e in examples if e["problem"] != problem]
    return "".join(shots) + render_prompt(problem, "cot")


def leaks(problem, examples):
    shots = "".join(f"{render_prompt(e['problem'], 'cot')}\n{e['solution']}\n\n" for e in examples)
    return shots + render_prompt(problem, "cot")


def throws_all_away(problem, examples):
    return leaks(problem, [] if problem in [e["problem"] for e in examples] else examples)


def question_first(problem, examples):
    shots = "".join(f"\n\n{e['problem']}\n{e['solution']}" for e in examples if e["problem"] != problem)
    return render_prompt(problem, "cot") + shots


def bare_question(problem, examples):
    shots = "".join(
        f"{render_prompt(e['problem'], 'cot')}\n{e['solution']}\n\n" for e in examples if e["problem"] != problem
    )
    return shots + problem


def removes_from_the_given_list(problem, examples):
    for example in list(examples):
        if example["problem"] == problem:
            examples.remove(example)
    return leaks(problem, examples)


# 3.5
def not_cut_off(correct, n):
    p = correct / n
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def one_standard_error(correct, n):
    p = correct / n
    half = math.sqrt(p * (1 - p) / n)
    return max(0.0, p - half), min(1.0, p + half)


def forgets_the_root(correct, n):
    p = correct / n
    half = 1.96 * p * (1 - p) / n
    return max(0.0, p - half), min(1.0, p + half)


def in_percent(correct, n):
    low, high = not_cut_off(correct, n)
    return 100 * max(0.0, low), 100 * min(1.0, high)


WRONG = {
    "3.1": [ONLY_EASY_ONES, WRONG_LABEL, ALL_BUT_INTERVALS, PAIRS_WITHOUT_LABEL, TOO_MANY],
    "3.2": [median_length, characters, divides_by_all, fails_on_empty_groups, whole_numbers],
    "3.3": [
        plain_sample,
        first_of_each_level,
        unseeded,
        shuffles_the_given_list,
        with_repetition,
        levels_1_to_5,
        refuses_exactly_enough,
    ],
    "3.4": [
        answers_only,
        without_a_gap,
        one_line_break_behind,
        solution_glued_to_its_prompt,
        leaks,
        throws_all_away,
        question_first,
        bare_question,
        removes_from_the_given_list,
    ],
    "3.5": [not_cut_off, one_standard_error, forgets_the_root, in_percent],
}
