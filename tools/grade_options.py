"""The command line of `python3 course.py grade`, with the standard library alone: its help needs no packages."""

from __future__ import annotations

import argparse

from course import ROOT, from_caller
from tools.sandbox import Limits


def parser() -> argparse.ArgumentParser:
    """The command line."""
    limits = Limits()
    main_parser = argparse.ArgumentParser(prog="course.py grade", description="Grade a folder of submitted notebooks.")
    add = main_parser.add_argument
    add("folder", type=from_caller, help="holds the notebooks, in sub-folders if you like; or a single notebook")
    add("--chapter", help="of all of them, such as ch06 or K; otherwise told by the exercises that a notebook checks")
    add("--out", type=from_caller, default=ROOT / "results" / "grades", help="for the results (default results/grades)")
    add("--again", action="store_true", help="grade those too that have a row already; rows are added, none replaced")
    add("--cell-seconds", type=float, default=limits.cell_seconds, help="for each cell (default %(default)g)")
    add("--notebook-seconds", type=float, default=limits.notebook_seconds, help="for each (default %(default)g)")
    add("--memory-gb", type=float, default=limits.memory / 2**30, help="for each process (default %(default)g)")
    return main_parser


if __name__ == "__main__":  # as course.py calls it for --help
    parser().parse_args()
