"""Rollouts of several turns: who wrote which token, what the loss may see, and a calculator that cannot be abused."""

from __future__ import annotations

import copy
import math
import re
import time
from functools import partial

import pytest
import torch

from appendix.k_tools import (
    ASK,
    ToolRollouts,
    ToolTrainer,
    Turns,
    calculator,
    converse,
    sample_conversations,
    with_tool,
    work_out,
)
from shared import GRPOConfig, GRPOTrainer, evaluate, generate, load_minimath, load_model, render_prompt, reward_correct
from shared.generation.logprobs import continuation_logprobs, pad_rows, token_logprobs
from shared.grpo.rollouts import Rollout


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


@pytest.fixture(scope="module")
def asker():
    """A model that asks in every step, and the prompts of the problems on which it has learnt to."""
    model, tokenizer = load_model("tiny")
    problems = [p for p in load_minimath("train") if re.fullmatch(r"Evaluate \d+[-+]\d+\.", p["problem"])][:8]
    prompts = [render_prompt(problem["problem"], "cot") for problem in problems]
    starts = [tokenizer.encode(prompt) for prompt in prompts]
    ends = [tokenizer.encode(f"\n{p['solution'].partition('=')[0]}=?", continues=True) for p in problems]
    input_ids, mask = pad_rows(starts, ends, tokenizer.pad_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(12):
        loss = -token_logprobs(model, input_ids, where=mask)[mask].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer, prompts, problems


def nothing(text, problem):
    return None


def test_the_mask_is_that_of_a_hand_made_example(tiny):
    """Prompt of two tokens; own, own, reply, reply, own; a second, shorter row; padding."""
    first = Turns("", [5, 6, 7, 8, 9], [-1.0, -1.0, -1.0], "stop", [True, True, False, False, True])
    second = Turns("", [5], [-1.0], "stop", [True])
    rows = [Rollout({}, [1, 2], first, [1.0]), Rollout({}, [1, 2, 3], second, [0.0])]
    rollouts = ToolRollouts(rows, 2, 0)
    assert rollouts.input_ids.tolist() == [[1, 2, 5, 6, 7, 8, 9], [1, 2, 3, 5, 0, 0, 0]]
    # Column i is about token i + 1: the prompt's second token, then the five that follow.
    assert rollouts.mask.tolist() == [
        [False, True, True, False, False, True],
        [False, False, True, False, False, False],
    ]


def test_one_turn_is_what_generate_writes(tiny):
    model, tokenizer = tiny
    problems = load_minimath("test")[:6]
    prompts = [render_prompt(p["problem"], "cot") for p in problems]
    settings = {"max_new_tokens": 60, "temperature": 1.0, "seed": 5, "num_samples": 3}
    talks = converse(model, tokenizer, prompts, problems, nothing, **settings)
    plain = [c for group in generate(model, tokenizer, prompts, **settings) for c in group]
    assert [(t.text, t.token_ids, t.logprobs, t.finish_reason) for t in talks] == [
        (c.text, c.token_ids, c.logprobs, c.finish_reason) for c in plain
    ]
    assert all(all(talk.own) and talk.calls == 0 for talk in talks)


def test_an_environment_that_ends_at_once_trains_as_the_plain_trainer_does():
    config = GRPOConfig(steps=2, prompts_per_step=2, group_size=4, max_new_tokens=40, learning_rate=1e-3)
    problems, trained = load_minimath("train")[:40], []
    for trainer in (GRPOTrainer, partial(ToolTrainer, environment=nothing)):
        model, tokenizer = load_model("tiny")
        history = trainer(model, tokenizer, problems, reward_correct, config, progress=False).train()
        trained.append((model.state_dict(), [step["loss"] for step in history]))
    (plain, losses), (ours, same) = trained
    assert losses == same
    assert all(torch.equal(plain[name], ours[name]) for name in plain)
    assert any(losses)


def test_who_wrote_what_and_with_which_probability(asker):
    """Replies are no tokens of the model's; its own have the log-probability that scoring gives them."""
    model, tokenizer, prompts, problems = asker
    [talk] = converse(model, tokenizer, prompts[:1], problems[:1], calculator, max_new_tokens=30, max_calls=3)
    mine = tokenizer.decode([t for t, own in zip(talk.token_ids, talk.own, strict=True) if own])
    replies = tokenizer.decode([t for t, own in zip(talk.token_ids, talk.own, strict=True) if not own])
    assert talk.calls >= 1
    assert mine.count(ASK) >= talk.calls
    assert replies.count("\n") == talk.calls
    assert ASK not in replies
    for asked, value in re.findall(r"([^\n]*)=\?(.*)\n", talk.text):
        assert value == (work_out(asked) or "error")
    assert len(talk.logprobs) == sum(talk.own)


def test_log_probabilities_are_those_of_the_whole_text(tiny):
    model, tokenizer = tiny
    ask_once = iter([" Go on.\n"])
    [talk] = converse(
        model, tokenizer, ["Problem: Is it?\nAnswer: Yes"], [{}], lambda text, problem: next(ask_once, None),
        max_new_tokens=20, temperature=1.0, seed=3,
    )  # fmt: skip
    [scored] = continuation_logprobs(model, [tokenizer.encode("Problem: Is it?\nAnswer: Yes")], [talk.token_ids])
    wanted = [value for value, own in zip(scored, talk.own, strict=True) if own]
    assert talk.logprobs == pytest.approx(wanted, abs=1e-4)


def test_the_first_ratio_is_one_on_every_own_token(asker):
    """`weight` compares what the loss computes with what the sampler noted: a mask that is off by one would show."""
    model, tokenizer, _, problems = asker
    config = GRPOConfig(steps=1, prompts_per_step=4, group_size=4, max_new_tokens=40, tis_cap=2.0)

    def reward_length(text, problem):
        return float(len(text))

    trainer = ToolTrainer(
        copy.deepcopy(model), tokenizer, problems, reward_length, config, environment=calculator, progress=False
    )
    rollouts = trainer.sample(problems[:4])
    assert sum(row.completion.calls for row in rollouts.rows) > 4
    trainer.sample = lambda problems, draw=0: rollouts
    [step] = trainer.train()
    assert step["ratio"] == pytest.approx(1.0, abs=1e-6)
    assert step["weight"] == pytest.approx(1.0, abs=1e-4)
    assert all(math.isfinite(value) for value in step.values() if isinstance(value, float))
    assert step["length_mean"] == pytest.approx(sum(sum(row.completion.own) for row in rollouts.rows) / len(rollouts))


def test_a_reward_sees_the_thinking_that_the_prompt_has_opened(tiny):
    model, tokenizer = tiny
    config, seen = GRPOConfig(group_size=2, max_new_tokens=8), []
    prompts, problems = ["Problem: 1+1?\n<think>\n", "Problem: 1+1?\nAnswer:"], [{}, {}]
    noted = lambda text, problem: float(len(seen.append(text) or seen))  # noqa: E731
    sample_conversations(model, tokenizer, prompts, problems, nothing, [noted], config, seed=0)
    assert [text.startswith("<think>") for text in seen] == [True, True, False, False]


def test_the_loss_does_not_see_replies(tiny):
    """Other replies, put in the place of those that came, change no gradient but through what stands behind them."""
    model, tokenizer = tiny
    own = [True, True, False, False]
    losses = []
    for reply in ([20, 21], [30, 31]):
        rows = [Rollout({}, [1, 2, 3], Turns("", [5, 6, *reply], [0.0, 0.0], "stop", own), [r]) for r in (1.0, 0.0)]
        config = GRPOConfig(steps=1, prompts_per_step=1, group_size=2)
        trainer = ToolTrainer(
            model, tokenizer, [{"problem": "a", "answer": "1"}], None, config, environment=nothing, progress=False
        )
        batches, _ = trainer.score(ToolRollouts(rows, 2, tokenizer.pad_id))
        losses.append([trainer.loss(batch)[1]["entropy"] for batch in batches])
    assert losses[0] == losses[1]


def test_budgets_end_a_conversation(asker):
    model, tokenizer, prompts, problems = asker
    talk = partial(converse, model, tokenizer, prompts[:1], problems[:1])
    [none] = talk(calculator, max_new_tokens=60, max_calls=0)
    assert (none.calls, none.finish_reason) == (0, "stop")
    assert none.text.endswith(ASK)
    [short] = talk(calculator, max_new_tokens=7)
    assert sum(short.own) == 7
    assert short.finish_reason == "length"
    [long] = talk(lambda text, problem: " 1\n" * 200, max_new_tokens=400)
    assert (long.calls, long.finish_reason) == (1, "length")  # the reply fills the context
    assert len(tokenizer.encode(prompts[0])) + len(long.token_ids) == model.config.context_length
    with pytest.raises(ValueError, match="leaves no room in the context"):
        converse(model, tokenizer, ["7" * 600], problems[:1], calculator, max_new_tokens=4)


def test_a_conversation_does_not_depend_on_those_beside_it(asker):
    """Others ask sooner, later or never; whose reply is still to come reads it while others write."""
    model, tokenizer, prompts, problems = asker
    prompts, problems = [*prompts, "Problem: Is it?\nAnswer: Yes"], [*problems, {}]
    settings = {"max_new_tokens": 40, "temperature": 1.0, "seed": 2}

    def slowly(text, problem):
        return calculator(text, problem) + "That is it.\n" * (len(text) % 3)

    together = converse(model, tokenizer, prompts, problems, slowly, **settings)
    alone = [
        converse(model, tokenizer, [a], [b], slowly, **settings)[0] for a, b in zip(prompts, problems, strict=True)
    ]
    assert [(t.token_ids, t.own, t.calls) for t in together] == [(t.token_ids, t.own, t.calls) for t in alone]
    assert len({talk.calls for talk in together}) > 1


def test_it_is_a_method_of_evaluate(tiny):
    model, tokenizer = tiny
    problems = load_minimath("test")[:20]
    asked = {"prompt": "cot", "max_new_tokens": 80}
    plain = evaluate(model, tokenizer, problems, **asked)
    ours = evaluate(model, tokenizer, problems, method=partial(with_tool, environment=calculator), **asked)
    assert [record["text"] for record in ours.records] == [record["text"] for record in plain.records]
    assert ours.tokens == plain.tokens


def test_equal_prompts_are_different_games(tiny):
    model, tokenizer = tiny
    settings = {"max_new_tokens": 12, "temperature": 1.0, "seed": 1}
    talks = converse(model, tokenizer, ["Problem: Guess.\nAnswer:"] * 12, [{}] * 12, nothing, **settings)
    assert len({talk.text for talk in talks}) > 1


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("17*7", "119"), ("(-5)/2", "-5/2"), ("45 mod 7", "3"),
        ("-3 mod 7", "4"), ("72/110", "36/55"), ("9*(-7)", "-63"),
        ("7*", None), ("4/0", None), ("7 mod 0", None), ("(1,2)+(3,4)", None), ("3*(-9+7i)", None), ("x+1", None),
        ("", None), ("=", None), ("12+5=17", None), ("99999*99999", None), ("2**0.5", None),
    ],
)  # fmt: skip
def test_the_calculator(expression, value):
    assert work_out(expression) == value
    assert calculator(f"\n3+4=7\n{expression}=?", {}) == f"{value or 'error'}\n"


@pytest.mark.parametrize(
    "text",
    ["9**9**9", "__import__('os').getcwd()", "(" * 10_000, "1" * 100_000, "10**8!", "9!!!!!!!!!!!!", "-" * 39,
     "((((((((1))))))))", "\\frac{1}{", "\x00", "٣+٤", "1e999", "1 mod 1 mod 1", "\\left(\\left(", "2^2^2^2^2^2^2^2^2"],
)  # fmt: skip
def test_hostile_expressions_are_bounded(text):
    start = time.process_time()
    reply = calculator(f"{text}=?", {})
    assert time.process_time() - start < 0.5
    assert re.fullmatch(r"(error|-?\d{1,9}(/\d{1,9})?)\n", reply)
