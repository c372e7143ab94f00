"""Chapter 6: the benchmark of its training repeats what the notebook does."""

import ast
import dataclasses
import sys

from benchmarks import grpo_seeds
from course import ROOT
from tools.cells import code_cells, read_notebook


def notebook_settings() -> dict:
    cells = code_cells(read_notebook(ROOT / "ch06" / "ch06_main.ipynb"))
    statements = [node for cell in cells for node in ast.parse(cell.source).body]
    [value] = [
        node.value
        for node in statements
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SETTINGS"
    ]
    return ast.literal_eval(value)["tiny"]


def test_the_benchmark_trains_with_the_notebook_s_settings():
    settings = notebook_settings()
    assert {name: getattr(grpo_seeds.CHAPTER, name) for name in settings} == settings
    assert grpo_seeds.CHAPTER.prompt_style == "cot"


def test_the_benchmark_reports_accuracy_and_both_tests_for_each_seed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["grpo_seeds", "--seeds", "3", "4", "--steps", "1", "--problems", "6"])
    small = dataclasses.replace(grpo_seeds.CHAPTER, prompts_per_step=2, group_size=2, max_new_tokens=40)
    monkeypatch.setattr(grpo_seeds, "CHAPTER", small)
    grpo_seeds.main()
    out = capsys.readouterr().out
    assert out.count("untrained") == 2
    for seed in (3, 4):
        assert f"\nseed {seed}: " in out
    assert out.count("  paired: ") == out.count("  control: ") == 2
    assert out.count("1 steps in") == 2
