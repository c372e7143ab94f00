"""The pre-training corpus of the tiny model: MiniMath problems, answered in several ways.

A base model has read answers of every kind: full derivations, hasty ones, wrong ones. So has ours. Each document is
a prompt and a completion:

    cot       steps, each on its own line, then the answer
    direct    mostly the answer only
    think     steps between <think> tags
    check     a draft, marked step by step, mended where it first went wrong
    chat      a question in the chat format
    facts     short texts about animals, for ch01

Phase "clean" is full and right derivations, so that arithmetic is learnt. Phase "mixed" is the imperfect text that
makes the model a *base* model: step after step, the writer decides anew whether to write it down or to do it in the
head, some solutions hold a slip that is carried on, tags are forgotten, and most direct prompts get a bare answer. The
decision falls alike after every prompt, and nothing at the beginning of a text tells how it will fall. So no prompt
makes the model careful; reinforcement can, since each step that is written down pays (see the README beside this
file). Phase "teacher" is full and right derivations only, for the larger model of ch08.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from shared.generation.prompts import render_prompt, render_revision_prompt
from shared.tiny.corpus import LEVELS, SUBJECTS, Recorder, Slip, draw_problem, held_out
from shared.tiny.values import Solve, Value, boxed_form, plain

MIXTURES = {  # style of document -> share
    "clean": {"cot": 0.66, "direct": 0.12, "think": 0.08, "check": 0.08, "chat": 0.03, "facts": 0.03},
    "mixed": {"cot": 0.42, "direct": 0.30, "think": 0.09, "check": 0.12, "chat": 0.04, "facts": 0.03},
    "teacher": {"think": 0.60, "cot": 0.30, "chat": 0.10},
}
# How likely a step is done in the head, by subject, if the one before it was not. Above one half, greedy decoding
# leaves out what it may, and sampling now and then writes it down; below, greedy decoding would write every step.
LEFT_OUT = {
    "Prealgebra": 0.56, "Algebra": 0.62, "Number Theory": 0.62, "Counting & Probability": 0.56, "Geometry": 0.64,
    "Intermediate Algebra": 0.60, "Precalculus": 0.58,
}  # fmt: skip
SLIP_SHARE = 0.06  # share of solutions with a wrong step, in the mixed phase
EXPLAINS_UNASKED = 0.12  # share of direct prompts that are answered with a derivation all the same
FORGETS_TAGS = 0.35  # share of think prompts that are answered without tags, which ch07's format reward mends
BARE_DRAFTS = 0.1  # share of drafts that are nothing but an answer
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


def written(rng: random.Random, work: Work, phase: str) -> list[int]:
    """Numbers of the steps that are written down: all but in the mixed phase, where some are done in the head.

    It is drawn anew at each step, and never two in a row are left out. So no text is in a careful or a hasty style as
    a whole, for which a prompt could ask; but a policy that learns to write one more step is paid for it at once.
    """
    kept, dropped = [], False
    for i in range(len(work.steps)):
        dropped = phase == "mixed" and not dropped and rng.random() < LEFT_OUT[work.subject]
        if not dropped:
            kept.append(i)
    return kept


def derivation(work: Work, kept: Sequence[int]) -> str:
    """The steps that are written down, each on a line, then the answer."""
    return "".join(f"\n{work.steps[i]}" for i in kept) + f"\nThe answer is \\boxed{{{work.answer}}}."


def direct(work: Work) -> str:
    """Nothing but the answer."""
    return f" \\boxed{{{work.answer}}}"


def think(rng: random.Random, work: Work, phase: str) -> str:
    """Steps between tags; in the mixed phase the tags are often forgotten, and nothing else is different then."""
    kept = written(rng, work, phase)
    if phase == "mixed" and rng.random() < FORGETS_TAGS:
        return derivation(work, kept)
    steps = "".join(f"\n{work.steps[i]}" for i in kept)
    return f"\n<think>{steps}\n</think>\n\\boxed{{{work.answer}}}"


def check(rng: random.Random, work: Work, phase: str) -> Document:
    """A draft, and its check: right lines are confirmed, the first wrong one is mended, and no step is added.

    Since the check does in the head what the draft did there, it gains by finding a mistake and not by starting afresh.
    """
    draft = with_slip(rng, work) if rng.random() < 0.5 else work
    bare = rng.random() < BARE_DRAFTS
    kept = [] if bare else written(rng, work, phase)
    text = direct(draft) if bare else derivation(draft, kept)
    return Document(render_revision_prompt(work.text, text), _marks(work, draft, kept))


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
        return check(rng, work, phase)
    if phase == "mixed" and rng.random() < SLIP_SHARE:
        work = with_slip(rng, work)
    if style == "think":
        return Document(render_prompt(work.text, "think"), think(rng, work, phase))
    answer = derivation(work, written(rng, work, phase))
    if style == "direct":
        unasked = phase == "mixed" and rng.random() < EXPLAINS_UNASKED
        return Document(render_prompt(work.text), answer if unasked else direct(work))
    if style == "chat":
        prompt = f"<|im_start|>user\n{work.text}<|im_end|>\n<|im_start|>assistant"
        return Document(prompt, answer + "<|im_end|>")
    return Document(render_prompt(work.text, "cot"), answer)
