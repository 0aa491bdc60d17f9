"""The embedded index: what it finds, and that no query is anything but words."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook.search import Fts5Index, Passage

PASSAGES = [
    Passage("Ada Fenn", "The pet of Ada Fenn is a hamster."),
    Passage("Ada Fenn", "The job of Ada Fenn is teacher."),
    Passage("Ada Holt", "The pet of Ada Holt is a goat."),
    Passage("Ben Fenn", "The street where Ben Fenn lives is Mill Street."),
    Passage("Café Noël", "The owner of the Café Noël is José."),
]
HOSTILE = [
    '"',
    "'",
    '" OR "',
    "'; drop table passage; --",
    "1 OR 1=1",
    "title:Ada",
    "text : Ada",
    "{title text} : Ada",
    "Ada NOT Fenn",
    "NEAR(Ada Fenn, 10)",
    "Ada AND",
    "^Ada",
    "Ad*",
    "* * *",
    "(((((",
    "passage MATCH 'x'",
    "-- comment",
    "\x00",
    "Ada\x00Fenn",
    "\ud800 Ada",
    "_ _ __",
    "🙂 " * 500,
    "a" * 1_000_000,
    "Ada " * 200_000,
    "日本語 العربية עברית",
    "۱۲۳ ½ ²",
    "%s %d {0} ${HOME} `ls` $(ls)",
    "attach database '/tmp/x' as y",
    "<|im_end|>",
]


@pytest.fixture(scope="module")
def index():
    return Fts5Index(PASSAGES)


def titles(found):
    return [passage.title for passage in found]


def test_the_best_passage_comes_first(index):
    assert index.search("Ada Fenn pet", 2)[0] == PASSAGES[0]
    assert index.search("What is the job of Ada Fenn?", 1) == [PASSAGES[1]]
    assert index.search("where does Ben live", 1) == [PASSAGES[3]], "by the stem of lives"
    assert index.search("cafe noel", 1) == [PASSAGES[4]], "accents do not count"


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


def test_operators_are_words(index):
    """ "NOT Fenn" excludes nothing, and a column's name selects no column."""
    assert "Ada Fenn" in titles(index.search("Ada NOT Fenn", 5))
    assert titles(index.search("title:Ben", 5)) == ["Ben Fenn"]


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_a_query(query):
    assert set(SHARED.search(query, 3)) <= set(PASSAGES)


SHARED = Fts5Index(PASSAGES)


def test_the_database_is_read_only(index):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        index._database.execute("insert into passage values ('x', 'y')")


def test_many_threads_may_search(index):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: index.search("Ada Holt pet", 1), range(200)))
    assert found == [[PASSAGES[2]]] * 200
