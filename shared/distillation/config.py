"""The settings of distillation. Taught in ch08."""

from dataclasses import dataclass
from math import inf

from shared.generation.prompts import INSTRUCTIONS
from shared.training.settings import Rule, check_fields, make_plain

CHOICES = {
    "loss": ("hard", "soft", "on_policy"),
    "precision": ("fp32", "bf16"),
    "prompt_style": (*INSTRUCTIONS, "chat"),
}


@dataclass(frozen=True)
class DistillConfig:
    """How to distil. Taught in ch08.

    What is learned, `loss`:

        hard        the teacher's texts: supervised fine-tuning, `sft_loss`
        soft        `soft_weight` times the divergence from the teacher's probabilities, at `temperature`, on the same
                    texts (`soft_loss`, arXiv:1503.02531), and 1 - `soft_weight` times the hard loss
        on_policy   texts that the student samples for the examples' prompts, with at most `max_new_tokens` tokens; the
                    loss is the reverse divergence at `temperature` (arXiv:2306.13649)

    Training: `epochs` times over all examples, or just `steps` steps if that is given, `batch_size` examples a step, in
    micro-batches of at most `micro_batch_tokens` tokens, which change the memory and not the result. The learning rate
    rises over `warmup` steps and falls along a cosine to the share `final_rate` of its peak. `precision`: "bf16"
    computes in bfloat16 over fp32 master weights. `lora_rank` 0 trains all weights. Files: `out`, a folder or None; a
    checkpoint every `save_every` steps. `eval_every`: steps between evaluations, None never: the loss on the validation
    examples, and greedy accuracy on at most `eval_problems` held-out problems, asked in `prompt_style`, with at most
    `max_new_tokens` tokens an answer. `max_bad_steps`: training stops after so many steps in a row with a loss or
    gradient that is not finite.

    Raises ValueError for a value out of range.
    """

    loss: str = "hard"
    soft_weight: float = 1.0
    temperature: float = 1.0

    epochs: int = 2
    steps: int | None = None
    batch_size: int = 16
    micro_batch_tokens: int = 2_048
    learning_rate: float = 1e-4
    warmup: int = 10
    final_rate: float = 0.0
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    max_new_tokens: int = 128
    prompt_style: str = "cot"
    seed: int = 0
    precision: str = "fp32"
    lora_rank: int = 0
    lora_alpha: float = 32.0
    out: str | None = None
    save_every: int = 50
    eval_every: int | None = 50
    eval_problems: int = 200
    max_bad_steps: int = 5

    def __post_init__(self) -> None:
        make_plain(self)
        check_fields(self, CHOICES, RULES)


RULES: tuple[Rule, ...] = (
    (
        ("epochs", "batch_size", "micro_batch_tokens", "max_new_tokens", "save_every", "eval_problems",
         "max_bad_steps"),
        lambda value: value >= 1,
        "it must be at least 1",
    ),
    (
        ("warmup", "weight_decay", "lora_rank"),
        lambda value: 0 <= value < inf,
        "it must not be negative or infinite",
    ),
    (
        ("temperature", "learning_rate", "grad_clip", "lora_alpha"),
        lambda value: 0 < value < inf,
        "give a positive number",
    ),
    (("soft_weight", "final_rate"), lambda value: 0 <= value <= 1, "give a share from 0 to 1"),
    (("steps",), lambda value: value is None or value >= 0, "give a number of steps, or None for whole epochs"),
    (
        ("eval_every",),
        lambda value: value is None or value >= 1,
        "give a positive number of steps, or None for never",
    ),
)  # fmt: skip
