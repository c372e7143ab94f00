"""Does k1 as a loss spoil a policy whose rollouts are drawn cooler than scored? `python -m benchmarks.grpo_kl_drift`

Section 7.5 says why it might: of rollouts drawn from q (temperature 0.8, top-p 0.9) and scored at temperature 1, the
mean gradient of k1 is q less the policy, whatever the reference says. Each run trains the tiny model with one of both
ways to draw and one form and weight of the KL term; all else is the same. The mean entropy of the policy at temperature
1, and its greedy accuracy on problems used for nothing else, are noted along the way. Results: `ch07/kl_drift.jsonl`,
one run a line, appended as soon as it is there; a run that is there already is not made again. (The file that ships has
the second seed of the first two runs only. A run takes some four minutes of one core.)
"""

import argparse
from dataclasses import replace
from pathlib import Path

from shared import evaluate, load_minimath, load_model
from shared.grpo import GRPOConfig, GRPOTrainer, reward_correct
from shared.grpo.rollouts import Rollouts
from shared.support.jsonl import append_jsonl, read_jsonl
from shared.tiny.corpus import generate_minimath

RESULTS = Path(__file__).resolve().parents[1] / "ch07" / "kl_drift.jsonl"
PROBLEMS = 20_911  # seed of the held-out problems
COOL, PLAIN = {"temperature": 0.8, "top_p": 0.9}, {}
RUNS = {  # how the rollouts are drawn, weight of the KL term, estimator
    "cool, k1 0.1": (COOL, 0.1, "k1"),
    "plain, k1 0.1": (PLAIN, 0.1, "k1"),
    "cool, k3 0.1": (COOL, 0.1, "k3"),
    "cool, no KL": (COOL, 0.0, "k1"),
    "cool, k1 0.02": (COOL, 0.02, "k1"),
}
CURVES = ("reward_mean", "entropy", "length_mean", "no_signal", "grad_norm")


class Drifting(GRPOTrainer):
    """Draws as `drawing` says and scores at temperature 1."""

    drawing: dict[str, float]

    def sample(self, problems: list[dict], draw: int = 0) -> Rollouts:
        """What the policy writes for the problems, by the settings of `drawing`."""
        scoring, self.config = self.config, replace(self.config, **self.drawing)
        try:
            return super().sample(problems, draw)
        finally:
            self.config = scoring


def run(name: str, seed: int, steps: int, every: int, held_out: list[dict]) -> dict:
    """Train one of the runs and return its curves."""
    drawing, kl_coef, estimator = RUNS[name]
    model, tokenizer = load_model("tiny")
    accuracies: dict[int, float] = {}

    def on_step(metrics: dict) -> None:
        if metrics["step"] % every == 0:
            result = evaluate(model, tokenizer, held_out, prompt="cot", max_new_tokens=160)
            accuracies[metrics["step"]] = round(result.accuracy, 4)

    config = GRPOConfig(
        steps=steps, seed=seed, prompts_per_step=4, learning_rate=2e-4, max_new_tokens=160, micro_batch_tokens=1024,
        prompt_style="cot", aggregation="constant", kl_coef=kl_coef, kl_estimator=estimator,
    )  # fmt: skip
    trainer = Drifting(model, tokenizer, load_minimath("train"), reward_correct, config, on_step=on_step)
    trainer.drawing = drawing
    history = trainer.train()
    curves = {key: [float(f"{row[key]:.4g}") for row in history if key in row] for key in CURVES}
    return {"run": name, "seed": seed, "n": len(held_out), "accuracy": accuracies, "curves": curves}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_kl_drift", description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=50, help="steps between evaluations")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("-n", type=int, default=500, help="held-out problems")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    held_out = generate_minimath(options.n, PROBLEMS)
    there = {(row["run"], row["seed"]) for row in (read_jsonl(options.results) if options.results.exists() else [])}
    for seed in range(options.seeds):
        for name in RUNS:
            if (name, seed) not in there:
                row = run(name, seed, options.steps, options.every, held_out)
                append_jsonl(options.results, [row])
                print(name, seed, row["accuracy"], flush=True)


if __name__ == "__main__":
    main()
