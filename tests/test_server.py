"""A server as teacher or judge: nothing lost, nothing paid twice, whatever the server does."""

from __future__ import annotations

import _thread
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import traceback

import pytest

from appendix import h_server
from appendix.h_server import Server, ask_all, ask_server
from appendix.h_teacher import main
from shared.support.jsonl import read_jsonl
from shared.teacher import SamplesFile
from tests.teacher_server import FIELDS, KEY, TeacherServer, all_keys, keys, sums

pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """The package waits half a second and more before it tries again."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    monkeypatch.setattr(h_server, "RETRY_DELAY", 0.01)


@pytest.fixture
def server(monkeypatch):
    """A running server, named by the environment as a reader would."""
    with TeacherServer() as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield running


def teacher(**options) -> Server:
    return Server("oracle", **{"timeout": 5.0, "concurrency": 4, **options})


# --- what is written ------------------------------------------------------------------------------------------


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


# --- faults ---------------------------------------------------------------------------------------------------

PASSING = [
    "busy", "busy_for_a_while", "busy_until_a_date", "broken", "cut", "cut_body", "hang_up", "malformed",
    "malformed_event", "error_event", "limit", "list", "no_choices", "no_message", "number", "deep",
]  # fmt: skip


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("stream", [True, False])
def test_a_fault_that_passes(server, tmp_path, fault, stream):
    """The request is made again, and every sample is there once and was served once."""
    server.faults.extend([fault, None, fault])
    tally = ask_server(sums(3), tmp_path / "data.jsonl", teacher(concurrency=2, stream=stream))
    assert keys(read_jsonl(tmp_path / "data.jsonl")) == all_keys(3)
    assert set(server.served.values()) - {0} == {1}
    assert (tally.kept, tally.failed, len(server.requests)) == (3, 0, 5)


def test_a_server_that_falls_silent(server, tmp_path):
    server.faults.append("silent")
    start = time.perf_counter()
    tally = ask_server(sums(2), tmp_path / "data.jsonl", teacher(timeout=0.5, concurrency=1))
    assert (tally.kept, len(server.requests)) == (2, 3)
    assert time.perf_counter() - start >= 0.5


def test_all_faults_at_once(server, tmp_path):
    """Many workers, every fault several times: nothing lost, nothing served twice."""
    server.faults.extend((PASSING + [None] * 5) * 3)
    tally = ask_server(sums(20), tmp_path / "data.jsonl", teacher(concurrency=8, tries=60), num_samples=3)
    assert keys(read_jsonl(tmp_path / "data.jsonl")) == all_keys(20, 3)
    assert {problem: n for problem, n in server.served.items() if n != 3} == {}
    assert tally.asked == 60
    assert len(server.requests) == 60 + 3 * len(PASSING)


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_inside_an_answer_is_shown_in_the_server_s_words(server, tmp_path, stream):
    server.faults.extend(["limit"] * 2)
    tally = ask_server(sums(1), tmp_path / "data.jsonl", teacher(tries=2, stream=stream))
    assert tally.last_failure == "an error in place of an answer, Rate limit exceeded, dear ***"
    assert len(server.requests) == 2


def test_an_error_that_lasts_is_not_asked_for_again(server, tmp_path):
    server.faults.append("too_long")
    tally = ask_server(sums(2), tmp_path / "data.jsonl", teacher(concurrency=1))
    assert tally.last_failure == "an error in place of an answer, the request exceeds the context"
    assert (tally.failed, tally.kept, len(server.requests)) == (1, 1, 2)


@pytest.mark.parametrize("form", ["whole", "nulls"])
def test_an_odd_stream_with_an_answer_in_it_is_an_answer(server, tmp_path, form):
    server.faults.append(form)
    assert ask_server(sums(1), tmp_path / "data.jsonl", teacher()).kept == len(server.requests) == 1


def test_an_answer_of_all_the_tokens_allowed_was_cut(server, tmp_path):
    """Some servers say "stop" to it all the same."""
    assert ask_server(sums(1), tmp_path / "a.jsonl", teacher(), max_new_tokens=21).kept == 1
    assert ask_server(sums(1), tmp_path / "b.jsonl", teacher(), max_new_tokens=20).rejected == 1
    [row] = read_jsonl(tmp_path / "b.rejected.jsonl")
    assert (row["finish_reason"], row["correct"]) == ("length", True)


@pytest.mark.parametrize("stream", [True, False])
def test_thinking_in_a_field_and_in_the_content(server, tmp_path, stream):
    message = {"reasoning_content": "First", "content": "then</think>\n\nIt is \\boxed{1}."}
    server.reply = lambda problem, right: message
    ask_server(sums(1), tmp_path / "data.jsonl", teacher(stream=stream))
    [row] = read_jsonl(tmp_path / "data.jsonl")
    assert (row["thinking"], row["content"]) == ("First\n\nthen", "It is \\boxed{1}.")


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


def test_the_end_of_a_stream_may_be_lost(server, tmp_path):
    """An answer is whole with its finish_reason; that the connection breaks after it must not make it be paid twice."""
    server.faults.extend(["lost_end"] * 2)
    tally = ask_server(sums(2), tmp_path / "data.jsonl", teacher())
    assert (tally.kept, len(server.requests), tally.uncounted) == (2, 2, 2)
    assert "2 answers came without a count" in str(tally)
    assert [row["tokens"] for row in read_jsonl(tmp_path / "data.jsonl")] == [None, None]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("key", r"refuses the key \(status 401\): set OPENAI_API_KEY"),
        ("unknown", r"status 404, model 'oracle' not found\): check OPENAI_BASE_URL"),
        ("unpaid", r"wants to be paid first \(status 402, no credit left\)"),
    ],
)
def test_what_does_not_pass_stops_the_run(server, tmp_path, fault, message):
    """At once, in words, without the key; the requests that are under way are still taken."""
    server.faults.extend([None, fault])
    with pytest.raises(ConnectionError, match=message) as caught:
        ask_server(sums(50), tmp_path / "data.jsonl", teacher(concurrency=2))
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert len(server.requests) <= 5
    kept = read_jsonl(tmp_path / "data.jsonl")
    assert len(kept) == server.served.total() >= 1
    ask_server(sums(50), tmp_path / "data.jsonl", teacher())
    assert set(server.served.values()) == {1}


def test_a_server_that_asks_for_a_day_is_asked_another_day(server, tmp_path):
    server.faults.extend(["busy_till_tomorrow"] * 50)
    with pytest.raises(ConnectionError, match=r"asks to wait 86,400 s \(status 429, daily quota\)"):
        ask_server(sums(50), tmp_path / "data.jsonl", teacher(concurrency=2, tries=2))
    assert len(server.requests) <= 4


def test_a_problem_that_fails_is_left_for_the_next_run(server, tmp_path):
    """One refused request and one that fails in all its tries do not stop the others, and are not lost."""
    server.faults.extend(["refused", "broken", "broken"])
    path = tmp_path / "data.jsonl"
    tally = ask_server(sums(6), path, teacher(tries=2, concurrency=1))
    assert (tally.kept, tally.failed, tally.last_failure) == (4, 2, "status 500")
    assert "2 failed (the last one: status 500; run again" in str(tally)
    tally = ask_server(sums(6), path, teacher())
    assert (tally.kept, tally.asked, tally.failed) == (6, 2, 0)
    assert set(server.served.values()) == {1}


def test_a_server_that_fails_always_is_left_alone(server, tmp_path):
    server.faults.extend(["refused"] * 100)
    with pytest.raises(ConnectionError, match=r"5 samples in a row failed \(status 400, top_p is unknown") as caught:
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
    with pytest.raises(ConnectionError, match=r"No server answers at http://127\.0\.0\.1:\d+/v1: start the server"):
        ask_server(sums(50), tmp_path / "data.jsonl", teacher(base_url=url, tries=60))
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
    monkeypatch.setattr(h_server, "openai", None)
    with pytest.raises(ValueError, match="pip install openai"):
        Server("oracle", base_url="http://h/v1")


def test_what_a_request_holds(server, tmp_path):
    """Trap S4: each sample has a seed of its own, the same in every run; without one none is sent."""
    extra = {"reasoning_effort": "low", "top_p": None}
    for name, seed in (("a", 1), ("b", 1), ("c", None)):
        ask_server(sums(2), tmp_path / f"{name}.jsonl", teacher(extra=extra), num_samples=3, seed=seed, prompt="think")
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
        (sums(1), {"top_p": 95.0}, r"top_p is 95\.0: give a probability"),
        (sums(1), {"temperature": -1}, "temperature is -1: give 0 for greedy decoding"),
        (sums(1), {"max_new_tokens": 0}, "max_new_tokens is 0: give at least 1"),
        (sums(1), {"seed": 0.5}, r"seed is 0\.5: give a whole number"),
    ],
)
def test_arguments_that_make_no_sense(server, tmp_path, problems, options, message):
    with pytest.raises(ValueError, match=message):
        ask_server(problems, tmp_path / "data.jsonl", teacher(), **options)
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []


# --- loops, stops and kills -----------------------------------------------------------------------------------


def test_it_works_where_a_loop_runs(server, tmp_path):
    """As in a notebook, whose cells run inside of one."""

    async def notebook():
        return ask_server(sums(2), tmp_path / "data.jsonl", teacher()).kept, len(ask_all(teacher(), ["Compute 1+1."]))

    assert asyncio.run(notebook()) == (2, 1)


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
    command = [str(path), "--server", "oracle", "--problems", str(problems), "--samples", "2", "--concurrency", "2"]
    process = subprocess.Popen([sys.executable, "-m", "appendix.h_teacher", *command], env=os.environ)
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


def test_the_command_says_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main([str(tmp_path / "data.jsonl"), "--server", "oracle"]) == 1
    assert "OPENAI_BASE_URL is not set" in capsys.readouterr().err


# --- a judge --------------------------------------------------------------------------------------------------


@pytest.fixture
def stub():
    with TeacherServer() as server:
        server.reply = lambda problem, right: {"content": f"<think>hm</think>It is {right}."}
        yield server


def judge(stub, **settings):
    return Server("oracle", base_url=stub.url, api_key="", **settings)


def texts(*arguments, **settings) -> list[str]:
    return [reply.content for reply in ask_all(*arguments, **settings)]


@pytest.mark.parametrize("stream", [True, False])
def test_replies_come_in_the_order_of_the_messages_without_thinking(stub, stream):
    at_once = stub.reply
    stub.reply = lambda *question: (time.sleep(0.05), at_once(*question))[1]  # so that requests overlap
    messages = [f"Compute {i}+1." for i in range(20)]
    replies = texts(judge(stub, concurrency=4, stream=stream), messages, max_tokens=9)
    assert replies == [f"It is {i + 1}." for i in range(20)]
    assert {(body["temperature"], body["max_tokens"]) for body in stub.requests} == {(0, 9)}
    assert 1 < stub.most_at_once <= 4


def test_what_may_pass_is_tried_again(stub):
    stub.faults.extend(["busy", "broken", "cut", "malformed"])
    assert texts(judge(stub, concurrency=1), ["Compute 1+1."]) == ["It is 2."]
    assert len(stub.requests) == 5


@pytest.mark.parametrize(
    ("faults", "message"), [(["key"], "OPENAI_API_KEY"), (["broken"] * 2, "status 500"), (["refused"], "status 400")]
)
def test_what_does_not_pass_is_said(stub, faults, message):
    stub.faults.extend(faults)
    with pytest.raises(ConnectionError, match=message):
        texts(judge(stub, tries=2, concurrency=1), ["Compute 1+1."])


def test_without_a_server_it_says_so_at_once():
    with TeacherServer() as stub:
        address = stub.url
    with pytest.raises(ConnectionError, match="start the server"):
        texts(Server("oracle", base_url=address), ["Compute 1+1."])


def test_an_interrupt_drops_what_is_left(stub):
    """Ctrl-C while two requests are held: nothing else is asked, and nothing is waited for."""

    def press():
        for _ in range(2):
            stub.held.acquire()
        _thread.interrupt_main()

    stub.answers_left = 3
    threading.Thread(target=press, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        texts(judge(stub, concurrency=2, timeout=5, tries=2), [f"Compute {i}+1." for i in range(9)])
    assert len(stub.requests) == 5
