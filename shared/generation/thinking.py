"""The thinking apart from the answer, wherever a model or a server has put it. Taught in ch08, section 8.3."""

from typing import NamedTuple

from shared.model.tokenizer import THINK_TAGS


class Parts(NamedTuple):
    """A text in two: the thinking and the answer. `still_thinking`: the thinking has not been closed (yet)."""

    thinking: str
    answer: str
    still_thinking: bool


def split_thinking(text: str, opened: bool | None = None) -> Parts:
    """Separate what a model thinks from what it answers. Taught in ch08, section 8.3.

    Only a `<think>` at the start opens the thinking: further on, a model may talk about the tag.

    Args:
        opened: whether the prompt ends with `<think>`, as those of some chat templates do. If None, nobody knows, and a
            `</think>` without an opening tag before it says so.
    """
    start, end = THINK_TAGS
    text = text.lstrip()
    if opened is None:
        opened = end in text and start not in text.partition(end)[0]
    if not opened and not text.startswith(start):
        return Parts("", text.rstrip(), False)
    thinking, closed, answer = (text if opened else text.removeprefix(start)).partition(end)
    return Parts(thinking.strip(), answer.strip(), not closed)


def joined_thinking(thinking: str, content: str) -> tuple[str, str]:
    """The thinking of a field of its own with what stands in tags before the content, and the content without."""
    more, content, _ = split_thinking(content)
    return "\n\n".join(filter(None, (thinking.strip(), more))), content
