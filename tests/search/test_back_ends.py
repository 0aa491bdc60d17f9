"""What every index promises, on each: SQLite's FTS5, and a Chroma server that is running."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from renderers import ParsedToolCall

from cookbook.envs import load_corpus
from cookbook.search import ChromaIndex, Fts5Index, SearchTool
from cookbook.tools import CallLimits, answer_calls
from tests.search.passages import HOSTILE, PASSAGES


@pytest.fixture(scope="module", params=["fts5", "chroma"])
def build(request):
    """Return a function from passages to an index."""
    if request.param == "fts5":
        return Fts5Index
    port = request.getfixturevalue("port")
    return lambda passages: ChromaIndex(passages, port=port, name=f"of-{len(passages)}")


@pytest.fixture(scope="module")
def index(build):
    return build(PASSAGES)


def test_the_best_passage_comes_first(index):
    assert index.search("Ada Fenn pet", 2)[0] == PASSAGES[0]
    assert index.search("job Ada Fenn", 1) == [PASSAGES[1]]
    assert index.search("mill street", 1) == [PASSAGES[3]]


def test_k_bounds_the_result_and_nothing_is_found_for_nothing(index):
    assert len(index.search("the", 3)) == 3
    assert len(index.search("the", 99)) == len(PASSAGES)
    for query in ("", "   ", "?!", "zebra"):
        assert index.search(query, 2) == []


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_query_is_words_or_nothing(index, query):
    found = index.search(query, 2)
    assert len(found) <= 2
    assert set(found) <= set(PASSAGES)
    assert index.search("Ada Fenn pet", 1) == [PASSAGES[0]], "the index is as it was"


def test_many_threads_may_search(index):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: index.search("Ada Holt pet", 1), range(50)))
    assert found == [[PASSAGES[2]]] * 50


def test_in_the_notebooks_town_a_name_is_not_enough(build):
    """What `tool_use` teaches holds on both, if not to the last question: see HashedWords."""
    town = load_corpus("brindlemere")
    index, facts = build(town.passages), town.facts[::5]

    def share(wording):
        best = [(fact, index.search(wording(fact), 1)) for fact in facts]
        return sum(fact.answers[0] in found[0].text for fact, found in best) / len(facts)

    assert share(lambda fact: f"{fact.entity} {fact.topic}") > 0.85
    assert share(lambda fact: fact.entity) < 0.3


def test_the_tool_is_the_same(index):
    asked = [{"query": "Ada Fenn pet"}, {"query": "zebra"}, {"query": "x" * 201}, {"k": 9}]
    calls = [ParsedToolCall(raw="", name="search", arguments=each) for each in asked]
    results = asyncio.run(answer_calls([SearchTool(index, k=1)], calls, CallLimits()))
    assert [result.outcome for result in results] == ["ok", "ok"] + ["bad_arguments"] * 2
    assert results[0].message["content"] == PASSAGES[0].text
    assert results[1].message["content"] == "Nothing found."
