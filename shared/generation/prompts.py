"""The prompts of the course: one question, several ways to ask it. Taught in ch03, section 3.9, and ch04."""

from typing import NamedTuple

from shared.model.tokenizer import THINK_TAGS, Tokenizer

BOX = "\\boxed{}"
INSTRUCTIONS = {
    "direct": f"Answer in {BOX}.",
    "cot": f"Explain step by step, then answer in {BOX}.",
    "think": f"Think inside <think> tags, then answer in {BOX}.",
}


def render_prompt(problem: str, style: str = "direct", tokenizer: Tokenizer | None = None) -> str:
    """The text that asks a model to solve `problem`: plain for a base model, in its chat format for a chat model.

    Styles: "direct" asks for the answer only, "cot" for a chain of thought before it (arXiv:2201.11903), "think"
    for the thinking between `<think>` tags. The tokenizer knows which form is right (`Tokenizer.is_chat`); without one
    it is the plain form. Where a chat format has a switch for thinking, it is on in the style "think" alone.
    Raises ValueError for another style, or a problem that is no text or empty.
    """
    if style not in INSTRUCTIONS:
        raise ValueError(f"Unknown prompt style {style!r}: choose one of {', '.join(INSTRUCTIONS)}.")
    if not isinstance(problem, str):
        raise ValueError("render_prompt takes the problem's text: pass problem['problem'].")
    if not problem.strip():
        raise ValueError("The problem is empty: give its text.")
    question = f"Problem: {problem.strip()}\n{INSTRUCTIONS[style]}"
    if tokenizer is None or not tokenizer.is_chat:
        return f"{question}\nAnswer:"
    return tokenizer.apply_chat_template([{"role": "user", "content": question}], enable_thinking=style == "think")


def render_revision_prompt(problem: str, draft: str, tokenizer: Tokenizer | None = None) -> str:
    """The text that asks to check a draft answer, step by step, and to revise it (self-refinement).

    A chat model is asked in the turn after its draft.
    """
    question, task = f"Problem: {problem.strip()}", f"Check the draft, then answer in {BOX}."
    if tokenizer is None or not tokenizer.is_chat:
        return f"{question}\nDraft:{draft.rstrip()}\n{task}\nCheck:"
    turns = (("user", f"{question}\n{INSTRUCTIONS['cot']}"), ("assistant", draft.strip()), ("user", task))
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(messages, enable_thinking=False)


def opened_thinking(prompt: str) -> str:
    """The tag `<think>` where a prompt ends with it, as those of some chat templates do; else an empty text."""
    return "<think>" if prompt.rstrip().endswith("<think>") else ""


class Parts(NamedTuple):
    """A text in two: the thinking and the answer. `still_thinking`: the thinking has not been closed (yet)."""

    thinking: str
    answer: str
    still_thinking: bool


def split_thinking(text: str, opened: bool | None = None) -> Parts:
    """Separate what a model thinks from what it answers. Taught in ch08, section 8.3.

    Only a `<think>` at the start opens the thinking: further on, a model may talk about the tag.

    Args:
        opened: whether the prompt ends with `<think>`, as those of some chat templates do. If None, nobody knows, and a
            `</think>` without an opening tag before it says so.
    """
    start, end = THINK_TAGS
    text = text.lstrip()
    if opened is None:
        opened = end in text and start not in text.partition(end)[0]
    if not opened and not text.startswith(start):
        return Parts("", text.rstrip(), False)
    thinking, closed, answer = (text if opened else text.removeprefix(start)).partition(end)
    return Parts(thinking.strip(), answer.strip(), not closed)
