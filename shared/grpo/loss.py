"""GRPO's loss as small pure functions: advantage, ratio, clip, KL term, mean. Taught in ch06 and ch07.

Shapes: `rollouts` rows, one a completion, padded to `length` tokens; `mask` is 1 on a completion's tokens, its end
token among them, and 0 on everything else. Log-probabilities are those of the sampled tokens, natural logarithms, at
the temperature they were sampled at.

Where the papers leave room, this follows TRL's GRPOTrainer (`tests/test_grpo_trl.py` compares them): unbiased standard
deviation plus 1e-4; importance sampling and off-policy mask act on the policy term and not on the KL term.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from shared.grpo.config import GRPOConfig
from shared.training.batches import aggregate, batch_totals

STD_FLOOR = 1e-4  # added to a standard deviation before dividing by it
MAX_LOG_RATIO = 20.0  # exp(20) is 5e8: no useful ratio is larger, and its gradient is finite


def group_advantages(rewards: Tensor, mode: str = "grpo", weights: Sequence[float] | None = None) -> Tensor:
    """How much better each rollout did than the others of its group: (prompts, group) advantages.

    With r the reward, mean and std over the rollouts of one prompt:

        grpo       (r - mean) / (std + 1e-4)                       arXiv:2402.03300
        dr_grpo    r - mean                                        arXiv:2503.20783
        batch      (r - mean) / (std over the batch + 1e-4)        arXiv:2508.08221
        gdpo       grpo's for each of several rewards, their sum divided by its own std over the batch + 1e-4
                                                                   arXiv:2601.05242

    They are exactly 0 where the rewards of a group are equal, so that `advantages.any(dim=1)` tells the groups with
    signal. `rewards` are (prompts, group), or (prompts, group, rewards) for several, which all modes but "gdpo" add up
    first; `weights` are one a reward, None for 1 each. Taught in ch07, section 7.7.

    Raises ValueError for an unknown mode, shapes or weights that do not fit, or a group of one.
    """
    ensure_groups(rewards, mode, weights)
    rewards = rewards.reshape(*rewards.shape[:2], -1) * 1.0  # (prompts, group, rewards), no integers
    scale = torch.ones_like(rewards[0, 0]) if weights is None else rewards.new_tensor(weights)
    if mode == "gdpo":
        combined = (normalize_groups(rewards) * scale).sum(dim=-1)
        return combined / (combined.std() + STD_FLOOR)  # its mean is 0 already
    total = (rewards * scale).sum(dim=-1)
    if mode == "grpo":
        return normalize_groups(total)
    centred = center_groups(total)
    return centred / (total.std() + STD_FLOOR) if mode == "batch" else centred


def center_groups(rewards: Tensor) -> Tensor:
    """Rewards less their group's mean, along dimension 1; exactly 0 where all of a group are equal."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    all_equal = rewards.amax(dim=1, keepdim=True) == rewards.amin(dim=1, keepdim=True)
    return centred.masked_fill(all_equal, 0.0)  # eight times 0.1 has a mean that is not quite 0.1


def normalize_groups(rewards: Tensor) -> Tensor:
    """Centred rewards divided by (their group's standard deviation + 1e-4)."""
    return center_groups(rewards) / (rewards.std(dim=1, keepdim=True) + STD_FLOOR)


def ensure_groups(rewards: Tensor, mode: str, weights: Sequence[float] | None) -> None:
    """Raises ValueError for what `group_advantages` cannot work with."""
    if not isinstance(rewards, Tensor) or not rewards.isfinite().all():
        raise ValueError(f"rewards is {rewards!r}: give a tensor of finite numbers, (prompts, group).")
    modes, shape = GRPOConfig.choices["advantage"], tuple(rewards.shape)
    if mode not in modes:
        raise ValueError(f"Unknown mode {mode!r}: choose one of {', '.join(modes)}.")
    if len(shape) not in (2, 3) or not all(shape):
        raise ValueError(f"The rewards are {shape}: give (prompts, group), or (prompts, group, rewards).")
    if shape[1] < 2:
        raise ValueError("A group of one has nothing to be compared with: sample at least 2 rollouts a prompt.")
    number = (*shape, 1)[2]
    if weights is not None and len(weights) != number:
        raise ValueError(f"There are {len(weights)} weights for {number} rewards: give one each.")


def policy_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: str = "token") -> Tensor:
    """How much likelier the policy has made each token since it was sampled: (rollouts, length), 1 outside the mask.

        token       exp(logprob - old_logprob)                                                  PPO, GRPO
        sequence    their geometric mean over the rollout's tokens, the same for all of them    GSPO, arXiv:2507.18071

    A product of hundreds of ratios would over- or underflow, and depend on the length. Raises ValueError for another
    level. Taught in ch06, section 6.10 (token), and ch07, section 7.4 (sequence).
    """
    log_ratio = (logprobs - old_logprobs).masked_fill(mask == 0, 0.0)
    if level == "sequence":
        mean = log_ratio.sum(dim=-1, keepdim=True) / mask.sum(dim=-1, keepdim=True).clamp(min=1)
        log_ratio = mean.expand_as(log_ratio)
    elif level != "token":
        raise ValueError(f"Unknown level {level!r}: choose token or sequence.")
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def clip_objective(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """PPO's clipped objective, to be maximised: min(r A, clip(r, 1 - clip_low, 1 + clip_high) A).

    Once a token with A > 0 is likelier than 1 + clip_high times what it was, or one with A < 0 less likely than
    1 - clip_low times, its gradient is 0. On the other side it never is: what went the wrong way is always mended
    (arXiv:1707.06347, arXiv:2402.03300). `ratio` is (rollouts, length), as is what is returned; `advantages` are
    (rollouts,), (rollouts, 1) or one a token. Taught in ch06, section 6.10; ch07, section 7.3.
    """
    advantages = advantages.reshape(len(ratio), -1)  # never (length,) by accident
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)


def cispo_objective(logprobs: Tensor, ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """CISPO's objective, to be maximised: stop_gradient(clip(r, 1 - clip_low, 1 + clip_high)) A logprob.

    The gradient goes through the log-probability, so that no token ever loses it (MiniMax-M1, arXiv:2506.13585). Shapes
    as in `clip_objective`. Taught in ch07, section 7.4.
    """
    return ratio.clamp(1 - clip_low, 1 + clip_high).detach() * advantages.reshape(len(ratio), -1) * logprobs


def truncated_weights(old_logprobs: Tensor, sampler_logprobs: Tensor, cap: float) -> Tensor:
    """Truncated importance sampling: min(exp(old_logprob - sampler_logprob), cap), (rollouts, length), no gradient.

    It corrects for small differences between the engine that samples and the one that trains; the cap bounds its
    variance (TIS, Yao et al. 2025; Olmo 3, arXiv:2512.13961, cap 2). Taught in ch07, section 7.11.
    """
    log_ratio = (old_logprobs - sampler_logprobs).detach()
    return log_ratio.clamp(max=MAX_LOG_RATIO).exp().clamp(max=cap)


def off_policy_keep(
    logprobs: Tensor, sampler_logprobs: Tensor, advantages: Tensor, mask: Tensor, threshold: float
) -> Tensor:
    """1 for rollouts to learn from, 0 for those to drop: (rollouts, 1), no gradient.

    Dropped are those with A < 0 whose mean over tokens of (sampler_logprob - logprob) is above the threshold: wrong
    answers that the policy would hardly write any more (DeepSeek-V3.2, arXiv:2512.02556). Taught in ch07, section 7.11.
    """
    moved = (sampler_logprobs - logprobs.detach()).masked_fill(mask == 0, 0.0).sum(dim=-1, keepdim=True)
    stale = moved / mask.sum(dim=-1, keepdim=True).clamp(min=1) > threshold
    return 1.0 - (stale & (advantages.reshape(len(mask), -1) < 0)).to(logprobs.dtype)


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """An estimate of KL(policy || reference) from one sampled token each, (rollouts, length).

    With r = exp(ref_logprob - logprob) (J. Schulman, "Approximating KL divergence", 2020):

        k1    -log r              unbiased value, may be negative
        k2    (log r)^2 / 2       biased, never negative
        k3    r - 1 - log r       unbiased, never negative, less variance than k1 while r is near 1; GRPO's

    As a loss, k1 has no pull towards the reference: its gradient is that of logprob, whatever the reference says.
    Taught in ch07, section 7.5. Raises ValueError for another estimator.
    """
    log_ratio = ref_logprobs - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    if estimator == "k3":
        return torch.expm1(log_ratio.clamp(max=MAX_LOG_RATIO)) - log_ratio  # exp - 1, not rounded below 0
    raise ValueError(f"Unknown estimator {estimator!r}: choose k1, k2 or k3.")


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor | None,
    ref_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    config: GRPOConfig,
    *,
    sampler_logprobs: Tensor | None = None,
    totals: Mapping[str, int] | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss to minimise, -aggregate(weight x objective - kl_coef x KL), and `loss_metrics`.

    Args:
        logprobs: (rollouts, length), of the policy; the only ones that get a gradient.
        old_logprobs: the same before the first step on this batch; None if this is the first step.
        ref_logprobs: of the reference model; needed if kl_coef is not 0, else for the metrics only.
        advantages: (rollouts,).
        sampler_logprobs: what the generating engine gave, for tis_cap and off_policy_mask; None for old_logprobs.
        totals: `batch_totals` of the whole batch, if this is a micro-batch, whose share is then returned.

    Returns a scalar, 0 if nothing is in the mask, and a dict of plain numbers. Raises ValueError if shapes do not fit
    or the reference is missing. Taught in ch07, section 7.12.
    """
    ensure_shapes(logprobs, (old_logprobs, ref_logprobs, sampler_logprobs), advantages, mask, config)
    logprobs, old_logprobs, ref_logprobs, sampler_logprobs = (
        None if values is None else values.masked_fill(mask == 0, 0.0)  # padding may hold -inf
        for values in (logprobs, old_logprobs, ref_logprobs, sampler_logprobs)
    )
    old_logprobs = logprobs.detach() if old_logprobs is None else old_logprobs
    sampler_logprobs = old_logprobs if sampler_logprobs is None else sampler_logprobs
    totals = batch_totals(mask) if totals is None else totals

    ratio = policy_ratio(logprobs, old_logprobs, mask, config.ratio)
    weights = correction_weights(logprobs, old_logprobs, sampler_logprobs, advantages, mask, config)
    objective = weights * policy_objective(logprobs, ratio, advantages, config)
    if config.kl_coef:
        objective = objective - config.kl_coef * kl_term(logprobs, old_logprobs, ref_logprobs, mask, config)
    loss = -aggregate(objective, mask, config.aggregation, max_length=config.max_new_tokens, **totals)

    with torch.no_grad():
        watched = {"weight": weights, "ratio": ratio} | clip_fractions(ratio, advantages, config)
        watched["kl_old"] = kl_estimate(old_logprobs, logprobs)
        if ref_logprobs is not None:
            watched["kl_ref"] = kl_estimate(logprobs, ref_logprobs)
    return loss, loss_metrics(watched, mask, config.ratio, totals)


def policy_objective(logprobs: Tensor, ratio: Tensor, advantages: Tensor, config: GRPOConfig) -> Tensor:
    """What each token adds to the objective, (rollouts, length), by `config.objective`."""
    if config.objective == "clip":
        return clip_objective(ratio, advantages, config.clip_low, config.clip_high)
    if config.objective == "cispo":
        return cispo_objective(logprobs, ratio, advantages, config.clip_low, config.clip_high)
    return ratio * advantages.reshape(len(ratio), -1)


def correction_weights(
    logprobs: Tensor, old: Tensor, sampler: Tensor, advantages: Tensor, mask: Tensor, config: GRPOConfig
) -> Tensor:
    """`truncated_weights` times `off_policy_keep`, as far as the configuration has them: (rollouts, length), else 1."""
    weights = torch.ones_like(logprobs)
    if config.tis_cap:
        weights = weights * truncated_weights(old, sampler, config.tis_cap)
    if config.off_policy_mask:
        weights = weights * off_policy_keep(logprobs, sampler, advantages, mask, config.off_policy_mask)
    return weights


def kl_term(logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, config: GRPOConfig) -> Tensor:
    """The configuration's KL estimate of each token, (rollouts, length), times the token's ratio if `kl_reweighted`.

    Tokens come from the old policy, but KL(policy || reference) is a mean over the policy's own. The ratio corrects for
    that, and having a gradient itself, it gives k1 and k3 the true one of each position's KL, even where it is 1
    (DeepSeek-V3.2, arXiv:2512.02556). k2 has it without the ratio. Taught in ch07, section 7.5.
    """
    kl = kl_estimate(logprobs, ref_logprobs, config.kl_estimator)
    return kl * policy_ratio(logprobs, old_logprobs, mask) if config.kl_reweighted else kl


def clip_fractions(ratio: Tensor, advantages: Tensor, config: GRPOConfig) -> dict[str, Tensor]:
    """Where PPO's clip takes a token's gradient away, or would, as 0 and 1, (rollouts, length) each.

    A ratio out of bounds on the other side keeps its gradient, so it does not count. With other objectives the same is
    counted, as in TRL.
    """
    advantages = advantages.reshape(len(ratio), -1)
    low = (ratio < 1 - config.clip_low) & (advantages < 0)
    high = (ratio > 1 + config.clip_high) & (advantages > 0)
    return {"clip_low": low.to(ratio.dtype), "clip_high": high.to(ratio.dtype)}


def loss_metrics(
    watched: Mapping[str, Tensor], mask: Tensor, level: str, totals: Mapping[str, int]
) -> dict[str, float]:
    """The means of what is watched over the batch's tokens, or over its rollouts if the ratio is one a rollout.

    `weight` is that of importance sampling and off-policy mask, `ratio` that of the policy to the old policy;
    `clip_low` and `clip_high` are shares (`clip_fractions`); `kl_old` and `kl_ref` are k3 estimates of KL(old policy ||
    policy) and KL(policy || reference). With the totals of a whole batch, those of its micro-batches add up to it.
    """
    return {name: aggregate(values.detach(), mask, level, **totals).item() for name, values in watched.items()}


def ensure_shapes(
    logprobs: Tensor, others: Sequence[Tensor | None], advantages: Tensor, mask: Tensor, config: GRPOConfig
) -> None:
    """Raises ValueError if the inputs of `grpo_loss` do not fit together."""
    if not all(isinstance(values, Tensor) for values in (logprobs, advantages, mask)):
        raise ValueError("One of logprobs, advantages and mask is no tensor: give torch.tensor(...) of it.")
    shapes = [tuple(values.shape) for values in (logprobs, mask, *others) if values is not None]
    if logprobs.dim() != 2 or len(set(shapes)) > 1:
        raise ValueError(f"The shapes are {shapes}: log-probabilities and mask must be (rollouts, length).")
    if advantages.shape not in [(len(logprobs),), (len(logprobs), 1)]:
        raise ValueError(f"advantages is {tuple(advantages.shape)} for {len(logprobs)} rollouts: give one each.")
    if config.kl_coef and others[1] is None:
        raise ValueError(f"kl_coef is {config.kl_coef}, but there is no ref_logprobs: give it, or set it to 0.")
