"""The matured code of the course, one module a subject: `from shared import load_model, generate, grade`."""

from shared.chat import ChatSettings, Reply, stream_reply
from shared.contamination import overlap
from shared.data import load_math500, load_math_train, load_minimath
from shared.distillation import (
    DistillationTrainer,
    DistillConfig,
    build_sft_examples,
    split_examples,
    train_distillation,
)
from shared.estimates import (
    adapter_count,
    decode_seconds,
    forward_flops,
    kv_cache_bytes_per_token,
    parameter_count,
    training_flops,
    training_memory,
)
from shared.evaluator import Answer, EvalResult, evaluate, extract_answer, grade, render_prompt
from shared.generation import Completion, generate, stream
from shared.grpo import GRPOConfig, GRPOTrainer, group_advantages, grpo_loss, reward_correct, reward_format
from shared.inference_scaling import majority_vote, pass_at_k, self_consistency
from shared.judge import Judgement, Pair, ask_all, judge_pairs, position_bias
from shared.leaderboard import bootstrap_intervals, bradley_terry, elo_ratings
from shared.ledger import append_result, ledger_table, plot_ledger
from shared.loading import export_hf, load_model, save_checkpoint
from shared.model import CausalLM, KVCache, ModelConfig
from shared.multiple_choice import make_items, option_logprobs
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
    "ChatSettings",
    "Completion",
    "DistillConfig",
    "DistillationTrainer",
    "EvalResult",
    "GRPOConfig",
    "GRPOTrainer",
    "Judgement",
    "KVCache",
    "ModelConfig",
    "Pair",
    "Reply",
    "Scorer",
    "Tokenizer",
    "adapter_count",
    "answer_logprob_scorer",
    "append_result",
    "as_completions",
    "ask_all",
    "avg_logprob_score",
    "best_of_n",
    "bootstrap_intervals",
    "bradley_terry",
    "build_sft_examples",
    "decode_seconds",
    "elo_ratings",
    "evaluate",
    "export_hf",
    "extract_answer",
    "forward_flops",
    "generate",
    "grade",
    "group_advantages",
    "grpo_loss",
    "heuristic_score",
    "judge_pairs",
    "kv_cache_bytes_per_token",
    "ledger_table",
    "load_math500",
    "load_math_train",
    "load_minimath",
    "load_model",
    "majority_vote",
    "make_items",
    "option_logprobs",
    "overlap",
    "parameter_count",
    "pass_at_k",
    "plot_ledger",
    "position_bias",
    "render_prompt",
    "reward_correct",
    "reward_format",
    "save_checkpoint",
    "self_consistency",
    "self_refine",
    "split_examples",
    "stream",
    "stream_reply",
    "sum_logprob_score",
    "train_distillation",
    "training_flops",
    "training_memory",
    "weighted_vote",
]
