"""Loops that are disturbed on purpose, each small, and the process in which they run: `python -m tests.fault_loops`.

Importing torch takes longer than any of them. So one process imports it, reads orders from its input, a JSON object a
line, and becomes a new process for each. Linux only.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
import torch._dynamo  # which AdamW imports when the first one is made

from benchmarks import base
from shared import append_result, evaluate, generate, load_model, self_consistency
from shared.evaluation.evaluator import EvalResult
from shared.evaluation.ledger import key_of, read_ledger
from shared.support.jsonl import read_jsonl
from shared.teacher import ask_model, local
from shared.tiny import pretrain
from shared.tiny.corpus import generate_minimath
from shared.training.trainer import Trainer
from tests.small_policy import PROBLEMS, small_policy, small_trainer
from tests.teacher_server import sums
from tests.test_distillation import small_distillation

SMALL = replace(
    pretrain.TINY_CONFIG, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=16
)
FOREIGN = {"problem": "Größe: 3² = ?", "answer": "9"}
# Functions of C that change a file or a folder, or hand what was written to the system.
FILE_CALLS = {
    "open", "write", "writerow", "writerows", "flush", "close", "__exit__", "fsync", "truncate", "chmod",
    "replace", "mkdir", "rmdir", "unlink", "serialize_file", "save",
}  # fmt: skip


# --- the loops ------------------------------------------------------------------------------------------------


def digest(model: torch.nn.Module) -> str:
    """A hash of every bit of the weights."""
    found = hashlib.sha256()
    for name, weight in model.named_parameters():
        found.update(name.encode() + weight.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def timeless(records: list[dict]) -> list[dict]:
    """Records without what a clock says."""
    return [{name: value for name, value in row.items() if "second" not in name and name != "date"} for row in records]


def files_in(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(os.listdir(folder))


def trained(trainer: Trainer, out: Path) -> dict:
    """What a run of training leaves."""
    trainer.train()
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        "weights": digest(trainer.model),
        "on disk": digest(load_model(trainer.last_checkpoint(), dtype="float32")[0]),
        "history": timeless(trainer.history),
        "log": timeless(read_jsonl(out / "metrics.jsonl")),
        "csv": timeless(rows),
        "files": files_in(out),
    }


def grpo(out: Path) -> dict:
    """GRPO with a reference that is renewed and with evaluations."""
    settings = {"kl_coef": 0.1, "ref_every": 2, "eval_every": 3, "eval_problems": 3}
    return trained(small_trainer(steps=6, save_every=2, out=str(out), **settings), out)


def dapo(out: Path) -> dict:
    """The variant whose place in the problems hangs on what was sampled, on adapters."""
    settings = {"preset": "dapo", "lora_rank": 2, "inner_epochs": 2}
    return trained(small_trainer(steps=5, save_every=2, out=str(out), **settings), out)


def distillation(out: Path) -> dict:
    """On-policy distillation with its validation."""
    return trained(small_distillation(loss="on_policy", save_every=3, eval_every=4, out=str(out)), out)


def pretraining(out: Path) -> dict:
    """Four chunks of 32 documents in two phases, for a model of two layers."""
    pretrain.CHUNK, pretrain.TINY_CONFIG = 32, SMALL
    pretrain.train_tokenizer = lambda seed: load_model("tiny-random")[1].backend
    pretrain.generate = lambda *given, max_new_tokens: generate(*given, max_new_tokens=8)
    recipe = pretrain.Recipe(steep_chunks=1, clean_chunks=2, mixed_chunks=2, batch_tokens=2048, warmup=5)
    model = pretrain.pretrain(out, recipe, evaluate_every=2, problems=2)
    return {
        "weights": digest(model),
        "on disk": digest(load_model(out / "tiny-base.safetensors")[0]),
        "log": timeless(read_jsonl(out / "log.jsonl")),
        "files": files_in(out),
    }


def evaluation(out: Path) -> dict:
    """Votes on problems, kept as they come, and two measurements in a ledger."""
    os.environ["COURSE_LEDGER"] = str(out / "ledger.jsonl")
    model, tokenizer = small_policy()
    method = partial(self_consistency, num_samples=3, temperature=1.0)
    settings = {"method": method, "batch_size": 2, "max_new_tokens": 8, "seed": 3, "results": out / "run.jsonl"}
    result = evaluate(model, tokenizer, [FOREIGN, *PROBLEMS[:8]], **settings)
    for chapter, count in (("ch03", 5), ("ch04", 9)):
        if chapter not in [key_of(row)[0] for row in read_ledger()]:
            append_result(EvalResult(result.records[:count]), chapter=chapter, method="a vote – kept")
    kept = EvalResult.from_jsonl(out / "run.jsonl")
    return {
        "records": result.records,
        "kept": sorted(kept.records, key=lambda record: record["unique_id"]),
        "lines": len(read_jsonl(out / "run.jsonl")),
        "ledger": timeless(read_jsonl(out / "ledger.jsonl")),
    }


def benchmark(out: Path) -> dict:
    """Three parts of a study of the base model."""
    base.LIMIT = 8
    study = base.Study(*small_policy(), generate_minimath(6, seed=5), out / "study.jsonl")
    for style in ("direct", "cot"):
        study.greedy(style, base.all_prompts()[style])
    study.check("cot")
    return {"rows": read_jsonl(out / "study.jsonl"), "files": files_in(out)}


def teacher(out: Path) -> dict:
    """Samples of four problems and a foreign one, of which the verifier keeps some."""

    def helped(model, tokenizer, prompts, **settings):
        """What the model writes, and now and then the right answer instead."""
        made = generate(model, tokenizer, prompts, **settings)
        right = [re.sub(r".*?(\d+)\+1.*", lambda m: str(int(m[1]) + 1), prompt, flags=re.DOTALL) for prompt in prompts]
        return [
            replace(each, text=f"So é \\boxed{{{answer}}}", finish_reason="stop") if sum(each.token_ids) % 2 else each
            for each, answer in zip(made, right, strict=True)
        ]

    local.generate = helped
    path, settings = out / "data.jsonl", {"prompt": "direct", "temperature": 1.0, "max_new_tokens": 6}
    ask_model([FOREIGN, *sums(4)], path, *small_policy(), name="klein", num_samples=3, batch_size=3, **settings)
    rows = {name: read_jsonl(out / name) for name in ("data.jsonl", "data.rejected.jsonl")}
    assert all(rows.values()), "some are kept and some are not"
    by_key = {name: sorted(found, key=lambda row: (row["unique_id"], row["sample"])) for name, found in rows.items()}
    return {"rows": by_key}


LOOPS: dict[str, Callable[[Path], dict]] = {
    loop.__name__: loop for loop in (grpo, dapo, distillation, pretraining, evaluation, benchmark, teacher)
}


# --- what disturbs them ---------------------------------------------------------------------------------------


class Watch:
    """Counts places at which a process can die, and lets it die at one of them.

    anywhere    each call and return of a function, of Python or C
    file        the same for functions that change a file
    torn        each piece of text that is appended to a file, of which only a `share` arrives
    half        the same for what is written anew: a piece of text, or a file of tensors
    """

    def __init__(self, kind: str | None = None, at: int = 0, share: float = 0.0):
        self.kind, self.at, self.share = kind, at, share
        self.counts: Counter[str] = Counter()

    def reached(self, kind: str) -> bool:
        """Whether this place is the one."""
        self.counts[kind] += 1
        return kind == self.kind and self.counts[kind] == self.at

    def event(self, frame: object, event: str, function: object) -> None:
        """What `sys.setprofile` calls."""
        deadly = self.reached("anywhere")
        if event in ("c_call", "c_return") and getattr(function, "__name__", "") in FILE_CALLS:
            deadly = self.reached("file") or deadly
        if deadly:
            die()

    def begin(self) -> None:
        """Watch from now on."""
        opened, serialized = Path.open, safetensors.torch.serialize_file
        kinds = {"a": "torn", "w": "half"}

        def open_(path, mode="r", *arguments, **named):
            file = opened(path, mode, *arguments, **named)
            return Written(file, self, kinds[mode]) if mode in kinds else file

        def serialize_file(tensors, path, *arguments, **named):
            serialized(tensors, path, *arguments, **named)
            if self.reached("half"):
                os.truncate(path, int(self.share * os.path.getsize(path)))
                die()

        if self.kind in (None, *kinds.values()):
            Path.open, safetensors.torch.serialize_file = open_, serialize_file
        if self.kind not in kinds.values():
            sys.setprofile(self.event)


class Written:
    """A text file that is opened to write, and may stay unfinished."""

    def __init__(self, file, watch: Watch, kind: str):
        self.file, self.watch, self.kind = file, watch, kind

    def write(self, text: str) -> int:
        """All of the text, or a part of it and the end."""
        if text and self.watch.reached(self.kind):
            self.file.write(text[: int(self.watch.share * len(text))])
            self.file.flush()
            die()
        return self.file.write(text)

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def die() -> None:
    """As if the power of this one process were cut."""
    os.kill(os.getpid(), signal.SIGKILL)


def disturb(kill: list | None = None, count: bool = False, limit: int | None = None, nobody: bool = False) -> Watch:
    """Arrange what an order asks for: death at a place, files of at most `limit` bytes, or few rights."""
    watch = Watch(*kill or ())
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    if nobody and os.geteuid() == 0:  # whom no right stops
        os.setuid(65534)
    if kill or count:
        watch.begin()
    return watch


# --- the process ----------------------------------------------------------------------------------------------


def follow(order: dict) -> dict:
    """Run a loop, disturbed as the order says; what came of it."""
    out = Path(os.fsdecode(bytes.fromhex(order.pop("out"))))  # a locale may not know the letters
    loop, told = LOOPS[order.pop("loop")], {}
    watch = disturb(**order)
    try:
        told["outcome"] = loop(out)
    except Exception as error:
        told["error"] = {"kinds": [kind.__name__ for kind in type(error).__mro__], "text": str(error)}
    sys.setprofile(None)
    told["counts"] = watch.counts
    with suppress(OSError):
        told["largest"] = max((path.stat().st_size for path in out.rglob("*")), default=0)
    return told


def serve() -> None:
    """Follow each order in a process of its own and say how that ended."""
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(100)  # nothing hangs
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            with open(writing, "w", encoding="ascii") as pipe:
                pipe.write(json.dumps(follow(json.loads(line))))
            os._exit(0)
        os.close(writing)
        with open(reading, encoding="ascii") as pipe:
            told = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"status": status, **json.loads(told or "{}")}), flush=True)


if __name__ == "__main__":
    serve()
