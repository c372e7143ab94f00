"""What authors do with the results ledger, and its figure.

python -m tools.ledger --as-reference   makes the latest rows of the ledger the reference
python -m tools.ledger --figures        draws the two figures of chapter 8's page from the reference
"""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path

from ch08.figures import plot_accuracy_against_tokens, plot_every_method
from course import ROOT
from shared.evaluation import ledger
from shared.support.jsonl import write_jsonl

FIGURE = ROOT / "ch08" / "ledger.png"


def make_reference() -> int:
    """Put the ledger's latest rows into the reference, in place of those of the same key; returns how many it holds."""
    own = {ledger.key_of(row): row for row in ledger.read_ledger()}
    merged = {ledger.key_of(row): row for row in ledger.read_ledger(ledger.REFERENCE)} | own
    rows = sorted(merged.values(), key=ledger.place_of)
    write_jsonl(ledger.REFERENCE, rows)
    return len(rows)


def refresh_figure(path: Path | None = None) -> Path:
    """Draw the ledger anew and return the figure's path, by default `ledger.png` beside the ledger.

    A second figure, accuracy against tokens, stands beside it as NAME-tokens.png where the tiny model was measured.
    """
    path = path or ledger.results_file().with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_every_method().figure.savefig(path)
    with suppress(ValueError):  # the tiny model was not measured
        plot_accuracy_against_tokens().figure.savefig(path.with_stem(f"{path.stem}-tokens"))
    return path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tools.ledger", description="The results ledger, for authors.")
    parser.add_argument("--as-reference", action="store_true", help="make the latest rows the reference")
    parser.add_argument("--figures", action="store_true", help="draw chapter 8's figures from the reference")
    arguments = parser.parse_args()
    if arguments.as_reference:
        print(f"Wrote {make_reference()} rows to {ledger.REFERENCE.name}.")
    if arguments.figures:
        os.environ["COURSE_LEDGER"] = os.devnull  # no reader's rows
        print(f"Drew {refresh_figure(FIGURE).name} and its twin.")


if __name__ == "__main__":
    main()
