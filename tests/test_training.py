"""The training loop itself, on a small language model: resuming, guards, the log, Ctrl-C."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from shared.formats.checkpoints import list_checkpoints
from shared.formats.loading import load_model
from shared.support.jsonl import read_jsonl
from shared.training.config import TrainingConfig
from shared.training.metrics_log import MetricsLog
from shared.training.trainer import StopRequest, Trainer, TrainingStopped, scheduled_rate
from tests.small_policy import assert_same_weights, small_policy, weights


@dataclass(frozen=True, kw_only=True)
class Settings(TrainingConfig):
    steps: int = 6
    learning_rate: float = 1e-2
    warmup: int = 2
    weight_decay: float = 0.1
    lora_alpha: float = 8.0
    save_every: int = 2
    max_bad_steps: int = 3


class NextToken(Trainer):
    """Learns random tokens, others in every step."""

    spoil = frozenset()  # steps, from 0, whose loss is not finite

    def train_step(self):
        ids = torch.randint(5, 500, (2, 12), generator=torch.Generator().manual_seed(self.step))
        loss = F.cross_entropy(self.model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        if self.step in self.spoil:
            loss = loss * float("nan")
        loss.backward()
        return self.optimizer_step({"tokens": 24, "loss": loss.item()})

    def evaluate(self):
        return {"eval_loss": 1.0}


def make(on_step=None, kind=NextToken, **settings):
    return kind(*small_policy(), Settings(**settings), on_step=on_step, progress=False)


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_after(step):
    def on_step(metrics):
        if metrics["step"] == step:
            raise Killed

    return on_step


# --- going on -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"lora_rank": 2}], ids=["full", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, settings):
    straight = make(**settings)
    straight.train()
    out = {"out": str(tmp_path), **settings}
    for step in (3, 4, 5):  # the checkpoints are of steps 2 and 4
        with pytest.raises(Killed):
            make(kill_after(step), **out).train()
    resumed = make(**out)
    history = resumed.train()
    assert_same_weights(straight.model, resumed.model)
    assert resumed.step == 6
    assert [record["step"] for record in history] == [1, 2, 3, 4, 5, 6]
    assert [record["loss"] for record in history] == [record["loss"] for record in straight.history]


def test_the_last_checkpoint_is_a_model_that_loads(tmp_path):
    trainer = make(out=str(tmp_path), lora_rank=2)
    trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000004", "step-000006"]
    loaded, _ = load_model(trainer.last_checkpoint())
    ids = torch.arange(10, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids), trainer.model(ids), atol=1e-5, rtol=0)


def test_a_finished_run_is_loaded_and_can_be_made_longer(tmp_path):
    make(out=str(tmp_path), steps=4).train()
    done = make(out=str(tmp_path), steps=4)
    assert len(done.train()) == 4
    longer, straight = make(out=str(tmp_path)), make()
    longer.train()
    straight.train()
    assert_same_weights(longer.model, straight.model)


def test_starting_anew_removes_the_old_run(tmp_path):
    make(out=str(tmp_path)).train()
    again = make(out=str(tmp_path), steps=3, learning_rate=1e-3)
    assert [record["step"] for record in again.train(resume=False)] == [1, 2, 3]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002", "step-000003"]
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 3


def test_other_settings_make_another_run(tmp_path):
    make(out=str(tmp_path), steps=2).train()
    with pytest.raises(ValueError, match=r"other settings \(learning_rate 0.01, not 0.5\): give those, name another"):
        make(out=str(tmp_path), learning_rate=0.5).train()
    make(out=str(tmp_path), save_every=3, eval_every=1).train()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("training_state.json", {}),
        ("training_state.safetensors", {}),
        ("model.safetensors", {}),
        ("config.json", {}),
        ("training_state.safetensors", {"lora_rank": 2}),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_older_one_to_go_on_from(tmp_path, name, settings):
    straight, out = make(**settings), {"out": str(tmp_path), **settings}
    straight.train()
    make(**out, steps=5).train()
    newest = tmp_path / "step-000005" / name
    newest.write_bytes(newest.read_bytes()[:20])
    with pytest.raises(
        ValueError, match=r"To go on from step-000004, delete the folder .*step-000005, which cannot be read\.$"
    ):
        make(**out).train()
    shutil.rmtree(newest.parent)
    resumed = make(**out)
    resumed.train()
    assert_same_weights(straight.model, resumed.model)
    assert [record["step"] for record in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_where_the_only_checkpoint_is_damaged_the_mend_is_to_start_anew(tmp_path):
    make(out=str(tmp_path), steps=2).train()
    (tmp_path / "step-000002" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"To start anew, delete the folder .*step-000002"):
        make(out=str(tmp_path)).train()


def test_adapters_need_the_base_model_they_were_trained_on(tmp_path):
    make(out=str(tmp_path), steps=2, lora_rank=2).train()
    other = NextToken(*small_policy(seed=1), Settings(out=str(tmp_path), lora_rank=2), progress=False)
    with pytest.raises(ValueError, match="began with another model, which it still needs"):
        other.train()


def test_a_model_of_another_shape_makes_another_run(tmp_path):
    make(out=str(tmp_path), steps=2).train()
    model, tokenizer = small_policy()
    model.blocks = model.blocks[:1]
    model.config = replace(model.config, num_layers=1)
    other = NextToken(model, tokenizer, Settings(out=str(tmp_path)), progress=False)
    with pytest.raises(ValueError, match="trains a model of another shape: load that one, or name another folder"):
        other.train()


def test_starting_anew_does_not_read_the_old_log(tmp_path):
    make(out=str(tmp_path), steps=2).train()
    (tmp_path / "metrics.jsonl").write_text("{}\nno record\n{}\n", encoding="utf-8")
    assert len(make(out=str(tmp_path), steps=2).train(resume=False)) == 2
    assert len(read_jsonl(tmp_path / "metrics.jsonl")) == 2


def test_without_a_folder_nothing_is_written_and_train_goes_on_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = make(kill_after(3))
    with pytest.raises(Killed):
        trainer.train()
    trainer.on_step = None
    assert len(trainer.train()) == 6
    straight = make()
    straight.train()
    assert_same_weights(trainer.model, straight.model)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="make a new one of a fresh model"):
        trainer.train(resume=False)


def test_an_interrupted_step_leaves_no_gradient_behind():
    class Interrupted(NextToken):
        steps_tried = 0

        def optimizer_step(self, metrics):
            self.steps_tried += 1
            if self.steps_tried == 4:
                raise KeyboardInterrupt  # the gradient is there, the step is not taken
            return super().optimizer_step(metrics)

    trainer, straight = make(kind=Interrupted), make()
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train()
    straight.train()
    assert_same_weights(trainer.model, straight.model)


# --- guards -------------------------------------------------------------------------------------------------


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    class Spoilt(NextToken):
        spoil = frozenset({2, 4})

    trainer, seen = make(kind=Spoilt), []
    trainer.on_step = lambda metrics: seen.append(weights(trainer.model))
    history = trainer.train()
    assert [record["skipped"] for record in history] == [0, 0, 1, 1, 2, 2]
    changed = [any(not torch.equal(a[name], b[name]) for name in a) for a, b in itertools.pairwise(seen)]
    assert changed == [True, False, True, False, True]
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_a_gradient_that_is_not_finite_is_enough():
    class Spoilt(NextToken):
        def optimizer_step(self, metrics):
            if self.step == 1:
                next(self.model.parameters()).grad[0, 0] = float("inf")
            return super().optimizer_step(metrics)

    trainer = make(kind=Spoilt)
    assert trainer.train()[-1]["skipped"] == 1
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_several_bad_steps_in_a_row_stop_training(tmp_path):
    class Spoilt(NextToken):
        spoil = frozenset({1, 3, 4, 5})

    trainer = make(kind=Spoilt, out=str(tmp_path), save_every=1)
    with pytest.raises(TrainingStopped, match=r"3 steps in a row, before step 6: .*checkpoint is .*step-000005"):
        trainer.train()
    with pytest.raises(TrainingStopped, match="nothing was saved, since out is not set"):
        make(kind=Spoilt).train()
    with pytest.raises(TrainingStopped, match="3 steps in a row"):
        make(kind=Spoilt, out=str(tmp_path), save_every=1).train()  # the count goes on too


def test_gradients_are_clipped_to_the_length_asked_for():
    before = small_policy()[0]
    trainer = make(steps=1, grad_clip=1e-9, warmup=0, weight_decay=0.0, learning_rate=1.0)
    assert trainer.train()[0]["grad_norm"] > 0.1, "the length before clipping is shown"
    moved = max((a - b).abs().max() for a, b in zip(trainer.model.parameters(), before.parameters(), strict=True))
    assert moved < 0.2, "AdamW's eps is larger than such a gradient"


def test_adamw_does_not_decay_the_norms():
    trainer = make()
    matrices, vectors = trainer.optimizer.param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in matrices["params"]} == {2}
    assert {p.ndim for p in vectors["params"]} == {1}


def test_a_learning_rate_that_warms_up_and_falls():
    assert [scheduled_rate(s, peak=1.0, warmup=4) for s in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = [scheduled_rate(s, peak=2.0, warmup=2, steps=6, final=0.5) for s in range(7)]
    assert cosine == pytest.approx([1, 2, 2, 1.853553, 1.5, 1.146447, 1])
    assert [r["learning_rate"] for r in make(steps=3).train()] == [0.005, 0.01, 0.01]


# --- the log ------------------------------------------------------------------------------------------------


def test_the_log_is_both_files_and_has_no_line_twice(tmp_path):
    with pytest.raises(Killed):
        make(kill_after(5), out=str(tmp_path), eval_every=3).train()
    assert [r["step"] for r in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # the process was killed while it wrote
    history = make(out=str(tmp_path), eval_every=3).train()
    logged = read_jsonl(tmp_path / "metrics.jsonl")
    assert logged == history
    assert [r["step"] for r in logged] == [1, 2, 3, 4, 5, 6]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["eval_loss"] for row in rows] == ["", "", "1.0", "", "", "1.0"]
    assert float(rows[3]["loss"]) == logged[3]["loss"]
    assert {"tokens_per_second", "seconds", "grad_norm", "learning_rate"} <= set(rows[0])


def test_the_csv_gets_a_column_that_comes_later(tmp_path):
    log = MetricsLog(tmp_path)
    log.append({"step": 1, "a": 0.5})
    log.append({"step": 2, "a": float("nan"), "b": 2.0})
    log.append({"step": 3, "a": 1.0})
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "1,0.5,", "2,,2.0", "3,1.0,"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])["a"] is None, "NaN is no JSON"
    assert log.cut(1) == [{"step": 1, "a": 0.5}]
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a", "1,0.5"]


def test_two_runs_in_one_folder_are_told(tmp_path):
    log = MetricsLog(tmp_path)
    log.append({"step": 1})
    MetricsLog(tmp_path).append({"step": 1})
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"Another run has changed .*metrics\.jsonl: give each a folder of its own"
        ):
            log.append({"step": 2})
    assert [record["step"] for record in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 1]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / ".step_1.part").mkdir()
    (tmp_path / ".step_1.part" / "model.safetensors").touch()
    (tmp_path / ".metrics.csv.part").touch()
    (tmp_path / "notes.part").touch()
    MetricsLog(tmp_path).cut(0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.part"]


# --- Ctrl-C -------------------------------------------------------------------------------------------------


def interrupt_after(step, times=1):
    def on_step(metrics):
        if metrics["step"] == step:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    return on_step


@pytest.mark.skipif(os.name == "nt", reason="Windows delivers no such signal to oneself")
def locked(monkeypatch, name):
    """A file that another program holds open, as Windows does it."""
    opened, replaced = Path.open, os.replace

    def open_(path, mode="r", *arguments, **named):
        if path.name == name and mode != "rb":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *arguments, **named)

    def replace_(old, new):
        if Path(new).name == name:
            raise PermissionError(13, "Permission denied", str(new))
        return replaced(old, new)

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.setattr(os, "replace", replace_)


def test_a_locked_csv_ends_no_training_and_loses_no_row(tmp_path, monkeypatch):
    """A reader looks at it in Excel from step 3 to step 5."""

    def on_step(metrics):
        if metrics["step"] == 2:
            locked(monkeypatch, "metrics.csv")
        if metrics["step"] == 5:
            monkeypatch.undo()

    make(on_step, steps=6, eval_every=4, out=tmp_path).train()
    assert [r["step"] for r in read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [row["eval_loss"] for row in rows] == ["", "", "", "1.0", "", "1.0"]


def test_a_run_goes_on_while_its_csv_is_locked(tmp_path, monkeypatch):
    make(steps=2, out=tmp_path).train()
    with monkeypatch.context() as patch:
        locked(patch, "metrics.csv")
        make(steps=4, out=tmp_path).train()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3
    make(steps=5, out=tmp_path).train()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 6


def test_a_log_that_can_never_be_written_ends_training_at_once(tmp_path, monkeypatch):
    locked(monkeypatch, "metrics.jsonl")
    with pytest.raises(PermissionError):
        make(steps=4, out=tmp_path).train()
    assert not list_checkpoints(tmp_path)


def test_signal_handlers_are_put_back_and_those_of_c_code_are_left_alone(monkeypatch):
    """Python cannot name a handler that C code has installed (None), nor install it again."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequest():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    install, installed = signal.signal, []

    def strict(number, handler):
        installed.append(number)
        return install(number, handler)  # a TypeError for None

    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGTERM else before[0])
    monkeypatch.setattr(signal, "signal", strict)
    with StopRequest() as stop:
        assert not stop.asked()
    assert set(installed) == {signal.SIGINT}


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, capsys):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 3 of 6 and saved in .*step-000003: run the same"):
        make(interrupt_after(3), out=str(tmp_path)).train()
    assert "Stopping after this step" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is handler
    resumed, straight = make(out=str(tmp_path)), make()
    resumed.train()
    straight.train()
    assert_same_weights(resumed.model, straight.model)


@pytest.mark.skipif(os.name == "nt", reason="Windows delivers no such signal to oneself")
def test_a_second_ctrl_c_stops_at_once():
    trainer = make(interrupt_after(3, times=2))
    with pytest.raises(KeyboardInterrupt) as stopped:
        trainer.train()
    assert str(stopped.value) == ""
    with pytest.raises(KeyboardInterrupt, match=r"call train\(\) again to go on. Nothing was saved"):
        make(interrupt_after(2)).train()


def test_the_mode_of_the_model_is_as_before():
    """Trap G16."""
    trainer = make()
    assert not trainer.model.training
    trainer.on_step = lambda metrics: modes.append(trainer.model.training)
    modes = []
    trainer.train()
    assert modes == [True] * 6
    assert not trainer.model.training


def test_16_bit_weights_become_fp32_for_training():
    """Trap G17: in bfloat16 a step of a typical size is rounded away; the master weights are in fp32."""
    model, tokenizer = small_policy()
    model.bfloat16()
    before = weights(model)
    config = Settings(steps=1, warmup=0, weight_decay=0.0, learning_rate=1e-6)
    trainer = NextToken(model, tokenizer, config, progress=False)
    trainer.train()
    after = weights(trainer.model)
    assert trainer.model.dtype == torch.float32
    moved = torch.cat([(after[name] != before[name].float()).flatten() for name in before])
    kept_in_bf16 = torch.cat([(after[name].bfloat16() != before[name]).flatten() for name in before])
    assert moved.float().mean() > 0.5
    assert kept_in_bf16.float().mean() < 0.1, "the trap: in 16 bits nearly all of the step would be lost"
