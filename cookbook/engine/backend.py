"""What the handlers share: the runtime, its worker's queue, the futures, and the sessions.

Owns: how a request becomes a future, and that a repeated request becomes the same one.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from cookbook.engine.errors import UserError
from cookbook.engine.futures import Future, Futures
from cookbook.engine.runtime import Runtime
from cookbook.engine.scheduler import Scheduler, settle
from cookbook.engine.sessions import Sessions


class Backend:
    """One engine's state behind the HTTP handlers, which touch no tensor themselves."""

    def __init__(self, runtime: Runtime, scheduler: Scheduler) -> None:
        self.runtime = runtime
        self.scheduler = scheduler
        self.futures = Futures()
        self.sessions = Sessions()
        self.last_requests: dict[str, str] = {}  # model id -> time of its newest request

    def release_gone_sessions(self) -> None:
        """Give back what finished and silent sessions hold, after the work they have queued."""
        for session_id in self.sessions.take_gone():
            self.scheduler.submit(Future({}), lambda gone=session_id: self._release(gone))

    def _release(self, session_id: str) -> dict:
        self.runtime.release(session_id)
        return {}

    def check_base_model(self, name: str | None) -> None:
        """Raise UserError for another base model than the one that is loaded."""
        if name not in (None, self.runtime.model_name, str(self.runtime.folder)):
            raise UserError(
                f"base model is {name!r}; this engine serves {self.runtime.model_name!r} only. "
                f"Start one for another model with: python -m cookbook.engine --model {name}"
            )

    def queue(self, key: tuple, work: Callable[[], Any], **reply: Any) -> Response:
        """Submit work without an order; a repeated submission gets the first one's reply."""
        future = self.futures.repeated(key)
        if future is None:
            future = self.futures.new(key, **reply)
            self.scheduler.submit(future, work)
        return JSONResponse(future.reply)

    def queue_ordered(self, body: Any, work: Callable[[], Any]) -> Response:
        """Submit training work that runs by its model's sequence number."""
        model_id, seq_id = body.model_id, body.seq_id
        if not isinstance(model_id, str) or not isinstance(seq_id, int) or seq_id < 1:
            raise UserError(
                f"model_id is {model_id!r} and seq_id {seq_id!r}; a training request needs a "
                "model's id and a number from 1"
            )
        self.last_requests[model_id] = datetime.now(UTC).isoformat()
        key = ("train", model_id, seq_id)
        future = self.futures.repeated(key)
        if future is None:
            future = self.futures.new(key, model_id=model_id)
            if model_id in self.runtime.runs:
                self.scheduler.submit_ordered(model_id, seq_id, future, work)
            else:  # of an engine before this one: its earlier numbers will never come
                settle(future, lambda: self.runtime.run(model_id) and {})
        return JSONResponse(future.reply)
