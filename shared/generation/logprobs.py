"""Log-probabilities of given tokens without the logits of all of them at once. Taught in ch06, sections 6.6 and 6.10.

With a large vocabulary the logits are the largest tensor of training: for 8 texts of 512 tokens and 151,936 scores
each they take 2.5 GB in fp32, and the softmax and the gradient as much again. Here the head and the softmax see a
chunk of tokens at a time, and compute it again in the backward pass instead of keeping it (arXiv:1604.06174).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from shared.generation.sampling import Sampling
from shared.model.transformer import CausalLM, ensure_known

RULED_OUT = (
    -1e30
)  # logit of a token that was no choice; with minus infinity, 0 * log 0 would be NaN in the entropy
CHUNK_LOGITS = 2**25  # logits of one chunk, 134 MB in fp32; every chunk costs a pass over the head's weights

recomputed = partial(
    checkpoint, use_reentrant=False, preserve_rng_state=False
)  # no dropout, so nothing random


def token_logprobs(
    model: CausalLM,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    where: Tensor | None = None,
    temperature: float = 1.0,
    kept: Tensor | None = None,
    chunk: int | None = None,
    with_entropies: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probability, in fp32, of every token given those before it; gradients flow to the model.

    Args:
        input_ids: (rows, length). Padding on the right needs no mask, since no token looks ahead.
        attention_mask: (rows, length), 0 or False marks padding on either side.
        where: (rows, length - 1), False where nobody asks for the log-probability of the next token (prompts,
            padding); such places cost no work in the head.
        temperature: that of sampling; the logits are divided by it.
        kept: (rows, length - 1, vocab_size), True for the tokens that the sampler's filters left (`kept_tokens`);
            the log-probabilities are then those among these and the one that was taken, which a rounding error may
            have dropped (DeepSeek-V3.2, arXiv:2512.02556).
        chunk: tokens that go through the head at a time; by default as many as make `CHUNK_LOGITS` logits.
        with_entropies: also return the entropy, in nats, of each distribution, without a gradient.

    Returns:
        (rows, length - 1) for input_ids[:, 1:], 0 for padding and outside `where`; with entropies a pair of these.

    Raises:
        ValueError: for a temperature or chunk that is not positive, shapes that do not fit, or a token that the model
            does not know.
    """
    if temperature <= 0:
        raise ValueError(
            f"temperature is {temperature}: log-probabilities need the positive one of sampling."
        )
    ensure_known(input_ids, model)
    wanted = _wanted(input_ids, attention_mask, where)
    hidden = model.hidden_states(input_ids, attention_mask=_left_padding(attention_mask))[:, :-1][wanted]
    rows = (hidden, input_ids[:, 1:][wanted], _kept_rows(kept, wanted, model))
    score = partial(_score, model, temperature=temperature, with_entropies=with_entropies)
    scores = in_chunks(score, rows, chunk_size(chunk, model))
    zeros = torch.zeros(wanted.shape, device=hidden.device)
    logprobs, *entropies = (zeros.masked_scatter(wanted, values) for values in scores)
    return (logprobs, *entropies) if with_entropies else logprobs


@torch.no_grad()
def kept_tokens(
    model: CausalLM,
    input_ids: Tensor,
    sampling: Sampling,
    attention_mask: Tensor | None = None,
    *,
    where: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Which tokens `sampling` leaves to choose from at each place: (rows, length - 1, vocab_size), boolean.

    Outside `where` and for padding no token is ruled out. The other arguments are those of `token_logprobs`.
    """
    wanted = _wanted(input_ids, attention_mask, where)
    hidden = model.hidden_states(input_ids, attention_mask=_left_padding(attention_mask))[:, :-1][wanted]
    kept = torch.ones((*wanted.shape, model.config.vocab_size), dtype=torch.bool, device=hidden.device)
    parts = hidden.split(chunk_size(chunk, model))
    kept[wanted] = torch.cat([sampling.filter(model.head(part).float()).isfinite() for part in parts])
    return kept


@contextmanager
def recomputed_blocks(model: CausalLM) -> Iterator[None]:
    """Meanwhile, a layer keeps nothing but its input for the backward pass and computes the rest again there.

    That is a third more work for a fraction of the memory (arXiv:1604.06174). The backward pass itself may come after
    the block. Without gradients it changes nothing.
    """
    for block in model.blocks:
        block.forward = partial(recomputed, block.forward)
    try:
        yield
    finally:
        for block in model.blocks:
            del block.forward  # what the class says comes to light again


def _score(
    model: CausalLM,
    hidden: Tensor,
    targets: Tensor,
    kept: Tensor | None,
    temperature: float,
    with_entropies: bool,
) -> tuple[Tensor, ...]:
    """Log-probability of each target and, if asked for, entropy; hidden (tokens, hidden_size), the others (tokens,)."""
    logits = model.head(hidden).float()
    if temperature != 1:
        logits.div_(temperature)
    if kept is not None:
        kept = kept.scatter(-1, targets.unsqueeze(-1), True)
        logits.masked_fill_(~kept, RULED_OUT)
    every = logits.log_softmax(dim=-1)
    logprobs = every.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    if not with_entropies:
        return (logprobs,)
    with torch.no_grad():
        return logprobs, -every.exp().mul_(every).sum(dim=-1)


def in_chunks(
    score: Callable[..., tuple[Tensor, ...]], rows: tuple[Tensor | None, ...], size: int
) -> list[Tensor]:
    """Apply `score` to `size` rows at a time and join what it returns."""
    count = len(rows[0])
    if count <= size:
        return list(score(*rows))  # one chunk's memory is needed in any case
    parts = [[None] * -(-count // size) if each is None else each.split(size) for each in rows]
    scores = [recomputed(score, *part) for part in zip(*parts, strict=True)]
    return [torch.cat(values) for values in zip(*scores, strict=True)]


def chunk_size(chunk: int | None, model: CausalLM) -> int:
    """How many tokens go through the head at a time: `chunk`, or as many as make `CHUNK_LOGITS` logits."""
    if chunk is None:
        return max(1, CHUNK_LOGITS // model.config.vocab_size)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}: give at least one token, or None for the default.")
    return chunk


def _wanted(input_ids: Tensor, attention_mask: Tensor | None, where: Tensor | None) -> Tensor:
    """Where both the next token and the one before it are real, and the caller asks for it."""
    wanted = torch.ones_like(input_ids[:, 1:], dtype=torch.bool)
    if attention_mask is not None:
        real = attention_mask.bool()
        wanted = real[:, 1:] & real[:, :-1]
    if where is None:
        return wanted
    if where.shape != wanted.shape:
        raise ValueError(
            f"where is {tuple(where.shape)}, but must be {tuple(wanted.shape)}: one value a token after the first."
        )
    return wanted & where.bool()


def _left_padding(attention_mask: Tensor | None) -> Tensor | None:
    """The mask, if the model needs one: without it attention is faster."""
    if attention_mask is None:
        return None
    real = attention_mask.bool()
    before_a_token = ~real[:, :-1] & real[:, 1:]
    return real if bool(before_a_token.any()) else None


def _kept_rows(kept: Tensor | None, wanted: Tensor, model: CausalLM) -> Tensor | None:
    if kept is None:
        return None
    shape = (*wanted.shape, model.config.vocab_size)
    if tuple(kept.shape) != shape:
        raise ValueError(f"kept is {tuple(kept.shape)}, but must be {shape}: one value a place and token.")
    return kept.bool()[wanted]


def continuation_logprobs(
    model: CausalLM, starts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[list[float]]:
    """Log-probability of every token of each continuation after its start, all in one forward pass.

    Rows are padded on the right, where no token looks; only the continuations go through the output head.
    Taught in ch05, section 5.5.
    """
    rows = [[*start, *continuation] for start, continuation in zip(starts, continuations, strict=True)]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    where = torch.zeros(ids.shape, dtype=torch.bool)
    for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        where[i, len(start) : len(row)] = True
    ids, where = ids.to(model.device), where[:, 1:].to(model.device)  # of token 0 nothing is predicted
    logprobs = token_logprobs(model, ids, where=where)
    return [values[asked].tolist() for values, asked in zip(logprobs, where, strict=True)]
