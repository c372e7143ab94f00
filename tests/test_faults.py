"""What happens to a run when the machine fails it: killed at any point, a full disk, a flipped bit, two at a time.

Each loop of the course that takes long (`tests/fault_loops.py`) is disturbed and started again, and ends as if nothing
had happened: the same weights bit for bit, the same rows, none twice and none lost. With the variable
COURSE_EVERY_KILL, as nightly, fifty runs are killed, else some.
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from shared.evaluation.evaluator import Answer, EvalResult, evaluate
from shared.formats.checkpoints import export_hf, load_training_state
from shared.formats.loading import load_model
from shared.support.jsonl import append_jsonl, read_jsonl
from tests.small_policy import PROBLEMS, assert_same_weights, small_policy
from tests.test_training import make

TRIALS = {
    "grpo": 10, "dapo": 7, "distillation": 9, "pretraining": 8, "evaluation": 6, "benchmark": 4, "teacher": 6,
}  # fmt: skip
SOME = {"grpo": 2} | dict.fromkeys(list(TRIALS)[1:], 1)
CHOSEN = TRIALS if os.environ.get("COURSE_EVERY_KILL") else SOME
PLACES = ("anywhere", "file", "torn", "half")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a process becomes another one on Linux only")


class Loops:
    """The process that runs the loops; use it in a `with` statement."""

    def __init__(self, root: Path, **environment: str):
        settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
        self.root, self.environment = root, os.environ | settings | environment

    def __enter__(self) -> Loops:
        command = [sys.executable, "-m", "tests.fault_loops"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            command, cwd=self.root, env=self.environment, stderr=self.errors, text=True, encoding="ascii", **pipes
        )
        return self

    def run(self, loop: str, out: Path, **fault: object) -> dict:
        """What comes of a loop, disturbed as `tests.fault_loops.disturb` says."""
        order = {"loop": loop, "out": os.fsencode(out).hex(), **fault}
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            raise RuntimeError(self.errors.read()[-3000:])
        return json.loads(answer)

    def __exit__(self, *_: object) -> None:
        self.process.communicate()
        self.errors.close()


@pytest.fixture(scope="module")
def loops(root):
    with Loops(root) as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(loops, tmp_path_factory):
    """What an undisturbed run of a loop gives, and how many places it has to die at."""

    @functools.cache
    def run(loop: str) -> dict:
        told = loops.run(loop, tmp_path_factory.mktemp(loop) / "out", count=True)
        assert "outcome" in told, told
        return told

    return run


def assert_goes_on(loops: Loops, loop: str, out: Path, expected: dict) -> None:
    """A run in this folder ends as one that nothing disturbed."""
    told = loops.run(loop, out)
    assert told["status"] == 0
    assert told.get("error") is None
    for name, value in expected.items():
        assert told["outcome"][name] == value, name


# --- killed ---------------------------------------------------------------------------------------------------


def places_to_die(loop: str, trial: int, counts: dict[str, int]) -> list[tuple[str, int, float]]:
    """One or two kills of a trial: the kind of place, its number, and how much of what is written arrives.

    The trials of a loop begin with each kind in turn.
    """
    rng, there = random.Random(f"{loop} {trial}"), [kind for kind in PLACES if kind in counts]
    in_turn = random.Random(loop).sample(there, len(there))
    kinds = [in_turn[trial % len(there)], *rng.choices(there, k=rng.choice((0, 0, 1)))]
    return [(kind, rng.randint(1, math.ceil(0.97 * counts[kind])), rng.random()) for kind in kinds]


@on_linux
@pytest.mark.parametrize(
    ("loop", "trial"),
    [pytest.param(loop, trial, id=f"{loop}-{trial}") for loop, count in CHOSEN.items() for trial in range(count)],
)
def test_a_run_that_is_killed_goes_on_as_if_it_never_was(loops, unbroken, tmp_path, loop, trial):
    """SIGKILL within a step, within a line, within a file of weights; sometimes again while the run goes on."""
    whole = unbroken(loop)
    first, *again = places_to_die(loop, trial, whole["counts"])
    assert loops.run(loop, tmp_path / "out", kill=first)["status"] == -9
    for place in again:  # a run that goes on has fewer places, and may end before it comes there
        assert loops.run(loop, tmp_path / "out", kill=place)["status"] in (-9, 0)
    assert_goes_on(loops, loop, tmp_path / "out", whole["outcome"])


@on_linux
@pytest.mark.parametrize("loop", ["grpo", "pretraining"])
def test_a_run_that_is_killed_again_as_soon_as_it_writes(loops, unbroken, tmp_path, loop):
    """What a run that goes on writes first is its log, without the steps that are done anew."""
    whole = unbroken(loop)
    for place in (("torn", whole["counts"]["torn"], 0.5), ("half", 1, 0.5)):
        assert loops.run(loop, tmp_path / "out", kill=place)["status"] == -9
    assert_goes_on(loops, loop, tmp_path / "out", whole["outcome"])


# --- the disk -------------------------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("share", [0.03, 0.6], ids=["little room", "more room"])
@pytest.mark.parametrize("loop", TRIALS)
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(loops, unbroken, tmp_path, loop, share):
    """No file may grow beyond a share of the largest one; the system then refuses as it does on a full disk."""
    whole = unbroken(loop)
    told = loops.run(loop, tmp_path / "out", limit=max(100, int(share * whole["largest"])))
    assert "OSError" in told["error"]["kinds"], told
    assert "too large" in told["error"]["text"]
    assert_goes_on(loops, loop, tmp_path / "out", whole["outcome"])


@pytest.fixture
def disk(tmp_path):
    """A disk that is too small for a checkpoint, where the test may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@on_linux
@pytest.mark.parametrize("loop", ["grpo", "pretraining"])
def test_a_disk_that_is_really_full(loops, unbroken, disk, loop):
    told = loops.run(loop, disk / "out")
    assert "OSError" in told["error"]["kinds"], told
    assert "No space left" in told["error"]["text"]
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    assert_goes_on(loops, loop, disk / "out", unbroken(loop)["outcome"])


@on_linux
@pytest.mark.parametrize("loop", TRIALS)
def test_a_folder_that_may_only_be_read_is_named(loops, loop):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        told = loops.run(loop, Path(folder) / "run", nobody=True)
        assert "PermissionError" in told["error"]["kinds"], told
        assert folder in told["error"]["text"]
        assert os.listdir(folder) == []


@pytest.fixture
def finished(tmp_path):
    """The folder of a run of six steps with the checkpoints of steps 4 and 6."""
    make(out=str(tmp_path / "run")).train()
    return tmp_path / "run"


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "training_state.json", "training_state.safetensors",
    ],
)  # fmt: skip
def test_a_flipped_bit_in_a_checkpoint_is_noticed(finished, name):
    """Weights hold no sum of their own: they would load, and the run would go on with another model."""
    path, rng = finished / "step-000006" / name, random.Random(name)
    whole = path.read_bytes()
    assert load_training_state(path.parent)[0]["step"] == 6
    for _ in range(12):
        flip(path, rng)
        with pytest.raises(ValueError, match=r"go on from step-000004, delete the folder .*step-000006, which cannot"):
            make(out=str(finished), steps=8).train()
        path.write_bytes(whole)
    flip(path, rng)
    with pytest.raises(ValueError, match="is no checkpoint to go on from") as refused:
        load_training_state(path.parent)
    assert name in str(refused.value) or name == "training_state.json"  # which may be no JSON any more


def test_a_checkpoint_of_before_the_sums_is_still_read(finished):
    path = finished / "step-000006" / "training_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    del state["crc32"]
    path.write_text(json.dumps(state), encoding="utf-8")
    assert len(make(out=str(finished), steps=8).train()) == 8


# --- files that were cut --------------------------------------------------------------------------------------


def test_json_lines_that_are_cut_at_any_byte_go_on(tmp_path):
    """A record is there or not; what is left of a torn one never touches the next."""
    path = tmp_path / "a.jsonl"
    records = [{"n": 1, "text": "é\u2028"}, {"n": 2, "text": "模型"}, {"n": 3, "text": "}{"}]
    append_jsonl(path, records)
    whole = path.read_bytes()
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        left = read_jsonl(path)
        assert left == records[: len(left)]
        append_jsonl(path, records[len(left) :])
        assert path.read_bytes() == whole


def echo(model, tokenizer, prompts, *, max_new_tokens, seed):
    """A method that answers with the prompt's length."""
    return [Answer(f"é {len(prompt)}", str(len(prompt)), 3) for prompt in prompts]


def test_results_that_are_cut_anywhere_go_on(tmp_path):
    path = tmp_path / "run.jsonl"
    run = functools.partial(evaluate, None, None, PROBLEMS[:3], method=echo, batch_size=2, results=path)
    expected, whole = run().records, path.read_bytes()
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        assert run().records == expected
        assert read_jsonl(path) == expected


# --- two at a time --------------------------------------------------------------------------------------------


def test_of_two_trainings_in_one_folder_the_older_one_stops(tmp_path):
    """The newer one goes on from the last checkpoint; without a word the log would have steps of both."""
    out = str(tmp_path / "run")

    def on_step(metrics):
        if metrics["step"] == 3:
            make(out=out, steps=5).train()

    with pytest.raises(ValueError, match=r"Another run has changed .*metrics\.jsonl: give each a folder of its own"):
        make(on_step, out=out).train()
    assert [record["step"] for record in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    straight, resumed = make(), make(out=out)
    straight.train()
    assert len(resumed.train()) == 6
    assert_same_weights(straight.model, resumed.model)


def test_two_evaluations_in_one_file_count_no_problem_twice(tmp_path):
    path, run = tmp_path / "run.jsonl", functools.partial(evaluate, None, None, PROBLEMS[:6], batch_size=2)
    begun = []

    def method(*given, **named):
        begun.append(1)
        if len(begun) == 2:
            run(method=method, results=path)
        return echo(*given, **named)

    result = run(method=method, results=path)
    kept = EvalResult.from_jsonl(path)
    assert kept.n == result.n == 6
    assert kept.records == result.records
    assert run(method=method, results=path).records == result.records


# --- where files are ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loops_in_ascii(root):
    """The loops in a locale that knows nothing but ASCII."""
    with Loops(root, LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="") as running:
        yield running


@on_linux
@pytest.mark.parametrize("loop", TRIALS)
def test_foreign_letters_and_blanks_in_a_locale_without_them(loops_in_ascii, unbroken, tmp_path, loop):
    assert_goes_on(loops_in_ascii, loop, tmp_path / "Übung 模型 α" / "mit Leerzeichen", unbroken(loop)["outcome"])


def test_a_model_in_a_folder_with_foreign_letters(tmp_path):
    model, tokenizer = small_policy()
    folder = tmp_path / "Übung 模型 α"
    export_hf(model, tokenizer, folder)
    loaded, read = load_model(folder)
    assert_same_weights(loaded, model)
    assert read.backend.to_str() == tokenizer.backend.to_str()
    assert torch.equal(torch.tensor(read.encode("é = 模")), torch.tensor(tokenizer.encode("é = 模")))
