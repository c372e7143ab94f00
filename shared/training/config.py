"""The settings that every training has, and what must hold for them. Taught in ch06, section 6.12."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import numpy as np

from shared.generation.prompts import INSTRUCTIONS

# Fields, what must hold for their values, and what to say if it does not.
Rule = tuple[tuple[str, ...], Callable[[Any], bool], str]

AT_LEAST_ONE: tuple[Callable[[Any], bool], str] = (lambda value: value >= 1, "it must be at least 1")
NOT_NEGATIVE = (lambda value: 0 <= value < inf, "it must not be negative or infinite")
POSITIVE = (lambda value: 0 < value < inf, "give a positive number")
NOW_AND_THEN = (lambda value: value is None or value >= 1, "give a positive number of steps, or None for never")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training needs to be told.

    Training: `steps` steps with AdamW, in micro-batches of at most `micro_batch_tokens` tokens, which change the memory
    and not the result. The learning rate is reached after `warmup` steps. `precision`: "bf16" computes in bfloat16
    over fp32 master weights. `lora_rank` 0 trains all weights. Texts that the model writes have at most
    `max_new_tokens` tokens; `prompt_style` is that of `render_prompt`. Files: `out`, a folder or None; a checkpoint
    every `save_every` steps. `eval_every`: steps between evaluations on `eval_problems` held-out problems; None never.
    `max_bad_steps`: training stops after so many steps in a row with a loss or gradient that is not finite.

    Raises ValueError for a value out of range.
    """

    steps: int = 40
    micro_batch_tokens: int = 2_048
    learning_rate: float = 1e-4
    warmup: int = 0
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    precision: str = "fp32"
    lora_rank: int = 0
    lora_alpha: float = 32.0
    max_new_tokens: int = 128
    prompt_style: str = "cot"
    seed: int = 0
    out: str | None = None
    save_every: int = 20
    eval_every: int | None = None
    eval_problems: int = 200
    max_bad_steps: int = 5

    choices: ClassVar[dict[str, tuple[str, ...]]] = {"precision": ("fp32", "bf16"), "prompt_style": tuple(INSTRUCTIONS)}
    rules: ClassVar[tuple[Rule, ...]] = (
        (("micro_batch_tokens", "max_new_tokens", "save_every", "eval_problems", "max_bad_steps"), *AT_LEAST_ONE),
        (("warmup", "weight_decay", "lora_rank"), *NOT_NEGATIVE),
        (("learning_rate", "grad_clip", "lora_alpha"), *POSITIVE),
        (("eval_every",), *NOW_AND_THEN),
    )

    def __post_init__(self) -> None:
        make_plain(self)
        for name, allowed in self.choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(allowed)}.")
        for names, holds, mend in self.rules:
            for name in names:
                if not holds(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)!r}: {mend}.")


def make_plain(config: TrainingConfig) -> None:
    """Turn paths into text, numpy's values into Python's, 2.0 into 2 for a count; refuse a value of another type."""
    hints = get_type_hints(type(config))
    for name in (field.name for field in fields(config)):
        value, hint = getattr(config, name), hints[name]
        kinds = (tuple,) if get_origin(hint) is tuple else get_args(hint) or (hint,)
        if isinstance(value, np.generic | np.ndarray):
            value = value.tolist()
        if isinstance(value, os.PathLike) or (name == "out" and isinstance(value, str) and value):
            value = str(Path(value).expanduser())
        value = tuple(value) if isinstance(value, list) and tuple in kinds else value
        if int in kinds and isinstance(value, float) and math.isfinite(value):
            if not value.is_integer():
                raise ValueError(f"{name} is {value!r}: give a whole number.")
            value = int(value)
        if not isinstance(value, (*kinds, int) if float in kinds else kinds):
            raise ValueError(f"{name} is {value!r}: give a value of the type {getattr(hint, '__name__', hint)}.")
        object.__setattr__(config, name, value)  # configs are frozen for everybody else
