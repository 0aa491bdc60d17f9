"""What the tests of both back ends share."""

from collections.abc import Iterator

import pytest

from tests.search.chroma_server import running_server


@pytest.fixture(scope="session")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running Chroma server; without the extra the test is skipped.

    `test_chroma_extra.py` then installs it into a temp folder and runs these tests again.
    """
    pytest.importorskip(
        "chromadb", reason="needs the extra chroma, which test_chroma_extra.py installs elsewhere"
    )
    with running_server(tmp_path_factory.mktemp("chroma")) as port:
        yield port
