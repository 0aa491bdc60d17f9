"""The embedded index, beyond what `test_back_ends` asks of every one."""

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cookbook.search import Fts5Index
from tests.search.passages import PASSAGES


@pytest.fixture(scope="module")
def index():
    return Fts5Index(PASSAGES)


def titles(found):
    return [passage.title for passage in found]


def test_stems_and_accents(index):
    assert index.search("What is the job of Ada Fenn?", 1) == [PASSAGES[1]]
    assert index.search("where does Ben live", 1) == [PASSAGES[3]], "by the stem of lives"
    assert index.search("cafe noel", 1) == [PASSAGES[4]], "accents do not count"


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
