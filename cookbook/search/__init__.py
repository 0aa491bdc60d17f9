"""Search over short passages: one protocol, two back ends, and the tool that a model calls."""

from cookbook.search.chroma import ChromaIndex
from cookbook.search.fts5 import Fts5Index
from cookbook.search.passages import Passage, SearchIndex
from cookbook.search.tool import SearchTool

__all__ = ["ChromaIndex", "Fts5Index", "Passage", "SearchIndex", "SearchTool"]
