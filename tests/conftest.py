"""Fixtures that every test may use: the bundled model, and a real engine on it.

The tests use the embedded engine, whatever servers and keys the environment names.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import tinker

for _variable in ("TINKER_BASE_URL", "TINKER_API_KEY"):
    os.environ.pop(_variable, None)
os.environ["TINKER_TELEMETRY"] = "0"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

STOP_TIMEOUT_S = 10


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that two workers end at the same time."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@dataclass(frozen=True)
class Engine:
    """A running engine process."""

    base_url: str
    api_key: str
    pid: int
    data_dir: Path


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """The folder of the bundled model, fetched and converted if this machine lacks it."""
    from cookbook.engine.weights import BUNDLED, resolve_model

    return resolve_model(BUNDLED)


@pytest.fixture(scope="session")
def engine(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine in float32 for the whole run; its log is in the temporary folder."""
    folder = tmp_path_factory.mktemp("engine")
    data_dir = folder / "data"
    options = ["--port", "0", "--data-dir", str(data_dir), "--dtype", "float32"]
    log_path = folder / "engine.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cookbook.engine", *options, "--embedded"],
            stdin=subprocess.PIPE,  # so that it ends with the tests, even if they are killed
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout
    assert process.stdin
    line = process.stdout.readline()
    assert line, f"the engine did not start:\n{log_path.read_text()}"
    yield Engine(**json.loads(line), data_dir=data_dir)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture(scope="session")
def service(engine: Engine) -> "tinker.ServiceClient":
    """A client of the shared engine."""
    import tinker

    return tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
