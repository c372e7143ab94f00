"""What ships with the course: the tiny model and its teacher, their tokenizer, and MiniMath."""

from pathlib import Path

ASSETS = Path(__file__).parent
SPLITS = {"train": {"n": 12_000, "seed": 1}, "test": {"n": 1_000, "seed": 2}}  # MiniMath's two files
