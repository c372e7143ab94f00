"""GGUF files of the three families, written by the `gguf` package, against transformers' models."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from shared.formats import gguf_format
from shared.formats.loading import load_model
from shared.model.tokenizer import Tokenizer
from tests.small_models import hf_model, random_ids, small_backend

IDS = random_ids(2, 30)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


NAMES = {theirs: ours for ours, theirs in gguf_format.BLOCK_NAMES.items()}
TOP = {theirs: ours for ours, theirs in gguf_format.TOP_NAMES.items()}


def gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    _, _, layer, piece = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[piece]}.{kind}"


def write_gguf(
    path, hf, kind="F32", rope_scaling=None, architecture=None, tokenizer_model="gpt2", more=None, without=None
):
    """A GGUF file as llama.cpp's converter writes it; returns transformers' model with the rounded weights."""
    gguf = pytest.importorskip("gguf")
    config = hf.config
    architecture = architecture or config.model_type
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
    if rope_scaling:
        writer.add_rope_scaling_type(rope_scaling)
    backend = small_backend()
    vocabulary = backend.get_vocab()
    writer.add_tokenizer_model(tokenizer_model)
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3, 3, 3] + [1] * (len(vocabulary) - 5) + [4, 4])
    writer.add_token_merges([" ".join(m) for m in json.loads(backend.to_str())["model"]["merges"]])
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}")
    if more:
        more(writer)
    _add_tensors(gguf, writer, hf, kind, without)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hf


def _add_tensors(gguf, writer, hf, kind, without):
    config = hf.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in hf.state_dict().items():
        if (name == "lm_head.weight" and config.tie_word_embeddings) or name == without:
            continue
        quantization = getattr(gguf.GGMLQuantizationType, kind if tensor.ndim == 2 else "F32")
        data = gguf.quants.quantize(tensor.numpy(), quantization)
        tensor.copy_(torch.from_numpy(np.array(gguf.quants.dequantize(data, quantization))))
        piece = name.split(".")[-2]
        if config.model_type == "llama" and piece in heads:
            halves = tensor.view(heads[piece], 2, -1, tensor.shape[1])
            data = gguf.quants.quantize(halves.transpose(1, 2).reshape(tensor.shape).numpy(), quantization)
        writer.add_tensor(gguf_name(name), data, raw_dtype=quantization)


@pytest.mark.parametrize("variant", ["qwen3-tied", "qwen2-untied", "llama-tied", "llama-untied"])
def test_gguf_file_of_each_family(tmp_path, variant):
    hf = write_gguf(tmp_path / "model.gguf", hf_model(variant))
    model, tokenizer = load_model(tmp_path / "model.gguf", device="cpu")
    torch.testing.assert_close(model(IDS), hf(IDS).logits, atol=1e-4, rtol=0)
    assert model.config.tie_embeddings == hf.config.tie_word_embeddings
    assert model.config.context_length == 128
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.bos_id) == (2, 0, None)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}]) == "Hi"
    text = "The answer is<think>that</think><|im_end|>"
    assert tokenizer.encode(text) == Tokenizer(small_backend()).encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == "The answer is<think>that</think>"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1"])
def test_gguf_number_formats(tmp_path, kind):
    hf = write_gguf(tmp_path / "model.gguf", hf_model("llama-tied"), kind)
    model, _ = load_model(tmp_path / "model.gguf", device="cpu")
    torch.testing.assert_close(model(IDS), hf(IDS).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "gemma"}, "architecture gemma is not supported"),
        ({"tokenizer_model": "llama"}, "tokenizer of the kind llama/gpt-2.*Hugging Face folder"),
    ],
)
def test_gguf_files_that_are_refused(tmp_path, options, message):
    write_gguf(tmp_path / "model.gguf", hf_model("llama-tied"), **options)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "model.gguf", device="cpu")


def test_gguf_with_scaled_rope_is_refused(tmp_path):
    gguf = pytest.importorskip("gguf")
    write_gguf(tmp_path / "model.gguf", hf_model("qwen2-tied"), rope_scaling=gguf.RopeScalingType.YARN)
    with pytest.raises(ValueError, match="scales its RoPE"):
        load_model(tmp_path / "model.gguf", device="cpu")


def test_gguf_that_is_cut_short_or_no_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, hf_model("llama-tied"))
    whole = path.read_bytes()
    for content in (b"", b"GGUF", whole[:1000], whole[:-1000], b"x" * 400):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.gguf is damaged or cut short .*download it again"):
            load_model(path, device="cpu")


def test_gguf_that_claims_more_texts_than_it_holds(tmp_path):
    """The reading ends with the file: it would go on for 2^40 empty texts otherwise."""
    path, key = tmp_path / "model.gguf", b"tokenizer.ggml.tokens"
    write_gguf(path, hf_model("llama-tied"))
    content = bytearray(path.read_bytes())
    count = content.index(key) + len(key) + 8  # behind the kinds of the array and of its entries
    content[count : count + 8] = (2**40).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.gguf is damaged or cut short .*download it again"):
        load_model(path, device="cpu")


def test_gguf_without_its_package(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r'pip install "gguf'):
        load_model(tmp_path / "model.gguf", device="cpu")


def test_gguf_tokenizer_of_qwen3_equals_the_original(test_data):
    """The pieces that a text is cut into are not in the file, only the name of the rule."""
    folder, problems = test_data / "qwen3-tokenizer", test_data / "math500_test.json"
    if not (folder.is_dir() and problems.is_file()):
        pytest.skip(f"qwen3-tokenizer and math500_test.json are not both in {test_data}")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: 3 if token["special"] else 4 for token in content["added_tokens"]}
    original = Tokenizer.from_pretrained_folder(folder)
    vocabulary = original.backend.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [added.get(token, 1) for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in content["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": original.eos_id,
    }
    rebuilt = gguf_format.tokenizer_from_fields(fields)
    texts = [p["problem"] + p["solution"] for p in json.loads(problems.read_text(encoding="utf-8"))[:40]]
    for text in [*texts, "<think>\ncafé e\u0301 12345</think><|im_end|>", " I'LL \n\n\t go 日本"]:
        assert rebuilt.encode(text) == original.encode(text)
        assert rebuilt.decode(rebuilt.encode(text)) == original.decode(original.encode(text))


# --- what a text begins and ends with, and faults in words --------------------------------------------------


def small_fields(**changes):
    backend = small_backend()
    vocabulary = backend.get_vocab()
    fields = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": sorted(vocabulary, key=vocabulary.get),
        "token_type": [3, 3, 3] + [1] * (len(vocabulary) - 5) + [4, 4],
        "merges": [" ".join(merge) for merge in json.loads(backend.to_str())["model"]["merges"]],
        "eos_token_id": 0,
    }
    return {f"tokenizer.ggml.{name}": value for name, value in (fields | changes).items() if value is not None}


@pytest.mark.parametrize(("pre", "asked", "given"), [
    ("gpt-2", True, True), ("gpt-2", None, False), ("llama-bpe", None, True), ("llama-bpe", False, False),
])  # fmt: skip
def test_gguf_bos_token(tmp_path, pre, asked, given):
    fields = small_fields(pre=pre, bos_token_id=1, add_bos_token=asked)
    tokenizer = gguf_format.tokenizer_from_fields(fields)
    assert tokenizer.bos_id == 1
    assert (tokenizer.encode("The answer")[0] == 1) == given
    tokenizer.save(tmp_path)
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs("The answer")["input_ids"] == tokenizer.encode("The answer")


@pytest.mark.parametrize(("changes", "stops"), [
    ({}, (0, 2)), ({"eos_token_id": 2}, (2, 0)), ({"eot_token_id": 2, "eom_token_id": 5}, (0, 2, 5)),
])  # fmt: skip
def test_gguf_stops_at_every_end_of_generation(changes, stops):
    assert gguf_format.tokenizer_from_fields(small_fields(**changes)).stop_ids == stops


@pytest.mark.parametrize(("changes", "message"), [
    ({"merges": None}, "lacks tokenizer.ggml.merges: download"),
    ({"eos_token_id": 9_999}, "'number 9999' is not in the vocabulary"),
])  # fmt: skip
def test_gguf_tokenizers_with_something_missing(changes, message):
    with pytest.raises(ValueError, match=message):
        gguf_format.tokenizer_from_fields(small_fields(**changes))


def test_gguf_weights_of_a_kind_that_is_no_number_format(tmp_path):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"

    def counts(writer):
        writer.add_tensor("output_norm.weight", np.ones(64, np.int32), raw_dtype=gguf.GGMLQuantizationType.I32)

    write_gguf(path, hf_model("llama-tied"), more=counts, without="model.norm.weight")
    with pytest.raises(ValueError, match=r"output_norm\.weight is of kind I32: take a file in F16 or Q8_0"):
        load_model(path, device="cpu")


@pytest.mark.parametrize(("more", "message"), [
    (lambda w: w.add_tensor("rope_freqs.weight", np.ones(8, np.float32)), "scales its RoPE"),
    (lambda w: w.add_uint16("split.count", 3), "is a part of a model: join all parts"),
])  # fmt: skip
def test_gguf_files_that_need_more_than_a_download(tmp_path, more, message):
    write_gguf(tmp_path / "model.gguf", hf_model("llama-tied"), more=more)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "model.gguf", device="cpu")


def test_gguf_that_is_newer_than_its_package(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, hf_model("llama-tied"))
    content = bytearray(path.read_bytes())
    name = b"blk.0.ffn_up.weight"
    kind = content.index(name) + len(name) + 4 + 2 * 8  # after the number of dimensions and two sizes
    assert content[kind : kind + 4] == bytes(4)
    content[kind] = 77
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is newer than the package gguf \(.*77.*pip install -U gguf"):
        load_model(path, device="cpu")
