"""The engine and `connect()` under SDK 0.24.1, which open cluster servers speak."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "0.24.1"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.mark.slow
def test_a_program_trains_samples_saves_and_continues(tmp_path: Path) -> None:
    """The older SDK lies in front of the installed one; what it depends on is there already."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--target", str(tmp_path), f"tinker=={VERSION}"], check=True)
    done = subprocess.run(
        [sys.executable, str(HERE / "older_sdk_program.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all of it works\n")


def test_the_pins_for_clusters_differ_in_the_sdk_only() -> None:
    pins = [
        {line for line in (ROOT / name).read_text().splitlines() if line[0] != "#"}
        for name in ("constraints.txt", "constraints-cluster.txt")
    ]
    assert pins[1] - pins[0] == {f"tinker=={VERSION}"}
    assert len(pins[0] - pins[1]) == 1
