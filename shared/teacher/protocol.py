"""One request to a server with the OpenAI interface, and what may go wrong with it. Taught in ch08.

Not covered: tools, images, answers in parts (a list as `content`), the Responses interface.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

from shared.teacher.samples import Reply, split_thinking

try:
    import httpx
except ModuleNotFoundError:  # it comes with jupyterlab, and else with the extra "teacher"
    httpx = None

# DeepSeek and older vLLM, newer vLLM and Ollama.
THINKING_FIELDS = ("reasoning_content", "reasoning")
LONGEST_WAIT = 600.0  # seconds; a server that asks for more has to be asked another day
BAD_FORM = (
    ValueError,
    RecursionError,
    LookupError,
    TypeError,
    AttributeError,
)  # what reading odd JSON raises


class AskAgain(Exception):
    """The request failed in a way that may pass. `wait` is how long the server asks to wait, in seconds, or None."""

    def __init__(self, reason: str, wait: float | None = None):
        super().__init__(reason)
        self.wait = wait


class NoConnection(AskAgain):
    """Nobody listens at the address."""


class Unanswered(Exception):
    """This sample cannot be had, others perhaps."""


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
        first_wait: seconds before the second try; each further wait is twice as long, up to a minute.
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
    tries: int = 6
    first_wait: float = 1.0
    stream: bool = True
    price_in: float = 0.0
    price_out: float = 0.0
    extra: dict = field(default_factory=dict)

    def __post_init__(self):
        if httpx is None:
            raise ValueError("The HTTP client is missing: install it with pip install httpx.")
        if not self.base_url:
            raise ValueError("OPENAI_BASE_URL is not set: set it, for Ollama to http://localhost:11434/v1.")
        if self._url is None:
            raise ValueError("OPENAI_BASE_URL is no address: give one such as http://localhost:11434/v1.")
        if not re.fullmatch("[!-~]*", self.api_key):
            raise ValueError("OPENAI_API_KEY holds white space or signs that no key has: set it anew.")
        if not isinstance(self.extra, dict):
            raise ValueError(f"extra is {self.extra!r}: give an object of names and values.")
        for name in ("concurrency", "timeout", "tries"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give more than 0.")

    @property
    def _url(self) -> httpx.URL | None:
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL:
            return None
        return url if url.scheme in ("http", "https") and url.host else None

    @property
    def place(self) -> str:
        """The address without a name, password or query that may stand in it."""
        return str(self._url.copy_with(userinfo=b"", query=None, fragment=None))

    def client(self) -> httpx.AsyncClient:
        """A new HTTP client for this server; close it after use."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers=headers,
            timeout=httpx.Timeout(self.timeout, connect=min(self.timeout, 10.0), pool=None),
            limits=httpx.Limits(max_connections=self.concurrency),
            trust_env=self._url.host
            not in ("localhost", "127.0.0.1", "::1"),  # no proxy to one's own machine
        )

    def body(self, question: str, **sampling: float | int | None) -> dict:
        """The request's JSON; what is None is left out."""
        fields = {"model": self.model, "messages": [{"role": "user", "content": question}], **sampling}
        if self.stream:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return {name: value for name, value in (fields | self.extra).items() if value is not None}

    async def ask(self, client: httpx.AsyncClient, body: dict) -> Reply:
        """Send one request. Raises AskAgain, Unanswered or Refused if no whole answer comes."""
        try:
            async with client.stream("POST", "chat/completions", json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise self._failure(response)
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    return await _read_stream(response)
                return _read_plain(await response.aread())
        except httpx.TimeoutException as error:
            raise AskAgain(f"no sign of life for {self.timeout:g} s") from error
        except httpx.ConnectError as error:
            raise NoConnection(f"No server answers at {self.place}") from error
        except httpx.RequestError as error:
            raise AskAgain(f"the connection broke ({type(error).__name__})") from error

    def _failure(self, response: httpx.Response) -> Exception:
        """The error for an answer with another status than 200."""
        status, said = response.status_code, self._said(response)
        if status == 401:
            return Refused("The server refuses the key (status 401): set OPENAI_API_KEY to a valid one.")
        if status == 402:
            return Refused(f"The server wants to be paid first (status 402{said}): top up the account.")
        if status == 404:
            return Refused(
                f"{self.place} has no such address or model (status 404{said}): check OPENAI_BASE_URL, which mostly "
                f"ends in /v1, and the model's name {self.model!r}."
            )
        if status in (408, 409, 425, 429) or status >= 500:
            wait = retry_after(response.headers.get("retry-after"))
            if wait is not None and wait > LONGEST_WAIT:
                return Refused(f"The server asks to wait {wait:,.0f} s (status {status}{said}): go on then.")
            return AskAgain(f"status {status}{said}", wait)
        return Unanswered(f"status {status}{said}")

    def _said(self, response: httpx.Response) -> str:
        """The server's own words, shortened; some servers repeat the key in them."""
        try:
            error = json.loads(response.content)
            error = error.get("error", error)
            text = error if isinstance(error, str) else error.get("message") or ""
        except BAD_FORM:
            return ""
        text = " ".join(str(text).split())
        text = text.replace(self.api_key, "***") if self.api_key else text
        return f", {text[:200]}" if text else ""


def retry_after(header: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, which holds seconds or a date; None if it holds neither."""
    try:
        return max(0.0, float(header))
    except (TypeError, ValueError):
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _read_plain(content: bytes) -> Reply:
    """The answer in one JSON object."""
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        if not isinstance(choice["finish_reason"], str):
            raise TypeError("finish_reason expected")
        return _reply(_texts(choice["message"]), choice["finish_reason"], body.get("usage"))
    except BAD_FORM as error:
        raise AskAgain("an answer that is no completion in JSON") from error


async def _read_stream(response: httpx.Response) -> Reply:
    """The answer in pieces. It is whole once a `finish_reason` has come, whatever happens to the stream then."""
    pieces: list[tuple[str, str]] = []
    finish_reason = usage = None
    try:
        async for data in _events(response):
            event = json.loads(data)
            if "error" in event:
                raise AskAgain("an error in the middle of an answer")
            usage = event.get("usage") or usage
            for choice in event["choices"][:1]:
                pieces.append(_texts(choice.get("delta") or {}))
                finish_reason = str(choice.get("finish_reason") or "") or finish_reason
    except httpx.RequestError:
        if finish_reason is None:
            raise
    except BAD_FORM as error:
        if finish_reason is None:
            raise AskAgain("a piece of an answer that is no JSON of the kind") from error
    if finish_reason is None:
        raise AskAgain("an answer that was cut off")
    thinking, content = ("".join(part) for part in zip(*pieces, strict=True))
    return _reply((thinking, content), finish_reason, usage)


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of server-sent events. (`Response.aiter_lines` would also break at U+2028, inside the JSON.)"""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for data in filter(None, map(_data, lines)):
            yield data
    if data := _data(rest):
        yield data


def _data(line: bytes) -> bytes | None:
    data = line.removeprefix(b"data:").strip()
    return data if line.startswith(b"data:") and data != b"[DONE]" else None


def _texts(message: dict) -> tuple[str, str]:
    """Thinking and content of a message, or of a piece of one."""
    thinking = next((message[name] for name in THINKING_FIELDS if message.get(name)), "")
    content = message.get("content") or ""
    if not isinstance(thinking, str) or not isinstance(content, str):
        raise TypeError("texts expected")
    return thinking, content


def _reply(texts: tuple[str, str], finish_reason: str, usage: object) -> Reply:
    """Also of an empty answer: it was paid for, and the verifier rejects it."""
    thinking, content = (text.strip() for text in texts)
    if not thinking:
        thinking, content = split_thinking(content)
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    return Reply(thinking, content, finish_reason, *counts)


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None
