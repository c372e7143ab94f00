"""JSON Lines: one JSON object a line, appended as it comes, readable after a run that was killed."""

import codecs
import json
from collections.abc import Iterable
from pathlib import Path

from shared.support.files import atomic_file


def read_jsonl(path: Path | str, unfinished: bool = True) -> list[dict]:
    """The records of a file. A last line that was not finished (its writer was killed) is left out.

    A last record that lacks nothing but its newline is whole, since a JSON object that was cut is no JSON.
    `unfinished=False` is for files that no run appends to: such a last line is damaged, as any other would be.
    Raises FileNotFoundError, or ValueError if the file is not UTF-8, or a line, which is named, is no JSON object.
    """
    path = Path(path)
    *lines, last = read_utf8(path).split("\n")
    if not unfinished or _parse(last) is not None:
        lines.append(last)
    records = {number: _parse(line) for number, line in enumerate(lines, start=1) if line.strip()}
    for number, record in records.items():
        if record is None:
            raise ValueError(f"Line {number} of {path.name} is damaged: restore the file, or delete that line.")
    return list(records.values())


def read_utf8(path: Path) -> str:
    """The text of a file, without the mark that some editors put first. Raises ValueError if it is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # half a character at the end is a killed writer's
    try:
        return decoder.decode(path.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8: save it as UTF-8.") from error


def _parse(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def append_jsonl(path: Path | str, records: Iterable[dict]) -> None:
    """Append records to a file, which is made with its folder if need be; what was not finished is dropped."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_last_line(path)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(_lines(records))


def _end_last_line(path: Path) -> None:
    """Give a whole record its newline, and drop a line that was not finished."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        start = content.rfind(b"\n") + 1
        if _parse(content[start:].decode("utf-8-sig", errors="replace")) is not None:
            file.write(b"\n")
        else:
            file.truncate(start)


def write_jsonl(path: Path | str, records: Iterable[dict]) -> None:
    """Write a file anew; a killed run leaves the old one whole."""
    with atomic_file(path) as temporary:
        temporary.write_text(_lines(records), encoding="utf-8", newline="\n")


def _lines(records: Iterable[dict]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records)
