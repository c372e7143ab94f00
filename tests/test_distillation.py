"""Distillation: examples and their masks, the losses against other formulas, the trainer."""

from __future__ import annotations

import itertools
import random
import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from shared.distillation import (
    DistillationTrainer,
    DistillConfig,
    build_sft_examples,
    load_rows,
    split_examples,
    train_distillation,
)
from shared.distillation.examples import sft_prompt
from shared.distillation.loss import sft_loss, soft_loss, token_divergences, token_kl
from shared.distillation.trainer import collate, epoch_batches
from shared.formats.checkpoints import list_checkpoints, load_training_state
from shared.formats.loading import load_model
from shared.generation.completions import generate
from shared.generation.logprobs import token_logprobs
from shared.generation.prompts import render_prompt
from shared.grpo import reward_format
from shared.support.jsonl import read_jsonl, write_jsonl
from shared.teacher import is_kept
from tests.killed_runs import run_killed
from tests.small_models import small_tokenizer
from tests.small_policy import assert_same_weights, small_policy, weights

TOKENIZER = load_model("tiny-random")[1]
ROWS = [
    {
        "problem": f"Compute {a}+{b}.",
        "answer": str(a + b),
        "solution": f"{a}+{b}={a + b}\n" * (b % 3) + f"\\boxed{{{a + b}}}",
    }
    for a in range(1, 7) for b in range(1, 5)
]  # fmt: skip
OPENED = "{} <think>\n".format  # as the chat templates of DeepSeek-R1 and its like
SETTINGS = {"epochs": 2, "batch_size": 5, "micro_batch_tokens": 150, "learning_rate": 1e-2, "warmup": 2}


def row(**changes) -> dict:
    """A teacher's row."""
    return {
        "problem": "Compute 2+3.", "answer": "5", "thinking": "2+3=5", "content": "It is \\boxed{5}.",
        "unique_id": "a", "sample": 0, "correct": True, "finish_reason": "stop", "tokens": 9, "model": "tiny",
    } | changes  # fmt: skip


def build(*rows, **settings):
    return build_sft_examples(rows, TOKENIZER, **settings)


def examples():
    return build_sft_examples(ROWS, TOKENIZER, prompt_style="direct")


def soft_of_logits(student, teacher, mask, temperature=1.0, reverse=False, tokens=None):
    return soft_loss(token_kl(student, teacher, temperature, reverse), mask, temperature, tokens)


def small_teacher(seed: int = 1):
    """Another small model, surer of what comes next."""
    teacher = small_policy(seed)[0]
    with torch.no_grad():
        teacher.head.weight.mul_(15)
    return teacher


def small_distillation(kind=DistillationTrainer, *, teacher=None, model=None, data=None, on_step=None, **settings):
    """A trainer of a small student without a progress bar; every fourth example is for validation."""
    student, tokenizer = small_policy()
    rows = data or examples()
    train = [example for number, example in enumerate(rows) if number % 4]
    if settings.get("loss", "hard") != "hard" and teacher is None:
        teacher = small_teacher()
    config = DistillConfig(**SETTINGS | {"prompt_style": "direct", "max_new_tokens": 8} | settings)
    return kind(
        model or student, tokenizer, train, config, validation=rows[::4], teacher=teacher, on_step=on_step,
        progress=False,
    )  # fmt: skip


# --- examples -----------------------------------------------------------------------------------------------


def test_the_prompt_is_masked_and_the_completion_ends_with_the_end_token():
    """Traps D1 and D3."""
    [example] = build({"problem": "Compute 1+1.", "solution": "1+1=2\nThe answer is \\boxed{2}.", "answer": "2"})
    prompt = render_prompt("Compute 1+1.", "cot")
    ids, start = example.input_ids, example.prompt_length
    assert ids[:start] == TOKENIZER.encode(prompt), "exactly what the student is asked with later"
    assert TOKENIZER.decode(ids[start:], skip_special_tokens=False) == (
        "\n1+1=2\nThe answer is \\boxed{2}.<|endoftext|>"
    )
    assert example.completion_mask == [False] * start + [True] * (len(ids) - start)
    assert len(example) == len(ids) == start + example.completion_length


@pytest.mark.parametrize(
    ("settings", "completion"),
    [
        ({}, "\n<think>\n2+3=5\n</think>\n\nIt is \\boxed{5}."),
        ({"think_tags": False}, "\n2+3=5\n\nIt is \\boxed{5}."),
        ({"with_thinking": False}, " It is \\boxed{5}."),
        ({"prompt_style": "chat"}, "<think>\n2+3=5\n</think>\n\nIt is \\boxed{5}."),
        ({"prompt_style": OPENED}, "2+3=5\n</think>\n\nIt is \\boxed{5}."),
        ({"prompt_style": OPENED, "think_tags": False}, "2+3=5\n</think>\n\nIt is \\boxed{5}."),
        ({"prompt_style": OPENED, "with_thinking": False}, "\n</think>\n\nIt is \\boxed{5}."),
    ],
    ids=["tags", "plain", "without", "chat", "opened by the prompt", "opened, plain", "opened, without"],
)
def test_formats_with_and_without_thinking(settings, completion):
    assert build(row(), **settings)[0].completion == completion


def test_without_thinking_in_the_row_there_are_no_tags():
    assert build(row(thinking=""))[0].completion == " It is \\boxed{5}."
    opened = build(row(thinking=""), prompt_style=OPENED)[0]
    assert opened.completion == "\n</think>\n\nIt is \\boxed{5}.", "what the prompt has opened is closed"


@pytest.mark.parametrize(
    ("thinking", "content", "completion"),
    [
        ("First", "then\n</think>\n\nIt is \\boxed{5}.", "\n<think>\nFirst\n\nthen\n</think>\n\nIt is \\boxed{5}."),
        ("", "<think>\nhm\n</think>\n\nIt is \\boxed{5}.", "\n<think>\nhm\n</think>\n\nIt is \\boxed{5}."),
        ("a </think> in it", "It is \\boxed{5}.", None),
        ("hm", "The tag </think> ends it, <think> \\boxed{5}", None),
    ],
)
def test_a_completion_has_one_thinking_that_is_closed(thinking, content, completion):
    """Servers put it into a field, into the content, or into both."""
    found = build(row(thinking=thinking, content=content))
    assert [example.completion for example in found] == ([completion] if completion else [])
    assert found.dropped == ({} if completion else {"special": 1})
    for example in found:
        assert reward_format(example.completion, {}) == 1
    [without] = build(row(thinking="", content="<think>hm</think>It is \\boxed{5}."), with_thinking=False)
    assert without.completion == " It is \\boxed{5}."


@pytest.mark.parametrize("reason", ["length", "content_filter", "abort", "error", "max_tokens", "tool_calls", "", "?"])
def test_only_an_answer_that_ended_by_itself_is_learned_from(reason):
    """Servers have many words for a cut; a student would learn to end there."""
    found = build(row(finish_reason=reason), only_correct=False)
    assert (len(found), dict(found.dropped)) == (0, {"unfinished": 1})
    assert not is_kept(row(finish_reason=reason))
    assert is_kept(row())
    assert len(build(row(finish_reason=None))) == 1, "public sets do not say"


def test_the_chat_format_is_the_template_s():
    [example] = build(row(), prompt_style="chat")
    assert example.prompt == (
        "<|im_start|>user\nCompute 2+3.\nExplain step by step, then answer in \\boxed{}.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    tokenizer = small_tokenizer()
    tokenizer.chat_template = "{{ messages[0].content }}{{ 'yes' if enable_thinking else 'no' }}"
    assert sft_prompt("P", tokenizer, "chat", with_thinking=True).endswith("yes")
    assert sft_prompt("P", tokenizer, "chat", with_thinking=False).endswith("no")


def test_all_spellings_of_a_row_give_the_same_example():
    public = {
        "problem": "Compute 2+3.",
        "gtruth_answer": "5",
        "message_thinking": "2+3=5 ",
        "message_content": "\nIt is \\boxed{5}.",
    }
    problem = {"problem": "Compute 2+3.", "solution": "It is \\boxed{5}."}
    assert build(public) == build(row())
    assert build(problem) == build(row(thinking="")), "the answer is the solution's box"


def test_what_is_left_out_is_counted():
    long = row(content="x " * 60 + "\\boxed{5}")
    limit = len(build(row())[0])
    found = build(
        row(), row(sample=1), row(problem="Compute 3+2."), row(correct=False), row(finish_reason="length"),
        row(content=" "), row(content="\\boxed{5}<|endoftext|> more"), long,
        {"problem": "Compute 2+3.", "answer": "5", "content": "It is \\boxed{6}."}, max_length=limit,
    )  # fmt: skip
    assert len(found) == 2
    assert found.dropped == {
        "duplicate": 1, "wrong": 2, "unfinished": 1, "empty": 1, "special": 1, "too_long": 1,
    }  # fmt: skip
    assert found.summary() == (
        "2 examples of 2 problems; left out: 2 wrong, 1 unfinished, 1 without content, 1 with special tokens in the "
        "text, 1 there already, 1 too long."
    )
    assert build(row()).summary() == "1 examples of 1 problems."


@pytest.mark.parametrize("max_length", [30, 45, 60, 512])
def test_over_long_examples_are_dropped_and_never_cut(max_length):
    """Trap D3: an example without its end teaches the student to ramble."""
    rows = [row(problem=f"Compute {n}+3.", thinking="2+3=5\n" * n) for n in range(12)]
    found = build(*rows, max_length=max_length)
    assert len(found) + found.dropped["too_long"] == 12
    for example in found:
        assert len(example) <= max_length
        assert example.input_ids[-1] == TOKENIZER.eos_id
        assert example.completion.endswith("\\boxed{5}.")
    whole = [len(example) for example in build(*rows)]
    assert len(found) == sum(length <= max_length for length in whole)


def test_wrong_solutions_stay_if_asked_for():
    wrong = row(correct=False, content="It is \\boxed{6}.")
    assert len(build(wrong, only_correct=False)) == 1
    unfinished = build(wrong | {"finish_reason": "length"}, only_correct=False)
    assert (len(unfinished), dict(unfinished.dropped)) == (0, {"unfinished": 1}), "it would be taught to end there"
    assert len(build({"problem": "P", "content": "no box"}, only_correct=False)) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"problem": "P", "answer": "1"}, "field 'content' or 'message_content' or 'solution'"),
        ({"content": "\\boxed{1}", "answer": "1"}, "Row 2 has no text in the field 'problem'"),
        ({"problem": "P", "content": "1"}, "Row 2 has no text in the field 'answer' or 'gtruth_answer': add it"),
        (row(thinking=["a"]), "Row 2 has no text in the field 'thinking' or 'message_thinking'"),
        (row(answer=5), "Row 2 has no text in the field 'answer'"),
        (row(problem=" "), "Row 2 has an empty problem or answer: fill it in"),
        ("text", "Row 2 is no dictionary"),
    ],
)  # fmt: skip
def test_a_row_that_lacks_something_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        build(row(), wrong)


def test_settings_that_make_no_examples():
    with pytest.raises(ValueError, match="Unknown prompt style 'poem'"):
        build(row(), prompt_style="poem")
    with pytest.raises(ValueError, match="max_length is 0"):
        build(row(), max_length=0)


def test_rows_come_from_json_and_json_lines(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "rows.json").write_text("[{}]", encoding="utf-8")
    assert load_rows(tmp_path / "rows.jsonl") == ROWS
    assert load_rows(tmp_path / "rows.json") == [{}]
    (tmp_path / "rows.json").write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.json must hold a JSON list"):
        load_rows(tmp_path / "rows.json")
    (tmp_path / "rows.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.json is no valid JSON"):
        load_rows(tmp_path / "rows.json")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_rows(tmp_path / "nowhere.jsonl")


def test_no_problem_is_on_both_sides_of_the_split():
    rows = [row(problem=f"Compute {n}+3.", content=f"{text} \\boxed{{5}}") for n in range(40) for text in "abc"]
    found = build(*rows)
    train, validation = split_examples(found, 0.2)
    assert len({e.problem for e in validation}) == 8
    assert len(validation) == 24
    assert {e.problem for e in train} & {e.problem for e in validation} == set()
    assert sorted(train + validation, key=str) == sorted(found, key=str)
    random.Random(0).shuffle(found)
    again = split_examples(found, 0.2)
    assert {e.problem for e in again[1]} == {e.problem for e in validation}, "whatever the order"
    assert {e.problem for e in split_examples(found, 0.2, seed=1)[1]} != {e.problem for e in validation}
    assert len(split_examples(build(*rows[:6]), 0.01)[1]) == 3, "one problem at least"


@pytest.mark.parametrize(("share", "rows"), [(0.0, ROWS), (1.0, ROWS), (0.5, ROWS[:1])])
def test_a_split_that_is_none(share, rows):
    with pytest.raises(ValueError, match="is no split"):
        split_examples(build_sft_examples(rows, TOKENIZER), share)


# --- losses -------------------------------------------------------------------------------------------------


def batch_of(count=6):
    """A batch whose padding is the end token, which also ends every completion."""
    chosen = examples()[:count]
    assert len({len(example) for example in chosen}) > 1
    return chosen, *collate(chosen, TOKENIZER.eos_id)


def hand_sliced(model, example) -> torch.Tensor:
    """Cross-entropy of each completion token, from the targets cut out of one example by hand."""
    ids = torch.tensor([example.input_ids])
    logits = model(ids)[0, example.prompt_length - 1 : -1]
    return F.cross_entropy(logits, ids[0, example.prompt_length :], reduction="none")


def test_the_masked_loss_is_that_of_hand_sliced_targets():
    """Trap D1: the first token of the completion and its end token count; prompt and padding do not."""
    model, _ = small_policy()
    chosen, input_ids, mask = batch_of()
    by_hand = torch.cat([hand_sliced(model, example) for example in chosen])
    assert mask.sum() == len(by_hand) == sum(example.completion_length for example in chosen)
    torch.testing.assert_close(sft_loss(token_logprobs(model, input_ids), mask), by_hand.mean())
    torch.testing.assert_close(sft_loss(token_logprobs(model, input_ids, where=mask), mask), by_hand.mean())


def test_prompt_and_padding_carry_no_loss():
    """Trap D1: neither a value nor a gradient comes from there, NaN included."""
    _, _, mask = batch_of()
    logprobs = torch.randn(mask.shape, requires_grad=True)
    sft_loss(logprobs, mask).backward()
    torch.testing.assert_close(logprobs.grad, -mask.float() / mask.sum())
    spoilt = logprobs.detach().masked_fill(~mask, float("nan"))
    assert torch.equal(sft_loss(spoilt, mask), sft_loss(logprobs.detach(), mask))
    assert sft_loss(logprobs, torch.zeros_like(mask)) == 0


def test_a_batch_is_the_mean_of_singles_over_their_tokens():
    """Trap D2: every completion token counts alike, in one batch, alone, or in micro-batches."""
    model, _ = small_policy()
    chosen, input_ids, mask = batch_of()
    singles, counts = [], []
    for example in chosen:
        ids, own_mask = collate([example], TOKENIZER.pad_id)
        singles.append(sft_loss(token_logprobs(model, ids), own_mask))
        counts.append(example.completion_length)
    mean = sum(n * loss for n, loss in zip(counts, singles, strict=True)) / sum(counts)
    whole = sft_loss(token_logprobs(model, input_ids), mask)
    torch.testing.assert_close(whole, mean)
    parts = [
        sft_loss(token_logprobs(model, input_ids[rows]), mask[rows], tokens=sum(counts))
        for rows in (slice(0, 1), slice(1, 4), slice(4, None))
    ]
    torch.testing.assert_close(sum(parts), whole)
    assert (sum(singles) / len(singles) - whole).abs() > 1e-3, "the mean over examples is another number"


def logits_pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(4, 7, 11, generator=generator, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.5, 0.5])
def test_the_soft_loss_is_what_torch_s_formula_gives(temperature, reverse):
    student, teacher = logits_pair()
    mask = torch.rand(4, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    ours, theirs = ((x[mask] / temperature).log_softmax(-1) for x in (student, teacher))
    inner, target = (theirs, ours) if reverse else (ours, theirs)
    expected = temperature**2 * F.kl_div(inner, target, log_target=True, reduction="batchmean")
    found = soft_of_logits(student, teacher, mask, temperature=temperature, reverse=reverse)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    settings = {"temperature": temperature, "reverse": reverse, "tokens": int(mask.sum())}
    halves = [
        soft_of_logits(student[rows], teacher[rows], mask[rows], **settings)
        for rows in (slice(0, 1), slice(1, None))
    ]  # fmt: skip
    torch.testing.assert_close(sum(halves), found)


def test_the_divergence_by_hand():
    half, skewed = torch.tensor([0.0, 0.0]), torch.tensor([0.25, 0.75]).log()
    kl = 0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log()
    torch.testing.assert_close(token_kl(half, skewed), kl)
    torch.testing.assert_close(token_kl(skewed, half, reverse=True), kl)
    torch.testing.assert_close(token_kl(skewed, half), 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log())
    assert token_kl(skewed, skewed) == 0
    with pytest.raises(ValueError, match="temperature is 0: give a positive one"):
        token_kl(half, skewed, temperature=0)


def test_the_gradient_of_the_soft_loss_is_the_difference_of_the_probabilities():
    """arXiv:1503.02531, section 2: T^2 keeps the size of the gradient, (q - p) T."""
    student, teacher = (x.float()[:1, :1] for x in logits_pair())
    student.requires_grad_()
    soft_of_logits(student, teacher, torch.ones(1, 1), temperature=4.0).backward()
    q, p = ((x / 4).softmax(-1) for x in (student, teacher))
    torch.testing.assert_close(student.grad, 4 * (q - p), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_divergences_of_two_models_in_chunks(chunk):
    student, teacher = small_policy()[0], small_teacher()
    _, input_ids, mask = batch_of()
    found, logprobs = token_divergences(student, teacher, input_ids, where=mask, temperature=2.0, chunk=chunk)
    found.sum().backward()
    gradient = student.blocks[0].attention.qkv.weight.grad.clone()
    assert all(p.grad is None for p in teacher.parameters())
    student.zero_grad()
    logits = student(input_ids)[:, :-1]
    with torch.no_grad():
        theirs = teacher(input_ids)[:, :-1]
    expected = token_kl(logits, theirs, 2.0) * mask
    expected.sum().backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, student.blocks[0].attention.qkv.weight.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(logprobs, token_logprobs(student, input_ids, where=mask))
    assert expected.max() > 0.1


# --- batches and settings -----------------------------------------------------------------------------------


def test_batches_of_an_epoch():
    lengths = [random.Random(n).randrange(20, 60) for n in range(103)]
    batches = epoch_batches(lengths, 10, seed=3, epoch=0)
    assert sorted(itertools.chain(*batches)) == list(range(103))
    assert sorted(map(len, batches)) == [3] + [10] * 10
    assert batches == epoch_batches(lengths, 10, seed=3, epoch=0)
    assert batches != epoch_batches(lengths, 10, seed=3, epoch=1)
    assert batches != epoch_batches(lengths, 10, seed=4, epoch=0)
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in batches]
    assert max(spread) <= 10, "of similar length"
    starts = [min(lengths[i] for i in batch) for batch in batches]
    assert starts != sorted(starts), "but in any order"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "warm"}, "loss is 'warm': choose one of hard, soft, on_policy"),
        ({"epochs": 0}, "epochs is 0: it must be at least 1"),
        ({"learning_rate": 0}, "learning_rate is 0: give a positive number"),
        ({"soft_weight": 1.5}, "soft_weight is 1.5: give a share"),
        ({"warmup": -1}, "warmup is -1: it must not be negative"),
        ({"steps": -1}, "steps is -1"),
        ({"eval_every": 0}, "eval_every is 0"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"prompt_style": "poem"}, "prompt_style is 'poem'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**settings)


def test_inputs_that_do_not_fit():
    model, tokenizer = small_policy()
    with pytest.raises(ValueError, match="There are no examples to train on"):
        train_distillation(model, tokenizer, [])
    long = build(row(thinking="2+3=5\n" * 40))
    with pytest.raises(ValueError, match=r"the model's context 128: build the examples with max_length=128"):
        train_distillation(model, tokenizer, long)
    foreign = [replace(example, input_ids=[*example.input_ids, 512]) for example in examples()]
    with pytest.raises(ValueError, match="holds token 512, but the model knows 512 tokens only"):
        DistillationTrainer(model, tokenizer, foreign)
    with pytest.raises(ValueError, match="needs a teacher"):
        DistillationTrainer(model, tokenizer, examples(), DistillConfig(loss="soft"))
    other = small_policy()[0]
    other.config = replace(other.config, vocab_size=600)
    with pytest.raises(ValueError, match="The teacher has 600 tokens, the student 512"):
        DistillationTrainer(model, tokenizer, examples(), DistillConfig(loss="soft"), teacher=other)


# --- trainer ------------------------------------------------------------------------------------------------


def test_a_student_learns_the_texts_by_heart():
    model, tokenizer = small_policy()
    chosen = examples()[:6]
    trainer = train_distillation(
        model, tokenizer, chosen, DistillConfig(steps=80, batch_size=6, learning_rate=1e-2, eval_every=80,
        prompt_style="direct", max_new_tokens=60), validation=chosen, problems=ROWS[:6], progress=False,
    )  # fmt: skip
    assert trainer.model is model
    written = generate(model, tokenizer, [example.prompt for example in chosen], max_new_tokens=60)
    assert [completion.text for completion in written] == [example.completion for example in chosen]
    assert {completion.finish_reason for completion in written} == {"stop"}, "it has learnt to end"
    assert trainer.history[-1]["eval_accuracy"] == 1
    assert trainer.history[-1]["eval_loss"] < 0.05 < 1 < trainer.history[0]["loss"]


def test_metrics_and_schedule():
    trainer = small_distillation(eval_every=3, final_rate=0.5)
    before = trainer.validation_loss()
    by_hand = torch.cat([hand_sliced(trainer.model, example) for example in trainer.validation]).mean()
    assert before == pytest.approx(by_hand.item(), rel=1e-5)
    assert small_distillation(micro_batch_tokens=70).validation_loss() == pytest.approx(before)
    history = trainer.train()
    assert len(history) == trainer.config.steps == 8, "18 examples in batches of 5, twice"
    assert [record["epoch"] for record in history] == [0] * 4 + [1] * 4
    assert [record["learning_rate"] for record in history][:3] == [0.005, 0.01, 0.01]
    assert history[-1]["learning_rate"] == pytest.approx(
        0.01 * (0.5 + 0.25 * (1 + torch.cos(torch.tensor(torch.pi * 5 / 6)).item()))
    )
    evaluated = [record["step"] for record in history if "eval_loss" in record]
    assert evaluated == [3, 6, 8]
    assert history[-1]["eval_loss"] < before
    assert history[0]["length_mean"] > 1
    assert "eval_accuracy" not in history[-1], "no problems were given"


@pytest.mark.parametrize("settings", [{}, {"loss": "soft", "soft_weight": 0.5}, {"loss": "on_policy"}])
def test_micro_batches_change_the_memory_and_not_the_result(settings):
    """Trap D2."""
    gradients = []
    for most_tokens in (70, 10_000):
        trainer = small_distillation(micro_batch_tokens=most_tokens, **settings)
        losses = []
        trainer.optimizer_step = lambda metrics, losses=losses: losses.append(metrics["loss"]) or metrics
        trainer.train_step()
        gradients.append(({name: p.grad for name, p in trainer.model.named_parameters()}, losses))
    (small, loss), (large, other) = gradients
    assert loss == pytest.approx(other, rel=1e-5)
    for name, gradient in small.items():
        torch.testing.assert_close(gradient, large[name], atol=1e-5, rtol=1e-3)
        assert gradient.abs().max() > 0


def test_the_mixed_loss_is_the_weighted_sum():
    trainer, losses = small_distillation(loss="soft"), {}
    input_ids, mask = collate(trainer.next_batch(), TOKENIZER.pad_id)
    with torch.no_grad():
        logits = [model(input_ids)[:, :-1] for model in (trainer.model, trainer.teacher)]
    for weight in (0.0, 0.3, 1.0):
        trainer = small_distillation(loss="soft", soft_weight=weight, temperature=2.0)
        losses[weight] = trainer.train_step()["loss"]
    assert losses[1.0] == pytest.approx(soft_of_logits(*logits, mask, temperature=2.0).item(), rel=1e-4)
    assert losses[0.3] == pytest.approx(0.7 * losses[0.0] + 0.3 * losses[1.0], rel=1e-5)
    assert losses[0.0] == pytest.approx(small_distillation().train_step()["loss"], rel=1e-5)


def divergence(trainer, reverse=False) -> float:
    input_ids, mask = collate(trainer.validation, TOKENIZER.pad_id)
    with torch.no_grad():
        found, _ = token_divergences(trainer.model, trainer.teacher, input_ids, where=mask, reverse=reverse)
    return (found.sum() / mask.sum()).item()


def test_soft_distillation_brings_the_student_near_the_teacher():
    trainer = small_distillation(loss="soft", epochs=10)
    before, start = divergence(trainer), weights(trainer.teacher)
    trainer.train()
    assert divergence(trainer) < 0.5 * before
    assert all(torch.equal(p, start[name]) for name, p in trainer.teacher.named_parameters())


def test_on_policy_distillation_learns_from_what_the_student_writes():
    trainer = small_distillation(loss="on_policy", epochs=20)
    asked = trainer.examples[:3]
    written = trainer.sampled(asked)
    for example, own in zip(asked, written, strict=True):
        assert own.input_ids[: own.prompt_length] == example.input_ids[: example.prompt_length]
        assert 1 <= own.completion_length <= 8
        assert own.input_ids != example.input_ids
    assert [own.input_ids for own in trainer.sampled(asked)] == [own.input_ids for own in written]
    trainer.step = 1
    assert [own.input_ids for own in trainer.sampled(asked)] != [own.input_ids for own in written]
    trainer.step = 0
    input_ids, mask = collate(trainer.sampled(trainer.next_batch()), TOKENIZER.pad_id)
    with torch.no_grad():
        logits = [model(input_ids)[:, :-1] for model in (trainer.model, trainer.teacher)]
    expected = soft_of_logits(*logits, mask, reverse=True).item()
    history = trainer.train()
    assert history[0]["loss"] == pytest.approx(expected, rel=1e-4)
    first, last = (sum(record["loss"] for record in part) for part in (history[:8], history[-8:]))
    assert last < 0.85 * first
    assert max(record["length_mean"] for record in history) <= 8


def test_adapters_and_bf16():
    trainer = small_distillation(lora_rank=4, precision="bf16", epochs=4)
    frozen = {name: p.clone() for name, p in trainer.model.named_parameters() if "lora" not in name}
    history = trainer.train()
    assert all(torch.equal(p, frozen[name]) for name, p in trainer.model.named_parameters() if name in frozen)
    assert history[-1]["eval_loss"] < history[0]["loss"]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


# --- going on -----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process."""


def killer(step):
    def on_step(metrics):
        if metrics["step"] == step:
            raise Killed

    return on_step


@pytest.mark.parametrize(
    "settings",
    [{}, {"lora_rank": 2, "loss": "soft"}, {"loss": "on_policy"}],
    ids=["hard", "soft with adapters", "on-policy"],
)
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, settings):
    straight = small_distillation(**settings)
    straight.train()
    out = {"out": str(tmp_path), "save_every": 2, **settings}
    for step in (3, 5):
        with pytest.raises(Killed):
            small_distillation(on_step=killer(step), **out).train()
    resumed = small_distillation(**out)
    resumed.train()
    assert_same_weights(resumed.model, straight.model)
    timeless = [
        [{name: value for name, value in record.items() if "second" not in name} for record in trainer.history]
        for trainer in (resumed, straight)
    ]
    assert timeless[0] == timeless[1]


def test_a_run_goes_on_only_with_the_same_data_and_end(tmp_path):
    def trainer(**settings):
        return small_distillation(out=str(tmp_path), **settings)

    trainer(loss="soft").train()
    other = examples()[:-4]
    for what, wrong in {
        "examples": {"data": other, "steps": 8},
        "teacher's weights": {"teacher": small_teacher(seed=2)},
    }.items():
        start = trainer(loss="soft", **wrong)
        before = weights(start.model)
        with pytest.raises(ValueError, match=f"learns from other {what}: give those"):
            start.train()
        assert all(torch.equal(p, before[name]) for name, p in start.model.named_parameters())
    with pytest.raises(ValueError, match=r"other settings \(steps 8, not 11\)"):
        trainer(loss="soft", steps=11).train()
    with pytest.raises(ValueError, match=r"other settings \(loss 'soft', not 'hard'\)"):
        trainer().train()
    assert len(trainer(loss="soft").train()) == 8


@pytest.mark.parametrize("settings", [{}, {"with_thinking": False}])
def test_the_student_is_evaluated_with_the_prompts_it_is_trained_on(settings):
    """Qwen3's template writes an empty thinking where none is wanted."""
    student, tokenizer = small_policy()
    tokenizer.chat_template = "{{ messages[0].content }}{{ '' if enable_thinking else '<think></think>' }}"
    rows = [row(problem=f"Compute {n}+3.", unique_id=f"{n}") for n in range(4)]
    found = build_sft_examples(rows, tokenizer, prompt_style="chat", **settings)
    config = DistillConfig(prompt_style="chat", max_new_tokens=2, **settings)
    trainer = DistillationTrainer(student, tokenizer, found, config, problems=rows[:2], progress=False)
    assert trainer.ask(rows[0]["problem"]) == found[0].prompt
    other = replace(config, with_thinking=not config.with_thinking)
    with pytest.raises(ValueError, match="give the config the prompt_style and with_thinking of the examples"):
        DistillationTrainer(student, tokenizer, found, other, problems=rows[:2])
    DistillationTrainer(student, tokenizer, found, other)  # nothing is asked


KILLED = """
from tests.test_distillation import small_distillation
small_distillation(save_every=2, out=sys.argv[1]).train()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "linux", reason="tests/test_faults.py kills it there, at more places")
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_weights(tmp_path, root):
    """SIGKILL while a checkpoint is written, within a step, while a checkpoint gets its name; then the end."""
    kills = [("save", 2), ("step", 2), ("rename", 2), ("nowhere", 0)]
    run_killed(KILLED, tmp_path / "run", kills, root)
    straight = small_distillation()
    straight.train()
    last = list_checkpoints(tmp_path / "run")[-1]
    assert load_training_state(last)[0]["step"] == 8
    assert_same_weights(load_model(last, dtype="float32")[0], straight.model)
    assert [r["step"] for r in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == list(range(1, 9))
