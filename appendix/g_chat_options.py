"""What can be set in the chat of appendix G, and its command line, `python3 course.py chat --help`. Used there.

Only the standard library is used here, so that the help is there before anything is installed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class ChatSettings:
    """How to answer.

    Attributes:
        temperature: 0 is greedy decoding, see `Sampling`.
        max_new_tokens: the most tokens an answer may have, its thinking included.
        thinking: the switch of Qwen3's chat template; other templates ignore it.
        seed: draws the same random numbers for the same prompt; None draws fresh ones.
    """

    temperature: float = 0.6
    max_new_tokens: int = 1024
    thinking: bool = True
    seed: int | None = None


def chat_parser(**options: str) -> argparse.ArgumentParser:
    """The options that the terminal chat and the page have in common; `options` are those of the parser."""
    defaults = ChatSettings()
    parser = argparse.ArgumentParser(prog="course.py chat", **options)
    parser.add_argument("--model", default="tiny", help="a name or path that load_model takes (tiny)")
    parser.add_argument("--temperature", type=float, default=defaults.temperature, help="0 is greedy (%(default)s)")
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=defaults.max_new_tokens,
        help="the most tokens an answer may have (%(default)s)",
    )
    parser.add_argument("--no-thinking", action="store_true", help="Qwen3 answers at once")
    return parser


def page_parser() -> argparse.ArgumentParser:
    """The options of the page."""
    parser = chat_parser(
        description="Serve a page to chat with a model, for this machine only.",
        epilog="With --terminal you chat here instead; course.py chat --terminal --help lists what goes with it.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (%(default)s)")
    parser.add_argument("--port", type=int, help="a free one from 7860 on, unless named")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return parser


def terminal_parser() -> argparse.ArgumentParser:
    """The options of the chat in the terminal."""
    parser = chat_parser(description="Chat with a model in the terminal.")
    parser.add_argument("--seed", type=int, help="the same answer to the same conversation every time")
    return parser


def settings_from(arguments: argparse.Namespace) -> ChatSettings:
    """The settings that the options give."""
    return ChatSettings(
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_tokens,
        thinking=not arguments.no_thinking,
        seed=getattr(arguments, "seed", None),
    )


if __name__ == "__main__":  # as course.py calls it for --help
    (terminal_parser() if "--terminal" in sys.argv else page_parser()).parse_known_args()
