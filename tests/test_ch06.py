"""Chapter 6: its recording is that of the shipped model, begins as the notebook does, and says what the text claims."""

import ast
import dataclasses
import sys

import pytest

from benchmarks import base, grpo_base
from course import ROOT
from shared import load_model
from shared.evaluation.statistics import mcnemar_p
from shared.model.fingerprint import fingerprint
from shared.support.jsonl import read_jsonl
from shared.tiny.corpus import generate_minimath
from tools.cells import code_cells, read_notebook

RECORDED = {row["part"]: row for row in read_jsonl(grpo_base.RESULTS)}


def notebook_settings() -> dict:
    cells = code_cells(read_notebook(ROOT / "ch06" / "ch06_main.ipynb"))
    statements = [node for cell in cells for node in ast.parse(cell.source).body]
    [value] = [
        node.value
        for node in statements
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SETTINGS"
    ]
    return ast.literal_eval(value)["tiny"]


def test_the_recorded_run_begins_as_the_notebook_s():
    settings = notebook_settings()
    steps = settings.pop("steps")
    recorded = RECORDED["correct, history"]["settings"]
    assert {name: recorded[name] for name in settings} == settings
    assert {name: getattr(grpo_base.CONFIG, name) for name in settings} == settings
    assert (recorded["seed"], recorded["prompt_style"]) == (0, "cot")
    assert f"correct, {steps} steps, cot" in RECORDED


def test_the_recording_is_of_the_shipped_model_and_of_fresh_problems():
    assert RECORDED["correct, history"]["weights"] == fingerprint(load_model("tiny")[0])
    problems = generate_minimath(1000, grpo_base.SEED)
    levels = "".join(str(p["level"]) for p in problems)
    rows = [row for row in RECORDED.values() if isinstance(row.get("right"), str)]
    assert len(rows) > 20
    assert all(row["levels"] == levels and len(row["right"]) == len(row["steps"]) == 1000 for row in rows)


def difference(first: str, second: str, source: dict[str, dict] = RECORDED) -> tuple[float, float]:
    """Points between two rows, and McNemar's p, counted here."""
    pairs = list(zip(source[first]["right"], source[second]["right"], strict=True))
    won, lost = pairs.count(("1", "0")), pairs.count(("0", "1"))
    return 100 * (won - lost) / len(pairs), mcnemar_p(won, lost)


def test_the_gains_that_chapter_6_claims():
    """Live and recorded run against the best of all prompts; the control for style; pass@k at every k."""
    untrained = [part for part, row in RECORDED.items() if isinstance(row.get("right"), str) and " steps, " not in part]
    best = max(untrained, key=lambda part: RECORDED[part]["right"].count("1"))
    assert len(untrained) == len(base.all_prompts()) + 2  # and the checks of two drafts
    assert 400 <= RECORDED[best]["right"].count("1") <= 600
    live = f"correct, {notebook_settings()['steps']} steps, cot"
    for first, second, points in (
        (live, best, 12),
        ("correct, 500 steps, cot", best, 20),
        ("correct, 150 steps, cot", "steps, 150 steps, cot", 5),
    ):
        found, p_value = difference(first, second)
        assert found >= points
        assert p_value < 0.001
    before, after = (sorted(RECORDED[f"pass@k, {name}"]["right"]) for name in ("untrained", "correct, 500 steps"))
    assert sum(count > 0 for count in after) > sum(count > 0 for count in before)
    assert sum(after) > sum(before)


def test_a_small_run_of_the_benchmark_goes_on_where_it_was(monkeypatch, tmp_path, capsys):
    small = dataclasses.replace(grpo_base.CONFIG, prompts_per_step=2, group_size=2, max_new_tokens=40)
    monkeypatch.setattr(grpo_base, "CONFIG", small)
    monkeypatch.setattr(grpo_base, "MEASURED", (1, 2))
    monkeypatch.setattr(base, "LIMIT", 40)
    monkeypatch.setattr(base, "POWERS", (1, 2))
    files = ["--out", str(tmp_path / "rows.jsonl"), "--runs", str(tmp_path / "runs")]
    for steps in ("1", "2"):
        monkeypatch.setattr(sys, "argv", ["grpo_base", "-n", "4", "--steps", steps, *files])
        grpo_base.main()
    out = capsys.readouterr().out
    rows = {row["part"]: row for row in read_jsonl(tmp_path / "rows.jsonl")}
    assert {"correct, 1 steps, cot", "correct, 2 steps, cot", "steps, 2 steps, cot", "pass@k, untrained"} <= set(rows)
    assert len(rows) == len(read_jsonl(tmp_path / "rows.jsonl"))
    assert "P* = " in out


def test_what_the_control_is_paid_for():
    problem = {"level": 2, "answer": "119"}
    for text, reward in (
        ("\n12+5=18\nThe answer is \\boxed{3}", 0.5),
        ("\n1=1\n2=2\n\\boxed{119}", 1.0),
        ("\n1=1\n1=1\n2=2\n3=3\n\\boxed{119}", 0.5),
        ("\n1=1\n2=2\n3=3\n4=4\n5=5\n\\boxed{119}", 0.0),
        ("\n12+5=17\n17*7=119", 0.0),
        (" \\boxed{119}", 0.0),
    ):
        assert grpo_base.reward_steps(text, problem) == pytest.approx(reward), text


TINY = ROOT / "shared" / "tiny"
NAMES = {
    "chain of thought": "cot",
    "**chain of thought, tag begun** (P*)": "cot, tag begun",
    '"Write down every single step and leave none out"': "every single step",
    '"Work slowly and carefully, one step a line"': "work carefully",
}


def table(page: str, first: str) -> list[list[str]]:
    """The rows of the table whose first line begins so."""
    lines = page.partition(first)[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_base_s_own_page_says_what_was_recorded():
    """The tables of what the base reached in shared/tiny/README.md, and the sentence below them."""
    page = (TINY / "README.md").read_text(encoding="utf-8")
    seeds = [{row["part"]: row for row in read_jsonl(TINY / f"base_seed{seed}.jsonl")} for seed in (0, 1)]
    assert seeds[0]["cot"]["key"].split()[0] == fingerprint(load_model("tiny")[0])
    rows = table(page, "| prompt | seed 0, problems 20711 |")
    assert len(rows) == 9
    for name, *values in rows:
        part = NAMES.get(name, name)
        for value, source in zip(values, (RECORDED, *seeds), strict=True):
            assert value.replace("*", "").split(" (")[0] == f"{percent(source, part):.1f}", (name, value)
    for name, value, gain in table(page, "| | seed 0 |"):
        part = f"{name}, cot, tag begun"
        assert value.split(" (")[0] == f"{percent(seeds[0], part):.1f}"
        points, p_value = difference(part, "cot, tag begun", seeds[0])
        assert gain == f"+{points:.1f}, p < 0.0001"
        assert p_value < 0.0001
    style = max(percent(RECORDED, part) for part in RECORDED if part.startswith("steps, ") and part.endswith(" cot"))
    reached = (percent(RECORDED, "correct, 125 steps, cot"), percent(RECORDED, "correct, 500 steps, cot"), style)
    told = "GRPO reaches {} % in 125 steps and {} % in 500, its control that is paid for the number of steps alone {} %"
    assert told.format(*reached) in " ".join(page.split())


def test_the_page_says_what_the_recipe_made_from_nothing():
    page = (TINY / "README.md").read_text(encoding="utf-8")
    rows = table(page, "| problems | |")
    assert len(rows) == 8
    for seed in (0, 1):
        recorded = read_jsonl(TINY / f"nothing_seed{seed}.jsonl")
        for problems, name, *told in rows:
            there = {row["part"]: row for row in recorded if f"/{problems}-" in row["key"]}
            best = "cot, tag begun"
            part = {"chain of thought": "cot", "chain of thought, tag begun (P*)": best, "direct": "direct"}.get(name)
            part = part or ("correct, 125 steps, cot" if "GRPO" in name else f"{name}, {best}")
            value, _, gain = told[seed].partition(", ")
            assert value == f"{percent(there, part):.1f}", (problems, name)
            if gain:
                points, p_value = difference(part, best, there)
                assert gain == f"+{points:.1f}", (problems, name)
                assert p_value < 0.001, (problems, name)
        log = [row for row in read_jsonl(TINY / f"nothing_seed{seed}_log.jsonl") if "accuracy" in row]
        for chunk, _, *shares in table(page, "| chunk | tokens | seed 0: direct |"):
            [scores] = [row["accuracy"] for row in log if row["chunk"] == int(chunk.partition(",")[0])]
            assert [float(each) for each in shares[2 * seed : 2 * seed + 2]] == [
                round(100 * scores[style]["all"]) for style in ("direct", "cot")
            ]


def percent(source: dict[str, dict], part: str) -> float:
    """Right answers of a recorded row, in per cent."""
    right = source[part]["right"]
    return round(100 * right.count("1") / len(right), 1)
