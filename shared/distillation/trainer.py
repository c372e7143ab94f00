"""A step of distillation, and the run of them around it. Taught in ch08, sections 8.7 and 8.8."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from shared.distillation.config import DistillConfig
from shared.distillation.examples import SFTExample, sft_prompt
from shared.distillation.loss import distillation_loss
from shared.evaluation.data import with_ids
from shared.generation.completions import generate
from shared.generation.logprobs import pad_rows
from shared.model.fingerprint import fingerprint
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM, ensure_known
from shared.training.batches import micro_batches
from shared.training.trainer import Trainer, scheduled_rate, training_numerics


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The numbers of the examples of each batch of an epoch: every example once, those of a batch of similar length.

    Which examples of equal length meet, and the order of the batches, is drawn anew for each (seed, epoch).
    """
    rng = random.Random(f"examples-{seed}-{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    order.sort(key=lengths.__getitem__)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


def collate(examples: Sequence[SFTExample], pad_id: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Token ids (rows, length), padded on the right, and the mask (rows, length - 1) of `input_ids[:, 1:]`."""
    prompts = [example.input_ids[: example.prompt_length] for example in examples]
    completions = [example.input_ids[example.prompt_length :] for example in examples]
    input_ids, mask = pad_rows(prompts, completions, pad_id)
    return input_ids.to(device), mask.to(device)


class DistillationTrainer(Trainer):
    """Distillation, as the config says: on a teacher's texts, on its probabilities, or on-policy.

    Args:
        model: the student; it is trained in place.
        examples: what to train on, from `build_sft_examples`.
        config: in `trainer.config`, `steps` is the number that its epochs take.
        validation, problems: other examples to measure the loss on, and dicts with `problem` and `answer` to measure
            greedy accuracy on, every `config.eval_every` steps.
        teacher: the model whose probabilities are learned; needed unless `config.loss` is "hard".
        options: `on_step` and `progress` of `Trainer`.

    Metrics in `history`, beside those of `Trainer`: `epoch` (from 0), `length_mean` (completion tokens an example), and
    where it was evaluated `eval_loss` and `eval_accuracy`. Taught in ch08, section 8.8.

    Raises ValueError if there are no examples, one is longer than the model's context or of another tokenizer, or the
    teacher has another vocabulary, or the problems would be asked otherwise than the examples are.
    """

    shown: ClassVar = {"loss": "loss", "eval_loss": "validation", "eval_accuracy": "accuracy"}
    free_settings: ClassVar = Trainer.free_settings - {"steps"}  # the learning rate falls until the last of them

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
        **options,
    ):
        config = config or DistillConfig()
        self.examples, self.validation = list(examples), list(validation or ())
        self.teacher = None if config.loss == "hard" else teacher
        ensure_fitting(model, self.examples, self.validation, self.teacher, config)
        if self.teacher is not None:
            self.teacher.requires_grad_(False).eval()
        self.problems = with_ids(list(problems)[: config.eval_problems]) if problems else []
        self.steps_per_epoch = -(-len(self.examples) // config.batch_size)
        self.epoch, self.batches = None, []
        if config.steps is None:
            config = replace(config, steps=config.epochs * self.steps_per_epoch)
        super().__init__(model, tokenizer, config, **options)
        if self.problems and self.ask(self.examples[0].problem) != self.examples[0].prompt:
            mend = "give the config the prompt_style and with_thinking of the examples"
            raise ValueError(f"The problems would be asked otherwise than the examples: {mend}.")

    def learning_rate(self) -> float:
        """Warm-up, then a cosine to the last step."""
        config, peak = self.config, self.config.learning_rate
        steps, final = config.steps, config.final_rate
        return scheduled_rate(self.step, peak=peak, warmup=config.warmup, steps=steps, final=final)

    def train_step(self) -> dict[str, float]:
        """One step on one batch, micro-batch by micro-batch."""
        examples = self.next_batch()
        if self.config.loss == "on_policy":
            examples = self.sampled(examples)
        tokens, loss = sum(example.completion_length for example in examples), 0.0
        for part in self.micro_batches(examples):
            part_loss = self.part_loss(self.model, part, tokens, self.teacher)
            part_loss.backward()
            loss += part_loss.item()
        metrics = {"epoch": self.epoch, "length_mean": tokens / len(examples), "tokens": tokens}
        return metrics | self.optimizer_step({"loss": loss})

    def part_loss(
        self, model: CausalLM, part: Sequence[SFTExample], tokens: int, teacher: CausalLM | None = None
    ) -> Tensor:
        """What a part of a batch with so many completion tokens adds to its loss."""
        input_ids, mask = collate(part, self.tokenizer.pad_id, model.device)
        with training_numerics(model, self.config.precision):
            return distillation_loss(model, teacher, input_ids, mask, self.config, tokens)

    def next_batch(self) -> list[SFTExample]:
        """The examples of this step."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if self.epoch != epoch:
            self.epoch = epoch
            lengths = [len(example) for example in self.examples]
            self.batches = epoch_batches(lengths, self.config.batch_size, self.config.seed, epoch)
        return [self.examples[number] for number in self.batches[place]]

    def micro_batches(self, examples: Sequence[SFTExample]) -> list[list[SFTExample]]:
        """The parts of a batch whose gradients add up, each of texts of similar length."""
        lengths = torch.tensor([len(example) for example in examples], dtype=torch.long)
        parts = micro_batches(lengths, torch.arange(len(examples)), self.config.micro_batch_tokens)
        return [[examples[number] for number in part.tolist()] for part in parts]

    def sampled(self, examples: Sequence[SFTExample]) -> list[SFTExample]:
        """The examples with what the student writes now instead of what the teacher wrote."""
        prompts, most = [example.prompt for example in examples], self.config.max_new_tokens
        sampling = {"temperature": 1.0, "seed": self.config.seed * 1_000_000 + self.step}
        written = generate(self.plain_model(), self.tokenizer, prompts, max_new_tokens=most, **sampling)
        return [
            replace(e, completion=own.text, input_ids=e.input_ids[: e.prompt_length] + own.token_ids)
            for e, own in zip(examples, written, strict=True)
        ]

    def ask(self, problem: str) -> str:
        """The prompt that the student is evaluated with."""
        return sft_prompt(problem, self.tokenizer, self.config.prompt_style, self.config.with_thinking)

    def evaluate(self) -> dict[str, float]:
        """The loss on the validation examples and greedy accuracy on the problems, as far as there are any."""
        metrics = {}
        if self.validation:
            metrics["eval_loss"] = self.validation_loss()
        if self.problems:
            metrics["eval_accuracy"] = self.greedy_accuracy(self.problems, self.ask)
        return metrics

    @torch.no_grad()
    def validation_loss(self) -> float:
        """`sft_loss` over all validation examples."""
        model, parts = self.plain_model(), self.micro_batches(self.validation)
        tokens = sum(example.completion_length for example in self.validation)
        return sum(self.part_loss(model, part, tokens).item() for part in parts)

    def learns_from(self) -> dict[str, str]:
        """Fingerprints of the texts and of the teacher."""
        rows = [(example.input_ids, example.prompt_length) for example in self.examples]
        teacher = {} if self.teacher is None else {"teacher's weights": fingerprint(self.teacher)}
        return {"examples": hashlib.sha256(f"{rows}".encode()).hexdigest()[:16]} | teacher


def ensure_fitting(
    model: CausalLM,
    examples: list[SFTExample],
    validation: list[SFTExample],
    teacher: CausalLM | None,
    config: DistillConfig,
) -> None:
    """Raises ValueError for examples or a teacher that the model cannot learn from."""
    if not examples:
        raise ValueError("There are no examples to train on: see what build_sft_examples left out and why.")
    if not all(hasattr(example, "input_ids") for example in examples + validation):
        raise ValueError("The examples are no examples: make them of the rows by build_sft_examples.")
    longest, context = max(map(len, examples + validation)), model.config.context_length
    if longest > context:
        found = f"The longest example has {longest} tokens, but the model's context {context}"
        raise ValueError(f"{found}: build the examples with max_length={context}.")
    ensure_known(torch.tensor([max(example.input_ids) for example in examples + validation]), model)
    if config.loss != "hard" and teacher is None:
        raise ValueError(f"The loss {config.loss!r} needs a teacher: give its model, or take 'hard'.")
    theirs, ours = (one.config.vocab_size for one in (teacher or model, model))
    if theirs != ours:
        found = f"The teacher has {theirs} tokens, the student {ours}: their probabilities cannot be compared"
        raise ValueError(f"{found}; distil on the teacher's texts instead.")


def train_distillation(
    model: CausalLM,
    tokenizer: Tokenizer,
    examples: Sequence[SFTExample],
    config: DistillConfig | None = None,
    *,
    resume: bool = True,
    **options,
) -> DistillationTrainer:
    """Distil and return the trainer: `.model` is the student, trained in place, `.history` the metrics.

    `options`: see `DistillationTrainer`; `resume`: see `Trainer.train`. Taught in ch08, section 8.8.
    """
    trainer = DistillationTrainer(model, tokenizer, examples, config, **options)
    trainer.train(resume=resume)
    return trainer
