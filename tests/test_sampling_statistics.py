"""What `generate` draws from the tiny model, against exact probabilities that are worked out here by other means.

Chi-squared tests of the first token and of the second after the first, from a ragged batch of prompts. The reference
is plain Python over floats, with no line in common with `shared.generation.sampling`.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from shared import generate, load_model
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

COUNT = 1_200  # samples of each prompt
PROMPTS = ["Problem: Compute 1", "A", "Problem:"]  # many likely tokens after the first and the last
SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.7},
    {"temperature": 1.0, "top_k": 3},
    {"temperature": 1.4, "top_k": 7},
    {"temperature": 1.0, "top_p": 0.8},
    {"temperature": 0.7, "top_p": 0.95},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 1.5, "min_p": 0.3},
    {"temperature": 1.2, "top_k": 12, "top_p": 0.9, "min_p": 0.05},
]
ALARM = 1e-4  # a right sampler fails one comparison in ten thousand; seeds are fixed, so it fails never or always


@pytest.fixture(scope="module")
def tiny() -> tuple[CausalLM, Tokenizer]:
    return load_model("tiny", device="cpu")


def exact(logits: list[float], temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0):
    """Probabilities by token, filters applied in this order: top-k, top-p, min-p; ties do not occur."""
    highest = max(logits)
    weights = {i: math.exp((x - highest) / temperature) for i, x in enumerate(logits)}
    order = sorted(weights, key=weights.get, reverse=True)
    order = order[:top_k] if top_k else order
    total, so_far, kept = sum(weights[i] for i in order), 0.0, []
    for token in order:
        if so_far >= top_p * total:
            break
        kept.append(token)
        so_far += weights[token]
    kept = [token for token in kept if weights[token] >= min_p * weights[kept[0]]]
    return {token: weights[token] / sum(weights[i] for i in kept) for token in kept}


def logits_after(tiny, prompt: str, written: list[int]) -> list[float]:
    model, tokenizer = tiny
    with torch.inference_mode():
        return model(torch.tensor([tokenizer.encode(prompt) + written]))[0, -1].tolist()


def p_value(drawn: list[int], probabilities: dict[int, float]) -> float:
    """Of the chi-squared test; 0 for an impossible token. Cells that expect fewer than 5 are thrown together."""
    counts = Counter(drawn)
    if not counts.keys() <= probabilities.keys():
        return 0.0
    expected = {token: p * len(drawn) for token, p in probabilities.items()}
    large = [token for token in expected if expected[token] >= 5]
    rest = len(drawn) - sum(expected[token] for token in large)
    observed = [counts[token] for token in large]
    cells = [expected[token] for token in large]
    if rest > 1:
        observed.append(len(drawn) - sum(observed))
        cells.append(rest)
    scale = sum(observed) / sum(cells)
    return chisquare(observed, [cell * scale for cell in cells]).pvalue if len(cells) > 1 else 1.0


@pytest.fixture(scope="module")
def draws(tiny):
    """Two tokens of each sample for every setting, drawn when first asked for."""
    known: dict[int, list] = {}

    def drawn(number: int) -> list[list[list[int]]]:
        if number not in known:
            groups = generate(
                *tiny, PROMPTS, max_new_tokens=2, num_samples=COUNT, seed=11, batch_size=1_000, **SETTINGS[number]
            )
            known[number] = [[c.token_ids for c in group] for group in groups]
        return known[number]

    return drawn


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=str)
def test_the_first_token_has_the_exact_probabilities(tiny, draws, number):
    """Traps G6, K1, K6: temperature and filters, right on a batch of unequal prompts."""
    for prompt, group in zip(PROMPTS, draws(number), strict=True):
        probabilities = exact(logits_after(tiny, prompt, []), **SETTINGS[number])
        assert p_value([written[0] for written in group], probabilities) > ALARM, prompt


@pytest.mark.parametrize("number", range(len(SETTINGS)), ids=str)
def test_the_second_token_has_the_exact_probabilities_after_the_first(tiny, draws, number):
    """The same after a step with the cache, where the rows have gone different ways."""
    for prompt, group in zip(PROMPTS, draws(number), strict=True):
        going_on = [written for written in group if len(written) == 2]
        first, count = Counter(written[0] for written in going_on).most_common(1)[0]
        assert count > 100, "the case needs enough to count"
        probabilities = exact(logits_after(tiny, prompt, [first]), **SETTINGS[number])
        assert p_value([b for a, b in going_on if a == first], probabilities) > ALARM, prompt


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        (0, {"temperature": 1.5}),
        (1, {"temperature": 1.0}),
        (3, {"temperature": 1.0, "top_k": 2}),
        (3, {"temperature": 1.0, "top_k": 4}),
        (5, {"temperature": 1.0, "top_p": 0.6}),
        (6, {"temperature": 1.0, "top_p": 0.95}),
        (7, {"temperature": 1.0, "min_p": 0.5}),
        (8, {"temperature": 0.7, "min_p": 0.3}),
    ],
)
def test_the_comparison_notices_a_wrong_setting(tiny, draws, number, wrong):
    """At least one prompt gives each of these away, so the tests above are able to fail."""
    values = [
        p_value([written[0] for written in group], exact(logits_after(tiny, prompt, []), **wrong))
        for prompt, group in zip(PROMPTS, draws(number), strict=True)
    ]
    assert min(values) < ALARM


def test_a_setting_that_filters_everything_else_is_greedy(tiny):
    """top_k 1, a tiny top_p and min_p 1 leave the likeliest token, in every row of a batch."""
    greedy = [c.token_ids for c in generate(*tiny, PROMPTS, max_new_tokens=4)]
    for strict in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        drawn = generate(*tiny, PROMPTS, max_new_tokens=4, temperature=1.5, seed=0, **strict)
        assert [c.token_ids for c in drawn] == greedy, strict


def test_samples_of_unequal_length_keep_their_probabilities(tiny):
    """Trap K5: rows that finish leave; those that go on are neither shifted nor mixed up. The end token counts, too."""
    model, tokenizer = tiny
    prompt = "Problem: Compute 2+3.\nAnswer in \\boxed{}.\nAnswer:"
    [group] = generate(model, tokenizer, prompt, max_new_tokens=12, temperature=1.6, num_samples=300, seed=2)
    lengths = {len(c.token_ids) for c in group}
    assert len(lengths) > 3, "the case needs samples that end at different steps"
    start = len(tokenizer.encode(prompt))
    for completion in group[:40]:
        with torch.inference_mode():
            logits = model(torch.tensor([tokenizer.encode(prompt) + completion.token_ids]))[0, start - 1 : -1]
        again = logits.log_softmax(-1).gather(-1, torch.tensor(completion.token_ids).unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(torch.tensor(completion.logprobs), again, atol=1e-3, rtol=0)
