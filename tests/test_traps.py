"""Appendix J, the list of traps: each has a test that cites it, and nothing cites a trap that is not there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from course import ROOT
from tools.pointers import wrong_pointers

PAGE = (ROOT / "appendix" / "J_traps.md").read_text(encoding="utf-8")
PARAGRAPHS = dict(re.findall(r"^\*\*([GKSD]\d+)\. (.+?)(?=^\*\*|^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))
CITED = re.compile(r"\b[Tt]raps? ((?:[GKSD]\d+(?:, and |, | and )?)+)")


@cache
def docstrings(path):
    """The docstrings of a module by the name of what they belong to, each as one line."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    owners = [node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    return [(getattr(node, "name", ""), " ".join((ast.get_docstring(node) or "").split())) for node in owners]


def cited(text: str) -> list[str]:
    """The numbers of the traps that a text cites."""
    return [number for found in CITED.findall(text) for number in re.findall(r"[GKSD]\d+", found)]


@pytest.mark.parametrize("number", PARAGRAPHS)
def test_a_trap_names_tests_that_are_there_and_cite_it(number):
    links = re.findall(r"\[`(test_\w+)`\]\(\.\./tests/(test_\w+\.py)\)", PARAGRAPHS[number])
    assert links
    for name, file in links:
        assert number in cited(dict(docstrings(ROOT / "tests" / file))[name]), (name, file)


@pytest.mark.parametrize("folder", ["shared", "appendix", "benchmarks", "tests", "tools"])
def test_a_cited_trap_is_on_the_list(folder):
    found = {number for path in (ROOT / folder).rglob("*.py") for _, text in docstrings(path) for number in cited(text)}
    assert found <= set(PARAGRAPHS)
    assert found or folder != "tests"


def test_the_list_is_whole_and_in_order():
    numbers = [(number[0], int(number[1:])) for number in PARAGRAPHS]
    for letter in "GKSD":
        counted = [count for group, count in numbers if group == letter]
        assert counted == list(range(1, len(counted) + 1))
    assert wrong_pointers(PAGE) == []
    assert cited("Traps G1, G2 and K3; trap S4.") == ["G1", "G2", "K3", "S4"]
