"""A server as the teacher: many requests at a time, retries, and a stop that loses nothing. Taught in ch08.

An answer is written as soon as it is whole and is never asked for again. What cannot be helped: an answer that comes
spoiled (cut, garbled, timed out) is asked for again, and the server's owner may charge for both.
"""

import asyncio
import random
import sys
import zlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from shared.support.progress import progress_bar
from shared.support.values import plain_seed
from shared.teacher.protocol import AskAgain, NoConnection, Refused, Server, Unanswered
from shared.teacher.samples import (
    Job,
    Reply,
    SamplesFile,
    Tally,
    chat_question,
    check_problems,
    check_sampling,
)

GIVE_UP_AFTER = 5  # samples in a row that cannot be had: then the fault is not in the problems
LONGEST_BACK_OFF = 60.0  # seconds
T = TypeVar("T")


async def ask_server_async(
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
) -> Tally:
    """Let a server's model solve problems and append what the verifier accepts to a file, as it comes.

    A call that was stopped goes on where it was: what is in the file, kept or rejected, is not asked again. A sample
    that fails `server.tries` times is left for the next call and counted as failed. A task that is cancelled waits
    for the answers that are under way, since they are paid for; cancelled again it drops them.

    Args:
        problems: dicts with at least `problem` and `answer`, such as `load_minimath` gives.
        path: the file of rows, ending in .jsonl (see `SamplesFile` for those beside it).
        prompt: a style of `render_prompt`, or a function from a problem's text to the user's message.
        num_samples: answers a problem; raise it later to get more of them.
        temperature, top_p, max_new_tokens: go into the request.
        seed: if given, each sample's request has a seed of its own made from it; some servers do not take one.
        keep_rejected: keep the texts of wrong or unfinished answers too, in the second file.
        progress: show a progress bar.

    Raises:
        ConnectionError: the server refuses the key, lacks the model, cannot be reached, or fails again and again.
        ValueError: for settings out of range, problems without the fields, or a file that does not fit.
    """
    problems = check_problems(problems)
    check_sampling(num_samples, temperature, top_p, max_new_tokens)
    seed = plain_seed(seed)
    sampling = {"temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}

    def request(job: Job) -> dict:
        problem, sample = job
        own = None if seed is None else zlib.crc32(f"{seed} {problem['unique_id']} {sample}".encode()) >> 1
        return server.body(chat_question(problem["problem"], prompt), **sampling, seed=own)

    settings = {
        "model": server.model, "prompt": chat_question("Compute 1+1.", prompt), **sampling, "seed": seed,
        "extra": server.extra,
    }  # fmt: skip
    with SamplesFile(path, settings, problems, keep_rejected) as file:
        jobs, total = file.jobs(num_samples), len(problems) * num_samples
        tally = file.tally(num_samples, price_in=server.price_in, price_out=server.price_out)
        with progress_bar(total, unit="sample", shown=progress, done=total - len(jobs)) as bar:
            await _Crew(server, file, jobs, request, tally, bar).work()
    return tally


def ask_server(problems: Sequence[dict], path: Path | str, server: Server, **options) -> Tally:
    """As `ask_server_async`, with the same `options`, for scripts and for notebooks, where a loop runs already.

    Ctrl-C, or the notebook's stop button, waits for the answers that are under way, since they are paid for; a second
    one drops them. Then KeyboardInterrupt is raised.
    """
    return in_a_thread(ask_server_async(problems, path, server, **options))


def in_a_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own; KeyboardInterrupt cancels it there, and comes up when it has ended.

    A notebook's own thread has a running loop already, so a loop of our own needs another thread.
    """
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task]] = Future()

    async def main():
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    interrupted = False
    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(copy_context().run, asyncio.run, main())  # the context tells where output goes
        loop, task = started.result()
        while True:
            try:
                while not finished.done():
                    wait([finished], timeout=0.2)  # without an end it could not be interrupted on Windows
                break
            except KeyboardInterrupt:
                interrupted = True
                with suppress(RuntimeError):  # the loop has just ended
                    loop.call_soon_threadsafe(task.cancel)
    if interrupted:
        raise KeyboardInterrupt
    return finished.result()


class _Crew:
    """Workers that take one job after another until there is none left, or something stops them all."""

    def __init__(
        self,
        server: Server,
        file: SamplesFile,
        jobs: list[Job],
        request: Callable[[Job], dict],
        tally: Tally,
        bar: tqdm,
    ):
        self.server, self.file, self.request, self.tally, self.bar = server, file, request, tally, bar
        self.jobs = iter(jobs)
        self.size = min(server.concurrency, len(jobs))
        self.stop = asyncio.Event()
        self.error: Exception | None = None
        self.failed_in_a_row = 0

    async def work(self) -> None:
        """Do all jobs. Raises what stopped them, when the requests under way have ended."""
        if self.size == 0:
            return
        async with self.server.client() as client:
            workers = [asyncio.create_task(self._worker(client)) for _ in range(self.size)]
            try:
                await self._finish(workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        if self.error:
            raise self.error

    async def _finish(self, workers: list[asyncio.Task]) -> None:
        try:
            await asyncio.wait(workers)
        except asyncio.CancelledError:
            self.stop.set()
            note = "Stopping when the answers under way are there; interrupt again to drop them."
            print(note, file=sys.stderr)
            await asyncio.wait(workers)
            raise

    async def _worker(self, client) -> None:
        while not self.stop.is_set() and (job := next(self.jobs, None)):
            try:
                reply = await self._ask(client, self.request(job))
                if reply is not None:
                    self._take(job, reply)
            except Unanswered as failure:
                self._fail(str(failure))
            except Exception as error:  # after any other, a full disk say, no worker can go on
                self._give_up(error)

    async def _ask(self, client, body: dict) -> Reply | None:
        """One answer, with as many tries as it may take; None if all are to stop meanwhile."""
        tried = 0
        while True:
            try:
                return await self.server.ask(client, body)
            except NoConnection as failure:
                if self.tally.asked == 0:  # it is not there at all
                    raise Refused(f"{failure}: start the server, or check OPENAI_BASE_URL.") from failure
                reason = failure
            except AskAgain as failure:
                reason = failure
            tried += 1
            if tried == self.server.tries:
                raise Unanswered(f"{reason}, {tried} times")
            await self._pause(tried, reason.wait)
            if self.stop.is_set():
                return None
            self.tally.retries += 1

    async def _pause(self, tried: int, asked_for: float | None) -> None:
        """Wait longer from try to try, and no two workers equally long; less only if all are to stop."""
        back_off = min(LONGEST_BACK_OFF, self.server.first_wait * 2 ** (tried - 1))
        jitter = random.uniform(0.5, 1.0) * back_off
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.stop.wait(), jitter if asked_for is None else asked_for + jitter)

    def _take(self, job: Job, reply: Reply) -> None:
        self.failed_in_a_row = 0
        self.tally.count(reply, self.file.add(job, reply))
        self.bar.update(1)
        self.bar.set_postfix(self.tally.short())

    def _fail(self, reason: str) -> None:
        self.tally.failed += 1
        self.tally.last_failure = reason
        self.failed_in_a_row += 1
        if self.failed_in_a_row == GIVE_UP_AFTER:
            self._give_up(
                Refused(
                    f"{GIVE_UP_AFTER} samples in a row failed ({reason}): mend that, then run again to go on."
                )
            )

    def _give_up(self, error: Exception) -> None:
        self.error = self.error or error
        self.stop.set()
