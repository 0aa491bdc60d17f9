import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cookbook import embedded, service
from cookbook.errors import ServiceError
from cookbook.models import DEFAULT_MODEL

FAKE = Path(__file__).with_name("fake_engine.py")
VARIABLES = ["TINKER_BASE_URL", "TINKER_API_KEY", "NO_PROXY", "no_proxy"]
PROXY_VARIABLES = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def fake_command(model_name: str) -> list[str]:
    return [sys.executable, str(FAKE), "--embedded", "--model", model_name]


def eventually(holds: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.05)
    return holds()


def is_running(pid: int) -> bool:
    """Tell whether the process lives; one that ended and waits to be collected does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.strip().startswith("Z")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for variable in [*VARIABLES, *PROXY_VARIABLES]:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "")  # so that what connect() sets is undone again
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("TINKER_TELEMETRY", "0")
    monkeypatch.setenv("COOKBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(embedded, "_engine_command", fake_command)
    monkeypatch.setattr(service, "_engines", {})
    yield
    service._stop_engines()


def key_seen_by_server(client) -> str:
    return training_client(client).get_info().model_name


def training_client(client):
    return client.create_lora_training_client(base_model="fake", rank=8).result()


@pytest.fixture
def server() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(FAKE), "--model", "plain"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout
    yield json.loads(process.stdout.readline())["base_url"]
    process.kill()
    process.wait()
    process.stdout.close()


def test_base_url_wins_and_a_key_is_made_up(server, monkeypatch, capsys):
    monkeypatch.setenv("TINKER_BASE_URL", server)
    client = service.connect("some/model")
    line = f"Using the server at {server} (TINKER_BASE_URL is set), model some/model.\n"
    assert capsys.readouterr().out == line
    assert key_seen_by_server(client) == "tml-local"


def test_base_url_is_used_with_the_users_key(server, monkeypatch):
    monkeypatch.setenv("TINKER_BASE_URL", server)
    monkeypatch.setenv("TINKER_API_KEY", "tml-mine")
    assert key_seen_by_server(service.connect()) == "tml-mine"


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "localhost:{port}"])
def test_a_server_that_does_not_answer_is_named_at_once(url, monkeypatch):
    with socket.socket() as unused:  # bound and not listening: nobody else gets the port
        unused.bind(("127.0.0.1", 0))
        url = url.format(port=unused.getsockname()[1])
        monkeypatch.setenv("TINKER_BASE_URL", url)
        began = time.monotonic()
        with pytest.raises(ServiceError, match=r"No server answers at .*unset") as caught:
            service.connect()
    assert url in str(caught.value)
    assert time.monotonic() - began < 5


def test_a_key_alone_means_hosted(monkeypatch, capsys):
    import tinker

    calls = []
    monkeypatch.setattr(tinker, "ServiceClient", lambda **arguments: calls.append(arguments))
    monkeypatch.setenv("TINKER_API_KEY", "tml-mine")
    service.connect("some/model")
    assert calls == [{"api_key": "tml-mine"}]
    line = "Using hosted Tinker (TINKER_API_KEY is set), model some/model.\n"
    assert capsys.readouterr().out == line


def test_embedded_is_the_default_and_says_so_in_one_line(capsys):
    client = service.connect("fake")
    assert key_seen_by_server(client) == "tml-fake"
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "embedded engine on this machine" in out
    assert "model fake." in out


def test_an_engine_is_used_again_for_its_model_only():
    first = service._living_engine("a")
    assert service._living_engine("a") is first
    second = service._living_engine("b")
    assert second.process.pid != first.process.pid
    assert first.is_alive()


def test_a_proxy_does_not_capture_the_engines_calls(monkeypatch):
    for variable in PROXY_VARIABLES:
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "internal.example")
    assert key_seen_by_server(service.connect("fake")) == "tml-fake"
    assert os.environ["NO_PROXY"] == "internal.example,127.0.0.1,localhost,::1"


def test_a_failed_start_shows_the_end_of_the_log():
    with pytest.raises(ServiceError, match="did not start") as caught:
        service.connect("crash")
    assert "exit code 3" in str(caught.value)
    assert "reading weights\nno weights to be found" in str(caught.value)


def test_an_engine_that_speaks_something_else_is_refused_and_ended():
    with pytest.raises(ServiceError, match="b'hello"):
        service.connect("garbage")


def test_a_home_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COOKBOOK_HOME", str(tmp_path / "file"))
    with pytest.raises(ServiceError, match="Set COOKBOOK_HOME"):
        service.connect("fake")


@posix_only
def test_when_the_engine_dies_pending_and_next_calls_say_so_and_connect_starts_anew():
    client = service.connect("fake")
    training = training_client(client)
    pending = training.optim_step(adam_params())
    engine = service._engines["fake"]
    time.sleep(0.5)  # the call is on its way
    os.kill(engine.process.pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(Exception, match="killed by SIGKILL") as pending_error:
        pending.result(timeout=30)
    with pytest.raises(Exception, match="Run connect") as next_error:
        training.optim_step(adam_params()).result(timeout=30)
    with pytest.raises(Exception, match="Run connect"):
        training_client(client)
    assert time.monotonic() - began < 15
    for caught in (pending_error, next_error):
        assert "POST /api/v1/optim_step" in str(caught.value)  # the fake's log
    assert key_seen_by_server(service.connect("fake")) == "tml-fake"
    assert service._engines["fake"].process.pid != engine.process.pid


def real_command(model_name: str) -> list[str]:
    return [sys.executable, "-m", "cookbook.engine", "--embedded", "--model", model_name]


@posix_only
def test_the_real_engine_starts_serves_dies_and_starts_again(monkeypatch, tmp_path, model_dir):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models").symlink_to(model_dir.parent)
    monkeypatch.setattr(embedded, "_engine_command", real_command)
    client = service.connect()
    training = client.create_lora_training_client(base_model=DEFAULT_MODEL, rank=8).result()
    assert training.get_tokenizer().encode("\n\n1.") == [1116, 33, 30]
    pid = service._engines[DEFAULT_MODEL].process.pid
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Exception, match=r"engine died \(killed by SIGKILL.*Run connect"):
        training.optim_step(adam_params()).result(timeout=30)
    again = service.connect().create_lora_training_client(base_model=DEFAULT_MODEL, rank=8)
    assert again.result().get_info().model_id
    service._stop_engines()
    assert service._engines[DEFAULT_MODEL].process.returncode == 0


@posix_only
def test_a_stranger_learns_nothing_from_the_tombstone():
    engine = embedded.EmbeddedEngine("fake")
    engine.process.kill()
    answers: list[int] = []

    def ask() -> bool:
        request = urllib.request.Request(f"{engine.base_url}/api/v1/x", headers={"X-API-Key": "no"})
        try:
            urllib.request.urlopen(request, timeout=5)
        except urllib.error.HTTPError as error:
            answers.append(error.code)
            return "SIGKILL" not in error.read().decode()
        except OSError:  # between its death and the tombstone
            return False
        return False

    assert eventually(ask, within_s=10)
    assert answers == [401]


def adam_params():
    import tinker

    return tinker.AdamParams(learning_rate=1e-4)


def start_parent(tmp_path: Path, body: str) -> subprocess.Popen[str]:
    """Start a Python process that has an engine, prints the engine's pid, and runs ``body``."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from cookbook import embedded\n"
        f"embedded._engine_command = lambda m: [sys.executable, {str(FAKE)!r}, '--embedded',"
        " '--model', m]\n"
        "engine = embedded.EmbeddedEngine('fake')\n"
        "print(engine.process.pid, flush=True)\n" + textwrap.dedent(body)
    )
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@posix_only
def test_the_engine_does_not_outlive_a_killed_parent(tmp_path):
    parent = start_parent(tmp_path, "time.sleep(60)")
    with parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    assert eventually(lambda: not is_running(pid), within_s=5)


@posix_only
def test_an_interrupt_of_the_parents_group_spares_the_engine(tmp_path):
    body = """
        try:
            print("waiting", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.5)
            print(engine.is_alive(), flush=True)
    """
    with start_parent(tmp_path, body) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline().strip() == "waiting"
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.readline().strip() == "True"
    assert eventually(lambda: not is_running(pid), within_s=5)


def test_stop_ends_the_engine_without_a_tombstone():
    engine = embedded.EmbeddedEngine("fake")
    port = int(engine.base_url.rsplit(":", 1)[1])
    engine.stop()
    assert engine.process.poll() == 0
    time.sleep(0.2)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
