"""Without the extra `chroma` its tests run all the same, with it in a temp folder."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def install_what_is_missing(requirement: str, folder: Path) -> None:
    """Put a package into ``folder``, with those of its needs that are not installed yet."""
    plan = folder / "plan.json"
    pins = str(ROOT / "constraints.txt")
    asked = ["install", "--dry-run", "--report", str(plan), requirement, "-c", pins]
    subprocess.run([*PIP, *asked], check=True)
    found = [each["metadata"] for each in json.loads(plan.read_text())["install"]]
    exact = [f"{package['name']}=={package['version']}" for package in found]
    options = ["--no-deps", "--no-compile", "--target", str(folder)]
    subprocess.run([*PIP, "install", *options, *exact], check=True)


@pytest.mark.slow
def test_with_the_extra_the_tests_of_both_back_ends_pass(tmp_path: Path) -> None:
    if importlib.util.find_spec("chromadb"):
        pytest.skip("the extra is installed: its tests run as they are")
    install_what_is_missing("chromadb", tmp_path)
    path = os.pathsep.join((str(tmp_path / "bin"), os.environ["PATH"]))
    python_path = os.pathsep.join((str(tmp_path), str(ROOT)))
    files = [str(Path(__file__).with_name(f"test_{name}.py")) for name in ("back_ends", "chroma")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *files],
        env={**os.environ, "PATH": path, "PYTHONPATH": python_path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout
