"""What a model needs: parameters, bytes, operations and seconds, from its configuration and a card's data sheet.

All are bounds or rules of thumb: how far published runs are from them is shown in appendix H, section H.8. N stands for
parameters and D for tokens, as in the scaling laws (arXiv:2001.08361). Taught in appendix D (sizes,
memory, decoding) and appendix H (training). What an update needs part by part: `python -m benchmarks.grpo_memory`.
"""

from dataclasses import dataclass

from shared.model.transformer import ModelConfig


def _qwen3(hidden_size: int, intermediate_size: int, num_layers: int, num_heads: int, tied: bool) -> ModelConfig:
    return ModelConfig(
        vocab_size=151_936, hidden_size=hidden_size, intermediate_size=intermediate_size, num_layers=num_layers,
        num_heads=num_heads, num_kv_heads=8, head_dim=128, context_length=40_960, tie_embeddings=tied,
    )  # fmt: skip


# The dense models of Qwen3 (arXiv:2505.09388), from their config.json.
QWEN3 = {
    "0.6B": _qwen3(1024, 3072, 28, 16, tied=True),
    "1.7B": _qwen3(2048, 6144, 28, 16, tied=True),
    "4B": _qwen3(2560, 9728, 36, 32, tied=True),
    "8B": _qwen3(4096, 12_288, 36, 32, tied=False),
    "14B": _qwen3(5120, 17_408, 40, 40, tied=False),
    "32B": _qwen3(5120, 25_600, 64, 64, tied=False),
}


@dataclass(frozen=True)
class Card:
    """A graphics card by its data sheet: memory in bytes, bandwidth in bytes a second, dense 16-bit FLOP a second."""

    memory: float
    bandwidth: float
    flops: float


CARDS = {
    "T4": Card(16e9, 320e9, 65e12),
    "L4": Card(24e9, 300e9, 121e12),
    "RTX 4090": Card(24e9, 1008e9, 165e12),
    "A100 80GB": Card(80e9, 2039e9, 312e12),
    "H100 SXM": Card(80e9, 3350e9, 989e12),
}


# --- sizes and memory ---------------------------------------------------------------------------------------


def parameter_count(config: ModelConfig) -> int:
    """How many parameters a model has, counted without building it."""
    attention = 2 * (config.num_heads + config.num_kv_heads) * config.head_dim * config.hidden_size
    bias = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim * config.qkv_bias
    norms = 2 * config.hidden_size + 2 * config.head_dim * config.qk_norm
    layer = attention + bias + 3 * config.hidden_size * config.intermediate_size + norms
    tables = (2 - config.tie_embeddings) * config.vocab_size * config.hidden_size
    return tables + config.num_layers * layer + config.hidden_size


def parameters_read(config: ModelConfig) -> int:
    """The parameters that each token is multiplied with: all but an embedding that is a table of its own."""
    embedding = 0 if config.tie_embeddings else config.vocab_size * config.hidden_size
    return parameter_count(config) - embedding


def adapter_count(config: ModelConfig, rank: int = 16) -> int:
    """How many parameters LoRA of this rank trains (`shared.model.lora`): adapters on all matrices of the blocks."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    matrices = ((hidden, queries + 2 * keys), (queries, hidden), (hidden, 2 * inner), (inner, hidden))
    return config.num_layers * rank * sum(map(sum, matrices))


def weight_bytes(config: ModelConfig, bytes_each: float = 2) -> float:
    """Bytes of the weights, by default in 16 bits."""
    return bytes_each * parameter_count(config)


def kv_cache_bytes_per_token(config: ModelConfig, bytes_each: float = 2) -> float:
    """Bytes of a token's key and value in every layer, by default in 16 bits."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * bytes_each


def training_memory(config: ModelConfig, *, lora_rank: int = 0, processes: int = 1) -> float:
    """Bytes of weights, gradients and AdamW's moments for each of the processes that they are spread over.

    16 bytes a trained parameter, in plain fp32 (4 each) and in mixed precision (2 + 2 in 16 bits, and 12 for an fp32
    copy and two moments); LoRA's frozen weights take 2. Activations come on top.
    """
    if not lora_rank:
        return 16 * parameter_count(config) / processes
    return (weight_bytes(config) + 16 * adapter_count(config, lora_rank)) / processes


# --- operations and time ------------------------------------------------------------------------------------


def forward_flops(config: ModelConfig, tokens: float, length: float = 0) -> float:
    """Floating-point operations to read `tokens` tokens, in texts of `length` tokens each.

    2 N D: a multiplication and an addition for each parameter and token. Attention adds 4 times layers, heads and head
    size for each pair of a query and an earlier key, of which a token has length / 2 on average.
    """
    attention = 2 * config.num_layers * config.num_heads * config.head_dim * length
    return tokens * (2 * parameters_read(config) + attention)


def training_flops(config: ModelConfig, tokens: float, length: float = 0, *, recomputed: bool = False) -> float:
    """Operations to train on `tokens` tokens: 6 N D, since the backward pass takes twice the forward pass.

    `recomputed` adds a second forward pass, for activations that were not kept (8 N D).
    """
    return (4 if recomputed else 3) * forward_flops(config, tokens, length)


def decode_seconds(
    config: ModelConfig, card: Card, *, texts: int = 1, prompt: int = 0, new_tokens: int = 1, bytes_each: float = 2
) -> float:
    """The least time in which a card can write `new_tokens` tokens after prompts of `prompt` tokens, in one batch.

    Each step reads the weights once and the cache of every text, and computes; the slower of the two sets the time.
    Whether it all fits into the card's memory is not asked.
    """
    past = prompt + new_tokens / 2  # on average
    cache = texts * past * kv_cache_bytes_per_token(config, bytes_each)
    reading = (bytes_each * parameters_read(config) + cache) / card.bandwidth
    computing = forward_flops(config, texts, 2 * past) / card.flops
    return new_tokens * max(reading, computing)


def largest_batch(config: ModelConfig, card: Card, length: int, bytes_each: float = 2) -> int:
    """How many texts of `length` tokens a card can write at once, if a tenth of its memory is left free."""
    free = 0.9 * card.memory - weight_bytes(config, bytes_each)
    return max(0, int(free // (length * kv_cache_bytes_per_token(config, bytes_each))))
