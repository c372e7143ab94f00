"""Plausible wrong answers to the exercises of chapter 7."""

import torch

from shared.grpo import clip_objective, group_advantages, kl_estimate, reward_correct, reward_format
from shared.grpo.loss import normalize_groups


# 7.1
def maximum_for_negative(ratio, advantage, clip_low, clip_high):
    inside = ratio < 1 + clip_high
    return advantage if inside else 0.0


def out_of_bounds_is_zero(ratio, advantage, clip_low, clip_high):
    return advantage if 1 - clip_low <= ratio <= 1 + clip_high else 0.0


def same_bound_twice(ratio, advantage, clip_low, clip_high):
    if advantage > 0:
        return advantage if ratio < 1 + clip_low else 0.0
    return advantage if ratio > 1 - clip_low else 0.0


def sign_only(ratio, advantage, clip_low, clip_high):
    if advantage > 0:
        return 1.0 if ratio < 1 + clip_high else 0.0
    return -1.0 if ratio > 1 - clip_low else 0.0


def swaps_the_signs(ratio, advantage, clip_low, clip_high):
    if advantage > 0:
        return advantage if ratio > 1 - clip_low else 0.0
    return advantage if ratio < 1 + clip_high else 0.0


def asks_the_library_and_autograd(ratio, advantage, clip_low, clip_high):
    at = torch.tensor([[ratio]], requires_grad=True)
    clip_objective(at, torch.tensor([advantage]), clip_low, clip_high).sum().backward()
    return at.grad.item()


# 7.2
def _masked_mean(values, mask):
    return values.masked_fill(mask == 0, 0.0).sum() / mask.sum()


def other_direction(logprobs, ref_logprobs, mask):
    x = (logprobs - ref_logprobs).masked_fill(mask == 0, 0.0)
    return _masked_mean(x.exp() - 1 - x, mask)


def k1(logprobs, ref_logprobs, mask):
    return _masked_mean(logprobs - ref_logprobs, mask)


def k2(logprobs, ref_logprobs, mask):
    return _masked_mean((logprobs - ref_logprobs) ** 2 / 2, mask)


def counts_padding(logprobs, ref_logprobs, mask):
    x = (ref_logprobs - logprobs).masked_fill(mask == 0, 0.0)
    return (x.exp() - 1 - x).mean()


def mean_of_means(logprobs, ref_logprobs, mask):
    x = (ref_logprobs - logprobs).masked_fill(mask == 0, 0.0)
    return ((x.exp() - 1 - x).sum(dim=1) / mask.sum(dim=1)).mean()


def masks_when_it_is_too_late(logprobs, ref_logprobs, mask):
    x = ref_logprobs - logprobs
    return (x.exp() - 1 - x)[mask].mean()  # the value is right, the gradient of the padding is 0 times infinity


def multiplies_by_the_mask(logprobs, ref_logprobs, mask):
    x = ref_logprobs - logprobs
    return ((x.exp() - 1 - x) * mask).sum() / mask.sum()


def a_plain_number(logprobs, ref_logprobs, mask):
    x = (ref_logprobs - logprobs).masked_fill(mask == 0, 0.0)
    return _masked_mean(x.exp() - 1 - x, mask).item()


def asks_the_library_for_k3(logprobs, ref_logprobs, mask):
    return kl_estimate(logprobs[mask], ref_logprobs[mask]).mean()


# 7.3
GOOD = ("<think>1+1=2</think>\\boxed{2}", 1.0)
only_the_good_case = [GOOD]
only_the_obvious = [GOOD, ("\\boxed{2}", 0.0), ("", 0.0), ("<think>1+1=2 \\boxed{2}", 0.0)]
thinks_less_than_is_forbidden = [*only_the_obvious, ("<think>1 < 2</think>\\boxed{2}", 0.0)]
two_faults_at_once = [
    GOOD,
    ("<think>1 < 2</think>\\boxed{2}", 1.0),
    ("Well <think></think>", 0.0),
    ("<think>1+1=2 \\boxed{2}", 0.0),
    ("<think>\\boxed{2}</think>", 0.0),
]
a_text_as_reward = [("<think>a</think>\\boxed{1}", "1")]
the_cases_of_the_chapter = [
    ("<think>\n1+1=2\n</think>\n\\boxed{2}", 1.0),
    ("<think>if 1 < 2, then 2 > 1</think> \\boxed{2}", 1.0),
    ("\\boxed{2}", 0.0),
    ("<think>1+1=2 \\boxed{2}", 0.0),
    ("<think></think>\\boxed{2}", 0.0),
    ("<think>\\boxed{2}</think>", 0.0),
    ("Sure! <think>1+1=2</think>\\boxed{2}", 0.0),
    ("<think>1</think><think>2</think>\\boxed{2}", 0.0),
]  # no second closing tag
without_a_second_opening = [
    GOOD,
    ("<think>1 < 2</think>\\boxed{2}", 1.0),
    ("<think>1+1=2 \\boxed{2}", 0.0),
    ("<think>\\boxed{2}</think>", 0.0),
    ("<think> </think>\\boxed{2}", 0.0),
    ("So <think>1+1=2</think>\\boxed{2}", 0.0),
    ("<think>1+1=2</think> 2", 0.0),
    ("<think>1+1</think>=2</think>\\boxed{2}", 0.0),
]


# 7.4
def the_sum(text, problem):
    return 0.8 * reward_correct(text, problem) + 0.2 * reward_format(text, problem)


def the_product(text, problem):
    return reward_correct(text, problem) * reward_format(text, problem)


def the_wrong_way_round(text, problem):
    return reward_format(text, problem) * (0.8 + 0.2 * reward_correct(text, problem))


def looks_for_a_tag(text, problem):
    return reward_correct(text, problem) * (1.0 if "</think>" in text else 0.8)


def looks_for_both_tags(text, problem):
    return reward_correct(text, problem) * (1.0 if "<think>" in text and "</think>" in text else 0.8)


def forgets_empty_thinking(text, problem):
    return reward_correct(text, problem) * (1.0 if text.startswith("<think>") and "</think>" in text else 0.8)


# 7.5
all_healthy = dict.fromkeys("ABCDE", "healthy")
mixed_up = {
    "A": "broken verifier",
    "B": "healthy",
    "C": "reward hacked",
    "D": "token limit too small",
    "E": "learning rate too high",
}
misspelt = mixed_up | {"A": "too short"}
everything_at_once = dict.fromkeys("ABCDE", "healthy, or the rate, or the limit")


# 7.6
def the_grpo_sum(rewards, weights):
    total = (rewards * torch.tensor(weights)).sum(dim=-1)
    return (total - total.mean(dim=1, keepdim=True)) / (total.std(dim=1, keepdim=True) + 1e-4)


def without_the_last_division(rewards, weights):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return (centred / (rewards.std(dim=1, keepdim=True) + 1e-4) * torch.tensor(weights)).sum(dim=-1)


def over_the_whole_batch(rewards, weights):
    normal = (rewards - rewards.mean(dim=(0, 1))) / (rewards.std(dim=(0, 1)) + 1e-4)
    combined = (normal * torch.tensor(weights)).sum(dim=-1)
    return combined / (combined.std() + 1e-4)


def divides_in_each_group(rewards, weights):
    combined = without_the_last_division(rewards, weights)
    return combined / (combined.std(dim=1, keepdim=True) + 1e-4)


def forgets_the_weights(rewards, weights):
    combined = without_the_last_division(rewards, [1.0] * len(weights))
    return combined / (combined.std() + 1e-4)


def only_nan_becomes_zero(rewards, weights):
    normal = (rewards - rewards.mean(dim=1, keepdim=True)) / rewards.std(dim=1, keepdim=True)
    combined = (normal.nan_to_num() * torch.tensor(weights)).sum(dim=-1)
    return combined / combined.std()


def asks_the_library_for_gdpo(rewards, weights):
    return group_advantages(rewards, "gdpo", weights)


def asks_the_library_to_normalise(rewards, weights):
    combined = (normalize_groups(rewards) * torch.tensor(weights)).sum(dim=-1)
    return combined / (combined.std() + 1e-4)


WRONG = {
    "7.1": [
        maximum_for_negative,
        out_of_bounds_is_zero,
        same_bound_twice,
        sign_only,
        swaps_the_signs,
        asks_the_library_and_autograd,
    ],
    "7.2": [
        other_direction,
        k1,
        k2,
        counts_padding,
        mean_of_means,
        masks_when_it_is_too_late,
        multiplies_by_the_mask,
        a_plain_number,
        asks_the_library_for_k3,
    ],
    "7.3": [
        only_the_good_case,
        only_the_obvious,
        thinks_less_than_is_forbidden,
        two_faults_at_once,
        a_text_as_reward,
        the_cases_of_the_chapter,
        without_a_second_opening,
    ],
    "7.4": [the_sum, the_product, the_wrong_way_round, looks_for_a_tag, looks_for_both_tags, forgets_empty_thinking],
    "7.5": [all_healthy, mixed_up, misspelt, everything_at_once],
    "7.6": [
        the_grpo_sum,
        without_the_last_division,
        over_the_whole_batch,
        divides_in_each_group,
        forgets_the_weights,
        only_nan_becomes_zero,
        asks_the_library_for_gdpo,
        asks_the_library_to_normalise,
    ],
}
