"""The command line of the teacher: `python -m shared.teacher --help`."""

import argparse
import json
import sys
from collections.abc import Sequence

from shared.evaluation.data import load_math_train, load_minimath, load_problems
from shared.formats.loading import load_model
from shared.generation.prompts import INSTRUCTIONS
from shared.teacher import Server, Tally, ask_model, ask_server

SETS = {"minimath": lambda: load_minimath("train"), "math": load_math_train}
KEY_NOTE = (
    "A server's address and key come from the environment, OPENAI_BASE_URL and OPENAI_API_KEY. Run the same command "
    "again to go on after a stop: no sample is asked for twice."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        print(_ask(options))
    except KeyboardInterrupt:
        print("Stopped: run the same command again to go on.", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _ask(options: argparse.Namespace) -> Tally:
    load = SETS.get(options.problems)
    problems = (load() if load else load_problems(options.problems))[: options.limit]
    common = {
        "prompt": options.prompt, "num_samples": options.samples, "temperature": options.temperature,
        "top_p": options.top_p, "max_new_tokens": options.max_new_tokens, "keep_rejected": options.keep_rejected,
        "progress": True,
    }  # fmt: skip
    if options.server:
        server = Server(
            options.server, concurrency=options.concurrency, timeout=options.timeout, tries=options.tries,
            stream=not options.no_stream, price_in=options.price_in, price_out=options.price_out, extra=options.extra,
        )  # fmt: skip
        return ask_server(problems, options.file, server, seed=options.seed, **common)
    model, tokenizer = load_model(options.model)
    return ask_model(
        problems, options.file, model, tokenizer, name=options.model, chat=options.chat,
        batch_size=options.batch_size, seed=options.seed or 0, **common,
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m shared.teacher",
        description="Have a teacher solve problems, and keep the solutions that the verifier accepts.",
        epilog=KEY_NOTE,
    )
    add = parser.add_argument
    add("file", help="the file that the kept samples are appended to, ending in .jsonl")
    teacher = parser.add_mutually_exclusive_group(required=True)
    teacher.add_argument(
        "--model", help="a model of ours by name or path: tiny, qwen3-1.7b, smollm2-135m, ..."
    )
    teacher.add_argument("--server", metavar="MODEL", help="a model of a server with the OpenAI interface")
    add(
        "--problems",
        default="minimath",
        help=f"{' or '.join(SETS)} (training sets), or a JSON or JSON Lines file (%(default)s)",
    )
    add("--limit", type=int, help="only the first so many problems")
    add("--samples", type=int, default=1, help="answers a problem (%(default)s)")
    add("--prompt", choices=INSTRUCTIONS, default="cot", help="how the problem is put (%(default)s)")
    add("--temperature", type=float, default=0.7, help="0 for the likeliest answer (%(default)s)")
    add("--top-p", type=float, default=0.95, help="share of the probability that is drawn from (%(default)s)")
    add(
        "--max-new-tokens",
        type=int,
        default=2048,
        help="tokens of an answer at most; a longer one is rejected (%(default)s)",
    )
    add("--seed", type=int, help="of the random draws; not sent to a server unless given")
    add("--keep-rejected", action="store_true", help="keep the texts of rejected answers in a second file")
    local = parser.add_argument_group("with --model")
    local.add_argument("--chat", action="store_true", help="put the problem into the model's chat template")
    local.add_argument("--batch-size", type=int, default=64, help="answers made at once (%(default)s)")
    _add_server_options(parser.add_argument_group("with --server"))
    return parser


def _add_server_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--concurrency", type=int, default=8, help="requests under way at a time (%(default)s)")
    add(
        "--timeout",
        type=float,
        default=120,
        help="seconds without a sign of life until a request has failed (%(default)s)",
    )
    add("--tries", type=int, default=6, help="how often a sample is asked for (%(default)s)")
    add("--no-stream", action="store_true", help="ask for each answer in one piece")
    add("--price-in", type=float, default=0, help="price of a million tokens read (%(default)s)")
    add("--price-out", type=float, default=0, help="price of a million tokens written (%(default)s)")
    add(
        "--extra",
        type=json.loads,
        default={},
        metavar="JSON",
        help="more fields of the request; null takes one out",
    )


if __name__ == "__main__":
    sys.exit(main())
