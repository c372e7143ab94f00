"""Plausible wrong answers to the exercises of chapter 8."""

import copy
import math
from dataclasses import replace

import torch

from shared.distillation.examples import sft_completion
from shared.distillation.loss import soft_loss, token_kl
from shared.evaluation.evaluator import extract_answer, grade
from shared.model.transformer import CausalLM


# 8.1
def _statistics(lengths):
    lengths = sorted(lengths)
    place = math.ceil(0.95 * len(lengths)) - 1
    return {
        "examples": len(lengths), "mean": sum(lengths) / len(lengths), "p95": lengths[place], "longest": lengths[-1],
    }  # fmt: skip


def with_the_prompt(examples):
    return _statistics([len(e) for e in examples])


def without_the_end_token(examples):
    return _statistics([e.completion_length - 1 for e in examples])


def unsorted(examples):
    lengths = [e.completion_length for e in examples]
    place = math.ceil(0.95 * len(lengths)) - 1
    return {**_statistics(lengths), "p95": lengths[place]}


def rounds_the_place(examples):
    lengths = sorted(e.completion_length for e in examples)
    return {**_statistics(lengths), "p95": lengths[round(0.95 * len(lengths)) - 1]}


def rounds_the_mean(examples):
    result = _statistics([e.completion_length for e in examples])
    return {**result, "mean": round(result["mean"], 1)}


# 8.2
def empty_tags(row, form):
    thinking, content = row["thinking"].strip(), row["content"].strip()
    if form == "tags":
        return f"\n<think>\n{thinking}\n</think>\n\n{content}"
    return f"\n{thinking}\n\n{content}" if form == "plain" and thinking else f" {content}"


def answers_on_a_new_line(row, form):
    thinking, content = row["thinking"].strip(), row["content"].strip()
    if form == "answer" or not thinking:
        return f"\n{content}"
    return f"\n<think>\n{thinking}\n</think>\n\n{content}" if form == "tags" else f"\n{thinking}\n\n{content}"


def keeps_white_space(row, form):
    if form == "answer" or not row["thinking"]:
        return f" {row['content']}"
    thinking, content = row["thinking"], row["content"]
    return f"\n<think>\n{thinking}\n</think>\n\n{content}" if form == "tags" else f"\n{thinking}\n\n{content}"


def strips_long_texts_only(row, form):
    thinking, content = row["thinking"].strip(), row["content"]
    if form == "answer" or not thinking:
        return f" {content}"
    content = content.strip()
    return f"\n<think>\n{thinking}\n</think>\n\n{content}" if form == "tags" else f"\n{thinking}\n\n{content}"


def strips_when_it_is_too_late(row, form):
    thinking, content = row["thinking"].strip(), row["content"].strip()
    if form == "answer" or not row["thinking"]:
        return f" {content}"
    return f"\n<think>\n{thinking}\n</think>\n\n{content}" if form == "tags" else f"\n{thinking}\n\n{content}"


def asks_the_library_for_the_text(row, form):
    thinking = "" if form == "answer" else row["thinking"].strip()
    return sft_completion("", thinking, row["content"].strip(), think_tags=form == "tags")


# 8.3
def _by_problem(rows, most, keeps):
    kept, counts = [], {}
    for row in sorted(rows, key=lambda row: row["tokens"]):
        if keeps(row) and counts.get(row["problem"], 0) < most:
            counts[row["problem"]] = counts.get(row["problem"], 0) + 1
            kept.append(row)
    return kept


def compares_texts(rows, most):
    return _by_problem(
        rows, most, lambda r: r["finish_reason"] == "stop" and extract_answer(r["content"]) == r["answer"]
    )


def keeps_unfinished(rows, most):
    return _by_problem(rows, most, lambda r: grade(extract_answer(r["content"]) or "", r["answer"]))


def drops_only_what_was_cut(rows, most):
    return _by_problem(
        rows, most, lambda r: r["finish_reason"] != "length" and grade(extract_answer(r["content"]) or "", r["answer"])
    )


def counts_by_answer(rows, most):
    kept, counts = [], {}
    for row in sorted(rows, key=lambda row: row["tokens"]):
        right = row["finish_reason"] == "stop" and grade(extract_answer(row["content"]) or "", row["answer"])
        if right and counts.get(row["answer"], 0) < most:
            counts[row["answer"]] = counts.get(row["answer"], 0) + 1
            kept.append(row)
    return kept


def no_verifier(rows, most):
    return _by_problem(rows, most, lambda r: r["finish_reason"] == "stop" and "boxed" in r["content"])


def first_come(rows, most):
    kept, counts = [], {}
    for row in rows:
        right = row["finish_reason"] == "stop" and grade(extract_answer(row["content"]) or "", row["answer"])
        if right and counts.get(row["problem"], 0) < most:
            counts[row["problem"]] = counts.get(row["problem"], 0) + 1
            kept.append(row)
    return kept


def overwrites_the_given_rows(rows, most):
    kept = _by_problem(
        rows, most, lambda r: r["finish_reason"] == "stop" and grade(extract_answer(r["content"]) or "", r["answer"])
    )
    rows[:] = kept
    return kept


# 8.4
def _divergence(student, teacher, temperature):
    ours, theirs = (student / temperature).log_softmax(-1), (teacher.detach() / temperature).log_softmax(-1)
    return (theirs.exp() * (theirs - ours)).sum(-1)


def without_the_factor(student, teacher, mask, temperature):
    return _divergence(student, teacher, temperature)[mask].mean()


def mean_over_all(student, teacher, mask, temperature):
    return temperature**2 * (_divergence(student, teacher, temperature) * mask).mean()


def reverse(student, teacher, mask, temperature):
    ours, theirs = (student / temperature).log_softmax(-1), (teacher.detach() / temperature).log_softmax(-1)
    return temperature**2 * (ours.exp() * (ours - theirs)).sum(-1)[mask].mean()


def trains_the_teacher(student, teacher, mask, temperature):
    ours, theirs = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(-1)[mask].mean()


def a_plain_number(student, teacher, mask, temperature):
    return temperature**2 * _divergence(student, teacher, temperature)[mask].mean().item()


def detaches_the_student(student, teacher, mask, temperature):
    return temperature**2 * _divergence(student.detach(), teacher, temperature)[mask].mean()


def through_probabilities(student, teacher, mask, temperature):
    ours, theirs = (student / temperature).softmax(-1), (teacher.detach() / temperature).softmax(-1)
    return temperature**2 * (theirs * (theirs.log() - ours.log())).sum(-1)[mask].mean()


def asks_the_library_for_the_loss(student, teacher, mask, temperature):
    return soft_loss(token_kl(student, teacher.detach(), temperature), mask, temperature)


def asks_the_library_for_the_divergence(student, teacher, mask, temperature):
    return temperature**2 * token_kl(student, teacher.detach(), temperature)[mask].mean()


# 8.5
def first_layers(model, kept):
    smaller = CausalLM(replace(model.config, num_layers=len(kept)))
    smaller.load_state_dict(model.state_dict(), strict=False)
    return smaller


def shared_weights(model, kept):
    smaller = CausalLM(replace(model.config, num_layers=len(kept)))
    smaller.embedding, smaller.norm, smaller.head = model.embedding, model.norm, model.head
    smaller.blocks = torch.nn.ModuleList(model.blocks[i] for i in kept)
    return smaller


def two_tables(model, kept):
    smaller = CausalLM(replace(model.config, num_layers=len(kept)))
    smaller.embedding, smaller.norm, smaller.head = map(copy.deepcopy, (model.embedding, model.norm, model.head))
    smaller.blocks = torch.nn.ModuleList(copy.deepcopy(model.blocks[i]) for i in kept)
    return smaller


def attention_only(model, kept):
    smaller = CausalLM(replace(model.config, num_layers=len(kept)))
    smaller.embedding.load_state_dict(model.embedding.state_dict())
    smaller.norm.load_state_dict(model.norm.state_dict())
    for block, layer in zip(smaller.blocks, kept, strict=True):
        block.attention.load_state_dict(model.blocks[layer].attention.state_dict())
    return smaller


def untrained(model, kept):
    return CausalLM(replace(model.config, num_layers=len(kept)))


def in_sorted_order(model, kept):
    smaller = copy.deepcopy(model)
    smaller.blocks = torch.nn.ModuleList(smaller.blocks[i] for i in sorted(kept))
    smaller.config = replace(model.config, num_layers=len(kept))
    return smaller


def deletes_the_other_layers(model, kept):
    smaller = copy.deepcopy(model)
    for i in reversed(range(len(smaller.blocks))):
        if i not in kept:
            del smaller.blocks[i]
    smaller.config = replace(model.config, num_layers=len(kept))
    return smaller


WRONG = {
    "8.1": [with_the_prompt, without_the_end_token, unsorted, rounds_the_place, rounds_the_mean],
    "8.2": [
        empty_tags,
        answers_on_a_new_line,
        keeps_white_space,
        strips_when_it_is_too_late,
        strips_long_texts_only,
        asks_the_library_for_the_text,
    ],
    "8.3": [
        compares_texts,
        keeps_unfinished,
        drops_only_what_was_cut,
        counts_by_answer,
        no_verifier,
        first_come,
        overwrites_the_given_rows,
    ],
    "8.4": [
        without_the_factor,
        mean_over_all,
        reverse,
        trains_the_teacher,
        a_plain_number,
        detaches_the_student,
        through_probabilities,
        asks_the_library_for_the_loss,
        asks_the_library_for_the_divergence,
    ],
    "8.5": [
        first_layers,
        shared_weights,
        two_tables,
        attention_only,
        untrained,
        in_sorted_order,
        deletes_the_other_layers,
    ],
}
