"""Generate appendix/B_solutions_index.md: `python -m tools.solutions_index` writes it, `--check` only compares."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course import ROOT
from tools.cells import read_notebook
from tools.readme import APPENDICES, heading, write_or_check

INDEX = Path("appendix") / "B_solutions_index.md"
INTRODUCTION = """\
# Appendix B: Index of the exercises and solutions

Every exercise of the course, {count} of them, one a line, with what you write in it. A link opens the notebook that
holds the text with its starter, or the worked solution; look for the heading with the exercise's number. Each has a
check that says at once whether an answer is right. Chapter 1 has no exercises but a quiz, at the end of its
[notebook](../ch01/ch01_main.ipynb).

<!-- written by python -m tools.solutions_index from the headings of the exercise notebooks -->
"""
TITLE = re.compile(r"^## Exercise (\S+): (.+)$", re.MULTILINE)
CHECK = re.compile(r'^check\("([^"]+)", (\w+)', re.MULTILINE)


@dataclass(frozen=True)
class Exercise:
    """An exercise as its notebook states it: number, title, and the name that its check is given."""

    number: str
    title: str
    solution: str


def exercises(path: Path) -> list[Exercise]:
    """The exercises of a notebook in order. Raises ValueError for one that lacks its check or its heading."""
    sources = "\n".join(cell.source for cell in read_notebook(path).cells)
    checked = dict(CHECK.findall(sources))
    titles = TITLE.findall(sources)
    missing = [number for number, _ in titles if number not in checked]
    if missing:
        raise ValueError(f'{path.name}: exercise {missing[0]} has no line check("{missing[0]}", ...).')
    untitled = sorted(set(checked) - {number for number, _ in titles})
    if untitled:
        raise ValueError(f"{path.name}: exercise {untitled[0]} has no heading ## Exercise {untitled[0]}: Title.")
    return [Exercise(number, title, checked[number]) for number, title in titles]


def notebooks(root: Path = ROOT) -> dict[str, Path]:
    """The exercise notebooks, by chapter or appendix: "ch02", ..., "K"."""
    paths = [*sorted(root.glob("ch*/ch*_exercises.ipynb")), *sorted(root.glob("appendix/?_exercises.ipynb"))]
    return {path.stem.removesuffix("_exercises"): path for path in paths}


def lines_of(part: str, path: Path, root: Path) -> Iterator[str]:
    """The section of one exercise notebook in Markdown."""
    text = f"../{path.parent.name}/{path.name}"
    solutions = text.replace("_exercises", "_solutions")
    main = f"{part}/{part}_main.ipynb" if part.startswith("ch") else f"appendix/{APPENDICES[part]}"
    yield f"\n## {f'Chapter {int(part[2:])}' if part.startswith('ch') else f'Appendix {part}'}: {heading(root, main)}\n"
    yield "| | Exercise | What you write | Text | Solution |"
    yield "|---|---|---|---|---|"
    for exercise in exercises(path):
        yield (
            f"| {exercise.number} | {exercise.title} | `{exercise.solution}` "
            f"| [text]({text}) | [solution]({solutions}) |"
        )


def index(root: Path = ROOT) -> str:
    """The whole file."""
    found = notebooks(root)
    count = sum(len(exercises(path)) for path in found.values())
    sections = [line for part, path in found.items() for line in lines_of(part, path, root)]
    return INTRODUCTION.format(count=count) + "\n".join(sections) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_check(ROOT / INDEX, index(), "tools.solutions_index", __doc__))
