"""Long training runs from the command line. Taught in ch06, section 6.18.

    python -m shared.grpo --help
    python -m shared.grpo --model tiny --preset dapo --steps 200 --out runs/dapo
    python -m shared.distillation teacher.jsonl --model tiny --out runs/distilled
    torchrun --nproc-per-node=2 -m shared.grpo --model qwen3-0.6b-base --precision bf16 --out runs/qwen

A stopped or killed run goes on when the same command is given again.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: idle threads sleep

import argparse
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch

from shared.distillation import (
    DistillationTrainer,
    DistillConfig,
    build_sft_examples,
    load_rows,
    split_examples,
)
from shared.distillation.config import CHOICES as DISTILL_CHOICES
from shared.evaluation.data import load_math_train, load_minimath, load_problems
from shared.formats.loading import load_model
from shared.grpo import GRPOConfig, GRPOTrainer, reward_correct, reward_format
from shared.grpo.config import CHOICES, GRPO, PRESETS
from shared.training import distributed
from shared.training.trainer import Trainer, TrainingStopped

REWARDS = {"correct": reward_correct, "format": reward_format}
DATA = {"minimath": lambda: load_minimath("train"), "math": load_math_train}
# What a default of None stands for; in all other fields for "never".
UNSET = dict.fromkeys(GRPO, "what the preset says") | {"steps": "as many as the epochs take"}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    options = make_parser().parse_args(arguments)
    try:
        with distributed.process_group() as device:
            return _run(options, device)
    except (ValueError, OSError, TrainingStopped) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, device: torch.device | None) -> int:
    trainer = options.make_trainer(options, device or options.device)
    try:
        trainer.train(resume=not options.fresh)
    except KeyboardInterrupt as stopped:
        _say(f"\n{stopped or 'stopped'}")
        return 130
    _say(_summary(trainer))
    return 0


def _say(text: str) -> None:
    if distributed.is_main():
        print(text)


def _summary(trainer: Trainer) -> str:
    out = Path(trainer.config.out)
    last = trainer.last_checkpoint()
    return (
        f"{trainer.step} steps done. The model is in {last}: load_model({str(last)!r}).\n"
        f"The metrics of every step are in {out / 'metrics.csv'} and {out / 'metrics.jsonl'}."
    )


# --- options ------------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """One sub-command for each way to train; its settings are the fields of its config."""
    parser = argparse.ArgumentParser(
        prog="python -m shared.training.command_line", description=__doc__.split("\n\n")[0]
    )
    commands = parser.add_subparsers(required=True, metavar="method", dest="method")
    _add_grpo(commands)
    _add_distill(commands)
    return parser


def _add_grpo(commands: argparse._SubParsersAction) -> None:
    summary = "reinforcement learning, chapters 6 and 7"
    grpo = add_command(
        commands, "grpo", GRPOConfig, _grpo_trainer, summary, CHOICES | {"preset": tuple(PRESETS)}
    )
    grpo.add_argument(
        "--data", default="minimath", help="minimath, math (from the hub) or a file; default: minimath"
    )
    grpo.add_argument(
        "--rewards", default="correct", type=_reward_functions,
        help=f"{', '.join(REWARDS)}, or both with a comma between them; default: correct",
    )  # fmt: skip


def _add_distill(commands: argparse._SubParsersAction) -> None:
    summary = "learning from a teacher's solutions or probabilities, chapter 8"
    distill = add_command(commands, "distill", DistillConfig, _distill_trainer, summary, DISTILL_CHOICES)
    add = distill.add_argument
    add("data", help="a JSON or JSON Lines file of solutions, such as python -m shared.teacher writes")
    add("--teacher", help="the model whose probabilities are learned; needed unless --loss is hard")
    add("--validation", type=float, default=0.05, metavar="X",
        help="share of the problems to measure the loss on, 0 for none; default: 0.05")  # fmt: skip
    add("--problems", metavar="FILE", help="held-out problems to measure the accuracy on; default: none")
    add("--max-length", type=int, default=512, metavar="N",
        help="longer examples are left out, in tokens; default: 512")  # fmt: skip
    add("--no-thinking", action="store_true", help="leave out the teacher's thinking")
    add("--no-think-tags", action="store_true", help="write the thinking without its tags")
    add("--keep-wrong", action="store_true", help="keep solutions that the verifier rejects")


def add_command(
    commands: argparse._SubParsersAction,
    method: str,
    config: type,
    make_trainer: Callable[[argparse.Namespace, str | torch.device], Trainer],
    summary: str,
    choices: Mapping[str, Sequence[str]],
) -> argparse.ArgumentParser:
    """A sub-command with the options that all have, and one for each field of the dataclass `config`.

    `choices`: fields with a fixed set of values.
    """
    parser = commands.add_parser(
        method, help=summary, description=f"{method}: {summary}.", epilog=config.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.set_defaults(make_trainer=make_trainer)
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows; default: tiny")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps; default: auto")
    parser.add_argument(
        "--fresh", action="store_true", help="start anew instead of going on with the run in --out"
    )
    settings = parser.add_argument_group("settings", "They are explained below.")
    hints = typing.get_type_hints(config)
    for field in fields(config):
        default = f"runs/{method}" if field.name == "out" else field.default
        _add_setting(settings, field.name, hints[field.name], default, choices.get(field.name))
    return parser


def _add_setting(
    group: argparse._ArgumentGroup, name: str, hint: object, default: object, choices: Sequence[str] | None
) -> None:
    """The option of one field: its name with hyphens, its type, its choices and its default."""
    kind = next((k for k in typing.get_args(hint) if k is not types.NoneType), hint)
    shown = UNSET.get(name, "never") if default is None else default
    details: dict = {"default": default, "help": f"default: {shown}"}
    if kind is bool:
        details["action"] = argparse.BooleanOptionalAction
    elif choices:
        details["choices"] = tuple(choices)
    elif typing.get_origin(hint) is tuple:
        details |= {"type": _numbers, "metavar": "A,B", "help": "one a reward; default: 1 each"}
    else:
        details |= {"type": kind, "metavar": {str: "TEXT", int: "N", float: "X"}[kind]}
    group.add_argument(f"--{name.replace('_', '-')}", **details)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


def _reward_functions(text: str) -> list[Callable[[str, dict], float]]:
    unknown = [name for name in text.split(",") if name not in REWARDS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown reward {unknown[0]!r}: choose from {', '.join(REWARDS)}")
    return [REWARDS[name] for name in text.split(",")]


# --- trainers -----------------------------------------------------------------------------------------------


def _grpo_trainer(options: argparse.Namespace, device: str | torch.device) -> GRPOTrainer:
    model, tokenizer = load_model(options.model, device=device)
    problems = DATA[options.data]() if options.data in DATA else load_problems(options.data)
    return GRPOTrainer(model, tokenizer, problems, options.rewards, make_config(GRPOConfig, options))


def _distill_trainer(options: argparse.Namespace, device: str | torch.device) -> DistillationTrainer:
    model, tokenizer = load_model(options.model, device=device)
    examples = build_sft_examples(
        load_rows(options.data), tokenizer, prompt_style=options.prompt_style, max_length=options.max_length,
        with_thinking=not options.no_thinking, think_tags=not options.no_think_tags,
        only_correct=not options.keep_wrong,
    )  # fmt: skip
    _say(f"{Path(options.data).name}: {examples.summary()}")
    train, validation = split_examples(examples, options.validation) if options.validation else (examples, [])
    return DistillationTrainer(
        model, tokenizer, train, make_config(DistillConfig, options), validation=validation,
        problems=load_problems(options.problems) if options.problems else None,
        teacher=load_model(options.teacher, device=device)[0] if options.teacher else None,
    )  # fmt: skip


def make_config(config: type, options: argparse.Namespace) -> object:
    """The config whose fields are among the options."""
    return config(**{field.name: getattr(options, field.name) for field in fields(config)})


if __name__ == "__main__":
    sys.exit(main())
