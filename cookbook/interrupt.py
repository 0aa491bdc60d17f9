"""Ctrl-C (or a kernel's interrupt button) that lets the step in flight finish."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether an interrupt has arrived."""

    requested = False


@contextmanager
def deferred_interrupt() -> Iterator[StopRequest]:
    """Turn the first interrupt into a flag to look at between steps; a second one stops at once.

    Only the main thread receives interrupts; in others the flag just stays False.
    """
    stop = StopRequest()
    previous = signal.getsignal(signal.SIGINT)

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        print("Interrupt: finishing this step and saving. Once more stops at once.", flush=True)

    if previous is None or threading.current_thread() is not threading.main_thread():
        yield stop
        return
    signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
