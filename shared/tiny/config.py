"""The shape of the tiny model, 1.7 M parameters that train and generate on two processor cores, and of its data."""

from pathlib import Path

from shared.model import ModelConfig

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

ASSETS = Path(__file__).parents[1] / "assets"
SPLITS = {"train": {"n": 12_000, "seed": 1}, "test": {"n": 1_000, "seed": 2}}  # MiniMath's two files
