"""Models from the hub: a stub on this machine stands for it, with the faults that happen."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import close_session

from shared.formats import hub
from shared.formats.loading import load_model
from tests.hub_server import COMMIT, HubServer, checksum
from tests.small_models import hf_model, our_model, small_backend

NAME, REPO = "qwen3-0.6b-base", "Qwen/Qwen3-0.6B-Base"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The files of a small random model as transformers writes them, and some that nobody needs."""
    folder = tmp_path_factory.mktemp("model")
    hf_model("qwen3-tied").save_pretrained(folder)
    small_backend().save(str(folder / "tokenizer.json"))
    others = {"pytorch_model.bin": b"pickle", "onnx/model.json": b"{}", "README.md": b"# A model"}
    return {path.name: path.read_bytes() for path in folder.iterdir()} | others


@pytest.fixture
def server(files, tmp_path, monkeypatch):
    """The stub as the hub, with an empty cache and no waiting."""
    close_session()  # a client reads the proxies from the environment once
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    impatient = SimpleNamespace(**vars(time) | {"sleep": lambda _: None})
    monkeypatch.setattr("huggingface_hub.file_download.time", impatient)
    with HubServer(REPO, dict(files)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    close_session()


def blob(tmp_path: Path, files: dict[str, bytes], name: str) -> Path:
    """Where the cache has the content of a file."""
    return tmp_path / "cache" / "models--Qwen--Qwen3-0.6B-Base" / "blobs" / checksum(name, files[name])


def assert_loaded(model) -> None:
    """The model is the one that the stub has."""
    expected = our_model(hf_model("qwen3-tied"))
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def load():
    """The model by its name in the course, which is that of a larger one."""
    model, _ = load_model(NAME, device="cpu")
    return model


# --- what goes well -----------------------------------------------------------------------------------------


def test_a_model_comes_with_what_is_needed_and_no_more(server, files):
    assert_loaded(load())
    folder = hub.download(REPO)
    assert folder.name == COMMIT
    assert {path.name for path in folder.iterdir()} == {
        name for name in files if name.endswith((".json", ".safetensors")) and "/" not in name
    }
    assert not any("pytorch_model.bin" in path or "onnx" in path for _, path in server.requests)


def test_what_is_there_is_not_fetched_again(server):
    load()
    server.requests.clear()
    assert_loaded(load())
    assert server.fetched("resolve") == server.fetched("elsewhere") == 0


def test_progress_is_shown(server, capfd, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv("TQDM_POSITION", "-1")  # also where no terminal is
    load()
    shown = capfd.readouterr().err
    assert "100%" in shown, shown


def test_smollm2_comes_from_its_package_or_from_the_hub(server, monkeypatch, tmp_path):
    server.repo_id = "HuggingFaceTB/SmolLM2-135M-Instruct"
    monkeypatch.setattr(hub, "packaged_smollm2", lambda: None)
    assert_loaded(load_model("smollm2-135m", device="cpu")[0])
    server.requests.clear()
    packaged = tmp_path / "packaged.gguf"
    packaged.write_bytes(b"GGUF, but cut short")
    monkeypatch.setattr(hub, "packaged_smollm2", lambda: packaged)
    with pytest.raises(ValueError, match=r"packaged\.gguf"):
        load_model("smollm2-135m", device="cpu")
    assert server.requests == [], "the hub is not asked"


@pytest.mark.parametrize(("there", "found"), [(True, "model.gguf"), (False, None)])
def test_the_package_holds_the_model_in_a_gguf_file(monkeypatch, tmp_path, there, found):
    (tmp_path / "model.py").touch()
    if there:
        (tmp_path / "model.gguf").touch()
    names = ("model.py", "model.gguf")
    listed = [SimpleNamespace(suffix=Path(name).suffix, locate=lambda name=name: tmp_path / name) for name in names]
    monkeypatch.setattr(hub.importlib.metadata, "files", lambda package: listed)
    assert hub.packaged_smollm2() == (found and tmp_path / found)


def test_without_the_package_there_is_no_packaged_model(monkeypatch):
    def files(package):
        raise hub.importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(hub.importlib.metadata, "files", files)
    assert hub.packaged_smollm2() is None
    monkeypatch.setattr(hub.importlib.metadata, "files", lambda package: None)  # installed without a list of its files
    assert hub.packaged_smollm2() is None


# --- what is not the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_connection_that_breaks_is_taken_up_again(server, name):
    server.faults = [("elsewhere" if name == WEIGHTS else name, "cut")] * 2
    assert_loaded(load())
    assert server.faults == []


def test_weights_of_the_right_size_with_other_content_are_refused(server, files, tmp_path):
    server.faults = [("elsewhere", "garbled")]
    with pytest.raises(ConnectionError, match=rf"{WEIGHTS} came damaged .*checksum.* run this again"):
        load()
    assert not blob(tmp_path, files, WEIGHTS).exists(), "the next call fetches it anew"
    assert_loaded(load())


def test_a_login_page_in_place_of_the_hub(server):
    server.faults = [("/api/", "login_page")] * 9
    with pytest.raises(ConnectionError, match="cannot be reached"):
        load()


# --- the hub says no ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/api/", "config.json", "elsewhere"])
@pytest.mark.parametrize(("fault", "status"), [("broken", 500), ("busy", 503)])
def test_the_hubs_own_trouble(server, where, fault, status):
    server.faults = [(where, fault)] * 99
    with pytest.raises(ConnectionError, match=rf"trouble of its own \(status {status}\).*later"):
        load()


@pytest.mark.parametrize("fault", ["no_such_model", "no_key", "gated"])
def test_a_model_that_is_not_there_or_not_for_all(server, fault):
    server.faults = [("/api/", fault)] * 9
    with pytest.raises(ValueError, match=rf"no {REPO} that you may read.*hf auth login"):
        load()
    assert len(server.requests) == 1, "no is no"


def test_the_reader_s_key_goes_to_the_hub_and_to_nobody_else(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    load()
    assert {key for _, key in server.keys} == {"Bearer hf_secret"}
    assert any("resolve" in path for path, _ in server.keys)
    assert not any("elsewhere" in path for path, _ in server.keys)


# --- no hub at all ------------------------------------------------------------------------------------------


def test_without_the_hub_the_cache_serves(server):
    load()
    server.gone = True
    assert_loaded(load())


def test_without_the_hub_and_with_half_a_model(server, files):
    server.faults = [("elsewhere", "cut")] * 99
    with pytest.raises(ConnectionError, match="cannot be reached"):
        load()
    server.gone = True
    with pytest.raises(ConnectionError, match="cannot be reached"):
        load()
    server.gone, server.faults = False, []
    assert_loaded(load())


def test_nobody_listens(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"cannot be reached.*HTTPS_PROXY.*SSL_CERT_FILE.*HF_ENDPOINT.*folder"):
        load()


def test_a_proxy_that_refuses(server, monkeypatch):
    """The hub is there, but the way to it is shut."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    close_session()
    with pytest.raises(ConnectionError, match=r"cannot be reached.*proxy \(HTTPS_PROXY"):
        load()
    assert server.requests == []


def test_offline_mode(server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(ConnectionError, match=r"not in the cache and HF_HUB_OFFLINE is set: unset"):
        load()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    close_session()
    load()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    close_session()
    server.requests.clear()
    assert_loaded(load())
    assert server.requests == []


def test_a_disk_that_is_full(server, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(OSError, match=r"disk is full.*HF_HOME") as caught:
        load()
    assert caught.value.errno == errno.ENOSPC


def test_names_of_hub_models():
    for name in ("qwen3-0.6b-base", "qwen3-0.6b", "qwen3-1.7b-base", "qwen3-1.7b", "qwen3-4b-base", "qwen3-32b"):
        assert hub.HUB_MODELS[name].lower() == f"qwen/{name}"
    assert "qwen3-32b-base" not in hub.HUB_MODELS
    assert hub.known_models()[:4] == ["tiny", "tiny-random", "tiny-grpo", "tiny-teacher"]
