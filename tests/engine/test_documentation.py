"""docs/engine.md: its program runs, its table is complete, and the tests it names exist."""

import inspect
import re
from pathlib import Path

import pytest
import tinker

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "engine.md").read_text(encoding="utf-8")
CLIENTS = [tinker.ServiceClient, tinker.TrainingClient, tinker.SamplingClient, tinker.RestClient]
INTERNAL = {"get_telemetry", "holder", "create", "create_rest_client", "on_queue_state_change"}


def test_the_program_trains_and_its_model_answers(service, engine, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    monkeypatch.setenv("TINKER_BASE_URL", engine.base_url)
    monkeypatch.setenv("TINKER_API_KEY", engine.api_key)
    names: dict = {}
    exec(compile(program, "engine.md", "exec"), names)
    assert names["losses"][-1] < names["losses"][0] / 2
    assert "turquoise" in names["answer"]
    assert names["again"].model_id != names["run"].model_id
    assert "before" in capsys.readouterr().out


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_every_public_call_of_the_sdk_is_in_the_table(client):
    names = {
        name
        for name, _ in inspect.getmembers(client, callable)
        if not name.startswith("_") and not name.endswith("_async")
    }
    assert names - INTERNAL
    missing = [name for name in sorted(names - INTERNAL) if name not in PAGE]
    assert not missing


def test_the_tests_that_the_table_names_exist():
    named = set(re.findall(r"`(test_[a-z_0-9]+)`", PAGE))
    assert len(named) > 20
    tests = "".join(path.read_text(encoding="utf-8") for path in HERE.glob("test_*.py"))
    assert not [name for name in sorted(named) if f"def {name}(" not in tests]
