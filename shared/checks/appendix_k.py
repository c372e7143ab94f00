r"""Checks of the exercises of appendix K."""

import torch

from shared.checks import Mismatch, expect, register

# ------------------------------------------------------------------------------- K.1: an environment for points

SUMS = [
    ("(1,2)+(3,-4)=?", "(4,-2)\n"),
    ("\n( -7, 0 ) + ( 7 ,-5 ) =?", "(0,-5)\n"),
    ("\n(999999999,-999999999)+(1,-1)=?", "(1000000000,-1000000000)\n"),
    ("\n(1,1)+(1,1)=?(2,2)\n(2,2)+(5,6)=?", "(7,8)\n"),
    ("\n(5,\n__import__('os')=?error\n(0,10)+(3,4)=?", "(3,14)\n"),
]
UNREADABLE = [
    ("(1+1,2)+(3,4)=?", "arithmetic in the place of a number"),
    ("(len('abc'),2)+(3,4)=?", "a call, which no environment may run"),
    ("(1,2)+(3,4)?", "no equals sign"),
    ("(1,2)+(3,4)", "no question mark"),
    ("", "an empty text"),
    ("(1,2)+(3,4)=?(4,6)\nIs that so?", "a sum in an earlier line"),
    ("So (1,2)+(3,4)=?", "words before the sum"),
    ("(1,2)-(3,4)=?", "a difference"),
    ("(1,2)+(3,4)+(5,6)=?", "three points"),
    ("(1,2,3)+(4,5,6)=?", "three coordinates"),
    ("((1,2))+(3,4)=?", "brackets in brackets"),
    ("(1,2)+(3,4=?", "a bracket that is never closed"),
    ("(1 2,3)+(4,5)=?", "a blank within a number"),
    ("(1_0,2)+(3,4)=?", "an underscore, which int reads"),
    ("(1.5,2)+(3,4)=?", "no whole number"),
    ("(-,2)+(3,4)=?", "a sign without a number"),
    ("(²,2)+(3,4)=?", "a sign that isdigit takes for a digit, and int does not"),
    ("(1,2)+(3,1234567890)=?", "ten digits"),
    (f"({'9' * 5_000},2)+(3,4)=?", "5,000 digits"),
    (f"{'(' * 20_000}1,2{')' * 20_000}+(3,4)=?", "20,000 brackets"),
    ("(9**9**9**9,2)+(3,4)=?", "a power that nobody can work out"),
]


@register(
    "K.1",
    title="an environment for points",
    hint="describe the whole last line in one pattern; what does not match it is an error, so nothing need be repaired",
    hint2="last = text.rpartition('\\n')[2]; four groups (-?[0-9]{1,9}) with blanks allowed around each, and "
    "re.fullmatch, which leaves nothing before or behind; then int is safe",
)
def check_points(points):
    """Sums, earlier lines, and what a policy may write by accident or to see what happens."""
    for text, reply in SUMS:
        expect(points(text, {}), reply, case=f"the text {text!r}")
    for text, why in UNREADABLE:
        expect(points(text, {}), "error\n", case=f"{why}, {text[:50]!r}")
    return f"{len(SUMS)} sums are worked out, {len(UNREADABLE)} other texts get an error, and none can do harm"


# ----------------------------------------------------------------------------------- K.2: a mask of several turns

T, F = True, False
MASKS = [
    ([(2, [T, T, F, T]), (8, [])], [[0, 1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]]),
    ([(2, [T, T, F, F, T])], [[0, 1, 1, 0, 0, 1]]),
    ([(2, [T, T, F, F, T]), (3, [T])], [[0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0]]),
    ([(1, [T]), (1, [F, F, T]), (4, [T, F])], [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]),
]
COLUMNS = "the columns: column i is about token i + 1, since nothing stands before token 0"


@register(
    "K.2",
    title="a mask of several turns",
    hint="in which column is the first token behind a prompt of 2 tokens? Write down the numbers of tokens and columns",
    hint2="begin with torch.zeros(rows, longest - 1, dtype=torch.bool); a row's flags begin in column "
    "prompt_length - 1 and fill len(own) columns",
)
def check_own_mask(own_mask):
    """A reply in the middle, rows of different lengths, a prompt alone, and every kind of shift."""
    for rows, wanted in MASKS:
        case, wanted, got = f"the rows {rows}", torch.tensor(wanted, dtype=torch.bool), own_mask(rows)
        if not isinstance(got, torch.Tensor) or got.dtype != torch.bool:
            raise Mismatch("a boolean tensor", getattr(got, "dtype", got), case)
        if got.shape == (wanted.shape[0], wanted.shape[1] + 1):
            raise Mismatch(f"a shape of {tuple(wanted.shape)}", tuple(got.shape), case, COLUMNS)
        for shift, side in ((1, "late"), (-1, "early")):
            if not torch.equal(got, wanted) and torch.equal(got, torch.roll(wanted, shift, dims=1)):
                raise Mismatch(wanted.int(), got.int(), case, f"{COLUMNS}; yours is one column too {side}")
        expect(got.int(), wanted.int(), case=case)
    return "the model's own tokens and no others, each in the column that predicts it"


# ------------------------------------------------------------------------------- K.3: a reward that looks at the way

PLAYS = [
    ("\n4? higher\n6? lower\n5?", 5, 1.0),
    ("\n4?", 4, 1.0),
    ("\n4? higher\n3? higher\n5?", 5, 2 / 3),
    ("\n4? higher\n4? higher\n4?", 6, 1 / 3),
    ("\n2? higher\n6? lower\n1?", 4, 2 / 3),
    ("\n6? lower\n3? higher\n7?", 4, 2 / 3),
    ("\n4? higher\n2? higher\n3?", 6, 1 / 3),
    ("\n9? lower\n4?", 4, 1 / 2),
    ("\n17? lower\n0? higher\n4?", 4, 1 / 3),
    ("\n3? higher\n5?", 6, 1.0),
    ("", 3, 0.0),
    ("\n\\boxed{4}\nIs it higher? lower", 3, 0.0),
    ("\nlower\n4? higher\nso not lower than 5\n6?", 6, 1.0),
    (f"\n{'9' * 5_000}? lower\n4?", 4, 1 / 2),
    (f"\n2? higher\n1{'0' * 5_000}6? lower\n4?", 4, 2 / 3),
    ("\n??? ²\n? higher\n5?", 5, 1.0),
]


@register(
    "K.3",
    title="a reward that looks at the way",
    hint="go from guess to guess with what is still possible, the numbers 1 to 7 at first, and narrow it by each reply",
    hint2="re.findall(r'([0-9]+)\\?( higher| lower)?', text) gives guesses and replies; int only what is short; "
    "low = max(low, guess + 1) for higher, high = min(high, guess - 1) for lower",
)
def check_reward_consistent(reward_consistent):
    """Games that are played well and badly, and texts that are no games."""
    for text, number, reward in PLAYS:
        short = text if len(text) < 60 else f"{text[:20]}...{text[-20:]}"
        expect(reward_consistent(text, {"number": number}), reward, case=f"the text {short!r}")
    return "every reply counts for all later guesses, and no text breaks it"
