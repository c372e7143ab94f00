"""The problem sets of the course, all with the same fields. Taught in ch03, section 3.8.

A problem is a dict with `problem`, `solution`, `answer`, `subject` (text), `level` (an int, 1 to 5; 0 if it is not
known) and `unique_id`. MiniMath is part of the repository; the sets of real problems come from the hub, or from a
file that you give.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from shared.assets import ASSETS, SPLITS
from shared.formats.hub import explain
from shared.grader.grading import extract_answer, is_answer
from shared.support.jsonl import read_jsonl, read_utf8

FIELDS = ("problem", "solution", "answer", "subject", "level", "unique_id")


def load_minimath(split: str = "test") -> list[dict]:
    """MiniMath, the course's own problems: "test" (1,000, held out) or "train" (12,000).

    No problem's text is in both. `shared.tiny.corpus.generate_minimath` draws more of them from any seed.
    Raises ValueError if there is no such split or its file is damaged, FileNotFoundError if its file is missing.
    """
    if split not in SPLITS:
        raise ValueError(f"MiniMath has no split {split!r}: use 'test' or 'train'.")
    path = ASSETS / f"minimath_{split}.jsonl"
    restore = "restore it with git checkout -- shared/assets, or run python -m shared.tiny.build_data"
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is missing: {restore}.")
    problems = load_problems(path)
    if len(problems) != SPLITS[split]["n"]:
        raise ValueError(f"{path.name} holds {len(problems)} problems, not {SPLITS[split]['n']}: {restore}.")
    return problems


def load_math500(path: Path | str | None = None) -> list[dict]:
    """MATH-500: 500 test problems of the MATH data set (arXiv:2103.03874), selected in arXiv:2305.20050.

    From the hub, or from `path`, a JSON or JSON Lines file. Raises as `load_problems` does, and ConnectionError if
    the hub cannot be reached.
    """
    return load_problems(path or _from_hub("HuggingFaceH4/MATH-500", "test.jsonl", "load_math500(path)"))


def load_math_train(path: Path | str | None = None) -> list[dict]:
    """The 12,000 problems of MATH (arXiv:2103.03874) that are not in MATH-500, for training; as `load_math500`."""
    return load_problems(path or _from_hub("di-zhang-fdu/MATH12000", "train.jsonl", "load_math_train(path)"))


def load_gsm8k(split: str = "test", path: Path | str | None = None) -> list[dict]:
    """GSM8K, word problems of primary school (arXiv:2110.14168): "test" (1,319) or "train" (7,473).

    The answer, behind `####`, comes without commas (1,450), and at the solution's end in a box; the marks
    `<<48/2=24>>` for a calculator are left out. Raises as `load_math500` does, and ValueError for another row.
    """
    if split not in ("test", "train"):
        raise ValueError(f"GSM8K has no split {split!r}: use 'test' or 'train'.")
    path = path or _from_hub("DaertML/gsm8k-jsonl", f"{split}.jsonl", "load_gsm8k(split, path)")
    rows = load_rows(path, unfinished=False)
    problems = [_from_gsm8k(row, f"gsm8k/{split}/{n}") for n, row in enumerate(rows, start=1)]
    return with_ids(problems) and problems  # the check refuses an empty file


def _from_gsm8k(row: dict, name: str) -> dict:
    solution, mark, answer = str(row.get("answer")).rpartition("####")
    answer = answer.strip().replace(",", "")
    if not mark or not re.fullmatch(r"-?\d+(\.\d+)?", answer) or not isinstance(row.get("question"), str):
        raise ValueError(f"Row {name} is not GSM8K's own: give 'question', and 'answer' with its steps and '#### 72'.")
    solution = re.sub("<<[^<>]*>>", "", solution) + f"The answer is \\boxed{{{answer}}}."
    return unify({"problem": row["question"], "solution": solution, "answer": answer, "unique_id": name}, name)


def _from_hub(dataset: str, filename: str, call: str) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(dataset, filename, repo_type="dataset", endpoint=os.environ.get("HF_ENDPOINT"))
    except Exception as error:  # whatever the network library of the day raises
        raise explain(error, dataset, f"call {call} with a file that was downloaded elsewhere") from error


# What `load_data` and the command lines call the sets: how each is loaded by its split.
SETS = {"minimath": load_minimath, "gsm8k": load_gsm8k,
        "math": lambda split: load_math_train() if split == "train" else load_math500()}  # fmt: skip


def load_data(name: str | Path, split: str = "test") -> list[dict]:
    """A set by name, "minimath", "math" (train: MATH, test: MATH-500) or "gsm8k", or else the problems of a file."""
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}: use 'test' or 'train'.")
    return SETS[name](split) if name in SETS else load_problems(name)


def load_problems(path: Path | str) -> list[dict]:
    """Problems from a file of your own: JSON (a list of objects) or JSON Lines.

    Each needs `problem`, and `answer` or a `solution` that ends in a box; what else is missing is filled in.
    Raises FileNotFoundError if there is no such file, ValueError if it is damaged or empty, a field is missing or of a
    wrong kind, or two problems have the same `unique_id`.
    """
    rows, path = load_rows(path, unfinished=False), Path(path)
    if not rows:
        raise ValueError(f"{path.name} holds no problems: give a file with at least one.")
    problems = [unify(row, f"Problem {n} of {path.name}", n) for n, row in enumerate(rows, start=1)]
    _ensure_unique(problems, f"problems of {path.name}")
    return problems


def load_rows(path: Path | str, unfinished: bool = True) -> list[dict]:
    """The rows of a JSON file (a list of objects) or a JSON Lines file (see `read_jsonl` for `unfinished`).

    Raises FileNotFoundError if there is no such file, ValueError if it is damaged.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: give the path of a JSON or JSON Lines file.")
    if path.suffix.lower() != ".json":
        return read_jsonl(path, unfinished)
    try:
        rows = json.loads(read_utf8(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is no valid JSON (line {error.lineno}): restore it.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path.name} must hold a JSON list of objects, one a row.")
    return rows


def with_ids(problems: Iterable[dict], fields: Sequence[str] = ("problem", "answer")) -> list[dict]:
    """The problems, checked; one without a `unique_id` is known by its text, wherever it stands.

    Raises ValueError if there are none, one has no text in one of the `fields`, or two have the same `unique_id`.
    """
    problems = list(problems) if isinstance(problems, Iterable) else []
    if not problems:
        raise ValueError("There are no problems: give at least one.")
    for number, problem in enumerate(problems, start=1):
        if not isinstance(problem, dict):
            raise ValueError(f"Problem {number} is no dictionary: give 'problem' and 'answer' in one.")
        _ensure_text(problem, fields, f"Problem {number}")
    named = [{"unique_id": problem["problem"], **problem} for problem in problems]
    _ensure_unique(named, "problems")
    return named


def unify(row: dict, name: str, number: int = 0) -> dict:
    """A problem with the course's fields, whichever of the common spellings it came in.

    `name` stands for it in messages, `number` in the `unique_id` of a problem that has none. Raises ValueError if a
    field is missing or of a wrong kind.
    """
    solution = row.get("solution") or ""
    problem = {
        "problem": row.get("problem"),
        "solution": solution,
        "answer": row["answer"] if "answer" in row else extract_answer(solution),
        "subject": row.get("subject") or row.get("type") or "unknown",
        "level": _level(row.get("level", 0), name),
        "unique_id": row.get("unique_id") or f"problem-{number}",
    }
    _ensure_text(problem, [field for field in FIELDS if field != "level"], name)
    for field in ("problem", "answer"):
        if not problem[field].strip():
            raise ValueError(f"{name} has an empty {field}: fill it in.")
    return problem


def _level(level: object, name: str) -> int:
    """3 from 3, "3" or "Level 3"; 0 from "Level ?", which two problems of MATH have."""
    match = re.fullmatch(r"(?:Level )?(\d|\?)", str(level))
    if not match:
        raise ValueError(f"{name} has the level {level!r}: use a whole number from 1 to 5, or leave it out.")
    return 0 if match[1] == "?" else int(match[1])


def _ensure_text(problem: dict, fields: Iterable[str], name: str) -> None:
    for field in fields:
        value = problem.get(field)
        if value is None:
            raise ValueError(f"{name} has no text in the field {field!r}: add it.")
        if not isinstance(value, str):
            raise ValueError(f"{name} has {value!r} in the field {field!r}, which is no text: put it in quotes.")
        if field == "answer":
            ensure_answer(problem[field], name)


def ensure_answer(answer: object, name: str) -> None:
    """Raises ValueError for what makes every text wrong: a whole solution of GSM8K, or neither text nor number."""
    if not is_answer(answer):
        raise ValueError(f"{name} has the answer {answer!r}: give text or a finite number.")
    if "####" in str(answer):
        raise ValueError(f"{name} has GSM8K's steps in its answer: load it by load_gsm8k, or keep the number only.")


def _ensure_unique(problems: Sequence[dict], which: str) -> None:
    name, count = Counter(problem["unique_id"] for problem in problems).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{count} {which} have the unique_id {name!r}: give each its own.")
