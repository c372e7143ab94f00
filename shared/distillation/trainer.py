"""A step of distillation, and the run of them around it. Taught in ch08, sections 8.7 and 8.8."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
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


def cut_examples(examples: Sequence[SFTExample], most_tokens: int) -> list[list[SFTExample]]:
    """Micro-batches of similar length, of at most `most_tokens` tokens with padding."""
    lengths = torch.tensor([len(example) for example in examples], dtype=torch.long)
    parts = micro_batches(lengths, torch.arange(len(examples)), most_tokens)
    return [[examples[number] for number in part.tolist()] for part in parts]


def completion_tokens(examples: Sequence[SFTExample]) -> int:
    """How many tokens of these examples carry loss."""
    return sum(example.completion_length for example in examples)


class DistillationTrainer(Trainer):
    """Distillation, as the config says: on a teacher's texts, on its probabilities, or on-policy.

    Taught in ch08, section 8.8.

    Args:
        model: the student; it is trained in place.
        examples: what to train on, from `build_sft_examples`.
        config: in `trainer.config`, `steps` is the number that its epochs take.
        validation, problems: other examples, and dicts with `problem` and `answer`: every `config.eval_every` steps
            the loss on the former and greedy accuracy on the latter are measured.
        teacher: the model whose probabilities are learned; needed unless `config.loss` is "hard".
        options: `on_step` and `progress` of `Trainer`.

    Metrics of a step in `history`, beside those of `Trainer`: `epoch` (from 0), `length_mean` (completion tokens an
    example), and where it was evaluated `eval_loss` and `eval_accuracy`.

    Raises ValueError if there are no examples, one is longer than the model's context or of another tokenizer, or the
    teacher has another vocabulary.
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
        self.lengths = [len(example) for example in self.examples]
        self.steps_per_epoch = -(-len(self.examples) // config.batch_size)
        self.epoch, self.batches = None, []
        if config.steps is None:
            config = replace(config, steps=config.epochs * self.steps_per_epoch)
        super().__init__(model, tokenizer, config, **options)

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
        tokens, loss = completion_tokens(examples), 0.0
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
            self.batches = epoch_batches(self.lengths, self.config.batch_size, self.config.seed, epoch)
        return [self.examples[number] for number in self.batches[place]]

    def micro_batches(self, examples: Sequence[SFTExample]) -> list[list[SFTExample]]:
        """The parts of a batch whose gradients add up."""
        return cut_examples(examples, self.config.micro_batch_tokens)

    def sampled(self, examples: Sequence[SFTExample]) -> list[SFTExample]:
        """The examples with what the student writes now instead of what the teacher wrote."""
        prompts, seed = [example.prompt for example in examples], self.config.seed * 1_000_000 + self.step
        most = self.config.max_new_tokens
        completions = generate(
            self.plain_model(), self.tokenizer, prompts, temperature=1.0, max_new_tokens=most, seed=seed
        )
        texts = []
        for example, completion in zip(examples, completions, strict=True):
            ids = example.input_ids[: example.prompt_length] + completion.token_ids
            texts.append(replace(example, completion=completion.text, input_ids=ids))
        return texts

    def evaluate(self) -> dict[str, float]:
        """The loss on the validation examples and greedy accuracy on the problems, as far as there are any."""
        metrics = {}
        if self.validation:
            metrics["eval_loss"] = self.validation_loss()
        if self.problems:
            prompt = partial(sft_prompt, tokenizer=self.tokenizer, prompt_style=self.config.prompt_style)
            metrics["eval_accuracy"] = self.greedy_accuracy(self.problems, prompt)
        return metrics

    @torch.no_grad()
    def validation_loss(self) -> float:
        """`sft_loss` over all validation examples."""
        model, tokens = self.plain_model(), completion_tokens(self.validation)
        parts = self.micro_batches(self.validation)
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
    longest, context = max(map(len, examples + validation)), model.config.context_length
    if longest > context:
        raise ValueError(
            f"The longest example has {longest} tokens, but the model's context {context}: build the examples with "
            f"max_length={context}."
        )
    ensure_known(torch.tensor([max(example.input_ids) for example in examples + validation]), model)
    if config.loss != "hard" and teacher is None:
        raise ValueError(f"The loss {config.loss!r} needs a teacher: give its model, or take 'hard'.")
    theirs, ours = (one.config.vocab_size for one in (teacher or model, model))
    if theirs != ours:
        raise ValueError(
            f"The teacher has {theirs} tokens, the student {ours}: their probabilities can be compared only with one "
            "vocabulary; distil on the teacher's texts instead."
        )


def train_distillation(
    model: CausalLM,
    tokenizer: Tokenizer,
    examples: Sequence[SFTExample],
    config: DistillConfig | None = None,
    *,
    resume: bool = True,
    **options,
) -> DistillationTrainer:
    """Distil and return the trainer: `.model` is the student, which was trained in place, `.history` the metrics.

    `options` are the other arguments of `DistillationTrainer`, `resume` is that of `Trainer.train`. Taught in ch08,
    section 8.8.
    """
    trainer = DistillationTrainer(model, tokenizer, examples, config, **options)
    trainer.train(resume=resume)
    return trainer
