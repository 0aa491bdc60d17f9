"""docs/engine.md: its program runs, its table is complete, and the tests it names exist."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tinker

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "engine.md").read_text(encoding="utf-8")
CLIENTS = [tinker.ServiceClient, tinker.TrainingClient, tinker.SamplingClient, tinker.RestClient]
INTERNAL = {"get_telemetry", "holder", "create", "create_rest_client", "on_queue_state_change"}


CHECKS = """
assert losses[-1] < losses[0] / 2, losses
assert "turquoise" in answer, answer
assert again.model_id != run.model_id
"""


def test_the_program_trains_and_its_model_answers(engine):
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    # In a process of its own: clients without an address share one that the first of them had.
    address = {"TINKER_BASE_URL": engine.base_url, "TINKER_API_KEY": engine.api_key}
    done = subprocess.run(
        [sys.executable, "-c", program + CHECKS],
        env={**os.environ, **address},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "before" in done.stdout


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
