"""The file that an evaluation writes as it goes, so that a run that was stopped goes on where it was."""

import json
from collections.abc import Sequence
from pathlib import Path

from shared.support.jsonl import append_jsonl, read_jsonl, write_jsonl


class ResultsFile:
    """Records of one evaluation in a JSON Lines file, with its settings and its time in a file beside it.

    With `path=None` nothing is read or written.

    Raises:
        ValueError: the file was made with other settings, or is damaged.
    """

    def __init__(self, path: Path | str | None, settings: dict):
        self.path = Path(path).expanduser() if path is not None else None
        self.settings = settings
        self.seconds = 0.0
        self.old: dict[str, dict] = {}
        if self.path is not None and self.path.exists():
            records, before, self.seconds = self._read(self.path)
            self._compare(before)
            self.old = {record["unique_id"]: record for record in records}

    def _compare(self, before: dict) -> None:
        different = [name for name in self.settings if before.get(name) != self.settings[name]]
        if different:
            name = different[0]
            raise ValueError(
                f"{self.path.name} was made with {name} = {before.get(name)!r}, not {self.settings[name]!r}: "
                "give another file, or delete this one."
            )

    def records_of(self, problems: Sequence[dict]) -> dict[str, dict]:
        """Those problems' records that are in the file already, by `unique_id`."""
        found = {p["unique_id"]: self.old[p["unique_id"]] for p in problems if p["unique_id"] in self.old}
        for problem in problems:
            record = found.get(problem["unique_id"], problem)
            if any(record.get(name) != problem[name] for name in ("problem", "answer")):
                raise ValueError(
                    f"{self.path.name} holds another problem under {problem['unique_id']!r}: give another file."
                )
        return found

    def append(self, records: Sequence[dict], seconds: float) -> None:
        """Add records; `seconds` is the time of the whole run so far."""
        if self.path is None:
            return
        # Settings first: a file of records without them could not be continued.
        self._write_settings(self.path, self.settings, seconds)
        append_jsonl(self.path, records)

    @classmethod
    def write(cls, path: Path | str, records: Sequence[dict], settings: dict, seconds: float) -> None:
        """Write a whole evaluation anew."""
        path = Path(path).expanduser()
        cls._write_settings(path, settings, seconds)
        write_jsonl(path, records)

    @classmethod
    def read(cls, path: Path | str) -> tuple[list[dict], float, dict]:
        """Records, seconds and settings of an evaluation."""
        records, settings, seconds = cls._read(Path(path).expanduser())
        return records, seconds, settings

    @classmethod
    def _read(cls, path: Path) -> tuple[list[dict], dict, float]:
        records, beside = read_jsonl(path), cls._beside(path)
        if any("unique_id" not in record or "correct" not in record for record in records):
            raise ValueError(f"{path.name} holds no results of an evaluation: give another file.")
        try:
            stored = json.loads(beside.read_text(encoding="utf-8"))
            return records, stored["settings"], stored["seconds"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{beside.name}, the settings of {path.name}, is missing or damaged: restore it, or delete both."
            ) from error

    @staticmethod
    def _beside(path: Path) -> Path:
        return path.with_name(path.name + ".settings.json")

    @classmethod
    def _write_settings(cls, path: Path, settings: dict, seconds: float) -> None:
        beside = cls._beside(path)
        beside.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside.with_name(beside.name + ".part")
        temporary.write_text(
            json.dumps({"settings": settings, "seconds": round(seconds, 3)}), encoding="utf-8"
        )
        temporary.replace(beside)
