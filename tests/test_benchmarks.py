"""The benchmarks' own arithmetic, and their quick forms where nothing else runs them."""

from __future__ import annotations

import json
import mmap
import os
import sys
from pathlib import Path

import pytest

from benchmarks import evaluate, measuring, memory
from benchmarks.decode import OURS, THEIRS, THEIRS_ONE_THREAD, Result
from benchmarks.distill_step import labels
from shared import load_minimath, load_model
from shared.distillation import SFTExample
from shared.model.transformer import CausalLM

README = Path(measuring.__file__).with_name("README.md")


def test_every_benchmark_has_its_row():
    """Modules without a command are what others import."""
    modules = {path.stem for path in README.parent.glob("*.py")} - {"__init__", "measuring", "grader_peers"}
    text = README.read_text(encoding="utf-8")
    assert [name for name in sorted(modules) if f"| `python -m benchmarks.{name}" not in text] == []


def test_a_ratio_is_against_the_faster_of_two_settings_and_says_which():
    seconds = {OURS: [1.0, 1.0, 2.0], THEIRS: [4.0, 4.0, 4.0], THEIRS_ONE_THREAD: [2.1, 3.0, 2.2]}
    result = Result("tiny", 1, 1_000_000, seconds, 1e9)
    assert result.ratio() == pytest.approx(2.1)
    assert "2.10x (target 2x met) of 1 thread" in result.line()
    slower = Result("tiny", 64, 1_000_000, seconds | {THEIRS: [1.5, 1.5, 1.5]}, 1e9)
    assert "1.50x (target 2x missed) of default threads" in slower.line()
    assert slower.row()["against"] == THEIRS
    assert slower.row()["of_bandwidth"] is None
    assert "13 % (target 60 % missed)" in Result("smollm2-135m", 1, 1_000_000, seconds, 1e9).line()


def test_rows_are_kept_only_if_asked_with_date_and_machine(tmp_path):
    measuring.keep([{"a": 1}], None)
    measuring.keep([{"a": 1}, {"a": 2}], tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["a"] for row in rows] == [1, 2]
    assert all("torch" in row["machine"] and row["date"].startswith("20") for row in rows)


def test_only_the_completion_has_labels():
    assert labels(SFTExample("", "", "", [5, 6, 7, 8], prompt_length=3)) == [-100, -100, -100, 8]


def test_the_parts_of_an_evaluation_are_its_whole_time_and_the_functions_are_put_back():
    model, tokenizer = load_model("tiny", device="cpu", dtype="float32")
    head = model.head.forward
    seconds = evaluate.measure(model, tokenizer, load_minimath("test")[:4], "direct", 8)
    assert set(seconds) == {*evaluate.parts(model), evaluate.REST}
    assert min(seconds.values()) >= 0
    assert 0 < evaluate.outside(seconds) < 1
    assert model.head.forward == head
    assert model.hidden_states.__func__ is CausalLM.hidden_states
    assert evaluate.outside({"forward passes": 8.0, "sampling": 1.0, "the rest": 1.0}) == pytest.approx(0.1)


def test_a_line_through_points():
    assert memory.fit((1, 2, 3), [5.0, 7.0, 9.0]) == pytest.approx((2, 3, 1))
    assert memory.fit((1, 2, 3), [0.0, 3.0, 0.0])[2] == pytest.approx(0)


def test_the_shapes_say_what_a_text_and_a_logit_take():
    one, two = (memory.predicted(memory.generating, batch, 100, 512) for batch in (1, 2))
    assert two == 2 * one
    cache = CausalLM(memory.TINY_CONFIG).new_cache(1, 10).stored
    longer = memory.predicted(memory.generating, 1, 110, 512)
    assert longer - one == cache.numel() * cache.element_size()
    few, many = (memory.predicted(memory.training, 8, 128, vocab) for vocab in (512, 513))
    assert many - few == 12 * 8 * 127 + 4 * memory.TINY_CONFIG.hidden_size


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says what a call took at its peak")
def test_growth_is_that_of_the_call_alone():
    """Pages fresh from the system: those that an allocator has kept from earlier tests would not be growth."""

    def touch_fresh_pages(size=2**26):
        with mmap.mmap(-1, size) as pages:
            for place in range(0, size, mmap.PAGESIZE):
                pages[place] = 1

    touch_fresh_pages()  # what came and went before does not count
    assert memory.growth(touch_fresh_pages) == pytest.approx(2**26, rel=0.1)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("COURSE_EVERY_COMMAND"), reason="nightly, with COURSE_EVERY_COMMAND=1")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says what a call took at its peak")
def test_memory_grows_as_its_quick_form_says(monkeypatch, tmp_path, capsys):
    rows, picture = tmp_path / "rows.jsonl", tmp_path / "plot.png"
    monkeypatch.setattr(sys, "argv", ["memory", "--quick", "--out", str(rows), "--plot", str(picture)])
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    memory.main()
    assert "generating, batch" in capsys.readouterr().out
    for line in rows.read_text("utf-8").splitlines():
        row = json.loads(line)
        assert 0.9 < row["slope"] / row["predicted_slope"] < 1.6, row["line"]
    assert picture.read_bytes().startswith(b"\x89PNG")
