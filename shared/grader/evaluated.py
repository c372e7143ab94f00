r"""Whether an answer is worked out, or leaves its value to the grader, as `7*17` does for 119.

`grade` is a test of equality, so for it the question is as good as its answer; a reward may ask for more. Worked out
are numbers, mixed numbers, fractions in lowest terms, roots, `\pi`, polynomials, and what is made of these. Not so what
holds an operation that can be carried out: `7*17`, `6/4`, `\sqrt{16}`, `\binom52`, `\sin 30^\circ`, `2x+3x`, `2(x+1)`.
A number of more than 64 bits may stay a power, and `3 \cdot 10^8` is a way to write a number.
"""

from collections.abc import Iterator
from fractions import Fraction

import sympy

from shared.grader.answer_forms import Compound, Form, Matrix, Name, Quantity, Ratio, Relation
from shared.grader.answer_text import normalize_answer
from shared.grader.answers import parse_answer
from shared.grader.math_tokens import ParseError
from shared.grader.numeric import Evaluator, Undecided, is_real


def is_evaluated(answer: str) -> bool:
    """Whether no operation that can be carried out is left in an answer; words hold none. Never raises."""
    try:
        return _form(parse_answer(normalize_answer(answer)), Evaluator())
    except ParseError:
        return True
    except (Exception, RecursionError, MemoryError):  # total, as `grade` is
        return False


def _form(form: Form, numbers: Evaluator) -> bool:
    if isinstance(form, sympy.Expr):
        return _expression(form, numbers)
    if isinstance(form, Relation) and set(form.operators) == {"="}:  # in x = 7*17 = 119 the last one is the answer
        parts = [part for part in form.parts if not isinstance(part, sympy.Symbol | Name)][-1:]
    elif isinstance(form, Matrix):
        parts = sum(form.rows, ())
    elif isinstance(form, Quantity):
        parts = [form.value]
    else:
        parts = form.items if isinstance(form, Compound) else form.parts if isinstance(form, Ratio | Relation) else ()
    return all(_form(part, numbers) for part in parts)


def _expression(node: sympy.Expr, numbers: Evaluator) -> bool:
    if not node.args or _is_power_of_ten(node):
        return True
    parts = node.args
    if node.is_Mul or (node.is_Pow and node.exp == -1):
        top, bottom, above, below = ([part for part, place in _factors(node) if place == each] for each in range(4))
        p, q, parts = (*top, 1)[0], (*bottom, 1)[0], above + below
        whole_and_coprime = (sympy.Rational(p) / q).as_numer_denom() == (p, q)
        if len(top) > 1 or len(bottom) > 1 or (bottom and not whole_and_coprime):  # 7*17, 6/4
            return False
        if len(top + above) > 1 and any(part.is_Add for part in above):  # 2(x+1)
            return False
        if len({part.base if part.is_Pow else part for part in parts}) < len(parts):  # x^2 x^3
            return False
    elif node.is_Add:
        kinds = [frozenset(pair for pair in _factors(term) if pair[1] > 1) for term in _terms(node)]
        if len(set(kinds)) < len(kinds):  # 2+3, 2x+3x
            return False
    elif node.is_Pow and node.exp.is_Integer and (node.base.is_Add or node.base.is_Mul):  # (x+1)^2
        return False
    left = parts and not node.free_symbols and _is_fraction(node, numbers)
    return not left and all(_expression(part, numbers) for part in parts)


def _factors(node: sympy.Expr, below: bool = False) -> Iterator[tuple[sympy.Expr, int]]:
    """The factors of a product but 1, -1 and powers of ten: numbers above (0) or below the line (1), others (2, 3)."""
    if node.is_Mul:
        for part in node.args:
            yield from _factors(part, below)
    elif node.is_Pow and node.exp == -1:
        yield from _factors(node.base, not below)
    elif node.is_Rational and abs(node) != 1:
        yield abs(node), int(below)
    elif not node.is_Rational and not _is_power_of_ten(node):
        yield node, 2 + below


def _terms(node: sympy.Expr) -> Iterator[sympy.Expr]:
    return (term for part in node.args for term in _terms(part)) if node.is_Add else iter([node])


def _is_power_of_ten(node: sympy.Expr) -> bool:
    return node.is_Pow and node.base == 10 and node.exp.is_Integer and abs(node.exp) > 2


def _is_fraction(node: sympy.Expr, numbers: Evaluator) -> bool:
    """Whether the value is a fraction that one can write down."""
    try:
        value = numbers.value(node)
    except Undecided:
        return False
    if isinstance(value, Fraction):
        return max(value.numerator.bit_length(), value.denominator.bit_length()) <= 64
    if not is_real(value) or abs(value.real) > 10**20:  # with too few digits left behind the point to tell
        return False
    return numbers.close(Fraction(str(value.real)).limit_denominator(1000), value.real)
