"""Models from the hub: a stub on this machine stands for it, with the faults that happen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import close_session

from shared.formats import download as downloads
from shared.formats import hub
from shared.formats.loading import load_model
from tests.hub_server import COMMIT, HubServer, checksum
from tests.small_models import hf_model, our_model, small_backend

NAME, REPO = "qwen3-0.6b-base", "Qwen/Qwen3-0.6B-Base"
WEIGHTS = "model.safetensors"
SMALL_FILES = ("config.json", "tokenizer.json")


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
    monkeypatch.setattr(downloads, "WAITS", (0.0, 0.0, 0.0))
    with HubServer(REPO, dict(files)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
    close_session()


def blob(tmp_path: Path, files: dict[str, bytes], name: str, suffix: str = "") -> Path:
    """Where the cache has the content of a file."""
    folder = tmp_path / "cache" / "models--Qwen--Qwen3-0.6B-Base" / "blobs"
    return folder / (checksum(name, files[name]) + suffix)


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
    folder = downloads.download(REPO)
    assert folder.name == COMMIT
    assert {path.name for path in folder.iterdir()} == {
        name for name in files if name.endswith((".json", ".safetensors")) and "/" not in name
    }
    assert not any("pytorch_model.bin" in path or "onnx" in path for _, path, _ in server.requests)


def test_what_is_there_is_not_fetched_again(server):
    load()
    server.requests.clear()
    assert_loaded(load())
    assert server.content("resolve") == server.content("elsewhere") == []


def test_progress_is_shown_by_file(server, capfd, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setenv("TQDM_POSITION", "-1")  # also where no terminal is
    load()
    shown = capfd.readouterr().err
    for name in (WEIGHTS, *SMALL_FILES):
        assert f"{name}: 100%" in shown, shown
    assert "Fetching" not in shown
    assert "Reconstructing" not in shown


def test_the_library_finds_what_we_fetched(server):
    """Other programs share the cache: transformers, say, need not fetch it a second time."""
    from huggingface_hub import hf_hub_download

    load()
    server.requests.clear()
    assert hf_hub_download(REPO, WEIGHTS, endpoint=server.url)
    assert server.content("elsewhere") == []


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


# --- connections that break ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_connection_that_breaks_is_resumed(server, files, name, monkeypatch):
    """It goes on from the last whole chunk; those are of ten megabytes where they are not made smaller."""
    chunk = 1000
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", chunk)
    where = "elsewhere" if name == WEIGHTS else name
    server.faults = [(where, "cut"), (where, "cut")]
    assert_loaded(load())
    first = len(files[name]) // 2 // chunk * chunk
    second = first + (len(files[name]) - first) // 2 // chunk * chunk
    assert server.content(where) == [None, f"bytes={first}-", f"bytes={second}-"]


def test_what_an_earlier_call_has_got_is_not_fetched_again(server, files, tmp_path):
    """Also after a kill: the part is in the cache, under the name of its checksum."""
    part = blob(tmp_path, files, WEIGHTS, ".incomplete")
    part.parent.mkdir(parents=True)
    part.write_bytes(files[WEIGHTS][:1000])
    assert_loaded(load())
    assert server.content("elsewhere") == ["bytes=1000-"]
    assert not part.exists()


def test_a_server_that_cannot_resume(server, files, tmp_path):
    part = blob(tmp_path, files, WEIGHTS, ".incomplete")
    part.parent.mkdir(parents=True)
    part.write_bytes(files[WEIGHTS][:1000])
    server.faults = [("elsewhere", "whole")]
    assert_loaded(load())
    assert server.content("elsewhere") == ["bytes=1000-"]


def test_a_part_that_is_too_long_is_no_part(server, files, tmp_path):
    part = blob(tmp_path, files, WEIGHTS, ".incomplete")
    part.parent.mkdir(parents=True)
    part.write_bytes(files[WEIGHTS] + b"more")
    assert_loaded(load())
    assert server.content("elsewhere") == [None]


def test_two_who_want_the_same_model_fetch_it_once(server):
    """Two notebooks, say: the second waits for the first."""
    server.faults = [("elsewhere", "slow")]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(downloads.download, [REPO, REPO]))
    assert folders[0] == folders[1]
    assert server.content("elsewhere") == [None]


@pytest.mark.slow
def test_a_killed_download_goes_on(server, files, tmp_path, root):
    """A program that is killed in the middle has left what it got; the next one asks for the rest."""
    whole = server.files[WEIGHTS] = files[WEIGHTS] + bytes(30_000_000)
    part = blob(tmp_path, server.files, WEIGHTS, ".incomplete")
    command = [
        sys.executable,
        "-c",
        f"from shared.formats.download import download; print(download({REPO!r}))",
    ]
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HUB_CACHE": str(tmp_path / "cache")}
    server.faults = [("elsewhere", "held")]
    killed = subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    got = part.stat().st_size
    assert 0 < got < len(whole)
    server.requests.clear()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert server.content("elsewhere") == [f"bytes={got}-"]
    assert (Path(done.stdout.strip()) / WEIGHTS).read_bytes() == whole


# --- what is not the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_file_of_the_right_size_with_other_content_is_refused(server, files, tmp_path, name):
    server.faults = [("elsewhere" if name == WEIGHTS else name, "garbled")]
    with pytest.raises(ConnectionError, match=rf"{name} came damaged .*checksum.* run this again"):
        load()
    assert not blob(tmp_path, files, name).exists()
    assert not blob(tmp_path, files, name, ".incomplete").exists(), "the next call starts anew"
    assert_loaded(load())


def test_a_damaged_part_is_found_out(server, files, tmp_path):
    part = blob(tmp_path, files, WEIGHTS, ".incomplete")
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    with pytest.raises(ConnectionError, match="came damaged"):
        load()
    assert_loaded(load())


def test_a_login_page_in_place_of_the_hub(server):
    server.faults = [("/api/", "login_page")] * 9
    with pytest.raises(ConnectionError, match="cannot be reached"):
        load()


# --- the hub says no ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/api/", "config.json", "elsewhere"])
@pytest.mark.parametrize("fault", ["broken", "busy"])
def test_the_hubs_own_trouble_is_waited_out(server, where, fault):
    server.faults = [(where, fault), (where, fault)]
    assert_loaded(load())
    assert server.faults == []


def test_trouble_that_lasts(server):
    server.faults = [("config.json", "busy")] * 99
    with pytest.raises(ConnectionError, match=r"trouble of its own \(status 503\).*later"):
        load()


@pytest.mark.parametrize("fault", ["no_such_model", "no_key", "gated"])
def test_a_model_that_is_not_there_or_not_for_all(server, fault):
    server.faults = [("/api/", fault)] * 9
    with pytest.raises(ValueError, match=rf"no model {REPO} that you may read.*hf auth login"):
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
    with pytest.raises(
        ConnectionError, match=r"cannot be reached.*HTTPS_PROXY.*SSL_CERT_FILE.*HF_ENDPOINT.*folder"
    ):
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


def test_a_disk_that_is_too_small(server, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=r"disk is full \(0\.0 GB are needed and 0\.0 GB are free\).*HF_HOME"):
        load()
    assert server.content("elsewhere") == [], "it is said before and not after"


def test_names_of_hub_models():
    for name in (
        "qwen3-0.6b-base",
        "qwen3-0.6b",
        "qwen3-1.7b-base",
        "qwen3-1.7b",
        "qwen3-4b-base",
        "qwen3-32b",
    ):
        assert hub.HUB_MODELS[name].lower() == f"qwen/{name}"
    assert "qwen3-32b-base" not in hub.HUB_MODELS
    assert hub.known_models()[:3] == ["tiny", "tiny-random", "tiny-teacher"]
