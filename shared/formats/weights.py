"""Weights into a model and out of it, by safetensors files only, which cannot run code. Taught in appendix D.

Two formats: a Hugging Face folder, and a single file under our own parameter names whose metadata holds the
configuration (the tiny model ships as one).
"""

import copy
import json
from collections import UserDict
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from shared.formats.hf_format import Part, config_from_hf, config_to_hf, weight_parts
from shared.model.lora import lora_parameters, merge_lora
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM, ModelConfig
from shared.support.files import read_json

AGAIN = "download or save it again"
RESTORE = "restore it with git checkout -- shared/assets, or save it again"


class LazyTensors(UserDict[str, Tensor]):
    """Tensors by name, each read when it is asked for, by the function that was put under its name."""

    def __getitem__(self, name: str) -> Tensor:
        return self.data[name]()


def safetensors(*files: safe_open) -> LazyTensors:
    """The tensors of opened safetensors files."""
    return LazyTensors({name: partial(file.get_tensor, name) for file in files for name in list(file.keys())})


def _open(path: Path, mend: str = AGAIN) -> safe_open:
    if not path.is_file():
        raise FileNotFoundError(f"The weights file {path} is missing: {mend}.")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"The weights file {path} is damaged or cut short ({error}): {mend}.") from error


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """safetensors' `save_file`. Raises OSError where the system refuses, on a full disk say, as any writing does."""
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error}): free some space, or name another folder.") from error


class _Shapes(TorchFunctionMode):
    """What "meta" lacks: rope's numbers are made, and no weight is drawn, for which torch would import its compiler."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.init.normal_:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **({"device": "cpu"} if function is torch.arange else {}) | (kwargs or {}))


def empty_model(config: ModelConfig) -> CausalLM:
    """A model whose weights have shapes but no memory yet: nothing is drawn only to be overwritten."""
    with torch.device("meta"), _Shapes():
        return CausalLM(config)


def build_model(
    config: ModelConfig,
    source: Mapping[str, Tensor],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    origin: str | Path = "The source",
    parts: dict[str, list[Part]] | None = None,
    copy: bool = True,
) -> CausalLM:
    """A model with the weights of `source`, read one parameter at a time.

    Args:
        origin: what to call the source in errors.
        parts: the tensors that each parameter is made of; Hugging Face names if not given.
        copy: False if what `source` gives is in nobody else's memory.

    Raises ValueError if a tensor is missing, one is left over, or one has another shape than `config` says.
    """
    parts = parts or weight_parts(config)
    _require_names({part.name for of in parts.values() for part in of}, source, config, origin)
    model = empty_model(config)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    weights = {}
    for name, of in parts.items():
        tensors = [_fitting(source[part.name], part, shapes[name], origin) for part in of]
        joined = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        # A copy, so that no weight is a window into a mapped file that may be overwritten.
        weights[name] = joined.to(device=device, dtype=dtype, copy=copy)
    model.load_state_dict(weights, strict=False, assign=True)
    if config.tie_embeddings:
        model.head.weight = model.embedding.weight
    return model.eval()


def _require_names(wanted: set[str], source: Mapping[str, Tensor], config: ModelConfig, origin: str | Path) -> None:
    extra = {name for name in set(source) - wanted if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_embeddings and "lm_head.weight" in extra:
        # Some files repeat the embedding as the output head; a head of its own must not be dropped.
        if not torch.equal(source["lm_head.weight"], source["model.embed_tokens.weight"]):
            raise ValueError(f"{origin} has a head that differs from the embedding: set tie_word_embeddings to false.")
        extra.remove("lm_head.weight")
    problems = {"lacks": wanted - set(source), "has the unexpected": extra}
    said = [f"{verb} {_some(names)}" for verb, names in problems.items() if names]
    if said:
        raise ValueError(f"{origin} does not fit its configuration: it {' and '.join(said)}; {AGAIN}.")


def _some(names: set[str], limit: int = 4) -> str:
    shown = ", ".join(sorted(names)[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _fitting(tensor: Tensor, part: Part, shape: torch.Size, origin: str | Path) -> Tensor:
    wanted = (part.rows, *shape[1:])
    if tuple(tensor.shape) != wanted:
        fault = f"has the shape {tuple(tensor.shape)}, but its configuration says {wanted}"
        raise ValueError(f"{origin}: {part.name} {fault}; {AGAIN}.")
    if not tensor.is_floating_point():
        raise ValueError(f"{origin} holds {tensor.dtype}: quantised weights are not supported, take 16 or 32 bits.")
    return tensor


def save_weights_file(path: Path, model: CausalLM) -> None:
    """Write the weights under our own names, with the configuration in the file's metadata."""
    tensors = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    save_tensors(tensors, path, {"config": json.dumps(asdict(model.config)), "format": "pt"})


def load_weights_file(path: Path, device: torch.device, dtype: torch.dtype) -> CausalLM:
    """Read what `save_weights_file` wrote."""
    file = _open(path, RESTORE)
    try:
        config = ModelConfig(**json.loads(file.metadata()["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no configuration of ours ({error}): name its folder, or {RESTORE}.") from error
    parts = {name: [Part(name, p.shape[0])] for name, p in empty_model(config).named_parameters()}
    return build_model(config, safetensors(file), device=device, dtype=dtype, origin=path, parts=parts)


def load_hf_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[CausalLM, Tokenizer]:
    """Model and tokenizer from a Hugging Face folder."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name a folder that holds a model.")
    config = config_from_hf(read_json(path))
    source = safetensors(*map(_open, _weight_files(folder)))
    model = build_model(config, source, device=device, dtype=dtype, origin=folder)
    return model, Tokenizer.from_pretrained_folder(folder)


def _weight_files(folder: Path) -> list[Path]:
    """The folder's one safetensors file, or the shards that its index names, which may be an older model's."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / Path(name).name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    if pickled := sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".pt")):
        raise ValueError(f"{folder} has weights only as {pickled[0]}, which can run code: convert them (section 6.16).")
    raise FileNotFoundError(f"{folder} holds no model.safetensors: download or save the model again.")


def write_hf_files(model: CausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a model into an existing folder: configuration, weights (with adapters merged), tokenizer, end tokens."""
    if lora_parameters(model):
        model = merge_lora(copy.deepcopy(model).float())  # 16 bits would round most of what was learned away
    generation = {"eos_token_id": list(tokenizer.stop_ids), "pad_token_id": tokenizer.pad_id, "do_sample": False}
    config = config_to_hf(model.config, tokenizer, model.dtype)
    for name, content in {"config": config, "generation_config": generation}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    save_tensors(hf_weights(model), folder / "model.safetensors", {"format": "pt"})
    tokenizer.save(folder)


def hf_weights(model: CausalLM) -> dict[str, Tensor]:
    """The model's weights under Hugging Face names."""
    ours = dict(model.named_parameters())
    weights = {}
    for name, parts in weight_parts(model.config).items():
        pieces = ours[name].detach().split([part.rows for part in parts])
        weights |= {part.name: piece.contiguous() for part, piece in zip(parts, pieces, strict=True)}
    return weights
