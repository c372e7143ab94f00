"""Text that is shown while it is written. Taught in ch02, section 2.6."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from shared.generation.completions import Row, decode_batch, make_rows, next_tokens, prefill, spare_threads
from shared.generation.sampling import Sampling
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.values import ensure_at_least_one

INCOMPLETE = "\ufffd"  # the sign for a character whose last bytes are not there yet


def stream(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    seed: int | None = None,
    use_cache: bool = True,
    stop: str | Sequence[str] | None = None,
) -> Iterator[str]:
    """Complete one prompt and yield the text piece by piece, as soon as it is certain.

    The pieces joined are the text that `generate` returns for the same arguments. No piece ends within a character,
    and what may be the beginning of a stop text is held back until that is known.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p)
    ensure_at_least_one(max_new_tokens=max_new_tokens)
    [row] = make_rows(model, tokenizer, [prompt], range(1), max_new_tokens, sampling, seed, stop)
    return pieces(model, tokenizer, row, sampling, use_cache)


@torch.inference_mode()  # left at every yield, so that the caller's code runs as before
def pieces(model: CausalLM, tokenizer: Tokenizer, row: Row, sampling: Sampling, use_cache: bool) -> Iterator[str]:
    """The text of a row while it grows."""
    state, shown = prefill(model, tokenizer, [row], use_cache), 0
    steps = decode_batch(state, [row], partial(next_tokens, sampling))
    while row.finish_reason is None:
        with spare_threads(model, rows=1):
            next(steps)
        text = row.ending.text(row.token_ids)
        if row.finish_reason is None:
            text = certain(text, row.ending.stops)
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)


def certain(text: str, stops: Sequence[str]) -> str:
    """The text without what may change: a character in the making, or the beginning of a stop text."""
    text = text.rstrip(INCOMPLETE)
    held = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return text[: len(text) - max(held, default=0)]
