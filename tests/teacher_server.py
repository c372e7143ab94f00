"""A small server with the OpenAI interface on this machine, which makes the faults that a test orders."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, deque

from tests.stub_server import StubHandler, StubServer

KEY = "sk-very-secret"
FIELDS = {
    "unique_id", "sample", "problem", "answer", "thinking", "content", "correct", "finish_reason",
    "prompt_tokens", "tokens", "model",
}  # fmt: skip


def sums(count: int) -> list[dict]:
    return [{"problem": f"Compute {n}+1.", "answer": str(n + 1), "unique_id": f"sum-{n}"} for n in range(count)]


def keys(rows: list[dict]) -> list[tuple[str, int]]:
    return sorted((row["unique_id"], row["sample"]) for row in rows)


def all_keys(problems: int, samples: int = 1) -> list[tuple[str, int]]:
    return sorted((f"sum-{n}", sample) for n in range(problems) for sample in range(samples))


class TeacherServer(StubServer):
    """Solves "Compute a+b." by a stream or in one piece; use it in a `with` statement.

    Attributes:
        faults: names of methods of `_Handler` (without `fault_`), taken one a request; None for an answer without one.
        served: how many whole answers were sent, by problem.
        requests: the bodies that came; `keys` their Authorization headers.
        wrong: problems that are answered wrongly.
        answers_left: after so many whole answers every request is held until `release` is set.
        most_at_once: the most requests that were under way at a time.
    """

    def __init__(self):
        super().__init__(_Handler)
        self.faults: deque = deque()
        self.served: Counter = Counter()
        self.requests: list[dict] = []
        self.keys: list[str | None] = []
        self.wrong: set[str] = set()
        self.answers_left = 10**9
        self.held = threading.Semaphore(0)
        self.under_way = self.most_at_once = 0
        self.reply = think_aloud

    @property
    def url(self) -> str:
        return f"{super().url}/v1"


def think_aloud(problem: str, right: int) -> dict:
    """A message with the thinking in tags."""
    return {"content": f"<think>\nIt is {right}, é\u2028.\n</think>\n\nThe answer is \\boxed{{{right}}}."}


class _Handler(StubHandler):
    server: TeacherServer

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = self.question = body["messages"][0]["content"]
        server = self.server
        with server.lock:
            server.requests.append(body)
            server.keys.append(self.headers["Authorization"])
            fault = server.faults.popleft() if server.faults else None
            server.under_way += 1
            server.most_at_once = max(server.most_at_once, server.under_way)
            self.counted = True
            held = fault is None and server.answers_left == 0
            server.answers_left -= fault is None and not held
        try:
            if held:
                server.held.release()
                server.release.wait()
            if fault:
                getattr(self, f"fault_{fault}")()
            else:
                self.answer(body, question)
        finally:
            self.leave()

    def leave(self) -> None:
        """No longer under way, before the client can know of it and send the next request."""
        with self.server.lock:
            self.server.under_way -= self.counted
            self.counted = False

    def answer(self, body: dict, question: str, whole: bool = True, lost_end: bool = False) -> None:
        problem = question.splitlines()[0]
        first, second = map(int, re.findall(r"\d+", problem))
        message = self.server.reply(problem, first + second + (problem in self.server.wrong))
        with self.server.lock:
            self.server.served[problem] += whole
        self.leave()
        if body.get("stream"):
            self.send_stream(message, whole, lost_end)
        else:
            choice = {"message": message, "finish_reason": "stop"}
            self.send(200, {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 20}})

    def send_stream(self, message: dict, whole: bool, lost_end: bool) -> None:
        """Pieces of a few characters; bytes are sent so that they break inside of lines and characters."""
        deltas = [{name: text[start : start + 7]} for name, text in message.items() for start in range(0, len(text), 7)]
        events = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
        if whole:
            events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            if not lost_end:
                events.append({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 20}})
        lines = [": a comment", *(f"data: {json.dumps(event, ensure_ascii=False)}\n" for event in events)]
        data = "\n".join([*lines, "" if lost_end else "data: [DONE]\n\n"] if whole else lines).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        if lost_end:
            self.send_header("Content-Length", str(len(data) + 100))
        self.end_headers()
        for start in range(0, len(data), 101):
            self.wfile.write(data[start : start + 101])
            self.wfile.flush()

    def send(self, status: int, content: dict | list | bytes, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        super().send(status, data, **{"Content-Type": "application/json", **named})

    # --- faults -----------------------------------------------------------------------------------------------

    def fault_busy(self):
        self.send(429, {"error": {"message": "slow down"}})

    def fault_busy_for_a_while(self):
        self.send(429, {"error": {"message": "slow down"}}, Retry_After="0.3")

    def fault_busy_until_a_date(self):
        self.send(429, {"error": {"message": "slow down"}}, Retry_After="Thu, 01 Jan 2026 00:00:00 GMT")

    def fault_busy_till_tomorrow(self):
        self.send(429, {"error": {"message": "daily quota"}}, Retry_After="86400")

    def fault_broken(self):
        self.send(500, b"<html>oh no</html>")

    def fault_silent(self):
        self.server.release.wait()

    def fault_cut(self):
        """The connection ends in the middle of a stream that looks well till then."""
        self.answer({"stream": True}, "Compute 1+1.", whole=False)

    def fault_lost_end(self):
        """The connection breaks behind the last piece, before the count of tokens."""
        self.answer({"stream": True}, self.question, lost_end=True)

    def fault_cut_body(self):
        """Fewer bytes than were promised."""
        self.send(200, b'{"choices": [', Content_Length="1000")

    def fault_hang_up(self):
        """No answer at all."""

    def fault_malformed(self):
        self.send(200, b'{"choices": [{"message": {"content": "\\boxed{2}"')

    def fault_malformed_event(self):
        self.send(200, b'data: {"choices": [{"delta"\n\n', Content_Type="text/event-stream")

    def fault_error_event(self):
        self.send(200, b'data: {"error": {"message": "out of memory"}}\n\n', Content_Type="text/event-stream")

    def fault_limit(self):
        self.send(200, {"error": {"message": f"Rate limit exceeded, dear {KEY}", "code": 429}})

    def fault_too_long(self):
        """An error that lasts, as llama.cpp tells it in a stream; its status cannot be changed any more."""
        error = b'data: {"error": {"message": "the request exceeds the context", "code": 400}}\n\n'
        self.send(200, error, Content_Type="text/event-stream")

    def fault_whole(self):
        """The answer in one piece, whether a stream was asked for or not."""
        self.answer({}, self.question)

    def fault_nulls(self):
        """Fields that hold nothing."""
        events = (
            b'data: {"choices": null}\n\ndata: {"error": null, "choices": [{"delta": {"content": "\\\\boxed{1}"}}]}'
        )
        end = b'\n\ndata: {"error": null, "choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
        self.send(200, events + end, Content_Type="text/event-stream")

    def fault_chinese(self):
        self.send(400, {"error": {"message": "余额不足"}})

    def fault_list(self):
        self.send(200, [1, 2])

    def fault_no_choices(self):
        self.send(200, {"choices": []})

    def fault_no_message(self):
        self.send(200, {"choices": [{"message": None, "finish_reason": "stop"}]})

    def fault_number(self):
        self.send(200, {"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]})

    def fault_deep(self):
        self.send(200, b"[" * 100_000)

    def fault_key(self):
        self.send(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})

    def fault_unpaid(self):
        self.send(402, {"error": {"message": "no credit left"}})

    def fault_unknown(self):
        self.send(404, {"error": {"message": "model 'oracle' not found"}})

    def fault_refused(self):
        self.send(400, {"error": {"message": f"top_p is unknown, dear {KEY}"}})
