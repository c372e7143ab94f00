"""A server as the teacher, from the command line: `python -m appendix.h_teacher --help`. Used in appendix H.

OPENAI_BASE_URL=http://localhost:11434/v1 python -m appendix.h_teacher data.jsonl --server qwen3:8b --limit 500
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from appendix.h_server import Server, ServerTally, ask_server
from shared.teacher.__main__ import common_arguments, teacher_parser
from shared.training.command_line import exit_status

ADDRESS = "The server's address and key come from the environment, OPENAI_BASE_URL and OPENAI_API_KEY."
OF_SERVER = ("concurrency", "timeout", "tries", "price_in", "price_out", "extra")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    parser = teacher_parser("python -m appendix.h_teacher", ADDRESS)
    add, default = parser.add_argument, Server.__dataclass_fields__
    add("--server", metavar="MODEL", required=True, help="a model of the server")
    add("--seed", type=int, help="of the random draws; not sent unless given")
    for name, kind, said in (
        ("concurrency", int, "requests under way at a time"),
        ("timeout", float, "seconds without a sign of life until a request has failed"),
        ("tries", int, "how often a sample is asked for"),
        ("price_in", float, "price of a million tokens read"),
        ("price_out", float, "price of a million tokens written"),
    ):
        option = f"--{name.replace('_', '-')}"
        add(option, type=kind, default=default[name].default, help=f"{said} (%(default)s)")
    add("--no-stream", action="store_true", help="ask for each answer in one piece")
    more = "more fields of the request; null takes one out"
    add("--extra", type=json.loads, default={}, metavar="JSON", help=more)
    options = parser.parse_args(arguments)
    return exit_status(lambda: print(_ask(options)))


def _ask(options: argparse.Namespace) -> ServerTally:
    settings = {name: getattr(options, name) for name in OF_SERVER}
    server = Server(options.server, stream=not options.no_stream, **settings)
    return ask_server(server=server, **common_arguments(options))


if __name__ == "__main__":
    sys.exit(main())
