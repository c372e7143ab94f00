"""The command line for training."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import fields

import pytest

from shared.distillation import DistillConfig
from shared.distillation import __main__ as distillation
from shared.formats.loading import load_model
from shared.grpo import GRPOConfig, reward_correct, reward_format
from shared.grpo import __main__ as grpo
from shared.support.jsonl import read_jsonl, write_jsonl
from shared.training.command_line import make_config
from shared.training.trainer import Trainer
from tests.small_policy import DEFAULTS, PROBLEMS, small_policy

OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in DEFAULTS.items()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small model and problems in a folder of their own, and runs that go there."""
    from shared.formats.checkpoints import export_hf

    export_hf(*small_policy(), tmp_path / "model")
    write_jsonl(tmp_path / "problems.jsonl", PROBLEMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str) -> int:
    return grpo.main(["--model=model", "--data=problems.jsonl", *OPTIONS, *options])


def test_help_names_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit) as left:
        grpo.main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in (field.name for field in fields(GRPOConfig)):
        assert f"--{name.replace('_', '-')}" in text
    assert "default: 0.0003" in text or "default: 0.0001" in text
    assert "what the preset says" in text
    assert "DAPO" in text or "clip_low, clip_high" in text, "the settings are explained"


def test_options_become_the_config():
    options = grpo.make_parser().parse_args([
        "--preset=dapo", "--clip-high=0.3", "--no-dynamic-sampling", "--reward-weights=1,0.5",
        "--rewards=correct,format", "--eval-every=7", "--steps=9",
    ])  # fmt: skip
    config = make_config(GRPOConfig, options)
    expected = GRPOConfig(
        preset="dapo", clip_high=0.3, dynamic_sampling=False, reward_weights=(1.0, 0.5), eval_every=7, steps=9,
        out="runs/grpo",
    )  # fmt: skip
    assert config == expected
    assert options.rewards == [reward_correct, reward_format]


def test_a_run_says_where_its_results_are_and_goes_on(folder, capsys):
    assert run("--out=out/first", "--steps=2") == 0
    text = capsys.readouterr().out
    assert "2 steps done" in text
    assert "metrics.csv" in text
    assert load_model(folder / "out" / "first" / "step-000002")[0].config == small_policy()[0].config
    assert run("--out=out/first", "--steps=3") == 0
    assert [r["step"] for r in read_jsonl(folder / "out" / "first" / "metrics.jsonl")] == [1, 2, 3]
    assert run("--out=out/first", "--steps=1", "--fresh") == 0
    assert len(read_jsonl(folder / "out" / "first" / "metrics.jsonl")) == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model=nowhere", "nowhere"),
        ("--data=nowhere.jsonl", "There is no file nowhere.jsonl"),
        ("--group-size=1", "group_size is 1"),
        ("--out=a_file/run", "a_file"),
    ],
)
def test_mistakes_are_one_sentence(folder, capsys, option, message):
    (folder / "a_file").write_text("", encoding="utf-8")
    assert run(option) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_a_folder_that_cannot_be_written_to_is_told_before_the_first_step(folder, capsys, monkeypatch):
    (folder / "taken").write_text("a file", encoding="utf-8")
    monkeypatch.setattr(grpo.GRPOTrainer, "one_step", lambda self: pytest.fail("a step was taken"))
    assert run("--out", str(folder / "taken" / "run"), "--steps=1") == 1
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.skipif(os.name == "nt", reason="Windows delivers no such signal to oneself")
def test_ctrl_c_has_an_exit_status_of_its_own(folder, capsys, monkeypatch):
    append = Trainer.one_step

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        return append(self)

    monkeypatch.setattr(Trainer, "one_step", interrupted)
    assert run("--out=out") == 130
    assert (
        "stopped after step 1 of 3 and saved in out/step-000001: run the same again to go on" in capsys.readouterr().out
    )
    assert json.loads((folder / "out" / "step-000001" / "training_state.json").read_text())["step"] == 1


@pytest.mark.parametrize("option", ["--rewards=kindness", "--preset=ppo", "--steps=many"])
def test_unknown_choices_are_refused(option, capsys):
    with pytest.raises(SystemExit) as left:
        grpo.main([option])
    assert left.value.code == 2
    assert option[2:].split("=")[0] in capsys.readouterr().err


# --- distill ------------------------------------------------------------------------------------------------

SMALL = ["--batch-size=4", "--learning-rate=1e-2", "--max-new-tokens=8", "--prompt-style=direct", "--save-every=2"]


def distill(*options: str) -> int:
    return distillation.main(["rows.jsonl", "--model=model", *SMALL, *options])


@pytest.fixture
def rows(folder):
    """Solutions of the problems beside them, one of them wrong."""
    solved = [problem | {"content": f"\\boxed{{{problem['answer']}}}"} for problem in PROBLEMS]
    write_jsonl(folder / "rows.jsonl", [*solved, PROBLEMS[0] | {"content": "\\boxed{0}"}])
    return folder


def test_help_of_distill_names_every_setting(capsys):
    with pytest.raises(SystemExit) as left:
        distillation.main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in (field.name for field in fields(DistillConfig)):
        assert f"--{name.replace('_', '-')}" in text
    assert "as many as the epochs take" in text
    assert "the reverse divergence" in " ".join(text.split()), "the settings are explained"


def test_distillation_says_what_it_does_and_goes_on(rows, capsys):
    options = ["--out=out", "--epochs=1", "--validation=0.2", "--problems=problems.jsonl", "--eval-every=3"]
    assert distill(*options) == 0
    text = capsys.readouterr().out
    assert "rows.jsonl: 21 examples of 21 problems; left out: 1 wrong." in text
    assert "5 steps done" in text, "17 examples, 4 a step"
    logged = read_jsonl(rows / "out" / "metrics.jsonl")
    assert [record["step"] for record in logged if "eval_loss" in record] == [3, 5]
    assert 0 <= logged[-1]["eval_accuracy"] <= 1
    assert load_model(rows / "out" / "step-000005")[0].config == small_policy()[0].config
    assert distill(*options) == 0
    assert len(read_jsonl(rows / "out" / "metrics.jsonl")) == 5, "nothing is left to do"
    assert distill(*options, "--validation=0.4", "--steps=5") == 1
    assert "learns from other examples" in capsys.readouterr().err


@pytest.mark.parametrize("loss", ["soft", "on_policy"])
def test_distillation_from_a_teacher_s_probabilities(rows, capsys, loss):
    assert distill("--steps=2", f"--loss={loss}") == 1
    assert f"The loss '{loss}' needs a teacher" in capsys.readouterr().err
    assert distill("--steps=2", f"--loss={loss}", "--teacher=tiny", "--validation=0", "--lora-rank=2") == 0
    assert len(read_jsonl(rows / "runs" / "distill" / "metrics.jsonl")) == 2


def test_mistakes_of_distill_are_one_sentence(rows, capsys):
    write_jsonl(rows / "rows.jsonl", [PROBLEMS[0]])
    assert distill() == 1
    assert "Row 1 has no text in the field 'content'" in capsys.readouterr().err
    (rows / "rows.jsonl").unlink()
    assert distill() == 1
    assert "There is no file rows.jsonl" in capsys.readouterr().err
