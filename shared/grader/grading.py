r"""The verifier: find the answer in what a model wrote, and say whether it is right.

    extract_answer(text) -> normalize_answer -> tokenize -> parse_answer -> Comparison.equal -> grade

`grade` is total: any two strings give True or False. It raises nothing, runs nothing as code, needs no signals,
threads or processes, and its time and memory are bounded by limits that are checked before the work is done: length,
number of tokens, depth, digits, exponents, and a budget of evaluation steps. It is symmetric.

Covered: numbers in all common spellings, expressions that are equal by algebra, units, lists, sets, tuples, intervals,
inequalities, equations, matrices, number bases, ratios, choice letters, words. The policies are listed in
`equality.py`. Not covered, and compared as text: integrals, sums, limits, sets of integers (`k \in \mathbb{Z}`),
sentences. Not covered either, so that a right answer is refused: digits of a base in lower case (`1a_{16}`), values in
two units (`2 hours and 30 minutes`), `1 and 1/2`, decimal commas (`3{,}14`), `]0,5[` for `(0,5)`, `|x|<2` for
`(-2,2)`, `all reals except 0`. Equality of expressions is tested at a few points with 50 digits (`numeric.py`), not
proved. Taught in ch03, sections 3.3 to 3.7.
"""

import math
import re
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from numbers import Real

from shared.grader.answer_forms import Form, Text
from shared.grader.answer_text import MAX_CHARS, normalize_answer, plain_words, squash
from shared.grader.answers import parse_answer
from shared.grader.equality import Comparison
from shared.grader.math_tokens import ParseError

__all__ = ["extract_answer", "grade", "normalize_answer"]

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{|\\(?:boxed|fbox)\s*([-+]?[\d.][^\s{}$\\]*)|\\.|[{}]", re.DOTALL)
_WHOLE_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{.*\}|[-+]?[\d.][^\s{}$\\]*)", re.DOTALL)
_NUMBER = re.compile(r"(?:(?<![\w.)}\]])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+|/\d+)?|\.\d+)")
_PLAIN = re.compile(r"\s*\$?([+-]?)([0-9]{1,40})(?:\.([0-9]{0,40}))?\$?\s*")
_MAX_BOXES, _MAX_BRACES = 500, 100_000  # how much of a text full of boxes is looked at
_TAIL = 2_000  # the last number is looked for in this many last characters


def extract_answer(text: str, fallback: str | None = None) -> str | None:
    r"""The content of the last complete, non-empty `\boxed{..}` or `\fbox{..}`; braces inside may nest.

    A box that is not closed (the text was cut off) or is empty is no answer, so an earlier complete one
    counts. A box that is the whole content of another box is unwrapped. Thinking is no answer: only what follows
    `</think>` is looked at, and nothing of a text that begins with `<think>` and never closes it.

    Args:
        text: what the model wrote.
        fallback: what to return if there is no box: None for None, `"number"` for the last number in the text,
            `"text"` for the whole text. Raises ValueError for anything else.
    """
    if fallback not in (None, "number", "text"):
        raise ValueError(f'fallback is {fallback!r}; use None, "number" or "text"')
    if not isinstance(text, str):
        return None
    text = _after_thinking(text)
    answer = _last_box(text)
    for _ in range(5):  # \boxed{\boxed{5}}
        if answer is None or not _WHOLE_BOX.fullmatch(answer):
            break
        answer = _last_box(answer) or answer
    if answer is None and fallback == "text":
        return text.strip() or None
    if answer is None and fallback == "number":
        return max(_NUMBER.findall(text[-_TAIL:])[-1:], default=None)
    return answer


def _after_thinking(text: str) -> str:
    answer = text.rpartition("</think>")[2]
    return "" if answer.lstrip().startswith("<think>") else answer


def _last_box(text: str) -> str | None:
    """One pass with a stack of open braces, from the `_MAX_BOXES`-th last "box", so in linear time."""
    scan_from = len(text)
    for _ in range(_MAX_BOXES):
        found = text.rfind("box", 0, scan_from)
        if found < 0:
            break
        scan_from = found
    scan_from = max(0, scan_from - len(r"\f"))
    scan_from = len(text[:scan_from].rstrip("\\"))  # not from the middle of the line break in \\\boxed{5}
    start, end = 0, 0
    stack: list[int] = []  # for each open brace: where the content of its box starts, or -1 for a plain brace
    for match in islice(_BOX.finditer(text, scan_from), _MAX_BRACES):
        if match[1]:
            start, end = match.span(1)
        elif match[0] == "}":
            opened = stack.pop() if stack else -1
            if opened >= 0 and _SOMETHING.search(text, opened, match.start()):
                start, end = opened, match.start()
        elif match[0].endswith("{") and match[0] != r"\{":
            stack.append(-1 if match[0] == "{" else match.end())
    return text[start:end].strip() if end else None


_SOMETHING = re.compile(r"\S")


def grade(prediction: str, gold: str) -> bool:
    r"""Whether a prediction is the same answer as the gold answer: `grade(r"\frac12", "0.5")` is True.

    Both may be bare answers or texts with a box, or numbers: `grade("0.1", Fraction(1, 10))`. Empty text is never
    right, not even against empty text, and nothing else (None, True, nan, a list) is.
    Never raises; see the module docstring for what is covered and what bounds the work.
    """
    try:
        return _grade(prediction, gold)
    except (Exception, RecursionError, MemoryError):  # total: text that breaks the reader is a wrong answer
        return False


def _grade(prediction: str, gold: str) -> bool:
    if not isinstance(prediction, str) or not isinstance(gold, str):
        return is_answer(prediction) and is_answer(gold) and _grade(str(prediction), str(gold))
    if not prediction.strip() or not gold.strip():
        return False
    if prediction == gold:
        return True
    numbers = _plain_number(prediction), _plain_number(gold)
    if None not in numbers:
        return numbers[0] == numbers[1]
    first, second = (extract_answer(text) or _after_thinking(text) for text in (prediction, gold))
    if max(len(first), len(second)) > MAX_CHARS:
        return first.strip() == second.strip()
    first, second = _normal(first), _normal(second)
    if not first or not second:  # nothing but spaces and commands such as \large
        return False
    if squash(first) == squash(second):
        return True
    return Comparison().equal(_read(first), _read(second))


def is_answer(value: object) -> bool:
    """Whether `grade` takes it: text, or a finite number (of numpy, Fraction, Decimal too), so that 5 is "5"."""
    number = isinstance(value, Real | Decimal) and not isinstance(value, bool)
    return isinstance(value, str) or (number and value == value and abs(value) != math.inf)


def _plain_number(text: str) -> tuple[bool, str, str] | None:
    """A quick way for what most answers are: sign, whole part and decimals without needless zeros."""
    match = _PLAIN.fullmatch(text)
    if not match:
        return None
    whole, decimals = match[2].lstrip("0"), (match[3] or "").rstrip("0")
    return match[1] == "-" and bool(whole or decimals), whole, decimals


_normal = lru_cache(maxsize=256)(normalize_answer)  # a pool or a group of rollouts spells few answers, many times


@lru_cache(maxsize=256)
def _read(text: str) -> Form:
    """The answer's form; what is outside the grammar is compared as words or, if it has none, literally."""
    try:
        return parse_answer(text)
    except ParseError:
        wordy = "\\" not in text and re.search(r"[^\W\d_]{2}", text)
        return Text(plain_words(text) if wordy else squash(text))
