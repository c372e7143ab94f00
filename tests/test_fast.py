"""What makes the model fast changes no token, no weight's name and no gradient, and can be taken apart again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shared.formats.checkpoints import export_hf
from shared.formats.loading import load_model
from shared.generation.completions import generate
from shared.generation.logprobs import token_logprobs
from shared.model import fast
from shared.model.fast import FastAttention, FastLinear, FastRMSNorm, rms_norm, speed_up
from shared.model.lora import add_lora, merge_lora
from tests.small_models import VARIANTS, hf_model, our_model, random_ids, small_tokenizer

# --- the norm -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_rms_norm_and_its_gradients_are_those_of_torch(scale):
    generator = torch.Generator().manual_seed(0)
    x = (scale * torch.randn(3, 5, 48, generator=generator)).requires_grad_()
    weight, outer = (torch.randn(48, generator=generator).requires_grad_() for _ in range(2))
    mine, theirs = rms_norm(x, weight, 1e-6), F.rms_norm(x, (48,), weight, 1e-6)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad((y * outer).sum(), (x, weight)) for y in (mine, theirs)]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, atol=1e-5 * reference.abs().max().item(), rtol=1e-5)


def test_rms_norm_of_zeros_is_zero_and_has_a_finite_gradient():
    x = torch.zeros(2, 8, requires_grad=True)
    y = rms_norm(x, torch.ones(8), 1e-6)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 8))
    assert torch.isfinite(x.grad).all()


# --- the linear layer -----------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of oneDNN, on any processor; skips where this build of torch has none."""
    monkeypatch.setattr(fast, "processor_name", lambda: "AMD EPYC")
    made, real = [], fast.onednn_product.__wrapped__()
    if real is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(fast, "onednn_product", lambda: lambda *args: made.append(1) or real(*args))
    return made


def large_layer(bias: bool = False) -> FastLinear:
    torch.manual_seed(0)
    return FastLinear(512, 640, bias=bias)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 1), (7,), ()])
def test_a_large_layer_has_the_same_numbers_for_every_shape(calls, bias, shape):
    layer, x = large_layer(bias), torch.randn(*shape, 512)
    with torch.no_grad():
        result = layer(x)
        strided = layer(torch.stack((x, x), dim=-1)[..., 0])
    assert len(calls) == 2
    torch.testing.assert_close(result, F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(strided, result, atol=1e-5, rtol=1e-5)


def test_gradients_of_a_large_layer_are_those_of_torch(calls):
    layer, x = large_layer(bias=True), torch.randn(3, 512)
    layer(x).square().sum().backward()
    mine, layer.weight.grad = layer.weight.grad, None
    F.linear(x, layer.weight, layer.bias).square().sum().backward()
    assert torch.equal(mine, layer.weight.grad)
    assert not calls


@pytest.mark.parametrize("name", ["Intel(R) Xeon(R) Processor @ 2.80GHz", "Intel64 Family 6 Model 154, GenuineIntel"])
def test_intel_processors_keep_the_library_of_their_maker(monkeypatch, name):
    monkeypatch.setattr(fast, "processor_name", lambda: name)
    assert fast.onednn_product.__wrapped__() is None


@pytest.mark.parametrize("case", ["small", "bfloat16", "autocast", "absent"])
def test_where_onednn_is_left_out(calls, monkeypatch, case):
    layer, x = large_layer(), torch.randn(3, 512)
    if case == "small":
        layer, x = FastLinear(8, 8), torch.randn(2, 8)
    if case == "bfloat16":
        layer, x = layer.bfloat16(), x.bfloat16()
    if case == "absent":
        monkeypatch.setattr(fast, "onednn_product", lambda: None)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert not calls


def test_large_weights_lie_by_columns_and_are_the_same(calls):
    torch.manual_seed(0)
    wide, tall, small = nn.Linear(512, 640, bias=False), nn.Linear(512, 1024, bias=False), nn.Linear(8, 8)
    before = [layer.weight.detach().clone() for layer in (wide, tall, small)]
    model = speed_up(nn.Sequential(wide, nn.Linear(640, 512, bias=False).bfloat16(), tall, small))
    assert [layer.weight.t().is_contiguous() for layer in model] == [True, False, False, False]
    assert all(torch.equal(layer.weight, was) for layer, was in zip((wide, tall, small), before, strict=True))
    x = torch.randn(3, 512)
    with torch.no_grad():
        torch.testing.assert_close(wide(x), F.linear(x, before[0]), atol=1e-5, rtol=1e-5)
    assert len(calls) == 1
    wide(x).square().sum().backward()  # and it can be trained, by AdamW too
    torch.optim.AdamW([wide.weight], fused=True).step()
    assert wide.weight.t().is_contiguous()


def test_weights_stay_by_rows_where_onednn_is_not_used(monkeypatch):
    monkeypatch.setattr(fast, "onednn_product", lambda: None)
    assert speed_up(nn.Sequential(nn.Linear(512, 640)))[0].weight.is_contiguous()


# --- the whole model ------------------------------------------------------------------------------------------


def both_forms(variant: str = "qwen3-tied"):
    """The same weights in a plain model and in a fast one."""
    hf = hf_model(variant)
    return our_model(hf), speed_up(our_model(hf))


@pytest.mark.parametrize("variant", VARIANTS)
def test_plain_and_fast_agree_in_logits_and_in_every_token(variant):
    plain, fast_one = both_forms(variant)
    ids = random_ids(3, 40)
    with torch.no_grad():
        torch.testing.assert_close(fast_one(ids), plain(ids), atol=1e-4, rtol=0)
    written = [continued(model, ids[:, :7]) for model in (plain, fast_one)]
    assert torch.equal(*written)


@torch.inference_mode()
def continued(model, ids: torch.Tensor) -> torch.Tensor:
    """The texts with twenty tokens more, chosen greedily."""
    cache, new = model.new_cache(len(ids)), ids
    for _ in range(20):
        new = model(new, cache)[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat((ids, new), dim=1)
    return ids


@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers_are_those_of_torch(bias):
    layer, x = FastLinear(24, 16, bias=bias), torch.randn(3, 5, 24)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_is_loaded_is_fast_and_writes_as_a_plain_one(temperature):
    loaded, tokenizer = load_model("tiny")
    assert any(isinstance(part, FastAttention) for part in loaded.modules())
    plain = type(loaded)(loaded.config).eval()
    plain.load_state_dict(loaded.state_dict())
    assert not any(isinstance(part, FastAttention | FastRMSNorm | FastLinear) for part in plain.modules())
    prompts = [f"Problem: Compute {a}+{a * 7}.\n" for a in range(1, 9)]
    texts = [
        [c.text for c in generate(model, tokenizer, prompts, max_new_tokens=24, temperature=temperature, seed=3)]
        for model in (plain, loaded)
    ]
    assert texts[0] == texts[1]


def test_training_gradients_agree():
    ids, gradients = random_ids(4, 12), []
    for model in both_forms():
        token_logprobs(model, ids).mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3)


def test_weights_keep_their_names_and_values_and_are_exported_alike(tmp_path):
    plain, fast_one = both_forms()
    assert list(plain.state_dict()) == list(fast_one.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), fast_one.parameters(), strict=True))
    for name, model in (("plain", plain), ("fast", fast_one)):
        export_hf(model, small_tokenizer(), tmp_path / name)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "fast")]
    assert files[0] == files[1]
    plain.load_state_dict(fast_one.state_dict())


def test_twice_is_once_and_a_copy_is_of_its_own():
    model, ids = both_forms()[1], random_ids(1, 6)
    with torch.no_grad():
        expected = model(ids)
        assert torch.equal(speed_up(model)(ids), expected)
        copied = copy.deepcopy(model)
        copied.blocks[0].attention.qkv.weight.zero_()
        assert torch.equal(model(ids), expected)
        assert not torch.allclose(copied(ids), expected, atol=1e-2)


@torch.no_grad()
def test_a_part_that_is_replaced_or_copied_is_the_one_that_is_used():
    """The parts are attributes besides being registered: both are always the same ones."""
    model, ids = both_forms()[1], random_ids(1, 6)
    changed = copy.deepcopy(model)
    for block in changed.blocks:
        assert block.attention is dict(block.named_children())["attention"] is vars(block)["attention"]
        block.feed_forward = torch.nn.Identity()
        assert block.feed_forward is dict(block.named_children())["feed_forward"]
    assert not torch.allclose(changed(ids), model(ids), atol=1e-2)
    heard = []
    with_hook = model.blocks[0].feed_forward.register_forward_hook(lambda *_: heard.append(1))
    model(ids, model.new_cache())
    with_hook.remove()
    assert heard == [1]


@torch.no_grad()
def test_adapters_that_come_later_are_used_and_taken_off_again():
    model, ids = both_forms()[1], random_ids(2, 9)
    before = model(ids)
    add_lora(model, rank=4)
    assert torch.equal(model(ids), before)
    for block in model.blocks:
        assert block.attention.qkv is dict(block.attention.named_children())["qkv"]
        block.attention.qkv.lora_b.fill_(0.1)
    changed = model(ids)
    assert not torch.allclose(changed, before, atol=1e-2)
    merge_lora(model)
    torch.testing.assert_close(model(ids), changed, atol=1e-4, rtol=0)
    assert all(type(block.attention.qkv) is nn.Linear for block in model.blocks)


@torch.no_grad()
def test_new_weights_count_for_a_new_cache():
    """What is remembered of the weights of queries and keys is not carried into the next text."""
    model, ids = both_forms()[1], random_ids(1, 6)
    before = model(ids, model.new_cache())
    model.blocks[0].attention.q_norm.weight.mul_(3)
    after = model(ids, model.new_cache())
    assert not torch.allclose(before, after, atol=1e-3)
    torch.testing.assert_close(after, model(ids), atol=1e-4, rtol=0)
