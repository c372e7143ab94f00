"""The verifier as a whole: extraction, labelled pairs, symmetry, totality, and its bounds."""

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.grader import hostile_text, load_jsonl
from shared.grader.answer_text import MAX_CHARS
from shared.grader.equality import Comparison
from shared.grader.grading import extract_answer, grade, normalize_answer
from shared.grader.math_parser import ExpressionParser
from shared.grader.math_tokens import tokenize
from shared.grader.numeric import POINTS, PRIME, Evaluator, Undecided, residue

ROOT = Path(__file__).parents[1]
PAIRS = load_jsonl("grader_pairs.jsonl")
HOSTILE = load_jsonl("grader_hostile.jsonl")
SECONDS = 1.0


def math500_answers():
    folder = Path(os.environ.get("COURSE_TEST_DATA", ROOT / ".." / "shared" / "data"))
    path = folder / "math500_test.json"
    if not path.exists():
        pytest.skip("math500_test.json is in neither ../shared/data nor COURSE_TEST_DATA")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{x^{2^{3}}} and {more}", "x^{2^{3}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {8}", "8"),
        (r"\boxed 9", "9"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{\boxed5}", "5"),
        (r"\boxed{3} but \boxed{4", "3"),
        (r"\boxed{3} but \boxed{}", "3"),
        (r"\boxed{\text{a } b}", r"\text{a } b"),
        (r"} { \boxed{6} } }", "6"),
        (r"x &= 5 \\\boxed{5}", "5"),
        (r"\\\\\fbox{5}", "5"),
        (r"\\boxed{5}", None),
        (r"\boxed{\}}", r"\}"),
        (r"\boxed{4", None),
        (r"put it in \boxed notation", None),
        ("no box, 5", None),
        ("", None),
    ],
)
def test_extract(text, answer):
    """Trap S5: the last box, with nested braces, by counting and not by a greedy expression."""
    assert extract_answer(text) == answer


def test_extract_fallbacks():
    """Trap S3: without a box there is no answer, unless the caller asks for a fallback by name."""
    text = "First 3, then the total is 1,234.50."
    assert extract_answer(text) is None
    assert extract_answer(text, fallback="number") == "1,234.50"
    assert extract_answer(text, fallback="text") == text
    assert extract_answer("x = -3/4", fallback="number") == "-3/4"
    assert extract_answer("from 5-3", fallback="number") == "3"
    assert extract_answer("none", fallback="number") is None
    assert extract_answer(" ", fallback="text") is None
    assert extract_answer(r"\boxed{7} of 9", fallback="number") == "7"
    with pytest.raises(ValueError, match='"number" or "text"'):
        extract_answer("5", fallback="first")


def test_labelled_pairs():
    """Every labelled pair, both ways round. A failure lists the pairs."""
    wrong = [
        (pair["kind"], pair["prediction"], pair["gold"])
        for pair in PAIRS
        if {grade(pair["prediction"], pair["gold"]), grade(pair["gold"], pair["prediction"])} != {pair["equal"]}
    ]
    assert len(PAIRS) >= 300
    assert 0.35 < sum(not pair["equal"] for pair in PAIRS) / len(PAIRS) < 0.45
    assert wrong == []


def test_reviewed_pairs():
    """Pairs written by somebody who had not seen the labelled ones, both ways round.

    `limit` says why the verdict differs from the label; a pair that has become right must lose it.
    """
    review = load_jsonl("grader_review.jsonl")
    known = {(pair["prediction"], pair["gold"]) for pair in PAIRS}
    assert sum((pair["prediction"], pair["gold"]) not in known for pair in review) >= 450
    for pair in review:
        expected = pair["equal"] != ("limit" in pair)
        assert grade(pair["prediction"], pair["gold"]) is expected, pair
        assert grade(pair["gold"], pair["prediction"]) is expected, pair
    assert sum("limit" in pair for pair in review) < 20


@pytest.mark.parametrize("first", list(itertools.permutations([r"35\%", "35", r"50\%"])))
@pytest.mark.parametrize("second", list(itertools.permutations(["35", "0.35", "50"])))
def test_lists_are_paired_where_a_pairing_exists(first, second):
    r"""`35\%` equals `35` and `0.35`, which differ: the first pairing found may be the wrong one."""
    assert grade(", ".join(first), ", ".join(second))
    assert grade(", ".join(second), ", ".join(first))
    assert not grade(", ".join(first), ", ".join(second).replace("50", "0.35"))
    assert not grade(", ".join(first), ", ".join(second).replace("50", "5"))


def test_sets_do_not_depend_on_the_order_of_their_items():
    r"""Dropping repetitions by an equality that is not transitive would: `35\%` first, and nothing else is left."""
    orders = [rf"\{{{', '.join(order)}\}}" for order in itertools.permutations([r"35\%", "35", "0.35"])]
    for other in (r"\{35\}", r"\{35, 0.35\}", r"\{35, 0.35, 0.35\}"):
        assert {grade(order, other) for order in orders} == {False}
    assert {grade(order, orders[0]) for order in orders} == {True}


def as_set(items):
    return rf"\{{{', '.join(items)}\}}"


@pytest.mark.parametrize(("written", "count"), [(str, 80), ("({0}, 1)".format, 40), (r"\sqrt{{{0}}}".format, 40)])
@pytest.mark.parametrize("as_text", [", ".join, as_set])
def test_long_sets_and_lists_in_another_order(written, count, as_text):
    """Each item against each would spend the budget: equal items in one spelling cost nothing."""
    items = [written(number) for number in range(2, count + 2)]
    assert grade(as_text(items), as_text(items[::-1]))
    assert not grade(as_text(items), as_text([*items[:0:-1], written(1)]))
    assert not grade(as_text(items), as_text(items[:0:-1]))


def test_items_in_several_spellings_are_counted_right():
    r"""What is left when equal spellings are cancelled: in a set a repetition, in a list one item more."""
    for more, equal in ((r"\frac{4}{2}", True), ("2^1", True), ("2, 2", True), ("4", False)):
        for kind, repeated in ((as_set, equal), (", ".join, False)):
            assert grade(kind(["1", "2", more]), kind(["2", "1"])) is repeated
            assert grade(kind(["2", "1"]), kind(["1", "2", more])) is repeated
    assert grade(r"2, 1, \frac42", r"2^1, 2, 1")
    assert not grade(r"2, 1, 1", r"2^1, 2, 1")
    assert grade(r"35\%, 35", r"35\%, 0.35")  # nothing may be cancelled here: 35\% must meet 0.35


@pytest.mark.parametrize(
    ("inequality", "everywhere"),
    [
        (r"x < \infty", True), (r"x > -\infty", True), (r"\infty > x", True), (r"-\infty < x", True),
        (r"x > \infty", False), (r"x < -\infty", False), (r"\infty < x", False), (r"-\infty > x", False),
        (r"x \le \infty", True), (r"x \ge \infty", False), (r"x \ne \infty", True), (r"-x < -\infty", False),
        (r"-\infty < x < \infty", True), (r"\infty > x > -\infty", True), (r"\infty < x < \infty", False),
    ],
)  # fmt: skip
def test_comparisons_with_infinity(inequality, everywhere):
    r"""All real numbers lie between the infinities, and none beyond."""
    assert grade(inequality, r"\mathbb{R}") is everywhere
    assert grade(r"\mathbb{R}", inequality) is everywhere
    assert grade(rf"x < 3 \text{{ or }} {inequality}", "x < 3") is not everywhere


@pytest.mark.parametrize("text", [r"\boxed5", r"\boxed 5", r"so \fbox{2} is \fbox 5", r"\boxed{\boxed5}"])
def test_boxes_without_braces_are_graded(text):
    """`grade` takes the answer that `extract_answer` finds."""
    assert extract_answer(text) == "5"
    assert grade(text, "5")
    assert grade("5", text)
    assert not grade(text, "2")


@pytest.mark.parametrize(
    ("prediction", "gold", "equal"),
    [
        (r"\frac12 \text{ or } 0.5", "0.5", True),
        (r"\frac{7}{20} \text{ or } 35\%", r"35\%", True),
        (r"35 \text{ or } 0.35", r"35\%", False),
        ("x=2 or x=2.0", r"x=2 \text{ or } x=\frac42", True),
        ("5 or 6", "5", False),
        (r"{x+1 \over 2}", r"\frac{x+1}{2}", True),
        (r"x+1 \over 2", r"\frac{x+1}{2}", True),
        (r"x+{1 \over 2}", r"\frac{x+1}{2}", False),
        (r"1 \over 2 \over 3", r"\frac16", False),
        ("0.333...", r"\frac13", True),
        (r"1.1666\ldots", r"\frac76", True),
        ("0.142857142857142857...", r"\frac17", True),
        ("0.33...", r"\frac13", False),
        ("0.333", r"\frac13", False),
        ("3.14159...", r"\pi", False),
        ("10:30", "10:30 a.m.", True),
        ("10:30 A.M.", "10:30 am", True),
        ("10:30 a.m.", "10:30 p.m.", False),
        ("10:30 a.m.", "10:31", False),
        ("10:30 p.m.", "10:30", True),
        ("9:15 p.m., 10:30 a.m.", "10:30 AM, 9:15 PM", True),
        ("9:15 p.m., 10:30 a.m.", "10:30 PM, 9:15 AM", False),
        ("10:30 a.m.", "1:3", False),
        ("5 wrong", "5", False),
        ("5 is incorrect", "5", False),
        ("the y-axis", "y-axis", True),
        (",5", "5", False),
    ],
)
def test_what_a_review_found(prediction, gold, equal):
    assert grade(prediction, gold) is equal
    assert grade(gold, prediction) is equal


@pytest.mark.parametrize(
    ("prediction", "gold", "equal"),
    [
        ("x=5", "5", True),
        (r"\{1,2\}", r"\{2,1\}", True),
        (r"\frac12", r"\frac{1}{2}", True),
        ("-2, 5", "5, -2", True),
        ("35", r"35\%", True),
        ("1,234", "1234", True),
        ("[0,5)", "(0,5)", False),
        (r"3\frac{1}{2}", r"\frac{3}{2}", False),
        ("(3,250)", "3250", False),
        ("1011_2", "1011_3", False),
        ("5 cents", r"\$5", False),
        ("5 or more", "5", False),
        ("3x-y+13=0", "3x+4y+14=0", False),
        ("**73**", "73", True),
        (r"x \in [-2,7]", r"y \in [-2,7]", False),
        (r"x \in [-2,7]", r"2x \in [-2,7]", False),
        ("(1,2,3)", "(1,2,3]", False),
        (r"180^\circ", r"\pi", False),
        ('open("x","w").write("x")', "1", False),
        ('__import__("os").getpid()*0+7', "7", False),
    ],
)
def test_what_other_graders_get_wrong(prediction, gold, equal):
    """Trap section "Graders": the cases that were seen to go wrong elsewhere."""
    assert grade(prediction, gold) is equal
    assert grade(gold, prediction) is equal


@pytest.mark.parametrize(
    ("prediction", "gold", "equal"),
    [
        (r"[1,2)\cup\{2\}", "[1,2]", True),
        (r"(1,2)\cup\{3\}", r"\{3\}\cup(1,2)", True),
        (r"[1,2)\cup\{3\}", "[1,3]", False),
        (r"[1\text{ cm}, 2\text{ cm})", "[1,2)", True),
        (r"(0,1)\cup(1,2)\setminus\{5\}", r"(0,2)\setminus\{1\}", False),  # in which order is not said
        (r"x > 1 \text{ or } y < 2", "x > 1", False),
        ("x < y < 3", "x < y < 4", False),  # a chain is not its first two parts
        ("ix < 2", "x < 2", False),
        (r"(5\text{ cm}, 6\text{ cm})", "5 < x < 6", True),
        ("x_{1y", "x_1", False),
        (r"(1,2\rangle", r"\langle 1,2\rangle", False),
        (r"2\begin{pmatrix} (1,2) \\ 3 \end{pmatrix}", r"\begin{pmatrix}2\\6\end{pmatrix}", False),
        ("5 meters squared", "5 m^2", True),
        ("5 metres cubed", "5 m^3", True),
        ("20 degrees Celsius", "20 °C", True),
        ("20 degrees Fahrenheit", "20 °C", False),
        ("5 cm", "(1,2)", False),
        ("3 5/2", "11/2", False),  # no mixed number has an improper fraction
        ("3 2/2", "4", False),
        ("2^3!", "64", True),
        ("2^3!", "40320", False),
        ("∛8", "2", True),
        ("binom(5,2)", "10", True),
        ("f(+)", "f(x)", False),
        (f"x_{{{'1' * 25}}}", "x_1", False),
        ("e^{e^{e^{e^{9}}}}", "5", False),
    ],
)
def test_rare_forms(prediction, gold, equal):
    assert grade(prediction, gold) is equal
    assert grade(gold, prediction) is equal


def test_the_longest_answer_that_is_read():
    assert normalize_answer("$5$".rjust(MAX_CHARS)) == "5"
    assert normalize_answer("$5$".rjust(MAX_CHARS + 1)) == "$5$"


def test_a_comparison_ends_with_its_budget():
    number = Evaluator().steps_left
    for left, enough in ((number, True), (5, True), (4, False)):
        comparison = Comparison()
        comparison.numbers.steps_left = left
        with contextlib.nullcontext() if enough else pytest.raises(Undecided, match="budget"):
            assert comparison.equal(sympy.Integer(3), sympy.Integer(3))


def test_residues_of_rational_numbers_and_of_nothing_else():
    x = sympy.Rational(3, 7)
    assert residue(x) * 7 % PRIME == 3
    assert residue(sympy.Pow(x, -2, evaluate=False)) == residue(sympy.Rational(49, 9))
    assert residue(sympy.Add(x, -2, evaluate=False)) == residue(sympy.Rational(-11, 7))
    assert residue(sympy.Integer(PRIME)) == 0
    for node in (sympy.pi, sympy.sqrt(2), sympy.Rational(1, PRIME)):
        with pytest.raises(Undecided):
            residue(node)


@pytest.mark.parametrize("value", [None, 5, 5.0, b"5", ["5"], float("nan"), object()])
def test_total_for_things_that_are_not_text(value):
    assert grade(value, "5") is (value == 5)
    assert grade("5", value) is (value == 5)
    assert extract_answer(value) is None


def test_empty_text_is_never_right():
    assert not grade("", "")
    assert not grade(" ", "5")
    assert not grade("5", "")


def test_math500_answers_equal_themselves():
    """Each of the 500 answers, bare, in dollars and with a full stop; and the box of each reference solution."""
    for problem in math500_answers():
        answer = problem["answer"]
        assert grade(answer, answer)
        assert grade(f"${answer}$.", f" {answer}")
        assert grade(extract_answer(problem["solution"]), answer)


def test_math500_different_answers_are_different():
    """A sample of the pairs of different answers. The exceptions are pairs that are truly equal."""
    equal = {
        ("-2,1", "1,-2"), (r"10,\!080", "10080"), ("120", r"120^\circ"), ("15", r"15\mbox{ cm}^2"), ("30", r"30^\circ"),
        ("36", r"36^\circ"), ("36", r"\$36"), ("5", "x=5"), ("90", r"90^\circ"), ("2 \\sqrt{5}", r"2\sqrt{5}"),
        (r"\frac14", r"\frac{1}{4}"),
    }  # fmt: skip
    answers = sorted({problem["answer"] for problem in math500_answers()})
    pairs = random.Random(0).sample(list(itertools.combinations(answers, 2)), 12_000)
    assert {pair for pair in pairs if grade(*pair)} <= equal
    assert all(grade(*pair) for pair in equal)


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    return tmp_path_factory.mktemp("canary") / "canary"


def test_hostile_inputs(canary):
    """Trap S6: hostile input against a number, an expression, itself: a bool within a second, nothing run."""
    assert len(HOSTILE) >= 100
    for record in HOSTILE:
        text = hostile_text(record, canary.as_posix())
        for other in ("5", r"x^2+\sqrt{2}", text, text + " "):
            start = time.perf_counter()
            assert grade(text, other) in (True, False)
            extract_answer(text, fallback="number")
            seconds = time.perf_counter() - start
            assert seconds < SECONDS, f"{seconds:.2f} s for {record} against {other[:30]!r}"
    assert not canary.exists()


def test_hostile_memory():
    """Grading every hostile input raises the peak of a process's memory by less than 200 MB."""
    pytest.importorskip("resource", reason="peak memory is measured with the resource module, which Windows lacks")
    program = (
        "import resource, sys\n"
        "from benchmarks.grader import hostile_text, load_jsonl\n"
        "from shared.grader.grading import grade\n"
        "unit = 2**20 if sys.platform == 'darwin' else 2**10\n"
        "def peak():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit\n"
        "before = peak()\n"
        "for record in load_jsonl('grader_hostile.jsonl'):\n"
        "    grade(hostile_text(record, 'nowhere'), 'x+1')\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", program]
    grown = float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert grown < 200


def test_in_threads():
    """No signals and no shared precision: four threads at once give what one gives."""
    sample = PAIRS[::12]
    verdicts: dict[int, list[bool]] = {}

    def work(number: int) -> None:
        verdicts[number] = [grade(pair["prediction"], pair["gold"]) for pair in sample]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert list(verdicts.values()) == [[pair["equal"] for pair in sample]] * 4


def test_deep_in_a_recursion():
    """A caller with little stack left gets False or True, no exception."""

    def dive(depth: int) -> bool:
        return dive(depth - 1) if depth else grade(r"\sqrt{" * 20 + "2" + "}" * 20, "x")

    assert dive(sys.getrecursionlimit() - 150) is False


def test_plain_numbers_are_fast():
    """A plain number takes well under a millisecond (the benchmark gives the figure on a quiet machine)."""
    start = time.perf_counter()
    for number in range(500):
        grade(str(number), f"{number}.0")
    assert (time.perf_counter() - start) / 500 < 0.001


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text(first, second):
    """Trap S6: never raises, and is symmetric."""
    assert grade(first, second) is grade(second, first)
    extract_answer(first, fallback="number")


_PIECES = (
    r"\frac \sqrt { } ( ) [ ] , ^ _ ! | x y i e 1 2 12 .5 + - * / = < \le \pm \cup \{ \} \infty \pi \sin \log \binom % "
    r"° \$ \text{cm} cm and or in \in : & \\ \begin{pmatrix} \end{pmatrix}"
)
_FRAGMENTS = st.lists(st.sampled_from([*_PIECES.split(), " "]), max_size=25).map("".join)


@settings(max_examples=250, deadline=None)
@given(_FRAGMENTS, _FRAGMENTS)
def test_any_fragments_of_mathematics(first, second):
    """Text that is nearly mathematics: never raises, within a second, symmetric, equal to itself."""
    start = time.perf_counter()
    verdict = grade(first, second)
    assert time.perf_counter() - start < SECONDS
    assert verdict is grade(second, first)
    assert grade(first, first) is bool(first.strip())


_ATOMS = st.sampled_from(["x", "y", "n", "2", "7", "10", "0.5", r"\pi", "e", r"\frac12", r"\sqrt{3}"])


def _combine(parts):
    two = st.tuples(parts, parts)
    return st.one_of(
        two.map(lambda p: f"{p[0]}+{p[1]}"),
        two.map(lambda p: f"({p[0]})({p[1]})"),
        two.map(lambda p: rf"\frac{{{p[0]}}}{{{p[1]}}}"),
        parts.map(lambda p: f"({p})^2"),
        parts.map(lambda p: rf"\sqrt{{{p}}}"),
        parts.map(lambda p: rf"\sin\left({p}\right)"),
        parts.map(lambda p: f"|{p}|" if "|" not in p else f"-{p}"),
    )


def has_value(text: str) -> bool:
    """Leaves out what is undefined everywhere (1/(x-x)) or beyond the limits (the sine of 10^64)."""
    expression, numbers = ExpressionParser(tokenize(normalize_answer(text))).parse(), Evaluator()
    found = 0
    for index in range(POINTS):
        with contextlib.suppress(Undecided):
            numbers.value(expression, index)
            found += 1
    return found >= 2


def test_real_nowhere():
    """An expression that is real for no value of its variable still equals itself in another spelling."""
    assert grade(r"\sin\left(\sqrt{-|x|}\right)", r"\left(\sin\sqrt{-|x|}\right)+0")
    assert not grade(r"\sqrt{-|x|}", r"2\sqrt{-|x|}")


_EXPRESSIONS = st.recursive(_ATOMS, _combine, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(_EXPRESSIONS)
def test_expressions_equal_themselves_and_not_their_neighbours(text):
    """What the grammar generates and has a value equals itself in another spelling, and never itself plus one."""
    assume(has_value(text))
    assert grade(text, text)
    assert grade(f"${text}$", rf"\left({text}\right)+0")
    assert not grade(text, f"({text})+1")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>since a < b, \\boxed{1}</think> \\boxed{2}", "2"),
        ("<think>a < b and b > c</think>\n\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("<think>x < 3 holds</think> so \\boxed{7}", "7"),
        ("<think>x < 3 holds, so \\boxed{7}", None),
    ],
)
def test_thinking_may_hold_a_less_than_sign(text, answer):
    """Trap S7: a `<` inside the thinking is no broken tag; thinking that never ends holds no answer."""
    assert extract_answer(text) == answer
