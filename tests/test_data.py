"""MiniMath, MATH-500, MATH train, and problems from the reader's own files."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from shared.distillation import build_sft_examples, load_rows
from shared.evaluation import data
from shared.evaluation.data import (
    FIELDS,
    SETS,
    load_data,
    load_gsm8k,
    load_math500,
    load_math_train,
    load_minimath,
    load_problems,
)
from shared.grader import extract_answer, grade
from shared.grpo import GRPOConfig, reward_correct
from shared.grpo.problems import split_problems
from shared.support.jsonl import append_jsonl, read_jsonl, write_jsonl
from shared.tiny.build_data import ASSETS, SPLITS, build_minimath
from shared.tiny.corpus import generate_minimath
from tests.small_models import small_tokenizer

KINDS = {
    "integer": r"\d+",
    "negative": r"-\d+",
    "fraction": r"\\frac\{\d+\}\{\d+\}",
    "negative fraction": r"-\\frac\{\d+\}\{\d+\}",
    "pair": r"\(-?\d+,-?\d+\)",
    "expression": r"-?\d*x(\^2)?[+-].*",
    "list": r"-?\d+,-?\d+",
    "complex number": r"(-?\d+)?[+-]?\d*i",
}


@pytest.fixture(scope="module")
def test_set():
    return load_minimath("test")


@pytest.fixture(scope="module")
def train_set():
    return load_minimath("train")


def test_every_problem_has_the_fields(test_set, train_set):
    for problem in [*test_set, *train_set]:
        assert tuple(problem) == FIELDS
        assert all(problem[name] for name in FIELDS)
        assert type(problem["level"]) is int
    assert (len(test_set), len(train_set)) == (1_000, 12_000)


def test_splits_share_no_text_and_no_id(test_set, train_set):
    for name in ("problem", "unique_id"):
        values = [problem[name] for problem in [*test_set, *train_set]]
        assert len(set(values)) == len(values)


def test_the_files_are_what_the_generator_draws(test_set, train_set, tmp_path):
    assert test_set == generate_minimath(**SPLITS["test"], split="test")
    assert train_set == generate_minimath(**SPLITS["train"], split="train")
    for path in build_minimath(tmp_path):
        assert path.read_bytes() == (ASSETS / path.name).read_bytes()


def test_levels_subjects_and_kinds_of_answers(test_set):
    assert {problem["level"] for problem in test_set} == {1, 2, 3, 4, 5}
    assert len({problem["subject"] for problem in test_set}) >= 6
    for kind, pattern in KINDS.items():
        assert any(re.fullmatch(pattern, p["answer"]) for p in test_set), f"no answer is a {kind}"
    unknown = [p["answer"] for p in test_set if not any(re.fullmatch(k, p["answer"]) for k in KINDS.values())]
    assert unknown == []


def test_every_gold_solution_is_graded_right(test_set, train_set):
    """The verifier accepts what the data set itself calls right, box and all."""
    for problem in [*test_set, *train_set[:2_000]]:
        boxed = extract_answer(problem["solution"])
        assert boxed == problem["answer"]
        assert grade(boxed, problem["answer"])


def test_other_answers_are_graded_wrong(test_set):
    """Two problems' answers that differ in their text are different answers in MiniMath's spelling."""
    answers = sorted({problem["answer"] for problem in test_set})
    assert [pair for pair in itertools.pairwise(answers) if grade(*pair)] == []


def test_an_unknown_split_says_which_there_are():
    with pytest.raises(ValueError, match="no split 'dev': use 'test' or 'train'"):
        load_minimath("dev")


def test_missing_and_damaged_files_say_how_to_restore_them(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "ASSETS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"minimath_test\.jsonl is missing: restore it with git"):
        load_minimath("test")
    lines = (ASSETS / "minimath_test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "minimath_test.jsonl").write_text("".join(lines[:700]), encoding="utf-8")
    with pytest.raises(ValueError, match="holds 700 problems, not 1000: restore it"):
        load_minimath("test")
    (tmp_path / "minimath_test.jsonl").write_text("".join([lines[0], "{broken\n"]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"Line 2 of minimath_test\.jsonl is damaged"):
        load_minimath("test")


# ------------------------------------------------------------------------------------------ files and the hub


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_own_problems_from_a_file(tmp_path, suffix):
    rows = [
        {"problem": "2+2?", "answer": "4"},
        {"problem": "Half of 3?", "solution": r"It is \boxed{\frac{3}{2}}.", "type": "Algebra", "level": "Level 5"},
        {"problem": "7?", "solution": r"\boxed{7}", "level": "Level ?", "unique_id": "a/7"},
    ]
    path = tmp_path / f"own{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if suffix == ".json" else lines, encoding="utf-8")
    first, second, third = load_problems(path)
    assert first == {
        "problem": "2+2?",
        "solution": "",
        "answer": "4",
        "subject": "unknown",
        "level": 0,
        "unique_id": "problem-1",
    }
    assert (second["answer"], second["subject"], second["level"]) == (r"\frac{3}{2}", "Algebra", 5)
    assert (third["level"], third["unique_id"]) == (0, "a/7")
    assert load_math_train(path) == load_math500(path) == [first, second, third]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "4"}, "Problem 1 of own.json has no text in the field 'problem': add it"),
        ({"problem": "2+2?"}, "Problem 1 of own.json has no text in the field 'answer'"),
        ({"problem": "2+2?", "answer": 4}, "Problem 1 of own.json has 4 in the field 'answer', which is no text"),
        ({"problem": " ", "answer": "4"}, "has an empty problem"),
        ({"problem": "2+2?", "answer": "4", "level": "hard"}, "has the level 'hard'"),
    ],
)
def test_bad_fields_are_named(tmp_path, row, message):
    (tmp_path / "own.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_problems(tmp_path / "own.json")


@pytest.mark.parametrize(
    ("text", "message"), [("[", "no valid JSON"), ("{}", "a JSON list of objects"), ("[]", "holds no problems")]
)
def test_bad_files_are_explained(tmp_path, text, message):
    (tmp_path / "own.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_problems(tmp_path / "own.json")
    with pytest.raises(FileNotFoundError, match=r"no file .*other\.json"):
        load_problems(tmp_path / "other.json")


@pytest.mark.parametrize(("suffix", "end"), [(".json", ""), (".jsonl", ""), (".jsonl", "\r\n")])
def test_files_of_other_editors(tmp_path, suffix, end):
    """A byte order mark and no last newline are fine; another encoding is named."""
    path, text = tmp_path / f"own{suffix}", '{"problem": "Un café?", "answer": "4"}' + end
    text = f"[{text}]" if suffix == ".json" else text
    path.write_bytes(text.encode("utf-8-sig"))
    assert [problem["problem"] for problem in load_problems(path)] == ["Un café?"]
    for encoding in ("latin-1", "utf-16"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(ValueError, match=rf"own\{suffix} is not UTF-8: save it as UTF-8"):
            load_problems(path)


def test_a_file_of_one_s_own_is_read_to_its_end_or_not_at_all(tmp_path):
    """The leniency is for files that a killed run was appending to."""
    (tmp_path / "own.jsonl").write_text('{"problem": "2+2?", "answer": "4"}\n{"problem": "3', encoding="utf-8")
    with pytest.raises(ValueError, match=r"Line 2 of own\.jsonl is damaged"):
        load_problems(tmp_path / "own.jsonl")
    assert len(load_rows(tmp_path / "own.jsonl")) == 1, "a teacher's file, which a run appends to"


def test_an_ending_in_capitals(tmp_path):
    (tmp_path / "own.JSON").write_text('[{"problem": "2+2?", "answer": "4"}]', encoding="utf-8")
    assert len(load_problems(tmp_path / "own.JSON")) == 1


def test_two_problems_with_one_id_are_named(tmp_path):
    rows = [{"problem": text, "answer": "4", "unique_id": "a/4"} for text in ("2+2?", "3+1?")]
    (tmp_path / "own.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(ValueError, match=r"2 problems of own\.json have the unique_id 'a/4': give each its own"):
        load_problems(tmp_path / "own.json")


def test_a_whole_last_record_needs_no_newline(tmp_path):
    path = tmp_path / "a.jsonl"
    for before in ('{"a": 1}\n', ""):
        path.write_text(before + '{"a": 2}', encoding="utf-8")
        records = read_jsonl(path)
        assert records[-1] == {"a": 2}
        append_jsonl(path, [{"a": 3}])
        assert read_jsonl(path) == [*records, {"a": 3}]


@pytest.mark.parametrize("cut", range(1, len('{"a": "é}"}'.encode())))
def test_a_cut_record_is_dropped_wherever_it_was_cut(tmp_path, cut):
    """In the middle of a character too."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + '{"a": "é}"}'.encode()[:cut])
    assert read_jsonl(path) == [{"a": 1}]
    append_jsonl(path, [{"a": 3}])
    assert read_jsonl(path) == [{"a": 1}, {"a": 3}]


def test_math500_from_a_path(test_data):
    path = test_data / "math500_test.json"
    if not path.exists():
        pytest.skip("math500_test.json is not among the optional test data")
    problems = load_math500(path)
    assert len(problems) == len({p["unique_id"] for p in problems}) == 500
    assert {p["level"] for p in problems} == {1, 2, 3, 4, 5}
    assert len({p["subject"] for p in problems}) == 7
    assert all(tuple(p) == FIELDS for p in problems)


@pytest.mark.parametrize("loader", [load_math500, load_math_train, load_gsm8k])
def test_without_the_hub_the_error_names_the_way_out(loader, monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(
        ConnectionError, match=rf"or call {loader.__name__}\((split, )?path\) with a file that was downloaded elsewhere"
    ):
        loader()


# ------------------------------------------------------------------------------------------------------ GSM8K

GSM8K_ROWS = [
    {"question": "A robe takes 2 bolts.", "answer": "It takes 2/2=<<2/2=1>>1 bolt\nIn all 2+1=<<2+1=3>>3\n#### 3"},
    {"question": "How much money?", "answer": "It is $1,450,000\n#### 1,450,000"},
    {"question": "How cold?", "answer": "Colder.\n#### -5"},
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_gsm8k_from_its_own_rows(tmp_path, suffix):
    path = tmp_path / f"gsm8k{suffix}"
    lines = "".join(json.dumps(row) + "\n" for row in GSM8K_ROWS)
    path.write_text(json.dumps(GSM8K_ROWS) if suffix == ".json" else lines, encoding="utf-8")
    problems = load_gsm8k("train", path)
    assert problems[0] == {
        "problem": "A robe takes 2 bolts.",
        "solution": "It takes 2/2=1 bolt\nIn all 2+1=3\nThe answer is \\boxed{3}.",
        "answer": "3",
        "subject": "unknown",
        "level": 0,
        "unique_id": "gsm8k/train/1",
    }
    assert [problem["answer"] for problem in problems] == ["3", "1450000", "-5"]
    assert load_gsm8k("test", path)[2]["unique_id"] == "gsm8k/test/3"
    assert len(build_sft_examples(problems, small_tokenizer())) == 3, "its solutions can be learnt from"


HALF_CONVERTED = {"problem": "How many?", "answer": "It is 3.\n#### 3", "solution": "It is 3."}


@pytest.mark.parametrize(
    "row",
    [HALF_CONVERTED, {"question": "How many?", "answer": "3"}, {"question": "How many?", "answer": 3},
     {"question": 1, "answer": "#### 3"}, {"question": "How many?", "answer": "It is\n#### three"}],
)  # fmt: skip
def test_rows_of_gsm8k_that_are_not_its_own(tmp_path, row):
    path = tmp_path / "own.json"
    path.write_text(json.dumps([GSM8K_ROWS[0], row]), encoding="utf-8")
    with pytest.raises(ValueError, match=r"Row gsm8k/test/2 is not GSM8K's own: give 'question'"):
        load_gsm8k("test", path)


def test_a_half_converted_row_is_an_error_and_no_reward_of_zero(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps([HALF_CONVERTED]), encoding="utf-8")
    settings = GRPOConfig(eval_every=None)
    for use in (
        lambda: load_problems(path),
        lambda: data.with_ids([HALF_CONVERTED]),
        lambda: split_problems([HALF_CONVERTED], None, [reward_correct], settings),
        lambda: build_sft_examples([HALF_CONVERTED], small_tokenizer()),
    ):
        with pytest.raises(ValueError, match=r"(Problem|Row) 1.* has GSM8K's steps in its answer: .*load_gsm8k"):
            use()


def test_a_set_by_name_or_else_a_file(tmp_path, train_set, test_set, monkeypatch):
    assert (load_data("minimath", "train"), load_data("minimath")) == (train_set, test_set)
    asked = []
    monkeypatch.setattr(data, "_from_hub", lambda dataset, name, call: asked.append(name) or tmp_path / "set.jsonl")
    rows = [{"problem": "Compute 1+1.", "answer": "2", "question": "1+1?"}]
    write_jsonl(tmp_path / "set.jsonl", rows)
    for split in ("train", "test"):
        assert load_data("math", split)[0]["answer"] == "2"
        with pytest.raises(ValueError, match="not GSM8K's own"):
            load_data("gsm8k", split)
    assert asked == ["train.jsonl", "train.jsonl", "test.jsonl", "test.jsonl"]
    assert load_data(tmp_path / "set.jsonl")[0]["problem"] == "Compute 1+1."
    assert set(SETS) == {"minimath", "math", "gsm8k"}


def test_an_unknown_split_of_gsm8k():
    with pytest.raises(ValueError, match="no split 'dev': use 'test' or 'train'"):
        load_gsm8k("dev")


@pytest.mark.parametrize(("split", "count"), [("test", 1_319), ("train", 7_473)])
def test_the_real_gsm8k(test_data, split, count):
    path = test_data / "gsm8k" / f"{split}.jsonl"
    if not path.exists():
        pytest.skip(f"gsm8k/{split}.jsonl is not among the optional test data")
    problems = load_gsm8k(split, path)
    assert len(problems) == count
    assert all(tuple(p) == FIELDS and extract_answer(p["solution"]) == p["answer"] for p in problems)
    assert not any("<<" in p["solution"] or "####" in p["solution"] for p in problems)
    for problem in problems[:300]:
        assert grade(f"{int(problem['answer']):,}", problem["answer"]), "with its commas it is right too"
