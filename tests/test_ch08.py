"""What chapter 8 ships: the teacher and its samples."""

import pytest

from shared.assets import ASSETS
from shared.distillation import build_sft_examples, load_rows
from shared.evaluation.data import load_minimath
from shared.formats.loading import load_model
from shared.generation.completions import generate
from shared.generation.prompts import render_prompt
from shared.grader.grading import extract_answer, grade

KEPT = load_rows(ASSETS / "teacher_samples.jsonl")
REJECTED = load_rows(ASSETS / "teacher_samples.rejected.jsonl")


def is_right(row: dict) -> bool:
    answer = extract_answer(row["content"])
    return row["finish_reason"] == "stop" and answer is not None and grade(answer, row["answer"])


def test_the_verifier_accepts_the_kept_samples_and_rejects_the_others():
    assert all(is_right(row) for row in KEPT[::4])
    assert not any(is_right(row) for row in REJECTED)
    assert len(KEPT) > 7_000
    assert len(REJECTED) > 300


def test_the_samples_are_of_training_problems_and_of_no_test_problem():
    answers = {problem["problem"]: problem["answer"] for problem in load_minimath("train")}
    held_out = {problem["problem"] for problem in load_minimath("test")}
    for row in (*KEPT, *REJECTED):
        assert answers[row["problem"]] == row["answer"]
        assert row["problem"] not in held_out


def test_every_kept_sample_is_an_example_that_ends_with_the_end_token():
    """Trap D3."""
    _, tokenizer = load_model("tiny")
    examples = build_sft_examples(KEPT, tokenizer)
    assert len(examples) == len(KEPT)
    assert all(example.input_ids[-1] == tokenizer.eos_id for example in examples)


@pytest.mark.slow
def test_the_shipped_teacher_wrote_the_samples():
    """Its greedy answers are right nearly always where the kept samples are, and have their form."""
    model, tokenizer = load_model("tiny-teacher")
    some = KEPT[:200]
    prompts = [render_prompt(row["problem"], "think") for row in some]
    completions = generate(model, tokenizer, prompts, max_new_tokens=192)
    right = [grade(extract_answer(c.text) or "", row["answer"]) for c, row in zip(completions, some, strict=True)]
    assert sum(right) > 180
    assert all(c.text.startswith("\n<think>\n") for c in completions)
    assert sum(row["thinking"] in c.text for c, row in zip(completions, some, strict=True)) > 100
