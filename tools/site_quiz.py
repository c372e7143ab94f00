"""The quiz of chapter 1 on its page: the cells become boxes to write into, which `site/static/course.js` checks.

The right answers are those that the notebook gives; hints and reasons are those of `shared/checks/ch01.py`, which is
read and not run, since building the pages needs no torch.
"""

from __future__ import annotations

import ast
import json
import re
from html import escape
from pathlib import Path

NOTEBOOK = "ch01/ch01_main.ipynb"
CHECKS = "shared/checks/ch01.py"
CELL = re.compile(r"answer = \.\.\.(?:  # (?P<form>.+))?\ncheck\(\"(?P<number>[\d.]+)\", answer\)")
IN_JUPYTER = re.compile(r"Put your answer in place of.*", re.DOTALL)
ON_THE_PAGE = "Write your answer and press *Check*: it says whether the answer is right and why, or gives a hint."


def answers(sources: list[str]) -> dict[str, object]:
    """The right answers by question, from the fold-out at the end of the quiz."""
    folded = next((source for source in sources if "<details>" in source), "")
    code = re.search(r"```python\n(.*?)```", folded, re.DOTALL)
    found = ast.parse(code[1]).body if code else []
    return {"1." + line.targets[0].id.removeprefix("answer_"): ast.literal_eval(line.value) for line in found}


def remarks(root: Path) -> dict[str, tuple[str, str]]:
    """For each question its hint, and why the right answer is right."""
    found = {}
    for node in ast.parse((root / CHECKS).read_text(encoding="utf-8")).body:
        for call in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
            named = {each.arg: each.value.value for each in call.keywords}
            found[call.args[0].value] = (named["hint"], node.body[-1].value.value)
    return found


def parts(answer: object, form: str) -> dict[str, object]:
    """An answer of several parts by what they are called; one of a single part stands under an empty name."""
    if isinstance(answer, dict):
        return answer
    if isinstance(answer, tuple):
        return dict(zip(re.search(r"\((.+?)\)", form)[1].split(", "), answer, strict=True))
    return {"": answer}


def question(number: str, form: str, answer: object, hint: str, why: str) -> str:
    """The HTML of one question's boxes, on one line, so that Markdown takes it for a single block."""
    boxes = []
    for name, right in parts(answer, form).items():
        label = f"Your answer to question {number}" + (f": {name}" if name else "")
        data = escape(json.dumps(right))
        boxes.append(f'<label>{escape(label)} <input autocomplete="off" data-answer="{data}"></label>')
    several = len(boxes) > 1 or not form
    note = "" if several else f' <span class="form">({escape(form)})</span>'
    data = f'data-hint="{escape(hint)}" data-why="{escape(why)}"'
    button = '<button type="submit">Check</button> <output></output>'
    return f'<form class="quiz" {data}>{" ".join(boxes)}{note} {button}</form>'


def with_boxes(cells: list[dict], root: Path) -> None:
    """Put boxes in the place of the cells of the quiz. Raises KeyError for a question without answer or remarks."""
    sources = ["".join(cell["source"]) for cell in cells]
    right, said = answers(sources), remarks(root)
    for cell, source in zip(cells, sources, strict=True):
        found = CELL.search(source) if cell["cell_type"] == "code" else None
        if found:
            number = found["number"]
            boxes = question(number, found["form"] or "", right[number], *said[number])
            cell.clear()
            cell.update(cell_type="markdown", id=f"question-{number.replace('.', '-')}", metadata={}, source=boxes)
        elif cell["cell_type"] == "markdown" and " Quiz\n" in source:
            cell["source"] = IN_JUPYTER.sub(ON_THE_PAGE, source)
