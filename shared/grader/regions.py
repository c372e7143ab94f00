r"""Parts of the real line: what intervals, unions, inequalities and `\mathbb{R} \setminus \{0\}` have in common.

A region is a sorted list of pieces that do not touch. Its ends are numbers (50 digits), so it can only be made of
answers whose ends have a value. The idea: ch03, section 3.6.
"""

from dataclasses import dataclass
from operator import ge, gt, le, lt, ne

import mpmath
import sympy

from shared.grader.answer_forms import Compound, Form, Name, Quantity, Reals, Relation
from shared.grader.numeric import Evaluator, Undecided, is_real, point_value

INFINITY = Evaluator.as_mpf(mpmath.mpf("inf"))
_FLIPPED = {"<": ">", "<=": ">=", "!=": "!=", ">": "<", ">=": "<="}
_HOLDS = {"<": lt, "<=": le, "!=": ne, ">": gt, ">=": ge}


@dataclass(frozen=True)
class Piece:
    """From `low` to `high`, each end included or not."""

    low: mpmath.mpf
    low_closed: bool
    high: mpmath.mpf
    high_closed: bool


@dataclass(frozen=True)
class Region:
    """Pieces from left to right, and the variable they are about, if the answer names one."""

    pieces: tuple[Piece, ...]
    variable: str | None = None


def to_region(answer: Form, numbers: Evaluator) -> Region | None:
    """The part of the real line that an answer describes, None if none. Raises Undecided if an end has no value."""
    if isinstance(answer, Reals):
        return Region((Piece(-INFINITY, False, INFINITY, False),))
    if isinstance(answer, Relation):
        return _from_relation(answer, numbers)
    if not isinstance(answer, Compound):
        return None
    if answer.kind in ("()", "[]", "(]", "[)") and len(answer.items) == 2:
        low, high = (_end(item, numbers) for item in answer.items)
        if low is None or high is None or low >= high:
            return None
        low_closed, high_closed = answer.kind[0] == "[" and low > -INFINITY, answer.kind[1] == "]" and high < INFINITY
        return Region((Piece(low, low_closed, high, high_closed),))
    return _from_group(answer, numbers)


def _from_group(answer: Compound, numbers: Evaluator) -> Region | None:
    """Unions, differences, and inequalities joined by `or`, `and` or a comma."""
    if answer.kind == "minus":
        base, removed = answer.items
        listed = isinstance(removed, Compound) and not removed.ordered
        points = [_end(item, numbers) for item in removed.items] if listed else [None]
        region = to_region(base, numbers)
        return _intersection([region, *map(_without, points)]) if None not in (region, *points) else None
    if answer.kind not in ("union", "or", "and", "list"):
        return None
    if answer.kind != "union" and not all(isinstance(item, Relation) for item in answer.items):
        return None
    regions = [_points(item, numbers) if answer.kind == "union" else to_region(item, numbers) for item in answer.items]
    if None in regions:
        return None
    names = {region.variable for region in regions} - {None}
    if len(names) > 1:
        return None
    common = _intersection(regions)
    # `x > 1, x < 2` lists conditions; `x < 1, x > 2`, which no number meets, lists cases.
    if answer.kind == "and" or (answer.kind == "list" and common.pieces):
        return common
    return _union([p for r in regions for p in r.pieces], min(names, default=None))


def _points(item: Form, numbers: Evaluator) -> Region | None:
    """A member of a union: a region, or a set of single points."""
    if not isinstance(item, Compound) or item.kind != "set":
        return to_region(item, numbers)
    ends = [_end(point, numbers) for point in item.items]
    return None if None in ends else Region(tuple(Piece(end, True, end, True) for end in ends))


def _end(item: Form, numbers: Evaluator) -> mpmath.mpf | None:
    """The value of an end point; infinity is allowed."""
    if isinstance(item, Quantity):
        item = item.value
    if not isinstance(item, sympy.Expr) or item.free_symbols:
        return None
    if item in (sympy.oo, -sympy.oo):
        return INFINITY if item == sympy.oo else -INFINITY
    value = numbers.value(item)
    return numbers.as_mpf(value) if is_real(value) else None


def _without(point: mpmath.mpf) -> Region:
    return Region((Piece(-INFINITY, False, point, False), Piece(point, False, INFINITY, False)))


def _from_relation(relation: Relation, numbers: Evaluator) -> Region | None:
    """The solutions of a chain of inequalities that are linear in one variable."""
    if relation.operators == ("in",):
        region = to_region(relation.parts[1], numbers)
        return region and Region(region.pieces, relation.parts[0].name)
    if "=" in relation.operators:
        return None
    parts = [part.value if isinstance(part, Quantity) else part for part in relation.parts]
    parts = [sympy.Symbol("_") if isinstance(part, Name) else part for part in parts]
    if not all(isinstance(part, sympy.Expr) for part in parts):
        return None
    names = {symbol.name for part in parts for symbol in part.free_symbols}
    if len(names) != 1:
        return None
    steps = zip(parts, relation.operators, parts[1:], strict=False)
    regions = [_half_line(left, operator, right, names.copy().pop(), numbers) for left, operator, right in steps]
    if None in regions:
        return None
    region = _intersection(regions)
    return Region(region.pieces, None if names == {"_"} else names.pop())


def _half_line(left: sympy.Expr, operator: str, right: sympy.Expr, name: str, numbers: Evaluator) -> Region | None:
    """The solutions of one linear inequality, found from its values at three points."""
    ranks = [(side == sympy.oo) - (side == -sympy.oo) for side in (left, right)]
    if any(ranks):  # what is finite lies between the infinities: all x or none solve it
        everywhere = _HOLDS[operator](*ranks)
        return Region((Piece(-INFINITY, False, INFINITY, False),) if everywhere else ())
    points = [point_value(name, index) for index in range(3)]
    values = [numbers.as_mpf(numbers.value(left, k)) - numbers.as_mpf(numbers.value(right, k)) for k in range(3)]
    if not all(is_real(value) for value in values):
        return None
    points = [numbers.as_mpf(point) for point in points]
    slope = (values[1] - values[0]) / (points[1] - points[0])
    error = values[0] + slope * (points[2] - points[0]) - values[2]
    if not slope or abs(error) > abs(slope) * 1e-30:
        return None
    root = points[0] - values[0] / slope
    if operator == "!=":
        return _without(root)
    operator = _FLIPPED[operator] if slope < 0 else operator
    closed = "=" in operator
    return Region((Piece(-INFINITY, False, root, closed) if "<" in operator else Piece(root, closed, INFINITY, False),))


def _union(pieces: list[Piece], variable: str | None = None) -> Region:
    """Join pieces that overlap or touch."""
    joined: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: (piece.low, not piece.low_closed)):
        last = joined[-1] if joined else None
        closed = last and (piece.low_closed or last.high_closed)
        touching = last and (piece.low <= last.high if closed else piece.low < last.high)
        if not touching:
            joined.append(piece)
            continue
        high, closed = max((last.high, last.high_closed), (piece.high, piece.high_closed))
        joined[-1] = Piece(last.low, last.low_closed, high, closed)
    return Region(tuple(joined), variable)


def _intersection(regions: list[Region]) -> Region:
    pieces = list(regions[0].pieces)
    for region in regions[1:]:
        pieces = [common for one in pieces for two in region.pieces if (common := _common(one, two))]
        if len(pieces) > 100:
            raise Undecided("too many pieces")
    names = {region.variable for region in regions} - {None}
    return Region(tuple(pieces), min(names, default=None))


def _common(one: Piece, two: Piece) -> Piece | None:
    low, low_open = max((one.low, not one.low_closed), (two.low, not two.low_closed))
    high, high_closed = min((one.high, one.high_closed), (two.high, two.high_closed))
    if low > high or (low == high and (low_open or not high_closed)):
        return None
    return Piece(low, not low_open, high, high_closed)


def same_region(first: Region, second: Region) -> bool:
    """Whether two regions have the same pieces, ends compared up to rounding."""
    if len(first.pieces) != len(second.pieces):
        return False
    if first.variable and second.variable and first.variable != second.variable:
        return False
    for one, two in zip(first.pieces, second.pieces, strict=True):
        if (one.low_closed, one.high_closed) != (two.low_closed, two.high_closed):
            return False
        if not _same_end(one.low, two.low) or not _same_end(one.high, two.high):
            return False
    return True


def _same_end(first: mpmath.mpf, second: mpmath.mpf) -> bool:
    infinite = INFINITY in (abs(first), abs(second))
    return first == second if infinite else Evaluator.close(first, second)
