r"""The reader that finds out which form (`answer_forms.py`) a normalised answer has.

It splits the tokens at commas, comparison signs and `\cup` outside all brackets, looks at what encloses what, and hands
what is left to the expression parser (`math_parser.py`). It is syntactic: it never asks what an expression is worth.
Not covered: systems of matrices, piecewise functions, set-builder forms other than `{x | inequality}`.
The idea: ch03, section 3.6.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import sympy

from shared.grader.answer_forms import (
    BaseNumber,
    Choice,
    Compound,
    Form,
    Matrix,
    Name,
    Quantity,
    Ratio,
    Reals,
    Relation,
    Text,
)
from shared.grader.answer_text import plain_words
from shared.grader.math_parser import ExpressionParser, mul, negative
from shared.grader.math_tokens import STRUCTURES, ParseError, Token, tokenize
from shared.grader.numeric import Evaluator
from shared.grader.units import HEDGES, UNIT_WORDS, Unit, read_unit, starts_unit

_OPENING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", "langle": "rangle", "lfloor": "rfloor", "lceil": "rceil"}
_COMPARISONS = ("=", "<", ">", "<=", ">=", "!=", "in")
_SEPARATORS = (",", ";", "and", "or")
_CHOICE = re.compile(r"\(\s*([A-Ja-h])\s*\)|([A-J])\s*[).:]?|([a-h])\)|\(?([A-E])[).:]\s+(?!and\b|or\b)[^()]+")
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
          "twelve": 12, "sixteen": 16}  # fmt: skip
_BASE_NUMBER = re.compile(
    rf"(-?)\(?([0-9A-F]*[0-9][0-9A-F]*(?:\.[0-9A-F]+)?)\)?(?:_\{{?\(?(?:base)?|\(?base)(\d{{1,2}}|{'|'.join(_BASES)})\)?\}}?\)?"
)
_NAME = r"[A-Z]{1,3}(?:_\w+)?"
_FUNCTION_NAME = re.compile(
    r"[A-Za-z]+(?:_\w+)?(?:'|\^-1)?\([a-z](?:,[a-z])*\)|P\([^()]+\)" rf"|frac[A-Z]{{2,6}}|{_NAME}[:/]{_NAME}"
)
_ALL_REALS = {"all real numbers", "all reals", "real numbers", "all real values", "reals"}
_NONE = {"no solution", "no solutions", "no real solution", "no real solutions", "none", "empty set", "no roots"}


def parse_answer(text: str) -> Form:
    """Read a normalised answer into one of the forms of `answer_forms`. Raises ParseError for what is only text."""
    choice = _CHOICE.fullmatch(text)
    if choice and text.count("(") == text.count(")") - (text[0] != "(" and ")" in text[:2]):
        return Choice((choice[1] or choice[2] or choice[3] or choice[4]).upper())
    words = plain_words(text)
    if words in _ALL_REALS:
        return Reals()
    if words in _NONE:
        return Compound("set", ())
    exact, sign, rounded = text.partition(r"\approx")
    if sign and exact.strip():
        return _read_with_rounded(exact, rounded)
    tokens = _mark_membership(tokenize(text))
    if any(token.kind == "word" and token.text.casefold() in HEDGES and not token.text.isupper() for token in tokens):
        return Text(words)
    return _read_list(tokens)


def _read_with_rounded(exact: str, rounded: str) -> Form:
    r"""`10\pi \approx 31.4` is its exact value, if the rounded one is near it; `x \approx 1.31` names a value."""
    first, second = _read_list(tokenize(exact)), _read_list(tokenize(rounded))
    if isinstance(first, sympy.Symbol | Name) and "." in rounded:  # of a whole number, the value is left open
        return Relation((first, second), ("=",))
    values = [Evaluator().value(side) for side in (first, second) if isinstance(side, sympy.Expr)]
    if len(values) < 2 or abs(values[0] - values[1]) > abs(values[0]) / 100:
        raise ParseError("an approximation that is none")
    return first


def _mark_membership(tokens: list[Token]) -> list[Token]:
    """The word `in` between a variable and a bracket is a sign, not an inch."""
    for place in range(1, len(tokens) - 1):
        before, token, after = tokens[place - 1 : place + 2]
        in_word = token.kind == "word" and token.text == "in"
        if in_word and before.kind == "var" and after.text in ("(", "[", r"\{", "reals"):
            tokens[place] = Token("op", "in", True)
    return tokens


def _split(tokens: Sequence[Token], texts: Sequence[str]) -> tuple[list[list[Token]], list[str]]:
    """Cut at operators outside all brackets: the parts, and the operators between them."""
    parts: list[list[Token]] = [[]]
    cuts: list[str] = []
    depth = 0
    for token in tokens:
        if token.kind == "op":
            depth += token.text in _OPENING or token.text.startswith(r"\begin")
            depth -= token.text in _OPENING.values() or token.text.startswith(r"\end")
            if depth == 0 and token.text in texts:
                cuts.append(token.text)
                parts.append([])
                continue
        parts[-1].append(token)
    return parts, cuts


def _read_list(tokens: Sequence[Token]) -> Form:
    """Items between commas, `and`, `or`; a single item is itself."""
    parts, cuts = _split(tokens, _SEPARATORS)
    items = [item for part in parts if part for item in _spread(_read_item(part))]
    if not items or not parts[0]:
        raise ParseError("nothing there, or nothing before the first comma")
    if len(parts) == 1 and len(items) == 1:
        return items[0]
    kind = "or" if "or" in cuts else "and" if "and" in cuts else "list"
    return items[0] if len(items) == 1 else Compound(kind, tuple(items))


def _spread(item: Form) -> tuple[Form, ...]:
    """The values that a plus-minus sign stands for are items of the list around it."""
    return item.items if isinstance(item, Compound) and item.kind == "signs" else (item,)


def _read_item(tokens: Sequence[Token]) -> Form:
    texts = [token.text for token in tokens]
    whole = _bracketed(tokens)
    if any(map(_is_sign, tokens)) and not (whole and texts[0] == r"\{"):
        return _read_signs(tokens)
    for reader in (_read_relation, _read_union, _read_bracket, _read_matrix, _read_base_number, _read_ratio):
        answer = reader(tokens)
        if answer is not None:
            return answer
    if texts == ["reals"]:
        return Reals()
    if texts == ["emptyset"]:
        return Compound("set", ())
    if tokens and (tokens[0].kind == "word" or _has_article(tokens)):
        return Text(plain_words(" ".join(texts)))
    return _read_quantity(tokens)


def _has_article(tokens: Sequence[Token]) -> bool:
    """Whether it is `a circle` or `A cone`, and not a variable and its unit, as in `a miles per hour`."""
    words = [token.text.casefold() for token in tokens[1:] if token.kind == "word"]
    only_words = len(words) == len(tokens) - 1 > 0 and not UNIT_WORDS.intersection(words)
    return tokens[0].text in ("a", "A") and only_words and len(words[0]) > 2


def _is_sign(token: Token) -> bool:
    r"""Whether it is `\pm` or `\mp`, and not the end of `10:30 pm`."""
    return token.kind == "op" and token.text in ("pm", "mp")


def _read_signs(tokens: Sequence[Token]) -> Compound:
    r"""Both values of `\pm`. Several `\pm` are independent of each other, unless `\mp` ties them together."""
    signs_there = [token.text for token in tokens if _is_sign(token)]
    count, tied = signs_there.count("pm"), "mp" in signs_there
    if count > 3:
        raise ParseError("more than three plus-minus signs")
    items = []
    for pattern in range(2 if tied else 2**count):
        signs = iter("-" if pattern >> k & 1 else "+" for k in range(count))
        tied_signs = {"pm": "+-"[pattern & 1], "mp": "-+"[pattern & 1]}
        sign = tied_signs.get if tied else lambda text, signs=signs: next(signs)
        chosen = [Token("op", sign(token.text)) if _is_sign(token) else token for token in tokens]
        items.extend(_spread(_read_item(chosen)))
    return Compound("signs", tuple(items))


def _read_relation(tokens: Sequence[Token]) -> Form | None:
    parts, operators = _split(tokens, _COMPARISONS)
    if not operators:
        return None
    if operators == ["in"] and len(parts[0]) == 1 and parts[0][0].kind == "var":
        return Relation((sympy.Symbol(parts[0][0].text), _read_item(parts[1])), ("in",))
    if "in" in operators or not parts[-1]:
        raise ParseError("a relation with a side missing")
    read = [_read_name(part) or _read_item(part) for part in parts[:-1]] + [_read_item(parts[-1])]
    return Relation(tuple(read), tuple(operators))


def _read_name(tokens: Sequence[Token]) -> Name | None:
    """A left-hand side that only names the value."""
    joined = "".join(token.text for token in tokens if token.text not in ("{", "}"))
    lengthy = any(token.kind == "var" and len(token.text) > 1 and token.text.isupper() for token in tokens)
    if not tokens or _FUNCTION_NAME.fullmatch(joined) or tokens[0].kind == "word":
        return Name(joined.casefold() if tokens and tokens[0].kind == "word" else joined)
    if (lengthy and all(token.kind == "var" for token in tokens)) or re.fullmatch(r"\([a-z](?:,[a-z])+\)", joined):
        return Name(joined)
    return None


def _read_union(tokens: Sequence[Token]) -> Compound | None:
    parts, cuts = _split(tokens, ("cup", "setminus"))
    if not cuts and tokens and tokens[0].text == "reals" and len(tokens) > 2 and tokens[1].text == "-":
        parts, cuts = [list(tokens[:1]), list(tokens[2:])], ["setminus"]
    if not cuts:
        return None
    if len(set(cuts)) > 1 or (cuts[0] == "setminus" and len(parts) != 2):
        raise ParseError("unions and differences mixed")
    return Compound("union" if cuts[0] == "cup" else "minus", tuple(_read_item(part) for part in parts))


def _bracketed(tokens: Sequence[Token]) -> bool:
    """Whether one pair of brackets encloses all tokens (the pair need not match: intervals)."""
    if len(tokens) < 2 or tokens[0].text not in _OPENING or tokens[0].kind != "op":
        return False
    depth = 0
    for place, token in enumerate(tokens):
        if token.kind == "op":
            depth += (token.text in _OPENING) - (token.text in _OPENING.values())
        if depth == 0:
            return place == len(tokens) - 1
    return False


def _read_bracket(tokens: Sequence[Token]) -> Form | None:
    """A tuple, interval, set, or something in needless brackets."""
    if not _bracketed(tokens) or tokens[0].text in ("lfloor", "lceil") or any(t.text == "choose" for t in tokens):
        return None
    opening, closing, inside = tokens[0].text, tokens[-1].text, tokens[1:-1]
    parts, cuts = _split(inside, (",", ";"))
    if opening == r"\{" or (opening == "{" and cuts):
        return _read_set(inside)
    if not cuts and _OPENING[opening] == closing:
        return _read_item(inside)
    kind = "tuple" if opening == "langle" else opening + closing
    items = tuple(_read_item(part) for part in parts)
    if kind not in ("tuple", "()", "[]", "(]", "[)") or not all(parts):
        raise ParseError("brackets that do not match")
    nested = all(isinstance(item, Compound) and item.kind == "[]" for item in items)
    return Matrix(tuple(item.items for item in items)) if nested and kind == "[]" else Compound(kind, items)


def _read_set(inside: Sequence[Token]) -> Form:
    r"""The inside of `\{..\}`: items, or `x | condition`."""
    if not inside:
        return Compound("set", ())
    for place in range(1, min(len(inside), 4)):
        if inside[0].kind == "var" and inside[place].text in ("|", ":") and place in (1, 3):
            return _read_list(inside[place + 1 :])
    answer = _read_list(inside)
    if isinstance(answer, Compound) and answer.kind in ("list", "signs", "and", "or"):
        return replace(answer, kind="set")
    return Compound("set", (answer,))


def _read_matrix(tokens: Sequence[Token]) -> Matrix | None:
    """A matrix environment, with or without a factor before it."""
    start = next((k for k, token in enumerate(tokens) if token.text.startswith(r"\begin")), None)
    if start is None:
        return None
    name = re.sub(r"\\begin\{(\w+)\*?\}", r"\1", tokens[start].text)
    if name.lstrip("pbvBV").removeprefix("small") not in ("matrix", "array") or not tokens[-1].text.startswith(r"\end"):
        raise ParseError(f"environment {name}")
    inside = list(tokens[start + 1 : -1])
    if name == "array" and inside and inside[0].text == "{":
        inside = inside[next(k for k, token in enumerate(inside) if token.text == "}") + 1 :]
    rows = [_split(row, ("&",))[0] for row in _split(inside, ("\\\\",))[0] if row]
    factor = _factor_before(tokens[:start])
    cells = tuple(tuple(_scaled(_read_item(cell), factor) for cell in row) for row in rows)
    return Matrix(cells, name in ("vmatrix", "Vmatrix"))


def _factor_before(tokens: Sequence[Token]) -> sympy.Expr | None:
    tokens = tokens[:-1] if tokens and tokens[-1].text == "*" else tokens
    if [token.text for token in tokens] == ["-"]:
        return sympy.Integer(-1)
    return ExpressionParser(tokens).parse() if tokens else None


def _scaled(entry: Form, factor: sympy.Expr | None) -> Form:
    if factor is None:
        return entry
    if not isinstance(entry, sympy.Expr):
        raise ParseError("a factor before something that is not a number")
    return mul(factor, entry)


def _read_base_number(tokens: Sequence[Token]) -> BaseNumber | None:
    match = _BASE_NUMBER.fullmatch("".join(token.text for token in tokens[:40])) if len(tokens) < 40 else None
    if not match:
        return None
    return BaseNumber(match[1] + (match[2].lstrip("0") or "0"), int(_BASES.get(match[3], match[3])))


def _read_ratio(tokens: Sequence[Token]) -> Ratio | None:
    half = tokens[-1].text.casefold() if tokens and tokens[-1].kind == "word" else ""
    parts, cuts = _split(tokens[:-1] if half in ("am", "pm") else tokens, (":",))
    if not cuts:
        return None
    clock = re.fullmatch(r"\d{1,2}:[0-5]\d(?:[ap]m)?", "".join(token.text for token in tokens).casefold()) is not None
    return Ratio(tuple(ExpressionParser(part).parse() for part in parts), clock, half if clock else "")


def _read_quantity(tokens: Sequence[Token]) -> Form:
    """An expression, with a currency sign before it or a unit behind it if there is one."""
    minus = len(tokens) > 2 and tokens[0].text == "-" and tokens[1].text in (r"\$", "€", "£")
    rest = list(tokens[1:] if minus else tokens)
    currency = read_unit([rest.pop(0).text]) if rest and rest[0].text in (r"\$", "€", "£") else None
    value_tokens, unit = _split_unit(rest)
    value = ExpressionParser(value_tokens).parse()
    value = negative(value) if minus else value
    if currency and unit:
        joined = tuple(sorted(currency.dimensions + unit.dimensions))
        unit = currency if unit.dimensions == currency.dimensions else Unit(joined, mul(currency.scale, unit.scale))
    unit = unit or currency
    return Quantity(value, unit) if unit else value


def _split_unit(tokens: list[Token]) -> tuple[list[Token], Unit | None]:
    """The tokens of the value, and the unit behind them."""
    for place in range(1, len(tokens)):
        token = tokens[place]
        if token.kind in ("word", "op", "var") and starts_unit(token.kind, token.text, token.spaced):
            if token.kind == "var" and not _is_letter_unit(tokens, place):
                continue
            named = any(item.kind == "func" and item.text not in STRUCTURES for item in tokens[:place])
            plain = all(item.kind in ("word", "op", "var", "num") for item in tokens[place:])
            if place > 1 and tokens[place - 1].text == "/":  # `5/day`
                place -= 1
            fits = plain and not (named and token.text == "°")
            unit = read_unit([item.text for item in tokens[place:]]) if fits else None
            return (tokens[:place], unit) if unit else (tokens, None)
    return tokens, None


def _is_letter_unit(tokens: Sequence[Token], place: int) -> bool:
    """A letter, as in `5 m`, or `KM` is a unit only behind a number that holds no letter but pi."""
    return all(token.kind in ("num", "op") or token.text in ("frac", "sqrt", "pi") for token in tokens[:place])
