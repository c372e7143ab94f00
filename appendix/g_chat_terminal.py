"""The chat of appendix G in the terminal: `python3 course.py chat --terminal`. Taught in appendix G, section G.7.

Ctrl-C stops an answer, /reset forgets the conversation, /quit ends the chat.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from appendix.g_chat import ChatReply, ChatSettings, Message, status_line, stream_reply
from appendix.g_chat_options import settings_from, terminal_parser
from shared.formats.loading import load_model
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.progress import print_any_text

HELP = "Enter sends, Ctrl-C stops an answer, /reset forgets the conversation, /quit ends the chat."
# A terminal obeys escape sequences, and a model's text is not to command it.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# What load_model and stream raise with a sentence for the reader; torch reports a lack of memory as RuntimeError.
FAILURES = (ValueError, OSError, ImportError, MemoryError, RuntimeError)


def chat(model: CausalLM, tokenizer: Tokenizer, settings: ChatSettings) -> None:
    """Ask, answer and remember, until /quit or the end of the input."""
    messages: list[Message] = []
    print(HELP)
    while True:
        try:
            text = input("\nYou: ").strip()
        except KeyboardInterrupt:
            print("\n/quit ends the chat.")
            continue
        except EOFError:
            print()
            return
        if text == "/quit":
            return
        if text == "/reset":
            messages.clear()
            print("The conversation is forgotten.")
        elif text.startswith("/"):
            print(HELP)
        elif text:
            question = {"role": "user", "content": text}
            answer = answer_aloud(model, tokenizer, [*messages, question], settings)
            if answer:
                messages += [question, {"role": "assistant", "content": answer}]


def answer_aloud(model: CausalLM, tokenizer: Tokenizer, messages: Sequence[Message], settings: ChatSettings) -> str:
    """Print the reply while it grows; return the answer without the thinking, as far as it came."""
    last: ChatReply | None = None
    try:
        for reply in stream_reply(model, tokenizer, messages, settings):
            show_more(last, reply)
            last = reply
    except KeyboardInterrupt:
        print(" [stopped]", end="")
    except FAILURES as error:
        print(error, end="")
    if last is None:
        print()
        return ""
    print(f"\n[{printable(status_line(last))}]")
    return last.parts.answer


def show_more(last: ChatReply | None, reply: ChatReply) -> None:
    """Print what a reply has more than the one before: the thinking in brackets, then the answer."""
    thought, said = (last.parts.thinking, last.parts.answer) if last else ("", "")
    thinking, answer, _ = reply.parts
    more = ""
    if len(thinking) > len(thought):
        more += ("" if thought else "[thinking] ") + thinking[len(thought) :]
    if len(answer) > len(said):
        more += ("\n[answer] " if thinking and not said else "") + answer[len(said) :]
    print(printable(more), end="", flush=True)


def printable(text: str) -> str:
    """The text with a sign in place of every control character but tab and newline."""
    return CONTROL.sub("\ufffd", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Load the model and chat; return the exit status."""
    parsed = terminal_parser().parse_args(arguments)
    print_any_text()
    print(f"Loading {parsed.model}", flush=True)
    try:
        model, tokenizer = load_model(parsed.model)
    except FAILURES as error:
        print(f"course.py: {error}", file=sys.stderr)
        return 1
    chat(model, tokenizer, settings_from(parsed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
