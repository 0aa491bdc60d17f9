"""The scheduled check of old and new dependencies: what it pins, and when a claim is stale."""

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from cookbook.notebooks.claims import differences, main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    loader = importlib.machinery.SourceFileLoader("deps", str(ROOT / ".ci" / "dependencies"))
    spec = importlib.util.spec_from_loader("deps", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_every_direct_dependency_has_a_lower_bound_that_is_pinned(script: Any) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    pins = {Requirement(line).name: line.split("==")[1] for line in script.oldest([])}
    for line in map(Requirement, wanted):
        assert Version(pins[line.name]) in line.specifier
    kept = script.oldest(["torch==2.13.0"])
    assert [line for line in kept if line.startswith("torch")] == ["torch==2.13.0"]


def test_lower_bounds_are_below_the_tested_versions(script: Any) -> None:
    text = (ROOT / "constraints.txt").read_text()
    tested = dict(line.split("==") for line in text.splitlines() if "==" in line)
    for line in script.oldest([]):
        name, bound = line.split("==")
        assert Version(bound) <= Version(tested[name])


def test_claims_have_a_band() -> None:
    old = {"nll": 2.8, "share": 0.5, "n": 12, "metric": "test/nll", "won": True}
    assert differences(old, {**old, "nll": 3.1, "share": 0.62}) == []
    assert differences(old, {**old, "nll": 3.4}) == ["nll was 2.8, is 3.4"]
    assert differences(old, {**old, "won": False}) == ["won was True, is False"]
    assert differences(old, {**old, "metric": "x"}) == ["metric was test/nll, is x"]
    fewer = {name: value for name, value in old.items() if name != "n"}
    assert differences(old, fewer) == ["n was 12, is absent"]
    assert differences(fewer, old) == ["n was absent, is 12"]


def test_claims_of_a_fresh_run_are_compared(tmp_path: Path, good: Any, capsys: Any) -> None:
    claims = [cell for cell in good.cells if "claims" in cell.metadata.get("tags", [])]
    path = tmp_path / "good.ipynb"
    nbformat.write(good, path)
    before = path.read_bytes()
    assert main([str(path)]) == 0
    assert path.read_bytes() == before
    good.metadata["cookbook"]["claims"]["other"] = 1
    claims[0].source += "\nraise ValueError('broken')"
    changed = tmp_path / "changed.ipynb"
    nbformat.write(good, changed)
    assert main([str(changed)]) == 1
    assert "changed.ipynb: a cell failed: ValueError: broken" in capsys.readouterr().out
