"""A chat with a model: the prompt of a growing history, the thinking apart from the answer, and the speed.

The page and the terminal chat of appendix G show what comes out of here. Taught in appendix G.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from appendix.g_chat_options import ChatSettings
from shared.generation.prompts import Parts, split_thinking
from shared.generation.stream import stream
from shared.model.tokenizer import THINK_TAGS, Tokenizer
from shared.model.transformer import CausalLM

Message = dict[str, str]


class ChatPrompt(NamedTuple):
    """What the model is given: the text, its length in tokens, and how many of the oldest turns were left out."""

    text: str
    tokens: int
    dropped: int


@dataclass(frozen=True)
class ChatReply:
    """A reply, as far as it is there.

    Attributes:
        parts: thinking and answer so far; both only ever grow at their ends.
        prompt: what the model was given.
        tokens: how many tokens the text has so far, thinking included.
        seconds: time that the model took so far; what the caller does between two pieces does not count.
        finished: whether this is the whole reply.
    """

    parts: Parts
    prompt: ChatPrompt
    tokens: int
    seconds: float
    finished: bool

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second, the time to read the prompt included."""
        return self.tokens / self.seconds if self.seconds else 0.0


# --- the prompt -----------------------------------------------------------------------------------------------


def chat_prompt(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    context_length: int,
    max_new_tokens: int,
    thinking: bool = True,
) -> ChatPrompt:
    """The text that asks a chat model for its next message. Taught in appendix G, section G.3.

    The oldest turns are left out until `max_new_tokens`, at most half of the context, fit behind the prompt. A system
    message at the start stays. The last question alone may take all of the context but one token.

    Args:
        messages: dicts with "role" and "content", the user's new question last.
        context_length: how many tokens the model can read, prompt and answer together.

    Raises:
        ValueError: if there is no message, the last one does not fit, or the tokenizer has no chat template.
    """
    plain = [{"role": each["role"], "content": without_special_tokens(tokenizer, each["content"])} for each in messages]
    system = plain[:1] if plain and plain[0]["role"] == "system" else []
    starts = [number for number, each in enumerate(plain) if each["role"] == "user"] or [0]
    for dropped, start in enumerate(starts):
        kept = [*system, *plain[max(start, len(system)) :]]
        text = tokenizer.apply_chat_template(kept, enable_thinking=thinking)
        length = len(tokenizer.encode(text))
        room = 1 if start == starts[-1] else min(max_new_tokens, context_length // 2)
        if length + room <= context_length:
            return ChatPrompt(text, length, dropped)
    raise ValueError(
        f"The message has {length} tokens with the chat format, and the model reads {context_length} at most: "
        "shorten it."
    )


def without_special_tokens(tokenizer: Tokenizer, text: str) -> str:
    """The text with a space put into whatever would be read as a special token.

    Otherwise a message that spells `<|im_end|>` could end its turn and put words into another's mouth.
    """
    for token in tokenizer.special_tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def answered(messages: Sequence[Message]) -> list[Message]:
    """The messages without questions that got no answer, because it was stopped or failed: templates want turns."""
    next_roles = [*(message["role"] for message in messages[1:]), "user"]
    return [
        message
        for message, next_role in zip(messages, next_roles, strict=False)
        if message["role"] != "user" or next_role == "assistant"
    ]


# --- the reply ------------------------------------------------------------------------------------------------


def unfinished_tag(tag: str, text: str) -> str:
    """The longest beginning of the tag, short of all of it, that the text ends with."""
    return next((tag[:n] for n in range(len(tag) - 1, 0, -1) if text.endswith(tag[:n])), "")


def split_so_far(text: str, *, opened: bool, finished: bool) -> Parts:
    """`split_thinking` of a text that may still grow: what may become a tag is held back until that is known.

    So thinking and answer only ever grow at their ends. Taught in appendix G, section G.5.
    """
    start, end = THINK_TAGS
    if not finished:
        inside = opened or text.lstrip().startswith(start)
        text = text.removesuffix(unfinished_tag(end if inside else start, text))
    return split_thinking(text, opened)


def stream_reply(
    model: CausalLM, tokenizer: Tokenizer, messages: Sequence[Message], settings: ChatSettings
) -> Iterator[ChatReply]:
    """Answer the last message and yield the reply again and again while it grows. Taught in appendix G, section G.6.

    The last one is `finished`. To stop the model, close the generator. Raises ValueError as `chat_prompt` and
    `stream` do.
    """
    prompt = chat_prompt(
        tokenizer,
        messages,
        context_length=model.config.context_length,
        max_new_tokens=settings.max_new_tokens,
        thinking=settings.thinking,
    )
    opened = prompt.text.rstrip().endswith(THINK_TAGS[0])
    pieces = stream(
        model,
        tokenizer,
        prompt.text,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        seed=settings.seed,
    )
    text, tokens, seconds, finished = "", 0, 0.0, False
    while not finished:
        started = time.perf_counter()
        piece = next(pieces, None)
        seconds += time.perf_counter() - started
        finished = piece is None
        text += piece or ""
        tokens += len(tokenizer.encode(piece or "", continues=True))
        parts = split_so_far(text, opened=opened, finished=finished)
        yield ChatReply(parts, prompt, tokens, seconds, finished)


def status_line(reply: ChatReply) -> str:
    """One line about a reply: its length, its speed, and what was left out of the prompt."""
    line = f"{reply.tokens} tokens, {reply.tokens_per_second:.1f} tokens/s; prompt of {reply.prompt.tokens} tokens"
    if reply.prompt.dropped:
        turns = "turn no longer fits" if reply.prompt.dropped == 1 else "turns no longer fit"
        line += f"; the oldest {reply.prompt.dropped} {turns} in the context"
    if reply.finished and reply.parts.still_thinking:
        line += "; the tokens ran out while it was thinking: allow more"
    return line
