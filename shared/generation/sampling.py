"""How the next token is chosen from the logits. Taught in ch04, sections 4.4 to 4.6.

Every filter takes logits (batch, vocab) and returns logits of the same shape in which the tokens that are ruled out
are minus infinity, so that filters can be applied one after the other.
"""

import hashlib
import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor

# Logits that are divided by a lower temperature may not fit in fp32.
COLDEST = 1e-6


@dataclass(frozen=True)
class Sampling:
    """How to choose: greedily at temperature 0, else at random after the filters.

    Args:
        temperature: 0 takes the likeliest token, 1 samples as the model says, more makes it more even.
        top_k: keep the k likeliest tokens; 0 keeps all (arXiv:1805.04833).
        top_p: keep the likeliest tokens that reach this probability together (arXiv:1904.09751).
        min_p: keep tokens with at least this share of the likeliest one's probability (arXiv:2407.01082).

    Raises ValueError if one is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        cold = f"0 for greedy decoding or at least {COLDEST:f}"
        for name, fits, expected in (
            ("temperature", self.temperature == 0 or COLDEST <= self.temperature < math.inf, cold),
            ("top_k", self.top_k >= 0 and self.top_k == int(self.top_k), "a whole number, or 0 to keep all"),
            ("top_p", 0 < self.top_p <= 1, "a probability above 0 and up to 1"),
            ("min_p", 0 <= self.min_p <= 1, "a share from 0 to 1"),
        ):
            if not fits:
                raise ValueError(f"{name} is {getattr(self, name)}: give {expected}.")

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature == 0

    def choose(self, logits: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """One token id a row (batch,) from logits (batch, vocab) and, unless greedy, random numbers (batch,)."""
        if self.greedy:
            return logits.argmax(dim=-1)
        return sample_token(self.filter(logits).softmax(dim=-1), uniforms)

    def filter(self, logits: Tensor) -> Tensor:
        """Logits after temperature and every filter that is in use."""
        logits = apply_temperature(logits, self.temperature)
        if self.top_k > 0:
            logits = filter_top_k(logits, self.top_k)
        if self.top_p < 1:
            logits = filter_top_p(logits, self.top_p)
        if self.min_p > 0:
            logits = filter_min_p(logits, self.min_p)
        return logits


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide the logits: below 1 sharpens the distribution, above 1 flattens it."""
    return logits / temperature


def filter_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row, and those equal to the k-th."""
    smallest_kept = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest_kept, float("-inf"))


def filter_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probabilities sum to p or more."""
    probabilities, order = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    sum_before = probabilities.cumsum(dim=-1) - probabilities
    dropped = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, sum_before >= p)
    return logits.masked_fill(dropped, float("-inf"))


def filter_min_p(logits: Tensor, share: float) -> Tensor:
    """Keep the tokens whose probability is at least this share of the likeliest one's."""
    probabilities = logits.softmax(dim=-1)
    floor = share * probabilities.amax(dim=-1, keepdim=True)
    return logits.masked_fill(probabilities < floor, float("-inf"))


def sample_token(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    Probabilities (batch, vocab) and random numbers in [0, 1) (batch,) give ids (batch,), never one of probability 0.
    """
    cumulative = probabilities.cumsum(dim=-1)
    # The total is near 1; a random number is at most 1 - 2 ** -24, so the product stays below it.
    total = cumulative[:, -1:]
    return (cumulative <= uniforms.unsqueeze(-1) * total).sum(dim=-1)


def plain_seed(seed: int | None) -> int | None:
    """A seed, of numpy or torch too, as Python's int; None stays None. Raises ValueError if it is no whole number."""
    try:
        return None if seed is None else int(operator.index(seed))
    except TypeError as error:
        raise ValueError(f"seed is {seed!r}: give a whole number.") from error


def random_stream(seed: int, prompt: tuple[int, ...], sample: int, count: int) -> Tensor:
    """`count` random numbers in [0, 1) that depend on the seed, the prompt's tokens and the sample's number only.

    So a sample does not change with the batch it is drawn in, and one seed means other numbers for every prompt.
    """
    digest = hashlib.blake2b(repr((seed, prompt, sample)).encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
    return torch.rand(count, generator=generator)
