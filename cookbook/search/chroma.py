"""A search server: Chroma over HTTP, for an index that many processes share.

Needs the extra `chroma`; start the server with `chroma run --path FOLDER --port PORT`. The vectors
are made here, because Chroma's own default fetches a model from the network: a word becomes a
direction by its hash, so that texts are near each other if they share rare words. Whoever has a
model for embeddings passes it as `embed`.
"""

import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cookbook.errors import ConfigError, ServiceError
from cookbook.search.passages import Passage

Embed = Callable[[Sequence[str]], np.ndarray]
"""From texts (N) to vectors (N, D) of length 1."""

DIMENSIONS = 1024
BATCH = 500
UNRELATED = 1 - 1e-6
"""Cosine distance of vectors at a right angle, less what rounding may take."""


class ChromaIndex:
    """A collection on a running Chroma server, filled with passages if it is new.

    Args:
        passages: what the collection holds.
        host: of the server.
        port: of the server.
        name: of the collection, 3 characters or more; one that exists must hold as many passages.
        embed: makes vectors; None: hashed words, with a weight for rare ones.
    Raises:
        ConfigError: the extra is not installed, or the collection holds something else.
        ServiceError: no server answers.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        name: str = "cookbook",
        embed: Embed | None = None,
    ) -> None:
        self._embed = embed or HashedWords([_searched(passage) for passage in passages])
        client = _client(host, port)
        self._collection = client.get_or_create_collection(
            name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )
        if not self._collection.count():
            self._fill(passages)
        if self._collection.count() != len(passages):
            raise ConfigError(
                f"The collection {name!r} has {self._collection.count()} passages, but "
                f"{len(passages)} are given. Choose another name, or delete it."
            )

    def search(self, query: str, k: int) -> list[Passage]:
        """Return at most `k` passages, the nearest first; none that has nothing to do with it.

        Raises:
            ServiceError: the server no longer answers.
        """
        vectors = self._embed([query])
        if not vectors.any():
            return []
        wanted = ["documents", "metadatas", "distances"]
        try:
            found = self._collection.query(
                query_embeddings=vectors.tolist(), n_results=k, include=wanted
            )
        except Exception as error:  # refusals and time-outs of the client's own HTTP library
            raise ServiceError(
                f"The Chroma server did not answer a search ({error}). Is it still running?"
            ) from error
        rows = zip(*(found[name][0] for name in wanted), strict=True)
        return [Passage(str(meta["title"]), text) for text, meta, far in rows if far < UNRELATED]

    def _fill(self, passages: Sequence[Passage]) -> None:
        for start in range(0, len(passages), BATCH):
            part = passages[start : start + BATCH]
            self._collection.add(
                ids=[str(start + i) for i in range(len(part))],
                embeddings=self._embed([_searched(passage) for passage in part]).tolist(),
                documents=[passage.text for passage in part],
                metadatas=[{"title": passage.title} for passage in part],
            )


class HashedWords:
    """Vectors of word counts in 1,024 directions, words that few texts have counting more.

    Formula: the weight of a word is log(1 + N / n) for n of N texts; signs by a second hash.
    *Left out*: stems of words, and BM25's softer correction for length: a long passage is farther
    from a short query here, so that an index by `Fts5Index` finds a little more.
    Source: feature hashing, Weinberger et al. 2009, arXiv:0902.2206.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._n_texts = len(texts)
        self._n_with = Counter(word for text in texts for word in set(_words(text)))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors (N, D) of length 1; 0 for a text without a word."""
        vectors = np.zeros((len(texts), DIMENSIONS))
        for row, text in enumerate(texts):
            for word in _words(text):
                code = zlib.crc32(word.encode())
                weight = math.log1p(self._n_texts / max(1, self._n_with[word]))
                vectors[row, code % DIMENSIONS] += weight if code >> 31 else -weight
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)


def _client(host: str, port: int) -> Any:
    try:
        import chromadb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "ChromaIndex needs the package chromadb: pip install -e '.[chroma]' -c constraints.txt"
        ) from error
    from chromadb.config import Settings  # pyright: ignore[reportMissingImports]

    try:
        return chromadb.HttpClient(host, port, settings=Settings(anonymized_telemetry=False))
    except Exception as error:  # the client wraps refusals in a plain ValueError
        raise ServiceError(
            f"No Chroma server answers at {host}:{port} ({error}). Start one: "
            f"chroma run --path FOLDER --port {port}"
        ) from error


def _searched(passage: Passage) -> str:
    return f"{passage.title} {passage.text}"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.encode("utf-8", "ignore").decode().casefold())
