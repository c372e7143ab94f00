"""The metrics of a training run: in two files, without a line twice after a kill, and on a bar. Used from ch06 on."""

import csv
import math
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from shared.support.files import atomic_file
from shared.support.jsonl import append_jsonl, read_jsonl, write_jsonl
from shared.support.progress import progress_bar


class MetricsLog:
    """metrics.jsonl and metrics.csv, one record a step; a csv that Excel has locked is written anew later."""

    def __init__(self, folder: Path):
        self.jsonl, self.csv = folder / "metrics.jsonl", folder / "metrics.csv"
        self.columns: list[str] = []
        self.size: int | None = None  # of metrics.jsonl when this log wrote it last

    def append(self, record: dict) -> None:
        """Add the record of one more step to both files."""
        no_json = [name for name, value in record.items() if isinstance(value, float) and not math.isfinite(value)]
        record = record | dict.fromkeys(no_json)
        if self.size not in (None, self.jsonl.stat().st_size if self.jsonl.exists() else 0):
            raise ValueError(f"Another run has changed {self.jsonl}: give each a folder of its own.")
        self.size = None  # until the record is there
        append_jsonl(self.jsonl, [record])
        self.size = self.jsonl.stat().st_size
        try:
            if self.csv.exists() and set(record) <= set(self.columns):
                with self.csv.open("a", encoding="utf-8", newline="") as file:
                    csv.DictWriter(file, self.columns).writerow(record)
            else:  # the first record, the first of a step that was evaluated, or the first after a lock
                self._write_csv(read_jsonl(self.jsonl))
        except PermissionError:
            self.columns = []

    def cut(self, last_step: int) -> list[dict]:
        """Drop what was logged after a step, so that going on from there logs nothing twice; returns the rest."""
        self.jsonl.parent.mkdir(parents=True, exist_ok=True)  # an error now, and not after the first step
        self.size, records = None, read_jsonl(self.jsonl) if last_step and self.jsonl.exists() else []
        records = [record for record in records if record["step"] <= last_step]
        for unfinished in self.csv.parent.glob(".*.part"):  # what a killed run has left, checkpoints among it
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        if records:
            write_jsonl(self.jsonl, records)
        else:
            self.jsonl.unlink(missing_ok=True)
        with suppress(PermissionError):  # `append` writes it anew
            self._write_csv(records) if records else self.csv.unlink(missing_ok=True)
        return records

    def _write_csv(self, records: list[dict]) -> None:
        columns = list(dict.fromkeys(name for record in records for name in record))
        with atomic_file(self.csv) as path, path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(records)
        self.columns = columns


class MetricsBar(AbstractContextManager):
    """A progress bar with the latest of some metrics; `shown` says which, and what the bar calls them."""

    def __init__(self, steps: int, done: int, shown: Mapping[str, str]):
        self.bar = progress_bar(steps, unit="step", done=min(done, steps))
        self.shown, self.latest = shown, {}

    def __call__(self, metrics: dict) -> None:
        """One more step is done."""
        self.latest |= {name: f"{metrics[key]:.3g}" for key, name in self.shown.items() if key in metrics}
        self.bar.set_postfix(self.latest, refresh=False)
        self.bar.update()

    def __exit__(self, *_: object) -> None:
        self.bar.close()
