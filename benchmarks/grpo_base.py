"""What GRPO finds that no prompt brings about: `python -m benchmarks.grpo_base --model PATH --seed N -n 1000`.

Trains with chapter 6's settings and measures, after some numbers of steps of the same run, greedy accuracy with every
prompt style on the problems of `benchmarks.base`, paired with P*, the best that the untrained model does with any
prompt; then pass@k. `--reward steps` is the control for style: it pays for written steps, right or wrong. A run that
is stopped goes on from its last checkpoint, and what was measured is not measured again.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.base import Study, passes, prompts_and_beginnings, show, steps_in
from shared import load_minimath, load_model
from shared.generation.prompts import INSTRUCTIONS, render_prompt
from shared.grpo import GRPOConfig, GRPOTrainer, reward_correct
from shared.tiny.corpus import generate_minimath

CONFIG = GRPOConfig(prompts_per_step=16, group_size=8, save_every=25)


def reward_steps(text: str, problem: dict) -> float:
    """The share of a problem's steps that a text writes down, right or wrong, with an answer or without."""
    return min(1.0, steps_in(text) / problem["level"])


REWARDS = {"correct": reward_correct, "steps": reward_steps}


def trained(model: str, reward: str, config: GRPOConfig) -> GRPOTrainer:
    """The run in `config.out` after `config.steps` steps, begun or gone on with."""
    trainer = GRPOTrainer(*load_model(model), load_minimath("train"), REWARDS[reward], config)
    trainer.train()
    return trainer


def measure(trainer: GRPOTrainer, problems: list[dict], out: Path, name: str, best: dict) -> None:
    """Greedy accuracy of the policy with each prompt style, against P*, and pass@k."""
    seconds = sum(row["seconds"] for row in trainer.history)
    last = [row["reward_mean"] for row in trainer.history[-10:]]
    print(f"\n{name}: {seconds:.0f} s, reward {sum(last) / len(last):.3f} at the end", flush=True)
    study = Study(trainer.model, trainer.tokenizer, problems, out)
    study.part("run", lambda: {"name": name, "seconds": seconds, "reward": sum(last) / len(last)})
    for style in INSTRUCTIONS:
        show(study.greedy(style, lambda text, s=style: render_prompt(text, s)), ("P*", best))
    passes(study)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grpo_base", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows")
    parser.add_argument("-n", "--problems", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=321, help="of the problems")
    parser.add_argument("--out", type=Path, default=Path("results/base.jsonl"), help="as of benchmarks.base")
    parser.add_argument("--run", type=Path, default=Path("runs/grpo_base"), help="folder of the checkpoints")
    parser.add_argument("--reward", choices=REWARDS, default="correct")
    parser.add_argument("--prompt", choices=INSTRUCTIONS, default="cot", help="prompt to train with")
    parser.add_argument("--steps", type=int, nargs="+", default=[150], help="when to measure, in rising order")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--run-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="processor cores to use")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    problems = generate_minimath(arguments.problems, arguments.seed)
    best = prompts_and_beginnings(Study(*load_model(arguments.model), problems, arguments.out))
    config = replace(
        CONFIG, learning_rate=arguments.learning_rate, prompt_style=arguments.prompt, seed=arguments.run_seed,
        out=str(arguments.run / arguments.reward),
    )  # fmt: skip
    for steps in arguments.steps:
        trainer = trained(arguments.model, arguments.reward, replace(config, steps=steps))
        name = f"rewarded for {arguments.reward}, {arguments.prompt}, {config.learning_rate}, {steps} steps"
        measure(trainer, problems, arguments.out, name, best)


if __name__ == "__main__":
    main()
