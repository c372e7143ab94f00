"""From a teacher's rows to examples: prompt, completion, and which tokens the loss falls on. Taught in ch08.

A row is a dict in one of three spellings:

    a teacher's row (`shared.teacher`)     problem, answer, thinking, content, correct, finish_reason
    the public sets                        problem, gtruth_answer, message_thinking, message_content
    a problem with its solution            problem, answer, solution
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.evaluation.data import read_rows
from shared.generation.completions import CUT_SHORT
from shared.generation.prompts import INSTRUCTIONS, render_prompt
from shared.grader.grading import extract_answer, grade
from shared.model.tokenizer import THINK_TAGS, Tokenizer

SPELLINGS = {
    "problem": ("problem",),
    "answer": ("answer", "gtruth_answer"),
    "thinking": ("thinking", "message_thinking"),
    "content": ("content", "message_content", "solution"),
}
REASONS = {
    "wrong": "wrong",
    "unfinished": "unfinished",
    "empty": "without content",
    "special": "with special tokens in the text",
    "duplicate": "there already",
    "too_long": "too long",
}
PromptStyle = str | Callable[[str], str]


@dataclass(frozen=True)
class SFTExample:
    """One text to learn: a prompt, which carries no loss, and a completion that ends with the end token."""

    problem: str
    prompt: str
    completion: str
    input_ids: list[int]  # of the prompt, the completion and the end token
    prompt_length: int  # how many of them are the prompt

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def completion_length(self) -> int:
        """Number of tokens that carry loss, the end token among them."""
        return len(self.input_ids) - self.prompt_length

    @property
    def completion_mask(self) -> list[bool]:
        """One value a token, True where it carries loss."""
        return [False] * self.prompt_length + [True] * self.completion_length


class SFTExamples(list[SFTExample]):
    """A list of examples. `dropped` says how many rows were left out, by reason (see `REASONS`)."""

    def __init__(self, examples: Iterable[SFTExample] = (), dropped: dict[str, int] | None = None):
        super().__init__(examples)
        self.dropped: Counter[str] = Counter(dropped or {})

    def summary(self) -> str:
        """What is there and what was left out, in one sentence."""
        text = f"{len(self):,} examples of {len({e.problem for e in self}):,} problems"
        left_out = [
            f"{self.dropped[reason]:,} {said}" for reason, said in REASONS.items() if self.dropped[reason]
        ]
        return text + (f"; left out: {', '.join(left_out)}" if left_out else "") + "."


# --- rows ---------------------------------------------------------------------------------------------------


def load_rows(path: Path | str) -> list[dict]:
    """The rows of a JSON (a list of objects) or JSON Lines file. Raises FileNotFoundError or ValueError."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: give the path of a JSON or JSON Lines file.")
    return read_rows(path)


@dataclass(frozen=True)
class _Solution:
    """A row with the course's names; `problem`, `thinking` and `content` have no white space around them."""

    problem: str
    thinking: str
    content: str
    answer: str | None
    correct: bool | None
    finish_reason: str | None

    def is_right(self) -> bool:
        """Whether the verifier accepts it; a teacher's row says so, others are graded now."""
        if self.correct is not None:
            return self.correct
        answer = extract_answer(self.content)
        return answer is not None and grade(answer, self.answer)


def _solution(row: dict, number: int, needs_answer: bool) -> _Solution:
    if not isinstance(row, dict):
        raise ValueError(f"Row {number} is no dictionary: give one with 'problem', 'answer' and 'content'.")
    found = {field: _first(row, names) for field, names in SPELLINGS.items()}
    if found["answer"] is None and "solution" in row:
        found["answer"] = extract_answer(row["solution"])
    needed = ("problem", "content", "answer") if needs_answer else ("problem", "content")
    for field, value in found.items():
        missing = value is None and field in needed
        if missing or not isinstance(value, str | None):
            names = " or ".join(map(repr, SPELLINGS[field]))
            raise ValueError(f"Row {number} has no text in the field {names}: add it.")
    if not found["problem"].strip() or (needs_answer and not found["answer"].strip()):
        raise ValueError(f"Row {number} has an empty problem or answer: fill it in, or delete the row.")
    texts = {field: (found[field] or "").strip() for field in ("problem", "thinking", "content")}
    correct = row.get("correct")
    return _Solution(
        **texts, answer=found["answer"], correct=correct if isinstance(correct, bool) else None,
        finish_reason=row.get("finish_reason"),
    )  # fmt: skip


def _first(row: dict, names: Iterable[str]) -> object:
    return next((row[name] for name in names if row.get(name) is not None), None)


# --- texts --------------------------------------------------------------------------------------------------


def sft_prompt(
    problem: str, tokenizer: Tokenizer, prompt_style: PromptStyle = "cot", with_thinking: bool = True
) -> str:
    """The prompt of an example, and the one to ask the student with afterwards.

    Args:
        prompt_style: a style of `render_prompt`; "chat" for the tokenizer's chat format, with the question and the
            instruction of "cot" as the user's message; or a function from a problem's text to a prompt.
        with_thinking: in the chat format, what the template is told as `enable_thinking`.

    Raises ValueError for an unknown style.
    """
    if callable(prompt_style):
        return prompt_style(problem)
    if prompt_style != "chat":
        return render_prompt(problem, prompt_style)
    question = f"{problem.strip()}\n{INSTRUCTIONS['cot']}"
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], enable_thinking=with_thinking
    )


def _completion(solution: _Solution, prompt: str, with_thinking: bool, think_tags: bool) -> str:
    """The text that is to follow the prompt, as the models of the Qwen3 family write it."""
    opening, closing = THINK_TAGS
    parts = [solution.content]
    if with_thinking and solution.thinking:
        thinking = f"{opening}\n{solution.thinking}\n{closing}" if think_tags else solution.thinking
        parts.insert(0, thinking)
    text = "\n\n".join(parts)
    if prompt.rstrip().endswith(opening):  # some chat templates open the thinking themselves
        text = text.removeprefix(f"{opening}\n")
    if prompt[-1:].isspace():
        return text
    # As in the texts that the tiny model has read: several lines begin on a new one, a single one does not.
    return ("\n" if "\n" in text else " ") + text


# --- examples -----------------------------------------------------------------------------------------------


def build_sft_examples(
    rows: Iterable[dict],
    tokenizer: Tokenizer,
    *,
    prompt_style: PromptStyle = "cot",
    with_thinking: bool = True,
    think_tags: bool = True,
    max_length: int = 512,
    only_correct: bool = True,
) -> SFTExamples:
    """Examples for supervised fine-tuning from solutions in any of the spellings above. Taught in ch08.

    What is left out, and counted in the result's `dropped`: solutions that the verifier rejects (rejection sampling,
    arXiv:2308.01825) or that were cut short, texts with special tokens other than `<think>` tags, which would end or
    break the example, the same solution of the same problem again, and examples of more than `max_length` tokens.
    Those are never cut: without its end, a solution has no answer and no end token, and the student learns to ramble.

    Args:
        prompt_style: how the problem is asked, see `sft_prompt`.
        with_thinking: False leaves the row's thinking out.
        think_tags: False writes the thinking without its tags, as plain text before the content.
        max_length: the most tokens of an example, prompt and end token included.
        only_correct: False keeps wrong solutions, not unfinished ones, and needs no gold answer.

    Raises:
        ValueError: a row lacks a field or has none of the right kind, or the prompt style is unknown.
    """
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}: give at least 1 token.")
    examples, seen = SFTExamples(), set()
    for number, row in enumerate(rows, start=1):
        solution = _solution(row, number, needs_answer=only_correct)
        example, reason = None, _fault(solution, only_correct)
        if reason is None:
            example = _example(solution, tokenizer, prompt_style, with_thinking, think_tags)
            reason = _fault_of_example(example, tokenizer, seen, max_length)
        if reason is None:
            examples.append(example)
            seen.add((example.problem, example.completion))
        else:
            examples.dropped[reason] += 1
    return examples


def _fault(solution: _Solution, only_correct: bool) -> str | None:
    """Why a solution is of no use, or None."""
    if not solution.content:
        return "empty"
    if solution.finish_reason in CUT_SHORT:
        return "unfinished"
    return "wrong" if only_correct and not solution.is_right() else None


def _example(
    solution: _Solution, tokenizer: Tokenizer, style: PromptStyle, with_thinking: bool, think_tags: bool
) -> SFTExample:
    prompt = sft_prompt(solution.problem, tokenizer, style, with_thinking)
    completion = _completion(solution, prompt, with_thinking, think_tags)
    # Encoded apart, as in generation: no token may reach from the prompt into the completion.
    prompt_ids = tokenizer.encode(prompt)
    ids = prompt_ids + tokenizer.encode(completion) + [tokenizer.eos_id]
    return SFTExample(solution.problem, prompt, completion, ids, len(prompt_ids))


def _fault_of_example(example: SFTExample, tokenizer: Tokenizer, seen: set, max_length: int) -> str | None:
    special = {i for token, i in tokenizer.special_tokens.items() if token not in THINK_TAGS}
    if special.intersection(example.input_ids[example.prompt_length : -1]):
        return "special"
    if (example.problem, example.completion) in seen:
        return "duplicate"
    return "too_long" if len(example) > max_length else None


def split_examples(
    examples: Sequence[SFTExample], validation: float = 0.1, seed: int = 0
) -> tuple[SFTExamples, SFTExamples]:
    """Split into examples to train on and to validate with, so that no problem is on both sides.

    The share `validation` of the problems, at least one, goes to the second part: those whose texts come first in the
    order of their hashes, so that neither the order of the examples nor the machine matters.

    Raises ValueError for a share outside 0 to 1 (exclusive), or fewer than two problems.
    """
    problems = sorted({example.problem for example in examples}, key=lambda text: _hash(f"{seed}-{text}"))
    if not 0 < validation < 1 or len(problems) < 2:
        raise ValueError(
            f"A share of {validation} of {len(problems)} problems is no split: give a share between 0 and 1, and at "
            "least two problems."
        )
    count = min(max(1, round(validation * len(problems))), len(problems) - 1)
    chosen = set(problems[:count])
    train = SFTExamples(example for example in examples if example.problem not in chosen)
    return train, SFTExamples(example for example in examples if example.problem in chosen)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
