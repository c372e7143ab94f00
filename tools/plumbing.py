"""What a chapter may import from `shared/` without showing it: plumbing, each entry with its reason.

Everything else that a main notebook imports is of the subject, and the reader has written it before (`tools/shown.py`),
or, where that is said here with its reason, writes it in a later chapter.
An entry is a name with its module, or a pattern: `shared.plots.*` covers the whole folder.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

PLUMBING = {
    "shared.support.*": "files, progress bars, the machine",
    "shared.plots.*": "drawing figures",
    "shared.checks.*": "the checks of exercises",
    "shared.assets.*": "where the files of the course are",
    "shared.tiny.*": "how the tiny model and its problems were made, not how a model reasons",
    "shared.formats.*": "loading and saving; appendix D shows how",
    "shared.evaluation.data.*": "reading data sets",
    "shared.evaluation.ledger.*": "the file of results, its table and its figure",
    "shared.evaluation.results.*": "the file of an evaluation",
    "shared.model.fingerprint.*": "a mark of the weights that a file was made with",
    "shared.training.metrics_log.*": "the file of a run's figures, and its bar",
    "shared.training.run_folder.*": "the files of a run",
    "shared.training.trainer.StopRequest": "signals of the operating system",
    "shared.training.trainer.TrainingStopped": "an error with a name of its own",
    "shared.grpo.problems.*": "what a run learns from, brought into one form or refused in words",
    "shared.model.lora.*": "adapters, a way to train large models in little memory; appendix H says how",
    "shared.model.tokenizer.*": "a library's tokenizer behind one face; chapter 2 and appendix C show what it does",
    "shared.distillation.rows.*": "reading the rows of a file in any spelling",
    "shared.generation.sampling.plain_seed": "a seed in any spelling as a whole number",
    "shared.*.ensure_*": "refusing what cannot be meant, in words",
    "shared.*.config.*Config": "settings with their rules; the chapters name those that they change",
    "shared.grader.[!_]*.*": "the grader is a library of its own; chapter 3 builds a small one and says what ours adds",
}

# What a chapter uses and a later one shows, by notebook and name.
SAMPLING = "chapter 2 draws the likeliest token; drawing others is chapter 4's subject"
AHEAD = {
    ("ch02_main", "shared.generation.sampling.Sampling"): SAMPLING,
    ("ch02_main", "shared.generation.sampling.random_stream"): SAMPLING,
    ("ch02_main", "shared.generation.sampling.plain_seed"): SAMPLING,
}


def reason(name: str) -> str | None:
    """Why a name (with its module) need not be shown; None for a name of the subject."""
    return next((why for pattern, why in PLUMBING.items() if fnmatchcase(name, pattern)), None)
