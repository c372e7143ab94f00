"""MiniMath: small problems in the format of MATH-500, from a seed.

A template is a function `(rng, level) -> (text, solve)`. `solve(do)` works the problem and calls
`do(left, value)` once for every step; `do` writes the step down and hands the value back. The level of a problem
is the number of its steps. Whoever calls `solve` decides what `do` is: the plain one records a solution, another
one makes a mistake on purpose that the later steps then carry on (`documents.py` needs wrong drafts).

One problem in eight is held out, by a hash of its text: held-out problems fill the test set and any fresh draw
of `generate_minimath`, and never occur in the training set or in the pre-training corpus.
"""

import hashlib
import random
from collections.abc import Callable
from fractions import Fraction

from shared.tiny import number_problems as numbers
from shared.tiny import structure_problems as structures
from shared.tiny.values import Drawn, Solve, Value, boxed_form, plain, tidy

Template = Callable[[random.Random, int], Drawn]

LEVELS = (1, 2, 3, 4, 5)
LARGEST = 400  # no number in a problem or its solution is larger: the tiny model has 1 to 3 digits to learn
SUBJECTS: dict[str, tuple[Template, ...]] = {
    "Prealgebra": (numbers.compute, numbers.compute, numbers.story, numbers.fraction_sum),
    "Algebra": (numbers.linear_equation,),
    "Number Theory": (numbers.remainder, numbers.common_divisor),
    "Counting & Probability": (structures.one_draw, structures.two_draws, structures.committees),
    "Geometry": (structures.moved_point, structures.rectangle),
    "Intermediate Algebra": (structures.functions, structures.expand, structures.quadratic),
    "Precalculus": (structures.vectors, structures.complex_numbers, structures.determinant),
}


class Slip(Exception):
    """A solution ran out of the range of numbers, or divided by zero, after a mistake."""


class Recorder:
    """The plain `do`: writes each step down. `slip` = (step, change) makes one mistake on purpose."""

    def __init__(self, slip: tuple[int, int] | None = None):
        self.steps: list[str] = []
        self.slip = slip

    def __call__(self, left: str, value: Value) -> Value:
        """Record the step `left=value`; return the value, changed where the slip is due. May raise Slip."""
        if self.slip and len(self.steps) == self.slip[0]:
            value = _changed(value, self.slip[1])
        if _size(value) > LARGEST:
            raise Slip
        self.steps.append(f"{left}={plain(value)}")
        return value


def _changed(value: Value, by: int) -> Value:
    if isinstance(value, tuple):
        return (value[0] + by, *value[1:]) if by % 2 else (*value[:-1], value[-1] + by)
    return tidy(value + by) if isinstance(value, Fraction) else value + by


def _size(value: Value) -> float:
    if isinstance(value, tuple):
        return max(_size(v) for v in value)
    if isinstance(value, Fraction):
        return max(abs(value.numerator), value.denominator)
    return abs(value)


def held_out(text: str) -> bool:
    """Whether this problem text belongs to the one in eight that no training ever sees."""
    return hashlib.sha256(text.encode()).digest()[0] % 8 == 0


def draw_problem(rng: random.Random, subject: str, level: int) -> tuple[str, Solve, list[str], Value]:
    """A random problem of one subject and level: its text, its solver, its steps and its answer."""
    while True:
        made = rng.choice(SUBJECTS[subject])(rng, level)
        if made is None:
            continue
        text, solve = made
        recorder = Recorder()
        try:
            answer = solve(recorder)
        except Slip:
            continue
        if len(recorder.steps) == level:
            return text, solve, recorder.steps, answer


def solution_text(steps: list[str], answer: str) -> str:
    """The detailed solution: a step a line, then the boxed answer."""
    return "\n".join(steps) + f"\nThe answer is \\boxed{{{answer}}}."


def generate_minimath(n: int, seed: int, split: str = "test") -> list[dict]:
    """Draw `n` MiniMath problems with distinct texts, deterministically from `seed`.

    `split="test"` draws from the held-out eighth of all problem texts, `split="train"` from the rest, so that no
    fresh test problem, whatever its seed, was seen in training. Subjects and levels are drawn uniformly.
    Fields as in MATH-500: problem, solution, answer, subject, level, unique_id.

    Raises ValueError if `split` is neither "train" nor "test", `n` is negative, or `n` distinct problems are not
    to be found.
    """
    if split not in ("train", "test"):
        raise ValueError(f"Unknown split {split!r}: use 'train' or 'test'.")
    if n < 0:
        raise ValueError(f"Cannot draw {n} problems: n must be at least 0.")
    rng = random.Random(f"minimath-{split}-{seed}")
    problems, seen, misses = [], set(), 0
    while len(problems) < n:
        subject, level = rng.choice(list(SUBJECTS)), rng.choice(LEVELS)
        text, _, steps, answer = draw_problem(rng, subject, level)
        if held_out(text) != (split == "test") or text in seen:
            misses += 1
            if misses > 10_000 + 100 * n:
                raise ValueError(f"Found only {len(problems)} distinct problems: ask for fewer than {n}.")
            continue
        seen.add(text)
        slug = subject.lower().replace(" & ", "_and_").replace(" ", "_")
        problems.append({
            "problem": text, "solution": solution_text(steps, boxed_form(answer)), "answer": boxed_form(answer),
            "subject": subject, "level": level, "unique_id": f"{split}/{slug}/{seed}-{len(problems)}.json",
        })  # fmt: skip
    return problems
