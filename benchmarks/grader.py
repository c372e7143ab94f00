r"""Our grader, the plain `parse_expr` way and Math-Verify on the same labelled and hostile inputs, side by
side.

    python -m benchmarks.grader                     all of it, about five minutes: the peers hang often
    python -m benchmarks.grader --skip-hostile      labelled pairs only

`data/grader_pairs.jsonl` holds pairs with their kind and whether they are equal; `data/grader_hostile.jsonl`
holds inputs that hang, crash or run code somewhere. A hostile text is stored as (part, times) to keep the
file small; `{canary}` in it stands for a file whose appearance proves that the text was run.
"""

import argparse
import json
import platform
import statistics
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.grader_peers import GRADERS, KillableGrader
from shared.support.machine import processor_name

DATA = Path(__file__).parent / "data"
LIMIT = 2.0  # seconds before a call counts as a hang
ROWS = (
    "right", "false positives", "false negatives", "exceptions on pairs",
    "median ms", "99th percentile ms", "slowest ms",
    "hostile: code runs", "hostile: hangs", "hostile: crashes", "hostile: exceptions", "hostile: slowest ms",
)  # fmt: skip


def load_jsonl(name: str) -> list[dict[str, Any]]:
    """The records of a file in `benchmarks/data`."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def hostile_text(record: dict[str, Any], canary: str) -> str:
    """Put a hostile input together from its parts."""
    return "".join(part.replace("{canary}", canary) * times for part, times in record["parts"])


def run_pairs(graders: dict[str, KillableGrader]) -> dict[str, list[tuple[dict[str, Any], bool | str, float]]]:
    """Every grader on every pair, one pair after the other: (pair, verdict, seconds)."""
    results: dict[str, list] = {name: [] for name in graders}
    for pair in load_jsonl("grader_pairs.jsonl"):
        for name, grader in graders.items():
            results[name].append((pair, *grader(pair["prediction"], pair["gold"])))
    return results


def pair_figures(results: list[tuple[dict[str, Any], bool | str, float]]) -> dict[str, str]:
    """Accuracy and times of one grader; a hang, crash or exception counts as the verdict False."""
    false = sum(not pair["equal"] for pair, _, _ in results)
    wrong_yes = sum(verdict is True and not pair["equal"] for pair, verdict, _ in results)
    wrong_no = sum(verdict is not True and pair["equal"] for pair, verdict, _ in results)
    times = sorted(1000 * seconds for _, _, seconds in results)
    return {
        "right": f"{100 * (1 - (wrong_yes + wrong_no) / len(results)):.1f} %",
        "false positives": f"{wrong_yes} of {false}",
        "false negatives": f"{wrong_no} of {len(results) - false}",
        "exceptions on pairs": str(sum(isinstance(verdict, str) for _, verdict, _ in results)),
        "median ms": f"{statistics.median(times):.3f}",
        "99th percentile ms": f"{times[int(0.99 * len(times))]:.2f}",
        "slowest ms": f"{times[-1]:.1f}",
    }


def run_hostile(graders: dict[str, KillableGrader]) -> dict[str, dict[str, str]]:
    """Counts of what goes wrong on hostile inputs."""
    counts: dict[str, dict[str, int]] = {name: defaultdict(int) for name in graders}
    slowest = dict.fromkeys(graders, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary"
        for record in load_jsonl("grader_hostile.jsonl"):
            text = hostile_text(record, canary.as_posix())
            for name, grader in graders.items():
                verdict, seconds = grader(text, record.get("gold", "5"))
                slowest[name] = max(slowest[name], seconds)
                counts[name][str(verdict).partition(":")[0]] += 1
                counts[name]["ran"] += canary.exists()
                canary.unlink(missing_ok=True)
    return {
        name: {
            "hostile: code runs": str(count["ran"]),
            "hostile: hangs": str(count["hang"]),
            "hostile: crashes": str(count["crash"]),
            "hostile: exceptions": str(count["exception"]),
            "hostile: slowest ms": f"{1000 * slowest[name]:.0f}",
        }
        for name, count in counts.items()
    }


def kinds_table(results: list[tuple[dict[str, Any], bool | str, float]]) -> str:
    """Right answers by kind of pair."""
    kinds: dict[str, list[bool]] = defaultdict(list)
    for pair, verdict, _ in results:
        kinds[pair["kind"]].append(verdict is pair["equal"])
    return "\n".join(f"{kind:26}{sum(right):4} of {len(right)}" for kind, right in sorted(kinds.items()))


def main() -> None:
    """Run the comparison and print the tables."""
    parser = argparse.ArgumentParser(description="Compare our grader with two peers.")
    parser.add_argument("--skip-hostile", action="store_true", help="labelled pairs only")
    arguments = parser.parse_args()
    graders = {name: KillableGrader(name, LIMIT) for name in GRADERS}
    results = run_pairs(graders)
    figures = {name: pair_figures(result) for name, result in results.items()}
    if not arguments.skip_hostile:
        for name, more in run_hostile(graders).items():
            figures[name] |= more
    for grader in graders.values():
        grader.close()
    versions = ", ".join(f"{package} {version(package)}" for package in ("sympy", "mpmath", "math-verify"))
    print(
        f"{processor_name()}, {platform.system()}, Python {platform.python_version()}, {versions}; "
        f"a hang is more than {LIMIT:g} s"
    )
    print(f"{len(results['ours'])} labelled pairs, {len(load_jsonl('grader_hostile.jsonl'))} hostile inputs\n")
    print(f"{'':26}" + "".join(f"{name:>16}" for name in figures))
    for row in ROWS:
        if row in figures["ours"]:
            print(f"{row:26}" + "".join(f"{figure[row]:>16}" for figure in figures.values()))
    print(f"\nRight by kind, ours\n{kinds_table(results['ours'])}")


if __name__ == "__main__":
    main()
