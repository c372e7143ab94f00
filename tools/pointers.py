"""Docstrings point to the sections that teach them: `python -m tools.pointers` lists those that are wrong.

A section that a docstring names must exist, in that chapter's or appendix's notebook. After "Taught in", each section
or range of sections must hold the name that the docstring belongs to; for a module or package, one of its public names.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from course import ROOT
from tools import sync
from tools.cells import read_notebook

FOLDERS = ("shared", "appendix", "tools", "benchmarks")
LETTERS = "A-HJ-M"
PLACE = rf"(?:ch(?P<chapter>\d\d)|appendix (?P<letter>[{LETTERS}]))"
NUMBER = rf"(?:\d+|[{LETTERS}])\.\d+"
NUMBERS = rf"(?P<numbers>{NUMBER}(?:(?:, | to | and |, and ){NUMBER})*)"
POINTER = re.compile(rf"(?:{PLACE}, )?sections? {NUMBERS}")
TAUGHT = re.compile(r"Taught in (.+?)(?:\.(?= )|\.?$)")
TARGET = re.compile(rf"{PLACE}(?:, (?:sections? )?{NUMBERS})?")


def modules(root: Path = ROOT) -> list[Path]:
    """The files whose docstrings may point to sections."""
    return [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]


def docstrings(path: Path) -> Iterator[tuple[list[str], str]]:
    """Each docstring of a module as one line, with the names it belongs to: all public ones for the module's own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | sync.Definition) and (text := ast.get_docstring(node)):
            names = public_names(path) if isinstance(node, ast.Module) else [node.name]
            yield names, " ".join(text.split())


def public_names(path: Path) -> list[str]:
    """What a module defines without a leading underscore; for a package, what its modules do."""
    files = sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]
    sources = [file.read_text(encoding="utf-8") for file in files]
    nodes = [node for text in sources for node in [*sync.definitions(text), *sync.constants(text)]]
    return [name for node in nodes if not (name := sync.name_of(node)).startswith("_")]


def pointers(text: str) -> list[tuple[str, str]]:
    """Chapter (a number), appendix (a letter) or nothing, and section of every "ch06, sections 6.3 and 6.10"."""
    found = []
    for match in POINTER.finditer(text):
        place = part_of(match)
        found += [(place, number) for number in re.findall(NUMBER, match["numbers"])]
    return found


def part_of(match: re.Match) -> str:
    """The chapter's number or the appendix's letter; nothing if there is none."""
    return str(int(match["chapter"])) if match["chapter"] else match["letter"] or ""


@cache
def sections(part: str, root: Path = ROOT) -> dict[str, str] | None:
    """The numbered sections of chapter 6 or appendix F, texts and code; the whole of it under ""; None if absent."""
    chapter = f"ch{int(part):02d}/ch{int(part):02d}_main.ipynb" if part.isdigit() else ""
    others = (f"{part}_exercises", f"{part}_solutions")
    notebooks = [path for path in root.glob(chapter or f"appendix/{part}_*.ipynb") if path.stem not in others]
    cells = [cell.source for path in notebooks for cell in read_notebook(path).cells]
    found, current = {"": "\n".join(cells)}, None
    for line in found[""].splitlines():
        if heading := re.match(rf"#+ ({NUMBER}) ", line):
            current = heading[1]
        if current:
            found[current] = f"{found.get(current, '')}{line}\n"
    return found if notebooks else None


def wrong_pointers(text: str, root: Path = ROOT) -> list[str]:
    """Sections that are not in the notebook, or of another chapter than the one named."""
    wrong = []
    for place, number in pointers(text):
        part = number.partition(".")[0]
        known = sections(part, root)
        if place not in ("", part) or (known is not None and number not in known):
            wrong.append(number)
    return wrong


def targets(text: str) -> Iterator[tuple[str, list[str]]]:
    """What "Taught in" names: the part, and the sections one by one or as a range; [""] for the whole of it."""
    for sentence in TAUGHT.findall(text):
        for match in TARGET.finditer(sentence):
            listed = re.findall(rf"{NUMBER}(?: to {NUMBER})?", match["numbers"] or "")
            for each in listed or [""]:
                yield part_of(match), expanded(each)


def expanded(numbers: str) -> list[str]:
    """All sections of "6.8 to 6.12"; a single one as it is."""
    first, _, last = numbers.partition(" to ")
    if not last:
        return [first]
    part, start, end = first.split(".")[0], int(first.split(".")[1]), int(last.split(".")[1])
    return [f"{part}.{number}" for number in range(start, end + 1)]


def untaught(names: list[str], text: str, root: Path = ROOT) -> list[str]:
    """The places that a docstring says it is taught in and that hold none of the names."""
    word = re.compile(rf"\b(?:{'|'.join(map(re.escape, names))})\b") if names else re.compile(r"(?!)")
    wrong = []
    for part, numbers in targets(text):
        known = sections(part, root)
        if known is not None and not any(word.search(known.get(number, "")) for number in numbers):
            wrong.append(
                " to ".join(dict.fromkeys([numbers[0], numbers[-1]]))
                or (f"ch{int(part):02d}" if part.isdigit() else f"appendix {part}")
            )
    return wrong


def problems(path: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with the pointers of a module, one sentence each."""
    place, found = path.relative_to(root).as_posix(), []
    for names, text in docstrings(path):
        who = f"{place}: {names[0]}" if len(names) == 1 else place
        found += [f"{who}: there is no section {number}" for number in wrong_pointers(text, root)]
        found += [f"{who}: taught in {each}, which does not name it" for each in untaught(names, text, root)]
    return found


def main() -> int:
    """Print what is wrong; exit status 1 if something is."""
    found = [problem for path in modules() for problem in problems(path)]
    print("\n".join(found) or "Every pointer names a section that holds the name")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
