"""Appendix I: what it names is there, every section of ours has its place, its last table follows from the others."""

from __future__ import annotations

import re

import pytest

from course import ROOT
from tools.book_sections import (
    BOOK,
    BOX,
    DIFFERS,
    OURS,
    PAGE,
    counterparts,
    forward,
    misplaced,
    tables,
    unknown,
    unnamed_boxes,
    with_table,
)
from tools.cells import make_notebook, write_notebook

TEXT = PAGE.read_text(encoding="utf-8")
# The last numbered section of each chapter and appendix of the book that has numbered sections.
LAST = {"2": 9, "3": 9, "4": 6, "5": 9, "6": 13, "7": 8, "8": 10, "C": 9, "D": 5, "E": 8, "F": 5}
CHAPTERS = [f"ch{number:02d}" for number in range(1, 9)]


@pytest.fixture
def small_course(tmp_path):
    """Two sections, the second with a box, and an exercise."""
    cells = [("md", "## 2.1 One"), ("md", f"## 2.2 Two\n\n> **{BOX}.** It is so.")]
    exercise = [("md", "## Exercise 2.1: Try"), ("code", 'check("2.1", attempt)')]
    (tmp_path / "ch02").mkdir()
    for name, content in (("main", cells), ("exercises", exercise)):
        write_notebook(make_notebook(content), tmp_path / f"ch02/ch02_{name}.ipynb")
    return tmp_path


def page(ours: str, differs: str = "the same") -> str:
    """A page with one row."""
    return f"| {BOOK} | {OURS} | {DIFFERS} |\n|---|---|---|\n| 2.1 | {ours} | {differs} |\n"


def test_every_section_exercise_and_box_named_is_there():
    assert unknown(TEXT) == []
    assert len(counterparts(TEXT)) > 100


def test_every_section_and_exercise_of_the_course_has_its_place():
    assert misplaced(TEXT) == [], "give it a row in appendix/I_book_sections.md, or a place in its last list"


def test_every_box_for_readers_of_the_book_is_named(small_course):
    assert unnamed_boxes(TEXT) == [], 'write "(box in N.M)" into the row of the book\'s section'
    assert unnamed_boxes(page("2.2"), small_course) == ["2.2"]
    assert unnamed_boxes(page("2.2", "reasons: box in 2.2"), small_course) == []


def test_the_table_that_leads_back_is_up_to_date():
    assert with_table(TEXT) == TEXT, "run python -m tools.book_sections"


def test_the_book_is_gone_through_without_a_gap():
    numbers = [match for row in forward(TEXT) if (match := re.match(r"(\w)\.(\d+)", row[BOOK]))]
    for part, last in LAST.items():
        found = [int(match[2]) for match in numbers if match[1] == part]
        assert found == sorted(found), part
        assert set(found) == set(range(1, last + 1)), part
    figures = [row[BOOK] for row in forward(TEXT) if row[BOOK].startswith("Figure")]
    assert figures == [f"Figure 1.{number}" for number in range(1, 11)]


def test_what_is_missing_or_other_is_explained():
    """A dash without a reason would leave the reader searching."""
    for row in forward(TEXT):
        assert row[DIFFERS] or "ummary" in row[BOOK] + row["What it does"], row
        assert row[OURS] != "–" or len(row[DIFFERS]) > 30, row
        assert not row[DIFFERS].startswith("**Other.**") or len(row[DIFFERS]) > 60, row
    assert sum(row[DIFFERS].startswith("**Other.**") for row in forward(TEXT)) >= 8


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_links_to_its_part(chapter):
    number = int(chapter.removeprefix("ch"))
    text = (ROOT / chapter / "README.md").read_text(encoding="utf-8")
    assert f"(../appendix/I_book_sections.md#chapter-{number})" in text
    assert f"\n## Chapter {number}\n" in TEXT


@pytest.mark.parametrize(
    ("ours", "differs", "wrong"),
    [
        ("2.1, exercise 2.1, 2.2", "as in sections 2.1 and 2.2, and exercise 2.1 (box in 2.2)", []),
        ("[README](README.md)", "the same", []),
        ("–", "not treated", []),
        ("2.1, 2.3", "the same", ["there is no 2.3"]),
        ("E.9", "the same", ["there is no E.9"]),
        ("exercise 2.2", "the same", ["there is no exercise 2.2"]),
        ("2.1 and 2.2", "the same", ["not an entry: 2.1 and 2.2"]),
        ("2.1", "see section 2.7", ["there is no 2.7"]),
        ("2.1", "see exercise 2.5", ["there is no exercise 2.5"]),
        ("2.1", "reasons: box in 2.1", ["there is no box in 2.1"]),
    ],
)
def test_a_number_that_is_not_there_would_be_found(small_course, ours, differs, wrong):
    assert unknown(page(ours, differs), small_course) == wrong


def test_a_section_without_a_place_would_be_found(small_course):
    assert misplaced(page("2.1, exercise 2.1"), small_course) == ["2.2 has no place: Two"]
    alone = "\n| Ours | What it is |\n|---|---|\n| 2.2, exercise 2.1 | more |\n"
    assert misplaced(page("2.1") + alone, small_course) == []
    assert misplaced(page("2.1, 2.2") + alone, small_course) == ["2.2 has two places"]


def test_the_table_that_leads_back_follows_from_the_rows(small_course):
    """It stands between its two marks, in the order of our sections, and is written the same again."""
    marks = "\n".join(re.findall(r"<!-- .+ -->", TEXT))
    text = with_table(f"{page('exercise 2.1, 2.2')}\n{marks}\n", small_course)
    back = [list(row.values()) for row in tables(text) if "Title" in row]
    assert back == [["2.2", "Two", "2.1"], ["exercise 2.1", "Try", "2.1"]]
    assert with_table(text, small_course) == text
