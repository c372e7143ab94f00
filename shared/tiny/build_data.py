"""Write MiniMath's two files, `shared/assets/minimath_train.jsonl` and `minimath_test.jsonl`, from their seeds.

python -m shared.tiny.build_data
"""

import argparse
from pathlib import Path

from shared.assets import ASSETS, SPLITS
from shared.support.jsonl import write_jsonl
from shared.tiny.corpus import generate_minimath


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
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    for path in build_minimath():
        print(f"Wrote {path.name}, {path.stat().st_size / 1e6:.1f} MB.")


if __name__ == "__main__":
    main()
