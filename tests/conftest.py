"""Fixtures that every test may use: the bundled model, and an engine on a tiny one.

The tests use the embedded engine, whatever servers and keys the environment names.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import tinker

    from tests.engine.processes import EngineProcess

for _variable in ("TINKER_BASE_URL", "TINKER_API_KEY"):
    os.environ.pop(_variable, None)
os.environ["TINKER_TELEMETRY"] = "0"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that two workers end at the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The folder of the bundled model, fetched and converted if this machine lacks it."""
    from cookbook.engine.weights import BUNDLED, resolve_model

    return resolve_model(BUNDLED)


@pytest.fixture(scope="session")
def engine(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[EngineProcess]":
    """One engine for the whole run; its random model knows the bundled one's tokens, all of them.

    For tests in which the way to the result counts, whatever the model: a step takes milliseconds.
    """
    from tests.engine.processes import start_engine, write_tiny_model

    folder = tmp_path_factory.mktemp("engine")
    config = json.loads((model_dir / "config.json").read_text())
    write_tiny_model(folder / "tiny", model_dir, config["vocab_size"], context=1024)
    started = start_engine(folder / "tiny", folder, "--embedded")
    yield started
    started.end()


@pytest.fixture(scope="session")
def service(engine: "EngineProcess") -> "tinker.ServiceClient":
    """A client of the shared engine."""
    import tinker

    return tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
