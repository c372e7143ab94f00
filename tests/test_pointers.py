"""Docstrings point to the sections that teach them: those sections exist, in that chapter's or appendix's notebook."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from course import ROOT
from tools.cells import read_notebook

MODULES = [
    path for folder in ("shared", "tools", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))
]
PLACE = r"(?:ch(?P<chapter>\d\d)|appendix (?P<letter>[A-H]))"
NUMBER = r"(?:\d+|[A-H])\.\d+"
POINTER = re.compile(rf"(?:{PLACE}, )?sections? (?P<numbers>{NUMBER}(?:(?:, | to | and |, and ){NUMBER})*)")


def docstrings(source: str) -> list[str]:
    """All docstrings of a module, each as one line."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [" ".join(text.split()) for node in nodes if (text := ast.get_docstring(node))]


def pointers(text: str) -> list[tuple[str, str]]:
    """Chapter (a number), appendix (a letter) or nothing, and section of every "ch06, sections 6.3 and 6.10"."""
    found = []
    for match in POINTER.finditer(text):
        place = str(int(match["chapter"])) if match["chapter"] else match["letter"] or ""
        found += [(place, number) for number in re.findall(NUMBER, match["numbers"])]
    return found


@cache
def sections(part: str) -> frozenset[str] | None:
    """The numbered sections of chapter 6 or appendix F; None while it is not written."""
    pattern = (
        f"ch{int(part):02d}/ch{int(part):02d}_main.ipynb" if part.isdigit() else f"appendix/{part}_*.ipynb"
    )
    notebooks = list(ROOT.glob(pattern))
    sources = [cell.source for path in notebooks for cell in read_notebook(path).cells]
    numbers = re.findall(rf"^#+ ({NUMBER}) ", "\n".join(sources), re.MULTILINE)
    return frozenset(numbers) if notebooks else None


def wrong_pointers(text: str) -> list[str]:
    """Sections that are not in the notebook, or of another chapter than the one named."""
    wrong = []
    for place, number in pointers(text):
        part = number.partition(".")[0]
        known = sections(part)
        if place not in ("", part) or (known is not None and number not in known):
            wrong.append(number)
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sections_named_in_docstrings_exist(path):
    texts = docstrings(path.read_text(encoding="utf-8"))
    assert [number for text in texts for number in wrong_pointers(text)] == []


def test_sections_named_in_the_reference_list_exist():
    text = (ROOT / "appendix" / "A_references.md").read_text(encoding="utf-8")
    assert wrong_pointers(text) == []
    assert len(pointers(text)) >= 20
    linked = re.findall(rf"\[section ({NUMBER})\]\(\.\./ch(\d\d)/", text)
    assert [number for number, chapter in linked if int(number.partition(".")[0]) != int(chapter)] == []


def test_a_wrong_pointer_would_be_found():
    assert wrong_pointers("Taught in ch06, section 6.4, and ch07, sections 7.3 to 7.12.") == []
    assert wrong_pointers("Taught in ch06, sections 6.4 and 6.99.") == ["6.99"]
    assert wrong_pointers("Taught in ch06, section 7.3.") == ["7.3"]
    assert wrong_pointers("as in section 3.77") == ["3.77"]
    assert pointers("Taught in appendix F, section F.9.") == [("F", "F.9")]


@pytest.mark.parametrize("folder", ["grpo", "grader"])
def test_taught_code_names_its_section(folder):
    """In the packages that a chapter builds; a module of many sections names its chapters."""
    modules = [path for path in MODULES if path.parent.name == folder and path.name != "__init__.py"]
    texts = [text for path in modules for text in docstrings(path.read_text(encoding="utf-8"))]
    taught = [text for text in texts if "Taught in" in text]
    assert len(taught) >= 8
    assert [text for text in taught if not pointers(text) and "Taught in ch06 and ch07" not in text] == []
