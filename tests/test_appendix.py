"""The reference list, the index of exercises, and the chapters' titles agree with the notebooks."""

from __future__ import annotations

import re

import pytest

from ch01.figures import PARTS
from course import ROOT, course_texts
from tools import readme, solutions_index
from tools.cells import make_notebook, write_notebook

REFERENCES = ROOT / "appendix" / "A_references.md"
CITED = re.compile(r"arxiv\W{0,4}(\d{4}\.\d{4,5})", re.IGNORECASE)
ENTRY = re.compile(r"^- (?:★ )?(.+?), \*(.+)\*, (\d{4}), \[arXiv:([\d.]+)\]\(https://arxiv\.org/abs/([\d.]+)\)\.$")


def entries(text: str) -> list[tuple[str, str, str, str]]:
    """Author, title, year and identifier of each entry. Raises AssertionError for a line that is not one."""
    found = []
    for line in text.splitlines():
        if "arxiv.org" in line:
            match = ENTRY.match(line)
            assert match, line
            assert match[4] == match[5], line
            found.append(match.groups()[:4])
    return found


def cited() -> dict[str, str]:
    """Every arXiv identifier in a notebook, in shared/ and in the other texts, with one file that cites it."""
    return {
        identifier: path.relative_to(ROOT).as_posix()
        for path in course_texts(ROOT)
        if path != REFERENCES and "tests" not in path.parts
        for identifier in CITED.findall(path.read_text(encoding="utf-8"))
    }


def well_formed(identifier: str) -> bool:
    """YYMM.NNNNN with a month that there is; five digits since 2015."""
    match = re.fullmatch(r"(\d\d)(\d\d)\.(\d{4,5})", identifier)
    return bool(match) and 1 <= int(match[2]) <= 12 and len(match[3]) == (5 if int(match[1]) >= 15 else 4)


def test_every_cited_paper_is_in_the_references():
    listed = {identifier for _, _, _, identifier in entries(REFERENCES.read_text(encoding="utf-8"))}
    assert {name: path for name, path in cited().items() if name not in listed} == {}
    assert "2402.03300" in cited()


def test_references_are_listed_once_and_well_formed():
    """An identifier starts with year and month: a paper of one year has no number of another."""
    found = entries(REFERENCES.read_text(encoding="utf-8"))
    identifiers = [identifier for _, _, _, identifier in found]
    assert [name for name in identifiers if not well_formed(name)] == []
    assert sorted(identifiers) == sorted(set(identifiers))
    titles = [title for _, title, _, _ in found]
    assert sorted(titles) == sorted(set(titles))
    assert [name for _, _, year, name in found if year[2:] != name[:2]] == []
    assert not well_formed("2413.00001")
    assert not well_formed("2401.0001")


def test_index_of_exercises_is_up_to_date():
    text = (ROOT / solutions_index.INDEX).read_text(encoding="utf-8")
    assert text == solutions_index.index(), "run python -m tools.solutions_index"


def test_index_takes_up_a_new_exercise_and_needs_its_check(tmp_path):
    (tmp_path / "ch09").mkdir()
    write_notebook(make_notebook([("md", "# Chapter 9: Proofs")]), tmp_path / "ch09/ch09_main.ipynb")
    heading, check = ("md", "## Exercise 9.1: Try"), ("code", 'check("9.1", attempt)')
    path = tmp_path / "ch09/ch09_exercises.ipynb"
    write_notebook(make_notebook([heading, check]), path)
    text = solutions_index.index(tmp_path)
    assert "1 of them" in text
    assert "## Chapter 9: Proofs" in text
    links = "[text](../ch09/ch09_exercises.ipynb) | [solution](../ch09/ch09_solutions.ipynb)"
    assert f"| 9.1 | Try | `attempt` | {links} |" in text
    write_notebook(make_notebook([heading]), path)
    with pytest.raises(ValueError, match=r"exercise 9\.1 has no line check"):
        solutions_index.index(tmp_path)
    write_notebook(make_notebook([("md", "### Exercise 9.1 – Try"), check]), path)
    with pytest.raises(ValueError, match=r"exercise 9\.1 has no heading ## Exercise 9\.1: Title"):
        solutions_index.index(tmp_path)


@pytest.mark.parametrize("folder", sorted(ROOT.glob("ch0*")), ids=lambda path: path.name)
def test_a_chapter_has_one_title(folder):
    """Its main notebook's; the folder's README has the same first line."""
    main = f"{folder.name}/{folder.name}_main.ipynb"
    expected = f"# Chapter {int(folder.name[2:])}: {readme.heading(ROOT, main)}"
    assert (folder / "README.md").read_text(encoding="utf-8").splitlines()[0] == expected


def test_the_road_map_s_short_titles_are_those_of_the_chapters():
    """Figures have room for two or three words: each begins like a word of the chapter's row in the README."""
    chapters = [chapter for part in PARTS.values() for chapter in part]
    assert [f"ch{chapter.number:02d}" for chapter in chapters] == list(readme.CHAPTERS)
    for chapter in chapters:
        row = readme.chapter_row(ROOT, f"ch{chapter.number:02d}", readme.CHAPTERS[f"ch{chapter.number:02d}"])
        strange = [word for word in re.findall(r"\w{3,}", chapter.title) if not re.search(rf"(?i)\b{word[:5]}", row)]
        assert strange == [], chapter
