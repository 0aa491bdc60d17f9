"""Results that clients come back for.

Owns: every request's outcome from submission until it was fetched. A worker thread sets results,
HTTP handlers wait for them; asking again for the same id returns the same bytes.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

KEEP_FETCHED_S = 300.0  # a reply lost on the way is asked for again with the same id
KEEP_UNFETCHED_S = 24 * 3600.0  # a notebook may submit in the evening and ask in the morning


@dataclass(frozen=True)
class Failure:
    """A request that failed: the text goes to the user as it is."""

    text: str
    category: str  # "user" or "server"


@dataclass(eq=False)
class Future:
    """One pending or finished result: JSON (dict), protobuf (bytes) or a Failure."""

    reply: dict[str, Any]  # what the submission answered; repeated for a repeated submission
    result: dict[str, Any] | bytes | Failure | None = None
    cancelled: bool = False
    made_at: float = field(default_factory=time.monotonic)
    fetched_at: float | None = None
    _waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def resolve(self, result: dict[str, Any] | bytes | Failure) -> None:
        """Set the result once and wake everyone who waits for it (from any thread)."""
        with self._lock:
            if self.result is not None:
                return
            self.result = result
            waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)

    def cancel(self) -> None:
        """Fail the request, because its client no longer waits for it."""
        self.cancelled = True
        self.resolve(Failure("the request was cancelled by its client", "user"))

    async def wait(self, timeout_s: float) -> dict[str, Any] | bytes | Failure | None:
        """Return the result, or None if it is not there after `timeout_s` seconds."""
        event = asyncio.Event()
        with self._lock:
            if self.result is None:
                self._waiters.append((asyncio.get_running_loop(), event))
            else:
                event.set()
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return None
        self.fetched_at = self.fetched_at or time.monotonic()
        return self.result


class Futures:
    """All futures, by request id and by what makes a repeated submission recognisable.

    Used by the HTTP side only, so it needs no lock.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, Future] = {}
        self._by_key: dict[Hashable, Future] = {}
        self._next_cleaning = 0.0

    def new(self, key: Hashable, **reply: Any) -> Future:
        """Return a new future whose submission answers `reply` plus its request id.

        Args:
            key: names the submission, such as ("train", model id, sequence number); a client that
                lost the reply submits again and must be given the same future by `repeated`.
            reply: further fields of the submission's answer.
        """
        self._clean()
        request_id = uuid.uuid4().hex
        future = Future({"request_id": request_id, **reply})
        self._by_id[request_id] = self._by_key[key] = future
        return future

    def repeated(self, key: Hashable) -> Future | None:
        """Return the future of an earlier submission with the same key."""
        return self._by_key.get(key)

    def get(self, request_id: str) -> Future | None:
        """Return a future by id; None when unknown or long fetched."""
        return self._by_id.get(request_id)

    def _clean(self) -> None:
        now = time.monotonic()
        if now < self._next_cleaning:
            return
        self._next_cleaning = now + 10

        def recent(future: Future) -> bool:
            if future.fetched_at is not None:
                return now - future.fetched_at < KEEP_FETCHED_S
            return future.result is None or now - future.made_at < KEEP_UNFETCHED_S

        self._by_id = {key: future for key, future in self._by_id.items() if recent(future)}
        self._by_key = {key: future for key, future in self._by_key.items() if recent(future)}
