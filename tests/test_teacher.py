"""The teacher: nothing lost, nothing paid twice, whatever the server does."""

from __future__ import annotations

import _thread
import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from teacher_server import KEY, TeacherServer

from shared.formats.loading import load_model
from shared.generation.completions import generate
from shared.generation.prompts import render_prompt
from shared.support.jsonl import read_jsonl
from shared.teacher import (
    Reply,
    Server,
    ask_model,
    ask_server,
    ask_server_async,
    local,
    protocol,
    split_thinking,
)
from shared.teacher import server as crew
from shared.teacher.__main__ import main
from shared.teacher.protocol import retry_after
from shared.teacher.samples import SamplesFile

FIELDS = {
    "unique_id", "sample", "problem", "answer", "thinking", "content", "correct", "finish_reason",
    "prompt_tokens", "tokens", "model",
}  # fmt: skip


@pytest.fixture
def server(monkeypatch):
    """A running server, named by the environment as a reader would."""
    with TeacherServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield running


def sums(count: int) -> list[dict]:
    return [
        {"problem": f"Compute {n}+1.", "answer": str(n + 1), "unique_id": f"sum-{n}"} for n in range(count)
    ]


def teacher(**options) -> Server:
    return Server("oracle", **{"first_wait": 0.01, "timeout": 5.0, "concurrency": 4, **options})


def keys(rows: list[dict]) -> list[tuple[str, int]]:
    return sorted((row["unique_id"], row["sample"]) for row in rows)


def all_keys(problems: int, samples: int = 1) -> list[tuple[str, int]]:
    return sorted((f"sum-{n}", sample) for n in range(problems) for sample in range(samples))


# --- what is written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\n1+1 < 3\n</think>\n\n\\boxed{2}\n", ("1+1 < 3", "\\boxed{2}")),
        ("1+1\n</think>\n\\boxed{2}", ("1+1", "\\boxed{2}")),
        ("<think>and on and on", ("and on and on", "")),
        ("\n1+1=2\n\\boxed{2}", ("", "1+1=2\n\\boxed{2}")),
        ("Well, <think>hm</think> 2.", ("hm", "Well,  2.")),
        ("hm</think> The tag <think> is odd.", ("hm", "The tag <think> is odd.")),
        ("<think></think>2", ("", "2")),
    ],
)
def test_thinking_is_split_from_content(text, expected):
    """Trap S7: thinking may hold a `<`. The opening tag may have been in the prompt."""
    assert split_thinking(text) == expected


@pytest.mark.parametrize("stream", [True, False])
def test_rows_of_a_server(server, tmp_path, stream):
    """Right answers are kept, wrong ones counted and, if wished, kept apart; a U+2028 does not break the stream."""
    server.wrong = {"Compute 1+1."}
    path = tmp_path / "data.jsonl"
    tally = ask_server(
        sums(3), path, teacher(stream=stream, price_in=1.0, price_out=5.0), num_samples=2, keep_rejected=True
    )
    kept, rejected = read_jsonl(path), read_jsonl(tmp_path / "data.rejected.jsonl")
    assert all(set(row) == FIELDS for row in kept + rejected)
    assert keys(kept + rejected) == all_keys(3, 2)
    assert keys(rejected) == [("sum-1", 0), ("sum-1", 1)]
    assert [row["correct"] for row in kept + rejected] == [True] * 4 + [False] * 2
    row = next(row for row in kept if row["unique_id"] == "sum-0")
    assert (row["problem"], row["answer"], row["model"]) == ("Compute 0+1.", "1", "oracle")
    assert (row["thinking"], row["content"]) == ("It is 1, é\u2028.", "The answer is \\boxed{1}.")
    assert (row["prompt_tokens"], row["tokens"], row["finish_reason"]) == (10, 20, "stop")
    assert (tally.kept, tally.rejected, tally.asked, tally.failed) == (4, 2, 6, 0)
    assert tally.cost == pytest.approx((60 * 1.0 + 120 * 5.0) / 1e6)
    assert "4 kept, 2 rejected (66.7 % kept)" in str(tally)
    assert "cost 0.0007" in str(tally)
    assert set(server.keys) == {f"Bearer {KEY}"}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("stream", [True, False])
def test_thinking_in_a_field_of_its_own(server, tmp_path, name, stream):
    server.reply = lambda problem, right: {name: "a </think> in it", "content": f"\\boxed{{{right}}}"}
    ask_server(sums(1), tmp_path / "data.jsonl", teacher(stream=stream))
    [row] = read_jsonl(tmp_path / "data.jsonl")
    assert (row["thinking"], row["content"]) == ("a </think> in it", "\\boxed{1}")


def test_rejected_texts_are_left_out_but_not_forgotten(server, tmp_path):
    """What the verifier did not take was paid for all the same, so it is not asked for again."""
    server.wrong = {"Compute 0+1."}
    path = tmp_path / "data.jsonl"
    for _ in range(2):
        tally = ask_server(sums(1), path, teacher())
    assert server.served == {"Compute 0+1.": 1}
    assert (tally.rejected, tally.asked) == (1, 0)
    [row] = read_jsonl(tmp_path / "data.rejected.jsonl")
    assert set(row) == FIELDS - {"thinking", "content"}
    assert read_jsonl(path) == []


def file_of(path, problems=None, keep_rejected=True, **settings) -> SamplesFile:
    return SamplesFile(path, {"model": "m", **settings}, problems or sums(2), keep_rejected)


def test_an_answer_that_was_cut_short_is_not_kept(tmp_path):
    """Trap D3: a student must not learn to end where the teacher was stopped, though the box stands there."""
    with file_of(tmp_path / "data.jsonl") as file:
        assert not file.add((file.problems[0], 0), Reply("", "\\boxed{1}, or rather", "length", 5, 9))
        assert not file.add((file.problems[0], 1), Reply("\\boxed{1}", "", "stop", 5, 9))
        assert file.add((file.problems[0], 2), Reply("", "\\boxed{1}", "stop", 5, 9))
    assert [row["correct"] for row in read_jsonl(file.rejected_path)] == [True, False]


def test_half_a_surrogate_does_not_stop_a_run(tmp_path):
    """JSON may hold one, UTF-8 may not."""
    with file_of(tmp_path / "data.jsonl") as file:
        assert file.add((file.problems[0], 0), Reply(json.loads('"\\ud800"'), "\\boxed{1}", "stop"))
    assert read_jsonl(file.path)[0]["thinking"] == "?"


def test_a_file_goes_on_with_what_it_lacks(tmp_path):
    """A line that was not finished is dropped; the order of the problems does not matter."""
    path = tmp_path / "data.jsonl"
    problems = sums(3)
    with file_of(path, problems) as file:
        assert file.add((problems[1], 0), Reply("", "\\boxed{2}", "stop"))
        assert file.add((problems[2], 1), Reply("", "\\boxed{3}", "stop"))
        assert not file.add((problems[2], 0), Reply("", "\\boxed{4}", "stop"))
    path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    with file_of(path, problems[::-1]) as file:
        assert keys([{**problem, "sample": n} for problem, n in file.jobs(2)]) == [
            ("sum-0", 0), ("sum-0", 1), ("sum-1", 1), ("sum-2", 1),
        ]  # fmt: skip
        tally = file.tally(2)
        assert (tally.kept, tally.rejected) == (1, 1)
        file.add((problems[2], 1), Reply("", "\\boxed{3}", "stop"))
    assert keys(read_jsonl(path)) == [("sum-1", 0), ("sum-2", 1)]


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "data.jsonl"
    with file_of(path, temperature=0.7) as file:
        file.add((file.problems[0], 0), Reply("", "\\boxed{1}", "stop"))
        with (
            pytest.raises(ValueError, match=r"Another run is writing data\.jsonl"),
            file_of(path, temperature=0.7),
        ):
            pass
    other = [{**sums(1)[0], "answer": "7"}]
    for problems, temperature, message in (
        (sums(1), 1.0, r"made with temperature = 0\.7, not 1\.0: give another file"),
        (other, 0.7, "another problem 'sum-0'"),
    ):
        with pytest.raises(ValueError, match=message), file_of(path, problems, temperature=temperature):
            pass
    with file_of(path, temperature=0.7) as file:  # an error has not left the lock behind
        file.add((file.problems[0], 1), Reply("", "", "stop"))
    path.unlink()
    with (
        pytest.raises(ValueError, match=r"data\.jsonl is missing: restore it, or delete data\.rejected"),
        file_of(path),
    ):
        pass
    path.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="holds no samples of a teacher"), file_of(path):
        pass
    (tmp_path / "data.jsonl.settings.json").write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match=r"settings\.json is missing or damaged"), file_of(path):
        pass
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        file_of(tmp_path / "data.json")


def test_a_file_without_rows_takes_other_settings(tmp_path):
    """A run that failed before its first row, for a wrong setting say, has not spoilt the file."""
    path = tmp_path / "data.jsonl"
    with file_of(path, temperature=7.0):
        pass
    with file_of(path, temperature=0.7) as file:
        assert path.exists()
        file.add((file.problems[0], 0), Reply("", "", "stop"))
    with (
        pytest.raises(ValueError, match=r"made with temperature = 0\.7, not 7\.0"),
        file_of(path, temperature=7.0),
    ):
        pass


# --- faults ---------------------------------------------------------------------------------------------------

PASSING = [
    "busy", "busy_for_a_while", "busy_until_a_date", "broken", "cut", "cut_body", "hang_up", "malformed",
    "malformed_event", "error_event", "list", "no_choices", "no_message", "number", "deep",
]  # fmt: skip


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes(server, tmp_path, fault):
    """The request is made again, and every sample is there once and was served once."""
    server.faults.extend([fault, None, fault])
    tally = ask_server(sums(3), tmp_path / "data.jsonl", teacher(concurrency=2))
    assert keys(read_jsonl(tmp_path / "data.jsonl")) == all_keys(3)
    assert set(server.served.values()) - {0} == {1}
    assert (tally.kept, tally.failed, tally.retries, len(server.requests)) == (3, 0, 2, 5)


def test_a_server_that_falls_silent(server, tmp_path):
    server.faults.append("silent")
    start = time.perf_counter()
    tally = ask_server(sums(2), tmp_path / "data.jsonl", teacher(timeout=0.5, concurrency=1))
    assert (tally.kept, tally.retries) == (2, 1)
    assert time.perf_counter() - start >= 0.5


def test_all_faults_at_once(server, tmp_path):
    """Many workers, every fault several times: nothing lost, nothing served twice."""
    server.faults.extend((PASSING + [None] * 5) * 3)
    tally = ask_server(
        sums(20), tmp_path / "data.jsonl", teacher(concurrency=8, tries=60, first_wait=0.001), num_samples=3
    )
    assert keys(read_jsonl(tmp_path / "data.jsonl")) == all_keys(20, 3)
    assert {problem: n for problem, n in server.served.items() if n != 3} == {}
    assert (tally.asked, tally.retries) == (60, 3 * len(PASSING))
    assert len(server.requests) == 60 + 3 * len(PASSING)


def test_requests_under_way_are_bounded(server, tmp_path):
    server.answers_left = 0
    fourth = []

    def watch():
        for _ in range(3):
            server.held.acquire()
        fourth.append(server.held.acquire(timeout=0.2))
        server.release.set()

    threading.Thread(target=watch, daemon=True).start()
    assert ask_server(sums(9), tmp_path / "data.jsonl", teacher(concurrency=3)).kept == 9
    assert fourth == [False]
    assert server.most_at_once <= 3


def test_retry_after_is_obeyed(server, tmp_path):
    server.faults.append("busy_for_a_while")
    start = time.perf_counter()
    ask_server(sums(1), tmp_path / "data.jsonl", teacher())
    assert time.perf_counter() - start >= 0.3


def test_retry_after_forms():
    assert retry_after("3") == 3.0
    assert retry_after("-3") == retry_after("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    assert retry_after("Fri, 01 Jan 2100 00:00:00 GMT") > 1e8
    assert retry_after(None) is retry_after("soon") is retry_after("") is None


def test_waits_grow_and_differ(monkeypatch):
    """Exponential back-off with jitter, up to a minute."""
    waits = []

    async def record(stopped, seconds):
        stopped.close()
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "wait_for", record)
    worker = crew._Crew(teacher(base_url="http://localhost/v1", first_wait=1.0), None, [], None, None, None)
    for tried in range(1, 10):
        asyncio.run(worker._pause(tried, None))
    longest = [min(60, 2**n) for n in range(9)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))
    assert len(set(waits)) == 9


def test_the_end_of_a_stream_may_be_lost(server, tmp_path, monkeypatch):
    """An answer is whole with its finish_reason; that the connection breaks after it must not make it be paid twice."""
    original = protocol._events

    async def broken(response):
        async for data in original(response):
            yield data
            if b'"stop"' in data:
                raise protocol.httpx.RemoteProtocolError("gone")

    monkeypatch.setattr(protocol, "_events", broken)
    tally = ask_server(sums(2), tmp_path / "data.jsonl", teacher())
    assert (tally.kept, tally.retries, tally.uncounted) == (2, 0, 2)
    assert "2 answers came without a count" in str(tally)
    assert [row["tokens"] for row in read_jsonl(tmp_path / "data.jsonl")] == [None, None]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("key", r"refuses the key \(status 401\): set OPENAI_API_KEY"),
        ("unknown", r"status 404, model 'oracle' not found\): check OPENAI_BASE_URL"),
        ("unpaid", r"wants to be paid first \(status 402, no credit left\)"),
        ("busy_till_tomorrow", "asks to wait 86,400 s"),
    ],
)
def test_what_does_not_pass_stops_the_run(server, tmp_path, fault, message):
    """At once, in words, without the key; the requests that are under way are still taken."""
    server.faults.extend([None, fault])
    with pytest.raises(ConnectionError, match=message) as caught:
        ask_server(sums(50), tmp_path / "data.jsonl", teacher(concurrency=2))
    assert KEY not in str(caught.value)
    assert len(server.requests) <= 5
    kept = read_jsonl(tmp_path / "data.jsonl")
    assert len(kept) == server.served.total() >= 1
    ask_server(sums(50), tmp_path / "data.jsonl", teacher())
    assert set(server.served.values()) == {1}


def test_a_problem_that_fails_is_left_for_the_next_run(server, tmp_path):
    """One refused request and one that fails in all its tries do not stop the others, and are not lost."""
    server.faults.extend(["refused", "broken", "broken"])
    path = tmp_path / "data.jsonl"
    tally = ask_server(sums(6), path, teacher(tries=2, concurrency=1))
    assert (tally.kept, tally.failed, tally.last_failure) == (4, 2, "status 500, 2 times")
    assert "2 failed (the last one: status 500, 2 times; run again" in str(tally)
    tally = ask_server(sums(6), path, teacher())
    assert (tally.kept, tally.asked, tally.failed) == (6, 2, 0)
    assert set(server.served.values()) == {1}


def test_a_server_that_fails_always_is_left_alone(server, tmp_path):
    server.faults.extend(["refused"] * 100)
    with pytest.raises(
        ConnectionError, match=r"5 samples in a row failed \(status 400, top_p is unknown"
    ) as caught:
        ask_server(sums(60), tmp_path / "data.jsonl", teacher())
    assert KEY not in str(caught.value)
    assert len(server.requests) < 12


def test_failures_between_answers_do_not_add_up(server, tmp_path):
    server.faults.extend((["refused"] * 4 + [None]) * 3)
    tally = ask_server(sums(15), tmp_path / "data.jsonl", teacher(concurrency=1))
    assert (tally.kept, tally.failed) == (3, 12)


def test_no_server(tmp_path):
    with TeacherServer() as gone:
        url = gone.url
    start = time.perf_counter()
    with pytest.raises(
        ConnectionError, match=r"No server answers at http://127\.0\.0\.1:\d+/v1: start the server"
    ):
        ask_server(sums(50), tmp_path / "data.jsonl", teacher(base_url=url, first_wait=60))
    assert time.perf_counter() - start < 20


def test_settings_of_a_server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for options, message in (
        ({}, "OPENAI_BASE_URL is not set"),
        ({"base_url": "localhost:11434/v1"}, "OPENAI_BASE_URL is no address"),
        ({"base_url": "http://h/v1", "api_key": f"{KEY} \n"}, "OPENAI_API_KEY holds white space"),
        ({"base_url": "http://h/v1", "tries": 0}, "tries is 0: give more than 0"),
        ({"base_url": "http://h/v1", "extra": [1]}, "extra is"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            Server("oracle", **options)
        assert KEY not in str(caught.value)
    server = Server("oracle", base_url=f"http://me:{KEY}@localhost:1/v1?key={KEY}")
    assert server.place == "http://localhost:1/v1"
    assert KEY not in repr(server)
    monkeypatch.setattr(protocol, "httpx", None)
    with pytest.raises(ValueError, match="pip install httpx"):
        Server("oracle", base_url="http://h/v1")


def test_what_a_request_holds(server, tmp_path):
    """Trap S4: each sample has a seed of its own, the same in every run; without one none is sent."""
    extra = {"reasoning_effort": "low", "top_p": None}
    for name, seed in (("a", 1), ("b", 1), ("c", None)):
        ask_server(
            sums(2),
            tmp_path / f"{name}.jsonl",
            teacher(extra=extra),
            num_samples=3,
            seed=seed,
            prompt="think",
        )
    seeds = [{body.get("seed") for body in server.requests[start : start + 6]} for start in (0, 6, 12)]
    assert len(seeds[0]) == 6
    assert seeds[0] == seeds[1]
    assert seeds[2] == {None}
    body = server.requests[0]
    assert (body["model"], body["reasoning_effort"], body["max_tokens"]) == ("oracle", "low", 2048)
    assert "top_p" not in body
    text = body["messages"][0]["content"]
    assert text == "Compute 0+1.\nThink inside <think> tags, then answer in \\boxed{}."
    assert all(KEY not in path.read_text(encoding="utf-8") for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("problems", "options", "message"),
    [
        ([], {}, "no problems"),
        (["1+1"], {}, "Problem 1 is no dictionary"),
        ([{"problem": "1+1"}], {}, "'answer'"),
        (sums(1) * 2, {}, "2 problems have the unique_id 'sum-0'"),
        (sums(1), {"num_samples": 0}, "num_samples is 0"),
        (sums(1), {"num_samples": 2, "temperature": 0.0}, "all samples are the same"),
        (sums(1), {"prompt": "kindly"}, "Unknown prompt style"),
    ],
)
def test_arguments_that_make_no_sense(server, tmp_path, problems, options, message):
    with pytest.raises(ValueError, match=message):
        ask_server(problems, tmp_path / "data.jsonl", teacher(), **options)
    assert server.requests == []


# --- loops, stops and kills -----------------------------------------------------------------------------------


def test_both_functions_work_where_a_loop_runs(server, tmp_path):
    """As in a notebook, whose cells run inside of one."""

    async def notebook():
        inside = await ask_server_async(sums(2), tmp_path / "a.jsonl", teacher())
        return inside, ask_server(sums(2), tmp_path / "b.jsonl", teacher())

    assert [tally.kept for tally in asyncio.run(notebook())] == [2, 2]


def hold_and_interrupt(server, times: int) -> None:
    """When two requests are held, press Ctrl-C so many times; then let the server go on."""

    def press():
        for _ in range(2):
            server.held.acquire()
        for _ in range(times):
            _thread.interrupt_main()
            time.sleep(0.5)
        if times == 1:
            server.release.set()

    server.answers_left = 3
    threading.Thread(target=press, daemon=True).start()


def test_interrupt_waits_for_what_is_paid(server, tmp_path, capfd):
    """Ctrl-C: the two answers under way are still taken, no other is asked for, and the next call takes the rest."""
    hold_and_interrupt(server, times=1)
    with pytest.raises(KeyboardInterrupt):
        ask_server(sums(9), tmp_path / "data.jsonl", teacher(concurrency=2))
    assert "interrupt again to drop them" in capfd.readouterr().err
    assert len(read_jsonl(tmp_path / "data.jsonl")) == len(server.requests) == 5
    server.answers_left = 99
    assert ask_server(sums(9), tmp_path / "data.jsonl", teacher()).kept == 9
    assert set(server.served.values()) == {1}


def test_a_second_interrupt_does_not_wait(server, tmp_path):
    hold_and_interrupt(server, times=2)
    with pytest.raises(KeyboardInterrupt):
        ask_server(sums(9), tmp_path / "data.jsonl", teacher(concurrency=2, timeout=60))
    assert not server.release.is_set()
    assert len(read_jsonl(tmp_path / "data.jsonl")) == 3


def test_an_error_of_the_disk_stops_the_run(server, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(SamplesFile, "add", full)
    with pytest.raises(OSError, match="No space left"):
        ask_server(sums(50), tmp_path / "data.jsonl", teacher(concurrency=2))
    assert len(server.requests) <= 4


def test_killed_and_resumed(server, tmp_path, capfd):
    """The command line, killed with answers on the disk and requests under way, and started again.

    The server holds what was under way at the kill, so it has served nothing that is not in the file.
    """
    path, problems = tmp_path / "data.jsonl", tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(problem) + "\n" for problem in sums(8)), encoding="utf-8")
    server.wrong = {"Compute 3+1."}
    server.answers_left = 6
    command = [
        str(path),
        "--server",
        "oracle",
        "--problems",
        str(problems),
        "--samples",
        "2",
        "--concurrency",
        "2",
    ]
    process = subprocess.Popen([sys.executable, "-m", "shared.teacher", *command], env=os.environ)
    try:
        assert server.held.acquire(timeout=60)
        assert server.held.acquire(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert server.served.total() == 6
    written = [path, tmp_path / "data.rejected.jsonl"]  # a quick worker may have come to the wrong answer
    assert sum(len(read_jsonl(file)) for file in written if file.exists()) == 6
    server.answers_left = 99
    assert main(command) == 0
    rows = [row for file in written for row in read_jsonl(file)]
    assert keys(rows) == all_keys(8, 2)
    assert set(server.served.values()) == {2}
    assert len(server.requests) == 16 + 2
    assert "14 kept, 2 rejected (87.5 % kept); this run: 10 answers" in capfd.readouterr().out


# --- a model of ours ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny")


def ask_tiny(tiny, path, problems, **options):
    options = {"num_samples": 2, "max_new_tokens": 80, "prompt": "think", "keep_rejected": True, **options}
    return ask_model(problems, path, *tiny, name="tiny", **options)


def by_key(path) -> dict:
    rows = read_jsonl(path) + read_jsonl(path.with_suffix(".rejected.jsonl"))
    return {(row["unique_id"], row["sample"]): row for row in rows}


def test_rows_of_our_own_model(tiny, tmp_path):
    """Thinking apart from content; the samples are the same after a stop, with more of them, and in another order."""
    problems = sums(5)
    tally = ask_tiny(tiny, tmp_path / "whole.jsonl", problems, num_samples=3)
    whole = by_key(tmp_path / "whole.jsonl")
    assert sorted(whole) == all_keys(5, 3)
    assert tally.asked == tally.kept + tally.rejected == 15
    assert tally.kept > 0
    assert all(set(row) == FIELDS for row in whole.values())
    assert any(row["thinking"] and row["correct"] for row in whole.values())
    assert all("think>" not in row["content"] for row in whole.values() if row["correct"])
    prompts = [render_prompt(problem["problem"], "think") for problem in problems]
    made = generate(*tiny, prompts, max_new_tokens=80, temperature=0.7, top_p=0.95, num_samples=3, seed=0)
    assert [len(each.token_ids) for each in made[0]] == [whole["sum-0", n]["tokens"] for n in range(3)]
    ask_tiny(tiny, tmp_path / "parts.jsonl", problems[:2], batch_size=1)
    assert ask_tiny(tiny, tmp_path / "parts.jsonl", problems[::-1], num_samples=3, batch_size=4).asked == 11
    assert by_key(tmp_path / "parts.jsonl") == whole
    with pytest.raises(ValueError, match=r"made with temperature = 0\.7"):
        ask_tiny(tiny, tmp_path / "parts.jsonl", problems, temperature=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 95.0}, r"top_p is 95\.0: give a probability"),
        ({"temperature": -1}, "temperature is -1: give 0 for greedy decoding"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: give at least 1"),
        ({"seed": 0.5}, r"seed is 0\.5: give a whole number"),
    ],
)
def test_wrong_settings_are_refused_before_there_is_a_file(tiny, server, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ask_tiny(tiny, tmp_path / "data.jsonl", sums(1), **options)
    with pytest.raises(ValueError, match=message):
        ask_server(sums(1), tmp_path / "data.jsonl", teacher(), **options)
    assert list(tmp_path.iterdir()) == []


def test_a_seed_of_numpy_goes_into_the_settings(tiny, tmp_path):
    ask_tiny(tiny, tmp_path / "data.jsonl", sums(1), seed=np.int64(3))
    ask_tiny(tiny, tmp_path / "data.jsonl", sums(1), seed=3)


def test_a_chat_model_gets_its_template(tiny, tmp_path, monkeypatch):
    asked = []

    def spy(model, tokenizer, prompts, **options):
        asked.extend(prompts)
        return generate(model, tokenizer, prompts, **options)

    monkeypatch.setattr(local, "generate", spy)
    ask_tiny(tiny, tmp_path / "chat.jsonl", sums(1), chat=True, max_new_tokens=2)
    question = "Compute 0+1.\nThink inside <think> tags, then answer in \\boxed{}."
    assert asked == [f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"]
    with pytest.raises(ValueError, match="made with chat = True, not False"):
        ask_tiny(tiny, tmp_path / "chat.jsonl", sums(1), max_new_tokens=2)


def test_command_line(tmp_path, capsys, monkeypatch):
    path = str(tmp_path / "data.jsonl")
    command = [path, "--model", "tiny", "--limit", "4", "--samples", "2", "--max-new-tokens", "60"]
    assert main(command) == 0
    assert "this run: 8 answers" in capsys.readouterr().out
    assert main(command) == 0
    assert "this run: 0 answers" in capsys.readouterr().out
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main([path, "--server", "oracle"]) == 1
    assert "OPENAI_BASE_URL is not set" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([path])
