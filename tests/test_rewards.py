r"""The rewards: what counts as right, what counts as well formed, and that no text breaks them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.evaluation.data import load_minimath
from shared.grpo import reward_correct, reward_format

PROBLEM = {"problem": "What is 3/6 as a decimal?", "answer": "0.5"}


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"so \boxed{0.5}", 1.0),
        (r"\boxed{\frac12}", 1.0),
        (r"first \boxed{3}, no: \boxed{1/2}", 1.0),
        (r"first \boxed{1/2}, no: \boxed{3}", 0.0),
        (r"\boxed{2}", 0.0),
        ("the answer is 0.5", 0.0),
        (r"\boxed{}", 0.0),
        (r"\boxed{0.5", 0.0),
        ("", 0.0),
    ],
)
def test_reward_correct(text, reward):
    assert reward_correct(text, PROBLEM) == reward
    assert isinstance(reward_correct(text, PROBLEM), float)


def test_reward_correct_on_the_solutions_of_the_data():
    problems = load_minimath("test")[:50]
    assert all(reward_correct(problem["solution"], problem) == 1.0 for problem in problems)
    wrong = [reward_correct(f"\\boxed{{{problem['answer']}7}}", problem) for problem in problems]
    assert sum(wrong) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "<think>1+1=2</think> \\boxed{2}",
        "\n<think>\n1+1=2\n</think>\n\\boxed{2}\n",
        "<think>5</think> The answer is \\boxed{\\frac{1}{2}}.",
        "<think>since a < b and b > c, <b> is fine</think>\\boxed{3}",
        "<think>maybe \\boxed{4}?</think> No, \\boxed{3}",
        "<think>x</think> wrong but well formed \\boxed{99}",
    ],
)
def test_well_formed(text):
    """Trap S7: `<` within the thinking is fine."""
    assert reward_format(text, PROBLEM) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\\boxed{2}",
        "<think>1+1=2 \\boxed{2}",
        "1+1=2</think> \\boxed{2}",
        "</think>1+1<think> \\boxed{2}",
        "<think></think> \\boxed{2}",
        "<think> \n </think> \\boxed{2}",
        "<think>1+1=2</think>",
        "<think>1+1=2 \\boxed{2}</think>",
        "<think>1+1=2</think> 2",
        "<think>1+1=2</think> \\boxed{}",
        "Well: <think>1+1=2</think> \\boxed{2}",
        "<think>1<think>2</think> \\boxed{2}",
        "<think>1</think>2</think> \\boxed{2}",
        "<think>1</think><think>2</think> \\boxed{2}",
        "<Think>1+1=2</Think> \\boxed{2}",
    ],
)
def test_not_well_formed(text):
    assert reward_format(text, PROBLEM) == 0.0


PIECES = [
    "<think>",
    "</think>",
    "<",
    "\\boxed{",
    "}",
    "{",
    "0.5",
    " ",
    "\n",
    "9**9**9",
    "open('x')",
    "\\frac",
    "é",
    "\0",
]
TEXTS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))


@settings(max_examples=150, deadline=5_000)
@given(text=TEXTS, answer=TEXTS)
@example(text="\\boxed{" * 3_000, answer="\\boxed{" * 3_000)
@example(text="<think>" * 20_000, answer="1")
@example(text="\\boxed{9**9**9**9}", answer="(10**8)!")
@example(text="\ud800 \\boxed{\ud800}", answer="\ud800")
def test_no_text_breaks_a_reward(text, answer):
    """Trap S6: a reward is 0 or 1 for whatever a model writes, soon, and raises nothing."""
    problem = {"problem": "", "answer": answer}
    assert reward_correct(text, problem) in (0.0, 1.0)
    assert reward_format(text, problem) in (0.0, 1.0)


def test_text_is_never_run(tmp_path):
    target = tmp_path / "written"
    reward_correct(f"\\boxed{{open({str(target)!r}, 'w').write('x')}}", PROBLEM)
    assert not target.exists()
