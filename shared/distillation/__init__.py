"""Distillation from scratch: learn from a teacher's solutions, or from its probabilities. Taught in ch08."""

from shared.distillation.config import DistillConfig
from shared.distillation.examples import (
    SFTExample,
    SFTExamples,
    build_sft_examples,
    load_rows,
    sft_prompt,
    split_examples,
)
from shared.distillation.loss import sft_loss, soft_loss, token_divergences, token_kl
from shared.distillation.trainer import (
    DistillationTrainer,
    epoch_batches,
    train_distillation,
    validation_loss,
)

__all__ = [
    "DistillConfig",
    "DistillationTrainer",
    "SFTExample",
    "SFTExamples",
    "build_sft_examples",
    "epoch_batches",
    "load_rows",
    "sft_loss",
    "sft_prompt",
    "soft_loss",
    "split_examples",
    "token_divergences",
    "token_kl",
    "train_distillation",
    "validation_loss",
]
