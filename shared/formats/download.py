"""The files of a hub model: fetched with progress bars, resumed, checked, and with errors that say what to do.

huggingface_hub does the work, but two things are added. It goes on after a connection that broke, though not after a
program that was stopped; here the part of a file that has come stays until the next call. And it compares sizes; here
a file enters its cache only if the checksum is the hub's.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.jinja"]
WAITS = (
    1.0,
    2.0,
    4.0,
)  # seconds between the tries where the hub answers with an error of its own, such as 503


class HubFile(NamedTuple):
    """A file on the hub. `checksum` is its SHA-256 if it is large, else git's SHA-1; the cache calls it by that."""

    name: str
    size: int
    checksum: str


class DamagedDownload(ConnectionError):
    """What came is not what the hub has."""


class _NoBar(tqdm):
    """For what shows no progress because it is done in an instant."""

    def __init__(self, *arguments, **options):
        options.pop("name", None)
        super().__init__(*arguments, **options | {"disable": True})


def download(repo_id: str) -> Path:
    """The folder of a hub model. What is in the cache already is not fetched again, and serves if there is no network.

    The environment variables that huggingface_hub knows hold here too, among them HF_ENDPOINT, HF_HOME and HF_TOKEN.

    Raises ConnectionError if the hub cannot be reached or sends something else than it should, ValueError if it has no
    such model for this reader, OSError if the disk is too small.
    """
    from huggingface_hub import snapshot_download

    # Read here and not by the library, which looks once, when it is first imported.
    endpoint = os.environ.get("HF_ENDPOINT")
    options = {
        "allow_patterns": PATTERNS,
        "ignore_patterns": ["*/*"],
        "endpoint": endpoint,
        "tqdm_class": _NoBar,
    }
    try:
        _try_again(_fetch_files, repo_id, endpoint)
        return Path(_try_again(snapshot_download, repo_id, **options))
    except Exception as error:  # whatever the network library of the day raises
        explained = _explain(error, repo_id)
        if isinstance(explained, ConnectionError):
            try:
                return Path(snapshot_download(repo_id, **options, local_files_only=True))
            except OSError:
                pass  # it is not in the cache, so the first error is the one to tell
        raise explained from error


def _try_again(function: Callable, *arguments, **options):
    """The function's result; the hub's own errors are waited out a little."""
    for wait in WAITS:
        try:
            return function(*arguments, **options)
        except Exception as error:
            if not _is_overloaded(error):
                raise
            time.sleep(wait)
    return function(*arguments, **options)


def _status(error: Exception) -> int:
    """The HTTP status that the hub answered with, 0 if it did not answer."""
    return getattr(getattr(error, "response", None), "status_code", None) or 0


def _is_overloaded(error: Exception) -> bool:
    return _status(error) == 429 or _status(error) >= 500


# --- files --------------------------------------------------------------------------------------------------


def _fetch_files(repo_id: str, endpoint: str | None) -> None:
    """Bring the content of all files that are not there yet into huggingface_hub's cache."""
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.file_download import repo_folder_name

    info = HfApi(endpoint=endpoint).model_info(repo_id, files_metadata=True)
    folder = repo_folder_name(repo_id=repo_id, repo_type="model")
    cache = Path(constants.HF_HUB_CACHE)
    blobs, locks = cache / folder / "blobs", cache / ".locks" / folder
    missing = [file for file in _wanted(info) if not (blobs / file.checksum).exists()]
    for place in (blobs, locks):
        place.mkdir(parents=True, exist_ok=True)
    _check_space(blobs, missing)
    for file in missing:
        url = hf_hub_url(repo_id, file.name, revision=info.sha, endpoint=endpoint)
        _fetch(file, url, blobs / file.checksum, locks / f"{file.checksum}.lock")


def _wanted(info: "ModelInfo") -> Iterator[HubFile]:
    """The model's files of the kinds that we read; those of which a mirror tells no checksum are left out."""
    from huggingface_hub.utils import filter_repo_objects

    files = filter_repo_objects(
        info.siblings, allow_patterns=PATTERNS, ignore_patterns=["*/*"], key=lambda file: file.rfilename
    )
    for file in files:
        checksum = file.lfs.sha256 if file.lfs else file.blob_id
        if checksum and file.size is not None:
            yield HubFile(file.rfilename, file.size, checksum)


def _check_space(folder: Path, files: list[HubFile]) -> None:
    needed, free = sum(file.size for file in files), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free")


def _fetch(file: HubFile, url: str, path: Path, lock: Path) -> None:
    """Fetch one file, from where an earlier call stopped. Raises DamagedDownload if it is not what the hub has."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    part = path.with_name(f"{path.name}.incomplete")
    with WeakFileLock(lock):  # for two notebooks that want the same model
        if path.exists():
            return
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        with part.open("ab") as content:
            http_get(
                url, content, resume_size=content.tell(), headers=build_hf_headers(), expected_size=file.size,
                displayed_filename=file.name,
            )  # fmt: skip
        if _checksum(part, file) != file.checksum:
            part.unlink()
            raise DamagedDownload(
                f"{file.name} came damaged (its checksum is not the hub's) and is thrown away: run this again, or set "
                "HF_ENDPOINT to another mirror."
            )
        part.replace(path)


def _checksum(path: Path, file: HubFile) -> str:
    """SHA-256 or, where the hub's checksum is as short as git's, git's SHA-1 of the file."""
    git = len(file.checksum) == 40
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode()) if git else hashlib.sha256()
    with path.open("rb") as content:
        while piece := content.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# --- errors -------------------------------------------------------------------------------------------------


def _explain(error: Exception, repo_id: str) -> Exception:
    """The error for the reader: what went wrong, and what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    if isinstance(error, DamagedDownload):
        return error
    if isinstance(error, RepositoryNotFoundError) or _status(error) in (401, 403):
        return ValueError(
            f"The hub has no model {repo_id} that you may read: check the name, or log in with hf auth login."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return OSError(
            errno.ENOSPC,
            f"The disk is full ({error.strerror}): free some space, or set HF_HOME to a larger one, for {repo_id}.",
        )
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(
            f"{repo_id} is not in the cache and HF_HUB_OFFLINE is set: unset that, or download the model elsewhere and "
            "give its folder."
        )
    if _is_overloaded(error):
        return ConnectionError(
            f"The hub has trouble of its own (status {_status(error)}) and does not send {repo_id}: run "
            "this again later; what has come is kept."
        )
    return ConnectionError(
        f"The hub cannot be reached for {repo_id} ({type(error).__name__}): check the network or proxy (HTTPS_PROXY, "
        "and SSL_CERT_FILE if it has a certificate of its own), set HF_ENDPOINT to a mirror, or download the model "
        "elsewhere and give its folder. Run this again to go on where it stopped."
    )
