"""Pre-train the tiny base model from nothing: `python -m shared.tiny.pretrain`.

Draws the corpus on the fly (no document is seen twice but by chance), trains the tokenizer on its beginning, then
the model in two phases, and writes `tiny-base.safetensors`, `tokenizer.json` and the log of losses and of greedy
accuracy by prompt and level along the way. A stopped run goes on from its last checkpoint. See the README beside this
file for what it reached.

    python -m shared.tiny.pretrain --out checkpoints/another --from-clean checkpoints/pretrain --mixed-chunks 12

repeats the second phase alone, with other settings (or another `documents.LEFT_OUT`), from where the first one ended.
"""

import argparse
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tokenizers
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from shared.formats.checkpoints import pack_optimizer, unpack_optimizer
from shared.formats.loading import load_model
from shared.formats.weights import save_tensors, save_weights_file
from shared.generation.completions import generate
from shared.generation.prompts import render_prompt
from shared.grader.grading import extract_answer, grade
from shared.model.fast import speed_up
from shared.model.tokenizer import Tokenizer
from shared.model.transformer import CausalLM
from shared.support.files import atomic_file
from shared.support.jsonl import append_jsonl, read_jsonl, write_jsonl
from shared.support.progress import print_any_text
from shared.tiny.config import TINY_CONFIG
from shared.tiny.corpus import LEVELS, generate_minimath
from shared.tiny.documents import EVEN, STEEP, Document, draw_document
from shared.training.trainer import make_optimizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VISIBLE_TOKENS = ("<think>", "</think>")
# Words stay whole, every digit and operator is a token of its own, `\boxed{` and `\frac{` are one each.
PIECES = r"\\[a-z]+\{|\}\{| ?[A-Za-z]+|[^A-Za-z]"
STATE = "state.safetensors"  # the file that a stopped run goes on from
CLEAN = "clean.safetensors"  # the same at the end of the clean phase
MIXED_FIELDS = ("mixed_chunks", "mixed_rate")  # fields of the recipe that the clean phase does not depend on
# Documents drawn, sorted by length and cut into batches together; a run resumes at chunk borders.
CHUNK = 8192


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the outcome of a run. Sizes are in tokens."""

    steep_chunks: int = 26  # the beginning of the clean phase, with more of the harder problems
    clean_chunks: int = 45
    mixed_chunks: int = 9
    batch_tokens: int = 4096
    learning_rate: float = 3e-3
    final_rate: float = 0.5  # share of the learning rate that is left at the end of the clean phase
    mixed_rate: float = 1.5e-3  # learning rate at the beginning of the mixed phase; it falls to 0
    warmup: int = 200
    weight_decay: float = 0.1
    prompt_weight: float = 0.1
    seed: int = 0
    # Prompts that the accuracy is measured with.
    styles: ClassVar[tuple[str, ...]] = ("direct", "cot", "think")

    @property
    def chunks(self) -> int:
        """Chunks of both phases."""
        return self.clean_chunks + self.mixed_chunks

    def phase(self, chunk: int) -> str:
        """The phase that a chunk belongs to: "clean" or "mixed"."""
        return "clean" if chunk < self.clean_chunks else "mixed"


# --- tokenizer ------------------------------------------------------------------------------------------------


def train_tokenizer(seed: int, documents: int = 20_000) -> tokenizers.Tokenizer:
    """Byte-level BPE on documents of both phases."""
    rng = random.Random(f"tokenizer-{seed}")
    texts = (
        d.prompt + d.completion for d in (draw_document(rng, "clean" if i % 2 else "mixed") for i in range(documents))
    )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    tags = [AddedToken(t, special=False) for t in VISIBLE_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_CONFIG.vocab_size - len(tags), special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(texts, trainer)
    backend.add_tokens(tags)
    return backend


# --- batches --------------------------------------------------------------------------------------------------


def batches(recipe: Recipe, chunk: int, tokenizer: Tokenizer) -> list[tuple[Tensor, Tensor]]:
    """The batches of one chunk: ids (rows, length) and the weight of each as a target (rows, length)."""
    rng = random.Random(f"documents-{recipe.seed}-{chunk}")
    weights = STEEP if chunk < min(recipe.steep_chunks, recipe.clean_chunks) else EVEN
    examples = _encode(
        [draw_document(rng, recipe.phase(chunk), weights) for _ in range(CHUNK)], tokenizer, recipe.prompt_weight
    )
    examples.sort(key=lambda example: len(example[0]))
    made, start = [], 0
    while start < len(examples):
        end = start
        while end < len(examples) and (end - start + 1) * len(examples[end][0]) <= recipe.batch_tokens:
            end += 1
        made.append(_pad(examples[start:end]))
        start = end
    rng.shuffle(made)
    return made


def _encode(documents: list[Document], tokenizer: Tokenizer, prompt_weight: float) -> list[tuple[list, list]]:
    prompts = tokenizer.backend.encode_batch([d.prompt for d in documents], add_special_tokens=False)
    completions = tokenizer.backend.encode_batch([d.completion for d in documents], add_special_tokens=False)
    return [
        ([*p.ids, *c.ids, tokenizer.eos_id], [prompt_weight] * len(p) + [1.0] * (len(c) + 1))
        for p, c in zip(prompts, completions, strict=True)
    ]


def _pad(examples: list[tuple[list, list]]) -> tuple[Tensor, Tensor]:
    longest = len(examples[-1][0])
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    weights = torch.zeros(len(examples), longest)
    for row, (tokens, weight) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        weights[row, : len(weight)] = torch.tensor(weight)
    return ids, weights


# --- training -------------------------------------------------------------------------------------------------


def loss_on(model: CausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of each token given those before it."""
    # For short rows the plain kernel is the faster one in bf16 (a third more tokens a second), the fused one in fp32.
    with sdpa_kernel(SDPBackend.MATH if _has_fast_bf16() else SDPBackend.FLASH_ATTENTION):
        logits = model(ids[:, :-1]).flatten(0, 1)
    losses = F.cross_entropy(logits.float(), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def learning_rate(recipe: Recipe, step: int, chunk: float) -> float:
    """Linear warm-up, then a cosine down to `final_rate` of the peak; in the mixed phase a straight line to 0.

    `chunk` is the number of chunks done, with the share of the one that is being read.
    """
    warm = min(1, (step + 1) / recipe.warmup)
    if chunk >= recipe.clean_chunks:
        return warm * recipe.mixed_rate * (recipe.chunks - chunk) / recipe.mixed_chunks
    cosine = 0.5 * (1 + math.cos(math.pi * chunk / recipe.clean_chunks))
    share = recipe.final_rate + (1 - recipe.final_rate) * cosine
    return warm * recipe.learning_rate * share


def train_chunk(
    model: CausalLM,
    tokenizer: Tokenizer,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    chunk: int,
    step: int,
    on_batch: Callable[[float], object],
) -> tuple[float, int, int]:
    """Train on one chunk; returns its mean loss, the steps done so far and the tokens seen.

    `on_batch` is told the share of the chunk that each batch is.
    """
    total, tokens = 0.0, 0
    made = batches(recipe, chunk, tokenizer)
    for index, (ids, weights) in enumerate(made):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, chunk + index / len(made))
        with torch.autocast("cpu", torch.bfloat16, enabled=_has_fast_bf16()):
            loss = loss_on(model, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step, total, tokens = step + 1, total + loss.item(), tokens + int((weights > 0).sum())
        on_batch(1 / len(made))
    return total / len(made), step, tokens


def _has_fast_bf16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def accuracy_by_level(model: CausalLM, tokenizer: Tokenizer, problems: list[dict], style: str) -> dict[str, float]:
    """Greedy accuracy on held-out problems, overall and by level."""
    model.eval()
    prompts = [render_prompt(p["problem"], style) for p in problems]
    texts = [c.text for c in generate(model, tokenizer, prompts, max_new_tokens=160)]
    right = [grade(extract_answer(t) or "", p["answer"]) for t, p in zip(texts, problems, strict=True)]
    model.train()
    present = [level for level in LEVELS if any(p["level"] == level for p in problems)]
    by_level = {str(v): [r for r, p in zip(right, problems, strict=True) if p["level"] == v] for v in present}
    return {"all": _mean(right), **{level: _mean(rows) for level, rows in by_level.items()}}


def _mean(values: list[bool]) -> float:
    return round(sum(values) / len(values), 4)


# --- files ----------------------------------------------------------------------------------------------------


def save_state(path: Path, model: CausalLM, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Write weights, optimiser moments and progress into one file, whole or not at all."""
    tensors = dict(model.named_parameters()) | pack_optimizer(optimizer)
    with atomic_file(path) as temporary:
        save_tensors(tensors, temporary, {"state": json.dumps(state)})


def load_state(path: Path, model: CausalLM, optimizer: torch.optim.Optimizer) -> dict:
    """Bring back what `save_state` wrote; returns the progress."""
    tensors = load_file(path)
    unpack_optimizer(optimizer, tensors)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["state"])


# --- the run --------------------------------------------------------------------------------------------------


def pretrain(
    folder: Path,
    recipe: Recipe,
    evaluate_every: int = 3,
    problems: int = 500,
    from_clean: Path | None = None,
    start: str | None = None,
) -> CausalLM:
    """Train the base model in `folder` from nothing, or go on with the run that is there.

    `from_clean`: the folder of another run, the clean phase of which is taken over. Raises ValueError if that run has
    another recipe, apart from its mixed phase, and FileNotFoundError if it has not come so far. `start`: a model that
    `load_model` knows, to begin with its weights and its tokenizer instead of from nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if from_clean and not (folder / STATE).exists():
        take_over_clean_phase(from_clean, folder, recipe)
    torch.manual_seed(recipe.seed)
    model, known = speed_up(CausalLM(TINY_CONFIG)), None
    if start:
        begun, known = load_model(start)
        model.load_state_dict(begun.state_dict())
    if not (folder / "tokenizer.json").exists():
        backend = known.backend if known else train_tokenizer(recipe.seed)
        with atomic_file(folder / "tokenizer.json") as temporary:
            temporary.write_text(backend.to_str(pretty=True), encoding="utf-8", newline="\n")
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    model = train_from(model, tokenizer, folder, recipe, evaluate_every, problems)
    with atomic_file(folder / "tiny-base.safetensors") as temporary:
        save_weights_file(temporary, model)
    return model


def take_over_clean_phase(source: Path, folder: Path, recipe: Recipe) -> None:
    """Begin the run in `folder` with the state, the tokenizer and the log of another run's clean phase."""
    log = [row for row in read_jsonl(source / "log.jsonl") if row["chunk"] <= recipe.clean_chunks]
    write_jsonl(folder / "log.jsonl", log)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    with atomic_file(folder / STATE) as temporary:  # last: with it, the folder holds a run
        shutil.copyfile(source / CLEAN, temporary)


def train_from(
    model: CausalLM, tokenizer: Tokenizer, folder: Path, recipe: Recipe, evaluate_every: int, problems: int
) -> CausalLM:
    """Train a model by the recipe, or go on with the run in `folder`; accuracies go into its log."""
    optimizer = make_optimizer(model, recipe.learning_rate, recipe.weight_decay)
    state = {"recipe": asdict(recipe), "chunk": 0, "step": 0, "tokens": 0, "seconds": 0.0}
    if (folder / STATE).exists():
        state = load_state(folder / STATE, model, optimizer)
        if _so_far(state["recipe"], state) != _so_far(asdict(recipe), state):
            raise ValueError(f"{folder} holds a run of another recipe: name another folder with --out.")
        state["recipe"] = asdict(recipe)
    drop_unfinished(folder, state["chunk"])
    validation = generate_minimath(problems, seed=1_000 + recipe.seed)
    with tqdm(total=recipe.chunks, initial=state["chunk"], unit="chunk", desc="pre-training") as bar:
        while state["chunk"] < recipe.chunks:
            _one_chunk(folder, model, tokenizer, optimizer, recipe, state, bar)
            if state["chunk"] % evaluate_every == 0 or state["chunk"] == recipe.chunks:
                scores = {s: accuracy_by_level(model, tokenizer, validation, s) for s in recipe.styles}
                _log(folder, {**_progress(state), "accuracy": scores, "n": problems})
                bar.write(json.dumps(scores))
            if state["chunk"] == recipe.clean_chunks and recipe.mixed_chunks:
                save_state(folder / CLEAN, model, optimizer, state)
            save_state(folder / STATE, model, optimizer, state)  # behind the log, which then lacks nothing
    return model.eval()


def drop_unfinished(folder: Path, chunk: int) -> None:
    """Remove what a killed run has logged of chunks after its last state, and the files that it was writing."""
    log = folder / "log.jsonl"
    if log.exists():
        write_jsonl(log, [row for row in read_jsonl(log) if row["chunk"] <= chunk])
    for path in folder.glob(".*.part"):
        path.unlink()


def _so_far(recipe: dict, state: dict) -> dict:
    """The part of a recipe that a run's state depends on: at the end of the clean phase, not on the mixed one."""
    later = MIXED_FIELDS if state["chunk"] <= recipe["clean_chunks"] else ()
    return {name: value for name, value in recipe.items() if name not in later}


def _one_chunk(folder, model, tokenizer, optimizer, recipe, state, bar) -> None:
    start = time.process_time()
    loss, state["step"], tokens = train_chunk(
        model, tokenizer, optimizer, recipe, state["chunk"], state["step"], bar.update
    )
    phase = recipe.phase(state["chunk"])
    state["chunk"] += 1
    state["tokens"] += tokens
    state["seconds"] += time.process_time() - start  # of the processor, so that busy neighbours do not count
    _log(folder, {**_progress(state), "phase": phase, "loss": round(loss, 4)})
    bar.set_postfix(loss=f"{loss:.3f}", tokens=f"{state['tokens'] / 1e6:.1f}M")


def _progress(state: dict) -> dict:
    return {
        "chunk": state["chunk"],
        "step": state["step"],
        "tokens": state["tokens"],
        "seconds": round(state["seconds"]),
    }


def _log(folder: Path, record: dict) -> None:
    append_jsonl(folder / "log.jsonl", [record])


def main() -> None:
    """The command line."""
    print_any_text()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("checkpoints/pretrain"), help="folder of the run")
    parser.add_argument("--clean-chunks", type=int, default=Recipe.clean_chunks, help="of the first phase")
    parser.add_argument("--mixed-chunks", type=int, default=Recipe.mixed_chunks, help="of the second phase")
    parser.add_argument("--mixed-rate", type=float, default=Recipe.mixed_rate, help="where that phase begins")
    parser.add_argument("--from-clean", type=Path, metavar="FOLDER", help="take over its first phase")
    parser.add_argument("--start", metavar="MODEL", help="begin with its weights; see also --clean-chunks 0")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="processor cores to use")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    names = ("clean_chunks", "mixed_chunks", "mixed_rate", "seed")
    recipe = Recipe(**{name: getattr(arguments, name) for name in names})
    pretrain(arguments.out, recipe, from_clean=arguments.from_clean, start=arguments.start)
    print(f"Wrote {arguments.out / 'tiny-base.safetensors'}. To ship it, copy it and tokenizer.json to shared/assets.")


if __name__ == "__main__":
    main()
