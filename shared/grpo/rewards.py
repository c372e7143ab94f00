r"""Rewards that a program can verify: callables (completion_text, problem) -> float. Taught in ch06 and ch07.

A reward of your own is any such function; it must return a finite number for whatever text a model may write.
"""

from shared.grader.grading import extract_answer, grade


def reward_correct(text: str, problem: dict) -> float:
    r"""1.0 if the last `\boxed{...}` in the text is the problem's `answer` by `grade`, else 0.0.

    Without a box there is no reward, even where the right number stands in the text: a reader of the answer could not
    tell which number is meant. Never raises on any text, and never runs it. Taught in ch06, section 6.4.
    """
    answer = extract_answer(text)
    return float(answer is not None and grade(answer, problem["answer"]))


def reward_format(text: str, problem: dict) -> float:
    r"""1.0 if the text is `<think>`, some thinking, `</think>`, then a text with a `\boxed{...}`; else 0.0.

    Strict: each tag occurs once, nothing but white space stands before the first, the thinking is not empty, and the
    box comes after the thinking. What the thinking is made of does not matter: `a < b` in it is fine. The answer need
    not be right, so `problem` is not looked at. Never raises on any text. After DeepSeek-R1's format reward
    (arXiv:2501.12948). Taught in ch07, section 7.6.
    """
    before, _, rest = str(text).partition("<think>")
    thinking, closed, after = rest.partition("</think>")
    tags_once = closed and "<think>" not in rest and "</think>" not in after
    return float(
        bool(tags_once and not before.strip() and thinking.strip()) and extract_answer(after) is not None
    )
