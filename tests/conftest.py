"""Fixtures that every test may use: the bundled model, and engines on it and on a tiny one.

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

for _variable in ("TINKER_BASE_URL", "TINKER_API_KEY", "COOKBOOK_WANDB_PROJECT"):
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
    """One engine on the bundled model, in float32, for the whole run."""
    from cookbook.models import DEFAULT_MODEL
    from tests.engine.processes import start_engine

    started = start_engine(Path(DEFAULT_MODEL), tmp_path_factory.mktemp("engine"), "--embedded")
    yield started
    started.end()


@pytest.fixture(scope="session")
def service(engine: "EngineProcess") -> "tinker.ServiceClient":
    """A client of the engine on the bundled model."""
    import tinker

    return tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)


@pytest.fixture(scope="session")
def small_engine(
    model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[EngineProcess]":
    """An engine on a tiny random model that knows all tokens of the bundled one.

    For tests in which the way to the result counts, whatever the model: a step takes milliseconds.
    """
    from tests.engine.processes import start_engine, write_tiny_model

    folder = tmp_path_factory.mktemp("small-engine")
    config = json.loads((model_dir / "config.json").read_text())
    write_tiny_model(folder / "tiny", model_dir, config["vocab_size"], context=1024)
    started = start_engine(folder / "tiny", folder, "--embedded")
    yield started
    started.end()


@pytest.fixture(scope="session")
def small_service(small_engine: "EngineProcess") -> "tinker.ServiceClient":
    """A client of the engine on the tiny model."""
    import tinker

    return tinker.ServiceClient(base_url=small_engine.base_url, api_key=small_engine.api_key)
