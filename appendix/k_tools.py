"""Rollouts of several turns: a model writes, an environment replies, until one of them ends it. Taught in appendix K.

An environment is a function (text, problem) -> reply: it sees all that stands behind the prompt so far, its own replies
included, and returns the text to append, or None to end the conversation. A problem of one turn is the environment that
always returns None. What an environment wrote is part of the text, and of no loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from shared.evaluation.evaluator import Answer
from shared.generation.completions import Completion, Row, decode_batch, make_rows, next_tokens, prefill, to_completion
from shared.generation.logprobs import pad_rows
from shared.generation.prompts import opened_thinking, render_prompt
from shared.generation.sampling import Sampling
from shared.grader.answer_text import normalize_answer
from shared.grader.answers import parse_answer
from shared.grader.grading import extract_answer
from shared.grader.math_tokens import ParseError
from shared.grader.numeric import Evaluator, Undecided
from shared.grpo.config import GRPOConfig
from shared.grpo.rollouts import Reward, Rollout, Rollouts, give_reward
from shared.grpo.trainer import GRPOTrainer
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM

Environment = Callable[[str, dict], str | None]
Choice = Callable[[Tensor, list], Tensor]  # (logits, rows) -> the next token of each row
ASK = "?"  # ends a turn of the model: after it, the environment has the word
CALL = f"={ASK}"


@dataclass(frozen=True)
class Turns(Completion):
    """A completion of several turns: `token_ids` are those of both sides, `logprobs` of the model's own.

    `own` tells them apart, one flag a token; `calls` is how often the environment replied.
    """

    own: list[bool] = field(default_factory=list)
    calls: int = 0


@dataclass(kw_only=True)
class Conversation(Row):
    """A row that may go on behind a question: the reply is put in token by token, as if the model had chosen it.

    The model may write `most` tokens, both sides together `room`.
    """

    problem: dict
    environment: Environment
    tokenizer: Tokenizer
    most: int
    max_calls: int
    own: list[bool] = field(default_factory=list)
    reply: list[int] = field(default_factory=list)  # what of it is still to come
    calls: int = 0

    def add(self, token: int, logprob: float) -> None:
        """Take one more token, of either side, and see whether the conversation is over."""
        self.token_ids.append(token)
        self.own.append(not self.reply)
        if self.reply:
            del self.reply[0]
        else:
            self.logprobs.append(logprob)
            self.hear(token)
        full = len(self.token_ids) == self.room
        if self.finish_reason is None and (full or (not self.reply and len(self.logprobs) == self.most)):
            self.finish_reason = "length"

    def hear(self, token: int) -> None:
        """Let the environment reply if this token of the model asks for it."""
        asks = ASK in self.tokenizer.decode([token])
        if asks and self.calls < self.max_calls:
            reply = self.environment(self.tokenizer.decode(self.token_ids), self.problem)
            if reply is not None:
                self.reply = self.tokenizer.encode(reply, continues=True)
                self.calls += 1
                return
        if asks or token in self.ending.end_ids:
            self.finish_reason = "stop"


def next_or_reply(sampling: Sampling, logits: Tensor, rows: list[Conversation]) -> Tensor:
    """Each row's next token, (rows,): the model's choice, or what is next of a reply."""
    tokens = next_tokens(sampling, logits, rows)
    for number, row in enumerate(rows):
        if row.reply:
            tokens[number] = row.reply[0]
    return tokens


@torch.inference_mode()
def converse(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    problems: Sequence[dict],
    environment: Environment,
    *,
    max_new_tokens: int,
    num_samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    seed: int = 0,
    max_calls: int = 16,
    batch_size: int = 256,
) -> list[Turns]:
    """Let the model and the environment write by turns; `num_samples` conversations a prompt, one after the other.

    A turn of the model ends with ASK, or for good with an end token. `max_new_tokens` counts its own tokens of all
    turns; behind `max_calls` replies, the next ASK ends the text. Raises ValueError for a prompt that fills the
    context. Taught in appendix K, section K.2.
    """
    sampling, context = Sampling(temperature, top_k, top_p), model.config.context_length
    plain = make_rows(model, tokenizer, prompts, range(num_samples), context, sampling, seed, None)
    limits = {"tokenizer": tokenizer, "most": min(max_new_tokens, context), "max_calls": max_calls}
    owners = [problem for problem in problems for _ in range(num_samples)]
    rows = [
        Conversation(**vars(row), problem=problem, environment=environment, **limits)
        for row, problem in zip(plain, owners, strict=True)
    ]
    write(model, tokenizer, rows, partial(next_or_reply, sampling), batch_size)
    return [Turns(**vars(to_completion(row)), own=row.own, calls=row.calls) for row in rows]


def write(model: CausalLM, tokenizer: Tokenizer, rows: Sequence[Row], choose: Choice, batch_size: int = 256) -> None:
    """Let all rows grow to their ends by chapter 2's loop, those with prompts of similar length together."""
    by_length = sorted(rows, key=lambda row: len(row.prompt))
    for start in range(0, len(rows), batch_size):
        batch = by_length[start : start + batch_size]
        for _ in decode_batch(prefill(model, tokenizer, batch, True), batch, choose):
            pass


def with_tool(
    model: CausalLM, tokenizer: Tokenizer, prompts: Sequence[str], *, environment: Environment, **settings: Any
) -> list[Answer]:
    """A method for `evaluate`: greedy, with an environment that needs no problem. `tokens` are the model's own."""
    talks = converse(model, tokenizer, prompts, [{}] * len(prompts), environment, **settings)
    return [
        Answer(t.text, extract_answer(t.text), sum(t.own), {"calls": t.calls, "finish_reason": t.finish_reason})
        for t in talks
    ]


# --- a calculator ---------------------------------------------------------------------------------------------


def work_out(expression: str) -> str | None:
    """The value of an expression of plain numbers, in lowest terms, as text; None if the calculator cannot tell.

    It is the verifier's own arithmetic (chapter 3), which looks at the size of every operand before it begins: text
    that a model wrote can neither run as code nor keep it busy. Taught in appendix K, section K.3.
    """
    try:
        left, mod, right = (part.strip() for part in expression.partition(" mod "))
        value, divisor = _number(left), _number(right) if mod else None
        return str(value if divisor is None else value % divisor)
    except (ParseError, Undecided, ZeroDivisionError):
        return None


def _number(text: str) -> Fraction:
    if len(text) > 40 or not any(sign.isdigit() for sign in text) or any(sign.isalpha() for sign in text):
        raise Undecided("longer than any step, or no number")
    value = Evaluator().value(parse_answer(normalize_answer(text)))
    if not isinstance(value, Fraction) or max(abs(value.numerator), value.denominator) >= 10**9:
        raise Undecided("no rational number, or one that is too long")
    return value


def calculator(text: str, problem: dict) -> str | None:
    """An environment: behind a line such as `17*7=?` it writes the value, behind one it cannot read, `error`."""
    line = text.rpartition("\n")[2]
    value = work_out(line.removesuffix(CALL)) if line.endswith(CALL) else None
    return f"{value or 'error'}\n"


# --- training -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToolRollouts(Rollouts):
    """Rollouts in whose mask only the model's own tokens are True. Taught in appendix K, section K.4."""

    @cached_property
    def padded(self) -> tuple[Tensor, Tensor]:
        """`input_ids` and `mask`."""
        starts, written = zip(*((row.prompt_ids, row.completion.token_ids) for row in self.rows), strict=True)
        input_ids, mask = pad_rows(starts, written, self.pad_id)
        for place, row in zip(mask, self.rows, strict=True):
            first = len(row.prompt_ids) - 1  # the mask's column i is about token i + 1
            place[first : first + len(row.completion.own)] = torch.tensor(row.completion.own)
        return input_ids, mask


class ToolTrainer(GRPOTrainer):
    """`GRPOTrainer` with an environment; the loss falls on what the model wrote. Taught in appendix K, section K.4.

    `prompt`: a function problem -> prompt; by default `render_prompt` in the config's style.
    """

    def __init__(
        self,
        *arguments: Any,
        environment: Environment,
        prompt: Callable[[dict], str] | None = None,
        max_calls: int = 16,
        **named: Any,
    ):
        super().__init__(*arguments, **named)
        self.environment, self.max_calls = environment, max_calls
        self.prompt = prompt or (lambda p: render_prompt(p["problem"], self.config.prompt_style, self.tokenizer))

    def sample(self, problems: list[dict], draw: int = 0) -> ToolRollouts:
        """What policy and environment write for the problems; every draw of every step has its own random numbers."""
        seed = (self.config.seed * 1_000_000 + self.step) * 1_000 + draw
        prompts = [self.prompt(problem) for problem in problems]
        asked = (self.plain_model(), self.tokenizer, prompts, problems, self.environment)
        return sample_conversations(*asked, self.rewards, self.config, seed=seed, max_calls=self.max_calls)


def sample_conversations(
    model: CausalLM,
    tokenizer: Tokenizer,
    prompts: list[str],
    problems: list[dict],
    environment: Environment,
    rewards: list[Reward],
    config: GRPOConfig,
    *,
    seed: int,
    max_calls: int = 16,
) -> ToolRollouts:
    """`config.group_size` conversations of every problem, rewarded. A reward sees the replies as well."""
    settings = {name: getattr(config, name) for name in ("max_new_tokens", "temperature", "top_p", "top_k")}
    settings |= {"num_samples": config.group_size, "seed": seed, "max_calls": max_calls}
    talks = converse(model, tokenizer, prompts, problems, environment, **settings)
    rows = []
    for number, talk in enumerate(talks):
        problem, prompt = problems[number // config.group_size], prompts[number // config.group_size]
        given = [give_reward(reward, opened_thinking(prompt) + talk.text, problem) for reward in rewards]
        rows.append(Rollout(problem, tokenizer.encode(prompt), talk, given))
    return ToolRollouts(rows, config.group_size, tokenizer.pad_id)
