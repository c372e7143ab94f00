"""Checks of the exercises of chapter 6."""

import copy
import math

import torch

from shared.checks import Mismatch, expect, register
from shared.distillation import SFTExample
from shared.generation.logprobs import pad_rows
from shared.grpo.loss import group_advantages, normalize_groups

# ------------------------------------------------------------------------------------- 6.1: advantages by hand


@register(
    "6.1",
    title="advantages by hand",
    hint="each group by itself: (r - mean) / (std + 1e-4), where the variance is the sum of squares over G - 1",
    hint2="for each group the mean, then the root of sum((r - mean) ** 2) / (len(group) - 1), as "
    "statistics.stdev gives it; build new lists, and look for groups of one before anything else",
    yourself=(group_advantages, normalize_groups),
)
def check_group_advantages(group_advantages):
    """Groups that differ, equal rewards, a group of one, and an input that must stay as it is."""
    groups = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.5, 1.0]]
    given = copy.deepcopy(groups)
    root = math.sqrt(3)
    expected = [[1.5, -0.5, -0.5, -0.5], [root / 2, root / 2, -root / 2, -root / 2], [-(0.5**0.5), 0.5**0.5]]
    got = group_advantages(given)
    expect(given == groups, True, case="the given rewards being left as they are")
    if not isinstance(got, (list, tuple)) or [_length(group) for group in got] != [4, 4, 2]:
        raise Mismatch("one list of advantages a group, as long as the group", got, "three groups")
    for rewards, advantages, right in zip(groups, got, expected, strict=True):
        expect(list(advantages), right, case=f"the group {rewards} (of three groups)", tolerance=1e-3)
    small = group_advantages([[0.001, 0.0, 0.0, 0.0]])
    expect(small, [[1.25, -1.25 / 3, -1.25 / 3, -1.25 / 3]], case="the group [0.001, 0, 0, 0]", tolerance=1e-5)
    for reward in (0.0, 1.0):
        expect(group_advantages([[reward] * 4]), [[0.0] * 4], case=f"four rewards of {reward}")
    _expect_value_error(group_advantages)
    return "every group is measured against itself, and equal rewards give no signal"


def _length(group: object) -> int:
    return len(group) if isinstance(group, (list, tuple)) else -1


def _expect_value_error(function) -> None:
    """A group of one has no spread; the reader's exception arrives wrapped, with the original as its cause."""
    case = "a group of one reward"
    try:
        got = function([[1.0]])
    except Exception as error:
        if isinstance(error.__cause__, ValueError):
            return
        raise
    raise Mismatch("a ValueError", got, case)


# ----------------------------------------------------------------------------------- 6.2: groups without signal


@register(
    "6.2",
    title="groups without signal",
    hint="a group has none if all G answers are right, or if all G are wrong; these exclude each other",
    hint2="all G right has the probability p to the power G; all G wrong that of 1 - p; add the two",
)
def check_share_without_signal(share_without_signal):
    """Figures worked out by hand."""
    cases = {
        (0.5, 2): 0.5,
        (0.18, 2): 0.7048,
        (0.18, 8): 0.18**8 + 0.82**8,
        (0.9, 4): 0.6562,
        (0.25, 3): 0.4375,
        (0.0, 8): 1.0,
        (1.0, 8): 1.0,
        (0.7, 1): 1.0,
    }
    for (p, group_size), share in cases.items():
        expect(share_without_signal(p, group_size), share, case=f"p={p}, group_size={group_size}")
    return "all right or all wrong: p^G + (1 - p)^G"


# ------------------------------------------------------------------------------------------- 6.3: leave one out


@register(
    "6.3",
    title="leave-one-out baseline",
    hint="the sum of the others is the group's sum less one's own reward; there are G - 1 of them",
    hint2="rewards.sum(dim=1, keepdim=True) - rewards is the sum of the others, for every rollout at once",
)
def check_leave_one_out(leave_one_out):
    """Two groups at once, each measured against itself, and as many prompts as rollouts."""
    cases = [
        ([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]], [[1, -1 / 3, -1 / 3, -1 / 3], [2 / 3, 2 / 3, -2 / 3, -2 / 3]]),
        ([[1.0, 0.0], [1.0, 1.0]], [[1.0, -1.0], [0.0, 0.0]]),
        ([[0.0, 0.5, 1.0]], [[-0.75, 0.0, 0.75]]),
    ]
    for rewards, advantages in cases:
        tensor = torch.tensor(rewards)
        expect(leave_one_out(tensor), torch.tensor(advantages), case=f"the rewards {rewards}", tolerance=1e-5)
        expect(tensor, torch.tensor(rewards), case="the given rewards being left as they are")
    return "every rollout is compared with the average of the others"


# ---------------------------------------------------------------------------------------- 6.4: mask from lengths


@register(
    "6.4",
    title="completion mask",
    hint="at which column does a completion begin, and how many columns later does it end?",
    hint2="compare torch.arange(width) with the columns start = prompt length and end = start + completion "
    "length, both of shape (rows, 1): columns >= start and columns < end",
    yourself=(pad_rows, SFTExample.completion_mask.fget),
)
def check_completion_mask(completion_mask):
    """Prompts of different lengths, a row that fills the width, and end tokens that look like padding."""
    cases = [
        (([2, 2], [3, 2], 6), [[0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]]),
        (([1, 3], [5, 1], 6), [[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0]]),
        (([3], [1], 4), [[0, 0, 0, 1]]),
    ]
    for (prompts, completions, width), expected in cases:
        case = f"prompts of {prompts} and completions of {completions} tokens in {width} columns"
        expect(completion_mask(prompts, completions, width), torch.tensor(expected), case=case)
    return "every sampled token counts, the end token too; prompts and padding do not"


# ------------------------------------------------------------------------------------------- 6.5: shaped reward

SHAPED = [
    ("\n12+5=17\n17*7=119\nThe answer is \\boxed{119}.", 1.0),
    (" \\boxed{119.0}", 1.0),
    (" \\boxed{\\frac{238}{2}}", 1.0),
    (" \\boxed{93}", 0.1),
    (" \\boxed{1} \\boxed{2} \\boxed{3} \\boxed{4} \\boxed{5} \\boxed{6}", 0.1),
    (" First \\boxed{93}, no: \\boxed{119}.", 1.0),
    (" First \\boxed{119}, no: \\boxed{93}.", 0.1),
    (" The answer is 119.", 0.0),
    (" The answer is \\boxed{119", 0.0),
    (" \\boxed{nonsense((}", 0.1),
    ("", 0.0),
]


@register(
    "6.5",
    title="shaped reward",
    hint="extract_answer gives None where no box is complete; grade decides between 1 and 0.1",
    hint2="answer = extract_answer(text); None gives 0.0; otherwise grade(answer, problem['answer']) decides "
    "between 1.0 and 0.1",
)
def check_shaped_reward(shaped_reward):
    """Right, wrong, without a box, several boxes; nothing may pay more than being right."""
    problem = {"problem": "Compute (12+5)*7.", "answer": "119"}
    for text, reward in SHAPED:
        expect(shaped_reward(text, problem), reward, case=f"the text {text!r}")
    return "a box is worth a little, the right answer in it everything"
