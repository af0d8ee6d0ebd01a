"""An end to what a user's function may never finish: a loop until something is below 1e-10, at a point of ours."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


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

    kept = signal.signal(signal.SIGPROF, stop)
    # again and again: one raised while garbage is collected is lost
    left, interval = signal.setitimer(signal.ITIMER_PROF, seconds, 0.2)
    try:
        yield
    finally:
        _ = signal.setitimer(signal.ITIMER_PROF, left, interval)
        _ = signal.signal(signal.SIGPROF, kept)
