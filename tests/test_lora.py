"""Low-rank adapters: nothing changes at first, only they learn, and merged they are plain weights."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from shared.formats.checkpoints import export_hf, save_checkpoint
from shared.formats.loading import load_model
from shared.formats.weights import hf_weights
from shared.generation.completions import generate
from shared.generation.logprobs import token_logprobs
from shared.model.lora import TARGETS, add_lora, lora_disabled, lora_parameters, merge_lora
from shared.model.transformer import CausalLM
from shared.training.config import TrainingConfig
from shared.training.trainer import Trainer
from tests.small_models import VARIANTS, hf_model, our_model, random_ids, small_tokenizer


def trained(model: CausalLM, steps: int = 3) -> CausalLM:
    """The model after a few large steps on what is trainable."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=0.02)
    for _ in range(steps):
        (-token_logprobs(model, random_ids(4, 8)).mean()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
    return model


@pytest.fixture(params=VARIANTS)
def model(request) -> CausalLM:
    return our_model(hf_model(request.param))


@pytest.fixture
def one_model() -> CausalLM:
    return our_model(hf_model("qwen3-tied"))


def test_at_first_the_model_computes_exactly_what_it_did(model):
    ids = random_ids(2, 9)
    expected = model(ids)
    add_lora(model, rank=4)
    assert torch.equal(model(ids), expected)
    adapters = lora_parameters(model)
    assert len(adapters) == 2 * len(TARGETS) * model.config.num_layers
    assert all(p.any() == name.endswith("lora_a") for name, p in adapters.items())


def test_only_the_adapters_learn(model):
    base = {name for name, _ in model.named_parameters()}
    add_lora(model, rank=4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained(model)
    assert before.keys() - base == lora_parameters(model).keys()
    for name, p in model.named_parameters():
        assert (p.grad is None) == (name in base)
        assert torch.equal(p, before[name]) == (name in base), name


def test_merged_equals_unmerged_and_has_plain_names(model):
    names, ids = dict(model.named_parameters()).keys(), random_ids(2, 9)
    base = model(ids)
    trained(add_lora(model, rank=4, alpha=3))
    unmerged = token_logprobs(model, ids)
    assert (model(ids) - base).abs().max() > 0.1
    assert merge_lora(model) is model
    torch.testing.assert_close(token_logprobs(model, ids), unmerged, atol=1e-5, rtol=1e-5)
    assert dict(model.named_parameters()).keys() == names
    assert all(p.requires_grad for p in model.parameters())
    assert lora_parameters(model) == {}
    assert not any(module.training for module in model.modules())


def test_merging_a_copy_leaves_the_adapters_on(one_model):
    trained(add_lora(one_model, rank=4))
    before = {name: p.clone() for name, p in one_model.named_parameters()}
    merged = merge_lora(copy.deepcopy(one_model))
    assert merged.head.weight is merged.embedding.weight
    assert all(torch.equal(p, before[name]) for name, p in one_model.named_parameters())
    ids = random_ids(1, 9)
    torch.testing.assert_close(merged(ids), one_model(ids), atol=1e-4, rtol=0)


def test_disabled_it_is_the_model_before_training(one_model):
    """Trap G14: the reference policy does not move with the policy."""
    ids = random_ids(2, 9)
    reference = one_model(ids)
    trained(add_lora(one_model, rank=4))
    policy = one_model(ids)
    assert (policy - reference).abs().max() > 0.1
    with lora_disabled(one_model):
        assert torch.equal(one_model(ids), reference)
        with lora_disabled(one_model):
            pass
        assert torch.equal(one_model(ids), reference), "an inner block must not switch them on again"
    assert torch.equal(one_model(ids), policy)


def test_disabled_ends_with_an_error_in_the_block_too(one_model):
    add_lora(one_model)
    with pytest.raises(KeyError), lora_disabled(one_model):
        raise KeyError
    assert all(block.attention.qkv.enabled for block in one_model.blocks)


def test_exported_after_merging_it_can_be_loaded(one_model, tmp_path):
    tokenizer = small_tokenizer()
    merge_lora(trained(add_lora(one_model, rank=4)))
    export_hf(one_model, tokenizer, tmp_path / "merged")
    loaded, _ = load_model(tmp_path / "merged", device="cpu")
    ids = random_ids(1, 9)
    torch.testing.assert_close(loaded(ids), one_model(ids), atol=1e-5, rtol=1e-5)


def test_what_is_written_holds_the_adapters_and_the_model_keeps_them(one_model, tmp_path):
    trained(add_lora(one_model, rank=4))
    export_hf(one_model, small_tokenizer(), tmp_path / "exported")
    save_checkpoint(tmp_path / "saved", one_model, small_tokenizer())
    ids = random_ids(1, 9)
    for folder in tmp_path.iterdir():
        loaded, _ = load_model(folder, device="cpu")
        torch.testing.assert_close(loaded(ids), one_model(ids), atol=1e-5, rtol=1e-5)
    assert lora_parameters(one_model)


def test_it_generates_with_and_without_the_cache(one_model):
    trained(add_lora(one_model, rank=4))
    with_cache, without = (
        generate(one_model, small_tokenizer(), "The sum", max_new_tokens=8, use_cache=use_cache)
        for use_cache in (True, False)
    )
    assert with_cache[0].token_ids == without[0].token_ids


def test_the_adapters_of_a_16_bit_model_learn_in_fp32(one_model):
    """Trap G17: a small step is not rounded away."""
    add_lora(one_model.to(torch.bfloat16), rank=4)
    before = {name: p.clone() for name, p in lora_parameters(one_model).items()}
    assert {p.dtype for p in before.values()} == {torch.float32}
    optimizer = torch.optim.AdamW(lora_parameters(one_model).values(), lr=1e-6)
    token_logprobs(one_model, random_ids(4, 8)).mean().backward()
    optimizer.step()
    for name, p in lora_parameters(one_model).items():
        if name.endswith("lora_b"):  # A has no gradient while B is zero
            assert (p != before[name]).float().mean() > 0.99


def test_the_seed_says_how_the_adapters_start(one_model):
    starts = [lora_parameters(add_lora(copy.deepcopy(one_model), seed=seed)) for seed in (0, 0, 1)]
    name = "blocks.0.attention.qkv.lora_a"
    assert torch.equal(starts[0][name], starts[1][name])
    assert not torch.equal(starts[0][name], starts[2][name])
    assert not torch.equal(starts[0][name], starts[0][name.replace("0", "1")])


def test_targets_choose_the_layers(one_model):
    add_lora(one_model, rank=2, targets=["qkv"])
    assert {name.split(".")[-2] for name in lora_parameters(one_model)} == {"qkv"}
    one_layer = one_model.blocks[0].attention.qkv
    assert one_layer.scale == 2
    assert one_layer.lora_a.shape == (2, one_model.config.hidden_size)


@pytest.mark.parametrize("settings", [{"rank": 0}, {"targets": ["head"]}, {"targets": []}])
def test_what_does_not_fit_is_said_and_changes_nothing(one_model, settings):
    with pytest.raises(ValueError, match=r"rank is 0: give at least 1|give names among"):
        add_lora(one_model, **settings)
    assert all(p.requires_grad for p in one_model.parameters())


def test_adapters_do_not_stack(one_model):
    assert merge_lora(one_model) is one_model
    add_lora(one_model)
    with pytest.raises(ValueError, match="adapters already"):
        add_lora(one_model)


def test_the_checkpoint_of_adapters_over_16_bits_is_the_trained_model(one_model, tmp_path):
    """A small update merged into bfloat16 would be rounded away: most of the weights would not move at all."""
    base = one_model.to(torch.bfloat16)
    before = hf_weights(base)
    model = trained(add_lora(base, rank=4), steps=1)
    with torch.no_grad():
        for name, p in lora_parameters(model).items():
            p.mul_(0.01 if name.endswith("lora_b") else 1)
    expected = hf_weights(merge_lora(copy.deepcopy(model).float()))
    save_checkpoint(tmp_path / "out", model, small_tokenizer())
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(saved[name], weight) for name, weight in expected.items())
    name = "model.layers.0.mlp.down_proj.weight"
    assert (saved[name] != before[name].float()).float().mean() > 0.99
    assert (saved[name].bfloat16() != before[name]).float().mean() < 0.2, "the trap"
    assert model.dtype == torch.bfloat16, "the model in training stays as it is"
    assert json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"


def test_adapters_over_float16_are_not_trained():
    model = our_model(hf_model("qwen3-tied")).half()
    with pytest.raises(ValueError, match=r"float16 model is not trained well: load it with dtype='bfloat16'"):
        Trainer(model, small_tokenizer(), TrainingConfig(lora_rank=4))
    assert not lora_parameters(model)
