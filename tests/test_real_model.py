"""The benchmark of a real chat model: every way of asking on a small model, and what was recorded of the real one."""

import json
import random

import pytest

from benchmarks import real_model
from shared import EvalResult, extract_answer, grade, load_gsm8k, load_model

RECORDED = sorted(real_model.RECORDINGS.glob("*/*.jsonl"))
PART_OF = {real_model.file_of(name, real_model.RECORDINGS).name: name for name in real_model.PARTS}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two problems and answers of a few tokens; returns the folder of the data."""
    for name, value in {"N": 2, "POOL_N": 2, "LIMIT": 12}.items():
        monkeypatch.setattr(real_model, name, value)
    parts = {name: (2, settings) for name, (_, settings) in real_model.PARTS.items()}
    monkeypatch.setattr(real_model, "PARTS", parts)
    rows = [{"question": f"What is {n}+1?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"} for n in range(4)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_every_way_keeps_its_answers_and_asks_once(small, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    real_model.measure("tiny", small, out, list(real_model.PARTS), "float32")
    results = {name: EvalResult.from_jsonl(real_model.file_of(name, out)) for name in real_model.PARTS}
    assert {result.n for result in results.values()} == {2}
    assert len(results["refined"].records[0]["details"]["texts"]) == 3, "draft, criticism, revision"
    assert len(results["pool of 8"].records[0]["details"]["texts"]) == real_model.SAMPLES
    assert all(record["tokens"] <= 16 for record in results["budget 0"].records), "no thought, a box at once"
    real_model.show(out)
    assert "pass@8" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in out.glob("*.jsonl")}
    for name in ("evaluator.generate", "generate", "draw_samples"):  # called for whatever is asked again
        module = "shared.evaluation" if "." in name else "benchmarks.real_model"
        monkeypatch.setattr(f"{module}.{name}", None)
    real_model.measure("tiny", small, out, list(real_model.PARTS), "float32")
    assert before == {path: path.read_bytes() for path in out.glob("*.jsonl")}


def test_the_user_s_turn_comes_back_out_of_a_prompt():
    tokenizer = load_model("tiny")[1]
    for text in ("2+2?", "two\nlines", ""):
        assert real_model.prompt_text(real_model.chat(tokenizer, text), tokenizer) == text


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_was_recorded_is_whole_and_graded_as_today(path):
    result = EvalResult.from_jsonl(path)
    count, _ = real_model.PARTS[PART_OF[path.name]]
    assert result.n == count
    for record in result.records:
        if "pool" not in path.name:
            assert record["extracted"] == extract_answer(record["text"])
        right = record["extracted"] is not None and grade(record["extracted"], record["answer"])
        assert record["correct"] == right
    settings = json.loads(path.with_suffix(".jsonl.settings.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["max_new_tokens"], settings["seed"]) == (real_model.LIMIT, 0)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_the_problems_were_drawn_by_the_seed(path, test_data):
    problems = load_gsm8k("test", test_data / "gsm8k" / "test.jsonl")
    drawn = random.Random(real_model.SEED).sample(problems, real_model.N)
    asked = [record["problem"] for record in EvalResult.from_jsonl(path).records]
    assert asked == [problem["problem"] for problem in drawn[: len(asked)]]
