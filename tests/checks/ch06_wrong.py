"""Plausible wrong answers to the exercises of chapter 6."""

import math
import re
import statistics

import torch

from shared.distillation import SFTExample
from shared.evaluation.evaluator import extract_answer, grade
from shared.generation.logprobs import pad_rows
from shared.grpo.loss import group_advantages, normalize_groups


# 6.1
def population_spread(groups):
    return [[(r - statistics.mean(g)) / (statistics.pstdev(g) + 1e-4) for r in g] for g in groups]


def over_the_batch(groups):
    everything = [r for g in groups for r in g]
    mean, spread = statistics.mean(everything), statistics.stdev(everything)
    return [[(r - mean) / (spread + 1e-4) for r in g] for g in groups]


def divides_by_zero(groups):
    return [[(r - statistics.mean(g)) / statistics.stdev(g) for r in g] for g in groups]


def overwrites_the_rewards(groups):
    for g in groups:
        mean, spread = statistics.mean(g), statistics.stdev(g)
        for i, r in enumerate(g):
            g[i] = (r - mean) / (spread + 1e-4)
    return groups


def accepts_a_group_of_one(groups):
    def spread(g):
        return statistics.stdev(g) if len(g) > 1 else 0.0

    return [[(r - statistics.mean(g)) / (spread(g) + 1e-4) for r in g] for g in groups]


def without_the_epsilon(groups):
    return [
        [(r - statistics.mean(g)) / statistics.stdev(g) if len(g) == 1 or len(set(g)) > 1 else 0.0 for r in g]
        for g in groups
    ]


def epsilon_under_the_root(groups):
    return [[(r - statistics.mean(g)) / math.sqrt(statistics.variance(g) + 1e-4) for r in g] for g in groups]


def asks_the_library_for_advantages(groups):
    return [group_advantages(torch.tensor([group]))[0].tolist() for group in groups]


def asks_the_library_to_normalise(groups):
    if min(map(len, groups)) < 2:
        raise ValueError("a group of one")
    return [normalize_groups(torch.tensor([group]))[0].tolist() for group in groups]


# 6.2
def all_right_only(p, group_size):
    return p**group_size


def with_signal(p, group_size):
    return 1 - p**group_size - (1 - p) ** group_size


def product(p, group_size):
    return p**group_size * (1 - p) ** group_size


# 6.3
def includes_itself(rewards):
    return rewards - rewards.mean(dim=1, keepdim=True)


def divides_by_group_size(rewards):
    others = rewards.sum(dim=1, keepdim=True) - rewards
    return rewards - others / rewards.shape[1]


def along_the_prompts(rewards):
    others = rewards.sum(dim=0, keepdim=True) - rewards
    return rewards - others / max(1, rewards.shape[0] - 1)


def normalised(rewards):
    return (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)


# 6.4
def _columns(prompt_lengths, width):
    return torch.arange(width).expand(len(prompt_lengths), width), torch.tensor(prompt_lengths)[:, None]


def drops_the_end_token(prompt_lengths, completion_lengths, width):
    columns, prompts = _columns(prompt_lengths, width)
    return (columns >= prompts) & (columns < prompts + torch.tensor(completion_lengths)[:, None] - 1)


def counts_the_padding(prompt_lengths, completion_lengths, width):
    columns, prompts = _columns(prompt_lengths, width)
    return columns >= prompts


def counts_the_prompt(prompt_lengths, completion_lengths, width):
    columns, prompts = _columns(prompt_lengths, width)
    return columns < prompts + torch.tensor(completion_lengths)[:, None]


def one_too_early(prompt_lengths, completion_lengths, width):
    columns, prompts = _columns(prompt_lengths, width)
    return (columns >= prompts - 1) & (columns < prompts - 1 + torch.tensor(completion_lengths)[:, None])


def asks_the_library_to_pad(prompts, completions, width):
    _, wanted = pad_rows([[0] * n for n in prompts], [[0] * n for n in completions])
    return torch.nn.functional.pad(wanted, (1, width - 1 - wanted.shape[1]))


def asks_the_library_for_examples(prompts, completions, width):
    rows = [SFTExample("", "", "", [0] * (n + m), n) for n, m in zip(prompts, completions, strict=True)]
    return torch.tensor([row.completion_mask + [False] * (width - len(row)) for row in rows])


# 6.5
def adds_up(text, problem):
    answer = extract_answer(text)
    return 0.1 * (answer is not None) + float(answer is not None and grade(answer, problem["answer"]))


def counts_boxes(text, problem):
    answer = extract_answer(text)
    return 1.0 if answer is not None and grade(answer, problem["answer"]) else 0.1 * text.count("\\boxed{")


def looks_for_the_word(text, problem):
    answer = extract_answer(text)
    if answer is not None and grade(answer, problem["answer"]):
        return 1.0
    return 0.1 if "\\boxed" in text else 0.0


def compares_texts(text, problem):
    answer = extract_answer(text)
    if answer is None:
        return 0.0
    return 1.0 if answer == problem["answer"] else 0.1


def takes_the_last_number(text, problem):
    answer = extract_answer(text, fallback="number")
    if answer is None:
        return 0.0
    return 1.0 if grade(answer, problem["answer"]) else 0.1


def box_up_to_the_first_brace(text, problem):
    boxes = re.findall(r"\\boxed\{([^}]*)\}", text)
    if not boxes:
        return 0.0
    return 1.0 if grade(boxes[-1], problem["answer"]) else 0.1


WRONG = {
    "6.1": [
        population_spread,
        over_the_batch,
        divides_by_zero,
        overwrites_the_rewards,
        accepts_a_group_of_one,
        without_the_epsilon,
        epsilon_under_the_root,
        asks_the_library_for_advantages,
        asks_the_library_to_normalise,
    ],
    "6.2": [all_right_only, with_signal, product],
    "6.3": [includes_itself, divides_by_group_size, along_the_prompts, normalised],
    "6.4": [
        drops_the_end_token,
        counts_the_padding,
        counts_the_prompt,
        one_too_early,
        asks_the_library_to_pad,
        asks_the_library_for_examples,
    ],
    "6.5": [
        adds_up,
        counts_boxes,
        looks_for_the_word,
        compares_texts,
        takes_the_last_number,
        box_up_to_the_first_brace,
    ],
}
