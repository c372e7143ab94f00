"""Generate a table of appendix I: `python -m tools.book_sections` writes it, `--check` only compares.

The tables of appendix I lead from the sections of the book to ours and are written by hand. From them this module makes
the one that leads back, and it knows what they name that is not there, and what has no place in them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from course import ROOT
from tools.pointers import NUMBER, NUMBERS, sections
from tools.readme import write_or_check
from tools.solutions_index import exercises

PAGE = ROOT / "appendix" / "I_book_sections.md"
START = "<!-- the other way round: written by python -m tools.book_sections -->"
END = "<!-- end of the other way round -->"
BOOK, OURS, DIFFERS, TITLE = "The book", "Ours", "Differs", "Title"
ENTRY = re.compile(rf"(?:exercise )?{NUMBER}")
OTHER_ENTRY = re.compile(r"–|\[[^\]]+\]\([^)]+\)")  # nothing, or a link to what has no sections
NAMED = re.compile(rf"\b([Ss]ection|exercise|[Bb]ox)(?:s|es)?(?: in)? {NUMBERS}")
BOX = "If you come from the book"


def tables(text: str) -> Iterator[dict[str, str]]:
    """Each row of the tables in a Markdown text: its cells by the names of the columns."""
    columns = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            columns = None
        elif columns is None:
            columns = cells
        elif set(line) - set("|-"):
            yield dict(zip(columns, cells, strict=True))


def forward(text: str) -> list[dict[str, str]]:
    """The rows that lead from the book to ours."""
    return [row for row in tables(text) if DIFFERS in row]


def beside(text: str) -> list[str]:
    """The entries of the list of what has no counterpart in the book."""
    rows = [row for row in tables(text) if OURS in row and BOOK not in row]
    return [entry for row in rows for entry in row[OURS].split(", ")]


@cache
def titles(root: Path = ROOT) -> dict[str, str]:
    """Title of every numbered section and exercise of the course, as in "6.7" and "exercise 6.1", in their order."""
    found = {}
    for path in [*sorted(root.glob("ch??/ch??_main.ipynb")), *sorted(root.glob("appendix/?_*.ipynb"))]:
        part = str(int(path.name[2:4])) if path.name.startswith("ch") else path.name[0]
        for number, text in (sections(part, root) or {}).items():
            if number:
                found[number] = text.partition("\n")[0].lstrip("# ").removeprefix(f"{number} ")
        for notebook in path.parent.glob(f"{path.name.partition('_')[0]}_exercises.ipynb"):
            found |= {f"exercise {each.number}": each.title for each in exercises(notebook)}
    return found


def counterparts(text: str) -> dict[str, list[str]]:
    """For a section or exercise of ours, the places of the book whose rows name it."""
    found: dict[str, list[str]] = {}
    for row in forward(text):
        for entry in filter(ENTRY.fullmatch, row[OURS].split(", ")):
            found.setdefault(entry, []).append(row[BOOK])
    return found


def table(text: str, root: Path = ROOT) -> str:
    """The table that leads back, in the order of our chapters and appendices."""
    found = counterparts(text)
    rows = [f"| {OURS} | {TITLE} | {BOOK} |", "|---|---|---|"]
    own = [(entry, title) for entry, title in titles(root).items() if entry in found]
    rows += [f"| {entry} | {title} | {'; '.join(found[entry])} |" for entry, title in own]
    return "\n".join(rows)


def with_table(text: str, root: Path = ROOT) -> str:
    """The page with that table brought up to date."""
    before, _, rest = text.partition(START)
    return f"{before}{START}\n\n{table(text, root)}\n\n{END}{rest.partition(END)[2]}"


def prose(text: str) -> str:
    """The page on one line, without the columns that hold numbers only."""
    cells = [cell for row in tables(text) for column, cell in row.items() if column not in (BOOK, OURS, TITLE)]
    return " ".join([*(line for line in text.splitlines() if not line.startswith("|")), "", *cells])


def named_in_prose(text: str) -> Iterator[tuple[str, str]]:
    """Kind and entry of each "section 6.7", "sections 6.7 and 6.8", "exercise 6.1" and "box in 5.3"."""
    for match in NAMED.finditer(prose(text)):
        for number in re.findall(NUMBER, match["numbers"]):
            kind = match[1].lower()
            yield kind, f"exercise {number}" if kind == "exercise" else number


def unknown(text: str, root: Path = ROOT) -> list[str]:
    """What the page names and the course does not have, one sentence each."""
    known = titles(root)
    entries = [entry for row in forward(text) for entry in row[OURS].split(", ")] + beside(text)
    odd = [entry for entry in entries if not (ENTRY.fullmatch(entry) or OTHER_ENTRY.fullmatch(entry))]
    found = [f"not an entry: {entry}" for entry in odd]
    named = list(named_in_prose(text))
    numbered = [*filter(ENTRY.fullmatch, entries), *(entry for _, entry in named)]
    found += [f"there is no {entry}" for entry in dict.fromkeys(numbered) if entry not in known]
    boxes = [number for kind, number in named if kind == "box" and number in known]
    return found + [f"there is no box in {number}" for number in boxes if BOX not in text_of(number, root)]


def text_of(number: str, root: Path = ROOT) -> str:
    """The text of a section, its subsections included."""
    return (sections(number.partition(".")[0], root) or {})[number]


def misplaced(text: str, root: Path = ROOT) -> list[str]:
    """Sections and exercises that are neither in a row nor in the list of what stands beside the book, or in both."""
    placed, alone = counterparts(text), beside(text)
    lost = {entry: title for entry, title in titles(root).items() if entry not in {*placed, *alone}}
    twice = [f"{entry} has two places" for entry in alone if entry in placed]
    return [f"{entry} has no place: {title}" for entry, title in lost.items()] + twice


def unnamed_boxes(text: str, root: Path = ROOT) -> list[str]:
    """Sections with a box for readers of the book that no row names."""
    named = {entry for kind, entry in named_in_prose(text) if kind == "box"}
    numbered = [entry for entry in titles(root) if re.fullmatch(NUMBER, entry)]
    return [number for number in numbered if BOX in text_of(number, root) and number not in named]


def main() -> int:
    """Write or check the table."""
    return write_or_check(PAGE, with_table(PAGE.read_text(encoding="utf-8")), "tools.book_sections", __doc__)


if __name__ == "__main__":
    sys.exit(main())
