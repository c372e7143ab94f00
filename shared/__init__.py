"""The matured code of the course, one module a subject: `from shared import load_model, generate, grade`."""

from shared.data import load_math500, load_math_train, load_minimath
from shared.distillation import (
    DistillationTrainer,
    DistillConfig,
    build_sft_examples,
    split_examples,
    train_distillation,
)
from shared.evaluator import Answer, EvalResult, evaluate, extract_answer, grade, render_prompt
from shared.generation import Completion, generate, stream
from shared.grpo import GRPOConfig, GRPOTrainer, group_advantages, grpo_loss, reward_correct, reward_format
from shared.inference_scaling import majority_vote, pass_at_k, self_consistency
from shared.loading import export_hf, load_model, save_checkpoint
from shared.model import CausalLM, KVCache, ModelConfig
from shared.refinement import answer_logprob_scorer, self_refine
from shared.scorers import (
    Scorer,
    as_completions,
    avg_logprob_score,
    best_of_n,
    heuristic_score,
    sum_logprob_score,
    weighted_vote,
)
from shared.tokenizer import Tokenizer

__all__ = [
    "Answer",
    "CausalLM",
    "Completion",
    "DistillConfig",
    "DistillationTrainer",
    "EvalResult",
    "GRPOConfig",
    "GRPOTrainer",
    "KVCache",
    "ModelConfig",
    "Scorer",
    "Tokenizer",
    "answer_logprob_scorer",
    "as_completions",
    "avg_logprob_score",
    "best_of_n",
    "build_sft_examples",
    "evaluate",
    "export_hf",
    "extract_answer",
    "generate",
    "grade",
    "group_advantages",
    "grpo_loss",
    "heuristic_score",
    "load_math500",
    "load_math_train",
    "load_minimath",
    "load_model",
    "majority_vote",
    "pass_at_k",
    "render_prompt",
    "reward_correct",
    "reward_format",
    "save_checkpoint",
    "self_consistency",
    "self_refine",
    "split_examples",
    "stream",
    "sum_logprob_score",
    "train_distillation",
    "weighted_vote",
]
