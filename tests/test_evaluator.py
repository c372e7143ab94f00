"""The evaluation loop: records, seeds, resuming, errors, paired comparison."""

from __future__ import annotations

import functools
import json
import random

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from shared.evaluation import evaluator
from shared.evaluation.evaluator import Answer, EvalResult, ask_in_batches, evaluate, greedy
from shared.evaluation.statistics import wilson_interval
from shared.formats.loading import load_model
from shared.generation.completions import Completion, generate
from shared.generation.prompts import render_prompt
from shared.grader import extract_answer
from shared.model.fingerprint import fingerprint
from shared.tiny.corpus import generate_minimath

PROBLEMS = generate_minimath(10, seed=5)
ANSWERS = {render_prompt(p["problem"], style): p["answer"] for p in PROBLEMS for style in ("direct", "cot")}


class Oracle:
    """A method that knows the answers of all problems but every third, and remembers what it was asked."""

    def __init__(self, stop_after: int | None = None):
        self.calls: list[list[str]] = []
        self.stop_after = stop_after

    def __call__(self, model, tokenizer, prompts, *, max_new_tokens, seed):
        if self.stop_after is not None and len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(list(prompts))
        return [self.answer(prompt) for prompt in prompts]

    @staticmethod
    def answer(prompt: str) -> Answer:
        number = list(ANSWERS).index(prompt) // 2
        text = rf"So it is \boxed{{{ANSWERS[prompt]}}}." if number % 3 else "No idea."
        return Answer(text, extract_answer(text), 5 + number, {"finish_reason": "stop", "votes": [1, 2]})


def rolls(model, tokenizer, prompts, *, max_new_tokens, seed):
    """A method that draws for each prompt from the seed and that prompt, as `generate` does."""
    drawn = [random.Random(f"{seed} {prompt}").randint(0, 10**6) for prompt in prompts]
    return [Answer(str(number), str(number), 1) for number in drawn]


def run(method="greedy", problems=PROBLEMS, **changes) -> EvalResult:
    return evaluate(None, None, problems, method=method, **{"max_new_tokens": 20, **changes})


def test_result_and_records():
    result = run(Oracle())
    right = [i for i in range(10) if i % 3]
    assert (result.n, result.correct, result.accuracy) == (10, len(right), len(right) / 10)
    assert result.ci95 == wilson_interval(len(right), 10)
    assert result.tokens == sum(5 + i for i in range(10))
    assert result.seconds > 0
    assert [r["unique_id"] for r in result.records] == [p["unique_id"] for p in PROBLEMS]
    assert result.records[1] == {
        **{name: PROBLEMS[1][name] for name in ("unique_id", "problem", "answer", "subject", "level")},
        "text": rf"So it is \boxed{{{PROBLEMS[1]['answer']}}}.",
        "extracted": PROBLEMS[1]["answer"],
        "correct": True,
        "tokens": 6,
        "finish_reason": "stop",
        "details": {"votes": [1, 2]},
    }
    assert (result.records[0]["extracted"], result.records[0]["correct"]) == (None, False)
    assert str(result).startswith("60.0 % right (6 of 10, 95 % interval 31.3 to 83.2 %), 9.5 tokens a problem")
    assert repr(result) == str(result)
    assert str(EvalResult([])) == "no problems"


def test_the_time_is_told_where_it_was_measured():
    records = run(Oracle()).records
    assert str(EvalResult(records, seconds=0.05)).endswith(" tokens a problem, 0.1 s (1,900 tokens/s)")
    assert str(EvalResult(records)).endswith(" tokens a problem")


def test_an_answer_may_have_256_tokens_and_64_problems_are_asked_at_once_unless_told_otherwise():
    """Published numbers were made with these, so another default would quietly change what they say."""
    asked = []

    def method(model, tokenizer, prompts, *, max_new_tokens, seed):
        asked.append((len(prompts), max_new_tokens, seed))
        return [Answer("", None, 1)] * len(prompts)

    evaluate(None, None, [{"problem": str(i), "answer": "1"} for i in range(65)], method=method)
    assert asked == [(64, 256, 0), (1, 256, 0)]


def test_problems_are_asked_in_batches_with_the_prompt_of_the_style():
    oracle = Oracle()
    run(oracle, batch_size=4, prompt="cot")
    assert [len(call) for call in oracle.calls] == [4, 4, 2]
    assert oracle.calls[0][0] == render_prompt(PROBLEMS[0]["problem"], "cot")
    own = run(oracle, prompt=render_prompt)
    assert own.correct == 6
    assert oracle.calls[-1][0] == render_prompt(PROBLEMS[0]["problem"], "direct")


def test_the_loop_asks_a_batch_when_its_records_are_wanted_and_not_before():
    oracle = Oracle()
    loop = ask_in_batches(None, None, PROBLEMS, render_prompt, oracle, batch_size=4, max_new_tokens=20)
    assert oracle.calls == []
    first = next(loop)
    assert [len(call) for call in oracle.calls] == [4]
    assert [*first, *(record for records in loop for record in records)] == run(Oracle()).records


def test_greedy_asks_for_one_completion_a_prompt(monkeypatch):
    asked = {}

    def fake(model, tokenizer, prompts, **arguments):
        asked.update(arguments, prompts=prompts)
        return [Completion(r"\boxed{7}", [1, 2, 3], [0.0] * 3, "stop"), Completion("x", [1], [0.0], "length")]

    monkeypatch.setattr(evaluator, "generate", fake)
    answers = greedy(None, None, ["a", "b"], max_new_tokens=9)
    assert answers[0] == Answer(r"\boxed{7}", "7", 3, {"finish_reason": "stop"})
    assert answers[1] == Answer("x", None, 1, {"finish_reason": "length"})
    assert asked["max_new_tokens"] == 9
    assert asked.get("temperature", 0.0) == 0.0


def test_results_do_not_depend_on_the_batch_size():
    """Trap S4: every problem has its own stream of random numbers, whatever batch it falls into."""
    results = [run(rolls, batch_size=size, seed=3).records for size in (1, 3, 64)]
    assert results[0] == results[1] == results[2]
    assert len({record["text"] for record in results[0]}) == len(PROBLEMS)
    assert run(rolls, seed=50).records != results[0]


def test_without_a_box_the_fallback_decides():
    def talks(model, tokenizer, prompts, *, max_new_tokens, seed):
        texts = [f"I believe it is {p['answer']}" for p in PROBLEMS]
        return [Answer(text, extract_answer(text), 4) for text in texts]

    assert run(talks).correct == 0
    whole = [p for p in PROBLEMS if p["answer"].isdigit()]
    with_number = run(talks, fallback="number").records
    assert sum(r["correct"] for r in with_number) >= len(whole) > 0


def test_groups():
    result = run(Oracle())
    by_level = result.by("level")
    assert list(by_level) == sorted({p["level"] for p in PROBLEMS})
    assert sum(group.n for group in by_level.values()) == 10
    assert sum(group.correct for group in by_level.values()) == result.correct
    assert "Algebra" in result.by("subject") or len(result.by("subject")) > 1
    with pytest.raises(ValueError, match="no field 'colour': choose one of unique_id, "):
        result.by("colour")


def test_comparison_is_paired_by_id_not_by_place():
    result, everything = run(Oracle()), run(lambda *a, max_new_tokens, seed: list(map(Oracle.answer, a[2])))
    test = result.compare(EvalResult(everything.records[::-1]))
    assert (test.both, test.won, test.lost, test.neither) == (6, 0, 0, 4)
    flipped = EvalResult([{**r, "correct": not r["correct"]} for r in result.records])
    assert (flipped.compare(result).won, flipped.compare(result).lost) == (4, 6)
    with pytest.raises(ValueError, match="differ in 1 problems"):
        result.compare(EvalResult(result.records[1:]))


# ----------------------------------------------------------------------------------------------------- resuming


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    path = tmp_path / "run.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(Oracle(stop_after=2), batch_size=3, results=path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    path.write_text("\n".join(lines)[:-20], encoding="utf-8")  # the last record was not written to its end
    oracle = Oracle()
    result = run(oracle, batch_size=3, results=path)
    assert [len(call) for call in oracle.calls] == [3, 2]
    assert result.records == run(Oracle()).records
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == result.records
    again = Oracle()
    assert run(again, results=path).records == result.records
    assert again.calls == []


def test_time_before_an_interruption_counts(tmp_path):
    path = tmp_path / "run.jsonl"
    run(Oracle(), PROBLEMS[:4], results=path)
    beside = path.with_name("run.jsonl.settings.json")
    stored = json.loads(beside.read_text(encoding="utf-8"))
    beside.write_text(json.dumps({**stored, "seconds": 100.0}), encoding="utf-8")
    assert 100 < run(Oracle(), results=path).seconds < 101


def test_a_run_in_pieces_draws_the_same_random_numbers(tmp_path):
    whole = run(rolls, seed=3).records
    run(rolls, [PROBLEMS[i] for i in (0, 5, 6)], seed=3, results=tmp_path / "run.jsonl")
    assert run(rolls, seed=3, batch_size=4, results=tmp_path / "run.jsonl").records == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "cot"}, "was made with prompt = 'direct', not 'cot': give another file"),
        ({"max_new_tokens": 21}, "max_new_tokens = 20, not 21"),
        ({"seed": 1}, "seed = 0, not 1"),
        ({"fallback": "number"}, "fallback = None, not 'number'"),
        ({"method": functools.partial(rolls)}, "was made with method"),
    ],
)
def test_other_settings_are_not_mixed_into_a_file(tmp_path, change, message):
    path = tmp_path / "run.jsonl"
    run(Oracle(), PROBLEMS[:3], results=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        run(**{"method": Oracle(), "results": path, **change})
    assert path.read_bytes() == before


def test_another_model_or_problem_is_not_mixed_into_a_file(tmp_path):
    path, model = tmp_path / "run.jsonl", torch.nn.Linear(3, 3)
    call = functools.partial(evaluate, tokenizer=None, method=Oracle(), results=path)
    call(model, problems=PROBLEMS[:3])
    changed = [{**PROBLEMS[0], "answer": "12345"}]
    with pytest.raises(ValueError, match=r"run\.jsonl holds another problem under"):
        call(model, problems=changed)
    with torch.no_grad():
        model.weight += 1
    with pytest.raises(ValueError, match="was made with model"):
        call(model, problems=PROBLEMS[:3])


class LikeMPS(TorchFunctionMode):
    """An Apple GPU has no float64; here a CPU tensor stands for one on it until `cpu()` is called."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.Tensor.cpu:
            result = result.clone()
            result.moved = True
        if func is torch.Tensor.double and not getattr(args[0], "moved", False):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
            )
        return result


def test_the_fingerprint_on_a_device_without_float64():
    model, _ = load_model("tiny-random")
    expected = fingerprint(model)
    with LikeMPS():
        assert fingerprint(model) == expected


def test_the_fingerprint_is_that_of_the_weights():
    torch.manual_seed(0)
    one, other = torch.nn.Linear(300, 5), torch.nn.Linear(300, 5)
    assert fingerprint(one) != fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(None) == "NoneType"


def test_partial_methods_are_told_apart_by_their_arguments(tmp_path):
    def vote(model, tokenizer, prompts, *, max_new_tokens, seed, num_samples):
        return [Answer("", "1", num_samples) for _ in prompts]

    path = tmp_path / "run.jsonl"
    run(functools.partial(vote, num_samples=3), results=path)
    run(functools.partial(vote, num_samples=3), results=path)
    with pytest.raises(ValueError, match="num_samples"):
        run(functools.partial(vote, num_samples=4), results=path)


def test_results_without_their_settings_are_refused(tmp_path):
    path = tmp_path / "run.jsonl"
    run(Oracle(), results=path)
    beside = path.with_name("run.jsonl.settings.json")
    for damaged in ("[", "[1]", "{}"):
        beside.write_text(damaged, encoding="utf-8")
        with pytest.raises(ValueError, match=r"run\.jsonl\.settings\.json is missing or damaged"):
            run(Oracle(), results=path)
    beside.unlink()
    with pytest.raises(ValueError, match=r"run\.jsonl\.settings\.json is missing"):
        run(Oracle(), results=path)
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.jsonl holds no results"):
        EvalResult.from_jsonl(tmp_path / "other.jsonl")


def test_to_jsonl_and_back(tmp_path):
    result = run(Oracle(), seed=4)
    result.to_jsonl(tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == result.n
    back = EvalResult.from_jsonl(tmp_path / "out.jsonl")
    assert back.records == result.records
    assert back.settings["seed"] == 4
    assert back.seconds == pytest.approx(result.seconds, abs=1e-3)


def test_a_run_goes_on_with_what_to_jsonl_wrote(tmp_path):
    path = tmp_path / "run.jsonl"
    run(Oracle(), PROBLEMS[:3], results=path).to_jsonl(path)
    assert run(Oracle(), results=path).n == 10


def test_a_seed_is_a_whole_number_of_any_kind(tmp_path):
    for seed in (3, np.int64(3), torch.tensor(3)):
        result = run(rolls, seed=seed, results=tmp_path / "run.jsonl")
        assert type(result.settings["seed"]) is int
    assert result.records == run(rolls, seed=3).records
    with pytest.raises(ValueError, match=r"seed is 3\.0: give a whole number"):
        run(rolls, seed=3.0)


def test_problems_may_come_one_by_one():
    assert run(Oracle(), (problem for problem in PROBLEMS)).n == 10


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("problems", "changes", "message"),
    [
        ([], {}, "There are no problems"),
        ([{"problem": "2+2?"}], {}, "Problem 1 has no text in the field 'answer'"),
        ([PROBLEMS[0], {"answer": "4"}], {}, "Problem 2 has no text in the field 'problem'"),
        ([{"problem": "2+2?", "answer": 4}], {}, "Problem 1 has 4 in the field 'answer', which is no text"),
        ([PROBLEMS[0], PROBLEMS[0]], {}, "2 problems have the unique_id"),
        (PROBLEMS, {"prompt": "poem"}, "poem"),
        (PROBLEMS, {"method": "beam"}, "Unknown method 'beam': use 'greedy' or a function"),
        (PROBLEMS, {"batch_size": 0}, "batch_size is 0: give at least 1"),
        (PROBLEMS, {"max_new_tokens": 0}, "max_new_tokens is 0: give at least 1"),
        (PROBLEMS, {"fallback": "guess"}, "fallback"),
        (PROBLEMS, {"method": lambda *a, **k: []}, "gave 0 answers to 10 prompts"),
    ],
)
def test_what_is_wrong_is_said(problems, changes, message):
    with pytest.raises(ValueError, match=message):
        run(**{"method": Oracle(), "problems": problems, **changes})


def test_a_problem_needs_only_text_and_answer():
    result = run(rolls, [{"problem": "2+2?", "answer": "4"}])
    assert (result.records[0]["unique_id"], result.records[0]["level"]) == ("2+2?", None)


def test_hostile_model_text_is_only_wrong(tmp_path):
    """Trap S6, and the section on graders: what a model writes is compared, never run."""
    target = tmp_path / "written"
    hostile = [rf'open("{target.as_posix()}","w").write("x")', "9**9**9**9", "(10**8)!", r"\frac{" * 500]

    def writes(model, tokenizer, prompts, *, max_new_tokens, seed):
        texts = [rf"\boxed{{{text}}}" for text in hostile]
        return [Answer(text, extract_answer(text), 9) for text in texts]

    problems = [{"problem": str(i), "answer": "1"} for i in range(len(hostile))]
    assert run(writes, problems).correct == 0
    assert not target.exists()


def test_the_tiny_model_is_evaluated():
    """The whole path with real parts: the untrained model solves nothing, and every record is complete."""
    from shared.formats.loading import load_model

    model, tokenizer = load_model("tiny-random", device="cpu")
    result = evaluate(model, tokenizer, PROBLEMS[:4], max_new_tokens=8, batch_size=3)
    assert result.n == 4
    assert all(record["finish_reason"] in ("stop", "length") for record in result.records)
    assert all(1 <= record["tokens"] <= 8 for record in result.records)
    assert result.records == evaluate(model, tokenizer, PROBLEMS[:4], max_new_tokens=8, batch_size=1).records


def test_sampling_does_not_depend_on_the_batch_size():
    """Trap S4 with the real `generate`: problems draw from streams of their own, the seed changes them all."""
    from shared.formats.loading import load_model

    def sampled(model, tokenizer, prompts, *, max_new_tokens, seed):
        made = generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, temperature=1.0, seed=seed)
        return [Answer(c.text, None, len(c.token_ids)) for c in made]

    model, tokenizer = load_model("tiny-random", device="cpu")
    call = functools.partial(evaluate, model, tokenizer, PROBLEMS[:5], method=sampled, max_new_tokens=6)
    texts = [[r["text"] for r in call(batch_size=size, seed=s).records] for size, s in ((1, 0), (2, 0), (5, 0), (5, 1))]
    assert texts[0] == texts[1] == texts[2] != texts[3]
    assert len(set(texts[0])) == 5


def test_the_bar_shows_only_when_asked_for(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    run(Oracle())
    assert capsys.readouterr().err == ""
    run(Oracle(), progress=True)
    assert "10/10" in capsys.readouterr().err
    monkeypatch.setenv("TQDM_DISABLE", "1")
    run(Oracle(), progress=True)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_500_problems_take_less_than_a_minute():
    """What the course promises: 500 MiniMath problems with the tiny model, greedy, on two cores; 100 stand for them."""
    from shared.evaluation.data import load_minimath
    from shared.formats.loading import load_model

    model, tokenizer = load_model("tiny", device="cpu")
    for prompt in ("direct", "cot"):
        assert evaluate(model, tokenizer, load_minimath("test")[:100], prompt=prompt).seconds < 60 / 5


def test_a_wrong_setting_is_an_error_before_anything_is_asked(tmp_path):
    """A run of hours does not end in a word that was misspelt."""
    oracle = Oracle()
    for wrong in ({"prompt": "poem"}, {"fallback": "guess"}, {"seed": 1.5}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            run(oracle, results=tmp_path / "run.jsonl", **wrong)
    assert oracle.calls == []
    assert list(tmp_path.iterdir()) == []


def test_two_lambdas_are_two_prompts(tmp_path):
    """Both are called `<lambda>`, but the records of one are no results of the other."""

    def silent(model, tokenizer, prompts, *, max_new_tokens, seed):
        return [Answer("", None, 0) for _ in prompts]

    file = tmp_path / "run.jsonl"
    run(silent, prompt=lambda text: "Q " + text, results=file)
    with pytest.raises(ValueError, match="was made with prompt"):
        run(silent, prompt=lambda text: "Other " + text, results=file)


def test_a_prompt_may_know_its_own_problems_only():
    """Without a results file, nothing but the problems is put to it."""
    table = {problem["problem"]: render_prompt(problem["problem"]) for problem in PROBLEMS}
    assert run(Oracle(), prompt=table.__getitem__).n == len(PROBLEMS)
