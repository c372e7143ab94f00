"""Which exercises are solved, as a table: `python3 course.py progress`.

Only the standard library is used, because this runs before anything is installed. The checks write the file
(`shared/checks/_progress.py`); delete it, or a line of it, to begin anew.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from course import ROOT

REGISTERED = re.compile(r'^@register\(\s*"(([0-9]+|[A-Z])\.[0-9]+)"', re.MULTILINE)


def exercises(root: Path) -> dict[str, list[str]]:
    """The numbers of all exercises that have a check, by chapter or appendix."""
    found: dict[str, list[str]] = {}
    paths = [*sorted(root.glob("shared/checks/ch[0-9][0-9].py")), *sorted(root.glob("shared/checks/appendix_?.py"))]
    for path in paths:
        for number, part in REGISTERED.findall(path.read_text(encoding="utf-8")):
            found.setdefault(part, []).append(number)
    return found


def progress_file(root: Path) -> Path:
    """Where the checks note what is solved."""
    return Path(os.environ.get("COURSE_PROGRESS") or root / "results" / "progress.json").expanduser()


def solved(path: Path) -> set[str]:
    """The numbers in the file; none if it is not there or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return set(json.loads(path.read_text(encoding="utf-8"))["solved"].keys())
    return set()


def table(numbers: dict[str, list[str]], done: set[str]) -> str:
    """A line for each chapter, and one for all."""
    rows = [("chapter", "solved", "open")]
    for part, each in numbers.items():
        rows.append((part, _share(each, done), " ".join(number for number in each if number not in done)))
    rows.append(("all", _share([number for each in numbers.values() for number in each], done), ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _share(numbers: list[str], done: set[str]) -> str:
    return f"{sum(number in done for number in numbers)} of {len(numbers)}"


def main() -> int:
    """Print the table."""
    path = progress_file(ROOT)
    print(table(exercises(ROOT), solved(path)))
    print(f"\nNoted in {path}" if path.is_file() else "\nNothing is solved yet: run the check below an exercise.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
