r"""Whether two parsed answers are the same answer. One small rule for each pair of forms, every rule symmetrical.

Policies, where taste could differ:
- A missing unit or percent sign is fine (`35`, `35\%`), and so is the value of a percentage (`0.35`, `35\%`); units
  that are there must agree after conversion (`1 m` is `100 cm`, `\$5` is not `5` cents).
- Tuples are ordered; lists and sets are not. A list keeps its repetitions (`2, 2` is not `2`), a set does not, nor do
  alternatives (`1/2 or 0.5` is `1/2`). A tuple is not a list. A column vector is the tuple of its entries, a row is
  not. `(1, 2)` and `[1, 2]` are never the same.
- An interval is its inequality, and all spellings of one part of the real line are the same.
- `x = 5` is `5`, and `y = 2x + 1` is `2x + 1`; `x = 5` is not `y = 5`. Two equations are the same if one is a multiple
  of the other.
- Numbers in other bases agree in digits and base; a number without base is decimal and never equal to one with.
- A time without a.m. or p.m. is the same time with it, and 20:34 is 8:34 p.m.
- A choice letter is a letter, in any case, whatever text follows it.

The idea: ch03, section 3.6.
"""

import itertools
from collections import Counter
from collections.abc import Sequence

import sympy

from shared.grader.answer_forms import BaseNumber, Choice, Compound, Form, Matrix, Name, Quantity, Ratio, Relation, Text
from shared.grader.math_parser import add, divide, mul, negative
from shared.grader.numeric import Evaluator, Undecided
from shared.grader.regions import same_region, to_region

_COMPARISON_STEPS = 5


class Comparison:
    """Compares two answers within one budget of steps."""

    def __init__(self) -> None:
        self.numbers = Evaluator()

    def equal(self, first: Form, second: Form) -> bool:
        """Whether the two are the same answer. Raises Undecided if it takes too many steps, or there is no value."""
        self.numbers.steps_left -= _COMPARISON_STEPS
        if self.numbers.steps_left < 0:
            raise Undecided("step budget spent")
        if first == second:
            return True
        if isinstance(first, sympy.Expr) and isinstance(second, sympy.Expr):
            return self._expressions(first, second)
        for rule in (self._region, self._relation, self._plain, self._ratio, self._matrix, self._group, self._quantity):
            for one, two in ((first, second), (second, first)):
                verdict = rule(one, two)
                if verdict is not None:
                    return verdict
        return False

    def _expressions(self, first: sympy.Expr, second: sympy.Expr) -> bool:
        letters = [str(part) for part in (first, second) if isinstance(part, sympy.Symbol)]
        if len(letters) == 2:
            word = letters[0] in "abcdABCD" or len(letters[0]) > 2
            return word and letters[0].casefold() == letters[1].casefold()
        return self._numbers_equal(first, second)

    def _numbers_equal(self, first: sympy.Expr, second: sympy.Expr) -> bool:
        """As `Evaluator.equal`, but what has no value is just not equal: one such item must not end the comparison."""
        try:
            return self.numbers.equal(first, second)
        except Undecided:
            return False

    def _plain(self, first: Form, second: Form) -> bool | None:
        """Words, choice letters and numbers in other bases."""
        if isinstance(first, Choice):
            return _as_letter(second).upper() == first.letter
        if isinstance(first, Text) and isinstance(second, sympy.Symbol):  # TRUE is read as a name, true as a word
            return len(second.name) > 2 and first.words == second.name.casefold()
        if isinstance(first, Text | BaseNumber):
            return first == second
        return None

    def _ratio(self, first: Form, second: Form) -> bool | None:
        if not isinstance(first, Ratio):
            return None
        if isinstance(second, Ratio):
            if first.half or second.half:
                return not _times_of_day(first).isdisjoint(_times_of_day(second))
            if len(first.parts) != len(second.parts) or (first.clock and second.clock):
                return first.parts == second.parts
            pairs = zip(first.parts, second.parts, strict=True)
            return all(self._numbers_equal(mul(a, second.parts[0]), mul(b, first.parts[0])) for a, b in pairs)
        if isinstance(second, sympy.Expr) and len(first.parts) == 2 and not first.clock:
            return self._numbers_equal(divide(*first.parts), second)
        return False

    def _matrix(self, first: Form, second: Form) -> bool | None:
        if not isinstance(first, Matrix):
            return None
        if isinstance(second, Matrix) and first.determinant == second.determinant:
            same_shape = [len(row) for row in first.rows] == [len(row) for row in second.rows]
            return same_shape and all(self._in_order(a, b) for a, b in zip(first.rows, second.rows, strict=True))
        if isinstance(second, Compound) and second.kind in ("()", "tuple") and all(len(row) == 1 for row in first.rows):
            return self._in_order([row[0] for row in first.rows], second.items)
        return False

    def _region(self, first: Form, second: Form) -> bool | None:
        """Intervals and inequalities; two ordered pairs are left to the rule for groups, where ends may be symbols."""
        pair = isinstance(first, Compound) and isinstance(second, Compound) and first.ordered and second.ordered
        if pair or not any(isinstance(part, Relation | Compound) for part in (first, second)):
            return None
        try:
            regions = [to_region(part, self.numbers) for part in (first, second)]
        except Undecided:
            return None
        return same_region(*regions) if None not in regions else None

    def _relation(self, first: Form, second: Form) -> bool | None:
        if not isinstance(first, Relation):
            return None
        if isinstance(second, Relation):
            return self._two_relations(first, second)
        named = self._named_value(first)
        if named is None:
            return None if isinstance(second, Compound) else False
        return self.equal(named[1], second)

    def _two_relations(self, first: Relation, second: Relation) -> bool:
        named = [self._named_value(first), self._named_value(second)]
        if None not in named and len({name for name, _ in named if name}) < 2:
            return self.equal(named[0][1], named[1][1])
        if set(first.operators) == {"="} == set(second.operators):
            sides = [_difference(first), _difference(second)]
            return None not in sides and self.numbers.proportional(*sides)
        first, second = _ascending(first), _ascending(second)
        if first.operators != second.operators:
            return False
        sides = [_difference(first), _difference(second)]
        if None not in sides and self.numbers.proportional(*sides, positive=first.operators != ("!=",)):
            return True
        return self._in_order(first.parts, second.parts)

    def _named_value(self, relation: Relation) -> tuple[str, Form] | None:
        """`x = 5`, `5 = x`, `x = 10/2 = 5` or `10/2 = 5`: the name (empty if there is none) and the value."""
        if relation.operators == ("in",):
            return _name(relation.parts[0]), relation.parts[1]
        if set(relation.operators) != {"="}:
            return None
        parts = list(relation.parts)
        if isinstance(parts[-1], sympy.Symbol) and not isinstance(parts[0], sympy.Symbol | Name):
            parts.reverse()
        names = []
        while len(parts) > 1 and isinstance(parts[0], sympy.Symbol | Name):
            names.append(parts.pop(0))
        if not names and any(isinstance(part, sympy.Expr) and part.free_symbols for part in parts):
            return None
        if any(isinstance(parts[-1], sympy.Expr) and name in parts[-1].free_symbols for name in names):
            return None
        if not all(self.equal(part, parts[-1]) for part in parts[:-1]):
            return None
        return (_name(names[0]) if names else ""), parts[-1]

    def _group(self, first: Form, second: Form) -> bool | None:
        if not isinstance(first, Compound):
            return None
        if isinstance(second, Compound):
            return self._two_groups(first, second)
        if first.ordered or first.kind in ("union", "minus") or not self._say_the_same(first):
            return False
        return all(self.equal(item, second) for item in first.items)

    def _say_the_same(self, group: Compound) -> bool:
        """Whether a list is one value: it has one item, or several spellings of it, as in `7/20 or 35%`."""
        if len(group.items) == 1:
            return True
        return group.kind == "or" and all(self.equal(*pair) for pair in itertools.combinations(group.items, 2))

    def _two_groups(self, first: Compound, second: Compound) -> bool:
        if "union" in (first.kind, second.kind) or "minus" in (first.kind, second.kind):
            return first.kind == second.kind and self._match(first.items, second.items)
        if first.ordered and second.ordered:
            kinds = {first.kind, second.kind}
            listed = kinds <= {"()", "[]", "tuple"} and len(first.items) > 2  # no interval has three ends
            alike = len(kinds) == 1 or kinds == {"tuple", "()"} or listed
            return alike and self._in_order(first.items, second.items)
        if first.ordered or second.ordered:
            plain, ordered = (second, first) if first.ordered else (first, second)
            listed = ordered.kind == "[]" and len(ordered.items) > 2
            values = _assigned_values(plain) or (plain.items if listed else ())
            return ordered.kind in ("()", "tuple", "[]") and self._in_order(values, ordered.items)
        return self._in_any_order(first.items, second.items, repetitions=not {first.kind, second.kind} <= {"set", "or"})

    def _in_any_order(self, first: Sequence[Form], second: Sequence[Form], repetitions: bool) -> bool:
        """Whether two lists or, without `repetitions`, two sets hold the same items.

        Comparing each item with each spends the budget on some thirty items. Where equality is transitive, an item
        that stands on both sides in one spelling needs no comparison.
        """
        if not all(map(_transitive, (*first, *second))):
            if repetitions:
                return self._match(first, second)
            return self._match(self._distinct(first, second), self._distinct(second, first))
        if repetitions:
            counts = Counter(first), Counter(second)
            return self._match(list((counts[0] - counts[1]).elements()), list((counts[1] - counts[0]).elements()))
        return self._covers(first, second) and self._covers(second, first)

    def _covers(self, first: Sequence[Form], second: Sequence[Form]) -> bool:
        """Whether each item of `second` is in `first`, in this spelling or another."""
        known = set(first)
        new = (item for item in dict.fromkeys(second) if item not in known)
        return all(any(self.equal(item, other) for other in first) for item in new)

    def _distinct(self, items: Sequence[Form], others: Sequence[Form]) -> list[Form]:
        """The items without repetitions: two are one if they are equal, and to the same of all items and others.

        `35%` repeats neither `35` nor `0.35` if both are there, though it is equal to both.
        """
        everything = list(dict.fromkeys((*items, *others)))
        kept: dict[tuple[bool, ...], Form] = {}
        for item in dict.fromkeys(items):
            kept.setdefault(tuple(self.equal(item, other) for other in everything), item)
        return list(kept.values())

    def _match(self, first: Sequence[Form], second: Sequence[Form]) -> bool:
        """Whether the items can be paired off, in any order.

        Equality is not transitive (`35%` is `35` and `0.35`), so the first pairing found may block a later item that
        another pairing leaves room for: this is a matching in a bipartite graph, found along augmenting paths.
        """
        if len(first) != len(second):
            return False
        partners: dict[int, int] = {}
        return all(self._find_partner(place, first, second, partners, set()) for place in range(len(first)))

    def _find_partner(
        self, place: int, first: Sequence[Form], second: Sequence[Form], partners: dict[int, int], tried: set[int]
    ) -> bool:
        """Pair an item of `first` with a free one of `second`, or with one whose own partner finds another."""
        for other in sorted(range(len(second)), key=partners.__contains__):
            if other in tried or not self.equal(first[place], second[other]):
                continue
            tried.add(other)
            if other not in partners or self._find_partner(partners[other], first, second, partners, tried):
                partners[other] = place
                return True
        return False

    def _in_order(self, first: Sequence[Form], second: Sequence[Form]) -> bool:
        return len(first) == len(second) and all(self.equal(a, b) for a, b in zip(first, second, strict=True))

    def _quantity(self, first: Form, second: Form) -> bool | None:
        if not isinstance(first, Quantity):
            return None
        if isinstance(second, Quantity):
            values = [mul(each.value, each.unit.scale) for each in (first, second)]
            return first.unit.dimensions == second.unit.dimensions and self._numbers_equal(*values)
        if not isinstance(second, sympy.Expr):
            return False
        if self._numbers_equal(first.value, second):
            return True
        if first.unit.is_ratio:
            return self._numbers_equal(mul(first.value, first.unit.scale), second)
        letter = first.unit.letter
        return letter is not None and self._numbers_equal(mul(first.value, sympy.Symbol(letter)), second)


def _transitive(item: Form) -> bool:
    """Whether the item is a constant, words, digits in a base, or a point of these.

    Two such items that equal a third equal each other. That does not hold with a percentage (`35%` is `35` and
    `0.35`), a time, a named value (`x = 5` is `5` and so is `y = 5`), or an expression that has no value everywhere.
    """
    if isinstance(item, Compound):
        return item.kind in ("()", "tuple") and all(map(_transitive, item.items))
    return isinstance(item, Text | BaseNumber) or (isinstance(item, sympy.Expr) and not item.free_symbols)


def _name(part: sympy.Symbol | Name) -> str:
    return part.text if isinstance(part, Name) else part.name


def _difference(relation: Relation) -> sympy.Expr | None:
    """Left side minus right side of a relation with one operator."""
    sides = [part.value if isinstance(part, Quantity) else part for part in relation.parts]
    if len(sides) != 2 or not all(isinstance(side, sympy.Expr) for side in sides):
        return None
    return add(sides[0], negative(sides[1]))


def _ascending(relation: Relation) -> Relation:
    """The same chain read so that its first sign is < or <=."""
    if not relation.operators[0].startswith(">"):
        return relation
    mirrored = str.maketrans("<>", "><")
    return Relation(relation.parts[::-1], tuple(sign.translate(mirrored) for sign in relation.operators[::-1]))


def _assigned_values(group: Compound) -> list[Form] | None:
    """The values of `x = 1, y = 2` in the order of the names; None for another list."""
    values = {}
    for item in group.items:
        if not isinstance(item, Relation) or item.operators != ("=",) or not isinstance(item.parts[0], sympy.Symbol):
            return None
        values[item.parts[0].name] = item.parts[1]
    return [values[name] for name in sorted(values)] if len(values) == len(group.items) else None


def _times_of_day(clock: Ratio) -> set[tuple[sympy.Expr, ...]]:
    """Hour (0 to 23) and minutes: two times unless am, pm or the hour says which half of the day is meant."""
    hour, *rest = clock.parts
    halves = {"am": (0,), "pm": (12,)}.get(clock.half, (0, 12) if 1 <= hour <= 12 else ())
    return {(hour % 12 + half, *rest) for half in halves} or {clock.parts}


def _as_letter(answer: Form) -> str:
    """The choice that an answer could be: its letter, or a name; a lone e is read as Euler's number."""
    if isinstance(answer, Choice):
        return answer.letter
    if isinstance(answer, sympy.Symbol):
        return answer.name
    return "E" if answer is sympy.E else ""
