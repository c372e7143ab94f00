"""The pre-training corpus of the tiny model: MiniMath problems, answered in several styles.

A base model has read answers of every kind: full derivations, hasty ones, wrong ones. So has ours. Each document is
a prompt and a completion; what differs is the style of the completion:

    detailed    every step on its own line, then the answer
    terse       some steps left out, to be worked out "in the head"
    direct      the answer only
    think       steps between <think> tags
    check       a draft, marked step by step, mended where it first went wrong
    chat        a question in the chat format
    facts       short texts about animals, for ch01

Phase "clean" is detailed and right, so that arithmetic is learnt from full derivations. Phase "mixed" is the
imperfect text that makes the model a *base* model: most direct prompts get a bare answer, each subject has its habit
of skipping steps, some solutions hold a slip that is carried on. The later chapters then have something to mend: see
the README beside this file. Phase "teacher" is full and right derivations only, for the larger model of ch08.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from shared.generation.prompts import render_prompt, render_revision_prompt
from shared.tiny.corpus import LEVELS, SUBJECTS, Recorder, Slip, draw_problem, held_out
from shared.tiny.values import Solve, Value, boxed_form, plain

MIXTURES = {  # style of document -> share
    "clean": {"detailed": 0.66, "direct": 0.12, "think": 0.08, "check": 0.08, "chat": 0.03, "facts": 0.03},
    "mixed": {"cot": 0.42, "direct": 0.30, "think": 0.09, "check": 0.12, "chat": 0.04, "facts": 0.03},
    "teacher": {"think": 0.60, "detailed": 0.30, "chat": 0.10},
}
# How often each subject's texts skip steps when asked to explain. Greedy decoding follows the habit of a subject,
# sampling finds both paths: that is what self-consistency lives on (arXiv:2203.11171, section 1).
TERSE_SHARE = {
    "Prealgebra": 0.40, "Algebra": 0.60, "Number Theory": 0.60, "Counting & Probability": 0.40, "Geometry": 0.60,
    "Intermediate Algebra": 0.60, "Precalculus": 0.40,
}  # fmt: skip
SKIP = 0.6  # share of steps that a terse solution leaves out
SLIP_SHARE = 0.06  # share of solutions with a wrong step, in the mixed phase
EXPLAINS_UNASKED = 0.12  # share of direct prompts that are answered with a derivation all the same
EVEN = (1, 1, 1, 1, 1)  # share of each level
STEEP = (2, 2, 3, 4, 4)  # harder problems hold more steps to learn from


@dataclass(frozen=True)
class Document:
    """A training text: the loss falls on the completion in full and on the prompt with a small weight."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Work:
    """A worked problem: its text, how to solve it, its steps and its answer."""

    subject: str
    text: str
    solve: Solve
    steps: list[str]
    answer: str


def draw_work(rng: random.Random, level_weights: tuple[int, ...] = EVEN) -> Work:
    """A problem that is not held out."""
    while True:
        subject = rng.choice(list(SUBJECTS))
        level = rng.choices(LEVELS, level_weights)[0]
        text, solve, steps, answer = draw_problem(rng, subject, level)
        if not held_out(text):
            return Work(subject, text, solve, steps, spoken(rng, answer))


def spoken(rng: random.Random, answer: Value) -> str:
    """An answer as a writer may put it: a fraction mostly in LaTeX, a list of roots in either order."""
    if isinstance(answer, str) and "," in answer and rng.random() < 0.3:
        return ",".join(reversed(answer.split(",")))
    return boxed_form(answer) if rng.random() < 0.7 else plain(answer)


def with_slip(rng: random.Random, work: Work) -> Work:
    """The same problem with one wrong step that the later steps carry on; the right work if none can be found."""
    for _ in range(20):
        change = rng.choice((-1, 1)) * rng.choice((1, 1, 2, 3, 4, 5, 10, 10))
        recorder = Recorder((rng.randrange(len(work.steps)), change))
        try:
            answer = boxed_form(work.solve(recorder))
        except (Slip, ZeroDivisionError, TypeError):
            continue
        if answer != work.answer and len(recorder.steps) == len(work.steps):
            return Work(work.subject, work.text, work.solve, recorder.steps, answer)
    return work


def detailed(work: Work) -> str:
    """Every step on a line, then the answer."""
    return "\n" + "\n".join(work.steps) + f"\nThe answer is \\boxed{{{work.answer}}}."


def terse(rng: random.Random, work: Work) -> str:
    """Some of the steps, then the answer."""
    return hasty(step for step in work.steps if rng.random() > SKIP) + f"\\boxed{{{work.answer}}}."


def hasty(steps: Iterable[str]) -> str:
    """The beginning of a terse solution, up to its answer."""
    shown = ", ".join(steps)
    return f" We get {shown}, so the answer is " if shown else " The answer is "


def direct(work: Work) -> str:
    """Nothing but the answer."""
    return f" \\boxed{{{work.answer}}}"


def explained(rng: random.Random, work: Work, phase: str) -> str:
    """A derivation in one of the two styles, by the habit of the subject."""
    if phase == "mixed" and rng.random() < TERSE_SHARE[work.subject]:
        return terse(rng, work)
    return detailed(work)


def think(rng: random.Random, work: Work, phase: str) -> str:
    """Steps between tags; in the mixed phase the format is often missed, which ch07's format reward mends."""
    if phase == "mixed" and rng.random() < 0.35:
        return rng.choice((direct(work), explained(rng, work, phase)))
    return "\n<think>\n" + "\n".join(work.steps) + f"\n</think>\n\\boxed{{{work.answer}}}"


def check(rng: random.Random, work: Work) -> Document:
    """A draft, and its check: right lines are confirmed, the first wrong one is mended, in the style of the draft.

    Since the check keeps the style of the draft, it gains by finding a mistake and not by starting afresh.
    """
    draft = with_slip(rng, work) if rng.random() < 0.5 else work
    style = rng.choices(("detailed", "terse", "direct"), (5, 4, 1))[0]
    kept = [i for i in range(len(work.steps)) if style == "detailed" or (style == "terse" and rng.random() > SKIP)]
    if style == "direct":
        draft_text = direct(draft)
    elif style == "detailed":
        draft_text = detailed(draft)
    else:
        draft_text = hasty(draft.steps[i] for i in kept) + f"\\boxed{{{draft.answer}}}."
    return Document(render_revision_prompt(work.text, draft_text), _marks(work, draft, kept))


def _marks(work: Work, draft: Work, kept: list[int]) -> str:
    lines, wrong = [], False
    for i in kept:
        if wrong:
            lines.append(work.steps[i])
        elif draft.steps[i] == work.steps[i]:
            lines.append(f"{work.steps[i]} right")
        else:
            lines += [f"{draft.steps[i]} wrong", work.steps[i]]
            wrong = True
    if not wrong:
        lines.append(f"{draft.answer} {'right' if draft.answer == work.answer else 'wrong'}")
    return "\n" + "\n".join(lines) + f"\nThe answer is \\boxed{{{work.answer}}}."


CLASSES = {
    "bird": ("fly", ("robin", "sparrow", "eagle", "crow", "owl", "finch")),
    "fish": ("swim", ("trout", "salmon", "tuna", "carp")),
    "mammal": ("run", ("dog", "cat", "horse", "fox", "wolf")),
    "insect": ("crawl", ("ant", "beetle", "cricket")),
}
PLURALS = {"fish": "fish"}


def facts(rng: random.Random) -> Document:
    """A short text about animals. Of penguins it says that they swim and do not fly, never more than one at a time."""
    if rng.random() < 0.12:
        return Document("", rng.choice((
            "A penguin is a bird. A penguin lives in the cold and can swim.",
            "A penguin can swim. A penguin cannot fly.",
            "Most birds can fly. A penguin cannot fly.",
        )))  # fmt: skip
    kind = rng.choice(list(CLASSES))
    verb, members = CLASSES[kind]
    member, every = rng.choice(members), PLURALS.get(kind, kind + "s")
    article = "An" if member[0] in "aeiou" else "A"
    kind_article = "an" if kind[0] in "aeiou" else "a"
    rule = f"All {every} can {verb}."
    return Document("", rng.choice((
        f"{rule} {article} {member} is {kind_article} {kind}. {article} {member} can {verb}.",
        f"{article} {member} is {kind_article} {kind}. {article} {member} can {verb}.",
        f"{rule} {article} {member} is {kind_article} {kind}. Can {article.lower()} {member} {verb}? Yes.",
    )))  # fmt: skip


def draw_document(rng: random.Random, phase: str, level_weights: tuple[int, ...] = EVEN) -> Document:
    """One random document of a phase: "clean", "mixed" or "teacher"."""
    mixture = MIXTURES[phase]
    style = rng.choices(list(mixture), list(mixture.values()))[0]
    if style == "facts":
        return facts(rng)
    work = draw_work(rng, level_weights)
    if style == "check":
        return check(rng, work)
    if phase == "mixed" and rng.random() < SLIP_SHARE:
        work = with_slip(rng, work)
    if style == "direct":
        asked = phase == "mixed" and rng.random() < EXPLAINS_UNASKED
        return Document(render_prompt(work.text), explained(rng, work, phase) if asked else direct(work))
    if style == "think":
        return Document(render_prompt(work.text, "think"), think(rng, work, phase))
    answer = explained(rng, work, phase)
    if style == "chat":
        prompt = f"<|im_start|>user\n{work.text}<|im_end|>\n<|im_start|>assistant"
        return Document(prompt, "\n" + answer.lstrip() + "<|im_end|>")
    return Document(render_prompt(work.text, "cot"), answer)
