"""What a teacher wrote: the thinking apart from the content, and the verdict on it. Taught in ch08, section 8.3."""

from dataclasses import dataclass

from shared.generation.completions import Completion
from shared.generation.prompts import split_thinking
from shared.grader.grading import extract_answer, grade


@dataclass(frozen=True)
class Reply:
    """One answer of a teacher, its thinking apart. The counts of tokens are None where they are not known."""

    thinking: str
    content: str
    finish_reason: str
    prompt_tokens: int | None = None
    tokens: int | None = None


def make_reply(completion: Completion, prompt_tokens: int) -> Reply:
    """The reply that a completion of one of our models is. Taught in ch08, section 8.3."""
    thinking, content, _ = split_thinking(completion.text)
    return Reply(thinking, content, completion.finish_reason, prompt_tokens, len(completion.token_ids))


def make_row(problem: dict, sample: int, reply: Reply, model: str) -> dict:
    """What is written down of an answer, graded; `answer` is the gold one. Taught in ch08, section 8.3."""
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


def is_kept(row: dict) -> bool:
    """Whether a student may learn from a row: right, and ended by the teacher itself. Taught in ch08, section 8.3."""
    return row["correct"] and row["finish_reason"] == "stop"
