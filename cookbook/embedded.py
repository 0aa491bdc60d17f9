"""The embedded engine as a child process: start it, stop it, notice when it dies.

It lives in a process group of its own, so an interrupt of a notebook cell never reaches it, and its
standard input is a pipe from here, so it ends when this process ends, however that happens.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from cookbook.errors import ServiceError
from cookbook.home import cookbook_home
from cookbook.tombstone import raise_tombstone

START_TIMEOUT_S = 1200.0  # a first start fetches and converts the model
STOP_TIMEOUT_S = 5.0
LOG_TAIL_LINES = 12


def _engine_command(model_name: str) -> list[str]:
    return [sys.executable, "-m", "cookbook.engine", "--embedded", "--model", model_name]


class EmbeddedEngine:
    """A running ``python -m cookbook.engine``, with the URL and key it announced.

    Raises:
        ServiceError: it ended, or said nothing in time; the text has the last lines of its log.
    """

    def __init__(self, model_name: str) -> None:
        self.log_path = _new_log_path()
        self._owner = os.getpid()
        self._stopping = False
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                _engine_command(model_name),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                **_own_group(),
            )
        try:
            ready = self._wait_until_ready()
        except BaseException:  # an interrupt too must not leave it behind
            self.process.kill()
            self.process.wait()
            raise
        self.base_url: str = ready["base_url"]
        self.api_key: str = ready["api_key"]
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    def is_alive(self) -> bool:
        """Return whether the process runs and is ours (a forked copy of us must start its own)."""
        return os.getpid() == self._owner and self.process.poll() is None

    def stop(self) -> None:
        """Ask the engine to end, wait for it, and kill it if it does not."""
        if not self.is_alive():
            return
        self._stopping = True
        if self.process.stdin:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait_until_ready(self) -> dict[str, Any]:
        """Return the one JSON line that the engine prints when it is ready."""
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read_output, args=(lines,), daemon=True).start()
        try:
            line = lines.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            raise ServiceError(
                f"The embedded engine was not ready after {START_TIMEOUT_S:g} s.\n{self._tail()}"
            ) from None
        if not line:
            code = self.process.wait()
            raise ServiceError(
                f"The embedded engine did not start ({_exit_reason(code)}).\n{self._tail()}"
            )
        try:
            return json.loads(line)
        except ValueError as error:
            raise ServiceError(
                f"The embedded engine announced itself with {line!r} instead of one line of JSON."
            ) from error

    def _read_output(self, lines: "queue.Queue[bytes]") -> None:
        """Pass on each line, then b'' at the end; a pipe nobody reads would block the engine."""
        assert self.process.stdout
        with self.process.stdout as output:
            for line in output:
                lines.put(line)
        lines.put(b"")

    def _watch(self) -> None:
        """When the engine dies unasked, answer on its port so that no call waits for it."""
        code = self.process.wait()
        if self._stopping:
            return
        text = (
            f"The embedded engine died ({_exit_reason(code)}); training state since the last "
            "checkpoint is lost. Run connect() again to start a new one and continue from that "
            f"checkpoint.\n{self._tail()}"
        )
        port = urllib.parse.urlsplit(self.base_url).port
        assert port
        raise_tombstone(port, self.api_key, text)

    def _tail(self) -> str:
        try:
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            return f"Its log cannot be read: {error}"
        last = "\n".join(text.splitlines()[-LOG_TAIL_LINES:])
        return f"Last lines of its log, {self.log_path}:\n{last or '(empty)'}"


def _new_log_path() -> Path:
    folder = cookbook_home() / "logs"
    name = f"engine-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServiceError(
            f"Cannot write the engine's log to {folder}: {error}. Set COOKBOOK_HOME to a folder "
            "that you can write to."
        ) from error
    return folder / f"{name}-{time.monotonic_ns()}.log"


def _own_group() -> dict[str, Any]:
    """Return the Popen options that keep the terminal's and the kernel's interrupts away."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    if name == "SIGKILL":
        return "killed by SIGKILL, which is also what happens when memory runs out"
    return f"killed by {name}"
