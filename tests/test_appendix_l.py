"""Budgets for thinking: where a text is cut, what is counted, and what a mixture of budgets reaches."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from appendix.l_budgets import (
    CLOSING,
    above,
    best_mixture,
    closed,
    complete,
    inclination,
    on_line,
    priced,
    thinking_length,
    with_budget,
)
from shared import EvalResult, evaluate, generate, load_minimath, load_model, render_prompt, reward_correct
from shared.generation.completions import Completion

PROBLEMS = load_minimath("test")[:12]
PROMPTS = [render_prompt(problem["problem"], "cot") for problem in PROBLEMS]


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


@pytest.fixture(scope="module")
def drafts(tiny):
    return dict(zip(PROMPTS, complete(*tiny, PROMPTS, [[]] * len(PROMPTS), 120), strict=True))


def test_without_a_start_it_is_greedy_decoding(tiny, drafts):
    plain = generate(*tiny, PROMPTS, max_new_tokens=120)
    ours = list(drafts.values())
    assert [(c.text, c.token_ids, c.finish_reason) for c in ours] == [
        (c.text, c.token_ids, c.finish_reason) for c in plain
    ]
    assert [c.logprobs for c in ours] == [pytest.approx(c.logprobs, abs=1e-5) for c in plain]


def test_a_start_of_its_own_is_continued_as_before(tiny, drafts):
    """Cut anywhere, even within a number: ids are kept as they are, so the rest comes again."""
    starts = [draft.token_ids[:-1][: 3 + number] for number, draft in enumerate(drafts.values())]
    again = complete(*tiny, PROMPTS, starts, 120)
    assert [c.token_ids for c in again] == [c.token_ids for c in drafts.values()]
    assert [len(c.logprobs) for c in again] == [
        len(c.token_ids) - len(start) for c, start in zip(again, starts, strict=True)
    ]


@pytest.mark.parametrize(
    ("thinking", "rest"),
    [
        ("", " The answer is \\boxed{84}."),
        ("\n12*7=84\n", "The answer is \\boxed{84}."),
        ("\n12*7=84\n\\boxed{84}?\n", "So it is \\boxed{85}."),
        ("\n", "\\boxed{\\frac{1}{2}}"),
        ("\n12*7=84\n7*", ""),
        ("", ""),
    ],
)
def test_thinking_ends_before_the_line_with_the_last_box(tiny, thinking, rest):
    _, tokenizer = tiny
    ids = [tokenizer.encode(part, continues=True) for part in (thinking, rest)]
    draft = Completion(thinking + rest, [*ids[0], *ids[1], tokenizer.eos_id], [], "stop")
    assert thinking_length(draft, tokenizer) == (len(ids[0]) if rest else len(draft.token_ids))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", f" {CLOSING}"),
        ("\n", f"\n{CLOSING}"),
        ("\n12*7=84\n", f"\n12*7=84\n{CLOSING}"),
        ("\n12*7=8", f"\n12*7=8\n{CLOSING}"),
    ],
)
def test_the_closing_stands_on_a_line_of_its_own_or_behind_a_space(tiny, text, wanted):
    _, tokenizer = tiny
    assert tokenizer.decode(closed(tokenizer.encode(text, continues=True), tokenizer)) == wanted


@pytest.mark.parametrize("budget", [0, 1, 5, 16])
def test_a_budget_cuts_the_thinking_and_nothing_else(tiny, drafts, budget):
    answers = with_budget(*tiny, PROMPTS, drafts=drafts, budget=budget)
    lengths = [thinking_length(draft, tiny[1]) for draft in drafts.values()]
    assert any(length > budget for length in lengths)
    for answer, draft, length in zip(answers, drafts.values(), lengths, strict=True):
        if length <= budget:
            assert (answer.text, answer.tokens) == (draft.text, len(draft.token_ids))
            continue
        start = closed(draft.token_ids[:budget], tiny[1])
        assert answer.text.startswith(tiny[1].decode(start))
        assert len(start) < answer.tokens <= len(start) + 40
        assert answer.answer is not None


def test_a_large_budget_changes_nothing(tiny, drafts):
    answers = with_budget(*tiny, PROMPTS, drafts=drafts, budget=10_000)
    assert [answer.text for answer in answers] == [draft.text for draft in drafts.values()]


def test_it_is_a_method_of_evaluate(tiny, drafts):
    limits = {"prompt": "cot", "max_new_tokens": 120}
    plain = evaluate(*tiny, PROBLEMS, **limits)
    ours = evaluate(*tiny, PROBLEMS, method=partial(with_budget, drafts=drafts, budget=10_000), **limits)
    assert [r["text"] for r in ours.records] == [r["text"] for r in plain.records]
    assert ours.tokens == plain.tokens


def test_a_token_has_its_price(tiny):
    _, tokenizer = tiny
    problem, text = {"answer": "84"}, " The answer is \\boxed{84}."
    count = len(tokenizer.encode(text, continues=True))
    assert priced(0.01, tokenizer)(text, problem) == pytest.approx(1 - 0.01 * count)
    assert priced(0.01, tokenizer)(text.replace("4", "5"), problem) == pytest.approx(-0.01 * count)
    assert priced(0.0, tokenizer)(text, problem) == reward_correct(text, problem) == 1.0
    assert priced(0.01, tokenizer)("", problem) == 0.0
    assert priced(1.0, tokenizer, lambda text, problem: 5.0)("1", problem) == 4.0


def at(reached, tokens, rights, most):
    one = (torch.tensor(values)[:, None] for values in (tokens, rights))
    return reached(*one, torch.tensor([most])).item()


@pytest.mark.parametrize(
    ("tokens", "rights", "most", "line", "mixture"),
    [
        ([2.0, 10.0], [0.2, 0.8], 6.0, 0.5, 0.5),  # half of the problems with each
        ([2.0, 10.0], [0.2, 0.8], 4.0, 0.35, 0.35),
        ([2.0, 6.0, 10.0], [0.2, 0.1, 0.8], 6.0, 0.1, 0.5),  # a mixture can leave out the middle one
        ([2.0, 6.0, 10.0], [0.2, 0.1, 0.8], 8.0, 0.45, 0.65),
        ([2.0, 6.0, 10.0], [0.2, 0.7, 0.8], 8.0, 0.75, 0.75),
        ([2.0, 6.0, 10.0], [0.2, 0.9, 0.5], 8.0, 0.7, 0.9),  # nobody has to use up all tokens
        ([2.0, 6.0, 10.0], [0.2, 0.9, 0.5], 30.0, 0.5, 0.9),
        ([2.0, 10.0], [0.2, 0.8], 2.0, 0.2, 0.2),
        ([2.0, 10.0], [0.2, 0.8], 30.0, 0.8, 0.8),
        ([2.0, 10.0], [0.2, 0.8], 1.0, 0.2, 0.2),  # no budget is so small: the smallest counts
        ([4.0, 4.0], [0.3, 0.6], 4.0, 0.3, 0.6),
        ([5.0], [0.4], 9.0, 0.4, 0.4),
    ],
)
def test_what_budgets_reach(tokens, rights, most, line, mixture):
    if len(tokens) > 1 and tokens[0] != tokens[1]:
        assert at(on_line, tokens, rights, most) == pytest.approx(line)
    assert at(best_mixture, tokens, rights, most) == pytest.approx(mixture)


def result(pairs):
    records = [
        {"unique_id": str(number), "tokens": tokens, "correct": correct}
        for number, (tokens, correct) in enumerate(pairs)
    ]
    return EvalResult(records)


SHORT = result([(10, number < 100) for number in range(200)])
LONG = result([(50, True)] * 200)


@pytest.mark.parametrize("reached", [on_line, best_mixture])
def test_who_thinks_where_it_helps_is_above_the_budgets(reached):
    chooses = result([(10, True)] * 100 + [(50, True)] * 100)
    gain, low, high = above(chooses, [SHORT, LONG], reached)
    assert gain == pytest.approx(0.25)  # 30 tokens a problem; a coin's toss is right on 75 %
    assert 0.2 < low <= high <= gain + 1e-9  # g (1 - g) in each draw, which is largest at one half
    gain, _, high = above(result([(50, True)] * 100 + [(10, False)] * 100), [SHORT, LONG], reached)
    assert gain == pytest.approx(-0.25)
    assert high < 0


def test_a_budget_is_not_above_itself_in_any_draw():
    """The same problems are drawn for all, or the interval would be wide."""
    assert above(LONG, [SHORT, LONG]) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    assert above(SHORT, [SHORT, LONG], best_mixture) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)


def test_the_bootstrap_is_the_same_twice_and_agrees_with_the_formula():
    """The difference of two shares on the same problems: its standard error is that of the mean of the differences."""
    other = result([(10, number % 2 == 0) for number in range(200)])
    gain, low, high = above(other, [SHORT], best_mixture)
    assert (gain, low, high) == above(other, [SHORT], best_mixture)
    assert above(other, [SHORT], best_mixture, seed=1) != (gain, low, high)
    assert gain == 0.0
    assert high - low == pytest.approx(2 * 1.96 * (0.5 / 200) ** 0.5, rel=0.1)


def test_the_inclination_is_that_of_the_two_first_tokens(tiny):
    """A prompt that ends where an answer begins leans to it, and no prompt changes what another gets."""
    model, tokenizer = tiny
    odds = inclination(model, tokenizer, PROMPTS, batch_size=5)
    assert odds == pytest.approx([inclination(model, tokenizer, [prompt])[0] for prompt in PROMPTS], abs=1e-4)
    ids = torch.tensor([tokenizer.encode(PROMPTS[0])])
    logits = model(ids)[0, -1]
    think, answer = (tokenizer.encode(text, continues=True)[0] for text in ("\n", " The"))
    assert odds[0] == pytest.approx((logits[think] - logits[answer]).item(), abs=1e-4)
