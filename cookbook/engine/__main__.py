"""Start an engine: ``python -m cookbook.engine``.

Prints one JSON line with `base_url`, `api_key` and `pid` on standard output when it is ready; logs
go to standard error. Ends cleanly on SIGTERM and SIGINT.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from cookbook.engine.errors import UserError
from cookbook.engine.runtime import Runtime
from cookbook.engine.scheduler import Scheduler
from cookbook.engine.store import Store
from cookbook.engine.weights import resolve_model
from cookbook.errors import CookbookError
from cookbook.home import cookbook_home

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PARENT_GONE_GRACE_S = 5.0
log = logging.getLogger("cookbook.engine")


class _HttpServer(uvicorn.Server):
    """uvicorn's server without its signal handling, which ends a clean stop with the signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.engine", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free port")
    parser.add_argument("--data-dir", type=Path, help="where checkpoints are kept")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="bundled name, folder or hub id")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--embedded", action="store_true", help="end when standard input closes")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the engine until it is told to stop."""
    options = parse_arguments()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    _on_stop_signals(lambda number, frame: sys.exit(0))  # until the worker computes
    scratch = Path(tempfile.mkdtemp(prefix="cookbook-engine-"))
    try:
        return _serve(options, scratch)
    except (UserError, CookbookError, OSError) as error:
        log.error("%s", error)
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _serve(options: argparse.Namespace, scratch: Path) -> int:
    # The port is taken first: a busy one should not cost the time of loading a model.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.port))
    folder = resolve_model(options.model)
    store = Store(options.data_dir or cookbook_home() / "engine")
    scheduler = Scheduler()
    _on_stop_signals(lambda number, frame: _leave_at_once(scratch))  # until the server is there
    scheduler.start()
    loading = scheduler.compute(
        lambda: Runtime(options.model, folder, store, scratch, options.dtype, options.device)
    )
    # Imported while the weights are loaded, because it takes as long: it brings the SDK's schemas.
    from cookbook.engine.server import application

    runtime = loading.result()
    scheduler.advance_sampling = runtime.advance_sampling
    api_key = f"tml-{secrets.token_hex(16)}"
    app = application(runtime, scheduler, api_key)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=3,
        lifespan="off",
    )
    server = _HttpServer(config)
    _on_stop_signals(server.handle_exit)
    if options.embedded:
        _stop_with_parent(server, scratch)
    ready = {
        "base_url": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "api_key": api_key,
        "pid": os.getpid(),
    }
    log.info("serving %s on %s in %s", options.model, runtime.device, runtime.dtype)
    asyncio.run(_run(server, listener, ready))
    if not scheduler.stop():
        # Leaving by the usual way would abort inside the operation that the worker still computes.
        _leave_at_once(scratch)
    return 0


def _on_stop_signals(handler: Callable[[int, FrameType | None], Any]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _leave_at_once(scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


async def _run(server: uvicorn.Server, listener: socket.socket, ready: dict) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    print(json.dumps(ready), flush=True)
    await serving


def _stop_with_parent(server: uvicorn.Server, scratch: Path) -> None:
    """End with the parent, however it ended: its end of standard input closes, or its id changes.

    The second sign is for a parent whose own forked children keep the pipe open (POSIX only).
    """
    parent = os.getppid()

    def standard_input_closes() -> None:
        # Not through sys.stdin, whose lock this thread would still hold when the process ends.
        while os.read(0, 1024):
            pass

    def parent_changes() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)

    def leave_after(sign: Callable[[], None]) -> None:
        sign()
        server.should_exit = True
        # Work in hand may take long; a child must never outlive its parent by much.
        time.sleep(PARENT_GONE_GRACE_S)
        _leave_at_once(scratch)

    for sign in (standard_input_closes, parent_changes):
        threading.Thread(target=leave_after, args=(sign,), name=sign.__name__, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
