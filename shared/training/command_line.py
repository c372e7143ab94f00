"""What the command lines share: options from a config, the run of a trainer, errors in words."""

import argparse
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from shared.support.progress import print_any_text
from shared.training.config import TrainingConfig
from shared.training.trainer import Trainer, TrainingStopped


def config_parser(
    program: str, summary: str, config: type[TrainingConfig], out: str, unset: Mapping[str, str]
) -> argparse.ArgumentParser:
    """A parser of a command's options: those that all have, and one for each field of `config`.

    `out` is the default of the option of this name; `unset` says what a default of None stands for, else "never".
    """
    raw, explained = argparse.RawDescriptionHelpFormatter, f"{config.__doc__}\n\n{TrainingConfig.__doc__}"
    parser = argparse.ArgumentParser(prog=program, description=summary, epilog=explained, formatter_class=raw)
    parser.add_argument("--model", default="tiny", help="a name or path that load_model knows; default: tiny")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps; default: auto")
    parser.add_argument("--fresh", action="store_true", help="start anew instead of going on with the run in --out")
    settings = parser.add_argument_group("settings", "They are explained below.")
    hints = typing.get_type_hints(config)
    for field in fields(config):
        default = out if field.name == "out" else field.default
        details = {"help": f"default: {unset.get(field.name, 'never') if default is None else default}"}
        allowed = config.choices.get(field.name)
        details |= {"choices": allowed} if allowed else value_options(hints[field.name])
        settings.add_argument(f"--{field.name.replace('_', '-')}", default=default, **details)
    return parser


def value_options(hint: object) -> dict:
    """How argparse reads a value of this type."""
    kind = next((k for k in typing.get_args(hint) if k is not types.NoneType), hint)
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if typing.get_origin(hint) is tuple:
        return {"type": numbers, "metavar": "A,B", "help": "one a reward; default: 1 each"}
    return {"type": kind, "metavar": {str: "TEXT", int: "N", float: "X"}[kind]}


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    return tuple(map(float, text.split(",")))


def make_config(config: type[TrainingConfig], options: argparse.Namespace) -> TrainingConfig:
    """The config whose fields are among the options."""
    return config(**{field.name: getattr(options, field.name) for field in fields(config)})


def run(make_trainer: Callable[[argparse.Namespace], Trainer], options: argparse.Namespace) -> int:
    """Make the trainer, train, and say where the results are; returns the exit status."""

    def train() -> None:
        trainer = make_trainer(options)
        trainer.train(resume=not options.fresh)
        out, last = Path(trainer.config.out), trainer.last_checkpoint()
        print(f"{trainer.step} steps done. The model is in {last}: load_model({str(last)!r}).")
        print(f"The metrics of every step are in {out / 'metrics.csv'} and {out / 'metrics.jsonl'}.")

    return exit_status(train)


def exit_status(work: Callable[[], object]) -> int:
    """Do a command's work, its errors told in words; returns 0, 1 after an error, 130 after Ctrl-C."""
    print_any_text()
    try:
        work()
    except KeyboardInterrupt as stopped:
        print(f"\n{stopped or 'Stopped: run the same command again to go on.'}")
        return 130
    except (ValueError, OSError, TrainingStopped) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
