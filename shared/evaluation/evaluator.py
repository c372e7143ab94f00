"""Evaluate a model on problems whose answers can be checked. Taught in ch03, sections 3.10 and 3.11.

`ask_in_batches` is the loop: ask, extract, grade. `evaluate` adds what long runs need: a file to go on from, the time,
a progress bar. What the model writes goes through `extract_answer` and `grade`; no model text is ever run as code.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.evaluation.data import with_ids
from shared.evaluation.results import ResultsFile, named_settings
from shared.evaluation.statistics import PairedTest, paired_test, wilson_interval
from shared.generation.completions import generate
from shared.generation.prompts import render_prompt
from shared.generation.sampling import plain_seed
from shared.grader.grading import extract_answer, grade
from shared.model.fingerprint import fingerprint
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.progress import progress_bar
from shared.support.values import ensure_at_least_one


@dataclass(frozen=True)
class Answer:
    """What a method made of one prompt: the text, the answer in it (None if there is none), all tokens it took.

    `details` is whatever else the method has to tell, as JSON can hold it.
    """

    text: str
    answer: str | None
    tokens: int
    details: dict = field(default_factory=dict)


Method = Callable[..., list[Answer]]


def greedy(
    model: CausalLM, tokenizer: Tokenizer, prompts: list[str], *, max_new_tokens: int, seed: int = 0
) -> list[Answer]:
    """The plainest method: the likeliest token at each step, one answer a prompt. `seed` has no effect."""
    completions = generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
    return [
        Answer(c.text, extract_answer(c.text), len(c.token_ids), {"finish_reason": c.finish_reason})
        for c in completions
    ]


def record_of(problem: dict, answer: Answer, fallback: str | None = None) -> dict:
    """What was asked, what came, and whether it is right; `fallback` as of `extract_answer`."""
    extracted, details = answer.answer, dict(answer.details)
    if extracted is None and fallback is not None:
        extracted = extract_answer(answer.text, fallback)
    return {
        **{name: problem.get(name) for name in ("unique_id", "problem", "answer", "subject", "level")},
        "text": answer.text,
        "extracted": extracted,
        "correct": extracted is not None and grade(extracted, problem["answer"]),
        "tokens": answer.tokens,
        "finish_reason": details.pop("finish_reason", None),
        "details": details,
    }


def ask_in_batches(
    model: CausalLM,
    tokenizer: Tokenizer,
    problems: Sequence[dict],
    ask: Callable[[str], str],
    method: Method,
    *,
    batch_size: int,
    max_new_tokens: int,
    seed: int = 0,
    fallback: str | None = None,
) -> Iterator[list[dict]]:
    """The evaluation loop: ask a batch of problems, grade the answers, yield their records.

    `ask` makes a prompt of a problem's text, `method` answers of the prompts. Taught in ch03, section 3.10.
    """
    for first in range(0, len(problems), batch_size):
        batch = problems[first : first + batch_size]
        prompts = [ask(problem["problem"]) for problem in batch]
        answers = method(model, tokenizer, prompts, max_new_tokens=max_new_tokens, seed=seed)
        if len(answers) != len(prompts):
            raise ValueError(f"The method gave {len(answers)} answers to {len(prompts)} prompts: give one each.")
        yield [record_of(problem, answer, fallback) for problem, answer in zip(batch, answers, strict=True)]


@dataclass(frozen=True, repr=False)
class EvalResult:
    """The outcome of an evaluation: one record a problem, and what follows from them.

    A record is a dict with `unique_id`, `problem`, `answer` (the right one), `subject`, `level`, `text` (what the model
    wrote), `extracted` (the answer in it, or None), `correct`, `tokens`, `finish_reason` ("stop" or "length", where the
    method tells) and `details`. `seconds` includes the time before an interruption.
    """

    records: list[dict]
    seconds: float = 0.0
    settings: dict = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of problems."""
        return len(self.records)

    @property
    def correct(self) -> int:
        """Number of problems that were solved."""
        return sum(record["correct"] for record in self.records)

    @property
    def accuracy(self) -> float:
        """Share of the problems that were solved, in [0, 1]."""
        return self.correct / self.n

    @property
    def ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, in [0, 1]."""
        return wilson_interval(self.correct, self.n)

    @property
    def tokens(self) -> int:
        """Number of tokens generated for all problems together."""
        return sum(record["tokens"] for record in self.records)

    def by(self, key: str) -> dict[object, "EvalResult"]:
        """The result of each group of problems with the same `key` ("level", "subject", "finish_reason"), sorted."""
        if any(key not in record for record in self.records):
            raise ValueError(f"The records have no field {key!r}: choose one of {', '.join(self.records[0])}.")
        groups: dict[object, list[dict]] = {}
        for record in self.records:
            groups.setdefault(record[key], []).append(record)
        names = sorted(groups, key=lambda name: (name is None, name))
        return {name: EvalResult(groups[name], settings=self.settings) for name in names}

    def compare(self, other: "EvalResult") -> "PairedTest":
        """McNemar's exact test of this result against another on the same problems, paired by `unique_id`.

        Raises ValueError if the two are not on the same problems.
        """
        mine, theirs = ({r["unique_id"]: r["correct"] for r in result.records} for result in (self, other))
        different = len(mine.keys() ^ theirs.keys())
        if different:
            raise ValueError(f"The results differ in {different} problems: evaluate both on the same ones.")
        return paired_test(list(mine.values()), [theirs[name] for name in mine])

    def to_jsonl(self, path: Path | str) -> None:
        """Write the records to a new file, one a line, from which `evaluate(results=path)` can go on."""
        ResultsFile.write(path, self.records, self.seconds, self.settings)

    @classmethod
    def from_jsonl(cls, path: Path | str) -> "EvalResult":
        """Read what `to_jsonl` or `evaluate(results=...)` wrote. Raises FileNotFoundError or ValueError."""
        return cls(*ResultsFile.read(path))

    def __str__(self) -> str:
        if not self.records:
            return "no problems"
        low, high = self.ci95
        speed = f", {self.seconds:.1f} s ({self.tokens / self.seconds:,.0f} tokens/s)" if self.seconds else ""
        return (
            f"{100 * self.accuracy:.1f} % right ({self.correct} of {self.n}, 95 % interval {100 * low:.1f} to "
            f"{100 * high:.1f} %), {self.tokens / self.n:.1f} tokens a problem{speed}"
        )

    __repr__ = __str__


def evaluate(
    model: CausalLM,
    tokenizer: Tokenizer,
    problems: Sequence[dict],
    *,
    prompt: str | Callable[[str], str] = "direct",
    method: str | Method = "greedy",
    batch_size: int = 64,
    max_new_tokens: int = 256,
    seed: int = 0,
    progress: bool = False,
    results: Path | str | None = None,
    fallback: str | None = None,
) -> EvalResult:
    """Ask a model every problem and grade its answers. Taught in ch03, section 3.10.

    Args:
        problems: dicts with at least `problem` and `answer`, such as `load_minimath` gives.
        prompt: a style of `render_prompt`, or a function from a problem's text to a prompt.
        method: "greedy", or a function `(model, tokenizer, prompts, *, max_new_tokens, seed) -> list[Answer]`, such as
            `functools.partial(self_consistency, num_samples=8)`.
        batch_size: how many problems the method gets at once; it changes speed and memory, and results by rounding.
        max_new_tokens: at most so many tokens for a completion.
        seed: for methods that draw at random. They are to draw for each prompt from the seed and that prompt, as
            `generate` does; then no result depends on the batches.
        results: a file for the records (JSON Lines), written as they come; problems that are in it already are not
            asked again. What it was made with stands beside it, in NAME.settings.json; a method is known there by its
            name, so give each its own, or a `functools.partial`.
        fallback: where there is no box: None for no answer, or "number" or "text" (see `extract_answer`).

    Raises ValueError if there are no problems, a field is missing, the prompt style or method is unknown, or `results`
    was made with other settings.
    """
    problems, seed = with_ids(problems), plain_seed(seed)
    ensure_at_least_one(batch_size=batch_size, max_new_tokens=max_new_tokens)
    extract_answer("", fallback)  # an unknown fallback is an error now, not after hours
    ask = prompt if callable(prompt) else functools.partial(render_prompt, style=prompt, tokenizer=tokenizer)
    solve = greedy if method == "greedy" else method
    if not callable(solve):
        raise ValueError(f"Unknown method {method!r}: use 'greedy' or a function.")
    limits = {"max_new_tokens": max_new_tokens, "seed": seed, "fallback": fallback}
    settings = named_settings(prompt=prompt, method=method, **limits)
    if results:
        # Two lambdas have the same name, so what the prompt makes of one text tells them apart.
        settings |= {"prompt_text": ask("Compute 1+1."), "model": fingerprint(model)}
    file = ResultsFile(results, settings)
    done = file.records_of(problems)
    to_do = [problem for problem in problems if problem["unique_id"] not in done]
    start = time.perf_counter() - file.seconds
    with progress_bar(len(problems), unit="problem", shown=progress, done=len(done)) as bar:
        for records in ask_in_batches(model, tokenizer, to_do, ask, solve, batch_size=batch_size, **limits):
            file.append(records, time.perf_counter() - start)
            done.update((record["unique_id"], record) for record in records)
            bar.update(len(records))
    return EvalResult([done[p["unique_id"]] for p in problems], time.perf_counter() - start, settings)
