"""The training loop of distillation. Taught in ch08.

    examples = build_sft_examples(rows, tokenizer)
    train, validation = split_examples(examples)
    trainer = train_distillation(model, tokenizer, train, DistillConfig(epochs=2), validation=validation)

What every training needs besides (checkpoints, metrics, guards, Ctrl-C) is in `shared.training.trainer`.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from shared.distillation.config import DistillConfig
from shared.distillation.examples import SFTExample, sft_prompt
from shared.distillation.loss import sft_loss, token_divergences
from shared.evaluation.data import with_ids
from shared.generation.completions import generate
from shared.generation.logprobs import token_logprobs
from shared.model.fingerprint import fingerprint
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM, ensure_known
from shared.training.batches import aggregate, micro_batches
from shared.training.trainer import Trainer, scheduled_rate, training_numerics

# --- batches ------------------------------------------------------------------------------------------------


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The numbers of the examples of each batch of an epoch: every example once, those of a batch of similar length.

    Sorting by length saves padding. Which examples of equal length meet, and the order of the batches, is drawn anew
    for each (seed, epoch).
    """
    rng = random.Random(f"examples-{seed}-{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    order.sort(key=lengths.__getitem__)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


def collate(
    examples: Sequence[SFTExample], pad_id: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Token ids (rows, length), padded on the right, and the mask (rows, length - 1) of `input_ids[:, 1:]`.

    The mask follows from the lengths: the pad token may be the end token, which carries loss.
    """
    rows = [torch.tensor(example.input_ids) for example in examples]
    masks = [torch.tensor(example.completion_mask) for example in examples]
    input_ids = pad_sequence(rows, batch_first=True, padding_value=pad_id)
    mask = pad_sequence(masks, batch_first=True)[:, 1:]
    return input_ids.to(device), mask.to(device)


def cut_examples(examples: Sequence[SFTExample], most_tokens: int) -> list[list[SFTExample]]:
    """Micro-batches of similar length, each of at most `most_tokens` tokens with its padding."""
    lengths = torch.tensor([len(example) for example in examples], dtype=torch.long)
    cuts = micro_batches(lengths, torch.arange(len(examples)), most_tokens)
    return [[examples[i] for i in cut.tolist()] for cut in cuts]


@torch.no_grad()
def validation_loss(
    model: CausalLM,
    examples: Sequence[SFTExample],
    pad_id: int,
    *,
    most_tokens: int = 2_048,
    precision: str = "fp32",
) -> float:
    """`sft_loss` over all these examples, `most_tokens` tokens at a time."""
    total, loss = completion_tokens(examples), 0.0
    for batch in cut_examples(examples, most_tokens):
        input_ids, mask = collate(batch, pad_id, model.device)
        with training_numerics(model, precision):
            loss += sft_loss(token_logprobs(model, input_ids, where=mask), mask, total).item()
    return loss


def completion_tokens(examples: Sequence[SFTExample]) -> int:
    """How many tokens of the examples carry loss."""
    return sum(example.completion_length for example in examples)


# --- trainer ------------------------------------------------------------------------------------------------


class DistillationTrainer(Trainer):
    """Distillation, as the config says: on a teacher's texts, on its probabilities, or on-policy.

    Args:
        model: the student; it is trained in place.
        examples: what to train on, from `build_sft_examples`.
        config: `DistillConfig()` if not given. In `trainer.config`, `steps` is the number that its epochs take.
        validation: other examples, whose loss is measured every `config.eval_every` steps.
        problems: dicts with `problem` and `answer`, on which greedy accuracy is measured then.
        teacher: the model whose probabilities are learned; needed unless `config.loss` is "hard". It must have the
            student's vocabulary.
        on_step: called with the metrics of each step.
        progress: show a bar.

    Attributes:
        history: a dict of metrics for every step: `loss` (see `config.loss`), `epoch` (from 0), `grad_norm` (before
            clipping), `learning_rate`, `tokens_per_second` (completion tokens), `seconds`, `skipped` (steps without an
            update because of numbers that were not finite, so far), `length_mean` (completion tokens an example), and
            where it was evaluated `eval_loss` and `eval_accuracy`.

    Raises ValueError if there are no examples, one is longer than the model's context or of another tokenizer, or the
    teacher does not fit.
    """

    free_settings: ClassVar = Trainer.free_settings - {"steps"}  # the learning rate falls until the last one
    shown: ClassVar = {"loss": "loss", "eval_loss": "validation", "eval_accuracy": "accuracy"}

    def __init__(
        self,
        model: CausalLM,
        tokenizer: Tokenizer,
        examples: Sequence[SFTExample],
        config: DistillConfig | None = None,
        *,
        validation: Sequence[SFTExample] | None = None,
        problems: Sequence[dict] | None = None,
        teacher: CausalLM | None = None,
        on_step: Callable[[dict], object] | None = None,
        progress: bool = True,
    ):
        config = config or DistillConfig()
        self.examples, self.validation = list(examples), list(validation or ())
        self.teacher = None if config.loss == "hard" else teacher
        _check_inputs(model, self.examples, self.validation, self.teacher, config)
        if self.teacher is not None:
            self.teacher.requires_grad_(False).eval()
        self.problems = with_ids(list(problems)[: config.eval_problems]) if problems else []
        self.lengths = [len(example) for example in self.examples]
        self.steps_per_epoch = -(-len(self.examples) // config.batch_size)
        self._batches: tuple[int, list[list[int]]] = (-1, [])  # of the current epoch
        if config.steps is None:
            config = replace(config, steps=config.epochs * self.steps_per_epoch)
        super().__init__(model, tokenizer, config, on_step=on_step, progress=progress)

    def learning_rate(self) -> float:
        """Warm-up, then a cosine to the last step."""
        config = self.config
        return scheduled_rate(
            self.step,
            peak=config.learning_rate,
            warmup=config.warmup,
            steps=config.steps,
            final=config.final_rate,
        )

    def train_step(self) -> dict[str, float]:
        """One step on one batch."""
        epoch, examples = self._batch()
        if self.config.loss == "on_policy":
            examples = self.sampled(examples)
        tokens = completion_tokens(examples)
        loss = 0.0
        for input_ids, mask in self.micro_batches(examples):
            part = self._loss(input_ids, mask, tokens)
            part.backward()
            loss += part.item()
        metrics = {"epoch": epoch, "length_mean": tokens / len(examples), "tokens": tokens}
        return metrics | self.optimizer_step({"loss": loss})

    def _batch(self) -> tuple[int, list[SFTExample]]:
        """The epoch of this step, and the examples of its batch."""
        config = self.config
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if self._batches[0] != epoch:
            self._batches = epoch, epoch_batches(self.lengths, config.batch_size, config.seed, epoch)
        return epoch, [self.examples[number] for number in self._batches[1][place]]

    def micro_batches(self, examples: Sequence[SFTExample]) -> list[tuple[Tensor, Tensor]]:
        """Token ids and masks of the examples, sorted by length."""
        cuts = cut_examples(examples, self.config.micro_batch_tokens)
        return [collate(cut, self.tokenizer.pad_id, self.model.device) for cut in cuts]

    def _loss(self, input_ids: Tensor, mask: Tensor, tokens: int) -> Tensor:
        """A micro-batch's share of the loss of a batch with so many completion tokens."""
        config = self.config
        with training_numerics(self.model, config.precision):
            if self.teacher is None:
                return sft_loss(token_logprobs(self.model, input_ids, where=mask), mask, tokens)
            divergences, logprobs = token_divergences(
                self.model, self.teacher, input_ids, where=mask, temperature=config.temperature,
                reverse=config.loss == "on_policy",
            )  # fmt: skip
        soft = config.temperature**2 * aggregate(divergences, mask, "token", tokens=tokens)
        if config.loss == "on_policy" or config.soft_weight == 1:
            return soft
        return config.soft_weight * soft + (1 - config.soft_weight) * sft_loss(logprobs, mask, tokens)

    def sampled(self, examples: Sequence[SFTExample]) -> list[SFTExample]:
        """The examples with what the student writes now instead of what the teacher wrote."""
        completions = generate(
            self.plain_model(), self.tokenizer, [example.prompt for example in examples], temperature=1.0,
            max_new_tokens=self.config.max_new_tokens, seed=self.config.seed * 1_000_000 + self.step,
        )  # fmt: skip
        return [
            replace(example, completion=written.text,
                    input_ids=example.input_ids[: example.prompt_length] + written.token_ids)
            for example, written in zip(examples, completions, strict=True)
        ]  # fmt: skip

    def validation_loss(self, examples: Sequence[SFTExample]) -> float:
        """`validation_loss` of the current model."""
        config = self.config
        return validation_loss(
            self.plain_model(), examples, self.tokenizer.pad_id, most_tokens=config.micro_batch_tokens,
            precision=config.precision,
        )  # fmt: skip

    # What the loop in `Trainer` asks for

    def evaluate(self) -> dict[str, float]:
        """The loss on the validation examples and greedy accuracy on the problems, as far as there are any."""
        config, metrics = self.config, {}
        if self.validation:
            metrics["eval_loss"] = self.validation_loss(self.validation)
        if self.problems:
            prompt = partial(sft_prompt, tokenizer=self.tokenizer, prompt_style=config.prompt_style)
            metrics["eval_accuracy"] = self.greedy_accuracy(self.problems, prompt)
        return metrics

    def learns_from(self) -> dict[str, str]:
        """Examples and teacher must be the same when a run goes on."""
        rows = [(example.input_ids, example.prompt_length) for example in self.examples]
        teacher = "" if self.teacher is None else fingerprint(self.teacher)
        digest = hashlib.sha256(f"{rows} {teacher}".encode()).hexdigest()[:16]
        return {"examples or another teacher": digest}


def _check_inputs(
    model: CausalLM,
    examples: list[SFTExample],
    validation: list[SFTExample],
    teacher: CausalLM | None,
    config: DistillConfig,
) -> None:
    if not examples:
        raise ValueError(
            "There are no examples to train on: see what build_sft_examples has left out and why."
        )
    longest, context = max(map(len, examples + validation)), model.config.context_length
    if longest > context:
        raise ValueError(
            f"The longest example has {longest} tokens, but the model's context {context}: build the examples with "
            f"max_length={context}."
        )
    ensure_known(torch.tensor([max(example.input_ids) for example in examples + validation]), model)
    if config.loss != "hard" and teacher is None:
        raise ValueError(f"The loss {config.loss!r} needs a teacher: give its model, or take 'hard'.")
    if teacher is not None and teacher.config.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"The teacher has {teacher.config.vocab_size} tokens, the student {model.config.vocab_size}: their "
            "probabilities can be compared only with one vocabulary; distil on the teacher's texts instead."
        )


def train_distillation(
    model: CausalLM,
    tokenizer: Tokenizer,
    examples: Sequence[SFTExample],
    config: DistillConfig | None = None,
    *,
    validation: Sequence[SFTExample] | None = None,
    problems: Sequence[dict] | None = None,
    teacher: CausalLM | None = None,
    on_step: Callable[[dict], object] | None = None,
    progress: bool = True,
    resume: bool = True,
) -> DistillationTrainer:
    """Distil and return the trainer: `.model` is the student, which was trained in place, `.history` the metrics.

    The arguments are those of `DistillationTrainer`, and `resume` that of `Trainer.train`, which also says what is
    raised.
    """
    trainer = DistillationTrainer(
        model, tokenizer, examples, config, validation=validation, problems=problems, teacher=teacher,
        on_step=on_step, progress=progress,
    )  # fmt: skip
    trainer.train(resume=resume)
    return trainer
