"""Checkpoints: whole or not at all, resumable, and readable as ordinary model folders."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional as F

from shared.formats.checkpoints import (
    checkpoint_path,
    export_hf,
    list_checkpoints,
    load_training_state,
    pack_optimizer,
    prune_checkpoints,
    save_checkpoint,
    unpack_optimizer,
)
from shared.formats.loading import load_model
from shared.formats.weights import save_weights_file
from shared.model.fast import speed_up
from shared.support.files import atomic_file
from tests.small_models import hf_model, our_model, random_ids, small_tokenizer


@pytest.fixture(scope="module")
def model():
    return speed_up(our_model(hf_model("qwen3-tied")))  # as load_model does, for the same last bits


# --- whole or not at all ------------------------------------------------------------------------------------


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "log.json"
    with atomic_file(path) as temporary:
        temporary.write_text("1", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "1"

    def interrupted():
        with atomic_file(path) as temporary:
            temporary.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text(encoding="utf-8") == "1"
    assert os.listdir(path.parent) == ["log.json"]


def test_a_folder_appears_only_when_it_is_complete(tmp_path, model, monkeypatch):
    folder = tmp_path / "run" / "model"
    export_hf(model, small_tokenizer(), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    tokenizer = small_tokenizer()

    def fail(*_):
        assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
        raise OSError("no space left")

    monkeypatch.setattr(tokenizer, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        export_hf(model, tokenizer, folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert os.listdir(folder.parent) == ["model"], "no temporary folder is left"


def test_the_old_folder_stays_if_the_new_one_cannot_take_its_place(tmp_path, model, monkeypatch):
    folder = tmp_path / "model"
    save_checkpoint(folder, model, small_tokenizer(), {"step": 1})
    replace = os.replace

    def fails_once(source, target):
        if str(source).endswith(".part") and target == folder:
            raise PermissionError("in use")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_once)
    with pytest.raises(PermissionError, match="in use"):
        save_checkpoint(folder, model, small_tokenizer(), {"step": 2})
    assert load_training_state(folder)[0] == {"step": 1}
    assert os.listdir(tmp_path) == ["model"]


def test_a_folder_is_replaced_as_a_whole(tmp_path, model):
    folder = tmp_path / "model"
    save_checkpoint(folder, model, small_tokenizer())
    assert (folder / "training_state.json").exists()
    export_hf(model, small_tokenizer(), folder)
    assert not (folder / "training_state.json").exists()
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_files_and_folders_get_ordinary_rights(tmp_path, model):
    """Temporary folders, and files that safetensors writes, are private to their owner."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("", encoding="utf-8")
    export_hf(model, small_tokenizer(), tmp_path / "model")
    with atomic_file(tmp_path / "weights.safetensors") as temporary:
        save_weights_file(temporary, model)
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode
    for path in [*(tmp_path / "model").iterdir(), tmp_path / "weights.safetensors"]:
        assert path.stat().st_mode == (tmp_path / "plain" / "file").stat().st_mode, path.name


@pytest.mark.parametrize("entries", [["notes.txt"], ["config.json", "sub/notes.txt"]])
def test_a_folder_of_other_things_is_not_replaced(tmp_path, model, entries):
    for entry in entries:
        (tmp_path / entry).parent.mkdir(exist_ok=True)
        (tmp_path / entry).write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="holds other things than a model: name a new folder"):
        export_hf(model, small_tokenizer(), tmp_path)
    assert all((tmp_path / entry).read_text(encoding="utf-8") == "mine" for entry in entries)
    with pytest.raises(ValueError, match="is a file: name a folder"):
        export_hf(model, small_tokenizer(), tmp_path / entries[0])


# --- training goes on ---------------------------------------------------------------------------------------


def train(model, optimizer, steps):
    """Some steps on batches that come from torch's random numbers."""
    for _ in range(steps):
        ids = torch.randint(5, 320, (2, 16))
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


def make_optimizer(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    torch.manual_seed(3)
    straight = speed_up(our_model(hf_model("qwen3-tied")))
    optimizer = make_optimizer(straight)
    train(straight, optimizer, 2)
    tensors = pack_optimizer(optimizer) | {"random": torch.get_rng_state()}
    save_checkpoint(tmp_path / "half", straight, small_tokenizer(), {"step": 2}, tensors)
    train(straight, optimizer, 2)

    torch.manual_seed(999)
    resumed, _ = load_model(tmp_path / "half", device="cpu")
    state, tensors = load_training_state(tmp_path / "half")
    optimizer = make_optimizer(resumed)
    unpack_optimizer(optimizer, tensors)
    for parameter, moments in optimizer.state.items():
        assert moments["exp_avg"].stride() == parameter.stride(), "as the optimiser itself makes it"
    torch.set_rng_state(tensors["random"])
    train(resumed, optimizer, 2)
    assert state == {"step": 2}
    for (name, a), b in zip(resumed.named_parameters(), straight.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_is_an_ordinary_model_folder(tmp_path, model):
    transformers = pytest.importorskip("transformers")
    extra = {"model.norm.weight": torch.zeros(64)}
    save_checkpoint(tmp_path / "c", model, small_tokenizer(), {"note": "ä"}, extra)
    ids = random_ids(1, 12)
    with torch.no_grad():
        expected = model(ids)
        assert torch.equal(load_model(tmp_path / "c", device="cpu")[0](ids), expected), "state is no weight"
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "c")
        torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-4, rtol=0)
    assert load_training_state(tmp_path / "c")[0] == {"note": "ä"}


def test_the_loaded_model_does_not_hang_on_its_file(tmp_path, model):
    """A weight that is a window into the file would change or block when the checkpoint is written again."""
    save_checkpoint(tmp_path / "c", model, small_tokenizer())
    loaded, _ = load_model(tmp_path / "c", device="cpu")
    kept = [p.detach().clone() for p in loaded.parameters()]
    path = tmp_path / "c" / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), kept, strict=True))


def test_the_restored_optimizer_does_not_hang_on_its_file(tmp_path, model):
    """A moment that is a window into the file would keep it open, and Windows could not prune the checkpoint."""
    linear = torch.nn.Linear(4, 3)
    optimizer = make_optimizer(linear)
    linear(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c", model, small_tokenizer(), tensors=pack_optimizer(optimizer))
    restored = make_optimizer(linear)
    unpack_optimizer(restored, load_training_state(tmp_path / "c")[1])
    path = tmp_path / "c" / "training_state.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    expected, ours = pack_optimizer(optimizer), pack_optimizer(restored)
    assert expected.keys() == ours.keys()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def test_a_checkpoint_that_is_in_use_is_pruned_the_next_time(tmp_path, monkeypatch):
    for step in (1, 2, 3, 4):
        checkpoint_path(tmp_path, step).mkdir()
        (checkpoint_path(tmp_path, step) / "weights").touch()
    unlink, refused = os.unlink, []

    def refuses_once(path, **options):
        if not refused:
            refused.append(path)
            raise PermissionError("in use")
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuses_once)
    prune_checkpoints(tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000001", "step-000003", "step-000004"]
    prune_checkpoints(tmp_path)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000003", "step-000004"]


def test_old_checkpoints_are_pruned_by_number(tmp_path):
    for step in (5, 40, 999_999, 1_000_000):
        checkpoint_path(tmp_path, step).mkdir()
    (tmp_path / "step-notes").mkdir()
    (tmp_path / ".step-000041.x.part").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)][-1] == "step-1000000"
    prune_checkpoints(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["step-1000000", "step-999999", "step-notes"]
    prune_checkpoints(tmp_path, keep=1)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, 1_000_000)]
    with pytest.raises(ValueError, match="keep is 0: give at least 1"):
        prune_checkpoints(tmp_path, keep=0)
    assert list_checkpoints(tmp_path / "nowhere") == []


def test_a_folder_without_training_state(tmp_path, model):
    export_hf(model, small_tokenizer(), tmp_path / "m")
    with pytest.raises(ValueError, match="no checkpoint to go on from"):
        load_training_state(tmp_path / "m")
    (tmp_path / "m" / "training_state.json").write_text("{}", encoding="utf-8")
    (tmp_path / "m" / "training_state.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="name another, or start anew"):
        load_training_state(tmp_path / "m")
