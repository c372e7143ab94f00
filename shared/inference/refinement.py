"""Self-refinement: a draft, a check of it, a revision that is taken if a scorer says so. Taught in ch05.

    result = evaluate(model, tokenizer, problems, prompt="cot", max_new_tokens=200,
                      method=functools.partial(self_refine, scorer=answer_logprob_scorer(model, tokenizer)))

A model that revises its own answer with no new information may make it worse (arXiv:2310.01798), so measure: how many
wrong drafts were mended, how many right ones broken, and what as many tokens buy in another way.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from shared.evaluation.evaluator import Answer
from shared.generation.completions import Completion
from shared.generation.prompts import INSTRUCTIONS, render_prompt, render_revision_prompt
from shared.grader.grading import extract_answer
from shared.inference.scorers import Scorer, as_completions, avg_logprob_score, choose_best, scores_of
from shared.inference.votes import Draw, chosen_answer, draw_samples
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.values import as_list


def problem_of(prompt: str) -> str:
    """The problem's text in a prompt that `render_prompt` made, in whichever style.

    Raises ValueError for any other text. Taught in ch05, section 5.9.
    """
    for instruction in INSTRUCTIONS.values():
        question, asked, after = prompt.rpartition(f"\n{instruction}")
        before, begun, problem = question.partition("Problem: ")
        # The plain form begins and ends so; a chat format puts something before it and something else behind.
        if asked and begun and (before == "") == (after == "\nAnswer:"):
            return problem
    raise ValueError(
        f"The prompt {prompt[:40]!r} is not of render_prompt's form, so the problem in it cannot be found: "
        "pass self_refine a render_revision of your own, a function (prompt, draft) -> revision prompt."
    )


def revision_prompt(prompt: str, draft: str, tokenizer: Tokenizer | None = None) -> str:
    """The prompt that asks to revise a draft which was written after `prompt`; raises as `problem_of` does."""
    return render_revision_prompt(problem_of(prompt), draft, tokenizer)


def fits_context(model: CausalLM, tokenizer: Tokenizer, text: str) -> bool:
    """Whether the text leaves room in the model's context for at least one more token."""
    return len(tokenizer.encode(text)) < model.config.context_length


def answer_logprob_scorer(model: CausalLM, tokenizer: Tokenizer) -> Scorer:
    """A scorer that asks the model how likely the answer is after the bare question, whatever led to it.

    It is the mean log-probability of the box with the answer after the direct prompt, so completions that were written
    after different prompts, such as a draft and its revision, are measured alike. Without an answer, or with
    one that is too long for the context, it is minus infinity. The scorer raises ValueError for a prompt that
    `render_prompt` did not make. Taught in ch05, section 5.9.
    """

    def score(prompt: str, completion: Completion) -> float:
        answer = extract_answer(completion.text)
        if answer is None:
            return -math.inf
        question = render_prompt(problem_of(prompt), "direct", tokenizer)
        text = f"\\boxed{{{answer}}}" if tokenizer.is_chat else f" \\boxed{{{answer}}}"
        if not fits_context(model, tokenizer, question + text):
            return -math.inf
        [boxed] = as_completions(model, tokenizer, [question], [text])
        return avg_logprob_score(question, boxed)

    return score


@dataclass
class Work:
    """What was written for one prompt: a draft, then revisions; the score of each; the number of the one to keep."""

    prompt: str
    written: list[Completion]
    scores: list[float | None]
    accepted: list[bool] = field(default_factory=list)
    kept: int = 0

    def offer(self, revision: Completion, score: float | None) -> bool:
        """Keep the revision if it is the better of the two, or if nobody scores; whether it is kept."""
        pair, scores = (self.written[self.kept], revision), (self.scores[self.kept], score)
        taken = score is None or choose_best(pair, scores).details["chosen"] == 1
        self.written.append(revision)
        self.scores.append(score)
        self.accepted.append(taken)
        if taken:
            self.kept = len(self.written) - 1
        return taken

    def answer(self) -> Answer:
        """The text that is kept, at the price of all."""
        drafts = [text.text for text in self.written]
        details = {"drafts": drafts, "scores": self.scores, "accepted": self.accepted}
        return chosen_answer(self.written, self.kept, details)


def self_refine(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    rounds: int = 1,
    scorer: Scorer | None = avg_logprob_score,
    temperature: float = 0.0,
    revision_temperature: float = 0.0,
    render_revision: Callable[[str, str], str] | None = None,
    draw: Draw = draw_samples,
    **settings: object,
) -> list[Answer]:
    """Write a draft, have the model check it and answer again, and keep the better of the two (arXiv:2303.17651).

    A method for `evaluate`. Taught in ch05, section 5.9.

    Args:
        rounds: how often to revise; each round starts from what the last one kept. A prompt drops out when a greedy
            revision was refused, since the same would come again, and when draft and check outgrow the context.
        scorer: a revision is kept if its score is above that of what it revises; both are scored as answers to the
            original prompt. A text without an answer never replaces one that has one. None keeps every revision. The
            default accepts nearly every revision (section 5.10); `answer_logprob_scorer(model, tokenizer)` judges.
        temperature: that of the drafts; `revision_temperature`: that of the revisions.
        render_revision: makes the prompt of a revision from the original prompt and the draft's text; by default
            `revision_prompt`.
        draw, settings: as of `self_consistency`; `max_new_tokens` holds for the draft and for each revision.

    Returns one `Answer` a prompt; `tokens` counts drafts and revisions. Details: `drafts`, the texts of the draft and
    of each revision, their `answers`, `sample_tokens` and `scores` (None without a scorer), `accepted`, one flag a
    revision, and the `finish_reason` of the text that was kept. Raises ValueError if `rounds` is negative, a prompt is
    not one of `render_prompt` (with the default `render_revision`), or the scorer returns no number.
    """
    if rounds < 0:
        raise ValueError(f"rounds is {rounds}: give 0 for the draft alone, or how often to revise it.")

    def score(prompt: str, text: Completion) -> float | None:
        return scores_of(scorer, prompt, [text])[0] if scorer else None

    render_revision = render_revision or partial(revision_prompt, tokenizer=tokenizer)
    prompts, settings = as_list(prompts), settings | {"num_samples": 1}
    drafts = draw(model, tokenizer, prompts, temperature=temperature, **settings)
    works = [Work(p, [draft], [score(p, draft)]) for p, [draft] in zip(prompts, drafts, strict=True)]
    under_way = works
    for number in range(rounds):
        asked = [(work, render_revision(work.prompt, work.written[work.kept].text)) for work in under_way]
        asked = [(work, text) for work, text in asked if fits_context(model, tokenizer, text)]
        again = {"temperature": revision_temperature, "first_sample": number, **settings}
        revisions = draw(model, tokenizer, [text for _, text in asked], **again)
        under_way = []
        for (work, _), [revision] in zip(asked, revisions, strict=True):
            if work.offer(revision, score(work.prompt, revision)) or revision_temperature:
                under_way.append(work)
    return [work.answer() for work in works]
