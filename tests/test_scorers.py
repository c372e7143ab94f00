"""Scorers, best-of-N and the weighted vote: hand-made numbers, and the log-probabilities of a forward pass."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
import torch

from shared import evaluate, generate, load_minimath, load_model, render_prompt
from shared.generation.completions import Completion
from shared.generation.logprobs import continuation_logprobs
from shared.grader.grading import extract_answer, grade
from shared.inference.scorers import (
    as_completions,
    avg_logprob_score,
    best_of_n,
    choose_best,
    heuristic_score,
    scores_of,
    sum_logprob_score,
    vote_weights,
    weighted_vote,
)
from shared.inference.votes import draw_samples, from_pool, self_consistency

LIMIT = 100


@pytest.fixture(scope="module")
def tiny():
    """The tiny base model and its tokenizer."""
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [render_prompt(p["problem"], "cot") for p in load_minimath("test")[:12]]


@pytest.fixture(scope="module")
def samples(tiny, prompts) -> list[list[Completion]]:
    """Three samples of each prompt, from short to long."""
    return draw_samples(*tiny, prompts, num_samples=3, temperature=0.7, max_new_tokens=LIMIT, seed=0)


def completion(text: str, *logprobs: float, finish_reason: str = "stop") -> Completion:
    return Completion(text, list(range(len(logprobs))), list(logprobs), finish_reason)


# --- scorers -----------------------------------------------------------------------------------------------


def test_logprob_scores_of_hand_made_numbers():
    """ln 0.5 + ln 0.25 + ln 0.125 = 6 ln 0.5: the mean is 2 ln 0.5, and its exponential the geometric mean 0.25."""
    three = completion("x", math.log(0.5), math.log(0.25), math.log(0.125))
    assert sum_logprob_score("", three) == pytest.approx(6 * math.log(0.5))
    assert avg_logprob_score("", three) == pytest.approx(2 * math.log(0.5))
    assert math.exp(avg_logprob_score("", three)) == pytest.approx(0.25)


def test_sum_and_mean_disagree_about_length():
    short, long = completion("x", -0.5, -0.5), completion("y", *[-0.2] * 10)
    assert sum_logprob_score("", short) > sum_logprob_score("", long)
    assert avg_logprob_score("", short) < avg_logprob_score("", long)


@pytest.mark.parametrize("score", [avg_logprob_score, sum_logprob_score])
def test_a_completion_without_tokens_is_the_worst(score):
    assert score("", completion("")) == -math.inf


@pytest.mark.parametrize(
    ("text", "finish_reason", "expected"),
    [
        ("", "length", 0),
        ("no box", "stop", 1),
        (r"\boxed{5", "length", 0),
        (r" \boxed{5}", "stop", 2),
        (r" \boxed{5}", "length", 1),
        ("\n1+2=3\n3*4=12\n" + r"\boxed{12}", "stop", 2.5),
        ("\n1+2=3\n1+2=3\n 1+2=3\n" + r"\boxed{3}", "stop", 2.25),
        ("\n1=1\n2=2\n3=3\n4=4\n5=5\n" + r"\boxed{7}", "stop", 3),
    ],
)
def test_heuristic_score_by_hand(text, finish_reason, expected):
    assert heuristic_score("any prompt", completion(text, -1.0, finish_reason=finish_reason)) == expected


@pytest.mark.parametrize("text", ["", "\x00=", "\\boxed{", "=" * 5000, "\n=\n" * 2000, "\\boxed{}" * 99, "🦊=", "}{"])
def test_scorers_take_any_text(text):
    for scorer in (heuristic_score, avg_logprob_score, sum_logprob_score):
        assert scores_of(scorer, "odd", [completion(text, -1.0)])[0] <= 3


@pytest.mark.parametrize("value", [float("nan"), None, "high", torch.ones(2)])
def test_a_score_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="it must return a number"):
        scores_of(lambda prompt, c: value, "", [completion("x", -1.0)])


@pytest.mark.parametrize("value", [1, True, np.float32(1), torch.tensor(1.0)])
def test_a_score_may_be_a_number_of_any_kind(value):
    [score] = scores_of(lambda prompt, c: value, "", [completion("x", -1.0)])
    assert (score, type(score)) == (1.0, float)


# --- log-probabilities of given texts ----------------------------------------------------------------------


def test_sampled_logprobs_equal_those_of_a_forward_pass(tiny, prompts, samples):
    """What sampling noted is what one plain forward pass over prompt and completion says, text by text."""
    model, tokenizer = tiny
    for prompt, group in zip(prompts, samples, strict=True):
        for sample in group:
            start = tokenizer.encode(prompt)
            with torch.inference_mode():
                logprobs = model(torch.tensor([start + sample.token_ids])).log_softmax(dim=-1)[0]
            expected = [logprobs[len(start) + i - 1, token].item() for i, token in enumerate(sample.token_ids)]
            assert sample.logprobs == pytest.approx(expected, abs=1e-4)
            assert sum_logprob_score(prompt, sample) == pytest.approx(math.fsum(expected), abs=1e-3)


def test_texts_scored_in_ragged_batches_equal_the_sampled_ones(tiny, prompts, samples):
    """Right padding must not leak: lengths differ, and so do the batches."""
    model, tokenizer = tiny
    asked = [prompt for prompt in prompts for _ in range(3)]
    written = [sample for group in samples for sample in group]
    assert len({len(sample.token_ids) for sample in written}) > 5
    for batch_size in (1, 5, 64):
        forced = as_completions(model, tokenizer, asked, [w.text for w in written], batch_size=batch_size)
        same = [(f, w) for f, w in zip(forced, written, strict=True) if f.token_ids == w.token_ids]
        assert len(same) >= 0.9 * len(written), "the tokenizer mostly cuts the text as it was sampled"
        for f, w in same:
            assert f.logprobs == pytest.approx(w.logprobs, abs=1e-4)
            assert (f.text, f.finish_reason) == (w.text, "stop")


def test_logprobs_are_those_of_the_continuation_only(tiny):
    model, _ = tiny
    starts, continuations = [[5, 6, 7, 8], [9]], [[10], [11, 12, 13]]
    rows = continuation_logprobs(model, starts, continuations)
    assert [len(row) for row in rows] == [1, 3]
    with torch.no_grad():
        expected = model(torch.tensor([[9, 11, 12]])).log_softmax(-1)[0, range(3), [11, 12, 13]]
    assert rows[1] == pytest.approx(expected.tolist(), abs=1e-4)


def test_an_empty_text_is_the_end_token(tiny, prompts):
    [empty] = as_completions(*tiny, prompts[:1], [""])
    assert empty.token_ids == [tiny[1].eos_id]
    assert len(empty.logprobs) == 1


def test_texts_that_cannot_be_scored_are_refused_in_words(tiny, prompts):
    with pytest.raises(ValueError, match="2 prompts and 1 texts"):
        as_completions(*tiny, prompts[:2], ["x"])
    with pytest.raises(ValueError, match="A prompt is empty"):
        as_completions(*tiny, [""], ["x"])
    with pytest.raises(ValueError, match="do not fit the context"):
        as_completions(*tiny, prompts[:1], ["1+" * 600])
    assert as_completions(*tiny, [], []) == []


# --- best of N ---------------------------------------------------------------------------------------------


def test_the_best_sample_wins_and_the_first_of_equals():
    samples = [completion(rf"\boxed{{{n}}}", -1.0, -1.0) for n in range(4)]
    answer = choose_best(samples, [0.1, 0.7, 0.3, 0.7])
    assert (answer.answer, answer.tokens, answer.details["chosen"]) == ("1", 8, 1)
    assert choose_best(samples, [-math.inf] * 4).answer == "0"


def test_an_abstention_never_beats_an_answer():
    """Trap S3, for choosing as for voting."""
    samples = [completion("sure of nothing", -0.01), completion(r"\boxed{2}", -3.0)]
    assert choose_best(samples, [5.0, -5.0]).answer == "2"
    assert choose_best(samples[:1], [5.0]).answer is None


def test_choosing_needs_one_score_each():
    with pytest.raises(ValueError, match="1 samples and 2 scores"):
        choose_best([completion("x", -1.0)], [1.0, 2.0])
    with pytest.raises(ValueError, match="0 samples"):
        choose_best([], [])


@pytest.mark.parametrize("scorer", [heuristic_score, avg_logprob_score, sum_logprob_score])
def test_best_of_n_takes_the_best_of_the_drawn_samples(tiny, prompts, samples, scorer):
    answers = best_of_n(*tiny, prompts, num_samples=3, scorer=scorer, max_new_tokens=LIMIT)
    for prompt, group, answer in zip(prompts, samples, answers, strict=True):
        with_answer = [c for c in group if extract_answer(c.text) is not None] or group
        best = max(with_answer, key=lambda c: scorer(prompt, c))
        assert answer.text == best.text
        assert answer.tokens == sum(len(c.token_ids) for c in group)
        json.dumps(answer.details)


@pytest.mark.parametrize("method", [best_of_n, weighted_vote])
def test_one_prompt_may_be_a_text(tiny, prompts, method):
    call = functools.partial(method, *tiny, num_samples=2, max_new_tokens=8)
    assert call(prompts[0]) == call([prompts[0]]) == call(iter(prompts[:1]))


def test_best_of_one_is_the_sample(tiny, prompts):
    sampled = generate(*tiny, prompts[:4], max_new_tokens=LIMIT, temperature=0.7, seed=3)
    chosen = best_of_n(*tiny, prompts[:4], num_samples=1, max_new_tokens=LIMIT, seed=3)
    assert [a.text for a in chosen] == [c.text for c in sampled]


def test_best_of_n_is_a_method_of_evaluate_whatever_the_batches(tiny):
    problems = load_minimath("test")[:6]
    method = functools.partial(best_of_n, num_samples=2)
    first, second = (
        evaluate(*tiny, problems, prompt="cot", method=method, max_new_tokens=LIMIT, batch_size=size) for size in (6, 2)
    )
    assert [r["text"] for r in first.records] == [r["text"] for r in second.records]


# --- weighted votes ----------------------------------------------------------------------------------------


def test_weights_by_hand():
    assert vote_weights([0.0, math.log(0.5), math.log(0.25)], beta=2) == pytest.approx([1, 0.25, 0.0625])
    assert vote_weights([-3.0, -1.0], beta=0) == [1.0, 1.0]
    assert vote_weights([-1.0, -math.inf], beta=1) == [1.0, 0.0]
    assert vote_weights([-math.inf, -math.inf], beta=1) == [1.0, 1.0]
    assert vote_weights([], beta=1) == []


def test_weights_of_very_unlikely_texts_do_not_vanish():
    """exp(-2000) is 0 in floating point, and a vote of zeros would go to the first answer."""
    assert vote_weights([-2001.0, -2000.0], beta=1) == pytest.approx([math.exp(-1), 1])


@pytest.mark.parametrize("beta", [-1, math.inf, math.nan])
def test_a_beta_that_is_no_weight_is_refused(beta):
    with pytest.raises(ValueError, match="beta is"):
        vote_weights([0.0], beta)


@pytest.mark.parametrize("score", [math.inf, math.nan])
def test_an_infinitely_good_score_is_refused(score):
    with pytest.raises(ValueError, match="can be compared"):
        vote_weights([0.0, score], 1.0)


def test_weighted_votes_between_the_plain_vote_and_the_best_sample(tiny, prompts):
    settings = {"num_samples": 3, "max_new_tokens": LIMIT}
    plain = self_consistency(*tiny, prompts, **settings)
    best = best_of_n(*tiny, prompts, **settings)
    assert [a.answer for a in weighted_vote(*tiny, prompts, beta=0, **settings)] == [a.answer for a in plain]
    sharp = weighted_vote(*tiny, prompts, beta=1e6, **settings)
    for one, other in zip(sharp, best, strict=True):
        assert one.answer == other.answer or grade(one.answer, other.answer)
    assert [a.tokens for a in sharp] == [a.tokens for a in plain]


def test_a_good_sample_outweighs_two_bad_ones():
    """Hand-made: two votes of weight exp(-1) against one of weight 1."""
    group = [completion(r"\boxed{7}", -1.5), completion(r"\boxed{7}", -1.5), completion(r"\boxed{0.5}", -0.5)]
    pool = from_pool({"q": group})
    [light] = weighted_vote(None, None, ["q"], beta=0.5, num_samples=3, draw=pool)
    [heavy] = weighted_vote(None, None, ["q"], beta=1.0, num_samples=3, draw=pool)
    assert (light.answer, heavy.answer) == ("7", "0.5")
    assert heavy.details["votes"] == pytest.approx({"7": 2 * math.exp(-1), "0.5": 1})
    assert heavy.details["scores"] == [-1.5, -1.5, -0.5]
