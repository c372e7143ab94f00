"""Distillation from scratch: learn from a teacher's solutions, or from its probabilities. Taught in ch08."""

from shared.distillation.config import DistillConfig
from shared.distillation.examples import SFTExample, build_sft_examples, split_examples
from shared.distillation.trainer import DistillationTrainer, train_distillation
from shared.evaluation.data import load_rows
