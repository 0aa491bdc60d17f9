"""Who runs when: one worker thread, training requests in order, sampling in between.

Owns: the worker thread and the order of work. Each model's training requests run strictly by
sequence number whatever their order of arrival; between two of them every sampling batch advances
by one token, so training and sampling share the machine and neither waits for the other's end.
"""

import concurrent.futures
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cookbook.engine.errors import UserError
from cookbook.engine.futures import Failure, Future

log = logging.getLogger(__name__)
Result = dict | bytes
T = TypeVar("T")
MISSING_TIMEOUT_S = 600.0  # longer than any client keeps retrying a submission


def settle(future: Future, work: Callable[[], Result]) -> None:
    """Run `work` and put its outcome, or the reason of its failure, into `future`."""
    try:
        future.resolve(work())
    except UserError as error:
        future.resolve(Failure(str(error), "user"))
    except Exception as error:
        log.exception("request failed")
        future.resolve(Failure(f"engine error: {type(error).__name__}: {error}", "server"))


def _guarded(step: Callable[[], T]) -> T | bool:
    """Return what `step` returns; after an error, which is logged, that there was work."""
    try:
        return step()
    except Exception:
        log.exception("the worker failed")
        return True


@dataclass
class _Line:
    """One model's training requests."""

    next_id: int = 1
    parked: dict[int, tuple[Future, Callable[[], Result]]] = field(default_factory=dict)
    waiting_since: float = field(default_factory=time.monotonic)


class Scheduler:
    """The worker thread and its queues.

    Whatever computes must do so on the worker, the loading of weights included: GNU OpenMP counts
    the threads of every team in a process, and once they outnumber the cores it puts them to sleep
    at each small operation, which costs a third of the speed.

    Attributes:
        advance_sampling: does one decoding step and returns whether one was due.
    """

    def __init__(self) -> None:
        self.advance_sampling: Callable[[], bool] = lambda: False
        self._actions: deque[Callable[[], None]] = deque()
        self._jobs: deque[tuple[Future, Callable[[], Result]]] = deque()
        self._lines: dict[str, _Line] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine-worker", daemon=True)

    def start(self) -> None:
        """Start the worker."""
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> bool:
        """End the worker after the operation in hand; return whether it ended in time."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, future: Future, work: Callable[[], Result]) -> None:
        """Queue work that has no order with respect to a model's training requests."""
        with self._wake:
            self._jobs.append((future, work))
            self._wake.notify()

    def call(self, action: Callable[[], None]) -> None:
        """Let the worker do something quick before its next decoding step or job.

        All that has arrived is done at once, so that requests sent together are decoded together.
        """
        with self._wake:
            self._actions.append(action)
            self._wake.notify()

    def compute(self, work: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Run `work` on the worker; the future has what it returns, or its error."""
        outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

        def action() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:
                outcome.set_exception(error)

        self.call(action)
        return outcome

    def submit_ordered(
        self, model_id: str, seq_id: int, future: Future, work: Callable[[], Result]
    ) -> None:
        """Queue training work; it runs after all lower numbers of its model have run."""
        with self._wake:
            line = self._lines.setdefault(model_id, _Line())
            if seq_id < line.next_id:
                text = f"request number {seq_id} of {model_id} comes too late"
                future.resolve(Failure(f"{text}; number {line.next_id} is next", "server"))
                return
            if not line.parked:
                line.waiting_since = time.monotonic()
            line.parked[seq_id] = (future, work)
            while line.next_id in line.parked:
                self._jobs.append(line.parked.pop(line.next_id))
                line.next_id += 1
                line.waiting_since = time.monotonic()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            while self._actions:
                _guarded(self._actions.popleft())
            sampled = _guarded(self.advance_sampling)
            with self._wake:
                if self._stopping:
                    return
                job = self._jobs.popleft() if self._jobs else None
                if not (job or sampled or self._actions):
                    self._wake.wait(timeout=5.0)
                    self._fail_stranded()
            if job:
                settle(*job)

    def _fail_stranded(self) -> None:
        """Fail requests that wait for a number that never came (its submission was lost)."""
        now = time.monotonic()
        for model_id, line in self._lines.items():
            if line.parked and now - line.waiting_since > MISSING_TIMEOUT_S:
                text = (
                    f"request number {line.next_id} of {model_id} never arrived, so later ones "
                    "can't run; submit them again"
                )
                line.next_id = max(line.parked) + 1
                for future, _ in line.parked.values():
                    future.resolve(Failure(text, "server"))
                line.parked.clear()
