"""The settings of trainings: whatever spelling of a value a reader uses, a checkpoint can hold it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from shared.distillation import DistillConfig
from shared.grpo import GRPOConfig

CONFIGS = [GRPOConfig, DistillConfig]


@pytest.mark.parametrize("make", CONFIGS)
def test_paths_and_numbers_of_numpy_become_plain_values(make):
    config = make(
        out=Path("runs") / "one", seed=np.int64(1), learning_rate=np.float32(0.5), steps=3.0, lora_rank=np.float64(2)
    )
    assert (config.out, config.seed, config.learning_rate, config.steps) == (str(Path("runs/one")), 1, 0.5, 3)
    assert [type(getattr(config, name)) for name in ("steps", "seed", "lora_rank")] == [int] * 3
    assert json.loads(json.dumps(asdict(config)))["out"] == config.out


@pytest.mark.parametrize("make", CONFIGS)
def test_the_tilde_is_the_home_folder(make):
    assert make(out="~/runs").out == str(Path.home() / "runs")
    assert make(out=None).out is None


@pytest.mark.parametrize("make", CONFIGS)
@pytest.mark.parametrize("name", ["steps", "lora_rank", "save_every", "eval_every"])
def test_a_count_is_a_whole_number(make, name):
    with pytest.raises(ValueError, match=rf"{name} is 2\.5: give a whole number\."):
        make(**{name: 2.5})
