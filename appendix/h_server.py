"""A server with the OpenAI interface as teacher or judge, asked by the `openai` package. Taught in appendix H, H.5.

    server = Server("qwen3:8b")              # with OPENAI_BASE_URL and OPENAI_API_KEY in the environment
    ask_server(problems, "data.jsonl", server, num_samples=4)

The package tries again after what may pass (a busy server, status 500, a connection that breaks before the answer),
waits as long as the server asks, up to two minutes, and reads streams. Ours is what it cannot know: when an answer is
whole, when no further request makes sense, that nothing is asked for twice, and what Ctrl-C does.

An answer is written as soon as it is whole. What cannot be helped: one that comes spoiled (cut, garbled) is asked for
again, and the server's owner may charge for both.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from shared.distillation.examples import chat_question
from shared.generation.prompts import split_thinking
from shared.generation.sampling import plain_seed
from shared.support.progress import progress_bar
from shared.teacher.replies import Reply
from shared.teacher.samples import Job, SamplesFile, Tally, ensure_sampling, unified_problems

try:
    import openai
except ModuleNotFoundError:
    openai = None

T = TypeVar("T")
RETRY_DELAY = 0.5  # seconds before an answer that came spoiled is asked for again, twice as long each time
GIVE_UP_AFTER = 5  # samples in a row that cannot be had: then the fault is not in the problems
LONGEST_WAIT = 120  # seconds that the package waits if asked to; else the server has to be asked another day
THINKING_FIELDS = ("reasoning_content", "reasoning")  # DeepSeek and older vLLM, newer vLLM and Ollama
BAD_FORM = (ValueError, RecursionError, LookupError, TypeError, AttributeError)  # what reading odd JSON raises
MAY_PASS = (408, 409, 429)  # what is asked again of the statuses from 400 to 499
OWN_MACHINE = ("localhost", "127.0.0.1", "::1")


class Unanswered(Exception):
    """This sample cannot be had, others perhaps."""


class Spoiled(Unanswered):
    """An answer came and is not whole."""


class Told(Exception):
    """With status 200 came not an answer but an error: its `args[0]` is what the server says of it."""


class Refused(ConnectionError):
    """No sample can be had from this server before the reader has mended something."""


@dataclass(frozen=True)
class Server:
    """A server with the OpenAI interface (Ollama, vLLM, llama.cpp, a cloud provider) and how to ask it.

    Attributes:
        model: the model's name there.
        base_url: address up to and with `/v1`; by default the environment variable OPENAI_BASE_URL.
        api_key: by default the environment variable OPENAI_API_KEY; it is neither shown nor written anywhere.
        concurrency: how many requests are under way at most.
        timeout: seconds without a sign of life until a request counts as failed.
        tries: how often one sample is asked for, at most.
        stream: have the answer sent piece by piece, so that a long one does not look like a dead connection.
        price_in, price_out: price of a million tokens read and written, in any currency.
        extra: further fields of the request, such as {"reasoning_effort": "low"}; None takes one of ours out.

    Raises ValueError for an address or key that cannot be one, and numbers out of range.
    """

    model: str
    base_url: str = field(default_factory=lambda: os.environ.get("OPENAI_BASE_URL", ""), repr=False)
    api_key: str = field(default_factory=lambda: os.environ.get("OPENAI_API_KEY", ""), repr=False)
    concurrency: int = 8
    timeout: float = 120.0
    tries: int = 8
    stream: bool = True
    price_in: float = 0.0
    price_out: float = 0.0
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        if openai is None:
            raise ValueError("The package that asks servers is missing: install it with pip install openai.")
        if not self.base_url:
            raise ValueError("OPENAI_BASE_URL is not set: set it, for Ollama to http://localhost:11434/v1.")
        if not re.match(r"https?://[^/?#]*[^/?#@:]", self.base_url):
            raise ValueError("OPENAI_BASE_URL is no address: give one such as http://localhost:11434/v1.")
        if not re.fullmatch("[!-~]*", self.api_key):
            raise ValueError("OPENAI_API_KEY holds white space or signs that no key has: set it anew.")
        if not isinstance(self.extra, dict):
            raise ValueError(f"extra is {self.extra!r}: give an object of names and values.")
        for name in ("concurrency", "timeout", "tries"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give more than 0.")

    @property
    def place(self) -> str:
        """The address without a name, password or query that may stand in it."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def client(self) -> openai.OpenAI:
        """A new client for this server; close it after use. Raises Refused where nobody listens."""
        no_proxy = urlsplit(self.base_url).hostname in OWN_MACHINE  # none leads to one's own machine
        client = openai.OpenAI(
            base_url=self.base_url,
            api_key=self.api_key or "none",  # a server of one's own needs none, the package does
            timeout=openai.Timeout(self.timeout, connect=min(self.timeout, 10.0)),
            max_retries=self.tries - 1,
            http_client=openai.DefaultHttpxClient(trust_env=not no_proxy),
        )
        try:  # whatever it answers, somebody is there
            client.with_options(max_retries=0).models.with_raw_response.list()
        except openai.APIConnectionError:
            client.close()
            raise Refused(f"No server answers at {self.place}: start the server, or check OPENAI_BASE_URL.") from None
        except (openai.OpenAIError, *BAD_FORM):
            pass
        return client

    def ask(self, client: openai.OpenAI, question: str, **sampling: float | int | None) -> Reply:
        """The whole answer to one question. Raises Unanswered or Refused if none comes."""
        usage = {"stream_options": {"include_usage": True}} if self.stream else {}
        fields = sampling | usage | self.extra
        request = {
            "model": self.model,
            "messages": [{"role": "user", "content": question}],
            "stream": self.stream,
            "extra_body": {name: value for name, value in fields.items() if value is not None},
        }
        for number in range(self.tries - 1):
            with suppress(Spoiled):
                return self._ask_once(client, request)
            time.sleep(min(RETRY_DELAY * 2**number, 8))
        return self._ask_once(client, request)

    def _ask_once(self, client: openai.OpenAI, request: dict) -> Reply:
        try:
            answer = client.chat.completions.create(**request)
        except openai.APIStatusError as error:
            raise self._failure(error) from None  # the package's own words may hold the key
        except openai.APITimeoutError:
            raise Unanswered(f"no sign of life for {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise Unanswered(f"the connection broke ({type(error.__cause__).__name__})") from None
        except (openai.OpenAIError, *BAD_FORM) as error:
            raise Spoiled(f"an answer that is none ({type(error).__name__})") from None
        try:
            reply = read_pieces(pieces_of(answer) if self.stream else [answer])
        except Told as error:
            code = error.args[0].get("code") if isinstance(error.args[0], dict) else None
            lasts = isinstance(code, int) and 400 <= code < 500 and code not in MAY_PASS
            kind = Unanswered if lasts else Spoiled
            raise kind(f"an error in place of an answer{self._said(error.args[0])}") from None
        most = request["extra_body"].get("max_tokens")
        if most and (reply.tokens or 0) >= most:  # some servers say "stop" all the same
            reply = replace(reply, finish_reason="length")
        return reply

    def _failure(self, error: openai.APIStatusError) -> Exception:
        """What a status other than 200 means for the run."""
        status, said = error.status_code, self._said(error.body)
        if status == 401:
            return Refused("The server refuses the key (status 401): set OPENAI_API_KEY to a valid one.")
        if status == 402:
            return Refused(f"The server wants to be paid first (status 402{said}): top up the account.")
        if status == 404:
            return Refused(
                f"{self.place} has no such address or model (status 404{said}): check OPENAI_BASE_URL, which mostly "
                f"ends in /v1, and the model's name {self.model!r}."
            )
        wait = error.response.headers.get("retry-after", "")
        if wait.isdecimal() and int(wait) > LONGEST_WAIT:
            return Refused(f"The server asks to wait {int(wait):,} s (status {status}{said}): go on then.")
        return Unanswered(f"status {status}{said}")

    def _said(self, body: object) -> str:
        """The server's own words, shortened; some servers repeat the key in them."""
        said = body.get("message") if isinstance(body, dict) else body
        text = " ".join(said.split()) if isinstance(said, str) and not said.startswith("<") else ""
        text = text.replace(self.api_key, "***") if self.api_key else text
        return f", {text[:200]}" if text else ""


def pieces_of(stream: openai.Stream) -> Iterable:
    """The pieces of a stream; some servers, asked for one, send an error or the answer in one piece."""
    if "json" not in stream.response.headers.get("content-type", ""):
        return stream
    try:
        return [openai.types.chat.ChatCompletion.construct(**json.loads(stream.response.read()))]
    except Exception as error:  # the HTTP library's, or of odd JSON
        raise Spoiled(f"an answer that broke off ({type(error).__name__})") from None


def read_pieces(pieces: Iterable) -> Reply:
    """The reply that comes in pieces, of which a whole answer is one. It is whole once a `finish_reason` has come.

    An empty one counts too: it was paid for, and the verifier rejects it. Raises Spoiled or Told.
    """
    thinking, content, finish_reason, usage = "", "", None, None
    try:
        for piece in pieces:
            if getattr(piece, "error", None):
                raise Told(piece.error)
            usage = piece.usage or usage
            for choice in (piece.choices or ())[:1]:
                said = getattr(choice, "delta", None) or choice.message
                thinking += next(filter(None, (getattr(said, name, None) for name in THINKING_FIELDS)), "")
                content += said.content or ""
                finish_reason = choice.finish_reason or finish_reason
    except (openai.OpenAIError, *BAD_FORM) as error:
        if finish_reason is None:
            if getattr(error, "body", None):
                raise Told(error.body) from None
            raise Spoiled(f"an answer that broke off ({type(error).__name__})") from None
    if finish_reason is None:
        raise Spoiled("an answer that was cut off")
    counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
    counts = (n if type(n) is int else None for n in counts)
    more, content, _ = split_thinking(content)
    return Reply("\n\n".join(filter(None, (thinking.strip(), more))), content, finish_reason, *counts)


# --- many at a time -----------------------------------------------------------------------------------------


def in_threads(do: Callable[[T], object], jobs: Sequence[T], threads: int, *, patient: bool = True) -> None:
    """Do all jobs, so many at a time. After the first error of `do`, no other is begun, and it is raised.

    Ctrl-C, or a notebook's stop button: if `patient`, what is under way is awaited, since it is paid for, and a second
    one drops it. Then KeyboardInterrupt is raised.
    """
    rest, lock, stop, errors, ended = iter(jobs), threading.Lock(), threading.Event(), [], []

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    job = next(rest, None)
                if job is None:
                    break
                do(job)
        except Exception as error:  # after any, a full disk say, no worker can go on
            errors.append(error)
            stop.set()
        ended.append(1)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(jobs)))]
    for worker in workers:
        worker.start()
    while len(ended) < len(workers):
        try:
            while len(ended) < len(workers):
                time.sleep(0.05)  # a `join` that is interrupted takes its thread for ended (Python 3.11)
        except KeyboardInterrupt:
            if stop.is_set() or not patient:
                stop.set()
                raise
            stop.set()
            errors.append(KeyboardInterrupt())
            note = "Stopping when the answers under way are there; interrupt again to drop them."
            print(note, file=sys.stderr)
    if errors:
        raise errors[0]


def ask_all(server: Server, messages: Sequence[str], *, max_tokens: int = 1024) -> list[Reply]:
    """The server's reply to each message, at temperature 0.

    Ctrl-C drops the requests under way. Raises ConnectionError if the server refuses, or a message got no answer.
    """
    replies: dict[int, Reply] = {}
    with server.client() as client:

        def ask(number: int) -> None:
            try:
                replies[number] = server.ask(client, messages[number], temperature=0, max_tokens=max_tokens)
            except Unanswered as failure:
                raise Refused(f"A message got no answer ({failure}): mend that, then ask again.") from None

        in_threads(ask, range(len(messages)), server.concurrency, patient=False)
    return [replies[number] for number in range(len(messages))]


# --- a teacher ----------------------------------------------------------------------------------------------


@dataclass
class ServerTally(Tally):
    """A tally with what a server costs.

    `failed` samples could not be had, `uncounted` answers came without a count of tokens; prices are for a million
    tokens, in any currency.
    """

    failed: int = 0
    uncounted: int = 0
    price_in: float = 0.0
    price_out: float = 0.0
    last_failure: str | None = None
    failed_in_a_row: int = 0

    @property
    def cost(self) -> float:
        """Price of the answers that came in this run, in the currency of the prices."""
        return (self.prompt_tokens * self.price_in + self.tokens * self.price_out) / 1e6

    def count(self, reply: Reply, kept: bool) -> None:
        """Add one answer."""
        super().count(reply, kept)
        self.uncounted += reply.tokens is None
        self.failed_in_a_row = 0

    def fail(self, failure: Unanswered) -> None:
        """Add a sample that could not be had. Raises Refused after several in a row."""
        self.failed += 1
        self.failed_in_a_row += 1
        self.last_failure = str(failure)
        if self.failed_in_a_row == GIVE_UP_AFTER:
            raise Refused(
                f"{GIVE_UP_AFTER} samples in a row failed ({failure}): mend that, then run again to go on."
            ) from None

    def short(self) -> dict[str, str | int]:
        """What stands behind a progress bar."""
        return super().short() | ({"cost": f"{self.cost:.4f}"} if self.price_in or self.price_out else {})

    def __str__(self) -> str:
        text = super().__str__()
        if self.uncounted:
            text += f" ({self.uncounted} answers came without a count)"
        if self.failed:
            text += f", {self.failed} failed (the last one: {self.last_failure}; run again to ask for them)"
        return text + (f", cost {self.cost:.4f}" if self.price_in or self.price_out else "")


def ask_server(
    problems: Sequence[dict],
    path: Path | str,
    server: Server,
    *,
    prompt: str | Callable[[str], str] = "cot",
    num_samples: int = 1,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_new_tokens: int = 2048,
    seed: int | None = None,
    keep_rejected: bool = False,
    progress: bool = False,
) -> ServerTally:
    """Let a server's model solve problems and append what the verifier accepts to a file, as it comes.

    A call that was stopped goes on where it was: what is in the file, kept or rejected, is not asked again. A sample
    that fails `server.tries` times is left for the next call and counted as failed. For Ctrl-C see `in_threads`.

    Args:
        problems, path, num_samples, keep_rejected: see `ask_model`.
        prompt: a style of `render_prompt`, or a function from a problem's text to the user's message.
        temperature, top_p, max_new_tokens: go into the request.
        seed: if given, each sample's request has a seed of its own made from it; some servers do not take one.

    Raises:
        ConnectionError: the server refuses the key, lacks the model, cannot be reached, or fails again and again.
        ValueError: for settings out of range, problems without the fields, or a file that does not fit.
    """
    problems = unified_problems(problems)
    ensure_sampling(num_samples, temperature, top_p, max_new_tokens)
    seed, lock = plain_seed(seed), threading.Lock()
    sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
    settings = {"model": server.model, "prompt": chat_question("Compute 1+1.", prompt), **sampling, "seed": seed}
    with SamplesFile(path, settings | {"extra": server.extra}, problems, keep_rejected) as file:
        jobs, total = file.jobs(num_samples), len(problems) * num_samples
        prices = {"price_in": server.price_in, "price_out": server.price_out}
        tally = ServerTally(**vars(file.tally(num_samples)), **prices)
        if not jobs:
            return tally
        with (
            server.client() as client,
            progress_bar(total, unit="sample", shown=progress, done=total - len(jobs)) as bar,
        ):

            def solve(job: Job) -> None:
                question = chat_question(job[0]["problem"], prompt)
                try:
                    reply = server.ask(client, question, **sampling, seed=own_seed(seed, job))
                except Unanswered as failure:
                    with lock:
                        tally.fail(failure)
                    return
                with lock:
                    tally.count(reply, file.add(job, reply))
                    bar.update(1)
                    bar.set_postfix(tally.short())

            in_threads(solve, jobs, server.concurrency)
    return tally


def own_seed(seed: int | None, job: Job) -> int | None:
    """A sample's own seed, the same in every run."""
    problem, sample = job
    return None if seed is None else zlib.crc32(f"{seed} {problem['unique_id']} {sample}".encode()) >> 1
