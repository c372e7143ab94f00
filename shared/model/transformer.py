"""One decoder-only transformer with a KV cache: Qwen3, and by two switches Qwen2.5 and Llama.

    Qwen3      qk_norm=True,  qkv_bias=False     (arXiv:2505.09388)
    Qwen2.5    qk_norm=False, qkv_bias=True      (arXiv:2412.15115)
    Llama      qk_norm=False, qkv_bias=False     (arXiv:2407.21783; SmolLM2 and others share it)

The same forward pass serves one prompt, a batch, and left-padded prompts of different lengths. Taught in ch02
(how to use it) and appendix C (how it is built).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shared.model.kv_cache import KVCache, Uncached, attention_mask_of
from shared.model.linear import Linear


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
            raise ValueError(
                f"head_dim is {self.head_dim}, but RoPE rotates pairs of features: make it even."
            )


class Layer(nn.Module):
    """A module whose parts are plain attributes as well, where Python finds them at once.

    Those of torch's modules are looked for in vain first, which takes a twentieth of the time of a small model's step.
    """

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)  # which drops a plain attribute of that name
        if isinstance(value, nn.Module):
            self.__dict__[name] = value


class RMSNorm(nn.Module):
    """Scale each vector to unit root mean square, times a learned weight (arXiv:1910.07467)."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension of x."""
        # The same as self.weight, which Python would look for elsewhere in vain first.
        return rms_norm(x, self._parameters["weight"], self.eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x ** 2) + eps) * weight, with the mean over the last dimension."""
    size = x.shape[-1]
    if not x.is_cpu or x.dtype != torch.float32:
        return F.rms_norm(x, (size,), eps=eps) * weight
    # F.rms_norm is one operation on a GPU, but seven on a processor, and each makes a tensor of the size of x.
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    mean_square = torch.addcmul(_constant(eps), length, length, value=1 / size)
    return (x * mean_square.rsqrt_()).mul_(weight)


@cache
def _constant(value: float) -> Tensor:
    """A number as a tensor: torch turns a plain one into such a tensor in each operation anew."""
    with torch.inference_mode(False):
        return torch.tensor(value)


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


class Attention(Layer):
    """Grouped-query attention (arXiv:2305.13245): several query heads read the same key-value head."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        heads, kv_heads, size = config.num_heads, config.num_kv_heads, config.head_dim
        self.qkv = Linear(config.hidden_size, (heads + 2 * kv_heads) * size, bias=config.qkv_bias)
        self.out = Linear(heads * size, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(size, config.norm_eps)
            self.k_norm = RMSNorm(size, config.norm_eps)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        """Mix information between tokens: x (batch, length, hidden_size) to the same shape."""
        config = self.config
        batch, length, _ = x.shape
        heads, kv_heads = config.num_heads, config.num_kv_heads
        qkv = self.qkv(x).view(batch, length, -1, config.head_dim)
        # Queries and keys are normalised and rotated as one tensor: half as many operations, the same numbers.
        qk, v = qkv.split_with_sizes((heads + kv_heads, kv_heads), dim=2)
        if config.qk_norm:
            scale = self._qk_scale() if cache is None else cache.remember(layer, self._qk_scale)
            qk = rms_norm(qk, scale, config.norm_eps)
        q, k = apply_rope(qk, *rope).transpose(1, 2).split_with_sizes((heads, kv_heads), dim=1)
        v = v.transpose(1, 2)
        if cache is not None:
            k, v = cache.store(layer, k, v)
        return self.out(attend(q, k, v, mask))

    def _qk_scale(self) -> Tensor:
        """The learned weight of every query and key head, (num_heads + num_kv_heads, head_dim)."""
        q_scale = self.q_norm.weight.expand(self.config.num_heads, -1)
        k_scale = self.k_norm.weight.expand(self.config.num_kv_heads, -1)
        return torch.cat((q_scale, k_scale))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of q (batch, heads, new, head_dim) over k, v (batch, kv_heads, all, head_dim).

    `mask` (batch or 1, 1, new, all) is added to the scores: 0 where a query may look, else minus infinity; None means
    causal. Returns (batch, new, heads * head_dim).
    """
    batch, _, length, size = q.shape
    if length == 1:
        # One new token sees all that is cached. The heads of a group then differ in their query only, so they can
        # stand as the rows of one product, and no key is repeated for each of them.
        q = q.reshape(batch, k.shape[1], -1, size)
        if batch > 1 and q.is_cpu:
            return _few_queries(q, k, v, mask).reshape(batch, 1, -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).reshape(batch, 1, -1)
    causal = mask is None
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)
    return mixed.transpose(1, 2).reshape(batch, length, -1)


def _few_queries(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The same as SDPA by two matrix products: on a processor faster where many rows have a few queries each."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.add_(mask)
    return scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v


class FeedForward(Layer):
    """SwiGLU (arXiv:2002.05202): one projection gates the other."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_up = Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Each token on its own: (batch, length, hidden_size) to the same shape."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate).mul_(up))


class Block(Layer):
    """Attention, then feed-forward, each on a normalised copy and added back."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, rope, mask, cache, layer) -> Tensor:
        """One layer: x (batch, length, hidden_size) to the same shape."""
        x = x + self.attention(self.attention_norm(x), rope, mask, cache, layer)
        return x + self.feed_forward(self.feed_forward_norm(x))


class CausalLM(Layer):
    """A language model: token ids in, a score for every possible next token out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size, bias=False)
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

    def forward(
        self, input_ids: Tensor, cache: KVCache | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, length, vocab_size) for input_ids (batch, length).

        Args:
            cache: holds the tokens before these; the new ones are added to it.
            attention_mask: (batch, length) or, with a cache, also (batch, all tokens so far and these); 0 or False
                marks padding. Padding may stand on the left only where a text is to go on.

        Raises:
            ValueError: for shapes that do not fit, or a text longer than the context.
        """
        return self.head(self.hidden_states(input_ids, cache, attention_mask))

    def hidden_states(
        self, input_ids: Tensor, cache: KVCache | None = None, attention_mask: Tensor | None = None
    ) -> Tensor:
        """As `forward`, without the output head: (batch, length, hidden_size), after the last norm."""
        if input_ids.ndim != 2 or input_ids.shape[1] == 0:
            raise ValueError(
                f"input_ids is {tuple(input_ids.shape)}, but must be (batch, length): put one text into a list, [ids]."
            )
        batch, length = input_ids.shape
        state = cache if cache is not None else Uncached(batch, input_ids.device)
        padding = _new_columns(attention_mask, batch, length, state.length)
        if state.length + length > self.config.context_length:
            raise ValueError(
                f"{state.length + length} tokens do not fit the context of {self.config.context_length}: shorten the "
                "prompt or ask for fewer new tokens."
            )
        if state.batch_size != batch:
            raise ValueError(f"The cache holds {state.batch_size} rows, the input {batch}: use a new cache.")
        state.extend(padding, length)
        rope = self.rope.tables(state.positions(length), state.length)
        x = self.embedding(input_ids)
        mask = attention_mask_of(state, length, x.dtype)
        for layer, block in enumerate(self.blocks):
            x = block(x, rope, mask, cache, layer)
        return self.norm(x)


def check_known(token_ids: Tensor, model: CausalLM, text: str = "text") -> None:
    """Raises ValueError if a token is not in the model's vocabulary: on a GPU such an id ends the whole process."""
    unknown = token_ids[token_ids >= model.config.vocab_size]
    if len(unknown):
        raise ValueError(
            f"The {text} holds token {int(unknown[0])}, but the model knows {model.config.vocab_size} tokens only: "
            "use the tokenizer that belongs to it."
        )


def _new_columns(attention_mask: Tensor | None, batch: int, length: int, past: int) -> Tensor | None:
    if attention_mask is None:
        return None
    if tuple(attention_mask.shape) not in ((batch, length), (batch, past + length)):
        raise ValueError(
            f"attention_mask is {tuple(attention_mask.shape)}, input_ids {(batch, length)}: give one value a token."
        )
    return attention_mask[:, -length:].bool()
