"""Which exercises a reader has solved, kept in `results/progress.json` beside the ledger.

The variable COURSE_PROGRESS names another file; with the name of the null device nothing is kept or shown, as while
notebooks are executed and tested. `python3 course.py progress` prints the table.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shared.evaluation.ledger import results_file
from shared.support.files import atomic_file

NOTEBOOK = "JPY_SESSION_NAME"  # JupyterLab sets it to the notebook's path


def progress_line(number: str, passed: bool, numbers: Sequence[str]) -> str:
    """Note that an exercise was solved, if so; return how many of its chapter's `numbers` are, as one line or nothing.

    A notebook of worked solutions says nothing about the reader. A file that cannot be read counts as empty, and one
    that cannot be written is said to be so; neither is an error.
    """
    path = results_file("progress.json", "COURSE_PROGRESS")
    if str(path) == os.devnull or os.environ.get(NOTEBOOK, "").endswith("_solutions.ipynb"):
        return ""
    solved, kept = read_progress(path), ""
    if passed and number not in solved:
        solved[number] = datetime.date.today().isoformat()
        try:
            with atomic_file(path) as temporary:
                temporary.write_text(json.dumps({"solved": solved}, indent=1) + "\n", encoding="utf-8", newline="\n")
        except OSError:
            kept = f" ({path} cannot be written, so this is not kept)"
    chapter = number.split(".")[0]
    part = "chapter" if chapter.isdecimal() else "appendix"
    return f"{part} {chapter}: {sum(each in solved for each in numbers)} of {len(numbers)} solved{kept}"


def read_progress(path: Path) -> dict[str, str]:
    """The days on which exercises were solved, by number; empty for a file that is not there or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        found = json.loads(path.read_text(encoding="utf-8"))["solved"]
        return {str(number): str(day) for number, day in found.items()}
    return {}
