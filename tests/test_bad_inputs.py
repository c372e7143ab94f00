"""What every public function says to arguments that are wrong: the error, and that it names the argument or the cause.

Each row of the table changes one or two arguments of a call that works. No call may hang or take long.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import pkgutil
import shutil
from collections.abc import Callable
from inspect import isclass, isfunction

import pytest
import torch
import torch._dynamo  # which AdamW imports when the first one is made, for seconds
from torch import tensor

import shared
from shared import checks, distillation, grpo, plots, teacher
from shared.checks import _framework
from shared.checks._limit import time_limit
from shared.evaluation.evaluator import Answer, EvalResult
from shared.formats.checkpoints import export_hf
from shared.generation.completions import Completion
from shared.generation.prompts import render_prompt
from shared.support.jsonl import write_jsonl
from tests.small_policy import DEFAULTS, PROBLEMS, SMALL, small_policy
from tests.teacher_server import sums

MISSING = object()  # the argument is left out
NAN, INF = math.nan, math.inf
SECONDS = 20.0  # no call hangs; most take milliseconds
FEW = PROBLEMS[:3]
ROW = {"problem": "Compute 2+3.", "answer": "5", "content": "\\boxed{5}"}
# Names that refuse nothing: what they say of any argument is a value.
TOTAL = {
    "grade": "is False for what is no answer",
    "normalize_answer": "is a step of grade, which answers for it",
    "new_figure": "hands its arguments on to matplotlib",
    "reach": "works on the points that interval_points has checked",
    "registered": "is empty for a chapter without exercises",
    "outcome": "says what is wrong with its arguments in its message",
    "Outcome": "is what it returns", "CheckFailed": "is an exception", "NotStarted": "is an exception",
    "Mismatch": "is an exception",
    "Tally": "counts from 0",
}  # fmt: skip


def echo(model, tokenizer, prompts, *, max_new_tokens, seed):
    """A method that answers 5."""
    return [Answer("5", "5", 1) for _ in prompts]


def result(count: int = 2) -> EvalResult:
    """An evaluation of some problems, half of them right."""
    kept = {"problem": "?", "answer": "5", "subject": None, "level": 1, "tokens": 3, "finish_reason": "stop"}
    return EvalResult([{"unique_id": str(n), "correct": n % 2 == 0, **kept} for n in range(count)], 1.0, {"seed": 0})


def completion(text: str = "\\boxed{5}") -> Completion:
    """One that a model wrote."""
    return Completion(text, [1, 2], [-0.5, -0.25], "stop")


@functools.cache
def examples() -> list:
    """Three texts to learn."""
    rows = [{**problem, "content": f"\\boxed{{{problem['answer']}}}"} for problem in FEW]
    return list(distillation.build_sft_examples(rows, small_policy()[1], prompt_style="direct"))


def no_pool(*given, **named):
    """Samples that were drawn before."""
    return [[completion()] for _ in given[2]]


@functools.cache
def calls() -> dict[str, tuple[Callable, dict]]:
    """Every function with arguments that work."""
    model, tokenizer = small_policy()
    asked = {"model": model, "tokenizer": tokenizer, "prompts": [render_prompt("Compute 1+1.")]}
    short, pool = asked | {"max_new_tokens": 2}, asked | {"draw": no_pool}
    kept = {"model": model, "tokenizer": tokenizer}
    small = grpo.GRPOConfig(**DEFAULTS)
    rollouts = tensor([[0.0, 1.0], [1.0, 1.0]])
    logprobs = torch.full((2, 3), -0.5)
    row = {"problem": FEW[0] | {"unique_id": "a"}, "sample": 0, "reply": teacher.Reply("", "5", "stop"), "model": "m"}
    learn = {**kept, "examples": examples(), "config": distillation.DistillConfig(steps=0), "progress": False}
    return {
        "load_model": (shared.load_model, {"name": "tiny-random"}),
        "load_data": (shared.load_data, {"name": "problems.jsonl"}),
        "load_minimath": (shared.load_minimath, {}),
        "load_gsm8k": (shared.load_gsm8k, {"path": "gsm8k.jsonl"}),
        "load_math500": (shared.load_math500, {"path": "problems.jsonl"}),
        "load_math_train": (shared.load_math_train, {"path": "problems.jsonl"}),
        "load_rows": (distillation.load_rows, {"path": "problems.jsonl"}),
        "evaluate": (shared.evaluate, {"model": None, "tokenizer": None, "problems": FEW, "method": echo}),
        "Answer": (Answer, {"text": "", "answer": None, "tokens": 0}),
        "EvalResult": (EvalResult, {"records": []}),
        "EvalResult.by": (result().by, {"key": "level"}),
        "EvalResult.compare": (result().compare, {"other": result()}),
        "EvalResult.from_jsonl": (EvalResult.from_jsonl, {"path": "results.jsonl"}),
        "append_result": (shared.append_result, {"result": result(), "chapter": "ch03", "method": "m"}),
        "ledger_table": (shared.ledger_table, {}),
        "plot_ledger": (shared.plot_ledger, {}),
        "export_hf": (shared.export_hf, kept | {"folder": "exported"}),
        "save_checkpoint": (shared.save_checkpoint, kept | {"folder": "exported"}),
        "Completion": (Completion, {"text": "", "token_ids": [], "logprobs": [], "finish_reason": "stop"}),
        "generate": (shared.generate, short),
        "stream": (shared.stream, kept | {"prompt": "a", "max_new_tokens": 2}),
        "render_prompt": (shared.render_prompt, {"problem": "Compute 1+1."}),
        "GRPOConfig": (grpo.GRPOConfig, {}),
        "GRPOTrainer": (grpo.GRPOTrainer, {**kept, "problems": FEW, "config": small, "progress": False}),
        "GRPO": (grpo.GRPO, {**kept, "problems": FEW, "config": small, "progress": False}),
        "group_advantages": (grpo.group_advantages, {"rewards": rollouts}),
        "grpo_loss": (grpo.grpo_loss, {
            "logprobs": logprobs, "old_logprobs": None, "ref_logprobs": None, "advantages": tensor([1.0, -1.0]),
            "mask": torch.ones(2, 3), "config": small,
        }),
        "clip_objective": (grpo.clip_objective, {
            "ratio": torch.ones(2, 3), "advantages": tensor([1.0, -1.0]), "clip_low": 0.2, "clip_high": 0.2,
        }),
        "kl_estimate": (grpo.kl_estimate, {"logprobs": logprobs, "ref_logprobs": logprobs}),
        "reward_correct": (grpo.reward_correct, {"text": "\\boxed{5}", "problem": ROW}),
        "reward_evaluated": (grpo.reward_evaluated, {"text": "\\boxed{5}", "problem": ROW}),
        "reward_format": (grpo.reward_format, {"text": "\\boxed{5}", "problem": ROW}),
        "Rollouts": (grpo.Rollouts, {"rows": [], "group_size": 2, "pad_id": 0}),
        "sample_rollouts": (grpo.sample_rollouts, {
            **kept, "problems": FEW, "rewards": [grpo.reward_correct], "config": small, "seed": 0,
        }),
        "self_refine": (shared.self_refine, short),
        "best_of_n": (shared.best_of_n, pool),
        "weighted_vote": (shared.weighted_vote, pool),
        "self_consistency": (shared.self_consistency, short),
        "majority_vote": (shared.majority_vote, {"answers": ["5", "7"]}),
        "pass_at_k": (shared.pass_at_k, {"n": 4, "c": 1, "k": 2}),
        "avg_logprob_score": (shared.avg_logprob_score, {"prompt": "", "completion": completion()}),
        "heuristic_score": (shared.heuristic_score, {"prompt": "", "completion": completion()}),
        "Tokenizer": (shared.Tokenizer, {"backend": tokenizer.backend}),
        "Tokenizer.from_file": (shared.Tokenizer.from_file, {"path": "model/tokenizer.json"}),
        "Tokenizer.encode": (tokenizer.encode, {"text": "a"}),
        "Tokenizer.decode": (tokenizer.decode, {"ids": [70]}),
        "Tokenizer.token_id": (tokenizer.token_id, {"token": "<think>"}),
        "Tokenizer.apply_chat_template": (
            tokenizer.apply_chat_template, {"messages": [{"role": "user", "content": "Hi"}]},
        ),
        "CausalLM": (shared.CausalLM, {"config": SMALL}),
        "CausalLM.forward": (model, {"input_ids": tensor([[1, 2, 3]])}),
        "KVCache": (shared.KVCache, {"config": SMALL}),
        "ModelConfig": (shared.ModelConfig, vars(SMALL)),
        "DistillConfig": (distillation.DistillConfig, {}),
        "build_sft_examples": (distillation.build_sft_examples, {"rows": [ROW], "tokenizer": tokenizer}),
        "split_examples": (distillation.split_examples, {"examples": examples()}),
        "SFTExample": (distillation.SFTExample, vars(examples()[0])),
        "DistillationTrainer": (distillation.DistillationTrainer, learn),
        "train_distillation": (distillation.train_distillation, learn),
        "ask_model": (teacher.ask_model, {
            **kept, "problems": sums(1), "path": "data.jsonl", "name": "m", "max_new_tokens": 2,
        }),
        "SamplesFile": (teacher.SamplesFile, {
            "path": "data.jsonl", "settings": {"model": "m"}, "problems": sums(1), "keep_rejected": False,
        }),
        "extract_answer": (shared.extract_answer, {"text": "5"}),
        "split_thinking": (teacher.split_thinking, {"text": "5"}),
        "Parts": (teacher.Parts, {"thinking": "", "answer": "", "still_thinking": False}),
        "Reply": (teacher.Reply, {"thinking": "", "content": "", "finish_reason": "stop"}),
        "make_reply": (teacher.make_reply, {"completion": completion(), "prompt_tokens": 3}),
        "make_row": (teacher.make_row, row),
        "is_kept": (teacher.is_kept, {"row": teacher.make_row(**row)}),
        "token_bars": (plots.token_bars, {"tokens": ["a", "b"], "probabilities": [0.5, 0.25]}),
        "lines": (plots.lines, {"x": [1, 2], "series": {"a": [0, 1]}}),
        "interval_points": (plots.interval_points, {"labels": ["a"], "series": {"s": [(0.5, 0.4, 0.6)]}}),
        "panels": (plots.panels, {"count": 2}),
        "check": (checks.check, {"number": "0.0", "solution": None, "strict": False}),
        "expect": (checks.expect, {"got": 1, "expected": 1}),
        "register": (
            lambda **named: checks.register(**named)(echo), {"number": "0.1", "title": "t", "hint": "h"},
        ),
    }  # fmt: skip


def chat(*messages: object) -> dict:
    return {"messages": list(messages)}


FILES = {  # what is wrong with a file of problems: its name, the error, what is said
    "missing.jsonl": (FileNotFoundError, "no file missing.jsonl"),
    "folder": (FileNotFoundError, "no file folder"),
    "broken.json": (ValueError, "broken.json is no valid JSON"),
    "object.json": (ValueError, "object.json must hold a JSON list"),
    "torn.jsonl": (ValueError, "Line 1 of torn.jsonl is damaged"),
    "latin.jsonl": (ValueError, "latin.jsonl is not UTF-8"),
    "empty.jsonl": (ValueError, "no problems"),
    "no_text.jsonl": (ValueError, "field 'problem'"),
    "no_answer.jsonl": (ValueError, "field 'answer'"),
    "twice.jsonl": (ValueError, "unique_id 'a'"),
}
TRAINING = [  # of every config: the change and what is said of it
    ({"steps": -1}, "steps is -1"),
    ({"steps": 2.5}, "steps is 2.5: give a whole number"),
    ({"steps": "ten"}, "steps is 'ten': give a value of the type int"),
    ({"micro_batch_tokens": 0}, "micro_batch_tokens is 0"),
    ({"learning_rate": 0}, "learning_rate is 0"),
    ({"learning_rate": NAN}, "learning_rate is nan"),
    ({"learning_rate": "fast"}, "learning_rate is 'fast': give a value of the type float"),
    ({"learning_rate": None}, "learning_rate is None"),
    ({"warmup": -1}, "warmup is -1"),
    ({"weight_decay": INF}, "weight_decay is inf"),
    ({"grad_clip": 0}, "grad_clip is 0"),
    ({"precision": "fp8"}, "precision is 'fp8': choose one of fp32, bf16"),
    ({"precision": None}, "precision is None"),
    ({"lora_rank": -1}, "lora_rank is -1"),
    ({"lora_rank": "4"}, "lora_rank is '4'"),
    ({"lora_alpha": 0}, "lora_alpha is 0"),
    ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ({"max_new_tokens": [8]}, "max_new_tokens is [8]"),
    ({"prompt_style": "poem"}, "prompt_style is 'poem': choose one of direct"),
    ({"seed": "x"}, "seed is 'x'"),
    ({"seed": 0.5}, "seed is 0.5: give a whole number"),
    ({"seed": None}, "seed is None"),
    ({"out": 5}, "out is 5"),
    ({"save_every": 0}, "save_every is 0"),
    ({"eval_every": 0}, "eval_every is 0"),
    ({"eval_problems": -3}, "eval_problems is -3"),
    ({"max_bad_steps": 0}, "max_bad_steps is 0"),
]
ROWS: list[tuple[str, dict, type[BaseException], str]] = [
    ("load_model", {"name": "tinny"}, ValueError, "did you mean tiny"),
    ("load_model", {"name": None}, ValueError, "no model or path 'None'"),
    ("load_model", {"name": 5}, ValueError, "no model or path '5'"),
    ("load_model", {"name": "folder"}, FileNotFoundError, "config.json is missing"),
    ("load_model", {"name": "problems.jsonl"}, ValueError, "problems.jsonl is no model file"),
    ("load_model", {"name": "sharded"}, ValueError, "sharded does not fit its configuration: it lacks"),
    ("load_model", {"device": "tpu"}, ValueError, "device 'tpu' is not available"),
    ("load_model", {"device": None}, ValueError, "device 'None' is not available"),
    ("load_model", {"dtype": "int8"}, ValueError, "dtype int8 is not known"),
    ("load_model", {"dtype": 16}, ValueError, "dtype 16 is not known"),
    *[("load_data", {"name": name}, *said) for name, said in FILES.items()],
    ("load_data", {"name": 5}, TypeError, "int"),
    ("load_data", {"split": "dev"}, ValueError, "no split 'dev'"),
    ("load_data", {"name": "math", "split": "dev"}, ValueError, "no split 'dev'"),
    ("load_minimath", {"split": "dev"}, ValueError, "no split 'dev'"),
    ("load_minimath", {"split": None}, ValueError, "no split None"),
    ("load_gsm8k", {"split": "dev"}, ValueError, "no split 'dev'"),
    ("load_gsm8k", {"path": "problems.jsonl"}, ValueError, "is not GSM8K's own"),
    *[("load_gsm8k", {"path": name}, *FILES[name]) for name in ("missing.jsonl", "torn.jsonl", "empty.jsonl")],
    *[("load_math500", {"path": name}, *said) for name, said in FILES.items()],
    *[("load_math_train", {"path": name}, *FILES[name]) for name in ("missing.jsonl", "broken.json", "twice.jsonl")],
    *[("load_rows", {"path": name}, *FILES[name]) for name in ("missing.jsonl", "broken.json", "latin.jsonl")],
    ("load_rows", {"path": None}, TypeError, "NoneType"),
    ("evaluate", {"problems": []}, ValueError, "no problems"),
    ("evaluate", {"problems": None}, ValueError, "no problems"),
    ("evaluate", {"problems": 5}, ValueError, "no problems"),
    ("evaluate", {"problems": "2+2"}, ValueError, "Problem 1 is no dictionary"),
    ("evaluate", {"problems": PROBLEMS[0]}, ValueError, "Problem 1 is no dictionary"),
    ("evaluate", {"problems": [{"problem": "a"}]}, ValueError, "Problem 1 has no text in the field 'answer'"),
    ("evaluate", {"problems": [PROBLEMS[0]] * 2}, ValueError, "2 problems have the unique_id"),
    ("evaluate", {"prompt": "poem"}, ValueError, "prompt style 'poem'"),
    ("evaluate", {"prompt": 5}, ValueError, "prompt style 5"),
    ("evaluate", {"method": "beam"}, ValueError, "method 'beam'"),
    ("evaluate", {"method": None}, ValueError, "method None"),
    ("evaluate", {"method": lambda *a, **k: []}, ValueError, "The method gave 0 answers to 3 prompts"),
    ("evaluate", {"batch_size": 0}, ValueError, "batch_size is 0"),
    ("evaluate", {"batch_size": 2.5}, ValueError, "batch_size is 2.5: give a whole number"),
    ("evaluate", {"batch_size": "8"}, ValueError, "batch_size is '8': give a whole number"),
    ("evaluate", {"max_new_tokens": 0}, ValueError, "max_new_tokens is 0"),
    ("evaluate", {"max_new_tokens": None}, ValueError, "max_new_tokens is None: give a whole number"),
    ("evaluate", {"seed": 0.5}, ValueError, "seed is 0.5"),
    ("evaluate", {"seed": "x"}, ValueError, "seed is 'x'"),
    ("evaluate", {"fallback": "guess"}, ValueError, "fallback is 'guess'"),
    ("evaluate", {"results": "problems.jsonl"}, ValueError, "problems.jsonl holds no results"),
    ("evaluate", {"results": "latin.jsonl"}, ValueError, "latin.jsonl is not UTF-8"),
    ("evaluate", {"results": 5}, TypeError, "int"),
    ("Answer", {"tokens": MISSING}, TypeError, "tokens"),
    ("EvalResult", {"records": MISSING}, TypeError, "records"),
    ("EvalResult.by", {"key": "colour"}, ValueError, "no field 'colour'"),
    ("EvalResult.compare", {"other": result(3)}, ValueError, "differ in 1 problems"),
    ("EvalResult.from_jsonl", {"path": "missing.jsonl"}, FileNotFoundError, "missing.jsonl"),
    ("EvalResult.from_jsonl", {"path": "problems.jsonl"}, ValueError, "problems.jsonl holds no results"),
    ("EvalResult.from_jsonl", {"path": "empty.jsonl"}, ValueError, "empty.jsonl.settings.json is missing"),
    ("append_result", {"result": None}, ValueError, "result is None"),
    ("append_result", {"result": 0.75}, ValueError, "result is 0.75"),
    ("append_result", {"result": EvalResult([])}, ValueError, "one problem at least"),
    ("append_result", {"chapter": 3}, ValueError, "chapter is 3"),
    ("append_result", {"method": None}, ValueError, "method is None"),
    ("append_result", {"model": 5}, ValueError, "model is 5"),
    ("append_result", {"dataset": ["test"]}, ValueError, "dataset is ['test']"),
    ("ledger_table", {"until": 5}, ValueError, "until is 5"),
    ("plot_ledger", {"until": None}, ValueError, "until is None"),
    ("export_hf", {"folder": "problems.jsonl"}, ValueError, "problems.jsonl is a file"),
    ("export_hf", {"folder": "folder"}, ValueError, "folder holds other things than a model"),
    ("export_hf", {"folder": None}, TypeError, "NoneType"),
    ("export_hf", {"tokenizer": MISSING}, TypeError, "tokenizer"),
    ("save_checkpoint", {"folder": "problems.jsonl"}, ValueError, "problems.jsonl is a file"),
    ("save_checkpoint", {"folder": "folder"}, ValueError, "folder holds other things than a model"),
    ("save_checkpoint", {"state": {"done": {1}}}, TypeError, "set is not JSON serializable"),
    ("Completion", {"logprobs": MISSING}, TypeError, "logprobs"),
    ("generate", {"max_new_tokens": MISSING}, TypeError, "max_new_tokens"),
    ("generate", {"max_new_tokens": 0}, ValueError, "max_new_tokens is 0"),
    ("generate", {"max_new_tokens": -1}, ValueError, "max_new_tokens is -1"),
    ("generate", {"num_samples": 0}, ValueError, "num_samples is 0"),
    ("generate", {"batch_size": 0}, ValueError, "batch_size is 0"),
    ("generate", {"prompts": ""}, ValueError, "The prompt is empty"),
    ("generate", {"prompts": ["a", ""]}, ValueError, "The prompt is empty"),
    ("generate", {"prompts": [5]}, ValueError, "5 is no text: give a prompt"),
    ("generate", {"prompts": FEW}, ValueError, "is no text: give a prompt"),
    ("generate", {"prompts": "1 " * 200}, ValueError, "leaves no room in the context of 128"),
    ("generate", {"temperature": -1}, ValueError, "temperature is -1"),
    ("generate", {"temperature": NAN}, ValueError, "temperature is nan"),
    ("generate", {"temperature": INF}, ValueError, "temperature is inf"),
    ("generate", {"top_p": 0}, ValueError, "top_p is 0"),
    ("generate", {"top_p": 95}, ValueError, "top_p is 95"),
    ("generate", {"top_k": -1}, ValueError, "top_k is -1"),
    ("generate", {"top_k": 2.5}, ValueError, "top_k is 2.5"),
    ("generate", {"min_p": 2}, ValueError, "min_p is 2"),
    ("generate", {"seed": 1.5}, ValueError, "seed is 1.5"),
    ("generate", {"stop": ""}, ValueError, "stop is ''"),
    ("generate", {"stop": ["a", ""]}, ValueError, "stop is ['a', '']"),
    ("generate", {"stop": [5]}, ValueError, "stop is [5]"),
    ("stream", {"prompt": ""}, ValueError, "The prompt is empty"),
    ("stream", {"prompt": None}, ValueError, "None is no text"),
    ("stream", {"prompt": ["a"]}, ValueError, "['a'] is no text"),
    ("stream", {"max_new_tokens": 0}, ValueError, "max_new_tokens is 0"),
    ("stream", {"max_new_tokens": 2.5}, ValueError, "max_new_tokens is 2.5: give a whole number"),
    ("stream", {"max_new_tokens": "5"}, ValueError, "max_new_tokens is '5': give a whole number"),
    ("stream", {"temperature": -1}, ValueError, "temperature is -1"),
    ("stream", {"seed": 0.5}, ValueError, "seed is 0.5"),
    ("stream", {"stop": ""}, ValueError, "stop is ''"),
    ("render_prompt", {"problem": None}, ValueError, "pass problem['problem']"),
    ("render_prompt", {"problem": FEW[0]}, ValueError, "pass problem['problem']"),
    ("render_prompt", {"problem": " \n"}, ValueError, "The problem is empty"),
    ("render_prompt", {"style": "poem"}, ValueError, "prompt style 'poem'"),
    ("render_prompt", {"style": None}, ValueError, "prompt style None"),
    *[(name, change, ValueError, said) for name in ("GRPOConfig", "DistillConfig") for change, said in TRAINING],
    ("GRPOConfig", {"steps": None}, ValueError, "steps is None"),
    ("GRPOConfig", {"epochs": 2}, TypeError, "epochs"),
    ("GRPOConfig", {"preset": "ppo"}, ValueError, "preset 'ppo'"),
    ("GRPOConfig", {"preset": None}, ValueError, "preset None"),
    ("GRPOConfig", {"preset": ["grpo"]}, ValueError, "preset ['grpo']"),
    ("GRPOConfig", {"group_size": 1}, ValueError, "group_size is 1"),
    ("GRPOConfig", {"prompts_per_step": 0}, ValueError, "prompts_per_step is 0"),
    ("GRPOConfig", {"inner_epochs": 0}, ValueError, "inner_epochs is 0"),
    ("GRPOConfig", {"max_draws": 0}, ValueError, "max_draws is 0"),
    ("GRPOConfig", {"advantage": "z"}, ValueError, "advantage is 'z': choose one of grpo"),
    ("GRPOConfig", {"ratio": "word"}, ValueError, "ratio is 'word'"),
    ("GRPOConfig", {"objective": 1}, ValueError, "objective is 1"),
    ("GRPOConfig", {"aggregation": "sum"}, ValueError, "aggregation is 'sum'"),
    ("GRPOConfig", {"kl_estimator": "k4"}, ValueError, "kl_estimator is 'k4'"),
    ("GRPOConfig", {"clip_low": -0.1}, ValueError, "clip_low is -0.1"),
    ("GRPOConfig", {"clip_high": "0.2"}, ValueError, "clip_high is '0.2'"),
    ("GRPOConfig", {"kl_coef": NAN}, ValueError, "kl_coef is nan"),
    ("GRPOConfig", {"kl_reweighted": "yes"}, ValueError, "kl_reweighted is 'yes'"),
    ("GRPOConfig", {"dynamic_sampling": 3}, ValueError, "dynamic_sampling is 3"),
    ("GRPOConfig", {"temperature": 0}, ValueError, "temperature is 0"),
    ("GRPOConfig", {"top_p": 0}, ValueError, "top_p is 0"),
    ("GRPOConfig", {"top_k": -1}, ValueError, "top_k is -1"),
    ("GRPOConfig", {"ref_every": 0}, ValueError, "ref_every is 0"),
    ("GRPOConfig", {"reward_weights": 3}, ValueError, "reward_weights is 3"),
    ("GRPOConfig", {"reward_weights": ["a"]}, ValueError, "reward_weights is ('a',): give finite numbers"),
    ("GRPOConfig", {"reward_weights": [INF]}, ValueError, "reward_weights is (inf,): give finite numbers"),
    ("DistillConfig", {"loss": "softer"}, ValueError, "loss is 'softer': choose one of hard"),
    ("DistillConfig", {"soft_weight": 2}, ValueError, "soft_weight is 2"),
    ("DistillConfig", {"temperature": 0}, ValueError, "temperature is 0"),
    ("DistillConfig", {"epochs": 0}, ValueError, "epochs is 0"),
    ("DistillConfig", {"batch_size": 0}, ValueError, "batch_size is 0"),
    ("DistillConfig", {"final_rate": -0.5}, ValueError, "final_rate is -0.5"),
    ("DistillConfig", {"with_thinking": "no"}, ValueError, "with_thinking is 'no'"),
    *[(name, change, error, said) for name in ("GRPO", "GRPOTrainer") for change, error, said in [
        ({"problems": []}, ValueError, "too few problems"),
        ({"problems": [5]}, ValueError, "Problem 1 has no field 'problem'"),
        ({"problems": [{"problem": "a"}]}, ValueError, "Problem 1 has no field 'answer'"),
        ({"problems": [{"problem": "a", "answer": NAN}]}, ValueError, "Problem 1 has the answer nan"),
        ({"rewards": "correct"}, ValueError, "rewards is 'correct'"),
        ({"rewards": 5}, ValueError, "rewards is 5"),
        ({"rewards": []}, ValueError, "rewards is []"),
        ({"config": grpo.GRPOConfig(reward_weights=(1, 1))}, ValueError, "2 reward_weights for 1 rewards"),
        ({"config": grpo.GRPOConfig(eval_every=1), "held_out": [FEW[0]] * 2}, ValueError, "have the unique_id"),
        ({"config": grpo.GRPOConfig(eval_every=1)}, ValueError, "too few problems"),
    ]],
    ("GRPOTrainer", {"model": small_policy()[0], "config": grpo.GRPOConfig(ref_every=2, lora_rank=2)},
     ValueError, "set ref_every to None"),
    ("group_advantages", {"rewards": [[0.0, 1.0]]}, ValueError, "rewards is [[0.0, 1.0]]: give a tensor"),
    ("group_advantages", {"rewards": tensor([[0.0, NAN]])}, ValueError, "finite numbers"),
    ("group_advantages", {"rewards": tensor([0.0, 1.0])}, ValueError, "The rewards are (2,)"),
    ("group_advantages", {"rewards": torch.zeros(0, 4)}, ValueError, "The rewards are (0, 4)"),
    ("group_advantages", {"rewards": torch.zeros(2, 1)}, ValueError, "A group of one"),
    ("group_advantages", {"mode": "z"}, ValueError, "Unknown mode 'z'"),
    ("group_advantages", {"weights": [1, 1]}, ValueError, "2 weights for 1 rewards"),
    ("grpo_loss", {"logprobs": [[0.0]]}, ValueError, "logprobs, advantages and mask is no tensor"),
    ("grpo_loss", {"advantages": [1.0, -1.0]}, ValueError, "logprobs, advantages and mask is no tensor"),
    ("grpo_loss", {"logprobs": torch.zeros(6)}, ValueError, "(rollouts, length)"),
    ("grpo_loss", {"mask": torch.ones(2, 4)}, ValueError, "The shapes are [(2, 3), (2, 4)]"),
    ("grpo_loss", {"old_logprobs": torch.zeros(2, 2)}, ValueError, "The shapes are"),
    ("grpo_loss", {"advantages": torch.ones(3)}, ValueError, "advantages is (3,) for 2 rollouts"),
    ("grpo_loss", {"config": grpo.GRPOConfig(kl_coef=0.1)}, ValueError, "kl_coef is 0.1"),
    ("clip_objective", {"clip_high": MISSING}, TypeError, "clip_high"),
    ("kl_estimate", {"estimator": "k4"}, ValueError, "Unknown estimator 'k4'"),
    *[(name, {"problem": MISSING}, TypeError, "problem") for name in (
        "reward_correct", "reward_evaluated", "reward_format",
    )],
    ("Rollouts", {"pad_id": MISSING}, TypeError, "pad_id"),
    ("sample_rollouts", {"seed": MISSING}, TypeError, "seed"),
    ("sample_rollouts", {"seed": 0.5}, ValueError, "seed is 0.5"),
    ("sample_rollouts", {"problems": [{"problem": "", "answer": "1"}]}, ValueError, "The problem is empty"),
    ("sample_rollouts", {"rewards": [lambda *a: None]}, ValueError, "gave None"),
    ("sample_rollouts", {"rewards": [lambda *a: NAN]}, ValueError, "gave nan"),
    ("self_refine", {"prompts": None}, ValueError, "None is no text"),
    ("self_refine", {"prompts": "What is 1+1?"}, ValueError, "not of render_prompt's form"),
    ("self_refine", {"rounds": -1}, ValueError, "rounds is -1"),
    ("self_refine", {"rounds": 1.5}, TypeError, "float"),
    ("self_refine", {"scorer": lambda *a: None}, ValueError, "The scorer gave [None]"),
    ("self_refine", {"max_new_tokens": 0}, ValueError, "max_new_tokens is 0"),
    ("self_refine", {"max_new_tokens": MISSING}, TypeError, "max_new_tokens"),
    ("best_of_n", {"prompts": 5}, ValueError, "5 is no text"),
    ("best_of_n", {"scorer": lambda *a: "good"}, ValueError, "The scorer gave ['good']"),
    ("best_of_n", {"draw": lambda *a, **k: [[]]}, ValueError, "0 samples and 0 scores"),
    ("weighted_vote", {"prompts": None}, ValueError, "None is no text"),
    ("weighted_vote", {"beta": -1}, ValueError, "beta is -1"),
    ("weighted_vote", {"beta": NAN}, ValueError, "beta is nan"),
    ("weighted_vote", {"scorer": lambda *a: INF}, ValueError, "A score is infinite"),
    ("weighted_vote", {"draw": lambda *a, **k: [[]]}, ValueError, "no samples to vote"),
    ("self_consistency", {"prompts": 5}, ValueError, "5 is no text"),
    ("self_consistency", {"num_samples": 0}, ValueError, "num_samples is 0"),
    ("self_consistency", {"num_samples": 0, "early_stop": True}, ValueError, "no samples to vote"),
    ("self_consistency", {"temperature": "warm"}, TypeError, "str"),
    ("majority_vote", {"weights": [1]}, ValueError, "1 weights for 2 answers"),
    ("majority_vote", {"weights": [1, -1]}, ValueError, "weights of a vote are [1, -1]"),
    ("majority_vote", {"weights": [1, NAN]}, ValueError, "weights of a vote are [1, nan]"),
    ("pass_at_k", {"k": 0}, ValueError, "k=0"),
    ("pass_at_k", {"k": 5}, ValueError, "k=5"),
    ("pass_at_k", {"c": -1}, ValueError, "c=-1"),
    ("pass_at_k", {"c": 5}, ValueError, "c=5"),
    ("pass_at_k", {"n": 4.5}, TypeError, "float"),
    ("avg_logprob_score", {"completion": MISSING}, TypeError, "completion"),
    ("heuristic_score", {"completion": MISSING}, TypeError, "completion"),
    ("Tokenizer", {"backend": None}, ValueError, "backend is None"),
    ("Tokenizer", {"backend": "tokenizer.json"}, ValueError, "call Tokenizer.from_file(path)"),
    ("Tokenizer", {"eos": "<|no|>"}, ValueError, "'<|no|>' is not in the vocabulary"),
    ("Tokenizer", {"pad": "<|no|>"}, ValueError, "'<|no|>' is not in the vocabulary"),
    ("Tokenizer.from_file", {"path": "missing.json"}, FileNotFoundError, "missing.json is missing"),
    ("Tokenizer.from_file", {"path": "broken.json"}, ValueError, "broken.json is damaged"),
    ("Tokenizer.from_file", {"path": "latin.jsonl"}, ValueError, "latin.jsonl is damaged"),
    ("Tokenizer.encode", {"text": None}, ValueError, "None is no text"),
    ("Tokenizer.encode", {"text": ["a"]}, ValueError, "['a'] is no text"),
    ("Tokenizer.decode", {"ids": 5}, TypeError, "int"),
    ("Tokenizer.decode", {"ids": ["a"]}, ValueError, "'a'"),
    ("Tokenizer.token_id", {"token": "<|no|>"}, ValueError, "'<|no|>' is not in the vocabulary"),
    ("Tokenizer.apply_chat_template", chat(), ValueError, "no messages"),
    ("Tokenizer.apply_chat_template", chat({"role": "user"}), ValueError, "cannot show these messages"),
    ("Tokenizer.apply_chat_template", chat("Hi"), ValueError, "cannot show these messages"),
    ("CausalLM", {"config": MISSING}, TypeError, "config"),
    ("CausalLM.forward", {"input_ids": tensor([1, 2])}, ValueError, "input_ids is (2,)"),
    ("CausalLM.forward", {"input_ids": torch.zeros(1, 0).long()}, ValueError, "input_ids is (1, 0)"),
    ("CausalLM.forward", {"input_ids": torch.zeros(1, 200).long()}, ValueError, "200 tokens do not fit the context"),
    ("CausalLM.forward", {"input_ids": torch.zeros(1, 3)}, RuntimeError, "Float"),
    ("CausalLM.forward", {"attention_mask": torch.ones(1, 2)}, ValueError, "attention_mask is (1, 2)"),
    ("CausalLM.forward", {"cache": small_policy()[0].new_cache(2)}, ValueError, "The cache holds 2 rows, the input 1"),
    ("KVCache", {"config": MISSING}, TypeError, "config"),
    ("ModelConfig", {"vocab_size": MISSING}, TypeError, "vocab_size"),
    ("ModelConfig", {"num_kv_heads": 3}, ValueError, "num_heads must be a multiple of num_kv_heads"),
    ("ModelConfig", {"head_dim": 15}, ValueError, "head_dim is 15"),
    ("build_sft_examples", {"rows": [5]}, ValueError, "Row 1 is no dictionary"),
    ("build_sft_examples", {"rows": ROW}, ValueError, "Row 1 is no dictionary"),
    ("build_sft_examples", {"rows": [{"problem": "a"}]}, ValueError, "Row 1 has no text in the field 'answer'"),
    ("build_sft_examples", {"rows": [PROBLEMS[0]]}, ValueError, "Row 1 has no text in the field 'content'"),
    ("build_sft_examples", {"rows": [ROW | {"answer": 5}]}, ValueError, "Row 1 has no text in the field 'answer'"),
    ("build_sft_examples", {"rows": [ROW | {"problem": " "}]}, ValueError, "Row 1 has an empty problem"),
    ("build_sft_examples", {"max_length": 0}, ValueError, "max_length is 0"),
    ("build_sft_examples", {"prompt_style": "poem"}, ValueError, "prompt style 'poem'"),
    ("split_examples", {"examples": []}, ValueError, "of 0 problems is no split"),
    ("split_examples", {"validation": 0}, ValueError, "A share of 0 of"),
    ("split_examples", {"validation": 1.5}, ValueError, "A share of 1.5 of"),
    ("split_examples", {"validation": NAN}, ValueError, "A share of nan of"),
    ("SFTExample", {"input_ids": MISSING}, TypeError, "input_ids"),
    *[(name, change, ValueError, said) for name in ("DistillationTrainer", "train_distillation") for change, said in [
        ({"examples": []}, "no examples to train on"),
        ({"examples": [ROW]}, "make them of the rows by build_sft_examples"),
        ({"validation": [5]}, "make them of the rows by build_sft_examples"),
        ({"config": distillation.DistillConfig(loss="soft")}, "needs a teacher"),
        ({"problems": [{"problem": "a"}]}, "Problem 1 has no text in the field 'answer'"),
    ]],
    ("ask_model", {"problems": []}, ValueError, "no problems"),
    ("ask_model", {"problems": None}, ValueError, "no problems"),
    ("ask_model", {"path": "data.json"}, ValueError, "ends in .jsonl"),
    ("ask_model", {"name": MISSING}, TypeError, "name"),
    ("ask_model", {"prompt": "poem"}, ValueError, "prompt style 'poem'"),
    ("ask_model", {"num_samples": 0}, ValueError, "num_samples is 0"),
    ("ask_model", {"num_samples": 1.5}, ValueError, "num_samples is 1.5: give a whole number"),
    ("ask_model", {"num_samples": 2, "temperature": 0}, ValueError, "At temperature 0 all samples are the same"),
    ("ask_model", {"temperature": -1}, ValueError, "temperature is -1"),
    ("ask_model", {"top_p": 0}, ValueError, "top_p is 0"),
    ("ask_model", {"max_new_tokens": 0}, ValueError, "max_new_tokens is 0"),
    ("ask_model", {"seed": 0.5}, ValueError, "seed is 0.5"),
    ("ask_model", {"batch_size": 0}, ValueError, "batch_size is 0"),
    ("ask_model", {"batch_size": "8"}, ValueError, "batch_size is '8': give a whole number"),
    ("SamplesFile", {"path": "data.json"}, ValueError, "ends in .jsonl"),
    ("extract_answer", {"fallback": "guess"}, ValueError, "fallback is 'guess'"),
    ("split_thinking", {"text": MISSING}, TypeError, "text"),
    ("Parts", {"answer": MISSING}, TypeError, "answer"),
    ("Reply", {"content": MISSING}, TypeError, "content"),
    ("make_reply", {"prompt_tokens": MISSING}, TypeError, "prompt_tokens"),
    ("make_row", {"model": MISSING}, TypeError, "model"),
    ("is_kept", {"row": MISSING}, TypeError, "row"),
    ("token_bars", {"probabilities": [0.5, 0.25, 0.1]}, ValueError, "shape"),
    ("lines", {"series": {"a": [0]}}, ValueError, "dimension"),
    ("interval_points", {"labels": ["a", "b"]}, ValueError, "There are 2 labels"),
    ("interval_points", {"labels": []}, ValueError, "There are 0 labels"),
    ("panels", {"count": 0}, ValueError, "rows"),
    ("check", {"number": 2.1, "strict": True}, checks.CheckFailed, "the number of the exercise is a text"),
    ("check", {"number": "2.99", "strict": True}, checks.CheckFailed, "no exercise of this number"),
    ("check", {"number": "2.1", "strict": True}, checks.CheckFailed, "not solved yet"),
    ("expect", {"got": 2}, checks.Mismatch, "expected 1, got 2"),
    ("register", {"title": MISSING}, TypeError, "title"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that fit and files that do not."""
    path = tmp_path_factory.mktemp("files")
    write_jsonl(path / "problems.jsonl", FEW)
    write_jsonl(path / "gsm8k.jsonl", [{"question": "One and one?", "answer": "1+1=2\n#### 2"}])
    write_jsonl(path / "twice.jsonl", [problem | {"unique_id": "a"} for problem in FEW[:2]])
    write_jsonl(path / "no_text.jsonl", [{"problem": 5, "answer": "5"}])
    write_jsonl(path / "no_answer.jsonl", [{"problem": "5"}])
    latin = '{"a": "é"}\n'.encode("latin-1")
    for name, content in {
        "broken.json": b"[", "object.json": b"{}", "torn.jsonl": b'{"a\n{}\n', "latin.jsonl": latin, "empty.jsonl": b"",
    }.items():  # fmt: skip
        (path / name).write_bytes(content)
    (path / "folder").mkdir()
    (path / "folder" / "notes.txt").touch()
    export_hf(*small_policy(), path / "model")
    shutil.copytree(path / "model", path / "sharded")
    (path / "sharded" / "model.safetensors").unlink()
    (path / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}}), encoding="utf-8")
    result().to_jsonl(path / "results.jsonl")
    return path


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COURSE_LEDGER", str(folder / "ledger.jsonl"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield folder
    plots.plt.close("all")
    _framework._exercises.pop("0.1", None)


def call(name: str, change: dict) -> object:
    """The function with its usual arguments, some of them changed or left out."""
    function, arguments = calls()[name]
    return function(**{name: value for name, value in (arguments | change).items() if value is not MISSING})


@pytest.mark.parametrize(
    ("name", "change", "error", "said"), [pytest.param(*row, id=f"{row[0]}-{n}") for n, row in enumerate(ROWS)]
)
def test_what_is_wrong_is_said(here, name, change, error, said):
    with time_limit(SECONDS), pytest.raises(error) as refused:
        call(name, change)
    assert said in str(refused.value)
    assert type(refused.value) is error or error is not ValueError, "a KeyError or IndexError by another name"


@pytest.mark.parametrize("name", calls())
def test_the_same_call_without_the_mistake_works(here, name):
    with time_limit(SECONDS):
        call(name, {})


def public_names() -> set[str]:
    """The functions and classes that `shared` and its packages offer."""
    packages = [shared]
    packages += [importlib.import_module(f"shared.{each.name}") for each in pkgutil.iter_modules(shared.__path__)]
    return {
        name for package in packages for name, value in vars(package).items()
        if not name.startswith("_") and (isfunction(value) or isclass(value) or callable(value))
        if getattr(value, "__module__", "").startswith("shared")
    }  # fmt: skip


def test_every_public_name_has_a_row():
    rows = {name.partition(".")[0] for name, *_ in ROWS}
    assert public_names() - rows == set(TOTAL)
    assert len(ROWS) >= 150
