"""The Chroma back end, beyond what `test_back_ends` asks of every one; and its vectors alone."""

import asyncio
import sys

import numpy as np
import pytest

from cookbook.errors import ConfigError, ServiceError
from cookbook.search import ChromaIndex, SearchTool
from cookbook.search.chroma import HashedWords
from cookbook.search.tool import SearchArguments
from tests.search.chroma_server import free_port, running_server
from tests.search.passages import PASSAGES


def test_a_filled_collection_is_used_again_and_another_one_refused(port):
    ChromaIndex(PASSAGES, port=port, name="again")
    again = ChromaIndex(PASSAGES, port=port, name="again")
    assert again.search("Ada Holt pet", 1) == [PASSAGES[2]]
    with pytest.raises(ConfigError, match="has 5 passages, but 2 are given"):
        ChromaIndex(PASSAGES[:2], port=port, name="again")


def test_vectors_of_your_own_decide_what_is_near(port):
    def length_only(texts):
        angles = [len(text) / 200 for text in texts]
        return np.array([[np.cos(angle), np.sin(angle)] for angle in angles])

    index = ChromaIndex(PASSAGES, port=port, name="lengths", embed=length_only)
    longest = max(PASSAGES, key=lambda passage: len(f"{passage.title} {passage.text}"))
    assert index.search("x" * 300, 1) == [longest]


def test_a_server_that_ends_is_an_error_and_no_result(port, tmp_path):
    """The tool raises too: an episode without a search engine is left out, not trained on."""
    with running_server(tmp_path) as own:
        index = ChromaIndex(PASSAGES, port=own)
        assert index.search("Ada Fenn pet", 1) == [PASSAGES[0]]
    with pytest.raises(ServiceError, match="did not answer a search"):
        index.search("Ada Fenn pet", 1)
    with pytest.raises(ServiceError, match="Is it still running"):
        asyncio.run(SearchTool(index).call(SearchArguments(query="Ada")))


def test_without_a_server_the_error_says_how_to_start_one():
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    with pytest.raises(ServiceError, match="chroma run --path"):
        ChromaIndex(PASSAGES, port=free_port())


def test_without_the_extra_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[chroma\]'"):
        ChromaIndex(PASSAGES)


def test_vectors_are_near_where_rare_words_are_shared():
    embed = HashedWords([f"{p.title} {p.text}" for p in PASSAGES])
    vectors = embed([f"{p.title} {p.text}" for p in PASSAGES])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(PASSAGES)))
    for query, best in (("Ada Fenn pet", 0), ("Ada Holt pet", 2), ("mill street", 3)):
        assert int(np.argmax(vectors @ embed([query])[0])) == best
    assert not embed(["?!"]).any()
