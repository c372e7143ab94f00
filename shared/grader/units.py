r"""Units of measurement: `cm`, `square feet`, `m/s^2`, `dollars`, `%`, degrees, and words that count (`5 apples`).

A unit is a product of powers of base dimensions and a scale, so `1 m` and `100 cm` are the same quantity, `36 cents`
is not `36` dollars, `180` degrees are `\pi` radians (but not bare `\pi`), and a word that is not in the table
(`apples`) is a dimension of its own. Not covered: temperatures are not converted (Celsius and Fahrenheit differ), nor
money between currencies. The idea: ch03, section 3.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import sympy


@dataclass(frozen=True)
class Unit:
    """Dimensions as sorted (name, exponent) pairs, a scale to the base unit, and the letter if it may be a variable."""

    dimensions: tuple[tuple[str, int], ...]
    scale: sympy.Expr
    letter: str | None = None

    @property
    def is_ratio(self) -> bool:
        """Whether the unit is a pure number: percent, and the word `units`."""
        return not self.dimensions


def _table() -> dict[str, tuple[dict[str, int], Fraction]]:
    """All names: base dimension, or several with powers; size in the base unit; spellings (a plural `s` is added)."""
    rows = [
        ("m", 1, "m meter metre"), ("m", Fraction(1, 100), "cm centimeter centimetre"),
        ("m", Fraction(1, 1000), "mm millimeter millimetre"), ("m", 1000, "km kilometer kilometre"),
        ("m", Fraction(254, 10_000), "in inch inches"), ("m", Fraction(3048, 10_000), "ft foot feet"),
        ("m", Fraction(9144, 10_000), "yd yard"), ("m", Fraction(1_609_344, 1000), "mi mile"),
        ("g", 1, "g gram gm"), ("g", 1000, "kg kilogram"), ("g", Fraction(1, 1000), "mg milligram"),
        ("g", 1_000_000, "tonne"), ("g", Fraction(45_359_237, 100_000), "lb pound"),
        ("g", Fraction(45_359_237, 1_600_000), "oz ounce"), ("g", 907_184_740 // 1000, "ton"),
        ("s", 1, "s sec second"), ("s", 60, "min minute"), ("s", 3600, "h hr hour"), ("s", 86_400, "day"),
        ("s", 604_800, "week"), ("month", 1, "month"), ("month", 12, "yr year"),
        ("dollar", 1, r"\$ dollar usd buck"), ("dollar", Fraction(1, 100), "¢ cent"),
        ("euro", 1, "€ euro eur"), ("sterling", 1, "£ gbp"),
        ("celsius", 1, "°c celsius"), ("fahrenheit", 1, "°f fahrenheit"),
        ("kelvin", 1, "kelvin"), ("newton", 1, "N newton"), ("tesla", 1, "T tesla"), ("joule", 1, "J joule"),
        ("watt", 1, "W watt"), ("volt", 1, "V volt"),
        ("hertz", 1, "hz hertz"), ("angle", 1, "radian rad"),
        ({"m": 3}, Fraction(1, 1000), "l liter litre"), ({"m": 3}, Fraction(1, 10**6), "ml milliliter millilitre cc"),
        ({"m": 1, "s": -1}, Fraction(1_609_344, 3_600_000), "mph"), ({"m": 1, "s": -1}, Fraction(1000, 3600), "kph"),
        ({}, 1, "unit"), ({}, Fraction(1, 100), "percent % pct"),
    ]  # fmt: skip
    table = {
        name: ({base: 1} if isinstance(base, str) else base, Fraction(size))
        for base, size, names in rows
        for name in names.split()
    }
    plurals = [name for name in table if len(name) > 1 and name.isalpha() and name[-1] != "s"]
    return table | {f"{name}s": table[name] for name in plurals}


_TABLE = _table()
_DEGREES = {"°", "degree", "degrees", "deg"}
_LETTERS = {"m", "s", "g", "h", "L", "J", "N", "T", "W", "V"}
_SQUARES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS = {"squared": 2, "cubed": 3}
_HEDGE_WORDS = (
    "about approx approximately around roughly nearly almost least most more less fewer greater larger smaller higher "
    "lower than over under up upto not between maybe possibly perhaps probably either neither nor except if unless ish "
    "maximum minimum max below above within circa estimated or and but any some wrong incorrect false invalid "
    "impossible no none never too"
)
HEDGES = frozenset(_HEDGE_WORDS.split())
UNIT_WORDS = frozenset(name for name in _TABLE if len(name) > 1 and name.isalpha()) | (_DEGREES - {"°"}) | set(_SQUARES)


def starts_unit(kind: str, text: str, spaced: bool) -> bool:
    """Whether a unit may begin with this token; one letter only counts when a space stands before it."""
    if kind == "op":
        return text in ("%", "°", r"\$", "¢", "€", "£")
    if kind == "word" or (text in _LETTERS and (spaced or text == "g")):  # `48g`; `3s` is as likely 3 times s
        return True
    return spaced and len(text) > 1 and text.casefold() in UNIT_WORDS


def read_unit(words: Sequence[str]) -> Unit | None:
    r"""Read a whole phrase like `["square", "inches"]` or `["m", "/", "s", "^", "2"]`; None if it is not a unit."""
    words = [word for word in words if word not in ("{", "}", "*", ".", "(", ")")]
    hedged = HEDGES & {word.casefold() for word in words}
    if not words or len(words) > 12 or words.count("°") + words.count("%") > 1 or hedged:
        return None
    dimensions: dict[str, int] = {}
    scale: sympy.Expr = sympy.Integer(1)
    position, sign, last = 0, 1, len(words)
    while position < last:
        if words[position] in ("/", "per"):
            sign, position = -1, position + 1
            continue
        factor = _factor(words, position)
        if factor is None:
            return None
        base, size, exponent, position = factor
        for name, power in base.items():
            dimensions[name] = dimensions.get(name, 0) + sign * power * exponent
        scale = sympy.Mul(scale, sympy.Pow(size, sign * exponent))
    letter = words[0] if len(words) == 1 and words[0] in _LETTERS else None
    return Unit(tuple(sorted((name, power) for name, power in dimensions.items() if power)), scale, letter)


def _factor(words: Sequence[str], position: int) -> tuple[dict[str, int], sympy.Expr, int, int] | None:
    """One unit with its power: (dimensions, size, exponent, next position)."""
    exponent = 1
    if words[position] in _SQUARES:
        exponent, position = _SQUARES[words[position]], position + 1
    if position >= len(words):
        return None
    entry = _lookup(words[position : position + 2])
    if entry is None:
        return None
    base, size, used = entry
    position += used
    if position < len(words) and words[position] in _POWERS:
        exponent, position = _POWERS[words[position]], position + 1
    elif words[position : position + 1] == ["^"]:
        power = words[position + 1 : position + 2]
        if power not in (["2"], ["3"]):
            return None
        exponent, position = int(power[0]), position + 2
    return base, size, exponent, position


def _lookup(words: Sequence[str]) -> tuple[dict[str, int], sympy.Expr, int] | None:
    """Dimensions, size and number of words used of the first name in `words`."""
    word = words[0]
    if word == "°" and len(words) > 1 and words[1] in ("C", "F"):
        return {"celsius" if words[1] == "C" else "fahrenheit": 1}, sympy.Integer(1), 2
    if word in _DEGREES:
        if len(words) > 1 and words[1].casefold() in ("celsius", "fahrenheit"):
            return {words[1].casefold(): 1}, sympy.Integer(1), 2
        return {"angle": 1}, sympy.Mul(sympy.Rational(1, 180), sympy.pi), 1
    entry = _TABLE.get(word if len(word) == 1 and word != "L" else word.casefold())
    if entry:
        return entry[0], sympy.Rational(entry[1].numerator, entry[1].denominator), 1
    if 1 < len(word) <= 20 and word.isalpha():
        word = word.casefold()
        return {word[:-1] if word.endswith("s") and len(word) > 3 else word: 1}, sympy.Integer(1), 1
    return None
