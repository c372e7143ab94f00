r"""Checks of the exercises of appendix M."""

from shared.checks import Mismatch, expect, register

# ---------------------------------------------------------------------------------- M.1: labels up to the first mistake

T, F, N = True, False, None
LABELS = [
    ([T, T], [T, T]),
    ([T, F, T], [T, F, N]),
    ([N, T, N, F, N, F, T], [N, T, N, F, N, N, N]),
    ([F, F], [F, N]),
    ([N, N, T], [N, N, T]),
    ([T, T, F], [T, T, F]),
    ([], []),
]


@register(
    "M.1",
    title="labels up to the first mistake",
    hint="find the place of the first False; what is kept ends one place further on, and None is no mistake",
    hint2="kept = verdicts.index(False) + 1 if False in verdicts else len(verdicts); the rest is [None] * what is left",
)
def check_first_mistake(up_to_the_first_mistake):
    """No mistake, one, several, lines that cannot be read, and an empty text."""
    for verdicts, labels in LABELS:
        given = list(verdicts)
        expect(up_to_the_first_mistake(given), labels, case=f"the verdicts {verdicts}")
        if given != verdicts:
            raise Mismatch(f"the list {verdicts} as it was", given, "the list that was given")
    return "each label is kept up to the first mistake, and none after it"


# --------------------------------------------------------------------------------- M.2: a reward that is harder to hack

PROBLEM = {"problem": "Compute 17*7-9.", "answer": "110", "level": 2}
PAID = [
    ("17*7=119\n119-9=110\n\\boxed{110}", 1.0),
    ("17*7=129\n\\boxed{110}", 1.0),
    ("\\boxed{110}", 1.0),
    ("17*7=129\n129-9=120\n\\boxed{120}", 0.25),
    ("17-9=8\n8*7=56\n\\boxed{56}", 0.5),
    ("17*7=119\n\\boxed{7}", 0.25),
    ("1+1=2\n" * 10 + "\\boxed{7}", 0.05),
    ("17*7=119\n17*7=119 \n\\boxed{7}", 0.25),
    ("17*7=119\n 17*7=119\n119-9=110\n\\boxed{7}", 1 / 3),
    ("1+1=2\n1+2=3\n1+3=4\n1+4=5\n\\boxed{7}", 0.5),
    ("17*7=119\nx=4\n(1,2)+(3,4)=(4,6)\ny=1\n\\boxed{7}", 0.125),
    ("17*7=119\n119-9=110", 0.5),
    ("I do not know.", 0.0),
    ("", 0.0),
    ("9**9**9**9=1\n" + "(" * 5_000 + "=1", 0.0),
]


@register(
    "M.2",
    title="a reward that is harder to hack",
    hint="a set counts a line once; the denominator counts every line with an equals sign, and is at least the level",
    hint2="1.0 if reward_correct(text, problem); else 0.5 * len({stripped lines that are true}) / "
    "max(problem['level'], number of lines with '=')",
)
def check_reward_steps(reward_steps):
    """Right answers, slips, wrong ways, repeated and trivial lines, and what a policy may write."""
    for text, reward in PAID:
        short = text if len(text) < 70 else f"{text[:30]}...{text[-20:]}"
        expect(reward_steps(text, dict(PROBLEM)), reward, case=f"the text {short!r}")
    expect(reward_steps("1+1=2\n\\boxed{7}", {**PROBLEM, "level": 5}), 0.1, case="a problem of five steps and one line")
    return "a right answer is worth most, and neither repeating nor padding pays"
