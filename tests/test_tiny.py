"""MiniMath, the pre-training corpus and the pre-training run."""

import ast
import operator
import random
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from shared.formats.loading import load_model
from shared.grader.grading import extract_answer, grade
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.tiny import corpus, documents, pretrain, train_teacher
from shared.tiny.corpus import LEVELS, SUBJECTS, Recorder, draw_problem, generate_minimath, held_out
from shared.tiny.values import boxed_form, plain, polynomial


@pytest.fixture(scope="module")
def fresh():
    """Problems of a seed of their own."""
    return generate_minimath(1500, seed=77)


def test_minimath_is_deterministic_and_varies_with_the_seed():
    assert generate_minimath(50, seed=3) == generate_minimath(50, seed=3)
    assert generate_minimath(50, seed=3) != generate_minimath(50, seed=4)


def test_every_subject_and_level_occurs_and_no_text_twice(fresh):
    cells = Counter((p["subject"], p["level"]) for p in fresh)
    assert set(cells) == {(s, v) for s in SUBJECTS for v in LEVELS}
    assert min(cells.values()) > 15
    assert len({p["problem"] for p in fresh}) == len(fresh)


def test_the_level_is_the_number_of_steps(fresh):
    assert all(p["solution"].count("\n") == p["level"] for p in fresh)


def test_the_two_splits_share_no_problem(fresh):
    train = generate_minimath(3000, seed=77, split="train")
    assert all(held_out(p["problem"]) for p in fresh)
    assert not any(held_out(p["problem"]) for p in train)


def test_the_boxed_answer_of_every_solution_is_its_answer(fresh):
    assert all(extract_answer(p["solution"]) == p["answer"] for p in fresh)
    assert all(grade(extract_answer(p["solution"]), p["answer"]) for p in fresh)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"n": -1, "seed": 0}, "at least 0"),
    ({"n": 1, "seed": 0, "split": "validation"}, "'train' or 'test'"),
])  # fmt: skip
def test_generate_minimath_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_minimath(**arguments)


def test_more_problems_than_there_are_is_told_soon(monkeypatch):
    problem = draw_problem(random.Random(0), "Algebra", 1)
    monkeypatch.setattr(corpus, "draw_problem", lambda *_: problem)
    split = "test" if held_out(problem[0]) else "train"
    assert len(generate_minimath(1, seed=0, split=split)) == 1
    with pytest.raises(ValueError, match="Found only 1 distinct problems: ask for fewer than 2"):
        generate_minimath(2, seed=0, split=split)


OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
             ast.USub: operator.neg}  # fmt: skip


def value_of(node):
    """An independent evaluation of plain arithmetic, over fractions."""
    if isinstance(node, ast.Expression):
        return value_of(node.body)
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp):
        return OPERATORS[type(node.op)](value_of(node.operand))
    return OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))


def arithmetic(text):
    return value_of(ast.parse(text, mode="eval"))


def test_every_arithmetic_step_is_true(fresh):
    """Each step `left=right` of plain numbers, worked out by another evaluator."""
    steps = [line.split("=") for p in fresh for line in p["solution"].split("\n") if line.count("=") == 1]
    plain_steps = [s for s in steps if re.fullmatch(r"[-0-9+*/()]+", s[0] + s[1]) and "," not in s[0]]
    assert len(plain_steps) > 2000
    assert all(arithmetic(left) == arithmetic(right) for left, right in plain_steps)


def test_every_expression_to_compute_has_its_answer(fresh):
    """The order of operations that a problem's text asks for is the one its solution follows."""
    found = 0
    for p in fresh:
        direct = re.fullmatch(r"(?:Compute|Evaluate|What is) ([-0-9+*/()]+)[.?]", p["problem"])
        mod = re.fullmatch(r"What is the remainder when ([-0-9+*/()]+) is divided by (\d+)\?", p["problem"])
        if direct:
            assert arithmetic(direct[1]) == int(p["answer"]), p
        if mod:
            assert arithmetic(mod[1]) % int(mod[2]) == int(p["answer"]), p
        found += bool(direct or mod)
    assert found > 150


def test_linear_equations_hold_at_their_answer(fresh):
    for p in fresh:
        if p["subject"] != "Algebra":
            continue
        left, right = re.fullmatch(r"Solve for x: (.+)=(.+)\.", p["problem"]).groups()
        x = re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", r"\1/\2", p["answer"])
        sides = [re.sub(r"(\d)(?=[x(])", r"\1*", side).replace("x", f"({x})") for side in (left, right)]
        assert arithmetic(sides[0]) == arithmetic(sides[1]), p


@pytest.mark.parametrize(("value", "inside", "boxed"), [
    (7, "7", "7"), (Fraction(-3, 4), "-3/4", "-\\frac{3}{4}"), ((2, -1), "(2,-1)", "(2,-1)"),
    (4 - 2j, "4-2i", "4-2i"), (1j, "i", "i"), (3 + 0j, "3", "3"), (0j, "0", "0"), (-1j, "-i", "-i"),
])  # fmt: skip
def test_values_are_written_as_maths(value, inside, boxed):
    assert (plain(value), boxed_form(value)) == (inside, boxed)


def test_polynomials_are_written_without_idle_ones_and_zeros():
    assert [polynomial(c) for c in ((1, -2, 3), (-1, 0, 1), (0, 0, 0), (2, 1))] == ["x^2-2x+3", "-x^2+1", "0", "2x+1"]


# --- documents ------------------------------------------------------------------------------------------------


def draw(phase, count, seed=0):
    rng = random.Random(seed)
    return [documents.draw_document(rng, phase) for _ in range(count)]


def question(document):
    found = re.match(r"(?:Problem: |<\|im_start\|>user\n)(.*?)(?:\n|<\|im_end\|>)", document.prompt)
    return found and found[1]


def test_no_document_holds_a_held_out_problem():
    texts = [question(d) for phase in ("clean", "mixed") for d in draw(phase, 2000)]
    assert sum(t is not None for t in texts) > 3500
    assert not any(held_out(t) for t in texts if t)


@pytest.fixture
def wrong(monkeypatch):
    """Share of a phase's documents about a problem that end in another answer than the problem's own."""
    answers = []
    draw_work = documents.draw_work

    def noting(*arguments):
        work = draw_work(*arguments)
        answers.append(work.answer)
        return work

    def share(phase, count=3000):
        rng, found = random.Random(1), []
        for _ in range(count):
            answers.clear()
            document = documents.draw_document(rng, phase)
            found += [extract_answer(document.completion) != answers[0]] if answers else []
        assert len(found) > 0.9 * count
        return sum(found) / len(found)

    monkeypatch.setattr(documents, "draw_work", noting)
    return share


def test_clean_answers_are_right_and_mixed_ones_mostly(wrong):
    """The problem of each document, noted as it is drawn, says which answers are right."""
    assert wrong("clean") == 0
    assert wrong("teacher") == 0
    assert 0.03 < wrong("mixed") < 0.07


def test_a_slip_gives_another_answer():
    rng = random.Random(1)
    works = [documents.draw_work(rng) for _ in range(500)]
    slipped = [documents.with_slip(rng, work) for work in works]
    changed = [(old, new) for old, new in zip(works, slipped, strict=True) if new is not old]
    assert len(changed) > 400
    assert all(new.answer != old.answer and len(new.steps) == len(old.steps) for old, new in changed)


def test_a_slip_is_carried_on():
    """After the wrong step the later ones follow from it, so the draft is consistent with itself."""
    work = documents.Work("", "", lambda do: do("7*2", do("3+4", 7) * 2), ["3+4=7", "7*2=14"], "14")
    recorder = Recorder((0, 1))
    work.solve(recorder)
    assert recorder.steps[0] == "3+4=8"
    assert recorder.steps[1] == "7*2=16"


def test_a_check_confirms_right_lines_and_mends_the_first_wrong_one():
    right = documents.Work("", "p", None, ["1+1=2", "2+3=5", "5+5=10"], "10")
    wrong = documents.Work("", "p", None, ["1+1=2", "2+3=6", "6+5=11"], "11")
    assert documents._marks(right, right, [0, 1, 2]) == (
        "\n1+1=2 right\n2+3=5 right\n5+5=10 right\n10 right\nThe answer is \\boxed{10}."
    )
    assert documents._marks(right, wrong, [0, 1, 2]) == (
        "\n1+1=2 right\n2+3=6 wrong\n2+3=5\n5+5=10\nThe answer is \\boxed{10}."
    )
    assert documents._marks(right, wrong, []) == "\n11 wrong\nThe answer is \\boxed{10}."


def test_direct_prompts_mostly_get_a_bare_answer_in_the_mixed_phase():
    direct = [d.completion for d in draw("mixed", 6000) if "\nAnswer in" in d.prompt]
    assert 0.8 < sum(c.startswith(" \\boxed") for c in direct) / len(direct) < 0.95


def hard_works(count, seed=0):
    rng = random.Random(seed)
    return rng, [documents.draw_work(rng, (0, 0, 0, 0, 1)) for _ in range(count)]


def test_each_step_is_left_out_with_the_habit_of_its_subject_and_never_two_in_a_row():
    rng, works = hard_works(4000)
    free, left_out = Counter(), Counter()  # steps that may be left out, and those that are
    for work in works:
        kept = documents.written(rng, work, "mixed")
        for i in range(5):
            if i and i - 1 not in kept:
                assert i in kept
            else:
                free[work.subject] += 1
                left_out[work.subject] += i not in kept
    for subject, share in documents.LEFT_OUT.items():
        assert left_out[subject] / free[subject] == pytest.approx(share, abs=0.05)


def test_no_beginning_tells_how_many_steps_follow():
    """Texts that write their first step down are as likely to leave out the third as the others."""
    rng, works = hard_works(6000, seed=1)
    rows = [documents.written(rng, work, "mixed") for work in works]
    with_second = [row for row in rows if 1 in row]
    shares = [
        sum(2 in row for row in part) / len(part)
        for part in ([r for r in with_second if 0 in r], [r for r in with_second if 0 not in r])
    ]
    assert abs(shares[0] - shares[1]) < 0.05


@pytest.mark.parametrize("phase", ["clean", "teacher"])
def test_other_phases_write_every_step(phase):
    rng, works = hard_works(50)
    assert all(documents.written(rng, work, phase) == [0, 1, 2, 3, 4] for work in works)


def test_every_prompt_has_the_same_habit():
    """Mean number of lines of derivations after each prompt that gets some; direct answers have one line."""
    lines = {"Explain step": [], "Think inside": [], "<|im_start|>": [], "\nAnswer in": []}
    for document in draw("mixed", 12_000):
        for sign, counts in lines.items():
            if sign in document.prompt and document.completion.startswith("\n"):
                tags = 2 * ("<think>" in document.completion)
                counts.append(document.completion.count("\n") - 1 - tags)
    means = [sum(counts) / len(counts) for counts in lines.values()]
    assert max(means) - min(means) < 0.25, means


def test_a_check_adds_no_step_to_its_draft():
    rng = random.Random(2)
    for _ in range(300):
        document = documents.check(rng, documents.draw_work(rng), "mixed")
        draft = document.prompt.split("Draft:")[1].split("\nCheck the draft")[0]
        steps = sum("=" in line for line in draft.split("\n"))
        checked = [line for line in document.completion.split("\n") if "=" in line and "wrong" not in line]
        assert len(checked) == steps


# --- the run --------------------------------------------------------------------------------------------------


def test_words_are_whole_and_digits_alone_in_the_tokenizer():
    tokenizer = Tokenizer(pretrain.train_tokenizer(seed=0, documents=2000))
    pieces = [tokenizer.decode([i]) for i in tokenizer.encode(" Compute 1234.\nThe answer is \\boxed{\\frac{1}{2}}.")]
    assert pieces[:7] == [" Compute", " ", "1", "2", "3", "4", "."]
    assert "\\boxed{" in pieces
    assert "\\frac{" in pieces
    assert tokenizer.vocab_size == 512
    assert len(tokenizer.encode("<think>")) == len(tokenizer.encode("<|endoftext|>")) == 1


SMALL = replace(
    pretrain.TINY_CONFIG, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16
)


@pytest.fixture(scope="module")
def tokenizer():
    return pretrain.train_tokenizer(0, 500)


@pytest.fixture
def small(monkeypatch, tokenizer):
    """A recipe of three chunks of 32 documents for a model of two layers."""
    monkeypatch.setattr(pretrain, "CHUNK", 32)
    monkeypatch.setattr(pretrain, "TINY_CONFIG", SMALL)
    monkeypatch.setattr(pretrain, "train_tokenizer", lambda seed: tokenizer)
    return pretrain.Recipe(steep_chunks=1, clean_chunks=1, mixed_chunks=2, batch_tokens=2048, warmup=5)


class Killed(Exception):
    pass


def killed_and_resumed(run, monkeypatch):
    """What a run gives that is killed in its second chunk and started again."""
    original, calls = pretrain.train_chunk, []

    def killed_in_the_second_chunk(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return original(*arguments)

    monkeypatch.setattr(pretrain, "train_chunk", killed_in_the_second_chunk)
    with pytest.raises(Killed):
        run()
    monkeypatch.setattr(pretrain, "train_chunk", original)
    return run()


def test_a_stopped_run_ends_in_the_same_weights(small, tmp_path, monkeypatch):
    def run(name="stopped"):
        return pretrain.pretrain(tmp_path / name, small, evaluate_every=2, problems=2)

    whole, resumed = run("whole"), killed_and_resumed(run, monkeypatch)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert (tmp_path / "stopped" / "tiny-base.safetensors").exists()
    assert len((tmp_path / "stopped" / "log.jsonl").read_text().splitlines()) == 5


def test_a_run_of_another_recipe_is_refused(small, tmp_path):
    pretrain.pretrain(tmp_path, replace(small, mixed_chunks=0), evaluate_every=9, problems=2)
    for other in (replace(small, weight_decay=0.5), replace(small, seed=7)):
        with pytest.raises(ValueError, match="another recipe"):
            pretrain.pretrain(tmp_path, other, problems=2)


def test_the_mixed_phase_can_be_repeated_from_the_end_of_the_clean_one(small, tmp_path):
    whole = pretrain.pretrain(tmp_path / "whole", small, evaluate_every=9, problems=2)
    again = pretrain.pretrain(tmp_path / "again", small, 9, 2, from_clean=tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "again")]
    assert logs[0][0] == logs[1][0]
    assert len(logs[0]) == len(logs[1])
    longer = replace(small, mixed_chunks=3, mixed_rate=1e-3)
    other = pretrain.pretrain(tmp_path / "other", longer, 9, 2, from_clean=tmp_path / "whole")
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="another recipe"):
        pretrain.pretrain(tmp_path / "third", replace(small, seed=5), 9, 2, from_clean=tmp_path / "whole")


def test_a_run_can_begin_with_the_weights_and_the_tokenizer_of_a_model(small, tokenizer, tmp_path, monkeypatch):
    torch.manual_seed(small.seed + 1)
    begun = CausalLM(SMALL)
    monkeypatch.setattr(pretrain, "load_model", {"mine": (begun, Tokenizer(tokenizer))}.get)
    monkeypatch.setattr(pretrain, "train_tokenizer", lambda seed: 1 / 0)
    nothing = replace(small, steep_chunks=0, clean_chunks=0, mixed_chunks=0)
    model = pretrain.pretrain(tmp_path, nothing, problems=2, start="mine")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), begun.parameters(), strict=True))
    assert (tmp_path / "tokenizer.json").read_text(encoding="utf-8") == tokenizer.to_str(pretty=True)


def test_the_learning_rate_has_no_jump_and_ends_at_0():
    recipe = pretrain.Recipe()
    assert pretrain.learning_rate(recipe, 0, 0) == pytest.approx(recipe.learning_rate / recipe.warmup)
    before, after = (pretrain.learning_rate(recipe, 9999, recipe.clean_chunks + d) for d in (-1e-6, 1e-6))
    assert before == pytest.approx(after, rel=1e-4)
    assert pretrain.learning_rate(recipe, 9999, recipe.chunks) == 0


def test_a_deepened_model_computes_what_the_model_computed():
    base, _ = load_model("tiny")
    deeper = train_teacher.deepened(base)
    ids = torch.randint(0, 512, (2, 20), generator=torch.Generator().manual_seed(0))
    assert deeper.config.num_layers == 2 * base.config.num_layers
    assert torch.equal(deeper(ids), base(ids))


def test_a_new_layer_learns_though_its_outputs_begin_at_zero():
    base, _ = load_model("tiny")
    deeper = train_teacher.deepened(base)
    deeper(torch.arange(3, 23)[None]).logsumexp(-1).sum().backward()
    for part in (deeper.blocks[1].attention.out, deeper.blocks[1].feed_forward.down):
        assert part.weight.abs().max() == 0
        assert part.weight.grad.abs().max() > 0


def test_the_teacher_reads_full_and_right_derivations_only():
    rng = random.Random(5)
    for _ in range(300):
        document = documents.draw_document(rng, "teacher")
        steps = document.completion.replace("<think>", "").split("\n")
        assert len(steps) > 2


def test_a_teacher_run_goes_on_where_it_stopped(small, tokenizer, tmp_path, monkeypatch):
    torch.manual_seed(0)
    base = CausalLM(SMALL)
    monkeypatch.setattr(train_teacher, "load_model", lambda _: (base, Tokenizer(tokenizer)))
    recipe = train_teacher.TeacherRecipe(steep_chunks=2, clean_chunks=2, batch_tokens=2048, warmup=5)

    def run(name="stopped"):
        return train_teacher.train_teacher(tmp_path / name, recipe, evaluate_every=9, problems=2)

    whole, resumed = run("whole"), killed_and_resumed(run, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert whole.config.num_layers == 2 * SMALL.num_layers
    assert (tmp_path / "stopped" / "tiny-teacher.safetensors").exists()


def test_padding_carries_no_loss():
    """Trap D1: the loss of a padded batch is the weighted mean over its real targets."""
    torch.manual_seed(0)
    model = CausalLM(pretrain.TINY_CONFIG)
    rows = [([5, 6, 7, 0], [0.1, 0.1, 1.0, 1.0]), ([8, 9, 10, 11, 12, 0], [0.1, 0.1, 0.1, 1.0, 1.0, 1.0])]
    batch = pretrain.loss_on(model, *pretrain._pad(rows))
    parts = [pretrain.loss_on(model, *pretrain._pad([row])) for row in rows]
    weights = [sum(row[1][1:]) for row in rows]
    expected = sum(p * w for p, w in zip(parts, weights, strict=True)) / sum(weights)
    assert torch.allclose(batch, expected, atol=1e-5)


def test_problems_of_a_hard_level_are_found_quickly():
    rng = random.Random(0)
    for subject in SUBJECTS:
        for level in LEVELS:
            assert len(draw_problem(rng, subject, level)[2]) == level
