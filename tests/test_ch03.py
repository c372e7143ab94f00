"""Chapter 3's small parser, which the reader writes: no text may make it work without bound."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from shared.evaluation.data import load_math500
from tools.cells import code_cells, read_notebook

PARTS = ("TOKEN = re.compile", "class SmallParser", "def same_value", "def one_spelling", "def small_grade")
HOSTILE = [
    "9^9^9^9",
    "((9^50)^50)^50",
    "24^{0.51999999}",
    r"(24^{0.51999999/π})^{π}",
    "(9x^{0.001})^{50000}",
    "((((((((x+1)^7+1)^7+1)^7+1)^7+1)^7+1)^7+1)^7+1)^7",
    r"\sqrt{" * 19 + "24",
    r"\sqrt{\sqrt{\sqrt{\sqrt{999999999999999999999999999989}}}}^50",
    "(" * 60,
    "1/(" * 19 + "x",
]


def random_texts(count: int) -> list[str]:
    """Expressions of the small grammar, a few levels deep."""
    rng = random.Random(3)

    def expression(depth: int) -> str:
        if depth == 0 or rng.random() < 0.2:
            return rng.choice(["1", "2", "7", "24", "0.51", "50", "x", "y", "π", "9" * 29])
        a, b = expression(depth - 1), expression(depth - 1)
        return rng.choice(
            [f"({a}{rng.choice('+-*/')}{b})", f"({a})^{{{rng.choice(['2', '-3', '50', '0.5', b])}}}",
             rf"\sqrt{{{a}}}", rf"\frac{{{a}}}{{{b}}}"]
        )  # fmt: skip

    return [expression(rng.randint(1, 6)) for _ in range(count)]


def run_with_the_parser(root, lines: list[str]) -> str:
    """What a program prints that begins with the cells of the parser and the small grader."""
    cells = [cell.source for cell in code_cells(read_notebook(root / "ch03" / "ch03_main.ipynb"))]
    code = [next(source for source in cells if part in source) for part in PARTS]
    program = "\n\n".join(["import re", *dict.fromkeys(code), *lines])
    ran = subprocess.run([sys.executable, "-"], input=program, text=True, check=True, timeout=120, capture_output=True)
    return ran.stdout


def test_the_reader_s_parser_is_bounded(root):
    texts = HOSTILE + random_texts(1_000)
    run_with_the_parser(root, [f"for text in {texts!r}:", "    small_grade(text, '1')"])


def test_the_reader_s_parser_reads_as_many_answers_of_math_500_as_the_text_says(root, test_data):
    path = test_data / "math500_test.json"
    if not path.exists():
        pytest.skip("math500_test.json is not among the optional test data")
    answers = [problem["answer"] for problem in load_math500(path)]
    cells = [cell.source for cell in code_cells(read_notebook(root / "ch03" / "ch03_main.ipynb"))]
    reads = next(source for source in cells if "def small_parser_reads" in source)
    reads = reads[reads.index("def small_parser_reads") : reads.index("\n\n\nread = ")]
    printed = run_with_the_parser(root, [reads, f"print(sum(map(small_parser_reads, {answers!r})))"])
    said = [f"this parser reads {printed.split()[-1]} ", f"Of the {len(answers)} known answers of MATH-500"]
    text = " ".join(cell.source for cell in read_notebook(root / "ch03" / "ch03_main.ipynb").cells)
    assert all(each in text for each in said), printed
