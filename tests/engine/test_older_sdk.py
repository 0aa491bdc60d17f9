"""The engine and `connect()` under SDK 0.24.1, which open cluster servers speak."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.engine.older_sdk_lacks import LACKING

# Every file of tests that use a client; the others look into the engine without any.
SDK_TESTS = (
    "bad_requests",
    "export",
    "load",
    "losses",
    "rest",
    "sdk_checkpoints",
    "sdk_clients",
    "sdk_float64",
    "sdk_models",
    "sdk_sampling",
    "sdk_shapes",
    "sdk_training",
    "wire_protocol",
)
VERSION = "0.24.1"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The older SDK in front of the installed one; what it depends on is there already."""
    folder = str(tmp_path_factory.mktemp("older-sdk"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--target", folder, f"tinker=={VERSION}"], check=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join((folder, str(ROOT)))}


def run(environment: dict[str, str], *arguments: str) -> str:
    """Run Python to a good end and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_program_trains_samples_saves_and_continues(environment: dict[str, str]) -> None:
    assert run(environment, str(HERE / "older_sdk_program.py")).endswith("all of it works\n")


@pytest.mark.slow
def test_the_sdks_tests_pass_but_for_calls_that_it_lacks(environment: dict[str, str]) -> None:
    files = [str(HERE / f"test_{name}.py") for name in SDK_TESTS]
    told = run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files)
    assert " deselected" in told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sl_loop", "rl_loop"])
def test_a_notebook_keeps_its_promise(
    environment: dict[str, str], tmp_path: Path, name: str
) -> None:
    source, done = ROOT / "notebooks" / f"{name}.ipynb", tmp_path / f"{name}.ipynb"
    quiet = ["--no-progress-bar", "--log-level", "ERROR"]
    log = ["-p", "log_path", str(tmp_path / "run")]
    run(environment, "-m", "papermill", *quiet, *log, str(source), str(done))
    cells = nbformat.read(done, as_version=4).cells
    (claims,) = [cell for cell in cells if "claims" in cell.metadata.get("tags", [])]
    told = "".join(output.get("text", "") for output in claims.outputs)
    # Each prints the versions that it ran with; a claim that fails ends papermill with an error.
    assert re.search(rf"tinker\W+{re.escape(VERSION)}\b", told), told


def test_every_call_that_it_lacks_is_documented() -> None:
    page = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    names = [re.findall(r"\w+(?==)|\w+$", call.rstrip(")"))[-1] for call in LACKING]
    assert not [name for name in names if name not in page]


def test_the_pins_for_clusters_differ_in_the_sdk_only() -> None:
    pins = [
        {line for line in (ROOT / name).read_text().splitlines() if line[0] != "#"}
        for name in ("constraints.txt", "constraints-cluster.txt")
    ]
    assert pins[1] - pins[0] == {f"tinker=={VERSION}"}
    assert len(pins[0] - pins[1]) == 1
