"""The files that a teacher's answers go to, so that no sample is asked for twice. Used by ch08."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from shared.evaluation.data import unify, with_ids
from shared.evaluation.results import ensure_same_settings, read_settings, write_settings
from shared.generation.sampling import Sampling
from shared.support.jsonl import append_jsonl, read_jsonl
from shared.support.values import ensure_at_least_one
from shared.teacher.replies import Reply, is_kept, make_row

Job = tuple[dict, int]  # a problem and the number of the sample


@dataclass
class Tally:
    """Samples that all runs into a file have `kept` and `rejected`; of this run, answers (`asked`) and tokens."""

    kept: int = 0
    rejected: int = 0
    asked: int = 0
    prompt_tokens: int = 0
    tokens: int = 0

    def count(self, reply: Reply, kept: bool) -> None:
        """Add one answer."""
        self.asked += 1
        self.kept += kept
        self.rejected += not kept
        self.prompt_tokens += reply.prompt_tokens or 0
        self.tokens += reply.tokens or 0

    def short(self) -> dict[str, str | int]:
        """What stands behind a progress bar."""
        return {"kept": self.kept, "rejected": self.rejected, "tokens": self.tokens}

    def __str__(self) -> str:
        answered = self.kept + self.rejected
        share = f" ({100 * self.kept / answered:.1f} % kept)" if answered else ""
        return (
            f"{self.kept} kept, {self.rejected} rejected{share}; this run: {self.asked} answers, "
            f"{self.prompt_tokens:,} tokens read, {self.tokens:,} written"
        )


def unified_problems(problems: Sequence[dict]) -> list[dict]:
    """The problems with the course's fields. Raises ValueError as `with_ids` and `unify` do."""
    named = with_ids(problems, fields=("problem",))  # the answer may stand in the solution
    return [unify(problem, f"Problem {number}", number) for number, problem in enumerate(named, start=1)]


def ensure_sampling(num_samples: int, temperature: float, top_p: float, max_new_tokens: int) -> None:
    """Raises ValueError for settings that are out of range or make no sense together."""
    Sampling(temperature, top_p=top_p)
    ensure_at_least_one(num_samples=num_samples, max_new_tokens=max_new_tokens)
    if num_samples > 1 and temperature == 0:
        raise ValueError("At temperature 0 all samples are the same: raise it, or ask for one sample.")


class SamplesFile:
    """The rows that are kept, in `NAME.jsonl`; those that are not, in `NAME.rejected.jsonl`.

    Rejected rows stand there without their texts unless `keep_rejected`, so that a later run knows them too. What all
    were made with is in `NAME.jsonl.settings.json`. Use it in a `with` statement: one run at a time can write.

    Raises ValueError if the name does not end in .jsonl, the file was made with other settings or from other problems,
    a file is damaged or missing, or another run is writing.
    """

    def __init__(self, path: Path | str, settings: dict, problems: Sequence[dict], keep_rejected: bool):
        self.path = Path(path).expanduser()
        if self.path.suffix != ".jsonl":
            raise ValueError(f"The file is called {self.path.name!r}: give a name that ends in .jsonl.")
        self.rejected_path = self.path.with_suffix(".rejected.jsonl")
        self.settings, self.problems, self.keep_rejected = settings, problems, keep_rejected
        self.done: dict[tuple[str, int], bool] = {}  # (unique_id, sample) -> kept

    def __enter__(self) -> "SamplesFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(f"{self.path}.lock", timeout=0))
            except Timeout as error:
                told = f"Another run is writing {self.path.name}: wait for it, or give another file."
                raise ValueError(told) from error
            self._compare_settings()
            self._read()
            self._files = [stack.enter_context(_open(path)) for path in (self.rejected_path, self.path)]
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

    def jobs(self, num_samples: int) -> list[Job]:
        """Every problem and number of a sample that has no row yet."""
        return [job for job in self._wanted(num_samples) if _key(job) not in self.done]

    def tally(self, num_samples: int) -> Tally:
        """The count at the start of a run: what earlier runs have left."""
        kept = [self.done[key] for key in map(_key, self._wanted(num_samples)) if key in self.done]
        return Tally(kept=sum(kept), rejected=len(kept) - sum(kept))

    def _wanted(self, num_samples: int) -> list[Job]:
        return [(problem, sample) for problem in self.problems for sample in range(num_samples)]

    def add(self, job: Job, reply: Reply) -> bool:
        """Grade an answer and write its row at once. Returns whether it is kept."""
        row = make_row(*job, reply, self.settings["model"])
        kept = is_kept(row)
        if not kept and not self.keep_rejected:
            del row["thinking"], row["content"]
        file = self._files[kept]
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        self.done[_key(job)] = kept
        return kept

    def _compare_settings(self) -> None:
        files = [path for path in (self.path, self.rejected_path) if path.exists()]
        if not any(path.stat().st_size for path in files):
            # Without a row nothing is lost: a run whose settings were wrong may have failed at once.
            write_settings(self.path, self.settings)
        elif self.path not in files:
            raise ValueError(f"{self.path.name} is missing: restore it, or delete {self.rejected_path.name} too.")
        else:
            ensure_same_settings(self.path, read_settings(self.path), self.settings)

    def _read(self) -> None:
        asked = {problem["unique_id"]: problem for problem in self.problems}
        for path, kept in ((self.path, True), (self.rejected_path, False)):
            for row in read_jsonl(path) if path.exists() else ():
                if not {"unique_id", "sample", "problem", "answer"} <= row.keys():
                    raise ValueError(f"{path.name} holds no samples of a teacher: give another file.")
                problem = asked.get(row["unique_id"], row)
                if any(row[name] != problem[name] for name in ("problem", "answer")):
                    raise ValueError(f"{path.name} has another problem {row['unique_id']!r}: give another file.")
                self.done[row["unique_id"], row["sample"]] = kept


def _open(path: Path) -> TextIO:
    append_jsonl(path, [])  # drops a line that was not finished
    # Half a surrogate, which JSON may hold, is no UTF-8: it becomes a question mark.
    return path.open("a", encoding="utf-8", errors="replace", newline="\n")


def _key(job: Job) -> tuple[str, int]:
    return job[0]["unique_id"], job[1]
