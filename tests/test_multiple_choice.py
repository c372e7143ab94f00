"""Multiple-choice items and the choice by log-probability."""

import math
import random
import re
import statistics
from collections import Counter

import pytest
import torch

from appendix.f_multiple_choice import choose, make_items, near_miss, option_logprobs, shape
from shared import grade, load_minimath, load_model, render_prompt

PROBLEMS = load_minimath("test")[:300]


@pytest.fixture(scope="module")
def items():
    return make_items(PROBLEMS)


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny-random", device="cpu")


@pytest.mark.parametrize("answer", ["7", "-5", r"\frac{36}{55}", "(-3,7)", "2x-4", "0", "1"])
def test_near_miss_changes_one_number_and_nothing_else(answer):
    for seed in range(50):
        missed = near_miss(answer, random.Random(seed))
        assert missed != answer
        assert shape(missed) == shape(answer)
        assert missed.count("-") == answer.count("-")
        assert "0" not in re.findall(r"\d+", missed)
        assert not grade(missed, answer)


def test_near_miss_needs_a_number():
    with pytest.raises(ValueError, match="holds no number"):
        near_miss("x", random.Random(0))


def test_items_are_the_same_for_the_same_seed_and_differ_for_another(items):
    assert items == make_items(PROBLEMS)
    assert items != make_items(PROBLEMS, seed=1)


def test_every_item_has_four_options_of_which_one_is_right(items):
    assert len(items) >= 0.97 * len(PROBLEMS)
    for item in items:
        assert len(item.options) == 4
        assert [grade(option, item.problem["answer"]) for option in item.options].count(True) == 1
        assert item.options[item.correct] == item.problem["answer"]
        assert not any(grade(a, b) for a in item.options for b in item.options if a is not b)


def test_positions_are_balanced(items):
    counts = Counter(item.correct for item in items)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert [item.correct for item in items[:12]] != [0, 1, 2, 3] * 3  # nor is there an order in it


def test_options_alone_do_not_tell_which_is_right():
    """Were all distractors near misses of the right answer, the option nearest to the others would be right."""

    def most_central(options):
        digits = [Counter(option) for option in options]
        return max(range(4), key=lambda i: sum((digits[i] & other).total() for other in digits))

    items = make_items(load_minimath("test"))
    share = sum(most_central(item.options) == item.correct for item in items) / len(items)
    assert 0.19 < share < 0.31  # 1/4 within four standard errors


def test_the_rival_is_of_the_same_subject_and_shape():
    answers = {"Algebra": ("100", "200", "300"), "Geometry": ("7000", "8000", "(3,4)")}
    problems = [{"problem": "?", "answer": a, "subject": s} for s, row in answers.items() for a in row]
    items = make_items(problems)
    assert len(items) == 5  # the only pair of coordinates has no rival
    for item in items:
        longest = max(map(len, item.options))
        assert longest == {"Algebra": 3, "Geometry": 4}[item.problem["subject"]]
        assert len({shape(option) for option in item.options}) == 1


def test_a_problem_without_a_number_or_a_rival_is_left_out():
    lonely = {"problem": "?", "answer": "3:4", "subject": "Ratios"}
    wordy = {"problem": "?", "answer": "x", "subject": "Algebra"}
    assert make_items([lonely, wordy]) == []
    assert make_items([]) == []


def test_option_logprobs_are_those_of_the_model_one_by_one(tiny):
    """Sorting by length and padding change nothing, and the scores come back in the order of the options (Trap K4)."""
    model, tokenizer = tiny
    prompts = [render_prompt(problem["problem"]) for problem in PROBLEMS[:5]]
    options = [[" \\boxed{7}", " \\boxed{\\frac{12}{35}}"], [" 1"], [" 2", " 23", " 234"], [" x"], [" \\boxed{0}"]]
    scores = option_logprobs(model, tokenizer, prompts, options, batch_size=3)
    assert [len(row) for row in scores] == [2, 1, 3, 1, 1]
    for prompt, row, found in zip(prompts, options, scores, strict=True):
        for option, values in zip(row, found, strict=True):
            start, end = tokenizer.encode(prompt), tokenizer.encode(option)
            with torch.inference_mode():
                logprobs = model(torch.tensor([start + end])).float().log_softmax(-1)[0, len(start) - 1 : -1]
            expected = [logprobs[i, token].item() for i, token in enumerate(end)]
            assert values == pytest.approx(expected, abs=1e-4)


def test_option_logprobs_refuses_what_does_not_pair_up(tiny):
    with pytest.raises(ValueError, match="one row for each prompt"):
        option_logprobs(*tiny, ["a", "b"], [["c"]])
    with pytest.raises(ValueError, match="empty"):
        option_logprobs(*tiny, ["a"], [["b", ""]])


def test_choose_by_sum_favours_short_options_and_by_mean_does_not():
    logprobs = [[-1.0], [-0.6, -0.6]]
    assert choose(logprobs) == 0
    assert choose(logprobs, statistics.fmean) == 1
    assert choose([[-1.0], [-1.0]]) == 0
    assert choose([[-math.inf], [-5.0]]) == 1
