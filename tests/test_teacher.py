"""The teacher: what is written of its answers, and that no sample is asked for twice."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from shared.formats.loading import load_model
from shared.generation.completions import generate
from shared.generation.prompts import render_prompt
from shared.support.jsonl import read_jsonl
from shared.teacher import Reply, SamplesFile, ask_model, local, split_thinking
from shared.teacher.__main__ import main
from tests.teacher_server import FIELDS, all_keys, keys, sums

# --- what is written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\n1+1 < 3\n</think>\n\n\\boxed{2}\n", ("1+1 < 3", "\\boxed{2}")),
        ("1+1\n</think>\n\\boxed{2}", ("1+1", "\\boxed{2}")),
        ("<think>and on and on", ("and on and on", "")),
        ("\n1+1=2\n\\boxed{2}", ("", "1+1=2\n\\boxed{2}")),
        ("Well, <think>hm</think> 2.", ("", "Well, <think>hm</think> 2.")),
        ("hm</think> The tag <think> is odd.", ("hm", "The tag <think> is odd.")),
        ("<think></think>2", ("", "2")),
    ],
)
def test_thinking_is_split_from_content(text, expected):
    """Trap S7: thinking may hold a `<`. The opening tag may have been in the prompt; further on it means nothing."""
    assert split_thinking(text)[:2] == expected


def file_of(path, problems=None, keep_rejected=True, **settings) -> SamplesFile:
    return SamplesFile(path, {"model": "m", **settings}, problems or sums(2), keep_rejected)


def test_an_answer_that_was_cut_short_is_not_kept(tmp_path):
    """Trap D3: a student must not learn to end where the teacher was stopped, though the box stands there."""
    with file_of(tmp_path / "data.jsonl") as file:
        assert not file.add((file.problems[0], 0), Reply("", "\\boxed{1}, or rather", "length", 5, 9))
        assert not file.add((file.problems[0], 1), Reply("\\boxed{1}", "", "stop", 5, 9))
        assert file.add((file.problems[0], 2), Reply("", "\\boxed{1}", "stop", 5, 9))
    assert [row["correct"] for row in read_jsonl(file.rejected_path)] == [True, False]


def test_half_a_surrogate_does_not_stop_a_run(tmp_path):
    """JSON may hold one, UTF-8 may not."""
    with file_of(tmp_path / "data.jsonl") as file:
        assert file.add((file.problems[0], 0), Reply(json.loads('"\\ud800"'), "\\boxed{1}", "stop"))
    assert read_jsonl(file.path)[0]["thinking"] == "?"


def test_a_file_goes_on_with_what_it_lacks(tmp_path):
    """A line that was not finished is dropped; the order of the problems does not matter."""
    path = tmp_path / "data.jsonl"
    problems = sums(3)
    with file_of(path, problems) as file:
        assert file.add((problems[1], 0), Reply("", "\\boxed{2}", "stop"))
        assert file.add((problems[2], 1), Reply("", "\\boxed{3}", "stop"))
        assert not file.add((problems[2], 0), Reply("", "\\boxed{4}", "stop"))
    path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    with file_of(path, problems[::-1]) as file:
        assert keys([{**problem, "sample": n} for problem, n in file.jobs(2)]) == [
            ("sum-0", 0), ("sum-0", 1), ("sum-1", 1), ("sum-2", 1),
        ]  # fmt: skip
        tally = file.tally(2)
        assert (tally.kept, tally.rejected) == (1, 1)
        file.add((problems[2], 1), Reply("", "\\boxed{3}", "stop"))
    assert keys(read_jsonl(path)) == [("sum-1", 0), ("sum-2", 1)]


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "data.jsonl"
    with file_of(path, temperature=0.7) as file:
        file.add((file.problems[0], 0), Reply("", "\\boxed{1}", "stop"))
        with pytest.raises(ValueError, match=r"Another run is writing data\.jsonl"), file_of(path, temperature=0.7):
            pass
    other = [{**sums(1)[0], "answer": "7"}]
    for problems, temperature, message in (
        (sums(1), 1.0, r"made with temperature = 0\.7, not 1\.0: give another file"),
        (other, 0.7, "another problem 'sum-0'"),
    ):
        with pytest.raises(ValueError, match=message), file_of(path, problems, temperature=temperature):
            pass
    with file_of(path, temperature=0.7) as file:  # an error has not left the lock behind
        file.add((file.problems[0], 1), Reply("", "", "stop"))
    path.unlink()
    with (
        pytest.raises(ValueError, match=r"data\.jsonl is missing: restore it, or delete data\.rejected"),
        file_of(path),
    ):
        pass
    path.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="holds no samples of a teacher"), file_of(path):
        pass
    (tmp_path / "data.jsonl.settings.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"settings\.json is missing or damaged"), file_of(path):
        pass
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        file_of(tmp_path / "data.json")


def test_a_file_without_rows_takes_other_settings(tmp_path):
    """A run that failed before its first row, for a wrong setting say, has not spoilt the file."""
    path = tmp_path / "data.jsonl"
    with file_of(path, temperature=7.0):
        pass
    with file_of(path, temperature=0.7) as file:
        assert path.exists()
        file.add((file.problems[0], 0), Reply("", "", "stop"))
    with pytest.raises(ValueError, match=r"made with temperature = 0\.7, not 7\.0"), file_of(path, temperature=7.0):
        pass


# --- a model of ours ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def ask_tiny(tiny, path, problems, **options):
    options = {"num_samples": 2, "max_new_tokens": 80, "prompt": "think", "keep_rejected": True, **options}
    return ask_model(problems, path, *tiny, name="tiny", **options)


def by_key(path) -> dict:
    rows = read_jsonl(path) + read_jsonl(path.with_suffix(".rejected.jsonl"))
    return {(row["unique_id"], row["sample"]): row for row in rows}


def test_rows_of_our_own_model(tiny, tmp_path):
    """Thinking apart from content; the samples are the same after a stop, with more of them, and in another order."""
    problems = sums(5)
    tally = ask_tiny(tiny, tmp_path / "whole.jsonl", problems, num_samples=3)
    whole = by_key(tmp_path / "whole.jsonl")
    assert sorted(whole) == all_keys(5, 3)
    assert tally.asked == tally.kept + tally.rejected == 15
    assert tally.kept > 0
    assert all(set(row) == FIELDS for row in whole.values())
    assert any(row["thinking"] and row["correct"] for row in whole.values())
    assert all("think>" not in row["content"] for row in whole.values() if row["correct"])
    prompts = [render_prompt(problem["problem"], "think") for problem in problems]
    made = generate(*tiny, prompts, max_new_tokens=80, temperature=0.7, top_p=0.95, num_samples=3, seed=0)
    assert [len(each.token_ids) for each in made[0]] == [whole["sum-0", n]["tokens"] for n in range(3)]
    ask_tiny(tiny, tmp_path / "parts.jsonl", problems[:2], batch_size=1)
    assert ask_tiny(tiny, tmp_path / "parts.jsonl", problems[::-1], num_samples=3, batch_size=4).asked == 11
    assert by_key(tmp_path / "parts.jsonl") == whole
    with pytest.raises(ValueError, match=r"made with temperature = 0\.7"):
        ask_tiny(tiny, tmp_path / "parts.jsonl", problems, temperature=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 95.0}, r"top_p is 95\.0: give a probability"),
        ({"temperature": -1}, "temperature is -1: give 0 for greedy decoding"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: give at least 1"),
        ({"seed": 0.5}, r"seed is 0\.5: give a whole number"),
    ],
)
def test_wrong_settings_are_refused_before_there_is_a_file(tiny, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ask_tiny(tiny, tmp_path / "data.jsonl", sums(1), **options)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_of_numpy_goes_into_the_settings(tiny, tmp_path):
    ask_tiny(tiny, tmp_path / "data.jsonl", sums(1), seed=np.int64(3))
    ask_tiny(tiny, tmp_path / "data.jsonl", sums(1), seed=3)


def test_a_chat_model_gets_its_template(tiny, tmp_path, monkeypatch):
    asked = []

    def spy(model, tokenizer, prompts, **options):
        asked.extend(prompts)
        return generate(model, tokenizer, prompts, **options)

    monkeypatch.setattr(local, "generate", spy)
    model, chat = tiny[0], copy.copy(tiny[1])
    chat.is_chat = True
    ask_tiny((model, chat), tmp_path / "chat.jsonl", sums(1), max_new_tokens=2)
    assert set(asked) == {render_prompt("Compute 0+1.", "think", chat)}
    assert asked[0].startswith("<|im_start|>user\n")
    with pytest.raises(ValueError, match="made with prompt = "):
        ask_tiny(tiny, tmp_path / "chat.jsonl", sums(1), max_new_tokens=2)


def test_command_line(tmp_path, capsys):
    path = str(tmp_path / "data.jsonl")
    command = [path, "--model", "tiny", "--limit", "4", "--samples", "2", "--max-new-tokens", "60"]
    assert main(command) == 0
    assert "this run: 8 answers" in capsys.readouterr().out
    assert main(command) == 0
    assert "this run: 0 answers" in capsys.readouterr().out
    assert main([path, "--model", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([path])
