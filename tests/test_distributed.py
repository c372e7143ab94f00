"""Several processes: the gradients of one, checkpoints that any number of processes can go on from."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from appendix import h_processes as processes
from shared.formats.checkpoints import list_checkpoints
from shared.formats.loading import load_model
from shared.support.jsonl import read_jsonl
from tests.small_policy import small_trainer, weights
from tests.test_distillation import small_distillation

SETTINGS = {"kl_coef": 0.1, "micro_batch_tokens": 70, "prompts_per_step": 3, "eval_every": 2, "eval_problems": 3}
WORKER = """
import os, sys
from contextlib import nullcontext
from pathlib import Path
import torch
from safetensors.torch import save_file
from appendix import h_processes as processes
from tests.small_policy import small_trainer
from tests.test_distillation import small_distillation
from tests.test_distributed import SETTINGS, distillation_gradients, first_gradients

folder = Path(sys.argv[1])
torch.manual_seed(int(os.environ["RANK"]))  # nothing may hang on a global generator
SETTINGS["kind"] = processes.SpreadGRPO
with processes.process_group() as device:
    assert torch.distributed.get_world_size() == 2
    gradients, batches = first_gradients(small_trainer(**SETTINGS))
    print(f"rank {torch.distributed.get_rank()}: {batches} micro-batches", flush=True)
    if processes.is_main():
        save_file(gradients, folder / "gradients.safetensors")
    adapters = small_trainer(lora_rank=2, steps=1, **SETTINGS)
    adapters.train()
    trainer = small_trainer(steps=4, out=str(folder / "run"), **SETTINGS)
    trainer.train()
    assert "DTensor" in type(next(trainer.model.parameters())).__name__, "the weights are spread"
    for loss in ("hard", "on_policy"):
        trainer = small_distillation(processes.SpreadDistillation, loss=loss, micro_batch_tokens=70)
        gradients = distillation_gradients(trainer)
        if processes.is_main():
            save_file(gradients, folder / f"{loss}.safetensors")
    trainer = small_distillation(processes.SpreadDistillation, out=str(folder / "distillation"), eval_every=3)
    trainer.train()
    assert "DTensor" in type(next(trainer.model.parameters())).__name__, "the weights are spread"
    options = ["--steps=1", "--prompts-per-step=2", "--group-size=2", "--max-new-tokens=8"]
    processes.process_group = lambda: nullcontext(device)  # they have met already
    status = processes.main(["grpo", *options, f"--out={folder / 'command'}"])
sys.exit(status)
"""
needs_torchrun = pytest.mark.skipif(
    not torch.distributed.is_available() or sys.platform == "win32", reason="needs torchrun and gloo"
)


def first_gradients(trainer) -> tuple[dict[str, torch.Tensor], int]:
    """The gradient of the first step, whole, and how many micro-batches this process computed for it."""
    trainer.optimizer_step = lambda metrics: metrics
    batches, _ = trainer.score(trainer.collect()[0])
    trainer.update(batches)
    named = trainer.model.named_parameters()
    return {name: processes.whole(p.grad).clone() for name, p in named}, len(batches)


def distillation_gradients(trainer) -> dict[str, torch.Tensor]:
    """The gradient of the first step, whole."""
    trainer.optimizer_step = lambda metrics: metrics
    trainer.train_step()
    return {name: processes.whole(p.grad).clone() for name, p in trainer.model.named_parameters()}


@pytest.fixture(scope="module")
def folder(root, tmp_path_factory):
    """What two processes left, which went on with a run of one, distilled, and ran the command; and what they said."""
    folder = tmp_path_factory.mktemp("two")
    small_trainer(steps=2, out=str(folder / "run"), **SETTINGS).train()
    worker = folder / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(worker), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def assert_ends_near(run, trainer, start, share: float) -> None:
    """A run's last weights differ from a trainer's by little beside what the trainer moved, in squares."""
    last, _ = load_model(list_checkpoints(run)[-1], dtype="float32")
    pairs = zip(last.parameters(), trainer.model.parameters(), strict=True)
    difference = sum((p - q).square().sum() for p, q in pairs)
    moved = sum((p - start[name]).square().sum() for name, p in trainer.model.named_parameters())
    assert difference < share * moved


@pytest.mark.slow
@needs_torchrun
def test_two_processes_give_the_gradients_of_one_and_go_on_with_its_run(folder):
    ours, count = first_gradients(small_trainer(**SETTINGS))
    theirs = load_file(folder / "gradients.safetensors")
    for name, gradient in ours.items():
        torch.testing.assert_close(theirs[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    assert count > 2

    straight = small_trainer(steps=4, **SETTINGS)
    start = weights(straight.model)
    straight.train()
    logged = read_jsonl(folder / "run" / "metrics.jsonl")
    assert [r["step"] for r in logged] == [1, 2, 3, 4], "one process writes"
    for record, expected in zip(logged, straight.history, strict=True):
        for name in ("reward_mean", "length_mean", "entropy", "kl_ref", "grad_norm", "eval_accuracy"):
            assert record.get(name) == pytest.approx(expected.get(name), abs=1e-3), name
    assert_ends_near(folder / "run", straight, start, 1e-4)


@pytest.mark.slow
@needs_torchrun
def test_two_processes_distil_as_one(folder):
    ordered = sorted(small_distillation().next_batch(), key=len)
    cut = small_distillation(micro_batch_tokens=70).micro_batches
    assert len(cut(ordered[::2])) != len(cut(ordered[1::2])), "one process has fewer micro-batches"
    for loss in ("hard", "on_policy"):
        theirs = load_file(folder / f"{loss}.safetensors")
        for name, gradient in distillation_gradients(small_distillation(loss=loss)).items():
            torch.testing.assert_close(theirs[name], gradient, atol=1e-5, rtol=1e-3, msg=f"{loss} {name}")
    straight = small_distillation(eval_every=3)
    start = weights(straight.model)
    straight.train()
    logged = read_jsonl(folder / "distillation" / "metrics.jsonl")
    assert [record["step"] for record in logged] == list(range(1, 9)), "one process writes"
    for record, expected in zip(logged, straight.history, strict=True):
        names = {"loss", "length_mean", "grad_norm", "eval_loss"}.intersection(expected)
        assert {name: record[name] for name in names} == pytest.approx(
            {name: expected[name] for name in names}, rel=1e-2
        )
    assert_ends_near(folder / "distillation", straight, start, 1e-3)


def test_shares_cover_a_list_once():
    items = list(range(7))
    shares = [processes.stretch(items, rank, 3) for rank in range(3)]
    assert [item for share in shares for item in share] == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.slow
@needs_torchrun
def test_the_command_trains_in_two_processes(folder):
    """That it can be started as a module is shown by appendix H."""
    said = (folder / "said.txt").read_text(encoding="utf-8")
    assert said.count("1 steps done.") == 1, "one process speaks"
    assert [path.name for path in list_checkpoints(folder / "command")] == ["step-000001"]


def test_a_method_that_does_not_exist_is_refused(capsys):
    assert processes.main(["sft"]) == 2
    assert "one of grpo, distillation" in capsys.readouterr().err
