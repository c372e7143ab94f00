r"""Tokens of mathematics as language models write it: LaTeX, plain text, or a mixture of both.

The tables below are the whole vocabulary. A word or command that is not in them is an error (`ParseError`) or plain
text, never a name to be looked up. `\dfrac` and `\tfrac` are `\frac`, `\le` is `<=`, and so on: one token a meaning.
Bounds: at most `MAX_TOKENS` tokens and `MAX_DIGITS` digits a number. The idea: ch03, section 3.5.
"""

import re
from typing import NamedTuple

import sympy

from shared.grader.units import UNIT_WORDS

MAX_TOKENS = 400
MAX_DIGITS = 400


class ParseError(ValueError):
    """The text is outside the grammar, or beyond its limits."""


class Token(NamedTuple):
    """`kind` is one of num, var, const, func, word, op; `spaced` says whether a space stood before it."""

    kind: str
    text: str
    spaced: bool = False


_OPERATORS = {
    "leq": "<=", "le": "<=", "leqslant": "<=", "geq": ">=", "ge": ">=", "geqslant": ">=", "lt": "<", "gt": ">",
    "neq": "!=", "ne": "!=", "cdot": "*", "times": "*", "ast": "*", "div": "/", "pm": "pm", "mp": "mp", "cup": "cup",
    "in": "in", "mid": "|", "cap": "cap", "lvert": "|", "rvert": "|", "vert": "|", "setminus": "setminus",
    "backslash": "setminus", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "colon": ":", "prime": "'",
    "degree": "°", "land": "and", "lor": "or", "wedge": "and", "vee": "or", "lparen": "(", "rparen": ")",
    **{name: name for name in ("langle", "rangle", "lfloor", "rfloor", "lceil", "rceil", "choose", "over")},
}  # fmt: skip
FUNCTIONS = {
    "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec, "csc": sympy.csc,
    "arcsin": sympy.asin, "arccos": sympy.acos, "arctan": sympy.atan, "arccot": sympy.acot, "asin": sympy.asin,
    "acos": sympy.acos, "atan": sympy.atan, "arcsec": sympy.asec, "arccsc": sympy.acsc, "sinh": sympy.sinh,
    "cosh": sympy.cosh, "tanh": sympy.tanh, "ln": sympy.log,
    **{prefix + name: f for name, f in (("sinh", sympy.asinh), ("cosh", sympy.acosh), ("tanh", sympy.atanh))
       for prefix in ("arc", "ar", "a")},
    "log": None, "lg": None, "exp": sympy.exp, "abs": sympy.Abs, "floor": sympy.floor, "ceil": sympy.ceiling,
}  # fmt: skip
CONSTANTS = {
    "pi": sympy.pi, "infty": sympy.oo, "infinity": sympy.oo, "inf": sympy.oo, "imath": sympy.I,
    "e": sympy.E, "i": sympy.I,
}  # fmt: skip
STRUCTURES = ("frac", "dfrac", "tfrac", "cfrac", "sqrt", "cbrt", "binom", "dbinom", "tbinom")
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar"
)
_GREEK = frozenset(_GREEK_NAMES.split())
SETS = {"reals": "reals", "emptyset": "emptyset", "varnothing": "emptyset"}
_SHORT_WORD_LIST = (
    "no on is if of to or in at up we an as by so us go be it me the and all any day per may way cup "
    "mon tue wed thu fri sat sun apr jan feb mar jun aug sep oct nov dec am pm usd eur gbp"
)
_SHORT_WORDS = frozenset(_SHORT_WORD_LIST.split())
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<num>\d+\.?\d*(?:[eE][+-]?\d+(?![\d.A-Za-z]))?|\.\d+(?:[eE][+-]?\d+(?![\d.A-Za-z]))?)"
    r"|(?P<env>\\(?:begin|end)\s*\{\w+\*?\})|\\(?P<cmd>[A-Za-z]+)|(?P<escaped>\\[\\{}%$&#_|])|(?P<word>[^\W\d_]+)"
    r"|(?P<op>\*\*|<=|>=|!=|[-+*/^_!()\[\]{}|,;:=<>&%°'¢€£])|(?P<bad>.)",
    re.DOTALL,
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?")
_GLUED = re.compile(r"((?:arc)?(?:sin|cos|tan)h?|cot|sec|csc|log|ln|sqrt)([a-z])|([a-z]?)(pi)([a-z]?)")


def tokenize(text: str) -> list[Token]:
    r"""Split normalised text into tokens.

    A comma separates, except in a number like `1,234` outside parentheses: `(3,250)` is a pair, not a number. Raises
    ParseError for an unknown command or character, or too many tokens.
    """
    tokens: list[Token] = []
    position, depth, spaced = 0, 0, False
    while position < len(text):
        match = (_THOUSANDS.match(text, position) if depth == 0 else None) or _TOKEN.match(text, position)
        kind = match.lastgroup
        if kind != "space":
            tokens += _classify(kind or "num", match[kind] if kind else match[0].replace(",", ""), spaced)
            depth += _nesting(tokens[-1])
        if len(tokens) > MAX_TOKENS:
            raise ParseError(f"more than {MAX_TOKENS} tokens")
        spaced, position = kind == "space", match.end()
    return tokens


def _nesting(token: Token) -> int:
    opening = token.text in ("(", "[", r"\{")
    return int(opening) - int(token.text in (")", "]", r"\}")) if token.kind == "op" else 0


def _classify(kind: str, text: str, spaced: bool) -> list[Token]:
    if kind == "word":
        return _split_letters(text, spaced)
    if kind == "cmd":
        return _split_letters(text, spaced) if _GLUED.fullmatch(text) else [_command(text, spaced)]
    if kind == "bad":
        raise ParseError(f"unexpected character {text!r}")
    if kind == "num":
        if len(text) > MAX_DIGITS:
            raise ParseError(f"more than {MAX_DIGITS} digits")
        return [Token("num", text, spaced)]
    aliases = {"**": "^", r"\%": "%", r"\|": "|", r"\_": "_", r"\&": "&", r"\#": "#"}
    return [Token("op", aliases.get(text, text).replace(" ", ""), spaced)]


def _command(name: str, spaced: bool) -> Token:
    if name in _OPERATORS:
        return Token("op", _OPERATORS[name], spaced)
    if name in STRUCTURES:
        return Token("func", name.lstrip("dtc") if name != "cbrt" else name, spaced)
    if name in FUNCTIONS:
        return Token("func", name, spaced)
    if name in CONSTANTS or name in SETS:
        return Token("const", SETS.get(name, name), spaced)
    if name in _GREEK or name in ("max", "min") or re.fullmatch("vector[a-z]", name):  # v_\max is a name too
        return Token("var", name, spaced)
    raise ParseError(f"unknown command \\{name}")


def _split_letters(run: str, spaced: bool) -> list[Token]:
    """Decide whether letters are a function, a word, a unit, or a product of one-letter variables like `xy`."""
    lower = run.lower()
    if len(run) == 1:
        return [Token("const" if run in CONSTANTS else "var", run, spaced)]
    if lower in ("and", "or", "choose"):
        return [Token("op", lower, spaced)]
    if run in ("sqrt", "cbrt", "binom") or run in FUNCTIONS:
        return [Token("func", run, spaced)]
    if lower in CONSTANTS:
        return [Token("const", lower, spaced)]
    if run in _GREEK:
        return [Token("var", run, spaced)]
    if glued := _GLUED.fullmatch(run):
        parts = [part for part in glued.groups() if part]
        return [t for k, part in enumerate(parts) for t in _split_letters(part, spaced and k == 0)]
    if run.isupper() and run.isascii() and len(run) <= 4 and lower not in _SHORT_WORDS:
        return [Token("var", run, spaced)]
    if _is_word(run, lower):
        return [Token("word", run, spaced)]
    return [t for k, letter in enumerate(run) for t in _split_letters(letter, spaced and k == 0)]


def _is_word(run: str, lower: str) -> bool:
    if lower in UNIT_WORDS or lower in _SHORT_WORDS or not run.isascii() or not run.islower():
        return True
    if len(run) == 2:
        return False
    named = not set(run) <= set("abcdxyz")
    return named and bool(set("aeiou") & set(run)) if len(run) == 3 else named
