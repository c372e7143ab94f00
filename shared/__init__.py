"""The code that the chapters build: `from shared import load_model, generate, grade`."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: idle threads sleep

from shared.distillation import DistillConfig, build_sft_examples, train_distillation
from shared.evaluation.data import load_data, load_gsm8k, load_math500, load_math_train, load_minimath
from shared.evaluation.evaluator import Answer, EvalResult, evaluate
from shared.evaluation.ledger import append_result, ledger_table, plot_ledger
from shared.formats.checkpoints import export_hf, save_checkpoint
from shared.formats.loading import load_model
from shared.generation.completions import Completion, generate
from shared.generation.prompts import render_prompt
from shared.generation.stream import stream
from shared.grader import extract_answer, grade
from shared.grpo import GRPOConfig, GRPOTrainer, group_advantages, grpo_loss, reward_correct, reward_format
from shared.inference.refinement import self_refine
from shared.inference.scorers import avg_logprob_score, best_of_n, heuristic_score, weighted_vote
from shared.inference.votes import majority_vote, pass_at_k, self_consistency
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM, KVCache, ModelConfig
