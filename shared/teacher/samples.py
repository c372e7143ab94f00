"""What a teacher wrote, graded, and the files it goes to, so that no sample is asked for twice. Taught in ch08.

A row has the fields of the public distillation sets, `problem`, `answer` (the gold answer), `thinking` and `content`
(without white space around them), and `unique_id`, `sample` (0, 1, ...), `correct`, `finish_reason`, `prompt_tokens`,
`tokens` (None where a server does not count) and `model`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from shared.evaluation.data import unify, with_ids
from shared.generation.completions import CUT_SHORT
from shared.generation.prompts import render_prompt
from shared.generation.sampling import Sampling
from shared.grader.grading import extract_answer, grade
from shared.model.tokenizer import THINK_TAGS
from shared.support.jsonl import append_jsonl, read_jsonl
from shared.support.values import ensure_at_least_one

Job = tuple[dict, int]  # a problem and the number of the sample


@dataclass(frozen=True)
class Reply:
    """One answer of a teacher, its thinking apart. The counts of tokens are None where they are not known."""

    thinking: str
    content: str
    finish_reason: str
    prompt_tokens: int | None = None
    tokens: int | None = None


@dataclass
class Tally:
    """What came of a run.

    `kept` and `rejected` are numbers of samples, those of earlier runs into the same file included. The rest is of
    this run alone: `failed` samples that could not be had, `asked` answers that came, `retries` requests that were made
    again, tokens, prices in any currency for a million tokens, `uncounted` answers whose tokens the server did not
    tell, and why the last failure failed.
    """

    kept: int = 0
    rejected: int = 0
    failed: int = 0
    asked: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    uncounted: int = 0
    price_in: float = 0.0
    price_out: float = 0.0
    last_failure: str | None = None

    @property
    def cost(self) -> float:
        """Price of the answers that came in this run, in the currency of the prices."""
        return (self.prompt_tokens * self.price_in + self.tokens * self.price_out) / 1e6

    def count(self, reply: Reply, kept: bool) -> None:
        """Add one answer."""
        self.asked += 1
        self.kept += kept
        self.rejected += not kept
        self.prompt_tokens += reply.prompt_tokens or 0
        self.tokens += reply.tokens or 0
        self.uncounted += reply.tokens is None

    def short(self) -> dict[str, str | int]:
        """What stands behind a progress bar."""
        cost = {"cost": f"{self.cost:.4f}"} if self.price_in or self.price_out else {}
        return {"kept": self.kept, "rejected": self.rejected, "tokens": self.tokens, **cost}

    def __str__(self) -> str:
        answered = self.kept + self.rejected
        share = f" ({100 * self.kept / answered:.1f} % kept)" if answered else ""
        text = f"{self.kept} kept, {self.rejected} rejected{share}"
        text += f"; this run: {self.asked} answers, {self.retries} retries, "
        text += f"{self.prompt_tokens:,} tokens read, {self.tokens:,} written"
        if self.uncounted:
            text += f" ({self.uncounted} answers came without a count)"
        if self.failed:
            text += f", {self.failed} failed (the last one: {self.last_failure}; run again to ask for them)"
        return text + (f", cost {self.cost:.4f}" if self.price_in or self.price_out else "")


def split_thinking(text: str) -> tuple[str, str]:
    """Thinking and content of a text with `<think>` tags, each without white space around it.

    The opening tag may be missing, since some chat templates put it into the prompt. Without the closing one all that
    follows the opening one is thinking; without either all is content.
    """
    opening, closing = THINK_TAGS
    head, closed, content = text.partition(closing)
    before, opened, thinking = head.partition(opening)
    if not opened:
        before, thinking = ("", head) if closed else (head, "")
    return thinking.strip(), (before + content).strip()


def chat_question(problem: str, prompt: str | Callable[[str], str]) -> str:
    """The user's message that asks for a solution: the text of a style of `render_prompt`, or a function's."""
    if callable(prompt):
        return prompt(problem)
    return render_prompt(problem, prompt).removeprefix("Problem: ").removesuffix("\nAnswer:")


def check_problems(problems: Sequence[dict]) -> list[dict]:
    """The problems with the course's fields. Raises ValueError as `with_ids` and `unify` do."""
    named = with_ids(problems, fields=("problem",))  # the answer may stand in the solution
    return [unify(problem, f"Problem {number}", number) for number, problem in enumerate(named, start=1)]


def check_sampling(num_samples: int, temperature: float, top_p: float, max_new_tokens: int) -> None:
    """Raises ValueError for settings that are out of range or make no sense together."""
    Sampling(temperature, top_p=top_p)
    ensure_at_least_one(num_samples=num_samples, max_new_tokens=max_new_tokens)
    if num_samples > 1 and temperature == 0:
        raise ValueError("At temperature 0 all samples are the same: raise it, or ask for one sample.")


class SamplesFile:
    """The rows that are kept, in `NAME.jsonl`; those that are not, in `NAME.rejected.jsonl`.

    Rejected rows stand there without their texts unless `keep_rejected`, so that a later run knows them too. What all
    were made with is in `NAME.jsonl.settings.json`. Use it in a `with` statement: one run at a time can write.

    Raises:
        ValueError: the name does not end in .jsonl, the file was made with other settings or from other problems, a
            file is damaged or missing, or another run is writing.
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
        self._lock = FileLock(f"{self.path}.lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"Another run is writing {self.path.name}: wait for it, or give another file."
            ) from error
        try:
            self._check_settings()
            self._read()
            self._files = [self._open(path) for path in (self.rejected_path, self.path)]
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for file in self._files:
            file.close()
        self._lock.release()

    def jobs(self, num_samples: int) -> list[Job]:
        """Every problem and number of a sample that has no row yet."""
        wanted = ((problem, sample) for problem in self.problems for sample in range(num_samples))
        return [job for job in wanted if _key(job) not in self.done]

    def tally(self, num_samples: int, **prices: float) -> Tally:
        """The count at the start of a run: what earlier runs have left."""
        wanted = ((problem["unique_id"], n) for problem in self.problems for n in range(num_samples))
        kept = [self.done[key] for key in wanted if key in self.done]
        return Tally(kept=sum(kept), rejected=len(kept) - sum(kept), **prices)

    def add(self, job: Job, reply: Reply) -> bool:
        """Grade an answer and write its row at once. Returns whether it is kept: right, and not cut short."""
        row = _make_row(job, reply, self.settings["model"])
        kept = row["correct"] and reply.finish_reason not in CUT_SHORT
        if not kept and not self.keep_rejected:
            del row["thinking"], row["content"]
        file = self._files[kept]
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        self.done[_key(job)] = kept
        return kept

    def _check_settings(self) -> None:
        beside = self.path.with_name(self.path.name + ".settings.json")
        files = [path for path in (self.path, self.rejected_path) if path.exists()]
        # Without a row nothing is lost: a run whose settings were wrong may have failed at once.
        if not any(path.stat().st_size for path in files):
            beside.write_text(json.dumps(self.settings, indent=1), encoding="utf-8")
            return
        if self.path not in files:
            raise ValueError(
                f"{self.path.name} is missing: restore it, or delete {self.rejected_path.name} too."
            )
        try:
            before = dict(json.loads(beside.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"{beside.name} is missing or damaged: restore it, or give another file."
            ) from error
        for name, value in self.settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{self.path.name} was made with {name} = {before.get(name)!r}, not {value!r}: give another file."
                )

    def _read(self) -> None:
        asked = {problem["unique_id"]: problem for problem in self.problems}
        for path, kept in ((self.path, True), (self.rejected_path, False)):
            for row in read_jsonl(path) if path.exists() else ():
                if not {"unique_id", "sample", "problem", "answer"} <= row.keys():
                    raise ValueError(f"{path.name} holds no samples of a teacher: give another file.")
                problem = asked.get(row["unique_id"], row)
                if any(row[name] != problem[name] for name in ("problem", "answer")):
                    raise ValueError(
                        f"{path.name} has another problem {row['unique_id']!r}: give another file."
                    )
                self.done[row["unique_id"], row["sample"]] = kept

    @staticmethod
    def _open(path: Path):
        append_jsonl(path, [])  # drops a line that was not finished
        return path.open(
            "a", encoding="utf-8", errors="replace", newline="\n"
        )  # half a surrogate is no UTF-8


def _key(job: Job) -> tuple[str, int]:
    return job[0]["unique_id"], job[1]


def _make_row(job: Job, reply: Reply, model: str) -> dict:
    problem, sample = job
    answer = extract_answer(reply.content)
    return {
        "unique_id": problem["unique_id"],
        "sample": sample,
        "problem": problem["problem"],
        "answer": problem["answer"],
        "thinking": reply.thinking,
        "content": reply.content,
        "correct": answer is not None and grade(answer, problem["answer"]),
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "tokens": reply.tokens,
        "model": model,
    }
