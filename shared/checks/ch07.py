r"""Checks of the exercises of chapter 7."""

import math
import re

import torch

from shared.checks import Mismatch, NotStarted, expect, register
from shared.evaluation.evaluator import extract_answer
from shared.grpo import clip_objective, group_advantages, kl_estimate, reward_format
from shared.grpo.loss import normalize_groups

# ----------------------------------------------------------------------------------- 7.1: the slope of the clip

SLOPES = {
    (1, 0.5): 1.0,
    (1, 0.9): 1.0,
    (1, 1.1): 1.0,
    (1, 1.25): 1.0,
    (1, 1.5): 0.0,
    (1, 30.0): 0.0,
    (-1, 0.01): 0.0,
    (-1, 0.7): 0.0,
    (-1, 0.9): -1.0,
    (-1, 1.5): -1.0,
    (-1, 30.0): -1.0,
    (2.5, 1.0): 2.5,
    (-0.5, 1.29): -0.5,
    (0.0, 5.0): 0.0,
}


@register(
    "7.1",
    title="slope of the clipped objective",
    hint="which of the two terms is the minimum, and does it depend on the ratio? Ask for each sign of A",
    hint2="for A > 0 the slope is A below 1 + clip_high and 0 above; for A < 0 it is A above 1 - clip_low and 0 below",
    yourself=(clip_objective,),
)
def check_clip_slope(clip_slope):
    """Both signs, both sides, unequal bounds, and advantages that are not 1."""
    for (advantage, ratio), slope in SLOPES.items():
        case = f"advantage={advantage}, ratio={ratio}, clip_low=0.2, clip_high=0.28"
        expect(float(clip_slope(ratio, advantage, 0.2, 0.28)), slope, case=case)
    return "what went far enough in the wanted direction gets nothing, what went astray is brought back"


# -------------------------------------------------------------------------------------------------- 7.2: k3


@register(
    "7.2",
    title="k3 estimate of the KL",
    hint="x = ref - policy (log-probabilities), k3 = exp(x) - 1 - x (torch.expm1), and only tokens in the mask count",
    hint2="fill x with 0 where the mask is False *before* the exponential (masked_fill), then divide the sum by "
    "mask.sum(): infinity times 0 afterwards would be NaN",
    yourself=(kl_estimate,),
)
def check_k3_mean(k3_mean):
    """One token by hand, padding that is not finite, an average over tokens, and the exact KL."""
    policy, reference = torch.tensor([[0.2]]).log(), torch.tensor([[0.6]]).log()
    expect(
        float(k3_mean(policy, reference, torch.tensor([[True]]))),
        2 - math.log(3),
        case="0.2 against 0.6",
        tolerance=1e-4,
    )
    policy = torch.tensor([[0.2, 0.5, 0.0], [0.5, 0.5, 0.9]]).log()
    reference = torch.tensor([[0.6, 0.5, 0.1], [0.5, 0.25, 0.9]]).log()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    mean = (2 - math.log(3) + math.log(2) - 0.5) / 5
    got = float(k3_mean(policy, reference, mask))
    expect(got, mean, case="two rollouts of two and three tokens and one of padding", tolerance=1e-4)
    _expect_gradient(k3_mean)
    return "never negative, 0 where nothing moved, and padding does not count"


def _expect_gradient(k3_mean):
    """At the reference the gradient is 0; away from it, it is 1 - exp(x); outside the mask it is 0, and not NaN."""
    policy = torch.tensor([[0.2, 0.5, 0.0]]).log().requires_grad_()
    value = k3_mean(policy, torch.tensor([[0.6, 0.5, 0.1]]).log(), torch.tensor([[True, True, False]]))
    if not (isinstance(value, torch.Tensor) and value.requires_grad):
        raise Mismatch("a tensor through which the gradient flows", value, "log-probabilities with a gradient")
    (slope,) = torch.autograd.grad(value, policy)
    expect(
        slope,
        torch.tensor([[-1.0, 0.0, 0.0]]),
        case="the gradient of 0.2 against 0.6, 0.5 against 0.5, and padding of log-probability minus infinity",
        tolerance=1e-4,
    )


# ------------------------------------------------------------------------------ 7.3: tests for a format reward


def _parts(text: str) -> tuple[str, str, str, str, str]:
    before, opened, rest = text.partition("<think>")
    thinking, closed, after = rest.partition("</think>")
    return before, opened, thinking, closed, after


def _forbids_less_than(text: str) -> float:
    return float(reward_format(text, {}) and "<" not in _parts(text)[2])


def _needs_no_closing_tag(text: str) -> float:
    _, opened, *_ = _parts(text)
    return float(bool(opened) and "\\boxed{" in text)


def _takes_the_box_from_the_thinking(text: str) -> float:
    before, opened, thinking, closed, _ = _parts(text)
    return float(bool(opened and closed and thinking.strip() and not before.strip()) and "\\boxed{" in text)


def _allows_empty_thinking(text: str) -> float:
    before, opened, _, closed, after = _parts(text)
    return float(bool(opened and closed and not before.strip()) and extract_answer(after) is not None)


def _allows_text_before(text: str) -> float:
    before, opened, _, closed, _ = _parts(text)
    return float(bool(opened and closed) and reward_format(text[len(before) :], {}) == 1.0)


def _needs_no_answer(text: str) -> float:
    before, opened, thinking, closed, _ = _parts(text)
    return float(bool(opened and closed and thinking.strip() and not before.strip()))


def _allows_a_second_closing_tag(text: str) -> float:
    before, opened, thinking, closed, after = _parts(text)
    after = after.replace("</think>", "")
    return reward_format(before + opened + thinking + closed + after, {})


def _allows_a_second_opening_tag(text: str) -> float:
    before, opened, rest = text.partition("<think>")
    return reward_format(before + opened + rest.replace("<think>", ""), {})


FAULTY = {
    "accepts a second closing tag": _allows_a_second_closing_tag,
    "accepts a second opening tag": _allows_a_second_opening_tag,
    "forbids a '<' inside the thinking": _forbids_less_than,
    "does without the closing tag": _needs_no_closing_tag,
    "is content with a box inside the thinking": _takes_the_box_from_the_thinking,
    "accepts empty thinking": _allows_empty_thinking,
    "accepts text before the thinking": _allows_text_before,
    "needs no box at all": _needs_no_answer,
}


@register(
    "7.3",
    title="tests for the format reward",
    hint="one text for each way to go wrong: it should be fine but for that one thing",
    hint2="begin with '<think>a</think>\\boxed{1}' (1.0), and change one thing at a time: no closing tag, a "
    "second one, a second opening one, empty thinking, a word before it, no box, the box inside the thinking, a '<' "
    "in the thinking (still 1.0)",
)
def check_format_cases(cases):
    """Each case must be right, and each faulty reward must be caught by one of them."""
    if not isinstance(cases, (list, tuple)) or not all(isinstance(c, (list, tuple)) and len(c) == 2 for c in cases):
        raise Mismatch("a list of pairs (text, expected reward)", cases)
    for text, reward in cases:
        expect(float(reward), reward_format(text, {}), case=f"the expected reward of {text!r}")
    for fault, function in FAULTY.items():
        if all(function(text) == float(reward) for text, reward in cases):
            raise Mismatch("a case that catches it", "none", f"a reward that {fault}")
    return f"{len(cases)} cases, and all {len(FAULTY)} faulty rewards are caught"


# ------------------------------------------------------------------------------- 7.4: format only if correct

CONDITIONAL = [
    ("<think>\n12+5=17\n17*7=119\n</think>\n\\boxed{119}", 1.0),
    ("<think>\n12+5=17\n17*7=119\n</think>\n\\boxed{119.0}", 1.0),
    ("\n12+5=17\n17*7=119\nThe answer is \\boxed{119}.", 0.8),
    ("17*7=119\n</think>\n\\boxed{119}", 0.8),
    ("Well: <think>17*7=119</think>\\boxed{119}", 0.8),
    ("<think></think>\\boxed{119}", 0.8),
    ("<think>\n17*7=119\n\\boxed{119}</think>", 0.0),
    ("<think>\n12+5=17\n17*7=109\n</think>\n\\boxed{109}", 0.0),
    (" \\boxed{109}", 0.0),
    ("<think>119</think> The answer is 119.", 0.0),
    ("", 0.0),
]


@register(
    "7.4",
    title="conditional format reward",
    hint="first ask reward_correct; only if it is 1, ask reward_format",
    hint2="if reward_correct(...) is 0 return 0.0; otherwise reward_format(...) decides between 1.0 and 0.8",
)
def check_conditional_reward(conditional_reward):
    """Right and wrong, with and without the format."""
    problem = {"problem": "Compute (12+5)*7.", "answer": "119"}
    for text, reward in CONDITIONAL:
        expect(conditional_reward(text, problem), reward, case=f"the text {text!r}")
    return "the format pays only where the answer is right"


# --------------------------------------------------------------------------------------- 7.5: diagnoses

FAULTS = ("healthy", "learning rate too high", "token limit too small", "reward hacked", "broken verifier")
IN_WORDS = (r"\bhealthy\b", r"\brate\b", r"\blimit\b", "hacked|without being right", "verifier")  # each one's sign
DIAGNOSES = {"A": FAULTS[2], "B": FAULTS[3], "C": FAULTS[0], "D": FAULTS[4], "E": FAULTS[1]}
SIGNS = {
    "A": "look at what share of the rollouts is cut off at the first step, and how long these are",
    "B": "compare where the reward goes with where the held-out accuracy goes",
    "C": "is there anything that is wrong with it?",
    "D": "it has never got any reward, at no step, although its held-out accuracy is not 0",
    "E": "it could do something at first, and then lost it within a few steps",
}


@register(
    "7.5",
    title="five runs diagnosed",
    hint="go through the instruments in the order of section 7.1, and look at the first steps too",
    hint2="one run is cut off from its first step on; one has a rising reward and a falling held-out accuracy; "
    "one never sees a reward; one breaks down after a few steps; the last one does none of this",
)
def check_diagnoses(diagnoses):
    """One fault for each of the five runs."""
    if not isinstance(diagnoses, dict) or set(diagnoses) != set(DIAGNOSES):
        raise Mismatch(f"a dictionary with the keys {', '.join(DIAGNOSES)}", diagnoses)
    if any(value is ... for value in diagnoses.values()):
        raise NotStarted("put a diagnosis in the place of each ...")
    for run, diagnosis in diagnoses.items():
        told = [
            fault for fault, words in zip(FAULTS, IN_WORDS, strict=True) if re.search(words, str(diagnosis).lower())
        ]
        if len(told) != 1:
            raise Mismatch(f"one of {', '.join(FAULTS)}", diagnosis, f"run {run}")
        if told != [DIAGNOSES[run]]:
            raise Mismatch("another diagnosis", diagnosis, f"run {run} ({SIGNS[run]})")
    return "all five are right"


# ------------------------------------------------------------------------------------------------ 7.6: GDPO


@register(
    "7.6",
    title="GDPO's advantages",
    hint="each reward by itself within its group, then the weighted sum, then divide by its spread; both with n - 1",
    hint2="mean and std over dim=1 with keepdim=True, times the weights, sum over the last dimension, and then "
    "divide by .std() of all of it plus 1e-4, without subtracting a mean again",
    yourself=(group_advantages, normalize_groups),
)
def check_gdpo_advantages(gdpo_advantages):
    """The two groups of section 7.7, weights, a reward that is equal for all, and an input left as it is."""
    half = math.sqrt(0.5)
    rewards = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    given = rewards.clone()
    cases = [
        ("the two groups of section 7.7", rewards, [1.0, 1.0], [[-half, half], [-2 * half, 2 * half]]),
        ("the same with the weights 1 and 0", rewards, [1.0, 0.0], [[0.0, 0.0], [-half, half]]),
        ("the same with the weights 1 and 3", rewards, [1.0, 3.0], [[-3 * half, 3 * half], [-4 * half, 4 * half]]),
        (
            "one group of seven, whose first reward is always 0.1",
            torch.tensor([[[0.1, float(k)] for k in range(7)]]),
            [1.0, 2.0],
            [[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]],
        ),
    ]
    for case, values, weights, combined in cases:
        combined = torch.tensor(combined)
        expected = combined / combined.std()
        expect(gdpo_advantages(values, weights), expected, case=case, tolerance=2e-3)
    expect(torch.equal(rewards, given), True, case="the given rewards being left as they are")
    return "being better in two ways counts for more than being better in one"
