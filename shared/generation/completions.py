"""Generating text: greedy decoding and sampling, one prompt or many. Taught in ch02, sections 2.4 to 2.7.

What a row gets does not depend on the others in its batch, up to one thing: matrix products of another size may differ
in their last bits. That decides between tokens that are equally likely: to six digits in fp32, to one or two in bf16.
"""

import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from shared.generation.sampling import Sampling, plain_seed, random_stream
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM, ensure_known
from shared.support.progress import progress_bar
from shared.support.values import ensure_at_least_one

# Prompts are read in groups of so many tokens, which fit a processor's cache: 256 prompts take half the time.
PREFILL_TOKENS = 1024
# Parameters times rows: to hand such small products to other threads takes longer than to do them.
ONE_THREAD_BELOW = 50_000_000


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt.

    Attributes:
        text: what a reader sees, without the end token and without the stop text.
        token_ids: every token that was sampled, with the end token if there was one.
        logprobs: log-probability of each of them under the model itself, before temperature and filters.
        finish_reason: "stop" at an end token or stop text, "length" if the tokens or the context ran out.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str


class Ending:
    """Where a text ends: with an end token, or before a stop text. Taught in ch02, section 2.5."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
        self.decode, self.stops = tokenizer.decode, stops
        self.end_ids = getattr(tokenizer, "stop_ids", (tokenizer.eos_id,))
        # A token is at least a byte long, so a stop text that has just come stands in the last tokens.
        self.reach = 8 + max((len(stop.encode()) for stop in stops), default=0)

    def reached(self, token_ids: list[int]) -> bool:
        """Whether the last of the tokens ends the text."""
        if token_ids[-1] in self.end_ids:
            return True
        recent = self.decode(token_ids[-self.reach :]) if self.stops else ""
        return any(stop in recent for stop in self.stops)

    def text(self, token_ids: list[int]) -> str:
        """What a reader sees of the tokens."""
        text = self.decode(token_ids[:-1] if token_ids[-1] in self.end_ids else token_ids)
        return text[: min((text.find(stop) for stop in self.stops if stop in text), default=None)]


@dataclass
class Row:
    """One completion in the making: at most `room` tokens; the random numbers `uniforms` are for one draw each."""

    prompt: tuple[int, ...]
    room: int
    ending: Ending
    uniforms: Sequence[float] = ()
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, token: int, logprob: float) -> None:
        """Take one more token and see whether the row is finished."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        if self.ending.reached(self.token_ids):
            self.finish_reason = "stop"
        elif len(self.token_ids) == self.room:
            self.finish_reason = "length"


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and the mask of what is real, (prompts, longest) each. Taught in ch02, section 2.5."""
    longest = max(map(len, prompts))
    ids = [[pad_id] * (longest - len(p)) + list(p) for p in prompts]
    mask = [[False] * (longest - len(p)) + [True] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


class Recomputed:
    """A batch of growing texts in which every step computes all tokens anew. Taught in ch02, section 2.5.

    `hidden` (rows, hidden_size) is the state after the last token, from which the head predicts the next.
    """

    def __init__(self, model: CausalLM, prompts: Sequence[tuple[int, ...]], pad_id: int):
        self.model = model
        self.ids, self.mask = left_pad(prompts, pad_id, model.device)
        self.hidden = model.hidden_states(self.ids, attention_mask=self.mask)[:, -1]

    def advance(self, tokens: Tensor) -> None:
        """Append one token a row, (rows,)."""
        self.ids = torch.cat((self.ids, tokens[:, None]), dim=1)
        self.mask = torch.cat((self.mask, torch.ones_like(tokens[:, None], dtype=torch.bool)), dim=1)
        self.hidden = self.model.hidden_states(self.ids, attention_mask=self.mask)[:, -1]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only, without the columns that are padding in all of them."""
        used = self.mask[rows].any(dim=0)
        self.ids, self.mask = self.ids[rows][:, used], self.mask[rows][:, used]


def groups(prompts: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Neighbours in the list, as many as stay below PREFILL_TOKENS when they are padded, and at least one."""
    group: list[tuple[int, ...]] = []
    for prompt in prompts:
        if group and (len(group) + 1) * max(map(len, (*group, prompt))) > PREFILL_TOKENS:
            yield group
            group = []
        group.append(prompt)
    yield group


class Cached:
    """The same with a KV cache: a step computes the new tokens only. Taught in ch02, section 2.5.

    A prompt that comes several times is read once. Memory is for `room` new tokens at first.
    """

    def __init__(self, model: CausalLM, prompts: Sequence[tuple[int, ...]], pad_id: int, room: int = 64):
        self.model, caches, hidden = model, [], []
        different = list(dict.fromkeys(prompts))
        for group in groups(different):
            ids, mask = left_pad(group, pad_id, model.device)
            caches.append(model.new_cache(len(group), ids.shape[1]))
            hidden.append(model.hidden_states(ids, caches[-1], mask)[:, -1])
        self.cache = model.new_cache(len(different), max(map(len, different)) + room)
        self.cache.take(caches)
        number = {prompt: i for i, prompt in enumerate(different)}
        rows = torch.tensor([number[prompt] for prompt in prompts], device=model.device)
        self.cache.select(rows)
        self.hidden = torch.cat(hidden)[rows]

    def advance(self, tokens: Tensor) -> None:
        """Feed one token a row, (rows,)."""
        self.hidden = self.model.hidden_states(tokens[:, None], self.cache)[:, -1]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.cache.select(rows)
        self.cache.trim()


def decode_batch(
    state: Cached | Recomputed, rows: list[Row], choose: Callable[[Tensor, list[Row]], Tensor]
) -> Iterator[int]:
    """Let rows grow to their ends; yields after each token how many have just finished. Taught in ch02, section 2.5.

    `choose` takes logits (rows, vocab_size) and the rows, and gives each row's next token, (rows,).
    """
    while True:
        logits = state.model.head(state.hidden).float()
        tokens = choose(logits, rows)
        logprobs = logits.log_softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.add(token, logprob)
        going_on = [i for i, row in enumerate(rows) if row.finish_reason is None]
        yield len(rows) - len(going_on)
        if not going_on:
            return
        if len(going_on) < len(rows):  # those that have finished leave the batch
            last = [i for i in going_on if i >= len(going_on)]  # they take the free places, so few rows are moved
            going_on = [i if rows[i].finish_reason is None else last.pop() for i in range(len(going_on))]
            index = torch.tensor(going_on, device=tokens.device)
            state.select(index)
            rows, tokens = [rows[i] for i in going_on], tokens[index]
        state.advance(tokens)


@torch.inference_mode()
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
        first_sample: the number of each prompt's first sample: with one seed, samples 0 to 3 and then
            `first_sample=4` give what all at once give.
        seed: with the same seed, a prompt's n-th sample draws the same random numbers, whatever the batch; None
            draws fresh ones.
        use_cache: False computes the whole text anew at every step, to show what the cache saves.
        stop: text or texts at which a completion ends; it is cut before them.
        progress: show a bar of the completions that are done.
        batch_size: how many completions are decoded at once, at most; bounds the memory.

    Returns one completion a prompt, or a list of `num_samples` of them if that is more than 1. Raises ValueError for a
    prompt without tokens or one that fills the context, and for settings out of range.
    """
    sampling = Sampling(temperature, top_k, top_p, min_p)
    if not all(isinstance(n, int) and n > 0 for n in (max_new_tokens, num_samples, batch_size)):
        ensure_at_least_one(max_new_tokens=max_new_tokens, num_samples=num_samples, batch_size=batch_size)
    texts = [prompts] if isinstance(prompts, str) else prompts
    samples = range(first_sample, first_sample + num_samples)
    rows = make_rows(model, tokenizer, texts, samples, max_new_tokens, sampling, seed, stop)
    by_length = sorted(rows, key=lambda row: len(row.prompt))
    batches = [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with progress_bar(len(rows), unit="completion") if progress else nullcontext() as bar:
        for batch in batches:
            with spare_threads(model, len(batch)):
                state = prefill(model, tokenizer, batch, use_cache)
                for finished in decode_batch(state, batch, partial(next_tokens, sampling)):
                    if progress:
                        bar.update(finished)
    done = [to_completion(row) for row in rows]
    if num_samples == 1:
        return done
    return [done[start : start + num_samples] for start in range(0, len(done), num_samples)]


def make_rows(
    model: CausalLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    samples: range,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int | None,
    stop: str | Sequence[str] | None,
) -> list[Row]:
    """The rows of every prompt, one a sample; a prompt that comes again goes on with the next samples."""
    if stop == "" or not all(isinstance(text, str) and text for text in stop or ()):
        raise ValueError(f"stop is {stop!r}: give a text that is not empty, or a list of such texts.")
    tokenizer.warn_if_plain(texts)
    ending = Ending(tokenizer, [stop] if isinstance(stop, str) else stop or ())
    seed = secrets.randbits(62) if seed is None else plain_seed(seed)
    most = min(max_new_tokens, model.config.context_length)
    rows, seen = [], Counter()
    for text in texts:
        prompt = tuple(tokenizer.encode(text))
        _require_room(prompt, model)
        for number in samples:
            uniforms = [] if sampling.greedy else random_stream(seed, prompt, seen[prompt] + number, most).tolist()
            rows.append(Row(prompt, min(most, model.config.context_length - len(prompt)), ending, uniforms))
        seen[prompt] += len(samples)
    return rows


def prefill(model: CausalLM, tokenizer: Tokenizer, rows: list[Row], use_cache: bool) -> Cached | Recomputed:
    """Read the rows' prompts."""
    prompts = [row.prompt for row in rows]
    if use_cache:
        return Cached(model, prompts, tokenizer.pad_id, room=min(64, max(row.room for row in rows)))
    return Recomputed(model, prompts, tokenizer.pad_id)


def next_tokens(sampling: Sampling, logits: Tensor, rows: list[Row]) -> Tensor:
    """The next token of each row, (rows,): the likeliest, or one drawn with the row's next random number."""
    if sampling.greedy:
        return sampling.choose(logits)
    uniforms = [row.uniforms[len(row.token_ids)] for row in rows]
    return sampling.choose(logits, torch.tensor(uniforms, device=logits.device))


@contextmanager
def spare_threads(model: CausalLM, rows: int) -> Iterator[None]:
    """Meanwhile one thread, if the model is small for so many rows."""
    threads = torch.get_num_threads()
    if rows * sum(p.numel() for p in model.parameters()) < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def to_completion(row: Row) -> Completion:
    """A finished row as the caller sees it; raises ValueError if the model's numbers were none."""
    if any(map(math.isnan, row.logprobs)):
        raise ValueError("The model's logits are not numbers: its weights are damaged, load an earlier checkpoint.")
    return Completion(row.ending.text(row.token_ids), row.token_ids, row.logprobs, row.finish_reason)


def _require_room(prompt: tuple[int, ...], model: CausalLM) -> None:
    if not prompt:
        raise ValueError("The prompt is empty: give at least one token of text to go on from.")
    if (size := len(prompt)) >= (context := model.config.context_length):
        raise ValueError(f"The prompt has {size} tokens and leaves no room in the context of {context}: shorten it.")
    if max(prompt) >= model.config.vocab_size:  # a tensor for every prompt would be slow
        ensure_known(torch.tensor(prompt), model, "prompt")
