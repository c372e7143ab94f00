"""An end to loops that have none."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeUp(BaseException):
    """The time of a check is over, after `seconds`. No `except Exception` of the reader's stops it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimeUp in the block after so many seconds (None or 0: never); four times as many where the block waits.

    That takes a timer of the system (Linux and macOS have it) and the main thread, where notebooks run. Elsewhere the
    reader is told instead, after the same time, that the check is still running.
    """
    if not seconds:
        yield
    elif hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        yield from _stopped_after(seconds)
    else:
        yield from _told_after(seconds)


def _stopped_after(seconds: float) -> Iterator[None]:
    running, begun, worked = True, time.monotonic(), time.process_time()

    def stop(signal_number: int, frame: FrameType | None) -> None:
        passed = time.monotonic() - begun
        if not running:  # a signal that came at the very end
            return
        if time.process_time() - worked < seconds / 2 and passed < 3.5 * seconds:  # the machine is busy otherwise
            signal.setitimer(signal.ITIMER_REAL, seconds)
            return
        raise TimeUp(passed)

    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        running = False
        rest = max(0.001, left - (time.monotonic() - begun)) if left else 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        signal.setitimer(signal.ITIMER_REAL, rest, interval)


def _told_after(seconds: float) -> Iterator[None]:
    text = f"The check has been running for {seconds:g} s: if your code loops for ever, interrupt the cell."
    timer = threading.Timer(seconds, print, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
