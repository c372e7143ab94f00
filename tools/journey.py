"""What one call runs through: files, functions and lines of `shared/`, watched on real calls.

    python -m tools.journey                     the table
    python -m tools.journey "GRPO step"         the functions of one journey, file by file

Lines are those that somebody reads who follows the call: the code of every function that was called, without
docstrings, comments and blank lines. The inside of the grader is a library of its own and is left out.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType

from course import ROOT

SHARED = ROOT / "shared"
LEFT_OUT = ("grader",)
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Journey:
    """The functions that a call ran, by file (relative to `shared/`), and how many lines of code they have."""

    functions: dict[str, list[str]]
    lines: dict[str, int]

    def __str__(self) -> str:
        number = sum(map(len, self.functions.values()))
        return f"{len(self.functions)} files, {number} functions, {sum(self.lines.values())} lines"


def travel(call: Callable[[], object]) -> Journey:
    """Make a call and note which functions of `shared/` it runs."""
    seen: set[CodeType] = set()

    def note(frame, event, argument) -> None:
        if event == "call":
            seen.add(frame.f_code)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    starts: dict[Path, set[int]] = {}
    for code in seen:
        path = Path(code.co_filename)
        if path.is_relative_to(SHARED) and path.relative_to(SHARED).parts[0] not in LEFT_OUT:
            starts.setdefault(path, set()).add(code.co_firstlineno)
    functions, lines = {}, {}
    for path, first_lines in sorted(starts.items()):
        called = [function for first, function in functions_of(path).items() if first in first_lines]
        if called:
            name = path.relative_to(SHARED).as_posix()
            functions[name] = [function.name for function in called]
            lines[name] = len(set().union(*(span(function) for function in called)) & code_lines(path))
    return Journey(functions, lines)


@cache
def functions_of(path: Path) -> dict[int, ast.FunctionDef]:
    """The functions and methods of a file by their first line, that of a decorator if they have one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {min(span(function)): function for function in found}


def span(function: ast.FunctionDef) -> range:
    """The numbers of a function's lines, its decorators' among them."""
    first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
    return range(first, function.end_lineno + 1)


@cache
def code_lines(path: Path) -> frozenset[int]:
    """The numbers of the lines that hold code: no docstring, no comment, not blank."""
    text = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return frozenset(lines)


def journeys() -> dict[str, Callable[[], object]]:
    """The calls to watch, ready to be made, on the tiny model."""
    from shared import GRPOConfig, GRPOTrainer, evaluate, generate, load_minimath, load_model, render_prompt

    model, tokenizer = load_model("tiny")
    problems = load_minimath("train")[:40]
    prompt = render_prompt(problems[0]["problem"], "cot")
    config = GRPOConfig(steps=1, prompts_per_step=4, group_size=4, max_new_tokens=60)
    trainer = GRPOTrainer(load_model("tiny")[0], tokenizer, problems, config=config, progress=False)
    return {
        "generate": lambda: generate(model, tokenizer, prompt, max_new_tokens=20),
        "evaluate": lambda: evaluate(model, tokenizer, problems[:4], prompt="cot", max_new_tokens=60),
        "GRPO step": trainer.train,
    }


def main(names: list[str]) -> None:
    """Print the table, or the functions of the journeys with these names."""
    for name, call in journeys().items():
        if names and name not in names:
            continue
        journey = travel(call)
        print(f"{name:10} {journey}")
        for path, functions in journey.functions.items() if names else ():
            print(f"    {path:30} {journey.lines[path]:4} lines  {', '.join(functions)}")


if __name__ == "__main__":
    main(sys.argv[1:])
