"""An end to what a user's function may never finish: a loop until something is below 1e-10, at a point of ours."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LEAST = 1.0
"""Seconds that every call has."""


class EndlessError(BaseException):
    """One call took too long. No Exception: what catches those on the way would go on to the next call."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """EndlessError after so many seconds of processor time, which a busy machine does not make fewer.

    Only in the main thread, on POSIX, can Python be stopped; elsewhere it is not.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise EndlessError(f"no answer within {seconds:.3g} s")

    seconds = max(seconds, LEAST)
    kept = signal.signal(signal.SIGPROF, stop)
    # again after a while: one raised while garbage is collected is lost; not at once, or it rings while one is handled
    left, interval = signal.setitimer(signal.ITIMER_PROF, seconds, max(seconds, 1.0))
    try:
        yield
    finally:
        _ = signal.setitimer(signal.ITIMER_PROF, left, interval)
        _ = signal.signal(signal.SIGPROF, kept)
