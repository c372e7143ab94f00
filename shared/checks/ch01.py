"""The quiz of ch01, section 1.12: ten questions with short answers; right ones are told why they are right."""

from __future__ import annotations

import re
from typing import Any

from shared.checks import Mismatch, expect, register

ORDER_OF_STAGES = "cdab"
EXTRA_OPERATIONS = (96 - 12) * 2 * 600_000_000


def expect_right(answer: Any, right: Any, case: str, tolerance: float = 1e-6) -> None:
    """As `expect`, without giving the right answer away."""
    try:
        expect(answer, right, case, tolerance)
    except Mismatch as mismatch:
        raise Mismatch("another answer", mismatch.got, mismatch.case) from None


def letters(answer: Any) -> str:
    """The letters of an answer, sorted: "bd", "B, D", ["d", "b"] and {"b", "d"} are the same answer."""
    parts = answer if isinstance(answer, (list, tuple, set, frozenset)) else [answer]
    text = " ".join(str(part).lower() for part in parts)
    return "".join(sorted(set(re.findall(r"[a-z]", re.sub(r"\band\b", " ", text)))))


def number(answer: Any, case: str) -> Any:
    """An answer that is to be a number; in quotation marks it is a text."""
    if isinstance(answer, str):
        raise Mismatch("a number, without quotation marks", answer, case)
    return answer


def word(answer: Any) -> str:
    """An answer of one word, without case, spaces and quotation marks."""
    return str(answer).strip(" .'\"").lower()


@register(
    "1.1",
    title="what reasoning means",
    hint="section 1.1: look at what the model writes before its answer",
    hint2="size, manners and facts can all be had without a single step being written down; which line speaks "
    "of the steps?",
)
def check_meaning(answer):
    """The definition of section 1.1."""
    expect_right(letters(answer), "c", case="what makes a model a reasoning model in this course")
    return "it writes intermediate steps before the answer; size, facts or politeness do not make one"


@register(
    "1.2",
    title="order of the stages",
    hint="section 1.4: the base model comes first, reasoning joins last",
    hint2="a model has to know the language before it can follow an instruction, and to follow instructions "
    "before people can say which of its answers they prefer",
)
def check_pipeline(answer):
    """The order of the stages, as letters."""
    text = "".join(answer) if isinstance(answer, (list, tuple)) else str(answer)
    expect_right(re.sub(r"[^a-z]", "", text.lower()), ORDER_OF_STAGES, case="the order of the stages")
    return "text first, then instructions, then preferences, then reasoning"


@register(
    "1.3",
    title="weights",
    hint="section 1.6: the row 'Weights' of the comparison",
    hint2="one of the three only spends more tokens on a question, with the weights as they are; the other two "
    "are training",
)
def check_weights(answer):
    """Which approaches change weights."""
    expect_right(letters(answer), "bc", case="the approaches that change the weights")
    return "training changes weights; inference-time scaling spends tokens instead, at every question"


@register(
    "1.4",
    title="verifiable rewards",
    hint="section 1.7: could a short program tell right from wrong?",
    hint2="what would the program compare with? There is a known solution for one task and there are unit tests "
    "for another",
)
def check_verifiable(answer):
    """Which tasks have a verifiable reward."""
    expect_right(letters(answer), "ad", case="the tasks whose reward a program can compute")
    return "a known answer can be compared and tests can be run; taste needs people or a model of them"


@register(
    "1.5",
    title="probability of a word",
    hint="section 1.8: the probabilities of its tokens multiply",
    hint2="a chain of three events, each given the ones before: multiply the three figures",
)
def check_word(answer):
    """A product of token probabilities."""
    case = "the probability of the whole word"
    expect_right(number(answer, case), 0.72, case)
    return "0.9 * 0.8 * 1.0: a word of several tokens needs each of them in turn"


@register(
    "1.6",
    title="greedy decoding",
    hint="section 1.3: greedy decoding draws no lots",
    hint2="greedy means the largest of the three probabilities; the sampling that could take another one is off",
)
def check_greedy(answer):
    """The likeliest candidate."""
    expect_right(word(answer), "swim", case="the next token under greedy decoding")
    return "the likeliest token, every time; chapter 4 draws lots instead"


@register(
    "1.7",
    title="contradiction",
    hint="section 1.8: which set lets the checker derive a claim and its opposite?",
    hint2="a contradiction needs two lines that together give both 'can' and 'cannot' for the same animal, "
    "whether or not they are true",
)
def check_contradiction(answer):
    """The one inconsistent set of premises."""
    expect_right(letters(answer), "c", case="the set of premises that contradict each other")
    return "only with 'cannot fly' is there a claim and its opposite; a false premise alone is no contradiction"


@register(
    "1.8",
    title="closed and open world",
    hint="section 1.8: what does silence mean in each of the two?",
    hint2="neither premise says anything of singing: one world answers as if whatever is not said were false, "
    "the other says that it does not know",
)
def check_worlds(answer):
    """The answers that a closed and an open world give to silence."""
    parts = answer.split(",") if isinstance(answer, str) else answer
    expect_right([word(part) for part in parts], ["no", "unknown"], case="(closed world, open world)")
    return "a closed world takes silence for no, an open world for unknown"


@register(
    "1.9",
    title="cost of an answer",
    hint="section 1.9: 2 operations for each parameter and each token",
    hint2="take the difference of the two token counts, times 2, times the number of parameters",
)
def check_cost(answer):
    """Operations for the additional tokens."""
    case = "the additional floating-point operations"
    expect_right(number(answer, case), EXTRA_OPERATIONS, case, tolerance=1e-3)
    return "84 more tokens * 2 * 600 million: about 0.1 trillion operations"


@register(
    "1.10",
    title="tokens for a right answer",
    hint="section 1.9: tokens of one answer divided by its accuracy",
    hint2="with accuracy p it takes 1/p answers on average until one is right, each of so many tokens: divide",
)
def check_tokens_per_right_answer(answer):
    """Tokens of one answer divided by its accuracy."""
    case = "tokens for each right answer"
    if not isinstance(answer, dict) or set(answer) != {"direct", "steps"}:
        raise Mismatch('a dictionary, {"direct": number, "steps": number}', answer, case)
    for value in answer.values():
        number(value, case)
    expect_right(answer, {"direct": 20, "steps": 100}, case, tolerance=1e-3)
    return "steps are five times dearer here, and still the better buy where a wrong answer costs more than tokens"
