"""Start and end of the engine's process."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.processes import EngineProcess, RawRun, start_engine

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The engine's folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def engine(tiny_model: Path, tmp_path: Path, scratch: Path) -> Iterator[EngineProcess]:
    """An engine that is not embedded: its standard input means nothing."""
    process = start_engine(tiny_model, tmp_path, TMPDIR=str(scratch), TEMP=str(scratch))
    yield process
    process.end()


def assert_left_nothing(engine: EngineProcess, scratch: Path) -> None:
    """Nothing more on standard output, no temporary files, no traceback in the log."""
    assert engine.process.stdout
    assert engine.process.stdout.read() == b""
    assert list(scratch.iterdir()) == []
    assert "Traceback" not in engine.log.read_text()


@posix_only
def test_an_interrupt_ends_it_cleanly(engine, scratch):
    assert engine.ready.keys() == {"base_url", "api_key", "pid"}
    assert engine.ready["pid"] == engine.process.pid
    assert len(list(scratch.iterdir())) == 1
    assert engine.process.stdin
    engine.process.stdin.close()  # only an embedded engine ends with its parent
    with engine.http() as client:
        assert client.get("healthz").json() == {"status": "ok"}
    start = time.monotonic()
    assert engine.stop(signal.SIGINT) == 0
    assert time.monotonic() - start < 10
    assert_left_nothing(engine, scratch)


@posix_only
def test_a_termination_ends_it_in_the_middle_of_long_work(engine, tiny_model, scratch):
    with engine.http() as client:
        run = RawRun(client, str(tiny_model))
        rows = [[(i * 7 + j) % 500 for j in range(120)] for i in range(3000)]
        run.forward_backward(1, *rows)
        time.sleep(0.5)
        start = time.monotonic()
        assert engine.stop(signal.SIGTERM) == 0
        assert time.monotonic() - start < 15
    assert_left_nothing(engine, scratch)


def test_an_embedded_engine_ends_with_its_parent(tiny_model, tmp_path, scratch):
    engine = start_engine(tiny_model, tmp_path, "--embedded", TMPDIR=str(scratch))
    try:
        start = time.monotonic()
        assert engine.stop() == 0
        assert time.monotonic() - start < 10
        assert_left_nothing(engine, scratch)
    finally:
        engine.end()


def test_what_prevents_a_start_is_said_on_standard_error(tmp_path):
    model = tmp_path / "odd"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"architectures": ["MambaForCausalLM"]}))
    for file in ("tokenizer.json", "model.safetensors"):
        (model / file).write_text("{}")
    with pytest.raises(AssertionError, match=r"MambaForCausalLM.*LlamaForCausalLM") as caught:
        start_engine(model, tmp_path / "engine")
    assert "Traceback" not in str(caught.value)
    assert model.name in str(caught.value)
