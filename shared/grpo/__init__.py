"""GRPO from scratch, one trainer for every variant. Taught in ch06 and ch07."""

from shared.grpo.config import GRPOConfig
from shared.grpo.loss import clip_objective, group_advantages, grpo_loss, kl_estimate
from shared.grpo.rollouts import Rollouts, reward_correct, reward_evaluated, reward_format, sample_rollouts
from shared.grpo.trainer import GRPO, GRPOTrainer
