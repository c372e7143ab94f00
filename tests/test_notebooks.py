"""Every notebook's structure, its agreement with `shared/`, and the outcome of its exercise checks.

That the outputs are what executing gives is tested by nbval, which pytest runs on the notebooks themselves, a
cell a test. The tests here that go over all notebooks hold for whatever is there; tests/test_tools.py shows
that each of the rules finds what breaks it.
"""

from __future__ import annotations

import re

import pytest

from shared.checks import registered
from tools.cells import IGNORE_TAG, code_cells, read_notebook, tags
from tools.notebooks import all_notebooks, sync_problems
from tools.structure import notebook_problems, output_text

NOTEBOOKS = all_notebooks()
CHECK_CALL = re.compile(r'^check\("([^"]+)"', re.MULTILINE)


def ids(paths):
    return [path.stem for path in paths]


def ending(suffix):
    return [path for path in NOTEBOOKS if path.stem.endswith(suffix)]


def part_of(path) -> str:
    """The chapter or appendix of an exercise notebook, as its exercises' numbers begin: "2" or "K"."""
    return path.stem.partition("_")[0].removeprefix("ch").lstrip("0")


def check_outcomes(path) -> dict[str, str]:
    """First line that each check printed, by exercise number; a check in a cell that is not compared is left out."""
    found = {}
    for cell in code_cells(read_notebook(path)):
        for number in CHECK_CALL.findall(cell.source):
            lines = [line for line in output_text(cell).splitlines() if re.match(rf"[✓✗] {re.escape(number)}\b", line)]
            if lines and IGNORE_TAG not in tags(cell):
                found[number] = lines[-1]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_structure(path):
    assert notebook_problems(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=ids(NOTEBOOKS))
def test_definitions_are_those_of_shared(path):
    assert sync_problems(path) == []


@pytest.mark.parametrize("path", ending("_solutions"), ids=ids(ending("_solutions")))
def test_every_solution_passes_its_check(path):
    outcomes = check_outcomes(path)
    assert {number: line for number, line in outcomes.items() if not line.startswith("✓")} == {}
    assert sorted(outcomes) == sorted(registered(part_of(path)))


@pytest.mark.parametrize("path", ending("_exercises"), ids=ids(ending("_exercises")))
def test_every_starter_fails_its_check_with_a_friendly_message(path):
    outcomes = check_outcomes(path)
    solved = {number: line for number, line in outcomes.items() if "not solved yet" not in line}
    assert solved == {}, "own solutions belong into a copy in work/ (README); git restore gives the starter back"
    assert sorted(outcomes) == sorted(registered(part_of(path)))


def test_every_chapter_with_exercises_has_solutions():
    exercises = [path.with_name(path.name.replace("_exercises", "_solutions")) for path in ending("_exercises")]
    assert exercises == ending("_solutions")
