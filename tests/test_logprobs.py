"""Log-probabilities in chunks against the plain form, in values, gradients and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from shared.generation.completions import generate
from shared.generation.logprobs import kept_tokens, pad_rows, recomputed_blocks, token_logprobs
from shared.generation.sampling import Sampling
from shared.model.transformer import CausalLM, ModelConfig
from tests.small_models import SIZES, hf_model, our_model, random_ids, small_tokenizer

LENGTHS = [11, 7, 2]


def plain_logprobs(model: CausalLM, ids: Tensor, temperature: float = 1.0) -> Tensor:
    """All logits at once."""
    logits = model(ids)[:, :-1].float() / temperature
    return logits.log_softmax(-1).gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1)


def gradients(model: CausalLM, logprobs: Tensor) -> dict[str, Tensor]:
    """Of a loss in which every token has another weight; they are cleared afterwards."""
    weights = torch.linspace(-1, 2, logprobs.numel()).view_as(logprobs)
    (weights * logprobs).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    return found


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, f"nothing to compare in {name}"
        error = (found[name] - gradient).abs().max() / gradient.abs().max()
        assert error < 1e-5, f"{name}: {error}"


@pytest.fixture(scope="module", params=["qwen3-tied", "qwen2-untied"])
def model(request) -> CausalLM:
    return our_model(hf_model(request.param))


@pytest.fixture(scope="module")
def padded() -> tuple[Tensor, Tensor]:
    """Three rows with padding on the right, and the mask of what is real."""
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(-1)
    return random_ids(*mask.shape, seed=3).masked_fill(~mask, 0), mask


@pytest.mark.parametrize("chunk", [None, 1, 4, 30])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equal_to_the_plain_form_in_values_and_gradients(model, chunk, temperature):
    """Trap G5: the temperature is in the log-probabilities."""
    ids = random_ids(3, 11)
    expected = plain_logprobs(model, ids, temperature)
    found = token_logprobs(model, ids, temperature=temperature, chunk=chunk)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert_same_gradients(gradients(model, found), gradients(model, expected))


def test_padding_changes_nothing_and_gets_no_gradient(model, padded):
    ids, mask = padded
    found = token_logprobs(model, ids, where=mask[:, 1:], chunk=5)
    alone = [plain_logprobs(model, ids[i : i + 1, :n])[0] for i, n in enumerate(LENGTHS)]
    for row, expected in zip(found, alone, strict=True):
        torch.testing.assert_close(row[: len(expected)], expected, atol=1e-5, rtol=1e-5)
        assert (row[len(expected) :] == 0).all()
    weights = torch.linspace(-1, 2, found.numel()).view_as(found)
    expected_loss = sum((w[: len(a)] * a).sum() for w, a in zip(weights, alone, strict=True))
    expected_loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    assert_same_gradients(gradients(model, found), expected)


def test_rows_of_prompts_and_continuations():
    """The pad token may be a token of the text: the places follow from the lengths."""
    ids, where = pad_rows([[5, 6], [7], [1, 2, 3]], [[8], [9, 0, 4], []], pad_id=9)
    assert ids.tolist() == [[5, 6, 8, 9], [7, 9, 0, 4], [1, 2, 3, 9]]
    assert where.int().tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert where.dtype == torch.bool


def test_where_leaves_out_the_rest(model):
    ids, where = random_ids(2, 6), torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 1, 0]]).bool()
    found = token_logprobs(model, ids, where=where, chunk=2)
    torch.testing.assert_close(found, plain_logprobs(model, ids) * where, atol=1e-5, rtol=1e-5)
    nothing = token_logprobs(model, ids, where=torch.zeros_like(where))
    assert (nothing == 0).all()
    nothing.sum().backward()
    model.zero_grad()


@pytest.mark.parametrize("chunk", [None, 4])
def test_entropies_are_those_of_the_tempered_distribution_without_gradient(model, chunk):
    ids = random_ids(2, 6)
    logprobs, entropies = token_logprobs(model, ids, temperature=1.5, chunk=chunk, with_entropies=True)
    expected = torch.distributions.Categorical(logits=model(ids)[:, :-1] / 1.5).entropy()
    torch.testing.assert_close(entropies, expected, atol=1e-5, rtol=1e-5)
    assert logprobs.requires_grad
    assert not entropies.requires_grad
    plain = plain_logprobs(model, ids, 1.5)
    assert_same_gradients(gradients(model, logprobs), gradients(model, plain))


@pytest.mark.parametrize("chunk", [None, 4])
def test_a_sampling_mask_renormalises_over_the_kept_tokens(model, chunk, monkeypatch):
    """Trap G5: with top-p the sampler's distribution is another one than the model's."""
    ids, sampling = random_ids(2, 6), Sampling(temperature=0.8, top_k=20, top_p=0.9)
    monkeypatch.setattr("shared.generation.logprobs.CHUNK_LOGITS", (chunk or 1000) * model.config.vocab_size)
    kept = kept_tokens(model, ids, sampling, where=torch.ones(2, 5, dtype=torch.bool))
    logits = model(ids)[:, :-1]
    filtered = torch.stack([sampling.filter(row) for row in logits])
    assert torch.equal(kept, filtered.isfinite())
    assert kept.sum(-1).min() >= 1
    assert kept.sum(-1).max() <= 20
    taken = filtered.softmax(-1).argmax(-1)  # such that the next token is one that was kept
    for place in range(5):
        one = torch.cat((ids[:, : place + 1], taken[:, place : place + 1]), dim=1)
        found, entropies = token_logprobs(
            model, one, temperature=0.8, kept=kept[:, : place + 1], chunk=chunk, with_entropies=True
        )
        expected = filtered[:, place].log_softmax(-1).gather(-1, taken[:, place, None]).squeeze(-1)
        torch.testing.assert_close(found[:, -1], expected, atol=1e-5, rtol=1e-5)
        entropy = torch.special.entr(filtered[:, place].softmax(-1)).sum(-1)
        torch.testing.assert_close(entropies[:, -1], entropy, atol=1e-5, rtol=1e-5)


def test_a_token_outside_the_sampling_mask_still_has_a_finite_logprob(model):
    ids = random_ids(1, 3)
    kept = torch.zeros(1, 2, SIZES["vocab_size"], dtype=torch.bool)
    torch.testing.assert_close(token_logprobs(model, ids, kept=kept), torch.zeros(1, 2))


def test_the_samplers_logprobs_are_found_again():
    """Traps G1, G5: those of a sampled completion, its end token included, at temperature 1."""
    model, tokenizer = our_model(hf_model("qwen3-tied")), small_tokenizer()
    prompt = "The sum of the numbers"
    written = generate(model, tokenizer, prompt, max_new_tokens=12, temperature=1.0, seed=3)[0]
    prompt_ids = tokenizer.encode(prompt)
    ids = torch.tensor([prompt_ids + written.token_ids])
    found = token_logprobs(model, ids)[0, len(prompt_ids) - 1 :]
    torch.testing.assert_close(found, torch.tensor(written.logprobs), atol=1e-4, rtol=0)


def test_under_bf16_autocast_the_softmax_is_in_fp32(model):
    """Probabilities summed in bf16 would be wrong in the third digit; here they sum to 1 over the vocabulary."""
    ids = torch.arange(SIZES["vocab_size"]).unsqueeze(-1)
    ids = torch.cat((torch.full_like(ids, 7), ids), dim=1)  # one prompt, every token after it
    with torch.autocast("cpu", torch.bfloat16):
        found = token_logprobs(model, ids, chunk=50)
    assert found.dtype == torch.float32
    assert abs(float(found.detach().double().exp().sum()) - 1) < 1e-4
    found.sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())
    model.zero_grad()


def test_recomputed_blocks_change_memory_only(model):
    ids = random_ids(3, 11)
    expected = gradients(model, token_logprobs(model, ids))
    kept_before, kept_within = [], []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept_before.append(t.numel()) or t, lambda t: t):
        token_logprobs(model, ids)
    with recomputed_blocks(model):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept_within.append(t.numel()) or t, lambda t: t):
            logprobs = token_logprobs(model, ids)
        generated = generate(model, small_tokenizer(), "The sum", max_new_tokens=3)
    assert sum(kept_within) < sum(kept_before) / 2
    assert_same_gradients(gradients(model, logprobs), expected)  # after the block has ended
    assert generated == generate(model, small_tokenizer(), "The sum", max_new_tokens=3)
    assert all("forward" not in vars(block) for block in model.blocks)


def largest_tensor(run) -> int:
    """Numbers in the largest tensor that any operation of `run` makes."""
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            results = result if isinstance(result, tuple | list) else [result]
            sizes.extend(each.numel() for each in results if isinstance(each, Tensor))
            return result

    with Watch():
        run()
    return max(sizes)


def test_no_tensor_holds_the_logits_of_all_tokens():
    config = ModelConfig(
        vocab_size=4096, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8
    )  # fmt: skip
    model, ids = CausalLM(config), torch.randint(0, 4096, (4, 65))
    chunked = largest_tensor(lambda: token_logprobs(model, ids, chunk=16, with_entropies=True)[0].sum().backward())
    plain = largest_tensor(lambda: plain_logprobs(model, ids).sum().backward())
    assert plain >= 4 * 64 * 4096
    assert chunked <= 16 * 4096


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"where": torch.ones(2, 6)}, "where is"),
        ({"kept": torch.ones(2, 5, 7)}, "kept is"),
    ],
)
def test_what_does_not_fit_is_said(model, settings, message):
    """Trap G6: temperature 0 is not taken for 1."""
    with pytest.raises(ValueError, match=message):
        token_logprobs(model, random_ids(2, 6), **settings)


def test_a_token_of_another_tokenizer_is_named(model):
    known = model.config.vocab_size
    ids = torch.tensor([[1, 2, known, 3]])
    with pytest.raises(ValueError, match=rf"holds token {known}, but the model knows {known} tokens only: use the"):
        token_logprobs(model, ids)
