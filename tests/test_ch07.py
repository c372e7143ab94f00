"""Chapter 7: its recordings are whole and are those of the benchmarks that made them."""

import json
import sys

import pytest

from benchmarks import grpo_ablation as ablation
from benchmarks import grpo_broken_runs as broken
from shared.checks.ch07 import DIAGNOSES
from shared.support.jsonl import append_jsonl, read_jsonl

SMALL = {"steps": 1, "prompts_per_step": 2, "group_size": 2, "max_new_tokens": 20}
ROWS = read_jsonl(ablation.RESULTS)


def test_every_variant_was_run_with_the_same_three_seeds_or_more():
    seeds = {name: {row["seed"] for row in ROWS if row["variant"] == name} for name in ablation.VARIANTS}
    assert len(seeds["grpo"]) >= 3
    assert all(found == seeds["grpo"] for found in seeds.values())
    assert len(ROWS) == sum(map(len, seeds.values())), "each run once, and no others"


def test_the_recordings_have_the_benchmark_s_settings_and_one_base_model():
    for row in ROWS:
        variant = ablation.VARIANTS[row["variant"]]
        assert (row["settings"], row["base_settings"]) == (variant.changes, ablation.BASE)
        assert row["baseline"] == variant.baseline
    assert len({row["weights"] for row in ROWS}) == 1


def test_the_recordings_are_whole():
    for row in ROWS:
        assert row["n"] == len(row["correct"]) == 500
        assert row["accuracy"] == pytest.approx(row["correct"].count("1") / 500)
        steps = ablation.VARIANTS[row["variant"]].config(row["seed"]).steps
        curves = [row["curves"][key] for key in ("reward_mean", "length_mean", "no_signal") if key in row["curves"]]
        assert {len(curve) for curve in curves} == ({steps} if steps else set())


def test_a_variant_changes_one_thing_against_its_baseline():
    for name, variant in ablation.VARIANTS.items():
        if variant.baseline is not None:
            base = ablation.VARIANTS[variant.baseline].config(0)
            assert variant.config(0) != base, name
            assert ablation.VARIANTS[variant.baseline].baseline is None


def test_a_run_gives_one_row_as_json_holds_it():
    row = ablation.run("kl k3", seed=1, problems=3, **SMALL)
    assert json.loads(json.dumps(row)) == row
    assert (row["variant"], row["seed"], row["n"]) == ("kl k3", 1, 3)
    assert len(row["curves"]["kl_ref"]) == len(row["curves"]["reward_mean"]) == 1
    assert row["kl_base"] >= 0
    assert "kl k3" in ablation.summary(row)


def test_what_was_run_is_not_run_again(tmp_path):
    path = tmp_path / "runs.jsonl"
    assert list(ablation.missing(path, ["grpo", "no std"], [0])) == [("grpo", 0), ("no std", 0)]
    weights = ablation.fingerprint(ablation.load_model("tiny")[0])
    row = {"variant": "grpo", "seed": 0, "settings": {}, "base_settings": ablation.BASE, "weights": weights}
    append_jsonl(path, [row])
    assert list(ablation.missing(path, ["grpo", "no std"], [0, 1])) == [("grpo", 1), ("no std", 0), ("no std", 1)]
    append_jsonl(path, [row | {"variant": "no std", "settings": {"advantage": "dr_grpo"}, "weights": "others"}])
    assert ("no std", 0) in list(ablation.missing(path, ["no std"], [0])), "another base model is another run"


def test_the_list_of_variants(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["grpo_ablation", "--list"])
    ablation.main()
    assert capsys.readouterr().out.count("\n") == len(ablation.VARIANTS)


def test_the_five_runs_of_the_exercise_can_be_told_apart():
    """Exercise 7.5: each run has the sign that its diagnosis names."""
    runs = {row["run"]: row["curves"] for row in read_jsonl(broken.RESULTS)}
    assert set(runs) == set(DIAGNOSES) == set(broken.RUNS)

    def end(name: str, key: str) -> float:
        return sum(runs[name][key][-4:]) / 4

    accuracy = {name: (curves["eval_accuracy"][0], curves["eval_accuracy"][-1]) for name, curves in runs.items()}
    assert runs["A"]["truncated"][0] > 0.5
    assert max(runs["A"]["length_mean"]) < 7
    assert end("A", "reward_mean") < 0.15
    assert end("B", "reward_mean") > runs["B"]["reward_mean"][0] + 1
    assert accuracy["B"][1] < accuracy["B"][0] - 0.1
    assert accuracy["C"][1] > accuracy["C"][0] + 0.05
    assert not any(runs["D"]["reward_mean"])
    assert accuracy["D"][1] == accuracy["D"][0]
    assert runs["E"]["reward_mean"][0] > 0.2
    assert end("E", "reward_mean") < 0.1
    assert accuracy["E"][1] < 0.1


def test_a_broken_run_is_recorded(monkeypatch):
    monkeypatch.setattr(broken, "BASE", broken.BASE | SMALL | {"max_new_tokens": 20})
    problems = broken.load_minimath("test")[:2]
    row = broken.record("D", 2, 1, problems)
    assert row["steps"] == [1, 2]
    assert row["eval_steps"] == [0, 1, 2]
    assert {len(values) for key, values in row["curves"].items() if key != "eval_accuracy"} == {2}
