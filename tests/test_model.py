"""The model, plain and fast, against transformers, and against itself with and without cache, batch and padding."""

from __future__ import annotations

import sys

import pytest
import torch

from shared.model.fast import speed_up
from shared.model.transformer import ModelConfig, token_positions
from tests import small_models
from tests.small_models import VARIANTS, hf_model, our_model, random_ids

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(params=["plain", "fast"], scope="module", autouse=True)
def form(request):
    """Every test of this file is of both forms."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "fast":
            patch.setattr(sys.modules[__name__], "our_model", lambda hf: speed_up(small_models.our_model(hf)))
        yield request.param


@pytest.fixture(scope="module")
def model(form):
    return our_model(hf_model("qwen3-tied"))


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def left_padded(texts: list[torch.Tensor], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, texts))
    ids = torch.stack([torch.cat((torch.full((longest - len(t),), pad), t)) for t in texts])
    mask = torch.stack([torch.arange(longest) >= longest - len(t) for t in texts])
    return ids, mask.long()


# --- against transformers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_match_transformers(variant):
    hf = hf_model(variant)
    ids = random_ids(3, 40)
    expected = hf(ids).logits
    assert expected.std() > 0.1, "the comparison would say nothing about tiny logits"
    torch.testing.assert_close(our_model(hf)(ids), expected, **TOLERANCE)


@pytest.mark.parametrize("variant", ["qwen3-tied", "qwen2-untied", "llama-untied"])
def test_padded_logits_match_transformers(variant):
    """Trap K4, with transformers as the witness."""
    hf = hf_model(variant)
    ids, mask = left_padded([random_ids(9), random_ids(4, seed=1)])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = hf(ids, attention_mask=mask, position_ids=positions).logits
    logits = our_model(hf)(ids, attention_mask=mask)
    torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], **TOLERANCE)


def test_greedy_continuation_matches_transformers():
    hf = hf_model("llama-tied")
    model, ids = our_model(hf), random_ids(1, 7)
    expected = hf.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    cache, new = model.new_cache(), ids
    for _ in range(20):
        new = model(new, cache)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat((ids, new), dim=1)
    assert ids.tolist() == expected.tolist()


# --- cache --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["qwen3-untied", "qwen2-tied", "llama-untied"])
def test_cached_equals_uncached_token_by_token(variant):
    """Trap K2."""
    model, ids = our_model(hf_model(variant)), random_ids(2, 20)
    cache = model.new_cache(batch_size=2)
    steps = [model(ids[:, i : i + 1], cache) for i in range(20)]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(ids), **TOLERANCE)


@pytest.mark.parametrize("split", range(1, 12))
def test_prefill_split_anywhere_gives_the_same(model, split):
    """Trap K3."""
    ids = random_ids(2, 12)
    cache = model.new_cache(batch_size=2)
    parts = [model(ids[:, :split], cache), model(ids[:, split:], cache)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), **TOLERANCE)


def test_padded_prefill_split_anywhere_gives_the_same(model):
    """Traps K3 and K4 together: chunks that hold padding only, padding and text, text only."""
    ids, mask = left_padded([random_ids(12), random_ids(5, seed=1), random_ids(1, seed=2)])
    whole = model(ids, attention_mask=mask)
    for first in range(1, 11):
        for second in (first + 1, 11):
            cache = model.new_cache(batch_size=3)
            bounds = [slice(0, first), slice(first, second), slice(second, 12)]
            parts = [model(ids[:, b], cache, mask[:, b]) for b in bounds if b.start < b.stop]
            logits = torch.cat(parts, dim=1)
            torch.testing.assert_close(logits[mask.bool()], whole[mask.bool()], **TOLERANCE)


def test_successive_runs_do_not_influence_each_other(model):
    """Trap K2: nothing of the first run is left in the model."""

    def run(ids):
        cache = model.new_cache()
        return torch.cat([model(ids[:, :6], cache), model(ids[:, 6:], cache)], dim=1)

    first = run(random_ids(1, 30))
    run(random_ids(1, 50, seed=3))
    assert torch.equal(run(random_ids(1, 30)), first)


def test_cache_grows_by_need_and_keeps_what_it_holds(model):
    ids, mask = left_padded([random_ids(9), random_ids(3, seed=1)])
    tail = random_ids(2, 60, seed=2)
    small, large = model.new_cache(2, capacity=2), model.new_cache(2, capacity=100)
    for cache in (small, large):
        model(ids, cache, mask)
    for i in range(60):
        torch.testing.assert_close(model(tail[:, i : i + 1], small), model(tail[:, i : i + 1], large), **TOLERANCE)
    assert small.length == large.length == 69
    assert small.capacity < 128, "at most double of what is needed, and not the context of 128"
    assert large.capacity == 100


def test_select_keeps_drops_and_repeats_rows(model):
    texts = [random_ids(8), random_ids(3, seed=1), random_ids(5, seed=2)]
    ids, mask = left_padded(texts)
    for rows in ([1], [2, 0], [0, 0, 1, 1]):
        cache = model.new_cache(3, capacity=8)
        model(ids, cache, mask)
        cache.select(torch.tensor(rows))
        assert cache.batch_size == len(rows)
        tail = random_ids(len(rows), 4, seed=4)
        logits = torch.cat([model(tail[:, i : i + 1], cache) for i in range(4)], dim=1)
        for place, row in enumerate(rows):
            alone = model(torch.cat((texts[row], tail[place]))[None])[0, -4:]
            torch.testing.assert_close(logits[place], alone, **TOLERANCE)


@pytest.mark.parametrize("rows", [[1], [1, 2], [0, 1]])
def test_trim_drops_common_padding_and_nothing_else(model, rows):
    texts = [random_ids(9), random_ids(3, seed=1), random_ids(5, seed=2)]
    ids, mask = left_padded(texts)
    cache = model.new_cache(3)
    model(ids, cache, mask)
    cache.select(torch.tensor(rows))
    cache.trim()
    assert cache.length == max(len(texts[row]) for row in rows)
    tail = random_ids(len(rows), 3, seed=4)
    logits = torch.cat([model(tail[:, i : i + 1], cache) for i in range(3)], dim=1)
    for place, row in enumerate(rows):
        alone = model(torch.cat((texts[row], tail[place]))[None])[0, -3:]
        torch.testing.assert_close(logits[place], alone, **TOLERANCE)


def test_take_joins_caches_of_other_lengths(model):
    """Traps K2 and K4: joined rows go on as each would alone, whatever stood in the memory before."""
    texts = [random_ids(3), random_ids(5, seed=1), random_ids(9, seed=2)]
    short, mask = left_padded(texts[:2])
    caches = [model.new_cache(2), model.new_cache(1)]
    model(short, caches[0], mask)
    model(texts[2][None], caches[1])
    joined = model.new_cache(3, capacity=10)
    joined.stored.fill_(float("nan"))
    joined.take(caches)
    assert (joined.length, joined.padded) == (9, True)
    tail = random_ids(3, 4, seed=4)
    logits = torch.cat([model(tail[:, i : i + 1], joined) for i in range(4)], dim=1)
    for row, text in enumerate(texts):
        alone = model(torch.cat((text, tail[row]))[None])[0, -4:]
        torch.testing.assert_close(logits[row], alone, **TOLERANCE)


# --- batches and padding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["qwen3-tied", "qwen2-untied", "llama-tied"])
def test_ragged_batch_equals_one_by_one(variant):
    """Trap K4: prompts and later steps; padding is not attended, positions count from each text's start."""
    model = our_model(hf_model(variant))
    texts = [random_ids(length, seed=length) for length in (11, 1, 6)]
    tail = random_ids(3, 5, seed=9)
    ids, mask = left_padded(texts)
    cache = model.new_cache(batch_size=3)
    prompt = model(ids, cache, mask)
    steps = torch.cat([model(tail[:, i : i + 1], cache) for i in range(5)], dim=1)
    assert torch.isfinite(prompt).all(), "rows of padding must not become NaN"
    for row, text in enumerate(texts):
        alone = model(torch.cat((text, tail[row]))[None])[0]
        torch.testing.assert_close(prompt[row, -len(text) :], alone[: len(text)], **TOLERANCE)
        torch.testing.assert_close(steps[row], alone[len(text) :], **TOLERANCE)


def test_positions_count_from_the_start_of_each_text(model):
    """Trap K4: RoPE sees differences only, so that no logit shows a shifted position until the context ends."""
    ids, mask = left_padded([random_ids(5), random_ids(2, seed=1)])
    cache = model.new_cache(batch_size=2)
    model(ids, cache, mask)
    assert token_positions(mask.bool(), 0, 5, mask.device).tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 0, 1]]
    model(random_ids(2, 1), cache)
    assert token_positions(cache.real[:, :6], 5, 1, mask.device).tolist() == [[5], [2]]


def test_every_query_may_look_somewhere(model, monkeypatch):
    """Trap K4: a row of the softmax without any entry is NaN on some devices, though not here."""
    masks = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def recording(*tensors, attn_mask=None, **options):
        masks.append(attn_mask)
        return attention(*tensors, attn_mask=attn_mask, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recording)
    ids, mask = left_padded([random_ids(6), random_ids(2, seed=1)])
    model(ids, attention_mask=mask)
    assert masks
    assert all(torch.isfinite(mask).any(-1).all() for mask in masks)


def test_padding_tokens_have_no_influence(model):
    """Trap K4."""
    texts = [random_ids(9), random_ids(4, seed=1)]
    (zeros, mask), (others, _) = left_padded(texts, pad=0), left_padded(texts, pad=77)
    shown = mask.bool()
    a, b = model(zeros, attention_mask=mask)[shown], model(others, attention_mask=mask)[shown]
    assert torch.equal(a, b)


def test_padding_on_the_right_of_a_training_batch(model):
    texts = [random_ids(9), random_ids(4, seed=1)]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    logits = model(ids, attention_mask=mask)
    assert torch.isfinite(logits).all()
    for row, text in enumerate(texts):
        torch.testing.assert_close(logits[row, : len(text)], model(text[None])[0], **TOLERANCE)


def test_attention_mask_may_name_the_new_columns_or_all(model):
    ids, mask = left_padded([random_ids(7), random_ids(4, seed=1)])
    results = []
    for step in (None, torch.ones(2, 1), torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), dim=1).bool()):
        cache = model.new_cache(batch_size=2)
        model(ids, cache, mask)
        results.append(model(random_ids(2, 1, seed=5), cache, step))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


# --- number formats -----------------------------------------------------------------------------------------


def test_rope_tables_stay_fp32():
    """Trap K8: rounded to bf16, the angle of a late position is off by more than a turn."""
    model = our_model(hf_model("qwen3-tied")).to(torch.bfloat16)
    positions = torch.tensor([0, 5, 30_000])
    cos, sin = model.rope.tables(positions)
    assert cos.dtype == sin.dtype == torch.float32
    frequency = 1_000_000.0 ** (-torch.arange(0, 32, 2, dtype=torch.float64) / 32)
    angles = positions.double()[:, None] * frequency
    torch.testing.assert_close(cos.reshape(3, 32)[:, :16].double(), angles.cos(), atol=5e-3, rtol=0)
    torch.testing.assert_close(sin.reshape(3, 32)[:, 16:].double(), angles.sin(), atol=5e-3, rtol=0)


def test_bfloat16_stays_near_fp32():
    model, ids = our_model(hf_model("qwen3-tied")), random_ids(2, 24)
    exact = model(ids)
    rough = model.to(torch.bfloat16)(ids)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).std() < 0.05 * exact.std()


def test_training_works_after_generating():
    """Tables made in inference mode must not block a later backward pass; tied weights get one gradient."""
    model = our_model(hf_model("qwen3-tied"))
    with torch.inference_mode():
        model(random_ids(1, 30), model.new_cache())
    with torch.enable_grad():
        model(random_ids(2, 12)).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model.head.weight is model.embedding.weight


# --- errors -------------------------------------------------------------------------------------------------


def test_text_longer_than_the_context(model):
    with pytest.raises(ValueError, match=r"129 tokens do not fit the context of 128"):
        model(random_ids(1, 129))
    cache = model.new_cache()
    model(random_ids(1, 128), cache)
    with pytest.raises(ValueError, match="shorten the prompt"):
        model(random_ids(1, 1), cache)
    assert cache.length == 128, "a refused step leaves the cache as it was"


def test_cache_of_another_batch_size(model):
    with pytest.raises(ValueError, match="holds 2 rows, the input 1"):
        model(random_ids(1, 4), model.new_cache(batch_size=2))


@pytest.mark.parametrize("shape", [(1, 6), (2, 5), (2, 7)])
def test_attention_mask_of_another_shape(model, shape):
    with pytest.raises(ValueError, match="one value a token"):
        model(random_ids(2, 6), attention_mask=torch.ones(shape))


@pytest.mark.parametrize(("change", "message"), [({"num_heads": 5}, "multiple"), ({"head_dim": 7}, "even")])
def test_impossible_shapes(change, message):
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_layers": 1}
    heads = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 4}
    with pytest.raises(ValueError, match=message):
        ModelConfig(**sizes | heads | change)
