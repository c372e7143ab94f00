"""The shape of the tiny model, 1.7 M parameters that train and generate on two processor cores, and of its data."""

from shared.model.transformer import ModelConfig

TINY_CONFIG = ModelConfig(
    vocab_size=512,
    hidden_size=192,
    intermediate_size=512,
    num_layers=4,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    context_length=512,
    rope_base=10_000.0,
)
