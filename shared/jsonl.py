"""JSON Lines: one JSON object a line, appended as it comes, readable after a run that was killed."""

import json
from collections.abc import Iterable
from pathlib import Path


def read_jsonl(path: Path | str) -> list[dict]:
    """The records of a file. A last line that was not finished (its writer was killed) is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no JSON object; the message names the line.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").split("\n")
    lines.pop()  # the empty text behind the last newline, or a line that was not finished
    return [_record(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]


def _record(line: str, path: Path, number: int) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"Line {number} of {path.name} is damaged: restore the file, or delete that line.")
    return record


def append_jsonl(path: Path | str, records: Iterable[dict]) -> None:
    """Append records to a file, which is made with its folder if need be; what was not finished is dropped."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_unfinished_line(path)
    text = "".join(json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _drop_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def write_jsonl(path: Path | str, records: Iterable[dict]) -> None:
    """Write a file anew, under a temporary name first, so that a killed run leaves the old one whole."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)
    append_jsonl(temporary, records)
    temporary.replace(path)
