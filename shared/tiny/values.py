"""Values of MiniMath and how they are written."""

from collections.abc import Callable
from fractions import Fraction

Value = int | Fraction | tuple | complex | str
Do = Callable[[str, Value], Value]  # writes a step down and hands its value back
Solve = Callable[[Do], Value]
Drawn = tuple[str, Solve] | None  # what a template makes; None where the numbers did not come out well


def plain(value: Value) -> str:
    """A value as it stands inside a step: `7`, `-3/4`, `(2,-1)`, `4-2i`."""
    if isinstance(value, tuple):
        return "(" + ",".join(plain(v) for v in value) + ")"
    if isinstance(value, complex):
        real, imaginary = int(value.real), int(value.imag)
        if imaginary == 0:
            return str(real)
        number = {1: "", -1: "-"}.get(imaginary, str(imaginary))
        return f"{real or ''}{'+' if real and imaginary > 0 else ''}{number}i"
    return str(value)


def operand(value: Value) -> str:
    """A value as an operand: negative numbers and fractions in brackets, since `3--2` is no maths."""
    text = plain(value)
    return f"({text})" if text.startswith("-") or "/" in text else text


def boxed_form(value: Value) -> str:
    """A value as the reference answer writes it: fractions in LaTeX."""
    if isinstance(value, Fraction) and value.denominator != 1:
        sign = "-" if value < 0 else ""
        return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    return plain(value)


def polynomial(coefficients: tuple[int, ...], symbol: str = "x") -> str:
    """`(1, -2, 3)` is `x^2-2x+3`."""
    text = ""
    for power, c in zip(range(len(coefficients) - 1, -1, -1), coefficients, strict=True):
        if c == 0:
            continue
        body = {0: "", 1: symbol}.get(power, f"{symbol}^{power}")
        number = str(abs(c)) if abs(c) != 1 or power == 0 else ""
        text += ("-" if c < 0 else "+" if text else "") + number + body
    return text or "0"


def signed(number: int) -> str:
    """`+3` or `-3`, to stand behind a term."""
    return f"{number:+d}"


def tidy(value: Fraction | int) -> Fraction | int:
    """Whole fractions become integers."""
    value = Fraction(value)
    return value.numerator if value.denominator == 1 else value
