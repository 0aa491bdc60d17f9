"""An embedded full-text index: SQLite's FTS5, which comes with Python."""

import re
import sqlite3
import threading
from collections.abc import Sequence

from cookbook.errors import ConfigError
from cookbook.search.passages import Passage

MAX_TERMS, MAX_TERM_CHARS = 32, 64


class Fts5Index:
    """Passages in memory, ranked by BM25 over word stems; a word in the title counts five times.

    A query is cut into words, and a passage matches if it has any of them. Nothing else of the
    query reaches SQLite, so there is no syntax to inject, and its length bounds the work.

    Raises:
        ConfigError: this Python's SQLite was built without FTS5.
    Source: BM25, Robertson and Zaragoza 2009, doi:10.1561/1500000019; stems by Porter 1980.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        # One connection for all threads, used by one at a time: a search takes a millisecond.
        self._database = sqlite3.connect(":memory:", check_same_thread=False)
        self._lock = threading.Lock()
        try:
            self._database.execute(
                "create virtual table passage using fts5(title, text, tokenize='porter unicode61')"
            )
        except sqlite3.OperationalError as error:
            raise ConfigError(
                f"SQLite {sqlite3.sqlite_version} lacks FTS5 ({error}). Use a Python whose SQLite "
                "has it, or another index, such as ChromaIndex."
            ) from error
        rows = [(passage.title, passage.text) for passage in passages]
        self._database.executemany("insert into passage values (?, ?)", rows)
        self._database.commit()
        self._database.execute("pragma query_only = on")

    def search(self, query: str, k: int) -> list[Passage]:
        """Return at most `k` passages, the best first; none for a query without a word."""
        match = _match(query)
        if not match:
            return []
        statement = (
            "select title, text from passage where passage match ? "
            "order by bm25(passage, 5, 1), rowid limit ?"
        )
        with self._lock:
            rows = self._database.execute(statement, (match, k)).fetchall()
        return [Passage(*row) for row in rows]


def _match(query: str) -> str:
    """Return the words of a query, each in quotes: FTS5 takes quoted words literally."""
    words = re.findall(r"[^\W_]+", query.encode("utf-8", "ignore").decode())[:MAX_TERMS]
    return " OR ".join(f'"{word[:MAX_TERM_CHARS]}"' for word in words)
