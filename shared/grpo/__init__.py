"""GRPO from scratch, one trainer for every variant. Taught in ch06 and ch07."""

from shared.grpo.config import PRESETS, GRPOConfig
from shared.grpo.loss import (
    center_groups,
    cispo_objective,
    clip_fractions,
    clip_objective,
    correction_weights,
    group_advantages,
    grpo_loss,
    kl_estimate,
    kl_term,
    loss_metrics,
    normalize_groups,
    off_policy_keep,
    policy_objective,
    policy_ratio,
    truncated_weights,
)
from shared.grpo.rollouts import Rollouts, reward_correct, reward_format, sample_rollouts
from shared.grpo.trainer import GRPO, GRPOTrainer
from shared.training.batches import aggregate, batch_totals
