r"""Bounded numbers for expressions: evaluate a SymPy tree at fixed points without SymPy's own arithmetic.

SymPy would work out `9**9**9` or `(10**8)!` for as long as it takes. Here every operation looks at the size
of its operands first and gives up (`Undecided`) before the work, and every node costs steps from a budget.

Two expressions are called equal if they agree at `POINTS` points. Why that is sound enough:
- Numbers that stay rational are exact fractions, so 0.333...3 with any number of digits is never 1/3.
- Everything else is computed with 50 digits and compared to 35. Where two values differ by less than that in
  the absolute sense only (`e^{-100}` and 0), the comparison is repeated with 120 digits: rounding noise
  shrinks, a difference stays.
- Variables stand for 64-bit numbers drawn from a hash of their name. By the Schwartz-Zippel lemma two
  different polynomials of degree d agree at such a point with probability at most d / 2^64.
- Points where a side is not defined, or not real though nobody wrote an i (`2 \ln x` at -1), lie outside the
  common domain and do not count; at least two points must. The idea: ch03, section 3.6.
"""

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import sympy

POINTS = 6
WHOLE_POINTS = 12  # more points for what jumps at whole numbers: 1 to 12 hold powers and multiples of 2 and 3
PRIME = 2**127 - 1
MAX_BITS = 20_000  # largest exact numerator or denominator
MAX_STEPS = 15_000  # for all evaluations of one comparison; a step is a few microseconds
_FUNCTION_STEPS = 15
Value = Fraction | mpmath.mpf | mpmath.mpc


class Undecided(ArithmeticError):
    """The value does not exist, or is too large or too costly to work out."""


def _context(digits: int) -> mpmath.ctx_mp.MPContext:
    context = mpmath.MPContext()
    context.dps = digits
    return context


# Own contexts, never changed: mpmath.mp is global state, which another thread may set to another precision.
_LOW, _HIGH = _context(50), _context(120)


def point_value(name: str, index: int) -> Fraction:
    """The number a variable stands for at point `index`: in (0, 1), in (1, 3), in (-4, 4), and then whole ones."""
    if index >= POINTS:
        return Fraction(1 + (index + len(name)) % WHOLE_POINTS)
    bits = int.from_bytes(hashlib.sha256(f"{name}:{index}".encode()).digest()[:8], "big")
    unit = Fraction(bits, 2**64)
    if index < 2:
        return unit if index == 0 else 1 + 2 * unit
    return 8 * unit - 4


class Evaluator:
    """Values of expressions at the fixed points, within one budget of steps. Use one for each comparison."""

    def __init__(self, max_steps: int = MAX_STEPS):
        self.steps_left = max_steps
        self.rounded: set[sympy.Expr] = set()  # expressions in which an exact number was too long to be kept
        self._memo: dict[tuple[sympy.Expr, int, bool], Value | None] = {}

    def value(self, expression: sympy.Expr, index: int = 0, high: bool = False) -> Value:
        """The value at point `index`, with 50 digits or, if `high`, 120.

        Raises Undecided if there is none, it is too large, or the budget is spent.
        """
        key = (expression, index, high)
        if key not in self._memo:
            try:
                self._memo[key] = self._visit(expression, index, _HIGH if high else _LOW)
            except (Undecided, ZeroDivisionError, ValueError, OverflowError, TypeError, mpmath.libmp.NoConvergence):
                self._memo[key] = None
        if self._memo[key] is None:
            raise Undecided("no value")
        return self._memo[key]

    def equal(self, first: sympy.Expr, second: sympy.Expr) -> bool:
        """Whether two expressions have the same value wherever both have one. Raises Undecided if neither has any."""
        if first == second:
            return True
        points = POINTS if first.free_symbols or second.free_symbols else 1
        if points > 1 and (first.has(sympy.floor, sympy.ceiling) or second.has(sympy.floor, sympy.ceiling)):
            points += WHOLE_POINTS
        domains = [False] if points == 1 or mentions_i(first) or mentions_i(second) else [True, False]
        for real in domains:  # an expression that is real nowhere is compared as a complex one
            verdict = self._agree(first, second, points, real)
            if verdict is not None:
                return verdict
        raise Undecided("too few points in the common domain")

    def _agree(self, first: sympy.Expr, second: sympy.Expr, points: int, real: bool) -> bool | None:
        """Whether the values agree at the points of the domain; None if the domain holds too few of them."""
        agreeing = 0
        for index in range(points):
            values = self._pair(first, second, index, real)
            if values is None:
                continue
            if not self.close(*values, lambda i=index: (self.value(first, i, True), self.value(second, i, True))):
                return False
            if self.rounded & {first, second} and residue(first) != residue(second):
                return False
            agreeing += 1
        return True if agreeing >= min(2, points) else None

    def proportional(self, first: sympy.Expr, second: sympy.Expr, positive: bool = False) -> bool:
        """Whether first = c * second with a constant c that is not 0 (or, if `positive`, is greater than 0)."""
        if not first.free_symbols & second.free_symbols:
            return False
        ratio = None
        agreeing = 0
        for index in range(POINTS):
            values = self._pair(first, second, index, real=False)
            if values is None:
                continue
            if is_zero(values[0]) or is_zero(values[1]):
                return False
            quotient = _LOW.convert(_mp(values[0], _LOW)) / _mp(values[1], _LOW)
            if ratio is not None and abs(quotient - ratio) > abs(ratio) * _LOW.mpf(10) ** -30:
                return False
            ratio, agreeing = quotient if ratio is None else ratio, agreeing + 1
        return agreeing >= 3 and (not positive or (is_real(ratio) and ratio.real > 0))

    def _pair(self, first: sympy.Expr, second: sympy.Expr, index: int, real: bool) -> tuple[Value, Value] | None:
        """Both values, or None if the point is outside the common (if `real`, common real) domain."""
        try:
            one, two = self.value(first, index), self.value(second, index)
        except Undecided:
            return None
        return (one, two) if not real or (is_real(one) and is_real(two)) else None

    @staticmethod
    def as_mpf(value: Value) -> mpmath.mpf:
        """A value as a number with 50 digits."""
        return _mp(value, _LOW)

    @staticmethod
    def close(first: Value, second: Value, precise: Callable[[], tuple[Value, Value]] | None = None) -> bool:
        """Whether two values are the same up to rounding; `precise` gives both with 120 digits when in doubt."""
        if isinstance(first, Fraction) and isinstance(second, Fraction):
            return first == second
        one, two = _mp(first, _LOW), _mp(second, _LOW)
        gap, size = abs(one - two), max(abs(one), abs(two))
        if gap <= size * _EPSILON:
            return True
        if gap > _EPSILON or precise is None:
            return False
        one, two = (_mp(value, _HIGH) for value in precise())
        return abs(one - two) <= gap * _EPSILON or abs(one - two) <= max(abs(one), abs(two)) * _EPSILON

    def _visit(self, node: sympy.Expr, index: int, context: mpmath.ctx_mp.MPContext) -> Value:
        rule = _RULES.get(type(node))
        if rule is None and isinstance(node, sympy.Rational):
            return Fraction(node.p, node.q)
        if isinstance(node, sympy.Symbol):
            point = point_value(node.name, index)
            return context.mpf(point.numerator) / point.denominator
        if rule is None:
            raise Undecided(f"no rule for {type(node).__name__}")
        self.steps_left -= len(node.args) if isinstance(node, sympy.Add | sympy.Mul) else _FUNCTION_STEPS
        if self.steps_left < 0:
            raise Undecided("step budget spent")
        arguments = [self._visit(argument, index, context) for argument in node.args]
        value = rule(context, *arguments)
        if not isinstance(value, Fraction):
            if not context.isfinite(value):  # an infinite value would be close to every other
                raise Undecided("not finite")
            if node.args and all(isinstance(argument, Fraction) for argument in arguments):
                if isinstance(node, sympy.Add | sympy.Mul) or (
                    isinstance(node, sympy.Pow) and arguments[1].denominator == 1
                ):  # else a root or a function, which is not exact in the first place
                    self.rounded.add(node)
            elif any(argument in self.rounded for argument in node.args):
                self.rounded.add(node)
        return value


_EPSILON = _LOW.mpf(10) ** -35


def residue(node: sympy.Expr) -> int:
    """A rational number modulo a prime: two long numbers that differ in their last digit differ here as well.

    Raises Undecided if it is not made of +, * and whole powers alone, or a denominator is a multiple of the prime.
    """
    if isinstance(node, sympy.Rational):
        return node.p * _inverse(node.q) % PRIME
    if isinstance(node, sympy.Add):
        return sum(map(residue, node.args)) % PRIME
    if isinstance(node, sympy.Mul):
        return math.prod(map(residue, node.args)) % PRIME
    if isinstance(node, sympy.Pow) and node.exp.is_Integer:
        base = residue(node.base)
        return pow(base if node.exp.p >= 0 else _inverse(base), abs(node.exp.p), PRIME)
    raise Undecided("not a rational number")


def _inverse(number: int) -> int:
    if number % PRIME == 0:
        raise Undecided("no residue")
    return pow(number, -1, PRIME)


def is_real(value: Value) -> bool:
    """Whether the imaginary part is rounding noise."""
    if isinstance(value, Fraction) or not hasattr(value, "_mpc_"):
        return True
    return abs(value.imag) <= _EPSILON * max(abs(value.real), 1)


def mentions_i(node: sympy.Expr) -> bool:
    """Whether the imaginary unit is written in the expression."""
    return node is sympy.I or any(mentions_i(argument) for argument in node.args)


def is_zero(value: Value) -> bool:
    """Whether the value is zero up to rounding."""
    return value == 0 if isinstance(value, Fraction) else abs(value) <= _EPSILON


def _mp(value: Value, context: mpmath.ctx_mp.MPContext) -> mpmath.mpf:
    if isinstance(value, Fraction):
        return context.mpf(value.numerator) / value.denominator
    return context.convert(value)


def _magnitude(value: Value) -> float:
    """log2 of the absolute value, roughly; minus infinity for zero."""
    if isinstance(value, Fraction):
        return value.numerator.bit_length() - value.denominator.bit_length() if value else -math.inf
    if not value:
        return -math.inf
    magnitude = mpmath.mp.mag(value)
    if magnitude > 2**60 or magnitude < -(2**60):
        raise Undecided("too large")
    return float(magnitude)


def _exact_or_mp(context: mpmath.ctx_mp.MPContext, values: tuple[Value, ...], operation: Callable) -> Value:
    """Fold with an operation, exactly while all values are fractions of bounded size."""
    result = values[0]
    for value in values[1:]:
        if isinstance(result, Fraction) and isinstance(value, Fraction):
            result = operation(result, value)
            if max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
                result = _mp(result, context)
        else:
            result = operation(_mp(result, context), _mp(value, context))
            _magnitude(result)
    return result


def _add(context: mpmath.ctx_mp.MPContext, *values: Value) -> Value:
    sizes = [size for size in map(_magnitude, values) if size > -math.inf]
    exact = all(isinstance(value, Fraction) for value in values)
    if not exact and max(sizes, default=0) > 110 and max(sizes) - min(sizes) > 110:
        raise Undecided("a term is lost beside a much larger one")
    return _exact_or_mp(context, values, lambda a, b: a + b)


def _mul(context: mpmath.ctx_mp.MPContext, *values: Value) -> Value:
    return _exact_or_mp(context, values, lambda a, b: a * b)


def _pow(context: mpmath.ctx_mp.MPContext, base: Value, exponent: Value) -> Value:
    if base == 0:
        if is_zero(exponent) or not is_real(exponent) or exponent.real < 0:
            raise Undecided("power of zero")
        return Fraction(0)
    size = abs(_magnitude(base)) + 1
    if isinstance(exponent, Fraction):
        if exponent.denominator == 1 and isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent.numerator) <= MAX_BITS:
                return base**exponent.numerator
        if exponent.denominator % 2 and exponent.denominator > 1 and is_real(base) and base.real < 0:
            root = _pow(context, -base, exponent)  # the real odd root, as schools define it: (-8)^(1/3) = -2
            return root if exponent.numerator % 2 == 0 else -root
    if _magnitude(exponent) > 60 or abs(_mp(exponent, context)) * size > 2**50:
        raise Undecided("power too large")
    if exponent == Fraction(1, 2):
        return context.sqrt(_mp(base, context))
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        base, whole = _mp(base, context), exponent.numerator
        return base**whole if size < 2**20 else context.power(base, whole)
    return context.power(_real_if_close(_mp(base, context)), _real_if_close(_mp(exponent, context)))


def _real_if_close(value: Value) -> Value:
    return value.real if hasattr(value, "_mpc_") and is_real(value) else value


def _function(name: str, reciprocal: bool = False, of_reciprocal: bool = False) -> Callable:
    """A rule from a function of mpmath; cot, sec and csc are 1/f(x), arccot is arctan(1/x)."""

    def rule(context: mpmath.ctx_mp.MPContext, value: Value) -> Value:
        value = _real_if_close(_mp(value, context))
        if _magnitude(value) > 40:
            raise Undecided("argument too large")
        value = getattr(context, name)(1 / value if of_reciprocal else value)
        return 1 / value if reciprocal else value

    return rule


def _gamma_plus_one(context: mpmath.ctx_mp.MPContext, value: Value) -> Value:
    """x!, exactly for small whole numbers."""
    if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 1500:
        return Fraction(math.factorial(value.numerator))
    if _magnitude(value) > 16:
        raise Undecided("factorial too large")
    return context.gamma(_mp(value, context) + 1)


def _binomial(context: mpmath.ctx_mp.MPContext, top: Value, bottom: Value) -> Value:
    whole = all(isinstance(value, Fraction) and value.denominator == 1 and value >= 0 for value in (top, bottom))
    if whole and (bottom > top or min(bottom, top - bottom) * top.numerator.bit_length() <= MAX_BITS):
        return Fraction(math.comb(top.numerator, bottom.numerator))
    parts = [_gamma_plus_one(context, value) for value in (top, bottom, _add(context, top, -bottom))]
    return _mp(parts[0], context) / _mp(parts[1], context) / _mp(parts[2], context)


def _rounding(rounder: Callable[[Fraction], int]) -> Callable:
    """Floor or ceiling; a value within rounding noise of a whole number counts as that number."""

    def rule(context: mpmath.ctx_mp.MPContext, value: Value) -> Value:
        if isinstance(value, Fraction):
            return Fraction(rounder(value))
        if not is_real(value) or _magnitude(value) > 60:
            raise Undecided("no floor")
        nearest = context.nint(value.real)
        if abs(nearest - value.real) <= _EPSILON:
            return Fraction(int(nearest))
        return Fraction(int(context.floor(value.real)) if rounder is math.floor else int(context.ceil(value.real)))

    return rule


def _log(context: mpmath.ctx_mp.MPContext, value: Value) -> Value:
    _magnitude(value)
    return context.log(_real_if_close(_mp(value, context)))


_RULES: dict[type, Callable] = {
    sympy.Add: _add, sympy.Mul: _mul, sympy.Pow: _pow, sympy.log: _log,
    sympy.Abs: lambda context, value: abs(value) if isinstance(value, Fraction) else context.mpf(abs(value)),
    **{getattr(sympy, name): _function(name) for name in
       ("exp", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
    sympy.csc: _function("sin", True), sympy.sec: _function("cos", True), sympy.cot: _function("tan", True),
    sympy.acot: _function("atan", of_reciprocal=True), sympy.asec: _function("acos", of_reciprocal=True),
    sympy.acsc: _function("asin", of_reciprocal=True), sympy.factorial: _gamma_plus_one, sympy.binomial: _binomial,
    sympy.floor: _rounding(math.floor), sympy.ceiling: _rounding(math.ceil),
    type(sympy.pi): lambda context: +context.pi, type(sympy.E): lambda context: +context.e,
    type(sympy.I): lambda context: context.mpc(0, 1),
}  # fmt: skip
