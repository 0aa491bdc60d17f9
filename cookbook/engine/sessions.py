"""The clients' sessions: who is there, what they call themselves, and who went away.

Owns: sessions from their start until a while after their end. They live in memory: after a restart
of the engine a client starts a new one, while runs and checkpoints are on disk.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cookbook.engine.errors import NotFoundError

# A client sends a heartbeat every ten seconds; one that was silent for so long is gone for good.
SILENT_S = 3600.0


@dataclass(kw_only=True)
class Session:
    """One client's session.

    Attributes:
        session_id: its id.
        created: when it began.
        status: as the SDK's `SessionStatus` has it: active, or finished with a reason.
        heard_at: the time of its last sign of life, on the monotonic clock.
        released: whether its runs and samplers were given back.
    """

    session_id: str
    created: datetime
    display_name: str | None = None
    project_id: str = "local"
    user_metadata: dict[str, str] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=lambda: {"type": "active"})
    heard_at: float = field(default_factory=time.monotonic)
    released: bool = False

    @property
    def active(self) -> bool:
        """Whether its client has not said that it is done."""
        return self.status["type"] == "active"

    def summary(self, checkpoints: int, size_bytes: int) -> dict[str, Any]:
        """Return the session as a search reports it."""
        return {
            "session_id": self.session_id,
            "created_at": self.created.isoformat(),
            "owner": "local",
            "project_id": self.project_id,
            "status": self.status,
            "checkpoints_count": checkpoints,
            "checkpoint_storage_bytes": size_bytes,
            "display_name": self.display_name,
            "user_metadata": self.user_metadata,
        }

    def matches(self, wanted: Mapping[str, Any]) -> bool:
        """Return whether a search for `wanted` (an SDK `SessionSearchRequest`) finds it."""
        by_id, name = wanted.get("session_id"), wanted.get("display_name")
        words = (name or "").lower().split()
        named = bool(words) and all(w in (self.display_name or "").lower() for w in words)
        if (by_id or words) and self.session_id != by_id and not named:
            return False
        projects, statuses = wanted.get("project_ids"), wanted.get("statuses")
        if projects is not None and self.project_id not in projects:
            return False
        if statuses and not any(self._has_status(status) for status in statuses):
            return False
        pairs = (wanted.get("user_metadata") or {}).items()
        return all(self.user_metadata.get(key) == value for key, value in pairs)

    def _has_status(self, wanted: Mapping[str, Any]) -> bool:
        reasons = wanted.get("reasons")
        reason = self.status.get("reason", {}).get("type")
        return wanted["type"] == self.status["type"] and (not reasons or reason in reasons)


class Sessions:
    """All sessions, oldest first."""

    def __init__(self) -> None:
        self._by_id: dict[str, Session] = {}

    def open(self, **known: Any) -> Session:
        """Start a session; `known` are fields that its client named."""
        session = Session(
            session_id=f"s{uuid.uuid4().hex[:16]}", created=datetime.now(UTC), **known
        )
        self._by_id[session.session_id] = session
        return session

    def get(self, session_id: str) -> Session:
        """Return a session by id.

        Raises:
            NotFoundError: this engine did not open it.
        """
        if session_id not in self._by_id:
            raise NotFoundError(
                f"there is no session {session_id}; this engine may have restarted: make a new "
                "ServiceClient"
            )
        return self._by_id[session_id]

    def hear(self, session_id: str) -> Session:
        """Note a sign of life and return the session."""
        session = self.get(session_id)
        session.heard_at = time.monotonic()
        return session

    def newest_first(self) -> list[Session]:
        """Return all sessions."""
        return list(self._by_id.values())[::-1]

    def take_gone(self) -> list[str]:
        """Return the ids, each once, of sessions that are finished or were silent for long."""
        long_ago = time.monotonic() - SILENT_S
        gone = [
            session
            for session in self._by_id.values()
            if not session.released and (not session.active or session.heard_at < long_ago)
        ]
        for session in gone:
            session.released = True
        return [session.session_id for session in gone]
