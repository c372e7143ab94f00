"""A model by one name, wherever it comes from. Taught in ch02."""

from pathlib import Path

import torch

from shared.assets import ASSETS
from shared.formats import hub
from shared.formats.gguf_format import load_gguf
from shared.formats.weights import load_hf_folder, load_weights_file
from shared.model.fast import speed_up
from shared.model.tokenizer import CHATML_TEMPLATE, Tokenizer
from shared.model.transformer import CausalLM
from shared.support.files import read_json
from shared.tiny.config import TINY_CONFIG

TINY_FILES = {name: f"{name}.safetensors" for name in ("tiny-grpo", "tiny-teacher")} | {"tiny": "tiny-base.safetensors"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str | Path = "tiny", device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[CausalLM, Tokenizer]:
    """Load a language model and its tokenizer, ready to generate (the model is in evaluation mode).

    Args:
        name: "tiny", which is part of the course, as are "tiny-random", untrained, "tiny-grpo", trained as in ch06, and
            "tiny-teacher", the larger one of ch08; a hub model such as "qwen3-0.6b-base" (all:
            `shared.formats.hub.known_models()`); or a Hugging Face folder, a checkpoint folder of ours, a .gguf file.
        device: "auto" takes a GPU if there is one ("cuda", else "mps"), else "cpu"; the tiny models stay on the CPU.
        dtype: "auto" is bfloat16 on "cuda" from compute capability 8.0 on, unless a folder's weights are float32, as
            those of a trained model; float32 elsewhere. Or "float32", "bfloat16", "float16".

    Raises ValueError for an unknown name, a damaged file or a model that is not supported, FileNotFoundError if a file
    of the model is missing, and ConnectionError or OSError (a full disk) if it cannot come from the hub.
    """
    if str(name).lower() in hub.LOCAL_MODELS and device == "auto":
        device = "cpu"  # as fast there, and the outputs in the notebooks are the same everywhere
    device = choose_device(device)
    model, tokenizer = _load(name, device, choose_dtype(dtype, device), dtype == "auto")
    return speed_up(model), tokenizer


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device by name; "auto" takes the fastest there is. Raises ValueError if it is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, available in there.items() if available))
    kind = str(device).partition(":")[0]
    if not there.get(kind):
        here = ", ".join(each for each, available in there.items() if available)
        raise ValueError(f"The device {str(device)!r} is not available here: choose auto or one of {here}.")
    return torch.device(device)


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The number format by name; "auto" depends on the device. Raises ValueError if it is not a known one."""
    if dtype == "auto":
        try:
            fast = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        except (AssertionError, RuntimeError):  # there is no such device here to ask
            fast = True
        return torch.bfloat16 if fast else torch.float32
    chosen = DTYPES.get(str(dtype).removeprefix("torch."))
    if chosen is None:
        raise ValueError(f"The dtype {dtype} is not known: choose auto or one of {', '.join(DTYPES)}.")
    return chosen


def _load(name: str | Path, device: torch.device, dtype: torch.dtype, auto: bool) -> tuple[CausalLM, Tokenizer]:
    known = str(name).lower()
    if known in hub.LOCAL_MODELS:
        return _tiny(known, device, dtype), _course_tokenizer(ASSETS / "tokenizer.json")
    path = Path(str(name)).expanduser()
    if known in hub.HUB_MODELS:
        packaged = hub.packaged_smollm2() if known == "smollm2-135m" else None
        path = packaged or hub.download(hub.HUB_MODELS[known])
    if not path.exists():
        raise hub.unknown_model(str(path))
    if path.is_dir():
        settings = read_json(path / "config.json")
        if auto and "float32" in (settings.get("dtype"), settings.get("torch_dtype")):
            dtype = torch.float32  # 16 bits would round away most of what a short training has changed
        return load_hf_folder(path, device, dtype)
    if path.suffix == ".gguf":
        return load_gguf(path, device, dtype)
    if path.suffix == ".safetensors":
        return load_weights_file(path, device, dtype), _course_tokenizer(path.with_name("tokenizer.json"))
    raise ValueError(f"{path.name} is no model file: name a folder or a .gguf file (section 6.16 converts a .pth).")


def _tiny(name: str, device: torch.device, dtype: torch.dtype) -> CausalLM:
    if name in TINY_FILES:
        return load_weights_file(ASSETS / TINY_FILES[name], device, dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CausalLM(TINY_CONFIG).to(device, dtype).eval()


def _course_tokenizer(path: Path) -> Tokenizer:
    """The tiny model's tokenizer: texts end with `<|endoftext|>`, turns of a chat with `<|im_end|>`."""
    tokenizer = Tokenizer.from_file(path, chat_template=CHATML_TEMPLATE)
    tokenizer.stop_ids += (tokenizer.token_id("<|im_end|>"),)
    return tokenizer
