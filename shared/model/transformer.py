"""One decoder-only transformer with a KV cache: Qwen3, and by two switches Qwen2.5 and Llama.

    Qwen3      qk_norm=True,  qkv_bias=False     (arXiv:2505.09388)
    Qwen2.5    qk_norm=False, qkv_bias=True      (arXiv:2412.15115)
    Llama      qk_norm=False, qkv_bias=False     (arXiv:2407.21783; SmolLM2 and others share it)

The same forward pass serves one prompt, a batch, and left-padded prompts of different lengths. Nothing here is for
speed alone: that is the matter of `fast.py`. Taught in ch02 (how to use it) and appendix C (how it is built).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a model. Sizes are counts of features, heads, layers or tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int = 1024
    rope_base: float = 1_000_000.0
    norm_eps: float = 1e-6
    qk_norm: bool = True
    qkv_bias: bool = False
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"{self.num_heads} query heads cannot share {self.num_kv_heads} key-value heads evenly: "
                "num_heads must be a multiple of num_kv_heads."
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}, but RoPE rotates pairs of features: make it even.")


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, times a learned weight (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x / sqrt(mean(x ** 2) + eps) * weight, with the mean over the last dimension."""
        return F.rms_norm(x, self.weight.shape, eps=self.eps) * self.weight


class FeedForward(nn.Module):
    """SwiGLU (arXiv:2002.05202): one projection gates the other."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Each token on its own: (batch, length, hidden_size) to the same shape."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Rope:
    """Rotary position embedding (arXiv:2104.09864): turn pairs of features by an angle that grows with position.

    The tables are no module buffers on purpose: `model.to(torch.bfloat16)` must leave them in fp32, where the
    angles of late positions keep their precision.
    """

    def __init__(self, head_dim: int, base: float):
        self.inverse_frequency = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
        self.cos_sin = torch.empty(0, 2, 1, head_dim)

    def tables(self, positions: Tensor, length: int | None = None) -> tuple[Tensor, Tensor]:
        """cos and sin in fp32 for these positions: (..., length, 1, head_dim), to broadcast over heads.

        `length` is one that no position reaches; to give it saves looking for the largest.
        """
        needed = int(positions.max()) + 1 if length is None else length
        if needed > len(self.cos_sin) or self.cos_sin.device != positions.device:
            with torch.inference_mode(False):  # what generation makes here, training may use later
                self._enlarge(max(needed, 2 * len(self.cos_sin)), positions.device)
        return self.cos_sin[positions].unbind(-3)

    def _enlarge(self, length: int, device: torch.device) -> None:
        angles = torch.outer(torch.arange(length).float(), self.inverse_frequency)
        # The minus sign of the rotation is paid here, once.
        sin = torch.cat((-angles.sin(), angles.sin()), dim=-1)
        cos = torch.cat((angles.cos(), angles.cos()), dim=-1)
        self.cos_sin = torch.stack((cos, sin), dim=1).unsqueeze(2).to(device)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (batch, length, heads, head_dim); feature i is paired with feature i + head_dim / 2."""
    partner = x.roll(x.shape[-1] // 2, dims=-1)
    return (x * cos).addcmul_(partner, sin).type_as(x)


class KVCache:
    """Keys and values of all tokens seen so far, so that each is computed once.

    Storage is allocated ahead and doubled when full; room for a whole context is not taken at the start. It also
    remembers which tokens are padding, so that left-padded rows stay right in later steps.

    Args:
        config: shape of the model it serves.
        batch_size: number of rows.
        capacity: how many tokens to allocate at first; a good guess saves copies.
    """

    def __init__(self, config: ModelConfig, batch_size: int = 1, capacity: int = 64, *, device=None, dtype=None):
        # The keys of layer i are stored[2 * i], its values stored[2 * i + 1].
        shape = (2 * config.num_layers, batch_size, config.num_kv_heads, capacity, config.head_dim)
        self.stored = torch.empty(shape, device=device, dtype=dtype)
        self.real = torch.ones(batch_size, capacity, dtype=torch.bool, device=device)
        self.padded = False
        self.length = 0

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.real.shape[0]

    @property
    def capacity(self) -> int:
        """How many tokens fit before the storage grows."""
        return self.real.shape[1]

    def extend(self, count: int, real: Tensor | None) -> Tensor | None:
        """Make room for `count` more tokens; `real` (batch, count), if given, is False where they are padding.

        Returns the same of all tokens so far, or None if none is padding.
        """
        start, self.length = self.length, self.length + count
        if self.length > self.capacity:
            self._grow(max(2 * self.capacity, self.length) - self.capacity)
        if real is not None:
            self.real[:, start : self.length] = real
            self.padded = True
        # Every layer's newest tokens and all its tokens, cut for all layers at once.
        self._new = self.stored[:, :, :, start : self.length].unbind()
        self._all = self.stored[:, :, :, : self.length].unbind()
        return self.real[:, : self.length] if self.padded else None

    def _grow(self, more: int) -> None:
        self.stored = F.pad(self.stored, (0, 0, 0, more))
        self.real = F.pad(self.real, (0, more), value=True)

    def store(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's newest keys and values (batch, kv_heads, new, head_dim); return all of that layer's."""
        self._new[2 * layer].copy_(keys)
        self._new[2 * layer + 1].copy_(values)
        return self._all[2 * layer], self._all[2 * layer + 1]

    def select(self, rows: Tensor) -> None:
        """Keep these rows only (a row may come several times, to continue one prompt in several ways)."""
        if len(rows) > self.batch_size:
            self.stored, self.real = self.stored[:, rows], self.real[rows]
            return
        # Rows that keep their place are not copied: where few rows leave, that is almost all of them.
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for rows_first in (self.stored[:, :, :, : self.length].transpose(0, 1), self.real):
            rows_first[moved] = rows_first[rows[moved]]
        self.stored, self.real = self.stored[:, : len(rows)], self.real[: len(rows)]

    def take(self, caches: list["KVCache"]) -> None:
        """Fill this empty cache with the rows of others, padded on the left to the length of the longest."""
        self.length = max(cache.length for cache in caches)
        self.padded = any(cache.padded or cache.length < self.length for cache in caches)
        sizes = [cache.batch_size for cache in caches]
        parts = zip(caches, self.stored.split(sizes, dim=1), self.real.split(sizes), strict=True)
        for cache, stored, real in parts:
            padding = self.length - cache.length
            stored[:, :, :, : self.length] = F.pad(cache.stored[:, :, :, : cache.length], (0, 0, padding, 0))
            real[:, : self.length] = F.pad(cache.real[:, : cache.length], (padding, 0))

    def trim(self) -> None:
        """Drop the leading columns that are padding in every row."""
        if self.padded:
            real = self.real[:, : self.length]
            first = int(real.any(dim=0).int().argmax())
            self.stored, self.real = self.stored[:, :, :, first:], self.real[:, first:]
            self.length -= first
            self.padded = not bool(real[:, first:].all())


def token_positions(real: Tensor | None, past: int, length: int, device: torch.device) -> Tensor:
    """Position of each of the newest tokens in its own text: (length,), or (batch, length) if there is padding.

    `real` (batch, past + length) is False for padding; None says that there is none.
    """
    if real is None:
        return torch.arange(past, past + length, device=device)
    return (real.cumsum(-1)[:, past:] - 1).clamp(min=0)


def score_mask(real: Tensor | None, past: int, length: int, like: Tensor) -> Tensor | None:
    """What to add to the scores, (batch or 1, 1, length, all), or None where SDPA's own causal rule says it."""
    if real is None and (length == 1 or past == 0):
        return None
    queries = torch.arange(past, past + length, device=like.device).unsqueeze(-1)
    keys = torch.arange(past + length, device=like.device)
    allowed = (keys <= queries)[None]
    if real is not None:
        # A padding token looks at itself, since a row of the softmax without any entry would be NaN.
        allowed = (allowed & real[:, None]) | (keys == queries)
    return torch.zeros_like(allowed, dtype=like.dtype).masked_fill_(~allowed, float("-inf"))[:, None]


class Attention(nn.Module):
    """Grouped-query attention (arXiv:2305.13245): several query heads read the same key-value head."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_dim
        self.qkv = nn.Linear(config.hidden_size, (heads + 2 * kv_heads) * size, bias=config.qkv_bias)
        self.out = nn.Linear(heads * size, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(size, config.norm_eps)
            self.k_norm = RMSNorm(size, config.norm_eps)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        """Mix information between tokens: x (batch, length, hidden_size) to the same shape."""
        heads, kv_heads = self.config.num_heads, self.config.num_kv_heads
        qkv = self.qkv(x).unflatten(-1, (-1, self.config.head_dim))
        q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=2)
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.transpose(1, 2) for t in (apply_rope(q, *rope), apply_rope(k, *rope), v))
        if cache is not None:
            k, v = cache.store(layer, k, v)
        return self.out(attend(q, k, v, mask))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of q (batch, heads, new, head_dim) over k, v (batch, kv_heads, all, head_dim).

    `mask` (batch or 1, 1, new, all) is added to the scores: 0 where a query may look, else minus infinity; None means
    causal. Returns (batch, new, heads * head_dim).
    """
    causal = mask is None and q.shape[2] > 1  # one new token sees all that is cached
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
    return mixed.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        """One layer: x (batch, length, hidden_size) to the same shape."""
        x = x + self.attention(self.attention_norm(x), rope, mask, cache, layer)
        return x + self.feed_forward(self.feed_forward_norm(x))


class CausalLM(nn.Module):
    """A language model: token ids in, a score for every possible next token out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight
        self.rope = Rope(config.head_dim, config.rope_base)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.embedding.weight.dtype

    def new_cache(self, batch_size: int = 1, capacity: int = 64) -> KVCache:
        """An empty cache of the right shape, device and dtype."""
        return KVCache(self.config, batch_size, capacity, device=self.device, dtype=self.dtype)

    def forward(self, input_ids: Tensor, cache: KVCache | None = None, attention_mask: Tensor | None = None) -> Tensor:
        """Logits (batch, length, vocab_size) for input_ids (batch, length).

        Args:
            cache: holds the tokens before these; the new ones are added to it.
            attention_mask: (batch, length) or, with a cache, also (batch, all tokens so far and these); 0 or False
                marks padding. Padding may stand on the left only where a text is to go on.

        Raises ValueError for shapes that do not fit, or a text longer than the context.
        """
        return self.head(self.hidden_states(input_ids, cache, attention_mask))

    def hidden_states(
        self, input_ids: Tensor, cache: KVCache | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """As `forward`, without the output head: (batch, length, hidden_size), after the last norm."""
        past = 0 if cache is None else cache.length
        _require_fit(input_ids, cache, attention_mask, past, self.config.context_length)
        length = input_ids.shape[1]
        real = None if attention_mask is None else attention_mask[:, -length:].bool()
        if real is not None and bool(real.all()):
            real = None
        if cache is not None:
            real = cache.extend(length, real)
        x = self.embedding(input_ids)
        rope = self.rope.tables(token_positions(real, past, length, x.device), past + length)
        mask = score_mask(real, past, length, like=x)
        for layer, block in enumerate(self.blocks):
            x = block(x, rope, mask, cache, layer)
        return self.norm(x)


def _require_fit(
    input_ids: Tensor, cache: KVCache | None, attention_mask: Tensor | None, past: int, context: int
) -> None:
    shape = tuple(input_ids.shape)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"input_ids is {shape}, but must be (batch, length): put one text into a list, [ids].")
    batch, length = shape
    if attention_mask is not None and attention_mask.shape not in ((batch, length), (batch, past + length)):
        raise ValueError(
            f"attention_mask is {tuple(attention_mask.shape)}, input_ids {(batch, length)}: give one value a token."
        )
    if past + length > context:
        found = f"{past + length} tokens do not fit the context of {context}"
        raise ValueError(f"{found}: shorten the prompt or ask for fewer new tokens.")
    if cache is not None and cache.batch_size != batch:
        raise ValueError(f"The cache holds {cache.batch_size} rows, the input {batch}: use a new cache.")


def ensure_known(token_ids: Tensor, model: CausalLM, text: str = "text") -> None:
    """Raises ValueError if a token is not in the model's vocabulary: on a GPU such an id ends the whole process."""
    unknown = token_ids[token_ids >= model.config.vocab_size]
    if len(unknown):
        raise ValueError(
            f"The {text} holds token {int(unknown[0])}, but the model knows {model.config.vocab_size} tokens only: "
            "use the tokenizer that belongs to it."
        )
