"""The command line of the teacher: `python -m shared.teacher --help`."""

import argparse
import sys
from collections.abc import Sequence

from shared.evaluation.data import SETS, load_data
from shared.formats.loading import load_model
from shared.generation.prompts import INSTRUCTIONS
from shared.teacher import Tally, ask_model
from shared.training.command_line import exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    parser = teacher_parser("python -m shared.teacher", "python -m appendix.h_teacher asks a server instead.")
    add = parser.add_argument
    add("--model", required=True, help="a model by name or path: tiny, qwen3-1.7b, smollm2-135m, ...")
    add("--seed", type=int, default=0, help="of the random draws (%(default)s)")
    add("--batch-size", type=int, default=64, help="answers made at once (%(default)s)")
    options = parser.parse_args(arguments)
    return exit_status(lambda: print(_ask(options)))


def _ask(options: argparse.Namespace) -> Tally:
    model, tokenizer = load_model(options.model)
    own = {"name": options.model, "batch_size": options.batch_size}
    return ask_model(model=model, tokenizer=tokenizer, **own, **common_arguments(options))


# --- what the command that asks a server shares ---------------------------------------------------------------


def teacher_parser(program: str, epilog: str) -> argparse.ArgumentParser:
    """The options of every teacher."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Have a teacher solve problems, and keep the solutions that the verifier accepts.",
        epilog=f"Run the same command again to go on after a stop: no sample is asked for twice. {epilog}",
    )
    add = parser.add_argument
    add("file", help="the file that the kept samples are appended to, ending in .jsonl")
    data = f"{', '.join(SETS)} (training sets), or a JSON or JSON Lines file (%(default)s)"
    add("--problems", default="minimath", help=data)
    add("--limit", type=int, help="only the first so many problems")
    add("--samples", type=int, default=1, dest="num_samples", help="answers a problem (%(default)s)")
    add("--prompt", choices=INSTRUCTIONS, default="cot", help="how the problem is put (%(default)s)")
    add("--temperature", type=float, default=0.7, help="0 for the likeliest answer (%(default)s)")
    add("--top-p", type=float, default=0.95, help="share of the probability that is drawn from (%(default)s)")
    add("--max-new-tokens", type=int, default=2048, help="a longer answer is rejected (%(default)s)")
    add("--keep-rejected", action="store_true", help="keep the texts of rejected answers in a second file")
    return parser


def common_arguments(options: argparse.Namespace) -> dict:
    """The arguments that `ask_model` and `ask_server` have in common."""
    problems = load_data(options.problems, "train")
    names = ("prompt", "num_samples", "temperature", "top_p", "max_new_tokens", "seed", "keep_rejected")
    settings = {name: getattr(options, name) for name in names}
    return settings | {"problems": problems[: options.limit], "path": options.file, "progress": True}


if __name__ == "__main__":
    sys.exit(main())
