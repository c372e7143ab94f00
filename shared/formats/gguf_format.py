"""Reading GGUF, llama.cpp's format: weights, settings and tokenizer in one file. Taught in appendix D.

Quantised weights are turned back into plain numbers on reading. Needs the package `gguf`, an optional extra.
"""

import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from shared.formats.hf_format import config_from_hf
from shared.formats.weights import LazyTensors, build_model
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM, ModelConfig

# The names of a GGUF tensor's pieces and what the Hugging Face format calls them.
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
BLOCK_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
# What a config.json calls a size, and what a GGUF file does, after the name of its architecture.
SETTINGS = {
    "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length", "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon", "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
}  # fmt: skip
TOKENIZER_FIELDS = [f"tokenizer.ggml.{name}" for name in ("model", "tokens", "token_type", "eos_token_id")]
CONTROL, USER_DEFINED = 3, 4  # kinds of tokens that stand for themselves
# A file names one end of a text and perhaps one of a turn; llama.cpp stops at each of these, named or not.
END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>")

PIECE = 2**18  # numbers or bytes of a tensor that are converted at a time

# How a text is cut before byte pairs are merged, by the name that a file gives its way of doing so.
QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_PIECES = QWEN2_PIECES.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_WORDS_AND_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
_PRE_TOKENIZERS = {
    "qwen2": [pre_tokenizers.Split(Regex(QWEN2_PIECES), "isolated"), _BYTES],
    "llama-bpe": [pre_tokenizers.Split(Regex(LLAMA3_PIECES), "isolated"), _BYTES],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), _WORDS_AND_BYTES],
    "gpt-2": [_WORDS_AND_BYTES],
}


def load_gguf(path: Path, device: torch.device, dtype: torch.dtype) -> tuple[CausalLM, Tokenizer]:
    """Model and tokenizer from a GGUF file.

    Raises ImportError if the package `gguf` is not installed, ValueError if the file is damaged, or holds what our
    model does not do.
    """
    reader = _open(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields.get("split.count", 0) > 1:
        raise ValueError(f"{path} is a part of a model: join all parts with llama-gguf-split --merge.")
    lacking = [name for name in ["general.architecture", *TOKENIZER_FIELDS] if name not in fields]
    if lacking:
        raise ValueError(f"The GGUF file {path} lacks {', '.join(lacking)}: download a complete model.")
    source = gguf_tensors(path, reader, fields, dtype)
    model = build_model(_config(fields, source), source, device=device, dtype=dtype, origin=path, copy=False)
    return model, tokenizer_from_fields(fields)


def _open(path: Path):
    try:
        import gguf
    except ImportError:
        raise ImportError('GGUF files need one more package: run pip install "gguf>=0.17".') from None

    class Reader(gguf.GGUFReader):
        """The package's reader, with a shorter way over arrays: those of a vocabulary have 450,000 entries."""

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list, list, list]:
            if raw_type != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, end = gguf.GGUFValueType(self._get(orig_offs, np.uint32)[0]), orig_offs + 12
            count, types = int(self._get(orig_offs + 4, np.uint64)[0]), [gguf.GGUFValueType.ARRAY, kind]
            if kind in self.gguf_scalar_to_np:
                values = self._get(end, self.gguf_scalar_to_np[kind], count)
                return 12 + values.nbytes, [values], [0], types
            data, texts = memoryview(self.data), []
            for _ in range(count):  # texts: no file of a model holds arrays of arrays
                start, end = end + 8, end + 8 + struct.unpack_from("<Q", data, end)[0]
                texts.append(data[start:end])
            return end - orig_offs, texts, list(range(count)), types

    try:
        return Reader(path)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        if "GGMLQuantizationType" in str(error):
            raise ValueError(f"{path} is newer than the package gguf ({error}): run pip install -U gguf.") from error
        raise ValueError(f"The GGUF file {path} is damaged or cut short ({error}): download it again.") from error


def _config(fields: dict[str, Any], tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Our configuration, by way of the settings that a config.json would hold."""
    kind = fields["general.architecture"]
    of_kind = {name.removeprefix(f"{kind}."): value for name, value in fields.items()}
    settings = {theirs: of_kind.get(name) for theirs, name in SETTINGS.items()}
    scaling = "llama3" if "rope_freqs.weight" in tensors else of_kind.get("rope.scaling.type", "none")
    settings |= {
        "model_type": kind,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "head_dim": settings["head_dim"] or of_kind.get("rope.dimension_count"),
        "rope_scaling": None if scaling == "none" else {"rope_type": scaling},
        "use_sliding_window": True,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }
    return config_from_hf({name: value for name, value in settings.items() if value is not None})


def gguf_tensors(path: Path, reader: Any, fields: dict[str, Any], dtype: torch.dtype) -> LazyTensors:
    """The tensors of a GGUF file under Hugging Face names, each converted when it is asked for."""
    return LazyTensors({_hf_name(raw.name): partial(_plain, path, raw, fields, dtype) for raw in reader.tensors})


def _plain(path: Path, raw: Any, fields: dict[str, Any], dtype: torch.dtype) -> Tensor:
    """A tensor turned back into plain numbers, in the order of the Hugging Face format.

    It is read and converted in pieces: neither the file nor fp32 numbers that nobody wants stay in memory.
    """
    from gguf.quants import dequantize

    tensor = torch.empty([int(size) for size in reversed(raw.shape)], dtype=dtype)
    count = 16 * max(1, PIECE // raw.data[:16].size)  # rows that are read at a time
    for first in range(0, len(raw.data), count):
        piece, offset = raw.data[first : first + count], raw.data_offset + raw.data[:first].nbytes
        stored = np.fromfile(path, piece.dtype, piece.size, offset=offset)
        try:
            # Blocks stand by themselves, and the package takes 16 rows at a time: so it takes longer ones.
            numbers = dequantize(stored.reshape(len(piece) if len(piece) % 16 else 16, -1), raw.tensor_type)
        except NotImplementedError as error:
            raise ValueError(f"{raw.name} is of kind {raw.tensor_type.name}: take a file in F16 or Q8_0.") from error
        tensor[first : first + count] = torch.from_numpy(numbers).view(tensor[first : first + count].shape)
    heads = fields.get("llama.attention.head_count")  # of that family only
    if heads is None or not raw.name.endswith(("attn_q.weight", "attn_k.weight")):
        return tensor
    return _unpermute(tensor, heads if ".attn_q." in raw.name else fields.get("llama.attention.head_count_kv", heads))


def _hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`; an unknown name stays as it is."""
    stem, _, kind = name.rpartition(".")
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{kind}"
    block, _, piece = stem.removeprefix("blk.").partition(".")
    return f"model.layers.{block}.{BLOCK_NAMES[piece]}.{kind}" if piece in BLOCK_NAMES else name


def _unpermute(weight: Tensor, heads: int) -> Tensor:
    """Llama files interleave the two features that RoPE turns together; ours stand half a head apart."""
    rows = weight.shape[0]
    return weight.view(heads, rows // heads // 2, 2, -1).transpose(1, 2).reshape(weight.shape)


def tokenizer_from_fields(fields: dict[str, Any]) -> Tokenizer:
    """The tokenizer that a GGUF file's settings describe."""
    tokens = fields["tokenizer.ggml.tokens"]
    names = {"eos": "eos", "bos": "bos", "pad": "padding", "eot": "eot", "eom": "eom"}
    ids = {short: fields.get(f"tokenizer.ggml.{name}_token_id") for short, name in names.items()}
    backend = _backend(fields, tokens)
    stop = [ids.pop("eot"), ids.pop("eom"), *map(backend.token_to_id, END_TOKENS)]
    special = {name: backend.id_to_token(i) or f"number {i}" for name, i in ids.items() if i is not None}
    if "bos" in special and fields.get("tokenizer.ggml.add_bos_token", fields["tokenizer.ggml.pre"] == "llama-bpe"):
        start = special["bos"]
        backend.post_processor = processors.TemplateProcessing([start, "$A"], special_tokens=[(start, ids["bos"])])
    template = fields.get("tokenizer.chat_template")
    return Tokenizer(backend, **special, stop=[i for i in stop if i is not None], chat_template=template)


def _backend(fields: dict[str, Any], tokens: list[str]) -> tokenizers.Tokenizer:
    """The tokenizer that tokenizer.json would give: vocabulary, merges, and how a text is cut before."""
    kind, cut = fields["tokenizer.ggml.model"], fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or cut not in _PRE_TOKENIZERS:
        raise ValueError(f"A tokenizer of the kind {kind}/{cut} is not supported: take the Hugging Face folder.")
    if "tokenizer.ggml.merges" not in fields:
        raise ValueError("The GGUF file lacks tokenizer.ggml.merges: download a complete model.")
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=cut == "llama-bpe"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[cut])
    backend.decoder = decoders.ByteLevel()
    if cut == "qwen2":
        backend.normalizer = normalizers.NFC()
    for kind, add in {CONTROL: backend.add_special_tokens, USER_DEFINED: backend.add_tokens}.items():
        texts = [text for text, of in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if of == kind]
        add([AddedToken(text, normalized=False, special=kind == CONTROL) for text in texts])
    return backend
