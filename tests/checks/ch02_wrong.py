"""Plausible wrong answers to the exercises of chapter 2."""

import torch

from shared.generation.completions import generate
from shared.generation.stream import stream


def without_spaces(tokenizer, text):
    return {word: len(tokenizer.encode(word)) for word in text.split()}


def characters(tokenizer, text):
    return {word: len(word) for word in text.split()}


def on_the_cpu(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0, -1]


def first_position(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids], device=model.device))[0, 0]


def with_gradient(model, ids):
    return model(torch.tensor([ids], device=model.device))[0, -1]


@torch.inference_mode()
def _greedy(model, tokenizer, prompt, limit, ends=lambda text: False):
    """The ids of a greedy continuation, which goes on until its text `ends`, or to the end token."""
    cache, ids = model.new_cache(), []
    fresh = torch.tensor([tokenizer.encode(prompt)])
    while len(ids) < limit and not ends(tokenizer.decode(ids)):
        fresh = model(fresh, cache)[:, -1:].argmax(dim=-1)
        if fresh.item() == tokenizer.eos_id:
            break
        ids.append(fresh.item())
    return ids


def _until(stop, model, tokenizer, prompt, limit):
    """The text of a greedy continuation, with `stop` where there is one."""
    return tokenizer.decode(_greedy(model, tokenizer, prompt, limit, lambda text: stop in text))


def keeps_the_stop(model, tokenizer, prompt, stop, max_new_tokens):
    text = _until(stop, model, tokenizer, prompt, max_new_tokens)
    return text[: text.index(stop) + len(stop)] if stop in text else text


def with_the_prompt(model, tokenizer, prompt, stop, max_new_tokens):
    return prompt + _until(stop, model, tokenizer, prompt, max_new_tokens).split(stop)[0]


def compares_single_tokens(model, tokenizer, prompt, stop, max_new_tokens):
    ids = _greedy(model, tokenizer, prompt, max_new_tokens)
    pieces = []
    for i in ids:
        if tokenizer.decode([i]) == stop:
            break
        pieces.append(tokenizer.decode([i]))
    return "".join(pieces)


def writes_on_after_the_end(model, tokenizer, prompt, stop, max_new_tokens):
    ids = torch.tensor([tokenizer.encode(prompt)])
    start = ids.shape[1]
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            ids = torch.cat((ids, model(ids)[:, -1:].argmax(dim=-1)), dim=1)
    return tokenizer.decode(ids[0, start:].tolist()).split(stop)[0]


def writes_all_and_cuts(model, tokenizer, prompt, stop, max_new_tokens):
    return tokenizer.decode(_greedy(model, tokenizer, prompt, max_new_tokens)).split(stop)[0]


def looks_for_token_ids_of_the_stop(model, tokenizer, prompt, stop, max_new_tokens):
    ids = _greedy(model, tokenizer, prompt, max_new_tokens)
    wanted = tokenizer.encode(stop)
    for start in range(len(ids)):
        if ids[start : start + len(wanted)] == wanted:
            return tokenizer.decode(ids[:start])
    return tokenizer.decode(ids)


def finds_the_stop_in_the_prompt(model, tokenizer, prompt, stop, max_new_tokens):
    text = prompt + _until(stop, model, tokenizer, prompt, max_new_tokens)
    return text.split(stop)[0][len(prompt) :]


def waits_for_a_token_that_ends_like_the_stop(model, tokenizer, prompt, stop, max_new_tokens):
    ids = _greedy(model, tokenizer, prompt, max_new_tokens, lambda text: text.endswith(stop))
    texts = [tokenizer.decode(ids[:end]) for end in range(1, len(ids) + 1)]
    return next((text.removesuffix(stop) for text in texts if text.endswith(stop)), texts[-1])


def one_token_too_many(model, tokenizer, prompt, stop, max_new_tokens):
    return _until(stop, model, tokenizer, prompt, max_new_tokens + 1).split(stop)[0]


def asks_the_library(model, tokenizer, prompt, stop, max_new_tokens):
    return generate(model, tokenizer, prompt, max_new_tokens=max_new_tokens, stop=stop)[0].text


def asks_the_library_piece_by_piece(model, tokenizer, prompt, stop, max_new_tokens):
    return "".join(stream(model, tokenizer, prompt, max_new_tokens=max_new_tokens, stop=stop))


def token_count(prompt_length, new_tokens, use_cache):
    if use_cache:
        return prompt_length + new_tokens - 1
    return sum(prompt_length + t for t in range(new_tokens))


def forgets_the_prefill(prompt_length, new_tokens, use_cache):
    if use_cache:
        return sum(prompt_length + t for t in range(new_tokens))
    return sum((prompt_length + t) * (prompt_length + t + 1) // 2 for t in range(new_tokens))


def no_causal_mask(prompt_length, new_tokens, use_cache):
    if use_cache:
        return prompt_length**2 + sum(prompt_length + t for t in range(1, new_tokens))
    return sum((prompt_length + t) ** 2 for t in range(new_tokens))


def all_heads(config, tokens, batch_size, bytes_per_number):
    return 2 * config.num_layers * config.num_heads * config.head_dim * tokens * batch_size * bytes_per_number


def keys_only(config, tokens, batch_size, bytes_per_number):
    return config.num_layers * config.num_kv_heads * config.head_dim * tokens * batch_size * bytes_per_number


WRONG = {
    "2.1": [without_spaces, characters],
    "2.2": [on_the_cpu, first_position, with_gradient],
    "2.3": [
        keeps_the_stop,
        with_the_prompt,
        compares_single_tokens,
        writes_on_after_the_end,
        writes_all_and_cuts,
        looks_for_token_ids_of_the_stop,
        finds_the_stop_in_the_prompt,
        waits_for_a_token_that_ends_like_the_stop,
        one_token_too_many,
        asks_the_library,
        asks_the_library_piece_by_piece,
    ],
    "2.4": [token_count, forgets_the_prefill, no_causal_mask],
    "2.5": [all_heads, keys_only],
}
