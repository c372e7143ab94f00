"""Generation: what every argument promises, and the traps that public implementations fell into."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.nn import functional as F

from shared.generation import completions
from shared.generation.completions import Completion, generate
from shared.generation.sampling import (
    COLDEST,
    Sampling,
    apply_temperature,
    filter_min_p,
    filter_top_k,
    filter_top_p,
    random_stream,
    sample_token,
)
from shared.generation.stream import stream
from shared.model.transformer import CausalLM, ModelConfig

EOS, VOCAB = 256, 260
CONFIG = ModelConfig(
    vocab_size=VOCAB, hidden_size=48, intermediate_size=96, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16,
    context_length=96,
)  # fmt: skip
PROMPTS = ["a", "What is 1 + 2?", "x" * 40, "Hi there", "a longer prompt, so that rows differ"]


class ByteTokenizer:
    """Token i is byte i; the ids from 256 on are special and have no text."""

    eos_id = EOS
    pad_id = EOS

    def warn_if_plain(self, prompts: list[str]) -> None:
        """It belongs to no chat model."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")


class EosPrompt(ByteTokenizer):
    """Puts an end token into every prompt, as chat formats do."""

    def encode(self, text: str) -> list[int]:
        return [EOS, *super().encode(text), EOS]


class FixedModel(torch.nn.Module):
    """Has the same logits after every token, or those that `script` lists step by step."""

    def __init__(self, logits: torch.Tensor, script: list[int] | None = None):
        super().__init__()
        self.config = SimpleNamespace(context_length=10_000, vocab_size=len(logits))
        self.device, self.logits, self.script, self.rows = torch.device("cpu"), logits, script, []

    def new_cache(self, batch_size, capacity):
        return SimpleNamespace(select=lambda rows: None, trim=lambda: None, take=lambda caches: None)

    def hidden_states(self, input_ids, cache=None, attention_mask=None):
        self.rows.append(len(input_ids))
        return torch.zeros(*input_ids.shape, 1)

    def head(self, hidden):
        if self.script is not None:
            token = self.script[len(self.rows) - 1]
            return F.one_hot(torch.tensor([token] * len(hidden)), len(self.logits)).float() * 50
        return self.logits.expand(len(hidden), -1)


def uniform_model() -> FixedModel:
    return FixedModel(torch.zeros(256))


def scripted(text: str, end: bool = True) -> FixedModel:
    return FixedModel(torch.zeros(VOCAB), [*text.encode(), *([EOS] if end else [])])


@pytest.fixture(scope="module")
def model() -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)  # so that the distributions are not flat
        model.embedding.weight[EOS] *= 1.5  # some texts end early
    return model


TOKENIZER = ByteTokenizer()


def ids(completions: list[Completion]) -> list[list[int]]:
    return [c.token_ids for c in completions]


# --- shape of the result -----------------------------------------------------------------------------------


def test_one_prompt_gives_a_list_of_one(model):
    [alone] = generate(model, TOKENIZER, "Hi", max_new_tokens=5)
    assert alone == generate(model, TOKENIZER, ["Hi"], max_new_tokens=5)[0]
    assert len(alone.token_ids) == len(alone.logprobs) == 5


def test_no_prompt_gives_nothing(model):
    assert generate(model, TOKENIZER, [], max_new_tokens=5) == []


def test_samples_come_as_lists_in_the_order_of_the_prompts(model):
    grouped = generate(model, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=1, seed=0, num_samples=3)
    assert [len(group) for group in grouped] == [3] * len(PROMPTS)
    singles = generate(model, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=1, seed=0)
    assert ids(singles) == [group[0].token_ids for group in grouped]


# --- greedy and sampling -----------------------------------------------------------------------------------


def test_greedy_takes_the_likeliest_token(model):
    """Trap G6: temperature 0 is the argmax, with integers and with floats."""
    text = list(b"What is 1 + 2?")
    expected = []
    while len(expected) < 12 and EOS not in expected:
        expected.append(int(model(torch.tensor([text + expected]))[0, -1].argmax()))
    for zero in (0, 0.0):
        assert ids(generate(model, TOKENIZER, PROMPTS[1], max_new_tokens=12, temperature=zero)) == [expected]


def test_temperature_one_samples(model):
    """Trap G6: temperature 1 is not greedy."""
    greedy = generate(model, TOKENIZER, PROMPTS, max_new_tokens=10)
    sampled = generate(model, TOKENIZER, PROMPTS, max_new_tokens=10, temperature=1.0, seed=0)
    assert ids(greedy) != ids(sampled)
    first = generate(uniform_model(), TOKENIZER, "a", max_new_tokens=1, temperature=1.0, num_samples=64, seed=0)
    assert len({c.token_ids[0] for c in first[0]}) > 40


def test_first_tokens_of_samples_differ():
    """Trap K1: a first token that is drawn once for all samples makes a group start alike."""
    [group] = generate(uniform_model(), TOKENIZER, "a", max_new_tokens=3, temperature=1, num_samples=32, seed=1)
    firsts = Counter(c.token_ids[0] for c in group)
    assert max(firsts.values()) <= 3
    assert len(firsts) > 20


def test_samples_of_a_prompt_share_one_prefill():
    mock = uniform_model()
    generate(mock, TOKENIZER, ["one", "two"], max_new_tokens=4, temperature=1, num_samples=5, seed=0)
    assert mock.rows == [2, 10, 10, 10]


def test_equal_seeds_give_different_numbers_to_prompts_and_samples():
    """Trap S4: one seed must not mean the same randomness for every problem or every sample."""
    groups = generate(uniform_model(), TOKENIZER, ["a", "b"], max_new_tokens=16, temperature=1, num_samples=4, seed=7)
    texts = [tuple(c.token_ids) for group in groups for c in group]
    assert len(set(texts)) == 8
    assert generate(uniform_model(), TOKENIZER, "a", max_new_tokens=16, temperature=1, seed=8) != groups[0][:1]


def test_a_repeated_prompt_goes_on_with_the_next_sample():
    """Trap S4: eight times the same prompt is eight samples, not one sample eight times."""
    repeated = generate(uniform_model(), TOKENIZER, ["a"] * 8, max_new_tokens=16, temperature=1, seed=7)
    [group] = generate(uniform_model(), TOKENIZER, "a", max_new_tokens=16, temperature=1, seed=7, num_samples=8)
    assert repeated == group


def test_seed_decides_and_no_seed_is_fresh(model):
    def texts(seed):
        return ids(generate(model, TOKENIZER, PROMPTS, max_new_tokens=10, temperature=1, seed=seed))

    assert texts(3) == texts(3)
    assert texts(3) != texts(4)
    assert texts(None) != texts(None)


@pytest.mark.parametrize("seed", [np.int64(1), np.uint8(1), torch.tensor(1), True])
def test_equal_seeds_draw_the_same_whoever_s_they_are(model, seed):
    settings = {"max_new_tokens": 8, "temperature": 1.0}
    assert generate(model, ByteTokenizer(), "a", seed=seed, **settings) == generate(
        model, ByteTokenizer(), "a", seed=1, **settings
    )
    streamed = ["".join(stream(model, ByteTokenizer(), "a", seed=s, **settings)) for s in (seed, 1)]
    assert streamed[0] == streamed[1]


@pytest.mark.parametrize("seed", [1.0, "1", torch.tensor(1.0)])
def test_a_seed_is_a_whole_number(model, seed):
    with pytest.raises(ValueError, match="give a whole number"):
        generate(model, ByteTokenizer(), "a", max_new_tokens=1, temperature=1.0, seed=seed)


def test_numbers_of_plain_seeds_stay_what_they_are():
    """Every output of the course rests on them."""
    assert random_stream(3, (1, 2), 0, 2).tolist() == pytest.approx([0.93188399, 0.08071810])


def test_global_random_state_is_not_touched(model):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generate(model, TOKENIZER, PROMPTS, max_new_tokens=3, temperature=1)
    assert torch.equal(torch.rand(3), expected)


def test_random_stream_does_not_depend_on_how_much_is_drawn():
    short, long = random_stream(1, (2, 3), 0, 5), random_stream(1, (2, 3), 0, 500)
    assert torch.equal(short, long[:5])
    assert 0 <= long.min() < 0.05
    assert 0.95 < long.max() < 1


# --- independence of the batch -----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_ragged_batch_equals_one_by_one(model, temperature):
    """Trap K4: padding on the left neither is attended nor shifts positions."""
    options = {"max_new_tokens": 20, "temperature": temperature, "seed": 0}
    together = generate(model, TOKENIZER, PROMPTS, **options)
    alone = [generate(model, TOKENIZER, prompt, **options)[0] for prompt in PROMPTS]
    assert ids(together) == ids(alone)
    for a, b in zip(together, alone, strict=True):
        assert (a.text, a.finish_reason) == (b.text, b.finish_reason)
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-4, rtol=0)
    assert {c.finish_reason for c in together} == {"stop", "length"}, "the case needs both"


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("rooms", [(1, 1, 6, 6, 6), (1, 6, 1, 4, 6), (6, 2, 2, 2, 1), (3, 1, 2, 6, 5)])
def test_rows_that_finish_leave_the_others_as_they_are(model, rooms, use_cache):
    """Those at the end take the places of those that have finished, several at once, too."""

    def row(prompt, room):
        ending = SimpleNamespace(reached=lambda token_ids: False)
        return completions.Row(tuple(prompt.encode()), room, ending)

    @torch.inference_mode()
    def run(rows):
        state = completions.prefill(model, TOKENIZER, rows, use_cache)
        finished = list(completions.decode_batch(state, rows, lambda logits, rows: logits.argmax(dim=-1)))
        return finished, [each.token_ids for each in rows]

    finished, together = run([row(prompt, room) for prompt, room in zip(PROMPTS, rooms, strict=True)])
    assert finished == [rooms.count(length) for length in range(1, max(rooms) + 1)]
    assert together == [run([row(prompt, room)])[1][0] for prompt, room in zip(PROMPTS, rooms, strict=True)]


@pytest.mark.parametrize(("tokens", "count"), [(1, 5), (40, 4), (80, 2), (1000, 1)])
def test_prompts_read_in_groups_give_the_same(model, monkeypatch, tokens, count):
    """Trap K4: prompts are read in groups of like length, and all of them then decoded as one batch."""
    settings = {"max_new_tokens": 12, "num_samples": 2, "temperature": 1.0, "seed": 3}
    expected = generate(model, TOKENIZER, PROMPTS, **settings)
    monkeypatch.setattr(completions, "PREFILL_TOKENS", tokens)
    by_length = sorted((tuple(TOKENIZER.encode(prompt)) for prompt in PROMPTS), key=len)
    assert len(list(completions.groups(by_length))) == count
    grouped = generate(model, TOKENIZER, PROMPTS, **settings)
    assert [ids(pair) for pair in grouped] == [ids(pair) for pair in expected]


def test_order_and_batch_size_change_nothing(model):
    options = {"max_new_tokens": 15, "temperature": 1, "seed": 0, "num_samples": 3}
    expected = generate(model, TOKENIZER, PROMPTS, **options)
    backwards = generate(model, TOKENIZER, PROMPTS[::-1], **options)
    assert [ids(group) for group in backwards[::-1]] == [ids(group) for group in expected]
    for size in (1, 2, 4):
        small = generate(model, TOKENIZER, PROMPTS, batch_size=size, **options)
        assert [ids(group) for group in small] == [ids(group) for group in expected]


def test_cache_and_recomputing_give_the_same(model):
    """Trap K2: what is cached is what would be computed."""
    options = {"max_new_tokens": 20, "temperature": 1, "seed": 2, "num_samples": 2}
    cached = generate(model, TOKENIZER, PROMPTS, **options)
    recomputed = generate(model, TOKENIZER, PROMPTS, use_cache=False, **options)
    assert [ids(group) for group in cached] == [ids(group) for group in recomputed]


def test_two_generations_in_a_row_are_equal(model):
    """Trap K2: nothing of one generation is left in the next."""
    first = generate(model, TOKENIZER, PROMPTS, max_new_tokens=10)
    generate(model, TOKENIZER, "Something else that is longer", max_new_tokens=30)
    assert generate(model, TOKENIZER, PROMPTS, max_new_tokens=10) == first


# --- the end of a completion -------------------------------------------------------------------------------


def test_end_token_is_kept_and_scored():
    """Trap G1: the sampled ids end with the end token and its log-probability is there; the text lacks it."""
    [done] = generate(scripted("four"), TOKENIZER, "2+2", max_new_tokens=50)
    assert done == Completion("four", [*b"four", EOS], done.logprobs, "stop")
    assert len(done.logprobs) == 5
    assert all(-1e-3 < logprob <= 0 for logprob in done.logprobs)


def test_end_token_as_the_last_that_fits_is_a_stop():
    assert generate(scripted("four"), TOKENIZER, "2+2", max_new_tokens=5)[0].finish_reason == "stop"
    [cut] = generate(scripted("four"), TOKENIZER, "2+2", max_new_tokens=4)
    assert (cut.text, cut.finish_reason) == ("four", "length")


def test_end_token_in_the_prompt_does_not_finish_it(model):
    """Trap K5: only what the model writes can end a completion."""
    [done] = generate(scripted("ok"), EosPrompt(), "hi", max_new_tokens=10)
    assert done.text == "ok"
    [real] = generate(model, EosPrompt(), "a", max_new_tokens=5)
    logits = model(torch.tensor([[EOS, ord("a"), EOS]]))
    assert real.token_ids[0] == int(logits[0, -1].argmax())


def test_every_stop_id_ends_a_text():
    tokenizer = ByteTokenizer()
    tokenizer.stop_ids = (EOS, 257)
    mock = FixedModel(torch.zeros(VOCAB), [ord("a"), 257])
    assert generate(mock, tokenizer, "x", max_new_tokens=9)[0].token_ids == [ord("a"), 257]


def test_finished_rows_leave_the_batch(model, monkeypatch):
    """Trap K5: finished rows cost nothing."""
    rows = []
    forward = model.hidden_states
    monkeypatch.setattr(
        model, "hidden_states", lambda ids, *rest, **more: rows.append(len(ids)) or forward(ids, *rest, **more)
    )
    done = generate(model, TOKENIZER, PROMPTS * 4, max_new_tokens=20, temperature=1, seed=0)
    lengths = [len(c.token_ids) for c in done]
    assert rows[1:] == [sum(n > step for n in lengths) for step in range(1, max(lengths))]
    assert rows[-1] < len(done), "the case needs rows that finish early"


@pytest.mark.parametrize("use_cache", [True, False])
def test_context_ends_a_completion_whatever_the_batch(model, use_cache):
    """A short prompt beside a long one has its own room, counted from its own start."""
    options = {"max_new_tokens": 500, "temperature": 1, "seed": 6, "use_cache": use_cache}
    done = generate(model, TOKENIZER, ["x" * 90, "ab", "y" * 95], **options)
    assert len(done[0].token_ids) <= 6
    assert len(done[2].token_ids) == 1
    [alone] = generate(model, TOKENIZER, "ab", **options)
    assert alone.token_ids == done[1].token_ids
    assert len(alone.token_ids) > 6, "the case needs a text that outlives its neighbours"


def test_a_text_may_fill_the_context_to_its_last_token():
    mock = uniform_model()
    mock.config.context_length = 20
    [done] = generate(mock, TOKENIZER, "abcd", max_new_tokens=500)
    assert (len(done.token_ids), done.finish_reason) == (16, "length")


# --- stop strings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["END", ["nothing", "END"], ["ENDING", "END"], ["E", "END"]])
def test_stop_string_over_several_tokens_is_cut_off(stop):
    [done] = generate(scripted("so it ENDS here"), TOKENIZER, "x", max_new_tokens=50, stop=stop)
    assert (done.text, done.finish_reason) == ("so it ", "stop")
    assert bytes(done.token_ids) == (b"so it E" if stop == ["E", "END"] else b"so it END")
    assert len(done.logprobs) == len(done.token_ids)


def test_stop_string_with_wide_characters():
    [done] = generate(scripted("π ≈ 3 €x"), TOKENIZER, "x", max_new_tokens=50, stop="€")
    assert done.text == "π ≈ 3 "
    [whole] = generate(scripted("π ≈ 3 €x"), TOKENIZER, "x", max_new_tokens=50, stop="£")  # shares its first byte
    assert (whole.text, whole.finish_reason) == ("π ≈ 3 €x", "stop")


def test_stop_string_in_the_prompt_is_not_counted():
    assert generate(scripted("yes"), TOKENIZER, "END", max_new_tokens=9, stop="END")[0].text == "yes"


# --- streaming ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [None, "e", ["th", "xy"]])
@pytest.mark.parametrize("seed", range(4))
def test_stream_joins_to_what_generate_returns(model, seed, stop):
    """Random bytes too: the joined pieces hold the same signs for broken characters."""
    for used in (model, uniform_model()):
        options = {"max_new_tokens": 60, "temperature": 1.3, "seed": seed, "stop": stop}
        [whole] = generate(used, TOKENIZER, "tell me", **options)
        assert "".join(stream(used, TOKENIZER, "tell me", **options)) == whole.text


def test_stream_yields_whole_characters_as_they_come():
    pieces = list(stream(scripted("aπ≈😀b"), TOKENIZER, "x", max_new_tokens=50))
    assert pieces == ["a", "π", "≈", "😀", "b"]


def test_stream_holds_back_what_may_become_a_stop_string():
    text = "a<b </think"
    assert list(stream(scripted(text), TOKENIZER, "x", max_new_tokens=50, stop="</think>")) == [
        "a", "<b", " ", "</think",
    ]  # fmt: skip
    assert "".join(stream(scripted(text + "> more"), TOKENIZER, "x", max_new_tokens=50, stop="</think>")) == "a<b "


def test_stream_draws_by_the_settings_that_generate_has(model):
    texts = []
    for more in ({}, {"top_k": 2}, {"top_p": 0.3}, {"min_p": 0.5}):
        options = {"max_new_tokens": 20, "temperature": 2.0, "seed": 5, **more}
        [whole] = generate(model, TOKENIZER, "tell me", **options)
        assert "".join(stream(model, TOKENIZER, "tell me", **options)) == whole.text
        texts.append(whole.text)
    assert len(set(texts)) == 4, "the case needs settings that matter"


def test_stream_computes_the_new_token_only_or_everything_anew(model, monkeypatch):
    seen, forward = [], model.hidden_states
    monkeypatch.setattr(
        model, "hidden_states", lambda ids, *rest, **more: seen.append(ids.shape[1]) or forward(ids, *rest, **more)
    )
    for use_cache, lengths in ((True, [2, 1, 1]), (False, [2, 3, 4])):
        seen.clear()
        list(stream(model, TOKENIZER, "ab", max_new_tokens=3, use_cache=use_cache))
        assert seen == lengths


def test_stream_checks_its_arguments_at_once_and_leaves_the_modes_alone(model):
    with pytest.raises(ValueError, match="empty"):
        stream(model, TOKENIZER, "", max_new_tokens=5)
    model.train()
    for _ in stream(model, TOKENIZER, "abc", max_new_tokens=3):
        assert model.training
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    model.eval()


def test_text_that_depends_on_what_stands_before_it():
    """Some tokenizers drop the space in front of a text's first word: a token cannot be decoded alone."""
    words = [" one", " two", " three", ""]
    tokenizer = SimpleNamespace(
        eos_id=3,
        pad_id=3,
        encode=lambda text: [0],
        decode=lambda ids: "".join(words[i] for i in ids).removeprefix(" "),
        warn_if_plain=lambda prompts: None,
    )
    mock = FixedModel(torch.zeros(4), [0, 1, 2, 1, 3])
    assert list(stream(mock, tokenizer, "x", max_new_tokens=9)) == ["one", " two", " three", " two"]
    mock.rows.clear()
    [done] = generate(mock, tokenizer, "x", max_new_tokens=9, stop=" three")
    assert (done.text, done.token_ids) == ("one two", [0, 1, 2])


def test_a_stop_text_far_into_a_text_is_found_as_soon_as_it_is_there():
    """Only the last tokens are looked at: as many as a stop text can have, of one byte each."""
    written = "x" * 200 + "a stop text of π and more"
    for used in (generate, stream):
        mock = scripted(written)
        made = used(mock, TOKENIZER, "x", max_new_tokens=300, stop=["nowhere", "stop text of π"])
        assert (made[0].text if used is generate else "".join(made)) == "x" * 200 + "a "
        assert len(mock.rows) == len((("x" * 200) + "a stop text of π").encode())


# --- log-probabilities -------------------------------------------------------------------------------------


def test_logprobs_are_those_of_the_model_itself(model):
    """Trap G5: whatever the temperature and filters, recomputing the text gives the same log-probabilities."""
    options = {"max_new_tokens": 20, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "seed": 1}
    for prompt, done in zip(PROMPTS, generate(model, TOKENIZER, PROMPTS, **options), strict=True):
        start = len(prompt)
        logits = model(torch.tensor([list(prompt.encode()) + done.token_ids]))[0, start - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(done.token_ids)), done.token_ids]
        torch.testing.assert_close(torch.tensor(done.logprobs), expected, atol=1e-4, rtol=0)


def test_training_goes_on_after_a_generation(model):
    """Trap G16: modes are restored, results carry no gradient, and nothing made meanwhile stops a backward pass."""
    torch.manual_seed(1)
    trained = CausalLM(CONFIG)
    trained.train()
    trained.blocks[0].eval()
    done = generate(trained, TOKENIZER, PROMPTS, max_new_tokens=30, temperature=1, seed=0)
    assert trained.training
    assert not trained.blocks[0].feed_forward.training
    assert trained.blocks[1].feed_forward.training
    assert all(type(x) is float for x in done[0].logprobs)
    loss = trained(torch.tensor([done[2].token_ids])).log_softmax(-1)[0, :, 0].sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_modes_are_restored_after_an_error(model, monkeypatch):
    """Trap G16."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(model, "hidden_states", lambda *_: 1 / 0)
    model.train()
    with pytest.raises(ZeroDivisionError):
        generate(model, TOKENIZER, "a", max_new_tokens=3)
    assert model.training
    assert torch.get_num_threads() == threads
    model.eval()


# --- filters -----------------------------------------------------------------------------------------------

SKEWED = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])


@pytest.mark.parametrize(
    ("options", "exact"),
    [
        ({"temperature": 1.0}, SKEWED),
        ({"temperature": 0.5}, SKEWED**2),
        ({"temperature": 2.0}, SKEWED**0.5),
        ({"temperature": 1.0, "top_k": 3}, SKEWED * torch.tensor([1, 1, 1, 0, 0, 0])),
        ({"temperature": 1.0, "top_p": 0.85}, SKEWED * torch.tensor([1, 1, 1, 1, 0, 0])),
        ({"temperature": 1.0, "min_p": 0.2}, SKEWED * torch.tensor([1, 1, 1, 1, 0, 0])),
        # the temperature comes first: squared, .16 .0625 .0225 of .2618 reach 0.9; without it four would be kept
        ({"temperature": 0.5, "top_p": 0.9}, SKEWED**2 * torch.tensor([1, 1, 1, 0, 0, 0])),
        ({"temperature": 1.5, "top_k": 5, "min_p": 0.5}, SKEWED ** (2 / 3) * torch.tensor([1, 1, 1, 0, 0, 0])),
    ],
)
def test_frequencies_match_the_exact_probabilities(options, exact):
    """Chi-squared: a test with a fixed seed that fails if a probability is off by a few per cent."""
    mock = FixedModel(SKEWED.log() + 3)
    count = 20_000
    drawn = [
        token
        for [group] in [
            generate(mock, TOKENIZER, "\1", max_new_tokens=100, num_samples=count // 100, seed=0, **options)
        ]
        for c in group
        for token in c.token_ids
    ]
    exact = (exact / exact.sum()).double()
    observed = torch.bincount(torch.tensor(drawn), minlength=6).double()
    possible = exact > 0
    assert observed[~possible].sum() == 0
    result = chisquare(observed[possible].numpy(), (exact[possible] / exact.sum() * len(drawn)).numpy())
    assert len(drawn) == count
    assert result.pvalue > 1e-3


def test_consecutive_tokens_are_independent():
    [group] = generate(
        FixedModel(torch.zeros(4)), TOKENIZER, "\1", max_new_tokens=200, temperature=1, num_samples=40, seed=0
    )
    pairs = Counter(p for c in group for p in zip(c.token_ids[::2], c.token_ids[1::2], strict=True))
    assert chisquare([pairs[a, b] for a in range(4) for b in range(4)]).pvalue > 1e-3


def test_top_p_keeps_the_token_that_crosses_p():
    """Trap K6: .5 + .41 crosses .9, so two stay; rows of a batch are filtered apart."""
    logits = torch.tensor([[0.5, 0.41, 0.09], [0.05, 0.02, 0.93]]).log()
    kept = filter_top_p(logits, 0.9).isfinite()
    assert kept.tolist() == [[True, True, False], [False, False, True]]


def test_top_p_at_its_limits():
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    assert filter_top_p(logits, 1e-9).isfinite().sum(-1).tolist() == [1, 1, 1]
    assert Sampling(1.0, top_p=1.0).filter(logits).isfinite().all()
    even = filter_top_p(torch.zeros(2, 4), 0.5).isfinite()
    assert even.sum(-1).tolist() == [2, 2]


def test_top_k_and_min_p():
    logits = torch.tensor([[1.0, 4.0, 2.0, 3.0], [9.0, 0.0, 0.0, 0.0]])
    assert filter_top_k(logits, 2).isfinite().tolist() == [[False, True, False, True], [True] * 4]
    assert torch.equal(filter_top_k(logits, 10), logits)
    shares = torch.tensor([[0.6, 0.3, 0.1], [0.98, 0.01, 0.01]]).log()
    assert filter_min_p(shares, 0.4).isfinite().tolist() == [[True, True, False], [True, False, False]]


def test_the_lowest_temperature_takes_the_likeliest_token():
    logits = torch.tensor([[-1000.0, 999.9, 1000.0, 0.0]])
    for filters in ({}, {"top_k": 2, "top_p": 0.5, "min_p": 0.1}):
        assert Sampling(COLDEST, **filters).choose(logits, torch.tensor([0.999])).tolist() == [2]


def test_filters_do_not_change_their_input():
    logits = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    for result in (
        apply_temperature(logits, 0.5),
        filter_top_k(logits, 2),
        filter_top_p(logits, 0.3),
        filter_min_p(logits, 0.9),
    ):
        assert result.shape == logits.shape
    assert torch.equal(logits, before)


def test_sampling_never_takes_an_impossible_token():
    """At both ends of the random numbers, and wherever rounding puts the sum of the probabilities."""
    probabilities = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    largest = torch.tensor([1 - 2**-24])  # that float32 random numbers can be
    assert sample_token(probabilities, torch.zeros(1)).tolist() == [1]
    assert sample_token(probabilities, torch.tensor([0.3])).tolist() == [3]
    many = torch.rand(5000, 64, generator=torch.Generator().manual_seed(0)) ** 8 / 7
    many[:, -3:] = 0
    assert many.sum(-1).min() < 1 < many.sum(-1).max()
    assert sample_token(many, largest.expand(5000)).max() < 61


# --- errors and settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": 1e-45}, r"temperature is 1e-45: give 0 for greedy decoding or at least 0\.000001"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"stop": ""}, "stop is ''"),
        ({"stop": ["a", 3]}, "stop is"),
    ],
)
def test_settings_out_of_range(model, options, message):
    with pytest.raises(ValueError, match=message) as error:
        generate(model, TOKENIZER, "Hi", **{"max_new_tokens": 4, **options})
    assert ": give" in str(error.value)


def test_prompts_that_cannot_be_continued(model):
    with pytest.raises(ValueError, match="prompt is empty: give"):
        generate(model, TOKENIZER, ["fine", ""], max_new_tokens=4)
    with pytest.raises(ValueError, match=r"has 96 tokens .* context of 96: shorten it"):
        generate(model, TOKENIZER, "x" * 96, max_new_tokens=4)
    assert len(generate(model, TOKENIZER, "x" * 95, max_new_tokens=4)[0].token_ids) == 1


def test_tokenizer_of_another_model(model):
    foreign = ByteTokenizer()
    foreign.encode = lambda text: [70_000]
    with pytest.raises(ValueError, match="token 70000, but the model knows 260"):
        generate(model, foreign, "Hi", max_new_tokens=4)


def test_broken_weights_are_reported():
    with pytest.raises(ValueError, match="not numbers"):
        generate(FixedModel(torch.full((300,), math.nan)), TOKENIZER, "Hi", max_new_tokens=4)


def test_progress_bar_counts_completions(model, monkeypatch):
    class Bar:
        made: ClassVar[list] = []

        def __init__(self, total, disable=False, **_):
            self.total, self.disabled, self.count = total, disable, 0
            self.made.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            self.count += count

    monkeypatch.setattr("shared.support.progress.tqdm", Bar)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    options = {"max_new_tokens": 3, "num_samples": 2, "batch_size": 3}
    generate(model, TOKENIZER, PROMPTS, progress=True, **options)
    generate(model, TOKENIZER, PROMPTS, progress=False, **options)
    [bar] = Bar.made
    assert (bar.total, bar.count, bar.disabled) == (10, 10, False)


def test_cache_grows_by_need(model, monkeypatch):
    """A long limit costs nothing until it is used, and a short one allocates no more than it needs."""
    sizes = []
    new_cache = model.new_cache
    monkeypatch.setattr(model, "new_cache", lambda *size: sizes.append(size) or new_cache(*size))
    generate(model, TOKENIZER, "ab", max_new_tokens=90)
    generate(model, TOKENIZER, "ab", max_new_tokens=3)
    assert sizes[1::2] == [(1, 2 + 64), (1, 2 + 3)]
    assert sizes[::2] == [(1, 2), (1, 2)], "for the prompt alone, while it is read"


@pytest.mark.parametrize("way", [completions.Cached, completions.Recomputed])
def test_prompts_are_put_where_the_model_is(way):
    """The meta device stands for a GPU: it knows where a tensor is, and no numbers."""
    model, devices = FixedModel(torch.zeros(VOCAB)), []
    model.device = torch.device("meta")

    def hidden_states(input_ids, cache=None, attention_mask=None):
        devices.extend([input_ids.device.type, attention_mask.device.type])
        return torch.zeros(*input_ids.shape, 1, device="meta")

    model.hidden_states = hidden_states
    way(model, [(1, 2), (3,)], EOS)
    assert devices == ["meta", "meta"]


@pytest.mark.parametrize(("below", "threads"), [(10**9, 1), (1, 1), (0, 2)])
def test_small_models_run_on_one_thread(model, monkeypatch, below, threads):
    """`below` is counted from the parameters of two rows: what is just as large as the bound keeps its threads."""
    seen = []
    head = model.head.forward
    monkeypatch.setattr(model.head, "forward", lambda x: seen.append(torch.get_num_threads()) or head(x))
    monkeypatch.setattr(completions, "ONE_THREAD_BELOW", 2 * sum(p.numel() for p in model.parameters()) + below)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        generate(model, TOKENIZER, ["ab", "cd"], max_new_tokens=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {threads}
