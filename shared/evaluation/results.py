"""The file that an evaluation writes as it goes, so that a run that was stopped goes on where it was."""

import functools
import json
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from shared.support.files import atomic_file
from shared.support.jsonl import append_jsonl, read_jsonl, write_jsonl


def named_settings(**settings: object) -> dict:
    """Settings as a file can hold them: a function by its name, a partial one with its arguments."""
    return {name: _named(value) for name, value in settings.items()}


def _named(value: object) -> object:
    if isinstance(value, functools.partial):
        given = named_settings(**dict(sorted(value.keywords.items())))
        return f"{_named(value.func)} {json.dumps(given, default=str)}"
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else value


def beside(path: Path) -> Path:
    """The file with what the rows in `path` were made with."""
    return path.with_name(f"{path.name}.settings.json")


def write_settings(path: Path, content: dict) -> None:
    """Write the file beside `path`."""
    with atomic_file(beside(path)) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def read_settings(path: Path, *fields: str) -> dict:
    """What stands beside `path`. Raises ValueError if it is missing or damaged, or lacks one of the `fields`."""
    try:
        content = dict(json.loads(beside(path).read_text(encoding="utf-8")))
        return content | {name: content[name] for name in fields}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{beside(path).name} is missing or damaged: restore it, or give another file.") from error


def ensure_same_settings(path: Path, before: dict, settings: dict) -> None:
    """Raises ValueError, by name, for a setting that is not the one that the rows in `path` were made with."""
    for name, value in settings.items():
        if before.get(name) != value:
            made = f"{path.name} was made with {name} = {before.get(name)!r}, not {value!r}"
            raise ValueError(f"{made}: give another file, or delete this one.")


class ResultsFile:
    """Records of one evaluation in a JSON Lines file, with its settings and its time in a file beside it.

    With `path=None` nothing is read or written. Raises ValueError if the file was made with other settings, or is
    damaged.
    """

    def __init__(self, path: Path | str | None, settings: dict):
        self.path = Path(path).expanduser() if path else None
        self.settings, self.seconds, self._old = settings, 0.0, {}
        if self.path is not None and self.path.exists():
            records, self.seconds, before = self.read(self.path)
            self._old = {record["unique_id"]: record for record in records}
            ensure_same_settings(self.path, before, settings)

    def records_of(self, problems: Sequence[dict]) -> dict[str, dict]:
        """Those problems' records that are in the file already, by `unique_id`."""
        found = {p["unique_id"]: self._old[p["unique_id"]] for p in problems if p["unique_id"] in self._old}
        for problem in problems:
            record = found.get(problem["unique_id"], problem)
            if any(record.get(name) != problem[name] for name in ("problem", "answer")):
                other = f"another problem under {problem['unique_id']!r}"
                raise ValueError(f"{self.path.name} holds {other}: give another file.")
        return found

    def append(self, records: Sequence[dict], seconds: float) -> None:
        """Add records; `seconds` is the time of the whole run so far."""
        if self.path is not None:
            with suppress(PermissionError) if self.path.exists() else nullcontext():  # first: records need them
                write_settings(self.path, {"settings": self.settings, "seconds": round(seconds, 3)})
            append_jsonl(self.path, records)

    @staticmethod
    def write(path: Path | str, records: Sequence[dict], seconds: float, settings: dict) -> None:
        """Write a whole evaluation anew."""
        path = Path(path).expanduser()
        write_settings(path, {"settings": settings, "seconds": round(seconds, 3)})
        write_jsonl(path, records)

    @staticmethod
    def read(path: Path | str) -> tuple[list[dict], float, dict]:
        """Records, seconds and settings of an evaluation."""
        path = Path(path).expanduser()
        records = read_jsonl(path)
        if any("unique_id" not in record or "correct" not in record for record in records):
            raise ValueError(f"{path.name} holds no results of an evaluation: give another file.")
        stored = read_settings(path, "seconds", "settings")
        records = list({record["unique_id"]: record for record in records}.values())  # two runs at a time write twice
        return records, stored["seconds"], stored["settings"]
