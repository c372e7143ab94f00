"""The results ledger: every measurement of the course, with its uncertainty. Taught in ch03, section 3.11.

A measurement is one row of a JSON Lines file, `results/ledger.jsonl` in the repository or the file that the variable
COURSE_LEDGER names. Rows are appended and never changed; the latest of a (chapter, method, model, dataset) counts.
The rows that the authors measured ship in `shared/assets/ledger_reference.jsonl` and stand beside the reader's own.
`python -m shared.evaluation.ledger` prints the table.
"""

import datetime
import math
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from shared.assets import ASSETS
from shared.evaluation.evaluator import EvalResult
from shared.support.jsonl import append_jsonl, read_jsonl
from shared.support.progress import print_any_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # training does without matplotlib

REFERENCE = ASSETS / "ledger_reference.jsonl"
KEY = ("chapter", "method", "model", "dataset")
_FIELDS = {
    **dict.fromkeys(KEY, "text"),
    **dict.fromkeys(("n", "accuracy", "tokens_per_problem", "seconds"), "number"),
    "ci95": "pair of numbers",
}


def results_file(name: str = "ledger.jsonl", variable: str = "COURSE_LEDGER") -> Path:
    """Where a file of the reader's own results is, here the ledger: in `results/`, unless a variable names another."""
    named = os.environ.get(variable)
    root = Path(__file__).resolve().parents[2]
    home = root if (root / "course.py").exists() else Path.cwd()
    return Path(named).expanduser() if named else home / "results" / name


def append_result(
    result: EvalResult, *, chapter: str, method: str, model: str = "tiny", dataset: str = "minimath-test"
) -> dict:
    """Append a measurement to the ledger and return its row.

    `chapter` is "ch03", `method` a short name such as "chain of thought", the rest says what it was measured with.
    Raises ValueError if one of the four is no text.
    """
    names = dict(zip(KEY, (chapter, method, model, dataset), strict=True))
    _ensure_texts(**names)
    if not getattr(result, "n", 0):
        raise ValueError(f"result is {result!r}: give what evaluate returns, with one problem at least.")
    row = {
        **names,
        "n": result.n,
        "correct": result.correct,
        "accuracy": round(result.accuracy, 6),
        "ci95": [round(end, 6) for end in result.ci95],
        "tokens_per_problem": round(result.tokens / result.n, 4),
        "seconds": round(result.seconds, 1),
        "seed": result.settings.get("seed"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]},
    }
    append_jsonl(results_file(), [row])
    return row


def _ensure_texts(**names: object) -> None:
    for field, name in names.items():
        if not isinstance(name, str):
            raise ValueError(f'{field} is {name!r}: give a text, such as "ch03" for a chapter.')


def read_ledger(path: Path | str | None = None) -> list[dict]:
    """The latest row of each (chapter, method, model, dataset), by chapter; none if there is no ledger yet.

    Raises ValueError if a line is damaged, lacks a field, or has a name that is no text or a figure that is no number.
    """
    path = Path(path or results_file())
    rows = read_jsonl(path) if path.exists() else []
    for number, row in enumerate(rows, start=1):
        for field, kind in _FIELDS.items():
            if field not in row:
                raise ValueError(f"Row {number} of {path.name} has no {field!r}: delete that line.")
            if _kind(row[field]) != kind:
                found = f"{field} = {row[field]!r}, which is no {kind}"
                raise ValueError(f"Row {number} of {path.name} has {found}: delete that line.")
    return sorted({key_of(row): row for row in rows}.values(), key=place_of)


def key_of(row: dict) -> tuple[str, ...]:
    """What is measured; of the rows with the same key the latest counts."""
    return tuple(row[field] for field in KEY)


def place_of(row: dict) -> tuple[bool, str]:
    """Chapters first, then appendices."""
    return row["chapter"].startswith("app"), row["chapter"]


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "pair of numbers" if [_kind(part) for part in value] == ["number"] * 2 else "list"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number" if math.isfinite(value) else "infinity"
    return "text" if isinstance(value, str) else "other"


def paired_rows(until: str = "appZ") -> list[tuple[dict | None, dict | None]]:
    """Pairs of the reader's row and the reference row, by chapter, up to `until`; one of the two may be missing."""
    _ensure_texts(until=until)
    own, reference = ({key_of(row): row for row in read_ledger(path)} for path in (None, REFERENCE))
    rows = [row for row in (own | reference).values() if place_of(row) <= place_of({"chapter": until})]
    return [(own.get(key), reference.get(key)) for key in map(key_of, sorted(rows, key=place_of))]


def ledger_table(until: str = "appZ") -> str:
    """The ledger as a Markdown table, up to a chapter: the reader's measurements, and beside each the reference."""
    header = ("chapter", "method", "model, data", "n", "accuracy", "tokens", "seconds", "reference")
    rows = [header, *(_cells(own, reference) for own, reference in paired_rows(until))]
    if len(rows) == 1:
        return "The ledger is empty: run a chapter's notebook first."
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines[1] = lines[1].replace(" ", "-")
    return "\n".join(lines)


def _cells(own: dict | None, reference: dict | None) -> tuple[str, ...]:
    row = own or reference
    costs = (f"{own['tokens_per_problem']:.1f}", f"{own['seconds']:.1f}") if own else ("-", "-")
    data = f"{row['model']}, {row['dataset']}"
    return row["chapter"], row["method"], data, str(row["n"]), _percent(own), *costs, _percent(reference)


def _percent(row: dict | None) -> str:
    if row is None:
        return "-"
    low, high = row["ci95"]
    return f"{100 * row['accuracy']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def point_of(row: dict | None) -> tuple[float, float, float] | None:
    """What is drawn of a row: accuracy and the ends of its interval."""
    return row and (row["accuracy"], *row["ci95"])


def plot_ledger(until: str = "appZ") -> "Axes":
    """Accuracy and 95 % interval of what was measured up to a chapter; the reference stands beneath the reader's."""
    from shared.plots import interval_points

    pairs = paired_rows(until)
    if not pairs:
        raise ValueError("The ledger is empty: run a chapter's notebook first.")
    series = dict(zip(("yours", "reference"), zip(*pairs, strict=True), strict=True))
    points = {name: [point_of(row) for row in rows] for name, rows in series.items() if any(rows)}
    labels = [_label(own or reference) for own, reference in pairs]
    return interval_points(labels, points, title="Results ledger", x_label="problems solved, %, with 95 % interval")


def _label(row: dict) -> str:
    where = "" if is_usual(row) else f" ({row['model']}, {row['dataset']})"
    return f"{row['chapter']} {row['method']}{where}"


def is_usual(row: dict) -> bool:
    """Whether a row is of the course's own model and problems."""
    return (row["model"], row["dataset"]) == ("tiny", "minimath-test")


if __name__ == "__main__":
    print_any_text()
    print(ledger_table())
