"""The prompts of the course: one question, several ways to ask it. Taught in ch03, section 3.9, and ch04."""

BOX = "\\boxed{}"
INSTRUCTIONS = {
    "direct": f"Answer in {BOX}.",
    "cot": f"Explain step by step, then answer in {BOX}.",
    "think": f"Think inside <think> tags, then answer in {BOX}.",
}


def render_prompt(problem: str, style: str = "direct") -> str:
    """The text that asks a base model to solve `problem`.

    Styles: "direct" asks for the answer only, "cot" for a chain of thought before it (arXiv:2201.11903), "think"
    for the thinking between `<think>` tags. Raises ValueError for another style, or a problem that is no text or empty.
    """
    if style not in INSTRUCTIONS:
        raise ValueError(f"Unknown prompt style {style!r}: choose one of {', '.join(INSTRUCTIONS)}.")
    if not isinstance(problem, str):
        raise ValueError("render_prompt takes the problem's text: pass problem['problem'].")
    if not problem.strip():
        raise ValueError("The problem is empty: give its text.")
    return f"Problem: {problem.strip()}\n{INSTRUCTIONS[style]}\nAnswer:"


def render_revision_prompt(problem: str, draft: str) -> str:
    """The text that asks to check a draft answer, step by step, and to revise it (self-refinement)."""
    return f"Problem: {problem.strip()}\nDraft:{draft.rstrip()}\nCheck the draft, then answer in {BOX}.\nCheck:"
