"""Long runs of distillation from the command line. Taught in ch08.

    python -m shared.distillation --help
    python -m shared.distillation teacher.jsonl --model tiny --out runs/distilled

A stopped or killed run goes on when the same command is given again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.distillation import DistillationTrainer, DistillConfig, build_sft_examples, load_rows, split_examples
from shared.evaluation.data import load_problems
from shared.formats.loading import load_model
from shared.training.command_line import config_parser, make_config, run


def make_parser() -> argparse.ArgumentParser:
    """The settings of `DistillConfig`, and what to learn from."""
    unset = {"steps": "as many as the epochs take"}
    summary = "Learning from a teacher's solutions or probabilities, chapter 8."
    parser = config_parser("python -m shared.distillation", summary, DistillConfig, "runs/distill", unset)
    add = parser.add_argument
    add("data", help="a JSON or JSON Lines file of solutions, such as python -m shared.teacher writes")
    add("--teacher", help="the model whose probabilities are learned; needed unless --loss is hard")
    share = "share of the problems to measure the loss on, 0 for none; default: 0.05"
    add("--validation", type=float, default=0.05, metavar="X", help=share)
    add("--problems", metavar="FILE", help="held-out problems to measure the accuracy on; default: none")
    add("--max-length", type=int, default=512, metavar="N", help="leave out longer examples; default: 512 tokens")
    add("--no-think-tags", dest="think_tags", action="store_false", help="write the thinking without its tags")
    add("--keep-wrong", dest="only_correct", action="store_false", help="keep solutions that the verifier rejects")
    return parser


def make_trainer(options: argparse.Namespace, kind: type = DistillationTrainer) -> DistillationTrainer:
    """A trainer of this kind, as the options say."""
    model, tokenizer = load_model(options.model, device=options.device)
    names = ("prompt_style", "max_length", "with_thinking", "think_tags", "only_correct")
    form = {name: getattr(options, name) for name in names}
    examples = build_sft_examples(load_rows(options.data), tokenizer, **form)
    print(f"{Path(options.data).name}: {examples.summary()}")
    train, validation = split_examples(examples, options.validation) if options.validation else (examples, [])
    problems = load_problems(options.problems) if options.problems else None
    teacher = load_model(options.teacher, device=options.device)[0] if options.teacher else None
    more = {"validation": validation, "problems": problems, "teacher": teacher}
    return kind(model, tokenizer, train, make_config(DistillConfig, options), **more)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    return run(make_trainer, make_parser().parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
