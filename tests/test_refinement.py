"""Self-refinement: what is asked, what is accepted, what it costs; scripted models and the tiny one."""

from __future__ import annotations

import functools
import json
import math
from types import SimpleNamespace

import pytest

from shared import evaluate, generate, load_minimath, load_model, render_prompt
from shared.generation.completions import Completion
from shared.generation.prompts import INSTRUCTIONS, render_revision_prompt
from shared.inference.refinement import answer_logprob_scorer, problem_of, revision_prompt, self_refine
from shared.inference.scorers import as_completions, avg_logprob_score, heuristic_score
from shared.inference.votes import draw_samples

LIMIT = 80
PROMPT = render_prompt("Compute 2+2.", "cot")


@pytest.fixture(scope="module")
def tiny():
    """The tiny base model and its tokenizer."""
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return [render_prompt(p["problem"], "cot") for p in load_minimath("test")[:6]]


def completion(answer: object, logprob: float = -1.0) -> Completion:
    text = "no box" if answer is None else rf"\boxed{{{answer}}}"
    return Completion(text, [1, 2], [logprob, logprob], "stop")


class Script:
    """Completions that stand for what a model writes: draws them in turn and notes the prompts it was asked."""

    def __init__(self, *lines: Completion):
        self.lines, self.asked = iter(lines), []

    def __call__(self, model, tokenizer, prompts, **settings) -> list[list[Completion]]:
        self.asked += prompts
        return [[next(self.lines)] for _ in prompts]


def refine(draw, scorer, prompt=PROMPT, **settings):
    model = SimpleNamespace(config=SimpleNamespace(context_length=1000))
    tokenizer = SimpleNamespace(encode=str.encode, is_chat=False)
    settings |= {"scorer": scorer, "draw": draw, "max_new_tokens": 9}
    [answer] = self_refine(model, tokenizer, [prompt], **settings)
    return answer


# --- prompts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", INSTRUCTIONS)
@pytest.mark.parametrize("problem", ["Compute 2+2.", "Two\nlines: Problem: 1\nAnswer:", "{x} \\boxed{3}"])
def test_the_problem_comes_back_out_of_its_prompt(problem, style):
    assert problem_of(render_prompt(problem, style)) == problem
    assert revision_prompt(render_prompt(problem, style), " 4") == render_revision_prompt(problem, " 4")


@pytest.mark.parametrize("prompt", ["", "What is 2+2?", "Problem: 2+2\nAnswer:", PROMPT + " 4", "x" + PROMPT])
def test_another_prompt_is_refused_with_the_way_out(prompt):
    with pytest.raises(ValueError, match="pass self_refine a render_revision of your own"):
        problem_of(prompt)


# --- accepting ---------------------------------------------------------------------------------------------


def test_a_better_revision_is_taken():
    script = Script(completion(5, -2.0), completion(4, -1.0))
    answer = refine(script, avg_logprob_score)
    assert (answer.answer, answer.tokens) == ("4", 4)
    assert answer.details == {
        "drafts": [r"\boxed{5}", r"\boxed{4}"],
        "answers": ["5", "4"],
        "scores": [-2.0, -1.0],
        "accepted": [True],
        "sample_tokens": [2, 2],
        "finish_reason": "stop",
    }
    assert script.asked == [PROMPT, render_revision_prompt("Compute 2+2.", r"\boxed{5}")]


@pytest.mark.parametrize("score", [-1.0, -1.5])
def test_a_revision_that_is_no_better_is_not(score):
    answer = refine(Script(completion(4, -1.0), completion(5, score)), avg_logprob_score)
    assert (answer.answer, answer.tokens, answer.details["accepted"]) == ("4", 4, [False])


def test_without_a_scorer_every_revision_is_taken():
    answer = refine(Script(completion(4, -1.0), completion(5, -9.0)), None)
    assert (answer.answer, answer.details["scores"], answer.details["accepted"]) == ("5", [None, None], [True])


def test_a_revision_without_an_answer_does_not_replace_one():
    """Trap S3: an abstention never wins over an answer, however sure the model was of it."""
    kept = refine(Script(completion(4, -5.0), completion(None, -0.1)), avg_logprob_score)
    assert (kept.answer, kept.details["accepted"]) == ("4", [False])
    gained = refine(Script(completion(None, -0.1), completion(4, -5.0)), avg_logprob_score)
    assert (gained.answer, gained.details["accepted"]) == ("4", [True])


def test_both_are_scored_as_answers_to_the_original_prompt():
    seen = []

    def scorer(prompt, c):
        seen.append(prompt)
        return 0.0

    refine(Script(completion(5), completion(4)), scorer)
    assert seen == [PROMPT, PROMPT]


def test_rounds_go_on_from_what_was_kept():
    script = Script(completion(1, -3.0), completion(2, -2.0), completion(3, -2.5))
    answer = refine(script, avg_logprob_score, rounds=5)
    checked = [render_revision_prompt("Compute 2+2.", rf"\boxed{{{n}}}") for n in (1, 2)]
    assert script.asked == [PROMPT, *checked], "the refused greedy revision would come again, so it is not asked for"
    assert (answer.answer, answer.tokens, answer.details["accepted"]) == ("2", 6, [True, False])


def test_a_sampled_revision_may_be_tried_again():
    script = Script(completion(1, -2.0), completion(2, -3.0), completion(3, -1.0))
    answer = refine(script, avg_logprob_score, rounds=2, revision_temperature=1.0)
    assert (answer.answer, answer.details["accepted"]) == ("3", [False, True])
    assert script.asked[1] == script.asked[2]


def test_no_round_is_the_draft():
    assert refine(Script(completion(1)), avg_logprob_score, rounds=0).answer == "1"
    with pytest.raises(ValueError, match="rounds is -1"):
        refine(Script(), avg_logprob_score, rounds=-1)


def test_a_scorer_that_returns_no_number_is_refused():
    with pytest.raises(ValueError, match="it must return a number"):
        refine(Script(completion(1), completion(2)), lambda prompt, c: None)


def test_a_prompt_of_another_form_needs_a_revision_prompt_of_its_own():
    script = Script(completion(1), completion(2, -0.5))
    with pytest.raises(ValueError, match="render_revision"):
        refine(script, avg_logprob_score, prompt="2+2=")
    script = Script(completion(1), completion(2, -0.5))
    answer = refine(script, avg_logprob_score, prompt="2+2=", render_revision=lambda prompt, draft: f"{prompt}{draft}?")
    assert (answer.answer, script.asked[1]) == ("2", r"2+2=\boxed{1}?")


# --- the tiny model ----------------------------------------------------------------------------------------


def test_the_steps_are_generate_and_generate_again(tiny, prompts):
    """Drafts and checks are those that `generate` gives by hand, and all tokens are counted."""
    drafts = generate(*tiny, prompts, max_new_tokens=LIMIT, temperature=1.0, seed=4)
    checks = [revision_prompt(p, d.text) for p, d in zip(prompts, drafts, strict=True)]
    revisions = generate(*tiny, checks, max_new_tokens=LIMIT)
    answers = self_refine(*tiny, prompts, scorer=None, temperature=1.0, max_new_tokens=LIMIT, seed=4)
    for draft, revision, answer in zip(drafts, revisions, answers, strict=True):
        assert answer.details["drafts"] == [draft.text, revision.text]
        assert answer.text == revision.text
        assert answer.tokens == len(draft.token_ids) + len(revision.token_ids)
        json.dumps(answer.details)


def test_it_is_a_method_of_evaluate_whatever_the_batches(tiny):
    problems = load_minimath("test")[:4]
    method = functools.partial(self_refine, scorer=heuristic_score, temperature=1.0, revision_temperature=0.7, rounds=2)
    run = functools.partial(evaluate, *tiny, problems, prompt="cot", method=method, max_new_tokens=LIMIT)
    texts = [[record["text"] for record in run(batch_size=size).records] for size in (4, 1)]
    assert texts[0] == texts[1]


def test_answers_are_compared_after_the_bare_question(tiny):
    """The scorer forgets how an answer was reached: a draft and a revision with one answer score the same."""
    scorer = answer_logprob_scorer(*tiny)
    draft, revision = completion(4, -0.1), Completion("4 right\n" + r"\boxed{4}", [1], [-3.0], "length")
    assert scorer(PROMPT, draft) == scorer(PROMPT, revision)
    [forced] = as_completions(*tiny, [render_prompt("Compute 2+2.", "direct")], [r" \boxed{4}"])
    assert scorer(PROMPT, draft) == pytest.approx(avg_logprob_score("", forced))
    assert scorer(PROMPT, draft) > scorer(PROMPT, completion(977))
    assert scorer(PROMPT, completion(None)) == -math.inf
    assert scorer(PROMPT, completion("9" * 2000)) == -math.inf, "too long for the context"


@pytest.mark.parametrize(
    "text",
    ["", "\x00", "<|endoftext|><|im_end|>", "\\boxed{" * 30, "🦊\ud7ff", "Problem: x\nDraft: y\nCheck:", "9" * 2000],
    ids=["empty", "zero", "specials", "braces", "signs", "prompt", "long"],
)  # fmt: skip
def test_odd_drafts_never_raise(tiny, text):
    """Model text is untrusted. A draft that leaves no room for a check in the context stays as it is."""
    scorer, asked = answer_logprob_scorer(*tiny), []

    def odd_draft_first(*arguments, **settings):
        asked.append(arguments[2])
        if len(asked) == 1:
            return [[Completion(text, [1], [-1.0], "length")]]
        return draw_samples(*arguments, **settings)

    [answer] = self_refine(*tiny, [PROMPT], scorer=scorer, max_new_tokens=12, draw=odd_draft_first)
    assert answer.details["drafts"][0] == text
    assert len(answer.details["accepted"]) == (0 if len(text) == 2000 else 1)
