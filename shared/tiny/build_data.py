"""Write MiniMath's two files, `shared/assets/minimath_train.jsonl` and `minimath_test.jsonl`, from their seeds.

python -m shared.tiny.build_data
"""

from pathlib import Path

from shared.jsonl import write_jsonl
from shared.tiny.corpus import generate_minimath

ASSETS = Path(__file__).parents[1] / "assets"
SPLITS = {"train": {"n": 12_000, "seed": 1}, "test": {"n": 1_000, "seed": 2}}


def build_minimath(folder: Path = ASSETS) -> list[Path]:
    """Draw both splits and write them as JSON Lines; returns the paths."""
    paths = []
    for split, draw in SPLITS.items():
        path = folder / f"minimath_{split}.jsonl"
        write_jsonl(path, generate_minimath(**draw, split=split))
        paths.append(path)
    return paths


def main() -> None:
    """The command line."""
    for path in build_minimath():
        print(f"Wrote {path.name}, {path.stat().st_size / 1e6:.1f} MB.")


if __name__ == "__main__":
    main()
