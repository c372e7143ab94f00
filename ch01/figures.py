"""The drawn figures of this chapter, sections 1.4 to 1.10, and the plan of the course that two of them show."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ch01.diagrams import TEXT_SIZE, arrow, box, canvas, label
from shared.plots import BLUE, GREEN, GREY, ORANGE, PURPLE


@dataclass(frozen=True)
class Chapter:
    """A chapter as the roadmap shows it: short title and its steps in order."""

    number: int
    title: str
    steps: tuple[str, str, str, str]


PARTS: dict[str, tuple[Chapter, ...]] = {
    "Foundations": (
        Chapter(1, "What reasoning is", ("chain of thought", "training stages", "logic or patterns", "costs")),
        Chapter(2, "Generating text", ("tokenise", "load a model", "generate loop", "KV cache")),
        Chapter(3, "Evaluating", ("judge or verifier", "find the answer", "parse and grade", "evaluate a set")),
    ),
    "At inference time": (
        Chapter(4, "Inference scaling", ("prompts", "temperature", "top-k, top-p", "self-consistency")),
        Chapter(5, "Self-refinement", ("score answers", "best of N", "draft and check", "controls")),
    ),
    "By training": (
        Chapter(6, "GRPO from scratch", ("rollouts", "rewards", "advantages", "loss and loop")),
        Chapter(7, "Improving GRPO", ("watch the run", "clip, KL, format", "variants", "ablations")),
        Chapter(8, "Distillation", ("teacher data", "mask prompts", "fine-tune", "the whole arc")),
    ),
}
PART_COLOURS = dict(zip(PARTS, (BLUE, ORANGE, GREEN), strict=True))


def row_of_boxes(
    axes: Axes,
    xs: Sequence[float],
    y: float,
    width: float,
    height: float,
    texts: Sequence[tuple[str, str]],
    colour: str,
) -> None:
    """Boxes beside each other; `texts` holds heading and text of each."""
    for x, (heading, text) in zip(xs, texts, strict=True):
        box(axes, x, y, width, height, text, colour, heading=heading)


def training_pipeline() -> Figure:
    """From random weights to an assistant, and where the reasoning methods join."""
    axes = canvas(4.9)
    columns, width = (0.1, 2.5, 4.9), 2.0
    stages = (
        ("1 Pre-training", "raw text, trillions of tokens:\npredict the next one"),
        ("2 Instruction tuning", "questions with answers:\nimitate the answers"),
        ("3 Preference tuning", "pairs of answers:\nprefer the one people like"),
    )
    models = (("", "base model (we start here)"), ("", "instruct model"), ("", "assistant"))
    methods = (
        ("Inference-time scaling", "more tokens a question\n(chapters 4 and 5)"),
        ("RL, verifiable rewards", "learn from own answers\n(chapters 6 and 7)"),
        ("Distillation", "learn from a teacher\n(chapter 8)"),
    )
    box(axes, 0.1, 4.45, width, 0.36, "random weights")
    arrow(axes, (1.1, 4.45), (1.1, 4.2))
    label(axes, 4.7, 4.63, "each stage goes on with the weights that the one before left")
    row_of_boxes(axes, columns, 3.45, width, 0.75, stages, BLUE)
    row_of_boxes(axes, columns, 2.75, width, 0.36, models, GREY)
    row_of_boxes(axes, columns, 1.2, width, 0.75, methods, ORANGE)
    for x in columns:
        arrow(axes, (x + 1, 3.45), (x + 1, 3.11))
        arrow(axes, (x + 1, 2.75), (x + 1, 2.52), dashed=True)
        arrow(axes, (x + 1, 2.2), (x + 1, 1.95), dashed=True)
    for x in columns[:2]:
        arrow(axes, (x + width, 2.93), (x + 2.2, 2.93), (x + 2.2, 3.82), (x + 2.4, 3.82))
    axes.plot((0.1, 6.9), (2.52, 2.52), color=GREY, linestyle="--", linewidth=1)
    axes.plot((0.1, 6.9), (2.2, 2.2), color=GREY, linestyle="--", linewidth=1)
    label(axes, 3.5, 2.36, "any of the three models may go on to any of the three methods")
    box(axes, 0.1, 0.3, 2.0, 0.5, "better answers,\nthe same weights", GREEN)
    box(axes, 2.5, 0.3, 4.4, 0.5, "new weights: answers with steps unasked", GREEN, heading="reasoning model")
    for x in columns:
        arrow(axes, (x + 1, 1.2), (x + 1, 0.8))
    arrow(axes, (2.5, 0.55), (2.3, 0.55), (2.3, 1.57), (2.1, 1.57), dashed=True)
    label(axes, 3.5, 0.12, "dashed, on the left: a reasoning model can be scaled at inference time as well", fontsize=9)
    return axes.figure


STAGE_ANSWERS = {
    "Untrained": "purple of of seven Tuesday, (the legs under %",
    "Base model": "How many legs do two dogs and a crow have? How many\nlegs do five ants have? Answers: see page 94.",
    "Instruct model": "14",
    "Assistant": "Three cats have 12 legs and a robin has 2, which makes\n14 legs in total. Shall we count on?",
    "Reasoning model": "<think> A cat has 4 legs, so 3*4=12. A robin is a bird:\n2 legs. 12+2=14. </think> 14",
}


def answers_after_stages() -> Figure:
    """What a model may write after each stage; an illustration, since no model produced the texts."""
    axes = canvas(4.35)
    box(axes, 0.1, 3.9, 6.8, 0.38, "How many legs do three cats and a robin have?", GREY, size=10.5)
    for row, (stage, text) in enumerate(STAGE_ANSWERS.items()):
        y = 3.2 - 0.68 * row
        box(axes, 0.1, y, 1.5, 0.58, heading=stage, colour=BLUE if row < 4 else ORANGE)
        box(axes, 1.95, y, 4.95, 0.58, text, BLUE if row < 4 else ORANGE, align="left")
        arrow(axes, (1.6, y + 0.29), (1.95, y + 0.29))
    label(axes, 3.5, 0.2, "An illustration: these texts were written by hand, no model produced them.", style="italic")
    return axes.figure


APPROACHES: dict[str, tuple[str, str, str]] = {
    "": ("Inference-time\nscaling", "Reinforcement learning,\nverifiable rewards", "Distillation"),
    "Idea": (
        "spend more tokens:\nsteps, votes, revisions",
        "reinforce own answers\nthat a program accepts",
        "imitate the solutions\nof a stronger model",
    ),
    "Weights": ("stay as they are", "change", "change"),
    "Data": ("none", "problems whose answer\ncan be checked", "problems with the\nteacher's solutions"),
    "Compute": (
        "at every question,\neach time anew",
        "once, but much of it:\nmany tries a problem",
        "once and little, after\nthe teacher has written",
    ),
    "Limit": ("what the model\ncan find at all", "tasks that a program\ncan check", "roughly the teacher"),
    "Here": ("chapters 4 and 5", "chapters 6 and 7", "chapter 8"),
}


def three_approaches() -> Figure:
    """Inference-time scaling, reinforcement learning and distillation, compared row by row."""
    axes = canvas(4.1)
    colours = (ORANGE, GREEN, PURPLE)
    for row, (name, cells) in enumerate(APPROACHES.items()):
        y = 3.5 - 0.57 * row
        if name:
            label(axes, 0.1, y + 0.25, name, ha="left", weight="bold")
        for column, (text, colour) in enumerate(zip(cells, colours, strict=True)):
            box(axes, 0.95 + 2.0 * column, y, 1.92, 0.5, text, colour, size=TEXT_SIZE if name else 10)
    return axes.figure


LOOPS = {
    "RLHF: is it liked?": ("any prompt", "reward model:\nlearned from pairs\nranked by people", "a score:\n0.73", BLUE),
    "RLVR: is it right?": (
        "a problem",
        "verifier: a program\nthat compares with\nthe known answer",
        "right: 1\nwrong: 0",
        GREEN,
    ),
}


def rlhf_and_rlvr() -> Figure:
    """The two loops of reinforcement learning for language models, alike but for who judges."""
    axes = canvas(3.9)
    for (name, (prompt, judge, reward, colour)), y in zip(LOOPS.items(), (2.15, 0.2), strict=True):
        label(axes, 0.1, y + 1.55, name, ha="left", weight="bold", fontsize=11)
        box(axes, 0.1, y + 0.6, 1.0, 0.7, prompt)
        box(axes, 1.45, y + 0.6, 0.95, 0.7, "language\nmodel", ORANGE)
        box(axes, 2.75, y + 0.6, 0.95, 0.7, "several\nanswers")
        box(axes, 4.05, y + 0.6, 1.6, 0.7, judge, colour)
        box(axes, 6.0, y + 0.6, 0.9, 0.7, reward, colour)
        for x in (1.1, 2.4, 3.7, 5.65):
            arrow(axes, (x, y + 0.95), (x + 0.35, y + 0.95))
        arrow(axes, (6.45, y + 0.6), (6.45, y + 0.28), (1.92, y + 0.28), (1.92, y + 0.6))
        label(axes, 4.2, y + 0.13, "update the weights: rewarded answers become likelier")
    axes.plot((0.1, 6.9), (2.02, 2.02), color="#CCCCCC", linewidth=1)
    return axes.figure


def course_roadmap() -> Figure:
    """The eight chapters in their three parts, and what holds them together."""
    axes = canvas(3.7)
    for column, (part, chapters) in enumerate(PARTS.items()):
        x, colour = 0.1 + 2.4 * column, PART_COLOURS[part]
        label(axes, x + 1, 3.5, part, weight="bold", fontsize=11)
        if column:
            arrow(axes, (x - 0.5, 3.5), (x + 0.05, 3.5))
        step = 2.4 / len(chapters)
        for row, chapter in enumerate(chapters):
            y = 3.3 - step * (row + 1)
            box(axes, x, y + 0.1, 2.0, step - 0.2, chapter.title, colour, heading=f"Chapter {chapter.number}", size=10)
            if row:
                arrow(axes, (x + 1, y + step + 0.1), (x + 1, y + step - 0.1))
    box(
        axes,
        0.1,
        0.1,
        6.8,
        0.55,
        "every method, on the same held-out problems, with its interval and its tokens",
        PURPLE,
        heading="Results ledger",
    )
    for x in (1.1, 3.5, 5.9):
        arrow(axes, (x, 0.98), (x, 0.65))
    return axes.figure


def chapter_steps() -> Figure:
    """The steps of each chapter, in order."""
    axes = canvas(4.7)
    rows = [(chapter, PART_COLOURS[part]) for part, chapters in PARTS.items() for chapter in chapters]
    for row, (chapter, colour) in enumerate(rows):
        y = 4.16 - 0.58 * row
        axes.add_patch(Rectangle((0.05, y - 0.04), 6.9, 0.54, facecolor="#FAFAFA", edgecolor="none"))
        label(axes, 0.1, y + 0.23, f"{chapter.number}  {chapter.title}", ha="left", weight="bold", fontsize=9)
        for column, step in enumerate(chapter.steps):
            x = 1.84 + 1.285 * column
            box(axes, x, y + 0.04, 1.17, 0.38, step, colour, size=9)
            if column:
                arrow(axes, (x - 0.115, y + 0.23), (x, y + 0.23))
    return axes.figure
