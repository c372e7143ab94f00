"""Upgrade everything in the course's environment to the newest version that is allowed: `python -m tools.newest`.

Nightly the tests run with that. Allowed are the ranges of pyproject.toml; what only the requirement files name, for the
tests and the web edition, has no range. `--list` prints the requirements and installs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import course
from tools.doctor import requirements

TOGETHER = ("requirements.txt", "requirements-chat.txt", "requirements-site.txt", "requirements-dev.txt")
ALONE = "requirements-nodeps.txt"  # installed without what they would bring along


def pinned(path: Path) -> list[str]:
    """The packages that a requirements file pins, each once."""
    names = re.findall(r"^([\w.-]+)==", course.read(path), re.MULTILINE)
    return list(dict.fromkeys(names))


def newest_of(root: Path) -> tuple[list[str], list[str]]:
    """Requirements without pins: those that are resolved together, and those that bring no dependencies along."""
    ranges = {name: allowed for group in requirements(root).values() for name, allowed in group.items()}
    others = [name for file in TOGETHER for name in pinned(root / file) if name not in ranges]
    return [*(name + allowed for name, allowed in ranges.items()), *others], pinned(root / ALONE)


def upgrade(root: Path) -> None:
    """Upgrade the environment, torch first if COURSE_TORCH_INDEX says where it comes from, and all others after it."""
    python = course.set_up(root, "requirements-dev.txt")
    together, alone = newest_of(root)
    new = ["--upgrade", "--upgrade-strategy", "eager"]
    index = os.environ.get("COURSE_TORCH_INDEX")
    if index:
        torch = next(each for each in together if each.startswith("torch>"))
        course.pip_install(python, "--index-url", index, *new, torch)
    course.pip_install(python, *new, *together)
    course.pip_install(python, "--upgrade", "--no-deps", *alone)


def main(arguments: list[str] | None = None) -> int:
    """Upgrade, or list what would be."""
    parser = argparse.ArgumentParser(prog="python -m tools.newest", description=__doc__.split(":")[0] + ".")
    parser.add_argument("--list", action="store_true", help="print the requirements, and install nothing")
    if parser.parse_args(arguments).list:
        together, alone = newest_of(course.ROOT)
        print("\n".join([*together, *alone]))
        return 0
    try:
        upgrade(course.ROOT)
    except course.CourseError as error:
        print(f"tools.newest: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
