"""Keys and values of earlier tokens, and which tokens are padding. Taught in ch02 (what it saves) and appendix C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from shared.model.transformer import ModelConfig


class KVCache:
    """Keys and values of all tokens seen so far, so that each is computed once.

    Storage is allocated ahead and doubled when full; room for a whole context is not taken at the start. It also
    remembers which positions are padding, so that left-padded rows stay right in later steps.

    Args:
        config: shape of the model it serves.
        batch_size: number of rows.
        capacity: how many tokens to allocate at first; a good guess saves copies.
    """

    def __init__(
        self, config: ModelConfig, batch_size: int = 1, capacity: int = 64, *, device=None, dtype=None
    ):
        # In both tensors dimension 1 counts the rows and dimension 3 the tokens. The keys of layer i are stored[2 * i],
        # its values stored[2 * i + 1].
        shape = (2 * config.num_layers, batch_size, config.num_kv_heads, capacity, config.head_dim)
        self.stored = torch.empty(shape, device=device, dtype=dtype)
        self.mask = torch.ones(1, batch_size, 1, capacity, dtype=torch.bool, device=device)
        self.padded = False
        self.length = 0
        self._remembered: dict[int, Tensor] = {}

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.mask.shape[1]

    @property
    def capacity(self) -> int:
        """How many tokens fit before the storage grows."""
        return self.mask.shape[3]

    @property
    def real(self) -> Tensor:
        """Which of the tokens so far are no padding, (batch, length)."""
        return self.mask[0, :, 0, : self.length]

    def extend(self, mask: Tensor | None, count: int) -> None:
        """Make room for `count` more tokens; `mask` (batch, count) is False where they are padding."""
        if self.length + count > self.capacity:
            self._grow(max(2 * self.capacity, self.length + count))
        self.length += count
        if mask is not None:
            self.real[:, -count:] = mask
            self.padded = self.padded or not bool(mask.all())
        self._open(count)

    def _open(self, count: int) -> None:
        """Views of every layer's newest tokens and of all its tokens, cut for all layers at once."""
        self._new = self.stored.narrow(3, self.length - count, count).unbind()
        self._all = self.stored.narrow(3, 0, self.length).unbind()

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's newest keys and values (batch, kv_heads, new, head_dim); return all of that layer's."""
        self._new[2 * layer].copy_(keys)
        self._new[2 * layer + 1].copy_(values)
        return self._all[2 * layer], self._all[2 * layer + 1]

    def remember(self, layer: int, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` makes of a layer's weights alone, once a text: they stay as long as a cache is in use."""
        if layer not in self._remembered:
            self._remembered[layer] = compute()
        return self._remembered[layer]

    def positions(self, count: int) -> Tensor:
        """Position of each of the newest `count` tokens in its own text: (count,), or (batch, count) if padded."""
        if not self.padded:
            return torch.arange(self.length - count, self.length, device=self.mask.device)
        return (self.real.cumsum(-1)[:, -count:] - 1).clamp(min=0)

    def select(self, rows: Tensor) -> None:
        """Keep these rows only (a row may come several times, to continue one prompt in several ways)."""
        if len(rows) > self.batch_size:
            self._replace(lambda old: old[:, rows])
            return
        # Rows that keep their place are not copied: where few rows leave, that is almost all of them.
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]

        def overwritten(old: Tensor) -> Tensor:
            used = old.narrow(3, 0, self.length)
            used[:, moved] = used[:, rows[moved]]
            return old[:, : len(rows)]

        self._replace(overwritten)

    def take(self, caches: Sequence[KVCache]) -> None:
        """Fill this empty cache with the rows of others, padded on the left to the length of the longest."""
        self.length = max(cache.length for cache in caches)
        self.padded = any(cache.padded or cache.length < self.length for cache in caches)
        rows = self.stored.split([cache.batch_size for cache in caches], dim=1)
        masks = self.mask.split([cache.batch_size for cache in caches], dim=1)
        for cache, *mine in zip(caches, rows, masks, strict=True):
            for new, old in zip(mine, (cache.stored, cache.mask), strict=True):
                padding = self.length - cache.length
                new.narrow(3, 0, padding).zero_()  # False in the mask
                new.narrow(3, padding, cache.length).copy_(old.narrow(3, 0, cache.length))

    def trim(self) -> None:
        """Drop the leading columns that are padding in every row."""
        if self.padded:
            first = int(self.real.any(dim=0).int().argmax())
            self._replace(lambda old: old.narrow(3, first, old.shape[3] - first))
            self.length -= first
            self.padded = not bool(self.real.all())

    def _grow(self, capacity: int) -> None:
        def enlarged(old: Tensor) -> Tensor:
            shape = (*old.shape[:3], capacity, *old.shape[4:])
            new = old.new_ones(shape) if old.dtype == torch.bool else old.new_empty(shape)
            new.narrow(3, 0, self.length).copy_(old.narrow(3, 0, self.length))
            return new

        self._replace(enlarged)

    def _replace(self, change: Callable[[Tensor], Tensor]) -> None:
        self.stored, self.mask = change(self.stored), change(self.mask)


class Uncached(KVCache):
    """Bookkeeping of a forward pass that keeps no keys and values."""

    def __init__(self, batch_size: int, device: torch.device):
        self.mask = torch.ones(1, batch_size, 1, 0, dtype=torch.bool, device=device)
        self.padded = False
        self.length = 0

    def _grow(self, capacity: int) -> None:
        self.mask = self.mask.new_ones(1, self.batch_size, 1, capacity)

    def _open(self, count: int) -> None:
        pass


def attention_mask_of(state: KVCache, length: int, dtype: torch.dtype) -> Tensor | None:
    """What to add to the scores, (batch or 1, 1, length, all), or None where SDPA's own causal rule says it."""
    total = state.length
    if not state.padded and (length == 1 or length == total):
        return None
    queries = torch.arange(total - length, total, device=state.mask.device).unsqueeze(-1)
    keys = torch.arange(total, device=state.mask.device)
    allowed = (keys <= queries)[None]
    if state.padded:
        # A padding token looks at itself, since a row of the softmax without any entry would be NaN.
        allowed = (allowed & state.real[:, None]) | (keys == queries)
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, float("-inf"))[:, None]
