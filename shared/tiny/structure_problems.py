"""MiniMath templates about counting, points, functions, polynomials and vectors."""

import random
from fractions import Fraction

from shared.tiny.values import Drawn, operand, plain, polynomial, signed, tidy

# --- Counting & Probability ----------------------------------------------------------------------------------


def one_draw(rng: random.Random, level: int) -> Drawn:
    """The probability of a colour, drawing one ball."""
    if level > 4:
        return None
    colours = rng.sample(("red", "blue", "green", "white", "black"), 4)
    counts = [rng.randint(2, 15) for _ in range(level if level > 1 else 2)]
    negated = level == 4
    counts = counts[:3] if negated else counts
    if level == 1:
        total = sum(counts) + rng.randint(0, 9)
        text = f"A box holds {total} balls, {counts[0]} of them {colours[0]}. One ball is drawn."
    else:
        listed = [f"{n} {c}" for n, c in zip(counts, colours, strict=False)]
        text = f"A box holds {', '.join(listed[:-1])} and {listed[-1]} balls. One ball is drawn."

    def solve(do):
        whole = total if level == 1 else counts[0]
        for n in () if level == 1 else counts[1:]:
            whole = do(f"{whole}+{n}", whole + n)
        wanted = do(f"{whole}-{counts[0]}", whole - counts[0]) if negated else counts[0]
        return do(f"{wanted}/{whole}", tidy(Fraction(wanted, whole)))

    return f"{text} Find the probability that it is {'not ' if negated else ''}{colours[0]}.", solve


def two_draws(rng: random.Random, level: int) -> Drawn:
    """The probability of one colour twice, on levels 4 (put back) and 5 (kept)."""
    if level not in (4, 5):
        return None
    total, red = rng.randint(5, 15), rng.randint(2, 9)
    if red >= total:
        return None
    colour = rng.choice(("red", "blue", "green", "white", "black"))
    back = level == 4
    other = rng.randint(2, 9)
    total = red + other if back else total

    def solve(do):
        if back:
            whole = do(f"{red}+{other}", red + other)
            top, bottom = do(f"{red}*{red}", red * red), do(f"{whole}*{whole}", whole * whole)
        else:
            second, rest = do(f"{red}-1", red - 1), do(f"{total}-1", total - 1)
            top, bottom = do(f"{red}*{second}", red * second), do(f"{total}*{rest}", total * rest)
        return do(f"{top}/{bottom}", tidy(Fraction(top, bottom)))

    what = f"{red} {colour} and {other} other balls" if back else f"{total} balls, {red} of them {colour}"
    how = "put back, and a second is drawn" if back else "kept, and a second is drawn"
    return (f"A box holds {what}. A ball is drawn and {how}. Find the probability that both are {colour}.", solve)


def committees(rng: random.Random, level: int) -> Drawn:
    """Choosing one of each kind, or two of one kind, on levels 1 and 2."""
    if level not in (1, 2):
        return None
    n, k = rng.randint(3, 20), rng.randint(2, 20)
    if level == 1:
        pair = rng.choice((("shirts", "hats"), ("soups", "cakes"), ("roads", "bridges")))
        text = f"In how many ways can one choose one of {n} {pair[0]} and one of {k} {pair[1]}?"
        return text, lambda do: do(f"{n}*{k}", n * k)
    people = rng.choice(("players", "pupils", "singers", "cards", "cities", "flags"))

    def solve(do):
        ordered = do(f"{n}*{n - 1}", n * (n - 1))
        return do(f"{ordered}/2", tidy(Fraction(ordered, 2)))

    return f"In how many ways can one choose two of {n} {people}?", solve


# --- Geometry ------------------------------------------------------------------------------------------------


def moved_point(rng: random.Random, level: int) -> Drawn:
    """A point that is shifted, reflected and stretched."""
    point = (rng.randint(-9, 9), rng.randint(-9, 9))
    moves, words, last = [], [], None
    for _ in range(level):
        kind = rng.choice([k for k in ("shift", "shift", "x-axis", "y-axis", "stretch") if k != last or k == "shift"])
        last = kind
        amount = (rng.randint(-9, 9), rng.randint(-9, 9)) if kind == "shift" else rng.randint(2, 4)
        moves.append((kind, amount))
        words.append({"shift": f"shifted by {plain(amount)}", "stretch": f"stretched by {amount}"}.get(kind)
                     or f"reflected in the {kind}")  # fmt: skip

    def solve(do):
        x, y = point
        for kind, amount in moves:
            if kind == "shift":
                x, y = do(f"({x},{y})+{plain(amount)}", (x + amount[0], y + amount[1]))
            elif kind == "stretch":
                x, y = do(f"{amount}*({x},{y})", (amount * x, amount * y))
            else:
                x, y = do(f"{kind} ({x},{y})", (x, -y) if kind == "x-axis" else (-x, y))
        return x, y

    return f"The point {plain(point)} is {', then '.join(words)}. Where is it now?", solve


def rectangle(rng: random.Random, level: int) -> Drawn:
    """Area and perimeter of a rectangle, on levels 1 to 3."""
    if level > 3:
        return None
    w, h = rng.randint(2, 30), rng.randint(2, 30)
    if level == 1:
        if min(w, h) > 9:
            return None
        return f"Find the area of a rectangle with sides {w} and {h}.", lambda do: do(f"{w}*{h}", w * h)
    if level == 2:

        def solve(do):
            half = do(f"{w}+{h}", w + h)
            return do(f"2*{half}", 2 * half)

        return f"Find the perimeter of a rectangle with sides {w} and {h}.", solve
    if min(w, h) > 9:
        return None

    def solve(do):
        half = do(f"{2 * (w + h)}/2", w + h)
        other = do(f"{half}-{w}", half - w)
        return do(f"{w}*{operand(other)}", w * other)

    return f"A rectangle with perimeter {2 * (w + h)} has one side {w}. Find its area.", solve


# --- Intermediate Algebra ------------------------------------------------------------------------------------


def functions(rng: random.Random, level: int) -> Drawn:
    """Nested calls of linear functions."""
    a = rng.randint(2, 6)
    b, d = (rng.choice((-1, 1)) * rng.randint(1, 15) for _ in range(2))
    x = rng.randint(-5, 12)
    if level == 1:
        x = rng.randint(2, 60)
        return f"Let f(x)=x{signed(b)}. Find f({x}).", lambda do: do(f"{x}{signed(b)}", x + b)
    calls = {2: "f", 3: "fg", 4: "ff", 5: "ffg"}[level]

    def solve(do):
        value = x
        for name in calls:
            if name == "f":
                product = do(f"{a}*{operand(value)}", a * value)
                value = do(f"{product}{signed(b)}", product + b)
            else:
                value = do(f"{plain(value)}{signed(d)}", value + d)
        return value

    text = f"Let f(x)={a}x{signed(b)}" + (f" and g(x)=x{signed(d)}" if "g" in calls else "")
    nested = "".join(f"{name}(" for name in reversed(calls)) + str(x) + ")" * len(calls)
    return f"{text}. Find {nested}.", solve


def expand(rng: random.Random, level: int) -> Drawn:
    """A product to expand or a sum to collect, on levels 1 to 4."""
    a, b = (rng.choice((-1, 1)) * rng.randint(1, 12) for _ in range(2))
    p, k = rng.randint(2, 6), rng.randint(2, 6)

    def solve(do):
        if level == 1:
            return polynomial((p, do(f"{p}*{operand(a)}", p * a)))
        if level == 2:
            middle, last = do(f"{a}{signed(b)}", a + b), do(f"{operand(a)}*{operand(b)}", a * b)
            return polynomial((1, middle, last))
        if level == 3:
            middle = do(f"{p}*{operand(b)}", p * b)
            middle = do(f"{middle}{signed(a)}", middle + a)
            return polynomial((p, middle, do(f"{operand(a)}*{operand(b)}", a * b)))
        left, right = do(f"{p}*{operand(a)}", p * a), do(f"{k}*{operand(b)}", k * b)
        slope = do(f"{p}+{k}", p + k)
        return polynomial((slope, do(f"{left}{signed(right)}", left + right)))

    if level == 4:
        return f"Simplify {p}(x{signed(a)})+{k}(x{signed(b)}).", solve
    text = {1: f"{p}(x{signed(a)})", 2: f"(x{signed(a)})(x{signed(b)})", 3: f"({p}x{signed(a)})(x{signed(b)})"}
    return (f"Expand {text[level]}.", solve) if level in text else None


def quadratic(rng: random.Random, level: int) -> Drawn:
    """Both roots of a quadratic, on level 2."""
    if level != 2:
        return None
    r, s = sorted((rng.randint(-9, 9), rng.randint(-9, 9)))
    if r == s or r * s == 0:
        return None

    def solve(do):
        do(f"{r}{signed(s)}", r + s)
        do(f"{operand(r)}*{operand(s)}", r * s)
        return f"{r},{s}"

    return f"Find both roots of {polynomial((1, -(r + s), r * s))}=0.", solve


# --- Precalculus ---------------------------------------------------------------------------------------------


def vectors(rng: random.Random, level: int) -> Drawn:
    """Sums, multiples and dot products of vectors."""
    size = 3 if level == 5 else 2
    u, v = (tuple(rng.randint(-9, 9) for _ in range(size)) for _ in range(2))
    k, extra = rng.randint(2, 6), rng.randint(1, 20)
    add = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))  # noqa: E731
    if level == 1:
        return f"Add the vectors {plain(u)} and {plain(v)}.", lambda do: do(f"{plain(u)}+{plain(v)}", add(u, v))
    if level == 2:

        def solve(do):
            scaled = do(f"{k}*{plain(u)}", tuple(k * x for x in u))
            return do(f"{plain(scaled)}+{plain(v)}", add(scaled, v))

        return f"Find the vector {k}*{plain(u)}+{plain(v)}.", solve

    def solve(do):
        products = [do(f"{operand(x)}*{operand(y)}", x * y) for x, y in zip(u, v, strict=True)]
        total = products[0]
        for p in products[1:] + ([extra] if level == 4 else []):
            total = do(f"{plain(total)}+{operand(p)}", total + p)
        return total

    more = f" plus {extra}" if level == 4 else ""
    return f"Find the dot product of {plain(u)} and {plain(v)}{more}.", solve


def complex_numbers(rng: random.Random, level: int) -> Drawn:
    """Sums of multiples of complex numbers, on levels 1 to 3."""
    z, w = (complex(rng.randint(-9, 9), rng.choice((-1, 1)) * rng.randint(1, 9)) for _ in range(2))
    k, m = rng.randint(2, 5), rng.randint(2, 5)
    if level > 3 or z.real == 0 or w.real == 0:
        return None

    def solve(do):
        left = do(f"{k}*({plain(z)})", k * z) if level > 1 else z
        right = do(f"{m}*({plain(w)})", m * w) if level > 2 else w
        return do(f"({plain(left)})+({plain(right)})", left + right)

    scale = {1: ("", ""), 2: (f"{k}*", ""), 3: (f"{k}*", f"{m}*")}[level]
    return f"Add the complex numbers {scale[0]}({plain(z)}) and {scale[1]}({plain(w)}).", solve


def determinant(rng: random.Random, level: int) -> Drawn:
    """The determinant of a 2 x 2 matrix, on levels 3 and 4."""
    if level not in (3, 4):
        return None
    a, b, c, d = (rng.randint(-9, 9) for _ in range(4))
    k = rng.randint(2, 5)

    def solve(do):
        main, other = do(f"{operand(a)}*{operand(d)}", a * d), do(f"{operand(b)}*{operand(c)}", b * c)
        value = do(f"{main}-{operand(other)}", main - other)
        return do(f"{k}*{operand(value)}", k * value) if level == 4 else value

    times = f"{k} times " if level == 4 else ""
    return f"Find {times}the determinant of the matrix with rows {plain((a, b))} and {plain((c, d))}.", solve
