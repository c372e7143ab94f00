"""Draw the log of a pre-training run: `python -m shared.tiny.plot_log`."""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from shared.plots import COLOURS, GREY, new_figure
from shared.support.jsonl import read_jsonl

HERE = Path(__file__).parent
LOG = HERE / "pretrain_log.jsonl"


def plot_log(path: Path = LOG) -> Figure:
    """Greedy accuracy on held-out problems while the model trained: by level after the chain-of-thought prompt
    (coloured), and over all levels after the direct prompt (grey, dashed). Each later phase begins at a rule.
    """
    rows = read_jsonl(path)
    measured = [row for row in rows if "accuracy" in row]
    tokens = [row["tokens"] / 1e6 for row in measured]
    _, axes = new_figure("Pre-training the tiny model", "tokens seen, millions", "held-out problems solved, %")
    for level, colour, marker in zip("12345", COLOURS, "osD^v", strict=False):
        solved = [100 * row["accuracy"]["cot"][level] for row in measured]
        axes.plot(tokens, solved, marker=marker, markersize=4, color=colour, label=f"level {level}")
    direct = [100 * row["accuracy"]["direct"]["all"] for row in measured]
    axes.plot(tokens, direct, "--", color=GREY, label="direct, all")
    ends = {row["phase"]: row["tokens"] / 1e6 for row in rows if "phase" in row}
    for end in list(ends.values())[:-1]:
        axes.axvline(end, color=GREY, linewidth=1)
    axes.set_ylim(0, 100)
    axes.figure.legend(loc="outside lower left", ncols=6, frameon=False, fontsize=9)
    return axes.figure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", nargs="?", type=Path, default=LOG, help="log.jsonl of a run")
    arguments = parser.parse_args()
    picture = arguments.log.with_suffix(".png")
    plot_log(arguments.log).savefig(picture)
    print(f"Wrote {picture.name}.")


if __name__ == "__main__":
    main()
