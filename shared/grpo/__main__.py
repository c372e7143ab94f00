"""Long runs of reinforcement learning from the command line. Used in ch06, section 6.18.

    python -m shared.grpo --help
    python -m shared.grpo --model tiny --preset dapo --steps 200 --out runs/dapo

A stopped or killed run goes on when the same command is given again.
"""

import argparse
import sys
from collections.abc import Sequence

from shared.evaluation.data import load_data
from shared.formats.loading import load_model
from shared.grpo import GRPOConfig, GRPOTrainer, reward_correct, reward_evaluated, reward_format
from shared.grpo.config import SWITCHES
from shared.grpo.rollouts import Reward
from shared.training.command_line import config_parser, make_config, run

REWARDS = {"correct": reward_correct, "evaluated": reward_evaluated, "format": reward_format}


def make_parser() -> argparse.ArgumentParser:
    """The settings of `GRPOConfig`, and what to learn from."""
    unset = dict.fromkeys(SWITCHES, "what the preset says")
    summary = "Reinforcement learning with verifiable rewards, chapters 6 and 7."
    parser = config_parser("python -m shared.grpo", summary, GRPOConfig, "runs/grpo", unset)
    data = "minimath, math or gsm8k (both from the hub), or a file; default: minimath"
    parser.add_argument("--data", default="minimath", help=data)
    both = f"{', '.join(REWARDS)}, or several with commas between them; default: correct"
    parser.add_argument("--rewards", default="correct", type=reward_functions, help=both)
    return parser


def reward_functions(names: str) -> list[Reward]:
    """The rewards with these names, which commas part."""
    unknown = [name for name in names.split(",") if name not in REWARDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown reward {unknown[0]!r}: choose from {', '.join(REWARDS)}")
    return [REWARDS[name] for name in names.split(",")]


def make_trainer(options: argparse.Namespace, kind: type[GRPOTrainer] = GRPOTrainer) -> GRPOTrainer:
    """A trainer of this kind, as the options say."""
    model, tokenizer = load_model(options.model, device=options.device)
    problems = load_data(options.data, "train")
    return kind(model, tokenizer, problems, options.rewards, make_config(GRPOConfig, options))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    return run(make_trainer, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
