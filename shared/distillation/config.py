"""The settings of distillation. Taught in ch08."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from shared.training.config import AT_LEAST_ONE, POSITIVE, TrainingConfig


@dataclass(frozen=True)
class DistillConfig(TrainingConfig):
    """How to distil. Taught in ch08.

    What is learned, `loss`:

        hard        the teacher's texts: supervised fine-tuning, `sft_loss`
        soft        `soft_weight` times the divergence from the teacher's probabilities, at `temperature`, on the same
                    texts (`soft_loss`, arXiv:1503.02531), and 1 - `soft_weight` times the hard loss
        on_policy   texts that the student samples for the examples' prompts, with at most `max_new_tokens` tokens; the
                    loss is the reverse divergence at `temperature` (arXiv:2306.13649)

    Training: `epochs` times over all examples, or just `steps` steps if that is given, `batch_size` examples a step.
    The learning rate rises over `warmup` steps and falls along a cosine to the share `final_rate` of its peak.
    Evaluations measure the loss on the validation examples, and greedy accuracy on problems asked as the examples are.

    Raises ValueError for a value out of range.
    """

    loss: str = "hard"
    _: KW_ONLY
    soft_weight: float = 1.0
    temperature: float = 1.0

    epochs: int = 2
    steps: int | None = None
    batch_size: int = 16
    warmup: int = 10
    final_rate: float = 0.0
    with_thinking: bool = True
    save_every: int = 50
    eval_every: int | None = 50

    choices: ClassVar = TrainingConfig.choices | {
        "loss": ("hard", "soft", "on_policy"),
        "prompt_style": (*TrainingConfig.choices["prompt_style"], "chat"),
    }
    rules: ClassVar = (
        *TrainingConfig.rules,
        (("epochs", "batch_size"), *AT_LEAST_ONE),
        (("temperature",), *POSITIVE),
        (("soft_weight", "final_rate"), lambda value: 0 <= value <= 1, "give a share from 0 to 1"),
        (("steps",), lambda n: n is None or n >= 0, "give a number of steps, or None for whole epochs"),
    )
