"""Generating text: greedy decoding and sampling, one prompt or many. Taught in ch02 and ch04.

Prompts of different lengths are padded on the left and decoded together. A row that has finished leaves the batch.
Several samples of a prompt share its prefill. What a row gets does not depend on the other rows, up to one thing:
matrix products of another size may differ in their last bits, which can decide between tokens that are equally
likely to six digits.
"""

import math
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from shared.generation.decoding import Cached, Recomputed
from shared.generation.sampling import Sampling, random_stream
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM, ensure_known
from shared.support.progress import progress_bar
from shared.support.values import as_list, ensure_at_least_one, plain_seed

# Why a completion, ours or a server's, has no end of its own: a student must not learn to end there.
CUT_SHORT = ("length", "content_filter")
# Parameters times rows: to hand such small products to other threads takes longer than to do them.
ONE_THREAD_BELOW = 50_000_000


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        text: what a reader sees, without the end token and without the stop string.
        token_ids: every token that was sampled, with the end token if there was one.
        logprobs: log-probability of each of them under the model itself, before temperature and filters.
        finish_reason: "stop" at an end token or stop string, "length" if the tokens or the context ran out.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str


def generate(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    min_p: float = 0.0,
    num_samples: int = 1,
    first_sample: int = 0,
    seed: int | None = None,
    use_cache: bool = True,
    stop: str | Sequence[str] | None = None,
    progress: bool = False,
    batch_size: int = 256,
) -> list[Completion] | list[list[Completion]]:
    """Complete every prompt.

    Args:
        prompts: one text or several; one text gives a list with one entry.
        max_new_tokens: the most tokens a completion may have; it also ends where the model's context does.
        temperature, top_p, top_k, min_p: see `Sampling`; temperature 0 is greedy decoding.
        num_samples: how many completions of each prompt; the same prompt several times in the list counts on.
        first_sample: the number of each prompt's first sample, to draw more of them later: with one seed, samples
            0 to 3 and then `first_sample=4` give what all at once give.
        seed: with the same seed, a prompt's n-th sample draws the same random numbers, whatever the batch; None
            draws fresh ones.
        use_cache: False computes the whole text anew at every step, to show what the cache saves.
        stop: text or texts at which a completion ends; it is cut before them.
        progress: show a bar of the completions that are done.
        batch_size: how many completions are decoded at once, at most; bounds the memory.

    Returns:
        One completion a prompt, or a list of `num_samples` of them if that is more than 1, in the order of `prompts`.

    Raises:
        ValueError: for a prompt without tokens or one that fills the context, and for settings out of range.
    """
    texts = as_list(prompts)
    sampling = Sampling(temperature, top_k, top_p, min_p)
    ensure_at_least_one(num_samples=num_samples, batch_size=batch_size, max_new_tokens=max_new_tokens)
    samples = range(first_sample, first_sample + num_samples)
    rows = _make_rows(model, tokenizer, texts, samples, max_new_tokens, seed, sampling, _stop_list(stop))
    by_length = sorted(rows, key=lambda row: len(row.prompt))
    with progress_bar(len(rows), unit="completion", shown=progress) as bar:
        for start in range(0, len(rows), batch_size):
            batch = by_length[start : start + batch_size]
            with _inference(model, len(batch)):
                for finished in _decode(model, tokenizer, batch, sampling, use_cache):
                    bar.update(finished)
    done = [row.completion() for row in rows]
    if num_samples == 1:
        return done
    return [done[start : start + num_samples] for start in range(0, len(done), num_samples)]


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
    and what may be the beginning of a stop string is held back until that is known.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p)
    ensure_at_least_one(max_new_tokens=max_new_tokens)
    [row] = _make_rows(model, tokenizer, [prompt], range(1), max_new_tokens, seed, sampling, _stop_list(stop))
    row.text = _GrowingText(tokenizer)
    return _stream_row(model, tokenizer, row, sampling, use_cache)


def _stream_row(model, tokenizer, row: "_Row", sampling: Sampling, use_cache: bool) -> Iterator[str]:
    steps, shown = _decode(model, tokenizer, [row], sampling, use_cache), 0
    while row.finish_reason is None:
        with _inference(model):  # not across a yield, where the caller's code runs
            next(steps)
        certain = row.certain_text()
        if len(certain) > shown:
            yield certain[shown:]
            shown = len(certain)


# --- rows -----------------------------------------------------------------------------------------------------


class _GrowingText:
    """The text of a growing list of tokens, each decoded once, character by whole character."""

    def __init__(self, tokenizer: Tokenizer):
        self.decode = tokenizer.decode
        self.ids: list[int] = []
        self.so_far = ""
        self._context = self._read = (
            0  # a token may look different at the start of a text: decode with those before it
        )

    def add(self, token: int) -> None:
        self.ids.append(token)
        new = self._unread()
        if new and not new.endswith("\ufffd"):  # the sign for a character that is not whole yet
            self._take(new)

    def finish(self) -> None:
        self._take(self._unread())

    def _unread(self) -> str:
        known = self.decode(self.ids[self._context : self._read])
        return self.decode(self.ids[self._context :])[len(known) :]

    def _take(self, new: str) -> None:
        self.so_far += new
        self._context, self._read = self._read, len(self.ids)


class _Row:
    """One completion in the making."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: tuple[int, ...],
        room: int,
        uniforms: Tensor | None,
        stops: list[str],
    ):
        self.tokenizer, self.prompt, self.room, self.uniforms, self.stops = (
            tokenizer,
            prompt,
            room,
            uniforms,
            stops,
        )
        self.end_ids = getattr(tokenizer, "stop_ids", (tokenizer.eos_id,))
        self.text = _GrowingText(tokenizer) if stops else None
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason: str | None = None

    def add(self, token: int, logprob: float) -> None:
        """Take one more token and see whether the completion is finished."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if token in self.end_ids:
            self.finish_reason = "stop"
            return
        if self.text:
            self.text.add(token)
        if self.text and any(stop in self.text.so_far for stop in self.stops):
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.room:
            self.finish_reason = "length"

    def certain_text(self) -> str:
        """The text up to a stop string, or up to what may become one."""
        if self.finish_reason:
            self.text.finish()
        text = self.text.so_far
        if self.finish_reason:
            return text[: min((text.find(s) for s in self.stops if s in text), default=None)]
        held = (n for s in self.stops for n in range(1, len(s)) if text.endswith(s[:n]))
        return text[: len(text) - max(held, default=0)]

    def completion(self) -> Completion:
        if any(map(math.isnan, self.logprobs)):
            raise ValueError(
                "The model's logits are not numbers: its weights are damaged, load an earlier checkpoint."
            )
        written = self.token_ids[:-1] if self.token_ids[-1] in self.end_ids else self.token_ids
        text = self.certain_text() if self.text else self.tokenizer.decode(written)
        return Completion(text, self.token_ids, self.logprobs, self.finish_reason)


def _make_rows(model, tokenizer, texts, samples: range, max_new_tokens, seed, sampling, stops) -> list[_Row]:
    seen: Counter[tuple[int, ...]] = Counter()
    context = model.config.context_length
    steps = min(max_new_tokens, context)
    base = secrets.randbits(62) if seed is None else plain_seed(seed)
    rows = []
    for text in texts:
        prompt = tuple(tokenizer.encode(text))
        _check_prompt(prompt, model)
        for sample in samples:
            number = sample + seen[prompt]
            uniforms = None if sampling.greedy else random_stream(base, prompt, number, steps)
            rows.append(_Row(tokenizer, prompt, min(steps, context - len(prompt)), uniforms, stops))
        seen[prompt] += len(samples)
    return rows


def _check_prompt(prompt: tuple[int, ...], model: CausalLM) -> None:
    config = model.config
    if not prompt:
        raise ValueError("The prompt is empty: give at least one token of text to go on from.")
    if len(prompt) >= config.context_length:
        raise ValueError(
            f"The prompt has {len(prompt)} tokens and leaves no room in the context of {config.context_length}: "
            "shorten it."
        )
    ensure_known(torch.tensor(prompt), model, "prompt")


def _stop_list(stop: str | Sequence[str] | None) -> list[str]:
    stops = [stop] if isinstance(stop, str) else list(stop or ())
    if not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop is {stop!r}: give a text that is not empty, or a list of such texts.")
    return stops


# --- decoding -------------------------------------------------------------------------------------------------


def _decode(
    model: CausalLM, tokenizer: Tokenizer, rows: list[_Row], sampling: Sampling, use_cache: bool
) -> Iterator[int]:
    """Decode the rows to their ends; yields after each step how many have just finished."""
    prompts, longest = [row.prompt for row in rows], max(row.room for row in rows)
    if use_cache:
        state = Cached(model, prompts, tokenizer.pad_id, room=min(64, longest))
    else:
        state = Recomputed(model, prompts, tokenizer.pad_id)
    uniforms = (
        None if sampling.greedy else torch.stack([row.uniforms for row in rows], dim=1).to(model.device)
    )
    for step in range(longest):
        logits = model.head(state.hidden).float()
        tokens = sampling.choose(logits, None if sampling.greedy else uniforms[step])
        logprobs = logits.log_softmax(dim=-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.add(token, logprob)
        kept = _close_gaps([row.finish_reason is None for row in rows])
        finished = len(rows) - len(kept)
        if finished and kept:
            index = torch.tensor(kept, device=model.device)
            state.select(index)
            tokens, rows = tokens[index], [rows[i] for i in kept]
            uniforms = None if sampling.greedy else uniforms[:, index]
            _spare_threads(model, len(rows))
        yield finished
        if not kept:
            return
        state.advance(tokens.unsqueeze(-1))


def _close_gaps(alive: list[bool]) -> list[int]:
    """Numbers of the rows that are alive, such that few change place: the last ones fill the gaps of the dead."""
    numbers = [i for i, is_alive in enumerate(alive) if is_alive]
    from_the_end = reversed(numbers)
    return [i if alive[i] else next(from_the_end) for i in range(len(numbers))]


@contextmanager
def _inference(model: CausalLM, rows: int = 1) -> Iterator[None]:
    """No gradients, evaluation mode, a number of threads that fits; everything as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    threads = torch.get_num_threads()
    for module in training:
        module.training = False
    _spare_threads(model, rows)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
        for module in training:
            module.training = True


def _spare_threads(model: CausalLM, rows: int) -> None:
    """Go on with one thread if the model is small for so many rows; `_inference` brings the others back."""
    if rows * sum(p.numel() for p in model.parameters()) < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
