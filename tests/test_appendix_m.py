"""Rewards for steps: which line is true, at which token it is over, and whether a head learns what it is shown."""

from __future__ import annotations

import math
import time

import pytest
import torch

from appendix.m_steps import is_true, line_logprobs, line_states, share_in_order, split_lines, step_scorer, train_head
from shared import Completion, best_of_n, load_minimath, load_model, render_prompt
from shared.inference.votes import draw_samples


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


@pytest.fixture(scope="module")
def sampled(tiny):
    """Two prompts with three samples each."""
    model, tokenizer = tiny
    prompts = [render_prompt(problem["problem"], "cot") for problem in load_minimath("train")[:2]]
    return prompts, draw_samples(model, tokenizer, prompts, num_samples=3, temperature=1.0, max_new_tokens=60, seed=3)


def completion(tokenizer, text, end=True):
    ids = tokenizer.encode(text, continues=True) + [tokenizer.eos_id] * end
    return Completion(text, ids, [-0.1 * (i + 1) for i in range(len(ids))], "stop" if end else "length")


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("17*7=119", True), ("17*7=129", False), (" 17*7=119 ", True), ("72/110=36/55", True), ("(-5)/2=-5/2", True),
        ("45 mod 7=3", True), ("45 mod 7=4", False), ("12/4=6/2", True), ("3+4=", False), ("3+4=8=7", False),
        ("17*7=17*7", False), ("7/20=7/20", True), ("14 mod 8==6", False), ("2+2=²", False), ("2+2= 4", True),
        ("(1,2)+(3,4)=(4,6)", None), ("x=4", None), ("The answer is 4.", None), ("", None), ("=", None), ("=7", None),
        ("4/0=1", None), ("4 mod 0=1", None), ("9**9**9=1", None), ("9!!!!!!!!!!!!=1", None),
    ],
)  # fmt: skip
def test_which_line_is_true(line, verdict):
    assert is_true(line) is verdict


def test_no_step_of_a_solution_is_false():
    lines = [line for problem in load_minimath("train")[:3000] for line in problem["solution"].split("\n")]
    verdicts = [is_true(line) for line in lines if "=" in line]
    assert False not in verdicts
    assert verdicts.count(True) > 0.8 * len(verdicts)


@pytest.mark.parametrize(
    "line",
    ["__import__('os').getcwd()=1", "1+1=__import__('os').getcwd()", "(" * 10_000 + "=1", "1" * 100_000 + "=1",
     "1+1=" + "9" * 100_000, "1+1=9**9**9**9", "1+1=" + "\\frac{" * 5_000, "\x00=\x00", "1+1=2\n1+1=3"],
)  # fmt: skip
def test_hostile_lines_are_bounded(line):
    start = time.process_time()
    assert is_true(line) in (None, False)
    assert time.process_time() - start < 1


def test_a_line_ends_with_its_line_break(tiny):
    """Token by token: 7 tokens of `1+1=2` and its line break after an empty line; the end token is of no line."""
    _, tokenizer = tiny
    sample = completion(tokenizer, "\n1+1=2\n2+3=6\nSo")
    assert [tokenizer.decode([token]) for token in sample.token_ids[:7]] == ["\n", "1", "+", "1", "=", "2", "\n"]
    assert split_lines(tokenizer, sample.token_ids) == [("", 0), ("1+1=2", 6), ("2+3=6", 12), ("So", 14)]
    assert [is_true(line) for line, _ in split_lines(tokenizer, sample.token_ids)] == [None, True, False, None]


def test_texts_without_end_and_with_a_last_line_break(tiny):
    _, tokenizer = tiny
    for end in (True, False):
        assert split_lines(tokenizer, completion(tokenizer, "1+1=2\n", end).token_ids) == [("1+1=2", 5)]
        assert split_lines(tokenizer, completion(tokenizer, "1+1=", end).token_ids) == [("1+1=", 3)]
        assert split_lines(tokenizer, completion(tokenizer, "\n\n", end).token_ids) == [("", 0), ("", 1)]
    assert split_lines(tokenizer, []) == split_lines(tokenizer, [tokenizer.eos_id]) == []


def test_a_tokenizer_that_splits_line_breaks_is_refused():
    class Odd:
        eos_id = 0

        def encode(self, text, continues=False):
            return [1, 2]

    with pytest.raises(ValueError, match="A line break is 2 tokens here"):
        split_lines(Odd(), [5, 1, 2])


def test_lines_of_samples_are_their_texts(tiny, sampled):
    _, tokenizer = tiny
    for sample in (each for samples in sampled[1] for each in samples):
        lines = [line for line, _ in split_lines(tokenizer, sample.token_ids)]
        assert "\n".join(lines) == sample.text.rstrip("\n")


def test_states_are_those_of_the_last_token_of_each_line(tiny, sampled):
    """Read alone, without cache and without its neighbours, a text has the same states; the norm's output is last."""
    model, tokenizer = tiny
    size, layers = model.config.hidden_size, model.config.num_layers
    for prompt, samples in zip(*sampled, strict=True):
        for sample, states in zip(samples, line_states(model, tokenizer, prompt, samples), strict=True):
            start = tokenizer.encode(prompt)
            whole = model.hidden_states(torch.tensor([[*start, *sample.token_ids]]))[0]
            ends = [len(start) + end for _, end in split_lines(tokenizer, sample.token_ids)]
            assert states.shape == (len(ends), (layers + 1) * size)
            assert torch.allclose(states[:, -size:], whole[ends], atol=1e-3)
            assert torch.allclose(model.norm(states[:, -2 * size : -size]), states[:, -size:], atol=1e-4)
    assert not any(block._forward_hooks for block in model.blocks)


def test_log_probabilities_of_a_line_are_those_of_its_tokens(tiny):
    _, tokenizer = tiny
    given = line_logprobs(tokenizer, completion(tokenizer, "1+1=2\n7"))  # -0.1 to -0.6, then -0.7
    assert torch.allclose(given, torch.tensor([[-0.35, -0.6], [-0.7, -0.7]]))
    assert line_logprobs(tokenizer, Completion("", [tokenizer.eos_id], [-1.0], "stop")).shape == (0, 2)


def test_share_in_order():
    assert share_in_order([0.9, 0.4, 0.7, 0.4], [True, False, False, True]) == 2.5 / 4
    assert share_in_order([1, 1], [True, False]) == 0.5
    assert share_in_order([3, 2, 2, 1], [True, False, True, False], "aabb") == 1.0
    assert share_in_order([3, 4, 1, 2], [True, False, False, True], "aabb") == 0.5
    assert share_in_order([3, 4, 1, 2], [True, False, False, True]) == 0.5
    assert math.isnan(share_in_order([1, 2], [True, False], "ab"))
    with pytest.raises(ValueError, match="zip"):
        share_in_order([1, 2], [True])


def test_a_head_learns_what_can_be_learnt_and_is_the_same_twice():
    random = torch.Generator().manual_seed(0)
    features = torch.randn(600, 20, generator=random) * 3 + 5
    labels = (features[:, 4] > 5).float()
    heads = [train_head(features[:400], labels[:400], epochs=100, rate=0.02) for _ in range(2)]
    scores = heads[0].chances(features[400:])
    assert share_in_order(scores, labels[400:].bool().tolist()) > 0.9
    assert all(0 <= score <= 1 for score in scores)
    assert torch.equal(heads[0].layer.weight, heads[1].layer.weight)
    noise = train_head(features[:400], labels[torch.randperm(400, generator=random)])
    assert 0.3 < share_in_order(noise.chances(features[400:]), labels[400:].bool().tolist()) < 0.7


def test_the_scorer_joins_the_chances_of_the_steps(tiny, sampled):
    model, tokenizer = tiny
    prompts, pool = sampled
    states = torch.cat([each for p, row in zip(prompts, pool, strict=True)
                        for each in line_states(model, tokenizer, p, row)])  # fmt: skip
    head = train_head(states, torch.arange(len(states)).remainder(2).float())
    [alone] = line_states(model, tokenizer, prompts[0], pool[0][:1])
    lines = [line for line, _ in split_lines(tokenizer, pool[0][0].token_ids)]
    chances = [chance for chance, line in zip(head.chances(alone), lines, strict=True) if "=" in line]
    for join in (min, max, sum):
        score = step_scorer(model, tokenizer, head, join)(prompts[0], pool[0][0])
        assert score == pytest.approx(join(chances), abs=1e-4)
    scorer = step_scorer(model, tokenizer, head)
    assert scorer(prompts[0], completion(tokenizer, "\nNo step at all.")) == 0.0
    [answer] = best_of_n(model, tokenizer, prompts[:1], scorer=scorer, num_samples=3, max_new_tokens=60)
    assert answer.details["scores"][answer.details["chosen"]] <= max(answer.details["scores"])
