"""Five short training runs, four of them with a fault: `python -m benchmarks.grpo_broken_runs`.

They are the specimens of exercise 7.5 and are written to `ch07/broken_runs.jsonl`, one run a line, with the curves that
a diagnosis needs. The held-out accuracy is measured with the right verifier and a generous token limit.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from shared import evaluate, load_minimath, load_model
from shared.grpo import GRPOConfig, GRPOTrainer, reward_correct
from shared.support.jsonl import write_jsonl

RESULTS = Path(__file__).resolve().parents[1] / "ch07" / "broken_runs.jsonl"
CURVES = ("reward_mean", "no_signal", "length_mean", "truncated", "grad_norm")
GENEROUS = 120  # tokens


def reward_long(text: str, problem: dict) -> float:
    """The right answer is worth 1, and so are every 30 characters, whatever they say."""
    return reward_correct(text, problem) + len(text) / 30


def reward_whole_text(text: str, problem: dict) -> float:
    """A verifier that forgot to extract the answer: it compares the whole text."""
    return float(text.strip() == problem["answer"])


BASE = {
    "prompt_style": "direct",
    "learning_rate": 4e-4,
    "prompts_per_step": 8,
    "max_new_tokens": GENEROUS,
    "micro_batch_tokens": 1024,
}
RUNS: dict[str, tuple[dict, Callable[[str, dict], float]]] = {
    "A": ({"max_new_tokens": 7}, reward_correct),
    "B": ({}, reward_long),
    "C": ({}, reward_correct),
    "D": ({}, reward_whole_text),
    "E": ({"learning_rate": 4e-3, "max_new_tokens": 100}, reward_correct),
}


def record(name: str, steps: int, every: int, held_out: list[dict]) -> dict:
    """Train one of the runs and return its curves."""
    changes, reward = RUNS[name]
    model, tokenizer = load_model("tiny")
    accuracies: dict[int, float] = {}

    def look(step: int) -> None:
        result = evaluate(model, tokenizer, held_out, prompt="direct", max_new_tokens=GENEROUS)
        accuracies[step] = round(result.accuracy, 4)

    def on_step(metrics: dict) -> None:
        if metrics["step"] % every == 0:
            look(metrics["step"])

    look(0)
    config = GRPOConfig(**(BASE | changes | {"steps": steps, "seed": 5}))
    history = GRPOTrainer(model, tokenizer, load_minimath("train"), reward, config, on_step=on_step).train()
    return {
        "run": name,
        "steps": [row["step"] for row in history],
        "eval_steps": list(accuracies),
        "curves": {key: [float(f"{row[key]:.4g}") for row in history] for key in CURVES}
        | {"eval_accuracy": list(accuracies.values())},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_broken_runs", description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=4, help="steps between evaluations")
    parser.add_argument("--problems", type=int, default=100, help="held-out problems")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    held_out = load_minimath("test")[-arguments.problems :]
    rows = []
    for name in RUNS:
        rows.append(record(name, arguments.steps, arguments.every, held_out))
        print(name, rows[-1]["curves"]["reward_mean"], rows[-1]["curves"]["eval_accuracy"], flush=True)
        write_jsonl(arguments.results, rows)


if __name__ == "__main__":
    main()
