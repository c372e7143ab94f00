"""A batch of texts that grow token by token, with and without a KV cache: what `generate` advances at each step."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from shared.model.transformer import CausalLM, KVCache

# Prompts are read in groups of so many tokens: their intermediate results fit a processor's cache, and prompts of like
# length stand together, so that little of it is padding.
PREFILL_TOKENS = 1024


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and the mask of what is real, (prompts, longest) each. Taught in ch02, section 2.5."""
    longest = max(map(len, prompts))
    ids = [[pad_id] * (longest - len(p)) + list(p) for p in prompts]
    mask = [[False] * (longest - len(p)) + [True] * len(p) for p in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _groups(prompts: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Neighbours in the list, as many as stay below PREFILL_TOKENS when they are padded, and at least one."""
    group: list[tuple[int, ...]] = []
    for prompt in prompts:
        if group and (len(group) + 1) * max(map(len, (*group, prompt))) > PREFILL_TOKENS:
            yield group
            group = []
        group.append(prompt)
    yield group


class Cached:
    """Texts that are decoded with a KV cache; `hidden` (texts, hidden_size) is the state after the last token.

    Args:
        prompts: token ids of each text, best sorted by length; where a prompt comes twice it is read once.
        room: for how many new tokens to allocate at first.
    """

    def __init__(self, model: CausalLM, prompts: Sequence[tuple[int, ...]], pad_id: int, room: int):
        self.model = model
        different = list(dict.fromkeys(prompts))
        self.cache, self.hidden = self._read(different, pad_id, room)
        if len(different) < len(prompts):
            number = {prompt: i for i, prompt in enumerate(different)}
            index = torch.tensor([number[prompt] for prompt in prompts], device=model.device)
            self.cache.select(index)
            self.hidden = self.hidden[index]

    def _read(self, prompts: list[tuple[int, ...]], pad_id: int, room: int) -> tuple[KVCache, Tensor]:
        groups = list(_groups(prompts))
        if len(groups) == 1:
            ids, mask = left_pad(prompts, pad_id, self.model.device)
            cache = self.model.new_cache(len(prompts), ids.shape[1] + room)
            return cache, self.model.hidden_states(ids, cache, mask)[:, -1]
        caches, hidden = zip(*(self._read(group, pad_id, 0) for group in groups), strict=True)
        joined = self.model.new_cache(len(prompts), max(map(len, prompts)) + room)
        joined.take(caches)
        return joined, torch.cat(hidden)

    def advance(self, tokens: Tensor) -> None:
        """Feed one more token a row, (rows, 1)."""
        self.hidden = self.model.hidden_states(tokens, self.cache)[:, -1]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.cache.select(rows)
        self.cache.trim()


class Recomputed:
    """As `Cached`, without a cache: every step computes all tokens anew."""

    def __init__(self, model: CausalLM, prompts: Sequence[tuple[int, ...]], pad_id: int):
        self.model = model
        self.ids, self.mask = left_pad(prompts, pad_id, model.device)
        self._compute()

    def _compute(self) -> None:
        self.hidden = self.model.hidden_states(self.ids, attention_mask=self.mask)[:, -1]

    def advance(self, tokens: Tensor) -> None:
        """Append one more token a row, (rows, 1)."""
        self.ids = torch.cat((self.ids, tokens), dim=1)
        self.mask = torch.cat((self.mask, torch.ones_like(tokens, dtype=torch.bool)), dim=1)
        self._compute()

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        used = self.mask.any(dim=0)
        self.ids, self.mask = self.ids[:, used], self.mask[:, used]
