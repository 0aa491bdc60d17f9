"""Fixtures of the engine's tests: a tiny model, and an engine on it that most tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tinker
from hypothesis import settings

from cookbook.older_sdk import adapt
from tests.engine.older_sdk_lacks import LEFT_OUT, OLDER
from tests.engine.processes import EngineProcess, start_engine, write_tiny_model

# The same examples on every machine; a slow moment of the machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under SDK 0.24, leave out the tests of calls that it does not have."""
    if OLDER:
        left_out = [
            item for item in items if LEFT_OUT & {item.name, getattr(item, "originalname", "")}
        ]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


if OLDER:
    adapt()
    tinker.RestClient = lambda **address: tinker.ServiceClient(**address).create_rest_client()


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


@pytest.fixture(scope="session")
def tiny_checkpoints(tiny_data: Path) -> Path:
    """Where the tiny engine keeps its checkpoints."""
    return tiny_data / "data"


@pytest.fixture
def new_run(
    tiny_service: tinker.ServiceClient, tiny_model: Path
) -> Callable[..., tinker.TrainingClient]:
    """Makes training runs of the tiny model, all with the same weights unless told otherwise."""

    def create(**options: Any) -> tinker.TrainingClient:
        settings = {"rank": 2, "seed": 0, **options}
        return tiny_service.create_lora_training_client(str(tiny_model), **settings).result()

    return create
