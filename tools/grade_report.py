"""What a grading run writes: a table a chapter, and Gradescope's results.json for every submission."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from tools.grade_judge import Report

BEFORE, AFTER = ("student", "file"), ("total", "of", "remarks", "protection", "seconds", "sha256")


@dataclass(frozen=True)
class Graded:
    """A submission with what became of it. `titles` are the exercises of the chapter, by number."""

    student: str
    file: str
    chapter: str
    titles: dict[str, str]
    report: Report
    protection: str
    seconds: float
    sha256: str

    @property
    def total(self) -> int:
        """Points: one for each exercise that is right."""
        return sum(verdict.passed for verdict in self.report.verdicts.values())

    def row(self) -> dict[str, str | int]:
        """The submission's row in the table."""
        points = {number: int(verdict.passed) for number, verdict in self.report.verdicts.items()}
        return {
            "student": plain(self.student), "file": plain(self.file), **points, "total": self.total,
            "of": len(self.titles), "remarks": plain("; ".join(self.report.remarks)), "protection": self.protection,
            "seconds": round(self.seconds), "sha256": self.sha256,
        }  # fmt: skip

    def gradescope(self) -> dict:
        """The submission's results in the form that Gradescope reads."""
        tests = [
            {
                "number": number, "name": f"{number} {self.titles[number]}".strip(), "score": int(verdict.passed),
                "max_score": 1, "status": "passed" if verdict.passed else "failed", "output": verdict.message,
            }
            for number, verdict in self.report.verdicts.items()
        ]  # fmt: skip
        output = "\n".join(self.report.remarks)
        return {"score": self.total, "execution_time": round(self.seconds), "output": output, "tests": tests}


def plain(text: str) -> str:
    """A text for a spreadsheet, in which nothing is taken for a formula."""
    text = "".join(each if each.isprintable() else " " for each in text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def table(out: Path, chapter: str) -> Path:
    """The file that holds the rows of a chapter."""
    return out / f"grades_{chapter}.csv"


def known(out: Path) -> set[tuple[str, str]]:
    """File and hash of every submission that has a row already, whatever its chapter."""
    found: set[tuple[str, str]] = set()
    for path in sorted(out.glob("grades_*.csv")):
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            found |= {(row.get("file") or "", row.get("sha256") or "") for row in csv.DictReader(file)}
    return found


def write(out: Path, graded: Graded) -> None:
    """Add a submission's row and its results.json; earlier results of the same file are kept under other names."""
    folder = out / "gradescope" / Path(graded.file).with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    if path.exists():
        path.rename(next(new for n in range(1, 10**6) if not (new := folder / f"results.{n}.json").exists()))
    path.write_text(json.dumps(graded.gradescope(), indent=1) + "\n", encoding="utf-8")
    add_row(table(out, graded.chapter), graded.row())


def add_row(path: Path, row: dict) -> None:
    """Add a row to a table; one with other columns is kept beside it, and a new one begun."""
    columns = list(row)
    if path.exists():
        with path.open(encoding="utf-8-sig", newline="") as file:
            if next(csv.reader(file), None) != columns:
                path.rename(next(new for n in range(1, 10**6) if not (new := path.with_suffix(f".{n}.csv")).exists()))
    new = not path.exists()
    # With a mark at the beginning spreadsheets read names with any letters right.
    with path.open("a", encoding="utf-8-sig" if new else "utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)
