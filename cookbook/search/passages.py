"""What is searched, and what every index can do."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Passage:
    """A short text with the title it is filed under."""

    title: str
    text: str


class SearchIndex(Protocol):
    """Passages that can be searched. May be asked from several threads at once."""

    def search(self, query: str, k: int) -> list[Passage]:
        """Return at most `k` passages, the best first.

        Args:
            query: any text at all; it is data and never a query language.
            k: at least 1.
        """
        ...
