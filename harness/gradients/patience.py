"""An end to what a user's function may never finish: a loop until something is below 1e-10, at a point of our choice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _TimeUp(BaseException):
    """No Exception: what catches those on the way would go on."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds. Only in the main thread, on POSIX, can Python be stopped; elsewhere it is not."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _TimeUp

    kept = signal.signal(signal.SIGALRM, stop)
    # again and again: one raised while garbage is collected is lost
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        yield
    except _TimeUp:
        raise TimeoutError(f"no answer within {seconds:.3g} s") from None
    finally:
        _ = signal.setitimer(signal.ITIMER_REAL, left, interval)
        _ = signal.signal(signal.SIGALRM, kept)
