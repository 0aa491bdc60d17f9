"""The Chroma back end, against a server that the test starts; and its vectors without one."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from cookbook.errors import ConfigError, ServiceError
from cookbook.search import ChromaIndex
from cookbook.search.chroma import HashedWords
from tests.search.test_fts5 import HOSTILE, PASSAGES

START_TIMEOUT_S = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    pytest.importorskip("chromadb", reason="needs the extra chroma")
    beside = Path(sys.executable).with_name("chroma")
    program = str(beside) if beside.exists() else shutil.which("chroma")
    assert program, "chromadb is installed, but its program chroma is not on the path"
    port, folder = free_port(), tmp_path_factory.mktemp("chroma")
    server = subprocess.Popen(
        [program, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ends = time.monotonic() + START_TIMEOUT_S
    while not answers(port):
        assert server.poll() is None, "the server ended"
        assert time.monotonic() < ends, "the server does not answer"
        time.sleep(0.2)
    yield port
    server.terminate()
    server.wait(30)


def test_the_best_passage_comes_first(port):
    index = ChromaIndex(PASSAGES, port=port, name="facts")
    assert index.search("Ada Fenn pet", 2)[0] == PASSAGES[0]
    assert index.search("job Ada Fenn", 1) == [PASSAGES[1]]
    assert index.search("?!", 2) == []


def test_a_filled_collection_is_used_again_and_another_one_refused(port):
    ChromaIndex(PASSAGES, port=port, name="again")
    again = ChromaIndex(PASSAGES, port=port, name="again")
    assert again.search("Ada Holt pet", 1) == [PASSAGES[2]]
    with pytest.raises(ConfigError, match="has 5 passages, but 2 are given"):
        ChromaIndex(PASSAGES[:2], port=port, name="again")


@pytest.mark.parametrize("query", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_query_is_words_or_nothing(port, query):
    found = ChromaIndex(PASSAGES, port=port, name="hostile").search(query, 2)
    assert set(found) <= set(PASSAGES)


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
