"""The linear layer: the fast library gives the same numbers, and is used only where it may be."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from shared.model import linear
from shared.model.linear import PAGE, Linear, lay_out

SIZES = (512, 640)  # large enough for the fast library even with one token


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of the fast library, on any processor; skips where this build of torch has none."""
    monkeypatch.setattr(linear, "processor_name", lambda: "AMD EPYC")
    made, real = [], linear._find_onednn()
    if real is None:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(linear, "_onednn_linear", lambda *args: made.append(1) or real(*args))
    return made


def make(bias: bool = False) -> tuple[Linear, torch.Tensor]:
    torch.manual_seed(0)
    return Linear(*SIZES, bias=bias), torch.randn(3, 5, SIZES[0])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 1), (7,), ()])
def test_same_numbers_for_every_shape(calls, bias, shape):
    layer, _ = make(bias)
    x = torch.randn(*shape, SIZES[0])
    with torch.no_grad():
        result = layer(x)
    assert len(calls) == 1
    torch.testing.assert_close(result, F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)


def test_same_numbers_for_an_input_that_is_not_contiguous(calls):
    layer, x = make()
    with torch.inference_mode():
        last = layer(x[:, -1])
        torch.testing.assert_close(last, F.linear(x, layer.weight)[:, -1], atol=1e-5, rtol=1e-5)
    assert calls


def test_gradients_are_those_of_torch(calls):
    layer, x = make(bias=True)
    layer(x).square().sum().backward()
    mine = layer.weight.grad.clone()
    layer.weight.grad = None
    F.linear(x, layer.weight, layer.bias).square().sum().backward()
    assert torch.equal(mine, layer.weight.grad)
    assert not calls


@pytest.mark.parametrize(
    "name", ["Intel(R) Xeon(R) Processor @ 2.80GHz", "Intel64 Family 6 Model 154, GenuineIntel"]
)
def test_intel_processors_keep_the_library_of_their_maker(monkeypatch, name):
    monkeypatch.setattr(linear, "processor_name", lambda: name)
    assert linear._find_onednn() is None


@pytest.mark.parametrize("case", ["small", "bfloat16", "autocast", "absent"])
def test_where_the_fast_library_is_left_out(calls, monkeypatch, case):
    layer, x = make()
    if case == "small":
        layer, x = Linear(8, 8), torch.randn(2, 8)
    if case == "bfloat16":
        layer, x = layer.bfloat16(), x.bfloat16()
    if case == "absent":
        monkeypatch.setattr(linear, "_onednn_linear", None)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        result = layer(x)
        assert torch.equal(result, F.linear(x, layer.weight, layer.bias))
    assert not calls


@pytest.mark.parametrize(("rows", "dtype", "by_columns"), [
    (PAGE - 1, torch.float32, True), (PAGE, torch.float32, False), (PAGE - 1, torch.bfloat16, False),
])  # fmt: skip
def test_the_layout_in_memory_changes_no_number(rows, dtype, by_columns):
    torch.manual_seed(0)
    layer, x = Linear(24, rows, dtype=dtype), torch.randn(3, 24, dtype=dtype)
    weight, expected = layer.weight.detach().clone(), layer(x)
    lay_out(layer)
    assert torch.equal(layer.weight, weight)
    assert layer.weight.stride() == ((1, rows) if by_columns else (24, 1))
    torch.testing.assert_close(layer(x), expected)


def test_a_layer_of_another_layout_has_the_same_gradients():
    layer, x = make()
    layer(x).square().sum().backward()
    expected, layer.weight.grad = layer.weight.grad, None
    lay_out(layer)
    layer(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected, atol=1e-4, rtol=1e-4)
    assert layer.weight.grad.stride() == layer.weight.stride()
