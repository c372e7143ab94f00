"""From a teacher's rows to examples: prompt, completion, and which tokens the loss falls on. Taught in ch08."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shared.distillation.rows import Solution, read_solution
from shared.generation.prompts import opened_thinking, render_prompt
from shared.model.tokenizer import THINK_TAGS, Tokenizer

PromptStyle = str | Callable[[str], str]


@dataclass(frozen=True)
class SFTExample:
    """One text to learn: `prompt_length` tokens without loss, then the completion's and the end token, with it.

    Taught in ch08, section 8.4.
    """

    problem: str
    prompt: str
    completion: str
    input_ids: list[int]
    prompt_length: int

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


def make_example(problem: str, prompt: str, completion: str, tokenizer: Tokenizer) -> SFTExample:
    """Encode prompt and completion apart, as generation does; the end token ends it. Taught in ch08, section 8.4."""
    prompt_ids = tokenizer.encode(prompt)
    ids = [*prompt_ids, *tokenizer.encode(completion, continues=True), tokenizer.eos_id]
    return SFTExample(problem, prompt, completion, ids, len(prompt_ids))


def chat_question(problem: str, prompt: PromptStyle) -> str:
    """The user's message that asks for a solution: the text of a style of `render_prompt`, or a function's."""
    if callable(prompt):
        return prompt(problem)
    return render_prompt(problem, prompt).removeprefix("Problem: ").removesuffix("\nAnswer:")


def sft_prompt(
    problem: str, tokenizer: Tokenizer, prompt_style: PromptStyle = "cot", with_thinking: bool = True
) -> str:
    """The prompt of an example, and the one to ask the student with afterwards. Taught in ch08, section 8.4.

    `prompt_style`: a style of `render_prompt`; "chat" for the tokenizer's chat format around the question of "cot", its
    `enable_thinking` being `with_thinking`; or a function from a problem to a prompt.
    """
    if callable(prompt_style):
        return prompt_style(problem)
    if prompt_style != "chat":
        return render_prompt(problem, prompt_style, tokenizer)
    question = {"role": "user", "content": chat_question(problem, "cot")}
    return tokenizer.apply_chat_template([question], enable_thinking=with_thinking)


def sft_completion(prompt: str, thinking: str, content: str, think_tags: bool = True) -> str:
    """The text that is to follow the prompt, in the form of the Qwen3 family. Taught in ch08, section 8.4.

    As in the texts that the tiny model has read, several lines begin on a new one, and a single one does not.
    """
    opening, closing = THINK_TAGS
    start = "" if opened_thinking(prompt) else f"{opening}\n"  # what the prompt has opened must be closed
    if not start or (thinking and think_tags):
        thinking = f"{start}{thinking}\n{closing}"
    text = f"{thinking}\n\n{content}" if thinking else content
    if prompt[-1:].isspace():
        return text
    return ("\n" if "\n" in text else " ") + text


REASONS = {
    "wrong": "wrong",
    "unfinished": "unfinished",
    "empty": "without content",
    "special": "with special tokens in the text",
    "duplicate": "there already",
    "too_long": "too long",
}


class SFTExamples(list[SFTExample]):
    """A list of examples. `dropped` counts the rows that were left out, by reason (see `REASONS`)."""

    def __init__(self, examples: Iterable[SFTExample] = ()):
        super().__init__(examples)
        self.dropped: Counter[str] = Counter()

    def summary(self) -> str:
        """What is there and what was left out, in one sentence."""
        text = f"{len(self):,} examples of {len({e.problem for e in self}):,} problems"
        left_out = [f"{self.dropped[name]:,} {said}" for name, said in REASONS.items() if self.dropped[name]]
        return text + (f"; left out: {', '.join(left_out)}" if left_out else "") + "."


def why_dropped(
    solution: Solution, example: SFTExample, tokenizer: Tokenizer, only_correct: bool, max_length: int
) -> str | None:
    """Why a solution makes no example (see `REASONS`), or None. Taught in ch08, section 8.4."""
    special = {i for token, i in tokenizer.special_tokens.items() if token not in THINK_TAGS}
    opened, closed = map((opened_thinking(example.prompt) + example.completion).count, THINK_TAGS)
    if not solution.content:
        return "empty"
    if solution.finish_reason not in ("stop", None):  # public sets have None; any other end is none
        return "unfinished"
    if only_correct and not solution.is_right():
        return "wrong"
    if opened != closed or closed > 1 or special.intersection(example.input_ids[example.prompt_length : -1]):
        return "special"
    return "too_long" if len(example) > max_length else None


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
    """Examples for supervised fine-tuning from rows in any spelling of `shared.distillation.rows`.

    Left out, and counted in the result's `dropped`: solutions that the verifier rejects (rejection sampling,
    arXiv:2308.01825) or that were cut short, texts with special tokens other than one pair of think tags, the same
    solution of the same problem again, and examples of more than `max_length` tokens, which are never cut: a solution
    without its end teaches the student to ramble. Taught in ch08, section 8.4.

    Args:
        prompt_style: how the problem is asked, see `sft_prompt`.
        with_thinking, think_tags: False leaves out the row's thinking, or the tags around it.
        only_correct: False keeps wrong solutions, not unfinished ones, and needs no gold answer.

    Raises ValueError for a row that lacks a field or has one of another kind, and for an unknown prompt style.
    """
    if max_length < 1:
        raise ValueError(f"max_length is {max_length}: give at least 1 token.")
    examples, seen = SFTExamples(), set()
    for number, row in enumerate(rows, start=1):
        solution = read_solution(row, number, needs_answer=only_correct)
        prompt = sft_prompt(solution.problem, tokenizer, prompt_style, with_thinking)
        thinking = solution.thinking if with_thinking else ""
        completion = sft_completion(prompt, thinking, solution.content, think_tags)
        example = make_example(solution.problem, prompt, completion, tokenizer)
        reason = why_dropped(solution, example, tokenizer, only_correct, max_length)
        if reason is None and (solution.problem, completion) in seen:
            reason = "duplicate"
        if reason is None:
            examples.append(example)
            seen.add((solution.problem, completion))
        else:
            examples.dropped[reason] += 1
    return examples


def split_examples(
    examples: Sequence[SFTExample], validation: float = 0.1, seed: int = 0
) -> tuple[SFTExamples, SFTExamples]:
    """Examples to train on, and those of the share `validation` of the problems, at least one, to validate with.

    The hashes of the problems' texts say which. Taught in ch08, section 8.6. Raises ValueError for an empty part.
    """
    problems = {example.problem for example in examples}
    problems = sorted(problems, key=lambda problem: hashlib.sha256(f"{seed}-{problem}".encode()).digest())
    if not 0 < validation < 1 or len(problems) < 2:
        found = f"A share of {validation} of {len(problems)} problems is no split"
        raise ValueError(f"{found}: give a share between 0 and 1, and at least two problems.")
    count = min(max(1, round(validation * len(problems))), len(problems) - 1)
    chosen = set(problems[:count])
    train = SFTExamples(example for example in examples if example.problem not in chosen)
    return train, SFTExamples(example for example in examples if example.problem in chosen)
