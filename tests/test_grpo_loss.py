"""GRPO's loss on examples worked by hand; `test_grpo_trl.py` compares it with TRL's. One test a trap, by its number."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import tensor

from shared.grpo.config import PRESETS, GRPOConfig
from shared.grpo.loss import (
    cispo_objective,
    clip_objective,
    group_advantages,
    grpo_loss,
    kl_estimate,
    kl_term,
    off_policy_keep,
    policy_ratio,
    truncated_weights,
)
from shared.training.batches import aggregate, batch_totals


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=atol, rtol=1e-5)


def logs(*probabilities: float) -> torch.Tensor:
    """Log-probabilities of one rollout, (1, length)."""
    return tensor([probabilities]).log()


def gradient(value: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, of, retain_graph=True)[0]


def random_batch(rollouts: int = 6, length: int = 5, seed: int = 0) -> dict:
    """Inputs of `grpo_loss` with rollouts of 1 to `length` tokens."""
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(rollouts, length, generator=generator) - 0.01
    lengths = torch.randint(1, length + 1, (rollouts, 1), generator=generator)
    return {
        "logprobs": old + 0.3 * torch.randn(old.shape, generator=generator),
        "old_logprobs": old,
        "ref_logprobs": old + 0.3 * torch.randn(old.shape, generator=generator),
        "sampler_logprobs": old + 0.3 * torch.randn(old.shape, generator=generator),
        "advantages": torch.randn(rollouts, generator=generator),
        "mask": (torch.arange(length) < lengths).float(),
    }


def rows_of(batch: dict, rows) -> dict:
    return {name: values[rows] for name, values in batch.items()}


def loss_and_gradient(batch: dict, config: GRPOConfig, **more) -> tuple[torch.Tensor, torch.Tensor, dict]:
    logprobs = batch["logprobs"].clone().requires_grad_()
    loss, metrics = grpo_loss(**batch | {"logprobs": logprobs}, config=config, **more)
    return loss.detach(), gradient(loss, logprobs), metrics


# ---------------------------------------------------------------------------------------------------- advantages


def test_advantages_by_hand():
    """Rewards 1, 0, 0, 1: mean 1/2, standard deviation sqrt(4 x 1/4 / 3) = 0.57735."""
    rewards = tensor([[1.0, 0.0, 0.0, 1.0]])
    close(group_advantages(rewards), [[0.865875, -0.865875, -0.865875, 0.865875]])
    close(group_advantages(rewards, "dr_grpo"), [[0.5, -0.5, -0.5, 0.5]])


def test_batch_mode_divides_by_one_standard_deviation():
    rewards = tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    std = math.sqrt((3 * (5 / 8) ** 2 + 5 * (3 / 8) ** 2) / 7) + 1e-4
    close(group_advantages(rewards, "batch"), [[0.75 / std] + [-0.25 / std] * 3, [0.5 / std] * 2 + [-0.5 / std] * 2])


@pytest.mark.parametrize("mode", ["grpo", "dr_grpo", "batch", "gdpo"])
def test_each_group_by_itself(mode):
    """Trap G12: two groups with other rewards, as many rollouts as groups; each group's advantages sum to 0."""
    rewards = tensor([[1.0, 0.0], [10.0, 30.0]])
    advantages = group_advantages(rewards, mode)
    close(advantages.sum(dim=1), [0.0, 0.0])
    assert advantages[0, 0] > 0 > advantages[0, 1]
    assert advantages[1, 0] < 0 < advantages[1, 1]


@pytest.mark.parametrize("mode", ["grpo", "dr_grpo", "batch", "gdpo"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3])
def test_equal_rewards_are_no_signal(mode, reward):
    """Trap G13: exactly 0, also where the mean of eight times 0.1 is not quite 0.1."""
    advantages = group_advantages(tensor([[reward] * 8, [0.0] * 7 + [1.0]]), mode)
    assert advantages.any(dim=1).tolist() == [False, True]


@pytest.mark.parametrize("mode", ["grpo", "dr_grpo", "batch", "gdpo"])
def test_a_group_of_one_is_an_error(mode):
    """Trap G13: its standard deviation would be NaN."""
    with pytest.raises(ValueError, match="at least 2"):
        group_advantages(tensor([[1.0], [0.0]]), mode)


def test_normalising_twice_is_not_done():
    """Trap G13: the standard deviation is 1 once, whatever the rewards' scale, and tiny differences stay small."""
    rewards = tensor([[1.0, 0.0, 0.0, 1.0, 0.0]])
    close(group_advantages(rewards).std(), 1.0, atol=1e-3)
    close(group_advantages(100 * rewards), group_advantages(rewards), atol=1e-3)
    assert group_advantages(1e-6 * rewards).abs().max() < 0.02, "noise is not blown up"


def test_gdpo_keeps_apart_what_the_sum_mixes_up():
    """Two rollouts, the second better in one reward or in both: the same advantage for GRPO, about twice for GDPO.

    The example of arXiv:2601.05242.
    """
    one_better = tensor([[[0.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    grpo, gdpo = group_advantages(one_better, "grpo"), group_advantages(one_better, "gdpo")
    close(grpo[0], grpo[1], atol=1e-3)
    assert gdpo[1, 1] > 1.9 * gdpo[0, 1]
    close(gdpo.std(), 1.0, atol=1e-3)


def test_weights_of_several_rewards():
    rewards = tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])
    total = tensor([[1.0, 0.2, 0.0]])
    close(group_advantages(rewards, "grpo", [1.0, 0.2]), group_advantages(total))
    # gdpo: columns (2, -1, -1) and (-1, 2, -1), both divided by sqrt(3) + 3e-4 and so on; the sum is normalised again
    column = tensor([2.0, -1.0, -1.0]) / (math.sqrt(3) + 3e-4)
    summed = column + 0.2 * column[[1, 0, 2]]
    close(group_advantages(rewards, "gdpo", [1.0, 0.2])[0], summed / (summed.std() + 1e-4))


def test_whole_numbers_are_rewards_too():
    close(group_advantages(tensor([[1, 0]])), group_advantages(tensor([[1.0, 0.0]])))
    close(group_advantages(tensor([[True, False]])), group_advantages(tensor([[1.0, 0.0]])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((tensor([1.0, 0.0]),), "give \\(prompts, group\\)"),
        ((tensor([[1.0, 0.0]]), "best"), "Unknown mode 'best'"),
        ((tensor([[1.0, 0.0]]), "grpo", [1.0, 2.0]), "2 weights for 1 reward"),
    ],
)
def test_bad_rewards_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        group_advantages(*arguments)


# ----------------------------------------------------------------------------------------------------- the ratio


def test_token_and_sequence_ratio_by_hand():
    """Trap G9: probabilities .50/.55, .40/.20, .90/.60 (old/new) and a padded fourth token."""
    old, new = logs(0.50, 0.40, 0.90, 0.3), logs(0.55, 0.20, 0.60, 0.9)
    mask = tensor([[1, 1, 1, 0]])
    close(policy_ratio(new, old, mask), [[1.1, 0.5, 2 / 3, 1.0]])
    geometric_mean = (1.1 * 0.5 * 2 / 3) ** (1 / 3)  # 0.7158; the product, 0.367, is not what GSPO takes
    close(policy_ratio(new, old, mask, "sequence"), [[geometric_mean] * 4])


def test_sequence_ratio_of_a_long_rollout():
    """Trap G9: 2,000 tokens, each 5 % likelier: the product is 2e42 and would overflow, the mean is 1.05."""
    old = torch.full((1, 2000), -3.0)
    ratio = policy_ratio(old + math.log(1.05), old, torch.ones_like(old), "sequence")
    close(ratio[0, 0], 1.05, atol=1e-5)


def test_another_level_of_the_ratio_is_told():
    with pytest.raises(ValueError, match="Unknown level 'batch': choose token or sequence"):
        policy_ratio(tensor([[-1.0]]), tensor([[-1.0]]), tensor([[1]]), "batch")


def test_first_step_has_ratio_one_and_the_policy_gradient():
    """Trap G5, the loss's part: nothing moved yet, so the ratio is 1 and the gradient that of advantage x logprob."""
    batch = random_batch()
    batch["old_logprobs"] = None
    _, slope, metrics = loss_and_gradient(batch, GRPOConfig("dapo"))
    assert metrics["ratio"] == pytest.approx(1.0)
    assert metrics["clip_low"] == metrics["clip_high"] == metrics["kl_old"] == 0.0
    close(slope, -batch["advantages"][:, None] * batch["mask"] / batch["mask"].sum())


def test_huge_ratios_stay_finite():
    old = tensor([[-500.0, -1.0], [-1.0, -500.0]])
    batch = {"logprobs": old.flip(0), "old_logprobs": old, "ref_logprobs": old, "advantages": tensor([1.0, -1.0])}
    batch["mask"] = torch.ones(2, 2)
    for preset in PRESETS:
        loss, slope, _ = loss_and_gradient(batch, GRPOConfig(preset, kl_coef=0.1))
        assert loss.isfinite()
        assert slope.isfinite().all()


# ------------------------------------------------------------------------------------------------------ the clip


@pytest.mark.parametrize(
    ("advantage", "ratio", "slope"),
    [
        (1, 0.3, 1), (1, 0.79, 1), (1, 1.0, 1), (1, 1.19, 1), (1, 1.29, 0), (1, 3.0, 0),
        (-1, 0.3, 0), (-1, 0.79, 0), (-1, 1.0, -1), (-1, 1.19, -1), (-1, 1.5, -1), (-1, 30.0, -1),
    ],
)  # fmt: skip
def test_gradient_of_the_clip(advantage, ratio, slope):
    """Trap G7: by the advantage's sign and the ratio; with `maximum` the rows at A = -1 come out the other way."""
    r = tensor([[float(ratio)]], requires_grad=True)
    objective = clip_objective(r, tensor([float(advantage)]), 0.2, 0.28)
    assert objective.item() == pytest.approx(min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage))
    assert gradient(objective.sum(), r).item() == slope


def test_one_advantage_a_rollout_even_if_the_batch_is_square():
    """Trap G12: three rollouts of three tokens; each row has its own advantage, given as (3,) or (3, 1)."""
    advantages = tensor([1.0, 10.0, 100.0])
    for shaped in (advantages, advantages[:, None]):
        close(clip_objective(torch.ones(3, 3), shaped, 0.2, 0.2), advantages[:, None].expand(3, 3))
        close(cispo_objective(torch.ones(3, 3), torch.ones(3, 3), shaped, 1, 4), advantages[:, None].expand(3, 3))
    square = random_batch(5, 5)
    for config in (GRPOConfig(), GRPOConfig(objective="plain"), GRPOConfig("cispo")):
        _, slope, _ = loss_and_gradient(square | {"mask": torch.ones(5, 5), "old_logprobs": None}, config)
        close(slope, (-square["advantages"] / 25)[:, None].expand(5, 5))


def test_cispo_never_loses_a_gradient():
    """The weight is at most 1 + clip_high; the gradient of a token is its weight times its advantage."""
    ratio = tensor([[0.1, 1.0, 9.0]], requires_grad=True)
    logprobs = torch.full((1, 3), -1.0, requires_grad=True)
    objective = cispo_objective(logprobs, ratio, tensor([-2.0]), 1.0, 4.0).sum()
    close(gradient(objective, logprobs), [[-0.2, -2.0, -10.0]])
    assert not cispo_objective(logprobs.detach(), ratio, tensor([1.0]), 1.0, 4.0).requires_grad


def test_plain_objective_has_no_clip():
    old, new = logs(0.1, 0.8), logs(0.9, 0.2)
    batch = {"logprobs": new, "old_logprobs": old, "ref_logprobs": None}
    batch |= {"advantages": tensor([1.0]), "mask": torch.ones(1, 2)}
    loss, slope, _ = loss_and_gradient(batch, GRPOConfig(objective="plain"))
    close(loss, -(9 + 0.25) / 2, atol=1e-5)
    close(slope, [[-4.5, -0.125]], atol=1e-5)


# ------------------------------------------------------------------------------- corrections for another sampler


def test_truncated_weights_by_hand():
    close(truncated_weights(logs(0.4, 0.1, 0.9), logs(0.2, 0.2, 0.1), 2.0), [[2.0, 0.5, 2.0]])
    batch = random_batch()
    _, slope, metrics = loss_and_gradient(batch, GRPOConfig("olmo3"))
    _, without, _ = loss_and_gradient(batch, GRPOConfig("olmo3", tis_cap=0))
    weights = truncated_weights(batch["old_logprobs"], batch["sampler_logprobs"], 2.0)
    close(slope, without * weights)
    assert metrics["weight"] == pytest.approx(((weights * batch["mask"]).sum() / batch["mask"].sum()).item())


def test_the_same_engine_needs_no_correction():
    batch = random_batch() | {"sampler_logprobs": None}
    ours, plain = GRPOConfig("olmo3"), GRPOConfig("olmo3", tis_cap=0)
    close(loss_and_gradient(batch, ours)[1], loss_and_gradient(batch, plain)[1])


def test_off_policy_mask_drops_only_stale_wrong_rollouts():
    """Rows: stale and wrong, stale and right, near and wrong, likelier and wrong. Padding must not count."""
    sampler = torch.full((4, 3), -1.0)
    moved = tensor([[-3.0], [-3.0], [-0.1], [+0.9]]) * tensor([1.0, 1.0, 0.0]) + tensor([0.0, 0.0, -99.0])
    mask = tensor([[1, 1, 0]] * 4)
    keep = off_policy_keep(sampler + moved, sampler, tensor([-1.0, 1.0, -1.0, -1.0]), mask, 0.5)
    assert keep.tolist() == [[0.0], [1.0], [1.0], [1.0]]


def test_off_policy_mask_leaves_the_kl_term():
    """DeepSeek-V3.2's M multiplies the policy term only."""
    batch = random_batch() | {"advantages": -torch.ones(6)}
    batch["sampler_logprobs"] = batch["logprobs"] + 5
    config = GRPOConfig("deepseek_v32", kl_coef=0.5)
    _, slope, metrics = loss_and_gradient(batch, config)
    _, kl_only, _ = loss_and_gradient(batch | {"advantages": torch.zeros(6)}, config)
    assert metrics["weight"] == 0.0
    close(slope, kl_only)
    assert slope.abs().max() > 0


# --------------------------------------------------------------------------------------------------- the KL term


def test_kl_estimates_by_hand():
    """A token of probability 0.2 in the policy and 0.6 in the reference: r = 3."""
    new, ref = logs(0.2), logs(0.6)
    close(kl_estimate(new, ref, "k1"), [[-math.log(3)]])
    close(kl_estimate(new, ref, "k2"), [[math.log(3) ** 2 / 2]])
    close(kl_estimate(new, ref, "k3"), [[3 - 1 - math.log(3)]])


def test_k3_is_never_negative_and_zero_at_the_reference():
    """Trap G8."""
    batch = random_batch(50, 20)
    estimate = kl_estimate(batch["logprobs"], batch["ref_logprobs"])
    assert (estimate > 0).all()
    assert not kl_estimate(batch["ref_logprobs"], batch["ref_logprobs"]).any()
    assert (kl_estimate(batch["logprobs"], batch["ref_logprobs"], "k1") < 0).any(), "k1 may be negative"


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
def test_k3_is_exact_in_single_precision_near_the_reference(size):
    """There exp(x) - 1 - x is rounding only, and below 0 for some tokens: policies that have hardly moved are there."""
    steps = size * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    policy = -torch.rand(100_000, generator=torch.Generator().manual_seed(1))
    reference = policy + steps
    log_ratio = (reference - policy).double()
    estimate = kl_estimate(policy, reference)
    assert estimate.dtype == torch.float32
    assert (estimate >= 0).all()
    close(estimate.double().mean() / (torch.expm1(log_ratio) - log_ratio).mean(), 1.0, atol=1e-3)
    assert kl_estimate(torch.zeros(1), torch.tensor([100.0])) > 0, "the bound is on the exponential"


def test_k1_and_k3_are_right_on_average():
    """Over all tokens of a distribution, weighted with it, both give KL(policy || reference); k2 is near."""
    policy, reference = tensor([0.5, 0.3, 0.2]), tensor([0.4, 0.4, 0.2])
    truth = (policy * (policy / reference).log()).sum()
    means = {name: (policy * kl_estimate(policy.log(), reference.log(), name)).sum() for name in ("k1", "k2", "k3")}
    close(means["k1"], truth)
    close(means["k3"], truth)
    close(means["k2"], truth, atol=0.1 * truth.item())


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_the_gradient_knows_the_reference(estimator):
    """Trap G8: another reference, another gradient; at the reference, none from the KL term."""
    batch, config = random_batch(), GRPOConfig(kl_coef=0.3, kl_estimator=estimator)
    slope = loss_and_gradient(batch, config)[1]
    moved = loss_and_gradient(batch | {"ref_logprobs": batch["ref_logprobs"] - 0.5}, config)[1]
    assert (slope - moved).abs().max() > 0.01
    at_reference = loss_and_gradient(batch | {"ref_logprobs": batch["logprobs"]}, config)[1]
    close(at_reference, loss_and_gradient(batch, replace(config, kl_coef=0.0))[1])


def test_k1_as_a_loss_has_no_pull():
    """Trap G8: the gradient is the same whatever the reference, until the ratio multiplies it (DeepSeek-V3.2)."""
    batch, config = random_batch(), GRPOConfig(kl_coef=0.3, kl_estimator="k1")
    elsewhere = batch | {"ref_logprobs": batch["ref_logprobs"] - 5}
    close(loss_and_gradient(batch, config)[1], loss_and_gradient(elsewhere, config)[1])
    reweighted = replace(config, kl_reweighted=True)
    change = loss_and_gradient(batch, reweighted)[1] - loss_and_gradient(elsewhere, reweighted)[1]
    assert change[batch["mask"] > 0].abs().min() > 0.01


@pytest.mark.parametrize(
    ("estimator", "reweighted", "pulled"),
    [("k1", False, False), ("k2", False, True), ("k3", True, True), ("k1", True, True)],
)
def test_expected_gradient_of_the_kl_term(estimator, reweighted, pulled):
    """Trap G8, exactly: the mean over all tokens of the term's gradient on the logits, against that of the true KL.

    k1's mean gradient is 0. k2's and the reweighted ones' are the KL's own.
    """
    logits, ref = tensor([0.3, -0.2, 1.0], requires_grad=True), tensor([1.0, 0.5, -1.0]).log_softmax(0)
    logprobs = logits.log_softmax(0)
    policy = logprobs.detach().exp()
    config = GRPOConfig(kl_estimator=estimator, kl_reweighted=reweighted)
    term = kl_term(logprobs[None], logprobs.detach()[None], ref[None], torch.ones(1, 3), config)[0]
    mean_gradient = gradient((policy * term).sum(), logits)
    true_gradient = gradient((logprobs.exp() * (logprobs - ref)).sum(), logits) if pulled else torch.zeros(3)
    close(mean_gradient, true_gradient)


def test_expected_gradient_of_plain_k3_is_the_other_direction_s():
    """Trap G8: without the ratio, k3 pulls along KL(reference || policy): a pull, but not that of its own value."""
    logits, ref = tensor([0.3, -0.2, 1.0], requires_grad=True), tensor([1.0, 0.5, -1.0]).log_softmax(0)
    term = kl_estimate(logits.log_softmax(0), ref)
    mean_gradient = gradient((logits.softmax(0).detach() * term).sum(), logits)
    close(mean_gradient, gradient((ref.exp() * (ref - logits.log_softmax(0))).sum(), logits))


def test_a_missing_reference_is_told():
    batch = random_batch() | {"ref_logprobs": None}
    with pytest.raises(ValueError, match="there is no ref_logprobs"):
        grpo_loss(**batch, config=GRPOConfig(kl_coef=0.1))
    assert "kl_ref" not in grpo_loss(**batch, config=GRPOConfig())[1]


# ------------------------------------------------------------------------------------------------------ the mean

VALUES, MASK = tensor([[6.0, 99.0, 99.0], [1.0, 2.0, 3.0]]), tensor([[1, 0, 0], [1, 1, 1]])


def test_aggregate_by_hand():
    """One rollout of one token with the value 6, one of three tokens with 1, 2, 3."""
    close(aggregate(VALUES, MASK, "sequence"), (6 + 2) / 2)
    close(aggregate(VALUES, MASK, "token"), 12 / 4)
    close(aggregate(VALUES, MASK, "constant", max_length=10), 12 / 20)
    with pytest.raises(ValueError, match="Unknown mode 'mean'"):
        aggregate(VALUES, MASK, "mean")


def test_what_is_outside_the_mask_does_not_matter():
    """Trap G11: padding counts neither above nor below the fraction, even where it is infinite or NaN."""
    batch = random_batch()
    outside = batch["mask"] == 0
    assert outside.any()
    configs = [GRPOConfig(preset, kl_coef=0.1) for preset in PRESETS]
    configs += [GRPOConfig(kl_coef=0.1, kl_estimator="k2"), GRPOConfig("cispo", tis_cap=2.0)]
    for config in configs:
        loss, slope, metrics = loss_and_gradient(batch, config)
        for filler in (7.0, float("-inf"), float("nan")):
            filled = {
                name: values.masked_fill(outside, filler) if name.endswith("logprobs") else values
                for name, values in batch.items()
            }
            other_loss, other_slope, other_metrics = loss_and_gradient(filled, config)
            close(other_loss, loss)
            close(other_slope, slope)
            assert other_metrics == pytest.approx(metrics)


@pytest.mark.parametrize("preset", PRESETS)
def test_nothing_in_the_mask_is_no_loss(preset):
    """Trap G11: all rollouts masked: loss 0, gradients 0, metrics 0, nothing divided by 0."""
    batch = random_batch() | {"mask": torch.zeros(6, 5)}
    loss, slope, metrics = loss_and_gradient(batch, GRPOConfig(preset, kl_coef=0.1))
    assert loss == 0.0
    assert not slope.any()
    assert all(value == 0.0 for value in metrics.values())


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("cuts", [[6], [1, 1, 1, 1, 1, 1], [4, 2], [2, 4]])
def test_micro_batches_add_up(preset, cuts):
    """Traps G10 and G15: loss, gradients and metrics are the whole batch's, for any cut and any order of rollouts."""
    batch, config = random_batch(), GRPOConfig(preset, kl_coef=0.1)
    whole_loss, whole_slope, whole_metrics = loss_and_gradient(batch, config)
    totals = batch_totals(batch["mask"])
    loss, slope, metrics = torch.zeros(()), torch.zeros_like(whole_slope), dict.fromkeys(whole_metrics, 0.0)
    for rows in tensor([3, 0, 5, 1, 4, 2]).split(cuts):
        share = loss_and_gradient(rows_of(batch, rows), config, totals=totals)
        loss, slope[rows] = loss + share[0], share[1]
        metrics = {name: metrics[name] + share[2][name] for name in metrics}
    close(loss, whole_loss)
    close(slope, whole_slope)
    assert metrics == pytest.approx(whole_metrics, abs=1e-6)


def test_the_three_means_weigh_long_rollouts_differently():
    """Trap G10: gradient a token of a right answer of one token and a wrong one of three."""
    batch = {"logprobs": torch.zeros(2, 3), "old_logprobs": None, "ref_logprobs": None, "mask": MASK}
    batch["advantages"] = tensor([1.0, -1.0])
    slopes = {}
    for preset in ("grpo", "dapo", "dr_grpo"):
        slopes[preset] = loss_and_gradient(batch, GRPOConfig(preset, max_new_tokens=10))[1]
    close(slopes["grpo"], [[-1 / 2, 0, 0], [1 / 6, 1 / 6, 1 / 6]])
    close(slopes["dapo"], [[-1 / 4, 0, 0], [1 / 4, 1 / 4, 1 / 4]])
    close(slopes["dr_grpo"], [[-1 / 20, 0, 0], [1 / 20, 1 / 20, 1 / 20]])


# --------------------------------------------------------------------------------------------- the loss by hand


def test_whole_loss_by_hand():
    """Two rollouts: ratios 1.5 (clipped to 1.2), 0.5 | 0.5 (clipped to 0.8); one token off the reference."""
    new = tensor([[0.6, 0.2], [0.1, 0.5]]).log()
    old = tensor([[0.4, 0.4], [0.2, 0.5]]).log()
    ref = tensor([[0.6, 0.4], [0.1, 0.9]]).log()
    mask = tensor([[1, 1], [1, 0]])
    config = GRPOConfig(kl_coef=0.1)
    loss, metrics = grpo_loss(new, old, ref, tensor([1.0, -1.0]), mask, config)
    k3 = 2 - 1 - math.log(2)
    first = (1.2 + 0.5 - 0.1 * k3) / 2
    second = -0.8
    close(loss, -(first + second) / 2)
    assert metrics == pytest.approx(
        {
            "ratio": 2.5 / 3,
            "clip_low": 1 / 3,  # the second rollout's token
            "clip_high": 1 / 3,  # the first token; the second's 0.5 is low, but A > 0, so it keeps its gradient
            "kl_old": ((0.5 - math.log(1.5)) + 2 * (-0.5 + math.log(2))) / 3,
            "kl_ref": k3 / 3,
            "weight": 1.0,
        }
    )


@pytest.mark.parametrize(
    ("advantage", "ratio", "low", "high"),
    [(1, 0.5, 0, 0), (1, 1.5, 0, 1), (-1, 0.5, 1, 0), (-1, 1.5, 0, 0), (0, 0.5, 0, 0), (0, 1.5, 0, 0), (1, 1.1, 0, 0)],
)  # fmt: skip
def test_clip_metrics_look_at_the_sign(advantage, ratio, low, high):
    """Trap G15: counted is what loses its gradient."""
    old = torch.full((1, 1), -2.0)
    metrics = grpo_loss(old + math.log(ratio), old, None, tensor([float(advantage)]), torch.ones(1, 1), GRPOConfig())[1]
    assert (metrics["clip_low"], metrics["clip_high"]) == (low, high)


def test_metrics_are_plain_numbers_without_a_graph():
    """Traps G15 and G16: they can go into JSON, and nothing but the policy's log-probabilities gets a gradient."""
    batch = random_batch()
    for name in ("old_logprobs", "ref_logprobs", "sampler_logprobs"):
        batch[name].requires_grad_()
    logprobs = batch["logprobs"].clone().requires_grad_()
    loss, metrics = grpo_loss(
        **batch | {"logprobs": logprobs, "old_logprobs": batch["old_logprobs"].detach(),
                   "ref_logprobs": batch["ref_logprobs"].detach()},
        config=GRPOConfig("olmo3", off_policy_mask=0.5, kl_coef=0.1),
    )  # fmt: skip
    loss.backward()
    assert json.loads(json.dumps(metrics)) == metrics
    assert batch["sampler_logprobs"].grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"advantages": torch.ones(5)}, "one each"),
        ({"advantages": torch.ones(6, 5)}, "one each"),
        ({"mask": torch.ones(6)}, "must be \\(rollouts, length\\)"),
        ({"old_logprobs": torch.zeros(6, 1)}, "must be \\(rollouts, length\\)"),
        ({"logprobs": torch.zeros(5)}, "must be \\(rollouts, length\\)"),
    ],
)
def test_shapes_that_do_not_fit_are_told(change, message):
    """Trap G12: (B,), (B, 1) and (B, T) are never mixed up in silence."""
    with pytest.raises(ValueError, match=message):
        grpo_loss(**random_batch() | change, config=GRPOConfig())


# ---------------------------------------------------------------------------------------------------- the config


def test_presets_switch_what_their_papers_do():
    base = GRPOConfig()
    switched = {
        name: {f.name for f in fields(base) if getattr(GRPOConfig(name), f.name) != getattr(base, f.name)} - {"preset"}
        for name in PRESETS
    }  # fmt: skip
    assert switched == {
        "grpo": set(),
        "dr_grpo": {"advantage", "aggregation"},
        "dapo": {"aggregation", "clip_high", "filter_zero_signal", "dynamic_sampling"},
        "bnpo": {"aggregation"},
        "gspo": {"ratio", "clip_low", "clip_high"},
        "cispo": {"objective", "clip_low", "clip_high", "aggregation"},
        "olmo3": {"advantage", "aggregation", "clip_high", "tis_cap", "filter_zero_signal", "dynamic_sampling"},
        "deepseek_v32": {"advantage", "kl_coef", "kl_reweighted", "off_policy_mask", "keep_sampling_mask"},
        "gdpo": {"advantage"},
    }


def test_a_value_of_your_own_beats_the_preset_s():
    config = GRPOConfig("dapo", clip_high=0.2, dynamic_sampling=False, seed=3)
    assert (config.clip_high, config.dynamic_sampling, config.aggregation, config.seed) == (0.2, False, "token", 3)
    assert GRPOConfig("olmo3", tis_cap=0).tis_cap == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_config_survives_json_and_replace(preset):
    config = GRPOConfig(preset, reward_weights=[1.0, 0.5])
    assert GRPOConfig(**json.loads(json.dumps(asdict(config)))) == config
    assert replace(replace(config, seed=7), seed=config.seed) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "ppo"}, "Unknown preset 'ppo': choose one of grpo, dr_grpo"),
        ({"advantage": "mean"}, "advantage is 'mean': choose one of grpo"),
        ({"aggregation": "mean"}, "aggregation is 'mean'"),
        ({"kl_estimator": "k4"}, "kl_estimator is 'k4'"),
        ({"precision": "fp16"}, "precision is 'fp16'"),
        ({"prompt_style": "haiku"}, "prompt_style is 'haiku'"),
        ({"group_size": 1}, "at least 2"),
        ({"clip_low": -0.1}, "clip_low is -0.1: it must not be negative"),
        ({"kl_coef": float("nan")}, "kl_coef is nan"),
        ({"learning_rate": 0}, "learning_rate is 0: give a positive number"),
        ({"temperature": 0}, "temperature is 0"),
        ({"top_p": 0}, "top_p is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: it must be at least 1"),
        ({"ref_every": 0}, "or None for never"),
        ({"reward_weights": [float("inf")]}, "give finite numbers"),
    ],
)
def test_bad_settings_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        GRPOConfig(**settings)
