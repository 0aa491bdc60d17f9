"""The search tool, over any index."""

import asyncio

from pydantic import BaseModel, ConfigDict, Field

from cookbook.search.passages import SearchIndex


class SearchArguments(BaseModel):
    """What a call of the search tool must look like."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=200)


class SearchTool:
    """Finds passages. How many is not for the model to choose: it pays for every token it reads.

    Args:
        index: where to search.
        k: passages in a result, at least 1.
        description: what the model is told.
    """

    name = "search"
    arguments = SearchArguments

    def __init__(self, index: SearchIndex, k: int = 2, description: str = "Look up facts.") -> None:
        self.index, self.k, self.description = index, k, description

    async def call(self, arguments: SearchArguments) -> str:
        """Return the passages, a line each."""
        found = await asyncio.to_thread(self.index.search, arguments.query, self.k)
        return "\n".join(passage.text for passage in found) or "Nothing found."
