"""MiniMath templates about numbers: Prealgebra, Algebra and Number Theory."""

import random
from fractions import Fraction

from shared.tiny.values import Do, Drawn, Value, operand, plain, polynomial, signed, tidy

Operation = tuple[str, int, bool]  # operator, other operand, whether that stands on the left

# --- Prealgebra ----------------------------------------------------------------------------------------------


def _one_operation(rng: random.Random, value: int) -> tuple[str, int] | None:
    op = rng.choice("++--**/")
    if op == "*":
        other = rng.randint(2, 9)
        return (op, other) if abs(value) <= 20 else None
    if op == "/":
        divisors = [d for d in range(2, 10) if value % d == 0]
        return (op, rng.choice(divisors)) if divisors and value else None
    return op, rng.randint(2, 50)


OPERATIONS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: tidy(Fraction(a, b)),
}  # fmt: skip


def _arithmetic(rng: random.Random, level: int, start: int) -> tuple[str, list[Operation]] | None:
    """An expression with `level` operations, built from the inside out, and those operations in order."""
    text, value, outer, operations = str(start), start, "", []
    for _ in range(level):
        drawn = _one_operation(rng, value)
        if drawn is None:
            return None
        op, other = drawn
        # The new number may stand on the left only where the inner part is still the one to be worked out first.
        flipped = rng.random() < 0.4 and (op == "*") == (outer in ("+", "-")) and op != "/"
        needs_brackets = (outer in ("+", "-") and (op in "*/")) or (op == "/" and outer == "/")
        inner = f"({text})" if needs_brackets else text
        text = f"{other}{op}{inner}" if flipped else f"{inner}{op}{other}"
        value = OPERATIONS[op](*((other, value) if flipped else (value, other)))
        operations.append((op, other, flipped))
        outer = op
        if abs(value) > 200:
            return None
    return text, operations


def _run(do: Do, value: Value, operations: list[Operation]) -> Value:
    for op, other, flipped in operations:
        a, b = (other, value) if flipped else (value, other)
        left = plain(a) if op in "+-" else operand(a)
        value = do(f"{left}{op}{operand(b)}", OPERATIONS[op](a, b))
    return value


def compute(rng: random.Random, level: int) -> Drawn:
    """An expression to evaluate."""
    start = rng.randint(2, 60 if level == 1 else 25)
    made = _arithmetic(rng, level, start)
    if made is None:
        return None
    text, operations = made
    verb = rng.choice(("Compute", "Evaluate", "What is"))
    return f"{verb} {text}{'?' if verb == 'What is' else '.'}", lambda do: _run(do, start, operations)


NAMES = ("Ana", "Ben", "Eva", "Leo", "Mia", "Tom")
THINGS = ("apples", "books", "coins", "pens", "shells", "stamps")


def story(rng: random.Random, level: int) -> Drawn:
    """Somebody gains and loses things."""
    start = rng.randint(3, 60)
    value, operations, sentences = start, [], []
    for _ in range(level):
        kind = rng.choice(("gets", "loses", "doubles", "triples", "shares"))
        other = {"doubles": 2, "triples": 3, "shares": rng.randint(2, 6)}.get(kind) or rng.randint(2, 40)
        op = {"gets": "+", "loses": "-", "shares": "/"}.get(kind, "*")
        if (op == "/" and (value % other or value == 0)) or (op == "*" and value > 60) or (op == "-" and other > value):
            return None
        value = OPERATIONS[op](value, other)
        operations.append((op, other, False))
        sentences.append({
            "gets": f"gets {other} more", "loses": f"loses {other}", "doubles": "doubles them",
            "triples": "triples them", "shares": f"splits them into {other} equal parts and keeps one",
        }[kind])  # fmt: skip
        if value > 200:
            return None
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    text = f"{name} has {start} {thing}, {', then '.join(sentences)}. How many {thing} does {name} have now?"
    return text, lambda do: _run(do, start, operations)


def fraction_sum(rng: random.Random, level: int) -> Drawn:
    """Two fractions to add or subtract, on levels 4 and 5."""
    if level < 4:
        return None
    a, b, c, d = rng.randint(1, 5), rng.randint(2, 9), rng.randint(1, 5), rng.randint(2, 9)
    op = rng.choice("+-")
    total = OPERATIONS[op](Fraction(a, b), Fraction(c, d))
    reducible = total.denominator != b * d
    if b == d or a >= b or c >= d or reducible != (level == 5) or total.denominator == 1:
        return None

    def solve(do):
        left, right = do(f"{a}*{d}", a * d), do(f"{c}*{b}", c * b)
        top = do(f"{left}{op}{right}", OPERATIONS[op](left, right))
        bottom = do(f"{b}*{d}", b * d)
        return do(f"{top}/{bottom}", tidy(Fraction(top, bottom))) if reducible else tidy(Fraction(top, bottom))

    return f"{rng.choice(('Compute', 'Evaluate'))} {a}/{b}{op}{c}/{d} as one fraction.", solve


# --- Algebra -------------------------------------------------------------------------------------------------


def linear_equation(rng: random.Random, level: int) -> Drawn:
    """One linear equation in x."""
    x = rng.randint(-12, 20)
    a, b, c = rng.randint(2, 9), rng.choice((-1, 1)) * rng.randint(1, 20), rng.randint(2, 9)
    if level == 1:
        if rng.random() < 0.5:
            total = rng.randint(2, 90)
            return f"Solve for x: x{signed(b)}={total}.", lambda do: do(f"{total}{signed(-b)}", total - b)
        total = rng.randint(2, 90)
        return f"Solve for x: {a}x={total}.", lambda do: do(f"{total}/{a}", tidy(Fraction(total, a)))
    if level == 2:
        total = a * x + b + (rng.randint(1, a - 1) if rng.random() < 0.15 else 0)
        text = f"{a}x{signed(b)}={total}"

        def solve(do):
            rest = do(f"{total}{signed(-b)}", total - b)
            return do(f"{operand(rest)}/{a}", tidy(Fraction(rest, a)))

    elif level == 3:
        total = a * (x + b) + c
        text = f"{a}(x{signed(b)})+{c}={total}"

        def solve(do):
            rest = do(f"{total}-{c}", total - c)
            inner = do(f"{operand(rest)}/{a}", tidy(Fraction(rest, a)))
            return do(f"{plain(inner)}{signed(-b)}", tidy(Fraction(inner) - b))

    else:
        d = rng.randint(1, 8)
        if d >= a:
            return None
        e = rng.randint(1, 20) if level == 5 else 0
        total = a * (x + b) + e - d * x
        text = f"{a}(x{signed(b)}){signed(e) if e else ''}={polynomial((d, total))}"

        def solve(do):
            constant = do(f"{a}*{operand(b)}", a * b)
            if e:
                constant = do(f"{constant}{signed(e)}", constant + e)
            rest = do(f"{total}-{operand(constant)}", total - constant)
            slope = do(f"{a}-{d}", a - d)
            return do(f"{operand(rest)}/{slope}", tidy(Fraction(rest, slope)))

    return f"Solve for x: {text}.", solve


# --- Number Theory -------------------------------------------------------------------------------------------


def remainder(rng: random.Random, level: int) -> Drawn:
    """The remainder of an expression; below 100, since a division with remainder is the hardest single step."""
    modulus = rng.randint(3, 9)
    if level == 1:
        number = rng.randint(11, 99)
        return (f"What is the remainder when {number} is divided by {modulus}?",
                lambda do: do(f"{number} mod {modulus}", number % modulus))  # fmt: skip
    start = rng.randint(2, 25)
    made = _arithmetic(rng, level - 1, start)
    if made is None or not 0 <= _run(lambda _, value: value, start, made[1]) < 100:
        return None
    text, operations = made

    def solve(do):
        value = _run(do, start, operations)
        return do(f"{plain(value)} mod {modulus}", value % modulus)

    return f"What is the remainder when {text} is divided by {modulus}?", solve


def common_divisor(rng: random.Random, level: int) -> Drawn:
    """A greatest common divisor by Euclid's algorithm, a step a division."""
    factor = rng.choice((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12))
    a, b = factor * rng.randint(2, 30), factor * rng.randint(2, 20)
    steps, (big, small) = 0, (a, b)
    while small:
        steps, (big, small) = steps + 1, (small, big % small)
    if a <= b or a > 200 or steps != level:
        return None

    def solve(do):
        big, small = a, b
        while small:
            big, small = small, do(f"{big} mod {small}", big % small)
        return big

    return f"Find the greatest common divisor of {a} and {b}.", solve
