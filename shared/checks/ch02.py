"""Checks of the exercises of chapter 2."""

from types import SimpleNamespace

import torch

from shared.checks import Mismatch, expect, register
from shared.formats.loading import load_model
from shared.generation.completions import Ending, decode_batch, generate
from shared.generation.stream import stream
from shared.model.transformer import CausalLM

WORDS = "Tom sees a hippopotamus near Łódź."


@register(
    "2.1",
    title="tokens per word",
    hint="encode each word with the space before it, except the first",
    hint2="split() gives the words; call len(tokenizer.encode(...)) on the first as it is and on ' ' + word for "
    "the others",
)
def check_tokens_per_word(tokens_per_word):
    """Compare with the tokenizer's own count for known and unknown words."""
    _, tokenizer = load_model("tiny-random")
    for text in ("Compute the sum.", WORDS):
        words = text.split()
        spaced = [words[0]] + [" " + word for word in words[1:]]
        expected = {w: len(tokenizer.encode(s)) for w, s in zip(words, spaced, strict=True)}
        expect(tokens_per_word(tokenizer, text), expected, case=f"the text {text!r}")
    return "known words are few tokens, unknown ones many, none is refused"


@register(
    "2.2",
    title="any device",
    hint="ask the model: torch.tensor(..., device=model.device), in inference mode",
    hint2="input_ids of shape (1, length) on model.device give logits of shape (1, length, vocabulary), of "
    "which you want [0, -1]; torch.inference_mode() as a decorator keeps the gradient away",
)
def check_next_token_logits(next_token_logits):
    """Run on the CPU, and on a stand-in whose device no tensor reaches by chance."""
    model, tokenizer = load_model("tiny-random")
    ids = tokenizer.encode("Problem: Compute 3+4.")
    got = next_token_logits(model, ids)
    if not isinstance(got, torch.Tensor):
        raise Mismatch("a tensor", got, "five token ids")
    with torch.inference_mode():
        expected = model(torch.tensor([ids]))[0, -1]
    expect(tuple(got.shape), tuple(expected.shape), case="the shape of the result")
    expect(got, expected, case="the logits of the last position", tolerance=1e-4)
    expect(got.requires_grad, False, case="result.requires_grad")
    elsewhere = _ModelElsewhere(model.config.vocab_size)
    next_token_logits(elsewhere, ids)
    expect(elsewhere.seen, "meta", case="the device of the input for a model on the device 'meta'")
    return "runs where the model is"


class _ModelElsewhere:
    """Looks like a model on another device and notes where its input is."""

    device = torch.device("meta")
    dtype = torch.float32

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self.seen = None
        self.embedding = SimpleNamespace(weight=torch.empty(0, device="meta"))

    def eval(self):
        return self

    def new_cache(self, *_arguments, **_settings):
        return None

    def parameters(self):
        return iter([self.embedding.weight])

    def hidden_states(self, input_ids, cache=None, attention_mask=None):
        self.seen = input_ids.device.type
        return torch.zeros(*input_ids.shape, 1)  # so that a result can be moved to the processor

    def head(self, hidden):
        return torch.zeros(*hidden.shape[:-1], self.vocab_size)

    def __call__(self, input_ids, cache=None, attention_mask=None):
        return self.head(self.hidden_states(input_ids, cache, attention_mask))


@register(
    "2.3",
    title="stop sequence",
    hint="decode all new tokens at each step; cut before `stop`, and end there",
    hint2="append one id, test `stop in tokenizer.decode(ids)`, and break; the end token is tested before it is "
    "appended; after the loop keep what stands before the first `stop`",
    yourself=(generate, stream, decode_batch, Ending.reached, Ending.text),
)
def check_generate_until(generate_until):
    """Compare with `generate(stop=...)`, with a stop text that spans tokens and, where none comes, the end token.

    The passes of the model are counted: a loop that writes on after `stop` and cuts later needs more of them.
    """
    model, tokenizer = load_model("tiny")
    passes = []
    hook = model.blocks[0].register_forward_pre_hook(lambda *_: passes.append(1))
    prompt = "Problem: Compute 12+5*7.\nExplain step by step, then answer in \\boxed{}.\nAnswer:"
    for stop, limit in (("The answer", 60), ("=", 60), ("answ", 60), ("never", 60), ("never", 8)):
        [expected] = generate(model, tokenizer, prompt, max_new_tokens=limit, stop=stop)
        passes.clear()
        got = generate_until(model, tokenizer, prompt, stop, limit)
        case = f"stop={stop!r}, max_new_tokens={limit}"
        expect(got, expected.text, case=case)
        most = len(expected.token_ids) + 1
        expect(len(passes) <= most, True, case=f"{case}: at most {most} passes of the model, for it ends there")
    hook.remove()
    return "stops at the stop text and leaves it out"


@register(
    "2.4",
    title="cost of generation",
    hint="the token at position i looks at i + 1 tokens; add up over all calls",
    hint2="one pass over L tokens makes L(L+1)/2 pairs; without the cache there are m passes, of n, n + 1, ... "
    "tokens; with it the pairs are those of one pass over n + m - 1 tokens",
)
def check_attention_pairs(attention_pairs):
    """Compare the formula with pairs counted while a model runs."""
    model, _ = load_model("tiny-random")
    for use_cache in (True, False):
        for prompt_length, new_tokens in ((1, 1), (5, 1), (3, 4), (20, 30)):
            counted = _count_pairs(model, prompt_length, new_tokens, use_cache)
            case = f"a prompt of {prompt_length}, {new_tokens} new tokens, use_cache={use_cache}"
            expect(attention_pairs(prompt_length, new_tokens, use_cache), counted, case=case)
    return "the formula agrees with what was counted while the model ran"


@torch.inference_mode()
def _count_pairs(model: CausalLM, prompt_length: int, new_tokens: int, use_cache: bool) -> int:
    """Pairs of tokens (one looks at the other) in one layer while `new_tokens` are generated."""
    pairs = 0

    def count(_module, arguments):
        nonlocal pairs
        length, cache = arguments[0].shape[1], arguments[3]
        total = cache.length if cache is not None else length
        pairs += sum(range(total - length + 1, total + 1))

    hook = model.blocks[0].attention.register_forward_pre_hook(count)
    try:
        ids = torch.ones(1, prompt_length, dtype=torch.long)
        cache = model.new_cache() if use_cache else None
        fresh = ids
        for _ in range(new_tokens):
            chosen = model(fresh if use_cache else ids, cache)[:, -1:].argmax(-1)
            ids, fresh = torch.cat((ids, chosen), dim=1), chosen
    finally:
        hook.remove()
    return pairs


@register(
    "2.5",
    title="memory of the cache",
    hint="keys and values: layers x key-value heads x head size, twice",
    hint2="multiply 2 (keys and values) by num_layers, num_kv_heads and head_dim, then by tokens, texts and "
    "bytes; num_heads has no place in it",
)
def check_cache_bytes(cache_bytes):
    """Compare with a real cache's storage and with Qwen3-0.6B's shape."""
    model, _ = load_model("tiny-random")
    cache = model.new_cache(batch_size=3, capacity=40)
    held = cache.stored.nbytes
    expect(cache_bytes(model.config, 40, 3, 4), held, case="the tiny model, 40 tokens, batch of 3, 4 bytes a number")
    qwen3 = SimpleNamespace(
        num_layers=28, num_heads=16, num_kv_heads=8, head_dim=128, hidden_size=1024, vocab_size=151_936
    )
    case = "Qwen3-0.6B, 1,000 tokens, batch of 1, 2 bytes a number"
    expect(cache_bytes(qwen3, 1000, 1, 2), 114_688_000, case=case)
    return "agrees with the storage of a real cache"
