"""What opens the notebooks elsewhere names files, commands and packages that exist."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def launch():
    spec = importlib.util.spec_from_file_location("launch", ROOT / "docs" / "launch.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_devcontainer_names_what_exists():
    told = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    install, fetch = told["postCreateCommand"].split(" && ")
    command = [*install.split(), "--dry-run", "--always-make"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ".[lab]" in done.stdout
    python, script = fetch.split()
    assert (ROOT / script).is_file()
    settings = told["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith(f"/{python}")
    for file in told["customizations"]["codespaces"]["openFiles"]:
        assert (ROOT / file).is_file()
    assert re.search(r"^lab:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert str(told["forwardPorts"][0]) in told["portsAttributes"]


def test_binder_installs_this_package_at_the_tested_versions():
    lines = (ROOT / "binder" / "requirements.txt").read_text().splitlines()
    options = dict(line.split(" ", 1) for line in lines if line.startswith("-"))
    assert (ROOT / "binder" / options["-c"]).resolve() == ROOT / "constraints.txt"
    extra = Requirement(options["-e"].replace(".", "this", 1))
    assert f"\n{next(iter(extra.extras))} = [" in (ROOT / "pyproject.toml").read_text()
    runtime = (ROOT / "binder" / "runtime.txt").read_text().strip()
    assert runtime == "python-3.11"
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()


def test_binder_fetches_the_model_that_the_engine_loads():
    script = ROOT / "binder" / "postBuild"
    assert sys.platform == "win32" or os.access(script, os.X_OK)
    called = re.findall(r"^python (\S+)$", script.read_text(), re.MULTILINE)
    assert called == ["binder/fetch_model.py"]
    from cookbook.engine import weights

    (names,) = [
        node.names
        for node in ast.parse((ROOT / called[0]).read_text()).body
        if isinstance(node, ast.ImportFrom)
    ]
    assert all(hasattr(weights, name.name) for name in names)


def test_every_notebook_has_its_badges(launch, capsys):
    assert launch.main(["someone/post-training", "stable"]) == 0
    page = capsys.readouterr().out
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    colab = re.findall(r"\]\((https://colab\.research\.google\.com/github/[^)]+)\)", page)
    assert [urlsplit(link).path for link in colab] == [
        f"/github/someone/post-training/blob/stable/notebooks/{name}" for name in notebooks
    ]
    binder = [urlsplit(link) for link in re.findall(r"\]\((https://mybinder\.org/v2[^)]+)\)", page)]
    assert {link.path for link in binder} == {"/v2/gh/someone/post-training/stable"}
    assert [parse_qs(link.query)["urlpath"] for link in binder] == [
        [f"lab/tree/notebooks/{name}"] for name in notebooks
    ]
    assert "git clone -q --depth 1 -b stable https://github.com/someone/post-training" in page


def test_a_place_that_is_none_is_refused(launch, capsys):
    with pytest.raises(SystemExit):
        launch.main(["post-training"])
    assert "expected OWNER/NAME, got 'post-training'" in capsys.readouterr().err
