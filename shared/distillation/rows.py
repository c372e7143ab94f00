"""The rows that examples are made of: a teacher's, those of public sets, or problems with a solution. Used by ch08."""

from dataclasses import dataclass

from shared.evaluation.data import ensure_answer
from shared.generation.prompts import split_thinking
from shared.grader.grading import extract_answer, grade

SPELLINGS = {  # of `shared.teacher`, of the public sets, of a problem with its solution
    "problem": ("problem",), "answer": ("answer", "gtruth_answer"), "thinking": ("thinking", "message_thinking"),
    "content": ("content", "message_content", "solution"),
}  # fmt: skip


@dataclass(frozen=True)
class Solution:
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


def read_solution(row: dict, number: int, needs_answer: bool) -> Solution:
    """The solution in a row. Raises ValueError, with the row's number, for one that lacks something."""
    if not isinstance(row, dict):
        raise ValueError(f"Row {number} is no dictionary: give one with 'problem', 'answer' and 'content'.")
    found = {
        field: next((row[name] for name in names if row.get(name) is not None), None)
        for field, names in SPELLINGS.items()
    }
    if found["answer"] is None and "solution" in row:
        found["answer"] = extract_answer(row["solution"])
    needed = {"problem", "content", "answer"} if needs_answer else {"problem", "content"}
    for field, value in found.items():
        if not isinstance(value, str if field in needed else str | None):
            names = " or ".join(map(repr, SPELLINGS[field]))
            raise ValueError(f"Row {number} has no text in the field {names}: add it.")
    if not found["problem"].strip() or (needs_answer and not found["answer"].strip()):
        raise ValueError(f"Row {number} has an empty problem or answer: fill it in, or delete the row.")
    if needs_answer:
        ensure_answer(found["answer"], f"Row {number}")
    more, content, _ = split_thinking(found["content"])
    thinking = "\n\n".join(filter(None, ((found["thinking"] or "").strip(), more)))
    correct = row.get("correct") if isinstance(row.get("correct"), bool) else None
    return Solution(found["problem"].strip(), thinking, content, found["answer"], correct, row.get("finish_reason"))
