"""Fixtures of the engine's tests: a tiny model, and an engine on it that most tests share."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tinker
from hypothesis import settings

from tests.engine.processes import EngineProcess, start_engine, write_tiny_model

# The same examples on every machine; a slow moment of the machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def tiny_model(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, tokenizer_from=model_dir)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny engine: its checkpoints are in `data`."""
    return tmp_path_factory.mktemp("tiny-engine")


@pytest.fixture(scope="session")
def tiny_engine(tiny_model: Path, tiny_data: Path) -> Iterator[EngineProcess]:
    engine = start_engine(tiny_model, tiny_data, "--embedded")
    yield engine
    engine.end()


@pytest.fixture(scope="session")
def tiny_service(tiny_engine: EngineProcess) -> tinker.ServiceClient:
    return tinker.ServiceClient(base_url=tiny_engine.base_url, api_key=tiny_engine.api_key)


@pytest.fixture
def http(tiny_engine: EngineProcess) -> Iterator[httpx.Client]:
    with tiny_engine.http() as client:
        yield client
