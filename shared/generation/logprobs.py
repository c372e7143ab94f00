"""Log-probabilities of given tokens, without the logits of all of them at once.

With a large vocabulary the logits are the largest tensor of training: for 8 texts of 512 tokens and 151,936 scores
each they take 2.5 GB in fp32, and the softmax and the gradient as much again. Here the head and the softmax see a
chunk of tokens at a time, and compute it again in the backward pass instead of keeping it (arXiv:1604.06174).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from shared.generation.sampling import Sampling, apply_temperature
from shared.model.transformer import CausalLM, ensure_known

# Logits of one chunk, 134 MB in fp32. Every chunk costs a pass over the head's weights.
CHUNK_LOGITS = 2**25
# Logit of a token that was no choice. With minus infinity, 0 * log 0 would be NaN in the entropy.
RULED_OUT = -1e30
# Nothing in a model of ours is random, so there are no random states to keep.
recomputed = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


def token_logprobs(
    model: CausalLM,
    input_ids: Tensor,
    *,
    where: Tensor | None = None,
    temperature: float = 1.0,
    kept: Tensor | None = None,
    chunk: int | None = None,
    with_entropies: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probability, in fp32, of every token given those before it; gradients flow to the model.

    Args:
        input_ids: (rows, length), padded on the right, where no token looks.
        where: (rows, length - 1), False where nobody asks for the log-probability of the next token (prompts,
            padding); such places cost no work in the head.
        temperature: that of sampling; the logits are divided by it.
        kept: (rows, length - 1, vocab_size), True for the tokens that the sampler's filters left (`kept_tokens`), to
            renormalise over these and the one that was taken (DeepSeek-V3.2, arXiv:2512.02556).
        chunk: tokens that go through the head at a time; by default as many as make `CHUNK_LOGITS` logits.
        with_entropies: also return the entropy, in nats, of each distribution, without a gradient.

    Returns:
        (rows, length - 1) for input_ids[:, 1:], 0 outside `where`; with entropies a pair of these.

    Raises ValueError for a temperature or chunk that is not positive, shapes that do not fit, or an unknown token.
    """
    _require_fitting(model, input_ids, where, temperature, kept)
    where = torch.ones_like(input_ids[:, 1:], dtype=torch.bool) if where is None else where.bool()
    hidden = model.hidden_states(input_ids)[:, :-1][where]
    rows = [hidden, input_ids[:, 1:][where]] + ([] if kept is None else [kept.bool()[where]])
    scores = in_chunks(partial(score_tokens, model.head, temperature), rows, chunk_size(chunk, model))
    logprobs, entropies = (
        torch.zeros_like(where, dtype=values.dtype).masked_scatter(where, values) for values in scores
    )
    return (logprobs, entropies) if with_entropies else logprobs


def score_tokens(
    head: nn.Module, temperature: float, hidden: Tensor, targets: Tensor, kept: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution; hidden (tokens, hidden_size), both (tokens,)."""
    logits = apply_temperature(head(hidden).float(), temperature)
    if kept is not None:
        logits = logits.masked_fill(~kept.scatter(-1, targets.unsqueeze(-1), True), RULED_OUT)
    every = logits.log_softmax(dim=-1)
    certain = every.detach()  # the entropy is looked at only
    entropies = -certain.exp().mul_(certain).sum(dim=-1)
    return every.gather(-1, targets.unsqueeze(-1)).squeeze(-1), entropies


def in_chunks(score: Callable[..., tuple[Tensor, ...]], rows: Sequence[Tensor], size: int) -> Sequence[Tensor]:
    """Apply `score` to `size` rows of the tensors at a time and join what it returns."""
    if len(rows[0]) <= size:
        return score(*rows)  # one chunk's memory is needed in any case
    parts = zip(*(each.split(size) for each in rows), strict=True)
    return [torch.cat(values) for values in zip(*(recomputed(score, *part) for part in parts), strict=True)]


def chunk_size(chunk: int | None, model: CausalLM) -> int:
    """How many tokens go through the head at a time: `chunk`, or as many as make `CHUNK_LOGITS` logits."""
    if chunk is None:
        return max(1, CHUNK_LOGITS // model.config.vocab_size)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: give at least one token, or None for the default.")
    return chunk


def pad_rows(
    starts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]], pad_id: int = 0
) -> tuple[Tensor, Tensor]:
    """Token ids (rows, length), and where (rows, length - 1) `input_ids[:, 1:]` belongs to a continuation.

    The ids alone would not tell: the pad token may be the end token, which counts.
    """
    rows = [torch.tensor([*start, *written]) for start, written in zip(starts, continuations, strict=True)]
    wanted = [torch.arange(1, len(row)) >= len(start) for row, start in zip(rows, starts, strict=True)]
    return pad_sequence(rows, True, pad_id), pad_sequence(wanted, True)


def continuation_logprobs(
    model: CausalLM, starts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Log-probability of every token of each continuation after its start, all in one forward pass.

    Taught in ch05, section 5.5.
    """
    input_ids, where = (tensor.to(model.device) for tensor in pad_rows(starts, continuations))
    logprobs = token_logprobs(model, input_ids, where=where)
    return [values[wanted].tolist() for values, wanted in zip(logprobs, where, strict=True)]


@torch.no_grad()
def kept_tokens(model: CausalLM, input_ids: Tensor, sampling: Sampling, *, where: Tensor) -> Tensor:
    """Which tokens `sampling` leaves to choose from at each place: (rows, length - 1, vocab_size), boolean.

    Outside `where` no token is ruled out.
    """
    hidden = model.hidden_states(input_ids)[:, :-1][where]
    kept = torch.ones((*where.shape, model.config.vocab_size), dtype=torch.bool, device=hidden.device)
    parts = hidden.split(chunk_size(None, model))
    kept[where] = torch.cat([sampling.filter(model.head(part).float()).isfinite() for part in parts])
    return kept


@contextmanager
def recomputed_blocks(model: CausalLM) -> Iterator[None]:
    """Meanwhile, a layer keeps nothing but its input for the backward pass and computes the rest again there.

    That is a third more work for a fraction of the memory (arXiv:1604.06174). The backward pass may come after it.
    """
    for block in model.blocks:
        block.forward = partial(recomputed, block.forward)
    try:
        yield
    finally:
        for block in model.blocks:
            del block.forward  # what the class says comes to light again


def _require_fitting(
    model: CausalLM, input_ids: Tensor, where: Tensor | None, temperature: float, kept: Tensor | None
) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}: log-probabilities need the positive one of sampling.")
    ensure_known(input_ids, model)
    shape = (len(input_ids), input_ids.shape[1] - 1)
    if where is not None and where.shape != shape:
        raise ValueError(f"where is {tuple(where.shape)}, but must be {shape}: one value a token after the first.")
    shape = (*shape, model.config.vocab_size)
    if kept is not None and kept.shape != shape:
        raise ValueError(f"kept is {tuple(kept.shape)}, but must be {shape}: one value a place and token.")
