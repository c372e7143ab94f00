"""GRPO's variants compared on the tiny model, one change at a time: `python -m benchmarks.grpo_ablation`.

Every run trains a fresh base model on one thread; a seed decides which problems are drawn and what is sampled. After
it, the model answers 500 held-out problems greedily that are used nowhere else. A run appends one row to
`ch07/ablation.jsonl`; one that is there already, with the same settings and weights, is not repeated, so a benchmark
that was stopped goes on when it is started again. Taught in ch07, section 7.13.

    python -m benchmarks.grpo_ablation --jobs 2             all runs, two at a time
    python -m benchmarks.grpo_ablation --list               the variants
    python -m benchmarks.grpo_ablation --only grpo dapo     some of them
"""

import argparse
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from shared import EvalResult, evaluate, load_minimath, load_model
from shared.generation.logprobs import token_logprobs
from shared.grpo import GRPOConfig, GRPOTrainer, kl_estimate, reward_correct, sample_rollouts
from shared.model.fingerprint import fingerprint
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.jsonl import append_jsonl, read_jsonl
from shared.tiny.corpus import generate_minimath

RESULTS = Path(__file__).resolve().parents[1] / "ch07" / "ablation.jsonl"
HELD_OUT_SEED = 20_607  # of the problems to measure with
BASE = {
    "steps": 12,
    "prompts_per_step": 10,
    "group_size": 8,
    "learning_rate": 4e-4,
    "max_new_tokens": 96,
    "micro_batch_tokens": 1024,  # the result is the same, and small batches are faster on a processor
    "prompt_style": "direct",
}
REUSED = {"inner_epochs": 4, "steps": 7}  # each batch for four steps, so that ratios leave 1
CURVES = (
    "reward_mean", "length_mean", "entropy", "no_signal", "truncated", "clip_low", "clip_high", "kl_old", "kl_ref",
    "grad_norm", "advantage_std",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """What a variant changes, and which variant it is compared with (None: nothing, it is a baseline)."""

    changes: dict = field(default_factory=dict)
    baseline: str | None = "grpo"

    def config(self, seed: int, **more: object) -> GRPOConfig:
        """The settings of one run."""
        return GRPOConfig(**(BASE | self.changes | {"seed": seed} | more))


VARIANTS = {
    "untrained": Variant({"steps": 0}, baseline=None),
    "grpo": Variant(baseline=None),
    "rate x 10": Variant({"learning_rate": 4e-3}),
    "kl k3": Variant({"kl_coef": 1.0}),
    "kl k1 as loss": Variant({"kl_coef": 1.0, "kl_estimator": "k1"}),
    "kl reweighted": Variant({"kl_coef": 1.0, "kl_reweighted": True}),
    "no std": Variant({"advantage": "dr_grpo"}),
    "token mean": Variant({"aggregation": "token"}),
    "dr_grpo": Variant({"preset": "dr_grpo"}),
    "reused": Variant(REUSED, baseline=None),
    "reused, gspo": Variant(REUSED | {"preset": "gspo"}, baseline="reused"),
    "reused, no clip": Variant(REUSED | {"objective": "plain"}, baseline="reused"),
    "reused, cispo": Variant(REUSED | {"preset": "cispo", "aggregation": "sequence"}, baseline="reused"),
}


def held_out(count: int = 500) -> list[dict]:
    """The problems that every run is measured with."""
    return generate_minimath(count, seed=HELD_OUT_SEED)


def run(name: str, seed: int, problems: int = 500, **more: object) -> dict:
    """Train one variant with one seed, and say everything about it in one row.

    `correct` has a 1 or 0 for each held-out problem; `kl_base` is the k3 estimate of KL(policy || base model) in nats
    a token, on fresh rollouts; `curves` has lists with a number a step, or None
    where there was nothing to train on.
    """
    began, began_cpu = time.perf_counter(), time.process_time()
    config = VARIANTS[name].config(seed, **more)
    measured = held_out(problems)
    trainer = GRPOTrainer(*load_model("tiny"), load_minimath("train"), reward_correct, config, progress=False)
    history = trainer.train()
    result = graded(trainer.model, trainer.tokenizer, measured, config)
    return {
        "variant": name, "seed": seed, "baseline": VARIANTS[name].baseline,
        "settings": VARIANTS[name].changes | more, "base_settings": BASE, "weights": trainer.start,
        "n": result.n, "accuracy": result.accuracy, "tokens": round(result.tokens / result.n, 1),
        "kl_base": short(kl_to_base(trainer.model, trainer.tokenizer, measured[:64], config)),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - began_cpu, 1),
        "correct": "".join("1" if record["correct"] else "0" for record in result.records),
        "curves": {
            key: [short(row[key]) if key in row else None for row in history]
            for key in CURVES if any(key in row for row in history)
        },
    }  # fmt: skip


def graded(model: CausalLM, tokenizer: Tokenizer, problems: list[dict], config: GRPOConfig) -> EvalResult:
    """Greedy answers with the prompt that is trained."""
    settings = {"prompt": config.prompt_style, "max_new_tokens": config.max_new_tokens, "batch_size": 250}
    return evaluate(model, tokenizer, problems, **settings)


@torch.no_grad()
def kl_to_base(model: CausalLM, tokenizer: Tokenizer, problems: list[dict], config: GRPOConfig) -> float:
    """How far the policy has moved: k3 estimate of KL(policy || base), nats a token, on its own rollouts."""
    base, _ = load_model("tiny")
    rollouts = sample_rollouts(model, tokenizer, problems, [reward_correct], replace(config, group_size=2), seed=1)
    logprobs = [token_logprobs(m, rollouts.input_ids, where=rollouts.mask) for m in (model, base)]
    return kl_estimate(*logprobs)[rollouts.mask].mean().item()


def short(value: float) -> float:
    """Four digits are enough for a curve."""
    return float(f"{value:.4g}")


def one_thread() -> None:
    """What a worker process does first."""
    torch.set_num_threads(1)


def task(arguments: tuple[str, int]) -> dict:
    """`run` with its arguments in a tuple, as a pool of processes wants it."""
    return run(*arguments)


def missing(path: Path, names: list[str], seeds: list[int]) -> Iterator[tuple[str, int]]:
    """The runs that the file does not hold with today's settings and weights; all seeds of a variant, then the next."""
    weights = fingerprint(load_model("tiny")[0])
    rows = read_jsonl(path) if path.exists() else []
    there = [(r["variant"], r["seed"], r["settings"], r["base_settings"], r["weights"]) for r in rows]
    for name, seed in itertools.product(names, seeds):
        if (name, seed, VARIANTS[name].changes, BASE, weights) not in there:
            yield name, seed


def summary(row: dict) -> str:
    """One line about a run."""
    rewards = row["curves"].get("reward_mean", [])
    learning = f", mean reward of all steps {sum(rewards) / len(rewards):.3f}" if rewards else ""
    return (
        f"{row['variant']:27} seed {row['seed']}: {100 * row['accuracy']:.1f} %{learning}, "
        f"KL to base {row['kl_base']:.3f}, {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} s of processor time"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grpo_ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="print the variants and stop")
    arguments = parser.parse_args()
    if arguments.list:
        for name, variant in VARIANTS.items():
            print(f"{name:27} {variant.changes}, against {variant.baseline}")
        return
    todo = list(missing(arguments.results, arguments.only, arguments.seeds))
    print(f"{len(todo)} runs, {arguments.jobs} at a time", flush=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.jobs, initializer=one_thread) as pool:
        for row in pool.imap_unordered(task, todo):
            append_jsonl(arguments.results, [row])
            print(summary(row), flush=True)


if __name__ == "__main__":
    main()
